//! Facts → blockers, warnings and facts. Pure, but for [`trial`], which brings the last of the facts.

mod definitions;
mod findings;
mod rules;
pub mod trial;
mod views;

use std::fmt;

use serde::Serialize;

use self::findings::Findings;

pub use self::trial::Tried;
use super::choice::choose;
use super::facts::Facts;
use crate::config::Method;
use crate::postgres::Major;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// An upgrade would not be begun.
    Blocker,
    /// It would, and somebody should know.
    Warning,
    /// Good to know.
    Fact,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// A sentence, lower case.
    pub message: String,
    /// What to do about it, if anything.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nHINT: {hint}"),
            None => Ok(()),
        }
    }
}

/// The answer to `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version that the data directory holds.
    pub from: Option<Major>,
    /// The version to go to.
    pub to: Option<Major>,
    /// How.
    pub method: Method,
    /// What was found, the weightiest first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether an upgrade could be begun.
    pub fn is_possible(&self) -> bool {
        self.blockers().next().is_none()
    }

    /// What stands in the way.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.of(Weight::Blocker)
    }

    /// What somebody should know who begins one.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.of(Weight::Warning)
    }

    fn of(&self, weight: Weight) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.weight == weight)
    }
}

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
    findings.versions(facts, facts.data_directory.contents.major());
    findings.directory(facts);
    findings.configuration(facts);
    match &facts.cluster {
        Some(cluster) => {
            findings.cluster(cluster, facts);
            findings.names(cluster);
        }
        None => findings.add(
            Weight::Blocker,
            "the server is not running, so that its databases cannot be looked at",
            Some("systemctl start matrix-postgres.service"),
        ),
    }
    findings.units(facts);
    findings
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |major: Option<Major>| major.map_or_else(|| "?".to_owned(), |major| major.to_string());
        write!(f, "upgrade from PostgreSQL {} to {}: ", version(self.from), version(self.to))?;
        match self.blockers().count() {
            0 => writeln!(f, "nothing stands in the way")?,
            1 => writeln!(f, "1 thing stands in the way")?,
            count => writeln!(f, "{count} things stand in the way")?,
        }
        for Finding { weight, message, hint } in &self.findings {
            let label = match weight {
                Weight::Blocker => "BLOCKER",
                Weight::Warning => "warning",
                Weight::Fact => "fact",
            };
            write!(f, "\n{label:<9}{message}")?;
            if let Some(hint) = hint {
                write!(f, "\n         HINT: {hint}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
