//! `run`: makes a backup.

use jiff::{Timestamp, ZonedDateTime};

use super::status;
use crate::backup::companions::Bundle;
use crate::backup::{pgbackrest, run};
use crate::config::Settings;
use crate::error::Result;
use crate::report::{self, event};
use crate::runtime::interrupt;
use crate::systemd::notify;

pub(super) fn dry_run(settings: &Settings) -> Result<()> {
    settings.require_apart()?;
    let programs = crate::cli::programs(settings);
    if settings.backup.engine.is_pgbackrest() {
        pgbackrest::setup::require_near(settings)?;
        let kind = pgbackrest::run::dry_run(settings, &programs)?;
        crate::cli::print(&format!("backup by pgBackRest of stanza {:?}: {kind}\n", settings.backup.stanza))?;
    }
    if !settings.backup.engine.dumps() {
        return Ok(());
    }
    let plan = run::dry_run(settings, &programs, Timestamp::now())?;
    crate::cli::print(&format!("{plan}\n"))
}

/// Makes a backup with these companions.
pub(super) fn run(settings: &Settings, companions: Bundle) -> Result<()> {
    settings.require_apart()?;
    interrupt::listen()?;
    notify::status("preparing");
    let mut progress = report::progress(crate::cli::on_terminal());
    let programs = crate::cli::programs(settings);
    let engine = settings.backup.engine;
    let mut outcomes = Vec::new();
    if engine.dumps() {
        let made = run::run(settings, &programs, companions, progress.as_mut(), &ZonedDateTime::now());
        outcomes.push(made.map(|outcome| outcome.summary()));
    }
    // That one engine has failed keeps the other from nothing.
    if engine.is_pgbackrest() && interrupt::check().is_ok() {
        let made = pgbackrest::run::run(settings, &programs, progress.as_mut());
        outcomes.push(made.map(|outcome| outcome.summary()));
    }
    // Neither good nor bad news is kept from those who watch.
    if let Ok(status) = status::now(settings) {
        status::publish(settings, &status);
        for problem in &status.problems {
            log::warn!(MESSAGE_ID = event::NOT_WELL; "{problem}");
        }
    }
    notify::status(&told(outcomes)?);
    Ok(())
}

/// What was made, or the first failure; others are logged.
fn told(outcomes: Vec<Result<String>>) -> Result<String> {
    let (mut made, mut failed) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(summary) => made.push(summary),
            Err(error) => failed.push(error),
        }
    }
    let mut failed = failed.into_iter();
    let first = failed.next();
    failed.for_each(|error| log::error!("{}", error.report()));
    first.map_or_else(|| Ok(made.join("; ")), Err)
}
