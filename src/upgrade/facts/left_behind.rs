//! What no upgrade carries over.

use crate::error::{Error, Kind, Result};
use crate::postgres::{self, HOME, Session};

/// Asks again, of a server that nobody else reaches any more, what the check has asked: nothing of it is carried over, and
/// nothing else would tell.
///
/// # Errors
/// [`Kind::NotWell`].
pub fn require_nothing_left_behind(old: &Session<'_>) -> Result<()> {
    let refuse = |message: String, hint: &str| Err(Error::new(Kind::NotWell, message).hint(hint));
    let (prepared, tablespaces): (Vec<String>, Vec<String>) = old.query(HOME, LEFT_BEHIND)?;
    if !prepared.is_empty() {
        return refuse(
            format!("prepared transactions exist: {}", prepared.join(", ")),
            "matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_prepared_xacts', then COMMIT or ROLLBACK PREPARED",
        );
    }
    if !tablespaces.is_empty() {
        return refuse(
            format!("tablespaces were created meanwhile: {}", tablespaces.join(", ")),
            "move their tables: ALTER TABLE … SET TABLESPACE pg_default; then DROP TABLESPACE",
        );
    }
    match postgres::closed_databases(old)?.into_iter().next() {
        Some((name, reason)) => {
            refuse(format!("database {name:?} cannot be migrated: {reason}"), "matrix-postgres-upgrade check")
        }
        None => Ok(()),
    }
}

/// Names are quoted, for they may be anything.
const LEFT_BEHIND: &str = "SELECT pg_catalog.json_build_array(
    (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%L of database %I', gid, database)), '[]') FROM pg_catalog.pg_prepared_xacts),
    (SELECT coalesce(pg_catalog.json_agg(spcname), '[]') FROM pg_catalog.pg_tablespace
        WHERE spcname NOT IN ('pg_default', 'pg_global')));";
