//! `matrix-postgres-backup`

mod clean;
mod list;
mod members;
mod notify;
mod places;
mod prune;
mod restore;
mod run;
mod send;
mod status;
mod trial;
mod verify;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use nix::unistd::geteuid;

use self::members::Question;
use self::places::{At, Backups, become_owner};
use crate::backup::companions;
use crate::cli::Consent;
use crate::config::{self, Engine};
use crate::error::{Error, Kind, Result};
use crate::place::Place;
use crate::report::event;
use crate::runtime::{exit_code, interrupt};
use crate::terminal;

/// Back up every database of the server with pg_dump, and read the backup back.
///
/// Backups are directories named by the UTC time at which they were started. Each contains a manifest.json, the
/// roles in globals.sql.zst, and one file for each database, which pg_restore can read after
/// `zstd -d` (or psql after `zcat`, depending on the configuration).
///
/// Exit status: 0 for success, 2 for wrong arguments, 25 and above for the kind of failure; see
/// matrix-postgres-backup(1).
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres-backup", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/matrix-postgres/config.toml, then config.d/*.toml beside it]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a backup and read it back (the default)
    Run {
        /// Print what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the backups
    List {
        #[command(flatten)]
        at: Elsewhere,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a backup back completely, and record the result
    Verify {
        /// Name of the backup [default: the newest]
        name: Option<String>,
        /// Restore it into a temporary server and compare (trial restore)
        #[arg(long)]
        trial: bool,
        /// Print what would be read, and read nothing
        #[arg(long)]
        dry_run: bool,
        /// Decrypt it with this private key: an identity file of age, or the home directory of GnuPG, such as ~/.gnupg.
        /// Without a key, only the checksums of the files of an encrypted backup are verified
        #[arg(long, value_name = "PATH")]
        identity: Option<PathBuf>,
        #[command(flatten)]
        at: Elsewhere,
    },
    /// Restore a database; the existing database of that name is kept under another name
    Restore(restore::Arguments),
    /// Remove the backups that no rule of [backup.keep] keeps; every successful run does this as well
    Prune {
        /// Print which backups would be kept and removed, with the reasons, and remove nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        at: Elsewhere,
    },
    /// Send verified backups to the targets of [[offsite]] that lack them; matrix-postgres-backup-offsite.service does this
    /// after each backup
    Send {
        /// The target [default: all]
        target: Option<String>,
        /// Print what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Drop the databases that were replaced by a restore, see status
    Clean {
        #[command(flatten)]
        consent: Consent,
    },
    /// Notify the administrator how a unit ended (for matrix-postgres-notify@.service)
    #[command(hide = true)]
    Notify {
        /// The unit that failed; start:UNIT for one that starts, success:UNIT for one that succeeded
        unit: String,
        /// A file with the output of describe
        #[arg(long, value_name = "FILE")]
        described: Option<PathBuf>,
    },
    /// Print the state of the backups, for notify
    #[command(hide = true)]
    Describe {
        /// As for notify
        unit: String,
    },
    /// Carry out what a member of matrix-postgres-admin asks for on standard input (for matrix-postgres-report@.service)
    #[command(hide = true)]
    Answer,
    /// Print what a backup holds beside the databases, encrypted (for matrix-postgres-companions@.service)
    #[command(hide = true)]
    Companions,
    /// Show the state of the backups; exit status 0 only if there is no problem
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which backups are meant.
#[derive(Debug, Args)]
struct Elsewhere {
    /// Those in this target of [[offsite]], or in a place as rclone has it (REMOTE:PATH), and not those of this machine
    #[arg(long, value_name = "TARGET")]
    at: Option<String>,
    /// With --at: those of the machine that has this directory there [default: of this machine, or of the only one]
    #[arg(long, requires = "at", value_name = "DIRECTORY")]
    host: Option<String>,
}

impl Verb {
    /// Where the backups are that it is about.
    fn at(&self) -> At {
        match self {
            Self::List { at, .. } | Self::Verify { at, .. } | Self::Prune { at, .. } => {
                At { target: at.at.clone(), host: at.host.clone() }
            }
            Self::Restore(arguments) => arguments.at(),
            _ => At::default(),
        }
    }

    /// What a member of matrix-postgres-admin may ask for.
    fn question(&self) -> Option<Question> {
        match self {
            Self::List { at: Elsewhere { at: None, .. }, json } => Some(Question::List { json: *json }),
            Self::Status { json } => Some(Question::Status { json: *json }),
            _ => None,
        }
    }

    /// Whether it makes a backup of databases.
    fn dumps(&self, engine: Engine) -> bool {
        matches!(self, Self::Run { dry_run: false }) && engine.dumps()
    }

    /// Whether it does nothing without a server; nothing if it has nothing to do with one.
    fn needs_server(&self, engine: Engine) -> Option<bool> {
        match self {
            // How far the archive is, the server knows.
            Self::List { at, .. } if engine.is_pgbackrest() && at.at.is_none() => Some(false),
            // The server of a cluster that is to be brought back may be unable to start.
            Self::Restore(arguments) if arguments.is_of_cluster() => Some(false),
            Self::Run { .. } | Self::Restore(_) | Self::Clean { .. } => Some(true),
            // Of a server in a container, the programs are in its image.
            Self::Status { .. } | Self::Describe { .. } | Self::Verify { .. } => Some(false),
            Self::List { .. }
            | Self::Prune { .. }
            | Self::Send { .. }
            | Self::Notify { .. }
            | Self::Answer
            | Self::Companions => None,
        }
    }
}

/// Carries out the verb.
///
/// # Errors
/// See the verbs.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let verb = arguments.verb.unwrap_or(Verb::Run { dry_run: false });
    if let Verb::Answer = verb {
        return members::answer();
    }
    if let Verb::Companions = verb {
        let settings = config::load(arguments.config.as_deref())?;
        return companions::answer(&settings.backup).map(|()| ExitCode::SUCCESS);
    }
    if let Some(question) = verb.question().filter(|_| arguments.config.is_none() && !geteuid().is_root())
        && let Some(answered) = members::ask(question)?
    {
        return Ok(answered);
    }
    let mut settings = config::load(arguments.config.as_deref())?;
    // Whoever has the private key can read it; the backups' owner cannot, and is become when it has been used.
    // A restore stops and starts units, and a notice is the notify unit's: both stay who they are.
    let stays =
        matches!(verb, Verb::Verify { identity: Some(_), .. } | Verb::Restore(_) | Verb::Notify { .. });
    if !stays && geteuid().is_root() && terminal::is_ours() {
        return without_terminal();
    }
    // As who we are: servers and files tell root more.
    let mut _password = None;
    let place = match verb.needs_server(settings.backup.engine) {
        Some(needs) => {
            let place = crate::cli::place(&settings)?;
            match crate::cli::settle(&place, settings.clone()) {
                Err(error) if matches!(verb, Verb::Run { .. }) => {
                    let error = match error.kind() {
                        Kind::DataDirectory => error.context("there is nothing to back up"),
                        _ => error,
                    };
                    return Ok(crate::cli::failure_of(&error, event::FAILED));
                }
                Err(error) if needs => return Err(error),
                Ok(settled) => (settings, _password) = settled,
                Err(_) => {}
            }
            Some(place)
        }
        None => None,
    };
    // What only root may read is read before.
    let at = verb.at();
    let configuration = at.target.is_some().then(places::configuration).transpose()?;
    let companions = verb.dumps(settings.backup.engine).then(|| companions::gather(&settings.backup));
    let to_send = matches!(verb, Verb::Send { .. }).then(places::configuration);
    if let Verb::Clean { consent } = verb
        && geteuid().is_root()
    {
        clean::clusters(&settings, consent)?;
    }
    if !stays {
        become_owner(&settings)?;
    }
    if matches!(verb, Verb::Run { .. } | Verb::Clean { .. }) {
        place.as_ref().map_or(Ok(()), Place::require_user)?;
    }
    let backups = || Backups::find(&settings, &at, configuration.as_deref());
    match verb {
        Verb::Run { dry_run: true } => run::dry_run(&settings)?,
        Verb::Run { dry_run: false } => {
            if let Err(error) = run::run(&settings, companions.unwrap_or_default()) {
                return Ok(crate::cli::failure_of(&error, event::FAILED));
            }
        }
        Verb::Clean { consent } => clean::clean(&settings, consent)?,
        Verb::List { json, .. } => {
            let is_asked = settings.backup.engine.is_pgbackrest() && at.target.is_none();
            let others = is_asked.then(|| status::pgbackrest(&settings)).transpose()?;
            list::list(&*backups()?.store, others.as_ref(), json)?;
        }
        Verb::Restore(arguments) => restore::restore(&settings, &arguments, configuration.as_deref())?,
        Verb::Notify { unit, described } => notify::notify(&settings, &unit, described.as_deref())?,
        Verb::Describe { unit } => notify::describe(&settings, place.as_ref(), &unit)?,
        Verb::Prune { dry_run, .. } => prune::prune(&settings, dry_run, &backups()?)?,
        Verb::Send { target, dry_run } => {
            let configuration = to_send.unwrap_or_else(places::configuration);
            if let Err(error) = send::send(&settings, target.as_deref(), dry_run, configuration) {
                return Ok(crate::cli::failure_of(&error, event::NOT_SENT));
            }
        }
        // A name is that of a dump.
        Verb::Verify { name: None, trial, dry_run, .. }
            if !settings.backup.engine.dumps() && at.target.is_none() && (trial || !dry_run) =>
        {
            match trial {
                true => trial::of_pgbackrest(&settings, dry_run)?,
                false => verify::of_pgbackrest(&settings)?,
            }
        }
        Verb::Verify { name, trial: true, dry_run, identity, .. } => {
            let of_dump = trial::trial(&settings, name.as_deref(), dry_run, identity.as_deref(), &backups()?);
            let is_all = name.is_none() && at.target.is_none();
            trial::others(&settings, dry_run, is_all, of_dump)?;
        }
        Verb::Verify { name, trial: false, dry_run, identity, .. } => {
            verify::verify(&settings, name.as_deref(), dry_run, identity.as_deref(), &backups()?)?;
        }
        Verb::Answer | Verb::Companions => {}
        Verb::Status { json } => return status::status(&settings, place.as_ref(), json),
    }
    Ok(ExitCode::SUCCESS)
}

/// The same verb in a session without a terminal: what it starts is the owner's, who is not to type on root's.
fn without_terminal() -> Result<ExitCode> {
    let not_begun = |error| Error::new(Kind::Program, "could not leave the terminal").because(error);
    let mut command = Command::new(terminal::SETSID);
    command.arg(std::env::current_exe().map_err(not_begun)?).args(std::env::args_os().skip(1));
    interrupt::listen()?;
    let mut child = command.spawn().map_err(not_begun)?;
    interrupt::watch(child.id());
    child.wait().map(|status| ExitCode::from(exit_code(status))).map_err(not_begun)
}
