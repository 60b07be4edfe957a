//! Gives up root and becomes `postgres`, which then speaks to systemd by itself.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::unistd::geteuid;

use super::initialise::initialise;
use super::plan::{Facts, Plan, plan};
use super::socket_directory::hand_over;
use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::lock::Lock;
use crate::postgres::occupant::Claim;
use crate::postgres::{DataDirectory, Occupant, is_whole, postgres_call};
use crate::runtime::Runtime;
use crate::systemd::notify;
use crate::terminal;
use crate::upgrade::records::{Entry, Journal};
use crate::upgrade::steps::login;

/// Runs the server; returns only if that fails. `environment` is handed on to it: what systemd tells a
/// service that notifies, and PostgreSQL's own settings for the out-of-memory killer.
///
/// # Errors
/// Each with the command that puts it right.
pub fn start(
    settings: &Settings,
    runtime: &dyn Runtime,
    environment: Vec<(OsString, OsString)>,
    dry_run: bool,
) -> Result<String> {
    if geteuid().is_root() {
        stay_out_of_an_upgrade(settings)?;
    }
    let plan = plan(&facts(settings, runtime)?, settings)?;
    if dry_run {
        return Ok(plan.to_string());
    }
    if geteuid().is_root() && !is_upgrading(settings) && login::open_usual(&settings.data_directory)? {
        log::warn!("restored pg_hba.conf and pg_ident.conf, which an interrupted upgrade had replaced");
    }
    log::info!("{}: {plan}", settings.data_directory.display());
    let (Plan::Run { major, account } | Plan::Initialise { major, account }) = &plan;
    if geteuid().is_root() {
        hand_over(&settings.socket_directory, account)?;
    }
    if matches!(plan, Plan::Initialise { .. }) {
        notify::status("initialising a new cluster");
        let block = initialise(settings, runtime, *major, account, Timestamp::now())?;
        log::info!(
            "a new cluster is in {}; copy the database: block in {} into homeserver.yaml",
            settings.data_directory.display(),
            block.display()
        );
    }
    let (directory, claim) = claim(&settings.data_directory)?;
    let connection = settings.connection();
    let call = postgres_call(&settings.data_directory, &connection, &settings.server.listen);
    let mut command = runtime.command(*major, &call)?;
    command.envs(environment);
    // With its supplementary groups: `ssl-cert` lets PostgreSQL read a certificate's key.
    account.assume()?;
    claim.hand_on(&directory)?;
    notify::status(&format!("PostgreSQL {major}"));
    let error = command.exec();
    Err(Error::new(Kind::Program, format!("could not start {}", terminal::program(&command).display()))
        .because(error))
}

fn facts(settings: &Settings, runtime: &dyn Runtime) -> Result<Facts> {
    Ok(Facts {
        data_directory: DataDirectory::read(&settings.data_directory, Path::new("/proc"))?,
        occupant: Occupant::find(&settings.data_directory)?,
        service_user: Account::named(&settings.server.user)?,
        effective: geteuid(),
        installed: runtime.majors(),
    })
}

/// From here on no other server of ours begins on it, wherever it runs.
fn claim(data_directory: &Path) -> Result<(Directory, Claim)> {
    let directory = Directory::open(data_directory).at("open", data_directory)?;
    match Claim::take(&directory)? {
        Some(claim) => Ok((directory, claim)),
        None => Err(Error::new(
            Kind::DataDirectory,
            format!("{} is in use by another server that has begun meanwhile", data_directory.display()),
        )
        .state("the server was not started, and nothing was changed")),
    }
}

/// While a cluster is carried over nobody may write to it, and for an instant there may be none in its place, which
/// would look like a first start. Anything else is no reason to keep a homeserver down.
fn stay_out_of_an_upgrade(settings: &Settings) -> Result<()> {
    let data = &settings.data_directory;
    let journal = Journal::read(&settings.state_directory).unwrap_or_else(|error| {
        log::warn!("{error}; no journal of an upgrade can be read, so the server starts without checking it");
        None
    });
    let refuse = |message: String| {
        Err(Error::new(Kind::DataDirectory, message)
            .state("the server was not started, and nothing was changed")
            .hint("matrix-postgres-upgrade recover"))
    };
    let is_open = |entry: &Entry| {
        entry.is_open() && entry.step.needs_the_server_down() && entry.upgrade.data_directory == *data
    };
    if let Some(Journal { entry, .. }) = journal.filter(|journal| is_open(&journal.entry)) {
        let said = format!("unfinished upgrade of {}: {}", data.display(), entry.step);
        if Lock::is_cluster_taken(settings)? {
            return refuse(format!("{said}; it is still running"))
                .map_err(|error| error.state("the upgrade will start the server"));
        }
        if !is_whole(data) {
            return refuse(format!("{said}; there is no complete cluster in the data directory"));
        }
        log::warn!(
            "{said}; it was interrupted; the cluster in the data directory is complete and is started"
        );
        return Ok(());
    }
    match remains(data)? {
        Some(remains) if !is_whole(data) => refuse(format!(
            "{} is not a complete cluster, and {} exists: no new cluster is initialised",
            data.display(),
            remains.display()
        )),
        _ => Ok(()),
    }
}

/// What an upgrade has beside the data directory while it is under way.
fn remains(data_directory: &Path) -> Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (data_directory.parent(), data_directory.file_name()) else {
        return Ok(None);
    };
    let prefix = [name.as_encoded_bytes(), b".upgrade-"].concat();
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.at("read", parent)?,
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.find(|name| name.as_encoded_bytes().starts_with(&prefix)).map(|name| parent.join(name)))
}

/// Whether an upgrade sees to it itself who may log in.
fn is_upgrading(settings: &Settings) -> bool {
    let journal = Journal::read(&settings.state_directory);
    journal.is_ok_and(|journal| journal.is_some_and(|Journal { entry, .. }| entry.is_open()))
}
