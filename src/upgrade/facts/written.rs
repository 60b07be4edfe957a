//! What a return to the old cluster would lose: what was written to the new one since others than us were let in.
//!
//! A row bears the transaction that has written it (chapter "System Columns"), and a crash does not change that, as it does
//! what the server has counted. Counters tell of rows that were removed.

use std::fmt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use crate::config::Settings;
use crate::error::Result;
use crate::postgres::{self, Connection, HOME, PLANNING_CALLS, Session};
use crate::runtime::{Runtime, together};
use crate::upgrade::records::{Census, Entry, Position};

/// How long all tables may take to be read through.
const BUDGET: Duration = Duration::from_secs(60);

/// How long one of them may.
const EACH: Duration = Duration::from_secs(10);

impl Census {
    /// Takes it of a server that nobody else is in.
    ///
    /// # Errors
    /// [`crate::Kind::Server`].
    pub fn take(session: &Session<'_>) -> Result<Self> {
        let shared = session.query(HOME, COUNTED)?;
        let names = postgres::databases(session)?.into_iter().map(|database| database.name);
        let databases = names.map(|name| session.query(&name, COUNTS).map(|counts| (name, counts)));
        Ok(Self { shared, databases: databases.collect::<Result<_>>()? })
    }

    /// Takes it while other work is done in the same server; nothing, with a warning, if that is not possible.
    pub fn beside<T>(session: &Session<'_>, work: impl FnOnce() -> T) -> (T, Option<Self>) {
        let (taken, done) = together(|| Self::take(session), work);
        let taken = taken.inspect_err(|error| log::warn!("rows could not be counted: {error}"));
        (done, taken.ok())
    }
}

/// What a return to the old cluster would lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Since when.
    pub since: Timestamp,
    /// Why it is not known, if so.
    pub unknown: Option<String>,
    /// Whether no transaction at all has written.
    pub nothing: bool,
    /// Rows by table, the most first.
    pub tables: Vec<Table>,
    /// Whatever else has changed, a sentence each.
    pub others: Vec<String>,
    /// Databases in which sequences have moved. A homeserver's do at its start; without a row nobody misses that.
    pub sequences: Vec<String>,
}

/// What was written to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// In which database.
    pub database: String,
    /// Its name, quoted as SQL where it must be.
    pub name: String,
    /// Rows that were inserted or changed; nothing if they could not be counted in time.
    pub rows: Option<u64>,
    /// Rows that were removed, as far as the server has counted.
    pub removed: u64,
}

/// Asks the running server what has been written since an upgrade.
pub fn loss(settings: &Settings, runtime: &dyn Runtime, entry: &Entry) -> Loss {
    let opened = entry.opened.as_ref();
    let since = opened.map(|opened| opened.at).or(entry.clients_started).unwrap_or(entry.since);
    let Settings { socket_directory, server, .. } = settings;
    let connection =
        Connection::new(socket_directory, server.port, &server.superuser).to_server(entry.upgrade.to);
    let session = Session { runtime, major: entry.upgrade.to, connection: &connection };
    let mut loss = Loss {
        since,
        unknown: None,
        nothing: false,
        tables: Vec::new(),
        others: Vec::new(),
        sequences: Vec::new(),
    };
    let Some(position) = opened.and_then(|opened| opened.position.as_ref()) else {
        loss.unknown = Some(match entry.upgrade.by_playbook {
            true => format!(
                "the playbook's upgrade has recorded no position{}",
                events(&session, &server.database, since)
            ),
            false => "the position was not recorded".to_owned(),
        });
        return loss;
    };
    if let Err(error) = look(&session, position, entry.census.as_ref(), &mut loss) {
        loss.unknown = Some(error.to_string());
    }
    loss
}

/// How many events a homeserver has received since then, of what it says itself; nothing where that is not known.
fn events(session: &Session<'_>, database: &str, since: Timestamp) -> String {
    let script =
        EVENTS.replace("CALLS", PLANNING_CALLS).replace("SINCE", &since.as_millisecond().to_string());
    let script =
        format!("SET statement_timeout = '{}s'; SET lock_timeout = '1s';\n{script}", BUDGET.as_secs());
    match session.query::<Option<u64>>(database, &script) {
        Ok(Some(events)) => format!("; the homeserver has received {events} events since then"),
        Ok(None) => String::new(),
        Err(error) => {
            log::debug!("{}", error.report());
            String::new()
        }
    }
}

/// Synapse's table, whose owner can change nothing of it meanwhile: it is asked only if that calls no functions of his.
const EVENTS: &str = "BEGIN;
SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'public' AND tablename = 'events') AS there \\gset
\\if :there
LOCK TABLE ONLY public.events IN SHARE UPDATE EXCLUSIVE MODE;
\\endif
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute ON attrelid = c.oid AND attname = 'received_ts' AND atttypid = 'pg_catalog.int8'::pg_catalog.regtype
    WHERE nspname = 'public' AND relname = 'events' AND relkind = 'r' AND NOT (CALLS)) AS plain \\gset
\\if :plain
SELECT pg_catalog.to_json(pg_catalog.count(*)) FROM ONLY public.events
    WHERE received_ts OPERATOR(pg_catalog.>) 'SINCE'::pg_catalog.int8;
\\else
SELECT 'null';
\\endif
COMMIT;";

fn look(session: &Session<'_>, position: &Position, census: Option<&Census>, loss: &mut Loss) -> Result<()> {
    let xid: String = session.query(
        HOME,
        "SELECT pg_catalog.to_json(pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text);",
    )?;
    if xid == position.xid.to_string() {
        loss.nothing = true;
        return Ok(());
    }
    let newer = newer(position.xid);
    let begun = Instant::now();
    for database in postgres::databases(session)?.into_iter().map(|database| database.name) {
        let found: Vec<Found> = session.query(&database, &tables())?;
        let counted = count(session, &database, &found, &newer, begun);
        for (Found { name, removed, .. }, rows) in found.into_iter().zip(counted) {
            if rows != Some(0) || removed > 0 {
                loss.tables.push(Table { database: database.clone(), name, rows, removed });
            }
        }
        for (what, of) in DEFINITIONS {
            if changed(session, &database, of, &newer)? {
                loss.others.push(format!("{what} of database {database:?}"));
            }
        }
    }
    for (what, of) in SHARED {
        if changed(session, HOME, of, &newer)? {
            loss.others.push(what.to_owned());
        }
    }
    if let Some(before) = census {
        let now = Census::take(session)?;
        loss.others.extend(before.removed(&now));
        loss.sequences = before.moved(&now);
    }
    loss.tables.sort_by_key(|table| std::cmp::Reverse(table.rows.unwrap_or(u64::MAX).max(table.removed)));
    Ok(())
}

/// Rows of this transaction and of later ones, as far as two thousand million of them reach. Those of the time before
/// transactions were counted are old.
fn newer(xid: u64) -> String {
    format!("pg_catalog.age(xmin) BETWEEN 0 AND pg_catalog.age('{}'::xid)", xid % (1 << 32))
}

fn changed(session: &Session<'_>, database: &str, of: &str, newer: &str) -> Result<bool> {
    session.query(
        database,
        &format!("SELECT pg_catalog.to_json(EXISTS (SELECT FROM pg_catalog.{of} AND {newer}));"),
    )
}

/// Rows of each table that are newer. Small ones at once; of the others, nothing of one that takes too long, or is locked, or
/// could not be asked without calling functions of its owner's.
fn count(
    session: &Session<'_>,
    database: &str,
    tables: &[Found],
    newer: &str,
    begun: Instant,
) -> Vec<Option<u64>> {
    let of = |table: &Found| {
        format!("SELECT pg_catalog.to_json(pg_catalog.count(*)) FROM ONLY {} WHERE {newer};\n", table.name)
    };
    let limits = format!("SET statement_timeout = '{}s'; SET lock_timeout = '1s';\n", EACH.as_secs());
    let small: Vec<_> = tables.iter().filter(|table| table.bytes < SMALL && !table.calls).collect();
    let script: String = small.iter().map(|table| of(table)).collect();
    let at_once: Option<Vec<u64>> = session.answers(database, &format!("{limits}{script}")).ok();
    let mut at_once = at_once.filter(|counts| counts.len() == small.len()).map(Vec::into_iter);
    let alone = |table: &Found| {
        let sql = format!("{limits}{}", of(table));
        (begun.elapsed() < BUDGET).then(|| session.query(database, &sql).ok()).flatten()
    };
    let one = |table: &Found| match &mut at_once {
        _ if table.calls => None,
        Some(counts) if table.bytes < SMALL => counts.next(),
        _ => alone(table),
    };
    tables.iter().map(one).collect()
}

/// A user's table.
#[derive(Debug, Deserialize)]
struct Found {
    name: String,
    bytes: u64,
    removed: u64,
    /// Nobody but its owner can ask it without calling functions of his.
    calls: bool,
}

/// Smaller ones are read in no time.
const SMALL: u64 = 16 << 20;

fn tables() -> String {
    format!("SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', pg_catalog.format('%I.%I', n.nspname, c.relname),
        'bytes', coalesce(pg_catalog.pg_relation_size(c.oid), 0), 'removed', coalesce(s.n_tup_del, 0), 'calls', {PLANNING_CALLS})
        ORDER BY c.oid), '[]')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = c.oid
    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_';")
}

/// Removed ones show in a [`Census`] only. Indexes are built anew by an upgrade itself.
const DEFINITIONS: [(&str, &str); 5] = [
    ("definitions", "pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"),
    ("functions", "pg_proc WHERE oid >= 16384"),
    ("schemas", "pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'"),
    ("extensions", "pg_extension WHERE true"),
    ("large objects", "pg_largeobject WHERE true"),
];

const SHARED: [(&str, &str); 4] = [
    ("roles", "pg_authid WHERE true"),
    ("memberships of roles", "pg_auth_members WHERE true"),
    ("databases", "pg_database WHERE true"),
    ("settings of roles and databases", "pg_db_role_setting WHERE true"),
];

/// Kinds of what belongs to no database.
const COUNTED: &str = "SELECT pg_catalog.json_build_object(
    'roles', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_authid),
    'memberships of roles', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_auth_members),
    'databases', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_database),
    'settings of roles and databases', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_db_role_setting));";

/// Objects of users have a number from 16384 on (`FirstNormalObjectId`). Unlogged sequences are not known to be what they
/// were; indexes an upgrade itself makes anew.
const COUNTS: &str = "WITH relations AS (
    SELECT c.oid, nspname, relname, relkind, relpersistence
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE c.oid >= 16384 AND relpersistence <> 't' AND nspname !~ '^pg_')
SELECT pg_catalog.json_build_object(
    'sequences', (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.format('%I.%I %s', nspname, relname,
            pg_catalog.pg_sequence_last_value(oid)), 0)), 0)::text FROM relations WHERE relkind = 'S' AND relpersistence = 'p'),
    'objects', pg_catalog.json_build_object(
        'tables, views and sequences', (SELECT pg_catalog.count(*) FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')),
        'columns', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute JOIN relations r ON r.oid = attrelid
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND attnum > 0 AND NOT attisdropped),
        'constraints', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint
            WHERE oid >= 16384 AND contype IN ('c', 'f', 'p', 'u', 'x') AND (conrelid = 0 OR conrelid IN (SELECT oid FROM relations))),
        'triggers', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger
            WHERE oid >= 16384 AND NOT tgisinternal AND tgrelid IN (SELECT oid FROM relations)),
        'schemas', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'),
        'large objects', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata)));";

impl Loss {
    /// Whether it is known that nobody would miss what was written.
    pub fn is_only_bookkeeping(&self) -> bool {
        let missed = |table: &Table| table.rows.is_none() || !BOOKKEEPING.contains(&table.name.as_str());
        self.nothing || self.unknown.is_none() && self.others.is_empty() && !self.tables.iter().any(missed)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since;
        if self.nothing {
            return write!(f, "nothing has been written since {since:.0}: nothing will be lost");
        }
        let missed = "will be lost";
        if let Some(reason) = &self.unknown {
            return write!(
                f,
                "everything written since {since:.0} {missed}; its amount is unknown: {reason}"
            );
        }
        write!(f, "everything written since {since:.0} {missed}")?;
        let (missed, own): (Vec<_>, Vec<_>) =
            self.tables.iter().partition(|table| !BOOKKEEPING.contains(&table.name.as_str()));
        write!(f, " ({} tables", missed.len())?;
        for table in missed.iter().take(MOST) {
            write!(f, ", {table}")?;
        }
        if missed.len() > MOST {
            write!(f, ", and others")?;
        }
        if !own.is_empty() {
            write!(f, "; internal tables of the homeserver: {}", own.len())?;
        }
        for other in &self.others {
            write!(f, "; {other}")?;
        }
        for database in &self.sequences {
            write!(f, "; sequences of database {database:?}")?;
        }
        write!(f, ")")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.database, self.name)?;
        match self.rows {
            Some(0) => {}
            Some(rows) => write!(f, " {rows} rows")?,
            None => write!(f, " (not counted)")?,
        }
        if self.removed > 0 {
            write!(f, " {} deleted", self.removed)?;
        }
        Ok(())
    }
}

/// So many tables are named.
const MOST: usize = 12;

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
    use crate::upgrade::records::census::Counts;

    fn loss(tables: Vec<(&str, Option<u64>, u64)>) -> Loss {
        let table = |(name, rows, removed): (&str, Option<u64>, u64)| Table {
            database: "homeserver".to_owned(),
            name: name.to_owned(),
            rows,
            removed,
        };
        let tables = tables.into_iter().map(table).collect();
        Loss {
            since: Timestamp::UNIX_EPOCH,
            unknown: None,
            nothing: false,
            tables,
            others: vec![],
            sequences: vec![],
        }
    }

    #[test]
    fn a_message_counts_and_the_start_of_a_homeserver_does_not() {
        let own = ("public.worker_locks", Some(5), 1);
        assert!(loss(vec![own]).is_only_bookkeeping());
        let lost = loss(vec![("public.events", Some(3), 1), ("public.users", None, 0), own]);
        assert!(!lost.is_only_bookkeeping());
        assert!(
            lost.to_string().ends_with(
                "will be lost (2 tables, homeserver: public.events 3 rows 1 deleted, \
                 homeserver: public.users (not counted); internal tables of the homeserver: 1)"
            ),
            "{lost}"
        );
    }

    #[test]
    fn what_is_not_known_is_not_nothing() {
        let unknown = Loss { unknown: Some("no server".into()), ..loss(vec![]) };
        assert!(
            !unknown.is_only_bookkeeping()
                && unknown.to_string().contains("its amount is unknown: no server")
        );
        assert!(!Loss { others: vec!["roles".into()], ..loss(vec![]) }.is_only_bookkeeping());
        assert!(Loss { nothing: true, ..loss(vec![]) }.is_only_bookkeeping());
    }

    #[test]
    fn what_was_removed_is_told_and_what_came_shows_by_its_rows() {
        let census = |roles, tables, sequences: &str| {
            let objects = [("tables".to_owned(), tables)].into();
            let counts = Counts { sequences: sequences.to_owned(), objects };
            Census {
                shared: [("roles".to_owned(), roles)].into(),
                databases: [("hs".to_owned(), counts)].into(),
            }
        };
        let before = census(3, 10, "1");
        assert_eq!(before.removed(&census(4, 11, "2")), Vec::<String>::new());
        assert_eq!(before.moved(&census(4, 11, "2")), ["hs"]);
        assert_eq!(
            before.removed(&census(2, 9, "1")),
            ["deleted roles", "deleted tables of database \"hs\""]
        );
        let moved = Loss { sequences: vec!["hs".into()], ..loss(vec![]) };
        assert!(
            moved.is_only_bookkeeping() && moved.to_string().ends_with("; sequences of database \"hs\")")
        );
    }

    #[test]
    fn numbers_of_transactions_begin_anew_and_are_compared_by_age() {
        assert_eq!(newer((1 << 32) + 745), "pg_catalog.age(xmin) BETWEEN 0 AND pg_catalog.age('745'::xid)");
    }
}
