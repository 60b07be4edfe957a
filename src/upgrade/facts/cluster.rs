//! What the running server says.

use serde::{Deserialize, Serialize};

use super::loose_keys::{self, LooseKey};
use crate::backup::guarded;
use crate::clients::{self, Session};
use crate::config::Settings;
use crate::error::Result;
use crate::postgres::initdb::{self, Initialisation};
use crate::postgres::{self, Database, HOME, Libraries, Major, ServerFacts, identifier};
use crate::runtime::Runtime;

/// The running cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The server as a whole.
    pub server: ServerFacts,
    /// Databases that accept connections.
    pub databases: Vec<Database>,
    /// Roles, slots, tablespaces and the like.
    pub shared: Shared,
    /// Per database: extensions and large objects.
    pub contents: Vec<(String, Contained)>,
    /// Per database: what is loaded with the rights of others, if it is dumped.
    pub foreseen: Vec<(String, guarded::Foreseen)>,
    /// What initdb decided.
    pub initialisation: Initialisation,
    /// What it loads at its start for what the databases hold.
    pub libraries: Libraries,
}

/// What belongs to the cluster and not to one of its databases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Roles that may log in and whose password is an md5 hash.
    pub md5_roles: Vec<String>,
    /// Whether pg_hba.conf has a line that takes scram only, and none that takes md5.
    pub scram_only: bool,
    /// Tablespaces with their directories, other than PostgreSQL's own two.
    pub tablespaces: Vec<String>,
    /// Transactions that are prepared and not ended.
    pub prepared_transactions: u64,
    /// Replication slots.
    pub replication_slots: Vec<String>,
    /// Replication origins that belong to no subscription.
    #[serde(default)]
    pub replication_origins: Vec<String>,
    /// Databases that accept no connections, other than template0.
    pub closed_databases: Vec<String>,
    /// Whether `template0` accepts connections.
    #[serde(default)]
    pub template0_open: bool,
    /// Databases whose DROP DATABASE was interrupted.
    #[serde(default)]
    pub invalid_databases: Vec<String>,
    /// Settings of roles and databases, those of extensions left out.
    pub settings: Vec<CatalogSetting>,
    /// Who is connected.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// `synchronous_standby_names`.
    #[serde(default)]
    pub synchronous_standbys: String,
    /// How much is written to the log: `minimal`, `replica`, `logical`.
    pub wal_level: String,
    /// How many more may be sent the log.
    pub free_wal_senders: i64,
    /// How many more replication slots there may be.
    pub free_replication_slots: i64,
}

/// `ALTER ROLE … SET` or `ALTER DATABASE … SET`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogSetting {
    /// The role; nothing for all.
    pub role: Option<String>,
    /// The database; nothing for all.
    pub database: Option<String>,
    /// The setting's name.
    pub name: String,
    /// Its value, as PostgreSQL keeps it.
    #[serde(default)]
    pub value: String,
}

impl CatalogSetting {
    /// Whose it is, as ALTER names that.
    pub fn whose(&self) -> String {
        match (&self.role, &self.database) {
            (Some(role), None) => format!("ROLE {}", identifier(role)),
            (Some(role), Some(database)) => {
                format!("ROLE {} IN DATABASE {}", identifier(role), identifier(database))
            }
            (None, Some(database)) => format!("DATABASE {}", identifier(database)),
            (None, None) => "ROLE ALL".to_owned(),
        }
    }
}

/// What is in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contained {
    /// Its extensions.
    pub extensions: Vec<String>,
    /// Its large objects.
    pub large_objects: u64,
    /// Bytes of tables whose rows are in no log, so that no copy gets them.
    pub unlogged_bytes: u64,
    /// Subscriptions that are switched on.
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// What was made in schemas of the system, which no dump has.
    #[serde(default)]
    pub among_the_systems: Vec<String>,
    /// Foreign keys whose triggers are switched off, which no dump says.
    #[serde(default)]
    pub loose_keys: Vec<LooseKey>,
    /// Partitions whose triggers of foreign keys are not switched on or off as their parents' are: see
    /// [`key_trigger`](crate::postgres::key_trigger).
    #[serde(default)]
    pub partitions_apart: Vec<String>,
    /// Names that are not UTF-8, as a database in SQL_ASCII may have them: how many.
    #[serde(default)]
    pub unreadable_names: u64,
    /// Indexes whose order depends on a collation that is of another version now, or of an unknown one.
    pub stale_indexes: Vec<String>,
}

const SHARED: &str = "SELECT pg_catalog.json_build_object(
    'md5_roles', (SELECT coalesce(pg_catalog.json_agg(rolname ORDER BY rolname), '[]') FROM pg_catalog.pg_authid
        WHERE rolcanlogin AND rolpassword LIKE 'md5%'),
    'scram_only', EXISTS (SELECT FROM pg_catalog.pg_hba_file_rules WHERE auth_method = 'scram-sha-256')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_hba_file_rules WHERE auth_method = 'md5'),
    'tablespaces', (SELECT coalesce(pg_catalog.json_agg(
            pg_catalog.format('%s in %s', spcname, pg_catalog.pg_tablespace_location(oid))), '[]')
        FROM pg_catalog.pg_tablespace WHERE spcname NOT LIKE 'pg\\_%'),
    'prepared_transactions', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts),
    'replication_slots', (SELECT coalesce(pg_catalog.json_agg(slot_name), '[]') FROM pg_catalog.pg_replication_slots),
    'replication_origins', (SELECT coalesce(pg_catalog.json_agg(roname ORDER BY roname), '[]')
        FROM pg_catalog.pg_replication_origin WHERE roname !~ '^pg_[0-9]'),
    'closed_databases', (SELECT coalesce(pg_catalog.json_agg(datname), '[]') FROM pg_catalog.pg_database
        WHERE NOT datallowconn AND datname <> 'template0'),
    'template0_open', EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'template0' AND datallowconn),
    'invalid_databases', (SELECT coalesce(pg_catalog.json_agg(datname), '[]') FROM pg_catalog.pg_database WHERE datconnlimit = -2),
    'settings', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'role', CASE WHEN setrole <> 0 THEN pg_catalog.pg_get_userbyid(setrole) END,
            'database', (SELECT datname FROM pg_catalog.pg_database WHERE oid = setdatabase),
            'name', pg_catalog.split_part(line, '=', 1),
            'value', pg_catalog.substr(line, pg_catalog.strpos(line, '=') + 1)) ORDER BY setdatabase, setrole, line), '[]')
        FROM pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) AS line WHERE pg_catalog.split_part(line, '=', 1) NOT LIKE '%.%'),
    'synchronous_standbys', pg_catalog.current_setting('synchronous_standby_names'),
    'wal_level', pg_catalog.current_setting('wal_level'),
    'free_wal_senders', pg_catalog.current_setting('max_wal_senders')::int
        - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender'),
    'free_replication_slots', pg_catalog.current_setting('max_replication_slots')::int
        - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots));";

/// Whoever has locked a table for long is named by the server; nobody is kept waiting without a word.
const CONTAINED: &str = "SET lock_timeout = '30s'; SELECT pg_catalog.json_build_object(
    'extensions', (SELECT coalesce(pg_catalog.json_agg(extname ORDER BY extname), '[]') FROM pg_catalog.pg_extension),
    'large_objects', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata),
    'unlogged_bytes', (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_table_size(oid)), 0)::bigint FROM pg_catalog.pg_class
        WHERE relpersistence = 'u' AND relkind = 'r'),
    'subscriptions', (SELECT coalesce(pg_catalog.json_agg(subname ORDER BY subname), '[]') FROM pg_catalog.pg_subscription
        WHERE subenabled AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())),
    'among_the_systems', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%s %s', type, identity) ORDER BY identity), '[]') FROM (
            SELECT tableoid AS class, oid, pronamespace AS schema FROM pg_catalog.pg_proc
            UNION ALL SELECT tableoid, oid, oprnamespace FROM pg_catalog.pg_operator
            UNION ALL SELECT tableoid, oid, typnamespace FROM pg_catalog.pg_type WHERE typtype IN ('b', 'd', 'e', 'r') AND typelem = 0
            UNION ALL SELECT tableoid, oid, relnamespace FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
        ) AS made, pg_catalog.pg_identify_object(class, made.oid, 0)
        WHERE made.oid >= 16384 AND made.schema IN (SELECT n.oid FROM pg_catalog.pg_namespace n
            WHERE nspname IN ('pg_catalog', 'information_schema'))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = class AND objid = made.oid AND deptype IN ('e', 'i'))),
    'loose_keys', LOOSE_KEYS,
    'partitions_apart', (SELECT coalesce(pg_catalog.json_agg(DISTINCT t.tgrelid::pg_catalog.regclass::text), '[]')
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_trigger parent ON parent.oid = t.tgparentid
        JOIN pg_catalog.pg_constraint c ON c.oid = t.tgconstraint WHERE contype = 'f' AND t.tgenabled <> parent.tgenabled),
    'unreadable_names', CASE WHEN pg_catalog.getdatabaseencoding() = 'SQL_ASCII' THEN (SELECT pg_catalog.count(*) FROM (
            SELECT relname::text FROM pg_catalog.pg_class UNION ALL SELECT attname::text FROM pg_catalog.pg_attribute
            UNION ALL SELECT typname::text FROM pg_catalog.pg_type UNION ALL SELECT proname::text FROM pg_catalog.pg_proc
            UNION ALL SELECT nspname::text FROM pg_catalog.pg_namespace UNION ALL SELECT conname::text FROM pg_catalog.pg_constraint
            UNION ALL SELECT evtname::text FROM pg_catalog.pg_event_trigger) AS names (name) WHERE name COLLATE \"C\"
            !~ '^([\\x01-\\x7f]|[\\xc2-\\xdf][\\x80-\\xbf]|[\\xe0-\\xef][\\x80-\\xbf]{2}|[\\xf0-\\xf4][\\x80-\\xbf]{3})*$') ELSE 0 END,
    'stale_indexes', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname)), '[]')
        FROM pg_catalog.pg_index JOIN pg_catalog.pg_class c ON c.oid = indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        WHERE relkind = 'i' AND relpersistence = 'p' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
        AND EXISTS (SELECT FROM pg_catalog.unnest(indcollation) AS used (collation_oid)
            JOIN pg_catalog.pg_collation co ON co.oid = collation_oid
            WHERE CASE WHEN collprovider = 'd' THEN (
                    SELECT STALE FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                WHEN collprovider = 'b' OR collcollate ~* '^(c|posix)($|\\.)' THEN false
                ELSE collversion IS DISTINCT FROM pg_catalog.pg_collation_actual_version(co.oid) END)));";

/// Whether the collation of a database has another version than its indexes were built with. Before 15 that was not
/// recorded; C has none (chapter "Collation Support", ALTER COLLATION).
fn stale(version: u32) -> &'static str {
    match version >= 150_000 {
        true => "datcollversion IS DISTINCT FROM pg_catalog.pg_database_collation_actual_version(oid)",
        false => "datcollate !~* '^(c|posix)($|\\.)'",
    }
}

/// What the server says, if one listens on our socket.
pub(super) fn ask(
    settings: &Settings,
    runtime: &dyn Runtime,
    installed: &[Major],
) -> Result<Option<Cluster>> {
    let connection = settings.connection();
    let Some(&major) = installed.last().filter(|_| !connection.is_absent()) else { return Ok(None) };
    let session = postgres::Session { runtime, major, connection: &connection };
    let server = postgres::server_facts(&session)?;
    let connection = connection.clone().to_server(server.major()?);
    let session = postgres::Session { connection: &connection, ..session };
    let databases = postgres::databases(&session)?;
    let question =
        CONTAINED.replace("STALE", stale(server.version_num)).replace("LOOSE_KEYS", loose_keys::QUESTION);
    let contained = |database: &Database| -> Result<(String, Contained)> {
        let mut contained: Contained = session.query(&database.name, &question)?;
        contained.loose_keys.iter_mut().for_each(|key| key.look(&session, &database.name));
        Ok((database.name.clone(), contained))
    };
    let contents = databases.iter().map(contained).collect::<Result<_>>()?;
    let foreseen = databases
        .iter()
        .map(|database| Ok((database.name.clone(), guarded::Foreseen::find(&session, &database.name)?)))
        .collect::<Result<_>>()?;
    Ok(Some(Cluster {
        server,
        foreseen,
        initialisation: initdb::initialisation(&session)?,
        libraries: Libraries::gather(&session)?,
        shared: Shared { sessions: clients::sessions::ask(&session)?, ..session.query(HOME, SHARED)? },
        databases,
        contents,
    }))
}
