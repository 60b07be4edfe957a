//! After the exchange: the new server and its clients are started, and the old data directory is kept.

use jiff::Timestamp;

use crate::config::Method;
use crate::error::{Error, Result};
use crate::files;
use crate::upgrade::facts::written;
use crate::upgrade::methods::online;
use crate::upgrade::records::{Entry, Opened, Outcome, Position, Step, Which};
use crate::upgrade::revert;
use crate::upgrade::steps::servers::Sockets;
use crate::upgrade::steps::work::Work;
use crate::upgrade::steps::{drop_in, dump_directory, keep, registration, stand_in, stanza};

/// Takes the steps that are left of an upgrade whose new cluster is in place.
///
/// # Errors
/// The reason, and what state things are in. A server that does not start leads back to the old cluster, as does a client
/// where the settings ask for it; so do not later failures.
pub fn finish(work: &mut Work<'_>) -> Result<()> {
    if let Err(error) = register(work) {
        return Err(if work.entry().was_open() { stay(work, error) } else { revert::after(work, error) });
    }
    if work.entry().login_files.is_empty() {
        // Nobody can be kept out: with its start it is open.
        opened(work, None);
    }
    let mut looked = None;
    if !work.entry().was_open() {
        work.step(Step::StartingServer)?;
        match work.start_server(Which::New).and_then(|()| work.position()) {
            Ok(found) => looked = Some(found),
            Err(error) => return Err(revert::after(work, error)),
        }
    } else if work.entry().step < Step::StartingClients {
        work.step(Step::StartingServer)?;
        work.open_login(None)?;
        if let Err(error) = work.start_server(Which::New) {
            return Err(revert::after(work, error));
        }
    } else {
        work.open_login(None)?;
        work.start_server(Which::New).map_err(|error| stay(work, error))?;
    }
    let mut incomplete = None;
    if work.entry().step <= Step::StartingClients {
        let (position, read) = looked.unzip();
        opened(work, position);
        work.journal.entry.clients_started.get_or_insert_with(Timestamp::now);
        work.step(Step::StartingClients)?;
        work.open_login(read.as_deref()).map_err(|error| stay(work, error))?;
        if let Err(error) = work.start_clients(Which::New) {
            if reverts(work) {
                return Err(revert::after(work, error));
            }
            incomplete = Some(stay(work, error));
        }
    }
    if work.entry().upgrade.method == Method::Online && work.entry().step <= Step::Tending {
        work.step(Step::Tending)?;
        if let Err(error) = online::post_upgrade(work) {
            log::warn!("{}", error.report());
            incomplete.get_or_insert_with(|| stay(work, error));
        }
    }
    if stanza::is_used(work) && work.entry().step <= Step::Archiving {
        work.step(Step::Archiving)?;
        if let Err(error) = stanza::follow(work, Which::New) {
            log::warn!("{}", error.report());
            incomplete.get_or_insert_with(|| stay(work, error));
        }
    }
    work.step(Step::Keeping)?;
    revert::remove_copy(work.entry())?;
    Sockets::remove_abandoned(&work.settings.socket_directory)?;
    dump_directory::remove(&work.entry().upgrade.dump_directory)?;
    let kept = keep_old(work);
    work.note_duration();
    stanza::back_up(work, Which::New);
    let entry = work.entry();
    let message = format!("upgraded from PostgreSQL {} to {}", entry.upgrade.from, entry.upgrade.to);
    match kept {
        Ok(()) => work.journal.end(Outcome::Upgraded, message, Timestamp::now())?,
        // It stays where it is, whole; the journal stays open, so that it is tried again.
        Err(error) => {
            let beside = entry.upgrade.old_aside().display();
            let state = format!(
                "the homeserver runs on PostgreSQL {}; the old data directory is still in {beside}",
                entry.upgrade.to
            );
            return Err(error.state(state).hint("matrix-postgres-upgrade recover tries it again"));
        }
    }
    incomplete.map_or(Ok(()), Err)
}

/// The new cluster is the one whose server systemd starts, and that of units which name the old one's.
fn register(work: &Work<'_>) -> Result<()> {
    let upgrade = &work.entry().upgrade;
    registration::settle(upgrade, Which::New, &work.account)?;
    drop_in::settle(upgrade, Which::New, work.manager)?;
    match stand_in::file(upgrade) {
        Some(_) => stand_in::settle(upgrade, Which::New, work.manager),
        // For the next boot systemd reads it in time.
        None => Ok(()),
    }
}

/// From now on it may hold what nothing else holds.
fn opened(work: &mut Work<'_>, position: Option<Position>) {
    work.journal.entry.opened.get_or_insert_with(|| Opened { at: Timestamp::now(), position });
}

/// Whether the settings ask for a return because a client did not start that ran before, and what was written since can be
/// missed. The others are stopped before that is looked at.
fn reverts(work: &Work<'_>) -> bool {
    let Entry { not_started, unsteady, .. } = work.entry();
    if !work.settings.upgrade.revert_on_client_failure
        || not_started.iter().all(|unit| unsteady.contains(unit))
    {
        return false;
    }
    let running = work.manager.running(&work.entry().clients);
    let stopped = running.and_then(|running| work.manager.stop_all(&running, work.settings.clients.timeout));
    let loss = written::loss(work.settings, work.runtime, work.entry());
    match (stopped, loss.is_only_bookkeeping()) {
        (Ok(()), true) => true,
        (stopped, _) => {
            log::warn!("not reverting: {loss}");
            if let Err(error) = stopped {
                log::warn!("{}", error.report());
            }
            // What does start, serves.
            let started = work.manager.start_all(&work.entry().clients, work.settings.clients.timeout);
            started.into_iter().filter_map(Result::err).for_each(|error| log::warn!("{}", error.report()));
            false
        }
    }
}

/// A failure after which the new cluster stays: it may hold what nothing else holds.
fn stay(work: &Work<'_>, error: Error) -> Error {
    let to = work.entry().upgrade.to;
    error.state(format!(
        "the server runs on PostgreSQL {to} and may have been written to: nothing was reverted"
    ))
}

fn keep_old(work: &mut Work<'_>) -> Result<()> {
    let entry = work.entry();
    let (aside, id) = (entry.upgrade.old_aside().to_owned(), entry.upgrade.id.clone());
    if entry.upgrade.registered.is_some() {
        // It stays where it is.
        stand_in::settle(&entry.upgrade, Which::New, work.manager)?;
        work.journal.entry.kept_bytes = Some(files::size_of(&aside)?);
        work.journal.entry.kept = Some(aside);
        return work.journal.write();
    }
    let beside = aside;
    // Of a copy back that was cut off.
    keep::remove_partial(&beside, &id)?;
    if let Some(kept) = entry.kept.clone() {
        // Cut off in the middle: by a rename it is there whole, by a copy it may still be here, too.
        if files::exists(&kept) {
            return keep::finish(&beside, &kept);
        }
    }
    let kept = files::free_name(&entry.upgrade.keep_path);
    work.journal.entry.kept = Some(kept.clone());
    work.journal.entry.kept_bytes = Some(files::size_of(&beside)?);
    work.journal.write()?;
    keep::keep(&beside, &kept, &id)
}
