//! `run` from its first check to the report. Until the exchange every failure leads back to the old cluster.

use std::path::Path;

use jiff::Timestamp;

use super::check::{check, trial};
use super::journal::{self, Entry, Journal, Step};
use super::plan::{Plan, plan};
use super::recover::{self, Recovered};
use super::work::{Pause, Work, owner};
use super::{back, dump, exchange, finish, online, servers};
use crate::backup::{catalogue, store_of};
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::lock::Lock;
use crate::postgres::{self, Major};
use crate::report::Progress;
use crate::runtime::{Runtime, interrupt};
use crate::systemd::{Inhibitor, Manager, inhibit};

/// A file system with less free bytes is as good as full.
const FULL: u64 = 64 << 20;

/// The unit that makes a backup.
const BACKUP: &str = "matrix-postgres-backup.service";

/// The plan for an upgrade now. Nothing is changed. The caller holds the lock of the cluster.
///
/// # Errors
/// [`Kind::NotWell`] if something stands in the way.
pub fn prepare(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>, lock: &Lock) -> Result<Plan> {
    let facts = trial::gather(settings, runtime, to, lock)?;
    let report = check(&facts);
    if !report.is_possible() {
        let blockers: Vec<_> = report.blockers().map(|finding| finding.message.as_str()).collect();
        let first = report.blockers().find_map(|finding| finding.hint.clone());
        return Err(Error::new(
            Kind::NotWell,
            format!("an upgrade is not possible: {}", blockers.join("; ")),
        )
        .state("nothing was stopped, and nothing was changed")
        .hint(first.unwrap_or_else(|| "matrix-postgres-upgrade check".to_owned())));
    }
    for warning in report.warnings() {
        log::warn!("{warning}");
    }
    let backups = catalogue::list(&*store_of(&settings.backup)).unwrap_or_default();
    let now = Timestamp::now();
    let earlier = catalogue::split(&backups, now).0;
    let newest = earlier.iter().rev().find(|entry| entry.is_verified()).map(|entry| entry.name.time());
    plan(settings, &facts, newest, now)
}

/// Carries a plan out.
///
/// # Errors
/// Every kind, with the state that things are in: before the exchange the homeserver runs again as before.
pub fn run(
    settings: &Settings,
    runtime: &dyn Runtime,
    plan: &Plan,
    progress: &mut dyn Progress,
    pause: Pause,
) -> Result<Entry> {
    let manager = Manager::connect()?;
    if plan.backup {
        back_up(&manager, settings)?;
    }
    let _lock = Lock::take_cluster(settings, "upgrade")?;
    let _inhibitor = Inhibitor::take(&manager, inhibit::Mode::Block, "upgrade of PostgreSQL");
    let data = postgres::DataDirectory::read(&plan.data_directory, Path::new("/proc"))?;
    let account = owner(&data)?;
    let journal = Journal::begin(&settings.state_directory, entry(plan)?)?;
    let mut work = Work::new(settings, runtime, &manager, account, journal, progress, pause);
    let built = match plan.method {
        Method::Online => online::build(&mut work, plan),
        Method::Dump => dump::build(&mut work, plan),
    };
    if let Err(error) = built {
        let error = blame_the_disk(plan, error);
        return Err(back::after(&mut work, error));
    }
    if let Err(error) = exchange_directories(&mut work) {
        return Err(back::after(&mut work, error));
    }
    finish::finish(&mut work)?;
    Ok(work.journal.entry)
}

/// What an earlier upgrade has left open is put in order first.
///
/// # Errors
/// As [`recover::recover`].
pub fn settle_earlier(settings: &Settings, runtime: &dyn Runtime, progress: &mut dyn Progress) -> Result<()> {
    match recover::recover(settings, runtime, progress, false, None)? {
        Recovered::Nothing => Ok(()),
        Recovered::UnderWay(message) => Err(Error::new(Kind::Locked, message)
            .state("nothing was started, and what is under way goes on")
            .hint("matrix-postgres-upgrade status")),
        done => {
            log::warn!("{}", done.message());
            Ok(())
        }
    }
}

fn back_up(manager: &Manager, settings: &Settings) -> Result<()> {
    log::info!("making a backup first");
    manager.start(BACKUP, settings.server.start_timeout * 6 * 24).map(drop).map_err(|error| {
        error
            .context("no backup could be made, and without one no upgrade is begun")
            .state("nothing was stopped, and nothing was changed")
            .hint(format!("journalctl --unit={BACKUP}"))
    })
}

fn entry(plan: &Plan) -> Result<Entry> {
    Ok(Entry {
        format: journal::format(),
        id: plan.id.clone(),
        from: plan.from,
        to: plan.to,
        data_directory: plan.data_directory.clone(),
        beside: plan.beside.clone(),
        method: plan.method,
        copy: (plan.method == Method::Online).then(|| plan.copy.clone()),
        stale_indexes: plan.stale_indexes.clone(),
        subscriptions: plan.subscriptions.clone(),
        keep_path: plan.keep_path.clone(),
        dump_directory: plan.dump_directory.clone(),
        old_identifier: postgres::system_identifier(&plan.data_directory)?,
        server_unit: plan.server_unit.clone(),
        clients: Vec::new(),
        step: Step::Preparing,
        since: Timestamp::now(),
        login_files: Vec::new(),
        next_xid: None,
        census: None,
        opened: None,
        unsteady: Vec::new(),
        not_started: Vec::new(),
        written_before: None,
        clients_started: None,
        durations: Vec::new(),
        kept: None,
        kept_bytes: None,
        ended: None,
    })
}

/// A full disk makes PostgreSQL's programs fail in words of many kinds.
fn blame_the_disk(plan: &Plan, error: Error) -> Error {
    let full = |path: &Path| files::free_space(path).is_ok_and(|free| free < FULL);
    let parent = |path: &'_ Path| path.parent().unwrap_or(path).to_owned();
    match [parent(&plan.beside), parent(&plan.dump_directory)].into_iter().find(|path| full(path)) {
        Some(place) => error
            .with_kind(Kind::NoSpace)
            .context(format!("the file system of {} is full", place.display()))
            .hint(format!(
                "df -h {}; make room there, or name other places: --dump-dir, --keep-path",
                place.display()
            )),
        None => error,
    }
}

/// Stops the clients that run, whose units are in the journal before. From here on the new cluster lets in only us.
pub(super) fn stop_clients(work: &mut Work<'_>) -> Result<()> {
    work.close_login()?;
    note_clients(work)?;
    work.step(Step::StoppingClients)?;
    work.manager.stop_all(&work.entry().clients, work.settings.clients.timeout)
}

/// Notes down which clients run: those that are configured, and those that systemd stops along with the server.
///
/// # Errors
/// If systemd cannot be asked.
pub(super) fn note_clients(work: &mut Work<'_>) -> Result<()> {
    let server_unit = work.entry().server_unit.clone();
    let own = |unit: &String| unit.starts_with("matrix-postgres") || *unit == server_unit;
    let mut wanted = work.settings.clients.units.clone();
    wanted.push(server_unit.clone());
    let running: Vec<_> = work.manager.running(&wanted)?.into_iter().filter(|unit| !own(unit)).collect();
    let is_unsteady = |unit: &String| work.manager.unit(unit).is_ok_and(|unit| !unit.is_active());
    work.journal.entry.unsteady = running.iter().filter(|unit| is_unsteady(unit)).cloned().collect();
    work.journal.entry.clients = running;
    Ok(())
}

/// Stops the server.
pub(super) fn stop_server(work: &mut Work<'_>, plan: &Plan) -> Result<()> {
    work.step(Step::StoppingServer)?;
    let unit = std::slice::from_ref(&plan.server_unit);
    work.manager.stop_all(unit, work.settings.server.start_timeout)?;
    servers::stop_abandoned(&plan.data_directory)
}

fn exchange_directories(work: &mut Work<'_>) -> Result<()> {
    work.note_next_xid()?;
    interrupt::check()?;
    work.step(Step::Exchanging)?;
    let entry = work.entry();
    exchange::exchange(&entry.data_directory, &entry.beside)
}
