//! Before systemd stops the server: one that recovers from a crash of its own comes to the end of that first.
//!
//! From 15 on, a postmaster that is told to shut down "fast" meanwhile waits forever for its checkpointer, which nobody has
//! told to end (`PM_WAIT_BACKENDS` with `FatalError`, postmaster.c); and so would everybody who waits for it: an upgrade, and a
//! reboot of the machine.

use std::thread::sleep;
use std::time::Duration;

use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Connection, pg_isready};
use crate::runtime::Runtime;

/// How often it is asked.
const TICK: Duration = Duration::from_millis(100);

/// Waits until the server lets clients in, or is not there any more; that takes as long as the recovery.
///
/// # Errors
/// [`Kind::NotInstalled`], [`Kind::Program`] if it cannot be asked.
pub fn wait_for_recovery(settings: &Settings, runtime: &dyn Runtime) -> Result<()> {
    let connection =
        Connection::new(&settings.socket_directory, settings.server.port, &settings.server.superuser);
    let newest = runtime.majors().last().copied();
    let newest = newest.ok_or_else(|| Error::new(Kind::NotInstalled, "no PostgreSQL is installed"))?;
    let mut told = false;
    while pg_isready::is_rejecting(runtime, newest, &connection)? {
        if !std::mem::replace(&mut told, true) {
            log::info!("the server is in crash recovery and will be stopped when that has ended");
        }
        sleep(TICK);
    }
    Ok(())
}
