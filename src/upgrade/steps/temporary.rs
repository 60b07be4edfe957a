//! Clusters that are made beside the data directory to try something out, and thrown away: by rehearsals and by checks.

use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::error::{IoContext as _, Result};
use crate::files::{self, exists};
use crate::upgrade::records::named_after;
use crate::upgrade::steps::exchange::GONE;
use crate::upgrade::steps::servers::{Sockets, take_down};

/// What their names begin with, behind the data directory's own.
pub(in crate::upgrade) const REHEARSAL: &str = "rehearsal-";
pub(in crate::upgrade) const CHECK: &str = "check-";

/// What is made is removed when dropped, with the servers on it. The holder has the lock of the cluster.
pub(in crate::upgrade) struct TemporaryClusters<'a> {
    settings: &'a Settings,
    directories: Vec<PathBuf>,
}

impl<'a> TemporaryClusters<'a> {
    /// Says that `directories` will be made for `id`, and beside which data directory: who recovers does not go by the names of
    /// directories, which others may make.
    ///
    /// # Errors
    /// [`crate::Kind::File`].
    pub(in crate::upgrade) fn set(
        settings: &'a Settings,
        id: &str,
        directories: Vec<PathBuf>,
    ) -> Result<Self> {
        let place = settings.data_directory.display();
        files::replace(
            &marker(settings),
            &format!("{id}\n{place}\n{}\n", settings.socket_directory.display()),
        )?;
        Ok(Self { settings, directories })
    }
}

impl Drop for TemporaryClusters<'_> {
    fn drop(&mut self) {
        for directory in self.directories.iter().filter(|path| exists(path)) {
            if let Err(error) = take_down(directory) {
                log::warn!("{}", error.report());
            }
        }
        let nothing_left = left(&self.settings.data_directory).map(|left| left.is_empty());
        if let Err(error) = nothing_left.and_then(|yes| if yes { unmark(self.settings) } else { Ok(()) }) {
            log::warn!("{}", error.report());
        }
    }
}

/// What is there while something is tried out.
fn marker(settings: &Settings) -> PathBuf {
    settings.state_directory.join("rehearsing")
}

/// The data directory beside which it is, and that of the sockets: a cluster of Debian's is in no file of settings.
fn places(settings: &Settings) -> (PathBuf, PathBuf) {
    let text = std::fs::read_to_string(marker(settings)).unwrap_or_default();
    let mut paths = text.lines().skip(1).map(PathBuf::from).filter(|path| path.is_absolute());
    match (paths.next(), paths.next()) {
        (Some(data), Some(sockets)) => (data, sockets),
        _ => (settings.data_directory.clone(), settings.socket_directory.clone()),
    }
}

fn unmark(settings: &Settings) -> Result<()> {
    let marker = marker(settings);
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", &marker),
    }
}

/// Whether a rehearsal or a check that was killed may have left something, or one is under way.
pub(in crate::upgrade) fn has_left(settings: &Settings) -> bool {
    marker(settings).exists()
}

/// Ends and removes what a rehearsal or a check has left that was killed. The caller holds the lock. What cannot be removed
/// keeps nothing else from it.
///
/// # Errors
/// [`crate::Kind::File`], [`crate::Kind::Server`], naming everything that is still there.
pub(in crate::upgrade) fn clear_abandoned(settings: &Settings) -> Result<()> {
    let (data_directory, sockets) = places(settings);
    let left = left(&data_directory)?;
    let sockets = match left.is_empty() {
        true => Ok(()),
        false => Sockets::remove_abandoned(&sockets),
    };
    let removed = left.iter().map(|path| {
        log::info!("removing a leftover of a rehearsal or a check: {}", path.display());
        take_down(path)
    });
    let mut failed: Vec<_> = removed.chain([sockets]).filter_map(Result::err).collect();
    if failed.is_empty() {
        return unmark(settings);
    }
    let first = failed.remove(0);
    for error in &failed {
        log::error!("{}", error.report());
    }
    // What is being removed has another name.
    let still: Vec<_> = self::left(&data_directory)?.iter().map(|path| path.display().to_string()).collect();
    Err(match still.is_empty() {
        true => first,
        false => first
            .context(format!("could not remove leftovers of a rehearsal or a check: {}", still.join(", "))),
    })
}

/// Whether a name ends as ours do, or as what is being removed. An administrator's own directory may begin like it.
fn is_ours(ending: &[u8]) -> bool {
    let Ok(ending) = std::str::from_utf8(ending) else { return false };
    let id = ending.strip_suffix(GONE).unwrap_or(ending);
    let id = id.strip_suffix("-copy").unwrap_or(id);
    let shape = id.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b });
    shape.eq(*b"00000000T000000Z")
}

fn left(data_directory: &Path) -> Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (data_directory.parent(), data_directory.file_name()) else {
        return Ok(vec![]);
    };
    let prefixes = [REHEARSAL, CHECK].map(|prefix| named_after(Path::new(name), prefix).into_os_string());
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.at("read", parent)?,
    };
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry.at("read", parent)?;
        let name = entry.file_name();
        let ending =
            |prefix: &std::ffi::OsString| name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let is_one = prefixes.iter().filter_map(ending).any(is_ours);
        if is_one && entry.file_type().at("read", parent)?.is_dir() {
            left.push(entry.path());
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_bears_our_names_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let others = [
            "data",
            "data.rehearsal-x",
            "data.check-x",
            "data.upgrade-20261124T030000Z",
            "rehearsal-20261124T030000Z",
        ];
        let ours = ["", "-copy", ".gone", "-copy.gone"]
            .map(|end| ["rehearsal", "check"].map(|what| format!("data.{what}-20261124T030000Z{end}")))
            .concat();
        for name in others.iter().copied().chain(ours.iter().map(String::as_str)) {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let mut settings = Settings::from_fragment(crate::config::Fragment::default()).unwrap();
        settings.data_directory = data.clone();
        settings.socket_directory = parent.path().join("run");
        settings.state_directory = parent.path().to_owned();
        std::fs::write(marker(&settings), "").unwrap();
        assert!(has_left(&settings) && !left(&data).unwrap().is_empty());
        clear_abandoned(&settings).unwrap();
        assert!(!has_left(&settings) && left(&data).unwrap().is_empty());
        assert!(others.iter().all(|name| parent.path().join(name).exists()));
    }

    #[test]
    fn what_cannot_be_removed_keeps_nothing_else_from_it() {
        let parent = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_fragment(crate::config::Fragment::default()).unwrap();
        settings.data_directory = parent.path().join("data");
        settings.socket_directory = parent.path().join("run");
        settings.state_directory = parent.path().to_owned();
        std::fs::write(marker(&settings), "").unwrap();
        let names = [1, 2, 3].map(|day| format!("data.rehearsal-2026112{day}T000000Z"));
        for name in &names {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        // Its server cannot be told.
        let pid_file = parent.path().join(&names[0]).join("postmaster.pid");
        std::os::unix::fs::symlink("/etc/passwd", pid_file).unwrap();
        let error = clear_abandoned(&settings).unwrap_err();
        assert!(
            error.to_string().ends_with(&format!(
                "leftovers of a rehearsal or a check: {}/{}",
                parent.path().display(),
                names[0]
            )),
            "{error}"
        );
        assert!(has_left(&settings) && left(&settings.data_directory).unwrap().len() == 1);
    }
}
