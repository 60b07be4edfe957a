//! What a running server says of itself and of its databases.

use serde::{Deserialize, Serialize};

use super::{HOME, Major, Session, identifier};
use crate::error::{Error, Kind, Result};

/// The server as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// `server_version`, such as `17.6 (Debian 17.6-1)`.
    pub version: String,
    /// `server_version_num`, such as 170006.
    pub version_num: u32,
    /// The cluster's identity, made by initdb; a string, for JSON numbers end before 2^64.
    pub system_identifier: String,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
}

impl ServerFacts {
    /// The major version.
    ///
    /// # Errors
    /// [`Kind::Server`] for servers older than 10.
    pub fn major(&self) -> Result<Major> {
        Major::from_version_num(self.version_num).ok_or_else(|| {
            Error::new(Kind::Server, format!("the server's version {} is not supported", self.version))
                .hint("the oldest supported version is PostgreSQL 10")
        })
    }
}

/// One database, as `pg_database` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The owning role.
    pub owner: String,
    /// Such as `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Bytes on disk, indexes included.
    pub size: u64,
}

/// Asks the server what it is.
///
/// # Errors
/// [`Kind::Server`].
pub fn server_facts(session: &Session<'_>) -> Result<ServerFacts> {
    session.query(
        HOME,
        "SELECT pg_catalog.json_build_object(
            'version', pg_catalog.current_setting('server_version'),
            'version_num', pg_catalog.current_setting('server_version_num')::int,
            'system_identifier', (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
            'data_checksums', pg_catalog.current_setting('data_checksums')::bool);",
    )
}

/// All databases that accept connections, ours among them, in the order of their names. `template0` never does, and neither does
/// what an interrupted DROP DATABASE left behind (its connection limit is -2).
///
/// # Errors
/// [`Kind::Server`].
pub fn databases(session: &Session<'_>) -> Result<Vec<Database>> {
    session.query(
        HOME,
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', datname,
            'owner', pg_catalog.pg_get_userbyid(datdba),
            'encoding', pg_catalog.pg_encoding_to_char(encoding),
            'collate', datcollate,
            'ctype', datctype,
            'size', pg_catalog.pg_database_size(oid)) ORDER BY datname), '[]')
         FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2
           AND pg_catalog.has_database_privilege(oid, 'CONNECT');",
    )
}

/// Why nobody can look into a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closed {
    /// `ALLOW_CONNECTIONS false`.
    NoConnections,
    /// A DROP DATABASE was interrupted.
    HalfDropped,
    /// The role that we are has no privilege to connect to it.
    NoPrivilege,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoConnections => "it does not allow connections (ALLOW_CONNECTIONS false)",
            Self::HalfDropped => "a DROP DATABASE of it was interrupted",
            Self::NoPrivilege => "the role has no privilege to read all of it",
        })
    }
}

/// The databases that [`databases`] cannot have, each with the reason; not `template0`, which is never changed.
///
/// # Errors
/// [`Kind::Server`].
pub fn closed_databases(session: &Session<'_>) -> Result<Vec<(String, Closed)>> {
    session.query(
        HOME,
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(datname, CASE
            WHEN datconnlimit = -2 THEN 'half-dropped' WHEN datallowconn THEN 'no-privilege'
            ELSE 'no-connections' END) ORDER BY datname), '[]')
         FROM pg_catalog.pg_database WHERE datname <> 'template0' AND (NOT datallowconn OR datconnlimit = -2
            OR NOT pg_catalog.has_database_privilege(oid, 'CONNECT'));",
    )
}

/// What of a database a role that is no superuser cannot dump: tables and sequences that it may not read, or of which it sees
/// some rows only, and large objects; a few of them by their names.
///
/// # Errors
/// [`Kind::Server`].
pub fn unreadable(session: &Session<'_>, database: &str) -> Result<Vec<String>> {
    session.query(
        database,
        "SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (
            SELECT pg_catalog.format('%I.%I', nspname, relname) AS name
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
            WHERE relkind IN ('r', 'p', 'S') AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND objid = c.oid AND deptype = 'e')
              AND (NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') OR pg_catalog.row_security_active(c.oid)
                  OR NOT CASE relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                         ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END)
            UNION ALL SELECT pg_catalog.format('large object %s', oid) FROM pg_catalog.pg_largeobject_metadata
            WHERE NOT pg_catalog.pg_has_role(lomowner, 'USAGE')
            LIMIT 5) AS names;",
    )
}

/// What belongs to a database as a whole, and is not in a dump of what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// `datlocprovider`: `c`, `i` or `b`; nothing before PostgreSQL 15.
    pub locale_provider: Option<String>,
    /// The locale of the providers `i` and `b`.
    pub locale: Option<String>,
    /// Rules of ICU beside the locale's, since PostgreSQL 16.
    pub locale_rules: Option<String>,
    /// Where what does not say otherwise lies, if that is not where everything does.
    pub tablespace: Option<String>,
    /// Whether whoever may make databases may copy it.
    pub is_template: bool,
    /// The most connections; -1 is no limit.
    pub connection_limit: Option<i64>,
    /// `ALTER DATABASE ... SET` and `ALTER ROLE ... IN DATABASE ... SET`.
    pub settings: Vec<Setting>,
    /// Who may what, if that is not the default.
    pub privileges: Option<Vec<Grant>>,
    /// `COMMENT ON DATABASE`.
    pub comment: Option<String>,
    /// The installed extensions.
    pub extensions: Vec<String>,
}

/// A setting that holds in one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// For this role only.
    #[serde(default)]
    pub role: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value, as PostgreSQL keeps it.
    pub value: String,
}

/// Settings whose value is a list, of which each element is quoted by itself (`GUC_LIST_QUOTE`): pg_dump treats them apart, too.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

impl Setting {
    /// Its name in SQL. Extensions' settings have a dot in theirs.
    pub fn key(&self) -> String {
        self.name.split('.').map(identifier).collect::<Vec<_>>().join(".")
    }

    /// Whether its value is a list whose elements are quoted already.
    pub fn is_list(&self) -> bool {
        LISTS.contains(&self.name.as_str())
    }
}

/// A privilege on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role; nothing for PUBLIC.
    pub role: Option<String>,
    /// Such as `CONNECT`.
    pub privilege: String,
    /// `WITH GRANT OPTION`.
    pub grantable: bool,
}

/// The properties of one database. Columns that an older server lacks are null in its row as JSON.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn properties(session: &Session<'_>, database: &str) -> Result<Properties> {
    session.query(
        database,
        "SELECT pg_catalog.json_build_object(
            'locale_provider', pg_catalog.to_jsonb(d)->>'datlocprovider',
            'locale', coalesce(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale'),
            'locale_rules', pg_catalog.to_jsonb(d)->>'daticurules',
            'tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = dattablespace AND spcname <> 'pg_default'),
            'is_template', datistemplate,
            'connection_limit', datconnlimit,
            'settings', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                    'role', CASE WHEN setrole <> 0 THEN pg_catalog.pg_get_userbyid(setrole) END,
                    'name', pg_catalog.split_part(line, '=', 1),
                    'value', pg_catalog.substr(line, pg_catalog.strpos(line, '=') + 1)) ORDER BY setrole, line), '[]')
                FROM pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) AS line WHERE setdatabase = d.oid),
            'privileges', CASE WHEN datacl IS NOT NULL THEN (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                    'role', CASE WHEN grantee <> 0 THEN pg_catalog.pg_get_userbyid(grantee) END,
                    'privilege', privilege_type,
                    'grantable', is_grantable)), '[]') FROM pg_catalog.aclexplode(datacl)) END,
            'comment', pg_catalog.shobj_description(d.oid, 'pg_database'),
            'extensions', (SELECT coalesce(pg_catalog.json_agg(extname ORDER BY extname), '[]') FROM pg_catalog.pg_extension))
         FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database();",
    )
}

/// All roles, those that PostgreSQL makes itself among them.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn all_roles(session: &Session<'_>) -> Result<Vec<String>> {
    session
        .query("postgres", "SELECT pg_catalog.json_agg(rolname ORDER BY rolname) FROM pg_catalog.pg_roles;")
}

/// The names of all roles but the server's own.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn roles(session: &Session<'_>) -> Result<Vec<String>> {
    session.query(
        HOME,
        "SELECT coalesce(pg_catalog.json_agg(rolname ORDER BY rolname), '[]') FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_';",
    )
}
/// Whether to plan a query of the table `c`, a `pg_class`, may be to call a function of somebody who is no superuser: what is
/// constant in the expressions of indexes and of statistics is evaluated then, by whoever asks.
pub const PLANNING_CALLS: &str = "((EXISTS (SELECT FROM pg_catalog.pg_index
        WHERE indrelid = c.oid AND (indexprs IS NOT NULL OR indpred IS NOT NULL))
    OR EXISTS (SELECT FROM pg_catalog.pg_statistic_ext WHERE stxrelid = c.oid))
    AND EXISTS (SELECT FROM pg_catalog.pg_proc JOIN pg_catalog.pg_roles r ON r.oid = proowner
        WHERE provolatile = 'i' AND NOT rolsuper))";
