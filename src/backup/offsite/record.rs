//! What a target had when it was last reached, and why it was not. `status` has no network, and is asked for often.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::Copy;
use crate::config::Offsite;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath};

/// Where it is kept, and the lock of whoever sends: a state directory of the unit.
pub const DIRECTORY: &str = "/var/lib/matrix-postgres-offsite";

/// It is no longer than that.
const LONGEST: u64 = 16 << 20;

/// What is known of a target.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `remote` of the settings: of another one, nothing is known.
    pub remote: String,
    /// Where in it the backups of this machine are.
    pub path: String,
    /// When it was last reached.
    pub reached: Option<Timestamp>,
    /// What was there then.
    pub copies: Vec<Copy>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<Failure>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The first of those since the last that did not.
    pub since: Timestamp,
    /// The last one.
    pub at: Timestamp,
    /// In a line.
    pub reason: String,
}

impl Record {
    /// That of a target; nothing if it was never tried to reach it.
    ///
    /// # Errors
    /// [`Kind::File`] if it cannot be read, [`Kind::Damaged`] if it is not one.
    pub fn load(directory: &Path, target: &Offsite) -> Result<Option<Self>> {
        let path = file(directory, target);
        let bytes = match beneath::read(&path, LONGEST) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.at("read", &path)?,
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Kind::Damaged, format!("{} is not valid", path.display()))
                .because(error)
                .hint("it is written again by: systemctl start matrix-postgres-backup-offsite.service")
        })?;
        Ok(Some(record).filter(|record| record.remote == target.remote))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`].
    pub fn save(&self, directory: &Path, target: &Offsite) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(Kind::Bug, "could not write JSON").because(error))?;
        files::replace(&file(directory, target), &text)
    }

    /// The same after an attempt that failed.
    #[must_use]
    pub fn failed(self, error: &Error, now: Timestamp) -> Self {
        let since = self.failure.as_ref().map_or(now, |failure| failure.since);
        Self { failure: Some(Failure { since, at: now, reason: error.one_line() }), ..self }
    }
}

fn file(directory: &Path, target: &Offsite) -> PathBuf {
    directory.join(format!("{}.json", target.name))
}
