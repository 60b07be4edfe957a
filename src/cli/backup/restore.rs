//! `restore`: brings a database back.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use nix::unistd::geteuid;

use crate::backup::engine::{Dumps, Engine as _};
use crate::backup::name::BackupName;
use crate::backup::target::Authority;
use crate::backup::{catalogue, classic, restore, store_of};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::place::introduce;
use crate::postgres::{self, Apart, Session};
use crate::report;
use crate::runtime::interrupt;

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Arguments {
    /// Name of the backup, see list; or a file of pg_dump (plain or custom format) or pg_dumpall, of any name, also
    /// compressed by gzip or zstd. Roles in the file must exist; objects without an owner get the owner of the
    /// database
    name: String,
    /// The database to restore [default: that of the homeserver]
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Restore it as a new database of this name; no service is stopped
    #[arg(long = "as", value_name = "NEWNAME")]
    new_name: Option<String>,
    /// Create the missing roles of the backup, and restore no database
    #[arg(long, conflicts_with_all = ["database", "new_name"])]
    globals: bool,
    /// Private key of an encrypted backup: an identity file of age, or the home directory of GnuPG
    #[arg(long, value_name = "PATH")]
    identity: Option<PathBuf>,
    /// Load all rows as superuser: functions in table constraints then run with superuser privileges
    #[arg(long, conflicts_with = "globals")]
    trust_owners: bool,
    /// Leave tables empty whose rows the server rejects, and restore everything else. Rejected indexes and views are left
    /// out in any case; everything that is missing is listed at the end, with exit status 44
    #[arg(long, conflicts_with = "globals")]
    skip_broken: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn restore(settings: &Settings, arguments: &Arguments) -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::new(
            Kind::UnitRefused,
            "a restore stops and starts units and must be run as root",
        )
        .state("nothing was changed")
        .hint("sudo matrix-postgres-backup restore"));
    }
    interrupt::listen()?;
    let host = crate::cli::host(settings);
    let settings = &introduce(settings, &host, settings.wait)
        .map_err(|error| error.state("nothing was started, and nothing was changed"))?;
    if arguments.globals {
        return roles(settings, arguments);
    }
    let server = &settings.server;
    let connection = settings.connection();
    let session = Session::newest(&host, &connection);
    let databases = postgres::databases(&session)?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let entry = if is_file(&arguments.name) {
        let name = arguments.database.as_ref().unwrap_or(&server.database);
        let owner = databases.iter().find(|database| database.name == *name);
        let owner = owner.map_or(&server.role, |database| &database.owner);
        let facts = postgres::server_facts(&session)?;
        let goal = classic::Goal {
            database: name,
            owner,
            superuser: &server.superuser,
            server: &facts,
            roles: &postgres::all_roles(&session)?,
        };
        classic::read(Path::new(&arguments.name), goal, &host, progress.as_mut())?
    } else {
        catalogue::find(&*store_of(&settings.backup), Some(&arguments.name), Timestamp::now())?
    };
    let existing: Vec<_> = databases.into_iter().map(|database| database.name).collect();
    let request = restore::RestoreRequest {
        entry: &entry,
        database: arguments.database.as_deref(),
        new_name: arguments.new_name.as_deref(),
        identity: arguments.identity.as_deref(),
        // Whoever has no privileges but a role's own lends nobody any.
        authority: match arguments.trust_owners || !connection.is_superuser() {
            true => Authority::Superuser,
            false => Authority::Owner,
        },
        skip_broken: arguments.skip_broken,
        apart: &Apart::gather(&session)?,
    };
    let now = Timestamp::now();
    let plan = restore::plan(settings, &request, &existing, now)?;
    crate::cli::print(&format!("{plan}\n"))?;
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes {
        crate::cli::confirm("start the restore?")?;
    }
    let _lock = Lock::take(settings, "restore")?;
    let outcome = Dumps::new(settings, &host).restore(&plan, &request, progress.as_mut())?;
    log::info!("{}", outcome.0);
    Ok(())
}

/// Whether it is a file, and no backup's name.
fn is_file(name: &str) -> bool {
    name.contains('/') || (name.parse::<BackupName>().is_err() && Path::new(name).exists())
}

fn roles(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let entry = catalogue::find(&*store_of(&settings.backup), Some(&arguments.name), Timestamp::now())?;
    if arguments.dry_run {
        return crate::cli::print(&format!("create the missing roles of {}\n", entry.files.path().display()));
    }
    let _lock = Lock::take(settings, "restore")?;
    let identity = arguments.identity.as_deref();
    let host = crate::cli::host(settings);
    let outcome = Dumps::new(settings, &host).restore_globals(&entry, identity)?;
    log::info!("{}", outcome.0);
    Ok(())
}
