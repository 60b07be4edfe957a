//! A container as the command says it that makes it, in the words of `docker create`.

use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User};

use super::exec;
use crate::files::beneath;
use crate::postgres::{Contents, DataDirectory};
use crate::runtime::Engine;
use crate::version::Major;

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

/// The version of the cluster there, as far as we may look.
pub(super) fn major_of(data_directory: &Path) -> Option<Major> {
    match DataDirectory::read(data_directory, Path::new("/proc")).ok()?.contents {
        Contents::Cluster(major) => Some(major),
        Contents::Missing | Contents::Empty | Contents::Foreign => None,
    }
}

/// What a unit's file says of the container that it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Created {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) network: Option<String>,
    pub(super) user: Option<String>,
    pub(super) env_files: Vec<PathBuf>,
    pub(super) variables: Vec<(String, String)>,
    /// On this machine, and in the container.
    pub(super) mounts: Vec<(PathBuf, PathBuf)>,
}

impl Created {
    pub(super) fn parse(text: &str, unit: &str) -> Option<Self> {
        exec::commands(text, unit).iter().find_map(|words| Self::of_command(words))
    }

    /// `docker create …`, `docker container run …`, of a server of PostgreSQL's.
    pub(super) fn of_command(words: &[String]) -> Option<Self> {
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

    /// The value of a variable; the last one counts.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
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
    pub(super) fn outside(&self, inside: &Path) -> Option<PathBuf> {
        let mounts = self.mounts.iter().filter(|(outside, _)| outside.is_absolute());
        let found = mounts.filter_map(|(outside, at)| Some((at, outside, inside.strip_prefix(at).ok()?)));
        let (_, outside, rest) = found.max_by_key(|(at, _, _)| at.components().count())?;
        Some(
            outside.components().chain(rest.components()).filter(|part| *part != Component::CurDir).collect(),
        )
    }

    /// Where the cluster is, on this machine and in the container: as it is said, or where images of the different versions have
    /// it.
    pub(super) fn data_directory(
        &self,
        said: Option<&str>,
        below: impl Fn(&Path) -> PathBuf,
    ) -> Option<(PathBuf, PathBuf)> {
        let place = |inside: PathBuf| Some((below(&self.outside(&inside)?), inside));
        if let Some(said) = said {
            return place(said.into());
        }
        let newer = NEWER.map(|major| format!("/var/lib/postgresql/{major}/docker"));
        let mut possible =
            std::iter::once(DATA.to_owned()).chain(newer).filter_map(|path| place(path.into()));
        let first = possible.next()?;
        match major_of(&first.0) {
            Some(_) => Some(first),
            None => Some(possible.find(|(path, _)| major_of(path).is_some()).unwrap_or(first)),
        }
    }

    /// Whom the server runs as on this machine; his number where he has no name.
    pub(super) fn owner(&self, data_directory: Option<&Path>) -> String {
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
pub(super) mod tests {
    use super::*;

    /// As the playbook's role writes it since 2026-03, in part.
    pub(crate) const PLAYBOOK: &str = "[Unit]\nRequires=docker.service\n\n[Service]\nType=simple\nEnvironment=\"HOME=/root\"\n\
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
    pub(crate) const OLDER: &str = "ExecStart=/usr/bin/docker run --rm --name matrix-postgres -e POSTGRES_USER=synapse --user=991:991 \
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
        assert_eq!(data, Some(("/matrix/postgres/data".into(), "/data".into())));
        let older = parse(OLDER);
        assert_eq!((older.network.as_deref(), older.variables[0].1.as_str()), (Some("matrix"), "synapse"));
        assert_eq!(older.outside(Path::new("/run/postgresql")), None);
        let place = ("/matrix/postgres/data".into(), "/var/lib/postgresql/data".into());
        assert_eq!(older.data_directory(None, Path::to_owned), Some(place));
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
}
