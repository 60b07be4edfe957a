//! What systemd says before an upgrade: all of it or, if it cannot be asked, why not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::connected::{self, Connected};
use super::sessions::Session;
use super::sockets;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::systemd::{Manager, Unit};

/// The units that an upgrade has to do with.
#[derive(Debug, Clone)]
pub struct Units {
    /// Units that the settings name and that do not exist.
    pub missing: Vec<String>,
    /// Units of ours that another file of the same name shadows, with that file.
    pub shadowed: Vec<(String, PathBuf)>,
    /// Client units that run now.
    pub clients: Vec<String>,
    /// Who is connected, and which unit that belongs to; or why that is not known.
    pub connected: Result<Vec<Connected>, String>,
}

const OURS: [&str; 3] =
    ["matrix-postgres.service", "matrix-postgres-backup.service", "matrix-postgres-upgrade.service"];

/// Asks systemd about them. An error is kept as the sentence that a finding tells.
pub(in crate::upgrade) fn ask(settings: &Settings, sessions: &[Session]) -> Result<Units, String> {
    Manager::connect()
        .and_then(|manager| read(&manager, settings, sessions))
        .map_err(|error| sentence(&error))
}

fn read(manager: &Manager, settings: &Settings, sessions: &[Session]) -> Result<Units> {
    Ok(Units {
        missing: missing(manager, settings)?,
        shadowed: shadowed(manager)?,
        clients: clients(manager, &settings.clients.units)?,
        connected: connected(manager, sessions).map_err(|error| sentence(&error)),
    })
}

/// Patterns may match nothing; names must be of something.
fn missing(manager: &Manager, settings: &Settings) -> Result<Vec<String>> {
    let names = settings.clients.units.iter().filter(|entry| !entry.contains(['*', '?', '[']));
    // The default names units that only some homeservers have.
    let names = names.filter(|name| *name != "synapse.service").chain([&settings.server.unit]);
    let mut missing = Vec::new();
    for name in names {
        if !unit(manager, name)?.is_some_and(|unit| unit.exists()) {
            missing.push(name.clone());
        }
    }
    Ok(missing)
}

/// A unit in /etc of the same name wins over the packaged one: the Ansible playbook installs such.
fn shadowed(manager: &Manager) -> Result<Vec<(String, PathBuf)>> {
    let ours = |file: &PathBuf| file.starts_with("/usr/lib/systemd") || file.starts_with("/lib/systemd");
    let mut shadowed = Vec::new();
    for name in OURS {
        let file = unit(manager, name)?.and_then(|unit| unit.fragment_path);
        shadowed.extend(file.filter(|file| !ours(file)).map(|file| (name.to_owned(), file)));
    }
    Ok(shadowed)
}

/// What no unit can be called is none.
fn unit(manager: &Manager, name: &str) -> Result<Option<Unit>> {
    match manager.unit(name) {
        Err(error) if error.kind() == Kind::NoUnit => Ok(None),
        read => read.map(Some),
    }
}

fn clients(manager: &Manager, patterns: &[String]) -> Result<Vec<String>> {
    let mut units = BTreeSet::new();
    for pattern in patterns {
        let wanted = manager.wanted_units(pattern)?.into_iter();
        units.extend(wanted.filter(|unit| !unit.starts_with("matrix-postgres")));
    }
    Ok(units.into_iter().collect())
}

fn connected(manager: &Manager, sessions: &[Session]) -> Result<Vec<Connected>> {
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    connected::connected(sessions, &sockets::ask()?, |pid| manager.unit_of(pid).ok().flatten())
}

fn sentence(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {}", source.to_string().lines().collect::<Vec<_>>().join("; ")),
        None => error.to_string(),
    }
}
