//! A backup restored into a server that is made for it and thrown away: the proof that it can be.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::DecimalBytes;
use jiff::Timestamp;
use nix::unistd::{getegid, geteuid};

use super::catalogue::Entry;
use super::compare::{Expected, differences};
use super::globals::Globals;
use super::load::{Source, Target};
use super::manifest::{Manifest, Trial};
use super::name::BackupName;
use super::scratch::{Need, Scratch, check_space};
use super::{load, making, read_back};
use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::pg_restore::Tablespaces;
use crate::postgres::{self, Connection, Major, PrivateServer, Session, initdb};
use crate::report::Progress;
use crate::runtime::{Runtime, output};

/// How long an empty server may take to start.
const START: Duration = Duration::from_secs(120);

/// Room for what a server has besides databases: its own catalog, and the log of what is written.
const OVERHEAD: u64 = 1_500_000_000;

/// What a trial will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backup.
    pub name: BackupName,
    /// Where it is.
    pub backup: PathBuf,
    /// The server that it was taken from.
    pub from: String,
    /// The major version of the server that is made for it.
    pub major: Major,
    /// Where that is made.
    pub scratch: PathBuf,
    /// The databases that are restored, with their sizes.
    pub databases: Vec<(String, u64)>,
}

/// The plan for a trial of this backup.
///
/// # Errors
/// [`Kind::Damaged`] if its manifest cannot be trusted.
pub fn plan(settings: &Settings, runtime: &dyn Runtime, entry: &Entry, manifest: &Manifest) -> Result<Plan> {
    Ok(Plan {
        name: entry.name,
        backup: entry.path.clone(),
        from: manifest.server.version.clone(),
        major: read_back::restoring_major(runtime, manifest.server.major()?),
        scratch: settings.backup.scratch_directory.clone(),
        databases: manifest
            .databases
            .iter()
            .map(|dump| (dump.database.name.clone(), dump.database.size))
            .collect(),
    })
}

impl Plan {
    fn need(&self) -> Need {
        let databases: u64 = self.databases.iter().map(|(_, size)| size).sum();
        Need { path: self.scratch.clone(), bytes: databases + OVERHEAD }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "trial restore of backup {} (PostgreSQL {})", self.name, self.from)?;
        writeln!(f, "  into a new server of PostgreSQL {} in {}", self.major, self.scratch.display())?;
        for (name, size) in &self.databases {
            writeln!(f, "  database {name:?}, {} on disk", DecimalBytes(*size))?;
        }
        write!(
            f,
            "  about {} are needed there; afterwards all of it is removed",
            DecimalBytes(self.need().bytes)
        )
    }
}

/// Carries the trial out and records the result, good or bad, in the backup's manifest.
///
/// # Errors
/// [`Kind::Damaged`], once that is recorded; others when the trial could not be held, and nothing is recorded.
pub fn carry_out(
    settings: &Settings,
    runtime: &dyn Runtime,
    plan: &Plan,
    source: Source<'_>,
    progress: &mut dyn Progress,
) -> Result<Trial> {
    let clock = Instant::now();
    let scratch = Scratch::make(&plan.scratch)?;
    check_space(&[plan.need()])?;
    let mut version = format!("{}", plan.major);
    let result = hold(settings, runtime, plan, source, &scratch, &mut version, progress);
    drop(scratch);
    let damage = match &result {
        Ok(()) => None,
        Err(error) if error.kind() == Kind::Damaged => Some(reason(error)),
        Err(_) => return Err(result.err().unwrap_or_else(|| Error::new(Kind::Bug, "no error"))),
    };
    let trial =
        Trial { at: Timestamp::now(), seconds: clock.elapsed().as_secs(), server_version: version, damage };
    // It may have been read back meanwhile.
    let mut manifest = Manifest::load(&plan.backup)?;
    manifest.trial = Some(trial.clone());
    manifest.save(&plan.backup)?;
    result.map(|()| trial).map_err(|error| {
        error
            .context(format!("backup {} failed its trial restore", plan.name))
            .state("this is recorded in the backup; older ones, and the server, are as they were")
            .hint("make a new one: systemctl start matrix-postgres-backup.service")
    })
}

/// The message and the last line of what is behind it, for the manifest.
fn reason(error: &Error) -> String {
    let report = error.report();
    let lines: Vec<_> = report.lines().filter(|line| !line.starts_with("HINT:")).take(6).collect();
    lines.join("; ").replace(" -> ", "")
}

fn hold(
    settings: &Settings,
    runtime: &dyn Runtime,
    plan: &Plan,
    source: Source<'_>,
    scratch: &Scratch,
    version: &mut String,
    progress: &mut dyn Progress,
) -> Result<()> {
    let manifest = source.manifest;
    let globals = Globals::parse(&load::text(source, &manifest.globals)?)?;
    progress.begin("making a server for the trial", None);
    let data = scratch.path().join("data");
    let superuser = &settings.server.superuser;
    output(runtime.command(plan.major, &initdb::throw_away(&data, superuser))?, "initdb", &[])?;
    let conf = data.join("postgresql.auto.conf");
    std::fs::write(&conf, SETTINGS).at("write", &conf)?;
    let connection = Connection::new(scratch.path(), settings.server.port, superuser).to_server(plan.major);
    let account = Account::of(geteuid().as_raw(), getegid().as_raw());
    let server = PrivateServer::start(runtime, plan.major, &data, &connection, &account, START)?;
    let session = Session { runtime, major: plan.major, connection: &connection };
    version.clone_from(&postgres::server_facts(&session)?.version);
    progress.end();
    let bad = |error: Error| match error.kind() {
        Kind::Server => error.with_kind(Kind::Damaged).context("the roles could not be restored"),
        _ => error,
    };
    session.execute_foreign("postgres", &globals.for_server(std::slice::from_ref(superuser))).map_err(bad)?;
    let roles = postgres::roles(&session)?;
    let mut found: Vec<_> = globals
        .role_names()
        .into_iter()
        .filter(|role| !roles.contains(role))
        .map(|role| format!("role {role:?} is missing"))
        .collect();
    for (number, dump) in manifest.databases.iter().enumerate() {
        // `postgres` and `template1` are there already; names do not matter to what is in a database.
        let name = format!("trial_{number}");
        session
            .execute("postgres", &making::create(&name, &dump.database, &dump.properties, plan.major))
            .and_then(|()| {
                session.execute("postgres", &making::dress(&name, &dump.database, &dump.properties))
            })
            .map_err(|error| {
                error
                    .with_kind(Kind::Damaged)
                    .context(format!("database {:?} could not be made as it was", dump.database.name))
            })?;
        let target = Target {
            session: &session,
            name: &name,
            shown: &dump.database.name,
            tablespaces: Tablespaces::Default,
            scratch,
        };
        load::load(&target, source, dump, progress)?;
        let contents = dump.contents.clone().unwrap_or_default();
        let expected = Expected {
            database: Some(&dump.database),
            contents: &contents,
            extensions: &dump.properties.extensions,
        };
        progress.begin(&format!("comparing {}", dump.database.name), None);
        let differences = differences(&session, &name, &expected)?;
        progress.end();
        found
            .extend(differences.into_iter().map(|text| format!("database {:?}: {text}", dump.database.name)));
    }
    server.stop()?;
    match found.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Kind::Damaged, found.join("; "))),
    }
}

/// Nothing of this server is to last, and nobody but us is there (chapter "Populating a Database"). Without
/// `jit`, for a hardened unit may not write code; without huge pages, whose number it may not read.
const SETTINGS: &str = "\
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
archive_mode = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
checkpoint_timeout = 1h
shared_buffers = 256MB
huge_pages = off
jit = off
logging_collector = off
unix_socket_permissions = 0700
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_it_needs() {
        let plan = Plan {
            name: "20261124T030000Z".parse().unwrap(),
            backup: "/b/20261124T030000Z".into(),
            from: "15.18".into(),
            major: Major(17),
            scratch: "/var/tmp/x".into(),
            databases: vec![("homeserver".into(), 2_000_000_000)],
        };
        assert_eq!(
            plan.to_string(),
            "trial restore of backup 20261124T030000Z (PostgreSQL 15.18)\n  \
             into a new server of PostgreSQL 17 in /var/tmp/x\n  database \"homeserver\", 2.00 GB on disk\n  \
             about 3.50 GB are needed there; afterwards all of it is removed"
        );
    }
}
