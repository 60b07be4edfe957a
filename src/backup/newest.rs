//! The newest backup, as `status` shows it.

use jiff::Timestamp;
use serde::Serialize;

use super::catalogue::Entry;
use super::manifest::Manifest;
use super::name::BackupName;

/// The newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Newest {
    /// Its name.
    pub name: BackupName,
    /// When it was begun.
    pub time: Timestamp,
    /// Seconds since then.
    pub age_seconds: i64,
    /// Bytes of all its files.
    pub bytes: Option<u64>,
    /// Rows of all its tables.
    pub rows: Option<u64>,
    /// How long the dump took.
    pub milliseconds: Option<u64>,
    /// Whether it was read back whole and found good.
    pub verified: bool,
}

impl Newest {
    /// Of this entry, at this time.
    pub(super) fn of(entry: &Entry, now: Timestamp) -> Self {
        let manifest = entry.manifest.as_ref().ok();
        Self {
            name: entry.name,
            time: entry.name.time(),
            age_seconds: now.duration_since(entry.name.time()).as_secs(),
            bytes: manifest.map(Manifest::bytes),
            rows: manifest.and_then(Manifest::rows),
            milliseconds: manifest
                .map(|manifest| manifest.databases.iter().map(|dump| dump.milliseconds).sum()),
            verified: entry.is_verified(),
        }
    }
}
