//! `run` from its first check to the report. Until the exchange every failure leads back to the old cluster.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;

use indicatif::HumanCount;
use jiff::Timestamp;
use nix::unistd::chown;

use super::check::check;
use super::compare::{Snapshot, differences};
use super::journal::{self, Entry, Journal, Step};
use super::plan::{Plan, plan};
use super::recover::{self, Recovered};
use super::servers::{Private, Side, Sockets};
use super::transfer::{DumpDirectory, Way, jobs, transfer};
use super::work::{Pause, Work, owner};
use super::{back, configuration, exchange, facts, finish, servers};
use crate::backup::catalogue;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::lock::Lock;
use crate::postgres::{self, Major, initdb};
use crate::report::{Progress, Silent};
use crate::runtime::{Child, Runtime, interrupt, output};
use crate::systemd::{Inhibitor, Manager, inhibit};

/// A file system with less free bytes is as good as full.
const FULL: u64 = 64 << 20;

/// The unit that makes a backup.
const BACKUP: &str = "matrix-postgres-backup.service";

/// The plan for an upgrade now. Nothing is changed.
///
/// # Errors
/// [`Kind::NotWell`] if something stands in the way.
pub fn prepare(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>) -> Result<Plan> {
    let facts = facts::gather(settings, runtime, to)?;
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
    let backups = catalogue::list(&settings.backup.directory).unwrap_or_default();
    let newest = backups.iter().rev().find(|entry| entry.is_verified()).map(|entry| entry.name.time());
    plan(settings, &facts, newest, Timestamp::now())
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
    let _lock = Lock::take(&settings.state_directory, "upgrade", Timestamp::now())?;
    let _inhibitor = Inhibitor::take(&manager, inhibit::Mode::Block, "upgrade of PostgreSQL");
    let data = postgres::DataDirectory::read(&plan.data_directory, Path::new("/proc"))?;
    let account = owner(&data)?;
    let journal = Journal::begin(&settings.state_directory, entry(plan)?)?;
    let mut work = Work::new(settings, runtime, &manager, account, journal, progress, pause);
    if let Err(error) = build(&mut work, plan) {
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
        keep_path: plan.keep_path.clone(),
        dump_directory: plan.dump_directory.clone(),
        old_identifier: postgres::system_identifier(&plan.data_directory)?,
        server_unit: plan.server_unit.clone(),
        clients: Vec::new(),
        step: Step::Preparing,
        since: Timestamp::now(),
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

/// Everything until the new cluster is whole, equal to the old one, and on the disk.
fn build(work: &mut Work<'_>, plan: &Plan) -> Result<()> {
    let (settings, runtime, manager) = (work.settings, work.runtime, work.manager);
    let account = work.account.clone();
    // The only role that there is in a new cluster.
    let superuser = plan.initialisation.superuser.as_str();

    work.step(Step::Preparing)?;
    let files = match plan.way {
        Way::Files => Some(DumpDirectory::make(&plan.dump_directory, &account)?),
        Way::Stream => None,
    };
    make_cluster(work, plan)?;
    let sockets = Sockets::make(&settings.socket_directory, &account)?;
    let new =
        Private::start(runtime, &account, &sockets, superuser, (Side::New, &plan.beside, plan.to), plan.to)?;

    let own = |unit: &String| unit.starts_with("matrix-postgres") || *unit == plan.server_unit;
    let mut wanted = settings.clients.units.clone();
    wanted.push(plan.server_unit.clone());
    work.journal.entry.clients = manager.running(&wanted)?.into_iter().filter(|unit| !own(unit)).collect();
    work.step(Step::StoppingClients)?;
    let clients = work.entry().clients.clone();
    manager.stop_all(&clients, settings.clients.timeout)?;
    work.step(Step::StoppingServer)?;
    manager.stop_all(std::slice::from_ref(&plan.server_unit), settings.server.start_timeout)?;
    servers::stop_abandoned(&plan.data_directory)?;
    let old = Private::start(
        runtime,
        &account,
        &sockets,
        superuser,
        (Side::Old, &plan.data_directory, plan.from),
        plan.to,
    )?;

    work.step(Step::Transferring)?;
    transfer(&old.session(), &new.session(), files.as_ref(), work.progress)?;
    work.step(Step::Comparing)?;
    let rows = compare(work, &old, &new)?;
    log::info!("old and new are equal: {} rows", HumanCount(rows));
    old.stop()?;
    new.stop()?;
    work.step(Step::Syncing)?;
    sync(work, plan)
}

fn make_cluster(work: &Work<'_>, plan: &Plan) -> Result<()> {
    let (account, beside) = (&work.account, &plan.beside);
    std::fs::DirBuilder::new().mode(0o700).create(beside).at("create", beside)?;
    chown(beside, Some(account.uid), Some(account.gid)).at("change the owner of", beside)?;
    let mut command = work.runtime.command(plan.to, &initdb::like(beside, &plan.initialisation, plan.to))?;
    account.apply(&mut command);
    output(command, "initdb", &[])?;
    let carried =
        configuration::carry(work.runtime, (&plan.data_directory, plan.from), (beside, plan.to), account)?;
    for note in carried.notes {
        log::warn!("{note}");
    }
    Ok(())
}

/// Old and new at the same time; what differs ends the upgrade.
fn compare(work: &mut Work<'_>, old: &Private<'_>, new: &Private<'_>) -> Result<u64> {
    let depth = work.settings.upgrade.compare;
    let (old, new) = (old.session(), new.session());
    let (old, new) = std::thread::scope(|scope| {
        let old = scope.spawn(|| Snapshot::take(&old, depth, jobs(), &mut Silent));
        let new = Snapshot::take(&new, depth, jobs(), work.progress);
        let panicked = |_| Err(Error::new(Kind::Bug, "the comparison of the old server panicked"));
        (old.join().unwrap_or_else(panicked), new)
    });
    let (old, new) = (old?, new?);
    let (serious, notes): (Vec<_>, Vec<_>) =
        differences(&old, &new).into_iter().partition(|difference| difference.serious);
    for note in notes {
        log::info!("{note}");
    }
    if serious.is_empty() {
        return Ok(new.rows());
    }
    for difference in &serious {
        log::error!("{difference}");
    }
    let first: Vec<_> = serious.iter().take(5).map(ToString::to_string).collect();
    let message = format!(
        "the new cluster is not what the old one is ({} differences): {}",
        serious.len(),
        first.join("; ")
    );
    Err(Error::new(Kind::Damaged, message))
}

fn sync(work: &Work<'_>, plan: &Plan) -> Result<()> {
    let call = initdb::sync(&plan.beside);
    let mut command = work.runtime.command(plan.to, &call)?;
    work.account.apply(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Child::spawn(command, "initdb --sync-only")?.wait()?;
    files::sync_directory(plan.beside.parent().unwrap_or(&plan.beside))
}

fn exchange_directories(work: &mut Work<'_>) -> Result<()> {
    interrupt::check()?;
    work.step(Step::Exchanging)?;
    let entry = work.entry();
    exchange::exchange(&entry.data_directory, &entry.beside)
}
