//! What every part of an upgrade works with: its journal first of all.

use std::time::Instant;

use jiff::Timestamp;

use super::journal::{Entry, Journal, Step};
use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Connection, DataDirectory, Major, Session};
use crate::report::Progress;
use crate::runtime::Runtime;
use crate::systemd::{Manager, notify};

/// Fault injection for the tests: the upgrade stands still once this step is in the journal.
pub type Pause = Option<Step>;

/// An upgrade under way, whether by the process that began it or by one that goes on with it.
pub struct Work<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where PostgreSQL's programs run.
    pub runtime: &'a dyn Runtime,
    /// systemd.
    pub manager: &'a Manager,
    /// Who owns the cluster.
    pub account: Account,
    /// What has been done.
    pub journal: Journal,
    /// Who is told.
    pub progress: &'a mut dyn Progress,
    /// See [`Pause`].
    pub pause: Pause,
    clock: Option<(Step, Instant)>,
}

impl<'a> Work<'a> {
    /// Work on what `journal` says.
    pub fn new(
        settings: &'a Settings,
        runtime: &'a dyn Runtime,
        manager: &'a Manager,
        account: Account,
        journal: Journal,
        progress: &'a mut dyn Progress,
        pause: Pause,
    ) -> Self {
        Self { settings, runtime, manager, account, journal, progress, pause, clock: None }
    }

    /// What the journal says.
    pub fn entry(&self) -> &Entry {
        &self.journal.entry
    }

    /// Writes down that `step` begins, and that the one before has ended.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`]: it must not be taken then.
    pub fn step(&mut self, step: Step) -> Result<()> {
        self.note_duration();
        self.journal.step(step, Timestamp::now())?;
        self.clock = Some((step, Instant::now()));
        notify::status(&step.to_string());
        if self.pause == Some(step) {
            log::warn!("standing still: {step}");
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }

    /// The step under way has ended.
    pub fn note_duration(&mut self) {
        if let Some((step, begun)) = self.clock.take() {
            let seconds = begun.elapsed().as_secs_f64();
            log::info!("{step}: {seconds:.1} s");
            self.journal.entry.durations.push((step, seconds));
        }
    }

    /// Starts the server's unit and logs in: it must be the cluster of this identity.
    ///
    /// # Errors
    /// [`Kind::UnitJob`], [`Kind::Server`], [`Kind::DataDirectory`].
    pub fn start_server(&self) -> Result<()> {
        let entry = self.entry();
        // At boot the server's unit waits for this.
        notify::ready();
        let units = [entry.server_unit.clone()];
        let started = self.manager.start_all(&units, self.settings.server.start_timeout);
        started.into_iter().try_for_each(|result| result.map(drop))?;
        let expected = postgres::system_identifier(&entry.data_directory)?;
        let found = postgres::server_facts(&self.live_session(&self.live_connection()))
            .map_err(|error| error.context("the server was started, and does not let us in"))?;
        match found.system_identifier == expected {
            true => Ok(()),
            false => Err(Error::new(
                Kind::DataDirectory,
                format!(
                    "the server on {} is not that of {}",
                    self.settings.socket_directory.display(),
                    entry.data_directory.display()
                ),
            )),
        }
    }

    /// Starts the units of clients that were running. All are tried.
    ///
    /// # Errors
    /// [`Kind::UnitJob`] naming those that did not start.
    pub fn start_clients(&self) -> Result<()> {
        let mut units = self.entry().clients.clone();
        // They were stopped with those that need others first.
        units.reverse();
        let started = self.manager.start_all(&units, self.settings.clients.timeout);
        let failed: Vec<_> =
            units.iter().zip(started).filter_map(|(unit, started)| Some((unit, started.err()?))).collect();
        let names: Vec<_> = failed.iter().map(|(unit, _)| unit.as_str()).collect();
        let hint = names.first().map(|unit| format!("journalctl --unit={unit}"));
        let Some((_, first)) = failed.into_iter().next() else { return Ok(()) };
        Err(Error::new(Kind::UnitJob, format!("not started: {}", names.join(", ")))
            .because(first)
            .hint(hint.unwrap_or_default()))
    }

    /// How to reach the server of the unit, which is of the old version or of the new one.
    pub fn live_connection(&self) -> Connection {
        let Settings { socket_directory, server, .. } = self.settings;
        Connection::new(socket_directory, server.port, &server.superuser)
    }

    /// To ask it for things.
    pub fn live_session<'s>(&'s self, connection: &'s Connection) -> Session<'s> {
        Session { runtime: self.runtime, major: self.programs(), connection }
    }

    fn programs(&self) -> Major {
        self.runtime.majors().last().copied().unwrap_or(self.entry().to)
    }
}

/// The owner of the cluster.
///
/// # Errors
/// [`Kind::DataDirectory`] if there is none.
pub fn owner(directory: &DataDirectory) -> Result<Account> {
    directory.owner.clone().ok_or_else(|| {
        Error::new(Kind::DataDirectory, format!("{} does not exist", directory.path.display()))
    })
}
