//! What systemd says before an upgrade: all of it or, if it cannot be asked, why not.

use super::connected::{self, Connected};
use super::sessions::Session;
use super::sockets;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::systemd::{Manager, Shadowed, Unit};

/// The units that an upgrade has to do with.
#[derive(Debug, Clone)]
pub struct Units {
    /// Units that the settings name and that do not exist.
    pub missing: Vec<String>,
    /// Units of ours that another file of the same name shadows.
    pub shadowed: Vec<Shadowed>,
    /// Client units that run now.
    pub clients: Vec<String>,
    /// Who is connected, and which unit that belongs to; or why that is not known.
    pub connected: Result<Vec<Connected>, String>,
}

/// Asks systemd about them. An error is kept as the sentence that a finding tells.
pub(in crate::upgrade) fn ask(settings: &Settings, sessions: &[Session]) -> Result<Units, String> {
    Manager::connect()
        .and_then(|manager| read(&manager, settings, sessions))
        .map_err(|error| sentence(&error))
}

fn read(manager: &Manager, settings: &Settings, sessions: &[Session]) -> Result<Units> {
    Ok(Units {
        missing: missing(manager, settings)?,
        shadowed: manager.shadowed(settings.server.adopted())?,
        clients: manager.clients(&settings.clients.units)?,
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

/// What no unit can be called is none.
fn unit(manager: &Manager, name: &str) -> Result<Option<Unit>> {
    match manager.unit(name) {
        Err(error) if error.kind() == Kind::NoUnit => Ok(None),
        read => read.map(Some),
    }
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
