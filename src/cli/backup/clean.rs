//! `clean`: the clusters and databases that restores have replaced go.

use jiff::Timestamp;

use crate::backup::leftovers;
use crate::backup::pgbackrest::restore::kept;
use crate::cli::Consent;
use crate::config::Settings;
use crate::error::{Result, each};
use crate::lock::Lock;

pub(super) fn clean(settings: &Settings, consent: Consent) -> Result<()> {
    let host = crate::cli::programs(settings);
    let found = leftovers::find(settings, &host, Timestamp::now())?;
    if !consent.is_given_to_remove(&found)? {
        return Ok(());
    }
    let _lock = Lock::take(settings, "clean-up")?;
    each(found.iter().map(|leftover| {
        leftovers::remove(settings, &host, leftover)?;
        log::info!("removed database {:?}", leftover.database);
        Ok(())
    }))
}

/// The same of clusters, as root: the directory that they are in is root's.
pub(super) fn clusters(settings: &Settings, consent: Consent) -> Result<()> {
    let found = kept::find(settings, Timestamp::now())?;
    if !found.is_empty() && consent.is_given_to_remove(&found)? {
        kept::remove(settings, &found, Timestamp::now())?;
    }
    Ok(())
}
