//! Rows of unlogged tables, which no standby gets (CREATE TABLE, `UNLOGGED`). Synapse keeps the locks of its workers in such.

use crate::error::Result;
use crate::postgres::{Session, pg_dump};
use crate::runtime::output_without_warnings;

/// The rows, as SQL, by database. A crash would have emptied the tables: there are few, and they are small.
pub(super) struct Unlogged(Vec<(String, Vec<u8>)>);

/// Partitions are tables themselves.
const TABLES: &str = "SELECT coalesce(json_agg(format('%I.%I', nspname, relname)), '[]')
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relpersistence = 'u' AND (relkind = 'S' OR relkind = 'r' AND pg_relation_size(c.oid) > 0);";

impl Unlogged {
    /// Reads them from these databases of a server whose clients have gone.
    pub(super) fn read(session: &Session<'_>, databases: &[String]) -> Result<Self> {
        let mut found = Vec::new();
        for database in databases {
            let tables: Vec<String> = session.query(database, TABLES)?;
            if !tables.is_empty() {
                let call = pg_dump::rows_of(session.connection, database, &tables);
                let command = session.runtime.command(session.major, &call)?;
                // Such as that of circular foreign keys, which do not matter with triggers disabled.
                let rows = output_without_warnings(command, &format!("pg_dump of {database:?}"))?;
                found.push((database.clone(), rows));
            }
        }
        Ok(Self(found))
    }

    /// Writes them into the same tables of another server, where they are empty.
    pub(super) fn write(&self, session: &Session<'_>) -> Result<()> {
        for (database, sql) in &self.0 {
            session.load(database, sql).map_err(|error| {
                error.context(format!(
                    "the rows of unlogged tables of database {database:?} could not be carried over"
                ))
            })?;
        }
        Ok(())
    }
}
