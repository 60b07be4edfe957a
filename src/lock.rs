//! Exactly one of backup, restore and upgrade runs at a time, and the others wait and are told for whom.
//!
//! Two locks (flock(2)) in root's state directory. `lock` is for everybody: the backup's user may lock it, and neither
//! write nor replace it. `upgrade.lock` is for root's work on the cluster as a whole, so that nobody else can keep an
//! upgrade that was cut off from being put in order. Who holds a lock says so in a file of his own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath};
use crate::runtime::interrupt;
use crate::systemd::notify;

/// The lock that everybody takes.
const EVERYBODY: &str = "lock";

/// The lock of whoever works on the cluster as a whole.
const UPGRADE: &str = "upgrade.lock";

/// How often it is tried again.
const TICK: Duration = Duration::from_millis(100);

/// How often the service manager is told that we still wait, and how much longer it may take each time.
const ALIVE: Duration = Duration::from_secs(10);
const AHEAD: Duration = Duration::from_secs(600);

/// How long one who is just ending may keep a lock.
const ENDING: Duration = Duration::from_secs(30);

/// How long an upgrade that was cut off waits for a backup before it is put in order nevertheless.
const RECOVERY: Duration = Duration::from_secs(30);

/// A file of a holder is no longer than that.
const LONGEST: u64 = 4096;

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// What it does, such as `backup`.
    pub work: String,
    /// Its process id.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
}

/// The lock, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
    holder: PathBuf,
}

impl Lock {
    /// Takes the lock for `work`, for which it waits as long as the settings say.
    ///
    /// # Errors
    /// [`Kind::Locked`] naming the holder; [`Kind::File`] if the state directory is not usable.
    pub fn take(settings: &Settings, work: &str) -> Result<Self> {
        let file = wait(settings, settings.wait)?;
        Ok(Self::held(settings, work, vec![file]))
    }

    /// Takes both locks, for work on the cluster as a whole. For another one of that kind nobody waits: it may be an
    /// upgrade that stands still.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn take_cluster(settings: &Settings, work: &str) -> Result<Self> {
        let Some(own) = try_upgrade(settings)? else { return Err(locked(settings)) };
        let everybodys = wait(settings, settings.wait)?;
        Ok(Self::held(settings, work, vec![own, everybodys]))
    }

    /// Takes the lock of the cluster only, for what a backup does not mind; nothing if somebody else has it.
    ///
    /// # Errors
    /// [`Kind::File`].
    pub fn try_cluster(settings: &Settings, work: &str) -> Result<Option<Self>> {
        Ok(try_upgrade(settings)?.map(|own| Self::held(settings, work, vec![own])))
    }

    /// The same, for what waits for nobody.
    ///
    /// # Errors
    /// [`Kind::Locked`] naming the holder, if it is one of the cluster as a whole; [`Kind::File`].
    pub fn cluster_only(settings: &Settings, work: &str) -> Result<Self> {
        Self::try_cluster(settings, work)?.ok_or_else(|| locked(settings))
    }

    /// Takes the locks to put an upgrade in order that was cut off. The homeserver may be down until that is done: a
    /// backup is waited for only for a moment.
    ///
    /// # Errors
    /// As [`Lock::take`], if an upgrade is under way.
    pub fn take_to_recover(settings: &Settings) -> Result<Self> {
        let begun = Instant::now();
        let own = loop {
            match try_upgrade(settings)? {
                Some(own) => break own,
                // Who waits for somebody's end is told of it before the lock is free.
                None if is_being_left(settings) && begun.elapsed() < ENDING => {
                    interrupt::check()?;
                    std::thread::sleep(TICK);
                }
                None => return Err(locked(settings)),
            }
        };
        let mut files = vec![own];
        match wait(settings, settings.wait.min(RECOVERY)) {
            Ok(file) => files.push(file),
            Err(error) => log::warn!("{error}; the recovery of the upgrade continues without it"),
        }
        Ok(Self::held(settings, "upgrade", files))
    }

    /// Whether somebody works on the cluster as a whole right now.
    ///
    /// # Errors
    /// [`Kind::File`].
    pub fn is_cluster_taken(settings: &Settings) -> Result<bool> {
        let path = settings.state_directory.join(UPGRADE);
        let file = match beneath::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened.at("open the lock", &path)?,
        };
        try_lock(&file, &path).map(|taken| !taken)
    }

    fn held(settings: &Settings, work: &str, files: Vec<File>) -> Self {
        let holder = Holder { work: work.to_owned(), pid: std::process::id(), since: Timestamp::now() };
        let file = holder_file(settings);
        // Only for others to know: a full disk keeps nobody from working.
        let text = serde_json::to_string(&holder).unwrap_or_default();
        if let Err(error) = files::publish(&file, &text) {
            log::debug!("{}", error.report());
        }
        Self { _files: files, holder: file }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.holder);
    }
}

/// Root says in its own directory who it is, the backup's user in that of the backups: nobody writes where another one
/// could mislead him.
fn holder_file(settings: &Settings) -> PathBuf {
    match geteuid().is_root() {
        true => settings.state_directory.join("holder.json"),
        false => settings.backup.directory.join(".holder.json"),
    }
}

/// Opens a lock, which root makes if it is not there. A file system may be read-only when it is.
fn open_or_make(path: &Path, mode: u32) -> Result<File> {
    let opened = match beneath::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && geteuid().is_root() => {
            let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
            // Nobody has a file open for writing that is only locked: its file system can be made read-only meanwhile.
            made.and_then(|_| beneath::open(path))
        }
        opened => opened,
    };
    opened
        .at("open the lock", path)
        .map_err(|error| error.hint("systemd-tmpfiles --create matrix-postgres.conf"))
}

/// Makes the state directory, if it is not there, and the lock in it.
fn open_everybodys(settings: &Settings) -> Result<File> {
    let path = settings.state_directory.join(EVERYBODY);
    if !geteuid().is_root() {
        return open_or_make(&path, 0);
    }
    make_state_directory(&settings.state_directory)?;
    let file = open_or_make(&path, 0o640)?;
    // The backup's user may lock it, which takes the right to read it.
    let group = settings.backup.directory.metadata().map_or(0, |backups| backups.gid());
    let meta = file.metadata().at("read", &path)?;
    if meta.gid() != group || meta.uid() != 0 || meta.mode() & 0o777 != 0o640 {
        fchown(&file, Some(0), Some(group)).at("change the owner of", &path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o640)).at("change the mode of", &path)?;
    }
    Ok(file)
}

/// Others may go through it to the lock, and see nothing.
///
/// # Errors
/// [`Kind::File`], also if it is somebody else's.
pub fn make_state_directory(directory: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o711).recursive(true).create(directory);
    made.at("create", directory)?;
    files::require_private("state directory", directory, &Account::current(), 0o022).map_err(|error| {
        error
            .state("nothing was changed")
            .hint("set state_directory in /etc/matrix-postgres/config.toml to a directory that only root may write to")
    })?;
    let meta = directory.symlink_metadata().at("read", directory)?;
    // By hand a umask of 077 made it.
    match meta.mode() & 0o777 == 0o700 {
        true => std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711))
            .at("change the mode of", directory),
        false => Ok(()),
    }
}

fn try_upgrade(settings: &Settings) -> Result<Option<File>> {
    make_state_directory(&settings.state_directory)?;
    let path = settings.state_directory.join(UPGRADE);
    let file = open_or_make(&path, 0o600)?;
    try_lock(&file, &path).map(|taken| taken.then_some(file))
}

fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

/// Waits for the lock that everybody takes.
fn wait(settings: &Settings, limit: Duration) -> Result<File> {
    let path = settings.state_directory.join(EVERYBODY);
    let file = open_everybodys(settings)?;
    let begun = Instant::now();
    let mut told: Option<Instant> = None;
    while !try_lock(&file, &path)? {
        interrupt::check()?;
        if begun.elapsed() >= limit {
            return Err(locked(settings));
        }
        if told.is_none_or(|told| told.elapsed() > ALIVE) {
            let waiting = format!("waiting: {}", describe(holder(settings).as_ref()));
            if told.is_none() {
                log::info!("{waiting}");
            }
            notify::alive(&waiting, AHEAD);
            told = Some(Instant::now());
        }
        std::thread::sleep(TICK);
    }
    Ok(file)
}

fn locked(settings: &Settings) -> Error {
    Error::new(Kind::Locked, describe(holder(settings).as_ref()))
        .state("nothing was started; the running operation continues")
        .hint("wait for it to end: systemctl list-units 'matrix-postgres*'")
}

fn describe(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { work, pid, since }) => format!("{work} is running (process {pid}, since {since:.0})"),
        None => "another backup, restore or upgrade is running".to_owned(),
    }
}

/// Whoever says that he holds it, and lives. Between lock and write nobody does.
fn holder(settings: &Settings) -> Option<Holder> {
    let files =
        [settings.state_directory.join("holder.json"), settings.backup.directory.join(".holder.json")];
    let holders = files.iter().filter_map(|file| read(file));
    holders.filter(Holder::lives).max_by_key(|holder| holder.since)
}

/// Whether whoever holds the lock of the cluster is no more, or as good as.
fn is_being_left(settings: &Settings) -> bool {
    let holder = read(&settings.state_directory.join("holder.json"));
    holder.is_none_or(|holder| !holder.lives() || holder.is_ending())
}

fn read(file: &Path) -> Option<Holder> {
    let text = beneath::read(file, LONGEST).ok()?;
    let mut holder: Holder = serde_json::from_slice(&text).ok()?;
    // What another user has written is shown to root.
    holder.work.retain(|character| !character.is_control());
    Some(holder)
}

impl Holder {
    fn lives(&self) -> bool {
        let Ok(pid) = i32::try_from(self.pid) else { return false };
        let asked = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
        pid > 0 && matches!(asked, Ok(()) | Err(nix::errno::Errno::EPERM))
    }

    /// Whether it is on its way out: it has given up its memory, and its files not yet.
    fn is_ending(&self) -> bool {
        std::fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;

    fn settings(directory: &Path) -> Settings {
        let mut settings = Settings::from_fragment(Fragment::default()).unwrap();
        settings.state_directory = directory.join("state");
        settings.backup.directory = directory.join("backups");
        settings.wait = Duration::ZERO;
        std::fs::create_dir(&settings.backup.directory).unwrap();
        std::fs::DirBuilder::new().mode(0o711).create(&settings.state_directory).unwrap();
        if !geteuid().is_root() {
            std::fs::write(settings.state_directory.join(EVERYBODY), "").unwrap();
        }
        settings
    }

    #[test]
    fn the_second_is_told_who_is_first_and_the_third_gets_in() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let first = Lock::take(&settings, "restore").unwrap();
        let error = Lock::take(&settings, "backup").unwrap_err();
        assert_eq!(error.kind(), Kind::Locked);
        let expected = format!("restore is running (process {}, since 2", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        drop(first);
        Lock::take(&settings, "backup").unwrap();
    }

    #[test]
    fn who_waits_gets_in_when_the_other_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.wait = Duration::from_secs(3600);
        let first = Lock::take(&settings, "rehearsal").unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(&settings, "backup"));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_backup_keeps_no_upgrade_from_being_put_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let backup = Lock::take(&settings, "backup").unwrap();
        assert_eq!(Lock::take_cluster(&settings, "upgrade").unwrap_err().kind(), Kind::Locked);
        let recovery = Lock::take_to_recover(&settings).unwrap();
        assert!(Lock::is_cluster_taken(&settings).unwrap());
        assert_eq!(Lock::take_to_recover(&settings).unwrap_err().kind(), Kind::Locked);
        drop((backup, recovery));
        assert!(!Lock::is_cluster_taken(&settings).unwrap());
        Lock::take_cluster(&settings, "upgrade").unwrap();
    }

    #[test]
    fn who_puts_in_order_waits_until_one_who_is_ending_has_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let first = Lock::take_cluster(&settings, "rehearsal").unwrap();
        // Its process has died, and its files are not closed yet.
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        let holder = Holder { work: "rehearsal".into(), pid: child.id(), since: Timestamp::now() };
        let file = settings.state_directory.join("holder.json");
        std::fs::write(&file, serde_json::to_string(&holder).unwrap()).unwrap();
        assert!(is_being_left(&settings));
        std::thread::scope(|scope| {
            let recovery = scope.spawn(|| Lock::take_to_recover(&settings));
            drop(first);
            recovery.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_another_user_says_is_neither_followed_nor_believed_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let file = settings.backup.directory.join(".holder.json");
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(holder(&settings), None);
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert_eq!(holder(&settings), None);
        std::fs::remove_file(&file).unwrap();
        let me = std::process::id();
        let text = format!(r#"{{"work": "back\u001b[31mup", "pid": {me}, "since": "2026-11-24T03:00:00Z"}}"#);
        std::fs::write(&file, text).unwrap();
        assert_eq!(holder(&settings).unwrap().work, "back[31mup");
    }

    #[test]
    fn a_state_directory_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        std::fs::set_permissions(&settings.state_directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(Lock::take_to_recover(&settings).unwrap_err().kind(), Kind::File);
    }
}
