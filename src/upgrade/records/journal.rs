//! What an upgrade is about to do, on disk before it does it: after any death, whoever reads this knows how to go on.
//!
//! - `slots`: the file, written in place
//! - [`legacy`]: what versions before 2026-12 have left elsewhere

pub mod legacy;
mod slots;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

use self::slots::{Found, Slots};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::upgrade::records::Step;
use crate::upgrade::records::entry::{Ended, Entry, FORMAT, Outcome};

/// The journal of the latest upgrade. Whoever changes anything by it holds the lock of the cluster.
#[derive(Debug)]
pub struct Journal {
    slots: Slots,
    /// What it says.
    pub entry: Entry,
}

/// The directory of the journals.
fn directory(state_directory: &Path) -> PathBuf {
    state_directory.join("upgrade")
}

fn file(state_directory: &Path) -> PathBuf {
    directory(state_directory).join("journal.json")
}

impl Journal {
    /// Begins a new one, with room for all that will be written into it. That of an earlier upgrade stays, under its own
    /// name.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`]; [`Kind::Locked`] if an earlier upgrade has not ended.
    pub fn begin(state_directory: &Path, entry: Entry) -> Result<Self> {
        let directory = directory(state_directory);
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory).at("create", &directory)?;
        if let Some(before) = Self::usable(state_directory)? {
            if before.entry.is_open() {
                let message =
                    format!("the upgrade {} is unfinished: {}", before.entry.upgrade.id, before.entry.step);
                return Err(Error::new(Kind::Locked, message)
                    .state("nothing was changed")
                    .hint("matrix-postgres-upgrade recover"));
            }
            files::replace(
                &directory.join(format!("{}.json", before.entry.upgrade.id)),
                &text(&before.entry)?,
            )?;
        }
        Ok(Self { slots: Slots::create(&file(state_directory), &text(&entry)?)?, entry })
    }

    /// Fails while an upgrade has not ended, whether or not it is under way.
    ///
    /// # Errors
    /// [`Kind::Locked`], and as [`Journal::read`].
    pub fn require_ended(state_directory: &Path) -> Result<()> {
        match Self::read(state_directory)?.filter(|journal| journal.entry.is_open()) {
            None => Ok(()),
            Some(Self { entry, .. }) => {
                let message = format!("the upgrade {} is unfinished: {}", entry.upgrade.id, entry.step);
                Err(Error::new(Kind::Locked, message).hint("matrix-postgres-upgrade recover"))
            }
        }
    }

    /// The journal of the latest upgrade, open or not.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it was not written by us or makes no sense; [`Kind::File`] if it cannot be read.
    pub fn read(state_directory: &Path) -> Result<Option<Self>> {
        let file = file(state_directory);
        let found = match Slots::read(&file)? {
            Found::Nothing => return Ok(None),
            Found::Text(slots, text) => parse(&text).map(|entry| Self { slots, entry }),
            Found::Unusable(reason) => Err(reason),
        };
        found.map(Some).map_err(|reason| {
            Error::new(Kind::Damaged, format!("{}: {reason}", file.display()))
                .state("nothing was changed")
                .hint("matrix-postgres-upgrade recover renames the file")
        })
    }

    /// The same; one that makes no sense is set aside, for it is no reason to keep a homeserver down. The caller holds the
    /// lock.
    ///
    /// # Errors
    /// [`Kind::File`].
    pub fn usable(state_directory: &Path) -> Result<Option<Self>> {
        match Self::read(state_directory) {
            Err(error) if error.kind() == Kind::Damaged => {
                let aside = slots::set_aside(&file(state_directory), Timestamp::now())?;
                log::error!("{error}; the unusable journal was renamed to {}", aside.display());
                Ok(None)
            }
            read => read,
        }
    }

    /// All upgrades that there were, the latest first. What makes no sense is left out, and [`Journal::unusable`].
    ///
    /// # Errors
    /// [`Kind::File`] if the directory cannot be read.
    pub fn all(state_directory: &Path) -> Result<Vec<Entry>> {
        let files = files_in(state_directory)?.into_iter();
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
        let entry = |file: PathBuf| match Slots::read(&file) {
            Ok(Found::Text(_, text)) => parse(&text).ok(),
            _ => None,
        };
        let mut all: Vec<_> = files.filter_map(entry).collect();
        all.sort_by(|a, b| b.upgrade.id.cmp(&a.upgrade.id));
        Ok(all)
    }

    /// Files that are no journals: those that were set aside, and one that will be.
    ///
    /// # Errors
    /// As [`Journal::all`].
    pub fn unusable(state_directory: &Path) -> Result<Vec<PathBuf>> {
        let aside = |file: &PathBuf| file.to_string_lossy().contains(".json.unusable-");
        let mut found: Vec<_> = files_in(state_directory)?.into_iter().filter(aside).collect();
        if Self::read(state_directory).is_err() {
            found.push(file(state_directory));
        }
        found.sort();
        Ok(found)
    }

    /// Writes down what is about to be done.
    ///
    /// # Errors
    /// [`Kind::File`]: it must not be done then.
    pub fn step(&mut self, step: Step, now: Timestamp) -> Result<()> {
        step.require_after(self.entry.step)?;
        self.entry.step = step;
        self.entry.since = now;
        self.write()
    }

    /// Writes down that nothing is left to be done.
    ///
    /// # Errors
    /// As [`Journal::step`].
    pub fn end(&mut self, outcome: Outcome, message: impl Into<String>, at: Timestamp) -> Result<()> {
        self.entry.ended = Some(Ended { outcome, at, message: message.into() });
        self.write()?;
        // In both of its slots: whoever looks with grep finds no trace of an open one.
        self.write()
    }

    /// Writes it as it is; it lasts when this returns.
    ///
    /// # Errors
    /// As [`Journal::step`].
    pub fn write(&mut self) -> Result<()> {
        self.slots.write(&text(&self.entry)?)
    }
}

fn text(entry: &Entry) -> Result<String> {
    serde_json::to_string_pretty(entry)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(Kind::Bug, "could not write JSON").because(error))
}

fn files_in(state_directory: &Path) -> Result<Vec<PathBuf>> {
    let directory = directory(state_directory);
    match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries.at("read", &directory)?.flatten().map(|entry| entry.path()).collect()),
    }
}

fn parse(text: &str) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let form: Form = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match form.format {
        FORMAT => {
            let entry: Entry = serde_json::from_str(text).map_err(|error| error.to_string())?;
            entry.names_only_its_own().map(|()| entry)
        }
        newer => Err(format!("its format is {newer}, and this version supports {FORMAT}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::upgrade::records::Upgrade;
    use crate::upgrade::records::entry::tests::{entry, entry_of, upgrade};

    #[test]
    fn what_was_written_is_read_and_an_earlier_one_stays() {
        let state = tempfile::tempdir().unwrap();
        assert!(Journal::read(state.path()).unwrap().is_none());
        let mut journal = Journal::begin(state.path(), entry()).unwrap();
        journal.step(Step::Exchanging, Timestamp::UNIX_EPOCH).unwrap();
        let read = Journal::read(state.path()).unwrap().unwrap();
        assert_eq!(read.entry, journal.entry);
        assert!(read.entry.is_open());
        journal.end(Outcome::Returned, "no space", Timestamp::UNIX_EPOCH).unwrap();
        let id = "20261125T030000Z";
        let next = entry_of(Upgrade {
            id: id.into(),
            beside: format!("/m/data.upgrade-{id}").into(),
            dump_directory: format!("/var/tmp/x/upgrade-{id}").into(),
            ..upgrade()
        });
        let mut journal = Journal::begin(state.path(), next.clone()).unwrap();
        let ids: Vec<_> =
            Journal::all(state.path()).unwrap().into_iter().map(|entry| entry.upgrade.id).collect();
        assert_eq!(ids, ["20261125T030000Z", "20261124T030000Z"]);
        // One that has not ended is not put away for another.
        assert_eq!(Journal::begin(state.path(), next).unwrap_err().kind(), Kind::Locked);
        journal.end(Outcome::Returned, "", Timestamp::UNIX_EPOCH).unwrap();
        let text = std::fs::read_to_string(state.path().join("upgrade/journal.json")).unwrap();
        assert!(!text.contains("\"ended\": null"));
    }

    #[test]
    fn one_that_makes_no_sense_is_set_aside_and_told() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("upgrade/journal.json");
        let newer = serde_json::to_string(&Entry { format: 2, ..entry() }).unwrap();
        let forged =
            serde_json::to_string(&entry_of(Upgrade { beside: "/srv/precious".into(), ..upgrade() }))
                .unwrap();
        for text in ["", "{\"format\": 1", "not ours", &newer, &forged] {
            std::fs::create_dir_all(state.path().join("upgrade")).unwrap();
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Journal::read(state.path()).unwrap_err().kind(), Kind::Damaged, "{text}");
            assert_eq!(Journal::unusable(state.path()).unwrap(), std::slice::from_ref(&file));
            assert!(Journal::usable(state.path()).unwrap().is_none());
            assert!(!file.exists() && Journal::all(state.path()).unwrap().is_empty());
            let aside = Journal::unusable(state.path()).unwrap().pop().unwrap();
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), text);
            std::fs::remove_file(aside).unwrap();
        }
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let state = tempfile::tempdir().unwrap();
        Journal::begin(state.path(), entry()).unwrap();
        let file = state.path().join("upgrade/journal.json");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(Journal::read(state.path()).unwrap_err().kind(), Kind::Damaged);
    }

    #[test]
    fn a_newer_form_is_named() {
        let text = serde_json::to_string(&Entry { format: 2, ..entry() }).unwrap();
        assert!(parse(&text).unwrap_err().contains("its format is 2"));
    }
}
