//! `[server]`: the server that `matrix-postgres.service` runs.

use std::time::Duration;

use serde::Deserialize;

use super::value::{duration, name};
use crate::error::Result;
use crate::version::Major;

/// The `[server]` table.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct ServerFragment {
    pub version: Option<u16>,
    pub listen: Option<Vec<String>>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub superuser: Option<String>,
    pub database: Option<String>,
    pub role: Option<String>,
    pub unit: Option<String>,
    pub start_timeout: Option<String>,
}

/// `[server]`: the server that `matrix-postgres.service` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `version`: major version of a cluster that is yet to be initialised. Default: the newest installed.
    /// An existing cluster always keeps its own.
    pub version: Option<Major>,
    /// `listen`: addresses for TCP, as in PostgreSQL's `listen_addresses`. Default: none, the socket only.
    pub listen: Vec<String>,
    /// `port`: of the socket's name and of TCP. Default 5432.
    pub port: u16,
    /// `user`: the system user that owns a new data directory. Default `matrix-postgres`.
    pub user: String,
    /// `superuser`: the role we log in as. Default `postgres`.
    pub superuser: String,
    /// `database`: created at the first start, and what `matrix-postgres-cli` opens. Default `homeserver`.
    pub database: String,
    /// `role`: owner of that database, for Synapse. Default `synapse`.
    pub role: String,
    /// `unit`: the server's unit. Default `matrix-postgres.service`.
    pub unit: String,
    /// Whether the configuration names it: then it is touched whatever file it is defined by.
    pub is_unit_named: bool,
    /// `start_timeout`: how long the unit may take to start or stop. Default 10 minutes.
    pub start_timeout: Duration,
}

impl ServerFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(self, other; version, listen, port, user, superuser, database, role, unit, start_timeout)
    }
}

impl Server {
    pub(super) fn from_fragment(input: ServerFragment) -> Result<Self> {
        Ok(Self {
            version: input.version.map(Major),
            listen: input.listen.unwrap_or_default(),
            port: input.port.unwrap_or(5432),
            user: name("server.user", input.user, "matrix-postgres")?,
            superuser: name("server.superuser", input.superuser, "postgres")?,
            database: name("server.database", input.database, "homeserver")?,
            role: name("server.role", input.role, "synapse")?,
            is_unit_named: input.unit.is_some(),
            unit: name("server.unit", input.unit, "matrix-postgres.service")?,
            start_timeout: duration("server.start_timeout", input.start_timeout.as_deref(), "10m")?,
        })
    }
}
