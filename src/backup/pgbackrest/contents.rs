//! What the databases held at a position of the WAL, so that a trial restore that replays the WAL until there has something to
//! compare with.
//!
//! A restored cluster has everything that was committed before a position. A query sees that, neither more nor less, if no
//! transaction is under way when its snapshot is taken, and if no WAL is written between a look at the position before and one after
//! that. Such an instant is waited for, but not for long: a server that is never idle for a moment is not held up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::backup::rows::Contents;
use crate::error::{Error, Kind, Result};
use crate::files::{self, beneath};
use crate::postgres::{self, Database, HOME, Libraries, PLANNING_CALLS, ServerFacts, Session, literal};
use crate::runtime::interrupt;

/// It is no longer than that.
const LONGEST: u64 = 64 << 20;

/// How long such an instant is waited for, in each database, and how long it is until the next try.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(20);

/// Of each night that is no full backup, so many bytes of tables are counted: it is to be short.
pub const SOME: u64 = 256 << 20;

/// What was found after a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The backup.
    pub label: String,
    /// The server.
    pub server: ServerFacts,
    /// What it loads.
    pub libraries: Libraries,
    /// In the order of their positions.
    pub databases: Vec<Held>,
    /// The names of those that were never idle.
    pub busy: Vec<String>,
    /// The segment of the WAL that ends after all of these positions.
    pub until: Option<String>,
}

/// What a database held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The end of the WAL then, such as `0/5000148`.
    pub lsn: String,
    /// Its properties.
    pub database: Database,
    /// Its extensions.
    pub extensions: Vec<String>,
    /// Rows of tables, and large objects. Sequences are not equal: the WAL has a value that is ahead.
    pub contents: Contents,
}

fn file(directory: &Path) -> PathBuf {
    directory.join(".pgbackrest-contents.json")
}

impl Recorded {
    /// What was recorded of the backup with this label, if anything.
    pub fn load(directory: &Path, label: &str) -> Option<Self> {
        let text = beneath::read(&file(directory), LONGEST).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|recorded| recorded.label == label)
    }

    /// Writes it, in place of that of an earlier backup.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::new(Kind::Bug, "could not write JSON").because(error))?;
        files::replace(&file(directory), &text)
    }

    /// Looks at all databases. Tables are counted as long as they have no more than so many bytes together, the small ones first.
    ///
    /// # Errors
    /// [`Kind::Server`], [`Kind::Interrupted`].
    pub fn gather(session: &Session<'_>, label: &str, server: &ServerFacts, most: u64) -> Result<Self> {
        let mut recorded = Self {
            label: label.to_owned(),
            server: server.clone(),
            libraries: Libraries::gather(session)?,
            databases: Vec::new(),
            busy: Vec::new(),
            until: None,
        };
        let mut left = most;
        for database in postgres::databases(session)? {
            match look(session, &database, &mut left)? {
                Some(held) => recorded.databases.push(held),
                None => recorded.busy.push(database.name),
            }
        }
        // A replay ends before a position only if something comes after it.
        session.execute(HOME, "SELECT pg_catalog.txid_current();")?;
        recorded.until = Some(session.query(
            HOME,
            "SELECT pg_catalog.to_json(pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal()));",
        )?);
        Ok(recorded)
    }
}

/// What is asked first.
#[derive(Debug, Deserialize)]
struct Listed {
    extensions: Vec<String>,
    /// With their bytes, the small ones first.
    tables: Vec<(String, u64)>,
}

/// Ordinary tables that a crash does not empty, without those whose count would call functions of others.
fn list() -> String {
    format!(
        "SELECT pg_catalog.json_build_object(
            'extensions', (SELECT coalesce(pg_catalog.json_agg(extname), '[]') FROM pg_catalog.pg_extension),
            'tables', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(name, bytes) ORDER BY bytes, name), '[]')
                FROM (SELECT pg_catalog.format('%I.%I', nspname, relname) AS name, pg_catalog.pg_relation_size(c.oid) AS bytes
                    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
                    WHERE relkind = 'r' AND relpersistence = 'p' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
                      AND NOT {PLANNING_CALLS}) AS found WHERE bytes IS NOT NULL));"
    )
}

/// What was counted, unless somebody was at work.
#[derive(Debug, Deserialize)]
struct Counted {
    lsn: String,
    large_objects: u64,
    tables: BTreeMap<String, u64>,
}

fn look(session: &Session<'_>, database: &Database, left: &mut u64) -> Result<Option<Held>> {
    let listed: Listed = session.query(&database.name, &list())?;
    let tables = within(&listed.tables, left);
    let limit = Instant::now() + PATIENCE;
    loop {
        interrupt::check()?;
        let counted: Option<Counted> = session.query(&database.name, &count(&tables))?;
        if let Some(Counted { lsn, large_objects, tables }) = counted {
            let contents = Contents { tables, large_objects, ..Contents::default() };
            let (database, extensions) = (database.clone(), listed.extensions);
            return Ok(Some(Held { lsn, database, extensions, contents }));
        }
        if Instant::now() > limit {
            return Ok(None);
        }
        std::thread::sleep(TICK);
    }
}

/// Those that may be counted.
fn within<'a>(tables: &'a [(String, u64)], left: &mut u64) -> Vec<&'a str> {
    let mut counted = Vec::new();
    for (name, bytes) in tables {
        let Some(rest) = left.checked_sub(*bytes) else { break };
        *left = rest;
        counted.push(name.as_str());
    }
    counted
}

/// A transaction whose end is in the WAL already, but that others do not see yet, still holds its own lock.
fn count(tables: &[&str]) -> String {
    let rows = tables.iter().map(|table| {
        format!("SELECT {} AS name, (SELECT pg_catalog.count(*) FROM ONLY {table}) AS rows", literal(table))
    });
    let rows = rows.collect::<Vec<_>>().join("\nUNION ALL ");
    let counted = match tables.is_empty() {
        true => "'{}'::json".to_owned(),
        false => format!("(SELECT pg_catalog.json_object_agg(name, rows) FROM ({rows}) AS counted)"),
    };
    format!(
        "SET jit = off;
SELECT pg_catalog.pg_current_wal_insert_lsn() AS before \\gset
SELECT pg_catalog.count(*) AS others FROM pg_catalog.pg_locks WHERE locktype = 'transactionid' \\gset
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT :others = 0 AND pg_catalog.pg_current_wal_insert_lsn() = :'before'
    AND pg_catalog.txid_snapshot_xmin(s) = pg_catalog.txid_snapshot_xmax(s) AS idle
    FROM pg_catalog.txid_current_snapshot() AS s \\gset
\\if :idle
SELECT pg_catalog.json_build_object('lsn', :'before',
    'large_objects', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata), 'tables', {counted});
\\else
SELECT 'null'::json;
\\endif
COMMIT;
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_counted_first_and_no_more_than_may_be() {
        let tables = [("a".to_owned(), 10), ("b".to_owned(), 20), ("c".to_owned(), 30)];
        let mut left = 35;
        assert_eq!(within(&tables, &mut left), ["a", "b"]);
        assert_eq!((left, within(&tables, &mut left)), (5, vec![]));
    }

    #[test]
    fn names_are_those_of_tables_and_no_statements() {
        let sql = count(&["public.\"a'; DROP\""]);
        assert!(sql.contains("SELECT 'public.\"a''; DROP\"' AS name"), "{sql}");
        assert!(count(&[]).contains("'tables', '{}'::json);"));
    }

    #[test]
    fn what_was_recorded_of_another_backup_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let server = super::super::info::tests::server("1");
        let recorded = Recorded {
            label: "a".into(),
            server,
            libraries: Libraries::default(),
            databases: vec![],
            busy: vec![],
            until: None,
        };
        recorded.save(directory.path()).unwrap();
        assert_eq!(Recorded::load(directory.path(), "a"), Some(recorded));
        assert_eq!(Recorded::load(directory.path(), "b"), None);
    }
}
