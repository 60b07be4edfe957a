//! What `pgbackrest info --output=json` says of a stanza.

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::postgres::ServerFacts;

/// A stanza. One that pgBackRest does not know has nothing in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Stanza {
    /// Its name.
    pub name: String,
    /// What was archived, of each cluster.
    #[serde(default)]
    pub archive: Vec<Archive>,
    /// The backups, oldest first.
    #[serde(default)]
    pub backup: Vec<Backup>,
    /// The clusters that it is or was of, the present one last.
    #[serde(default)]
    pub db: Vec<Database>,
    /// Whether it can be read.
    pub status: Status,
}

/// Whether a stanza can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// See [`Stanza::is_missing`] and [`Stanza::unreadable`].
    pub code: u32,
    /// In its words.
    pub message: String,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Database {
    /// The number by which the stanza knows it.
    pub id: u32,
    /// The repository that says so.
    #[serde(rename = "repo-key", default)]
    pub repository: u32,
    /// The identity that initdb gave it.
    #[serde(rename = "system-id")]
    pub system_identifier: u64,
    /// Its version, such as `17` or `9.6`.
    pub version: String,
}

/// Which cluster something is of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Of {
    /// Its number.
    pub id: u32,
}

/// What was archived of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Archive {
    /// Of which.
    pub database: Of,
    /// The name of its directory, such as `17-1`.
    pub id: String,
    /// The first segment.
    pub min: Option<String>,
    /// The last one.
    pub max: Option<String>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Backup {
    /// Its name, such as `20261129-154529F_20261129-154530I`.
    pub label: String,
    /// `full`, `diff` or `incr`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of which cluster.
    pub database: Of,
    /// Whether pages were found whose checksums are wrong.
    pub error: Option<bool>,
    /// The WAL that it needs.
    pub archive: Segments,
    /// The positions of its WAL.
    #[serde(default)]
    pub lsn: Positions,
    /// Sizes.
    pub info: Sizes,
    /// When.
    pub timestamp: Times,
}

/// The first and the last segment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Segments {
    /// The first one.
    pub start: Option<String>,
    /// The last one.
    pub stop: Option<String>,
}

/// The first and the last position, such as `0/4000028`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Positions {
    /// The first one.
    pub start: Option<String>,
    /// The last one.
    pub stop: Option<String>,
}

/// Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sizes {
    /// Of the cluster.
    pub size: u64,
    /// Of what was read for this backup.
    pub delta: u64,
    /// In the repository.
    pub repository: Stored,
}

/// Bytes in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stored {
    /// What this backup has added.
    pub delta: u64,
}

/// Seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Times {
    /// When it began.
    pub start: i64,
    /// When it was consistent: to no earlier time can the cluster be brought from it.
    pub stop: i64,
}

impl Backup {
    /// When it began.
    pub fn begun(&self) -> Timestamp {
        Timestamp::from_second(self.timestamp.start).unwrap_or_default()
    }

    /// When it was consistent for sure: the second that is known has ended then.
    pub fn ended(&self) -> Timestamp {
        Timestamp::from_second(self.timestamp.stop.saturating_add(1)).unwrap_or_default()
    }

    /// Whether it depends on no other.
    pub fn is_full(&self) -> bool {
        self.kind == "full"
    }
}

impl Stanza {
    /// Whether there is none: no directory, or nothing in it.
    fn is_missing(&self) -> bool {
        matches!(self.status.code, 1 | 3)
    }

    /// Whether there is one, which is of a cluster.
    pub fn exists(&self) -> bool {
        !self.is_missing() && self.present().is_some()
    }

    /// Why the repository cannot be read, if it cannot. That there is no backup yet is another matter.
    pub fn unreadable(&self) -> Option<&str> {
        (!matches!(self.status.code, 0..=3)).then_some(self.status.message.as_str())
    }

    /// The cluster that it is of now.
    pub fn present(&self) -> Option<&Database> {
        self.db.iter().max_by_key(|database| database.id)
    }

    /// Whether that is the cluster of this server.
    pub fn is_of(&self, server: &ServerFacts) -> bool {
        let major = server.major().map(|major| major.to_string()).unwrap_or_default();
        self.present().is_some_and(|database| {
            database.system_identifier.to_string() == server.system_identifier && database.version == major
        })
    }

    /// The backups of the cluster with this identity, oldest first. Others may be there, of before an upgrade.
    pub fn backups_of<'a>(
        &'a self,
        system_identifier: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a Backup> {
        self.backup.iter().filter(move |backup| {
            let database = self.db.iter().find(|database| database.id == backup.database.id);
            database.is_some_and(|database| database.system_identifier.to_string() == system_identifier)
        })
    }

    /// The backups of the cluster that it is of, as long as it has been, oldest first. A cluster that was upgraded and is back is
    /// another one to pgBackRest: no incremental backup depends on those that were made before.
    pub fn backups_of_present(&self) -> impl DoubleEndedIterator<Item = &Backup> {
        let present = self.present().map(|database| database.id);
        self.backup.iter().filter(move |backup| Some(backup.database.id) == present)
    }

    /// What was archived of the cluster that it is of, as long as it has been.
    pub fn archive_of_present(&self) -> Option<&Archive> {
        let present = self.present()?.id;
        self.archive.iter().find(|archive| archive.database.id == present)
    }

    /// What was archived of a cluster: more than one of them, if it was upgraded and is back.
    pub fn archives_of<'a>(&'a self, system_identifier: &'a str) -> impl Iterator<Item = &'a Archive> {
        self.archive.iter().filter(move |archive| {
            let database = self.db.iter().find(|database| database.id == archive.database.id);
            database.is_some_and(|database| database.system_identifier.to_string() == system_identifier)
        })
    }
}

/// Bytes of WAL until a position, such as `0/4000028`.
pub fn position(text: &str) -> Option<u64> {
    let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
    text.split_once('/').and_then(|(high, low)| Some(half(high)? << 32 | half(low)?))
}

/// Takes apart what is printed of the stanza of this name.
///
/// # Errors
/// [`Kind::Program`].
pub fn parse(text: &str, name: &str) -> Result<Stanza> {
    let stanzas: Vec<Stanza> = serde_json::from_str(text).map_err(|error| {
        Error::new(Kind::Program, "the output of pgbackrest info could not be parsed").because(error)
    })?;
    let missing = Stanza {
        name: name.to_owned(),
        status: Status { code: 1, message: "missing stanza path".to_owned() },
        ..Stanza::default()
    };
    Ok(stanzas.into_iter().find(|stanza| stanza.name == name).unwrap_or(missing))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As 2.55 prints it, after an upgrade that no backup has followed.
    pub(crate) const UPGRADED: &str = r#"[{"archive":[{"database":{"id":1,"repo-key":1},"id":"17-1","max":"000000010000000000000008","min":"000000010000000000000001"},{"database":{"id":2,"repo-key":1},"id":"17-2","max":null,"min":null}],"backup":[{"archive":{"start":"000000010000000000000004","stop":"000000010000000000000005"},"backrest":{"format":5,"version":"2.55.1"},"database":{"id":1,"repo-key":1},"error":false,"info":{"delta":23503951,"repository":{"delta":2809751,"delta-map":18551,"size-map":18551},"size":23503951},"label":"20261129-154529F","lsn":{"start":"0/4000028","stop":"0/5000050"},"prior":null,"reference":null,"timestamp":{"start":1795967129,"stop":1795967130},"type":"full"},{"archive":{"start":"000000010000000000000006","stop":"000000010000000000000007"},"backrest":{"format":5,"version":"2.55.1"},"database":{"id":1,"repo-key":1},"error":false,"info":{"delta":8449,"repository":{"delta":367,"delta-map":0,"size-map":18551},"size":23503950},"label":"20261129-154529F_20261129-154530I","lsn":{"start":"0/6000028","stop":"0/7000050"},"prior":"20261129-154529F","reference":["20261129-154529F"],"timestamp":{"start":1795967130,"stop":1795967132},"type":"incr"}],"cipher":"none","db":[{"id":1,"repo-key":1,"system-id":7713619712426489218,"version":"17"},{"id":2,"repo-key":1,"system-id":7713620247089470650,"version":"17"}],"name":"matrix-postgres","repo":[{"cipher":"none","key":1,"status":{"code":0,"message":"ok"}}],"status":{"code":0,"lock":{"backup":{"held":false}},"message":"ok"}}]"#;

    pub(crate) const OLD: &str = "7713619712426489218";
    pub(crate) const NEW: &str = "7713620247089470650";

    /// What it was of the cluster that has this identity.
    pub(crate) fn stanza_of(identifier: &str) -> Stanza {
        let mut stanza = parse(UPGRADED, "matrix-postgres").unwrap();
        if identifier == OLD {
            stanza.db.truncate(1);
        }
        stanza
    }

    pub(crate) fn server(identifier: &str) -> ServerFacts {
        ServerFacts {
            version: "17.6".into(),
            version_num: 170_006,
            system_identifier: identifier.into(),
            data_checksums: true,
        }
    }

    #[test]
    fn a_backup_of_before_an_upgrade_is_none_of_the_present_cluster() {
        let stanza = parse(UPGRADED, "matrix-postgres").unwrap();
        assert_eq!(stanza.status.message, "ok");
        assert_eq!((stanza.backups_of(OLD).count(), stanza.backups_of(NEW).count()), (2, 0));
        assert!(stanza.is_of(&server(NEW)) && !stanza.is_of(&server(OLD)));
        let archives = |of| stanza.archives_of(of).map(|archive| archive.max.as_deref()).collect::<Vec<_>>();
        assert_eq!(archives(OLD), [Some("000000010000000000000008")]);
        assert_eq!(archives(NEW), [None]);
        let newest = stanza.backups_of(OLD).next_back().unwrap();
        assert_eq!((newest.is_full(), newest.info.repository.delta), (false, 367));
    }

    #[test]
    fn a_cluster_that_is_back_after_an_upgrade_is_backed_up_anew() {
        let mut stanza = parse(UPGRADED, "matrix-postgres").unwrap();
        stanza.db.push(Database { id: 3, ..stanza.db[0].clone() });
        stanza.archive.push(Archive { database: Of { id: 3 }, id: "17-3".into(), min: None, max: None });
        assert!(stanza.is_of(&server(OLD)) && !stanza.is_of(&server(NEW)));
        assert_eq!((stanza.backups_of(OLD).count(), stanza.backups_of_present().count()), (2, 0));
        let archives: Vec<_> = stanza.archives_of(OLD).map(|archive| archive.id.as_str()).collect();
        assert_eq!(archives, ["17-1", "17-3"]);
        assert_eq!(stanza.archive_of_present().unwrap().id, "17-3");
    }

    #[test]
    fn what_cannot_be_read_is_not_missing() {
        let text =
            r#"[{"archive":[],"backup":[],"db":[],"name":"x","status":{"code":99,"message":"denied"}}]"#;
        let stanza = parse(text, "x").unwrap();
        assert_eq!((stanza.is_missing(), stanza.unreadable()), (false, Some("denied")));
        let missing = parse("[]", "x").unwrap();
        assert_eq!((missing.is_missing(), missing.unreadable()), (true, None));
        assert_eq!(parse("{", "x").unwrap_err().kind(), Kind::Program);
    }
}
