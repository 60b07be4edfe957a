//! Rows of unlogged tables, which no standby gets (CREATE TABLE, `UNLOGGED`). Synapse keeps the locks of its workers in such.

use std::time::Duration;

use indicatif::DecimalBytes;

use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Session, pg_dump};
use crate::runtime::output_without_warnings;
use crate::upgrade::choice::MUCH;

/// The rows, as SQL, by database. A crash would have emptied the tables: there are few, and they are small.
pub(super) struct Unlogged(Vec<(String, Vec<u8>)>);

/// The clients have gone: whoever holds a lock now is somebody who may hold it for long, and users wait.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Partitions are tables themselves.
const TABLES: &str =
    "SET lock_timeout = '10s'; SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname)), '[]')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE relpersistence = 'u' AND (relkind = 'S' OR relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) > 0);";

const BYTES: &str = "SET lock_timeout = '10s';
    SELECT pg_catalog.to_json(coalesce(pg_catalog.sum(pg_catalog.pg_table_size(oid)), 0)::bigint)
    FROM pg_catalog.pg_class WHERE relpersistence = 'u' AND relkind = 'r';";

/// Triggers of DDL do not fire.
const BY_ITSELF: &str = "SET session_replication_role = replica;\n";

/// There may have been few when the copy was begun, hours ago.
///
/// # Errors
/// [`Kind::NotWell`].
pub(super) fn require_few(session: &Session<'_>) -> Result<()> {
    for database in postgres::databases(session)?.into_iter().map(|database| database.name) {
        let bytes: u64 = session.query(&database, BYTES).map_err(|error| locked(error, &database))?;
        if bytes > MUCH {
            let message = format!(
                "unlogged tables of database {database:?} hold {} by now: users would wait for their rows",
                DecimalBytes(bytes)
            );
            return Err(Error::new(Kind::NotWell, message)
                .hint("ALTER TABLE … SET LOGGED, for those that are meant to last"));
        }
    }
    Ok(())
}

impl Unlogged {
    /// Reads them from all databases of a server whose clients have gone: there may be more than when the copy was begun.
    pub(super) fn read(session: &Session<'_>) -> Result<Self> {
        let mut found = Vec::new();
        for database in postgres::databases(session)?.into_iter().map(|database| database.name) {
            let tables: Vec<String> =
                session.query(&database, TABLES).map_err(|error| locked(error, &database))?;
            if !tables.is_empty() {
                let call = pg_dump::rows_of(session.connection, &database, &tables, LOCK_TIMEOUT);
                let command = session.runtime.command(session.major, &call)?;
                // Such as that of circular foreign keys, which do not matter with triggers disabled.
                let rows = output_without_warnings(command, &format!("pg_dump of {database:?}"))
                    .map_err(|error| locked(error, &database))?;
                found.push((database, rows));
            }
        }
        Ok(Self(found))
    }

    /// Writes them into the same tables of another server, where they are empty.
    pub(super) fn write(&self, session: &Session<'_>) -> Result<()> {
        for (database, sql) in &self.0 {
            session.load(database, &[BY_ITSELF.as_bytes(), sql].concat()).map_err(|error| {
                error.context(format!(
                    "the rows of unlogged tables of database {database:?} could not be carried over"
                ))
            })?;
        }
        Ok(())
    }
}

fn locked(error: Error, database: &str) -> Error {
    let text = error.report();
    match text.contains("lock timeout") {
        true => error
            .context(format!(
                "somebody who is not stopped has locked an unlogged table of database {database:?}"
            ))
            .hint("matrix-postgres-upgrade check says who is connected"),
        false => error,
    }
}
