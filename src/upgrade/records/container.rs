//! A server in a container: what its unit runs before and after, and how it is reached.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{ServerKind, Settings};
use crate::place::image::Run;

/// What an upgrade must know of the container of the server, whose clusters change places in its one data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it is made of while the old cluster is in place.
    pub old: Run,
    /// What it is made of while the new one is.
    pub new: Run,
    /// What the owner of the data directory is called in it.
    pub peer: String,
    /// Where the server's socket is, on this machine.
    pub socket_directory: PathBuf,
    /// The port in the socket's name.
    pub port: u16,
    /// The system user that both clusters belong to.
    pub owner: String,
    /// The superuser.
    pub superuser: String,
    /// The homeserver's database.
    pub database: String,
}

impl Container {
    /// Whether what root writes into a unit, and connects to, is of the form that it has.
    pub(super) fn is_plain(&self) -> bool {
        let sockets = &self.socket_directory;
        let is_direct = !sockets.components().any(|part| matches!(part, std::path::Component::ParentDir));
        sockets.is_absolute() && is_direct && self.old.is_plain() && self.new.is_plain()
    }

    /// The settings for it, with this data directory and this unit.
    #[must_use]
    pub(super) fn settle(&self, mut settings: Settings, (home, unit): (&Path, &str)) -> Settings {
        home.clone_into(&mut settings.data_directory);
        settings.socket_directory.clone_from(&self.socket_directory);
        let server = &mut settings.server;
        server.kind = Some((ServerKind::Container, "the upgrade"));
        server.port = self.port;
        unit.clone_into(&mut server.unit);
        server.is_unit_named = true;
        server.user.clone_from(&self.owner);
        server.superuser.clone_from(&self.superuser);
        server.database.clone_from(&self.database);
        settings
    }
}
