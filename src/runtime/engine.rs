//! docker and podman.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::host::{bare, tool};
use super::limit::output_within;
use crate::error::{Error, Kind, Result};

/// A program that hangs is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

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

    /// The variables that an image of this machine sets; nothing if it is not there.
    ///
    /// # Errors
    /// [`crate::Kind::NotInstalled`], [`crate::Kind::Program`].
    pub fn variables_of(self, image: &str) -> Result<Option<Vec<String>>> {
        let mut command = bare(&self.program()?);
        command.args(["image", "inspect", "--format", "{{json .Config.Env}}", "--", image]);
        match output_within(command, &format!("{self} image inspect"), Vec::new(), PATIENCE) {
            Ok(text) => serde_json::from_slice::<Option<Vec<String>>>(&text)
                .map(|variables| Some(variables.unwrap_or_default()))
                .map_err(|error| {
                    let message = format!("what {self} says of the image {image} cannot be read");
                    Error::new(Kind::Program, message).because(error)
                }),
            Err(error) if error.report().to_lowercase().contains("no such image") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
