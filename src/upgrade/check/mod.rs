//! Facts → blockers, warnings and facts. Pure, but for [`trial`], which brings the last of the facts.

mod definitions;
mod findings;
mod prepare;
mod report;
mod rules;
pub mod trial;
mod views;

use self::findings::Findings;

pub use self::prepare::prepare;
pub use self::report::{Finding, Report, Weight};
use super::facts::Facts;
use crate::upgrade::plan::choice::choose;

/// Judges the facts.
pub fn check(facts: &Facts) -> Report {
    let from = facts.data_directory.contents.major();
    let mut findings = Findings::default();
    let method = choose(facts);
    findings.method(facts, method);
    findings.space(facts, method);
    let standing = standing(facts);
    let is_to_be_tried = leaves_room_to_try(&standing, facts);
    findings.append(standing);
    findings.tried(facts, is_to_be_tried);
    if let Some(cluster) = &facts.cluster {
        findings.pages(cluster, method);
        findings.subscriptions(cluster, method, from);
    }
    Report { from, to: facts.target, method, findings: findings.sorted() }
}

/// Whether an upgrade can be tried out: nothing else stands in its way, whatever the method.
pub fn is_to_be_tried(facts: &Facts) -> bool {
    leaves_room_to_try(&standing(facts), facts)
}

fn leaves_room_to_try(standing: &Findings, facts: &Facts) -> bool {
    standing.are_clear() && facts.space.copy(facts.data_bytes).is_ok()
}

/// What can be seen without trying anything, and has nothing to do with the method.
fn standing(facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    // Nothing else is worth a look where it is another's.
    findings.occupant(facts);
    findings.versions(facts, facts.data_directory.contents.major());
    findings.directory(facts);
    findings.registered(facts);
    findings.contained(facts);
    findings.configuration(facts);
    if let Some(cluster) = &facts.cluster {
        findings.cluster(cluster, facts);
        findings.names(cluster);
    }
    findings.units(facts);
    findings
}

#[cfg(test)]
mod tests;
