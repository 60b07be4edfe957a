//! A server in a container of docker or podman, as the file of its unit says it: the Ansible playbook for Matrix
//! (`matrix-docker-ansible-deploy`, role `postgres`) and its likes write one, and podman generates one.
//!
//! Everything is in the words of `docker create`, which everybody may read. So nothing has to be asked of docker, whose socket
//! is the power of root, and it is known of a server that does not run, too.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::created::{Created, major_of};
use super::image::{Run, drop_in_of};
use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::files::beneath;
use crate::runtime::{Engine, EnvFile, Image};
use crate::version::Major;

/// Where unit files are, in the order in which they count (systemd.unit(5)).
const UNITS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];

/// A unit's file is no longer than that.
const MODEST: u64 = 1 << 16;

/// Variables of the playbook's clients, beside the server's.
const FOR_CLIENTS: &str = "env-postgres-psql";

/// Where a server has its socket in the official images, by both its names; `/var/run` is a link there.
const SOCKETS: [&str; 2] = ["/run/postgresql", "/var/run/postgresql"];

/// A server in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// What runs it.
    pub engine: Engine,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The network that others reach it by.
    pub network: Option<String>,
    /// The unit that runs it.
    pub unit: String,
    /// That unit's file.
    pub unit_file: PathBuf,
    /// The cluster, as this machine sees it; nothing in a volume that docker manages.
    pub data_directory: Option<PathBuf>,
    /// The cluster, as it is seen in the container.
    pub inside: Option<PathBuf>,
    /// Whether a variable says so that holds for other images, too.
    #[serde(skip)]
    pub is_inside_named: bool,
    /// What it is made of.
    #[serde(skip)]
    pub run: Run,
    /// The directory of the server's socket, if it is one of this machine.
    pub socket_directory: Option<PathBuf>,
    /// Variables for clients, with the superuser's password, if there is such a file.
    pub environment: Option<PathBuf>,
    /// The version of the cluster, as far as we may look.
    pub major: Option<Major>,
    /// The user that it runs as.
    pub owner: String,
    /// The superuser, as far as we may look.
    pub superuser: Option<String>,
    /// The database that is made with the cluster, likewise.
    pub database: Option<String>,
}

/// The file of a unit, and what it says.
fn unit_file(root: &Path, unit: &str) -> Option<(PathBuf, String)> {
    let files = UNITS.iter().map(|directory| root.join(directory).join(unit));
    let (text, file) = files.into_iter().find_map(|file| Some((beneath::read(&file, MODEST).ok()?, file)))?;
    Some((file, String::from_utf8_lossy(&text).into_owned()))
}

/// Where the files of a unit's container are on this machine.
pub struct Mounts(Option<Created>);

impl Mounts {
    /// Those of the container that this unit makes, if it makes one.
    pub fn of(root: &Path, unit: &str) -> Self {
        Self(unit_file(root, unit).and_then(|(_, text)| Created::parse(&text, unit)))
    }

    /// What a path of the unit's is on this machine: the same, unless it is in a container.
    pub fn outside(&self, path: &Path) -> PathBuf {
        self.0.as_ref().and_then(|created| created.outside(path)).unwrap_or_else(|| path.to_owned())
    }
}

impl Container {
    /// The one that this unit runs on this machine, of which `root` is `/` but in tests.
    pub fn find(root: &Path, unit: &str) -> Option<Self> {
        let (unit_file, text) = unit_file(root, unit)?;
        let ours = beneath::read(&drop_in_of(root, unit), MODEST).unwrap_or_default();
        let created = Created::parse(&format!("{text}\n{}", String::from_utf8_lossy(&ours)), unit)?;
        let data = created.variable("PGDATA").map(PathBuf::from);
        let by_file = Created::parse(&text, unit).and_then(|file| file.variable("PGDATA").map(PathBuf::from));
        let run = Run { image: created.image.clone(), data: data.filter(|_| by_file.is_none()) };
        let below = |path: &Path| match path.strip_prefix("/") {
            Ok(rest) => root.join(rest),
            Err(_) => path.to_owned(),
        };
        let variables: Vec<_> =
            created.env_files.iter().filter_map(|file| EnvFile::read(&below(file)).ok()).collect();
        let given = |name: &str| {
            created
                .variable(name)
                .map(str::to_owned)
                .or_else(|| variables.iter().rev().find_map(|file| file.get(name).map(str::to_owned)))
        };
        let environment = created.env_files.iter().find_map(|file| {
            let file = below(file.parent()?).join(FOR_CLIENTS);
            file.exists().then_some(file)
        });
        let for_clients = environment.as_ref().and_then(|file| EnvFile::read(file).ok()).unwrap_or_default();
        let client = |name: &str| for_clients.get(name).map(str::to_owned);
        let said = given("PGDATA");
        let place = created.data_directory(said.as_deref(), below);
        let (data_directory, inside) = place.unzip();
        let superuser = client("PGUSER").or_else(|| given("POSTGRES_USER"));
        Some(Self {
            major: data_directory.as_deref().and_then(major_of),
            owner: created.owner(data_directory.as_deref()),
            socket_directory: SOCKETS
                .iter()
                .find_map(|path| created.outside(Path::new(path)))
                .map(|path| below(&path)),
            data_directory,
            inside,
            is_inside_named: said.is_some(),
            run,
            database: client("PGDATABASE").or_else(|| given("POSTGRES_DB")).or_else(|| superuser.clone()),
            superuser,
            environment,
            unit: unit.to_owned(),
            unit_file,
            engine: created.engine,
            name: created.name,
            image: created.image,
            network: created.network,
        })
    }

    /// Fails for one whose cluster cannot be exchanged from this machine.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn require_within_reach(&self) -> Result<()> {
        let refuse = |why: &str, hint: &str| {
            let message = format!("the server in {self} is not upgraded by this version: {why}");
            Err(Error::new(Kind::Config, message)
                .state("nothing was stopped, and nothing was changed")
                .hint(hint))
        };
        let by_playbook = "make a backup, matrix-postgres-backup run, and try it out, matrix-postgres-backup verify --trial; then let \
                           the playbook do it: ansible-playbook setup.yml --tags=upgrade-postgres";
        match self {
            Self { engine: Engine::Podman, .. } => refuse(
                "containers of podman are not",
                "make a backup, matrix-postgres-backup run, and restore it into a container of the new version",
            ),
            Self { data_directory: None, .. } => {
                refuse("its cluster is in a volume that docker manages, and not in a directory", by_playbook)
            }
            Self { socket_directory: None, .. } => refuse(
                "its socket is in the container only",
                "let the present playbook write its files anew, which mounts the socket's directory from the machine: \
                 ansible-playbook setup.yml --tags=install-postgres,start",
            ),
            _ => Ok(()),
        }
    }

    /// What programs can be run in that reach it, as far as its version and its user are known.
    pub(super) fn image(&self) -> Option<Image> {
        Some(Image {
            engine: self.engine,
            name: self.image.clone(),
            major: self.major?,
            network: self.network.clone().filter(|_| self.socket_directory.is_none()),
            socket_directory: self.socket_directory.clone(),
            environment: self.environment.clone(),
            user: Account::named(&self.owner).ok().flatten()?,
        })
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the container {} of {}", self.name, self.engine)
    }
}

#[cfg(test)]
mod tests {
    use super::super::created::tests::{OLDER, PLAYBOOK};
    use super::super::image::drop_in;
    use super::*;

    #[test]
    fn newer_images_have_their_cluster_in_a_directory_of_the_version() {
        let root = tempfile::tempdir().unwrap();
        let unit = root.path().join("etc/systemd/system");
        let cluster = root.path().join("matrix/postgres/18/docker");
        for directory in [&unit, &cluster] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(unit.join("matrix-postgres.service"), OLDER.replace("postgres:15", "postgres:18"))
            .unwrap();
        let found = |major| {
            std::fs::write(cluster.join("PG_VERSION"), format!("{major}\n")).unwrap();
            Container::find(root.path(), "matrix-postgres.service").unwrap()
        };
        let container = found(18);
        assert_eq!((container.data_directory, container.major), (Some(cluster.clone()), Some(Major(18))));
        assert_eq!(container.superuser.as_deref(), Some("synapse"));
    }

    #[test]
    fn the_files_for_the_server_and_its_clients_name_role_and_database() {
        let root = tempfile::tempdir().unwrap();
        let [units, postgres] = ["etc/systemd/system", "matrix/postgres"].map(|path| root.path().join(path));
        for directory in [&units, &postgres.join("data"), &postgres.join("run")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(units.join("matrix-postgres.service"), PLAYBOOK).unwrap();
        let server = "POSTGRES_USER=first\nPOSTGRES_DB=one\nPGDATA=/data\n";
        std::fs::write(postgres.join("env-postgres-server"), server).unwrap();
        std::fs::write(postgres.join("data/PG_VERSION"), "17\n").unwrap();
        let find = || Container::find(root.path(), "matrix-postgres.service").unwrap();
        let found = find();
        assert_eq!((found.superuser.as_deref(), found.database.as_deref()), (Some("first"), Some("one")));
        assert_eq!((found.major, found.environment), (Some(Major(17)), None));
        assert_eq!(found.socket_directory, Some(postgres.join("run")));
        assert_eq!((found.inside, found.is_inside_named), (Some("/data".into()), true));
        // After an upgrade a drop-in of ours names another image.
        let file = drop_in_of(root.path(), "matrix-postgres.service");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let run = Run { image: "docker.io/postgres:18-alpine".into(), data: Some("/data".into()) };
        let text = drop_in(PLAYBOOK, "matrix-postgres.service", &run).unwrap().unwrap();
        std::fs::write(&file, text).unwrap();
        assert_eq!((find().image, find().run), (run.image.clone(), run));
        std::fs::remove_file(&file).unwrap();
        let clients = "PGUSER=matrix\nPGPASSWORD=#1 'a' \\\nPGDATABASE=main\n";
        std::fs::write(postgres.join("env-postgres-psql"), clients).unwrap();
        let found = find();
        assert_eq!((found.superuser.as_deref(), found.database.as_deref()), (Some("matrix"), Some("main")));
        assert_eq!(found.environment, Some(postgres.join("env-postgres-psql")));
        assert!(!serde_json::to_string(&found).unwrap().contains("#1"));
        assert_eq!(Container::find(root.path(), "other.service"), None);
    }
}
