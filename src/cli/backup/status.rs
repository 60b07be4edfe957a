//! `status`: is all well?

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use crate::backup::catalogue::{self, Entry};
use crate::backup::leftovers::{self, CLEAN};
use crate::backup::manifest::{Omitted, Trial};
use crate::backup::offsite::record::{DIRECTORY, Record};
use crate::backup::offsite::state::{self, State};
use crate::backup::status::{self, Status, Timer};
use crate::backup::{metrics, pgbackrest, start, store_of};
use crate::cli::At;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::place::Place;
use crate::postgres::{DataDirectory, Major};
use crate::report::{DecimalBytes, HumanCount, columns};
use crate::systemd::{self, Manager};

pub(super) fn status(settings: &Settings, server: Option<&Place>, json: bool) -> Result<ExitCode> {
    let status = now(settings)?;
    match (json, server) {
        (true, Some(server)) => crate::cli::print_json(&At { server, said: &status })?,
        (true, None) => crate::cli::print_json(&status)?,
        (false, _) => crate::cli::print(&in_words(&status, server))?,
    }
    Ok(match status.well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Kind::NotWell.exit_status()),
    })
}

/// How things are.
pub(super) fn now(settings: &Settings) -> Result<Status> {
    let store = store_of(&settings.backup);
    let entries = catalogue::list(&*store)?;
    let timer = timer(&settings.backup.timer);
    let free = store.free_space().ok();
    let zoned = ZonedDateTime::now();
    let now = zoned.timestamp();
    let found =
        leftovers::find(settings, &crate::cli::programs(settings), now).map_err(|error| error.to_string());
    let status = status::judge(&entries, settings, &timer, free, now).with_leftovers(found);
    // Of who may not look there, it is no concern.
    let kept = pgbackrest::restore::kept::find(settings, now).unwrap_or_default();
    let status = status.with_kept_clusters(kept);
    let targets = settings
        .offsite
        .iter()
        .map(|target| state::judge(target, &entries, Record::load(Path::new(DIRECTORY), target), &zoned));
    let status = status.with_offsite(targets.collect());
    let status = match settings.backup.engine.is_pgbackrest() {
        true => status.with_pgbackrest(pgbackrest(settings)),
        false => status,
    };
    let obstacle = obstacle(settings);
    let status =
        status.with_obstacle(obstacle.as_ref()).with_shadowed(&systemd::shadowed(settings.server.adopted()));
    let proc = Path::new("/proc");
    let is_here = settings.server.remote.is_none();
    let cluster = is_here.then(|| DataDirectory::read(&settings.data_directory, proc).ok()).flatten();
    let server = cluster.as_ref().and_then(|cluster| cluster.postmaster.as_ref());
    let is_replaced = server.is_some_and(|server| server.is_replaced(proc));
    let status = status.with_replaced_server(is_replaced, &settings.server.unit);
    Ok(status.with_version(version(cluster.as_ref(), &entries), now))
}

/// How the backups of pgBackRest are.
pub(super) fn pgbackrest(settings: &Settings) -> Result<pgbackrest::status::State> {
    pgbackrest::setup::require_near(settings)?;
    let facts = pgbackrest::status::gather(settings, &crate::cli::programs(settings))?;
    Ok(pgbackrest::status::judge(&facts, settings, Timestamp::now()))
}

/// Why there would be no backup now: the server does not run, and is not to be started.
fn obstacle(settings: &Settings) -> Option<Error> {
    if settings.backup.timer.is_empty() || !settings.connection().is_absent() {
        return None;
    }
    // That systemd cannot be asked is told with its timer.
    let manager = Manager::connect().ok()?;
    start::require_allowed(settings, &manager).err().filter(|error| error.kind() != Kind::NoBus)
}

/// That of the data directory, or, where there is none to be read, of the server that the newest backup is of.
fn version(found: Option<&DataDirectory>, entries: &[Entry]) -> Option<Major> {
    let backed_up =
        || entries.iter().rev().find_map(|entry| entry.manifest.as_ref().ok()?.server.major().ok());
    found.and_then(|found| found.contents.major()).or_else(backed_up)
}

/// For people, in the local time zone.
pub(super) fn in_words(status: &Status, server: Option<&Place>) -> String {
    describe(status, server, &TimeZone::system())
}

/// Writes the metrics, if they are wanted; that they cannot be is said, and fails nothing else.
pub(super) fn publish(settings: &Settings, status: &Status) {
    if let Some(file) = &settings.backup.metrics_file
        && let Err(error) = files::publish(file, &metrics::text(status))
    {
        log::warn!("{}", error.context("could not update the metrics").report());
    }
}

fn timer(unit: &str) -> Timer {
    if unit.is_empty() {
        return Timer::None;
    }
    let asked = Manager::connect().and_then(|manager| manager.timer(unit));
    match asked {
        Ok(timer) if !timer.is_active() => Timer::Inactive,
        Ok(timer) if timer.is_running() => Timer::Running,
        Ok(timer) => match timer.next_run {
            Some(time) => Timer::Next(time),
            None => Timer::Unknown("it is active, but has no next elapse".into()),
        },
        Err(error) => Timer::Unknown(error.to_string()),
    }
}

/// A target in a line.
fn offsite(State { target, backups, newest, age_seconds, missing, failure, .. }: &State) -> String {
    let newest = match (newest, age_seconds) {
        (Some(name), Some(age)) => format!("newest {name} ({} h {} min old)", age / 3600, age / 60 % 60),
        _ => "no backup yet".to_owned(),
    };
    let missing = match missing.len() {
        0 => String::new(),
        count => format!(", {count} to be sent"),
    };
    let failed = if failure.is_some() { ", FAILED" } else { "" };
    let s = if *backups == 1 { "" } else { "s" };
    format!("{target}: {backups} backup{s}, {newest}{missing}{failed}")
}

/// The backups of pgBackRest, and how far the archive is behind.
fn of_pgbackrest(
    state: &pgbackrest::status::State,
    local: &dyn Fn(Timestamp) -> String,
    line: &mut dyn FnMut(&str, String),
) {
    let newest = state.backups.iter().rfind(|backup| backup.present != Some(false));
    let newest = newest.map_or_else(
        || "no backup of the present cluster".to_owned(),
        |backup| {
            let verified = if backup.verified { "verified" } else { "NOT VERIFIED" };
            format!("newest {} ({}, {}), {verified}", backup.name, backup.kind, local(backup.time))
        },
    );
    let said = match state.backups.len() {
        // There are none, or they cannot be seen: that is among what is not well.
        0 => "no backup is known".to_owned(),
        number => format!("{number} backups, {newest}"),
    };
    line("pgbackrest", format!("stanza {}, {said}", state.stanza));
    if let (Some(seconds), Some(waiting)) = (state.lag_seconds, state.waiting) {
        let bytes = state.lag_bytes.map_or_else(|| "?".to_owned(), |bytes| DecimalBytes(bytes).to_string());
        line("archive lag", format!("{seconds} s, {bytes}, {waiting} segments waiting"));
    }
    if let (Some(segment), Some(time)) = (&state.last_segment, state.last_archived) {
        line("last segment", format!("{segment}, archived {}", local(time)));
    }
    for gap in &state.gaps {
        line("missing", gap.clone());
    }
    if let Some((label, trial)) = &state.newest_trial {
        line("last trial", tried(label, trial, local));
    }
}

/// A trial restore in a line.
fn tried(name: &dyn Display, trial: &Trial, local: &dyn Fn(Timestamp) -> String) -> String {
    let how = match (&trial.damage, &trial.not_taken) {
        (Some(_), _) => "FAILED",
        (None, Some(_)) => "is intact, but was not restored completely,",
        (None, None) => "passed",
    };
    format!("{name} {how} on {}, in {} s", local(trial.at), trial.seconds)
}

fn describe(status: &Status, server: Option<&Place>, zone: &TimeZone) -> String {
    let local =
        |time: Timestamp| time.to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string();
    let mut rows = Vec::new();
    let mut line = |name: &str, value: String| rows.push(vec![format!("{name}:"), value]);
    if let Some(server) = server {
        line("server", server.to_string());
    }
    line("state", if status.well { "ok".into() } else { "PROBLEM".into() });
    if let Some(newest) = &status.newest {
        let hours = newest.age_seconds / 3600;
        line(
            "newest",
            format!(
                "{} ({}, {hours} h {} min old)",
                newest.name,
                local(newest.time),
                newest.age_seconds / 60 % 60
            ),
        );
        line("size", newest.bytes.map_or_else(|| "?".into(), |bytes| DecimalBytes(bytes).to_string()));
        line(
            "read back",
            match (newest.verified, newest.rows) {
                (true, Some(rows)) => format!("yes, {} rows", HumanCount(rows)),
                (true, None) => "yes".into(),
                (false, _) => "no".into(),
            },
        );
    }
    if let Some(free) = status.free_bytes {
        line("free space", DecimalBytes(free).to_string());
    }
    if let Some((name, trial)) = &status.newest_trial {
        line("last trial", tried(name, trial, &local));
    }
    for Omitted { name, reason } in &status.omitted {
        line("omitted", format!("database {name:?}: {reason}"));
    }
    for leftover in &status.leftovers {
        line("leftover", format!("{leftover}; to remove: {CLEAN}"));
    }
    for kept in &status.kept_clusters {
        line("leftover", format!("{kept}; to remove: {CLEAN}"));
    }
    if let Some(reason) = &status.leftovers_unknown {
        line("leftovers", format!("unknown: {reason}"));
    }
    line("backups", status.backups.to_string());
    for target in &status.offsite {
        line("offsite", offsite(target));
    }
    if let Some(state) = &status.pgbackrest {
        of_pgbackrest(state, &local, &mut line);
    }
    line("next run", status.next_run.map_or_else(|| "none".into(), local));
    let mut text = columns(&rows);
    for warning in &status.warnings {
        let _ = write!(text, "\nwarning: {warning}");
    }
    for problem in &status.problems {
        let _ = write!(text, "\n{problem}");
    }
    if let Some(hint) = &status.hint {
        let _ = write!(text, "\nHINT: {hint}");
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
