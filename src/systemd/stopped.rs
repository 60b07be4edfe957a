//! Units that are stopped for the time being.

use std::time::Duration;

use super::manager::Manager;
use super::unit::Unit;
use super::verb::{Patience, Verb};
use crate::error::{Error, Kind, Result};

/// Units that ran and were stopped by us: exactly these are started again.
#[derive(Debug)]
#[must_use = "the units are started again when this is dropped"]
pub struct Stopped {
    manager: Manager,
    /// In the order in which they were stopped; empty once they run again.
    units: Vec<String>,
    timeout: Duration,
}

impl Stopped {
    /// Stops those of `units` that run, at the same time. `timeout` is for all of them together, and again
    /// for the start later.
    ///
    /// An entry is a unit's name or a pattern (glob(7)); one that nothing answers to is no failure. The
    /// units that systemd stops along with these, because they require them, count as stopped by us. The
    /// unit that this process belongs to is never among them. If any cannot be stopped, all are started
    /// again.
    ///
    /// # Errors
    /// As [`Manager::stop_all`].
    pub fn stop(manager: &Manager, units: &[String], timeout: Duration) -> Result<Self> {
        let units = manager.running(units)?;
        // From here on they are started again, whatever happens.
        let mut stopped = Self { manager: manager.clone(), units, timeout };
        let results = manager.carry_out_all(Verb::Stop, &stopped.units, timeout, Patience::UntilSignal);
        if results.iter().all(Result::is_ok) {
            return Ok(stopped);
        }
        // One that we may not stop still runs, and we may not start it either.
        let mut touched =
            results.iter().map(|result| !matches!(result, Err(e) if e.kind() == Kind::UnitRefused));
        stopped.units.retain(|_| touched.next().unwrap_or(true));
        let none = stopped.units.is_empty();
        let again = stopped.start_again();
        let first = results.into_iter().find_map(Result::err);
        let error = first.unwrap_or_else(|| Error::new(Kind::Bug, "a job failed without an error"));
        Err(match again {
            Ok(()) if none => error.state("nothing was stopped"),
            Ok(()) => error.state("the units that had been stopped run again"),
            Err(again) => {
                error.state(format!("not all units that had been stopped run again: {}", again.one_line()))
            }
        })
    }

    /// The units that [`Stopped::stop`] would stop, in that order.
    ///
    /// # Errors
    /// If systemd cannot be asked.
    pub fn would_stop(manager: &Manager, units: &[String]) -> Result<Vec<String>> {
        manager.running(units)
    }

    /// The units that do not run because of us, in the order in which they were stopped.
    pub fn units(&self) -> &[String] {
        &self.units
    }

    /// Starts them again: queued in reverse order, and then as their own `After=` orders them. All are
    /// tried. Not cut short by a signal to this process.
    ///
    /// # Errors
    /// That of the first unit, with the messages of all; see [`Manager::start`].
    pub fn start_again(mut self) -> Result<()> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<()> {
        let mut units = std::mem::take(&mut self.units);
        units.reverse();
        let results = self.manager.carry_out_all(Verb::Start, &units, self.timeout, Patience::ToTheEnd);
        let mut failed: Vec<_> =
            units.into_iter().zip(results).filter_map(|(unit, result)| Some((unit, result.err()?))).collect();
        if failed.len() < 2 {
            return failed.pop().map_or(Ok(()), |(unit, error)| {
                Err(error.state(format!("{unit} was running before, and is not running now")))
            });
        }
        let names: Vec<_> = failed.iter().map(|(unit, _)| unit.as_str()).collect();
        let state = format!("these units were running before, and are not running now: {}", names.join(", "));
        let hint = format!("systemctl start {}", names.join(" "));
        let reports: Vec<_> = failed.iter().map(|(_, error)| error.one_line()).collect();
        let kind = failed.first().map_or(Kind::UnitJob, |(_, error)| error.kind());
        let sentence = format!("could not start {} units again", failed.len());
        Err(Error::new(kind, sentence).because(reports.join("\n -> ")).state(state).hint(hint))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            log::error!("{}", error.report());
        }
    }
}

impl Manager {
    /// The units that run and answer to `entries`, which are names or patterns (glob(7)), each with the running units
    /// that systemd stops along with it before it. The unit that this process belongs to is never among them.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn running(&self, entries: &[String]) -> Result<Vec<String>> {
        let own = self.unit_of(0)?;
        let mut units = Vec::new();
        for entry in entries {
            let names = if is_pattern(entry) {
                self.wanted_units(entry)?
            } else {
                // Unlike a pattern, a name may be an alias.
                let unit = Some(self.unit(entry)?).filter(Unit::is_wanted);
                unit.map(|unit| unit.id).into_iter().collect()
            };
            for name in names {
                add(self, name, own.as_deref(), &mut units)?;
            }
        }
        Ok(units)
    }
}

fn add(manager: &Manager, name: String, own: Option<&str>, units: &mut Vec<String>) -> Result<()> {
    if own == Some(name.as_str()) || units.contains(&name) {
        return Ok(());
    }
    let mut chain = Vec::new();
    gather(manager, name, own, units, &mut chain)?;
    units.append(&mut chain);
    Ok(())
}

/// Depth first, so that a unit comes after those that require it.
fn gather(
    manager: &Manager,
    name: String,
    own: Option<&str>,
    known: &[String],
    chain: &mut Vec<String>,
) -> Result<()> {
    for dependent in manager.dependents(&name)? {
        let seen = known.contains(&dependent) || chain.contains(&dependent) || dependent == name;
        if !seen && own != Some(dependent.as_str()) && manager.unit(&dependent)?.is_wanted() {
            gather(manager, dependent, own, known, chain)?;
        }
    }
    if !chain.contains(&name) {
        chain.push(name);
    }
    Ok(())
}

fn is_pattern(entry: &str) -> bool {
    entry.contains(['*', '?', '['])
}
