//! `matrix-postgres-backup`

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{DecimalBytes, HumanCount};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::geteuid;
use serde::Serialize;

use super::table::columns;
use crate::account::Account;
use crate::backup::catalogue::{self, Entry};
use crate::backup::manifest::Manifest;
use crate::backup::status::{self, Status, Timer};
use crate::backup::{create, directory, run};
use crate::config::{self, Settings};
use crate::error::{Kind, Result};
use crate::lock::Lock;
use crate::report;
use crate::runtime::interrupt;
use crate::systemd::{Manager, notify};

/// Back up every database of the server: dumped, synced, and read back whole.
///
/// Backups are directories named by the UTC time at which they were begun, each with a manifest.json, the
/// roles in globals.sql.zst, and one file for each database that the stock pg_restore reads after
/// `zstd -d` (or, by configuration, zcat and psql).
///
/// Exit status: 0 when all is well, 2 for wrong arguments, 25 and up by the kind of failure; see
/// matrix-postgres-backup(1).
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres-backup", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/matrix-postgres/config.toml, then config.d/*.toml beside it]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a backup and read it back (what happens without a verb)
    Run {
        /// Print what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the backups
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a backup back whole, and record the result
    Verify {
        /// Its name; the newest if none is given
        name: Option<String>,
        /// Print what would be read, and read nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Tell whether all is well; exit status 0 only if it is
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Carries out the verb.
///
/// # Errors
/// See the verbs.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let settings = config::load(arguments.config.as_deref())?;
    become_owner(&settings)?;
    match arguments.verb.unwrap_or(Verb::Run { dry_run: false }) {
        Verb::Run { dry_run: true } => {
            let plan = run::dry_run(&settings, &super::host(), Timestamp::now())?;
            super::print(&format!("{plan}\n"))?;
        }
        Verb::Run { dry_run: false } => make(&settings)?,
        Verb::List { json } => list(&settings, json)?,
        Verb::Verify { name, dry_run } => verify(&settings, name.as_deref(), dry_run)?,
        Verb::Status { json } => return status(&settings, json),
    }
    Ok(ExitCode::SUCCESS)
}

/// By hand it is run as root, by systemd as the service's user: the files belong to the latter either way.
fn become_owner(settings: &Settings) -> Result<()> {
    match settings.backup.directory.metadata() {
        Ok(meta) if geteuid().is_root() => Account::of(meta.uid(), meta.gid()).assume(),
        _ => Ok(()),
    }
}

fn make(settings: &Settings) -> Result<()> {
    interrupt::listen()?;
    notify::status("preparing");
    let mut progress = report::progress(super::on_terminal());
    let outcome = run::run(settings, &super::host(), progress.as_mut(), Timestamp::now())?;
    notify::status(&outcome.summary());
    Ok(())
}

fn verify(settings: &Settings, name: Option<&str>, dry_run: bool) -> Result<()> {
    let backups = &settings.backup.directory;
    let Entry { name, path, manifest } = catalogue::find(backups, name)?;
    let manifest = manifest?;
    if dry_run {
        return super::print(&format!("read back {} ({})\n", path.display(), DecimalBytes(manifest.bytes())));
    }
    interrupt::listen()?;
    directory::check(backups)?;
    let _lock = Lock::take(&settings.state_directory, "verification of a backup", Timestamp::now())?;
    let mut progress = report::progress(super::on_terminal());
    let manifest = create::verify(&path, manifest, &super::host(), progress.as_mut())?;
    log::info!("backup {name} is whole: {} rows", HumanCount(manifest.rows().unwrap_or(0)));
    Ok(())
}

/// A line of `list --json`. Keys are only ever added.
#[derive(Serialize)]
struct Listed<'a> {
    name: String,
    time: Timestamp,
    path: &'a PathBuf,
    verified: bool,
    bytes: Option<u64>,
    rows: Option<u64>,
    server_version: Option<&'a str>,
    databases: Vec<&'a str>,
    problem: Option<String>,
}

fn list(settings: &Settings, json: bool) -> Result<()> {
    let entries = catalogue::list(&settings.backup.directory)?;
    if json {
        return super::print_json(&entries.iter().map(listed).collect::<Vec<_>>());
    }
    if entries.is_empty() {
        return super::print(&format!("no backups in {}\n", settings.backup.directory.display()));
    }
    let zone = TimeZone::system();
    let heading = ["NAME", "BEGUN", "SIZE", "DATABASES", "ROWS", "READ BACK"].map(str::to_owned).to_vec();
    let rows = entries.iter().map(|entry| row(entry, &zone));
    super::print(&columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()))
}

fn listed(entry: &Entry) -> Listed<'_> {
    let manifest = entry.manifest.as_ref().ok();
    Listed {
        name: entry.name.to_string(),
        time: entry.name.time(),
        path: &entry.path,
        verified: entry.is_verified(),
        bytes: manifest.map(Manifest::bytes),
        rows: manifest.and_then(Manifest::rows),
        server_version: manifest.map(|manifest| manifest.server.version.as_str()),
        databases: manifest
            .map(|manifest| manifest.databases.iter().map(|dump| dump.database.name.as_str()).collect())
            .unwrap_or_default(),
        problem: entry.problem(),
    }
}

fn row(entry: &Entry, zone: &TimeZone) -> Vec<String> {
    let begun = entry.name.time().to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d %H:%M").to_string();
    let cells = match &entry.manifest {
        Ok(manifest) => [
            DecimalBytes(manifest.bytes()).to_string(),
            manifest.databases.len().to_string(),
            manifest.rows().map_or_else(|| "?".into(), |rows| HumanCount(rows).to_string()),
            match (entry.is_verified(), manifest.read_back.is_some()) {
                (true, _) => "yes",
                (false, true) => "DAMAGED",
                (false, false) => "no",
            }
            .to_owned(),
        ],
        Err(_) => ["?".into(), "?".into(), "?".into(), "UNREADABLE".into()],
    };
    [entry.name.to_string(), begun].into_iter().chain(cells).collect()
}

fn status(settings: &Settings, json: bool) -> Result<ExitCode> {
    let entries = catalogue::list(&settings.backup.directory)?;
    let timer = timer(&settings.backup.timer);
    let status = status::judge(&entries, settings.backup.max_age, &timer, Timestamp::now());
    match json {
        true => super::print_json(&status)?,
        false => super::print(&describe(&status, &TimeZone::system()))?,
    }
    Ok(match status.well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Kind::NotWell.exit_status()),
    })
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
            None => Timer::Unknown("it is active, and names no time".into()),
        },
        Err(error) => Timer::Unknown(error.to_string()),
    }
}

fn describe(status: &Status, zone: &TimeZone) -> String {
    let local =
        |time: Timestamp| time.to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string();
    let mut rows = Vec::new();
    let mut line = |name: &str, value: String| rows.push(vec![format!("{name}:"), value]);
    line("state", if status.well { "all is well".into() } else { "NOT WELL".into() });
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
    line("backups", status.backups.to_string());
    line("next run", status.next_run.map_or_else(|| "none".into(), local));
    let mut text = columns(&rows);
    for problem in &status.problems {
        let _ = write!(text, "\n{problem}");
    }
    if let Some(hint) = &status.hint {
        let _ = write!(text, "\nHINT: {hint}");
    }
    if !status.well {
        text.push('\n');
    }
    text
}
