//! After a death of the process or of the machine: the upgrade that was cut off is undone, or, once the new cluster is
//! in place, finished.

use std::path::Path;

use jiff::Timestamp;

use super::back::{self, Place};
use super::journal::{Entry, Journal, Opened, Outcome, Step};
use super::work::{Pause, Work, owner};
use super::written;
use super::{exchange, finish, rehearsal};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::DataDirectory;
use crate::report::Progress;
use crate::runtime::Runtime;
use crate::systemd::Manager;

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
            Self::Nothing => "no upgrade was cut off: there is nothing to recover",
            Self::UnderWay(message) | Self::Finished(message) | Self::Undone(message) => message,
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
    let open = |journal: Option<Journal>| journal.filter(|journal| journal.entry.is_open());
    let nothing = open(Journal::read(&settings.state_directory)?).is_none();
    if nothing && !rehearsal::has_left(&settings.data_directory)? {
        return Ok(Recovered::Nothing);
    }
    let _lock = match Lock::take(&settings.state_directory, "upgrade", Timestamp::now()) {
        Ok(lock) => lock,
        Err(error) if error.kind() == Kind::Locked => return Ok(Recovered::UnderWay(error.to_string())),
        Err(error) => return Err(error),
    };
    rehearsal::clear_abandoned(&settings.data_directory, &settings.socket_directory)?;
    // Who held the lock may have ended it.
    let Some(journal) = open(Journal::read(&settings.state_directory)?) else {
        return Ok(Recovered::Nothing);
    };
    let manager = Manager::connect()?;
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
    log::warn!("the upgrade {} was cut off: {}", entry.id, entry.step);
    let in_place = back::in_place(entry)?;
    let account = owner(&DataDirectory::read(&entry.data_directory, Path::new("/proc"))?)?;
    let mut work = Work::new(settings, runtime, manager, account, journal, progress, pause);
    let returning = matches!(work.entry().step, Step::Returning | Step::Restarting);
    if in_place == Place::Old || returning {
        let cut_off = format!("it was cut off: {}", work.entry().step);
        let aside = back::back(&mut work, &cut_off).map_err(|error| again(error, Place::Old))?;
        let aside =
            aside.map_or_else(String::new, |path| format!("; the new cluster is in {}", path.display()));
        let from = work.entry().from;
        return Ok(Recovered::Undone(format!(
            "the upgrade was undone: the homeserver runs on PostgreSQL {from}{aside}"
        )));
    }
    if at_boot {
        // Clients come up by themselves as soon as the server does: they must be let in.
        work.journal.entry.opened.get_or_insert(Opened { at: Timestamp::now(), position: None });
        work.journal.entry.clients_started.get_or_insert_with(Timestamp::now);
    }
    finish::finish(&mut work).map_err(|error| again(error, Place::New))?;
    let to = work.entry().to;
    Ok(Recovered::Finished(format!("the upgrade was finished: the homeserver runs on PostgreSQL {to}")))
}

fn again(error: Error, place: Place) -> Error {
    let error = match place {
        Place::Old => error.context("an upgrade that was cut off could not be undone yet"),
        Place::New => error.context("an upgrade that was cut off could not be finished yet"),
    };
    error.hint("matrix-postgres-upgrade recover tries it again")
}

/// Exchanges back after an upgrade that has ended well. The caller holds the lock, and has asked whether what would be
/// lost may be: `agreed`.
///
/// # Errors
/// [`Kind::Interrupted`] if something would be lost and nobody has agreed; others as [`back::back`].
pub fn roll_back(
    settings: &Settings,
    runtime: &dyn Runtime,
    manager: &Manager,
    mut journal: Journal,
    progress: &mut dyn Progress,
    agreed: bool,
    pause: Pause,
) -> Result<String> {
    let ended = journal.entry.ended.take();
    let entry = &mut journal.entry;
    entry.clients = manager
        .running(&settings.clients.units)?
        .into_iter()
        .filter(|unit| !unit.starts_with("matrix-postgres"))
        .collect();
    entry.clients_started.get_or_insert_with(Timestamp::now);
    let account = owner(&DataDirectory::read(&settings.data_directory, Path::new("/proc"))?)?;
    let mut work = Work::new(settings, runtime, manager, account, journal, progress, pause);
    // Cut off from here on, the clients are started again on the new cluster.
    work.step(Step::StartingClients)?;
    manager.stop_all(&work.entry().clients.clone(), settings.clients.timeout)?;
    // The server has counted everything only when the clients have gone.
    let loss = written::loss(settings, runtime, work.entry());
    if !agreed {
        let again = work.start_clients();
        work.journal.entry.ended = ended;
        work.journal.write()?;
        again?;
        return Err(Error::new(Kind::Interrupted, loss.to_string())
            .state("nothing was changed")
            .hint("matrix-postgres-upgrade rollback --yes goes back nevertheless"));
    }
    let aside = back::back(&mut work, "rolled back").map_err(|error| again(error, Place::Old))?;
    let aside = aside.map_or_else(String::new, |path| {
        format!("; that of PostgreSQL {} is in {}", work.entry().to, path.display())
    });
    Ok(format!("the homeserver runs on PostgreSQL {} again{aside}", work.entry().from))
}

/// What [`roll_back`] does.
pub fn describe_roll_back(entry: &Entry) -> String {
    let kept = entry.kept.as_ref().map_or_else(String::new, |kept| kept.display().to_string());
    format!(
        "go back to PostgreSQL {}: stop the clients and {}, exchange {} for {kept}, and start them again; the cluster \
         of PostgreSQL {} stays in {}",
        entry.from,
        entry.server_unit,
        entry.data_directory.display(),
        entry.to,
        entry.beside.display()
    )
}

/// Why an upgrade that has ended cannot be rolled back, if so.
pub fn cannot_roll_back(journal: &Journal) -> Option<Error> {
    let entry = &journal.entry;
    let refuse =
        |message: String| Some(Error::new(Kind::DataDirectory, message).state("nothing was changed"));
    match (&entry.ended, &entry.kept) {
        (None, _) => refuse("an upgrade is not finished".into())
            .map(|error| error.hint("matrix-postgres-upgrade recover")),
        (Some(ended), _) if ended.outcome == Outcome::Returned => {
            refuse(format!("the latest upgrade has not changed anything: {}", ended.message))
        }
        (Some(_), Some(kept)) if exchange::exists(kept) => None,
        (Some(_), kept) => {
            let place = kept.as_ref().map_or_else(|| "nowhere".to_owned(), |kept| kept.display().to_string());
            refuse(format!("the old data directory is not there any more: it was kept in {place}"))
        }
    }
}
