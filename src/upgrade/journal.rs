//! What an upgrade is about to do, on disk before it does it: after any death, whoever reads this knows how to go on.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::written::Counters;
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
    /// None if they could not be closed.
    #[serde(default)]
    pub login_files: Vec<PathBuf>,
    /// The next transaction of the new cluster as it was written to the disk, before anybody but us could reach it.
    #[serde(default)]
    pub next_xid: Option<String>,
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

/// The journal of the latest upgrade.
#[derive(Debug)]
pub struct Journal {
    file: PathBuf,
    /// What it says.
    pub entry: Entry,
}

/// The directory of the journals.
fn directory(state_directory: &Path) -> PathBuf {
    state_directory.join("upgrade")
}

impl Journal {
    /// Begins a new one. That of an earlier upgrade stays, under its own name.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`].
    pub fn begin(state_directory: &Path, entry: Entry) -> Result<Self> {
        let directory = directory(state_directory);
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory).at("create", &directory)?;
        let file = directory.join("journal.json");
        if let Some(before) = Self::read(state_directory)? {
            let kept = directory.join(format!("{}.json", before.entry.id));
            std::fs::rename(&file, &kept).at("rename", &file)?;
        }
        let journal = Self { file, entry };
        journal.write()?;
        Ok(journal)
    }

    /// The journal of the latest upgrade, open or not.
    ///
    /// # Errors
    /// [`Kind::File`] if it cannot be read or was not written by us, [`Kind::Damaged`] if it makes no sense.
    pub fn read(state_directory: &Path) -> Result<Option<Self>> {
        let file = directory(state_directory).join("journal.json");
        read(&file).map(|entry| entry.map(|entry| Self { file, entry }))
    }

    /// All upgrades that there were, the latest first.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub fn all(state_directory: &Path) -> Result<Vec<Entry>> {
        let directory = directory(state_directory);
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("read", &directory)?,
        };
        let files = entries.flatten().map(|entry| entry.path());
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
        let mut all = files.filter_map(|file| read(&file).transpose()).collect::<Result<Vec<_>>>()?;
        all.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(all)
    }

    /// Writes down what is about to be done.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`]: it must not be done then.
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
        self.write()
    }

    /// Writes it as it is; it lasts when this returns.
    ///
    /// # Errors
    /// As [`Journal::step`].
    pub fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.entry)
            .map_err(std::io::Error::from)
            .at("write", &self.file)?;
        files::replace(&self.file, &(text + "\n"))
    }
}

fn read(file: &Path) -> Result<Option<Entry>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.at("read", file)?,
    };
    // It says what root is to move and remove, and the directory above belongs to another user.
    let meta = file.symlink_metadata().at("read", file)?;
    if !meta.is_file() || meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        let message = format!("{} was not written by us, and is not trusted", file.display());
        return Err(Error::new(Kind::File, message).state("nothing was changed"));
    }
    parse(&text).map(Some).map_err(|reason| {
        Error::new(Kind::Damaged, format!("{}: {reason}", file.display()))
            .state("nothing was changed")
            .hint(format!("matrix-postgres-upgrade of the version that wrote it: less {}", file.display()))
    })
}

fn parse(text: &str) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let form: Form = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match form.format {
        FORMAT => serde_json::from_str(text).map_err(|error| error.to_string()),
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
            keep_path: "/m/kept".into(),
            dump_directory: "/var/tmp/x".into(),
            old_identifier: "18446744073709551615".into(),
            server_unit: "matrix-postgres.service".into(),
            clients: vec!["matrix-synapse.service".into()],
            step: Step::Preparing,
            since: Timestamp::UNIX_EPOCH,
            login_files: vec![],
            next_xid: None,
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
        let next = Entry { id: "20261125T030000Z".into(), ..entry() };
        Journal::begin(state.path(), next).unwrap();
        let ids: Vec<_> = Journal::all(state.path()).unwrap().into_iter().map(|entry| entry.id).collect();
        assert_eq!(ids, ["20261125T030000Z", "20261124T030000Z"]);
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let state = tempfile::tempdir().unwrap();
        Journal::begin(state.path(), entry()).unwrap();
        let file = state.path().join("upgrade/journal.json");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(Journal::read(state.path()).unwrap_err().kind(), Kind::File);
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
