//! What the server says of archiving, and which segments of the WAL are missing in the archive.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::Result;
use crate::postgres::{HOME, Session};

/// One JSON document. What of the WAL waits to be archived has a file `.ready` (chapter "Continuous Archiving").
const SQL: &str = "SELECT pg_catalog.json_build_object(
    'mode', pg_catalog.current_setting('archive_mode'),
    'command', pg_catalog.current_setting('archive_command'),
    'library', coalesce(pg_catalog.current_setting('archive_library', true), ''),
    'timeout', (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'archive_timeout'),
    'level', pg_catalog.current_setting('wal_level'),
    'recovery', pg_catalog.pg_is_in_recovery(),
    'segment_size', (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
    'written', CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0
        ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::bigint END,
    'archived', last_archived_wal, 'archived_at', last_archived_time,
    'failed', last_failed_wal, 'failed_at', last_failed_time, 'failures', failed_count,
    'waiting', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
    'oldest_waiting', (SELECT pg_catalog.min(modification) FROM pg_catalog.pg_ls_archive_statusdir() WHERE name LIKE '%.ready')
) FROM pg_catalog.pg_stat_archiver;";

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Archiving {
    /// `archive_mode`.
    pub mode: String,
    /// `archive_command`.
    pub command: String,
    /// `archive_library`; empty before PostgreSQL 15.
    pub library: String,
    /// `archive_timeout` in seconds.
    pub timeout: u32,
    /// `wal_level`.
    pub level: String,
    /// Whether it is a standby.
    pub recovery: bool,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Bytes of WAL since the cluster was made.
    pub written: u64,
    /// The last segment that was archived, or another file.
    pub archived: Option<String>,
    /// When.
    pub archived_at: Option<Timestamp>,
    /// The last file that was not.
    pub failed: Option<String>,
    /// When.
    pub failed_at: Option<Timestamp>,
    /// How often that has happened.
    pub failures: u64,
    /// How many files wait.
    pub waiting: u64,
    /// Since when the oldest of them does.
    pub oldest_waiting: Option<Timestamp>,
}

/// Asks the server.
///
/// # Errors
/// [`crate::Kind::Server`] with its words.
pub fn read(session: &Session<'_>) -> Result<Archiving> {
    session.query(HOME, SQL)
}

impl Archiving {
    /// Whether the server calls the command.
    pub fn is_on(&self) -> bool {
        self.mode != "off" && !self.command.is_empty() && self.command != "(disabled)"
    }

    /// The last segment that was archived.
    pub fn last_segment(&self) -> Option<&str> {
        self.archived
            .as_deref()
            .and_then(|name| name.get(..24))
            .filter(|name| Segment::parse(name, 1 << 24).is_some())
    }

    /// How much of the WAL was not archived yet; nothing if that cannot be told.
    pub fn lag_bytes(&self) -> Option<u64> {
        let last = Segment::parse(self.last_segment()?, self.segment_size)?;
        Some(self.written.saturating_sub((last.number + 1) * self.segment_size))
    }

    /// How long the oldest segment that is full has waited to be archived.
    pub fn lag_seconds(&self, now: Timestamp) -> i64 {
        self.oldest_waiting.map_or(0, |since| now.duration_since(since).as_secs().max(0))
    }

    /// Since when archiving has failed, if it does.
    pub fn failing_since(&self) -> Option<Timestamp> {
        let failed = self.failed_at.filter(|_| self.waiting > 0)?;
        (self.archived_at.is_none_or(|archived| archived < failed))
            .then_some(self.oldest_waiting.unwrap_or(failed))
    }
}

/// A segment of the WAL by its name: 8 digits each of the timeline, of what is above 4 GB, and of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    timeline: u32,
    number: u64,
}

impl Segment {
    fn parse(name: &str, size: u64) -> Option<Self> {
        if name.len() != 24 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) || size == 0 {
            return None;
        }
        let digits = |from: usize| u32::from_str_radix(&name[from..from + 8], 16).ok();
        let of_each = (1 << 32) / size;
        Some(Self { timeline: digits(0)?, number: u64::from(digits(8)?) * of_each + u64::from(digits(16)?) })
    }

    fn name(self, size: u64) -> String {
        let of_each = (1 << 32) / size;
        format!("{:08X}{:08X}{:08X}", self.timeline, self.number / of_each, self.number % of_each)
    }
}

/// The segments that are missing between others of their timeline, from `first` on, which the oldest backup needs; `listed` is the
/// list of the archive. A queue limit of pgBackRest drops segments and tells the server that they were archived.
pub fn gaps(listed: &str, first: &str, size: u64) -> Vec<String> {
    let Some(first) = Segment::parse(first, size) else { return Vec::new() };
    let mut timelines: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for line in listed.lines() {
        let name = line.trim().rsplit('/').next().unwrap_or_default();
        // SEGMENT-CHECKSUM.zst; what is called SEGMENT.partial or SEGMENT.OFFSET.backup is none.
        let segment = name.split_once('-').and_then(|(segment, _)| Segment::parse(segment, size));
        if let Some(segment) = segment.filter(|segment| segment.number >= first.number) {
            timelines.entry(segment.timeline).or_default().insert(segment.number);
        }
    }
    let mut gaps = Vec::new();
    for (timeline, numbers) in timelines {
        for (before, after) in numbers.iter().zip(numbers.iter().skip(1)).filter(|(a, b)| *a + 1 < **b) {
            let name = |number| Segment { timeline, number }.name(size);
            gaps.push(match after - before {
                2 => name(before + 1),
                _ => format!("{} to {}", name(before + 1), name(after - 1)),
            });
        }
    }
    gaps
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn archiving() -> Archiving {
        Archiving {
            mode: "on".into(),
            command: "x".into(),
            library: String::new(),
            timeout: 60,
            level: "replica".into(),
            recovery: false,
            segment_size: 1 << 24,
            written: 0x0900_0100,
            archived: Some("000000010000000000000008".into()),
            archived_at: Some("2026-11-29T16:00:00Z".parse().unwrap()),
            failed: None,
            failed_at: None,
            failures: 0,
            waiting: 0,
            oldest_waiting: None,
        }
    }

    #[test]
    fn what_was_not_archived_yet_is_counted_from_the_end_of_the_last_segment() {
        let mut archiving = archiving();
        assert_eq!(archiving.lag_bytes(), Some(0x100));
        archiving.archived = Some("000000010000000000000004.00000028.backup".into());
        assert_eq!(archiving.lag_bytes(), Some(0x0400_0100));
        archiving.archived = Some("00000002.history".into());
        assert_eq!(archiving.lag_bytes(), None);
    }

    #[test]
    fn a_failure_that_was_overcome_is_none() {
        let now: Timestamp = "2026-11-29T17:00:00Z".parse().unwrap();
        let mut archiving = archiving();
        archiving.failed_at = Some("2026-11-29T15:00:00Z".parse().unwrap());
        assert_eq!(archiving.failing_since(), None);
        archiving.failed_at = Some("2026-11-29T16:59:00Z".parse().unwrap());
        assert_eq!(archiving.failing_since(), None);
        archiving.waiting = 2;
        archiving.oldest_waiting = Some("2026-11-29T16:58:00Z".parse().unwrap());
        assert_eq!((archiving.failing_since(), archiving.lag_seconds(now)), (archiving.oldest_waiting, 120));
    }

    #[test]
    fn gaps_are_those_within_a_timeline_that_a_backup_needs() {
        let sum = "-3bdd78dd5b377c8f66f9fd03a99cb351c51de893.zst";
        let list = |names: &[&str]| {
            let lines = names.iter().map(|name| format!("{}/{name}{sum}\n", &name[..16]));
            lines.collect::<String>()
                + "00000002.history\n0000000100000000/000000010000000000000004.00000028.backup\n"
        };
        let first = "000000010000000000000002";
        let whole = ["000000010000000000000000", "000000010000000000000002", "000000010000000000000003"];
        assert!(gaps(&list(&whole), first, 1 << 24).is_empty());
        let torn = ["000000010000000000000002", "000000010000000000000004", "000000020000000000000007"];
        assert_eq!(gaps(&list(&torn), first, 1 << 24), ["000000010000000000000003"]);
        let far = ["0000000100000000000000FE", "000000010000000100000001"];
        assert_eq!(
            gaps(&list(&far), first, 1 << 24),
            ["0000000100000000000000FF to 000000010000000100000000"]
        );
    }
}
