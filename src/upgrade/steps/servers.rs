//! The old and the new server while data moves: on private sockets, where nobody else reaches them.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::files::{self, directories};
use crate::postgres::{Connection, Libraries, Major, Postmaster, PrivateServer, Purpose, Session, Startup};
use crate::runtime::{AsUser, Process, Runtime};
use crate::upgrade::plan::Plan;
use crate::upgrade::records::Which;
use crate::upgrade::steps::exchange::remove;

/// How long a server may take to start: an old one may have to recover first.
const START: Duration = Duration::from_secs(1800);

/// How long one that a dead run has left may take to end.
const STOP: Duration = Duration::from_secs(300);

/// Only the superuser comes in, and only through a socket that is closed to others than its system user.
const LOGIN_RULES: &str = "local all all trust\n";

/// Which of the clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The old cluster.
    Old,
    /// The new one.
    New,
    /// A copy of the old one that follows it, until it is promoted.
    Copy,
    /// An empty one that is given what pg_upgrade would give it.
    Recreated,
}

impl Side {
    const ALL: [Self; 4] = [Self::Old, Self::New, Self::Copy, Self::Recreated];

    fn purpose(self) -> Purpose {
        match self {
            Self::Old => Purpose::Old,
            Self::New => Purpose::New,
            Self::Copy => Purpose::Copy,
            Self::Recreated => Purpose::Recreated,
        }
    }

    /// Whose configuration it has.
    fn which(self) -> Which {
        match self {
            Self::Old | Self::Copy => Which::Old,
            Self::New | Self::Recreated => Which::New,
        }
    }

    /// The name of its socket's directory.
    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Copy => "copy",
            Self::Recreated => "recreated",
        }
    }
}

/// Where the sockets and login rules of both servers are; removed when dropped.
#[derive(Debug)]
pub struct Sockets {
    directory: PathBuf,
}

impl Sockets {
    /// Makes them, for `account` alone. What a dead run has left is replaced.
    ///
    /// # Errors
    /// [`Kind::File`].
    pub fn make(socket_directory: &Path, account: &Account) -> Result<Self> {
        Self::remove_abandoned(socket_directory)?;
        let directory = Self::directory(socket_directory);
        directories::make_private(&directory, account)?;
        account.with_files(|| {
            for path in Side::ALL.map(|side| directory.join(side.name())) {
                DirBuilder::new().mode(0o700).create(&path).at("create", &path)?;
            }
            files::replace(&directory.join("pg_hba.conf"), LOGIN_RULES)?;
            files::replace(&directory.join("pg_ident.conf"), "")
        })?;
        Ok(Self { directory })
    }

    /// What [`Sockets::startup`] names is below it.
    fn directory(socket_directory: &Path) -> PathBuf {
        let mut name = socket_directory.as_os_str().to_owned();
        name.push("-upgrade");
        name.into()
    }

    /// Removes what a dead run has left.
    ///
    /// # Errors
    /// [`Kind::File`].
    pub fn remove_abandoned(socket_directory: &Path) -> Result<()> {
        let directory = Self::directory(socket_directory);
        directories::remove(&directory).at("remove", &directory)
    }

    /// How to reach one of the servers as `superuser`.
    pub fn connection(&self, side: Side, superuser: &str) -> Connection {
        Connection::new(&self.directory.join(side.name()), 5432, superuser)
    }

    /// A directory of the cluster's owner, for what is not needed later.
    pub fn directory_of_owner(&self) -> &Path {
        &self.directory
    }

    /// What one of them is started with, whatever the administrator's files say.
    pub fn startup(&self, purpose: Purpose, major: Major, libraries: &Libraries) -> Startup {
        let path = |name: &str| self.directory.join(name).display().to_string();
        Startup::new(purpose, major, libraries).with([
            format!("hba_file={}", path("pg_hba.conf")),
            format!("ident_file={}", path("pg_ident.conf")),
        ])
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = directories::remove(&self.directory);
    }
}

/// A private server, and the programs that talk to it.
pub struct Private<'a> {
    runtime: AsUser<'a>,
    major: Major,
    connection: Connection,
    server: PrivateServer,
}

impl<'a> Private<'a> {
    /// Starts the cluster of version `major` in `data_directory`, for the upgrade of `plan`.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub fn start(
        runtime: &'a dyn Runtime,
        account: &'a Account,
        sockets: &Sockets,
        plan: &Plan,
        cluster: (Side, &Path, Major),
    ) -> Result<Self> {
        Self::start_with(runtime, account, sockets, plan, cluster, Vec::new())
    }

    /// The same, with further settings.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub fn start_with(
        runtime: &'a dyn Runtime,
        account: &'a Account,
        sockets: &Sockets,
        plan: &Plan,
        (side, data_directory, major): (Side, &Path, Major),
        more: Vec<String>,
    ) -> Result<Self> {
        let connection = sockets.connection(side, &plan.initialisation.superuser).to_server(major);
        // A postgresql.conf may name another directory than its own.
        let place = format!("data_directory={}", data_directory.display());
        let startup = sockets.startup(side.purpose(), major, &plan.libraries);
        let startup = startup.with([place]).with(plan.upgrade.configured_by(side.which())).with(more);
        let server =
            PrivateServer::start(runtime, major, data_directory, &connection, account, &startup, START)?;
        Ok(Self { runtime: AsUser { runtime, account }, major: plan.upgrade.to, connection, server })
    }

    /// To ask it for things.
    pub fn session(&self) -> Session<'_> {
        Session { runtime: &self.runtime, major: self.major, connection: &self.connection }
    }

    /// The port in the name of its socket.
    pub fn port(&self) -> u16 {
        self.connection.port
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.server.has_ended()
    }

    /// Stops it: everything is written.
    ///
    /// # Errors
    /// As [`PrivateServer::stop`].
    pub fn stop(self) -> Result<()> {
        self.server.stop()
    }
}

/// Stops the server in `data_directory` that a dead run has left there. That of a unit is left alone.
///
/// # Errors
/// [`Kind::Server`] if it does not end.
pub fn stop_abandoned(data_directory: &Path) -> Result<()> {
    let deadline = std::time::Instant::now() + STOP;
    let mut asked = None;
    let find = || working_on(data_directory);
    loop {
        let Some(pid) = find()? else { return Ok(()) };
        if asked != Some(pid) {
            log::warn!("stopping a leftover server (process {}) on {}", pid, data_directory.display());
            let process = owner(data_directory).and_then(|owner| Process::of(pid, owner));
            if find()? == Some(pid) {
                asked = process.is_some_and(|process| process.signal(Signal::SIGINT)).then_some(pid);
            }
        }
        if std::time::Instant::now() > deadline {
            let message = format!("process {} on {} did not end", pid, data_directory.display());
            return Err(Error::new(Kind::Server, message));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The process of the server on `data_directory`: one that is just starting has no postmaster.pid yet, one that ends none any more.
pub(super) fn working_on(data_directory: &Path) -> Result<Option<i32>> {
    let found = Postmaster::of(data_directory, Path::new("/proc"))?.map(|postmaster| postmaster.pid);
    Ok(found.or_else(|| starting_on(data_directory, Path::new("/proc"))))
}

/// Removes the cluster in `directory`, and ends whatever a dead run has left that works on it. It is nobody's only one.
///
/// # Errors
/// [`Kind::Server`] if a server does not end; [`Kind::File`].
pub fn take_down(directory: &Path) -> Result<()> {
    end_copying(directory);
    // pg_upgrade, told to end, leaves its servers.
    stop_abandoned(directory)?;
    remove(directory)
}

/// Ends the pg_basebackup that writes to `copy`, whoever has left it: its second process, which receives the log, outlives
/// the first for as long as there is none, and a replication slot with it.
pub fn end_copying(copy: &Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let find = || writing_to(copy, Path::new("/proc"));
        let process = |pid| Some((pid, Process::of(pid, owner(copy)?)?));
        let found: Vec<_> = find().into_iter().filter_map(process).collect();
        let still = if found.is_empty() { Vec::new() } else { find() };
        for (_, process) in found.iter().filter(|(pid, _)| still.contains(pid)) {
            process.signal(Signal::SIGKILL);
        }
        if found.is_empty() || std::time::Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As whom alone there may be processes on a directory that are to end.
fn owner(directory: &Path) -> Option<Uid> {
    Directory::open(directory).ok().map(|directory| directory.owner().uid)
}

/// By their arguments: `pg_basebackup … --pgdata DIRECTORY`.
fn writing_to(copy: &Path, proc: &Path) -> Vec<i32> {
    called(proc, b"pg_basebackup", copy)
}

/// The server that works on `data_directory`, by its arguments, `postgres -D DIRECTORY …`, if it is of the directory's owner.
/// Its children call themselves otherwise.
fn starting_on(data_directory: &Path, proc: &Path) -> Option<i32> {
    let owner = owner(data_directory)?.as_raw();
    let is_owners = |pid: &i32| proc.join(pid.to_string()).metadata().is_ok_and(|meta| meta.uid() == owner);
    called(proc, b"/postgres", data_directory).into_iter().find(is_owners)
}

/// Processes of this program with this argument.
fn called(proc: &Path, program: &[u8], argument: &Path) -> Vec<i32> {
    let is_called = |process: &Path| {
        let Ok(line) = std::fs::read(process.join("cmdline")) else { return false };
        let mut words = line.split(|&byte| byte == 0);
        words.next().is_some_and(|name| name.ends_with(program))
            && words.any(|word| word == argument.as_os_str().as_encoded_bytes())
    };
    let processes = std::fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let pid = |process: &Path| process.file_name()?.to_str()?.parse().ok();
    processes.filter(|process| is_called(process)).filter_map(|process| pid(&process)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_writes_to_this_copy_is_ended() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, line) in [
            ("7", "/usr/lib/postgresql/15/bin/pg_basebackup\0--pgdata\0/d/data.x-copy\0"),
            ("8", "/usr/lib/postgresql/15/bin/pg_basebackup\0--pgdata\0/d/data.x-copy-2\0"),
            ("9", "/bin/ls\0/d/data.x-copy\0"),
        ] {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("cmdline"), line).unwrap();
        }
        assert_eq!(writing_to(Path::new("/d/data.x-copy"), proc.path()), [7]);
        let data = proc.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for (pid, line) in [
            ("10", format!("postgres: writer\0-D\0{}\0", data.display())),
            ("11", format!("/x/postgres\0-D\0{}\0", data.display())),
        ] {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("cmdline"), line).unwrap();
        }
        assert_eq!(starting_on(&data, proc.path()), Some(11));
    }
}
