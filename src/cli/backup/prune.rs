//! `prune`: removes the backups that no rule keeps.

use jiff::ZonedDateTime;

use crate::backup::{prune, store_of};
use crate::config::Settings;
use crate::error::Result;
use crate::lock::Lock;
use crate::runtime::interrupt;

pub(super) fn prune(settings: &Settings, dry_run: bool) -> Result<()> {
    let backups = store_of(&settings.backup);
    let now = ZonedDateTime::now();
    if dry_run {
        let plan = prune::plan(&*backups, &settings.backup, &now)?;
        return match plan.decisions.is_empty() {
            true => crate::cli::print(&format!("no backups in {}\n", backups.path().display())),
            false => crate::cli::print(&format!("{plan}\n")),
        };
    }
    interrupt::listen()?;
    backups.check()?;
    let _lock = Lock::take(settings, "removal of old backups")?;
    let plan = prune::plan(&*backups, &settings.backup, &now)?;
    if prune::carry_out(&*backups, &plan)?.is_empty() {
        log::info!("nothing to remove; --dry-run shows the reasons");
    }
    Ok(())
}
