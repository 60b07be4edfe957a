//! What systemd says before an upgrade: all of it or, if it cannot be asked, why not.

use crate::clients::{self, Connected, Session};
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
    /// Client units that run now and are stopped: those of the settings, and those that are connected.
    pub clients: Vec<String>,
    /// Of these, those that are no setting's.
    pub found: Vec<String>,
    /// Who is connected, and which unit that belongs to; or why that is not known.
    pub connected: Result<Vec<Connected>, String>,
}

impl Units {
    /// A sentence for each kind of sessions that only end with the server.
    pub fn disconnected(&self, server: &str) -> Vec<String> {
        let connected = self.connected.as_deref().unwrap_or_default();
        clients::connected::disconnected(connected, &self.clients, server)
    }
}

/// Asks systemd about them. An error is kept as the sentence that a finding tells.
pub(in crate::upgrade) fn ask(settings: &Settings, sessions: &[Session]) -> Result<Units, String> {
    Manager::connect()
        .and_then(|manager| read(&manager, settings, sessions))
        .map_err(|error| sentence(&error))
}

fn read(manager: &Manager, settings: &Settings, sessions: &[Session]) -> Result<Units> {
    let mut clients = manager.clients(&settings.clients.units)?;
    let connected = clients::look(manager, settings, sessions).map_err(|error| sentence(&error));
    let mut found = match &connected {
        Ok(connected) => clients::to_stop(manager, connected, &[&settings.server.unit])?,
        Err(_) => Vec::new(),
    };
    found.retain(|unit| !clients.contains(unit));
    clients.extend(found.iter().cloned());
    Ok(Units {
        missing: missing(manager, settings)?,
        shadowed: manager.shadowed(settings.server.adopted())?,
        clients,
        found,
        connected,
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

fn sentence(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {}", source.to_string().lines().collect::<Vec<_>>().join("; ")),
        None => error.to_string(),
    }
}
