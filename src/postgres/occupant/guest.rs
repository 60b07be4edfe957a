//! Containers that run, and the units that run them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::containers::Container;
use super::processes::{self, Process};
use crate::error::{Error, Kind, Result};
use crate::runtime::from_outside;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What runs it: `docker`, `podman`.
    pub program: String,
    /// The unit that it is of, if it is of one.
    pub unit: Option<String>,
}

impl Guest {
    /// The verb by which `matrix-postgres-upgrade`, called from outside, prints all of them.
    pub const VERB: &str = "containers";

    /// All of them, whoever asks: docker and podman answer only to who has root's rights.
    ///
    /// # Errors
    /// [`Kind::Program`], [`Kind::NotInstalled`]: nothing is known then.
    pub fn ask() -> Result<Vec<Self>> {
        let said = from_outside(vec![Self::VERB.into()], &[], "the look at the containers")?;
        serde_json::from_slice(&said)
            .map_err(|error| Error::new(Kind::Bug, "what was seen cannot be read").because(error))
    }

    /// The same, as far as they can be seen from here.
    pub fn here(proc: &Path) -> Vec<Self> {
        let seen = processes::all(proc);
        super::containers(&seen)
            .iter()
            .map(|(engine, container)| Self::of(engine, container, &seen))
            .collect()
    }

    pub(super) fn of(engine: &str, container: &Container, seen: &[Process]) -> Self {
        // A unit starts it by name and waits for its end: `docker start --attach NAME`, `docker run --name=NAME`.
        let name = container.name();
        let names_it = |word: &String| word == name || word.strip_prefix("--name=") == Some(name);
        let starts = |process: &&Process| {
            process.name == engine
                && process.words.iter().any(|word| word == "start" || word == "run")
                && process.words.iter().any(names_it)
        };
        let client = seen.iter().find(starts);
        Self {
            id: container.id.clone(),
            name: name.to_owned(),
            program: engine.to_owned(),
            unit: client.and_then(|client| client.group.unit()).or_else(|| container.unit()),
        }
    }
}
