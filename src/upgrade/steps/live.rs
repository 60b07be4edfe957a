//! The server of a unit: stopped as soon as it has shut down, and started as soon as it lets clients in. What commands of its unit
//! have still to do then, nobody waits for.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::error::Result;
use crate::postgres::Postmaster;
use crate::runtime::Process;
use crate::systemd::Manager;
use crate::upgrade::steps::servers::working_on;

const PROC: &str = "/proc";

/// What ExecStop= of our own unit calls.
const OURS: &str = "/usr/libexec/matrix-postgres/matrix-postgres-server";

/// Stops the unit, and waits until its server has ended, which works on `home`.
///
/// # Errors
/// As [`Manager::stop_until`].
pub(super) fn stop(
    manager: &Manager,
    unit: &str,
    timeout: Duration,
    home: &Path,
    owner: &Account,
) -> Result<()> {
    let found = Postmaster::of(home, Path::new(PROC))?.filter(|found| found.unit.as_deref() == Some(unit));
    // It does the same as soon as it runs, and sees to it that the server comes to an end. Others may fail where there is no
    // server any more.
    let is_told_by_us = manager.is_stopped_by(unit, OURS).unwrap_or(false);
    let mut process = found
        .as_ref()
        .filter(|found| is_told_by_us && found.is_ready)
        .and_then(|found| Process::of(found.pid, owner.uid));
    manager.stop_until(unit, timeout, &mut || {
        if let Some(process) = process.take() {
            process.signal(Signal::SIGINT);
        }
        found.is_some() && matches!(working_on(home), Ok(None))
    })
}

/// Starts the unit, and waits until its server on `home` lets clients in, or until it is started where a command that comes after
/// that may fail.
///
/// # Errors
/// As [`Manager::start_until`].
pub(super) fn start(manager: &Manager, unit: &str, timeout: Duration, home: &Path) -> Result<()> {
    let may_fail = manager.may_fail_after_start(unit).unwrap_or(true);
    manager.start_until(unit, timeout, &mut || {
        !may_fail
            && Postmaster::of(home, Path::new(PROC)).is_ok_and(|found| {
                found.is_some_and(|found| found.is_ready && found.unit.as_deref() == Some(unit))
            })
    })
}
