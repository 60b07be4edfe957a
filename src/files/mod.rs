//! Files that must not be half there.
//!
//! - [`beneath`]: opens what another user may have placed
//! - [`directories`]: moves and removes whole directories, in whosever place they are
//! - [`stamp`]: times in names

pub mod beneath;
pub mod directories;
pub mod stamp;

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use self::beneath::Directory;
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};

/// Makes renames in `directory` last.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn sync_directory(directory: &Path) -> Result<()> {
    Directory::open(directory).and_then(|directory| directory.sync()).at("sync", directory)
}

/// Writes `file` in one step, readable for its owner only, replacing one that is there; it lasts when this
/// returns.
///
/// # Errors
/// [`crate::Kind::File`] or [`crate::Kind::NoSpace`]; the old file is then as it was.
pub fn replace(file: &Path, text: &str) -> Result<()> {
    replace_with_mode(file, text, 0o600)
}

/// The same, readable for everybody.
///
/// # Errors
/// As [`replace`].
pub fn publish(file: &Path, text: &str) -> Result<()> {
    replace_with_mode(file, text, 0o644)
}

fn replace_with_mode(file: &Path, text: &str, mode: u32) -> Result<()> {
    put(file, &mut text.as_bytes(), mode, None)
}

/// Writes `file` in one step, with the mode and, as far as we may, the owner that `like` has; it lasts when this returns. A
/// symbolic link that is there is replaced, not followed.
///
/// # Errors
/// As [`replace`].
pub fn replace_like(file: &Path, content: &mut dyn Read, like: &Metadata) -> Result<()> {
    put(file, content, like.mode() & 0o777, Some(like))
}

fn put(file: &Path, content: &mut dyn Read, mode: u32, like: Option<&Metadata>) -> Result<()> {
    let directory = parent(file);
    // What a power cut leaves tells by its name what it was to be.
    let prefix = format!(".{}.", file.file_name().unwrap_or_default().display());
    let mut temporary = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory).at("write", file)?;
    std::io::copy(content, temporary.as_file_mut()).at("write", file)?;
    match like {
        Some(like) => make_like(temporary.as_file(), like).at("change the owner of", file)?,
        None => temporary.as_file().set_permissions(Permissions::from_mode(mode)).at("write", file)?,
    }
    temporary.as_file().sync_all().at("sync", file)?;
    temporary.persist(file).map_err(|error| Error::io("write", file, error.error))?;
    sync_directory(directory)
}

/// Gives what is open, and ours, the owner and the mode that `like` has. Who is not root can give nothing to others: it stays
/// his, and for others than him it is not more open than it was: PostgreSQL takes a key of root's that its group may read,
/// and none such of its own.
fn make_like(file: &File, like: &Metadata) -> std::io::Result<()> {
    let meta = file.metadata()?;
    let wanted = (
        Some(like.uid()).filter(|uid| *uid != meta.uid()),
        Some(like.gid()).filter(|gid| *gid != meta.gid()),
    );
    let mode = match wanted {
        (None, None) => like.mode(),
        (uid, gid) => match fchown(file, uid, gid) {
            Ok(()) => like.mode(),
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            Err(_) => match like.mode().trailing_zeros() >= 3 {
                true => like.mode() & 0o700 | 0o600,
                false => like.mode() | 0o600,
            },
        },
    };
    file.set_permissions(Permissions::from_mode(mode & 0o777))
}

/// Makes `directory`, unless it is there, with the mode and, as far as we may, the owner that `like` has; it lasts when this
/// returns.
///
/// # Errors
/// [`crate::Kind::File`], also if something else is there.
pub fn create_directory_like(directory: &Path, like: &Metadata) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_directory(directory) => return Ok(()),
        created => created.at("create", directory)?,
    }
    let (parent, name) = beneath::parent(directory)?;
    let made = parent.directory(Path::new(name)).and_then(|made| made.readable());
    made.and_then(|made| make_like(&made, like)).at("change the owner of", directory)?;
    parent.sync().at("sync", parent.path())
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Copies the file, the symbolic link, or the directory with all that is in it, from `from` to `to`, with modes and, as far as
/// we may, owners; it lasts when this returns. What is in a directory that is there already stays. A link is copied as it
/// is, and nothing behind one is read.
///
/// # Errors
/// [`crate::Kind::File`] or [`crate::Kind::NoSpace`].
pub fn copy_like(from: &Path, to: &Path) -> Result<()> {
    let meta = from.symlink_metadata().at("read", from)?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        return copy_link(from, to);
    }
    if kind.is_dir() {
        create_directory_like(to, &meta)?;
        for entry in std::fs::read_dir(from).at("read", from)? {
            let name = entry.at("read", from)?.file_name();
            copy_like(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    let mut file = beneath::open(from).at("read", from)?;
    let meta = file.metadata().at("read", from)?;
    replace_like(to, &mut file, &meta)
}

fn copy_link(from: &Path, to: &Path) -> Result<()> {
    let target = from.read_link().at("read", from)?;
    let directory = parent(to);
    let prefix = format!(".{}.", to.file_name().unwrap_or_default().display());
    let link = tempfile::Builder::new()
        .prefix(&prefix)
        .make_in(directory, |path| symlink(&target, path))
        .at("write", to)?
        .into_temp_path();
    link.persist(to).map_err(|error| Error::io("write", to, error.error))?;
    sync_directory(directory)
}

/// Whether something is of this user, and nobody else has any of the rights `closed` to it, such as 0o077.
pub fn is_private(meta: &Metadata, owner: Uid, closed: u32) -> bool {
    meta.uid() == owner.as_raw() && meta.mode() & closed == 0
}

/// Fails unless this is a directory, and no link to one, that is private to `owner`, see [`is_private`]; `what` is what it is for.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn require_private(what: &str, directory: &Path, owner: &Account, closed: u32) -> Result<()> {
    let meta = directory.symlink_metadata().at("read", directory)?;
    match meta.is_dir() && is_private(&meta, owner.uid, closed) {
        true => Ok(()),
        false => Err(Error::new(
            Kind::File,
            format!(
                "the {what} {} is not a directory of {}, or its permissions are too open",
                directory.display(),
                owner.name
            ),
        )),
    }
}

/// Bytes that an ordinary user may still write to the file system of `directory`.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn free_space(directory: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory).at("get the free space of", directory)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Whether there is anything of this name, a link that leads nowhere among it.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The directory that `path` is in.
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// `wanted`, or the next free name after it: `wanted-2`, `wanted-3`…
pub fn free_name(wanted: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = wanted.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    match exists(wanted) {
        false => wanted.to_owned(),
        true => (2..u32::MAX).map(numbered).find(|name| !exists(name)).unwrap_or_else(|| wanted.to_owned()),
    }
}

/// Bytes of what is in `directory`, tablespaces left out; what goes away meanwhile does not count.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn size_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).at("read", directory)? {
        let entry = entry.at("read", directory)?;
        // A running server removes files while we look.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += match meta.is_dir() {
            true => size_of(&entry.path()).unwrap_or(0),
            false => meta.len(),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_followed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("kept");
        assert_eq!(free_name(&wanted), wanted);
        std::fs::create_dir(&wanted).unwrap();
        std::fs::write(parent.path().join("kept-2"), "").unwrap();
        assert_eq!(free_name(&wanted), parent.path().join("kept-3"));
    }

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        std::fs::write(&file, "a longer text").unwrap();
        replace(&file, "short").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "short");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        publish(&file, "for all").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_copy_has_modes_and_links_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::write(from.join("sub/key"), "secret").unwrap();
        std::fs::set_permissions(from.join("sub/key"), Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(from.join("sub"), Permissions::from_mode(0o750)).unwrap();
        symlink("/nonexistent", from.join("link")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(to.join("link"), "is replaced").unwrap();
        std::fs::write(to.join("other"), "stays").unwrap();
        for _ in 0..2 {
            copy_like(&from, &to).unwrap();
        }
        let mode = |path: &str| to.join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("sub"), mode("sub/key")), (0o750, 0o600));
        assert_eq!(std::fs::read_to_string(to.join("sub/key")).unwrap(), "secret");
        assert_eq!(to.join("link").read_link().unwrap(), Path::new("/nonexistent"));
        assert!(to.join("other").exists());
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 3);
        nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(copy_like(&from, &to).unwrap_err().report().ends_with("it is not a regular file"));
    }
}
