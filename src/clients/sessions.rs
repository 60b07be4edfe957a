//! Who is connected to the server.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::postgres::{self, HOME};

/// A session as the server sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `role@database (application)`
    pub who: String,
    /// Its database, if it has one.
    #[serde(default)]
    pub database: Option<String>,
    /// The process that serves it, by its number where the server runs: in a container it has another one than outside.
    pub backend: u32,
    /// The client's address; nothing if it comes by the Unix socket.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The client's port; nothing if it comes by the Unix socket.
    pub port: Option<u16>,
}

impl Session {
    /// Whether its client is on the server's machine for certain.
    pub(super) fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.to_canonical().is_loopback())
    }
}

/// All but the one that asks.
const SESSIONS: &str = "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'who', pg_catalog.format('%s@%s (%s)', usename, datname, coalesce(nullif(application_name, ''), 'unnamed')),
        'database', datname, 'backend', pid, 'address', pg_catalog.host(client_addr),
        'port', CASE WHEN client_port > 0 THEN client_port END)), '[]')
    FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid();";

/// Asks the server.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn ask(server: &postgres::Session<'_>) -> Result<Vec<Session>> {
    server.query(HOME, SESSIONS)
}
