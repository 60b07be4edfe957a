//! pg_dump(1) and pg_dumpall(1).

use std::path::Path;
use std::time::Duration;

use super::{Connection, HOME};
use crate::runtime::Call;

/// What kind of file pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupFormat {
    /// pg_dump's custom format, for pg_restore.
    Custom,
    /// SQL, for psql.
    Plain,
}

/// One database to standard output. It leaves pg_dump uncompressed: our codec has all processors, and
/// pg_dump itself is the slowest part.
pub fn database(
    connection: &Connection,
    database: &str,
    format: BackupFormat,
    exclude_table_data: &[String],
    lock_timeout: Duration,
) -> Call {
    let mut arguments = vec![
        "--no-password".to_owned(),
        format!("--lock-wait-timeout={}", lock_timeout.as_millis()),
        "--dbname".to_owned(),
        connection.conninfo(database),
    ];
    match format {
        BackupFormat::Custom => arguments.extend(["--format=custom".into(), "--compress=0".into()]),
        BackupFormat::Plain => arguments.push("--format=plain".into()),
    }
    arguments.extend(exclude_table_data.iter().map(|pattern| format!("--exclude-table-data={pattern}")));
    Call::new("pg_dump", arguments).with_bulk_output()
}

/// One database into the new directory `target`, by `jobs` connections at the same time. It is not compressed: it is
/// read back at once.
pub fn directory(connection: &Connection, database: &str, jobs: usize, target: &Path) -> Call {
    let mut call = Call::new(
        "pg_dump",
        [
            "--no-password".to_owned(),
            "--format=directory".to_owned(),
            "--compress=0".to_owned(),
            "--no-sync".to_owned(),
            format!("--jobs={jobs}"),
            "--dbname".to_owned(),
            connection.conninfo(database),
            "--file".to_owned(),
        ],
    );
    call.arguments.push(target.into());
    call
}

/// All of one database but its rows, in the custom format on standard output; with the numbers of its objects as pg_upgrade
/// dumps it, if `numbered`.
pub fn schema(connection: &Connection, database: &str, lock_timeout: Duration, numbered: bool) -> Call {
    let mut call = Call::new(
        "pg_dump",
        [
            "--schema-only",
            "--format=custom",
            "--compress=0",
            "--no-password",
            &format!("--lock-wait-timeout={}", lock_timeout.as_millis()),
            "--dbname",
            &connection.conninfo(database),
        ],
    );
    if numbered {
        call.arguments.extend(NUMBERED.map(Into::into));
    }
    call
}

/// As pg_upgrade calls pg_dump and pg_dumpall.
const NUMBERED: [&str; 2] = ["--binary-upgrade", "--quote-all-identifiers"];

/// Roles as pg_upgrade dumps them.
pub fn globals_numbered(connection: &Connection, lock_timeout: Duration) -> Call {
    let mut call = globals(connection, lock_timeout);
    call.arguments.extend(NUMBERED.map(Into::into));
    call
}

/// Roles with their passwords, memberships and settings, and tablespaces, as SQL to standard output. Only superusers see
/// passwords.
pub fn globals(connection: &Connection, lock_timeout: Duration) -> Call {
    let mut call = Call::new(
        "pg_dumpall",
        [
            "--globals-only".to_owned(),
            "--no-password".to_owned(),
            format!("--lock-wait-timeout={}", lock_timeout.as_millis()),
            "--dbname".to_owned(),
            connection.conninfo(HOME),
        ],
    );
    call.arguments.extend((!connection.is_superuser()).then(|| "--no-role-passwords".into()));
    by_way_of_home(call, connection)
}

/// By itself it tries `postgres` and `template1` only.
fn by_way_of_home(mut call: Call, connection: &Connection) -> Call {
    let home = connection.resolve(HOME);
    call.arguments.extend((home != HOME).then(|| format!("--database={home}").into()));
    call
}

/// The same of a server that is compared with another one.
pub fn globals_for_comparison(connection: &Connection) -> Call {
    let call = Call::new(
        "pg_dumpall",
        ["--globals-only", "--no-password", "--dbname", &connection.conninfo_for_comparison(HOME)],
    );
    by_way_of_home(call, connection)
}

/// One database as a whole and all that it holds but rows, as SQL to standard output, to be compared with that of
/// another server. Where things are stored is left out.
pub fn schema_for_comparison(connection: &Connection, database: &str) -> Call {
    Call::new(
        "pg_dump",
        [
            "--schema-only",
            "--create",
            "--no-tablespaces",
            "--encoding=UTF8",
            "--no-password",
            "--dbname",
            &connection.conninfo_for_comparison(database),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: &Call) -> String {
        call.arguments.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_of_no_database_is_dumped_by_way_of_one_that_is_there() {
        let connection = Connection::new(Path::new("/s"), 5432, "postgres");
        let call = || text(&globals(&connection, Duration::from_secs(2)));
        assert!(!call().contains("--database="), "{}", call());
        connection.stand_in("homeserver");
        assert!(call().ends_with("--database=homeserver"), "{}", call());
    }

    #[test]
    fn a_custom_dump_leaves_out_rows_but_not_tables_and_is_not_compressed() {
        let connection = Connection::new(Path::new("/s"), 5432, "postgres");
        let patterns = ["*.e2e_one_time_keys_json".to_owned()];
        let call = database(&connection, "a b", BackupFormat::Custom, &patterns, Duration::from_secs(2));
        let text = text(&call);
        assert!(text.contains("--format=custom --compress=0"), "{text}");
        assert!(text.contains("--exclude-table-data=*.e2e_one_time_keys_json"), "{text}");
        assert!(text.contains("--lock-wait-timeout=2000"), "{text}");
        assert!(text.contains("dbname='a b'"), "{text}");
    }
}
