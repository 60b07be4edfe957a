//! Back to the old data directory that an upgrade has kept. Whatever can be looked at is looked at before anything stops, and
//! until the old cluster is in place, the present one is started again when something fails.

use std::path::{Path, PathBuf};

use super::revert;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{directories, exists};
use crate::postgres::DataDirectory;
use crate::postgres::pg_controldata::{self, Control};
use crate::report::Progress;
use crate::runtime::{AsUser, Runtime, interrupt};
use crate::systemd::Manager;
use crate::upgrade::facts::kept;
use crate::upgrade::facts::kept::require_old;
use crate::upgrade::records::{Ended, Entry, Journal, Outcome, Registered, Step, Upgrade, Which};
use crate::upgrade::revert::again;
use crate::upgrade::steps::cut::{end_server, note_clients};
use crate::upgrade::steps::exchange::move_to;
use crate::upgrade::steps::work::{Pause, Work, owner};
use crate::upgrade::steps::{drop_in, hold, keep, registration, stand_in};

/// Makes sure that [`roll_back`] can be gone through with, as far as that can be seen while everything runs.
///
/// # Errors
/// What stands in the way.
pub fn check(settings: &Settings, runtime: &dyn Runtime, entry: &Entry) -> Result<()> {
    hold::require(settings, &entry.upgrade, &Manager::connect()?)?;
    look(runtime, entry).map(drop)
}

/// Whether the cluster in place is that of the upgrade, as far as its version tells, and the old one is kept. One that is unfinished
/// comes first.
pub fn is_latest(entry: &Entry) -> bool {
    let home = DataDirectory::read(entry.upgrade.home(Which::New), Path::new("/proc"));
    let is_in_place = home.is_ok_and(|home| home.contents.major() == Some(entry.upgrade.to));
    entry.is_open() || is_in_place && cannot_roll_back(entry).is_none()
}

fn look(runtime: &dyn Runtime, entry: &Entry) -> Result<Control> {
    if let Some(error) = cannot_roll_back(entry) {
        return Err(error);
    }
    let account = owner(&DataDirectory::read(&entry.upgrade.data_directory, Path::new("/proc"))?)?;
    kept::require_whole(runtime, &account, entry, &where_kept(entry)?)
}

fn where_kept(entry: &Entry) -> Result<PathBuf> {
    entry
        .kept
        .clone()
        .ok_or_else(|| Error::new(Kind::Bug, "the location of the old data directory is unknown"))
}

/// Exchanges back after an upgrade that has ended well. The caller holds the lock, and has asked whether what would be
/// lost may be.
///
/// # Errors
/// As [`check`]; what failed, after which the present cluster and its clients run again; others as [`revert::revert`].
pub fn roll_back(
    settings: &Settings,
    runtime: &dyn Runtime,
    manager: &Manager,
    mut journal: Journal,
    progress: &mut dyn Progress,
    pause: Pause,
) -> Result<String> {
    let control = look(runtime, &journal.entry)?;
    let entry = &journal.entry;
    let account = owner(&DataDirectory::read(&entry.upgrade.data_directory, Path::new("/proc"))?)?;
    let kept = where_kept(entry)?;
    let is_far = kept::is_far(entry, &kept)?;
    let ended = journal.entry.ended.take();
    let mut work = Work::new(settings, runtime, manager, account, journal, progress, pause);
    if is_far {
        // Cut off here, what is copied is removed again, and nobody has noticed anything.
        work.step(Step::Keeping)?;
        let Upgrade { beside, id, .. } = &work.entry().upgrade;
        if let Err(error) = keep::bring(&kept, beside, id) {
            return Err(stay(&mut work, ended, &kept, error)
                .state("nothing was stopped, and the old data directory was not moved"));
        }
    }
    if let Err(error) = put_in_place(&mut work, &kept) {
        return Err(stay(&mut work, ended, &kept, error));
    }
    match revert::revert(&mut work, "rolled back") {
        Ok(aside) => {
            let aside = aside.map_or_else(String::new, |path| {
                format!("; that of PostgreSQL {} is in {}", work.entry().upgrade.to, path.display())
            });
            Ok(format!("the homeserver runs on PostgreSQL {} again{aside}", work.entry().upgrade.from))
        }
        Err(error) if has_never_run(&work, &control) => {
            interrupt::leave_undisturbed();
            match work.step(Step::StartingClients).and_then(|()| take_out(&work)) {
                Ok(()) => Err(stay(&mut work, ended, &kept, error)),
                Err(then) => {
                    log::error!("{}", error.report());
                    Err(again(then, Which::Old))
                }
            }
        }
        Err(error) => Err(again(error, Which::Old)),
    }
}

fn put_in_place(work: &mut Work<'_>, kept: &Path) -> Result<()> {
    note_clients(work, Which::New, &[])?;
    // Cut off from here on, the clients are started again on the new cluster.
    work.step(Step::StartingClients)?;
    let entry = work.entry();
    work.manager.stop_all(&entry.clients, work.settings.clients.timeout)?;
    end_server(work, Which::New)?;
    let aside = entry.upgrade.old_aside();
    if !exists(aside) && !move_to(kept, aside)? {
        return Err(Error::new(Kind::File, format!("{} is on another file system now", kept.display())));
    }
    require_old(entry, aside)?;
    interrupt::check()?;
    registration::put(&entry.upgrade, Which::Old, &work.account)
}

/// Whether the old cluster is in place, and no server has come up on it: then nothing was written to it, either.
fn has_never_run(work: &Work<'_>, before: &Control) -> bool {
    let Upgrade { from, data_directory, .. } = &work.entry().upgrade;
    let runtime = AsUser { runtime: work.runtime, account: &work.account };
    let in_place = matches!(revert::in_place(work.entry()), Ok(Which::Old));
    in_place && pg_controldata::read(&runtime, *from, data_directory).is_ok_and(|now| now == *before)
}

fn take_out(work: &Work<'_>) -> Result<()> {
    end_server(work, Which::Old)?;
    registration::put(&work.entry().upgrade, Which::New, &work.account)
}

/// The present cluster is in place, and stays there; the old one goes back to where it was kept.
fn stay(work: &mut Work<'_>, ended: Option<Ended>, kept: &Path, reason: Error) -> Error {
    interrupt::leave_undisturbed();
    let to = work.entry().upgrade.to;
    let put_back = put_back(work, kept);
    let server = work.start_server(Which::New);
    let clients = work.start_clients(Which::New);
    let failed = [put_back, server, clients].into_iter().filter_map(Result::err);
    let failed: Vec<_> = failed.map(|error| error.to_string()).collect();
    if !failed.is_empty() {
        let failed = failed.join("; ");
        return reason
            .state(format!("the server runs on PostgreSQL {to}, but the state before the rollback is not fully restored: {failed}"))
            .hint("matrix-postgres-upgrade recover");
    }
    work.journal.entry.ended = ended;
    match work.journal.write() {
        Ok(()) => {
            reason.state(format!("the homeserver runs on PostgreSQL {to}, as before; nothing was lost"))
        }
        Err(error) => error.hint("matrix-postgres-upgrade recover"),
    }
}

fn put_back(work: &Work<'_>, kept: &Path) -> Result<()> {
    let Upgrade { beside, id, .. } = &work.entry().upgrade;
    keep::remove_partial(beside, id)?;
    if work.entry().upgrade.registered.is_some() {
        registration::put(&work.entry().upgrade, Which::New, &work.account)?;
        return stand_in::settle(&work.entry().upgrade, Which::New, work.manager);
    }
    if revert::in_place(work.entry())? != Which::New {
        return Ok(());
    }
    drop_in::settle(&work.entry().upgrade, Which::New, work.manager)?;
    if !exists(beside) {
        return Ok(());
    }
    require_old(work.entry(), beside)?;
    match exists(kept) {
        // It was copied from there.
        true => directories::remove(beside).at("remove the copied", beside),
        false => move_to(beside, kept).map(drop),
    }
}

/// What [`roll_back`] does.
pub fn describe(entry: &Entry) -> String {
    let kept = entry.kept.as_ref().map_or_else(String::new, |kept| kept.display().to_string());
    let Upgrade { from, to, beside, .. } = &entry.upgrade;
    let (unit, home) = (entry.upgrade.unit(Which::New), entry.upgrade.home(Which::New).display());
    let (beside, again) = (beside.display(), entry.upgrade.unit(Which::Old));
    match &entry.upgrade.registered {
        Some(Registered { name, port, .. }) => format!(
            "revert to PostgreSQL {from}: stop the services and {unit}, give port {port} back to cluster {from}/{name}, and \
             start them again, with {again}; the cluster of PostgreSQL {to} is moved from {home} to {beside}"
        ),
        None => format!(
            "revert to PostgreSQL {from}: stop the services and {unit}, replace {home} by {kept}, and start them again; the \
             cluster of PostgreSQL {to} stays in {beside}"
        ),
    }
}

/// Why an upgrade that has ended cannot be rolled back, if so.
fn cannot_roll_back(entry: &Entry) -> Option<Error> {
    let refuse =
        |message: String| Some(Error::new(Kind::DataDirectory, message).state("nothing was changed"));
    match (&entry.ended, &entry.kept) {
        (None, _) => refuse("an upgrade is unfinished".into())
            .map(|error| error.hint("matrix-postgres-upgrade recover")),
        (Some(ended), _) if ended.outcome == Outcome::Returned => {
            refuse(format!("the latest upgrade failed and was reverted: {}", ended.message))
        }
        (Some(_), Some(kept)) if exists(kept) => None,
        (Some(_), kept) => {
            let place = kept.as_ref().map_or_else(|| "nowhere".to_owned(), |kept| kept.display().to_string());
            refuse(format!("the old data directory does not exist any more: it was in {place}"))
        }
    }
}
