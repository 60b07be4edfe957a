//! vacuumdb(1).

use super::Connection;
use crate::error::{Kind, Result};
use crate::runtime::Call;

/// Gathers the planner's statistics of a whole database, by `jobs` connections at the same time.
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
            let hint = "to gather the rest: matrix-postgres-cli -c 'ANALYZE', in each database";
            let error = if error.hint_text().is_some() { error } else { error.hint(hint) };
            log::warn!("not all statistics were gathered: {}", error.report());
            Ok(())
        }
        gathered => gathered,
    }
}

/// The same while others use it: coarse ones of all tables first, for they make the greatest difference. Where
/// `missing_only`, tables that have some are left alone.
pub fn analyze_in_stages(connection: &Connection, database: &str, jobs: usize, missing_only: bool) -> Call {
    let mut call = analyze(connection, database, jobs);
    call.arguments[0] = "--analyze-in-stages".into();
    call.arguments.extend(missing_only.then(|| "--missing-stats-only".into()));
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn stages_take_the_place_of_everything_at_once() {
        let connection = Connection::new(Path::new("/s"), 1, "u");
        let (all, staged) = (analyze(&connection, "d", 2), analyze_in_stages(&connection, "d", 2, true));
        assert_eq!(all.arguments[0], "--analyze-only");
        assert_eq!(staged.arguments[0], "--analyze-in-stages");
        assert_eq!(staged.arguments[1..all.arguments.len()], all.arguments[1..]);
        assert_eq!(staged.arguments.last().unwrap(), "--missing-stats-only");
    }
}
