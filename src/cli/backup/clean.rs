//! `clean`: the databases that restores have replaced go.

use jiff::Timestamp;

use crate::backup::leftovers;
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
