//! What is done while services are stopped.

use std::time::Duration;

use crate::error::Result;
use crate::runtime::{Guard, tool};
use crate::systemd::{Inhibitor, Manager, Stopped};

/// Does `work` while those of `wanted` that run are stopped, and starts them again, whatever came of it; so does a guard if we
/// are killed before. `what` is what a reboot of the machine waits for. What came of the work, and of starting them.
///
/// # Errors
/// If they could not be stopped; nothing was done then, and they run.
pub(super) fn outage<T>(
    manager: &Manager,
    what: &str,
    wanted: &[String],
    timeout: Duration,
    work: impl FnOnce() -> T,
) -> Result<(T, Result<()>)> {
    let _inhibitor = Inhibitor::take(manager, what);
    let units = Stopped::would_stop(manager, wanted)?;
    let guard = guard(&units)?;
    let stopped = Stopped::stop(manager, &units, timeout);
    let done = stopped.map(|stopped| (work(), stopped.start_again()));
    // Whatever came of it, everything has been tried by now.
    if let Some(guard) = guard {
        guard.dismiss();
    }
    done
}

/// Starts the units if we are killed before we do.
fn guard(units: &[String]) -> Result<Option<Guard>> {
    if units.is_empty() {
        return Ok(None);
    }
    let start = ["start"].into_iter().chain(units.iter().rev().map(String::as_str));
    Guard::post(&tool("systemctl", "systemd")?, start).map(Some)
}
