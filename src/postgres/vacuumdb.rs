//! vacuumdb(1).

use super::Connection;
use crate::error::{Kind, Result};
use crate::runtime::Call;

/// Gathers the planner's statistics of a whole database, by `jobs` connections at the same time. Never of all databases in
/// one go: that ends at the first that fails.
pub fn analyze(connection: &Connection, database: &str, jobs: usize) -> Call {
    Call::new(
        "vacuumdb",
        [
            "--analyze-only".to_owned(),
            "--quiet".to_owned(),
            "--no-password".to_owned(),
            format!("--jobs={jobs}"),
            "--dbname".to_owned(),
            connection.conninfo_for_analyzing(database),
        ],
    )
}

/// Without statistics everything is there, and slower. They cannot be gathered where a table inherits to a foreign one whose
/// server is out of reach, or has a wrapper that does nothing.
///
/// # Errors
/// Those that are no failure of the program.
pub fn only_warn(gathered: Result<()>) -> Result<()> {
    match gathered {
        Err(error) if error.kind() == Kind::Program => {
            let hint = "matrix-postgres-cli -c 'ANALYZE', in each database, gathers what can be";
            log::warn!("not all statistics were gathered: {}", error.hint(hint).report());
            Ok(())
        }
        gathered => gathered,
    }
}

/// The same while others use them: coarse ones of all tables first, for they make the greatest difference. Where
/// `missing_only`, tables that have some are left alone.
pub fn analyze_in_stages(connection: &Connection, database: &str, jobs: usize, missing_only: bool) -> Call {
    let mut call = analyze(connection, database, jobs);
    call.arguments[0] = "--analyze-in-stages".into();
    call.arguments.extend(missing_only.then(|| "--missing-stats-only".into()));
    call
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_database_that_fails_keeps_no_other_from_having_statistics() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "postgres");
        let whole = analyze(&connection, "d", 2).arguments;
        let staged = analyze_in_stages(&connection, "d", 2, true).arguments;
        for arguments in [&whole, &staged] {
            // With --all, it ends at the first.
            assert!(!arguments.iter().any(|argument| argument == "--all"), "{arguments:?}");
            assert!(arguments.iter().any(|argument| argument.to_string_lossy().contains("dbname='d'")));
        }
        assert!(!whole.iter().any(|argument| argument == "--analyze-in-stages"), "{whole:?}");
        assert!(staged.iter().any(|argument| argument == "--analyze-in-stages"), "{staged:?}");
        assert!(!staged.iter().any(|argument| argument == "--analyze-only"), "{staged:?}");
        assert_eq!(staged.last().map(|last| last.to_string_lossy()), Some("--missing-stats-only".into()));
    }
}
