//! Which unit, container or machine a client belongs to.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::postgres::{ControlGroup, Guest};
use crate::systemd::Manager;

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In this unit, or in a container that this unit runs.
    Unit(String),
    /// In a container that no unit runs.
    Container {
        /// Its name, or the beginning of its id.
        name: String,
        /// `docker`, `podman`
        program: String,
    },
    /// Wherever this address is.
    Address(IpAddr),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => f.write_str(unit),
            Self::Container { name, program } => {
                write!(f, "the container {name} of {program}, which no unit runs")
            }
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// What tells the origin of processes.
pub(super) struct Origins<'a> {
    manager: &'a Manager,
    proc: PathBuf,
    /// The containers that run, once they are asked for.
    guests: OnceCell<Vec<Guest>>,
}

impl<'a> Origins<'a> {
    pub(super) fn new(manager: &'a Manager, proc: &Path) -> Self {
        Self { manager, proc: proc.to_owned(), guests: OnceCell::new() }
    }

    /// That of the processes that have one end of a connection, if all of them have the same. Who has gone meanwhile has none.
    pub(super) fn of(&self, pids: &[u32]) -> Option<Origin> {
        let mut found: BTreeSet<_> = pids.iter().filter_map(|pid| self.of_process(*pid)).collect();
        found.pop_first().filter(|_| found.is_empty())
    }

    fn of_process(&self, pid: u32) -> Option<Origin> {
        let group = ControlGroup::of(&self.proc.join(pid.to_string()))?;
        // systemd knows how far names of control groups are its own.
        let unit = self.manager.unit_of(pid).ok().flatten();
        let Some((program, id)) = group.container() else { return unit.map(Origin::Unit) };
        let unit = unit.filter(|unit| unit.ends_with(".service"));
        let guests = self.guests.get_or_init(|| {
            Guest::ask().unwrap_or_else(|error| {
                log::warn!("{}", error.context("could not determine which units run containers").report());
                Vec::new()
            })
        });
        Some(of_container(unit, (program, id), guests))
    }
}

fn of_container(unit: Option<String>, (program, id): (&str, &str), guests: &[Guest]) -> Origin {
    let guest = guests.iter().find(|guest| guest.id == id);
    match unit.or_else(|| guest?.unit.clone()) {
        Some(unit) => Origin::Unit(unit),
        None => Origin::Container {
            name: guest.map_or_else(|| id.get(..12).unwrap_or(id).to_owned(), |guest| guest.name.clone()),
            program: program.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_belongs_to_the_unit_that_runs_it_or_to_none() {
        let id = "0123456789abcdef".repeat(4);
        let guest = |unit: Option<&str>| Guest {
            id: id.clone(),
            name: "bridge".into(),
            program: "docker".into(),
            unit: unit.map(str::to_owned),
        };
        let of = |path: String, guests: &[Guest]| {
            let group = ControlGroup::parse(&format!("0::{path}\n"));
            of_container(group.unit(), group.container().unwrap(), guests).to_string()
        };
        let scope = format!("/system.slice/docker-{id}.scope");
        assert_eq!(of(scope.clone(), &[guest(Some("bridge.service"))]), "bridge.service");
        assert_eq!(of(scope.clone(), &[guest(None)]), "the container bridge of docker, which no unit runs");
        assert_eq!(of(scope, &[]), "the container 0123456789ab of docker, which no unit runs");
        let within = format!("/system.slice/signal.service/libpod-payload-{id}");
        assert_eq!(of(within, &[]), "signal.service");
    }
}
