//! One upgrade, as its journal has it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::upgrade::records::{
    Census, Compared, Container, Counters, Registered, Step, Upgrade, Which, named_after,
};

/// The version of the form that a journal has.
pub(in crate::upgrade) const FORMAT: u32 = 1;

/// How an upgrade ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The server runs on the new version.
    Upgraded,
    /// The server runs on the old version, by itself or by `rollback`.
    Returned,
}

/// One upgrade, as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this form.
    pub format: u32,
    /// Which, and where.
    #[serde(flatten)]
    pub upgrade: Upgrade,
    /// The old cluster's identity. A string, for JSON numbers end before 2^64.
    pub old_identifier: String,
    /// The clients' units that were running, in the order in which they are stopped.
    pub clients: Vec<String>,
    /// What is being done.
    pub step: Step,
    /// Since when.
    pub since: Timestamp,
    /// Files of login rules of the new cluster, relative to the data directory if they are in it, which let in only us until
    /// it is opened.
    /// None in journals of earlier versions, if they could not be closed.
    #[serde(default)]
    pub login_files: Vec<PathBuf>,
    /// The new cluster's identity, of a registered one, before it is in place.
    #[serde(default)]
    pub new_identifier: Option<String>,
    /// The next transaction of the new cluster as it was written to the disk, before anybody but us could reach it.
    #[serde(default)]
    pub next_xid: Option<String>,
    /// What was counted in the new cluster before that.
    #[serde(default)]
    pub census: Option<Census>,
    /// When others than us were let in to the new cluster, and where it stood then. From then on it may hold what nothing
    /// else holds, and is not removed any more.
    #[serde(default)]
    pub opened: Option<Opened>,
    /// Of `clients`, those that did not run when they were stopped, but were about to, or kept ending.
    #[serde(default)]
    pub unsteady: Vec<String>,
    /// Clients that were running before and did not start again.
    #[serde(default)]
    pub not_started: Vec<String>,
    /// Why the stanza of pgBackRest is not that of the cluster in place, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_archived: Option<String>,
    /// Rows that had been changed in each database of the new cluster before the first client came; of older journals.
    pub written_before: Option<Counters>,
    /// When the clients were started on the new cluster.
    pub clients_started: Option<Timestamp>,
    /// How much of both clusters was compared; nothing in journals of earlier versions.
    #[serde(default)]
    pub compared: Option<Compared>,
    /// Seconds that the steps took.
    pub durations: Vec<(Step, f64)>,
    /// Where the old data directory is now, once it is kept.
    pub kept: Option<PathBuf>,
    /// Its size in bytes.
    pub kept_bytes: Option<u64>,
    /// How it ended, when, and what was said then.
    pub ended: Option<Ended>,
}

/// When the new cluster was opened to others than us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// When.
    pub at: Timestamp,
    /// Where it stood; nothing if it could not be asked.
    pub position: Option<Position>,
}

/// How far a cluster had come: everything that is written later comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The end of its log, such as `0/3000028`.
    pub lsn: String,
    /// The next transaction, with epoch.
    pub xid: u64,
}

/// The end of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// In a sentence; of a failure the reason.
    pub message: String,
}

impl Entry {
    /// One that is about to begin. `old_identifier` is the old cluster's identity.
    pub fn new(upgrade: Upgrade, old_identifier: String, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            upgrade,
            old_identifier,
            clients: Vec::new(),
            step: Step::Preparing,
            since: now,
            login_files: Vec::new(),
            new_identifier: None,
            next_xid: None,
            census: None,
            opened: None,
            unsteady: Vec::new(),
            not_started: Vec::new(),
            not_archived: None,
            written_before: None,
            clients_started: None,
            compared: None,
            durations: Vec::new(),
            kept: None,
            kept_bytes: None,
            ended: None,
        }
    }

    /// Whether there is still something to be done about it.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// What root moves and removes by a journal bears the names that [`named_after`] gives.
    pub(in crate::upgrade) fn names_only_its_own(&self) -> Result<(), String> {
        let is_digit = |(place, byte): (usize, u8)| match place {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        };
        if self.upgrade.id.len() != 16 || !self.upgrade.id.bytes().enumerate().all(is_digit) {
            return Err("its id is not that of an upgrade".to_owned());
        }
        let own = |suffix: &str| {
            named_after(&self.upgrade.data_directory, &format!("upgrade-{}{suffix}", self.upgrade.id))
        };
        let dump = format!("upgrade-{}", self.upgrade.id);
        let keep = self.upgrade.keep_path.as_os_str().as_encoded_bytes();
        let is_kept = |kept: &PathBuf| {
            let numbers = kept.as_os_str().as_encoded_bytes().strip_prefix(keep);
            numbers.is_some_and(|rest| rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-'))
        };
        let registered = self.upgrade.registered.iter().flat_map(Registered::paths);
        let absolute = [&self.upgrade.data_directory, &self.upgrade.keep_path, &self.upgrade.dump_directory];
        let plain = |path: &PathBuf| {
            path.is_absolute()
                && !path.components().any(|part| matches!(part, std::path::Component::ParentDir))
        };
        let well = self.upgrade.beside == own("")
            && self.upgrade.copy.as_ref().is_none_or(|copy| *copy == own("-copy"))
            && self.upgrade.dump_directory.file_name().is_some_and(|name| *name == *dump)
            && self.kept.as_ref().is_none_or(is_kept)
            && self.upgrade.container.as_ref().is_none_or(Container::is_plain)
            && !self.upgrade.server_unit.contains('/')
            && absolute.into_iter().chain(registered).all(plain);
        match well {
            true => Ok(()),
            false => Err("it names directories that do not belong to an upgrade".to_owned()),
        }
    }

    /// Which of the two clusters is the homeserver's, as far as the journal knows: while it is open, the old one.
    pub fn is_in_place(&self) -> Which {
        match self.ended.as_ref().map(|ended| ended.outcome) {
            Some(Outcome::Upgraded) => Which::New,
            _ => Which::Old,
        }
    }

    /// Whether the new cluster may hold what nothing else holds: others than us have been let in.
    pub fn was_open(&self) -> bool {
        self.opened.is_some() || self.clients_started.is_some()
    }

    /// Seconds from the stop of the clients until they were started again.
    pub fn downtime(&self) -> f64 {
        Step::downtime(&self.durations)
    }
}

#[cfg(test)]
pub(in crate::upgrade) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Method;
    use crate::postgres::Major;

    pub(crate) fn upgrade() -> Upgrade {
        Upgrade {
            id: "20261124T030000Z".into(),
            from: Major(15),
            to: Major(17),
            data_directory: "/m/data".into(),
            beside: "/m/data.upgrade-20261124T030000Z".into(),
            method: Method::Dump,
            copy: None,
            stale_indexes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            keep_path: "/m/kept".into(),
            dump_directory: "/var/tmp/x/upgrade-20261124T030000Z".into(),
            server_unit: "matrix-postgres.service".into(),
            registered: None,
            container: None,
            by_playbook: false,
        }
    }

    pub(crate) fn entry() -> Entry {
        entry_of(upgrade())
    }

    pub(crate) fn entry_of(upgrade: Upgrade) -> Entry {
        let entry = Entry::new(upgrade, "18446744073709551615".into(), Timestamp::UNIX_EPOCH);
        Entry { clients: vec!["matrix-synapse.service".into()], ..entry }
    }

    #[test]
    fn what_the_plan_has_decided_is_beside_everything_else() {
        let json = serde_json::to_value(entry()).unwrap();
        assert_eq!((&json["id"], &json["from"]), (&"20261124T030000Z".into(), &15.into()));
        // The first versions wrote neither of these, nor most of the others.
        let mut first = json.as_object().unwrap().clone();
        first.retain(|key, _| {
            !["method", "copy", "stale_indexes", "subscriptions", "census", "compared"]
                .contains(&key.as_str())
        });
        assert_eq!(serde_json::from_value::<Entry>(first.into()).unwrap(), entry());
    }

    #[test]
    fn the_downtime_is_that_of_the_clients() {
        let durations = vec![(Step::Preparing, 5.0), (Step::Transferring, 2.0), (Step::StartingClients, 1.0)];
        assert!((Entry { durations, ..entry() }.downtime() - 3.0).abs() < 1e-9);
    }
}
