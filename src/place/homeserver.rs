//! What homeserver.yaml says of the database: `psycopg2` with its arguments (Synapse's documentation, "Using Postgres").
//!
//! It is a hint at where to look.

use std::path::{Path, PathBuf};

use super::cluster::Cluster;
use crate::files::beneath;
use crate::postgres::is_near;
use crate::yaml;

/// Debian's, whose later files win, and the playbook's.
const FILES: [&str; 2] = ["etc/matrix-synapse/homeserver.yaml", "matrix/synapse/config/homeserver.yaml"];
const FURTHER: &str = "etc/matrix-synapse/conf.d";

/// More is not read of one.
const MODEST: u64 = 1 << 20;

/// The homeserver's database, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The file that says so.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// The role that the homeserver logs in as.
    pub role: Option<String>,
    /// A host's name, an address, or the directory of a socket; nothing for the usual socket.
    pub host: Option<String>,
    /// The port, or the number in the socket's name.
    pub port: u16,
    /// The certificates that it trusts.
    pub sslrootcert: Option<PathBuf>,
}

/// Debian's further configurations of Synapse, in the order in which they are read.
pub fn further(root: &Path) -> Vec<PathBuf> {
    let further = std::fs::read_dir(root.join(FURTHER)).into_iter().flatten().flatten();
    let mut further: Vec<_> = further
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    further.sort();
    further
}

impl Database {
    /// That of the homeserver of this machine, of which `root` is `/` but in tests; nothing where we may not look, too.
    pub fn find(root: &Path) -> Option<Self> {
        let further = further(root);
        let [debian, playbook] = FILES.map(|file| root.join(file));
        further.into_iter().rev().chain([debian, playbook]).find_map(|file| {
            let text = beneath::read(&file, MODEST).ok()?;
            parse(&String::from_utf8_lossy(&text), &file)
        })
    }

    /// The host, if that is another machine than this, which calls itself `hostname`.
    pub fn host_elsewhere(&self, hostname: &str) -> Option<&str> {
        let host = self.host.as_deref().filter(|host| !host.is_empty())?;
        let is_here = is_near(host) || host.eq_ignore_ascii_case(hostname);
        (!is_here).then_some(host)
    }

    /// Whether this is where the server of a cluster listens.
    pub fn is_on(&self, cluster: &Cluster) -> bool {
        let is_near = match self.host.as_deref() {
            None | Some("" | "localhost" | "127.0.0.1" | "::1") => true,
            Some(directory) => is_same(Path::new(directory), &cluster.socket_directory),
        };
        is_near && self.port == cluster.port
    }
}

/// `/var/run` is a link to `/run`.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || one.is_absolute() && real(one) == real(other)
}

fn parse(text: &str, file: &Path) -> Option<Database> {
    let pairs: Vec<_> = yaml::block(text, "database")?.filter_map(yaml::key).collect();
    let value = |names: &[&str]| {
        let found = pairs.iter().find(|(name, _)| names.contains(name));
        found.map(|(_, value)| (*value).to_owned()).filter(|value| !value.is_empty())
    };
    value(&["name"]).filter(|name| name == "psycopg2")?;
    Some(Database {
        file: file.to_owned(),
        name: value(&["dbname", "database"])?,
        role: value(&["user"]),
        host: value(&["host"]),
        port: value(&["port"]).map_or(Some(5432), |port| port.parse().ok())?,
        sslrootcert: value(&["sslrootcert"]).map(PathBuf::from).filter(|path| path.is_absolute()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "\
server_name: example.org
# database: no
database: # where everything is
  name: psycopg2
  args:
    user: synapse_user
    password: \"a # b: c\"
    dbname: 'synapse'   # not homeserver
    host: localhost
    sslrootcert: /ca.pem
    cp_min: 5

log_config: /x
host: elsewhere
port: 1
";

    #[test]
    fn the_usual_way_to_write_it_is_understood() {
        let found = parse(USUAL, Path::new("/h")).unwrap();
        assert_eq!(
            (found.name.as_str(), found.role.as_deref(), found.port),
            ("synapse", Some("synapse_user"), 5432)
        );
        assert_eq!(found.host.as_deref(), Some("localhost"));
        assert_eq!(found.sslrootcert.as_deref(), Some(Path::new("/ca.pem")));
        assert_eq!(parse(&USUAL.replace("cp_min: 5", "port: 5433"), Path::new("/h")).unwrap().port, 5433);
        for otherwise in [
            "",
            "database:\n  name: sqlite3\n  args:\n    database: /var/lib/x.db\n",
            "database: {name: psycopg2, args: {dbname: synapse}}\n",
            "x:\n  database:\n    name: psycopg2\n    dbname: x\n",
        ] {
            assert_eq!(parse(otherwise, Path::new("/h")), None, "{otherwise}");
        }
    }

    #[test]
    fn of_debians_files_the_last_one_wins() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Database::find(root.path()), None);
        let further = root.path().join(FURTHER);
        std::fs::create_dir_all(&further).unwrap();
        std::fs::write(root.path().join(FILES[0]), USUAL).unwrap();
        assert_eq!(Database::find(root.path()).unwrap().name, "synapse");
        std::fs::write(further.join("a.yaml"), USUAL.replace("'synapse'", "a")).unwrap();
        std::fs::write(further.join("b.yaml"), USUAL.replace("'synapse'", "b")).unwrap();
        std::fs::write(further.join("c.yaml"), "report_stats: false\n").unwrap();
        assert_eq!(Database::find(root.path()).unwrap().name, "b");
    }
}
