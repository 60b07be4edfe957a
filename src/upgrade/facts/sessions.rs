//! Who is connected to the server.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A session as the server sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `role@database (application)`
    pub who: String,
    /// The process that serves it.
    pub backend: u32,
    /// The client's address; nothing if it comes by the Unix socket.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The client's port; nothing if it comes by the Unix socket.
    pub port: Option<u16>,
}

impl Session {
    /// Whether its client is on this machine for certain.
    pub(super) fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.to_canonical().is_loopback())
    }
}
