//! Back to the old cluster: before the exchange nothing has to be moved for it, after the exchange the data directories
//! change places once more.

use jiff::Timestamp;

use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{directories, exists};
use crate::postgres;
use crate::runtime::interrupt;
use crate::upgrade::facts::kept::require_old;
use crate::upgrade::records::{Entry, Opened, Outcome, Step, Upgrade, Which};
use crate::upgrade::steps::cut::end_server;
use crate::upgrade::steps::exchange::mend;
use crate::upgrade::steps::servers::{Sockets, stop_abandoned, take_down};
use crate::upgrade::steps::work::Work;
use crate::upgrade::steps::{drop_in, dump_directory, keep, login, registration, stand_in, stanza};

/// Looks which cluster is in place, after an exchange that was cut off has been mended.
///
/// # Errors
/// [`Kind::File`] if there is none.
pub fn in_place(entry: &Entry) -> Result<Which> {
    let Upgrade { data_directory, beside, registered, .. } = &entry.upgrade;
    if let Some(registered) = registered {
        // The old one is where it always was.
        require_old(entry, data_directory)?;
        let home = &registered.data_directory;
        let is_new = exists(home) && entry.new_identifier == Some(postgres::system_identifier(home)?);
        return Ok(if is_new { Which::New } else { Which::Old });
    }
    mend(data_directory, beside)?;
    let found = postgres::system_identifier(data_directory)?;
    Ok(if found == entry.old_identifier { Which::Old } else { Which::New })
}

/// Goes back because of `reason`, and says so in the error that is returned.
pub fn after(work: &mut Work<'_>, reason: Error) -> Error {
    // Whoever is told to stop goes back first.
    interrupt::leave_undisturbed();
    let from = work.entry().upgrade.from;
    let unnoticed = work.entry().step.is_before_the_cut();
    work.note_duration();
    match revert(work, &reason.one_line()) {
        Ok(None) if unnoticed => reason.state("nothing was stopped, and nothing was changed"),
        Ok(None) => reason
            .state(format!("the homeserver runs on PostgreSQL {from} again, as before; nothing was lost")),
        Ok(Some(aside)) => reason.state(format!(
            "the homeserver runs on PostgreSQL {from} again, as before; the new cluster is in {}",
            aside.display()
        )),
        Err(error) => {
            log::error!("{}", reason.report());
            error
                .context(format!(
                    "the upgrade failed, and could not be reverted to PostgreSQL {from} completely"
                ))
                .state(format!("the data directory of PostgreSQL {from} is intact"))
                .hint("matrix-postgres-upgrade recover")
        }
    }
}

/// Puts the old cluster into its place, starts the server and the clients that were running, and removes the new
/// cluster, unless others may have written to it: then it returns where that is. Can be repeated after any death.
///
/// # Errors
/// What could not be done. The journal stays open then.
pub fn revert(work: &mut Work<'_>, reason: &str) -> Result<Option<std::path::PathBuf>> {
    let running = work.entry().step.is_before_the_cut();
    if !running {
        work.step(Step::Returning)?;
    }
    let entry = work.entry().clone();
    if in_place(&entry)? == Which::New {
        let clients = work.manager.running(&entry.clients)?;
        work.manager.stop_all(&clients, work.settings.clients.timeout)?;
        end_server(work, Which::New)?;
        if !entry.was_open() && !work.is_untouched() {
            // As superuser somebody may have come in nevertheless.
            log::warn!("the new cluster may have been written to and is not removed");
            work.journal.entry.opened = Some(Opened { at: Timestamp::now(), position: None });
            work.journal.write()?;
        }
        login::open(entry.upgrade.home(Which::New), &entry.login_files)?;
        bring_beside(&entry)?;
        registration::put(&entry.upgrade, Which::Old, &work.account)?;
    }
    if !running {
        registration::settle(&entry.upgrade, Which::Old, &work.account)?;
        stand_in::settle(&entry.upgrade, Which::Old, work.manager)?;
        if !work.manager.unit(&entry.upgrade.server_unit)?.is_wanted() {
            stop_abandoned(&entry.upgrade.data_directory)?;
        }
        drop_in::settle(&entry.upgrade, Which::Old, work.manager)?;
        work.step(Step::Restarting)?;
        work.start_server(Which::Old)?;
        if let Err(error) = work.start_clients(Which::Old) {
            // It is known by its name, and everything else is in order.
            log::error!("{}", error.report());
        }
        if let Err(error) = stanza::follow(work, Which::Old) {
            log::warn!("{}", error.report());
        }
        work.note_duration();
    }
    let aside = dispose(work)?;
    if entry
        .upgrade
        .dump_directory
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains(&entry.upgrade.id))
    {
        dump_directory::remove(&entry.upgrade.dump_directory)?;
    }
    Sockets::remove_abandoned(&work.settings.socket_directory)?;
    if !running {
        stanza::back_up(work, Which::Old);
    }
    work.journal.end(Outcome::Returned, reason, Timestamp::now())?;
    Ok(aside)
}

/// The old data directory may be kept already, even on another file system.
fn bring_beside(entry: &Entry) -> Result<()> {
    let aside = entry.upgrade.old_aside();
    let Some(kept) = entry.kept.as_deref().filter(|kept| !exists(aside) && exists(kept)) else {
        return Ok(());
    };
    require_old(entry, kept)?;
    keep::bring(kept, aside, &entry.upgrade.id).map(drop)
}

/// The copy of method `online`, which was never in place, and nobody's only one.
///
/// # Errors
/// [`Kind::File`], [`Kind::Server`] if a server that was left on it does not end.
pub fn remove_copy(entry: &Entry) -> Result<()> {
    entry.upgrade.copy.as_deref().map_or(Ok(()), take_down)
}

/// What is beside the old cluster, now that this is in place, is the new one.
fn dispose(work: &Work<'_>) -> Result<Option<std::path::PathBuf>> {
    let entry = work.entry();
    remove_copy(entry)?;
    if !exists(&entry.upgrade.beside) {
        return registration::forget(&entry.upgrade).map(|()| None);
    }
    if entry.was_open() {
        login::open(&entry.upgrade.beside, &entry.login_files)?;
        registration::take_along(&entry.upgrade, &work.account)?;
        registration::forget(&entry.upgrade)?;
        return Ok(Some(entry.upgrade.beside.clone()));
    }
    if require_old(entry, &entry.upgrade.beside).is_ok() {
        return Err(Error::new(
            Kind::Bug,
            format!("{} is the old cluster as well", entry.upgrade.beside.display()),
        ));
    }
    stop_abandoned(&entry.upgrade.beside)?;
    // Named by us, and never in place, or only while nobody else came in and nothing was written.
    directories::remove(&entry.upgrade.beside).at("remove the unfinished", &entry.upgrade.beside)?;
    registration::forget(&entry.upgrade).map(|()| None)
}

/// Of what is left open.
pub(super) fn again(error: Error, place: Which) -> Error {
    let error = match place {
        Which::Old => error.context("could not revert the interrupted upgrade yet"),
        Which::New => error.context("could not finish the interrupted upgrade yet"),
    };
    error.hint("matrix-postgres-upgrade recover tries it again")
}
