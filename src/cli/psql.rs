//! `matrix-postgres-cli`: a psql that is logged in.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use nix::unistd::{User, geteuid};

use crate::account::Account;
use crate::config::{self, Settings};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::{DataDirectory, Major};
use crate::runtime::{Call, Container, Host, Image, Runtime as _};
use crate::terminal;

/// psql, logged in to the homeserver's database as the superuser.
///
/// Every argument goes to psql, but for a leading `--config FILE`. The exit status is psql's.
#[derive(Debug, Parser)]
#[command(
    name = "matrix-postgres-cli",
    disable_help_flag = true,
    disable_version_flag = true,
    override_usage = "matrix-postgres-cli [--config FILE] [psql's arguments]"
)]
pub struct Arguments {
    /// Arguments of psql(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Becomes psql; returns only if that fails.
///
/// # Errors
/// [`Kind::Server`] if no server listens, [`Kind::NotInstalled`] without psql.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let (config, arguments) = split_config(arguments.arguments);
    let settings = config::load(config.as_deref())?;
    let place = super::place(&settings)?;
    let (settings, _password) = super::settle(&place, settings)?;
    let host = super::host(&settings);
    let server = &settings.server;
    let connection = settings.connection();
    if connection.is_absent() {
        return Err(Error::new(Kind::Server, format!("no server is listening on {}", connection.place()))
            .hint(format!("systemctl start {}", server.unit)));
    }
    if let Some(image) = settings.server.image.clone().filter(|image| image.network.is_some()) {
        return in_container(image, &settings, arguments);
    }
    // The user's own environment stays: pager, editor, history and start-up file are theirs. Where to log in
    // is ours to say, and by variables, so that psql's own arguments can still name another database.
    let error = command(&psql(&settings, &host)?, place.account())
        .args(arguments)
        .envs(connection.variables(&server.database))
        .env_remove("PGSERVICE")
        .env_remove("PGPASSWORD")
        .exec();
    Err(Error::new(Kind::Program, "could not start psql").because(error))
}

/// Becomes psql in a container, where the server is reached by its network only.
fn in_container(image: Image, settings: &Settings, arguments: Vec<OsString>) -> Result<ExitCode> {
    if !geteuid().is_root() {
        return Err(Error::new(
            Kind::UnitRefused,
            "the server is reached from containers only, and only root may start one",
        )
        .hint("sudo matrix-postgres-cli"));
    }
    let mut call = Call::new("psql", arguments);
    let variables = settings.connection().variables(&settings.server.database);
    call.environment = variables.into_iter().map(|(name, value)| (name, value.into())).collect();
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let error = Container::new(image, []).interactive(&call, on_terminal).exec();
    Err(Error::new(Kind::Program, "could not start psql in a container").because(error))
}

/// psql as the only user whom the server lets in. He gets neither our terminal nor our home directory.
fn command(psql: &Path, owner: Option<Account>) -> Command {
    let Some(owner) = owner.filter(|owner| geteuid().is_root() && !owner.is_root()) else {
        return Command::new(psql);
    };
    let mut command;
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        command = Command::new("runuser");
        command.args(["--pty", "--user", &owner.name, "--"]).arg(psql);
    } else {
        command = Command::new(terminal::SETSID);
        command.args(["--wait", terminal::SETPRIV, "--clear-groups"]);
        command.args([format!("--reuid={}", owner.uid), format!("--regid={}", owner.gid)]).arg(psql);
    }
    if let Ok(Some(user)) = User::from_uid(owner.uid) {
        command.env("HOME", user.dir);
    }
    // psql complains of a directory that it may not come back to.
    if !may_be_here(&owner) {
        command.current_dir("/");
    }
    command
}

/// Whether this user may be in the present directory.
fn may_be_here(user: &Account) -> bool {
    let Ok(here) = std::env::current_dir() else { return false };
    user.with_files(|| here.join(".").metadata().at("enter", &here)).is_ok()
}

/// The server's own psql; when we may not look into the data directory, the newest one.
fn psql(settings: &Settings, host: &Host) -> Result<PathBuf> {
    let is_here = settings.server.remote.is_none();
    let found = DataDirectory::read(&settings.data_directory, Path::new("/proc")).ok().filter(|_| is_here);
    let major = found.and_then(|found| found.contents.major());
    let newest = host.majors().last().copied();
    match major.and_then(|major| host.program("psql", major).ok()) {
        Some(file) => Ok(file),
        None => host.program("psql", newest.or(major).unwrap_or(Major(0))),
    }
}

fn split_config(mut arguments: Vec<OsString>) -> (Option<PathBuf>, Vec<OsString>) {
    let first = arguments.first().and_then(|first| first.to_str()).map(str::to_owned);
    match first.as_deref() {
        Some("--config") if arguments.len() > 1 => {
            let file = arguments.remove(1);
            arguments.remove(0);
            (Some(file.into()), arguments)
        }
        Some(first) if first.starts_with("--config=") => {
            arguments.remove(0);
            (Some(first["--config=".len()..].into()), arguments)
        }
        _ => (None, arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> (Option<PathBuf>, Vec<OsString>) {
        let line = std::iter::once("matrix-postgres-cli").chain(line.iter().copied());
        split_config(Arguments::parse_from(line).arguments)
    }

    #[test]
    fn everything_goes_to_psql_but_a_leading_config() {
        assert_eq!(parse(&["-c", "select 1"]), (None, vec!["-c".into(), "select 1".into()]));
        assert_eq!(parse(&["--help"]), (None, vec!["--help".into()]));
        assert_eq!(parse(&["--version", "x"]), (None, vec!["--version".into(), "x".into()]));
        assert_eq!(parse(&["--config", "/c", "-l"]), (Some("/c".into()), vec!["-l".into()]));
        assert_eq!(parse(&["--config=/c"]), (Some("/c".into()), vec![]));
        assert_eq!(parse(&["-l", "--config", "/c"]).1.len(), 3);
        assert_eq!(parse(&["--", "-x"]).1, vec![OsString::from("-x")]);
    }
}
