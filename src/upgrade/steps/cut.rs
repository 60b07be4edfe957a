//! The cut: from here on nobody but us uses the old cluster.

use crate::clients;
use crate::error::Result;
use crate::postgres::HOME;
use crate::upgrade::records::{Step, Which};
use crate::upgrade::steps::work::Work;
use crate::upgrade::steps::{container, drop_in, live, registration, servers};

/// What there is of the old cluster after the cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Its files, of a server that was stopped cleanly.
    Stopped,
    /// In a rehearsal, a server that goes on; `end` is where its log ended.
    Running {
        /// Such as `0/3000028`.
        end: String,
    },
}

/// Stops the clients that run, whose units are in the journal before. From here on the new cluster lets in only us.
/// `found` are those that the plan has found connected.
pub(in crate::upgrade) fn stop_clients(work: &mut Work<'_>, found: &[String]) -> Result<()> {
    work.close_login()?;
    note_clients(work, Which::Old, found)?;
    work.step(Step::StoppingClients)?;
    work.manager.stop_all(&work.entry().clients, work.settings.clients.timeout)
}

/// Notes down which clients run: those that are configured, those that are connected or were `found` so before, and those that systemd
/// stops along with the server.
///
/// # Errors
/// If systemd cannot be asked.
pub(in crate::upgrade) fn note_clients(work: &mut Work<'_>, in_place: Which, found: &[String]) -> Result<()> {
    let server_unit = work.entry().upgrade.unit(in_place).clone();
    let servers = [Which::Old, Which::New].map(|which| work.entry().upgrade.unit(which).clone());
    let own = |unit: &String| unit.starts_with("matrix-postgres") || servers.contains(unit);
    let mut wanted = work.settings.clients.units.clone();
    wanted.extend_from_slice(found);
    let connection = work.live_connection();
    wanted.extend(clients::found(work.manager, work.settings, &work.live_session(&connection), None));
    wanted.push(server_unit.clone());
    let running: Vec<_> = work.manager.running(&wanted)?.into_iter().filter(|unit| !own(unit)).collect();
    let is_unsteady = |unit: &String| work.manager.unit(unit).is_ok_and(|unit| !unit.is_active());
    work.journal.entry.unsteady = running.iter().filter(|unit| is_unsteady(unit)).cloned().collect();
    work.journal.entry.clients = running;
    Ok(())
}

/// Stops the server, as the next step.
pub(in crate::upgrade) fn stop_server(work: &mut Work<'_>) -> Result<()> {
    let upgrade = &work.entry().upgrade;
    if upgrade.container.is_some() {
        // The less there is to write, the less time its stop takes, which the unit limits.
        let connection = work.live_connection();
        let written = work.live_session(&connection).execute(HOME, "CHECKPOINT;");
        written.unwrap_or_else(|error| log::debug!("{}", error.report()));
    }
    work.step(Step::StoppingServer)?;
    end_server(work, Which::Old)?;
    let upgrade = &work.entry().upgrade;
    match upgrade.container {
        Some(_) => container::require_shut_down(work.runtime, &work.account, upgrade),
        None => Ok(()),
    }
}

/// Stops the server of the one that is in place, and whatever else was left on its data directory.
pub(in crate::upgrade) fn end_server(work: &Work<'_>, in_place: Which) -> Result<()> {
    let upgrade = &work.entry().upgrade;
    registration::bar(upgrade, in_place, &work.account)?;
    drop_in::bar(upgrade, work.manager)?;
    let (unit, timeout) = (upgrade.unit(in_place), work.settings.server.start_timeout);
    match &upgrade.container {
        Some(container) => {
            let server = (container, upgrade.home(in_place));
            container::stop(work.manager, unit, timeout, server, &work.account)?;
        }
        None => live::stop(work.manager, unit, timeout, upgrade.home(in_place), &work.account)?,
    }
    servers::stop_abandoned(upgrade.home(in_place))
}
