//! Foreign keys whose triggers are switched off, which no dump says. A dump ends with the keys, and fails there if rows violate
//! one: whether they do is asked here, of the few keys that this may be the case of.

use serde::{Deserialize, Serialize};

use crate::postgres::Session;

/// Such a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LooseKey {
    /// Its name, and its table's.
    pub name: String,
    /// What finds a row that violates it; nothing where that would call what somebody has made: the server does so with the
    /// rights of whoever asks.
    #[serde(default)]
    question: Option<String>,
    /// Whether a row violates it, if that is known.
    #[serde(default)]
    pub is_violated: Option<bool>,
}

impl LooseKey {
    /// Asks whether a row violates it. What takes too long, or is refused, is not known.
    pub(super) fn look(&mut self, session: &Session<'_>, database: &str) {
        let Some(question) = &self.question else { return };
        match session.query(database, &format!("{LIMITS} {question}")) {
            Ok(is_violated) => self.is_violated = Some(is_violated),
            Err(error) => log::debug!("foreign key {}: {error}", self.name),
        }
    }
}

const LIMITS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '60s';";

/// All of a database, as JSON. A row of a key that MATCHes SIMPLE violates it if none of its columns is null, and one of MATCH
/// FULL unless all are. The operators are those of the key itself, which is a key of periods where one has another name.
pub(super) const QUESTION: &str = "(SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', name, 'question', CASE WHEN is_ours
        THEN pg_catalog.format(
            'SELECT pg_catalog.to_json(EXISTS (SELECT FROM %s AS f WHERE (%s) AND NOT EXISTS (SELECT FROM %s AS k WHERE %s)))',
            child, given, parent, equal) END) ORDER BY name), '[]') FROM (
        SELECT pg_catalog.format('%I of %s', conname, conrelid::pg_catalog.regclass) AS name,
            CASE (SELECT relkind FROM pg_catalog.pg_class WHERE oid = conrelid) WHEN 'p' THEN '' ELSE 'ONLY ' END
                || conrelid::pg_catalog.regclass AS child,
            CASE (SELECT relkind FROM pg_catalog.pg_class WHERE oid = confrelid) WHEN 'p' THEN '' ELSE 'ONLY ' END
                || confrelid::pg_catalog.regclass AS parent,
            pg_catalog.string_agg(pg_catalog.format('f.%I IS NOT NULL', f.attname),
                CASE confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END) AS given,
            pg_catalog.string_agg(pg_catalog.format('k.%I OPERATOR(pg_catalog.=) f.%I', k.attname, f.attname), ' AND ') AS equal,
            pg_catalog.bool_and(o.oid < 16384 AND oprname = '=' AND f.atttypid < 16384 AND k.atttypid < 16384
                AND f.attcollation = k.attcollation) AS is_ours
        FROM pg_catalog.pg_constraint c, ROWS FROM (pg_catalog.unnest(conkey),
            pg_catalog.unnest(confkey), pg_catalog.unnest(conpfeqop)) AS pair (child, parent, operator)
        JOIN pg_catalog.pg_operator o ON o.oid = operator, pg_catalog.pg_attribute f, pg_catalog.pg_attribute k
        WHERE contype = 'f' AND f.attrelid = conrelid AND f.attnum = pair.child AND k.attrelid = confrelid AND k.attnum = pair.parent
        AND EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgconstraint = c.oid AND tgisinternal AND tgenabled IN ('D', 'R'))
        GROUP BY c.oid, conname, conrelid, confrelid, confmatchtype) AS keys)";
