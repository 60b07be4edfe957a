//! pg_amcheck(1), since PostgreSQL 14: whether tables and their indexes are what their structure says.

use super::{Connection, HOME};
use crate::runtime::Call;

/// Checks all databases. It installs the extension `amcheck` where it is missing: only for a cluster that is thrown
/// away.
pub fn all(connection: &Connection, jobs: usize) -> Call {
    Call::new(
        "pg_amcheck",
        [
            "--all".to_owned(),
            "--install-missing=pg_catalog".to_owned(),
            "--no-strict-names".to_owned(),
            "--no-password".to_owned(),
            format!("--jobs={jobs}"),
            format!("--maintenance-db={}", connection.conninfo_for_extending(HOME)),
        ],
    )
}
