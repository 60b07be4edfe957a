//! What an upgrade is about to do, on disk before it does it: after any death, whoever reads this knows how to go on.
//!
//! - `slots`: the file, written in place
//! - [`legacy`]: what versions before 2026-12 have left elsewhere

pub mod legacy;
mod slots;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::slots::{Found, Slots};
use super::plan::named_after;
use super::written::{Census, Counters};
use crate::config::Method;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::postgres::Major;

/// The version of the journal's form.
const FORMAT: u32 = 1;

/// What an upgrade does, in this order. Each is written down before it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The new cluster is made beside the old one; the homeserver runs.
    Preparing,
    /// Method `online`: the old cluster is copied; the homeserver runs.
    Copying,
    /// Method `online`: the copy follows the homeserver, and is looked at.
    Following,
    /// The units of clients are stopped.
    StoppingClients,
    /// The server is stopped.
    StoppingServer,
    /// Method `online`: the copy, which has everything, becomes a cluster of its own.
    Promoting,
    /// Method `online`: pg_upgrade makes the new cluster of it.
    Upgrading,
    /// Method `dump`: the databases are carried over.
    Transferring,
    /// Both clusters are compared.
    Comparing,
    /// The new cluster is written to the disk.
    Syncing,
    /// The two data directories change places.
    Exchanging,
    /// The server is started on the new one, and logged in to.
    StartingServer,
    /// The units of clients are started.
    StartingClients,
    /// Method `online`: what could wait is done: statistics, indexes of other collations, extensions; the homeserver runs.
    Tending,
    /// The old data directory goes to where it is kept; the homeserver runs.
    Keeping,
    /// The old data directory goes back to its place.
    Returning,
    /// The server and the clients are started on the old one.
    Restarting,
}

impl Step {
    /// Whether nothing has been stopped yet.
    pub fn is_before_the_cut(self) -> bool {
        self < Self::StoppingClients
    }

    /// Whether the server must not be started by anybody else: nobody may write to a cluster that is copied, and
    /// there may be none in place.
    pub fn needs_the_server_down(self) -> bool {
        (Self::StoppingServer..=Self::Exchanging).contains(&self) || self == Self::Returning
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "preparing the new cluster",
            Self::StoppingClients => "stopping the clients",
            Self::StoppingServer => "stopping the server",
            Self::Copying => "copying the cluster",
            Self::Following => "following the homeserver",
            Self::Promoting => "promoting the copy",
            Self::Upgrading => "running pg_upgrade on the copy",
            Self::Transferring => "carrying the databases over",
            Self::Comparing => "comparing old and new",
            Self::Syncing => "writing the new cluster to the disk",
            Self::Exchanging => "exchanging the data directories",
            Self::StartingServer => "starting the new server",
            Self::StartingClients => "starting the clients",
            Self::Tending => "gathering statistics",
            Self::Keeping => "keeping the old data directory",
            Self::Returning => "returning to the old data directory",
            Self::Restarting => "starting the server and its clients on the old one",
        })
    }
}

/// How an upgrade ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The server runs on the new version.
    Upgraded,
    /// The server runs on the old version, by itself or by `rollback`.
    Returned,
}

/// One upgrade, as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this form.
    pub format: u32,
    /// When it was begun, as in the names of what belongs to it: `20261124T030000Z`.
    pub id: String,
    /// The old version.
    pub from: Major,
    /// The new version.
    pub to: Major,
    /// The data directory, in which the old cluster is before the exchange and the new one after it.
    pub data_directory: PathBuf,
    /// The other one of the two, beside it.
    pub beside: PathBuf,
    /// How the databases get from one to the other.
    #[serde(default = "dump")]
    pub method: Method,
    /// Method `online`: the copy of the old cluster, from which the new one is made.
    #[serde(default)]
    pub copy: Option<PathBuf>,
    /// Method `online`: indexes to be built anew once the homeserver runs, by database.
    #[serde(default)]
    pub stale_indexes: BTreeMap<String, Vec<String>>,
    /// Subscriptions that are switched off in the new cluster, and were on, by database.
    #[serde(default)]
    pub subscriptions: BTreeMap<String, Vec<String>>,
    /// Where the old data directory is to be kept.
    pub keep_path: PathBuf,
    /// Where the databases lie while they are carried over.
    pub dump_directory: PathBuf,
    /// The old cluster's identity. A string, for JSON numbers end before 2^64.
    pub old_identifier: String,
    /// The server's unit.
    pub server_unit: String,
    /// The clients' units that were running, in the order in which they are stopped.
    pub clients: Vec<String>,
    /// What is being done.
    pub step: Step,
    /// Since when.
    pub since: Timestamp,
    /// Files of login rules in the new cluster, relative to the data directory, which let in only us until it is opened.
    /// None in journals of earlier versions, if they could not be closed.
    #[serde(default)]
    pub login_files: Vec<PathBuf>,
    /// The next transaction of the new cluster as it was written to the disk, before anybody but us could reach it.
    #[serde(default)]
    pub next_xid: Option<String>,
    /// What was counted in the new cluster before that.
    #[serde(default)]
    pub census: Option<Census>,
    /// When others than us were let in to the new cluster, and where it stood then. From then on it may hold what nothing
    /// else holds, and is not removed any more.
    #[serde(default)]
    pub opened: Option<Opened>,
    /// Of `clients`, those that did not run when they were stopped, but were about to, or kept ending.
    #[serde(default)]
    pub unsteady: Vec<String>,
    /// Clients that were running before and did not start again.
    #[serde(default)]
    pub not_started: Vec<String>,
    /// Rows that had been changed in each database of the new cluster before the first client came; of older journals.
    pub written_before: Option<Counters>,
    /// When the clients were started on the new cluster.
    pub clients_started: Option<Timestamp>,
    /// Seconds that the steps took.
    pub durations: Vec<(Step, f64)>,
    /// Where the old data directory is now, once it is kept.
    pub kept: Option<PathBuf>,
    /// Its size in bytes.
    pub kept_bytes: Option<u64>,
    /// How it ended, when, and what was said then.
    pub ended: Option<Ended>,
}

/// The only one that there was.
fn dump() -> Method {
    Method::Dump
}

/// When the new cluster was opened to others than us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// When.
    pub at: Timestamp,
    /// Where it stood; nothing if it could not be asked.
    pub position: Option<Position>,
}

/// How far a cluster had come: everything that is written later comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The end of its log, such as `0/3000028`.
    pub lsn: String,
    /// The next transaction, with epoch.
    pub xid: u64,
}

/// The end of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// In a sentence; of a failure the reason.
    pub message: String,
}

impl Entry {
    /// Whether there is still something to be done about it.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// What root moves and removes by a journal bears the names that [`super::plan`] gives.
    fn names_only_its_own(&self) -> Result<(), String> {
        let is_digit = |(place, byte): (usize, u8)| match place {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        };
        if self.id.len() != 16 || !self.id.bytes().enumerate().all(is_digit) {
            return Err("its name is not that of an upgrade".to_owned());
        }
        let own = |suffix: &str| named_after(&self.data_directory, &format!("upgrade-{}{suffix}", self.id));
        let dump = format!("upgrade-{}", self.id);
        let keep = self.keep_path.as_os_str().as_encoded_bytes();
        let is_kept = |kept: &PathBuf| {
            let numbers = kept.as_os_str().as_encoded_bytes().strip_prefix(keep);
            numbers.is_some_and(|rest| rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-'))
        };
        let absolute = [&self.data_directory, &self.keep_path, &self.dump_directory];
        let plain = |path: &PathBuf| {
            path.is_absolute()
                && !path.components().any(|part| matches!(part, std::path::Component::ParentDir))
        };
        let well = self.beside == own("")
            && self.copy.as_ref().is_none_or(|copy| *copy == own("-copy"))
            && self.dump_directory.file_name().is_some_and(|name| *name == *dump)
            && self.kept.as_ref().is_none_or(is_kept)
            && absolute.into_iter().all(plain);
        match well {
            true => Ok(()),
            false => Err("it names directories that are not those of an upgrade".to_owned()),
        }
    }

    /// Whether the new cluster may hold what nothing else holds: others than us have been let in.
    pub fn was_open(&self) -> bool {
        self.opened.is_some() || self.clients_started.is_some()
    }

    /// Seconds from the stop of the clients until they were started again.
    pub fn downtime(&self) -> f64 {
        let down = Step::StoppingClients..=Step::StartingClients;
        self.durations.iter().filter(|(step, _)| down.contains(step)).map(|(_, seconds)| seconds).sum()
    }
}

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
                let message = format!("the upgrade {} has not ended: {}", before.entry.id, before.entry.step);
                return Err(Error::new(Kind::Locked, message)
                    .state("nothing was changed")
                    .hint("matrix-postgres-upgrade recover"));
            }
            files::replace(&directory.join(format!("{}.json", before.entry.id)), &text(&before.entry)?)?;
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
                let message = format!("the upgrade {} has not ended: {}", entry.id, entry.step);
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
                .hint("matrix-postgres-upgrade recover sets it aside")
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
                log::error!("{error}; it is no journal of an upgrade, and is now {}", aside.display());
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
        all.sort_by(|a, b| b.id.cmp(&a.id));
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
        newer => Err(format!("it has the form {newer}, and this version knows {FORMAT}")),
    }
}

/// The form that [`Journal::begin`] is given.
pub(super) const fn format() -> u32 {
    FORMAT
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    pub(crate) fn entry() -> Entry {
        Entry {
            format: FORMAT,
            id: "20261124T030000Z".into(),
            from: Major(15),
            to: Major(17),
            data_directory: "/m/data".into(),
            beside: "/m/data.upgrade-20261124T030000Z".into(),
            method: Method::Dump,
            copy: None,
            stale_indexes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            keep_path: "/m/kept".into(),
            dump_directory: "/var/tmp/x/upgrade-20261124T030000Z".into(),
            old_identifier: "18446744073709551615".into(),
            server_unit: "matrix-postgres.service".into(),
            clients: vec!["matrix-synapse.service".into()],
            step: Step::Preparing,
            since: Timestamp::UNIX_EPOCH,
            login_files: vec![],
            next_xid: None,
            census: None,
            opened: None,
            unsteady: vec![],
            not_started: vec![],
            written_before: None,
            clients_started: None,
            durations: vec![],
            kept: None,
            kept_bytes: None,
            ended: None,
        }
    }

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
        let next = Entry {
            id: id.into(),
            beside: format!("/m/data.upgrade-{id}").into(),
            dump_directory: format!("/var/tmp/x/upgrade-{id}").into(),
            ..entry()
        };
        let mut journal = Journal::begin(state.path(), next.clone()).unwrap();
        let ids: Vec<_> = Journal::all(state.path()).unwrap().into_iter().map(|entry| entry.id).collect();
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
        let forged = serde_json::to_string(&Entry { beside: "/srv/precious".into(), ..entry() }).unwrap();
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
        assert!(parse(&text).unwrap_err().contains("form 2"));
    }

    #[test]
    fn nobody_else_starts_the_server_while_there_may_be_none() {
        for step in [
            Step::StoppingServer,
            Step::Promoting,
            Step::Upgrading,
            Step::Transferring,
            Step::Exchanging,
            Step::Returning,
        ] {
            assert!(step.needs_the_server_down(), "{step}");
        }
        for step in
            [Step::Following, Step::StoppingClients, Step::StartingServer, Step::Tending, Step::Keeping]
        {
            assert!(!step.needs_the_server_down(), "{step}");
        }
    }

    #[test]
    fn the_downtime_is_that_of_the_clients() {
        let durations = vec![(Step::Preparing, 5.0), (Step::Transferring, 2.0), (Step::StartingClients, 1.0)];
        assert!((Entry { durations, ..entry() }.downtime() - 3.0).abs() < 1e-9);
    }
}
