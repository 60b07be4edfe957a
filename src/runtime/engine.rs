//! docker and podman.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::host::tool;
use crate::error::Result;

/// A program that runs containers. Both have the same command line, as far as it is used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// docker, by its daemon.
    Docker,
    /// podman, which has none.
    Podman,
}

impl Engine {
    /// The one whose program has this name, or this path.
    pub fn named(program: &str) -> Option<Self> {
        match program.rsplit('/').next() {
            Some("docker") => Some(Self::Docker),
            Some("podman") => Some(Self::Podman),
            _ => None,
        }
    }

    /// Its program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Its program.
    ///
    /// # Errors
    /// [`crate::Kind::NotInstalled`].
    pub fn program(self) -> Result<PathBuf> {
        let package = match self {
            Self::Docker => "docker-cli",
            Self::Podman => "podman",
        };
        tool(self.name(), package)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
