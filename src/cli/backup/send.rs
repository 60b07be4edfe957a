//! `send`: brings the targets of `[[offsite]]` up to date.

use std::fs::{File, TryLockError};
use std::path::Path;

use jiff::{Timestamp, ZonedDateTime};

use super::places;
use crate::backup::offsite::record::{DIRECTORY, Record};
use crate::backup::offsite::send::Sending;
use crate::backup::{offsite, store_of};
use crate::config::{Offsite, Settings};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::report::{self, event};
use crate::runtime::interrupt;
use crate::systemd::notify;

/// `configuration` is that of rclone, or why there is none.
pub(super) fn send(
    settings: &Settings,
    target: Option<&str>,
    dry_run: bool,
    configuration: Result<String>,
) -> Result<()> {
    let chosen: Vec<_> = match target {
        Some(name) => vec![offsite::find(settings, name)?],
        None => settings.offsite.iter().collect(),
    };
    if chosen.is_empty() {
        log::info!("no target of [[offsite]] is configured: nothing to send");
        return Ok(());
    }
    interrupt::listen()?;
    let records = Path::new(DIRECTORY);
    let _lock = if dry_run { None } else { Some(lock(records)?) };
    let ready = configuration.and_then(|text| Ok((places::rclone(settings, &text)?, places::machine()?)));
    let (rclone, machine) = match ready {
        Ok(ready) => ready,
        Err(error) if dry_run => return Err(error),
        Err(error) => return Err(unready(records, &chosen, error)),
    };
    let here = store_of(&settings.backup);
    let now = ZonedDateTime::now();
    let mut progress = report::progress(crate::cli::on_terminal());
    let mut failed = Vec::new();
    for target in &chosen {
        let sending = Sending { here: &*here, target, rclone: &rclone, machine: &machine, records };
        let done = match dry_run {
            true => sending.plan(&now).and_then(|plan| crate::cli::print(&format!("{plan}\n"))),
            false => sending.carry_out(&now, progress.as_mut()),
        };
        match done {
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => failed.push(error.context(format!("target {}", target.name))),
            Ok(()) => {}
        }
    }
    let count = failed.len();
    if count == 0 {
        let all = if chosen.len() == 1 { "the target has" } else { "all targets have" };
        notify::status(&format!("{all} what they should have"));
    }
    // One target that fails keeps no other from being sent to.
    let mut failed = failed.into_iter();
    let first = failed.next();
    failed.for_each(|error| log::error!(MESSAGE_ID = event::NOT_SENT; "{}", error.report()));
    first.map_or(Ok(()), Err)
}

/// What keeps all of them from being reached is known of each.
fn unready(records: &Path, targets: &[&Offsite], error: Error) -> Error {
    for target in targets {
        let known = Record::load(records, target).unwrap_or_default().unwrap_or_default();
        let record = Record { remote: target.remote.clone(), ..known }.failed(&error, Timestamp::now());
        if let Err(error) = record.save(records, target) {
            log::warn!("{}", error.report());
        }
    }
    error.state("nothing was sent; the backups on this machine are unchanged")
}

/// One at a time; a backup, a restore or an upgrade is another matter, and waits for none.
fn lock(records: &Path) -> Result<File> {
    let path = records.join("lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).at("open the lock", &path);
    let file = file.map_err(|error| error.hint("systemd-tmpfiles --create matrix-postgres.conf"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(Kind::Locked, "backups are being sent already")
            .state("nothing was started")
            .hint("systemctl status matrix-postgres-backup-offsite.service")),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
    }
}
