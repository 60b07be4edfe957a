//! `verify --trial`: a backup restored into a server made for that.

use std::path::Path;

use jiff::Timestamp;

use super::places::{Backups, VERIFICATION};
use crate::backup::catalogue::{self, Entry};
use crate::backup::engine::{Dumps, Engine as _};
use crate::backup::manifest::Manifest;
use crate::backup::source::Source;
use crate::backup::{pgbackrest, trial};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::report;
use crate::runtime::interrupt;
use crate::systemd::notify;

pub(super) fn trial(
    settings: &Settings,
    name: Option<&str>,
    dry_run: bool,
    identity: Option<&Path>,
    backups: &Backups,
) -> Result<()> {
    let host = crate::cli::programs(settings);
    let entry = catalogue::find(&*backups.store, name, Timestamp::now())?;
    let mut manifest = Manifest::load(&*entry.files)?;
    if let Err(error) = &entry.manifest {
        return Err(Error::new(error.kind(), error.to_string()));
    }
    let plan = trial::plan(settings, &host, &entry, &manifest)?;
    if dry_run {
        return crate::cli::print(&format!("{plan}\n"));
    }
    interrupt::listen()?;
    backups.store.check()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let Entry { name, files, .. } = entry;
    // Without the rows that were counted there is nothing to compare with.
    if manifest.read_back.is_none() {
        let _lock = backups.lock(settings, VERIFICATION)?;
        manifest = Dumps::new(settings, &host).verify(&*files, manifest, progress.as_mut())?;
    }
    if let Some(damage) = manifest.read_back.and_then(|read_back| read_back.damage) {
        return Err(Error::new(Kind::Damaged, format!("backup {name} is damaged: {damage}"))
            .hint("make a new one: systemctl start matrix-postgres-backup.service"));
    }
    let manifest = Manifest::load(&*files)?;
    let source = Source { files: &*files, manifest: &manifest, identity };
    let trial = trial::carry_out(settings, &host, &plan, source, progress.as_mut())?;
    let sentence = format!(
        "trial restore of backup {name} succeeded: restored into PostgreSQL {} and compared in {} s",
        trial.server_version, trial.seconds
    );
    notify::status(&sentence);
    log::info!("{sentence}");
    Ok(())
}

/// The same of the newest backup of pgBackRest.
pub(super) fn of_pgbackrest(settings: &Settings, dry_run: bool) -> Result<()> {
    let host = crate::cli::programs(settings);
    if dry_run {
        let plan = pgbackrest::trial::dry_run(settings, &host)?;
        return crate::cli::print(&format!("{plan}\n"));
    }
    interrupt::listen()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let sentence = pgbackrest::trial::run(settings, &host, progress.as_mut())?.to_string();
    notify::status(&sentence);
    log::info!("{sentence}");
    Ok(())
}

/// After the trial of a dump, if all that can be tried is, that of pgBackRest: one that fails keeps the other from nothing.
pub(super) fn others(settings: &Settings, dry_run: bool, is_all: bool, of_dump: Result<()>) -> Result<()> {
    if !is_all || !settings.backup.engine.is_pgbackrest() {
        return of_dump;
    }
    let of_cluster = of_pgbackrest(settings, dry_run);
    if let (Err(_), Err(error)) = (&of_dump, &of_cluster) {
        log::error!("{}", error.report());
    }
    of_dump.and(of_cluster)
}
