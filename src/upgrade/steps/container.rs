//! The server in a container: how it is stopped so that everything is written, and how long it takes to answer.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Database, Occupant, Session, is_away, pg_controldata};
use crate::runtime::{AsUser, Process, Runtime, interrupt};
use crate::systemd::Manager;
use crate::upgrade::records::{Container, Upgrade};

/// How often it is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What is said while a server has no socket yet, or one that another has left.
const NO_SOCKET: [&str; 2] = ["no server is listening", "No such file or directory"];

/// Stops the unit of the server in `container`, which has the data directory `home`, and makes sure that nothing is left of it.
///
/// What the unit does is another's: `docker stop` has the server wait for its clients, and kills it after a while. So it is told to
/// disconnect them (fast shutdown), as soon as systemd will not start it again.
///
/// # Errors
/// [`Kind::UnitJob`]; [`Kind::Server`] if the container does not end.
pub(super) fn stop(
    manager: &Manager,
    unit: &str,
    timeout: Duration,
    (container, home): (&Container, &Path),
    owner: &Account,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let find = || Occupant::find(home).map(|found| found.filter(|found| found.is_in(&container.name)));
    let mut process = find()?.and_then(|occupant| Process::of(occupant.pid?, owner.uid));
    manager.stop_until(unit, timeout, &mut || {
        if let Some(process) = process.take() {
            process.signal(Signal::SIGINT);
        }
        false
    })?;
    while let Some(occupant) = find()? {
        interrupt::check()?;
        if Instant::now() > deadline {
            let message = format!("{unit} was stopped, but {occupant} still has {}", home.display());
            return Err(Error::new(Kind::Server, message).hint(occupant.hint()));
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Makes sure that the old cluster was shut down with everything written: its server may have been killed.
///
/// # Errors
/// [`Kind::DataDirectory`] if it was not.
pub(super) fn require_shut_down(runtime: &dyn Runtime, account: &Account, upgrade: &Upgrade) -> Result<()> {
    let control = pg_controldata::read(&AsUser { runtime, account }, upgrade.from, &upgrade.data_directory)?;
    if control.is_shut_down() {
        return Ok(());
    }
    let home = upgrade.data_directory.display();
    let message = format!("the server was not shut down cleanly: the state of {home} is {:?}", control.state);
    Err(Error::new(Kind::DataDirectory, message)
        .hint(format!("give the server more time in ExecStop= of {}", upgrade.server_unit)))
}

/// Extensions of a database that the programs of the server's image do not have.
const MISSING: &str =
    "SELECT coalesce(pg_catalog.json_agg(extname ORDER BY extname), '[]') FROM pg_catalog.pg_extension
    WHERE extname NOT IN (SELECT name FROM pg_catalog.pg_available_extensions);";

/// Makes sure that the image has the extensions of all databases: those of the machine have made the cluster.
///
/// # Errors
/// [`Kind::NotInstalled`] naming the first one that it has not.
pub(super) fn require_extensions(server: &Session<'_>, container: &Container) -> Result<()> {
    for Database { name, .. } in postgres::databases(server)? {
        let missing: Vec<String> = server.query(&name, MISSING)?;
        if let Some(extension) = missing.first() {
            let image = &container.new.image;
            let message =
                format!("the image {image} has no extension {extension}, which database {name:?} uses");
            return Err(Error::new(Kind::NotInstalled, message)
                .hint("set upgrade.image in /etc/matrix-postgres/config.toml to an image that has it"));
        }
    }
    Ok(())
}

/// Asks a server whose unit was just started until it answers: the unit counts as started before it does.
///
/// # Errors
/// The last answer, once the unit runs no more, or `timeout` is over.
pub(super) fn answer<T>(
    manager: &Manager,
    unit: &str,
    timeout: Duration,
    ask: impl Fn() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let error = match ask() {
            Err(error) if is_away(&error) || NO_SOCKET.iter().any(|said| error.report().contains(said)) => {
                error
            }
            answered => return answered,
        };
        let state = manager.unit(unit)?;
        if !state.is_active() || Instant::now() > deadline {
            return Err(error
                .context(format!("the server of {unit} does not answer; the unit is {}", state.describe()))
                .hint(format!("journalctl -u {unit} -e")));
        }
        std::thread::sleep(TICK);
    }
}
