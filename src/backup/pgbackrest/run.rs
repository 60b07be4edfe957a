//! A backup: a full one each week, what has changed in each other night; verified before older ones are removed.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::archive::{self, Archiving};
use super::configuration::retention;
use super::contents::{Recorded, SOME};
use super::info::{Backup, Stanza};
use super::program::{Program, Type};
use super::record::{Gone, Source};
use super::record::{Record, Verified};
use super::refusal::{BACK_UP, SETUP, missing, of_another, require_near, unreadable};
use crate::backup::run::Server;
use crate::backup::store_of;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::{self, ServerFacts, Session};
use crate::report::{DecimalBytes, Progress, event};
use crate::runtime::Runtime;

/// A week but for half a day: the timer does not start at the same second each night.
const WEEK: Duration = Duration::from_secs(13 * 12 * 3600);

/// What is found before a backup.
#[derive(Debug)]
pub struct Facts {
    /// What pgBackRest knows.
    pub stanza: Stanza,
    /// What the server says.
    pub server: ServerFacts,
    /// The same of archiving.
    pub archiving: Archiving,
    /// What it is to call.
    pub command: String,
    /// Backups that must be there.
    pub expected: Option<Gone>,
}

/// Which backup is made.
///
/// # Errors
/// [`Kind::Config`] if it would be of another cluster than that of the stanza, or if WAL is not archived; [`Kind::File`] if the
/// repository cannot be read.
pub fn plan(facts: &Facts, now: Timestamp) -> Result<Type> {
    let Facts { stanza, server, archiving, command, expected } = facts;
    if let Some(reason) = stanza.unreadable() {
        return Err(unreadable(reason));
    }
    if !stanza.exists() {
        return Err(missing(expected.as_ref()));
    }
    if !stanza.is_of(server) {
        return Err(of_another(stanza, server, SETUP));
    }
    if !archiving.is_on() || archiving.command != *command {
        return Err(Error::new(
            Kind::Config,
            format!("the server does not archive by pgBackRest: archive_mode is {:?}, and archive_command is {:?}", archiving.mode, archiving.command),
        )
        .hint(SETUP));
    }
    let full = stanza.backups_of_present().rfind(|backup| backup.is_full());
    let is_due = |full: &Backup| {
        let age = now.duration_since(full.begun());
        age.is_negative() || age.unsigned_abs() >= WEEK || full.error == Some(true)
    };
    Ok(if full.is_none_or(is_due) { Type::Full } else { Type::Incremental })
}

/// A finished backup.
#[derive(Debug)]
pub struct Outcome {
    backup: Backup,
    kind: Type,
    time: Duration,
    verification: Duration,
}

impl Outcome {
    /// The run in a sentence.
    pub fn summary(&self) -> String {
        let Self { backup, kind, time, verification } = self;
        format!(
            "backup {} is complete ({kind}): {} of {} stored; made in {:.1} s, verified in {:.1} s",
            backup.label,
            DecimalBytes(backup.info.repository.delta),
            DecimalBytes(backup.info.size),
            time.as_secs_f64(),
            verification.as_secs_f64(),
        )
    }
}

/// Makes a backup, verifies it, and removes older ones.
///
/// # Errors
/// Every kind; each names the state things are in.
pub fn run(settings: &Settings, runtime: &dyn Runtime, progress: &mut dyn Progress) -> Result<Outcome> {
    let nothing =
        "the data of the server was only read, and no backup was made; those that there were are unchanged";
    let state = |error: Error| error.state(nothing);
    require_near(settings).map_err(state)?;
    store_of(&settings.backup).check().map_err(state)?;
    let program = Program::find(&settings.backup, runtime.account().cloned()).map_err(state)?;
    let _lock = Lock::take(settings, "backup")?;
    let server = Server::reach(settings, runtime)?;
    let done = facts(&server, settings, &program)
        .and_then(|facts| plan(&facts, Timestamp::now()).map(|kind| (facts, kind)))
        .and_then(|(facts, kind)| {
            log::info!("backup by pgBackRest started: {kind}");
            make(&program, settings, &server.session()?, &facts, kind, progress)
        });
    server.leave(done.map_err(state))
}

/// Reads back all that is stored, and records the result of the newest backup; its label.
///
/// # Errors
/// [`Kind::NoBackup`], [`Kind::Damaged`], [`Kind::Program`].
pub fn verify(settings: &Settings, runtime: &dyn Runtime, progress: &mut dyn Progress) -> Result<String> {
    require_near(settings)?;
    let program = Program::find(&settings.backup, runtime.account().cloned())?;
    let _lock = Lock::take(settings, "verification of a backup")?;
    let stanza = program.info(&settings.backup.repository)?;
    let newest = stanza
        .backup
        .last()
        .ok_or_else(|| Error::new(Kind::NoBackup, "pgBackRest has no backup").hint(BACK_UP))?;
    progress.begin("verifying the repository of pgBackRest", None);
    let damage = program.verify(None)?;
    progress.end();
    record(settings, &stanza, newest, damage).map(|()| newest.label.clone())
}

/// Records what was found in a backup, and fails if that is bad.
fn record(settings: &Settings, stanza: &Stanza, backup: &Backup, mut damage: Vec<String>) -> Result<()> {
    if backup.error == Some(true) {
        damage.insert(0, "pages of the cluster have wrong checksums".to_owned());
    }
    let damage = (!damage.is_empty()).then(|| damage.join("; "));
    let verified = Verified { at: Timestamp::now(), damage: damage.clone() };
    let labels = stanza.backup.iter().map(|backup| backup.label.as_str());
    let directory = &settings.backup.directory;
    let record = Record::load(directory).with(&backup.label, verified, labels);
    Record { source: Some(Source::of(&settings.backup)), ..record }.save(directory)?;
    match damage {
        None => Ok(()),
        Some(damage) => Err(Error::new(
            Kind::Damaged,
            format!("backup {} is damaged: {damage}", backup.label),
        )
        .state("no backup was removed")
        .hint("check the disks of the cluster and of the repository; then matrix-postgres-backup status")),
    }
}

/// The type of the backup that would be made now.
///
/// # Errors
/// [`Kind::Server`] if no server runs: it is not started for a plan.
pub fn dry_run(settings: &Settings, runtime: &dyn Runtime) -> Result<Type> {
    let program = Program::find(&settings.backup, runtime.account().cloned())?;
    let server = Server::running(settings, runtime)?;
    plan(&facts(&server, settings, &program)?, Timestamp::now())
}

fn facts(server: &Server<'_>, settings: &Settings, program: &Program) -> Result<Facts> {
    let session = server.session()?;
    Ok(Facts {
        server: postgres::server_facts(&session)?,
        archiving: archive::read(&session)?,
        stanza: program.info(&settings.backup.repository)?,
        command: program.archive_command(),
        expected: Record::load(&settings.backup.directory).expected(&settings.backup),
    })
}

fn make(
    program: &Program,
    settings: &Settings,
    session: &Session<'_>,
    facts: &Facts,
    kind: Type,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let clock = Instant::now();
    progress.begin(&format!("backing up by pgBackRest ({kind})"), None);
    program.back_up(kind)?;
    progress.end();
    let time = clock.elapsed();
    let stanza = program.info(&settings.backup.repository)?;
    let known = |backup: &&Backup| !facts.stanza.backup.iter().any(|before| before.label == backup.label);
    let backup = stanza.backups_of_present().rfind(known).cloned().ok_or_else(|| {
        Error::new(Kind::Program, "pgBackRest ended without an error, and lists no new backup")
    })?;
    remember(settings, session, &backup.label, &facts.server, kind);
    progress.begin(&format!("verifying {}", backup.label), None);
    // Once a week all that is stored is read.
    let damage = program.verify((kind == Type::Incremental).then_some(backup.label.as_str()))?;
    progress.end();
    record(settings, &stanza, &backup, damage)?;
    program.expire(retention(settings.backup.keep)).map_err(|error| {
        error.context("could not remove old backups").state(format!(
            "backup {} is complete and was verified; old backups were not removed",
            backup.label
        ))
    })?;
    let outcome = Outcome { backup, kind, time, verification: clock.elapsed().saturating_sub(time) };
    log::info!(
        MESSAGE_ID = event::COMPLETE,
        BACKUP = outcome.backup.label,
        BYTES = outcome.backup.info.repository.delta;
        "{}", outcome.summary()
    );
    Ok(outcome)
}

/// Records what a trial restore compares with. Without that, the backup is as good.
fn remember(settings: &Settings, session: &Session<'_>, label: &str, server: &ServerFacts, kind: Type) {
    let most = if kind == Type::Full { u64::MAX } else { SOME };
    let recorded = Recorded::gather(session, label, server, most)
        .and_then(|recorded| recorded.save(&settings.backup.directory).map(|()| recorded));
    match recorded {
        Ok(recorded) if recorded.busy.is_empty() => {}
        Ok(Recorded { busy, .. }) => {
            log::info!(
                "a trial restore compares no rows of these databases, which were never idle: {}",
                busy.join(", ")
            );
        }
        Err(error) => {
            let error = error.context("a trial restore of this backup has nothing to compare with");
            log::warn!("{}", error.report());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::tests::archiving;
    use super::super::info::tests::{NEW, OLD, server, stanza_of};
    use super::*;

    fn facts(identifier: &str) -> Facts {
        Facts {
            stanza: stanza_of(identifier),
            server: server(identifier),
            archiving: archiving(),
            command: "x".into(),
            expected: None,
        }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_week_after_a_full_backup_there_is_another_one() {
        let facts = facts(OLD);
        assert_eq!(plan(&facts, at("2026-11-30T03:00:00Z")).unwrap(), Type::Incremental);
        assert_eq!(plan(&facts, at("2026-12-06T03:46:00Z")).unwrap(), Type::Full);
        // A clock that was wrong.
        assert_eq!(plan(&facts, at("2026-11-01T03:00:00Z")).unwrap(), Type::Full);
    }

    #[test]
    fn after_an_upgrade_the_first_one_is_full() {
        assert_eq!(plan(&facts(NEW), at("2026-11-30T03:00:00Z")).unwrap(), Type::Full);
    }

    #[test]
    fn nothing_is_made_of_another_cluster_or_without_its_wal() {
        let refused = |change: &dyn Fn(&mut Facts)| {
            let mut facts = facts(NEW);
            change(&mut facts);
            plan(&facts, at("2026-11-30T03:00:00Z")).unwrap_err()
        };
        let error = refused(&|facts| facts.server = server("1"));
        assert!(error.to_string().contains("is of another cluster"), "{error}");
        assert!(
            refused(&|facts| facts.archiving.mode = "off".into())
                .to_string()
                .contains("archive_mode is \"off\"")
        );
        assert!(refused(&|facts| facts.archiving.command = "cp".into()).to_string().contains("\"cp\""));
        assert_eq!(refused(&|facts| facts.stanza.status.code = 99).kind(), Kind::File);
        assert!(refused(&|facts| facts.stanza.status.code = 1).to_string().contains("does not exist"));
    }
}
