//! Who has a data directory: two servers on one destroy it.
//!
//! PostgreSQL itself looks whether the process in `postmaster.pid` lives and whether its shared memory is in use. In a
//! container neither is what it seems: the process is in a namespace of its own, `postmaster.pid` says `1`, and the memory is
//! another's. So we look, too:
//!
//! - `guest`: all containers that run, with the units that run them
//! - `processes`: which servers work in the directory, by device and number
//! - `containers`: which containers have it mounted; their server may be just about to start
//! - [`claim`]: a lock that our own server holds

mod claim;
mod containers;
mod guest;
mod processes;

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

pub use self::claim::Claim;
pub use self::guest::Guest;
use self::processes::Process;
use super::Postmaster;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::runtime::{from_outside, sees_every_process};

/// The option by which `matrix-postgres-upgrade`, called from outside, prints who has a data directory.
pub const OPTION: &str = "--who-has";

/// A server that has a data directory, whoever has started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupant {
    /// Its first process, by its number on this machine, if it is known.
    pub pid: Option<i32>,
    /// The unit that it belongs to, or that runs its container.
    pub unit: Option<String>,
    /// The container that it is in.
    pub container: Option<Container>,
    /// Its program.
    pub program: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name, or the beginning of its id; nothing for a namespace that nobody has given a name.
    pub name: Option<String>,
    /// What runs it, such as `docker`.
    pub program: Option<String>,
}

impl Occupant {
    /// Who has the data directory at `path`. A unit that is confined lets another one look. Nothing is changed.
    ///
    /// # Errors
    /// [`Kind::File`] if the directory cannot be looked at.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        let proc = Path::new("/proc");
        if geteuid().is_root() && !sees_every_process(proc) && path.exists() {
            match Self::ask(path) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    let message =
                        format!("who has {} is looked at from within this unit only", path.display());
                    log::warn!("{}", error.context(message).report());
                }
            }
        }
        Self::here(path, proc)
    }

    fn ask(path: &Path) -> Result<Option<Self>> {
        let said =
            from_outside(vec![OPTION.into(), path.into()], &[], "the look at who has the data directory")?;
        serde_json::from_slice(&said)
            .map_err(|error| Error::new(Kind::Bug, "what was seen cannot be read").because(error))
    }

    /// The same, as far as it can be seen from here; `proc` is where the process file system is mounted.
    ///
    /// # Errors
    /// As [`Occupant::find`].
    pub fn here(path: &Path, proc: &Path) -> Result<Option<Self>> {
        let directory = match Directory::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", path)?,
        };
        // Its owner may look at processes of his own.
        let seen = match sees_every_process(proc) {
            true => processes::all(proc),
            false => directory.as_owner(|| Ok(processes::all(proc)))?,
        };
        if let Some(process) = processes::first_of(&seen, directory.identity()) {
            return Ok(Some(Self::of_process(process, &seen)));
        }
        let canonical = path.canonicalize().at("find", path)?;
        let container = containers(&seen).into_iter().find(|(_, container)| container.serves(&canonical));
        if let Some((program, container)) = container {
            return Ok(Some(Self::of_container(program, &container, &seen)));
        }
        if let Some(Postmaster { pid, unit, .. }) = Postmaster::of(path, proc)? {
            return Ok(Some(Self { pid: Some(pid), unit, container: None, program: None }));
        }
        let hidden = seen.iter().filter(|process| process.is_server() && process.is_hidden).count();
        if hidden > 0 {
            log::warn!(
                "whether one of {hidden} processes of other users' servers has {} cannot be seen; root sees it",
                path.display()
            );
        }
        let is_claimed = Claim::is_held(&directory);
        Ok(is_claimed.then_some(Self { pid: None, unit: None, container: None, program: None }))
    }

    fn of_process(process: &Process, seen: &[Process]) -> Self {
        let program = process.words.first().filter(|word| !word.is_empty()).cloned();
        let pid = Some(process.pid);
        let Some((engine, id)) = process.group.container() else {
            let container = process.is_apart.then_some(Container { name: None, program: None });
            return Self { pid, unit: process.group.unit(), container, program };
        };
        let known = containers(seen).into_iter().find(|(_, container)| container.id == id);
        let found = known.map(|(engine, container)| Self::of_container(engine, &container, seen));
        let short = || Container { name: id.get(..12).map(str::to_owned), program: Some(engine.to_owned()) };
        let container = found.as_ref().and_then(|found| found.container.clone()).unwrap_or_else(short);
        let unit = process.group.unit().or_else(|| found.and_then(|found| found.unit));
        Self { pid, unit, container: Some(container), program }
    }

    fn of_container(engine: &'static str, container: &containers::Container, seen: &[Process]) -> Self {
        let guest = Guest::of(engine, container, seen);
        Self {
            pid: container.pid(),
            unit: guest.unit,
            container: Some(Container { name: Some(guest.name), program: Some(guest.program) }),
            program: None,
        }
    }

    /// Whether it is the server of this unit, and in no container.
    pub fn is_of(&self, unit: &str) -> bool {
        self.container.is_none() && self.unit.as_deref() == Some(unit)
    }

    /// Whether it is the server in the container of this name.
    pub fn is_in(&self, container: &str) -> bool {
        self.container.as_ref().is_some_and(|found| found.name.as_deref() == Some(container))
    }

    /// The refusal to do anything to `data_directory`, which it has.
    pub fn refusal(&self, data_directory: &Path) -> Error {
        Error::new(Kind::DataDirectory, format!("{} is in use by {self}", data_directory.display()))
            .hint(self.hint())
    }

    /// How to stop it.
    pub fn hint(&self) -> String {
        match self {
            Self { unit: Some(unit), .. } => format!("systemctl stop {unit}"),
            Self { container: Some(Container { name: Some(name), program: Some(program) }), .. } => {
                format!("{program} stop {name}")
            }
            Self { pid: Some(pid), .. } => {
                format!("ps -f {pid} shows it; stop it the way it was started")
            }
            _ => {
                "lslocks shows who has locked a directory; stop that server the way it was started".to_owned()
            }
        }
    }
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, unit, container, program } = self;
        match (container, unit) {
            (Some(Container { name, program }), unit) => {
                match name {
                    Some(name) => write!(f, "the container {name}")?,
                    None => write!(f, "a server in a namespace of its own")?,
                }
                if let Some(program) = program {
                    write!(f, " of {program}")?;
                }
                if let Some(unit) = unit {
                    write!(f, ", which {unit} runs")?;
                }
            }
            (None, Some(unit)) => write!(f, "{unit}")?,
            (None, None) => write!(f, "another server")?,
        }
        match (pid, program.as_ref().filter(|_| unit.is_none())) {
            (Some(pid), Some(program)) => write!(f, " (process {pid}, {program})"),
            (Some(pid), None) => write!(f, " (process {pid})"),
            (None, _) if container.is_none() => write!(f, ", which cannot be seen from here"),
            (None, _) => Ok(()),
        }
    }
}

/// The containers that run. A program whose own processes are not there runs none, and is not woken.
fn containers(seen: &[Process]) -> Vec<(&'static str, containers::Container)> {
    let mut found = Vec::new();
    for (program, process) in [("docker", "dockerd"), ("podman", "conmon")] {
        if !geteuid().is_root() || !seen.iter().any(|it| it.name == process) {
            continue;
        }
        match containers::running(program) {
            Ok(running) => found.extend(running.into_iter().map(|container| (program, container))),
            Err(error) => {
                log::warn!("{}", error.context(format!("{program} does not say what it runs")).report());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
