//! Where things stand, and which old data directories are kept.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::leftovers::{self, CLEAN, Leftover};
use crate::config::Settings;
use crate::error::Result;
use crate::files::{exists, size_of};
use crate::postgres::{DataDirectory, Major, support};
use crate::report::DecimalBytes;
use crate::runtime::Runtime;
use crate::systemd::{self, Shadowed};
use crate::upgrade::facts::remnants::{self, Remnant};
use crate::upgrade::records::{Aim, Entry, Journal, Outcome, Rehearsal, Upgrade};
use crate::upgrade::summary::Summary;

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Where things stand, in a sentence.
    pub sentence: String,
    /// That the present version gets no corrections any more, if so.
    pub support_ended: Option<String>,
    /// The units of ours that other files of the same name shadow.
    pub shadowed: Vec<Shadowed>,
    /// What to do next, if anything.
    pub hint: Option<String>,
    /// Whether an upgrade was begun and is not finished.
    pub open: bool,
    /// The latest upgrade.
    pub latest: Option<Entry>,
    /// Seconds that its clients were down.
    pub downtime: Option<f64>,
    /// Old data directories that are kept, the latest first.
    pub kept: Vec<Kept>,
    /// What the latest rehearsal has shown.
    pub rehearsal: Option<Rehearsal>,
    /// Why that says nothing of an upgrade that was begun now, if so.
    pub rehearsal_outdated: Option<String>,
    /// Files that are no journals, and tell nothing of an upgrade.
    pub unusable: Vec<PathBuf>,
    /// What upgrades and rehearsals have left.
    pub leftovers: Vec<Leftover>,
    /// What the playbook's own upgrades have left; it is not removed by us.
    pub remnants: Vec<Remnant>,
}

/// An old data directory that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// Its version.
    pub major: Major,
    /// Bytes when it was put there.
    pub bytes: Option<u64>,
    /// Since when.
    pub since: Timestamp,
    /// Whole days since then.
    pub days: i64,
}

/// Reads the journals, and looks at what there is.
///
/// # Errors
/// As [`Journal::read`].
pub fn status(settings: &Settings, runtime: &dyn Runtime, now: Timestamp) -> Result<Status> {
    let state_directory = &settings.state_directory;
    let all = Journal::all(state_directory)?;
    let kept = all.iter().filter_map(|entry| kept(entry, now)).filter(|kept| exists(&kept.path)).collect();
    let rehearsal = Rehearsal::read(state_directory)?;
    let unusable = Journal::unusable(state_directory)?;
    let aim = aim(settings, runtime);
    let rehearsal_outdated = rehearsal.as_ref().and_then(|rehearsal| rehearsal.outdated(&aim, now));
    let leftovers = leftovers::find(settings, now)?;
    let judged = judge(all.into_iter().next(), kept).with_version(aim.from, now);
    let shadowed = systemd::shadowed(settings.server.adopted());
    let hint = match (judged.open, shadowed.first()) {
        (false, Some(shadowed)) => Some(shadowed.hint()),
        _ => judged.hint.clone(),
    };
    let mut remnants = remnants::find(settings);
    remnants.retain(|remnant| !judged.kept.iter().any(|kept| kept.path == remnant.path));
    Ok(Status { shadowed, hint, rehearsal, rehearsal_outdated, unusable, leftovers, remnants, ..judged })
}

impl Status {
    /// The same, with what is to be said of a server of this version.
    fn with_version(mut self, major: Option<Major>, now: Timestamp) -> Self {
        self.support_ended = major.and_then(|major| support::ended(major, now));
        if self.support_ended.is_some() && !self.open {
            self.hint = Some(support::UPGRADE.to_owned());
        }
        self
    }
}

/// As far as it is known without asking the server.
fn aim(settings: &Settings, runtime: &dyn Runtime) -> Aim {
    let found = DataDirectory::read(&settings.data_directory, Path::new("/proc"));
    Aim {
        from: found.ok().and_then(|found| found.contents.major()),
        to: settings.upgrade.to.or(runtime.majors().last().copied()),
        method: settings.upgrade.method,
        data_bytes: size_of(&settings.data_directory).ok(),
    }
}

fn kept(entry: &Entry, now: Timestamp) -> Option<Kept> {
    let ended = entry.ended.as_ref().filter(|ended| ended.outcome == Outcome::Upgraded)?;
    Some(Kept {
        path: entry.kept.clone()?,
        major: entry.upgrade.from,
        bytes: entry.kept_bytes,
        since: ended.at,
        days: now.duration_since(ended.at).as_hours() / 24,
    })
}

fn judge(latest: Option<Entry>, kept: Vec<Kept>) -> Status {
    let (sentence, hint) = match &latest {
        None => ("no upgrade has been made".to_owned(), Some("matrix-postgres-upgrade check")),
        Some(entry) => match &entry.ended {
            None => (
                format!(
                    "unfinished upgrade from PostgreSQL {} to {}: {}, since {:.0}",
                    entry.upgrade.from, entry.upgrade.to, entry.step, entry.since
                ),
                Some("if it is no longer running: matrix-postgres-upgrade recover"),
            ),
            Some(ended) if ended.outcome == Outcome::Upgraded => (
                format!("{}; ended at {:.0}", headline(entry), ended.at),
                kept.first().map(|_| "matrix-postgres-upgrade rollback reverts to the old data directory"),
            ),
            Some(ended) => (
                format!(
                    "the homeserver runs on PostgreSQL {}: the upgrade to {} was reverted at {:.0} ({})",
                    entry.upgrade.from, entry.upgrade.to, ended.at, ended.message
                ),
                Some("systemctl start matrix-postgres-upgrade.service tries it again"),
            ),
        },
    };
    Status {
        sentence,
        support_ended: None,
        shadowed: Vec::new(),
        hint: hint.map(str::to_owned),
        open: latest.as_ref().is_some_and(Entry::is_open),
        downtime: latest.as_ref().filter(|entry| entry.clients_started.is_some()).map(Entry::downtime),
        latest,
        kept,
        rehearsal: None,
        rehearsal_outdated: None,
        unusable: Vec::new(),
        leftovers: Vec::new(),
        remnants: Vec::new(),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sentence)?;
        let upgraded = self.latest.as_ref().filter(|entry| was_upgraded(entry));
        if let Some(entry) = upgraded {
            let kept = self.kept.iter().map(ToString::to_string).collect();
            write!(f, "\n{}", Summary { kept, ..Summary::of_upgrade(entry) })?;
        } else {
            for kept in &self.kept {
                write!(f, "\nkept: {kept}")?;
            }
        }
        let is_listed = |file: &&PathBuf| self.leftovers.iter().any(|leftover| leftover.path == **file);
        for file in self.unusable.iter().filter(|file| !is_listed(file)) {
            write!(f, "\nnot a journal of an upgrade, ignored: {}", file.display())?;
        }
        for leftover in &self.leftovers {
            write!(f, "\nleftover: {leftover}")?;
        }
        if !self.leftovers.is_empty() {
            write!(f, "\nto remove leftovers: {CLEAN}")?;
        }
        for remnant in &self.remnants {
            write!(f, "\n{remnant}")?;
        }
        if !self.open && self.kept.is_empty() && self.remnants.iter().any(|left| left.major.is_some()) {
            write!(f, "\nto revert to that data directory: matrix-postgres-upgrade rollback")?;
        }
        if let Some(rehearsal) = &self.rehearsal {
            write!(f, "\n\n{rehearsal}")?;
            match &self.rehearsal_outdated {
                Some(reason) => write!(f, "\noutdated: {reason}")?,
                None if rehearsal.went_well() => write!(f, "\n{}", Summary::of_rehearsal(rehearsal))?,
                None => {}
            }
            f.write_str("\n")?;
        }
        for shadowed in &self.shadowed {
            write!(f, "\nwarning: {shadowed}")?;
        }
        if let Some(warning) = &self.support_ended {
            write!(f, "\nwarning: {warning}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nHINT: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, major, bytes, since, days } = self;
        let size = bytes.map_or_else(|| "?".to_owned(), |bytes| DecimalBytes(bytes).to_string());
        write!(f, "{}, PostgreSQL {major}, {size}, since {since:.0} ({days} days)", path.display())
    }
}

fn was_upgraded(entry: &Entry) -> bool {
    entry.ended.as_ref().is_some_and(|ended| ended.outcome == Outcome::Upgraded)
}

/// The outcome of an upgrade that has ended well, in a line.
pub fn headline(entry: &Entry) -> String {
    let Upgrade { from, to, method, .. } = &entry.upgrade;
    if entry.upgrade.by_playbook {
        return format!("upgraded from PostgreSQL {from} to {to} by the playbook");
    }
    format!("upgraded from PostgreSQL {from} to {to} by method {method}; downtime {:.1} s", entry.downtime())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::records::entry::tests::entry;
    use crate::upgrade::records::rehearsal::tests::rehearsal;
    use crate::upgrade::records::{Ended, Step};

    #[test]
    fn a_sentence_says_where_things_stand() {
        assert!(judge(None, vec![]).sentence.starts_with("no upgrade"));
        let open = judge(Some(Entry { step: Step::Transferring, ..entry() }), vec![]);
        assert!(
            open.open
                && open
                    .sentence
                    .contains("unfinished upgrade from PostgreSQL 15 to 17: dumping and restoring databases"),
            "{open}"
        );
        assert!(open.to_string().ends_with("matrix-postgres-upgrade recover"), "{open}");
        let ended = |outcome| Some(Ended { outcome, at: Timestamp::UNIX_EPOCH, message: "no space".into() });
        let returned = judge(Some(Entry { ended: ended(Outcome::Returned), ..entry() }), vec![]);
        assert!(
            returned
                .sentence
                .contains("the homeserver runs on PostgreSQL 15: the upgrade to 17 was reverted")
                && returned.sentence.contains("no space")
        );
    }

    #[test]
    fn a_version_without_corrections_is_told_with_what_to_do() {
        let now = "2026-11-28T00:00:00Z".parse().unwrap();
        let of = |latest, major| judge(latest, vec![]).with_version(major, now).to_string();
        let old = of(None, Some(Major(14)));
        assert!(old.contains("\nwarning: PostgreSQL 14 has been out of support since"), "{old}");
        assert!(old.contains("HINT: matrix-postgres-upgrade check shows"), "{old}");
        assert!(!of(None, Some(Major(15))).contains("warning") && !of(None, None).contains("warning"));
        // First things first.
        let open = of(Some(Entry { step: Step::Transferring, ..entry() }), Some(Major(13)));
        assert!(open.contains("warning") && open.ends_with("matrix-postgres-upgrade recover"), "{open}");
    }

    #[test]
    fn a_rehearsal_that_does_not_count_is_told_with_the_reason() {
        let status = Status { rehearsal: Some(rehearsal()), ..judge(None, vec![]) };
        assert!(status.to_string().contains("\nsteps:       copying the cluster"), "{status}");
        let status = Status { rehearsal_outdated: Some("it is 31 days old".into()), ..status };
        assert!(status.to_string().contains("\noutdated: it is 31 days old\n"), "{status}");
        assert!(!status.to_string().contains("steps:"), "{status}");
    }

    #[test]
    fn what_is_kept_is_listed_with_size_and_age() {
        let ended = Ended { outcome: Outcome::Upgraded, at: Timestamp::UNIX_EPOCH, message: String::new() };
        let entry = Entry {
            ended: Some(ended),
            kept: Some("/m/kept".into()),
            kept_bytes: Some(3_000_000_000),
            ..entry()
        };
        let kept = kept(&entry, Timestamp::from_second(86_400 * 12).unwrap()).unwrap();
        let other = Kept { path: "/m/other".into(), bytes: None, ..kept.clone() };
        let text = judge(Some(entry), vec![kept, other]).to_string();
        assert_eq!(
            text,
            "upgraded from PostgreSQL 15 to 17 by method dump; downtime 0.0 s; ended at 1970-01-01T00:00:00Z\n\
             method:     dump\n\
             downtime:   0.0 s\n\
             kept:       /m/kept, PostgreSQL 15, 3.00 GB, since 1970-01-01T00:00:00Z (12 days)\n\
             kept:       /m/other, PostgreSQL 15, ?, since 1970-01-01T00:00:00Z (12 days)\n\
             to revert:  matrix-postgres-upgrade rollback\n\
             HINT: matrix-postgres-upgrade rollback reverts to the old data directory"
        );
    }
}
