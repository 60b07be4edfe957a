//! `clean`: the databases that restores have replaced go.

use jiff::Timestamp;

use crate::backup::leftovers;
use crate::config::Settings;
use crate::error::Result;
use crate::lock::Lock;

pub(super) fn clean(settings: &Settings, yes: bool, dry_run: bool) -> Result<()> {
    let host = crate::cli::host(settings);
    let found = leftovers::find(settings, &host, Timestamp::now())?;
    if found.is_empty() {
        return crate::cli::print("nothing is left over\n");
    }
    let lines: Vec<_> = found.iter().map(|leftover| format!("remove {leftover}\n")).collect();
    crate::cli::print(&lines.concat())?;
    if dry_run {
        return Ok(());
    }
    if !yes {
        crate::cli::confirm("remove them for good?")?;
    }
    let _lock = Lock::take(settings, "clean-up")?;
    for leftover in &found {
        leftovers::remove(settings, &host, leftover)?;
        log::info!("removed database {:?}", leftover.database);
    }
    Ok(())
}
