//! `prune`: removes the backups that no rule keeps.

use jiff::ZonedDateTime;

use crate::backup::{directory, prune};
use crate::config::Settings;
use crate::error::Result;
use crate::lock::Lock;
use crate::runtime::interrupt;

pub(super) fn prune(settings: &Settings, dry_run: bool) -> Result<()> {
    let backups = &settings.backup.directory;
    let now = ZonedDateTime::now();
    if dry_run {
        let plan = prune::plan(&settings.backup, &now)?;
        return match plan.decisions.is_empty() {
            true => crate::cli::print(&format!("no backups in {}\n", backups.display())),
            false => crate::cli::print(&format!("{plan}\n")),
        };
    }
    interrupt::listen()?;
    directory::check(backups)?;
    let _lock = Lock::take(settings, "removal of old backups")?;
    let plan = prune::plan(&settings.backup, &now)?;
    if prune::carry_out(backups, &plan)?.is_empty() {
        log::info!("nothing is to be removed; --dry-run tells why");
    }
    Ok(())
}
