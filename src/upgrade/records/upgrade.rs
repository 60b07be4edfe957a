//! Which upgrade: what its plan decides, and its journal keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::place::image::Run;
use crate::postgres::Major;
use crate::upgrade::records::{Container, Registered};

/// Which of the two clusters of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The old one.
    Old,
    /// The new one.
    New,
}

/// An upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// When it was begun, as in the names of what belongs to it: `20261124T030000Z`.
    pub id: String,
    /// The old version.
    pub from: Major,
    /// The new version.
    pub to: Major,
    /// The data directory, in which the old cluster is before the exchange and, unless it is a registered one, the new one
    /// after it.
    pub data_directory: PathBuf,
    /// The other one of the two, beside it.
    pub beside: PathBuf,
    /// How the databases get from one to the other.
    #[serde(default = "dump")]
    pub method: Method,
    /// The copy of the old cluster, if one is made: by method `online` that from which the new one is made.
    #[serde(default)]
    pub copy: Option<PathBuf>,
    /// Method `online`: indexes to be built anew once the homeserver runs, by database.
    #[serde(default)]
    pub stale_indexes: BTreeMap<String, Vec<String>>,
    /// Subscriptions that are switched off in the new cluster, and were on, by database.
    #[serde(default)]
    pub subscriptions: BTreeMap<String, Vec<String>>,
    /// Where the old data directory is to be kept.
    pub keep_path: PathBuf,
    /// Where the databases lie while they are carried over.
    pub dump_directory: PathBuf,
    /// The server's unit; of a registered cluster, the old one's.
    pub server_unit: String,
    /// Of a cluster of Debian's: where both are registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registered>,
    /// Of a server in a container: what its unit runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Whether it was the playbook's own: what is known of it is what it has left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_playbook: bool,
}

impl Upgrade {
    /// The data directory of this one of the clusters once it is in place.
    pub fn home(&self, which: Which) -> &Path {
        match (which, &self.registered) {
            (Which::New, Some(registered)) => &registered.data_directory,
            _ => &self.data_directory,
        }
    }

    /// The unit of its server then.
    pub fn unit(&self, which: Which) -> &String {
        match (which, &self.registered) {
            (Which::New, Some(registered)) => &registered.server_unit,
            _ => &self.server_unit,
        }
    }

    /// Where the old one is while the new one is in place, until it is kept.
    pub fn old_aside(&self) -> &Path {
        match &self.registered {
            Some(_) => &self.data_directory,
            None => &self.beside,
        }
    }

    /// What a server on one of them, or on a copy, must be told to find its configuration.
    pub fn configured_by(&self, which: Which) -> Option<String> {
        let registered = self.registered.as_ref()?;
        let file = match which {
            Which::Old => registered.old_file(),
            Which::New => registered.file(),
        };
        Some(format!("config_file={}", file.display()))
    }

    /// The same, whose new cluster is made in `beside` and thrown away: it is never registered.
    #[must_use]
    pub fn thrown_away(self, beside: PathBuf) -> Self {
        let configuration = beside.clone();
        let registered = self.registered.map(|registered| Registered { configuration, ..registered });
        Self { beside, registered, ..self }
    }

    /// What the container of the server is made of while this one is in place.
    pub fn run(&self, which: Which) -> Option<&Run> {
        let container = self.container.as_ref()?;
        Some(match which {
            Which::Old => &container.old,
            Which::New => &container.new,
        })
    }

    /// Whether the journal alone tells which server it is of: those of packages and in containers are in no file of settings.
    pub fn names_its_server(&self) -> bool {
        self.registered.is_some() || self.container.is_some()
    }

    /// The settings for the server of the one that is in place.
    #[must_use]
    pub fn settle(&self, settings: Settings, in_place: Which) -> Settings {
        let place = (self.home(in_place), self.unit(in_place).as_str());
        match (&self.registered, &self.container) {
            (Some(registered), _) => registered.settle(settings, place),
            (None, Some(container)) => container.settle(settings, place),
            (None, None) => settings,
        }
    }

    /// Where the copy is made.
    ///
    /// # Errors
    /// [`Kind::Bug`] for an upgrade that makes none.
    pub fn copy(&self) -> Result<&Path> {
        self.copy.as_deref().ok_or_else(|| Error::new(Kind::Bug, "this upgrade makes no copy"))
    }
}

/// The only one that there was.
fn dump() -> Method {
    Method::Dump
}
