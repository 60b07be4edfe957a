//! The answer to `check`.

use std::fmt;

use serde::Serialize;

use crate::config::Method;
use crate::postgres::Major;
use crate::report::one_line;

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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |major: Option<Major>| major.map_or_else(|| "?".to_owned(), |major| major.to_string());
        write!(f, "upgrade from PostgreSQL {} to {}: ", version(self.from), version(self.to))?;
        match self.blockers().count() {
            0 => writeln!(f, "possible")?,
            1 => writeln!(f, "not possible, 1 blocker")?,
            count => writeln!(f, "not possible, {count} blockers")?,
        }
        for Finding { weight, message, hint } in &self.findings {
            let label = match weight {
                Weight::Blocker => "BLOCKER",
                Weight::Warning => "warning",
                Weight::Fact => "fact",
            };
            write!(f, "\n{label:<9}{}", one_line(message))?;
            if let Some(hint) = hint {
                write!(f, "\n         HINT: {}", one_line(hint))?;
            }
        }
        Ok(())
    }
}
