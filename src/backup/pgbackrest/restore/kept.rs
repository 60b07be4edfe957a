//! Clusters that restores have left beside the one in place: those that were replaced stay until somebody says that they may go,
//! and what a restore that was killed has made is nobody's.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result, each};
use crate::files::{self, directories, stamp};
use crate::lock::Lock;
use crate::postgres::{DataDirectory, is_whole};
use crate::report::DecimalBytes;

/// What the names of clusters that were replaced have behind that of the data directory, before the time, which is written as in a
/// backup's name.
pub(super) const BEFORE: &str = ".before-restore-";

/// What is being restored.
pub(super) const RESTORING: &str = ".restoring";

/// A cluster that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// When the restore began that has replaced it; nothing for one that was not finished.
    pub since: Option<Timestamp>,
    /// Bytes of it.
    pub bytes: u64,
    /// Whole days since then.
    pub days: Option<i64>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, bytes) = (self.path.display(), DecimalBytes(self.bytes));
        match (self.since, self.days) {
            (Some(since), Some(days)) => {
                write!(f, "{path}, cluster before a restore, {bytes}, since {since:.0} ({days} days)")
            }
            _ => write!(f, "{path}, left unfinished by an interrupted restore, {bytes}"),
        }
    }
}

/// Those that there are, the oldest first. What a restore that is under way makes is none.
///
/// # Errors
/// [`Kind::File`] if the directory that the data directory is in cannot be read.
pub fn find(settings: &Settings, now: Timestamp) -> Result<Vec<Kept>> {
    if settings.server.remote.is_some() {
        return Ok(Vec::new());
    }
    // Who may not look at root's lock does not call a restore that is under way a leftover.
    look(&settings.data_directory, now, Lock::is_cluster_taken(settings).unwrap_or(true))
}

fn look(data: &Path, now: Timestamp, under_way: bool) -> Result<Vec<Kept>> {
    let (parent, Some(prefix)) = (files::parent(data), data.file_name()) else { return Ok(Vec::new()) };
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", parent)?,
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let Some(rest) = name.strip_prefix(prefix.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok())
        else {
            continue;
        };
        let since = time(rest);
        let is_ours = since.is_some() || rest == RESTORING && !under_way;
        if !is_ours || !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        // Whoever is not its owner sees no further.
        let bytes = files::size_of(&path).unwrap_or(0);
        let days = since.map(|since| now.duration_since(since).as_hours() / 24);
        found.push(Kept { path, since, bytes, days });
    }
    found.sort_by(|a, b| (a.since, &a.path).cmp(&(b.since, &b.path)));
    Ok(found)
}

/// The time in what follows the name of the data directory; a second one of the same second has a number.
fn time(rest: &str) -> Option<Timestamp> {
    let (time, number) = rest.strip_prefix(BEFORE)?.split_at_checked(stamp::LENGTH)?;
    let is_numbered = number.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok());
    let time = stamp::read(time)?;
    (number.is_empty() || is_numbered).then_some(time)
}

/// Removes those of them that are still there, as root; whoever calls it has asked.
///
/// # Errors
/// [`Kind::DataDirectory`] if one of them may be the only cluster, or if a server uses it; [`Kind::Locked`], [`Kind::File`].
pub fn remove(settings: &Settings, kept: &[Kept], now: Timestamp) -> Result<()> {
    let _lock = Lock::take_cluster(settings, "clean-up")?;
    if !is_whole(&settings.data_directory) {
        let message = format!(
            "{} is not a complete cluster: a leftover may be the only copy",
            settings.data_directory.display()
        );
        return Err(Error::new(Kind::DataDirectory, message).state("nothing was removed"));
    }
    let still = look(&settings.data_directory, now, false)?;
    let still_there = kept.iter().filter(|kept| still.iter().any(|now| now.path == kept.path));
    each(still_there.map(|kept| remove_one(&kept.path)))
}

fn remove_one(path: &Path) -> Result<()> {
    if let Some(server) = DataDirectory::read(path, Path::new("/proc"))?.postmaster {
        let message = format!("a server uses {}: process {}", path.display(), server.pid);
        return Err(Error::new(Kind::DataDirectory, message).state("it was not removed"));
    }
    directories::remove(path).at("remove", path)?;
    log::info!("removed {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_have_their_names_are_told_with_size_and_age() {
        let root = tempfile::tempdir().unwrap();
        let names = [
            "data",
            "data.before-restore-20261124T030000Z",
            "data.before-restore-20261124T030000Z-2",
            "data.restoring",
            "data.before-restore-2026",
            "data.before-restore-20261124T030000Z-x",
            "data.before-restore-20269924T030000Z",
            "other.before-restore-20261124T030000Z",
        ];
        for name in names {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join(names[1]).join("x"), [0; 3000]).unwrap();
        let found = |under_way| {
            let now = "2026-12-06T04:00:00Z".parse().unwrap();
            look(&root.path().join("data"), now, under_way).unwrap()
        };
        let all: Vec<_> = found(false).iter().map(|kept| kept.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(all, [names[3], names[1], names[2]]);
        assert_eq!(found(true).len(), 2);
        let told: Vec<_> = found(false).iter().map(ToString::to_string).collect();
        assert!(
            told[0].ends_with("data.restoring, left unfinished by an interrupted restore, 0 B"),
            "{told:?}"
        );
        let expected = ", cluster before a restore, 3.00 kB, since 2026-11-24T03:00:00Z (12 days)";
        assert!(told[1].ends_with(expected), "{told:?}");
    }
}
