//! The plan for an upgrade now, if nothing stands in its way.

use jiff::Timestamp;

use super::check;
use super::trial;
use crate::backup::{catalogue, store_of};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::Major;
use crate::runtime::Runtime;
use crate::upgrade::facts::Facts;
use crate::upgrade::plan::{Plan, plan};

/// The plan for an upgrade now, and what it is made of. Nothing is changed. The caller holds the lock of the cluster.
///
/// # Errors
/// [`Kind::NotWell`] if something stands in the way.
pub fn prepare(
    settings: &Settings,
    runtime: &dyn Runtime,
    to: Option<Major>,
    lock: &Lock,
) -> Result<(Plan, Facts)> {
    let facts = trial::gather(settings, runtime, to, lock)?;
    let report = check(&facts);
    if !report.is_possible() {
        let blockers: Vec<_> = report.blockers().map(|finding| finding.message.as_str()).collect();
        let first = report.blockers().find_map(|finding| finding.hint.clone());
        return Err(Error::new(
            Kind::NotWell,
            format!("the upgrade is not possible: {}", blockers.join("; ")),
        )
        .state("nothing was stopped, and nothing was changed")
        .hint(first.unwrap_or_else(|| "matrix-postgres-upgrade check".to_owned())));
    }
    for warning in report.warnings() {
        log::warn!("{warning}");
    }
    let backups = catalogue::list(&*store_of(&settings.backup)).unwrap_or_default();
    let now = Timestamp::now();
    let earlier = catalogue::split(&backups, now).0;
    let newest = earlier.iter().rev().find(|entry| entry.is_verified()).map(|entry| entry.name.time());
    plan(settings, &facts, newest, now).map(|plan| (plan, facts))
}
