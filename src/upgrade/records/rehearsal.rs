//! What a rehearsal has shown, and whether that says anything of an upgrade now.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::Method;
use crate::error::{IoContext as _, Result};
use crate::files;
use crate::postgres::Major;
use crate::report::DecimalBytes;
use crate::upgrade::records::{Compared, Step};

/// What a rehearsal has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// When it was begun.
    pub at: Timestamp,
    /// The old version.
    pub from: Major,
    /// The new version.
    pub to: Major,
    /// How.
    pub method: Method,
    /// Seconds of each part, in order.
    pub durations: Vec<(Step, f64)>,
    /// Bytes that it has taken on the disk.
    pub bytes: u64,
    /// Bytes of the data directory then; nothing of versions that did not write it down.
    #[serde(default)]
    pub data_bytes: Option<u64>,
    /// How much was compared; nothing in records of earlier versions.
    #[serde(default)]
    pub compared: Option<Compared>,
    /// Why it failed, if so.
    pub problem: Option<String>,
}

impl Rehearsal {
    /// The result of the latest one.
    ///
    /// # Errors
    /// [`crate::Kind::File`].
    pub fn read(state_directory: &Path) -> Result<Option<Self>> {
        let file = file(state_directory);
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.at("read", &file)?,
        };
        // One of another version says nothing to us; the next replaces it.
        Ok(serde_json::from_str(&text).ok())
    }

    /// Keeps it for the next upgrade.
    ///
    /// # Errors
    /// [`crate::Kind::File`], [`crate::Kind::NoSpace`].
    pub fn write(&self, state_directory: &Path) -> Result<()> {
        let file = file(state_directory);
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::from).at("write", &file)?;
        files::replace(&file, &(text + "\n"))
    }

    /// Why it says nothing of an upgrade like this, if so.
    pub fn outdated(&self, aim: &Aim, now: Timestamp) -> Option<String> {
        let Self { from, to, method, .. } = self;
        if let Some(aim) = aim.from.filter(|aim| aim != from) {
            return Some(format!("it was from version {from}, and the cluster has version {aim}"));
        }
        if let Some(aim) = aim.to.filter(|aim| aim != to) {
            return Some(format!("it was to version {to}, and the upgrade is to {aim}"));
        }
        if let Some(aim) = aim.method.filter(|aim| aim != method) {
            return Some(format!("it was by method {method}, and the upgrade is by method {aim}"));
        }
        let age = now.duration_since(self.at);
        if age > OLDEST {
            return Some(format!(
                "it is {} days old (limit: {} days)",
                age.as_hours() / 24,
                OLDEST.as_hours() / 24
            ));
        }
        if age < -CLOCKS_DIFFER {
            return Some("its time is in the future".to_owned());
        }
        match (self.data_bytes, aim.data_bytes) {
            (Some(then), Some(now)) if now > then.saturating_add(then / 2) => {
                let (then, now) = (DecimalBytes(then), DecimalBytes(now));
                Some(format!("the data directory has grown from {then} to {now}"))
            }
            _ => None,
        }
    }

    /// Whether the upgrade would.
    pub fn went_well(&self) -> bool {
        self.problem.is_none()
    }

    /// Seconds of downtime that an upgrade would have, without stopping and starting the server and the services.
    pub fn downtime(&self) -> f64 {
        Step::downtime(&self.durations)
    }

    /// The same in words.
    pub fn expected_downtime(&self) -> String {
        format!("{:.1} s expected, plus stopping and starting the server and the services", self.downtime())
    }
}

/// What an upgrade would be that was begun now, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aim {
    /// The old version.
    pub from: Option<Major>,
    /// The new version.
    pub to: Option<Major>,
    /// How.
    pub method: Option<Method>,
    /// Bytes of the data directory.
    pub data_bytes: Option<u64>,
}

/// What was tried longer ago was tried with another configuration, other packages and other data.
const OLDEST: SignedDuration = SignedDuration::from_hours(30 * 24);

/// By so much.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, from, to, method, .. } = self;
        write!(f, "rehearsal from PostgreSQL {from} to {to} by method {method}, at {at:.0}: ")?;
        match &self.problem {
            Some(problem) => write!(f, "failed: {problem}"),
            None => write!(f, "succeeded; downtime {}", self.expected_downtime()),
        }
    }
}

fn file(state_directory: &Path) -> PathBuf {
    state_directory.join("rehearsal.json")
}

#[cfg(test)]
pub(in crate::upgrade) mod tests {
    use super::*;

    pub(crate) fn rehearsal() -> Rehearsal {
        Rehearsal {
            at: Timestamp::UNIX_EPOCH,
            from: Major(15),
            to: Major(17),
            method: Method::Online,
            durations: vec![(Step::Copying, 60.0), (Step::Promoting, 0.5), (Step::Upgrading, 3.0)],
            bytes: 3_000_000_000,
            data_bytes: Some(1_000_000_000),
            compared: Some(Compared { tables: 12, rows: None }),
            problem: None,
        }
    }

    #[test]
    fn what_users_wait_for_is_what_comes_after_the_cut() {
        assert!((rehearsal().downtime() - 3.5).abs() < 1e-9);
        let text = rehearsal().to_string();
        assert_eq!(
            text,
            "rehearsal from PostgreSQL 15 to 17 by method online, at 1970-01-01T00:00:00Z: succeeded; downtime 3.5 s \
             expected, plus stopping and starting the server and the services"
        );
        let failed = Rehearsal { problem: Some("no space".into()), ..rehearsal() };
        assert!(failed.to_string().ends_with(": failed: no space"), "{failed}");
    }

    #[test]
    fn one_of_another_upgrade_of_long_ago_or_of_less_data_does_not_count() {
        let aim = Aim {
            from: Some(Major(15)),
            to: Some(Major(17)),
            method: Some(Method::Online),
            data_bytes: Some(1_500_000_000),
        };
        let outdated = |aim: Aim, days: i64| {
            rehearsal().outdated(&aim, Timestamp::from_second(days * 86_400).unwrap()).unwrap_or_default()
        };
        assert_eq!(outdated(aim, 30), "");
        assert_eq!(outdated(Aim::default(), 0), "");
        for (aim, days, expected) in [
            (Aim { from: Some(Major(17)), ..aim }, 0, "from version 15, and the cluster has version 17"),
            (Aim { to: Some(Major(18)), ..aim }, 0, "to version 17, and the upgrade is to 18"),
            (
                Aim { method: Some(Method::Dump), ..aim },
                0,
                "by method online, and the upgrade is by method dump",
            ),
            (aim, 31, "31 days old (limit: 30 days)"),
            (aim, -1, "in the future"),
            (Aim { data_bytes: Some(1_500_000_001), ..aim }, 0, "has grown from 1.00 GB to 1.50 GB"),
        ] {
            assert!(outdated(aim, days).contains(expected), "{expected}: {}", outdated(aim, days));
        }
        // Versions before this one did not write down how much there was.
        let old = Rehearsal { data_bytes: None, ..rehearsal() };
        assert_eq!(old.outdated(&Aim { data_bytes: Some(u64::MAX), ..aim }, old.at), None);
    }

    #[test]
    fn a_result_is_kept_and_one_of_another_form_is_none() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Rehearsal::read(state.path()).unwrap(), None);
        rehearsal().write(state.path()).unwrap();
        assert_eq!(Rehearsal::read(state.path()).unwrap(), Some(rehearsal()));
        std::fs::write(file(state.path()), "{}").unwrap();
        assert_eq!(Rehearsal::read(state.path()).unwrap(), None);
    }
}
