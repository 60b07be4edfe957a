//! `restore`: brings a database back.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nix::unistd::geteuid;

use super::places::{At, Backups};
use crate::backup::catalogue::Entry;
use crate::backup::engine::{Dumps, Engine as _};
use crate::backup::name::BackupName;
use crate::backup::pgbackrest::restore as pgbackrest;
use crate::backup::pgbackrest::restore::Target;
use crate::backup::target::Authority;
use crate::backup::{catalogue, classic, restore};
use crate::cli::Consent;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::place::introduce;
use crate::postgres::{self, Apart, Database, Session};
use crate::report::{self, Progress};
use crate::runtime::{Runtime, interrupt};

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Arguments {
    /// Name of the backup, see list; or a file of pg_dump (plain or custom format) or pg_dumpall, of any name, also
    /// compressed by gzip or zstd. Roles in the file must exist; objects without an owner get the owner of the
    /// database
    #[arg(required_unless_present_any = ["to_time", "to_lsn", "delta"])]
    name: Option<String>,
    /// Bring the whole cluster back as it was then, from the backups of pgBackRest, such as "2026-11-27 03:00:00+01"; without an
    /// offset, in the local time zone. The previous cluster is kept beside
    #[arg(long, value_name = "TIME", conflicts_with_all = ["name", "database", "new_name", "all", "globals", "from", "identity", "trust_owners", "skip_broken"])]
    to_time: Option<String>,
    /// The same for a position in the WAL, such as 0/1A2B3C8
    #[arg(long, value_name = "LSN", conflicts_with_all = ["to_time", "name", "database", "new_name", "all", "globals", "from", "identity", "trust_owners", "skip_broken"])]
    to_lsn: Option<String>,
    /// Restore the cluster over a copy of the present one, which may be damaged: only files that differ are read from the
    /// repository; alone, as far as there is WAL
    #[arg(long, conflicts_with_all = ["name", "database", "new_name", "all", "globals", "from", "identity", "trust_owners", "skip_broken"])]
    delta: bool,
    /// The database to restore [default: that of the homeserver]
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Restore it as a new database of this name; no service is stopped
    #[arg(long = "as", value_name = "NEWNAME")]
    new_name: Option<String>,
    /// Create the missing roles of the backup, and restore all its databases, one after the other
    #[arg(long, conflicts_with_all = ["database", "new_name"])]
    all: bool,
    /// Create the missing roles of the backup, and restore no database
    #[arg(long, conflicts_with_all = ["database", "new_name", "all"])]
    globals: bool,
    /// Restore from a target of [[offsite]], or from a place as rclone has it (REMOTE:PATH), and not from this machine
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// With --from: the directory of the machine that made the backup, see list --at
    #[arg(long, requires = "from", value_name = "DIRECTORY")]
    host: Option<String>,
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
    #[command(flatten)]
    consent: Consent,
}

impl Arguments {
    /// Where the backup is.
    pub(super) fn at(&self) -> At {
        At { target: self.from.clone(), host: self.host.clone() }
    }

    /// Whether the cluster is brought back as a whole, by pgBackRest.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.name.is_none()
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Until where WAL is replayed.
    fn target(&self) -> Result<Target> {
        match (&self.to_time, &self.to_lsn) {
            (Some(time), _) => {
                let local = || TimeZone::system().to_timestamp(time.parse::<DateTime>()?);
                let parsed: Result<Timestamp, jiff::Error> = time.parse::<Timestamp>().or_else(|_| local());
                parsed.map(Target::Time).map_err(|error| {
                    Error::new(Kind::Config, format!("{time:?} is no time"))
                        .because(error)
                        .state("nothing was changed")
                        .hint("such as --to-time \"2026-11-27 03:00:00+01\"")
                })
            }
            (None, Some(lsn)) => Target::lsn(lsn),
            (None, None) => Ok(Target::End),
        }
    }

    /// Whether it is a file, and no backup's name.
    fn is_file(&self) -> bool {
        let name = self.name();
        let is_one = name.contains('/') || (name.parse::<BackupName>().is_err() && Path::new(name).exists());
        self.from.is_none() && is_one
    }
}

/// `configuration` is that of rclone, for a backup elsewhere.
pub(super) fn restore(settings: &Settings, arguments: &Arguments, configuration: Option<&str>) -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::new(
            Kind::UnitRefused,
            "a restore stops and starts units and must be run as root",
        )
        .state("nothing was changed")
        .hint("sudo matrix-postgres-backup restore"));
    }
    let host = crate::cli::programs(settings);
    if arguments.is_of_cluster() {
        return cluster(settings, arguments, &host);
    }
    let settings = &introduce(settings, &host, settings.wait)
        .map_err(|error| error.state("nothing was started, and nothing was changed"))?;
    let backups = Backups::find(settings, &arguments.at(), configuration)?;
    if arguments.globals {
        return roles(settings, arguments, &backups);
    }
    let connection = settings.connection();
    let session = Session::newest(&host, &connection);
    let databases = postgres::databases(&session)?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let entry = match arguments.is_file() {
        true => of_file(settings, arguments, &session, &databases, &host, progress.as_mut())?,
        false => catalogue::find(&*backups.store, Some(arguments.name()), Timestamp::now())?,
    };
    let chosen = match arguments.all {
        true => of_users(arguments, &entry)?.into_iter().map(Some).collect(),
        false => vec![arguments.database.clone()],
    };
    let existing: Vec<_> = databases.into_iter().map(|database| database.name).collect();
    let apart = Apart::gather(&session)?;
    // Whoever has no privileges but a role's own lends nobody any.
    let authority = match arguments.trust_owners || !connection.is_superuser() {
        true => Authority::Superuser,
        false => Authority::Owner,
    };
    let requests: Vec<_> = chosen
        .iter()
        .map(|database| request(arguments, &entry, database.as_deref(), authority, &apart))
        .collect();
    let now = Timestamp::now();
    let plans = requests.iter().map(|request| restore::plan(settings, request, &existing, now));
    let plans = plans.collect::<Result<Vec<_>>>()?;
    if arguments.all {
        crate::cli::print(&roles_of(&entry))?;
    }
    for plan in &plans {
        crate::cli::print(&format!("{plan}\n"))?;
    }
    if !arguments.consent.is_given("start the restore?")? {
        return Ok(());
    }
    interrupt::listen()?;
    let _lock = Lock::take(settings, "restore")?;
    let engine = Dumps::new(settings, &host);
    if arguments.all {
        log::info!("{}", engine.restore_globals(&entry, arguments.identity.as_deref())?.0);
    }
    let restored = plans.iter().zip(&requests).map(|(plan, request)| {
        interrupt::check()?;
        let outcome = engine.restore(plan, request, progress.as_mut())?;
        log::info!("{}", outcome.0);
        Ok(())
    });
    told(restored.collect())
}

/// The cluster as a whole.
fn cluster(settings: &Settings, arguments: &Arguments, host: &dyn Runtime) -> Result<()> {
    let unchanged = |error: Error| error.state("nothing was stopped, and nothing was changed");
    let target = arguments.target().map_err(unchanged)?;
    let (facts, program) = pgbackrest::gather(settings, host).map_err(unchanged)?;
    let plan =
        pgbackrest::plan(&facts, settings, target, arguments.delta, Timestamp::now()).map_err(unchanged)?;
    crate::cli::print(&format!("{plan}\n"))?;
    if !arguments.consent.is_given("start the restore?")? {
        return Ok(());
    }
    interrupt::listen()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let done = pgbackrest::carry_out(settings, host, &program, &plan, progress.as_mut())?;
    log::info!("{done}");
    Ok(())
}

/// What a file is a dump of, which is to become the database that the arguments or the settings name.
fn of_file(
    settings: &Settings,
    arguments: &Arguments,
    session: &Session<'_>,
    databases: &[Database],
    host: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Entry> {
    let server = &settings.server;
    let name = arguments.database.as_ref().unwrap_or(&server.database);
    let owner = databases.iter().find(|database| database.name == *name);
    let owner = owner.map_or(&server.role, |database| &database.owner);
    let facts = postgres::server_facts(session)?;
    let goal = classic::Goal {
        database: name,
        owner,
        superuser: &server.superuser,
        server: &facts,
        roles: &postgres::all_roles(session)?,
    };
    classic::read(Path::new(arguments.name()), goal, host, progress)
}

fn request<'a>(
    arguments: &'a Arguments,
    entry: &'a Entry,
    database: Option<&'a str>,
    authority: Authority,
    apart: &'a [Apart],
) -> restore::RestoreRequest<'a> {
    restore::RestoreRequest {
        entry,
        database,
        new_name: arguments.new_name.as_deref(),
        identity: arguments.identity.as_deref(),
        authority,
        skip_broken: arguments.skip_broken,
        apart,
    }
}

/// The databases of a backup but for those that every cluster has: if they have tables, somebody has to say that they are meant.
fn of_users(arguments: &Arguments, entry: &Entry) -> Result<Vec<String>> {
    if arguments.is_file() {
        return Err(Error::new(
            Kind::Config,
            format!("--all is for backups, and {} is a file", arguments.name()),
        )
        .state("nothing was changed")
        .hint("name the database: --database"));
    }
    let (of_every_cluster, of_users): (Vec<_>, Vec<_>) = restore::trusted(entry)?
        .databases
        .iter()
        .partition(|dump| ["postgres", "template1"].contains(&dump.database.name.as_str()));
    for dump in of_every_cluster {
        if dump.contents.as_ref().is_some_and(|contents| !contents.tables.is_empty()) {
            let name = &dump.database.name;
            log::warn!(
                "database {name:?} has tables in the backup, and is not restored by --all: --database {name}"
            );
        }
    }
    Ok(of_users.into_iter().map(|dump| dump.database.name.clone()).collect())
}

/// The first that failed, which has kept no other from being tried.
fn told(restored: Vec<Result<()>>) -> Result<()> {
    let all = restored.len();
    let mut failed: Vec<_> = restored.into_iter().filter_map(Result::err).collect();
    let count = failed.len();
    failed.iter().skip(1).for_each(|error| log::error!("{}", error.report()));
    match (failed.drain(..).next(), all) {
        (None, _) => Ok(()),
        (Some(error), 1) => Err(error),
        (Some(error), _) => Err(error.context(format!("{count} of {all} databases could not be restored"))),
    }
}

fn roles(settings: &Settings, arguments: &Arguments, backups: &Backups) -> Result<()> {
    let entry = catalogue::find(&*backups.store, Some(arguments.name()), Timestamp::now())?;
    if arguments.consent.dry_run {
        return crate::cli::print(&roles_of(&entry));
    }
    let _lock = Lock::take(settings, "restore")?;
    let identity = arguments.identity.as_deref();
    let host = crate::cli::programs(settings);
    let outcome = Dumps::new(settings, &host).restore_globals(&entry, identity)?;
    log::info!("{}", outcome.0);
    Ok(())
}

fn roles_of(entry: &Entry) -> String {
    format!("create the missing roles of {}\n", entry.files.path().display())
}
