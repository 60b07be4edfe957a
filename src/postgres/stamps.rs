//! Stamps of columns. Since their minor versions of November 2026 (17.12), servers write into a column's options when
//! it got its type, as `pg_attver`. Programs of an older minor version take that for an option of the user's, and
//! servers of one refuse it: a pg_dump 18.6 of a server 17.12 cannot be restored on 18.6.

use super::{HOME, Session};
use crate::error::Result;

/// The option's name.
pub const OPTION: &str = "pg_attver";

/// Whether the columns of anything that is the user's are stamped in this database.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn are_in(session: &Session<'_>, database: &str) -> Result<bool> {
    session.query(database, &query(">="))
}

/// Whether the server that initdb has made this cluster with stamps columns: those of its own views, too.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn are_known(session: &Session<'_>) -> Result<bool> {
    session.query(HOME, &query("<"))
}

/// Removes them from a database of a server that is not used any more. Statistics that may hold rows of composite types go
/// with them, and are gathered anew afterwards: this server does not read such a row without its stamps ("using outdated tuple
/// descriptor"), and since 18 pg_upgrade's pg_dump reads all statistics.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn remove(session: &Session<'_>, database: &str) -> Result<()> {
    let sql = format!(
        "UPDATE pg_catalog.pg_attribute SET attoptions = (SELECT pg_catalog.array_agg(option) FROM pg_catalog.unnest(attoptions) AS option
            WHERE NOT pg_catalog.starts_with(option, '{OPTION}='))
        WHERE attrelid >= 16384 AND EXISTS (SELECT FROM pg_catalog.unnest(attoptions) AS option
            WHERE pg_catalog.starts_with(option, '{OPTION}='));
        DELETE FROM pg_catalog.pg_statistic USING pg_catalog.pg_attribute
            WHERE starelid = attrelid AND staattnum = attnum AND attrelid >= 16384 AND atttypid >= 16384;
        DELETE FROM pg_catalog.pg_statistic_ext_data USING pg_catalog.pg_statistic_ext e
            WHERE stxoid = e.oid AND EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = stxrelid AND atttypid >= 16384);"
    );
    session.execute(database, &sql)
}

/// Of relations that are the user's, or of those of initdb (`FirstNormalObjectId`).
fn query(compared: &str) -> String {
    format!(
        "SELECT pg_catalog.to_json(EXISTS (SELECT FROM pg_catalog.pg_attribute, pg_catalog.unnest(attoptions) AS option
            WHERE pg_catalog.starts_with(option, '{OPTION}=') AND attrelid {compared} 16384));"
    )
}
