//! A unit that runs for the time being.

use std::time::Duration;

use super::job::journal;
use super::manager::Manager;
use super::verb::{Patience, Verb};
use crate::error::{Error, Kind, Result};

/// A unit that runs because we need it, and is stopped again if it did not run before.
#[derive(Debug)]
#[must_use = "the unit is stopped again when this is dropped"]
pub struct Started {
    manager: Manager,
    unit: String,
    timeout: Duration,
    /// Whether we started it, and have not stopped it yet.
    ours: bool,
}

impl Started {
    /// Sees to it that `unit` is active; starting and, later, stopping it may take `timeout` each.
    ///
    /// If it cannot be started, or not in time, it is stopped again.
    ///
    /// # Errors
    /// As [`Manager::start`]; [`Kind::UnitJob`] also if it ended at once.
    pub fn ensure(manager: &Manager, unit: &str, timeout: Duration) -> Result<Self> {
        let before = manager.unit(unit)?;
        let ours = !before.is_wanted();
        let mut started = Self { manager: manager.clone(), unit: unit.to_owned(), timeout, ours };
        if before.is_active() {
            return Ok(started);
        }
        match manager.start(unit, timeout) {
            Ok(now) if now.is_active() => Ok(started),
            Ok(now) => {
                started.ours = false;
                let message = format!("{unit} was started and ended immediately; it is {}", now.describe());
                Err(Error::new(Kind::UnitJob, message).hint(journal(unit)))
            }
            Err(error) => {
                // There is nothing to stop where there was no job.
                started.ours &= !matches!(error.kind(), Kind::NoUnit | Kind::UnitRefused);
                Err(match (started.ours, started.put_back()) {
                    (false, _) => error,
                    (true, Ok(())) => error.state(format!("{unit} was stopped again")),
                    (true, Err(again)) => error.state(format!("{unit} could not be stopped again: {again}")),
                })
            }
        }
    }

    /// Stops the unit if it was started for this. Not cut short by a signal to this process. While systemd stops
    /// the unit that this process belongs to, the stop is queued and not waited for.
    ///
    /// # Errors
    /// As [`Manager::stop_all`].
    pub fn stop(mut self) -> Result<()> {
        self.put_back()
    }

    fn is_our_own_unit_stopping(&self) -> bool {
        let own = self.manager.unit_of(0).ok().flatten().and_then(|unit| self.manager.unit(&unit).ok());
        own.is_some_and(|unit| unit.active_state == "deactivating")
    }

    fn put_back(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.ours) {
            return Ok(());
        }
        if self.is_our_own_unit_stopping() {
            // Ours comes after the server, so that its stop waits for our end: we must not wait for it in turn.
            return self.manager.queue_stop(&self.unit);
        }
        self.manager.carry_out(Verb::Stop, &self.unit, self.timeout, Patience::ToTheEnd).map(drop)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            log::error!("{}", error.report());
        }
    }
}
