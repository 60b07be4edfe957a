//! What the catalog of one database says: relations, and whether indexes and constraints hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::{Name, shown};
use super::rows::Item;
use super::settings::SETTINGS;
use crate::error::Result;
use crate::postgres::{PLANNING_CALLS, Session};

/// What the query returns.
#[derive(Debug, Deserialize)]
pub(super) struct Catalog {
    pub(super) relations: Vec<Found>,
    indexes: Vec<(Name, Index)>,
    constraints: Vec<(Name, String, Constraint)>,
    pub(super) large_objects: LargeObjects,
    /// Members of extensions are not counted: there are others with another version of that.
    counts: BTreeMap<String, u64>,
    pub(super) comments: u64,
}

/// A relation and what it takes to read it.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    #[serde(flatten)]
    pub(super) name: Name,
    #[serde(flatten)]
    pub(super) relation: Relation,
    pub(super) bytes: u64,
    /// A standby does not get what is in it.
    pub(super) unlogged: bool,
    /// Whether to plan a query of it may be to call a function of somebody who is no superuser.
    pub(super) calls: bool,
    /// Whose rows are read with it, or with which its own are.
    pub(super) reading: Reading,
    /// Whether it has places in the log (pg_lsn), in whatever type.
    pub(super) places: bool,
    /// Names of its columns, sorted, where an old and a new cluster may have them in another order.
    pub(super) by_name: Option<Vec<String>>,
}

impl Found {
    /// What is to be read of a table, if anything is.
    pub(super) fn table(&self) -> Option<Item> {
        let whole = match (self.relation.kind, self.reading) {
            ('r', Reading::Alone) => false,
            (_, Reading::Whole) => true,
            _ => return None,
        };
        let (name, columns, copied) = (self.name.clone(), self.by_name.clone(), self.calls);
        Some(Item::Table { name, whole, columns, copied, places: self.places })
    }
}

/// With what the rows of a table are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reading {
    /// Its own, by themselves.
    Alone,
    /// It has none, and those of its partitions are taken together: in which of them one lies, a dump does not keep.
    Whole,
    /// With those of the table that it is a partition of.
    Within,
}

/// A table, a view, a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// `pg_class.relkind`.
    pub kind: char,
    /// Whether an extension made it: another version of that may make another one.
    pub of_extension: bool,
    /// Whether a materialized view has its rows.
    pub populated: bool,
    /// Names and types; NOT NULL, and whether there is a default.
    pub columns: Vec<(String, String)>,
    /// Whether it inherits columns, which a dump puts in front of its own (pg_dump(1), `CREATE TABLE … INHERITS`).
    #[serde(default)]
    pub inherits: bool,
}

/// Whether an index can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Queries use it.
    pub valid: bool,
    /// It is kept up to date.
    pub ready: bool,
    /// It refuses duplicates.
    pub unique: bool,
}

/// A constraint of a table or a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// `pg_constraint.contype`.
    pub kind: char,
    /// Whether all rows were checked.
    pub valid: bool,
}

/// Large objects without their contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many.
    pub count: u64,
    /// Of ids, owners, privileges and comments.
    pub hash: String,
}

impl Catalog {
    pub(super) fn indexes(&self) -> BTreeMap<String, Index> {
        self.indexes.iter().map(|(name, index)| (name.shown(), *index)).collect()
    }

    /// Objects by kind, and bytes by table: equal in two clusters that have the same files. Those of unlogged tables come
    /// by another way.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let tables = self.relations.iter().filter(|found| found.relation.kind == 'r' && !found.unlogged);
        let bytes = tables.map(|found| (format!("bytes of table {}", found.name.shown()), found.bytes));
        self.counts.clone().into_iter().chain(bytes).collect()
    }

    /// By the name of what they belong to and their own.
    pub(super) fn constraints(&self) -> BTreeMap<String, Constraint> {
        let named = |(of, name, constraint): &(Name, String, Constraint)| {
            (format!("{} of {}", shown("", name), of.shown()), *constraint)
        };
        self.constraints.iter().map(named).collect()
    }
}

/// Asks for it, of 12 or newer. `size` is the function that says how many bytes of a table will be read.
pub(super) fn ask(session: &Session<'_>, database: &str, size: &str) -> Result<Catalog> {
    session.query(
        database,
        &format!("{SETTINGS}{}", QUERY.replace("SIZE", size).replace("CALLS", PLANNING_CALLS)),
    )
}

/// Objects of users have a number from 16384 on (`FirstNormalObjectId`). Of those that a server makes by itself for
/// others, each major makes as many as it likes.
///
/// Where a table is partitioned by the hash of an enum, pg_dump loads it by way of the uppermost table
/// (`forcePartitionRootLoad`): such values hash by the numbers of their labels, which are others in a new cluster. With
/// foreign tables among its partitions it cannot be read as a whole.
///
/// Extensions' own relations are none of pg_dump's; their rows may be the user's. Constraints NOT NULL have names since
/// 18 and are compared as columns; foreign keys that a partition has from its parent have names of the server's choice.
/// Of objects that are counted, those of sessions are left out, for they end with these, and those in schemas of the system,
/// as no dump has them; plpgsql, too, which every new database has, and one may have dropped.
/// Triggers that a partition has from its parent count as internal in 11 to 14. The schema `public` may have been dropped
/// and made anew, and is initdb's own again in a new cluster.
const QUERY: &str = "
WITH RECURSIVE relations AS MATERIALIZED (
    SELECT c.*, nspname, EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid
        AND deptype = 'e') AS of_extension
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE relpersistence <> 't' AND nspname <> 'information_schema' AND nspname !~ '^pg_'
), schemas AS MATERIALIZED (
    SELECT oid FROM pg_catalog.pg_namespace WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
), columns AS (
    SELECT attrelid, pg_catalog.json_agg(pg_catalog.json_build_array(attname,
        pg_catalog.format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END || CASE
            WHEN attgenerated <> '' THEN ' GENERATED' WHEN attidentity <> '' THEN ' IDENTITY'
            WHEN atthasdef THEN ' DEFAULT' ELSE '' END) ORDER BY attnum) AS list
    FROM pg_catalog.pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid IN (SELECT oid FROM relations)
    GROUP BY attrelid
), hashed AS MATERIALIZED (
    SELECT partrelid FROM pg_catalog.pg_partitioned_table WHERE partstrat = 'h' AND EXISTS (
        SELECT FROM pg_catalog.unnest(partclass) AS used JOIN pg_catalog.pg_opclass o ON o.oid = used
        WHERE opcfamily = (SELECT oid FROM pg_catalog.pg_opfamily WHERE opfname = 'enum_ops' AND opfmethod = 405))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(partrelid) AS tree JOIN pg_catalog.pg_class c ON c.oid = tree.relid
        WHERE c.relkind = 'f')
), whole AS MATERIALIZED (
    SELECT partrelid FROM hashed WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_partition_ancestors(partrelid) AS above (relid)
        WHERE relid <> partrelid AND relid IN (SELECT partrelid FROM hashed))
), within AS MATERIALIZED (
    SELECT tree.relid FROM whole, pg_catalog.pg_partition_tree(partrelid) AS tree WHERE tree.relid <> partrelid
), types (oid, of) AS MATERIALIZED (
    SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL SELECT oid, typelem FROM pg_catalog.pg_type WHERE typelem <> 0
    UNION ALL SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range
    UNION ALL SELECT (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid, rngtypid FROM pg_catalog.pg_range r
    UNION ALL SELECT reltype, atttypid FROM pg_catalog.pg_attribute JOIN relations r ON r.oid = attrelid WHERE attnum > 0
), places (oid) AS (
    SELECT 'pg_catalog.pg_lsn'::pg_catalog.regtype::oid UNION SELECT types.oid FROM types JOIN places ON places.oid = of
), inheriting AS MATERIALIZED (
    SELECT inhrelid FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class c ON c.oid = inhrelid
    WHERE relkind IN ('r', 'f') AND NOT relispartition
)
SELECT pg_catalog.json_build_object(
    'relations', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'schema', nspname, 'name', relname, 'kind', relkind, 'of_extension', of_extension,
            'populated', relispopulated, 'columns', CASE WHEN relkind = 'S' THEN '[]' ELSE coalesce(list, '[]') END,
            'unlogged', relpersistence = 'u',
            'calls', relkind IN ('r', 'p') AND EXISTS (SELECT FROM pg_catalog.pg_class c
                WHERE (c.oid = r.oid OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(r.oid))) AND CALLS),
            'inherits', r.oid IN (SELECT inhrelid FROM inheriting),
            'reading', CASE WHEN r.oid IN (SELECT partrelid FROM whole) THEN 'whole'
                WHEN r.oid IN (SELECT relid FROM within) THEN 'within' ELSE 'alone' END,
            'places', EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = r.oid AND atttypid IN (SELECT oid FROM places)),
            'by_name', CASE WHEN r.oid IN (SELECT inhrelid FROM inheriting) OR r.oid IN (SELECT partrelid FROM whole) THEN (
                SELECT coalesce(pg_catalog.json_agg(attname ORDER BY attname COLLATE \"C\"), '[]') FROM pg_catalog.pg_attribute
                WHERE attrelid = r.oid AND attnum > 0 AND NOT attisdropped) END,
            'bytes', CASE WHEN relkind = 'r' THEN coalesce(pg_catalog.SIZE(r.oid), 0) ELSE 0 END)), '[]')
        FROM relations r LEFT JOIN columns ON attrelid = r.oid WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')),
    'indexes', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
            pg_catalog.json_build_object('schema', nspname, 'name', relname),
            pg_catalog.json_build_object('valid', indisvalid, 'ready', indisready, 'unique', indisunique))), '[]')
        FROM relations r JOIN pg_catalog.pg_index i ON i.indexrelid = r.oid WHERE NOT of_extension),
    'constraints', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
            pg_catalog.json_build_object('schema', coalesce(r.nspname, tn.nspname), 'name', coalesce(relname, typname)), conname,
            pg_catalog.json_build_object('kind', contype, 'valid', convalidated))), '[]')
        FROM pg_catalog.pg_constraint con LEFT JOIN relations r ON r.oid = conrelid AND NOT of_extension
            LEFT JOIN pg_catalog.pg_type t ON t.oid = contypid AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                WHERE classid = 'pg_catalog.pg_type'::regclass AND objid = t.oid AND deptype = 'e')
            LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = typnamespace AND tn.nspname <> 'information_schema'
                AND tn.nspname !~ '^pg_'
        WHERE contype IN ('c', 'f', 'p', 'u', 'x') AND NOT (contype = 'f' AND conparentid <> 0)
            AND coalesce(r.nspname, tn.nspname) IS NOT NULL),
    'large_objects', (SELECT pg_catalog.json_build_object('count', pg_catalog.count(*), 'hash',
            coalesce(pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|',
            m.oid, pg_catalog.pg_get_userbyid(lomowner), privileges, pg_catalog.obj_description(m.oid, 'pg_largeobject')), 0)), 0)::text)
        FROM pg_catalog.pg_largeobject_metadata m, LATERAL (
            SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', CASE WHEN grantee <> 0 THEN pg_catalog.pg_get_userbyid(grantee) END,
                privilege_type, is_grantable), ',' ORDER BY grantee = 0, pg_catalog.pg_get_userbyid(grantee), privilege_type)
                AS privileges
            FROM pg_catalog.aclexplode(coalesce(lomacl, pg_catalog.acldefault('L', lomowner)))) AS a),
    'counts', pg_catalog.json_build_object(
        'schemas', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace
            WHERE oid >= 16384 AND nspname !~ '^pg_' AND nspname <> 'public'),
        'extensions', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'),
        'functions', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p
            WHERE oid >= 16384 AND pronamespace IN (SELECT oid FROM schemas) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_proc'::regclass AND objid = p.oid AND deptype IN ('i', 'e'))),
        'types', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_type t
            WHERE oid >= 16384 AND typnamespace IN (SELECT oid FROM schemas) AND typtype IN ('b', 'd', 'e', 'r') AND typelem = 0
            AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_type'::regclass AND objid = t.oid AND deptype = 'e')),
        'enumeration labels', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = enumtypid
            WHERE e.oid >= 16384 AND typnamespace IN (SELECT oid FROM schemas)),
        'rules', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_rewrite WHERE oid >= 16384 AND ev_class IN (SELECT oid FROM relations)),
        'triggers', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger t
            WHERE oid >= 16384 AND tgrelid IN (SELECT oid FROM relations) AND NOT tgisinternal AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_trigger'::regclass AND objid = t.oid
            AND refclassid = 'pg_catalog.pg_trigger'::regclass)),
        'event triggers', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_event_trigger),
        'policies', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_policy WHERE polrelid IN (SELECT oid FROM relations)),
        'column defaults', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attrdef
            WHERE oid >= 16384 AND adrelid IN (SELECT oid FROM relations)),
        'extended statistics', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_statistic_ext
            WHERE stxnamespace IN (SELECT oid FROM schemas)),
        'default privileges', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_default_acl),
        'publications', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_publication),
        'foreign servers', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_foreign_server),
        'user mappings', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_user_mapping),
        'security labels', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_seclabel),
        'subscriptions', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription
            WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))),
    'comments', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_description WHERE objoid >= 16384 AND NOT (
        classoid = 'pg_catalog.pg_namespace'::regclass
        AND objoid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public'))));";
