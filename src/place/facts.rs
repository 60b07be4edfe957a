//! What there is to find. Nothing is changed, and no more is looked at than the decision needs.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::cluster::{Cluster, clusters, red_hats};
use super::homeserver::Database;
use crate::config::{ServerKind, Settings};
use crate::error::Result;
use crate::files::beneath;
use crate::postgres::{Contents, DataDirectory, HOME, Session};
use crate::runtime::Host;

/// A playbook's own server: `matrix-docker-ansible-deploy` and its likes install it so.
const PLAYBOOKS_UNIT: &str = "etc/systemd/system/matrix-postgres.service";
const PLAYBOOKS_ENVIRONMENT: &str = "matrix/postgres/env-postgres-psql";

/// A unit's file is no longer than that.
const MODEST: u64 = 1 << 16;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What is in the data directory that is configured, or our own; nothing if we may not look.
    pub contents: Option<Contents>,
    /// The clusters that packages have made.
    pub candidates: Vec<Candidate>,
    /// The homeserver's database.
    pub homeserver: Option<Database>,
    /// What this machine calls itself.
    pub hostname: String,
    /// The playbook's installation.
    pub playbook: Option<Playbook>,
}

/// A cluster of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The cluster.
    pub cluster: Cluster,
    /// The databases in it, or why they are not known.
    pub databases: Result<Vec<String>, Unasked>,
}

impl Candidate {
    /// Whether no upgrade has put another one in its place.
    pub(super) fn is_current(&self) -> bool {
        self.cluster.successor.is_none()
    }
}

/// Why a server was not asked for its databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unasked {
    /// There was no need to.
    Needless,
    /// It does not run.
    Down,
    /// It answers to its owner, and to root.
    Owner,
    /// It did not answer, and said this.
    Refused(String),
}

/// A playbook's installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playbook {
    /// The server's unit, which runs a container.
    pub unit_file: PathBuf,
    /// The superuser's password, in the form of `--env-file`, if it is there.
    pub environment: Option<PathBuf>,
}

impl Facts {
    /// Looks around on this machine, of which `root` is `/` but in tests; `programs` are PostgreSQL's.
    ///
    /// # Errors
    /// Those of `pg_lsclusters`.
    pub fn gather(root: &Path, settings: &Settings, programs: &Host) -> Result<Self> {
        let read = DataDirectory::read(&settings.data_directory, &root.join("proc"));
        let mut facts = Self {
            contents: read.ok().map(|found| found.contents),
            candidates: Vec::new(),
            homeserver: None,
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_default(),
            playbook: playbook(root),
        };
        let kind = settings.server.kind.map(|(kind, _)| kind);
        if !matches!(kind, None | Some(ServerKind::Debian)) {
            return Ok(facts);
        }
        let found = match kind {
            // Debian's data directories have no configuration in them. Nothing of Debian's keeps a server of our own waiting.
            None if !facts.is_vacant() => match settings.data_directory.join("postgresql.conf").exists() {
                true => red_hats(root),
                false => clusters(root).unwrap_or_else(|_| red_hats(root)),
            },
            _ => clusters(root)?,
        };
        let is_there = |cluster: &Cluster| cluster.data_directory == settings.data_directory;
        // Where it is written, or our own server has its data, nobody else is asked.
        let is_open = match kind {
            None => facts.is_vacant() && !found.iter().any(is_there),
            Some(_) => settings.server.cluster.is_none() && found.len() > 1,
        };
        let databases = |cluster: &Cluster| match is_open {
            true => databases(cluster, programs),
            false => Err(Unasked::Needless),
        };
        facts.candidates =
            found.into_iter().map(|cluster| Candidate { databases: databases(&cluster), cluster }).collect();
        facts.homeserver = Database::find(root);
        Ok(facts)
    }

    /// Whether there is certainly nothing in the data directory.
    pub fn is_vacant(&self) -> bool {
        matches!(self.contents, Some(Contents::Missing | Contents::Empty))
    }
}

fn playbook(root: &Path) -> Option<Playbook> {
    let unit_file = root.join(PLAYBOOKS_UNIT);
    let text = beneath::read(&unit_file, MODEST).ok()?;
    let environment = root.join(PLAYBOOKS_ENVIRONMENT);
    runs_container(&String::from_utf8_lossy(&text))
        .then(|| Playbook { unit_file, environment: environment.exists().then_some(environment) })
}

/// Whether a unit's file starts a container.
fn runs_container(text: &str) -> bool {
    let commands = text.lines().filter_map(|line| line.trim_start().strip_prefix("ExecStart="));
    let names = |command: &str| {
        let mut words = command.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
        words.find(|word| *word != "env").is_some_and(|program| matches!(program, "docker" | "podman"))
    };
    commands.into_iter().any(names)
}

/// Asks as the cluster's owner, whom its server lets in.
fn databases(cluster: &Cluster, programs: &Host) -> Result<Vec<String>, Unasked> {
    if !cluster.is_online {
        return Err(Unasked::Down);
    }
    let account = cluster.account().ok_or(Unasked::Owner)?;
    if !geteuid().is_root() && geteuid() != account.uid {
        return Err(Unasked::Owner);
    }
    let host = programs.clone().run_as(Some(account));
    let connection = cluster.connection();
    let session = Session::newest(&host, &connection);
    let names = "SELECT pg_catalog.json_agg(datname ORDER BY datname) FROM pg_catalog.pg_database;";
    session.query(HOME, names).map_err(|error| Unasked::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Major;

    #[test]
    fn a_server_of_our_own_does_without_debians_programs() {
        use std::os::unix::fs::PermissionsExt as _;

        let root = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_fragment(crate::config::Fragment::default()).unwrap();
        settings.data_directory = root.path().join("data");
        let gathered = || Facts::gather(root.path(), &settings, &Host::new(root.path(), None));
        let lister = root.path().join("usr/bin/pg_lsclusters");
        std::fs::create_dir_all(lister.parent().unwrap()).unwrap();
        std::fs::write(&lister, "#!/bin/sh\nexit 1\n").unwrap();
        std::fs::set_permissions(&lister, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(gathered().is_err());
        std::fs::create_dir(&settings.data_directory).unwrap();
        std::fs::write(settings.data_directory.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(gathered().unwrap().contents, Some(Contents::Cluster(Major(15))));
        std::fs::write(settings.data_directory.join("postgresql.conf"), "").unwrap();
        std::fs::write(&lister, format!("#!/bin/sh\ntouch {}/asked\n", root.path().display())).unwrap();
        assert_eq!(gathered().unwrap().candidates, []);
        assert!(!root.path().join("asked").exists());
    }

    #[test]
    fn a_playbooks_unit_runs_a_container() {
        for (text, runs) in [
            ("[Service]\nExecStart=/usr/bin/env docker start -a matrix-postgres\n", true),
            ("ExecStartPre=-/usr/bin/env docker stop x\nExecStart=/usr/bin/podman run --rm x\n", true),
            ("# docker\nExecStart=/usr/lib/postgresql/15/bin/postgres -D /docker\n", false),
        ] {
            assert_eq!(runs_container(text), runs, "{text}");
        }
        let root = tempfile::tempdir().unwrap();
        assert_eq!(playbook(root.path()), None);
        let unit = root.path().join(PLAYBOOKS_UNIT);
        std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
        std::fs::write(&unit, "ExecStart=/usr/bin/docker start -a matrix-postgres\n").unwrap();
        assert_eq!(playbook(root.path()), Some(Playbook { unit_file: unit, environment: None }));
    }
}
