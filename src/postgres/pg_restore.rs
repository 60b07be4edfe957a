//! pg_restore(1).

use std::path::Path;

use super::{Connection, HELPERS};
use crate::runtime::Call;

/// Reads a custom dump from standard input to its end and prints the rows as SQL: what a restore would
/// send, without the definitions. Function bodies, which may contain anything, are not among it.
pub fn read_rows() -> Call {
    Call::new("pg_restore", ["--section=data", "--file=-"]).with_bulk_output()
}

/// Where objects of a dump may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tablespaces {
    /// In those that the dump names.
    AsDumped,
    /// In the database's own.
    Default,
}

/// What of a dump is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Everything,
    /// Definitions of what may hold rows.
    Definitions,
    /// Rows.
    Rows,
    /// All rows of all tables that are on standard input, or after an error none of them.
    RowsOrNone,
    /// Values of sequences, indexes, constraints, triggers; those of them that a list on standard input names.
    Listed,
    /// The same of definitions of what may hold rows.
    ListedDefinitions,
}

/// Restores a part of a custom dump over a connection: of the one in `file`, by `jobs` connections at the same time, or of one
/// on standard input. The first error ends it where there are rows; else the other entries are restored.
pub fn restore(conninfo: String, part: Part, file: Option<(&Path, usize)>, tablespaces: Tablespaces) -> Call {
    let mut call = Call::new("pg_restore", ["--no-password".to_owned(), "--dbname".to_owned(), conninfo]);
    let mut add = |argument: &str| call.arguments.push(argument.into());
    match part {
        Part::Everything | Part::Rows => add("--exit-on-error"),
        // It ends at the first error, too.
        Part::RowsOrNone => add("--single-transaction"),
        // Which entry failed, it says in its verbose messages only.
        Part::Definitions | Part::ListedDefinitions | Part::Listed => add("--verbose"),
    }
    match part {
        Part::Everything => {}
        Part::Definitions => add("--section=pre-data"),
        Part::Rows | Part::RowsOrNone => add("--section=data"),
        Part::ListedDefinitions => {
            ["--section=pre-data", "--use-list=/dev/stdin"].into_iter().for_each(&mut add);
        }
        Part::Listed => {
            ["--section=data", "--section=post-data", "--use-list=/dev/stdin"].into_iter().for_each(&mut add);
        }
    }
    if tablespaces == Tablespaces::Default {
        add("--no-tablespaces");
    }
    if let Some((file, jobs)) = file {
        add(&format!("--jobs={jobs}"));
        call.arguments.push(file.into());
    }
    call
}

/// Restores those entries of the custom dump on standard input that the list in `list` names. The first error ends it.
pub fn listed(connection: &Connection, database: &str, list: &Path) -> Call {
    let mut call = Call::new(
        "pg_restore",
        [
            "--exit-on-error",
            "--no-password",
            "--dbname",
            &connection.conninfo_for_loading(database, HELPERS),
            "--use-list",
        ],
    );
    call.arguments.push(list.into());
    call
}

/// Makes the database that the custom dump in `file` is of, with those of its entries that a list on standard input names;
/// `by_way_of` is another database. One of that name is replaced, if asked for: a new cluster has `postgres` and `template1`.
/// The first error ends it.
pub fn create(connection: &Connection, by_way_of: &str, file: &Path, replace: bool) -> Call {
    let mut call = creating(connection, by_way_of, replace);
    call.arguments.extend(["--exit-on-error".into(), "--use-list=/dev/stdin".into(), file.into()]);
    call
}

/// The same from a custom dump on standard input, all of it, as far as it goes: every entry that the server refuses is told
/// when it is met.
pub fn create_as_far_as_it_goes(connection: &Connection, by_way_of: &str, replace: bool) -> Call {
    let mut call = creating(connection, by_way_of, replace);
    // Which entry failed, it says in its verbose messages only.
    call.arguments.push("--verbose".into());
    call
}

fn creating(connection: &Connection, by_way_of: &str, replace: bool) -> Call {
    let conninfo = connection.conninfo_for_loading(by_way_of, HELPERS);
    let mut call = Call::new("pg_restore", ["--no-password", "--create", "--dbname", &conninfo]);
    if replace {
        call.arguments.extend(["--clean".into(), "--if-exists".into()]);
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_ends_a_restore_but_not_that_of_single_entries() {
        let connection = Connection::new(Path::new("/s"), 1, "u");
        let file = Some((Path::new("/f"), 3));
        let conninfo = || connection.conninfo_for_loading("d", 1);
        for part in [Part::Everything, Part::Definitions, Part::ListedDefinitions, Part::Rows, Part::Listed] {
            let call = restore(conninfo(), part, file, Tablespaces::Default);
            let ends = call.arguments.contains(&"--exit-on-error".into());
            assert_eq!(ends, matches!(part, Part::Everything | Part::Rows), "{part:?}");
        }
        let call = restore(conninfo(), Part::Listed, file, Tablespaces::Default);
        let text: Vec<_> = call.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        assert_eq!(text[..2], ["--no-password", "--dbname"]);
        assert!(text[2].contains("synchronous_commit=off"), "{text:?}");
        assert_eq!(
            text[3..],
            [
                "--verbose",
                "--section=data",
                "--section=post-data",
                "--use-list=/dev/stdin",
                "--no-tablespaces",
                "--jobs=3",
                "/f"
            ]
        );
    }
}
