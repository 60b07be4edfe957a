//! A server in a container of docker or podman, as the file of its unit says it: the Ansible playbook for Matrix
//! (`matrix-docker-ansible-deploy`, role `postgres`) and its likes write one, and podman generates one.
//!
//! Everything is in the words of `docker create`, which everybody may read. So nothing has to be asked of docker, whose socket
//! is the power of root, and it is known of a server that does not run, too.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::Serialize;

use super::exec;
use crate::account::Account;
use crate::files::beneath;
use crate::postgres::{Contents, DataDirectory};
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

/// Where the official images before 18 have their cluster.
const DATA: &str = "/var/lib/postgresql/data";

/// Those from 18 on have it in a directory of the version's, below the volume.
const NEWER: std::ops::RangeInclusive<u16> = 18..=30;

/// The options of `docker create`, `docker run` and podman's that have no value.
const WITHOUT_VALUE: [&str; 18] = [
    "--detach",
    "--disable-content-trust",
    "--init",
    "--interactive",
    "--no-healthcheck",
    "--no-hostname",
    "--no-hosts",
    "--oom-kill-disable",
    "--privileged",
    "--publish-all",
    "--quiet",
    "--read-only",
    "--read-only-tmpfs",
    "--replace",
    "--rm",
    "--rmi",
    "--sig-proxy",
    "--tty",
];

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

impl Container {
    /// The one that this unit runs on this machine, of which `root` is `/` but in tests.
    pub(super) fn find(root: &Path, unit: &str) -> Option<Self> {
        let files = UNITS.iter().map(|directory| root.join(directory).join(unit));
        let (unit_file, text) = files
            .into_iter()
            .find_map(|file| Some((beneath::read(&file, MODEST).ok()?, file)))
            .map(|(text, file)| (file, text))?;
        let created = Created::parse(&String::from_utf8_lossy(&text), unit)?;
        let below = |path: &Path| match path.strip_prefix("/") {
            Ok(rest) => root.join(rest),
            Err(_) => path.to_owned(),
        };
        let variables: Vec<_> =
            created.env_files.iter().filter_map(|file| EnvFile::read(&below(file)).ok()).collect();
        let given = |name: &str| {
            let named = created.variables.iter().rev().find(|(found, _)| found == name);
            let named = named.map(|(_, value)| value.clone());
            named.or_else(|| variables.iter().rev().find_map(|file| file.get(name).map(str::to_owned)))
        };
        let environment = created.env_files.iter().find_map(|file| {
            let file = below(file.parent()?).join(FOR_CLIENTS);
            file.exists().then_some(file)
        });
        let for_clients = environment.as_ref().and_then(|file| EnvFile::read(file).ok()).unwrap_or_default();
        let client = |name: &str| for_clients.get(name).map(str::to_owned);
        let data_directory = created.data_directory(given("PGDATA").as_deref(), below);
        let superuser = client("PGUSER").or_else(|| given("POSTGRES_USER"));
        Some(Self {
            major: data_directory.as_deref().and_then(major_of),
            owner: created.owner(data_directory.as_deref()),
            socket_directory: SOCKETS
                .iter()
                .find_map(|path| created.outside(Path::new(path)))
                .map(|path| below(&path)),
            data_directory,
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

fn major_of(data_directory: &Path) -> Option<Major> {
    match DataDirectory::read(data_directory, Path::new("/proc")).ok()?.contents {
        Contents::Cluster(major) => Some(major),
        Contents::Missing | Contents::Empty | Contents::Foreign => None,
    }
}

/// What a unit's file says of the container that it makes.
#[derive(Debug, PartialEq, Eq)]
struct Created {
    engine: Engine,
    name: String,
    image: String,
    network: Option<String>,
    user: Option<String>,
    env_files: Vec<PathBuf>,
    variables: Vec<(String, String)>,
    /// On this machine, and in the container.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Created {
    fn parse(text: &str, unit: &str) -> Option<Self> {
        exec::commands(text, unit).iter().find_map(|words| Self::of_command(words))
    }

    /// `docker create …`, `docker container run …`, of a server of PostgreSQL's.
    fn of_command(words: &[String]) -> Option<Self> {
        let mut words =
            words.iter().map(String::as_str).skip_while(|word| word.rsplit('/').next() == Some("env"));
        let engine = Engine::named(words.next()?)?;
        let verb = words.find(|word| !word.starts_with('-') && *word != "container")?;
        if !matches!(verb, "create" | "run") {
            return None;
        }
        let mut created = Self {
            engine,
            name: String::new(),
            image: String::new(),
            network: None,
            user: None,
            env_files: Vec::new(),
            variables: Vec::new(),
            mounts: Vec::new(),
        };
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                word.clone_into(&mut created.image);
                break;
            }
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None if WITHOUT_VALUE.contains(&word) || is_short_without_value(word) => (word, None),
                None => (word, words.next()),
            };
            created.take(option, value.unwrap_or_default());
        }
        (!created.image.is_empty() && !created.name.is_empty()).then_some(created)
    }

    fn take(&mut self, option: &str, value: &str) {
        match option {
            "--name" => value.clone_into(&mut self.name),
            "--network" | "--net" => self.network = Some(value.split(':').next().unwrap_or(value).to_owned()),
            "--user" | "-u" => self.user = Some(value.to_owned()),
            "--env-file" => self.env_files.push(value.into()),
            "--env" | "-e" => {
                self.variables
                    .extend(value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
            "--volume" | "-v" => {
                let mut parts = value.split(':');
                if let (Some(outside), Some(inside)) = (parts.next(), parts.next()) {
                    self.mounts.push((outside.into(), inside.into()));
                }
            }
            "--mount" => {
                let part = |names: &[&str]| {
                    let found = value.split(',').filter_map(|part| part.split_once('='));
                    found
                        .into_iter()
                        .find(|(name, _)| names.contains(name))
                        .map(|(_, value)| PathBuf::from(value))
                };
                let outside = part(&["src", "source"]);
                self.mounts.extend(outside.zip(part(&["dst", "destination", "target"])));
            }
            _ => {}
        }
    }

    /// What a path in the container is on this machine; nothing where docker manages it.
    fn outside(&self, inside: &Path) -> Option<PathBuf> {
        let mounts = self.mounts.iter().filter(|(outside, _)| outside.is_absolute());
        let found = mounts.filter_map(|(outside, at)| Some((at, outside, inside.strip_prefix(at).ok()?)));
        let (_, outside, rest) = found.max_by_key(|(at, _, _)| at.components().count())?;
        Some(
            outside.components().chain(rest.components()).filter(|part| *part != Component::CurDir).collect(),
        )
    }

    /// Where the cluster is: as it is said, or where images of the different versions have it.
    fn data_directory(&self, said: Option<&str>, below: impl Fn(&Path) -> PathBuf) -> Option<PathBuf> {
        if let Some(said) = said {
            return self.outside(Path::new(said)).map(|path| below(&path));
        }
        let newer = NEWER.map(|major| format!("/var/lib/postgresql/{major}/docker"));
        let mut possible = std::iter::once(DATA.to_owned())
            .chain(newer)
            .filter_map(|path| self.outside(Path::new(&path)))
            .map(|path| below(&path));
        let first = possible.next()?;
        match major_of(&first) {
            Some(_) => Some(first),
            None => Some(possible.find(|path| major_of(path).is_some()).unwrap_or(first)),
        }
    }

    /// Whom the server runs as on this machine; his number where he has no name.
    fn owner(&self, data_directory: Option<&Path>) -> String {
        let said = self.user.as_deref().map(|user| user.split(':').next().unwrap_or(user));
        match said.map(|user| user.parse::<u32>().map_err(|_| user)) {
            Some(Ok(number)) => name_of(number),
            Some(Err(name)) => name.to_owned(),
            None => {
                let owner = data_directory.and_then(|path| beneath::Directory::open(path).ok());
                owner.map_or_else(String::new, |directory| directory.owner().name)
            }
        }
    }
}

fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Such as `-it`.
fn is_short_without_value(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|flags| {
        !flags.starts_with('-') && flags.chars().all(|flag| matches!(flag, 'd' | 'i' | 't' | 'P' | 'q'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the playbook's role writes it since 2026-03, in part.
    const PLAYBOOK: &str = "[Unit]\nRequires=docker.service\n\n[Service]\nType=simple\nEnvironment=\"HOME=/root\"\n\
ExecStartPre=/usr/bin/env sh -c 'i=0; while [ \"$i\" -lt 60 ]; do /usr/bin/env docker stop -t 30 matrix-postgres; done'\n\
ExecStartPre=/usr/bin/env docker create \\\n      --rm \\\n      --name matrix-postgres \\\n      --log-driver=none \\\n\
      --user=991:991 \\\n      --cap-drop=ALL \\\n      --read-only \\\n      --shm-size=256M \\\n      --network=matrix \\\n\
      --env-file=/matrix/postgres/env-postgres-server \\\n\
      --mount type=bind,src=/matrix/postgres/data,dst=/data \\\n\
      --mount type=bind,src=/matrix/postgres/run,dst=/run/postgresql \\\n\
      --mount type=bind,src=/etc/passwd,dst=/etc/passwd,ro \\\n      --tmpfs=/tmp:rw,noexec,nosuid,size=128m \\\n\
      docker.io/postgres:17.11-alpine \\\n      postgres -c 'max_connections=200' -c 'huge_pages=off'\n\n\
ExecStart=/usr/bin/env docker start --attach matrix-postgres\nExecStop=-/usr/bin/env docker stop matrix-postgres\n";

    /// As it did before, without a socket on the machine.
    const OLDER: &str = "ExecStart=/usr/bin/docker run --rm --name matrix-postgres -e POSTGRES_USER=synapse --user=991:991 \
--network=matrix:ip=10.0.0.2 -v /matrix/postgres:/var/lib/postgresql:z docker.io/postgres:15-alpine postgres\n";

    /// As podman's generator writes it.
    const QUADLET: &str = "ExecStart=/usr/bin/podman run --name systemd-%N --replace --rm --cgroups=split --sdnotify=conmon -d \
-v db:/var/lib/postgresql/data --env POSTGRES_PASSWORD=x docker.io/library/postgres:16\n";

    fn parse(text: &str) -> Created {
        Created::parse(text, "matrix-postgres.service").unwrap()
    }

    #[test]
    fn what_the_playbook_writes_is_understood() {
        let created = parse(PLAYBOOK);
        assert_eq!((created.engine, created.name.as_str()), (Engine::Docker, "matrix-postgres"));
        assert_eq!(created.image, "docker.io/postgres:17.11-alpine");
        assert_eq!((created.network.as_deref(), created.user.as_deref()), (Some("matrix"), Some("991:991")));
        assert_eq!(created.env_files, [Path::new("/matrix/postgres/env-postgres-server")]);
        assert_eq!(created.outside(Path::new("/run/postgresql")), Some("/matrix/postgres/run".into()));
        assert_eq!(created.outside(Path::new("/var/run/postgresql")), None);
        let data = created.data_directory(Some("/data"), Path::to_owned);
        assert_eq!(data, Some("/matrix/postgres/data".into()));
        let older = parse(OLDER);
        assert_eq!((older.network.as_deref(), older.variables[0].1.as_str()), (Some("matrix"), "synapse"));
        assert_eq!(older.outside(Path::new("/run/postgresql")), None);
        assert_eq!(older.data_directory(None, Path::to_owned), Some("/matrix/postgres/data".into()));
        let quadlet = parse(QUADLET);
        assert_eq!((quadlet.engine, quadlet.name.as_str()), (Engine::Podman, "systemd-matrix-postgres"));
        assert_eq!(quadlet.image, "docker.io/library/postgres:16");
        assert_eq!(quadlet.data_directory(None, Path::to_owned), None);
    }

    #[test]
    fn a_unit_that_runs_something_else_is_none() {
        for text in [
            "",
            "ExecStart=/usr/libexec/matrix-postgres/matrix-postgres-server\n",
            "ExecStartPre=/usr/bin/docker pull postgres\nExecStart=/usr/lib/postgresql/15/bin/postgres -D /docker\n",
            "ExecStart=/usr/bin/env docker start --attach matrix-postgres\n",
        ] {
            assert_eq!(Created::parse(text, "matrix-postgres.service"), None, "{text}");
        }
    }

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
        let clients = "PGUSER=matrix\nPGPASSWORD=#1 'a' \\\nPGDATABASE=main\n";
        std::fs::write(postgres.join("env-postgres-psql"), clients).unwrap();
        let found = find();
        assert_eq!((found.superuser.as_deref(), found.database.as_deref()), (Some("matrix"), Some("main")));
        assert_eq!(found.environment, Some(postgres.join("env-postgres-psql")));
        assert!(!serde_json::to_string(&found).unwrap().contains("#1"));
        assert_eq!(Container::find(root.path(), "other.service"), None);
    }
}
