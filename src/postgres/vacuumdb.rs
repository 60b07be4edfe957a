//! vacuumdb(1).

use super::{Connection, HOME};
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

/// The same, of all databases.
pub fn analyze_all(connection: &Connection, jobs: usize) -> Call {
    Call::new(
        "vacuumdb",
        [
            "--all".to_owned(),
            "--analyze-only".to_owned(),
            "--quiet".to_owned(),
            "--no-password".to_owned(),
            format!("--jobs={jobs}"),
            "--maintenance-db".to_owned(),
            connection.conninfo_for_analyzing(HOME),
        ],
    )
}

/// The same while others use them: coarse ones of all tables first, for they make the greatest difference. Where
/// `missing_only`, tables that have some are left alone.
pub fn analyze_in_stages(connection: &Connection, jobs: usize, missing_only: bool) -> Call {
    let mut call = Call::new(
        "vacuumdb",
        [
            "--all".to_owned(),
            "--analyze-in-stages".to_owned(),
            "--quiet".to_owned(),
            "--no-password".to_owned(),
            format!("--jobs={jobs}"),
            "--maintenance-db".to_owned(),
            connection.conninfo_for_analyzing(HOME),
        ],
    );
    call.arguments.extend(missing_only.then(|| "--missing-stats-only".into()));
    call
}
