//! A restored database against what the backup says of it, and against what Synapse insists on at its start.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use memchr::memchr_iter;
use serde::Deserialize;

use super::rows::Contents;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Database, PLANNING_CALLS, Session, literal};

/// So many tables are counted by one query.
const PORTION: usize = 200;

/// Synapse's streams and their sequences (its `MultiWriterIdGenerator`s). It does not start while a stream's
/// position is ahead of the sequence (`storage/util/sequence.py`).
const STREAMS: [(&str, &str); 19] = [
    ("account_data", "account_data_sequence"),
    ("backfill", "events_backfill_stream_seq"),
    ("caches", "cache_invalidation_stream_seq"),
    ("device_lists_stream", "device_lists_sequence"),
    ("e2e_cross_signing_keys", "e2e_cross_signing_keys_sequence"),
    ("events", "events_stream_seq"),
    ("presence_stream", "presence_stream_sequence"),
    ("profile_updates", "profile_updates_sequence"),
    ("push_rules_stream", "push_rules_stream_sequence"),
    ("pushers", "pushers_sequence"),
    ("quarantined_media", "quarantined_media_id_seq"),
    ("receipts", "receipts_sequence"),
    ("sticky_events", "sticky_events_sequence"),
    ("thread_subscriptions", "thread_subscriptions_sequence"),
    ("to_device", "device_inbox_sequence"),
    ("un_partial_stated_event_stream", "un_partial_stated_event_stream_sequence"),
    ("un_partial_stated_room_stream", "un_partial_stated_room_stream_sequence"),
    ("un_partial_stated_event", "un_partial_stated_event_stream_sequence"),
    ("un_partial_stated_room", "un_partial_stated_room_stream_sequence"),
];

/// What a restored database must be like.
#[derive(Debug)]
pub struct Expected<'a> {
    /// Owner, encoding and collation; nothing where they are not known.
    pub database: Option<&'a Database>,
    /// Tables, rows, sequences, large objects.
    pub contents: &'a Contents,
    /// Extensions that must be there.
    pub extensions: &'a [String],
}

/// Differences, a sentence each; none is what everybody hopes for.
///
/// # Errors
/// [`crate::Kind::Server`] if the server cannot be asked.
pub fn differences(session: &Session<'_>, name: &str, expected: &Expected<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let facts: Facts = session.query(name, FACTS)?;
    if let Some(database) = expected.database {
        for (what, is, was) in [
            ("owner", &facts.owner, &database.owner),
            ("encoding", &facts.encoding, &database.encoding),
            ("collation", &facts.collate, &database.collate),
            ("character type", &facts.ctype, &database.ctype),
        ] {
            if is != was {
                found.push(format!("its {what} is {is:?}, and was {was:?} before"));
            }
        }
    }
    for extension in expected.extensions {
        if !facts.extensions.contains(extension) {
            found.push(format!("extension {extension:?} is missing"));
        }
    }
    let contents = expected.contents;
    if facts.large_objects != contents.large_objects {
        found.push(format!(
            "it has {} large objects, and had {} before",
            facts.large_objects, contents.large_objects
        ));
    }
    let rows = rows(session, name, contents)?;
    let more = |(table, was): &(&String, &u64)| rows.get(*table).is_some_and(|is| is > *was);
    let more = contents.tables.iter().filter(more).map(|(table, _)| table);
    let of_extensions: BTreeMap<String, bool> =
        each(session, name, more, OF_EXTENSIONS, |_| "true".to_owned())?;
    for (table, was) in &contents.tables {
        match rows.get(table) {
            None => found.push(format!("table {table} is missing")),
            // It brings rows of its own, which are not in a dump (chapter "Extension Configuration Tables").
            Some(is) if is > was && of_extensions.contains_key(table) => {
                log::info!("table {table} of an extension has {is} rows, and had {was} in the dump");
            }
            Some(is) if is != was => found.push(format!("table {table} has {is} rows, and had {was} before")),
            Some(_) => {}
        }
    }
    let sequences: BTreeMap<String, String> =
        each(session, name, contents.sequences.keys(), SEQUENCES, |sequence| {
            format!("(SELECT pg_catalog.format('%s, %s', last_value, is_called::text) FROM {sequence})")
        })?;
    for (sequence, was) in &contents.sequences {
        match sequences.get(sequence) {
            None => found.push(format!("sequence {sequence} is missing")),
            Some(is) if is != was => {
                found.push(format!("sequence {sequence} is at ({is}), and was at ({was}) before"));
            }
            Some(_) => {}
        }
    }
    if facts.is_synapse {
        found.extend(synapse(session, name, &facts)?);
    }
    Ok(found)
}

/// Why Synapse would not start on this database, a sentence each; nothing if it would, or if it is not Synapse's.
///
/// # Errors
/// [`crate::Kind::Server`] if the server cannot be asked.
pub fn startup_problems(session: &Session<'_>, name: &str) -> Result<Vec<String>> {
    let facts: Facts = session.query(name, FACTS)?;
    match facts.is_synapse {
        true => synapse(session, name, &facts),
        false => Ok(Vec::new()),
    }
}

#[derive(Deserialize)]
struct Facts {
    owner: String,
    encoding: String,
    collate: String,
    ctype: String,
    extensions: Vec<String>,
    large_objects: u64,
    is_synapse: bool,
}

/// Of the names that Synapse gives to its tables, a view would be the work of somebody else, whose functions we would call; so
/// would be expressions of an index, which the planner evaluates as far as they are constant.
const FACTS: &str = "SELECT pg_catalog.json_build_object(
    'owner', pg_catalog.pg_get_userbyid(datdba),
    'encoding', pg_catalog.pg_encoding_to_char(encoding),
    'collate', datcollate,
    'ctype', datctype,
    'extensions', (SELECT coalesce(pg_catalog.json_agg(extname), '[]') FROM pg_catalog.pg_extension),
    'large_objects', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata),
    'is_synapse', EXISTS (SELECT FROM pg_catalog.pg_class
            WHERE oid = pg_catalog.to_regclass('public.schema_version') AND relkind = 'r')
        AND EXISTS (SELECT FROM pg_catalog.pg_class
            WHERE oid = pg_catalog.to_regclass('public.stream_positions') AND relkind = 'r')
        AND EXISTS (SELECT FROM pg_catalog.pg_class
            WHERE oid = pg_catalog.to_regclass('public.events') AND relkind = 'r')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_index WHERE (indexprs IS NOT NULL OR indpred IS NOT NULL) AND indrelid IN
            (pg_catalog.to_regclass('public.schema_version'), pg_catalog.to_regclass('public.stream_positions')))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext WHERE stxrelid IN
            (pg_catalog.to_regclass('public.schema_version'), pg_catalog.to_regclass('public.stream_positions'))))
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database();";

/// The rows of each table that exists, counted by several connections at the same time.
fn rows(session: &Session<'_>, name: &str, contents: &Contents) -> Result<BTreeMap<String, u64>> {
    let mut tables: Vec<_> = contents.tables.iter().collect();
    tables.sort_by_key(|(_, rows)| Reverse(**rows));
    let loaded_through: BTreeMap<String, Vec<u32>> = partitioned(session, name, contents)?;
    let value = |table: &str| match loaded_through.get(table) {
        None => format!("(SELECT pg_catalog.count(*) FROM ONLY {table})"),
        // Rows went by way of it into partitions that the dump does not name.
        Some(named) => format!(
            "(SELECT pg_catalog.count(*) FROM {table} WHERE tableoid <> ALL (ARRAY[{}]::oid[]))",
            named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ),
    };
    let jobs = session.runtime.jobs();
    let count = |part: usize| {
        let tables = || tables.iter().skip(part).step_by(jobs).map(|(table, _)| *table);
        let mut counted =
            each(session, name, tables(), &format!("{TABLES} AND NOT {PLANNING_CALLS}"), value)?;
        let calling: BTreeMap<String, bool> =
            each(session, name, tables(), &format!("relkind = 'r' AND {PLANNING_CALLS}"), |_| {
                "true".to_owned()
            })?;
        for (table, _) in calling {
            let mut rows = 0;
            session.copied(name, "", &table, |piece| rows += memchr_iter(b'\n', piece).count() as u64)?;
            counted.insert(table, rows);
        }
        Ok(counted)
    };
    let parts: Vec<BTreeMap<String, u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|part| scope.spawn(move || count(part))).collect();
        let panicked = |_| Err(Error::new(Kind::Bug, "a counting thread panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect::<Result<_>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

const OF_EXTENSIONS: &str = "EXISTS (SELECT FROM pg_catalog.pg_depend
    WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = c.oid AND deptype = 'e')";
const SEQUENCES: &str = "relkind = 'S'";
const TABLES: &str = "relkind IN ('r', 'p', 'f')";

/// The partitioned tables that the dump has rows for (`pg_dump --load-via-partition-root`), and those of their partitions
/// that it has rows for as well.
fn partitioned(
    session: &Session<'_>,
    database: &str,
    contents: &Contents,
) -> Result<BTreeMap<String, Vec<u32>>> {
    if contents.tables.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<_> = contents.tables.keys().map(|name| literal(name)).collect();
    session.query(
        database,
        &format!(
            "SET jit = off;
WITH named AS (SELECT name, pg_catalog.to_regclass(name) AS oid FROM pg_catalog.unnest(ARRAY[{}]) AS name)
SELECT coalesce(pg_catalog.json_object_agg(name, partitions), '{{}}') FROM (
    SELECT root.name, coalesce(
        (SELECT pg_catalog.json_agg(tree.relid::bigint) FROM pg_catalog.pg_partition_tree(root.oid) AS tree
            JOIN named ON named.oid = tree.relid WHERE tree.isleaf), '[]') AS partitions
    FROM named AS root JOIN pg_catalog.pg_class ON pg_class.oid = root.oid WHERE relkind = 'p') AS roots;",
            names.join(", ")
        ),
    )
}

/// One value for each relation of this kind that exists, by its name as the dump writes it.
fn each<'a, T: serde::de::DeserializeOwned>(
    session: &Session<'_>,
    database: &str,
    names: impl Iterator<Item = &'a String>,
    which: &str,
    value: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, T>> {
    let mut values = BTreeMap::new();
    let names: Vec<_> = names.collect();
    for portion in names.chunks(PORTION) {
        let list = portion.iter().map(|name| format!("({})", literal(name))).collect::<Vec<_>>().join(", ");
        let there: Vec<String> = session.query(
            database,
            &format!(
                "SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (VALUES {list}) AS v (name)
                 JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name) WHERE {which};"
            ),
        )?;
        if there.is_empty() {
            continue;
        }
        let selects: Vec<_> = there
            .iter()
            .map(|name| format!("SELECT {} AS name, {} AS value", literal(name), value(name)))
            .collect();
        values.extend(session.query::<BTreeMap<String, T>>(
            database,
            // To compile a query of many parts takes longer than to run it.
            &format!(
                "SET jit = off;\nSELECT pg_catalog.json_object_agg(name, value) FROM ({}) AS v;",
                selects.join("\nUNION ALL ")
            ),
        )?);
    }
    Ok(values)
}

fn synapse(session: &Session<'_>, name: &str, facts: &Facts) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if facts.encoding != "UTF8" || facts.collate != "C" || facts.ctype != "C" {
        found.push(format!(
            "Synapse requires encoding UTF8, LC_COLLATE C and LC_CTYPE C, found {}, {} and {}",
            facts.encoding, facts.collate, facts.ctype
        ));
    }
    let versions: u64 =
        session.query(name, "SELECT pg_catalog.to_json(pg_catalog.count(*)) FROM public.schema_version;")?;
    if versions == 0 {
        found.push("table schema_version is empty: Synapse would initialise the database again".to_owned());
    }
    let positions: BTreeMap<String, i64> = session.query(
        name,
        "SELECT coalesce(pg_catalog.json_object_agg(stream_name, position), '{}') FROM (
            SELECT stream_name, pg_catalog.max(stream_id) AS position FROM public.stream_positions GROUP BY 1) AS p;",
    )?;
    let sequences: Vec<_> = STREAMS.iter().map(|(_, sequence)| format!("public.{sequence}")).collect();
    let values: BTreeMap<String, i64> = each(session, name, sequences.iter(), SEQUENCES, |sequence| {
        format!("(SELECT last_value - (NOT is_called)::int FROM {sequence})")
    })?;
    for (stream, sequence) in STREAMS {
        if let (Some(position), Some(value)) =
            (positions.get(stream), values.get(&format!("public.{sequence}")))
            && position > value
        {
            found.push(format!(
                "stream {stream} is at {position}, ahead of its sequence {sequence} at {value}: Synapse would \
                 not start"
            ));
        }
    }
    Ok(found)
}
