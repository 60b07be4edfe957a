//! Whether clients have written to the new cluster: until they have, a return to the old one loses nothing.

use std::collections::{BTreeMap, BTreeSet};

use std::fmt;

use jiff::Timestamp;

use super::journal::Entry;
use crate::config::Settings;
use crate::error::Result;
use crate::postgres::{self, Connection, Session};
use crate::runtime::Runtime;

/// Rows that were inserted, changed or removed, by database and table.
pub type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// Since statistics were last reset; a crash resets them (chapter "The Cumulative Statistics System").
const COUNTERS: &str =
    "SELECT coalesce(pg_catalog.json_object_agg(pg_catalog.format('%I.%I', schemaname, relname),
        n_tup_ins + n_tup_upd + n_tup_del), '{}')
    FROM pg_catalog.pg_stat_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0;";

/// What the server has counted so far.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn counters(session: &Session<'_>) -> Result<Counters> {
    let databases = postgres::databases(session)?;
    databases
        .into_iter()
        .map(|database| Ok((database.name.clone(), session.query(&database.name, COUNTERS)?)))
        .collect()
}

/// The tables that were written to in between, `database: table` each, the most rows first. What a homeserver notes down at its own start
/// is not among them: nobody misses it.
pub fn since(before: &Counters, now: &Counters) -> Vec<String> {
    let count = |counters: &Counters, database: &String, table: &String| {
        counters.get(database).and_then(|tables| tables.get(table)).copied().unwrap_or(0)
    };
    let counted = [before, now].into_iter().flatten();
    let names = counted.flat_map(|(database, tables)| tables.keys().map(move |table| (database, table)));
    let names: BTreeSet<_> = names.filter(|(_, table)| !BOOKKEEPING.contains(&table.as_str())).collect();
    // Less than before: counted anew after a crash, so that nothing is known of what went before.
    let change = |(database, table)| count(now, database, table).abs_diff(count(before, database, table));
    let mut written: Vec<_> =
        names.into_iter().map(|name| (change(name), name)).filter(|(rows, _)| *rows > 0).collect();
    written.sort_by_key(|(rows, _)| std::cmp::Reverse(*rows));
    written.into_iter().map(|(_, (database, table))| format!("{database}: {table}")).collect()
}

/// What a return to the old cluster would lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: no client has written.
    Nothing,
    /// What was written to these tables since then.
    Written(Timestamp, Vec<String>),
    /// The server does not say; since then it may have been written to.
    Unknown(Timestamp),
}

/// Asks the running server what has been written since an upgrade.
pub fn loss(settings: &Settings, runtime: &dyn Runtime, entry: &Entry) -> Loss {
    let since_when = entry.clients_started.unwrap_or(entry.since);
    let Settings { socket_directory, server, .. } = settings;
    let connection = Connection::new(socket_directory, server.port, &server.superuser).to_server(entry.to);
    let session = Session { runtime, major: entry.to, connection: &connection };
    match (&entry.written_before, counters(&session)) {
        (Some(before), Ok(now)) => match since(before, &now) {
            tables if tables.is_empty() => Loss::Nothing,
            tables => Loss::Written(since_when, tables),
        },
        _ => Loss::Unknown(since_when),
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "no client has written since the upgrade: nothing is lost"),
            Self::Written(since, tables) => {
                write!(
                    f,
                    "what was written since {since:.0} is not in the old data directory, and users would miss it"
                )?;
                write!(f, " ({} tables", tables.len())?;
                for table in tables.iter().take(5) {
                    write!(f, ", {table}")?;
                }
                write!(f, ")")
            }
            Self::Unknown(since) => write!(
                f,
                "what was written since {since:.0}, if anything, is not in the old data directory; the server cannot be asked"
            ),
        }
    }
}

/// What Synapse writes without anybody having sent anything.
const BOOKKEEPING: [&str; 16] = [
    "public.applied_schema_deltas",
    "public.background_updates",
    "public.cache_invalidation_stream_by_instance",
    "public.delayed_events_stream_pos",
    "public.device_lists_changes_converted_stream_position",
    "public.instance_map",
    "public.presence_stream",
    "public.scheduled_tasks",
    "public.schema_compat_version",
    "public.schema_version",
    "public.stream_positions",
    "public.timeout",
    "public.user_daily_visits",
    "public.worker_locks",
    "public.worker_read_write_locks",
    "public.worker_read_write_locks_mode",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(tables: &[(&str, u64)]) -> Counters {
        let tables = tables.iter().map(|(table, count)| ((*table).to_owned(), *count)).collect();
        BTreeMap::from([("homeserver".to_owned(), tables)])
    }

    #[test]
    fn a_message_counts_and_the_start_of_a_homeserver_does_not() {
        let before = counted(&[("public.events", 100), ("public.worker_locks", 1)]);
        assert!(since(&before, &before).is_empty());
        assert!(since(&before, &counted(&[("public.events", 100), ("public.worker_locks", 5)])).is_empty());
        let now = counted(&[("public.events", 101), ("public.users", 7)]);
        assert_eq!(since(&before, &now), ["homeserver: public.users", "homeserver: public.events"]);
    }

    #[test]
    fn counters_that_began_anew_are_no_proof_of_silence() {
        assert_eq!(since(&counted(&[("public.events", 100)]), &counted(&[("public.events", 1)])).len(), 1);
        assert_eq!(since(&counted(&[("public.events", 100)]), &counted(&[])).len(), 1);
    }
}
