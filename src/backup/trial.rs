//! A backup restored into a server that is made for it and thrown away: the proof that it can be.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::catalogue::Entry;
use super::compare::{Expected, differences};
use super::globals::Globals;
use super::manifest::{DatabaseDump, Manifest, Trial};
use super::missing;
use super::name::BackupName;
use super::scratch::{Need, Scratch, check_space};
use super::source::{self, Source};
use super::target::{Authority, RefusedRows, Target};
use super::{load, making, read_back};
use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::Tablespaces;
use crate::postgres::{
    self, Connection, HOME, Libraries, Major, PrivateServer, Properties, Purpose, Session, Startup, initdb,
};
use crate::report::{DecimalBytes, Progress};
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
            "  disk space needed there: about {}; everything is removed afterwards",
            DecimalBytes(self.need().bytes)
        )
    }
}

/// Carries the trial out and records the result, good or bad, in the backup's manifest.
///
/// # Errors
/// [`Kind::Damaged`] and [`Kind::NotTaken`], once that is recorded; others when the trial could not be held, and nothing is recorded.
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
    let (damage, not_taken) = match &result {
        Ok(()) => (None, None),
        Err(error) if error.kind() == Kind::Damaged => (Some(error.one_line()), None),
        Err(error) if error.kind() == Kind::NotTaken => (None, Some(error.one_line())),
        Err(_) => return Err(result.err().unwrap_or_else(|| Error::new(Kind::Bug, "no error"))),
    };
    let seconds = clock.elapsed().as_secs();
    let trial = Trial { at: Timestamp::now(), seconds, server_version: version, damage, not_taken };
    // It may have been read back meanwhile.
    let mut manifest = Manifest::load(source.files)?;
    manifest.trial = Some(trial.clone());
    manifest.save(source.files)?;
    result.map(|()| trial).map_err(|error| match error.kind() {
        Kind::NotTaken => error
            .context(format!("backup {} is intact, but cannot be restored completely", plan.name))
            .state("the result was recorded in the manifest; a new backup would have the same problem"),
        _ => error
            .context(format!("backup {} failed its trial restore", plan.name))
            .state("the result was recorded in the manifest; older backups and the server are unchanged")
            .hint("make a new one: systemctl start matrix-postgres-backup.service"),
    })
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
    let globals = Globals::parse(&source::text(source, &manifest.globals)?)?;
    progress.begin("initialising a server for the trial restore", None);
    let data = scratch.path().join("data");
    let superuser = superuser(settings, manifest);
    output(runtime.command(plan.major, &initdb::throw_away(&data, superuser))?, "initdb", &[])?;
    let connection = Connection::new(scratch.path(), settings.server.port, superuser).to_server(plan.major);
    let account = Account::current();
    let startup = Startup::new(Purpose::Trial, plan.major, &libraries(manifest));
    let server = PrivateServer::start(runtime, plan.major, &data, &connection, &account, &startup, START)
        .map_err(|error| without_libraries(error, runtime, plan.major, manifest))?;
    let session = Session { runtime, major: plan.major, connection: &connection };
    version.clone_from(&postgres::server_facts(&session)?.version);
    progress.end();

    let mut found =
        Found { differences: missing_roles(&session, &globals, superuser)?, not_taken: Vec::new() };
    for number in 0..manifest.databases.len() {
        found.restore(&session, source, number, scratch, progress)?;
    }
    server.stop()?;
    found.judge()
}

/// Who makes everything in the server: the one whose role the backup has as a superuser, too, or one that it does not have.
fn superuser<'a>(settings: &'a Settings, manifest: &Manifest) -> &'a str {
    if manifest.without_passwords { "matrix-postgres-trial" } else { &settings.server.superuser }
}

/// Restores the roles; which of them are not there afterwards.
fn missing_roles(session: &Session<'_>, globals: &Globals, superuser: &str) -> Result<Vec<String>> {
    let refused = |error: Error| match error.kind() {
        Kind::Server => error.with_kind(Kind::NotTaken).context("the roles could not be restored"),
        _ => error,
    };
    session.execute_foreign(HOME, &globals.for_server(&[superuser.to_owned()])).map_err(refused)?;
    let roles = postgres::roles(session)?;
    let missing = globals.role_names().into_iter().filter(|role| !roles.contains(role));
    Ok(missing.map(|role| format!("role {role:?} is missing")).collect())
}

/// What a trial restore has found so far.
struct Found {
    /// Between the backup and the restored databases.
    differences: Vec<String>,
    /// What the server rejects.
    not_taken: Vec<Error>,
}

impl Found {
    /// Restores one database, and compares it.
    fn restore(
        &mut self,
        session: &Session<'_>,
        source: Source<'_>,
        number: usize,
        scratch: &Scratch,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (name, dump) = (trial_name(number), &source.manifest.databases[number]);
        let shown = &dump.database.name;
        let properties = Properties { tablespace: None, ..dump.properties.clone() };
        session
            .execute(HOME, &making::create(&name, &dump.database, &properties, session.major))
            .and_then(|()| session.execute(HOME, &making::dress(&name, &dump.database, &dump.properties)))
            .map_err(|error| {
                let message = format!("database {shown:?} could not be created with its properties");
                error.with_kind(Kind::NotTaken).context(message)
            })?;
        let target = Target {
            session,
            name: &name,
            shown,
            tablespaces: Tablespaces::Default,
            scratch,
            authority: Authority::Owner,
            without: &[],
            refused_rows: RefusedRows::Skip,
        };
        let missing = match load::load(&target, source, dump, progress) {
            Ok(missing) => {
                let told = missing::told(&missing);
                self.not_taken.extend(told.map(|error| error.context(format!("database {shown:?}"))));
                missing
            }
            // A configuration error: only a superuser could load something, if functions may run with its privileges.
            Err(error) if matches!(error.kind(), Kind::NotTaken | Kind::Config) => {
                progress.end();
                self.not_taken.push(error.with_kind(Kind::NotTaken));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let contents = missing::without_empty(dump.contents.clone().unwrap_or_default(), &missing);
        let expected = Expected {
            database: Some(&dump.database),
            contents: &contents,
            extensions: &dump.properties.extensions,
        };
        progress.begin(&format!("comparing {shown}"), None);
        let differences = differences(session, &name, &expected)?;
        progress.end();
        self.differences.extend(differences.into_iter().map(|text| format!("database {shown:?}: {text}")));
        Ok(())
    }

    fn judge(self) -> Result<()> {
        if !self.differences.is_empty() {
            return Err(Error::new(Kind::Damaged, self.differences.join("; ")));
        }
        let mut not_taken = self.not_taken.into_iter();
        let Some(first) = not_taken.next() else { return Ok(()) };
        not_taken.for_each(|other| log::error!("{}", other.report()));
        Err(first)
    }
}

/// What the server loads: the databases have other names there.
fn libraries(manifest: &Manifest) -> Libraries {
    let mut libraries = manifest.libraries.clone().named_only();
    for (name, value) in &mut libraries.settings {
        let is_its = |dump: &DatabaseDump| dump.database.name == *value;
        let names_one = name.contains("database") || name.contains("dbname");
        if let Some(number) = manifest.databases.iter().position(is_its).filter(|_| names_one) {
            *value = trial_name(number);
        }
    }
    libraries
}

/// `postgres` and `template1` are there already; names do not matter to what is in a database.
fn trial_name(number: usize) -> String {
    format!("trial_{number}")
}

/// A server does not start without the libraries that it is to load.
fn without_libraries(error: Error, runtime: &dyn Runtime, major: Major, manifest: &Manifest) -> Error {
    let libraries = &manifest.libraries.made;
    let missing: Vec<_> = libraries
        .iter()
        .filter(|library| runtime.has_library(major, library) == Some(false))
        .cloned()
        .collect();
    match missing.is_empty() {
        true => error,
        false => error.hint(format!(
            "install for PostgreSQL {major}, as on the server that was backed up: {}",
            missing.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_it_needs() {
        let plan = Plan {
            name: "20261124T030000Z".parse().unwrap(),
            from: "15.18".into(),
            major: Major(17),
            scratch: "/var/tmp/x".into(),
            databases: vec![("homeserver".into(), 2_000_000_000)],
        };
        assert_eq!(
            plan.to_string(),
            "trial restore of backup 20261124T030000Z (PostgreSQL 15.18)\n  \
             into a new server of PostgreSQL 17 in /var/tmp/x\n  database \"homeserver\", 2.00 GB on disk\n  \
             disk space needed there: about 3.50 GB; everything is removed afterwards"
        );
    }
}
