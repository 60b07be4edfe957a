//! How to reach one database of one server.

use std::path::{Path, PathBuf};

use nix::sys::sysinfo::sysinfo;

/// A server's socket, and the role to log in as. There is no password: over the socket the system user is
/// mapped to the role (chapter "User Name Maps").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The directory of the Unix socket.
    pub socket_directory: PathBuf,
    /// The number in the socket's name.
    pub port: u16,
    /// The role.
    pub user: String,
}

impl Connection {
    /// A connection through the socket in `directory`.
    pub fn new(directory: &Path, port: u16, user: &str) -> Self {
        Self { socket_directory: directory.to_owned(), port, user: user.to_owned() }
    }

    /// The socket itself.
    pub fn socket(&self) -> PathBuf {
        self.socket_directory.join(format!(".s.PGSQL.{}", self.port))
    }

    /// A connection string (chapter "Connection Strings"). The database's name goes in quoted: given bare
    /// to `--dbname`, a name with `=` in it would be taken for a connection string itself.
    pub fn conninfo(&self, database: &str) -> String {
        format!(
            "host={} port={} user={} dbname={} application_name=matrix-postgres",
            value(&self.socket_directory.to_string_lossy()),
            self.port,
            value(&self.user),
            value(database)
        )
    }

    /// The same for questions of our own: what is set for a role or a database does not end them early.
    pub fn conninfo_for_asking(&self, database: &str) -> String {
        format!("{} options='{ASKING}'", self.conninfo(database))
    }

    /// A connection string that names no database: for pg_basebackup, and for a standby.
    pub fn conninfo_for_replication(&self) -> String {
        let directory = value(&self.socket_directory.to_string_lossy());
        let (port, user) = (self.port, value(&self.user));
        format!("host={directory} port={port} user={user} application_name={STANDBY}")
    }

    /// The same for many rows at once: what a crash would lose is loaded again, and indexes get memory. A statement
    /// may have so many `helpers`, of which each takes a processor.
    pub fn conninfo_for_loading(&self, database: &str, helpers: usize) -> String {
        let memory = sysinfo().map_or(0, |system| system.ram_total());
        let memory = maintenance_memory(memory) >> 20;
        format!(
            "{} options='{LOADING} -c maintenance_work_mem={memory}MB -c max_parallel_maintenance_workers={helpers} \
             -c max_parallel_workers_per_gather={helpers}'",
            self.conninfo(database)
        )
    }

    /// The same for statistics of what was loaded.
    pub fn conninfo_for_analyzing(&self, database: &str) -> String {
        format!("{} options='{ANALYZING}'", self.conninfo(database))
    }

    /// The same for a program whose output is compared with that of another server: times are written alike, and
    /// nothing that is set for a role or a database ends it early.
    pub fn conninfo_for_comparison(&self, database: &str) -> String {
        format!("{} options='{COMPARING}'", self.conninfo(database))
    }
}

/// As many processes as the server lets help by default (`max_parallel_maintenance_workers`).
pub const HELPERS: usize = 2;

/// What a copy that follows a server calls itself, in `pg_stat_replication`.
pub const STANDBY: &str = "matrix-postgres-standby";

const ASKING: &str = "-c statement_timeout=0";

const COMPARING: &str = "-c TimeZone=UTC -c DateStyle=ISO,YMD -c statement_timeout=0 -c lock_timeout=0 -c jit=off \
    -c idle_in_transaction_session_timeout=0 -c quote_all_identifiers=off -c default_transaction_read_only=on";

/// What each of the connections may use to sort an index, in bytes, on a machine with this much memory.
fn maintenance_memory(total: u64) -> u64 {
    (total / 16).clamp(64 << 20, 1 << 30)
}

/// Settings of a session that loads many rows. Nothing is durable before the commit of a later, ordinary
/// session, which flushes everything that was written before it (chapter "Asynchronous Commit"). Rows are not
/// counted as changes: autovacuum would gather statistics meanwhile, and they are gathered when all is there.
const LOADING: &str = "-c synchronous_commit=off -c track_counts=off -c jit=off \
    -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 \
    -c default_transaction_read_only=off";

const ANALYZING: &str = "-c synchronous_commit=off -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 \
    -c default_transaction_read_only=off";

fn value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_get_a_sixteenth_of_the_memory_within_limits() {
        let megabytes = [512, 4096, 65536].map(|total| maintenance_memory(total << 20) >> 20);
        assert_eq!(megabytes, [64, 256, 1024]);
    }

    #[test]
    fn a_name_full_of_quotes_stays_one_name() {
        let connection = Connection::new(Path::new("/run/x"), 5432, "postgres");
        assert_eq!(
            connection.conninfo(r"it's \ a=b 🐘"),
            r"host='/run/x' port=5432 user='postgres' dbname='it\'s \\ a=b 🐘' application_name=matrix-postgres"
        );
    }
}
