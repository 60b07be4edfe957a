//! How a target is doing: pure in what is here, what is known of it, its settings and the time.

use jiff::ZonedDateTime;
use serde::Serialize;

use super::super::catalogue::Entry;
use super::super::name::BackupName;
use super::plan::missing;
use super::record::{Failure, Record};
use crate::config::Offsite;
use crate::error::{Error, Result};

/// What to do about any of it.
pub const SEND: &str = "systemctl start matrix-postgres-backup-offsite.service";

/// The state of a target, as far as it was known when it was last reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// Its name.
    pub target: String,
    /// Where in it the backups of this machine are; nothing if none were ever sent.
    pub path: Option<String>,
    /// When it was last reached.
    pub reached: Option<jiff::Timestamp>,
    /// How many good backups it had then.
    pub backups: usize,
    /// The newest of them.
    pub newest: Option<BackupName>,
    /// Seconds since that was begun.
    pub age_seconds: Option<i64>,
    /// What it should have and lacks, newest first.
    pub missing: Vec<BackupName>,
    /// Why the last attempt to send failed.
    pub failure: Option<Failure>,
    /// What is not well, a sentence each.
    pub problems: Vec<String>,
}

/// Judges a target; `here` are the backups here, `record` is what is known of it.
pub fn judge(target: &Offsite, here: &[Entry], record: Result<Option<Record>>, now: &ZonedDateTime) -> State {
    let unknown = record.as_ref().err().map(Error::one_line);
    let record = record.unwrap_or_default();
    let known = record.clone().unwrap_or_default();
    let missing = missing(here, &known.copies, target, now);
    let good = || known.copies.iter().filter(|copy| copy.is_good);
    let newest = good().map(|copy| copy.name).max();
    let name = &target.name;
    let mut problems = Vec::new();
    problems.extend(unknown.map(|why| format!("the state of target {name} is unknown: {why}")));
    if let Some(failure) = &known.failure {
        problems.push(format!(
            "sending to target {name} has failed since {:.0}: {}",
            failure.since, failure.reason
        ));
    }
    let is_late = |late: &&BackupName| {
        let finished = here.iter().find(|entry| entry.name == **late);
        let finished = finished.and_then(|entry| Some(entry.manifest.as_ref().ok()?.finished));
        finished.is_some_and(|at| {
            let waiting = now.timestamp().duration_since(at);
            waiting.is_positive() && waiting.unsigned_abs() > target.max_delay
        })
    };
    if let Some(late) = missing.iter().find(is_late) {
        let others = match missing.len() {
            1 => String::new(),
            2 => " and 1 other".to_owned(),
            count => format!(" and {} others", count - 1),
        };
        problems.push(format!("target {name} is behind: it lacks backup {late}{others}"));
    }
    let bad = known.copies.iter().filter(|copy| !copy.is_good && !missing.contains(&copy.name));
    problems.extend(bad.map(|copy| {
        format!(
            "backup {} in target {name} is damaged, or was changed there, and cannot be sent again",
            copy.name
        )
    }));
    State {
        target: name.clone(),
        path: record.map(|record| record.path),
        reached: known.reached,
        backups: good().count(),
        newest,
        age_seconds: newest.map(|newest| now.timestamp().duration_since(newest.time()).as_secs()),
        missing,
        failure: known.failure,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;
    use crate::backup::offsite::plan::Copy;
    use crate::config::Keep;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    fn judged(copies: &[(&str, bool)], failure: Option<&str>, now: &str) -> State {
        let here: Vec<_> = ["20261122T030000Z", "20261123T030000Z"]
            .map(|name| Entry {
                name: name.parse().unwrap(),
                files: Arc::new(Directory::new(Path::new(name))),
                manifest: Ok(example(name)),
            })
            .into();
        let target = Offsite {
            name: "a".into(),
            remote: "x:y".into(),
            append_only: false,
            max_delay: Duration::from_secs(6 * 3600),
            keep: Keep { last: 9, daily: 0, weekly: 0, monthly: 0, yearly: 0 },
        };
        let copies = copies.iter().map(|(name, is_good)| Copy {
            name: name.parse().unwrap(),
            bytes: None,
            is_good: *is_good,
        });
        let now: ZonedDateTime = now.parse().unwrap();
        let record = Record { remote: "x:y".into(), copies: copies.collect(), ..Record::default() };
        let record = match failure {
            None => record,
            Some(why) => record.failed(&Error::new(crate::Kind::Offsite, why), now.timestamp()),
        };
        judge(&target, &here, Ok(Some(record)), &now)
    }

    #[test]
    fn a_target_that_has_everything_is_well() {
        let state = judged(
            &[("20261122T030000Z", true), ("20261123T030000Z", true)],
            None,
            "2026-11-30T03:00:00+00:00[UTC]",
        );
        assert!(state.problems.is_empty() && state.missing.is_empty(), "{state:?}");
        assert_eq!((state.backups, state.age_seconds), (2, Some(7 * 86_400)));
    }

    #[test]
    fn the_newest_may_be_on_its_way_for_a_while() {
        let copies = [("20261122T030000Z", true)];
        assert!(judged(&copies, None, "2026-11-23T09:00:00+00:00[UTC]").problems.is_empty());
        let late = judged(&copies, None, "2026-11-23T09:00:01+00:00[UTC]");
        assert_eq!(late.problems, ["target a is behind: it lacks backup 20261123T030000Z"]);
        let none = judged(&[], None, "2026-11-23T09:00:01+00:00[UTC]");
        assert_eq!(none.problems, ["target a is behind: it lacks backup 20261123T030000Z and 1 other"]);
    }

    #[test]
    fn an_attempt_that_failed_is_told_at_once() {
        let copies = [("20261122T030000Z", true)];
        let state = judged(&copies, Some("no route"), "2026-11-23T04:00:00+00:00[UTC]");
        assert_eq!(state.problems, ["sending to target a has failed since 2026-11-23T04:00:00Z: no route"]);
    }

    #[test]
    fn what_is_bad_there_and_no_longer_here_is_told() {
        let copies = [("20261122T030000Z", true), ("20261123T030000Z", true), ("20261101T030000Z", false)];
        let state = judged(&copies, None, "2026-11-23T04:00:00+00:00[UTC]");
        assert!(state.problems[0].starts_with("backup 20261101T030000Z in target a is damaged"), "{state:?}");
        assert_eq!(state.backups, 2);
    }
}
