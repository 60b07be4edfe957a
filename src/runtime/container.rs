//! PostgreSQL's programs in throw-away containers of the server's own image, by the command line of docker or podman.
//!
//! A container has a name, a label and somebody who stands by and removes it, see [`super::standby`]. It is on the server's network
//! or on none, has no capabilities, and sees of this machine only the directories that it is given, under their own paths. The
//! password is in the file of variables that the image's own clients get; in no argument list is there a secret.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use super::call::Argument;
use super::host::bare;
use super::process::Child;
use super::sandbox::Sandbox;
use super::{Call, Engine, Runtime, standby};
use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::version::Major;

/// What calls docker for us: as root it stands by itself, and otherwise it asks the one that systemd starts as root.
const HELPER: &str = "/usr/libexec/matrix-postgres/matrix-postgres-container";

/// The programs of PostgreSQL that talk to a server, and those that are one.
const CLIENTS: [&str; 5] = ["psql", "pg_dump", "pg_dumpall", "pg_restore", "vacuumdb"];
const SERVERS: [&str; 2] = ["initdb", "postgres"];

/// What containers are made of, and how they reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What runs them.
    pub engine: Engine,
    /// The image's name.
    pub name: String,
    /// The version of PostgreSQL in it.
    pub major: Major,
    /// The network of the server, if its socket is not on this machine.
    pub network: Option<String>,
    /// The directory of the server's socket, if it is on this machine.
    pub socket_directory: Option<PathBuf>,
    /// The file with variables for clients.
    pub environment: Option<PathBuf>,
    /// As whom programs run in them.
    pub user: Account,
}

/// Throw-away containers of an image.
#[derive(Debug, Clone)]
pub struct Container {
    image: Image,
    /// What they see of this machine beside the socket.
    directories: Vec<PathBuf>,
}

impl Container {
    /// Of this image; programs find these directories under their own paths.
    pub fn new(image: Image, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { image, directories: directories.into_iter().collect() }
    }

    /// What they are made of.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The name of a program that talks to the server.
    pub fn program(name: &str) -> Option<&'static str> {
        CLIENTS.into_iter().find(|program| *program == name)
    }

    /// What `docker run` is told for whoever may run the server's clients, and nothing else.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`].
    pub fn words_for_clients(&self, major: Major, call: &Call) -> Result<Vec<OsString>> {
        self.require(major, call, &CLIENTS)?;
        Ok(self.arguments(call))
    }

    /// psql for somebody who types, or pipes something in. Only root gets one.
    pub fn interactive(&self, call: &Call, on_terminal: bool) -> Command {
        let mut command = bare(Path::new(HELPER));
        command.args(["run", self.image.engine.name(), "--"]);
        if on_terminal {
            command.arg("--tty");
        }
        command.args(self.arguments(call));
        command
    }

    fn require(&self, major: Major, call: &Call, programs: &[&str]) -> Result<()> {
        match major == self.image.major && programs.contains(&call.program) {
            true => Ok(()),
            false => Err(Error::new(
                Kind::NotInstalled,
                format!(
                    "{} of PostgreSQL {major} cannot be run in a container of {}",
                    call.program, self.image.name
                ),
            )
            .hint(format!("apt-get install postgresql-{major}"))),
        }
    }

    /// What `docker run` is told, but for the name and the label.
    fn arguments(&self, call: &Call) -> Vec<OsString> {
        let Image { name, network, environment, user, .. } = &self.image;
        let user = call.user.as_ref().unwrap_or(user);
        let mut words: Vec<OsString> = [
            "--rm",
            "--interactive",
            "--pull=never",
            "--log-driver=none",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--read-only",
            "--tmpfs=/tmp",
            "--shm-size=256m",
            "--env=LC_ALL=C.UTF-8",
            "--env=TZ=UTC",
        ]
        .map(Into::into)
        .into();
        words.extend(standby::init(self.image.engine).map(Into::into));
        words.push(format!("--network={}", network.as_deref().unwrap_or("none")).into());
        words.push(format!("--user={}:{}", user.uid, user.gid).into());
        // A variable would win over the file that a role of ours has for itself.
        let has_own = |argument: &Argument| argument.to_string_lossy().contains(" passfile=");
        let environment = environment.iter().filter(|_| !call.arguments.iter().any(has_own));
        words.extend(environment.map(|file| joined("--env-file=", file)));
        for (name, value) in &call.environment {
            let mut word = OsString::from(format!("--env={name}="));
            word.push(value);
            words.push(word);
        }
        for directory in self.visible(call) {
            // Both sides are named alike: what is a path in a connection string holds in there, too.
            let mut word = joined("--mount=type=bind,src=", directory);
            word.push(joined(",dst=", directory));
            words.push(word);
        }
        words.push(format!("--entrypoint={}", call.program).into());
        words.push(name.into());
        words.extend(
            call.arguments.iter().map(|argument| argument.rendered(|path| self.inside(path)).into_owned()),
        );
        words
    }

    /// The directories that a call is given: those of all, and those of its paths.
    fn visible<'a>(&'a self, call: &'a Call) -> Vec<&'a Path> {
        let of_all = self.image.socket_directory.iter().chain(&self.directories).map(PathBuf::as_path);
        let mut visible: Vec<&Path> = of_all.filter(|path| path.is_dir()).collect();
        for argument in &call.arguments {
            let Argument::Path(_, path) = argument else { continue };
            let directory = path.ancestors().find(|path| path.is_dir());
            let is_new = |directory: &&Path| !visible.iter().any(|known| directory.starts_with(known));
            visible.extend(directory.filter(is_new));
        }
        visible
    }
}

fn joined(before: &str, path: &Path) -> OsString {
    let mut word = OsString::from(before);
    word.push(path);
    word
}

impl Runtime for Container {
    fn majors(&self) -> Vec<Major> {
        vec![self.image.major]
    }

    fn extensions(&self, major: Major) -> Result<std::collections::BTreeSet<String>> {
        Err(Error::new(
            Kind::Bug,
            format!("the extensions of PostgreSQL {major} in {} are not known", self.image.name),
        ))
    }

    fn command(&self, major: Major, call: &Call) -> Result<Command> {
        let is_root = geteuid().is_root();
        let programs = [&CLIENTS[..], if is_root { &SERVERS } else { &[] }].concat();
        self.require(major, call, &programs)?;
        let mut command = bare(Path::new(HELPER));
        if is_root {
            command.args(["run", self.image.engine.name(), "--"]).args(self.arguments(call));
            return Ok(command);
        }
        // What it is allowed, and how the server is reached, is known to the one that is asked.
        command.args(["ask", "--", call.program]);
        command.args(call.arguments.iter().map(|argument| argument.rendered(|path| self.inside(path))));
        Ok(command)
    }

    /// Without a sandbox of ours: the container is one, of which no user of the machine can see more than the directories.
    fn start_server(&self, major: Major, call: &Call, _allowed: Sandbox, name: String) -> Result<Child> {
        let mut command = self.command(major, call)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Child::spawn(command, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        let image = Image {
            engine: Engine::Docker,
            name: "postgres:15".into(),
            major: Major(15),
            network: Some("matrix".into()),
            socket_directory: None,
            environment: Some("/matrix/postgres/env-postgres-psql".into()),
            user: Account::of(991, 992),
        };
        Container::new(image, [])
    }

    #[test]
    fn a_program_gets_what_it_needs_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list");
        let mut call = Call::new("pg_restore", ["--dbname", "host='matrix-postgres'"]);
        call.arguments.push(Argument::Path("--use-list=", file.clone()));
        let text = |container: &Container, call: &Call| {
            let words = container.arguments(call);
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let words = text(&container(), &call);
        for expected in [
            "--rm",
            "--cap-drop=ALL",
            "--read-only",
            "--network=matrix",
            "--user=991:992",
            "--env-file=/matrix/postgres/env-postgres-psql",
            "--entrypoint=pg_restore",
            &format!("--mount=type=bind,src={0},dst={0}", directory.path().display()),
        ] {
            assert!(words.iter().any(|word| word == expected), "{expected}: {words:?}");
        }
        assert!(!words.iter().any(|word| matches!(word.as_str(), "-t" | "--tty" | "exec" | "--privileged")));
        let image = words.iter().position(|word| word == "postgres:15").unwrap();
        assert_eq!(
            words[image + 1..],
            ["--dbname", "host='matrix-postgres'", &format!("--use-list={}", file.display())]
        );
        let mut own = container();
        own.image.network = None;
        own.image.socket_directory = Some(directory.path().into());
        let words = text(&own, &call.as_user(&Account::of(1, 2)));
        assert!(
            words.contains(&"--network=none".into()) && words.contains(&"--user=1:2".into()),
            "{words:?}"
        );
        assert_eq!(words.iter().filter(|word| word.starts_with("--mount=")).count(), 1, "{words:?}");
    }

    #[test]
    fn what_the_image_has_not_is_refused() {
        for (major, program) in [(16, "psql"), (15, "pg_upgrade")] {
            let error = container().command(Major(major), &Call::new(program, ["x"])).unwrap_err();
            assert_eq!(error.kind(), Kind::NotInstalled, "{error}");
        }
    }
}
