//! A directory for what is thrown away: unpacked dumps, and trial servers with their sockets.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath};
use crate::postgres::DataDirectory;
use crate::report::DecimalBytes;
use crate::runtime::Process;

/// Our own directories in it begin like this; nothing else in it is touched.
const PREFIX: &str = "scratch-";

/// How long what a killed run had started may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of our own in the scratch directory, gone when dropped. That of a run that was killed is removed
/// by the next: nobody holds its lock.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Who else may read what is written there.
    account: Option<Account>,
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent`, which is made itself when it is missing.
    ///
    /// # Errors
    /// [`Kind::File`], also if `parent` is somebody else's or open to others.
    pub fn make(parent: &Path) -> Result<Self> {
        Self::make_for(parent, None)
    }

    /// The same; what is written there with [`Scratch::write`] can be read by the programs of `account`, too, which can
    /// write nothing there.
    ///
    /// # Errors
    /// As [`Scratch::make`].
    pub fn make_for(parent: &Path, account: Option<&Account>) -> Result<Self> {
        check(parent, account)?;
        remove_abandoned(parent)?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent)
            .at("create a directory in", parent)?
            .keep();
        if let Some(account) = account {
            let directory = File::open(&path).at("open", &path)?;
            share(&directory, account, 0o710).at("change the group of", &path)?;
        }
        let lock = path.join("lock");
        let file = File::create(&lock).at("create", &lock)?;
        file.try_lock().map_err(std::io::Error::from).at("lock", &lock)?;
        Ok(Self { path, account: account.cloned(), _lock: file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file; returns where.
    ///
    /// # Errors
    /// [`Kind::File`] or [`Kind::NoSpace`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = File::create(&path).at("create", &path)?;
        file.write_all(content).at("write", &path)?;
        if let Some(account) = &self.account {
            share(&file, account, 0o640).at("change the group of", &path)?;
        }
        Ok(path)
    }

    /// Writes a file that belongs to whom the programs run as, and is closed to everybody else; returns where.
    ///
    /// # Errors
    /// [`Kind::File`] or [`Kind::NoSpace`].
    pub fn write_secret(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).at("create", &path)?;
        file.write_all(content).at("write", &path)?;
        if let Some(account) = &self.account {
            let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
            fchown(&file, Some(uid), Some(gid)).at("change the owner of", &path)?;
        }
        Ok(path)
    }
}

/// Closed to others, but for the group of this user.
fn share(file: &File, account: &Account, mode: u32) -> std::io::Result<()> {
    fchown(file, None, Some(account.gid.as_raw()))?;
    file.set_permissions(Permissions::from_mode(mode))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            log::warn!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// Anybody may make directories in /var/tmp: one that is not ours could be exchanged under our hands.
fn check(parent: &Path, account: Option<&Account>) -> Result<()> {
    if let Err(error) = DirBuilder::new().mode(0o700).create(parent)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Error::io("create", parent, error));
    }
    // Whoever may pass through it sees nothing there, and makes nothing.
    let others = if account.is_some() { 0o067 } else { 0o077 };
    files::require_private("scratch directory", parent, &Account::current(), others).map_err(|error| {
        error
            .state("nothing was started")
            .hint("set backup.scratch_directory in /etc/matrix-postgres/config.toml")
    })?;
    match account {
        // It is ours: nobody else can put another one in its place.
        Some(account) => File::open(parent)
            .and_then(|directory| share(&directory, account, 0o710))
            .at("change the group of", parent),
        None => Ok(()),
    }
}

fn remove_abandoned(parent: &Path) -> Result<()> {
    for entry in std::fs::read_dir(parent).at("read", parent)? {
        let path = entry.at("read", parent)?.path();
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let lock = beneath::open(&path.join("lock"));
        if ours && path.is_dir() && lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            remove_with_server(&path)?;
            log::warn!("removed {}, a leftover of a run that was killed", path.display());
        }
    }
    Ok(())
}

/// The server of a killed trial lives on, and so do for a moment the programs that it was made with: files may
/// still appear while the directory is removed.
fn remove_with_server(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(DataDirectory { postmaster: Some(server), owner: Some(owner), .. }) =
            DataDirectory::read(&path.join("data"), Path::new("/proc"))
            && let Some(process) = Process::of(server.pid, owner.uid)
        {
            process.signal(Signal::SIGQUIT);
        }
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            result => return result.at("remove", path),
        }
    }
}

/// Room that work needs in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Where.
    pub path: PathBuf,
    /// How many bytes.
    pub bytes: u64,
}

/// Fails unless there is room for all of `needs`; places on one file system count together.
///
/// # Errors
/// [`Kind::NoSpace`] with the numbers, or [`Kind::File`].
pub fn check_space(needs: &[Need]) -> Result<()> {
    let mut systems: Vec<(u64, u64, u64, &Path)> = Vec::new();
    for Need { path, bytes } in needs {
        let place = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        let device = place.metadata().at("read", place)?.dev();
        if let Some(system) = systems.iter_mut().find(|system| system.0 == device) {
            system.1 += bytes;
        } else {
            systems.push((device, *bytes, files::free_space(place)?, path));
        }
    }
    match systems.iter().find(|(_, needed, free, _)| needed > free) {
        None => Ok(()),
        Some((_, needed, free, path)) => Err(Error::new(
            Kind::NoSpace,
            format!(
                "not enough disk space in {}: needed about {}, free {}",
                path.display(),
                DecimalBytes(*needed),
                DecimalBytes(*free)
            ),
        )
        .state("nothing was started, and nothing was changed")
        .hint("free space there, or set another backup.scratch_directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_when_dropped_and_an_abandoned_one_goes_with_the_next() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("p");
        let count = || std::fs::read_dir(&parent).unwrap().count();
        drop(Scratch::make(&parent).unwrap());
        assert_eq!(count(), 0);
        let alive = Scratch::make(&parent).unwrap();
        let abandoned = parent.join("scratch-x");
        std::fs::create_dir(&abandoned).unwrap();
        std::fs::write(abandoned.join("lock"), "").unwrap();
        std::fs::create_dir(parent.join("other")).unwrap();
        let second = Scratch::make(&parent).unwrap();
        assert!(!abandoned.exists() && alive.path().exists() && second.path().exists());
        assert_eq!(count(), 3);
    }

    #[test]
    fn a_directory_that_is_open_to_others_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Scratch::make(root.path()).unwrap_err().kind(), Kind::File);
    }

    #[test]
    fn what_another_user_is_to_read_is_in_a_directory_that_he_can_pass_through_only() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("p");
        drop(Scratch::make(&parent).unwrap());
        let scratch = Scratch::make_for(&parent, Some(&Account::of(1234, 1235))).unwrap();
        let file = scratch.write("toc", b"x").unwrap();
        let meta = scratch.write_secret("secret", b"x").unwrap().metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 1235, 0o600));
        for (path, mode) in [(parent.as_path(), 0o710), (scratch.path(), 0o710), (&file, 0o640)] {
            let meta = path.metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (0, 1235, mode), "{}", path.display());
        }
        // Of somebody else's choosing.
        std::fs::set_permissions(&parent, Permissions::from_mode(0o730)).unwrap();
        assert!(Scratch::make_for(&parent, Some(&Account::of(1234, 1235))).is_err());
    }

    #[test]
    fn too_little_space_is_said_with_the_numbers() {
        let need = |bytes| Need { path: std::env::temp_dir().join("not/there"), bytes };
        check_space(&[need(1)]).unwrap();
        let error = check_space(&[need(1 << 60), need(1 << 60)]).unwrap_err();
        assert_eq!(error.kind(), Kind::NoSpace);
        assert!(error.to_string().contains("needed about 2.31 EB"), "{error}");
    }
}
