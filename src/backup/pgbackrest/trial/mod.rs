//! The newest backup restored into a server that is made for it and thrown away, and compared with what the databases held: the
//! proof that it can be restored.
//!
//! Of the configuration of the cluster nothing is used, nor of what ALTER SYSTEM has set: the server archives nothing, runs no
//! command but that which fetches WAL from the repository, and loads only libraries without which rows cannot be read.

mod attempt;
mod plan;

use std::fmt;
use std::time::Instant;

use jiff::Timestamp;

use self::attempt::Attempt;
pub use self::plan::{Plan, plan};
use super::program::Program;
use super::record::Record;
use super::refusal::{BACK_UP, require_near};
use crate::backup::manifest::Trial;
use crate::backup::scratch::{Scratch, check_space};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::report::Progress;
use crate::runtime::{Runtime, interrupt};

/// What has been done, in a sentence.
#[derive(Debug)]
pub struct Outcome {
    label: String,
    trial: Trial,
    compared: usize,
    busy: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, trial: Trial { server_version, seconds, .. }, compared, busy } = self;
        write!(f, "trial restore of backup {label} succeeded: restored into PostgreSQL {server_version}, ")?;
        write!(f, "{compared} tables compared, in {seconds} s")?;
        match busy.is_empty() {
            true => Ok(()),
            false => write!(f, "; not compared, because they were never idle: {}", busy.join(", ")),
        }
    }
}

/// Carries it out, and records the result, good or bad.
///
/// # Errors
/// [`Kind::Damaged`], once that is recorded; others when the trial could not be held, and nothing is recorded.
pub fn run(settings: &Settings, runtime: &dyn Runtime, progress: &mut dyn Progress) -> Result<Outcome> {
    let (program, plan) = look(settings, runtime)?;
    let clock = Instant::now();
    let scratch = Scratch::make(&plan.scratch)?;
    check_space(&[plan.need()])?;
    let held =
        Attempt { settings, runtime, program: &program, plan: &plan, scratch: scratch.path() }.hold(progress);
    drop(scratch);
    let label = &plan.backup.label;
    let (version, differences) = match held {
        Ok(found) => found,
        // What was removed meanwhile is not damaged, and neither is what is stopped.
        Err(error)
            if is_damage(&error) && is_there(&program, settings, label) && interrupt::check().is_ok() =>
        {
            (plan.major.to_string(), vec![error.one_line()])
        }
        Err(error) => return Err(error),
    };
    let damage = (!differences.is_empty()).then(|| differences.join("; "));
    let seconds = clock.elapsed().as_secs();
    let trial = Trial {
        at: Timestamp::now(),
        seconds,
        server_version: version,
        damage: damage.clone(),
        not_taken: None,
    };
    // It may have been verified meanwhile.
    let directory = &settings.backup.directory;
    Record::load(directory).with_trial(label, trial.clone()).save(directory)?;
    if let Some(damage) = damage {
        return Err(Error::new(Kind::Damaged, format!("backup {label} failed its trial restore: {damage}"))
            .state("the result was recorded; the backups and the server are unchanged")
            .hint(format!(
                "check the disks of the cluster and of the repository; then make a new one: {BACK_UP}"
            )));
    }
    let compared = plan.held().iter().map(|held| held.contents.tables.len()).sum();
    let busy = plan.recorded.map(|recorded| recorded.busy).unwrap_or_default();
    Ok(Outcome { label: label.clone(), trial, compared, busy })
}

/// What it would do.
///
/// # Errors
/// As [`plan`].
pub fn dry_run(settings: &Settings, runtime: &dyn Runtime) -> Result<Plan> {
    look(settings, runtime).map(|(_, plan)| plan)
}

fn look(settings: &Settings, runtime: &dyn Runtime) -> Result<(Program, Plan)> {
    require_near(settings)?;
    let program = Program::find(&settings.backup, runtime.account().cloned())?;
    let plan = plan(settings, &program.info(&settings.backup.repository)?)?;
    Ok((program, plan))
}

/// pgBackRest finds files that are missing or have other checksums, the server WAL that does not fit.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Program | Kind::Server | Kind::Damaged)
}

fn is_there(program: &Program, settings: &Settings, label: &str) -> bool {
    let stanza = program.info(&settings.backup.repository);
    stanza.is_ok_and(|stanza| stanza.backup.iter().any(|backup| backup.label == label))
}
