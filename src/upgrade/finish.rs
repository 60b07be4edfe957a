//! After the exchange: the new server and its clients are started, and the old data directory is kept.

use jiff::Timestamp;

use super::journal::{Outcome, Step};
use super::servers::Sockets;
use super::work::Work;
use super::{back, exchange, keep, online, transfer, written};
use crate::config::Method;
use crate::error::{Error, Kind, Result};

/// Takes the steps that are left of an upgrade whose new cluster is in place.
///
/// # Errors
/// The reason, and what state things are in. A server that does not start, and a client that does not while nothing has
/// been written, lead back to the old cluster; so do not later failures.
pub fn finish(work: &mut Work<'_>) -> Result<()> {
    if work.entry().step < Step::StartingClients {
        work.step(Step::StartingServer)?;
        if let Err(error) = start_server(work) {
            return Err(back::after(work, error));
        }
    } else {
        work.start_server().map_err(|error| stay(work, error))?;
    }
    let mut incomplete = None;
    if work.entry().step <= Step::StartingClients {
        work.journal.entry.clients_started.get_or_insert_with(Timestamp::now);
        work.step(Step::StartingClients)?;
        if let Err(error) = work.start_clients() {
            match written(work) {
                Ok(tables) if tables.is_empty() => {
                    work.journal.entry.clients_started = None;
                    return Err(back::after(work, error));
                }
                found => {
                    // What does start, serves.
                    let _ = work.start_clients();
                    let written = found.unwrap_or_else(|error| vec![error.to_string()]);
                    log::warn!("not going back, for clients have written: {}", written.join(", "));
                    incomplete = Some(stay(work, error));
                }
            }
        }
    }
    if work.entry().method == Method::Online && work.entry().step <= Step::Tending {
        work.step(Step::Tending)?;
        if let Err(error) = online::tend(work) {
            log::warn!("{}", error.report());
            incomplete.get_or_insert_with(|| stay(work, error));
        }
    }
    work.step(Step::Keeping)?;
    back::remove_copy(work.entry())?;
    Sockets::remove_abandoned(&work.settings.socket_directory)?;
    transfer::remove(&work.entry().dump_directory)?;
    let kept = keep_old(work);
    work.note_duration();
    let entry = work.entry();
    let message = format!("upgraded from PostgreSQL {} to {}", entry.from, entry.to);
    match kept {
        Ok(()) => work.journal.end(Outcome::Upgraded, message, Timestamp::now())?,
        // It stays where it is, whole; the journal stays open, so that it is tried again.
        Err(error) => {
            let beside = entry.beside.display();
            let state = format!(
                "the homeserver runs on PostgreSQL {}; the old data directory is still at {beside}",
                entry.to
            );
            return Err(error.state(state).hint("matrix-postgres-upgrade recover tries it again"));
        }
    }
    incomplete.map_or(Ok(()), Err)
}

fn start_server(work: &mut Work<'_>) -> Result<()> {
    work.start_server()?;
    let connection = work.live_connection().to_server(work.entry().to);
    let counters = written::counters(&work.live_session(&connection))?;
    work.journal.entry.written_before = Some(counters);
    Ok(())
}

/// What clients have written. Those that did start are stopped first: this cannot change any more then, and the server
/// counts what a client has written when it has gone.
fn written(work: &Work<'_>) -> Result<Vec<String>> {
    let running = work.manager.running(&work.entry().clients)?;
    work.manager.stop_all(&running, work.settings.clients.timeout)?;
    let connection = work.live_connection().to_server(work.entry().to);
    let now = written::counters(&work.live_session(&connection))?;
    match &work.entry().written_before {
        Some(before) => Ok(written::since(before, &now)),
        None => Err(Error::new(Kind::Bug, "it is not known what had been written before")),
    }
}

/// A failure after which the new cluster stays: it may hold what nothing else holds.
fn stay(work: &Work<'_>, error: Error) -> Error {
    let to = work.entry().to;
    error.state(format!(
        "the databases are on PostgreSQL {to}, and may have been written to since: nothing was undone"
    ))
}

fn keep_old(work: &mut Work<'_>) -> Result<()> {
    let entry = work.entry();
    let (beside, id) = (entry.beside.clone(), entry.id.clone());
    if let Some(kept) = entry.kept.clone() {
        // Cut off in the middle: by a rename it is there whole, by a copy it may still be here, too.
        if exchange::exists(&kept) {
            return keep::finish(&beside, &kept);
        }
    }
    let kept = keep::free_name(&entry.keep_path);
    work.journal.entry.kept = Some(kept.clone());
    work.journal.entry.kept_bytes = Some(super::facts::size_of(&beside)?);
    work.journal.write()?;
    keep::keep(&beside, &kept, &id)
}
