//! How to reach one database of one server, and what holds in a session of ours.
//!
//! Whoever owns a database, and whoever may log in, can say by `ALTER DATABASE … SET` and `ALTER ROLE … SET` what holds
//! at the start of each session, in those of the superuser, too. What is given with the connection wins over that
//! (chapter "Setting Parameters"): no name that we write may mean something of theirs, and nothing of theirs may end a
//! session, let it fail, or change what is read from it and written to it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::sys::sysinfo::sysinfo;

use super::Major;
use super::endpoint::{Endpoint, PATIENCE, value};

/// The database in which a server is asked about itself, and whatever is done that belongs to no database. Whoever names it
/// to a [`Connection`] gets the one of [`Connection::homes`] that lets us in.
pub const HOME: &str = "postgres";

/// Where a server listens, and the role to log in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Where it listens.
    endpoint: Endpoint,
    /// The TCP port, or the number in the socket's name.
    pub port: u16,
    /// The role. Over a socket it is a superuser.
    pub user: String,
    /// The server's version. Until it is known, what only newer ones know is left as it is, and nobody looks into
    /// others' databases.
    pub server: Option<Major>,
    /// The unit that runs the server, if one does that is known.
    unit: Option<String>,
    /// A database that is there in any case, as far as is known.
    also: Option<String>,
    /// What stands in for [`HOME`], once that has not let us in. It can be dropped (chapter "Template Databases").
    home: Arc<OnceLock<String>>,
}

impl Connection {
    /// A connection through the socket in `directory`.
    pub fn new(directory: &Path, port: u16, user: &str) -> Self {
        Self::to(Endpoint::Socket(directory.to_owned()), port, user)
    }

    /// A connection to a server that listens there.
    pub fn to(endpoint: Endpoint, port: u16, user: &str) -> Self {
        Self {
            endpoint,
            port,
            user: user.to_owned(),
            server: None,
            unit: None,
            also: None,
            home: Arc::default(),
        }
    }

    /// The same to a server that has this database.
    #[must_use]
    pub fn with_database(self, name: &str) -> Self {
        Self { also: Some(name.to_owned()), ..self }
    }

    /// The same to a server that this unit runs.
    #[must_use]
    pub fn of_unit(self, name: &str) -> Self {
        Self { unit: Some(name.to_owned()), ..self }
    }

    /// The unit that runs the server.
    pub fn unit(&self) -> &str {
        self.unit.as_deref().unwrap_or("matrix-postgres.service")
    }

    /// The databases in which a server can be asked about itself, the one that is meant for it first.
    pub fn homes(&self) -> impl Iterator<Item = &str> {
        [HOME, "template1"].into_iter().chain(self.also.as_deref())
    }

    /// The database of this name; for [`HOME`], what stands in for it.
    pub fn resolve<'a>(&'a self, database: &'a str) -> &'a str {
        match self.home.get() {
            Some(home) if database == HOME => home,
            _ => database,
        }
    }

    /// From now on, for this connection and its likes, `database` stands in for [`HOME`].
    pub fn stand_in(&self, database: &str) {
        // Two who have found one at the same time are both right.
        let _ = self.home.set(database.to_owned());
    }

    /// The same where each database is meant by its own name, and none stands in for another.
    #[must_use]
    pub fn literally(&self) -> Self {
        Self { home: Arc::default(), ..self.clone() }
    }

    /// The same to a server of this version.
    #[must_use]
    pub fn to_server(self, major: Major) -> Self {
        Self { server: Some(major), ..self }
    }

    /// The same as another role.
    #[must_use]
    pub fn as_role(self, name: &str) -> Self {
        Self { user: name.to_owned(), ..self }
    }

    /// Where the server listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The directory of the socket; nothing for a server on the network.
    pub fn socket_directory(&self) -> Option<&Path> {
        self.endpoint.socket_directory()
    }

    /// Where it listens, in a sentence.
    pub fn place(&self) -> String {
        self.endpoint.place(self.port)
    }

    /// Whether certainly nobody listens: there is no socket. Of a server on the network that is seen only when it is asked.
    pub fn is_absent(&self) -> bool {
        self.endpoint.is_absent(self.port)
    }

    /// Whether we may set what only superusers may.
    pub fn is_superuser(&self) -> bool {
        self.endpoint.remote().is_none_or(|remote| remote.is_superuser)
    }

    /// How psql finds the server and this database by variables, which its own arguments overrule.
    pub fn variables(&self, database: &str) -> Vec<(&'static str, String)> {
        let mut variables = self.endpoint.variables();
        variables.extend([
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", database.to_owned()),
        ]);
        variables
    }

    /// What every connection string begins with.
    fn address(&self) -> String {
        format!("{} port={}", self.endpoint.address(), self.port)
    }

    /// A connection string that names nobody: for pg_isready.
    pub fn conninfo_for_presence(&self) -> String {
        format!("{} connect_timeout={PATIENCE}", self.address())
    }

    /// A connection string (chapter "Connection Strings") for a program that says by itself what it needs beyond this,
    /// such as pg_dump.
    pub fn conninfo(&self, database: &str) -> String {
        self.with(database, &[])
    }

    /// The same for questions of our own. Nothing can be changed by them, whatever they call.
    pub fn conninfo_for_asking(&self, database: &str) -> String {
        self.with(database, &ASKING) + " client_encoding=UTF8"
    }

    /// The same for changes of our own.
    pub fn conninfo_for_changing(&self, database: &str) -> String {
        let settings = [&CHANGING[..], &DISCREET].concat();
        self.with(database, &settings) + " client_encoding=UTF8"
    }

    /// A connection string that names no database: for pg_basebackup, and for a standby. What is set for roles and
    /// databases does not hold there (`InitPostgres` in postinit.c).
    pub fn conninfo_for_replication(&self) -> String {
        format!("{} user={} application_name={STANDBY}", self.address(), value(&self.user))
    }

    /// The same for a program that makes an extension for its own use.
    pub fn conninfo_for_extending(&self, database: &str) -> String {
        self.with(database, &CHANGING)
    }

    /// The same for many rows at once: what a crash would lose is loaded again, and indexes get memory. A statement
    /// may have so many `helpers`, of which each takes a processor.
    pub fn conninfo_for_loading(&self, database: &str, helpers: usize) -> String {
        let memory = sysinfo().map_or(0, |system| system.ram_total());
        let memory = format!("{}MB", maintenance_memory(memory) >> 20);
        let helpers = helpers.to_string();
        let mut settings = [&LOADING[..], &DISCREET].concat();
        settings.extend([
            ("maintenance_work_mem", memory.as_str()),
            ("max_parallel_maintenance_workers", &helpers),
            ("max_parallel_workers_per_gather", &helpers),
        ]);
        self.with(database, &settings)
    }

    /// The same for a login that has the rights of `role` and no others: a server takes the settings of a superuser from
    /// superusers only. Its password is in `passfile`, and no other one (of a key that is there twice, the last holds).
    pub fn conninfo_for_loading_as(&self, database: &str, role: &str, passfile: &Path) -> String {
        let settings: Vec<_> = settings_for(self.server)
            .into_iter()
            .chain(LOADING)
            .filter(|(name, _)| *name != "role" && !OF_SUPERUSERS.contains(name))
            .chain([("role", role)])
            .collect();
        self.string(database, &settings) + &format!(" passfile={}", value(&passfile.to_string_lossy()))
    }

    /// The same for statistics of what was loaded.
    pub fn conninfo_for_analyzing(&self, database: &str) -> String {
        self.with(database, &ANALYZING)
    }

    /// The same for a program whose output is compared with that of another server: times are written alike.
    pub fn conninfo_for_comparison(&self, database: &str) -> String {
        self.with(database, &COMPARING)
    }

    /// What holds in every session of ours, for a program that connects by itself, in `PGOPTIONS`.
    pub fn options(server: Option<Major>) -> String {
        written(&settings_for(server))
    }

    fn with(&self, database: &str, more: &[(&str, &str)]) -> String {
        let mut settings = [&settings_for(self.server), more].concat();
        settings.retain(|(name, _)| self.is_superuser() || !OF_SUPERUSERS.contains(name));
        self.string(database, &settings)
    }

    /// The database's name goes in quoted: given bare to `--dbname`, a name with `=` in it would be taken for a
    /// connection string itself.
    fn string(&self, database: &str, settings: &[Set<'_>]) -> String {
        format!(
            "{} user={} dbname={} application_name=matrix-postgres connect_timeout={PATIENCE} options={}",
            self.address(),
            value(&self.user),
            value(self.resolve(database)),
            value(&written(settings))
        )
    }
}

/// As many processes as the server lets help by default (`max_parallel_maintenance_workers`).
pub const HELPERS: usize = 2;

/// What a copy that follows a server calls itself, in `pg_stat_replication`.
pub const STANDBY: &str = "matrix-postgres-standby";

/// A setting and its value.
type Set<'a> = (&'a str, &'a str);

/// In every session of ours. What programs such as pg_dump, and the scripts that it writes, set by themselves to read and
/// write rows (`search_path`, too), they still do.
const ALWAYS: [Set<'_>; 18] = [
    // Names. A session's own temporary schema comes first unless it is named.
    ("search_path", "pg_catalog,pg_temp"),
    ("default_tablespace", ""),
    // Who we are, and whose code is loaded.
    ("role", "none"),
    ("local_preload_libraries", ""),
    ("session_preload_libraries", ""),
    // Every row is read, or an error tells that it cannot be.
    ("row_security", "off"),
    ("session_replication_role", "origin"),
    // No query is planned by what others have put into constraints.
    ("constraint_exclusion", "off"),
    // Nothing ends us early, and nothing waits for transactions of others.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // How SQL is read, and arrays in rows, and how names are written.
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("quote_all_identifiers", "off"),
    ("client_min_messages", "notice"),
];

/// The same, since this version.
const SINCE: [(Major, Set<'_>); 4] = [
    (Major(14), ("idle_session_timeout", "0")),
    // What is left of us when we are killed ends, too, and holds no lock against whoever goes on. In milliseconds.
    (Major(14), ("client_connection_check_interval", "2000")),
    (Major(17), ("transaction_timeout", "0")),
    // Those of a login would be the first of all.
    (Major(17), ("event_triggers", "off")),
];

fn settings_for(server: Option<Major>) -> Vec<Set<'static>> {
    let newer = SINCE.into_iter().filter(|(since, _)| server.is_some_and(|server| server >= *since));
    ALWAYS.into_iter().chain(newer.map(|(_, setting)| setting)).collect()
}

/// Of these and of those below, what only superusers may set.
const OF_SUPERUSERS: [&str; 9] = [
    "session_preload_libraries",
    "session_replication_role",
    "event_triggers",
    "track_counts",
    "lc_messages",
    "log_min_error_statement",
    "log_statement",
    "log_min_duration_statement",
    "log_min_duration_sample",
];
/// Nobody's trigger has a say in what is done for all of a cluster: neither one of a table, nor, before 17, where
/// `event_triggers` turns them off, one that forbids DDL (ALTER TABLE, "ENABLE REPLICA TRIGGER"; ALTER EVENT TRIGGER).
const CHANGING: [Set<'_>; 2] =
    [("default_transaction_read_only", "off"), ("session_replication_role", "replica")];

/// What is only looked at is not counted either: autovacuum and people go by these numbers.
const ASKING: [Set<'_>; 2] = [("default_transaction_read_only", "on"), ("track_counts", "off")];

const COMPARING: [Set<'_>; 5] = [
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO,YMD"),
    ("jit", "off"),
    ("default_transaction_read_only", "on"),
    ("track_counts", "off"),
];

/// What each of the connections may use to sort an index, in bytes, on a machine with this much memory.
fn maintenance_memory(total: u64) -> u64 {
    (total / 16).clamp(64 << 20, 1 << 30)
}

/// No statement, in which there may be a password's verifier or somebody's message, gets into the server's log.
const DISCREET: [Set<'_>; 4] = [
    ("log_min_error_statement", "panic"),
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_duration_sample", "-1"),
];

/// Settings of a session that loads many rows. Nothing is durable before the commit of a later, ordinary
/// session, which flushes everything that was written before it (chapter "Asynchronous Commit"). Rows are not
/// counted as changes: autovacuum would gather statistics meanwhile, and they are gathered when all is there.
const LOADING: [Set<'_>; 5] = [
    // What a server says is read by us, too.
    ("lc_messages", "C"),
    ("synchronous_commit", "off"),
    ("track_counts", "off"),
    ("jit", "off"),
    ("default_transaction_read_only", "off"),
];

const ANALYZING: [Set<'_>; 2] = [("synchronous_commit", "off"), ("default_transaction_read_only", "off")];

/// As the server takes it apart again: words are separated by spaces, and a backslash keeps the next character.
fn written(settings: &[Set<'_>]) -> String {
    let words = settings.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
        format!("-c {name}={value}")
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Remote, SslMode};

    #[test]
    fn indexes_get_a_sixteenth_of_the_memory_within_limits() {
        let megabytes = [512, 4096, 65536].map(|total| maintenance_memory(total << 20) >> 20);
        assert_eq!(megabytes, [64, 256, 1024]);
    }

    #[test]
    fn a_name_full_of_quotes_stays_one_name() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "postgres");
        let text = connection.conninfo(r"it's \ a=b 🐘");
        let expected = r"host='/run/x' port=5432 user='postgres' dbname='it\'s \\ a=b 🐘' application_name=matrix-postgres connect_timeout=120 options='-c search_path=pg_catalog,pg_temp ";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains(r" -c default_transaction_isolation=read\\ committed "), "{text}");
    }

    #[test]
    fn where_the_usual_database_is_missing_another_stands_in_for_it() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "postgres").with_database("homeserver");
        assert_eq!(connection.homes().collect::<Vec<_>>(), ["postgres", "template1", "homeserver"]);
        let same = connection.clone().to_server(Major(17));
        assert!(same.conninfo(HOME).contains("dbname='postgres'"));
        connection.stand_in("template1");
        assert!(same.conninfo(HOME).contains("dbname='template1'"));
        assert!(same.conninfo("homeserver").contains("dbname='homeserver'"));
    }

    #[test]
    fn no_trigger_has_a_say_in_changes_of_ours() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "postgres");
        for text in [connection.conninfo_for_changing("d"), connection.conninfo_for_extending("d")] {
            let last = text.rsplit("session_replication_role=").next().unwrap_or_default();
            assert!(last.starts_with("replica"), "{text}");
        }
        assert!(!connection.conninfo_for_loading("d", 2).contains("=replica"));
    }

    #[test]
    fn a_server_is_told_only_what_it_knows() {
        let options = |major: u16| Connection::options(Some(Major(major)));
        for (setting, since) in [("idle_session_timeout=0", 14), ("event_triggers=off", 17)] {
            assert!(options(since).contains(setting), "{setting}");
            assert!(!options(since - 1).contains(setting), "{setting}");
            assert!(!Connection::options(None).contains(setting), "{setting}");
        }
    }

    #[test]
    fn in_every_session_names_are_the_servers_own() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "postgres").to_server(Major(17));
        for text in [
            connection.conninfo("d"),
            connection.conninfo_for_asking("d"),
            connection.conninfo_for_changing("d"),
            connection.conninfo_for_loading("d", 2),
            connection.conninfo_for_analyzing("d"),
            connection.conninfo_for_comparison("d"),
        ] {
            assert!(text.contains("-c search_path=pg_catalog,pg_temp "), "{text}");
            assert!(text.contains(" -c role=none ") && text.contains(" -c event_triggers=off"), "{text}");
        }
    }

    #[test]
    fn a_login_without_rights_of_its_own_sets_nothing_that_is_a_superusers() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "loader").to_server(Major(17));
        let text = connection.conninfo_for_loading_as("d", "we ird", Path::new("/p"));
        assert!(text.ends_with(r" -c role=we\\ ird' passfile='/p'"), "{text}");
        assert!(text.contains("user='loader'") && text.contains(" -c transaction_timeout=0"), "{text}");
        for setting in OF_SUPERUSERS.into_iter().chain(["role=none", "log_"]) {
            assert!(!text.contains(&format!("-c {setting}")), "{setting}: {text}");
        }
    }

    #[test]
    fn a_role_of_a_server_on_the_network_sets_what_it_may() {
        let to = |is_superuser| {
            let remote = Remote {
                host: "db.example.org".into(),
                sslmode: SslMode::VerifyFull,
                sslrootcert: None,
                passfile: Some("/p".into()),
                is_superuser,
            };
            Connection::to(Endpoint::Remote(remote), 5433, "backup").to_server(Major(17))
        };
        let all = |connection: &Connection| {
            [
                connection.conninfo("d"),
                connection.conninfo_for_asking("d"),
                connection.conninfo_for_changing("d"),
                connection.conninfo_for_extending("d"),
                connection.conninfo_for_loading("d", 2),
                connection.conninfo_for_analyzing("d"),
                connection.conninfo_for_comparison("d"),
            ]
        };
        for text in all(&to(false)) {
            for setting in OF_SUPERUSERS {
                assert!(!text.contains(setting), "{setting}: {text}");
            }
            assert!(text.starts_with("host='db.example.org' sslmode=verify-full "), "{text}");
            assert!(
                text.contains(" port=5433 user='backup' ") && text.contains("row_security=off"),
                "{text}"
            );
        }
        assert!(all(&to(true)).iter().all(|text| text.contains("event_triggers=off")));
        let text = to(false).conninfo_for_loading_as("d", "owner", Path::new("/q"));
        assert!(text.find("passfile='/q'") > text.find("passfile='/p'"), "{text}");
        assert!(!to(false).is_absent() && to(false).socket_directory().is_none());
        assert_eq!(to(false).place(), "db.example.org, port 5433");
        assert!(!to(false).conninfo_for_presence().contains("user="));
    }

    /// The search path of our sessions is enough for that; this is the second line.
    #[test]
    fn no_query_names_a_catalog_without_its_schema() {
        fn walk(directory: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, found);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for (number, line) in text.lines().enumerate() {
                    let bare = |word: &str| line.contains(&format!("{word} pg_"));
                    if ["FROM", "JOIN", "UPDATE", "TABLE"].into_iter().any(bare)
                        && !line.contains(" pg_catalog.")
                    {
                        found.push(format!("{}:{}: {line}", path.display(), number + 1));
                    }
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}
