//! The old and the new server while data moves: on private sockets, where nobody else reaches them.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::{cluster, transfer};
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::files::{self, directories};
use crate::postgres::{Connection, Major, Postmaster, PrivateServer, Session};
use crate::runtime::{AsUser, Process, Runtime};

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
}

impl Side {
    const ALL: [Self; 3] = [Self::Old, Self::New, Self::Copy];

    /// The name of its socket's directory.
    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Copy => "copy",
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
        cluster::make_directory(&directory, account)?;
        account.with_files(|| {
            for path in Side::ALL.map(|side| directory.join(side.name())) {
                DirBuilder::new().mode(0o700).create(&path).at("create", &path)?;
            }
            files::replace(&directory.join("pg_hba.conf"), LOGIN_RULES)?;
            files::replace(&directory.join("pg_ident.conf"), "")
        })?;
        Ok(Self { directory })
    }

    /// What [`Sockets::settings`] names is below it.
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
        transfer::remove(&Self::directory(socket_directory))
    }

    /// How to reach one of the servers as `superuser`.
    pub fn connection(&self, side: Side, superuser: &str) -> Connection {
        Connection::new(&self.directory.join(side.name()), 5432, superuser)
    }

    /// A directory of the cluster's owner, for what is not needed later.
    pub fn directory_of_owner(&self) -> &Path {
        &self.directory
    }

    /// What holds for all of them, whatever the administrator's files say.
    pub fn settings(&self) -> Vec<String> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut settings = vec![
            format!("hba_file={}", path("pg_hba.conf")),
            format!("ident_file={}", path("pg_ident.conf")),
        ];
        settings.extend(QUIET.map(str::to_owned));
        settings
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = directories::remove(&self.directory);
    }
}

/// Messages come to us; nobody waits for a standby; nothing is done that nobody asked for.
const QUIET: [&str; 9] = [
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=warning",
    "log_statement=none",
    "external_pid_file=",
    "synchronous_standby_names=",
    "archive_mode=off",
    "ssl=off",
    "autovacuum=off",
];

/// Of the old server: it is read.
const READ_ONLY: [&str; 1] = ["default_transaction_read_only=on"];

/// Of the new one, which is written to the disk as a whole before anybody relies on it (chapter "Populating a
/// Database"; `wal_level=minimal` lets COPY into a new table do without a log).
const BULK: [&str; 10] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "maintenance_work_mem=256MB",
    "shared_buffers=256MB",
    "huge_pages=off",
];

/// Of a copy that follows the old one (chapter "Log-Shipping Standby Servers"). It has memory of its own beside that of
/// the server that it follows, and is written to the disk as a whole before anybody relies on it. Commands that a
/// postgresql.conf has for the day when its server is a standby would clear away another one's archive.
const STANDBY: [&str; 19] = [
    "hot_standby=on",
    "fsync=off",
    "shared_buffers=128MB",
    "huge_pages=off",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "restore_command=",
    "archive_cleanup_command=",
    "recovery_end_command=",
    "recovery_target=",
    "recovery_target_name=",
    "recovery_target_time=",
    "recovery_target_xid=",
    "recovery_target_lsn=",
    "recovery_target_timeline=latest",
    "recovery_min_apply_delay=0",
    "primary_slot_name=",
    "max_standby_streaming_delay=-1",
    // It says how far it is, or it would be taken for one that does not follow.
    "wal_receiver_status_interval=1",
];

/// Settings that other versions do not know.
fn of_some_versions(side: Side, major: Major) -> impl Iterator<Item = &'static str> {
    // It needs a log of more than `minimal`.
    let new = (side == Side::New && major.0 >= 17).then_some("summarize_wal=off");
    // The file that promotes a standby.
    let copy = (side == Side::Copy && major.0 < 16).then_some("promote_trigger_file=");
    new.into_iter().chain(copy)
}

/// A private server, and the programs that talk to it.
pub struct Private<'a> {
    runtime: AsUser<'a>,
    major: Major,
    connection: Connection,
    server: PrivateServer,
}

impl<'a> Private<'a> {
    /// Starts the cluster of version `major` in `data_directory`; `programs` is the version of the programs that talk
    /// to it.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub fn start(
        runtime: &'a dyn Runtime,
        account: &'a Account,
        sockets: &Sockets,
        superuser: &str,
        (side, data_directory, major): (Side, &Path, Major),
        programs: Major,
    ) -> Result<Self> {
        Self::start_with(runtime, account, sockets, superuser, (side, data_directory, major), programs, &[])
    }

    /// The same, with further settings.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub fn start_with(
        runtime: &'a dyn Runtime,
        account: &'a Account,
        sockets: &Sockets,
        superuser: &str,
        (side, data_directory, major): (Side, &Path, Major),
        programs: Major,
        more: &[String],
    ) -> Result<Self> {
        let connection = sockets.connection(side, superuser).to_server(major);
        let mut settings = sockets.settings();
        // A postgresql.conf may name another directory than its own.
        settings.push(format!("data_directory={}", data_directory.display()));
        match side {
            Side::Old => settings.extend(READ_ONLY.map(str::to_owned)),
            Side::New => settings.extend(BULK.map(str::to_owned)),
            Side::Copy => settings.extend(STANDBY.map(str::to_owned)),
        }
        settings.extend(of_some_versions(side, major).map(str::to_owned));
        settings.extend_from_slice(more);
        let server = PrivateServer::start_with(
            runtime,
            major,
            data_directory,
            &connection,
            account,
            &settings,
            START,
        )?;
        Ok(Self { runtime: AsUser { runtime, account }, major: programs, connection, server })
    }

    /// To ask it for things.
    pub fn session(&self) -> Session<'_> {
        Session { runtime: &self.runtime, major: self.major, connection: &self.connection }
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
    let find = || {
        // One that is just starting has no postmaster.pid yet.
        let found = Postmaster::of(data_directory, Path::new("/proc"))?.map(|postmaster| postmaster.pid);
        Ok(found.or_else(|| starting_on(data_directory, Path::new("/proc"))))
    };
    loop {
        let Some(pid) = find()? else { return Ok(()) };
        if asked != Some(pid) {
            log::warn!("stopping the server (process {}) that was left on {}", pid, data_directory.display());
            let process = owner(data_directory).and_then(|owner| Process::of(pid, owner));
            if find()? == Some(pid) {
                asked = process.is_some_and(|process| process.signal(Signal::SIGINT)).then_some(pid);
            }
        }
        if std::time::Instant::now() > deadline {
            let message = format!("process {} on {} does not end", pid, data_directory.display());
            return Err(Error::new(Kind::Server, message));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
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
