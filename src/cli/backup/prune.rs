//! `prune`: removes the backups that no rule keeps.

use jiff::ZonedDateTime;

use super::places::Backups;
use crate::backup::prune;
use crate::config::Settings;
use crate::error::Result;
use crate::runtime::interrupt;

pub(super) fn prune(settings: &Settings, dry_run: bool, backups: &Backups) -> Result<()> {
    let store = &*backups.store;
    let now = ZonedDateTime::now();
    if dry_run {
        let plan = prune::plan(store, &backups.keep, &now)?;
        return match plan.decisions.is_empty() {
            true => crate::cli::print(&format!("no backups in {}\n", store.path().display())),
            false => crate::cli::print(&format!("{plan}\n")),
        };
    }
    interrupt::listen()?;
    store.check()?;
    let _lock = backups.lock(settings, "removal of old backups")?;
    let plan = prune::plan(store, &backups.keep, &now)?;
    if prune::carry_out(store, &plan)?.is_empty() {
        log::info!("nothing to remove; --dry-run shows the reasons");
    }
    Ok(())
}
