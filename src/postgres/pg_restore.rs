//! pg_restore(1).

use std::path::Path;

use super::Connection;
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

/// Restores the custom dump in `file` into a database that is empty, by `jobs` connections at the same time.
/// The first error ends it.
pub fn restore(
    connection: &Connection,
    database: &str,
    file: &Path,
    jobs: usize,
    tablespaces: Tablespaces,
) -> Call {
    let mut call = Call::new(
        "pg_restore",
        [
            "--exit-on-error".to_owned(),
            "--no-password".to_owned(),
            format!("--jobs={jobs}"),
            "--dbname".to_owned(),
            connection.conninfo_for_loading(database),
        ],
    );
    if tablespaces == Tablespaces::Default {
        call.arguments.push("--no-tablespaces".into());
    }
    call.arguments.push(file.into());
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_ends_a_restore() {
        let connection = Connection::new(Path::new("/s"), 1, "u");
        let call = restore(&connection, "d", Path::new("/f"), 3, Tablespaces::Default);
        let text: Vec<_> = call.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        assert_eq!(text[..3], ["--exit-on-error", "--no-password", "--jobs=3"]);
        assert_eq!(text[5..], ["--no-tablespaces", "/f"]);
        assert!(text[4].contains("synchronous_commit=off"), "{text:?}");
    }
}
