//! Opens what another user may have placed: a link, a pipe, or something that is exchanged at any moment.
//!
//! A directory is found step by step, and held; what is in it is opened from there, without following any link, and looked at
//! by its descriptor. Links on the way to the directory are an administrator's means to put it elsewhere: those of root are
//! followed, and another user's only where it leads to a directory of his own.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::account::Account;
use crate::error::{IoContext as _, Result};

/// As the system itself (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// To find what is in a directory; it takes no right to read it. An automounted one is mounted.
const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// To read; a pipe lets nobody wait, and a terminal is not taken.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A directory, whatever its path leads to by now.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

impl Directory {
    /// Finds the directory at `path`.
    ///
    /// # Errors
    /// Those of open(2); [`ErrorKind::InvalidData`] for a link that is not trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut rest: VecDeque<OsString> = steps(path).collect();
        let start = |path: &Path| if path.is_absolute() { "/" } else { "." };
        let mut descriptor = rustix::fs::openat(CWD, start(path), DIRECTORY, Mode::empty())?;
        let mut makers = Vec::new();
        while let Some(name) = rest.pop_front() {
            match rustix::fs::openat(&descriptor, &*name, DIRECTORY, Mode::empty()) {
                Ok(next) => descriptor = next,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let (maker, target) = link(&descriptor, &name)?;
                    makers.push(maker);
                    if makers.len() > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        descriptor = rustix::fs::openat(CWD, "/", DIRECTORY, Mode::empty())?;
                    }
                    steps(&target)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .for_each(|name| rest.push_front(name));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let stat = rustix::fs::fstat(&descriptor)?;
        // Whoever is not root is led nowhere where he may not go.
        let mistrusted = |maker: &&u32| **maker != 0 && **maker != stat.st_uid;
        if let Some(maker) = makers.iter().find(mistrusted).filter(|_| geteuid().is_root()) {
            let maker = Account::of(*maker, 0).name;
            return Err(odd(format!("a symbolic link of {maker} leads to a file of another user")));
        }
        Ok(Self { descriptor, path: path.to_owned(), stat })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn owner(&self) -> Account {
        Account::of(self.stat.st_uid, self.stat.st_gid)
    }

    /// The device and the number of it: another directory has others.
    pub fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Whether nobody but root can change what is in it.
    pub fn is_roots(&self) -> bool {
        self.stat.st_uid == 0 && self.stat.st_mode & 0o022 == 0
    }

    /// Works with what is in it as its owner, see [`Account::with_files`]; as whoever we are, if that is not root or it is
    /// root's own.
    ///
    /// # Errors
    /// As there.
    pub fn as_owner<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match geteuid().is_root() && self.stat.st_uid != 0 {
            true => self.owner().with_files(work),
            false => work(),
        }
    }

    /// The directory below it.
    ///
    /// # Errors
    /// Those of open(2); [`ErrorKind::InvalidData`] if a link is on the way.
    pub fn directory(&self, name: &Path) -> io::Result<Self> {
        let descriptor = self.beneath(name, DIRECTORY)?;
        let stat = rustix::fs::fstat(&descriptor)?;
        Ok(Self { descriptor, path: self.path.join(name), stat })
    }

    /// Opens the file `name` below it for reading.
    ///
    /// # Errors
    /// Those of open(2); [`ErrorKind::InvalidData`] if it is not a regular file, or a link is on the way.
    pub fn file(&self, name: &Path) -> io::Result<File> {
        regular(self.beneath(name, CAREFUL)?)
    }

    /// Opens the file `name` below it, which is there, for writing.
    ///
    /// # Errors
    /// As [`Directory::file`].
    pub fn file_to_write(&self, name: &Path) -> io::Result<File> {
        regular(self.beneath(name, CAREFUL | OFlags::WRONLY)?)
    }

    /// What is in the file `name`, which must not be longer than `limit` bytes.
    ///
    /// # Errors
    /// As [`Directory::file`]; [`ErrorKind::InvalidData`] if it is longer.
    pub fn read(&self, name: &Path, limit: u64) -> io::Result<Vec<u8>> {
        read_all(self.file(name)?, limit)
    }

    /// What bears this name in it, if something does: a link is not followed.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn look(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Entry { stat })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names of what is in it.
    ///
    /// # Errors
    /// Those of open(2) and getdents(2).
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(OwnedFd::from(self.readable()?))? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of rmdir(2).
    pub fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR)?)
    }

    /// Itself, for what takes the right to read it: to give it to somebody, and to write it to the disk.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn readable(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty())?))
    }

    /// Makes renames in it last.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        self.readable()?.sync_all()
    }

    fn beneath(&self, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        if name.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(odd(format!("{} leads out of {}", name.display(), self.path.display())));
        }
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match rustix::fs::openat2(&self.descriptor, name, flags, Mode::empty(), resolve) {
            // A kernel before 5.6, or a filter of system calls that does not know it.
            Err(Errno::NOSYS | Errno::PERM) => self.step_by_step(name, flags),
            opened => opened.map_err(told),
        }
    }

    fn step_by_step(&self, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let (above, last) = (name.parent().unwrap_or(Path::new("")), name.file_name().unwrap_or_default());
        let mut directory = None;
        for step in steps(above) {
            let at = directory.as_ref().map_or(self.descriptor.as_fd(), OwnedFd::as_fd);
            directory =
                Some(rustix::fs::openat(at, &*step, DIRECTORY, Mode::empty()).map_err(
                    |errno| match errno {
                        Errno::NOTDIR if link(at, &step).is_ok() => told(Errno::LOOP),
                        errno => errno.into(),
                    },
                )?);
        }
        let at = directory.as_ref().map_or(self.descriptor.as_fd(), OwnedFd::as_fd);
        rustix::fs::openat(at, last, flags, Mode::empty()).map_err(told)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What bears a name.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    stat: Stat,
}

impl Entry {
    /// Whether it is a directory, and not a link to one.
    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// Whose it is.
    pub fn owner(&self) -> Account {
        Account::of(self.stat.st_uid, self.stat.st_gid)
    }

    /// Whether it has no other name.
    pub fn has_one_name(&self) -> bool {
        self.stat.st_nlink == 1
    }
}

/// The directory that `path` is in, and its name there.
///
/// # Errors
/// As [`Directory::open`].
pub fn parent(path: &Path) -> Result<(Directory, &OsStr)> {
    let split = path.parent().zip(path.file_name());
    let (parent, name) = split.ok_or(ErrorKind::InvalidInput).at("find the directory of", path)?;
    Ok((Directory::open(parent).at("open", parent)?, name))
}

/// Opens a file for reading, see [`Directory::file`].
///
/// # Errors
/// As there.
pub fn open(path: &Path) -> io::Result<File> {
    let (parent, name) = split(path)?;
    Directory::open(parent)?.file(name)
}

/// Opens a file that is there for writing.
///
/// # Errors
/// As [`open`].
pub fn open_to_write(path: &Path) -> io::Result<File> {
    let (parent, name) = split(path)?;
    Directory::open(parent)?.file_to_write(name)
}

/// What is in a file, see [`Directory::read`].
///
/// # Errors
/// As there.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_all(open(path)?, limit)
}

/// Opens a file for reading where links may be followed, because who we are with files may not go further than is good.
///
/// # Errors
/// Those of open(2); [`ErrorKind::InvalidData`] if it is not a regular file.
pub fn open_through_links(path: &Path) -> io::Result<File> {
    let flags = CAREFUL.difference(OFlags::NOFOLLOW);
    regular(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Everything that is in a file, which must not be longer than `limit` bytes.
///
/// # Errors
/// Those of read(2); [`ErrorKind::InvalidData`] if it is longer.
pub fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(odd(format!("it is longer than {limit} bytes"))),
        false => Ok(bytes),
    }
}

fn split(path: &Path) -> io::Result<(&Path, &Path)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")), Path::new(name)))
}

fn regular(descriptor: OwnedFd) -> io::Result<File> {
    let file = File::from(descriptor);
    if file.metadata()?.is_file() { Ok(file) } else { Err(odd("it is not a regular file")) }
}

/// The maker of a link, and where it leads.
fn link(directory: impl AsFd, name: &OsStr) -> io::Result<(u32, PathBuf)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&link)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Err(Errno::NOTDIR.into());
    }
    let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
    Ok((stat.st_uid, OsString::from_vec(target.into_bytes()).into()))
}

fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

fn told(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => odd("it is a symbolic link"),
        errno => errno.into(),
    }
}

fn odd(reason: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn told_by<T>(result: io::Result<T>) -> String {
        result.map(drop).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_opened_through_a_link_nor_is_a_pipe_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir(path("in")).unwrap();
        std::fs::write(path("in/file"), "text").unwrap();
        symlink("in/file", path("link")).unwrap();
        symlink("in", path("through")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let directory = Directory::open(root.path()).unwrap();
        for by_steps in [false, true] {
            let opened = |name: &str| {
                let opened = match by_steps {
                    true => directory.step_by_step(Path::new(name), CAREFUL),
                    false => directory.beneath(Path::new(name), CAREFUL),
                };
                opened.and_then(regular)
            };
            assert_eq!(read_all(opened("in/file").unwrap(), 4).unwrap(), b"text");
            assert_eq!(told_by(read_all(opened("in/file").unwrap(), 3)), "it is longer than 3 bytes");
            for link in ["link", "through/file"] {
                assert_eq!(told_by(opened(link)), "it is a symbolic link", "{link}");
            }
            assert_eq!(
                (told_by(opened("pipe")), told_by(opened("in"))),
                ("it is not a regular file".into(), "it is not a regular file".into())
            );
            assert_eq!(opened("nothing").unwrap_err().kind(), ErrorKind::NotFound);
        }
        for out in ["../x", "/etc/passwd", "in/../link"] {
            assert!(told_by(directory.file(Path::new(out))).contains("leads out of"), "{out}");
        }
        assert!(directory.directory(Path::new("through")).is_err());
        assert_eq!(told_by(open_to_write(&path("link"))), "it is a symbolic link");
        assert_eq!(told_by(open_through_links(&path("pipe"))), "it is not a regular file");
        open_through_links(&path("link")).unwrap();
    }

    #[test]
    fn an_administrators_link_leads_to_the_directory_and_a_users_only_to_his_own() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["roots", "theirs"] {
            std::fs::create_dir(path(name)).unwrap();
            symlink(name, path(&format!("to-{name}"))).unwrap();
        }
        symlink(path("to-theirs"), path("twice")).unwrap();
        symlink("loop", path("loop")).unwrap();
        assert!(
            Directory::open(&path("loop")).is_err() && Directory::open(&path("roots/../nothing")).is_err()
        );
        std::fs::write(path("theirs/file"), "").unwrap();
        for way in ["theirs", "to-theirs", "twice", "roots/../to-theirs"] {
            assert!(open(&path(way).join("file")).is_ok(), "{way}");
        }
        if !geteuid().is_root() {
            return;
        }
        let is_theirs = |name: &str| std::os::unix::fs::lchown(path(name), Some(65534), Some(65534)).unwrap();
        is_theirs("to-roots");
        is_theirs("to-theirs");
        assert!(told_by(Directory::open(&path("to-roots"))).contains("leads to a file of another user"));
        assert!(Directory::open(&path("twice")).is_err());
        is_theirs("theirs");
        assert_eq!(Directory::open(&path("twice")).unwrap().owner().uid.as_raw(), 65534);
    }

    #[test]
    fn in_anothers_directory_we_are_that_one() {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (theirs, roots) = (root.path().join("theirs"), root.path().join("roots"));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(&roots, "").unwrap();
        std::fs::set_permissions(&roots, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
        let read = || std::fs::read(&roots).at("read", &roots);
        assert_eq!(Directory::open(&theirs).unwrap().as_owner(read).unwrap_err().kind(), Kind::File);
        Directory::open(root.path()).unwrap().as_owner(read).unwrap();
        let make = || std::fs::write(theirs.join("x"), "").at("write", &theirs);
        Directory::open(&theirs).unwrap().as_owner(make).unwrap();
        assert_eq!(theirs.join("x").metadata().unwrap().uid(), 65534);
    }
}
