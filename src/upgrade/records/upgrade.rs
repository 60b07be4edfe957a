//! Which upgrade: what its plan decides, and its journal keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Method;
use crate::error::{Error, Kind, Result};
use crate::postgres::Major;

/// An upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// When it was begun, as in the names of what belongs to it: `20261124T030000Z`.
    pub id: String,
    /// The old version.
    pub from: Major,
    /// The new version.
    pub to: Major,
    /// The data directory, in which the old cluster is before the exchange and the new one after it.
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
    /// The server's unit.
    pub server_unit: String,
}

impl Upgrade {
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
