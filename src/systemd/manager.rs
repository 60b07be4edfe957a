//! systemd on the system bus: what it is asked, and what it is told to start and stop.

use std::time::Duration;

use zbus::connection::Builder;
use zbus::{Connection, OwnedObjectPath};

use super::bus::{self, SystemdProxy, UnitProxy};
use super::job::{Patience, Verb};
use super::stopped;
use super::timer::TimerState;
use super::unit::{self, Unit};
use crate::error::{Error, Kind, Result};

/// How long one call may take. The calls only queue work; those that wait for it have limits of their own.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// A connection to systemd. Copies share it.
#[derive(Debug, Clone)]
pub struct Manager {
    pub(super) connection: Connection,
    pub(super) systemd: SystemdProxy<'static>,
}

impl Manager {
    /// Connects to systemd on the system bus.
    ///
    /// # Errors
    /// [`Kind::NoBus`].
    pub fn connect() -> Result<Self> {
        Self::build(Builder::system())
    }

    /// Connects to systemd on the bus at this D-Bus address, such as `unix:path=/run/dbus/system_bus_socket`.
    ///
    /// # Errors
    /// [`Kind::NoBus`].
    pub fn connect_to(address: &str) -> Result<Self> {
        Self::build(Builder::address(address))
    }

    fn build(builder: Builder<'_>) -> Result<Self> {
        zbus::block_on(async {
            let connection = builder.method_timeout(CALL_TIMEOUT).build().await?;
            let systemd = SystemdProxy::new(&connection).await?;
            Ok(Self { connection, systemd })
        })
        .map_err(|error| bus::not_connected(&error))
    }

    /// What systemd knows of a unit, running or not. One that does not exist says so in its load state.
    ///
    /// # Errors
    /// [`Kind::NoUnit`] for a name that no unit can have, [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn unit(&self, name: &str) -> Result<Unit> {
        zbus::block_on(async { Unit::read(&self.proxy(name).await?).await })
            .map_err(|error| asked(name, &error))
    }

    /// Starts a unit and waits until that is done; a signal to this process ends the wait.
    ///
    /// Success means that the unit is active, or has done its work (a oneshot). A job that is not done in
    /// time goes on nevertheless.
    ///
    /// # Errors
    /// [`Kind::NoUnit`], [`Kind::UnitJob`] (failed, skipped by a condition, or not done within `timeout`),
    /// [`Kind::UnitRefused`], [`Kind::NoBus`], [`Kind::Interrupted`].
    pub fn start(&self, name: &str, timeout: Duration) -> Result<Unit> {
        self.one(Verb::Start, name, timeout)
    }

    /// Stops a unit and waits until that is done; a signal to this process ends the wait.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub fn stop(&self, name: &str, timeout: Duration) -> Result<Unit> {
        self.one(Verb::Stop, name, timeout)
    }

    /// Stops all of these, at the same time, and waits until that is done; a signal to this process ends the wait.
    /// `timeout` is for all of them together.
    ///
    /// # Errors
    /// As [`Manager::start`]: that of the first unit. Others may have been stopped.
    pub fn stop_all(&self, units: &[String], timeout: Duration) -> Result<()> {
        self.carry_out_all(Verb::Stop, units, timeout, Patience::UntilSignal)
            .into_iter()
            .try_for_each(|r| r.map(drop))
    }

    /// Starts all of these, queued in this order and then as their own `After=` orders them, and waits until that is
    /// done. All are tried. Not cut short by a signal to this process. One result for each, in the order of `units`.
    pub fn start_all(&self, units: &[String], timeout: Duration) -> Vec<Result<Unit>> {
        self.carry_out_all(Verb::Start, units, timeout, Patience::ToTheEnd)
    }

    /// Queues the start of a unit and does not wait for it.
    ///
    /// # Errors
    /// [`Kind::NoUnit`], [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn queue_start(&self, name: &str) -> Result<()> {
        zbus::block_on(self.systemd.start_unit(name, "replace"))
            .map(drop)
            .map_err(|error| bus::failed(&format!("start {name}"), name, &error))
    }

    fn one(&self, verb: Verb, name: &str, timeout: Duration) -> Result<Unit> {
        self.carry_out(verb, name, timeout, Patience::UntilSignal)
    }

    /// The names of the units in memory that match the pattern (glob(7)) and run, or are about to.
    ///
    /// # Errors
    /// [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn wanted_units(&self, pattern: &str) -> Result<Vec<String>> {
        let listed = zbus::block_on(self.systemd.list_units_by_patterns(&[], &[pattern]))
            .map_err(|error| bus::failed(&format!("list the units {pattern}"), pattern, &error))?;
        let mut names: Vec<_> =
            listed.into_iter().filter(|unit| unit::is_wanted(&unit.3)).map(|unit| unit.0).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The units that run and answer to `entries`, which are names or patterns (glob(7)), each with the running units
    /// that systemd stops along with it before it. The unit that this process belongs to is never among them.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn running(&self, entries: &[String]) -> Result<Vec<String>> {
        stopped::running(self, entries)
    }

    /// The unit that a process belongs to, if systemd started it; 0 is this process.
    ///
    /// # Errors
    /// [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn unit_of(&self, pid: u32) -> Result<Option<String>> {
        let asked = zbus::block_on(async {
            let path = self.systemd.get_unit_by_pid(pid).await?;
            self.proxy_at(path).await?.id().await
        });
        match asked {
            Ok(name) => Ok(Some(name)),
            Err(error) if bus::is(&error, "NoUnitForPID") => Ok(None),
            Err(error) => {
                Err(bus::failed(&format!("find the unit of process {pid}"), &pid.to_string(), &error))
            }
        }
    }

    /// The units that systemd stops together with this one: those that require it, are bound to it or are
    /// part of it. Only the next ones, running or not.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn dependents(&self, name: &str) -> Result<Vec<String>> {
        zbus::block_on(async {
            let unit = self.proxy(name).await?;
            let mut names = unit.required_by().await?;
            names.extend(unit.requisite_of().await?);
            names.extend(unit.bound_by().await?);
            names.extend(unit.consists_of().await?);
            // Since systemd 249.
            names.extend(unit.propagates_stop_to().await.unwrap_or_default());
            names.sort_unstable();
            names.dedup();
            Ok(names)
        })
        .map_err(|error| asked(name, &error))
    }

    /// When a timer elapses next.
    ///
    /// # Errors
    /// [`Kind::NoUnit`], [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn timer(&self, name: &str) -> Result<TimerState> {
        let unit = self.unit(name)?;
        if !unit.exists() || unit::kind(name) != "timer" {
            return Err(no_unit(name));
        }
        let read = async { TimerState::read(self.proxy(name).await?.inner(), &unit).await };
        zbus::block_on(read).map_err(|error| asked(name, &error))
    }

    /// A unit that is not in memory has no object until it is loaded.
    async fn proxy(&self, name: &str) -> zbus::Result<UnitProxy<'static>> {
        self.proxy_at(self.systemd.load_unit(name).await?).await
    }

    async fn proxy_at(&self, path: OwnedObjectPath) -> zbus::Result<UnitProxy<'static>> {
        UnitProxy::new(&self.connection, path).await
    }
}

fn asked(name: &str, error: &zbus::Error) -> Error {
    bus::failed(&format!("ask systemd about {name}"), name, error)
}

/// The error of a unit that systemd knows no file for.
pub(super) fn no_unit(name: &str) -> Error {
    Error::new(Kind::NoUnit, format!("there is no unit {name}")).hint(bus::no_unit_hint(name))
}
