//! Is all well with pgBackRest? Pure in what was found, the settings and the time.

use jiff::Timestamp;
use serde::Serialize;

use super::archive::{self, Archiving};
use super::info::{Backup, Stanza};
use super::program::Program;
use super::record::Record;
use super::refusal::{AGAIN, BACK_UP, SETUP, missing};
use crate::backup::manifest::Trial;
use crate::config::Settings;
use crate::error::Result;
use crate::postgres::{self, ServerFacts, Session};
use crate::runtime::Runtime;

/// How long a segment may wait to be archived.
const PATIENCE: i64 = 300;

/// What is found.
#[derive(Debug)]
pub struct Facts {
    /// What pgBackRest knows.
    pub stanza: Stanza,
    /// The server, and what it says of archiving; or why it says nothing.
    pub server: Result<(ServerFacts, Archiving), String>,
    /// What it is to call.
    pub command: String,
    /// Which backups were verified.
    pub record: Record,
    /// The segments that are missing in the archive.
    pub gaps: Vec<String>,
}

/// How pgBackRest's backups are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// The stanza.
    pub stanza: String,
    /// The backups, oldest first.
    pub backups: Vec<Listed>,
    /// The last segment that the server has archived.
    pub last_segment: Option<String>,
    /// When.
    pub last_archived: Option<Timestamp>,
    /// How long the oldest full segment has waited to be archived.
    pub lag_seconds: Option<i64>,
    /// How much of the WAL is not archived yet.
    pub lag_bytes: Option<u64>,
    /// How many segments wait.
    pub waiting: Option<u64>,
    /// The segments that are missing in the archive.
    pub gaps: Vec<String>,
    /// The latest trial restore, and of which backup.
    pub newest_trial: Option<(String, Trial)>,
    /// What is not well, a sentence each.
    pub problems: Vec<String>,
    /// The one next command.
    #[serde(skip)]
    pub hint: Option<String>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its label.
    pub name: String,
    /// `full`, `diff` or `incr`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was begun.
    pub time: Timestamp,
    /// Bytes of the cluster.
    pub bytes: u64,
    /// What it has added to the repository.
    pub stored_bytes: u64,
    /// Whether it was read back and found good.
    pub verified: bool,
    /// Whether it is of the cluster that the server has now; nothing if that is not known.
    pub present: Option<bool>,
    /// Whether it was restored on trial, and that went well.
    pub tried: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Gathers the facts.
///
/// # Errors
/// [`crate::Kind::NotInstalled`], [`crate::Kind::Program`].
pub fn gather(settings: &Settings, runtime: &dyn Runtime) -> Result<Facts> {
    let program = Program::find(&settings.backup, runtime.account().cloned())?;
    let stanza = program.info(&settings.backup.repository)?;
    let connection = settings.connection();
    let session = Session::newest(runtime, &connection);
    let server = match connection.is_absent() {
        true => Err(format!("no server is listening on {}", connection.place())),
        false => postgres::server_facts(&session)
            .and_then(|server| archive::read(&session).map(|archiving| (server, archiving)))
            .map_err(|error| error.to_string()),
    };
    let mut gaps = Vec::new();
    if let Ok((facts, archiving)) = &server {
        // Of a cluster that was upgraded and is back, what was archived before is another one's to pgBackRest, which removes that up
        // to its first backup of now.
        let oldest = stanza.backups_of_present().next();
        let first = oldest.and_then(|backup| backup.archive.start.as_deref());
        if let (true, Some(first), Some(archive)) = (stanza.is_of(facts), first, stanza.archive_of_present())
        {
            gaps = archive::gaps(&program.segments(&archive.id)?, first, archiving.segment_size);
        }
    }
    let record = Record::load(&settings.backup.directory);
    Ok(Facts { stanza, server, command: program.archive_command(), record, gaps })
}

/// Judges what was found.
pub fn judge(facts: &Facts, settings: &Settings, now: Timestamp) -> State {
    let known = facts.server.as_ref().ok();
    let present: Vec<_> = match known {
        Some((server, _)) if facts.stanza.is_of(server) => facts.stanza.backups_of_present().collect(),
        Some(_) => Vec::new(),
        None => facts.stanza.backup.iter().collect(),
    };
    let archiving = known.map(|(_, archiving)| archiving);
    let mut state = State {
        stanza: facts.stanza.name.clone(),
        backups: facts
            .stanza
            .backup
            .iter()
            .map(|backup| Listed {
                present: known.map(|_| present.contains(&backup)),
                ..listed(backup, &facts.record)
            })
            .collect(),
        last_segment: archiving.and_then(Archiving::last_segment).map(str::to_owned),
        last_archived: archiving.and_then(|archiving| archiving.archived_at),
        lag_seconds: archiving.map(|archiving| archiving.lag_seconds(now)),
        lag_bytes: archiving.and_then(Archiving::lag_bytes),
        waiting: archiving.map(|archiving| archiving.waiting),
        gaps: facts.gaps.clone(),
        newest_trial: facts.record.newest_trial().map(|(label, trial)| (label.clone(), trial.clone())),
        ..State::default()
    };
    if let Some(reason) = facts.stanza.unreadable() {
        state.add(format!("pgBackRest cannot read its repository: {reason}"), "pgbackrest info");
        return state;
    }
    if let (false, Some(gone)) = (facts.stanza.exists(), facts.record.expected(&settings.backup)) {
        let error = missing(Some(&gone));
        state.add(error.to_string(), error.hint_text().unwrap_or(SETUP));
        return state;
    }
    state.stanza(facts);
    state.archiving(facts, now);
    state.trial();
    state.newest(present.last().copied(), !facts.stanza.backup.is_empty(), facts, settings, now);
    state
}

fn listed(backup: &Backup, record: &Record) -> Listed {
    let verified = record.backups.get(&backup.label);
    let pages = (backup.error == Some(true)).then(|| "pages of the cluster had wrong checksums".to_owned());
    let damage = verified.and_then(|verified| verified.damage.clone()).or(pages);
    Listed {
        name: backup.label.clone(),
        kind: backup.kind.clone(),
        time: backup.begun(),
        bytes: backup.info.size,
        stored_bytes: backup.info.repository.delta,
        verified: verified.is_some() && damage.is_none(),
        present: None,
        tried: record.trials.get(&backup.label).is_some_and(|trial| trial.damage.is_none()),
        problem: damage.or_else(|| verified.is_none().then(|| "has not been verified".to_owned())),
    }
}

impl State {
    fn add(&mut self, problem: String, hint: &str) {
        self.problems.push(problem);
        self.hint.get_or_insert_with(|| hint.to_owned());
    }

    fn stanza(&mut self, facts: &Facts) {
        let name = &facts.stanza.name;
        if !facts.stanza.exists() {
            self.add(format!("stanza {name:?} of pgBackRest does not exist"), SETUP);
            return;
        }
        let Ok((server, _)) = &facts.server else { return };
        if !facts.stanza.is_of(server) {
            self.add(
                format!("stanza {name:?} is of another cluster than that of the server: nothing is archived or backed up"),
                AGAIN,
            );
        }
    }

    fn archiving(&mut self, facts: &Facts, now: Timestamp) {
        let archiving = match &facts.server {
            Ok((_, archiving)) => archiving,
            Err(reason) => {
                self.add(
                    format!("it is not known whether WAL is archived: {reason}"),
                    "systemctl status 'matrix-*'",
                );
                return;
            }
        };
        if !archiving.is_on() || archiving.command != facts.command {
            self.add("the server does not archive its WAL by pgBackRest".to_owned(), SETUP);
            return;
        }
        let log = "check the log of the server: journalctl --unit='*postgres*'";
        let (waiting, seconds) = (archiving.waiting, archiving.lag_seconds(now));
        let s = if waiting == 1 { "" } else { "s" };
        let waits = format!(
            "{waiting} segment{s} of the WAL not archived, the oldest for {seconds} s; pg_wal grows until its disk is full"
        );
        if archiving.failing_since().is_some() {
            self.add(format!("archiving fails: {waits}"), log);
        } else if seconds > PATIENCE {
            self.add(format!("archiving stands still: {waits}"), log);
        }
        if let Some(first) = self.gaps.first() {
            let problem = format!(
                "WAL is missing in the archive: {first}{}; no time after it can be restored from a backup before it",
                if self.gaps.len() > 1 { " and others" } else { "" }
            );
            self.add(problem, BACK_UP);
        }
    }

    fn trial(&mut self) {
        let Some((label, Trial { damage: Some(damage), .. })) = &self.newest_trial else { return };
        let problem = format!("backup {label} of pgBackRest failed its trial restore: {damage}");
        self.add(problem, "systemctl start matrix-postgres-backup-verify.service");
    }

    fn newest(
        &mut self,
        newest: Option<&Backup>,
        are_others: bool,
        facts: &Facts,
        settings: &Settings,
        now: Timestamp,
    ) {
        let Some(newest) = newest else {
            let problem = match are_others {
                true => "pgBackRest has no backup of the present cluster, only of one before it",
                false => "pgBackRest has no backup yet",
            };
            self.add(problem.to_owned(), BACK_UP);
            return;
        };
        if let Some(problem) = listed(newest, &facts.record).problem {
            self.add(
                format!("the newest backup of pgBackRest, {}, is not verified: {problem}", newest.label),
                BACK_UP,
            );
        }
        let age = now.duration_since(newest.begun());
        if age.is_positive() && age.unsigned_abs() > settings.backup.max_age {
            let (hours, limit) = (age.as_hours(), settings.backup.max_age.as_secs() / 3600);
            self.add(
                format!("the newest backup of pgBackRest is {hours} hours old (limit: {limit} hours)"),
                BACK_UP,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::tests::archiving;
    use super::super::info::tests::{NEW, OLD, server, stanza_of};
    use super::super::record::Verified;
    use super::*;
    use crate::config::Fragment;

    fn facts(identifier: &str) -> Facts {
        let verified = Verified { at: Timestamp::UNIX_EPOCH, damage: None };
        Facts {
            stanza: stanza_of(identifier),
            server: Ok((server(identifier), archiving())),
            command: "x".into(),
            record: Record::default().with("20261129-154529F_20261129-154530I", verified, []),
            gaps: Vec::new(),
        }
    }

    fn judged(change: impl Fn(&mut Facts), identifier: &str) -> State {
        let settings = Settings::from_fragment(Fragment::default()).unwrap();
        let mut facts = facts(identifier);
        change(&mut facts);
        judge(&facts, &settings, "2026-11-29T17:00:00Z".parse().unwrap())
    }

    fn server_of(facts: &mut Facts) -> &mut Archiving {
        &mut facts.server.as_mut().unwrap().1
    }

    #[test]
    fn a_verified_backup_of_the_present_cluster_is_well() {
        let state = judged(|_| {}, OLD);
        assert!(state.problems.is_empty(), "{:?}", state.problems);
        assert_eq!((state.backups.len(), state.lag_bytes, state.lag_seconds), (2, Some(0x100), Some(0)));
        assert_eq!(state.backups.iter().map(|backup| backup.verified).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_info_calls_ok_after_an_upgrade_is_not_well() {
        let state = judged(|_| {}, NEW);
        assert_eq!(
            state.problems,
            ["pgBackRest has no backup of the present cluster, only of one before it"]
        );
        assert_eq!(state.hint.as_deref(), Some(BACK_UP));
    }

    #[test]
    fn a_trial_restore_that_failed_is_not_well_until_one_does_not() {
        let trial = |second, damage: Option<&str>| Trial {
            at: Timestamp::from_second(second).unwrap(),
            seconds: 1,
            server_version: "17.6".into(),
            damage: damage.map(str::to_owned),
            not_taken: None,
        };
        let record = |facts: &mut Facts, damage| {
            let record =
                std::mem::take(&mut facts.record).with_trial("20261129-154529F", trial(1, Some("x")));
            facts.record = record.with_trial("20261129-154529F_20261129-154530I", trial(2, damage));
        };
        let failed = judged(|facts| record(facts, Some("y")), OLD);
        assert!(
            failed.problems[0].ends_with("154530I of pgBackRest failed its trial restore: y"),
            "{:?}",
            failed.problems
        );
        let passed = judged(|facts| record(facts, None), OLD);
        assert!(passed.problems.is_empty() && passed.backups[1].tried, "{:?}", passed.problems);
    }

    #[test]
    fn archiving_that_fails_or_stands_still_is_not_well() {
        let since = || Some("2026-11-29T16:00:00Z".parse().unwrap());
        let fails = judged(
            |facts| {
                let archiving = server_of(facts);
                (archiving.waiting, archiving.oldest_waiting) = (3, since());
                archiving.failed_at = Some("2026-11-29T16:59:00Z".parse().unwrap());
            },
            OLD,
        );
        assert!(fails.problems[0].starts_with("archiving fails: 3 segments"), "{:?}", fails.problems);
        let still =
            judged(|facts| (server_of(facts).waiting, server_of(facts).oldest_waiting) = (1, since()), OLD);
        assert!(
            still.problems[0].starts_with("archiving stands still: 1 segment of"),
            "{:?}",
            still.problems
        );
        let off = judged(|facts| server_of(facts).mode = "off".into(), OLD);
        assert_eq!((off.problems.len(), off.hint.as_deref()), (1, Some(SETUP)));
        let gap = judged(|facts| facts.gaps = vec!["000000010000000000000007".into()], OLD);
        assert!(gap.problems[0].contains("000000010000000000000007; no time after"), "{:?}", gap.problems);
    }

    #[test]
    fn what_was_not_verified_or_is_damaged_is_not_well() {
        let unverified = judged(|facts| facts.record = Record::default(), OLD);
        assert!(unverified.problems[0].contains("has not been verified"), "{:?}", unverified.problems);
        let pages = judged(|facts| facts.stanza.backup[1].error = Some(true), OLD);
        assert!(pages.problems[0].contains("wrong checksums"), "{:?}", pages.problems);
        let unreadable = judged(|facts| facts.stanza.status.code = 99, OLD);
        assert_eq!(unreadable.problems.len(), 1);
    }
}
