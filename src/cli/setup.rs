//! `matrix-postgres`

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use nix::unistd::geteuid;

use crate::account::Account;
use crate::backup::pgbackrest::setup as pgbackrest;
use crate::config::{self, Engine, Settings};
use crate::error::{Error, Kind, Result};
use crate::place::{Facts, Place, decide, introduce, setup};
use crate::postgres::{self, Session};
use crate::runtime::{Host, Runtime as _};
use crate::upgrade::records::Journal;

/// Set up the maintenance of the homeserver's PostgreSQL server, wherever that is.
///
/// Backups: matrix-postgres-backup(1). Upgrades: matrix-postgres-upgrade(1). A psql that is logged in:
/// matrix-postgres-cli(1).
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find the server, write the lines of configuration that say where it is, and let backups be made by the user that it
    /// lets in; done again, it follows what has changed
    Setup {
        /// Find out where the server is (what happens anyway)
        #[arg(long)]
        detect: bool,
        /// Back up by pgBackRest from now on, or by both engines: create its stanza, switch archiving of the WAL on, and try it.
        /// Without this option, that is done anew for what is configured. Whether the server must be restarted is said before
        #[arg(long, value_name = "ENGINE")]
        engine: Option<Choice>,
        /// Let the stanza of pgBackRest be that of the present cluster, after an upgrade of the server by other means, or one that
        /// says that it could not
        #[arg(long)]
        upgrade_stanza: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Say what was found and what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// What is to make backups. (To go back to dumps alone, see the page on pgBackRest.)
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// pgBackRest alone
    Pgbackrest,
    /// pgBackRest and pg_dump
    Both,
}

impl From<Choice> for Engine {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Pgbackrest => Self::Pgbackrest,
            Choice::Both => Self::Both,
        }
    }
}

/// Carries out the verb.
///
/// # Errors
/// [`Kind::DataDirectory`] if it cannot be told where the server is; those of the verb.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let Verb::Setup { detect: _, yes, dry_run, engine, upgrade_stanza } = arguments.verb;
    if !geteuid().is_root() {
        return Err(Error::new(
            Kind::UnitRefused,
            "only root can find the server and set up its maintenance",
        )
        .state("nothing was changed")
        .hint("sudo matrix-postgres setup"));
    }
    // What an earlier run has found is looked for anew.
    let written = config::load_without(Path::new(setup::FILE))?;
    let configured = Some(written.backup.engine).filter(|engine| engine.is_pgbackrest());
    let engine = match engine.map(Engine::from) {
        None if upgrade_stanza => Some(configured.ok_or_else(no_stanza)?),
        // Done again, it follows what has changed.
        None => configured.filter(|_| !written.connection().is_absent()),
        engine => engine,
    };
    let programs = Host::new(Path::new("/"), std::env::var_os("PATH"));
    let facts = Facts::gather(Path::new("/"), &written, &programs)?;
    let place = decide(&written, &facts);
    super::print(&format!("server: {place}\n"))?;
    let (settings, password) = super::settle(&place, written.clone()).or_else(|error| match place {
        // It is missing, or is not as it must be: that is said when the log-in is tried.
        Place::External { .. } => place.settle(written.clone()).map(|settings| (settings, None)),
        _ => Err(error),
    })?;
    let is_only = match place.cluster() {
        Some(_) => facts.candidates.len() == 1,
        None => facts.candidates.is_empty() || !facts.is_vacant(),
    };
    let needed = super::programs(&settings);
    let needed = needed.needed_image();
    let is_written = written.server.kind.is_some();
    let plan = setup::plan(Path::new("/"), &place, &settings, is_written, is_only, needed)?;
    super::print(&plan.to_string())?;
    if dry_run {
        let engine = engine.map(|engine| by_pgbackrest(&settings, engine, upgrade_stanza, yes, dry_run));
        return engine.unwrap_or(Ok(())).map(|()| ExitCode::SUCCESS);
    }
    if plan.is_empty() {
        super::print("all is set up\n")?;
    } else {
        Journal::require_ended(&settings.state_directory)?;
        if !yes {
            super::confirm("do it?")?;
        }
        plan.carry_out(&settings)?;
    }
    drop(password);
    // What has been written counts now.
    let (settings, _password) = super::settle(&place, config::load(None)?)?;
    let next = log_in(&settings, &place)?;
    if let Some(engine) = engine {
        by_pgbackrest(&settings, engine, upgrade_stanza, yes, dry_run)?;
    }
    super::print(&format!("next: {next}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn no_stanza() -> Error {
    Error::new(Kind::Config, "backups are not made by pgBackRest: there is no stanza to upgrade")
        .state("nothing was changed")
        .hint("matrix-postgres setup --engine both")
}

/// Sets up pgBackRest, and tries it.
fn by_pgbackrest(
    settings: &Settings,
    engine: Engine,
    upgrades: bool,
    yes: bool,
    dry_run: bool,
) -> Result<()> {
    settings.require_apart()?;
    let host = super::programs(settings);
    let (facts, program) = pgbackrest::gather(settings, &host, engine, upgrades)?;
    let plan = pgbackrest::plan(&facts, settings)?;
    super::print(&plan.to_string())?;
    if dry_run {
        return Ok(());
    }
    if !yes && !plan.0.is_empty() {
        super::confirm(if plan.restarts() { "do it, and restart the server?" } else { "do it?" })?;
    }
    let owner = host.account().cloned().unwrap_or_else(Account::current);
    pgbackrest::carry_out(settings, &host, &program, &plan, &owner, &facts.again)?;
    super::print("pgBackRest is set up: a segment of the WAL was archived\n")
}

/// Tries it; returns the next command.
fn log_in(settings: &Settings, place: &Place) -> Result<String> {
    let connection = settings.connection();
    if connection.is_absent() {
        super::print(&format!("no server is listening on {}\n", connection.place()))?;
        return Ok(format!("systemctl start {}", settings.server.unit));
    }
    let host = super::programs(settings);
    let settings = &introduce(settings, &host, Duration::ZERO).map_err(|error| {
        error
            .context(format!("could not log in to the server, {place}"))
            .state("the configuration is written")
    })?;
    let connection = settings.connection();
    let session = Session::newest(&host, &connection);
    let facts = postgres::server_facts(&session).map_err(|error| {
        error
            .context(format!("could not log in to the server, {place}"))
            .state("the configuration is written")
    })?;
    let role = &settings.server.superuser;
    super::print(&format!("logged in to PostgreSQL {} as {role}\n", facts.version))?;
    if !connection.is_superuser() {
        super::print(&format!(
            "{role} is not a superuser: backups will be without passwords of roles, and without what it may not read\n"
        ))?;
    }
    Ok("systemctl start matrix-postgres-backup.service".to_owned())
}
