//! The first rows of tables, loaded on trial into a server whose tables are empty: what expressions of constraints, generated
//! columns and indexes say of rows, nobody is told without one.
//!
//! A dump names things with their schema, and is loaded without a search path: a function that finds others by that alone is
//! no more than a name until a row makes the server call it. Only such tables are looked at, and only with the rights of
//! their owners, as when a dump is loaded: see [`super::guarded`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

use super::guarded::{Facts, Guarded, Table};
use super::loader::Loaders;
use super::scratch::Scratch;
use crate::error::{Kind, Result};
use crate::postgres::{Session, psql_script_over};
use crate::runtime::output;

/// Of each table, so many bytes of rows are tried, and one row at least.
const BYTES: usize = 1 << 20;

/// As pg_dump reads rows; and what ends early on purpose is nothing that a server has to note.
const READING: &str =
    "SET client_encoding = 'SQL_ASCII'; SET lock_timeout = '30s'; SET log_min_messages = panic;
    SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3;\n";

/// A function that never ends is not waited for.
const LOADING: &str = "SET client_encoding = 'SQL_ASCII'; SET statement_timeout = '20s';\n";

/// What a server whose tables are empty says of rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Those that it does not take, for something is not found.
    pub refused: Vec<Refused>,
    /// Tables of which the first rows say nothing, a sentence each.
    pub unknown: Vec<String>,
}

/// A row that is not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The table, as it is quoted in SQL.
    pub table: String,
    /// The server's error.
    pub error: String,
    /// All that it said.
    pub said: String,
}

/// What a database says of itself.
#[derive(Debug, Deserialize)]
struct Evaluated {
    /// Whether anybody but superusers has made functions, domains or operators.
    others: bool,
    tables: Vec<Evaluating>,
}

/// A table whose rows make the server call functions.
#[derive(Debug, Deserialize)]
struct Evaluating {
    #[serde(flatten)]
    table: Table,
    of_superuser: bool,
    /// Its name, as it is quoted in SQL.
    quoted: String,
    /// Columns that are not generated, as they are quoted in SQL.
    columns: String,
}

/// Loads the first rows of tables of the database `name` of the server `live` into those of `new`, which has the same
/// definitions, is empty, and is thrown away. What belongs to a superuser is loaded as such if nobody else has written
/// what it may call, or where the owners are `trusted`.
///
/// # Errors
/// [`Kind::Server`] if `live` does not answer; others if something cannot be started.
pub fn load(
    live: &Session<'_>,
    new: &Session<'_>,
    name: &str,
    scratch: impl FnOnce() -> Result<Scratch>,
    trusted: bool,
) -> Result<Sampled> {
    let mut sampled = Sampled::default();
    let Evaluated { others, mut tables } = live.query(name, EVALUATED)?;
    if tables.is_empty() {
        return Ok(sampled);
    }
    if others && !trusted {
        let (left, rest) = tables.into_iter().partition(|evaluating| evaluating.of_superuser);
        tables = rest;
        let left: Vec<Evaluating> = left;
        sampled.unknown.extend(left.iter().map(|evaluating| {
            format!(
                "table {} belongs to a superuser, and its rows may call functions of other roles",
                evaluating.quoted
            )
        }));
    }
    new.execute(name, &alone(&tables))?;
    let (mine, theirs): (Vec<_>, Vec<_>) = tables.into_iter().partition(|evaluating| evaluating.of_superuser);
    let conninfo = new.connection.conninfo_for_loading(name, 0);
    for evaluating in &mine {
        sampled.add(evaluating, &first_rows(live, name, evaluating)?, new, &conninfo)?;
    }
    if !theirs.is_empty() {
        let owners: BTreeSet<_> = theirs.iter().map(|evaluating| evaluating.table.owner.clone()).collect();
        let names = theirs.iter().map(|evaluating| evaluating.quoted.clone()).collect();
        let guarded = Guarded { rows: (0..).zip(owners).collect(), names, ..Guarded::default() };
        let facts = Facts::of_tables(theirs.iter().map(|evaluating| evaluating.table.clone()).collect());
        let scratch = scratch()?;
        let loaders = Loaders::make(new, name, &scratch, &guarded, facts)?;
        loaders.with_logins(true, || {
            theirs.iter().try_for_each(|evaluating| {
                let conninfo = loaders.conninfo(&evaluating.table.owner)?;
                sampled.add(evaluating, &first_rows(live, name, evaluating)?, new, &conninfo)
            })
        })?;
        loaders.finish()?;
    }
    Ok(sampled)
}

impl Sampled {
    /// Loads these rows of a table by this connection.
    fn add(&mut self, evaluating: &Evaluating, rows: &[u8], new: &Session<'_>, conninfo: &str) -> Result<()> {
        let table = evaluating.quoted.clone();
        let Session { runtime, major, .. } = new;
        let copy = format!("{LOADING}COPY {table} ({}) FROM STDIN;\n", evaluating.columns);
        let script = [copy.as_bytes(), rows, b"\\.\n"].concat();
        let loaded = output(runtime.command(*major, &psql_script_over(conninfo))?, "psql with rows", &script);
        let said = match loaded {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == Kind::Program => error.cause(),
            Err(error) => return Err(error),
        };
        match not_found(&said) {
            Some(error) => self.refused.push(Refused { table, error: error.to_owned(), said }),
            None => self.unknown.push(format!(
                "functions that are called for rows of table {table} fail while other tables are empty"
            )),
        }
        Ok(())
    }
}

/// Of what was said of a statement that called functions.
fn not_found(said: &str) -> Option<&str> {
    let mut errors = said.lines().filter_map(|line| line.split_once("ERROR:  ").map(|(_, error)| error));
    // Without a context it is the table itself, which somebody has made meanwhile.
    errors.find(|error| error.ends_with(" does not exist") && said.contains("\nCONTEXT:  "))
}

/// So that nothing else but what is evaluated when rows are loaded keeps rows from a table.
fn alone(tables: &[Evaluating]) -> String {
    let mut sql = String::new();
    for Evaluating { quoted: table, .. } in tables {
        // Writing to a String cannot fail.
        let _ =
            writeln!(sql, "ALTER TABLE IF EXISTS {table} DISABLE TRIGGER ALL, NO FORCE ROW LEVEL SECURITY;");
    }
    sql
}

/// They are read without a plan, for which the server would evaluate what is constant in the expressions of indexes.
fn first_rows(live: &Session<'_>, database: &str, evaluating: &Evaluating) -> Result<Vec<u8>> {
    let mut rows = Vec::new();
    let table = format!("{} ({})", evaluating.quoted, evaluating.columns);
    live.copied_until(database, READING, &table, |piece| {
        rows.extend_from_slice(piece);
        rows.len() < BYTES || !rows.contains(&b'\n')
    })?;
    let whole = rows.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    rows.truncate(whole);
    Ok(rows)
}

/// What depends on a function with a body in text and without a search path of its own, by way of operators, domains,
/// constraints and the like, is evaluated with it; a materialized view is what the rows of its tables make it. One too many
/// does no harm.
const EVALUATED: &str = r"SET jit = off;
WITH RECURSIVE edges (of_class, of_object, class, object) AS MATERIALIZED (
    SELECT refclassid, refobjid, classid, objid FROM pg_catalog.pg_depend WHERE deptype <> 'e' AND refobjid >= 16384
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid, 'pg_catalog.pg_class'::pg_catalog.regclass, conrelid
        FROM pg_catalog.pg_constraint WHERE contype = 'c' AND conrelid <> 0
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid, 'pg_catalog.pg_type'::pg_catalog.regclass, contypid
        FROM pg_catalog.pg_constraint WHERE contypid <> 0
    UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, 'pg_catalog.pg_class'::pg_catalog.regclass, adrelid
        FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute ON attrelid = adrelid AND attnum = adnum WHERE attgenerated <> ''
    UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid, 'pg_catalog.pg_class'::pg_catalog.regclass, indrelid
        FROM pg_catalog.pg_index
    UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, oid, 'pg_catalog.pg_class'::pg_catalog.regclass, ev_class
        FROM pg_catalog.pg_rewrite WHERE rulename = '_RETURN'
    UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid, 'pg_catalog.pg_type'::pg_catalog.regclass, reltype
        FROM pg_catalog.pg_class WHERE relkind = 'c'
    UNION ALL SELECT 'pg_catalog.pg_amproc'::pg_catalog.regclass, a.oid, 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid
        FROM pg_catalog.pg_amproc a JOIN pg_catalog.pg_opclass o ON opcfamily = amprocfamily
), evaluated (class, object) AS (
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, oid FROM pg_catalog.pg_proc
    WHERE oid >= 16384 AND prolang NOT IN (12, 13)
        AND NOT EXISTS (SELECT FROM pg_catalog.unnest(proconfig) AS line WHERE pg_catalog.starts_with(line, 'search_path='))
    UNION SELECT e.class, e.object FROM evaluated v JOIN edges e ON of_class = v.class AND of_object = v.object
), sources (relation, source) AS MATERIALIZED (
    SELECT ev_class, refobjid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend ON objid = r.oid
        AND classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
), relations (relation, kind) AS (
    SELECT c.oid, relkind FROM evaluated JOIN pg_catalog.pg_class c ON c.oid = object
    WHERE class = 'pg_catalog.pg_class'::pg_catalog.regclass AND relkind IN ('r', 'm')
    UNION SELECT source, relkind FROM relations JOIN sources USING (relation) JOIN pg_catalog.pg_class c ON c.oid = source
    WHERE kind <> 'r'
)
SELECT pg_catalog.json_build_object(
    'others', EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE NOT rolsuper AND (
        EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proowner = r.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oprowner = r.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typowner = r.oid AND typtype IN ('d', 'r')))),
    'tables', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('schema', nspname, 'name', relname,
            'owner', rolname, 'of_superuser', rolsuper, 'may_insert', pg_catalog.has_table_privilege(relowner, c.oid, 'INSERT'),
            'quoted', pg_catalog.format('%I.%I', nspname, relname), 'columns', columns) ORDER BY c.oid), '[]')
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
            JOIN pg_catalog.pg_roles r ON r.oid = relowner
            JOIN (SELECT attrelid, pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) AS columns
                FROM pg_catalog.pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attgenerated = '' GROUP BY attrelid) AS a
                ON attrelid = c.oid
        WHERE relkind = 'r' AND relpersistence <> 't' AND c.oid IN (SELECT relation FROM relations)
            AND nspname NOT IN ('pg_catalog', 'information_schema')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND objid = c.oid AND deptype = 'e')));";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_function_does_not_find_counts() {
        let said = "psql:<stdin>:3: ERROR:  function low(text) does not exist\nLINE 1: low($1)\n\
            CONTEXT:  PL/pgSQL function public.f_low(text) line 1 at RETURN\nCOPY g, line 1: \"secret\"";
        assert_eq!(not_found(said), Some("function low(text) does not exist"));
        assert_eq!(not_found("ERROR:  relation \"public.t\" does not exist"), None);
        assert_eq!(not_found("ERROR:  division by zero\nCONTEXT:  SQL function \"f\""), None);
    }

    #[test]
    fn a_tables_name_is_what_it_is() {
        let text = r#"{"schema": "a b", "name": "it\"s", "owner": "o", "may_insert": true, "of_superuser": false,
            "quoted": "\"a b\".x", "columns": "x"}"#;
        let evaluating: Evaluating = serde_json::from_str(text).unwrap();
        assert_eq!(
            alone(&[evaluating]),
            "ALTER TABLE IF EXISTS \"a b\".x DISABLE TRIGGER ALL, NO FORCE ROW LEVEL SECURITY;\n"
        );
    }
}
