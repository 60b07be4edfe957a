//! Room for an upgrade, on each file system that it needs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{IoContext as _, Result};
use crate::files;
use crate::report::DecimalBytes;

/// How the rows travel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferMode {
    /// Through a directory of files, written and read by all processors.
    Files,
    /// From server to server, one table after the other: it needs no room.
    Stream,
}

/// A place where an upgrade writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Where.
    pub path: PathBuf,
    /// The file system's number.
    pub device: u64,
    /// Its free bytes.
    pub free: u64,
}

impl Room {
    /// Looks at the file system on which `path` is, or will be.
    ///
    /// # Errors
    /// [`crate::Kind::File`].
    pub fn of(path: &Path) -> Result<Self> {
        let place = path.ancestors().find(|place| place.exists()).unwrap_or(path);
        let device = place.metadata().at("read", place)?.dev();
        Ok(Self { path: path.to_owned(), device, free: files::free_space(place)? })
    }
}

/// The places where an upgrade writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Of the new cluster, beside the old one.
    pub beside: Room,
    /// Of the files of a dump.
    pub dump: Room,
    /// Of the old data directory, once it is kept.
    pub keep: Room,
}

impl Space {
    /// How the rows of a data directory of so many bytes can travel; a sentence with the numbers if in no way.
    ///
    /// # Errors
    /// What is too small.
    pub fn transfer_mode(&self, bytes: u64) -> Result<TransferMode, String> {
        self.fits(bytes, true)
            .map(|()| TransferMode::Files)
            .or_else(|_| self.fits(bytes, false).map(|()| TransferMode::Stream))
    }

    /// Whether a copy of a data directory of so many bytes, and the new cluster that shares its files, have room; a
    /// sentence with the numbers if not.
    ///
    /// # Errors
    /// What is too small.
    pub fn copy(&self, bytes: u64) -> Result<(), String> {
        self.fits(bytes, false)
    }

    fn fits(&self, bytes: u64, with_files: bool) -> Result<(), String> {
        // A new cluster has its own log, a copy that of the time it takes; a dump has no indexes, but may write its
        // rows longer.
        let mut needs = vec![(&self.beside, bytes + bytes / 10 + (1 << 30))];
        if with_files {
            needs.push((&self.dump, bytes));
        }
        if self.keep.device != self.beside.device {
            needs.push((&self.keep, bytes));
        }
        for (room, _) in &needs {
            let same: Vec<_> = needs.iter().filter(|(other, _)| other.device == room.device).collect();
            let needed: u64 = same.iter().map(|(_, bytes)| bytes).sum();
            if needed > room.free {
                let places: Vec<_> = same.iter().map(|(room, _)| room.path.display().to_string()).collect();
                return Err(format!(
                    "not enough disk space for {}: needed about {}, free {}",
                    places.join(" and "),
                    DecimalBytes(needed),
                    DecimalBytes(room.free)
                ));
            }
        }
        Ok(())
    }
}

/// Everybody's messages will lie in it: it must be a directory of the cluster's owner that nobody else may enter.
///
/// # Errors
/// [`Kind::File`].
pub fn check_private(directory: &Path, account: &Account) -> Result<()> {
    if directory.symlink_metadata().is_err() {
        return Ok(());
    }
    files::require_private("dump directory", directory, account, 0o077).map_err(|error| {
        error
            .state("nothing was changed")
            .hint("use another directory, which need not exist yet: --dump-dir, or upgrade.dump_directory")
    })
}

#[cfg(test)]
pub(in crate::upgrade) mod tests {
    use super::*;

    pub(crate) fn space(free: [u64; 3], devices: [u64; 3]) -> Space {
        let room =
            |index: usize, path: &str| Room { path: path.into(), device: devices[index], free: free[index] };
        Space { beside: room(0, "/d/data.upgrade"), dump: room(1, "/var/tmp/x"), keep: room(2, "/kept") }
    }

    const GB: u64 = 1_000_000_000;

    #[test]
    fn places_on_one_file_system_count_together() {
        assert_eq!(space([10 * GB; 3], [1, 1, 1]).transfer_mode(3 * GB), Ok(TransferMode::Files));
        assert_eq!(space([6 * GB; 3], [1, 1, 1]).transfer_mode(3 * GB), Ok(TransferMode::Stream));
        assert_eq!(space([5 * GB; 3], [1, 2, 1]).transfer_mode(3 * GB), Ok(TransferMode::Files));
        let message = space([4 * GB; 3], [1, 1, 1]).transfer_mode(3 * GB).unwrap_err();
        assert_eq!(message, "not enough disk space for /d/data.upgrade: needed about 4.37 GB, free 4.00 GB");
    }

    #[test]
    fn a_kept_directory_on_another_file_system_needs_room_there() {
        let message = space([50 * GB, 50 * GB, GB], [1, 1, 2]).transfer_mode(3 * GB).unwrap_err();
        assert!(message.contains("/kept: needed about 3.00 GB, free 1.00 GB"), "{message}");
        assert_eq!(space([50 * GB, 50 * GB, GB], [1, 1, 1]).transfer_mode(3 * GB), Ok(TransferMode::Files));
    }
}
