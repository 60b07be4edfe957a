//! A data directory as it lies on disk.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Major;
use super::control_group::ControlGroup;
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;

/// `postmaster.pid` has eight lines, one of them a path.
pub(super) const LOCK_FILE: u64 = 8192;

/// `PG_VERSION` has one word.
const VERSION_FILE: u64 = 64;

/// PG_CONTROL_FILE_SIZE in pg_control.h.
const CONTROL_FILE: u64 = 8192;

/// What was found at the path of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub contents: Contents,
    /// Its owner, if it exists. The group is the directory's, for files keep theirs.
    pub owner: Option<Account>,
    /// Whether it is the root of a file system.
    pub is_mount_point: bool,
    /// The server that holds it, if one does.
    pub postmaster: Option<Postmaster>,
}

/// What is in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// There is no such directory.
    Missing,
    /// Nothing.
    Empty,
    /// A cluster of this major version.
    Cluster(Major),
    /// Something else.
    Foreign,
}

impl Contents {
    /// The version of the cluster, if it is one.
    pub fn major(self) -> Option<Major> {
        match self {
            Self::Cluster(major) => Some(major),
            Self::Missing | Self::Empty | Self::Foreign => None,
        }
    }
}

/// A running server, from `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postmaster {
    /// Its process id.
    pub pid: i32,
    /// The unit whose control group it is in, if systemd started it.
    pub unit: Option<String>,
    /// Whether it has said that it lets clients in, and not that it ends.
    pub is_ready: bool,
}

impl Postmaster {
    /// The server that holds the data directory `path`, whatever else is in there. `postmaster.pid` may be left over
    /// from a crash; the process it names must be a PostgreSQL one.
    ///
    /// # Errors
    /// [`Kind::File`].
    pub fn of(path: &Path, proc: &Path) -> Result<Option<Self>> {
        match Directory::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => Self::in_directory(&opened.at("open", path)?, proc),
        }
    }

    /// Whether its program is not the installed one any more: a minor version has been installed since it started (proc(5),
    /// `/proc/PID/exe`). Who may not look is not told.
    pub fn is_replaced(&self, proc: &Path) -> bool {
        let program = std::fs::read_link(proc.join(self.pid.to_string()).join("exe"));
        program.is_ok_and(|program| program.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
    }

    fn in_directory(directory: &Directory, proc: &Path) -> Result<Option<Self>> {
        let text = match directory.read(Path::new("postmaster.pid"), LOCK_FILE) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &directory.path().join("postmaster.pid"), error)),
        };
        // A single-user server writes its number negative.
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).map(i32::abs)
        else {
            return Ok(None);
        };
        let started = text.lines().nth(2).and_then(|line| line.trim().parse::<u64>().ok());
        if started.is_some_and(|started| booted_since(proc, started)) {
            return Ok(None);
        }
        let process = proc.join(pid.to_string());
        let Ok(name) = std::fs::read_to_string(process.join("comm")) else { return Ok(None) };
        if !name.starts_with("postgres") || is_of_another(&process, directory) {
            return Ok(None);
        }
        let unit = ControlGroup::of(&process).and_then(|group| group.unit());
        Ok(Some(Postmaster { pid, unit, is_ready: is_ready(&text) }))
    }
}

/// Whether `postmaster.pid` ends in the line that says so (since PostgreSQL 10, PM_STATUS_READY in pidfile.h).
pub(super) fn is_ready(lock_file: &str) -> bool {
    lock_file.lines().nth(7).is_some_and(|status| status.trim_end() == "ready")
}

impl DataDirectory {
    /// Looks at `path`; `proc` is where the process file system is mounted.
    ///
    /// # Errors
    /// [`Kind::DataDirectory`] or [`Kind::File`], naming what could not be read.
    pub fn read(path: &Path, proc: &Path) -> Result<Self> {
        let missing = Self {
            path: path.to_owned(),
            contents: Contents::Missing,
            owner: None,
            is_mount_point: false,
            postmaster: None,
        };
        let directory = match Directory::open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(missing),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                let message = format!("{} is not a directory", path.display());
                return Err(Error::new(Kind::DataDirectory, message));
            }
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let parent = path.parent().unwrap_or(path).metadata().at("read", path)?;
        Ok(Self {
            contents: contents(&directory)?,
            owner: Some(directory.owner()),
            is_mount_point: parent.dev() != directory.identity().0,
            postmaster: Postmaster::in_directory(&directory, proc)?,
            ..missing
        })
    }
}

/// Whom PostgreSQL's programs run as: the owner of the cluster, or `service`, the service's user, where there is no
/// cluster, or one of root's. Nobody if there is no such user, or where somebody's link leads to what is another user's:
/// a cluster's owner does not choose whom root's programs run as.
pub fn account_of(data_directory: &Path, service: &str) -> Option<Account> {
    let owner = match Directory::open(data_directory) {
        Ok(directory) => Some(directory.owner()),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            log::warn!(
                "could not determine the owner of the cluster in {}: {error}",
                data_directory.display()
            );
            return None;
        }
        Err(_) => None,
    };
    owner
        .filter(|owner| !owner.is_root())
        .or_else(|| Account::named(service).ok().flatten())
        .filter(|account| !account.is_root())
}

/// The identity that initdb gave to the cluster in `data_directory`, as `system_identifier` of pg_control_system()
/// has it: the first 8 bytes of `global/pg_control` in the machine's own order, in all versions (`pg_control.h`).
///
/// # Errors
/// [`Kind::File`], [`Kind::DataDirectory`].
pub fn system_identifier(data_directory: &Path) -> Result<String> {
    let file = data_directory.join("global/pg_control");
    let bytes = Directory::open(data_directory)
        .and_then(|directory| directory.read(Path::new("global/pg_control"), CONTROL_FILE))
        .at("read", &file)?;
    match bytes.first_chunk::<8>() {
        Some(first) => Ok(u64::from_ne_bytes(*first).to_string()),
        None => Err(Error::new(Kind::DataDirectory, format!("{} is too short", file.display()))),
    }
}

/// Whether what a server needs in order to start is there: its version, its control file, and the directories without which
/// no cluster is one (chapter "Database File Layout").
pub fn is_whole(data_directory: &Path) -> bool {
    let Ok(directory) = Directory::open(data_directory) else { return false };
    let control = directory.file(Path::new("global/pg_control")).and_then(|file| file.metadata());
    matches!(contents(&directory), Ok(Contents::Cluster(_)))
        && control.is_ok_and(|meta| meta.len() == CONTROL_FILE)
        && ["base", "pg_wal", "pg_xact"].iter().all(|name| data_directory.join(name).is_dir())
}

fn contents(directory: &Directory) -> Result<Contents> {
    let version_file = directory.path().join("PG_VERSION");
    let text = directory.read(Path::new("PG_VERSION"), VERSION_FILE);
    match text.map(|text| String::from_utf8_lossy(&text).into_owned()) {
        Ok(text) => Major::from_pg_version(&text).map(Contents::Cluster).ok_or_else(|| {
            Error::new(
                Kind::DataDirectory,
                format!(
                    "{} contains {:?}, which is not a supported version",
                    version_file.display(),
                    text.trim_end()
                ),
            )
            .hint("the oldest supported version is PostgreSQL 10")
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let names = directory.names().at("read", directory.path())?;
            Ok(if names.is_empty() { Contents::Empty } else { Contents::Foreign })
        }
        Err(error) => Err(Error::io("read", &version_file, error)),
    }
}

/// Whether the machine was booted after this time, in seconds of the epoch: the third line of `postmaster.pid` is when its
/// server started, and the process with its number is another one then.
fn booted_since(proc: &Path, started: u64) -> bool {
    let Ok(text) = std::fs::read_to_string(proc.join("stat")) else { return false };
    let booted = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    // Neither clock is exact.
    booted.is_some_and(|booted| started + 2 < booted)
}

/// A server runs as the owner of its data directory, and works in it. After a power cut the number in `postmaster.pid` may
/// be that of another cluster's server, and its owner may write any number into it.
fn is_of_another(process: &Path, directory: &Directory) -> bool {
    let owner = directory.owner().uid.as_raw();
    if process.metadata().map_or(true, |meta| meta.uid() != owner) {
        return true;
    }
    // Only its own user, and root with all capabilities, are told where it works.
    let works_in = directory.as_owner(|| Ok(process.join("cwd").metadata().ok()));
    works_in.ok().flatten().is_some_and(|cwd| (cwd.dev(), cwd.ino()) != directory.identity())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, lchown, symlink};

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn read(root: &Path) -> DataDirectory {
        DataDirectory::read(&root.join("data"), &root.join("proc")).unwrap()
    }

    #[test]
    fn what_may_lie_there() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).contents, Contents::Missing);
        std::fs::create_dir(root.path().join("data")).unwrap();
        assert_eq!(read(root.path()).contents, Contents::Empty);
        write(root.path(), "data/lost+found/x", "");
        assert_eq!(read(root.path()).contents, Contents::Foreign);
        write(root.path(), "data/PG_VERSION", "15\n");
        assert_eq!(read(root.path()).contents, Contents::Cluster(Major(15)));
        write(root.path(), "data/PG_VERSION", "9.6\n");
        assert!(DataDirectory::read(&root.path().join("data"), root.path()).is_err());
    }

    #[test]
    fn no_link_is_read_nor_a_pipe_waited_for() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "data/base/x", "");
        write(root.path(), "data/PG_VERSION", "15\n");
        write(root.path(), "secret", "a secret\n");
        symlink("data", root.path().join("link")).unwrap();
        assert_eq!(
            DataDirectory::read(&root.path().join("link"), root.path()).unwrap().contents,
            Contents::Cluster(Major(15))
        );
        let read =
            || DataDirectory::read(&root.path().join("data"), root.path()).map_err(|error| error.report());
        for name in ["PG_VERSION", "postmaster.pid"] {
            let file = root.path().join("data").join(name);
            let _ = std::fs::remove_file(&file);
            symlink("../secret", &file).unwrap();
            let report = read().unwrap_err();
            assert!(report.ends_with("it is a symbolic link") && !report.contains("a secret"), "{report}");
            std::fs::remove_file(&file).unwrap();
            nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
            assert!(read().unwrap_err().ends_with("it is not a regular file"));
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, vec![b'1'; 10_000]).unwrap();
            assert!(read().unwrap_err().contains("it is longer than"));
            std::fs::write(&file, "15\n").unwrap();
        }
        std::fs::create_dir(root.path().join("data/global")).unwrap();
        let control = root.path().join("data/global/pg_control");
        nix::unistd::mkfifo(&control, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(
            system_identifier(&root.path().join("data"))
                .unwrap_err()
                .report()
                .ends_with("it is not a regular file")
        );
        assert!(!is_whole(&root.path().join("data")));
    }

    #[test]
    fn a_lock_file_counts_only_while_its_server_lives() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "data/PG_VERSION", "15\n");
        write(root.path(), "data/postmaster.pid", "4711\n/data\n");
        assert_eq!(read(root.path()).postmaster, None);
        write(root.path(), "proc/4711/comm", "bash\n");
        assert_eq!(read(root.path()).postmaster, None);
        write(root.path(), "proc/4711/comm", "postgres\n");
        write(root.path(), "proc/4711/cgroup", "4:memory:/\n0::/system.slice/postgresql@15-main.service\n");
        let unit = Some("postgresql@15-main.service".to_owned());
        assert_eq!(
            read(root.path()).postmaster,
            Some(Postmaster { pid: 4711, unit: unit.clone(), is_ready: false })
        );

        // After a boot, the number may be that of another server.
        write(root.path(), "data/postmaster.pid", "4711\n/data\n1000\n");
        write(root.path(), "proc/stat", "cpu 1\nbtime 2000\n");
        assert_eq!(read(root.path()).postmaster, None);
        write(root.path(), "proc/stat", "cpu 1\nbtime 999\n");
        assert!(read(root.path()).postmaster.is_some());
        // Whoever is not root cannot give it to another user.
        if chown(root.path().join("proc/4711"), Some(65534), None).is_ok() {
            assert_eq!(read(root.path()).postmaster, None);
            chown(root.path().join("proc/4711"), Some(0), None).unwrap();
        }
        let cwd = root.path().join("proc/4711/cwd");
        symlink(root.path().join("proc"), &cwd).unwrap();
        assert_eq!(read(root.path()).postmaster, None);
        std::fs::remove_file(&cwd).unwrap();
        symlink(root.path().join("data"), &cwd).unwrap();
        assert_eq!(read(root.path()).postmaster, Some(Postmaster { pid: 4711, unit, is_ready: false }));
        write(root.path(), "data/postmaster.pid", "4711\n/data\n1000\n5432\n/run\n\n1 2\nready   \n");
        assert!(read(root.path()).postmaster.is_some_and(|postmaster| postmaster.is_ready));
    }

    #[test]
    fn the_owner_of_a_cluster_does_not_choose_another_user_by_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [theirs, others, by_root, by_them] =
            ["theirs", "others", "by_root", "by_them"].map(|name| directory.path().join(name));
        let of = |path: &Path| account_of(path, "nobody").map(|account| account.uid.as_raw());
        std::fs::create_dir(&theirs).unwrap();
        std::fs::create_dir(&others).unwrap();
        symlink(&theirs, &by_root).unwrap();
        symlink(&others, &by_them).unwrap();
        if !nix::unistd::geteuid().is_root() {
            assert_eq!(of(&theirs), Some(nix::unistd::geteuid().as_raw()));
            return;
        }
        chown(&theirs, Some(54_321), Some(54_321)).unwrap();
        chown(&others, Some(12_345), Some(12_345)).unwrap();
        lchown(&by_them, Some(54_321), Some(54_321)).unwrap();
        assert_eq!((of(&theirs), of(&by_root), of(&by_them)), (Some(54_321), Some(54_321), None));
        // Where there is no cluster yet, or one of root's, it is the service's user.
        let nobody = Account::named("nobody").unwrap().map(|nobody| nobody.uid.as_raw());
        assert_eq!((of(&directory.path().join("none")), of(directory.path())), (nobody, nobody));
    }
}
