//! Who is connected to the server: found, and not only configured.
//!
//! - [`sessions`]: who that is, as the server sees it
//! - [`sockets`]: which processes that is
//! - `diag`: the connections of a network, of which that is found out
//! - [`origins`]: which unit, container or machine those belong to
//! - [`connected`]: sessions of one kind together, and which units are stopped for them

pub mod connected;
mod diag;
mod origins;
pub mod sessions;
pub mod sockets;

pub use connected::{Connected, to_stop};
pub use origins::Origin;
pub use sessions::Session;

use std::path::Path;

use crate::config::{ServerKind, Settings};
use crate::error::Result;
use crate::postgres::{self, Occupant};
use crate::systemd::Manager;

/// Where these sessions come from, but for our own. Nothing is changed.
///
/// # Errors
/// [`crate::Kind::Program`], [`crate::Kind::NotInstalled`]: nothing is known then.
pub fn look(manager: &Manager, settings: &Settings, sessions: &[Session]) -> Result<Vec<Connected>> {
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    let sockets = sockets::ask()?;
    let is_contained = settings.server.kind.is_some_and(|(kind, _)| kind == ServerKind::Container);
    let occupant = match is_contained {
        true => Occupant::find(&settings.data_directory)?,
        false => None,
    };
    let server = match &settings.server.remote {
        Some(_) => sockets::Server::AWAY,
        None => sockets::Server::near(occupant.and_then(|occupant| occupant.pid), Path::new("/proc")),
    };
    let origins = origins::Origins::new(manager, Path::new("/proc"));
    let mut connected = connected::connected(sessions, &server, &sockets, |pids| origins.of(pids))?;
    // Several things are asked at the same time.
    let own = manager.unit_of(0)?;
    connected.retain(|connected| !connected.is_ours(own.as_deref()));
    Ok(connected)
}

/// The running units that have sessions on the server, or in one of its databases, and are stopped while that changes places. Who
/// else is disconnected is logged; so is a failure: those that are configured are stopped all the same.
pub fn found(
    manager: &Manager,
    settings: &Settings,
    server: &postgres::Session<'_>,
    database: Option<&str>,
) -> Vec<String> {
    let look = || -> Result<(Vec<String>, Vec<Connected>)> {
        let mut sessions = sessions::ask(server)?;
        sessions.retain(|session| database.is_none_or(|name| session.database.as_deref() == Some(name)));
        let connected = look(manager, settings, &sessions)?;
        let units = to_stop(manager, &connected, &[&settings.server.unit])?;
        Ok((units, connected))
    };
    match look() {
        Ok((units, connected)) => {
            for sentence in connected::disconnected(&connected, &units, &settings.server.unit) {
                log::info!("{sentence}");
            }
            units
        }
        Err(error) => {
            log::warn!("{}", error.context(UNKNOWN).report());
            Vec::new()
        }
    }
}

/// What is said then.
pub const UNKNOWN: &str = "could not determine which units are connected to the server";
