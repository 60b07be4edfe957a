//! What is found, subject by subject.
//!
//! - `method`: how, and for how long
//! - `cluster`: what is in the cluster
//! - `units`: what is stopped, and who is connected

mod cluster;
mod method;
mod units;

use super::report::{Finding, Weight};
use crate::postgres::{Major, Occupant, support};
use crate::upgrade::configuration::Foreseen as Change;
use crate::upgrade::facts::container::Containment;
use crate::upgrade::facts::registered::Registration;
use crate::upgrade::facts::{CatalogSetting, Facts, Obstacle};

/// What was found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// All of it, the weightiest first.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.weight);
        self.0
    }

    pub(super) fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn add(&mut self, weight: Weight, message: impl Into<String>, hint: Option<&str>) {
        self.0.push(Finding { weight, message: message.into(), hint: hint.map(str::to_owned) });
    }

    pub(super) fn versions(&mut self, facts: &Facts, from: Option<Major>) {
        let installed: Vec<_> = facts.installed.iter().map(ToString::to_string).collect();
        for (major, whose) in [(from, "the current version"), (facts.target, "the target version")] {
            if let Some(major) = major.filter(|major| !facts.installed.contains(major)) {
                self.add(
                    Weight::Blocker,
                    format!(
                        "PostgreSQL {major}, {whose}, is not installed (installed: {})",
                        installed.join(", ")
                    ),
                    Some(&format!("apt-get install postgresql-{major}")),
                );
            }
        }
        if let Some(ended) = facts.target.and_then(|target| support::ended(target, facts.now)) {
            self.add(Weight::Warning, ended, Some("install a newer version and select it: --to"));
        }
        if let (Some(from), Some(to)) = (from, facts.target)
            && to <= from
        {
            self.add(
                Weight::Blocker,
                format!("the target version must be newer than the current one: current {from}, target {to}"),
                Some(&format!("apt-get install postgresql-{}, or select another version: --to", from.0 + 1)),
            );
        }
    }

    pub(super) fn directory(&mut self, facts: &Facts) {
        let path = facts.data_directory.path.display();
        if facts.is_symlink {
            self.add(
                Weight::Blocker,
                format!("the data directory {path} is a symbolic link; it must be a directory"),
                Some("set data_directory in /etc/matrix-postgres/config.toml to the directory that the link points to"),
            );
        } else if facts.data_directory.is_mount_point && facts.registered.is_none() {
            self.add(
                Weight::Blocker,
                format!("the data directory {path} is a mount point, which cannot be renamed"),
                Some("stop the server and move the cluster into a subdirectory of the mount point"),
            );
        }
        for (key, path) in &facts.misplaced {
            self.add(
                Weight::Blocker,
                format!("{key} is inside the data directory: {}", path.display()),
                Some(&format!("set {key} in /etc/matrix-postgres/config.toml to a directory outside of it")),
            );
        }
        let (keep, occupied) = &facts.keep_path;
        if *occupied {
            let message = format!(
                "{} already exists and is left alone; the old data directory gets the next free name",
                keep.display()
            );
            self.add(Weight::Fact, message, None);
        }
    }

    /// The name of the new one of Debian's must be free.
    pub(super) fn registered(&mut self, facts: &Facts) {
        let (Some(Registration { registered, taken }), Some(to)) = (&facts.registered, facts.target) else {
            return;
        };
        if facts.data_directory.contents.major().is_some_and(|from| to <= from) || taken.is_empty() {
            return;
        }
        let name = &registered.name;
        let taken: Vec<_> = taken.iter().map(|path| path.display().to_string()).collect();
        self.add(
            Weight::Blocker,
            format!("a cluster {to}/{name} exists already: {}", taken.join(", ")),
            Some(&format!(
                "pg_renamecluster {to} {name} unused gives it another name; or upgrade to another version: --to"
            )),
        );
    }

    /// What the unit of a server in a container must run afterwards.
    pub(super) fn contained(&mut self, facts: &Facts) {
        for remnant in &facts.remnants {
            self.add(Weight::Fact, remnant.to_string(), None);
        }
        let Some(Containment { container, drop_in, obstacles }) = &facts.contained else { return };
        for Obstacle { message, hint } in obstacles {
            self.add(Weight::Blocker, message, hint.as_deref());
        }
        if !obstacles.is_empty() {
            return;
        }
        let unit = &facts.server_unit;
        let message = format!(
            "{unit} will run {} in place of {}, by {}, which a rollback removes",
            container.new.image,
            container.old.image,
            drop_in.display()
        );
        self.add(
            Weight::Fact,
            message,
            Some("the playbook sees the new version by itself, and writes an image of it into the unit when it is run the next time"),
        );
        if let Some(data) = &container.new.data {
            let message = format!(
                "the image {} looks for its cluster elsewhere: it is given PGDATA={}",
                container.new.image,
                data.display()
            );
            self.add(Weight::Fact, message, None);
        }
    }

    /// Only the server of the unit can be stopped, and started on the new cluster.
    pub(super) fn occupant(&mut self, facts: &Facts) {
        let path = facts.data_directory.path.display();
        let is_ours = |occupant: &Occupant| match &facts.contained {
            Some(contained) => occupant.is_in(&contained.container.name),
            None => occupant.is_of(&facts.server_unit),
        };
        match &facts.occupant {
            Some(occupant) if !is_ours(occupant) => self.add(
                Weight::Blocker,
                format!("{path} is in use by {occupant}, and not by {}", facts.server_unit),
                Some("set data_directory and server.unit in /etc/matrix-postgres/config.toml to a server that is not in a container, and its unit"),
            ),
            None if facts.cluster.is_none() => self.add(
                Weight::Blocker,
                "the server is not running, so its databases cannot be checked",
                Some(&format!("systemctl start {}", facts.server_unit)),
            ),
            Some(occupant) if facts.cluster.is_none() => self.add(
                Weight::Blocker,
                format!("{occupant} is running, but has no socket in {}", facts.socket_directory.display()),
                Some("set socket_directory and server.port in /etc/matrix-postgres/config.toml to those of the server"),
            ),
            _ => {}
        }
    }

    /// Whether nothing stands in the way so far.
    pub(super) fn are_clear(&self) -> bool {
        self.0.iter().all(|finding| finding.weight != Weight::Blocker)
    }

    pub(super) fn tried(&mut self, facts: &Facts, is_clear: bool) {
        match &facts.tried {
            Some(tried) => {
                for Obstacle { message, hint } in &tried.refused {
                    self.add(Weight::Blocker, message, hint.as_deref());
                }
                self.add(Weight::Fact, "roles, settings, pg_hba.conf and the schema of every database were tested on an empty cluster of the target version", None);
                for database in &tried.untried {
                    self.add(
                        Weight::Fact,
                        format!(
                            "schema of database {database:?} not tested: it may run functions of its owners"
                        ),
                        Some("matrix-postgres-upgrade rehearse tests it, with the owners' privileges"),
                    );
                }
            }
            None if is_clear => self.add(
                Weight::Blocker,
                "not tested on an empty cluster of the target version",
                Some("matrix-postgres-upgrade check, as root"),
            ),
            None => self.add(
                Weight::Fact,
                "not tested on an empty cluster of the target version: blockers come first",
                None,
            ),
        }
    }

    pub(super) fn configuration(&mut self, facts: &Facts) {
        for foreseen in &facts.configuration {
            match foreseen {
                Change::Blocker { message, hint } => self.add(Weight::Blocker, message, Some(hint)),
                Change::Change(message) => self.add(Weight::Warning, message, None),
                Change::Note(message) => self.add(Weight::Fact, message, None),
            }
        }
        for (setting, refused) in &facts.settings_gone {
            let CatalogSetting { name, value, .. } = setting;
            let whose = setting.whose();
            self.add(
                Weight::Blocker,
                match refused {
                    None => {
                        format!("the target version does not know the setting {name} (ALTER {whose} SET)")
                    }
                    Some(said) => {
                        format!("the target version rejects {name} = {value} (ALTER {whose} SET): {said}")
                    }
                },
                Some(&format!("ALTER {whose} RESET {name}")),
            );
        }
    }
}
