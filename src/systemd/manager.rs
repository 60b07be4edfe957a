//! systemd on the system bus, and what it is asked.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::{Connection, OwnedObjectPath};

use super::bus::{self, ServiceProxy, SystemdProxy, UnitProxy};
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

    /// Connects to systemd on the bus at this D-Bus address, such as `unix:path=/run/dbus/system_bus_socket`: the way to a
    /// stand-in for systemd, by which all of this room is tested.
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

    /// The files that say more of a unit than the one that defines it.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn drop_ins(&self, name: &str) -> Result<Vec<PathBuf>> {
        zbus::block_on(async { self.proxy(name).await?.drop_in_paths().await })
            .map(|files| files.into_iter().map(PathBuf::from).collect())
            .map_err(|error| asked(name, &error))
    }

    /// Whether a start of this service can fail when its server lets clients in already: by a command that comes after it.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn may_fail_after_start(&self, name: &str) -> Result<bool> {
        let commands = zbus::block_on(async { self.service(name).await?.exec_start_post().await });
        let commands = commands.map_err(|error| asked(name, &error))?;
        Ok(commands.iter().any(|(_, _, is_ignored, ..)| !is_ignored))
    }

    /// Whether this service is stopped by this program alone.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn is_stopped_by(&self, name: &str, program: &str) -> Result<bool> {
        let commands = zbus::block_on(async { self.service(name).await?.exec_stop().await });
        let commands = commands.map_err(|error| asked(name, &error))?;
        Ok(!commands.is_empty() && commands.iter().all(|(called, ..)| called == program))
    }

    /// Lets systemd read all files of units again.
    ///
    /// # Errors
    /// [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn reload(&self) -> Result<()> {
        zbus::block_on(self.systemd.reload())
            .map_err(|error| bus::failed("let systemd read its units again", "systemd", &error))
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

    /// The same of several patterns, each once, but for units of ours.
    ///
    /// # Errors
    /// As [`Manager::wanted_units`].
    pub fn clients(&self, patterns: &[String]) -> Result<Vec<String>> {
        let mut units = BTreeSet::new();
        for pattern in patterns {
            let wanted = self.wanted_units(pattern)?.into_iter();
            units.extend(wanted.filter(|unit| !unit.starts_with("matrix-postgres")));
        }
        Ok(units.into_iter().collect())
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

    /// The units that name this one, to be started or stopped along with it or after it, as far as systemd knows them.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn named_by(&self, name: &str) -> Result<Vec<String>> {
        let mut names = self.dependents(name)?;
        let others = zbus::block_on(async {
            let unit = self.proxy(name).await?;
            let mut names = unit.wanted_by().await?;
            names.extend(unit.before().await?);
            Ok(names)
        });
        names.extend(others.map_err(|error| asked(name, &error))?);
        names.sort_unstable();
        names.dedup();
        Ok(names)
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

    async fn service(&self, name: &str) -> zbus::Result<ServiceProxy<'static>> {
        ServiceProxy::new(&self.connection, self.systemd.load_unit(name).await?).await
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
    Error::new(Kind::NoUnit, format!("unit {name} not found")).hint(bus::no_unit_hint(name))
}
