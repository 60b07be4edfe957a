//! A shutdown that waits for us, by logind.

use zbus::OwnedFd;

use super::bus::LogindProxy;
use super::manager::Manager;

/// What happens to a shutdown or a suspension meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is refused, unless root insists. An unprivileged user may be refused this.
    Block,
    /// It waits, for logind's `InhibitDelayMaxSec=` (5 seconds by default) at most.
    Delay,
}

/// A lock on shutdown and sleep, held until it is dropped or the process ends.
#[derive(Debug)]
#[must_use = "the lock is given up when this is dropped"]
pub struct Inhibitor {
    _lock: OwnedFd,
}

impl Inhibitor {
    /// Takes the lock; `why` is what `systemd-inhibit --list` shows, such as `upgrade of PostgreSQL`.
    ///
    /// A machine without logind, or one that refuses, gets a warning: the work is safe without, only cut
    /// short.
    pub fn take(manager: &Manager, mode: Mode, why: &str) -> Option<Self> {
        let mode = match mode {
            Mode::Block => "block",
            Mode::Delay => "delay",
        };
        let taken = zbus::block_on(async {
            let logind = LogindProxy::new(&manager.connection).await?;
            logind.inhibit("shutdown:sleep", "matrix-postgres", why, mode).await
        });
        match taken {
            Ok(lock) => Some(Self { _lock: lock }),
            Err(error) => {
                log::warn!("a shutdown will not wait for the {why}: logind gives no lock: {error}");
                None
            }
        }
    }
}
