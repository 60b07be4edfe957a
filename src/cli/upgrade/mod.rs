//! `matrix-postgres-upgrade`

mod check;
mod compare;
mod settled;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

use crate::cli::Consent;
use crate::clients::sockets;
use crate::config::{self, Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::{Guest, Major, Occupant};
use crate::report::{self, event};
use crate::runtime::{Guard, interrupt};
use crate::systemd::{Manager, notify};
use crate::upgrade::facts::written;
use crate::upgrade::plan::Plan;
use crate::upgrade::records::journal::legacy;
use crate::upgrade::records::{Journal, Step};
use crate::upgrade::recover::{self, Recovered};
use crate::upgrade::summary::Summary;
use crate::upgrade::{leftovers, rehearsal, rollback, run, status};

/// Upgrade the databases of the homeserver to a newer major version of PostgreSQL.
///
/// No service is stopped before every check has passed. The old and the new cluster are compared before the new one is put
/// in place; after a failure the server runs on the old cluster again. The old data directory is kept.
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres-upgrade", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/matrix-postgres/config.toml, then config.d/*.toml beside it]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// For units that do not see it: print who has this data directory
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    who_has: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Default, Args)]
struct Target {
    /// Target major version [default: the newest installed]
    #[arg(long, value_name = "MAJOR")]
    to: Option<u16>,
    /// Where to keep the old data directory; any file system
    #[arg(long, value_name = "DIRECTORY")]
    keep_path: Option<PathBuf>,
    /// Directory for the dump of method dump
    #[arg(long, value_name = "DIRECTORY")]
    dump_dir: Option<PathBuf>,
    /// auto, online (streaming replication to a copy, then pg_upgrade), or dump (pg_dump and pg_restore)
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<Asked>,
    /// With method dump, load all rows as superuser: functions in table constraints then run with superuser privileges
    #[arg(long)]
    trust_owners: bool,
}

/// A method, or none in particular.
#[derive(Debug, Clone, Copy)]
struct Asked(Option<Method>);

fn method(text: &str) -> Result<Asked, String> {
    Method::parse(text).map(Asked).map_err(str::to_owned)
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Upgrade (the default)
    Run {
        #[command(flatten)]
        target: Target,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// For tests: pause at this step
        #[arg(long, hide = true, value_name = "STEP", value_parser = step)]
        pause: Option<Step>,
    },
    /// Check whether an upgrade is possible: blockers, warnings and facts
    Check {
        #[command(flatten)]
        target: Target,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Test the upgrade on a temporary copy, while the homeserver runs: whether it succeeds, and the expected downtime
    Rehearse {
        #[command(flatten)]
        target: Target,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the latest upgrade and rehearsal, and the old data directories that are kept
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Finish or revert an interrupted upgrade
    Recover {
        /// For the unit at boot: the server waits for this
        #[arg(long, hide = true)]
        at_boot: bool,
        /// For tests: pause at this step
        #[arg(long, hide = true, value_name = "STEP", value_parser = step)]
        pause: Option<Step>,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove leftovers of upgrades and rehearsals, see status; old data directories are kept
    Clean {
        #[command(flatten)]
        consent: Consent,
    },
    /// Print all connections of this host, for a unit that cannot see them
    #[command(hide = true)]
    Connections,
    /// Print all containers of this host, for a unit that cannot see them
    #[command(hide = true)]
    Containers,
    /// Import the journals of versions before 2026-12 (for the package)
    #[command(hide = true)]
    TakeOver,
    /// Compare two running servers, as an upgrade does
    #[command(hide = true)]
    Compare(compare::Arguments),
    /// Revert to the old data directory of the latest upgrade, of ours or of the playbook (data-auto-upgrade-backup)
    Rollback {
        #[command(flatten)]
        consent: Consent,
        /// For tests: pause at this step
        #[arg(long, hide = true, value_name = "STEP", value_parser = step)]
        pause: Option<Step>,
    },
}

fn step(text: &str) -> Result<Step, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

impl Target {
    /// What is given here holds instead of what is configured.
    fn apply(self, settings: &mut Settings) -> Result<Option<Major>> {
        let absolute = |path: PathBuf, option: &str| match path.is_absolute() {
            true => Ok(path),
            false => Err(Error::new(
                Kind::Config,
                format!("{option} {}: the path must be absolute", path.display()),
            )),
        };
        if let Some(path) = self.keep_path {
            settings.upgrade.keep_path = absolute(path, "--keep-path")?;
        }
        if let Some(path) = self.dump_dir {
            settings.upgrade.dump_directory = absolute(path, "--dump-dir")?;
        }
        if let Some(Asked(method)) = self.method {
            settings.upgrade.method = method;
        }
        settings.upgrade.trust_owners |= self.trust_owners;
        Ok(self.to.map(Major))
    }
}

/// Carries out the verb.
///
/// # Errors
/// See [`run`](mod@run), [`recover`](mod@recover) and [`status`](mod@status).
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(directory) = &arguments.who_has {
        return crate::cli::print_json(&Occupant::here(directory, Path::new("/proc"))?)
            .map(|()| ExitCode::SUCCESS);
    }
    // Whoever asks has another configuration, maybe.
    if let Some(Verb::Connections) = arguments.verb {
        return crate::cli::print_json(&sockets::look()?).map(|()| ExitCode::SUCCESS);
    }
    if let Some(Verb::Containers) = arguments.verb {
        return crate::cli::print_json(&Guest::here(Path::new("/proc"))).map(|()| ExitCode::SUCCESS);
    }
    let config = arguments.config.as_deref();
    let mut settings = config::load(config)?;
    let bare = Verb::Run { target: Target::default(), dry_run: false, pause: None };
    let verb = arguments.verb.unwrap_or(bare);
    let place = match &verb {
        Verb::Check { .. } | Verb::Run { .. } | Verb::Rehearse { .. } => {
            let place = crate::cli::place(&settings)?;
            settings = place.settle(settings)?;
            Some(place)
        }
        // What was begun names its server itself.
        _ => {
            let is_to_look = matches!(verb, Verb::Status { .. } | Verb::Clean { .. });
            settings = settled::of_journal(settings, is_to_look)?;
            None
        }
    };
    let possible = place.as_ref().map_or(Ok(()), check::require_known);
    if let (Verb::Run { .. } | Verb::Rehearse { .. }, Err(error)) = (&verb, &possible) {
        return Ok(crate::cli::failure_of(error, event::NOT_UPGRADED));
    }
    match verb {
        Verb::Check { target, json } => {
            let to = target.apply(&mut settings)?;
            let look = || check::check(&settings, to, place.as_ref(), &possible, json);
            // Without systemd nothing is tried that might be left.
            return match Manager::connect() {
                Ok(_) => guarded(config, look),
                Err(_) => look(),
            };
        }
        Verb::Run { target, dry_run: true, .. } => {
            let to = target.apply(&mut settings)?;
            let plan = guarded(config, || {
                interrupt::listen()?;
                prepare(&settings, to)
            })?;
            crate::cli::print(&format!("{plan}\n"))?;
        }
        Verb::Run { target, pause, .. } => {
            let to = target.apply(&mut settings)?;
            if let Err(error) = guarded(config, || upgrade(&settings, to, pause)) {
                return Ok(crate::cli::failure_of(&error, event::NOT_UPGRADED));
            }
        }
        Verb::Rehearse { target, dry_run } => {
            let to = target.apply(&mut settings)?;
            guarded(config, || rehearse(&settings, to, dry_run))?;
        }
        Verb::Status { json } => show_status(&settings, json)?,
        Verb::Recover { at_boot, pause, dry_run } => recover_from(&settings, at_boot, pause, dry_run)?,
        Verb::Clean { consent } => clean(&settings, consent)?,
        Verb::Connections | Verb::Containers => {}
        Verb::TakeOver => legacy::take_over(&settings)?,
        Verb::Compare(asked) => return compare::run(&settings, &asked),
        Verb::Rollback { consent, pause } => {
            guarded(config, || roll_back(&settings, consent, pause))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_status(settings: &Settings, json: bool) -> Result<()> {
    let status = status::status(settings, &crate::cli::host(settings), Timestamp::now())?;
    match json {
        true => crate::cli::print_json(&status),
        false => crate::cli::print(&format!("{status}\n")),
    }
}

fn recover_from(settings: &Settings, at_boot: bool, pause: Option<Step>, dry_run: bool) -> Result<()> {
    let host = crate::cli::host(settings);
    if dry_run {
        let status = status::status(settings, &host, Timestamp::now())?;
        let what = if status.open { status.sentence.as_str() } else { Recovered::Nothing.message() };
        return crate::cli::print(&format!("{what}\n"));
    }
    let mut progress = report::progress(crate::cli::on_terminal());
    let done = recover::recover(settings, &host, progress.as_mut(), at_boot, pause);
    let done = done.inspect_err(|error| try_later(at_boot, error))?;
    notify::ready();
    log::info!("{}", done.message());
    Ok(())
}

/// The unit tries again and again: a file system may be full, or read-only, only for a while.
const RECOVERY: &str = "matrix-postgres-recover.service";

fn try_later(by_the_unit: bool, error: &Error) {
    if by_the_unit || error.kind() == Kind::Config {
        return;
    }
    match Manager::connect().and_then(|manager| manager.queue_start(RECOVERY)) {
        Ok(()) => log::info!("{RECOVERY} will try again"),
        Err(error) => log::debug!("{}", error.report()),
    }
}

/// Where no unit's `ExecStopPost=` sees to it, a guard recovers if we are killed.
fn guarded<T>(config: Option<&Path>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let unit = Manager::connect()?.unit_of(0)?;
    if unit.is_some_and(|unit| unit.starts_with("matrix-postgres-upgrade")) {
        return work();
    }
    let program = std::env::current_exe().map_err(|error| {
        Error::new(Kind::Program, "could not find the path of this program").because(error)
    })?;
    let absolute = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).into();
    let config = config.map(|file| ["--config".into(), absolute(file)]).into_iter().flatten();
    let guard = Guard::post(&program, [OsString::from("recover")].into_iter().chain(config))?;
    let done = work();
    // What could not be put in order here is tried once more.
    if done.is_ok() {
        guard.dismiss();
    }
    done
}

/// Without the lock afterwards: the upgrade takes it with that of the backups.
fn prepare(settings: &Settings, to: Option<Major>) -> Result<Plan> {
    let lock = Lock::cluster_only(settings, "check")?;
    crate::upgrade::check::prepare(settings, &crate::cli::host(settings), to, &lock).map(|(plan, _)| plan)
}

fn upgrade(settings: &Settings, to: Option<Major>, pause: Option<Step>) -> Result<()> {
    let host = crate::cli::host(settings);
    interrupt::listen()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    recover::settle_earlier(settings, &host, progress.as_mut())?;
    notify::status("checking");
    let plan = prepare(settings, to)?;
    log::info!("{plan}");
    let entry = run::run(settings, &host, &plan, progress.as_mut(), pause)?;
    let headline = status::headline(&entry);
    notify::status(&headline);
    log::info!(
        MESSAGE_ID = event::UPGRADED, FROM:display = entry.upgrade.from, TO:display = entry.upgrade.to, DOWNTIME = entry.downtime();
        "{headline}\n{}", Summary::of_upgrade(&entry)
    );
    Ok(())
}

fn rehearse(settings: &Settings, to: Option<Major>, dry_run: bool) -> Result<()> {
    interrupt::listen()?;
    let host = crate::cli::host(settings);
    if dry_run {
        let lock = Lock::cluster_only(settings, "check")?;
        let plan = rehearsal::prepare(settings, &host, to, &lock)?;
        return crate::cli::print(&format!("{}\n", rehearsal::describe(&plan)));
    }
    let mut progress = report::progress(crate::cli::on_terminal());
    let rehearsal = rehearsal::rehearse(settings, &host, to, progress.as_mut())?;
    notify::status(&rehearsal.to_string());
    log::info!("{rehearsal}\n{}", Summary::of_rehearsal(&rehearsal));
    Ok(())
}

fn clean(settings: &Settings, consent: Consent) -> Result<()> {
    let found = leftovers::find(settings, Timestamp::now())?;
    if !consent.is_given_to_remove(&found)? {
        return Ok(());
    }
    interrupt::listen()?;
    let _lock = Lock::take_cluster(settings, "clean-up")?;
    leftovers::remove(settings, &found, Timestamp::now())
}

fn roll_back(settings: &Settings, consent: Consent, pause: Option<Step>) -> Result<()> {
    legacy::take_over(settings)?;
    let settings = &settled::for_rollback(settings.clone())?;
    let host = crate::cli::host(settings);
    let find = || settled::to_roll_back(settings, &host);
    let entry = find()?;
    recover::require_same(&entry, settings)?;
    rollback::check(settings, &host, &entry)?;
    crate::cli::print(&format!("{}\n", rollback::describe(&entry)))?;
    let loss = written::loss(settings, &host, &entry);
    crate::cli::print(&format!("{loss}\n"))?;
    if !consent.is_given("start the rollback?")? {
        return Ok(());
    }
    interrupt::listen()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let _lock = Lock::take_cluster(settings, "upgrade")?;
    // Who held the lock may have gone on, or back.
    let entry = find()?;
    rollback::check(settings, &host, &entry)?;
    let journal = match entry.upgrade.by_playbook {
        true => Journal::begin(&settings.state_directory, entry)?,
        false => Journal::read(&settings.state_directory)?.ok_or_else(settled::nothing_to_roll_back)?,
    };
    let manager = Manager::connect()?;
    log::info!("{}", rollback::roll_back(settings, &host, &manager, journal, progress.as_mut(), pause)?);
    Ok(())
}
