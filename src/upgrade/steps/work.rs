//! What every part of an upgrade works with: its journal first of all.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;

use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Connection, DataDirectory, HOME, Major, Postmaster, Session, pg_controldata};
use crate::report::Progress;
use crate::runtime::{AsUser, Process, Runtime};
use crate::systemd::{Manager, notify};
use crate::upgrade::records::{Entry, Journal, Position, Step, Which};
use crate::upgrade::steps::clock::Clock;
use crate::upgrade::steps::{container, live, login};

/// Fault injection for the tests: the upgrade stands still once this step is in the journal.
pub type Pause = Option<Step>;

/// How long a server may take to read its files again.
const RELOAD: Duration = Duration::from_secs(10);

/// An upgrade under way, whether by the process that began it or by one that goes on with it.
pub struct Work<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where PostgreSQL's programs run.
    pub runtime: &'a dyn Runtime,
    /// systemd.
    pub manager: &'a Manager,
    /// Who owns the cluster.
    pub account: Account,
    /// What has been done.
    pub journal: Journal,
    /// Who is told.
    pub progress: &'a mut dyn Progress,
    /// See [`Pause`].
    pub pause: Pause,
    clock: Clock,
}

impl<'a> Work<'a> {
    /// Work on what `journal` says.
    pub fn new(
        settings: &'a Settings,
        runtime: &'a dyn Runtime,
        manager: &'a Manager,
        account: Account,
        journal: Journal,
        progress: &'a mut dyn Progress,
        pause: Pause,
    ) -> Self {
        Self { settings, runtime, manager, account, journal, progress, pause, clock: Clock::default() }
    }

    /// What the journal says.
    pub fn entry(&self) -> &Entry {
        &self.journal.entry
    }

    /// Writes down that `step` begins, and that the one before has ended.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`]: it must not be taken then.
    pub fn step(&mut self, step: Step) -> Result<()> {
        self.note_duration();
        self.journal.step(step, Timestamp::now())?;
        self.clock.begin(step);
        if self.pause == Some(step) {
            log::warn!("pausing: {step}");
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }

    /// The step under way has ended.
    pub fn note_duration(&mut self) {
        self.journal.entry.durations.extend(self.clock.end());
    }

    /// Starts the unit of this one's server and logs in: it must be the cluster that is in place.
    ///
    /// # Errors
    /// [`Kind::UnitJob`], [`Kind::Server`], [`Kind::DataDirectory`].
    pub fn start_server(&self, which: Which) -> Result<()> {
        let upgrade = &self.entry().upgrade;
        // At boot the server's unit waits for this.
        notify::ready();
        let (unit, home) = (upgrade.unit(which), upgrade.home(which));
        let timeout = self.settings.server.start_timeout;
        // With the new one's clients it is waited for until all of its unit's commands have ended.
        match (which, &upgrade.container) {
            (Which::New, None) => live::start(self.manager, unit, timeout, home)?,
            _ => self
                .manager
                .start_all(std::slice::from_ref(unit), timeout)
                .into_iter()
                .try_for_each(|r| r.map(drop))?,
        }
        let expected = postgres::system_identifier(home)?;
        let connection = self.live_connection();
        let ask = || postgres::server_facts(&self.live_session(&connection));
        let found = match upgrade.container {
            Some(_) => container::answer(self.manager, unit, timeout, ask),
            None => ask(),
        };
        let found = found.map_err(|error| error.context("the server was started, but the login failed"))?;
        match (found.system_identifier == expected, &upgrade.container) {
            (true, Some(container)) if which == Which::New && !self.entry().was_open() => {
                container::require_extensions(&self.live_session(&connection), container)
            }
            (true, _) => Ok(()),
            (false, _) => Err(Error::new(
                Kind::DataDirectory,
                format!(
                    "the server on {} uses another data directory than {}",
                    self.settings.socket_directory.display(),
                    upgrade.home(which).display()
                ),
            )),
        }
    }

    /// Starts the units of clients that were running, once that of this one's server has done so. All are tried, and those that
    /// did not start are noted down.
    ///
    /// # Errors
    /// [`Kind::UnitJob`] naming those that did not start.
    pub fn start_clients(&mut self, which: Which) -> Result<()> {
        let mut units = self.entry().clients.clone();
        // They were stopped with those that need others first.
        units.push(self.entry().upgrade.unit(which).clone());
        units.reverse();
        let started = self.manager.start_all(&units, self.settings.clients.timeout);
        let failed: Vec<_> =
            units.iter().zip(started).filter_map(|(unit, started)| Some((unit, started.err()?))).collect();
        let names: Vec<_> = failed.iter().map(|(unit, _)| (*unit).clone()).collect();
        self.journal.entry.not_started.clone_from(&names);
        let hint = names.first().map(|unit| format!("journalctl --unit={unit}"));
        let Some((_, first)) = failed.into_iter().next() else { return Ok(()) };
        Err(Error::new(Kind::UnitJob, format!("services that did not start: {}", names.join(", ")))
            .because(first)
            .hint(hint.unwrap_or_default()))
    }

    /// Lets in only us to the new cluster once it is in place, as long as it is not opened.
    ///
    /// # Errors
    /// As [`login::close`].
    pub fn close_login(&mut self) -> Result<()> {
        let upgrade = &self.entry().upgrade;
        let rules = login::find(self.runtime, &self.account, upgrade)?;
        let peer = upgrade.container.as_ref().map_or(&self.account.name, |container| &container.peer);
        let files =
            login::close(&upgrade.beside, &rules, (&self.account, peer), &self.settings.server.superuser)?;
        self.journal.entry.login_files = files;
        Ok(())
    }

    /// Opens the new cluster to everybody whom the administrator's rules let in. `read` is when the running server has read
    /// its files, as [`Work::position`] has told; where that is not known, nobody waits until it has read them again.
    ///
    /// # Errors
    /// [`Kind::File`] if the files cannot be put back.
    pub fn open_login(&self, read: Option<&str>) -> Result<()> {
        let Entry { login_files, upgrade, .. } = self.entry();
        let data_directory = upgrade.home(Which::New);
        login::open(data_directory, login_files)?;
        if upgrade.container.is_some() {
            // Its process has a number of its own.
            let connection = self.live_connection();
            let sql = "SELECT pg_catalog.pg_reload_conf();";
            let asked = self.live_session(&connection).execute(HOME, sql);
            asked.unwrap_or_else(|error| log::debug!("{}", error.report()));
        } else if let Some(postmaster) = Postmaster::of(data_directory, Path::new("/proc"))?
            && let Some(process) = Process::of(postmaster.pid, self.account.uid)
        {
            process.signal(Signal::SIGHUP);
        }
        let Some(read) = read else { return Ok(()) };
        let connection = self.live_connection();
        let deadline = Instant::now() + RELOAD;
        let sql = "SELECT pg_catalog.to_json(pg_catalog.pg_conf_load_time()::text);";
        loop {
            match self.live_session(&connection).query::<String>(HOME, sql) {
                Ok(now) if now != read => return Ok(()),
                Ok(_) if Instant::now() < deadline => {}
                Ok(_) => log::warn!("the server has not reloaded pg_hba.conf yet"),
                // There is no way back any more; what works now is seen soon enough.
                Err(error) => log::warn!("{}", error.report()),
            }
            if Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    /// Where the new cluster stands, and when its server has read its files.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub fn position(&self) -> Result<(Position, String)> {
        let connection = self.live_connection();
        let (lsn, xid, read): (String, String, String) = self.live_session(&connection).query(
            HOME,
            "SELECT pg_catalog.json_build_array(pg_catalog.pg_current_wal_lsn(), pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text,
                pg_catalog.pg_conf_load_time()::text);",
        )?;
        let xid = xid
            .parse()
            .map_err(|error| Error::new(Kind::Bug, format!("{xid:?} is no transaction")).because(error))?;
        Ok((Position { lsn, xid }, read))
    }

    /// Notes down which the new cluster is, and where it stands before anybody but us can reach it. Its server must be stopped.
    ///
    /// # Errors
    /// As [`pg_controldata::read`].
    pub fn note_next_xid(&mut self) -> Result<()> {
        let runtime = AsUser { runtime: self.runtime, account: &self.account };
        let control = pg_controldata::read(&runtime, self.entry().upgrade.to, &self.entry().upgrade.beside)?;
        self.journal.entry.next_xid = Some(control.next_xid);
        if self.entry().upgrade.registered.is_some() {
            let identifier = postgres::system_identifier(&self.entry().upgrade.beside)?;
            self.journal.entry.new_identifier = Some(identifier);
        }
        Ok(())
    }

    /// Whether nobody has written to the new cluster, which is in place and whose server is stopped: each who writes takes
    /// a transaction's number. What is not known is no.
    pub fn is_untouched(&self) -> bool {
        let runtime = AsUser { runtime: self.runtime, account: &self.account };
        let Entry { next_xid, upgrade, .. } = self.entry();
        let control = pg_controldata::read(&runtime, upgrade.to, upgrade.home(Which::New));
        control.is_ok_and(|control| control.is_shut_down() && Some(control.next_xid) == *next_xid)
    }

    /// How to reach the server of the unit.
    pub fn live_connection(&self) -> Connection {
        self.settings.connection()
    }

    /// To ask it for things.
    pub fn live_session<'s>(&'s self, connection: &'s Connection) -> Session<'s> {
        Session { runtime: self.runtime, major: self.programs(), connection }
    }

    fn programs(&self) -> Major {
        self.runtime.majors().last().copied().unwrap_or(self.entry().upgrade.to)
    }
}

/// The owner of the cluster.
///
/// # Errors
/// [`Kind::DataDirectory`] if there is none.
pub fn owner(directory: &DataDirectory) -> Result<Account> {
    directory.owner.clone().ok_or_else(|| {
        Error::new(Kind::DataDirectory, format!("{} does not exist", directory.path.display()))
    })
}
