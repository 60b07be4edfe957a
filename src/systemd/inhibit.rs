//! An inhibitor lock of logind: no shutdown during the work.

use zbus::OwnedFd;

use super::bus::LogindProxy;
use super::manager::Manager;

/// A lock that blocks shutdown and sleep, unless root insists, until it is dropped or the process ends.
#[derive(Debug)]
#[must_use = "the lock is given up when this is dropped"]
pub struct Inhibitor {
    _lock: OwnedFd,
}

impl Inhibitor {
    /// Takes the lock; `why` is what `systemd-inhibit --list` shows, such as `upgrade of PostgreSQL`.
    ///
    /// Without logind, or if it refuses the lock, a warning is logged: a shutdown would only interrupt the work.
    pub fn take(manager: &Manager, why: &str) -> Option<Self> {
        let taken = zbus::block_on(async {
            let logind = LogindProxy::new(&manager.connection).await?;
            logind.inhibit("shutdown:sleep", "matrix-postgres", why, "block").await
        });
        match taken {
            Ok(lock) => Some(Self { _lock: lock }),
            Err(error) => {
                log::warn!(
                    "could not take an inhibitor lock of logind; a shutdown will not be blocked during the {why}: {error}"
                );
                None
            }
        }
    }
}
