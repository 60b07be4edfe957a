//! Which backups were verified, which pgBackRest itself does not remember.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::manifest::Trial;
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::files::{self, beneath};

/// It is no longer than that.
const LONGEST: u64 = 1 << 20;

/// What was found, by the labels of the backups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Those that there are.
    pub backups: BTreeMap<String, Verified>,
    /// Those that were restored on trial, and how that went.
    #[serde(default)]
    pub trials: BTreeMap<String, Trial>,
    /// Where they are; nothing in a record of versions before 2026-12.
    #[serde(default)]
    pub source: Option<Source>,
}

/// Where the backups of a record are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The repository's directory.
    pub repository: PathBuf,
    /// The stanza in it.
    pub stanza: String,
}

/// Backups that must be there where there is no stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Where they were.
    pub source: Source,
    /// How many of them were verified.
    pub backups: usize,
    /// The record that knows of them.
    pub record: PathBuf,
}

/// What was found in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When.
    pub at: Timestamp,
    /// What is wrong with it.
    pub damage: Option<String>,
}

fn file(directory: &Path) -> PathBuf {
    directory.join(".pgbackrest.json")
}

impl Source {
    /// That of these settings.
    pub fn of(settings: &config::Backup) -> Self {
        Self { repository: settings.repository.clone(), stanza: settings.stanza.clone() }
    }
}

impl Record {
    /// That in the directory of the backups. One that cannot be read has nothing in it: then nothing was verified.
    pub fn load(directory: &Path) -> Self {
        let text = beneath::read(&file(directory), LONGEST).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The backups that there have been where these settings have them, and that pgBackRest must know of.
    pub fn expected(&self, settings: &config::Backup) -> Option<Gone> {
        let source = Source::of(settings);
        let is_known = !self.backups.is_empty() && self.source.as_ref() == Some(&source);
        let record = file(&settings.directory);
        is_known.then_some(Gone { source, backups: self.backups.len(), record })
    }

    /// With what was found in one of the backups with these labels.
    #[must_use]
    pub fn with<'a>(
        mut self,
        label: &str,
        verified: Verified,
        labels: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let labels: Vec<_> = labels.into_iter().collect();
        self.backups.retain(|label, _| labels.contains(&label.as_str()));
        self.trials.retain(|label, _| labels.contains(&label.as_str()));
        self.backups.insert(label.to_owned(), verified);
        self
    }

    /// With the result of a trial restore of the backup with this label.
    #[must_use]
    pub fn with_trial(mut self, label: &str, trial: Trial) -> Self {
        self.trials.insert(label.to_owned(), trial);
        self
    }

    /// The latest trial restore, and of which backup.
    pub fn newest_trial(&self) -> Option<(&String, &Trial)> {
        self.trials.iter().max_by_key(|(_, trial)| trial.at)
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(Kind::Bug, "could not write JSON").because(error))?;
        files::replace(&file(directory), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_gone_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let verified = Verified { at: Timestamp::UNIX_EPOCH, damage: None };
        let record = Record::load(directory.path()).with("a", verified.clone(), []);
        record.with("b", verified, ["b"]).save(directory.path()).unwrap();
        assert_eq!(Record::load(directory.path()).backups.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn backups_are_expected_where_they_were_made_and_nowhere_else() {
        let settings = |text| {
            let fragment = config::Fragment::parse(text, Path::new("c.toml")).unwrap();
            config::Settings::from_fragment(fragment).unwrap().backup
        };
        let here = settings("");
        let mut record = Record::default();
        assert_eq!(record.expected(&here), None);
        record.source = Some(Source::of(&here));
        assert_eq!(record.expected(&here), None);
        let verified = Verified { at: Timestamp::UNIX_EPOCH, damage: None };
        record = record.with("a", verified, []);
        assert_eq!(record.expected(&here).unwrap().backups, 1);
        for elsewhere in ["backup.stanza = \"other\"", "backup.repository = \"/mnt/new\""] {
            assert_eq!(record.expected(&settings(elsewhere)), None, "{elsewhere}");
        }
    }
}
