//! What of a dump runs code of others while it is loaded: functions in the constraints of their tables.
//!
//! COPY evaluates them with the rights of whoever loads, and no session of a superuser can give these up: a function may take
//! them back (`SET SESSION AUTHORIZATION`, `SET ROLE`). What may call anything but PostgreSQL's own immutable functions, and
//! belongs to no superuser, is therefore loaded by somebody who has the rights of its owner and no others: see [`super::loader`].
//!
//! What is evaluated as the owner in a security-restricted operation, such as the expressions of an index that is built, is
//! not among that.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::custom::Toc;
use crate::error::Result;
use crate::postgres::Session;

/// What a database whose definitions have been made says of itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Facts {
    /// Tables whose rows make the server call such functions.
    pub(super) tables: Vec<Table>,
    /// Types with such functions in their constraints, as they are quoted in SQL.
    pub(super) types: Vec<String>,
    /// Partitioned tables with such a type in their key.
    pub(super) keys: Vec<String>,
    /// Whether there are functions that the server calls by itself: for a cast for which nobody needs to ask, or because their
    /// arguments are constant.
    pub(super) functions: bool,
    pub(super) superusers: BTreeSet<String>,
    /// What only a superuser could make again, who would evaluate such functions on the way, as far as a catalog tells it.
    unmade: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) owner: String,
    /// Whether its owner may add rows to it.
    pub(super) may_insert: bool,
    /// What its owner may not do, and whoever loads it must: `use schema s`, `call function f(integer)`.
    #[serde(default)]
    lacks: Vec<String>,
}

/// What a database has that is loaded with the rights of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Tables with owners' functions in their constraints, columns or types.
    pub tables: Vec<String>,
    /// A sentence for each object that cannot be loaded so.
    pub obstacles: Vec<String>,
}

impl Foreseen {
    /// Asks a database that is to be dumped and loaded elsewhere.
    ///
    /// # Errors
    /// [`crate::Kind::Server`].
    pub fn find(session: &Session<'_>, database: &str) -> Result<Self> {
        Facts::find(session, database).map(|facts| Self::of(&facts))
    }

    fn of(facts: &Facts) -> Self {
        let name = |table: &Table| format!("{}.{}", table.schema, table.name);
        let unmade = facts.unmade.iter().map(|what| {
            format!("creating {what} runs functions of its owner and needs superuser privileges")
        });
        let lacking = facts.tables.iter().filter(|table| !table.lacks.is_empty()).map(|table| {
            let lacks = table.lacks.join(", or ");
            format!(
                "role {:?} owns table {} but lacks privileges that loading its rows needs: {lacks}",
                table.owner,
                name(table)
            )
        });
        Self { tables: facts.tables.iter().map(name).collect(), obstacles: unmade.chain(lacking).collect() }
    }
}

impl Facts {
    /// Asks the database.
    ///
    /// # Errors
    /// [`crate::Kind::Server`].
    pub(super) fn find(session: &Session<'_>, database: &str) -> Result<Self> {
        session.query(database, FACTS)
    }

    /// Of nothing but these tables.
    pub(super) fn of_tables(tables: Vec<Table>) -> Self {
        Self { tables, ..Self::default() }
    }

    /// Whether what this role owns must not run as superuser. What nobody owns is of whoever makes it.
    pub(super) fn is_foreign(&self, owner: &str) -> bool {
        !owner.is_empty() && !self.superusers.contains(owner)
    }
}

/// Whether the server may run, as whoever makes what is defined in this custom dump, what others than these superusers have
/// written. Rows there need be none for that.
///
/// # Errors
/// [`crate::Kind::Damaged`].
pub fn may_run(dump: &[u8], superusers: &BTreeSet<String>) -> Result<bool> {
    let toc = Toc::read(dump)?;
    Ok(!toc.is_known() || toc.may_run(|owner| !owner.is_empty() && !superusers.contains(owner)))
}

/// Which entries of a dump are left to whom.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Guarded {
    /// Those with rows, and the table's owner.
    pub(super) rows: BTreeMap<i32, String>,
    /// Those that come after the rows.
    pub(super) later: BTreeMap<i32, String>,
    /// What they are, for people.
    pub(super) names: Vec<String>,
}

impl Guarded {
    /// The plan: pure in the dump and the facts.
    pub(super) fn new(toc: &Toc, facts: &Facts) -> Self {
        let utf8 = toc.is_utf8();
        let key = |schema: &[u8], name: &[u8]| (comparable(schema, utf8), comparable(name, utf8));
        let tables: BTreeMap<_, _> = facts
            .tables
            .iter()
            .map(|table| (key(table.schema.as_bytes(), table.name.as_bytes()), table))
            .collect();
        let rows = toc.rows_of(|schema, name| {
            let table = tables.get(&key(schema, name))?;
            Some((format!("{}.{}", table.schema, table.name), table.owner.clone()))
        });
        let later = toc.evaluated_later(facts.functions, |owner| facts.is_foreign(owner));
        let mut names: Vec<_> = rows.values().map(|(name, _)| name.clone()).collect();
        names.extend(later.values().map(|(name, _)| name.clone()));
        names.dedup();
        let owners = |entries: BTreeMap<i32, (String, String)>| {
            entries.into_iter().map(|(id, (_, owner))| (id, owner)).collect()
        };
        Self { rows: owners(rows), later: owners(later), names }
    }

    /// Whose rights are needed.
    pub(super) fn owners(&self) -> BTreeSet<&str> {
        self.rows.values().chain(self.later.values()).map(String::as_str).collect()
    }
}

/// A name of which only the ASCII characters are known can only be taken for one too many.
fn comparable(name: &[u8], utf8: bool) -> String {
    let name = String::from_utf8_lossy(name);
    match utf8 {
        true => name.into_owned(),
        false => {
            name.split(|c: char| !c.is_ascii()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("?")
        }
    }
}

/// Expressions are looked at as they are stored: a dependency on a function of PostgreSQL's own is not recorded, and one may
/// do anything, such as `set_config` or `query_to_xml`. Each number that is also that of a function, an operator or a type
/// is taken for it; one too many does no harm. Functions in C or internal ones of a superuser are those of extensions.
///
/// A type is suspect through its base, its elements, its subtype and its columns, too; a table also through those that it is a
/// partition of and that are its partitions, for their keys are evaluated with it.
///
/// What recursion begins with is an array: the planner takes that for few rows. From what it thinks of `words`, which is a
/// thousand for each expression, it would go on to so many that a server of 19 asks for 64 GiB to hash them.
const FACTS: &str = r"SET jit = off;
WITH RECURSIVE expressions AS (
    SELECT conrelid AS relation, contypid AS type, conbin::text AS tree
    FROM pg_catalog.pg_constraint WHERE contype = 'c' AND conbin IS NOT NULL
    UNION ALL
    SELECT adrelid, 0::oid, adbin::text
    FROM pg_catalog.pg_attrdef JOIN pg_catalog.pg_attribute ON attrelid = adrelid AND attnum = adnum WHERE attgenerated <> ''
    UNION ALL
    SELECT partrelid, 0::oid, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL
), words AS (
    SELECT relation, type, found[1] AS field, found[2]::bigint AS number
    FROM expressions, pg_catalog.regexp_matches(tree, ':(\w+) (\d{1,10})\M', 'g') AS found
    UNION
    SELECT relation, type, '', found[1]::bigint
    FROM expressions, pg_catalog.regexp_matches(tree, '\m(\d{5,10})\M', 'g') AS found
), calls AS (
    SELECT relation, type, number AS function FROM words WHERE (field ~ 'func.*id$' AND number > 0) OR number >= 16384
    UNION
    SELECT relation, type, oprcode::oid::bigint FROM words JOIN pg_catalog.pg_operator o ON o.oid::bigint = number
    WHERE field = 'opno' OR number >= 16384
), suspects AS (
    SELECT DISTINCT relation, type FROM calls JOIN pg_catalog.pg_proc p ON p.oid::bigint = function
    WHERE NOT (provolatile = 'i' AND (p.oid < 16384
        OR (prolang IN (12, 13) AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = proowner AND rolsuper))))
), parts AS (
    SELECT typbasetype::bigint AS part, oid AS type FROM pg_catalog.pg_type WHERE typbasetype <> 0
    UNION SELECT typelem::bigint, oid FROM pg_catalog.pg_type WHERE typelem <> 0
    UNION SELECT rngsubtype::bigint, rngtypid FROM pg_catalog.pg_range
    UNION SELECT rngtypid::bigint, (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid FROM pg_catalog.pg_range r
    UNION SELECT atttypid::bigint, reltype FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class c ON c.oid = attrelid
        WHERE attnum > 0 AND NOT attisdropped AND reltype <> 0
    UNION SELECT number, type FROM words WHERE type <> 0 AND number >= 16384
), types AS (
    SELECT pg_catalog.unnest(ARRAY(SELECT type FROM suspects WHERE type <> 0)) AS type
    UNION SELECT parts.type FROM types JOIN parts ON part = types.type::bigint WHERE parts.type IS NOT NULL
), relations AS (
    SELECT pg_catalog.unnest(ARRAY(
        SELECT relation FROM suspects WHERE relation <> 0
        UNION SELECT relation FROM words JOIN types ON number = types.type::bigint WHERE relation <> 0
        UNION SELECT attrelid FROM pg_catalog.pg_attribute JOIN types ON atttypid = type
            WHERE attnum > 0 AND NOT attisdropped)) AS relation
    UNION SELECT CASE relation WHEN inhrelid THEN inhparent ELSE inhrelid END
        FROM relations JOIN pg_catalog.pg_inherits ON relation IN (inhrelid, inhparent)
)
SELECT pg_catalog.json_build_object(
    'tables', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('schema', nspname, 'name', relname,
            'owner', rolname, 'may_insert', pg_catalog.has_table_privilege(relowner, c.oid, 'INSERT'),
            'lacks', (SELECT coalesce(pg_catalog.json_agg(what), '[]') FROM (
                SELECT pg_catalog.format('use schema %I', nspname) AS what
                    WHERE NOT pg_catalog.has_schema_privilege(relowner, relnamespace, 'USAGE')
                UNION SELECT pg_catalog.format('call function %s', p.oid::pg_catalog.regprocedure)
                    FROM calls JOIN pg_catalog.pg_proc p ON p.oid::bigint = function
                    WHERE calls.relation = c.oid AND NOT pg_catalog.has_function_privilege(relowner, p.oid, 'EXECUTE')) AS l)
            )), '[]')
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
            JOIN pg_catalog.pg_roles r ON r.oid = relowner
        WHERE relkind IN ('r', 'p', 'f') AND NOT rolsuper AND (relkind = 'f' OR c.oid IN (SELECT relation FROM relations))),
    'types', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format_type(oid, NULL)), '[]')
        FROM pg_catalog.pg_type t WHERE typtype = 'd' AND oid IN (SELECT type FROM types)
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = typowner AND rolsuper)),
    'keys', (SELECT coalesce(pg_catalog.json_agg(partrelid::pg_catalog.regclass::text), '[]')
        FROM pg_catalog.pg_partitioned_table WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute JOIN types ON atttypid = type
            WHERE attrelid = partrelid AND attnum = ANY (partattrs::pg_catalog.int2[]))),
    'unmade', (SELECT coalesce(pg_catalog.json_agg(what), '[]') FROM (
        SELECT pg_catalog.format('the key of partitioned table %s', c.oid::pg_catalog.regclass)
            FROM pg_catalog.pg_partitioned_table JOIN pg_catalog.pg_class c ON c.oid = partrelid
                JOIN pg_catalog.pg_roles r ON r.oid = relowner
            WHERE NOT rolsuper AND (pg_catalog.pg_get_partkeydef(partrelid) ~ '^[^(]*\(.*\(' AND
                    pg_catalog.pg_get_partkeydef(partrelid) ~ '^[^(]*\(.*[.]'
                OR EXISTS (SELECT FROM pg_catalog.pg_attribute JOIN types ON atttypid = type
                    WHERE attrelid = partrelid AND attnum = ANY (partattrs::pg_catalog.int2[])))
        UNION ALL SELECT pg_catalog.format('aggregate %s', p.oid::pg_catalog.regprocedure)
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = proowner
            WHERE prokind = 'a' AND NOT rolsuper AND EXISTS (SELECT FROM pg_catalog.pg_type t WHERE typtype = 'd'
                AND t.oid IN (SELECT type FROM types)
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = typowner AND rolsuper))) AS u (what)),
    'functions', EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = proowner
        WHERE NOT rolsuper AND (provolatile = 'i' OR EXISTS (SELECT FROM pg_catalog.pg_cast WHERE castfunc = p.oid))),
    'superusers', (SELECT pg_catalog.json_agg(rolname) FROM pg_catalog.pg_roles WHERE rolsuper));";
