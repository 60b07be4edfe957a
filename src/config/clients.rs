//! `[clients]`: who uses the databases.

use std::time::Duration;

use serde::Deserialize;

use super::value::duration;
use crate::error::Result;

/// The `[clients]` table.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct ClientsFragment {
    pub units: Option<Vec<String>>,
    pub timeout: Option<String>,
}

/// `[clients]`: who uses the databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// `units`: names and patterns of the units that are stopped while their data moves, if they run, and are
    /// started again. Units of ours are never among them. Default: the homeserver and what is named like its
    /// workers, bridges and authentication service.
    pub units: Vec<String>,
    /// `timeout`: how long they may take to stop, and again to start. Default 10 minutes.
    pub timeout: Duration,
}

/// Debian's package, Synapse's own workers, and the playbook call their units so.
const CLIENTS: [&str; 4] = ["matrix-*.service", "matrix-*.target", "mautrix-*.service", "synapse.service"];

impl ClientsFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(self, other; units, timeout)
    }
}

impl Clients {
    pub(super) fn from_fragment(input: ClientsFragment) -> Result<Self> {
        Ok(Self {
            units: input.units.unwrap_or_else(|| CLIENTS.map(str::to_owned).to_vec()),
            timeout: duration("clients.timeout", input.timeout.as_deref(), "10m")?,
        })
    }
}
