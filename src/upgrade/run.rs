//! `run` from its first check to the report. Until the exchange every failure leads back to the old cluster.

use std::path::Path;

use jiff::Timestamp;

use super::plan::Plan;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::lock::Lock;
use crate::postgres::{self, HOME};
use crate::report::Progress;
use crate::runtime::{Runtime, interrupt};
use crate::systemd::{Inhibitor, Manager};
use crate::upgrade::methods::{self, Stage};
use crate::upgrade::records::{Census, Compared, Entry, Journal, Step, Which};
use crate::upgrade::steps::cut::{Cut, stop_clients, stop_server};
use crate::upgrade::steps::registration;
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::site::Site;
use crate::upgrade::steps::stanza::BACKUP;
use crate::upgrade::steps::work::{Pause, Work, owner};
use crate::upgrade::{finish, revert};

/// A file system with less free bytes is as good as full.
const FULL: u64 = 64 << 20;

/// Carries a plan out.
///
/// # Errors
/// Every kind, with the state that things are in: before the exchange the homeserver runs again as before.
pub fn run(
    settings: &Settings,
    runtime: &dyn Runtime,
    plan: &Plan,
    progress: &mut dyn Progress,
    pause: Pause,
) -> Result<Entry> {
    let manager = Manager::connect()?;
    if plan.backup {
        back_up(&manager, settings)?;
    }
    let _lock = Lock::take_cluster(settings, "upgrade")?;
    let _inhibitor = Inhibitor::take(&manager, "upgrade of PostgreSQL");
    let data = postgres::DataDirectory::read(&plan.upgrade.data_directory, Path::new("/proc"))?;
    let account = owner(&data)?;
    let identifier = postgres::system_identifier(&plan.upgrade.data_directory)?;
    let entry = Entry::new(plan.upgrade.clone(), identifier, Timestamp::now());
    let journal = Journal::begin(&settings.state_directory, entry)?;
    let mut work = Work::new(settings, runtime, &manager, account.clone(), journal, progress, pause);
    let site = Site { settings, runtime, account: &account, plan };
    let built = methods::build(&mut work, &site);
    if let Err(error) = built {
        let error = blame_the_disk(plan, error);
        return Err(revert::after(&mut work, error));
    }
    if let Err(error) = exchange_directories(&mut work) {
        return Err(revert::after(&mut work, error));
    }
    finish::finish(&mut work)?;
    Ok(work.journal.entry)
}

fn back_up(manager: &Manager, settings: &Settings) -> Result<()> {
    manager.require_ours(BACKUP, false)?;
    log::info!("starting matrix-postgres-backup.service first");
    manager.start(BACKUP, settings.server.start_timeout * 6 * 24).map(drop).map_err(|error| {
        error
            .context("the backup before the upgrade failed")
            .state("nothing was stopped, and nothing was changed")
            .hint(format!("journalctl --unit={BACKUP}"))
    })
}

/// A full disk makes PostgreSQL's programs fail in words of many kinds.
fn blame_the_disk(plan: &Plan, error: Error) -> Error {
    let full = |path: &Path| files::free_space(path).is_ok_and(|free| free < FULL);
    match [files::parent(&plan.upgrade.beside), files::parent(&plan.upgrade.dump_directory)]
        .into_iter()
        .find(|path| full(path))
    {
        Some(place) => error
            .with_kind(Kind::NoSpace)
            .context(format!("the file system of {} is full", place.display()))
            .hint(format!(
                "df -h {}; free space there, or use other directories: --dump-dir, --keep-path",
                place.display()
            )),
        None => error,
    }
}

fn exchange_directories(work: &mut Work<'_>) -> Result<()> {
    work.note_next_xid()?;
    interrupt::check()?;
    work.step(Step::Exchanging)?;
    registration::put(&work.entry().upgrade, Which::New, &work.account)
}

/// In earnest, with a journal.
impl Stage for Work<'_> {
    fn step(&mut self, step: Step) -> Result<()> {
        Work::step(self, step)
    }

    fn progress(&mut self) -> &mut dyn Progress {
        self.progress
    }

    fn cut(&mut self, site: &Site<'_>) -> Result<Cut> {
        stop_clients(self, &site.plan.found)?;
        stop_server(self).map(|()| Cut::Stopped)
    }

    fn cut_to_private<'a>(&mut self, site: &Site<'a>, sockets: &Sockets) -> Result<Private<'a>> {
        // What is written meanwhile waits for the server of the unit, which archives it after a return: others would be recycled, and
        // missing in the archive.
        let archives: bool = self
            .live_session(&self.live_connection())
            .query(HOME, "SELECT pg_catalog.to_json(pg_catalog.current_setting('archive_mode') <> 'off');")?;
        let more = archives.then(|| "archive_mode=on".to_owned()).into_iter().collect();
        self.cut(site)?;
        let Site { runtime, account, plan, .. } = *site;
        let old = (Side::Old, plan.upgrade.data_directory.as_path(), plan.upgrade.from);
        Private::start_with(runtime, account, sockets, plan, old, more)
    }

    fn counted(&mut self, census: Option<Census>) {
        self.journal.entry.census = census;
    }

    fn compared(&mut self, compared: Compared) {
        self.journal.entry.compared = Some(compared);
    }
}
