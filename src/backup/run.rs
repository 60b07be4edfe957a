//! `run` from its first check to the report: nothing is started before the checks have passed, and what was
//! not running before does not run afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ZonedDateTime};

use super::companions::Bundle;
use super::engine::{Dumps, Engine};
use super::manifest::{Manifest, Omission, Omitted};
use super::plan::{Facts, Plan, plan};
use super::store::Store;
use super::{catalogue, create, encryption, leftovers, prune, start};
use crate::archive::Encryption;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::place::introduce;
use crate::postgres::{self, Connection, Contents, DataDirectory, Database, HOME, Session};
use crate::report::{DecimalBytes, HumanCount, Progress, event};
use crate::runtime::Runtime;
use crate::systemd::{self, Manager, Started};

/// A finished run.
#[derive(Debug)]
pub struct Outcome {
    /// What was written, with the rows that were counted.
    pub manifest: Manifest,
    /// Until the backup had its name.
    pub dump_time: Duration,
    /// To read it back.
    pub read_back_time: Duration,
    /// How many older backups were removed then.
    pub pruned: usize,
}

/// Makes a backup with these companions, reads it back, and removes older ones that no rule keeps.
///
/// # Errors
/// Every kind; each names the state things are in.
pub fn run(
    settings: &Settings,
    runtime: &dyn Runtime,
    companions: Bundle,
    progress: &mut dyn Progress,
    now: &ZonedDateTime,
) -> Result<Outcome> {
    let engine = Dumps::new(settings, runtime);
    let store = engine.store();
    store.check()?;
    let encryption = encryption::prepare(&settings.backup)?;
    let _lock = Lock::take(settings, "backup")?;
    let settings = &introduce(settings, runtime, settings.wait)
        .map_err(|error| error.state("nothing was started, and no backup was made"))?;
    let engine = Dumps::new(settings, runtime);
    let store = engine.store();
    for shadowed in systemd::shadowed(settings.server.adopted()) {
        log::warn!("{shadowed}: {}", shadowed.hint());
    }
    for name in create::remove_partial(store)? {
        log::warn!("removed an unfinished backup of {name}, which was interrupted");
    }
    let server = Server::reach(settings, runtime)?;
    let done = server.facts(store, encryption).and_then(|facts| {
        let plan = plan(&settings.backup, facts, now.timestamp());
        for Omitted { name, reason } in &plan.omitted {
            let level = if *reason == Omission::Excluded { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "database {name:?} is not backed up: {reason}");
        }
        plan.check_space()?;
        match &plan.expected {
            Some(expected) => log::info!("backup {} started: {expected}, as last time", plan.name),
            None => log::info!("backup {} started", plan.name),
        }
        carry_out(&engine, &server.connection, &plan, companions, progress)
    });
    let is_external = settings.server.remote.is_some();
    let done = done.map_err(|error| match catalogue::list(store) {
        Ok(list) => {
            let earlier = catalogue::split(&list, now.timestamp()).0;
            with_hint(error.state(earlier_backups(earlier)), store.path(), is_external)
        }
        Err(_) => with_hint(error, store.path(), is_external),
    });
    // Not the other way round: what it says of a server that still runs must not be written over.
    let mut outcome = server.leave(done)?;
    outcome.pruned = prune_after(store, settings, &outcome, now)?;
    Ok(outcome)
}

/// What to do next, where nobody knew better.
fn with_hint(error: Error, backups: &Path, is_external: bool) -> Error {
    const AGAIN: &str = "systemctl start matrix-postgres-backup.service";
    match error.kind() {
        Kind::Program if is_external => error.hint(format!("check the log of the server; then {AGAIN}")),
        Kind::NoSpace => error.hint(format!("df -h {}; free space there, then {AGAIN}", backups.display())),
        Kind::Interrupted => error.hint(format!("to start again: {AGAIN}")),
        Kind::Program => error.hint(format!(
            "check the log of the server: journalctl --unit=matrix-postgres.service; then {AGAIN}"
        )),
        _ => error,
    }
}

/// Only a verified backup makes room for itself.
fn prune_after(
    store: &dyn Store,
    settings: &Settings,
    outcome: &Outcome,
    now: &ZonedDateTime,
) -> Result<usize> {
    let removed =
        prune::plan(store, &settings.backup.keep, now).and_then(|plan| prune::carry_out(store, &plan));
    removed.map(|removed| removed.len()).map_err(|error| {
        error.context("could not remove old backups").state(format!(
            "backup {} is complete and was read back; old backups were not removed",
            outcome.manifest.name
        ))
    })
}

/// The plan for a backup now, without making it.
///
/// # Errors
/// [`Kind::Server`] if no server runs: it is not started for a plan.
pub fn dry_run(settings: &Settings, runtime: &dyn Runtime, now: Timestamp) -> Result<Plan> {
    let store = &*super::store_of(&settings.backup);
    store.check()?;
    let encryption = encryption::prepare(&settings.backup)?;
    let settings = &introduce(settings, runtime, Duration::ZERO)?;
    let server = Server::running(settings, runtime)?;
    server.facts(store, encryption).map(|facts| plan(&settings.backup, facts, now))
}

fn carry_out(
    engine: &dyn Engine,
    connection: &Connection,
    plan: &Plan,
    companions: Bundle,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let clock = Instant::now();
    let manifest = engine.create(connection, plan, companions, progress)?;
    let dump_time = clock.elapsed();
    let files = engine.store().within(&plan.name.to_string());
    let manifest = engine.verify(&*files, manifest, progress)?;
    let read_back_time = clock.elapsed().saturating_sub(dump_time);
    let outcome = Outcome { manifest, dump_time, read_back_time, pruned: 0 };
    log::info!(
        MESSAGE_ID = event::COMPLETE,
        BACKUP:display = outcome.manifest.name,
        BYTES = outcome.manifest.bytes(),
        ROWS = outcome.manifest.rows().unwrap_or(0);
        "{}", outcome.summary()
    );
    Ok(outcome)
}

impl Outcome {
    /// The run in a sentence.
    pub fn summary(&self) -> String {
        let databases = self.manifest.databases.len();
        let encrypted = match &self.manifest.encryption {
            Some(encryption) => format!(" encrypted with {}", encryption.method.program()),
            None => String::new(),
        };
        let missing = self.manifest.missing();
        let complete = match missing.is_empty() {
            true => "complete".to_owned(),
            false => format!("verified, but not complete, without {}", missing.join(", ")),
        };
        format!(
            "backup {} is {complete}: {databases} database{}, {}{encrypted}; dumped in {:.1} s, read back in {:.1} s, {} rows",
            self.manifest.name,
            if databases == 1 { "" } else { "s" },
            DecimalBytes(self.manifest.bytes()),
            self.dump_time.as_secs_f64(),
            self.read_back_time.as_secs_f64(),
            HumanCount(self.manifest.rows().unwrap_or(0)),
        )
    }
}

fn earlier_backups(list: &[catalogue::Entry]) -> String {
    match list.iter().rev().find(|entry| entry.is_verified()) {
        Some(entry) => {
            format!("the data of the server was only read; the newest verified backup is {}", entry.name)
        }
        None => "the data of the server was only read; there is no verified backup yet".to_owned(),
    }
}

/// The server that is backed up.
pub(super) struct Server<'a> {
    runtime: &'a dyn Runtime,
    connection: Connection,
    /// If it was started for this.
    started: Option<Started>,
}

impl<'a> Server<'a> {
    fn new(settings: &'a Settings, runtime: &'a dyn Runtime) -> Self {
        let connection = settings.connection();
        Self { runtime, connection, started: None }
    }

    /// A server that runs already.
    pub(super) fn running(settings: &'a Settings, runtime: &'a dyn Runtime) -> Result<Self> {
        let server = Self::new(settings, runtime);
        server.session()?.execute(HOME, "SELECT 1;")?;
        Ok(server)
    }

    /// The server, started if it does not run.
    pub(super) fn reach(settings: &'a Settings, runtime: &'a dyn Runtime) -> Result<Self> {
        let mut server = Self::new(settings, runtime);
        if !server.connection.is_absent() {
            return Self::running(settings, runtime);
        }
        check_cluster(&settings.data_directory)?;
        let unit = &settings.server.unit;
        let manager = Manager::connect()?;
        let nothing = "nothing was started, and no backup was made";
        start::require_allowed(settings, &manager).map_err(|error| error.state(nothing))?;
        log::info!("the server is not running: starting {unit} for the backup");
        server.started = Some(Started::ensure(&manager, unit, settings.server.start_timeout)?);
        Ok(server)
    }

    pub(super) fn session(&self) -> Result<Session<'_>> {
        // psql of any version talks to any server.
        let major = *self.runtime.majors().last().ok_or_else(|| {
            Error::new(Kind::NotInstalled, "no PostgreSQL is installed").hint("apt-get install postgresql")
        })?;
        Ok(Session { runtime: self.runtime, major, connection: &self.connection })
    }

    fn facts(&self, store: &dyn Store, encryption: Option<Encryption>) -> Result<Facts> {
        let session = self.session()?;
        let databases = postgres::databases(&session)?;
        Ok(Facts {
            server: postgres::server_facts(&session)?,
            unreadable: self.unreadable(&session, &databases)?,
            databases,
            closed: postgres::closed_databases(&session)?,
            unfinished: leftovers::unfinished(&session)?,
            backups: catalogue::list(store)?,
            free: store.free_space()?,
            encryption,
        })
    }

    /// Those of the databases that a role which is no superuser cannot read as a whole.
    fn unreadable(&self, session: &Session<'_>, databases: &[Database]) -> Result<Vec<String>> {
        let mut unreadable = Vec::new();
        let asked = databases.iter().filter(|_| !self.connection.is_superuser());
        for Database { name, .. } in asked {
            let found = postgres::unreadable(session, name)?;
            if !found.is_empty() {
                let role = &self.connection.user;
                log::warn!(
                    "role {role:?} has no privilege to read {} in database {name:?}",
                    found.join(", ")
                );
                unreadable.push(name.clone());
            }
        }
        Ok(unreadable)
    }

    /// Stops what was started, whatever the result.
    pub(super) fn leave<T>(self, done: Result<T>) -> Result<T> {
        let Some(started) = self.started else { return done };
        match (done, started.stop()) {
            (Ok(_), Err(error)) => {
                Err(error
                    .state("the backup is complete; the server, which was started for it, is still running"))
            }
            (done, Ok(())) => done,
            (Err(failure), Err(error)) => {
                log::error!("{}", error.report());
                Err(failure)
            }
        }
    }
}

/// A server must not be started, and with that initialised, in order to back up nothing.
fn check_cluster(data_directory: &Path) -> Result<()> {
    match DataDirectory::read(data_directory, Path::new("/proc")) {
        Ok(DataDirectory { contents: Contents::Missing | Contents::Empty, .. }) => Err(Error::new(
            Kind::DataDirectory,
            format!("there is nothing to back up: {} is not a cluster", data_directory.display()),
        )
        .hint("systemctl start matrix-postgres.service initialises one")),
        // Where we may not look, the server's own start will say what is wrong.
        _ => Ok(()),
    }
}
