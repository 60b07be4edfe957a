//! Exactly one of backup, restore and upgrade runs at a time, and the others are told who does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext as _, Kind, Result};

/// The lock's name in the state directory.
pub const FILE: &str = "lock";

/// Who holds the lock, as written into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// What it does, such as `backup`.
    pub work: String,
    /// Its process id.
    pub pid: u32,
    /// Since when.
    pub since: jiff::Timestamp,
}

/// The lock, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in `state_directory` for `work`.
    ///
    /// # Errors
    /// [`Kind::Locked`] naming the holder; [`Kind::File`] if the state directory is not usable.
    pub fn take(state_directory: &Path, work: &str, now: jiff::Timestamp) -> Result<Self> {
        let path = state_directory.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .at("open the lock", &path)
            .map_err(|error| error.hint("systemd-tmpfiles --create matrix-postgres.conf"))?;
        if nix::unistd::geteuid().is_root() {
            // By hand it is root's turn, by systemd that of the directory's owner.
            let meta = state_directory.metadata().at("read", state_directory)?;
            std::os::unix::fs::fchown(&file, Some(meta.uid()), Some(meta.gid()))
                .at("change the owner of", &path)?;
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file)),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
        }
        let holder = Holder { work: work.to_owned(), pid: std::process::id(), since: now };
        let text = serde_json::to_string(&holder).map_err(std::io::Error::from).at("write", &path)?;
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).at("write", &path)?;
        Ok(Self { _file: file })
    }
}

fn held(file: &mut File) -> Error {
    let mut text = String::new();
    // Between lock and write the holder is not named yet.
    let holder = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str::<Holder>(&text).ok());
    match holder {
        Some(Holder { work, pid, since }) => {
            Error::new(Kind::Locked, format!("{work} is under way (process {pid}, since {since:.0})"))
        }
        None => Error::new(Kind::Locked, "another backup, restore or upgrade is under way"),
    }
    .state("nothing was started, and what is under way goes on")
    .hint("wait for it to end: systemctl list-units 'matrix-postgres*'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first_and_the_third_gets_in() {
        let directory = tempfile::tempdir().unwrap();
        let now = jiff::Timestamp::from_second(1_795_000_000).unwrap();
        let first = Lock::take(directory.path(), "upgrade", now).unwrap();
        let error = Lock::take(directory.path(), "backup", now).unwrap_err();
        assert_eq!(error.kind(), Kind::Locked);
        let expected = format!("upgrade is under way (process {}, since 2026-", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        drop(first);
        Lock::take(directory.path(), "backup", now).unwrap();
    }

    #[test]
    fn a_missing_state_directory_is_named() {
        let error = Lock::take(Path::new("/nonexistent"), "backup", jiff::Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/lock"), "{error}");
    }
}
