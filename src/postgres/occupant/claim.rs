//! A lock on a data directory itself (flock(2)), which its server holds for as long as it runs. The system keeps it with the
//! directory: whoever asks sees it, from whatever namespace, and nothing is written.

use std::fs::{File, TryLockError};
use std::os::fd::IntoRawFd as _;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;

use crate::error::{IoContext as _, Result};
use crate::files::beneath::Directory;

/// How long somebody may hold it who only looks.
const LOOK: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(10);

/// The lock, held until dropped, or, handed on, until the last process of the server has ended.
#[derive(Debug)]
pub struct Claim(Option<File>);

impl Claim {
    /// Takes it; nothing if another server has it. A file system that has no such locks, as some of other machines, gives one
    /// that keeps nobody out.
    ///
    /// # Errors
    /// [`crate::Kind::File`] if the directory cannot be read.
    pub fn take(directory: &Directory) -> Result<Option<Self>> {
        let file = directory.readable().at("open", directory.path())?;
        let deadline = Instant::now() + LOOK;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(Some(file)))),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(TICK),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    log::debug!("{} cannot be locked: {error}", directory.path().display());
                    return Ok(Some(Self(None)));
                }
            }
        }
    }

    /// Whether a server has it. Nobody waits for who asks.
    pub(super) fn is_held(directory: &Directory) -> bool {
        let Ok(file) = directory.readable() else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Leaves it to the program that this process becomes.
    ///
    /// # Errors
    /// [`crate::Kind::File`].
    pub fn hand_on(self, directory: &Directory) -> Result<()> {
        let Some(file) = self.0 else { return Ok(()) };
        rustix::io::fcntl_setfd(&file, FdFlags::empty()).at("keep open", directory.path())?;
        let _ = file.into_raw_fd();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn it_is_held_by_the_program_that_it_was_handed_on_to() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        assert!(!Claim::is_held(&directory));
        let claim = Claim::take(&directory).unwrap().unwrap();
        assert!(Claim::is_held(&directory) && Claim::take(&directory).unwrap().is_none());
        drop(claim);
        assert!(!Claim::is_held(&directory));
        // As a server that is started from here; files of others are closed when a program begins.
        Claim::take(&directory).unwrap().unwrap().hand_on(&directory).unwrap();
        let inherited = format!("ls -l /proc/self/fd | grep -qF {}", root.path().display());
        assert!(Command::new("/bin/sh").args(["-c", &inherited]).status().unwrap().success());
        assert!(Claim::is_held(&directory));
    }
}
