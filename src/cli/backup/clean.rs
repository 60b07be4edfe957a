//! `clean`: the clusters and databases that restores have replaced go.

use jiff::Timestamp;

use crate::backup::leftovers;
use crate::backup::pgbackrest::restore::kept;
use crate::config::Settings;
use crate::error::Result;
use crate::lock::Lock;

pub(super) fn clean(settings: &Settings, yes: bool, dry_run: bool) -> Result<()> {
    let host = crate::cli::programs(settings);
    let found = leftovers::find(settings, &host, Timestamp::now())?;
    if !crate::cli::is_to_remove(&found, "remove them permanently?", yes, dry_run)? {
        return Ok(());
    }
    let _lock = Lock::take(settings, "clean-up")?;
    for leftover in &found {
        leftovers::remove(settings, &host, leftover)?;
        log::info!("removed database {:?}", leftover.database);
    }
    Ok(())
}

/// The same of clusters, as root: the directory that they are in is root's.
pub(super) fn clusters(settings: &Settings, yes: bool, dry_run: bool) -> Result<()> {
    let found = kept::find(settings, Timestamp::now())?;
    let is_asked = !found.is_empty();
    if is_asked && crate::cli::is_to_remove(&found, "remove them permanently?", yes, dry_run)? {
        kept::remove(settings, &found, Timestamp::now())?;
    }
    Ok(())
}
