//! The arguments of each program, and what it prints. Here, and in [`crate::report`], the environment is
//! read; nowhere else.

pub mod backup;
pub mod container;
pub mod psql;
pub mod server;
pub mod setup;
pub mod upgrade;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser};
use nix::sys::stat::{Mode, umask};

use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::place::{Password, Place, provide};
use crate::postgres;
use crate::report::{self, event};
use crate::runtime::{Container, Host, Mixed, Runtime as _};

/// The outermost function of every program: files are private from the first byte, and a failure is told
/// with state and hint and becomes the exit status.
pub fn main<A: Parser>(name: &str, run: impl FnOnce(A) -> Result<ExitCode>) -> ExitCode {
    umask(Mode::from_bits_truncate(0o077));
    // Help and usage errors are clap's own; it exits with 0 and 2.
    let arguments = A::parse();
    report::log::set_up(name);
    let status = run(arguments).unwrap_or_else(|error| failure(&error));
    report::log::settle();
    status
}

/// Tells a failure; the whole of it is one journal entry, with its exit status as a field.
pub fn failure(error: &Error) -> ExitCode {
    let status = error.kind().exit_status();
    if error.kind() == Kind::Damaged {
        return failure_of(error, event::DAMAGED);
    }
    log::error!(EXIT_STATUS = status, ERROR_KIND:debug = error.kind(); "{}", error.told());
    ExitCode::from(status)
}

/// The same, of a failure that journal and catalog know by an id.
pub fn failure_of(error: &Error, id: &str) -> ExitCode {
    let status = error.kind().exit_status();
    let id = if error.kind() == Kind::Damaged { event::DAMAGED } else { id };
    log::error!(
        MESSAGE_ID = id, EXIT_STATUS = status, ERROR_KIND:debug = error.kind();
        "{}", error.told()
    );
    ExitCode::from(status)
}

/// Where the server is.
fn place(settings: &Settings) -> Result<Place> {
    Place::find(settings, &Host::new(Path::new("/"), std::env::var_os("PATH")))
}

/// The settings for the server in `place`; and the password of one on the network, which programs find for as long as it is kept.
fn settle(place: &Place, settings: Settings) -> Result<(Settings, Option<Password>)> {
    let mut settings = place.settle(settings)?;
    let account = host(&settings).account().cloned();
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let password = provide(&mut settings, account.as_ref(), credentials.as_deref())?;
    Ok((settings, password))
}

/// What was found, and what is said of the server there.
#[derive(serde::Serialize)]
struct At<'a, T> {
    server: &'a Place,
    #[serde(flatten)]
    said: T,
}

/// PostgreSQL's programs for the server that the settings are about: those of this machine, and, if it is in a container, those
/// of its image where this machine has none of its version.
fn programs(settings: &Settings) -> Mixed {
    let directories = [settings.backup.scratch_directory.clone()];
    let image = settings.server.image.clone();
    let apart = settings.server.remote.as_ref().filter(|_| image.is_some()).map(|remote| remote.host.clone());
    Mixed::new(host(settings), image.map(|image| Container::new(image, directories)), apart)
}

/// PostgreSQL's programs on this machine; for root, they run as the owner of the cluster.
fn host(settings: &Settings) -> Host {
    let user = &settings.server.user;
    let account = match settings.server.remote {
        // What lies where a cluster of this machine would be is nobody's who matters there.
        Some(_) => Account::named(user).ok().flatten().filter(|account| !account.is_root()),
        None => postgres::account_of(&settings.data_directory, user),
    };
    Host::new(Path::new("/"), std::env::var_os("PATH")).run_as(account)
}

fn well(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Kind::NotWell.exit_status()),
    }
}

/// Whether somebody watches.
fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Prints to standard output; a reader who has gone away is no failure.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(report::plain(text).as_bytes()).and_then(|()| std::io::stdout().flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::File, "could not write to standard output").because(error))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(Kind::Bug, "could not write JSON").because(error))?;
    print(&(text + "\n"))
}

/// What verbs that remove or replace something are given.
#[derive(Debug, Clone, Copy, Args)]
struct Consent {
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Consent {
    /// Whether what was printed is to be done; whoever is asked says yes, or that is an error. Until then there is nothing to clean up,
    /// and Ctrl-C is an answer, too: signals are listened for afterwards.
    fn is_given(self, question: &str) -> Result<bool> {
        if self.dry_run {
            return Ok(false);
        }
        if !self.yes {
            confirm(question)?;
        }
        Ok(true)
    }

    /// The same, after what would be removed was printed, where there is something.
    fn is_given_to_remove(self, found: &[impl std::fmt::Display]) -> Result<bool> {
        if found.is_empty() {
            return print("no leftovers\n").map(|()| false);
        }
        let lines: Vec<_> = found.iter().map(|leftover| format!("remove {leftover}\n")).collect();
        print(&lines.concat())?;
        self.is_given("remove them permanently?")
    }
}

/// Asks, and fails unless the answer is yes.
fn confirm(question: &str) -> Result<()> {
    let refused = |message: &str| {
        Err(Error::new(Kind::Interrupted, message)
            .state("nothing was changed")
            .hint("pass --yes to answer in advance"))
    };
    if !std::io::stdin().is_terminal() {
        return refused("standard input is not a terminal, so the confirmation cannot be asked for");
    }
    print(&format!("\n{question} [y/N] "))?;
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => refused("the answer was not yes"),
    }
}
