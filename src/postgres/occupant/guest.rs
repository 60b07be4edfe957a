//! Containers that run, and the units that run them.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::containers::Container;
use super::processes::{self, Process};
use crate::error::{Error, Kind, Result};
use crate::runtime::from_outside;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What runs it: `docker`, `podman`.
    pub program: String,
    /// The unit that it is of, if it is of one.
    pub unit: Option<String>,
}

impl Guest {
    /// The verb by which `matrix-postgres-upgrade`, called from outside, prints all of them.
    pub const VERB: &str = "containers";

    /// All of them, whoever asks: docker and podman answer only to who has root's rights.
    ///
    /// # Errors
    /// [`Kind::Program`], [`Kind::NotInstalled`]: nothing is known then.
    pub fn ask() -> Result<Vec<Self>> {
        let said = from_outside(vec![Self::VERB.into()], &[], "the look at the containers")?;
        serde_json::from_slice(&said)
            .map_err(|error| Error::new(Kind::Bug, "what was seen cannot be read").because(error))
    }

    /// The same, as far as they can be seen from here.
    pub fn here(proc: &Path) -> Vec<Self> {
        let seen = processes::all(proc);
        super::containers(&seen)
            .iter()
            .map(|(engine, container)| Self::of(engine, container, &seen))
            .collect()
    }

    pub(super) fn of(engine: &str, container: &Container, seen: &[Process]) -> Self {
        // A unit starts it by name and waits for its end: `docker start --attach NAME`, `docker run --name=NAME`.
        let name = container.name();
        let names_it = |word: &String| word == name || word.strip_prefix("--name=") == Some(name);
        let starts = |process: &&Process| {
            process.name == engine
                && process.words.iter().any(|word| word == "start" || word == "run")
                && process.words.iter().any(names_it)
        };
        // Anybody may call a process so: root's come first, and of others one is only believed if all are of the same unit.
        let of = |is_roots: bool| {
            let clients = seen.iter().filter(starts).filter(move |client| client.is_roots == is_roots);
            let mut units: BTreeSet<_> = clients.map(|client| client.group.unit()).collect();
            units.pop_first().filter(|_| units.is_empty()).flatten()
        };
        let said = container.unit().filter(|_| engine == "podman");
        let is_left_there = |(unit, pid): &(&str, i32)| {
            seen.iter().any(|it| it.pid == *pid && it.group.unit().as_deref() == Some(*unit))
        };
        let said = said.filter(is_left_there).map(|(unit, _)| unit.to_owned());
        Self {
            id: container.id.clone(),
            name: name.to_owned(),
            program: engine.to_owned(),
            unit: of(true).or(said).or_else(|| of(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::ControlGroup;

    fn process(pid: i32, name: &str, words: &str, unit: &str, is_roots: bool) -> Process {
        Process {
            pid,
            name: name.into(),
            words: words.split(' ').map(str::to_owned).collect(),
            is_roots,
            group: ControlGroup::parse(&format!("0::/system.slice/{unit}\n")),
            ..Process::default()
        }
    }

    #[test]
    fn the_unit_of_a_container_is_not_what_anybody_says() {
        let text = r#"[{"Id": "1a", "Name": "/db", "State": {"Pid": 9, "ConmonPid": 40},
            "Config": {"Labels": {"PODMAN_SYSTEMD_UNIT": "db.service"}}}]"#;
        let container = Container::parse(text).unwrap().pop().unwrap();
        let unit = |engine: &str, seen: &[Process]| Guest::of(engine, &container, seen).unit;
        let (ours, start) = (Some("db.service".to_owned()), "docker start --attach db");
        let roots = process(7, "docker", start, "db.service", true);
        let others = |pid, unit| process(pid, "docker", start, unit, false);
        assert_eq!(unit("docker", std::slice::from_ref(&roots)), ours);
        assert_eq!(unit("docker", &[others(5, "evil.service"), roots]), ours);
        assert_eq!(unit("docker", &[others(5, "db.service")]), ours);
        assert_eq!(unit("docker", &[others(5, "evil.service"), others(6, "db.service")]), None);
        // A label of an image's.
        assert_eq!(unit("docker", &[]), None);
        assert_eq!(unit("podman", &[process(40, "conmon", "conmon", "other.service", true)]), None);
        assert_eq!(unit("podman", &[process(40, "conmon", "conmon", "db.service", true)]), ours);
    }
}
