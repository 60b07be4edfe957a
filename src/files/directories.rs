//! Whole directories are moved and removed by whoever owns the place that they are in, whoever we are: what may have been put
//! there meanwhile leads no further than that user comes by himself.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::geteuid;

use super::beneath::{self, Directory};
use crate::account::Account;
use crate::error::{IoContext as _, Result};

/// Gives `from` the name `to`, as renameat2(2) does; what it answers is for the caller to judge. In a directory of one user
/// it is done as that user; from one user's to another's only root may.
///
/// # Errors
/// [`crate::Kind::File`] if a directory is not there.
pub fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<std::result::Result<(), Errno>> {
    let ((from, name), (to, new_name)) = (beneath::parent(from)?, beneath::parent(to)?);
    let rename = || Ok(renameat2(&from, name, &to, new_name, flags));
    match from.owner().uid == to.owner().uid {
        true => from.as_owner(rename),
        false => rename(),
    }
}

/// Removes a directory and all that is in it, or what else bears the name, if anything does. No link is followed.
///
/// # Errors
/// Those of the system.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let parent = match Directory::open(parent) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        parent => parent?,
    };
    let Some(entry) = parent.look(name)? else { return Ok(()) };
    let owner = entry.owner();
    let removed = match () {
        () if !entry.is_directory() => parent.as_owner(|| Ok(parent.remove_file(name))),
        // Root's place, where its owner could not remove it himself.
        () if geteuid().is_root() && parent.owner().is_root() && !owner.is_root() => {
            let cleared = owner.with_files(|| Ok(clear(path)));
            cleared.map(|cleared| cleared.and_then(|()| parent.remove_directory(name)))
        }
        () => parent.as_owner(|| Ok(std::fs::remove_dir_all(path))),
    };
    match removed.map_err(io::Error::other)? {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn clear(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let removed = match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Makes `directory` and what is missing above it, for the owner of what is there.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn make_all(directory: &Path, mode: u32) -> Result<()> {
    let make =
        || std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory).at("create", directory);
    let there = directory.ancestors().skip(1).find(|above| above.symlink_metadata().is_ok());
    match there.filter(|_| directory.symlink_metadata().is_err()) {
        Some(above) => Directory::open(above).at("open", above)?.as_owner(make),
        None => make(),
    }
}

/// An empty directory of `account` alone. In a place of root's, where its owner may make none, root makes it: nobody else can meddle there.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn make_private(directory: &Path, account: &Account) -> Result<()> {
    let make = || std::fs::DirBuilder::new().mode(0o700).create(directory);
    let made = account.with_files(|| Ok(make()))?;
    match made {
        Err(error)
            if error.kind() == std::io::ErrorKind::PermissionDenied && is_roots(super::parent(directory)) =>
        {
            make().at("create", directory)?;
            let made = Directory::open(directory).and_then(|directory| directory.readable());
            made.and_then(|made| fchown(made, Some(account.uid.as_raw()), Some(account.gid.as_raw())))
                .at("change the owner of", directory)
        }
        made => made.at("create", directory),
    }
}

fn is_roots(directory: &Path) -> bool {
    Directory::open(directory).is_ok_and(|directory| directory.is_roots())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

    const THEM: u32 = 65534;

    /// Root's place, and a directory of somebody else's in it.
    fn places() -> (tempfile::TempDir, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let theirs = root.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        if geteuid().is_root() {
            chown(&theirs, Some(THEM), Some(THEM)).unwrap();
        }
        (root, theirs)
    }

    #[test]
    fn links_are_removed_and_not_what_they_lead_to() {
        let (root, theirs) = places();
        let canary = root.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "").unwrap();
        symlink(&canary, theirs.join("link")).unwrap();
        std::fs::create_dir(theirs.join("sub")).unwrap();
        if geteuid().is_root() {
            chown(theirs.join("sub"), Some(THEM), Some(THEM)).unwrap();
            lchown(theirs.join("link"), Some(THEM), Some(THEM)).unwrap();
        }
        symlink(&canary, theirs.join("sub/link")).unwrap();
        remove(&theirs.join("link")).unwrap();
        symlink(&canary, theirs.join("again")).unwrap();
        remove(&theirs).unwrap();
        remove(&theirs).unwrap();
        assert!(canary.join("file").exists() && !theirs.exists());
    }

    #[test]
    fn in_anothers_place_nothing_of_roots_is_removed_or_reached() {
        if !geteuid().is_root() {
            return;
        }
        let (root, theirs) = places();
        let roots = theirs.join("data.rehearsal");
        std::fs::create_dir(&roots).unwrap();
        std::fs::write(roots.join("precious"), "").unwrap();
        assert_eq!(remove(&roots).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(roots.join("precious").exists());
        // On the way there is a link of theirs to what is not.
        symlink(root.path(), theirs.join("up")).unwrap();
        lchown(theirs.join("up"), Some(THEM), Some(THEM)).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(remove(&theirs.join("up/file")).is_err());
        assert!(rename(&theirs.join("up/file"), &theirs.join("x"), RenameFlags::empty()).is_err());
        assert!(root.path().join("file").exists());
    }

    #[test]
    fn what_is_made_in_anothers_place_is_that_ones() {
        let (root, theirs) = places();
        make_all(&theirs.join("a/b"), 0o755).unwrap();
        make_all(&theirs.join("a/b"), 0o755).unwrap();
        make_all(&root.path().join("c"), 0o700).unwrap();
        if geteuid().is_root() {
            let uid = |path: &Path| path.metadata().unwrap().uid();
            assert_eq!((uid(&theirs.join("a/b")), uid(&root.path().join("c"))), (THEM, 0));
        }
    }
}
