//! The restored cluster: made, recovered, put in place.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::RenameFlags;
use nix::sys::signal::Signal;

use super::plan::Plan;
use crate::account::Account;
use crate::backup::outage::outage;
use crate::backup::pgbackrest::program::Program;
use crate::backup::pgbackrest::replay::{self, Replay};
use crate::clients;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, directories};
use crate::postgres::{Connection, Contents, DataDirectory, HOME, Libraries, Postmaster, Session};
use crate::report::Progress;
use crate::runtime::{self, AsUser, Process, Runtime, interrupt, tool};
use crate::systemd::Manager;

/// How long the replay of the WAL may take until the cluster is consistent.
const REPLAY: Duration = Duration::from_secs(24 * 3600);

/// How long what a run that was killed has started may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it is until files are removed again that have appeared meanwhile.
const TICK: Duration = Duration::from_millis(100);

/// What pgBackRest writes for the replay, and what a later standby of this cluster must not do.
const OF_REPLAY: [&str; 4] =
    ["restore_command", "recovery_target_time", "recovery_target_lsn", "recovery_target_action"];

/// A restore under way.
pub(super) struct Work<'a> {
    pub(super) settings: &'a Settings,
    pub(super) runtime: &'a dyn Runtime,
    pub(super) program: &'a Program,
    pub(super) plan: &'a Plan,
    pub(super) account: Account,
}

impl Work<'_> {
    /// The restored cluster, beside the one that is there.
    pub(super) fn make(&self, progress: &mut dyn Progress) -> Result<()> {
        let Self { program, plan, .. } = self;
        self.remove()?;
        let connection = self.settings.connection();
        let mut libraries = Libraries::default();
        if !connection.is_absent() {
            let session = Session::newest(self.runtime, &connection);
            libraries = Libraries::gather(&session)?;
            progress.begin("archiving what has been written until now", None);
            // A time is reached only by a transaction that ended after it.
            session.execute(HOME, "SELECT pg_catalog.txid_current();")?;
            program.check()?;
            progress.end();
        }
        directories::make_private(&plan.beside, &self.account)?;
        if plan.delta {
            progress.begin("copying the cluster", None);
            self.copy()?;
            progress.end();
        }
        progress.begin("restoring by pgBackRest", None);
        program.restore(&plan.label, &plan.beside, &plan.target.options(), plan.delta)?;
        progress.end();
        interrupt::check()?;
        progress.begin(&format!("replaying the WAL until {}", plan.target), None);
        self.replay(&libraries)?;
        progress.end();
        Ok(())
    }

    /// A copy, as its owner. Where the file system can, blocks are shared.
    fn copy(&self) -> Result<()> {
        let mut command = runtime::bare(&tool("cp", "coreutils")?);
        command
            .args(["--archive", "--reflink=auto", "--no-target-directory"])
            .arg(&self.plan.data)
            .arg(&self.plan.beside);
        self.account.apply(&mut command);
        runtime::output(command, "cp", &[]).map_err(Error::or_no_space)?;
        let lock = self.plan.beside.join("postmaster.pid");
        self.account.with_files(|| match std::fs::remove_file(&lock) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &lock),
            _ => Ok(()),
        })
    }

    fn replay(&self, libraries: &Libraries) -> Result<()> {
        let Self { plan, program, account, .. } = self;
        let runtime = AsUser { runtime: self.runtime, account };
        let server = &self.settings.server;
        let connection = Connection::new(&plan.beside, server.port, &server.superuser).to_server(plan.major);
        let mut settings = plan.target.settings();
        // What it writes then waits for the real server, which archives it: without the history of its timeline, nothing after it
        // could be restored.
        settings.extend(["archive_mode=on", "fsync=on"].map(str::to_owned));
        let replay = Replay {
            settings: self.settings,
            runtime: &runtime,
            program,
            major: plan.major,
            data: &plan.beside,
            account,
            connection: &connection,
        };
        let session = Session { runtime: &runtime, major: plan.major, connection: &connection };
        let started = replay.start(settings, libraries, REPLAY)?;
        let started = replay::until(started, &session, replay::HAS_ENDED)?;
        for name in OF_REPLAY {
            session.execute(HOME, &format!("ALTER SYSTEM RESET {name};"))?;
        }
        started.stop()
    }

    /// Removes what a run that was killed has left, whose server lives on.
    pub(super) fn remove(&self) -> Result<()> {
        let beside = &self.plan.beside;
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(server) = Postmaster::of(beside, Path::new("/proc"))?
                && let Some(process) = Process::of(server.pid, self.account.uid)
            {
                process.signal(Signal::SIGQUIT);
            }
            match directories::remove(beside) {
                // Files may still appear.
                Err(_) if Instant::now() < limit => std::thread::sleep(TICK),
                removed => return removed.at("remove", beside),
            }
        }
    }

    /// Puts it in place, while nothing runs that uses it.
    pub(super) fn exchange(&self) -> Result<()> {
        let Plan { data, beside, kept, .. } = self.plan;
        let manager = Manager::connect()?;
        let (configured, server) = (&self.settings.clients, &self.settings.server);
        let mut wanted = manager.clients(&configured.units)?;
        let connection = self.settings.connection();
        if !connection.is_absent() {
            let session = Session::newest(self.runtime, &connection);
            wanted.extend(clients::found(&manager, self.settings, &session, None));
        }
        wanted.push(server.unit.clone());
        let timeout = configured.timeout.max(server.start_timeout);
        let (put, again) = outage(&manager, "restore of the cluster", &wanted, timeout, || {
            free(data).and_then(|()| put(data, beside, kept))
        })?;
        match (put, again) {
            (Ok(()), again) => again.map_err(|error| {
                error.state(format!(
                    "the restored cluster is in place; the previous one is kept in {}",
                    kept.display()
                ))
            }),
            (Err(error), again) => {
                if let Err(other) = again {
                    log::error!("{}", other.report());
                }
                Err(error
                    .state(format!("the cluster is unchanged; the restored one is in {}", beside.display())))
            }
        }
    }
}

/// Fails while a server uses it.
fn free(data: &Path) -> Result<()> {
    let found = DataDirectory::read(data, Path::new("/proc"))?;
    match found.postmaster {
        None => Ok(()),
        Some(server) => Err(Error::new(
            Kind::DataDirectory,
            format!("a server that was not stopped uses {}: process {}", data.display(), server.pid),
        )
        .hint("stop it, then restore again")),
    }
}

/// Exchanges both. The name under which the previous cluster is kept is taken first: killed at any instant, it has no name that
/// another restore would remove.
fn put(data: &Path, beside: &Path, kept: &Path) -> Result<()> {
    let renamed = |from: &Path, to: &Path, flags| -> Result<()> {
        directories::rename(from, to, flags)?
            .map_err(|errno| Error::io(&format!("rename {} to", from.display()), to, errno.into()))
    };
    // Where nothing is there, nothing is kept.
    if matches!(DataDirectory::read(data, Path::new("/proc"))?.contents, Contents::Missing) {
        renamed(beside, data, RenameFlags::RENAME_NOREPLACE)?;
    } else {
        renamed(beside, kept, RenameFlags::RENAME_NOREPLACE)?;
        if let Err(error) = renamed(kept, data, RenameFlags::RENAME_EXCHANGE) {
            let _ = renamed(kept, beside, RenameFlags::RENAME_NOREPLACE);
            return Err(error);
        }
    }
    files::sync_directory(files::parent(data))
}
