//! After a death of the process or of the machine: the upgrade that was cut off is undone, or, once the new cluster is
//! in place, finished.

use std::path::Path;

use jiff::Timestamp;

use super::revert;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::DataDirectory;
use crate::report::Progress;
use crate::runtime::Runtime;
use crate::systemd::Manager;
use crate::upgrade::finish;
use crate::upgrade::records::journal::legacy;
use crate::upgrade::records::{Entry, Journal, Opened, Step, Which};
use crate::upgrade::revert::again;
use crate::upgrade::steps::work::{Pause, Work, owner};
use crate::upgrade::steps::{hold, temporary};

/// What there was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing: no upgrade was cut off.
    Nothing,
    /// One is under way.
    UnderWay(String),
    /// It was finished.
    Finished(String),
    /// It was undone.
    Undone(String),
}

impl Recovered {
    /// In a sentence.
    pub fn message(&self) -> &str {
        match self {
            Self::Nothing => "no upgrade was interrupted: there is nothing to recover",
            Self::UnderWay(message) | Self::Finished(message) | Self::Undone(message) => message,
        }
    }
}

/// What an earlier upgrade has left open is put in order first.
///
/// # Errors
/// As [`recover`].
pub fn settle_earlier(settings: &Settings, runtime: &dyn Runtime, progress: &mut dyn Progress) -> Result<()> {
    match recover(settings, runtime, progress, false, None)? {
        Recovered::Nothing => Ok(()),
        Recovered::UnderWay(message) => Err(Error::new(Kind::Locked, message)
            .state("nothing was changed; the running operation continues")
            .hint("matrix-postgres-upgrade status")),
        done => {
            log::warn!("{}", done.message());
            Ok(())
        }
    }
}

/// Goes on with an upgrade that was cut off. `at_boot`, other units are started by systemd itself, as soon as the data
/// directory is in order, which the service manager is told.
///
/// # Errors
/// What could not be done; it can be repeated.
pub fn recover(
    settings: &Settings,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
    at_boot: bool,
    pause: Pause,
) -> Result<Recovered> {
    match legacy::take_over(settings) {
        Err(error) if error.kind() == Kind::Locked => return Ok(Recovered::UnderWay(error.to_string())),
        taken => taken?,
    }
    let open = |journal: Option<Journal>| journal.filter(|journal| journal.entry.is_open());
    let nothing = Journal::read(&settings.state_directory).is_ok_and(|journal| open(journal).is_none());
    if nothing && !temporary::has_left(settings) {
        return Ok(Recovered::Nothing);
    }
    let _lock = match Lock::take_to_recover(settings) {
        Ok(lock) => lock,
        Err(error) if error.kind() == Kind::Locked => return Ok(Recovered::UnderWay(error.to_string())),
        Err(error) => return Err(error),
    };
    let cleared = temporary::clear_abandoned(settings);
    // Who held the lock may have ended it.
    let Some(journal) = open(Journal::usable(&settings.state_directory)?) else {
        return cleared.map(|()| Recovered::Nothing);
    };
    // It is no reason to keep a homeserver down.
    if let Err(error) = cleared {
        log::error!("{}", error.report());
    }
    let manager = Manager::connect()?;
    let settings = &journal.entry.upgrade.settle(settings.clone(), journal.entry.is_in_place());
    go_on(settings, runtime, &manager, journal, progress, at_boot, pause)
}

/// The same, for whoever holds the lock.
pub(super) fn go_on(
    settings: &Settings,
    runtime: &dyn Runtime,
    manager: &Manager,
    journal: Journal,
    progress: &mut dyn Progress,
    at_boot: bool,
    pause: Pause,
) -> Result<Recovered> {
    let entry = &journal.entry;
    require_same(entry, settings)?;
    hold::require(settings, &entry.upgrade, manager)?;
    log::warn!("the upgrade {} was interrupted: {}", entry.upgrade.id, entry.step);
    let in_place = revert::in_place(entry)?;
    let account = owner(&DataDirectory::read(&entry.upgrade.data_directory, Path::new("/proc"))?)?;
    let mut work = Work::new(settings, runtime, manager, account, journal, progress, pause);
    let returning = matches!(work.entry().step, Step::Returning | Step::Restarting);
    if in_place == Which::Old || returning {
        let cut_off = format!("interrupted while {}", work.entry().step);
        let aside = revert::revert(&mut work, &cut_off).map_err(|error| again(error, Which::Old))?;
        let aside =
            aside.map_or_else(String::new, |path| format!("; the new cluster is in {}", path.display()));
        let from = work.entry().upgrade.from;
        return Ok(Recovered::Undone(format!(
            "the upgrade was reverted: the homeserver runs on PostgreSQL {from}{aside}"
        )));
    }
    if at_boot {
        // Clients come up by themselves as soon as the server does: they must be let in.
        work.journal.entry.opened.get_or_insert(Opened { at: Timestamp::now(), position: None });
        work.journal.entry.clients_started.get_or_insert_with(Timestamp::now);
    }
    finish::finish(&mut work).map_err(|error| again(error, Which::New))?;
    let to = work.entry().upgrade.to;
    Ok(Recovered::Finished(format!("the upgrade was finished: the homeserver runs on PostgreSQL {to}")))
}

/// What is moved and removed is that of these settings.
///
/// # Errors
/// [`Kind::Config`].
pub fn require_same(entry: &Entry, settings: &Settings) -> Result<()> {
    let is_of_them = entry.upgrade.data_directory == settings.data_directory
        && entry.upgrade.server_unit == settings.server.unit;
    // A registered cluster is found by the journal alone.
    match is_of_them || entry.upgrade.names_its_server() {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Config,
            format!(
                "the upgrade {} is of {} and {}, but the configuration has {} and {}",
                entry.upgrade.id,
                entry.upgrade.data_directory.display(),
                entry.upgrade.server_unit,
                settings.data_directory.display(),
                settings.server.unit
            ),
        )
        .state("nothing was changed")
        .hint(
            "matrix-postgres-upgrade recover --config FILE, with the configuration that it was started with",
        )),
    }
}
