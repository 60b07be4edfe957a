//! `matrix-postgres-server`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::error::Result;
use crate::place::Place;
use crate::systemd::notify;
use crate::{config, server};

/// Run the PostgreSQL server of matrix-postgres.service, in the major version of its data directory.
///
/// An empty or missing data directory is initialised first, with a role and a database for Synapse.
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres-server", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/matrix-postgres/config.toml, then config.d/*.toml beside it]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// For ExecStop= of the unit: wait until the server can be stopped
    #[arg(long, hide = true)]
    before_stop: bool,
    /// For ExecStartPost= and ExecReload= of the unit: give the socket's directory back to the server's user
    #[arg(long, hide = true)]
    hand_back: bool,
}

/// What postgres(1) and libsystemd read in the environment of a service.
const HANDED_ON: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "PG_OOM_ADJUST_FILE",
    "PG_OOM_ADJUST_VALUE",
    "INVOCATION_ID",
];

/// Runs the server; returns only if that fails, or when asked for the plan.
///
/// # Errors
/// See [`server::start`] and [`server::stop`].
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let settings = config::load(arguments.config.as_deref())?;
    if arguments.hand_back {
        // PostgreSQL has said what systemd has to hear. After a reload there is nobody to tell.
        notify::end();
        server::hand_back(&settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.before_stop {
        if let Err(error) = server::hand_back(&settings) {
            log::warn!("{}", error.report());
        }
        let main = std::env::var("MAINPID").ok().and_then(|main| main.parse().ok());
        server::stop(&settings, &super::host(&settings), main)?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = super::place(&settings)?;
    place.require_own("is the homeserver's, and has a server and a unit of its own").map_err(|error| {
        let new = "for a new server of our own: server.kind = \"own\" in /etc/matrix-postgres/config.toml";
        match &place {
            Place::External { .. } => {
                error.hint(format!("matrix-postgres-cli logs in to it; {new}, without server.host"))
            }
            Place::Container { container, .. } => {
                error.hint(format!("systemctl start {}; {new}", container.unit))
            }
            _ => error.hint(format!("systemctl start postgresql; {new}")),
        }
    })?;
    let environment = HANDED_ON
        .iter()
        .filter_map(|name| std::env::var_os(name).map(|value| (name.into(), value)))
        .collect();
    // Whoever has asked systemd for it learns the reason from there.
    let plan = server::start(&settings, &super::host(&settings), environment, arguments.dry_run)
        .inspect_err(|error| notify::status(&error.one_line()))?;
    super::print(&(plan + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
