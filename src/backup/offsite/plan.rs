//! What is sent to a target: pure in what is here, what is there, its settings and the time.

use std::fmt;

use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};

use super::super::catalogue::Entry;
use super::super::manifest::Manifest;
use super::super::name::BackupName;
use super::super::retention::{self, Candidate, State};
use crate::config::Offsite;

/// A backup in a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Its name.
    pub name: BackupName,
    /// Bytes of all its files; nothing if its manifest cannot be trusted.
    pub bytes: Option<u64>,
    /// Whether its manifest can be trusted and says that it is good, and that its files are those of the backup here, if there
    /// is one.
    pub is_good: bool,
}

/// The copies in a target, by its catalogue; `here` are the backups here.
pub fn copies(here: &[Entry], there: &[Entry]) -> Vec<Copy> {
    let copy = |entry: &Entry| {
        let own = here.iter().find(|own| own.name == entry.name).and_then(|own| own.manifest.as_ref().ok());
        let is_same = |copy: &Manifest| own.is_none_or(|own| own.files().eq(copy.files()));
        Copy {
            name: entry.name,
            bytes: entry.manifest.as_ref().ok().map(Manifest::bytes),
            is_good: entry.is_verified() && entry.manifest.as_ref().is_ok_and(is_same),
        }
    };
    there.iter().map(copy).collect()
}

/// What is missing in a target, newest first: the backups here that are verified, and that would stay there.
pub fn missing(here: &[Entry], there: &[Copy], target: &Offsite, now: &ZonedDateTime) -> Vec<BackupName> {
    let copy_of = |name: BackupName| there.iter().find(|copy| copy.name == name);
    let sendable = |entry: &&Entry| entry.is_verified() && !entry.name.is_future(now.timestamp());
    let sendable: Vec<_> = here.iter().filter(sendable).map(|entry| entry.name).collect();
    let verified = |name: &BackupName| candidate(*name, State::Verified);
    let only_there = there.iter().filter(|copy| !sendable.contains(&copy.name));
    let only_there = only_there.map(|Copy { name, is_good, .. }| {
        candidate(*name, if *is_good { State::Verified } else { State::Unreadable })
    });
    let candidates: Vec<_> = sendable.iter().map(verified).chain(only_there).collect();
    let decisions = retention::plan(&candidates, &target.keep, now).decisions;
    let stays = |name: BackupName| {
        target.append_only || decisions.iter().any(|decision| decision.name == name && decision.keep)
    };
    let is_missing = |name: &BackupName| match copy_of(*name) {
        None => stays(*name),
        // What may not be replaced is not sent again.
        Some(copy) => !copy.is_good && !target.append_only,
    };
    sendable.into_iter().rev().filter(is_missing).collect()
}

fn candidate(name: BackupName, state: State) -> Candidate {
    Candidate { name, state, foreign: None }
}

/// What is done about a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The target.
    pub target: String,
    /// Where in it.
    pub path: String,
    /// What is sent, newest first.
    pub sent: Vec<BackupName>,
    /// The rest of what was being sent, or removed, when that was interrupted, and is not sent now.
    pub leftovers: Vec<(BackupName, Vec<String>)>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, path, sent, leftovers } = self;
        if sent.is_empty() && leftovers.is_empty() {
            return write!(f, "{target}: nothing to send to {path}");
        }
        let sent = sent.iter().map(|name| format!("send {name} to {path}"));
        let leftovers = leftovers.iter().map(|(name, _)| format!("remove the rest of {name} from {path}"));
        let lines: Vec<_> = sent.chain(leftovers).map(|line| format!("{target}: {line}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;
    use crate::config::Keep;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    const NAMES: [&str; 4] = ["20261120T030000Z", "20261121T030000Z", "20261122T030000Z", "20261123T030000Z"];

    fn entry(name: &str) -> Entry {
        let manifest = example(name);
        Entry {
            name: manifest.name,
            files: Arc::new(Directory::new(Path::new(name))),
            manifest: Ok(manifest),
        }
    }

    fn target(daily: u32) -> Offsite {
        Offsite {
            name: "a".into(),
            remote: "x:y".into(),
            append_only: false,
            max_delay: Duration::from_secs(60),
            keep: Keep { last: 0, daily, weekly: 0, monthly: 0, yearly: 0 },
        }
    }

    fn missing_of(here: &[Entry], there: &[Entry], target: &Offsite) -> Vec<String> {
        let now = "2026-11-24T09:00:00+00:00[UTC]".parse().unwrap();
        missing(here, &copies(here, there), target, &now).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_newest_comes_first_and_what_would_not_stay_is_not_sent() {
        let here = NAMES.map(entry);
        assert_eq!(missing_of(&here, &[], &target(2)), [NAMES[3], NAMES[2]]);
        assert_eq!(missing_of(&here, &[entry(NAMES[3])], &target(3)), [NAMES[2], NAMES[1]]);
        assert!(missing_of(&here, &NAMES.map(entry), &target(9)).is_empty());
        let all = Offsite { append_only: true, ..target(1) };
        assert_eq!(missing_of(&here, &[entry(NAMES[3])], &all), [NAMES[2], NAMES[1], NAMES[0]]);
    }

    #[test]
    fn only_what_is_verified_is_sent() {
        let mut here = NAMES.map(entry);
        here[3].manifest.as_mut().unwrap().read_back = None;
        here[2].manifest = Err(crate::error::Error::new(crate::error::Kind::Damaged, "x"));
        assert_eq!(missing_of(&here, &[], &target(1)), [NAMES[1]]);
        assert!(missing_of(&[entry("20301123T030000Z")], &[], &target(1)).is_empty());
    }

    #[test]
    fn what_is_not_the_same_there_is_sent_again() {
        let here = [entry(NAMES[0])];
        let mut there = [entry(NAMES[0])];
        there[0].manifest.as_mut().unwrap().globals.sha256 = "22".repeat(32);
        assert_eq!(missing_of(&here, &there, &target(1)), [NAMES[0]]);
        let kept = Offsite { append_only: true, ..target(1) };
        assert!(missing_of(&here, &there, &kept).is_empty(), "it may not be replaced");
        assert!(!copies(&here, &there)[0].is_good);
        // A trial restore is recorded here only.
        there[0] = entry(NAMES[0]);
        there[0].manifest.as_mut().unwrap().finished = "2026-11-20T04:00:00Z".parse().unwrap();
        assert!(missing_of(&here, &there, &target(1)).is_empty());
    }

    #[test]
    fn a_plan_reads_like_this() {
        let plan = Plan {
            target: "store".into(),
            path: "x:y/z".into(),
            sent: vec![NAMES[3].parse().unwrap()],
            leftovers: vec![(NAMES[0].parse().unwrap(), vec![])],
        };
        assert_eq!(
            plan.to_string(),
            "store: send 20261123T030000Z to x:y/z\nstore: remove the rest of 20261120T030000Z from x:y/z"
        );
    }
}
