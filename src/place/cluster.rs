//! Clusters that packages of the distribution have made: Debian's, which `pg_lsclusters` lists, and Red Hat's.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::aside;
use crate::account::Account;
use crate::error::Result;
use crate::files::beneath::{self, Directory};
use crate::postgres::{Connection, Contents, DataDirectory};
use crate::runtime::{bare, output};
use crate::version::Major;

/// Where Debian's servers and Red Hat's have their socket unless it is configured otherwise.
const SOCKETS: &str = "/var/run/postgresql";

/// Below it, by version and name.
const CONFIGURATIONS: &str = "etc/postgresql";

/// `postmaster.pid` is no longer than that (`LOCK_FILE_LINE_*` in pidfile.h).
const LOCK_FILE: u64 = 8192;

/// Whose package it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packaging {
    /// postgresql-common's: the configuration is in `/etc/postgresql/N/NAME`.
    Debian,
    /// Red Hat's, and PGDG's for it: all is in the data directory.
    RedHat,
}

/// A cluster of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Whose.
    pub packaging: Packaging,
    /// As `pg_lsclusters` calls it, such as `15/main`; Red Hat's have none, and are called by their directory.
    pub name: String,
    /// Its version.
    pub major: Major,
    /// Where it is.
    pub data_directory: PathBuf,
    /// Where its socket is; where it would be, if the server does not run.
    pub socket_directory: PathBuf,
    /// The number in the socket's name.
    pub port: u16,
    /// The server's unit.
    pub unit: String,
    /// The system user that it belongs to, and that its server lets in without a password. The role has the same name.
    pub owner: String,
    /// Whether its server runs.
    pub is_online: bool,
    /// The cluster that an upgrade of ours has made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

impl Cluster {
    /// How to ask it, as its owner.
    pub fn connection(&self) -> Connection {
        Connection::new(&self.socket_directory, self.port, &self.owner).to_server(self.major)
    }

    /// Its owner, if the system knows him.
    pub fn account(&self) -> Option<Account> {
        Account::named(&self.owner).ok().flatten()
    }

    /// Its start.conf tells, which everybody may read.
    fn with_successor(mut self, root: &Path) -> Self {
        let file = root.join(CONFIGURATIONS).join(&self.name).join("start.conf");
        let text = beneath::read(&file, LOCK_FILE).unwrap_or_default();
        self.successor = aside::successor(&String::from_utf8_lossy(&text)).map(str::to_owned);
        self
    }

    /// Where a cluster of Debian's has its configuration.
    pub fn configuration(name: &str) -> PathBuf {
        Path::new("/").join(CONFIGURATIONS).join(name)
    }

    /// The unit that the package has for one of this name.
    pub fn unit_of(name: &str) -> String {
        format!("postgresql@{}.service", name.replacen('/', "-", 1))
    }

    /// What a server says of itself in its data directory; only its owner and root may look.
    fn with_lock_file(mut self) -> Self {
        let text = beneath::read(&self.data_directory.join("postmaster.pid"), LOCK_FILE);
        if let Some((port, sockets)) =
            text.ok().filter(|_| self.is_online).and_then(|text| listens(&String::from_utf8_lossy(&text)))
        {
            (self.port, self.socket_directory) = (port, sockets);
        }
        self
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packaging {
            Packaging::Debian => write!(f, "Debian's cluster {}", self.name),
            Packaging::RedHat => write!(f, "the cluster in {}", self.name),
        }
    }
}

/// Port and directory of the socket in the text of `postmaster.pid` (its fourth and fifth line, `pidfile.h`); nothing without
/// a socket.
fn listens(text: &str) -> Option<(u16, PathBuf)> {
    let mut lines = text.lines().skip(3);
    let port = lines.next()?.trim().parse().ok()?;
    let directory = lines.next()?.trim();
    directory.starts_with('/').then(|| (port, directory.into()))
}

/// The clusters of this machine, of which `root` is `/` but in tests.
///
/// # Errors
/// Those of `pg_lsclusters`.
pub fn clusters(root: &Path) -> Result<Vec<Cluster>> {
    debians(root).map(|debians| debians.into_iter().chain(red_hats(root)).collect())
}

fn debians(root: &Path) -> Result<Vec<Cluster>> {
    let lister = root.join("usr/bin/pg_lsclusters");
    let mut clusters = Vec::new();
    if lister.exists() {
        let mut command = bare(&lister);
        command.arg("--no-header");
        clusters = parse(&String::from_utf8_lossy(&output(command, "pg_lsclusters", &[])?));
    }
    Ok(clusters.into_iter().map(|cluster| cluster.with_lock_file().with_successor(root)).collect())
}

/// What `pg_lsclusters --no-header` prints: version, name, port, status, owner, data directory, log. What has no port, because
/// its configuration cannot be read, is left out.
fn parse(text: &str) -> Vec<Cluster> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Cluster> {
    let mut words = line.split_whitespace();
    let (version, name) = (words.next()?, words.next()?);
    let (port, status) = (words.next()?.parse().ok()?, words.next()?);
    // A user without a name leaves his column empty, and a directory may have a space in its name.
    let owner = words.next().filter(|word| !word.starts_with(['/', '<'])).unwrap_or_default();
    let (directory, _log) = line[line.find(" /")? + 1..].trim_end().rsplit_once(' ')?;
    Some(Cluster {
        packaging: Packaging::Debian,
        name: format!("{version}/{name}"),
        major: Major(version.parse().ok()?),
        data_directory: directory.trim_end().into(),
        socket_directory: SOCKETS.into(),
        port,
        unit: Cluster::unit_of(&format!("{version}/{name}")),
        owner: owner.to_owned(),
        is_online: status.split(',').next() == Some("online"),
        successor: None,
    })
}

/// `/var/lib/pgsql/data` of `postgresql.service`, and PGDG's `/var/lib/pgsql/N/data` of `postgresql-N.service`, as far as we
/// may look.
pub(super) fn red_hats(root: &Path) -> Vec<Cluster> {
    let parent = root.join("var/lib/pgsql");
    let mut names = Directory::open(&parent).and_then(|parent| parent.names()).unwrap_or_default();
    names.sort();
    let versions = names.iter().filter_map(|name| name.to_str()?.parse::<u16>().ok());
    let pgdgs = versions.map(|version| (format!("{version}/data"), format!("postgresql-{version}.service")));
    let places = pgdgs.chain([("data".to_owned(), "postgresql.service".to_owned())]);
    places
        .filter_map(|(name, unit)| red_hat(&parent.join(name), unit, root))
        .map(Cluster::with_lock_file)
        .collect()
}

fn red_hat(directory: &Path, unit: String, root: &Path) -> Option<Cluster> {
    let found = DataDirectory::read(directory, &root.join("proc")).ok()?;
    let Contents::Cluster(major) = found.contents else { return None };
    Some(Cluster {
        packaging: Packaging::RedHat,
        name: directory.display().to_string(),
        major,
        data_directory: directory.to_owned(),
        socket_directory: SOCKETS.into(),
        port: 5432,
        unit,
        owner: found.owner?.name,
        is_online: found.postmaster.is_some(),
        successor: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "\
13 main    5434 down,binaries_missing postgres /var/lib/postgresql/13/main /var/log/postgresql/postgresql-13-main.log
15 main    5433 online,recovery       postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log
17 my-syn  5432 online                matrix   /srv/my data/17             /srv/my data/17/log/postgresql-%Y.log
18 hidden  <unknown> down             <unknown> <unknown>                   <unknown>
";

    #[test]
    fn the_clusters_of_debian_are_those_that_are_listed() {
        let clusters = parse(LISTED);
        let names: Vec<_> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        assert_eq!(names, ["13/main", "15/main", "17/my-syn"]);
        let online: Vec<_> = clusters.iter().map(|cluster| cluster.is_online).collect();
        assert_eq!(online, [false, true, true]);
        let main = &clusters[1];
        assert_eq!((main.major, main.port, main.owner.as_str()), (Major(15), 5433, "postgres"));
        assert_eq!(main.data_directory, Path::new("/var/lib/postgresql/15/main"));
        assert_eq!(main.unit, "postgresql@15-main.service");
        assert_eq!(main.connection().place(), "/var/run/postgresql/.s.PGSQL.5433");
        assert_eq!(clusters[2].unit, "postgresql@17-my-syn.service");
    }

    #[test]
    fn who_has_no_name_is_no_directory() {
        let listed = "15 main 5432 online  /var/lib/postgresql/15/main /var/log/x.log\n";
        let clusters = parse(listed);
        assert_eq!(clusters[0].owner, "");
        assert_eq!(clusters[0].data_directory, Path::new("/var/lib/postgresql/15/main"));
    }

    #[test]
    fn a_running_server_says_where_its_socket_is() {
        let text = "4711\n/var/lib/postgresql/15/main\n1764000000\n5444\n/run/elsewhere\nlocalhost\n 1 2\nready   \n";
        assert_eq!(listens(text), Some((5444, "/run/elsewhere".into())));
        assert_eq!(listens(&text.replace("/run/elsewhere", "")), None);
        assert_eq!(listens("4711\n"), None);
    }

    #[test]
    fn red_hats_directories_are_found_with_their_units() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(clusters(root.path()).unwrap(), []);
        for (directory, version) in [("data", "16\n"), ("15/data", "15\n"), ("17/data", "")] {
            let directory = root.path().join("var/lib/pgsql").join(directory);
            std::fs::create_dir_all(&directory).unwrap();
            if !version.is_empty() {
                std::fs::write(directory.join("PG_VERSION"), version).unwrap();
            }
        }
        let found = clusters(root.path()).unwrap();
        let found: Vec<_> = found.iter().map(|cluster| (cluster.major, cluster.unit.as_str())).collect();
        assert_eq!(found, [(Major(15), "postgresql-15.service"), (Major(16), "postgresql.service")]);
    }
}
