//! Two data directories change places, in one step where the file system can.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::RenameFlags;

use crate::error::{Error, IoContext as _, Result};
use crate::files::exists;
use crate::files::{self, directories};

/// Exchanges the directories `a` and `b`, which have the same parent; it lasts when this returns.
///
/// renameat2(2) does it in one step. A file system that has no `RENAME_EXCHANGE` gets three renames, between which `a`
/// may be missing: [`mend`] puts that right after a death.
///
/// # Errors
/// [`crate::Kind::File`]; both are then where they were.
pub fn exchange(a: &Path, b: &Path) -> Result<()> {
    match directories::rename(a, b, RenameFlags::RENAME_EXCHANGE)? {
        Ok(()) => {}
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => by_renames(a, b)?,
        Err(errno) => {
            return Err(Error::io(&format!("exchange {} and", a.display()), b, errno.into()));
        }
    }
    sync_parent(a)
}

fn by_renames(a: &Path, b: &Path) -> Result<()> {
    let aside = aside(b);
    rename(a, &aside)?;
    sync_parent(a)?;
    rename(b, a).inspect_err(|_| {
        let _ = rename(&aside, a);
    })?;
    sync_parent(a)?;
    rename(&aside, b)
}

/// Where `a` waits while there are renames.
fn aside(b: &Path) -> PathBuf {
    let mut name = b.as_os_str().to_owned();
    name.push(".aside");
    name.into()
}

/// After an [`exchange`] that was cut off: either nothing of it has happened then, or all.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn mend(a: &Path, b: &Path) -> Result<()> {
    let aside = aside(b);
    if !exists(&aside) {
        return Ok(());
    }
    match exists(a) {
        true => rename(&aside, b)?,
        false => rename(&aside, a)?,
    }
    sync_parent(a)
}

/// Gives `from` the name `to`, which must not be taken: not even an empty directory is replaced. Returns whether that
/// was possible; it is not across file systems.
///
/// # Errors
/// [`crate::Kind::File`], also if the name is taken.
pub fn move_to(from: &Path, to: &Path) -> Result<bool> {
    let renamed = match directories::rename(from, to, RenameFlags::RENAME_NOREPLACE)? {
        Err(Errno::EINVAL | Errno::ENOSYS) if exists(to) => Err(Errno::EEXIST),
        Err(Errno::EINVAL | Errno::ENOSYS) => directories::rename(from, to, RenameFlags::empty())?,
        renamed => renamed,
    };
    match renamed {
        Ok(()) => {}
        Err(Errno::EXDEV) => return Ok(false),
        Err(errno) => return Err(Error::io(&format!("rename {} to", from.display()), to, errno.into())),
    }
    sync_parent(from)?;
    sync_parent(to)?;
    Ok(true)
}

/// Removes a directory that was never in place. A program that a dead run has left may still write in it: by another name
/// that does not find it any more, and ends. Cut off, it is done by calling this again.
///
/// # Errors
/// [`crate::Kind::File`].
pub(in crate::upgrade) fn remove(directory: &Path) -> Result<()> {
    let mut gone = directory.as_os_str().to_owned();
    gone.push(GONE);
    let gone = match directory.as_os_str().as_encoded_bytes().ends_with(GONE.as_bytes()) {
        true => directory.to_owned(),
        false => PathBuf::from(gone),
    };
    // What is just being written may appear meanwhile.
    let remove = || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match directories::remove(&gone) {
                Err(error)
                    if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                removed => return removed.at("remove", &gone),
            }
        }
    };
    if exists(&gone) {
        remove()?;
    }
    if exists(directory) && directory != gone {
        rename(directory, &gone)?;
        remove()?;
    }
    Ok(())
}

/// How long a program that a dead run has left may go on writing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is being removed is called that.
pub(in crate::upgrade) const GONE: &str = ".gone";

fn rename(from: &Path, to: &Path) -> Result<()> {
    directories::rename(from, to, RenameFlags::empty())?.at(&format!("rename {} to", from.display()), to)
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .ok_or_else(|| Error::io("find the parent of", path, io::Error::from(io::ErrorKind::NotFound)))?;
    files::sync_directory(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let (a, b) = (parent.path().join("data"), parent.path().join("data.upgrade"));
        for (directory, text) in [(&a, "old"), (&b, "new")] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join("x"), text).unwrap();
        }
        (parent, a, b)
    }

    fn content(directory: &Path) -> String {
        std::fs::read_to_string(directory.join("x")).unwrap()
    }

    #[test]
    fn they_change_places_and_back() {
        let (_parent, a, b) = two();
        exchange(&a, &b).unwrap();
        assert_eq!((content(&a), content(&b)), ("new".into(), "old".into()));
        by_renames(&a, &b).unwrap();
        assert_eq!((content(&a), content(&b)), ("old".into(), "new".into()));
    }

    #[test]
    fn an_exchange_that_was_cut_off_is_undone_or_done() {
        let (_parent, a, b) = two();
        mend(&a, &b).unwrap();
        std::fs::rename(&a, aside(&b)).unwrap();
        mend(&a, &b).unwrap();
        assert_eq!((content(&a), content(&b)), ("old".into(), "new".into()));
        std::fs::rename(&a, aside(&b)).unwrap();
        std::fs::rename(&b, &a).unwrap();
        mend(&a, &b).unwrap();
        assert_eq!((content(&a), content(&b)), ("new".into(), "old".into()));
    }

    #[test]
    fn what_was_being_removed_is_removed() {
        let (parent, a, _b) = two();
        std::fs::rename(&a, parent.path().join("data.gone")).unwrap();
        remove(&a).unwrap();
        assert!(!parent.path().join("data.gone").exists());
        std::fs::create_dir_all(a.join("base")).unwrap();
        remove(&a).unwrap();
        assert!(!a.exists() && !parent.path().join("data.gone").exists());
    }

    #[test]
    fn a_name_that_is_taken_is_not_touched() {
        let (parent, a, b) = two();
        let empty = parent.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(move_to(&a, &empty).is_err());
        assert!(move_to(&a, &b).is_err());
        assert_eq!(content(&a), "old");
        assert!(move_to(&a, &parent.path().join("free")).unwrap());
    }
}
