//! `manifest.json`: what a backup says of itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::companions::Companions;
pub use super::file::File;
use super::name::BackupName;
use super::rows::Contents;
use super::store::Store;
use crate::archive::digest::Hasher;
use crate::archive::{Method, Part};
use crate::config::Compression;
use crate::error::{Error, Kind, Result};
use crate::postgres::{BackupFormat, Closed, Database, Libraries, Properties, ServerFacts};

/// A longer one is none of ours: it has a line for each table.
pub(super) const LONGEST: u64 = 256 << 20;

/// The manifest's name among a backup's files.
pub const FILE: &str = "manifest.json";

/// The form of manifests that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What a backup is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The manifest's own form, see [`FORMAT`].
    pub format: u32,
    /// The backup's name.
    pub name: BackupName,
    /// What wrote it, such as `matrix-postgres 0.1.0`.
    pub writer: String,
    /// When all its files were written and synced; the name is when it was begun.
    pub finished: Timestamp,
    /// The server it was taken from.
    pub server: ServerFacts,
    /// What a server must load at its start in order to take what the databases hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub libraries: Libraries,
    /// What the dumps are.
    pub dump_format: BackupFormat,
    /// How they are packed.
    pub compression: Compression,
    /// How all files are encrypted, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encrypted>,
    /// Roles and tablespaces.
    pub globals: File,
    /// Every database that accepted connections and was not excluded.
    pub databases: Vec<DatabaseDump>,
    /// The databases that are not in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Omitted>,
    /// What the homeserver needs beside its databases.
    #[serde(default, skip_serializing_if = "is_default")]
    pub companions: Companions,
    /// Whether the roles are in it without their passwords, which only superusers see.
    #[serde(default, skip_serializing_if = "is_default")]
    pub without_passwords: bool,
    /// The result of reading it back, once that has been done.
    pub read_back: Option<ReadBack>,
    /// The result of the last trial restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// How the files of a backup are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encrypted {
    /// The program.
    pub method: Method,
    /// To whom.
    pub recipients: Vec<String>,
}

/// The dump of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseDump {
    /// The database as it was.
    #[serde(flatten)]
    pub database: Database,
    /// What belongs to it, and is not in the dump.
    #[serde(default)]
    pub properties: Properties,
    /// The dump.
    #[serde(flatten)]
    pub dump: File,
    /// Where the dump may be entered, if anywhere but at its beginning: each part begins with the rows of some table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// When pg_dump was started. Each database is a consistent snapshot of its own.
    pub started: Timestamp,
    /// How long the dump took.
    pub milliseconds: u64,
    /// Patterns of tables whose rows were left out.
    pub without_rows_of: Vec<String>,
    /// What was counted when it was read back.
    pub contents: Option<Contents>,
    /// Of a dump that another tool wrote; no backup has it.
    #[serde(skip)]
    pub foreign: Option<Foreign>,
}

/// What a dump that another tool wrote needs besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// What is the superuser's once it is loaded is to be that of the database's owner: the dump gave it to nobody.
    pub gives_owner: bool,
}

/// A database that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Omission,
}

/// Why a database was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Omission {
    /// `backup.exclude_databases` named it.
    Excluded,
    /// It accepted no connections.
    NoConnections,
    /// A DROP DATABASE of it was interrupted.
    HalfDropped,
    /// A restore that was cut off had left it unfinished.
    Unfinished,
    /// The role could not read all of it.
    NoPrivilege,
}

impl From<Closed> for Omission {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::NoConnections => Self::NoConnections,
            Closed::HalfDropped => Self::HalfDropped,
            Closed::NoPrivilege => Self::NoPrivilege,
        }
    }
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("excluded by backup.exclude_databases"),
            Self::NoConnections => Closed::NoConnections.fmt(f),
            Self::HalfDropped => Closed::HalfDropped.fmt(f),
            Self::NoPrivilege => Closed::NoPrivilege.fmt(f),
            Self::Unfinished => f.write_str("left unfinished by an interrupted restore"),
        }
    }
}

/// The result of reading a backup back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// When it ended.
    pub at: Timestamp,
    /// What was found to be wrong; nothing if all is well.
    pub damage: Option<String>,
    /// How it was read.
    #[serde(default)]
    pub how: How,
}

/// How a backup was read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// From its files, to the last row.
    #[default]
    Files,
    /// To the last row while it was written and before it was encrypted; the encrypted files by their digests.
    Stream,
    /// From its files, decrypted, to the last row.
    Decrypted,
}

/// The result of restoring a backup into a server made for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub seconds: u64,
    /// The server's version.
    pub server_version: String,
    /// What was found to be wrong; nothing if all is well.
    pub damage: Option<String>,
    /// What a server does not take of it though nothing is damaged: another backup would have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_taken: Option<String>,
}

/// What an older version does not know, and would not mind, is not written where it says nothing.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Manifest {
    /// Every file the manifest speaks of.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let databases = self.databases.iter().map(|dump| &dump.dump);
        std::iter::once(&self.globals).chain(databases).chain(&self.companions.file)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// Rows of all tables, if they have been counted.
    pub fn rows(&self) -> Option<u64> {
        self.databases.iter().map(|dump| Some(dump.contents.as_ref()?.rows())).sum()
    }

    /// What the server has and is missing here, as nobody has asked for it: a few words each. A backup without any is complete.
    pub fn missing(&self) -> Vec<String> {
        let asked_for =
            |omitted: &&Omitted| matches!(omitted.reason, Omission::Excluded | Omission::Unfinished);
        let databases = self.omitted.iter().filter(|omitted| !asked_for(omitted));
        let mut missing: Vec<_> = databases.map(|omitted| format!("database {:?}", omitted.name)).collect();
        missing.extend(self.without_passwords.then(|| "the passwords of the roles".to_owned()));
        missing
    }

    /// Whether it was read back whole and found good, and has not failed a trial restore since.
    pub fn is_verified(&self) -> bool {
        matches!(self.read_back, Some(ReadBack { damage: None, .. })) && self.trial_damage().is_none()
    }

    /// What the last trial restore found to be wrong.
    pub fn trial_damage(&self) -> Option<&str> {
        self.trial.as_ref()?.damage.as_deref()
    }

    /// Parses what [`Manifest::to_text`] wrote.
    ///
    /// # Errors
    /// A sentence on what is wrong: it was edited or damaged, or written by a newer version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut document: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| format!("it cannot be parsed ({error})"))?;
        let format = document.get("format").and_then(serde_json::Value::as_u64);
        if format.is_some_and(|format| format > u64::from(FORMAT)) {
            return Err("it was written by a newer version of matrix-postgres".to_owned());
        }
        let stated = document.shift_remove("sha256");
        if stated != Some(seal(&document)?.into()) {
            return Err("it was changed after it was written (its checksum does not match)".to_owned());
        }
        let mut manifest: Self = serde_json::from_value(document.into())
            .map_err(|error| format!("it cannot be parsed ({error})"))?;
        manifest.make_sentences_plain();
        Ok(manifest)
    }

    /// Whoever may write to the backups may have written it, and root's terminal shows it.
    fn make_sentences_plain(&mut self) {
        let read_back = self.read_back.as_mut().and_then(|read_back| read_back.damage.as_mut());
        let trial = self.trial.iter_mut().flat_map(|trial| [trial.damage.as_mut(), trial.not_taken.as_mut()]);
        for sentence in trial.flatten().chain(read_back) {
            *sentence = sentence.replace(char::is_control, " ");
        }
    }

    /// The manifest as JSON, sealed with a checksum of its own.
    ///
    /// # Errors
    /// None for any manifest that can be built.
    pub fn to_text(&self) -> Result<String, String> {
        let value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        let serde_json::Value::Object(mut document) = value else {
            return Err("a manifest is an object".to_owned());
        };
        document.insert("sha256".into(), seal(&document)?.into());
        serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(|error| error.to_string())
    }

    /// Reads the manifest among a backup's files.
    ///
    /// # Errors
    /// [`Kind::Damaged`], also where there is none, or [`Kind::File`], naming the file.
    pub fn load(files: &dyn Store) -> Result<Self> {
        let damaged = |reason: String| {
            let file = files.path_of(FILE);
            Error::new(Kind::Damaged, format!("{} is not valid: {reason}", file.display()))
                .hint("make a new one: systemctl start matrix-postgres-backup.service")
        };
        let bytes = files.read(FILE, LONGEST)?.ok_or_else(|| damaged("it is missing".to_owned()))?;
        let text =
            String::from_utf8(bytes).map_err(|error| damaged(format!("it is not valid UTF-8 ({error})")))?;
        Self::parse(&text).map_err(damaged)
    }

    /// Puts it among a backup's files, in the place of the one there.
    ///
    /// # Errors
    /// [`Kind::File`] or [`Kind::NoSpace`].
    pub fn save(&self, files: &dyn Store) -> Result<()> {
        let text = self.to_text().map_err(|reason| Error::new(Kind::Bug, reason))?;
        files.replace(FILE, &text)
    }
}

/// The checksum of everything else in the manifest, whatever its white space.
fn seal(document: &serde_json::Map<String, serde_json::Value>) -> Result<String, String> {
    let text = serde_json::to_string(document).map_err(|error| error.to_string())?;
    let mut hasher = Hasher::default();
    hasher.update(text.as_bytes());
    Ok(hasher.finish().sha256)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backup::directory::Directory;

    /// A manifest of one database for other modules' tests.
    pub(crate) fn example(name: &str) -> Manifest {
        let name: BackupName = name.parse().unwrap();
        let file = |file: &str, bytes| File {
            file: file.into(),
            bytes,
            sha256: "00".repeat(32),
            content_bytes: 3 * bytes,
            content_sha256: "11".repeat(32),
        };
        Manifest {
            format: FORMAT,
            name,
            writer: "test".into(),
            finished: name.time(),
            server: ServerFacts {
                version: "17.6".into(),
                version_num: 170_006,
                system_identifier: "7381".into(),
                data_checksums: true,
            },
            libraries: Libraries::default(),
            dump_format: BackupFormat::Custom,
            compression: Compression::Zstd,
            encryption: None,
            globals: file("globals.sql.zst", 100),
            databases: vec![DatabaseDump {
                database: Database {
                    name: "home\"server".into(),
                    owner: "synapse".into(),
                    encoding: "UTF8".into(),
                    collate: "C".into(),
                    ctype: "C".into(),
                    size: 3_000_000,
                },
                properties: Properties::default(),
                dump: file("home%22server.dump.zst", 1_000_000),
                parts: vec![Part { bytes: 1, content_bytes: 2 }],
                started: name.time(),
                milliseconds: 1500,
                without_rows_of: vec![],
                foreign: None,
                contents: Some(Contents {
                    tables: [("public.events".to_owned(), 12)].into(),
                    ..Contents::default()
                }),
            }],
            companions: Companions::default(),
            omitted: vec![],
            without_passwords: false,
            read_back: Some(ReadBack { at: name.time(), damage: None, how: How::Files }),
            trial: None,
        }
    }

    #[test]
    fn what_somebody_wrote_about_damage_is_one_plain_line() {
        let mut manifest = example("20261124T030000Z");
        let damage = Some("bad\u{1b}[31m\nHINT: do it".to_owned());
        manifest.read_back = Some(ReadBack { at: Timestamp::now(), damage, how: How::default() });
        let read = Manifest::parse(&manifest.to_text().unwrap()).unwrap();
        assert_eq!(read.read_back.unwrap().damage.unwrap(), "bad [31m HINT: do it");
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let manifest = example("20261124T030000Z");
        let directory = tempfile::tempdir().unwrap();
        let files = Directory::new(directory.path());
        manifest.save(&files).unwrap();
        assert_eq!(Manifest::load(&files).unwrap(), manifest);
        assert_eq!(manifest.bytes(), 1_000_100);
        assert_eq!(manifest.rows(), Some(12));
    }

    #[test]
    fn what_was_left_out_is_written_down_and_older_manifests_say_nothing() {
        let mut manifest = example("20261124T030000Z");
        assert!(!manifest.to_text().unwrap().contains("omitted"));
        manifest.omitted = vec![Omitted { name: "x".into(), reason: Omission::NoConnections }];
        let text = manifest.to_text().unwrap();
        assert!(text.contains("\"reason\": \"no-connections\""), "{text}");
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
    }

    #[test]
    fn an_edited_manifest_is_not_trusted_but_a_reformatted_one_is() {
        let text = example("20261124T030000Z").to_text().unwrap();
        let edited = text.replace("\"public.events\": 12", "\"public.events\": 13");
        assert_ne!(edited, text);
        assert!(Manifest::parse(&edited).unwrap_err().contains("changed after it was written"));
        let compact: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(Manifest::parse(&compact.to_string()).is_ok());
    }

    #[test]
    fn a_manifest_that_is_missing_or_no_text_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        for damage in [None, Some(b"{\"format\": \xff}")] {
            if let Some(bytes) = damage {
                std::fs::write(directory.path().join(FILE), bytes).unwrap();
            }
            let error = Manifest::load(&Directory::new(directory.path())).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{}", error.report());
            assert!(error.to_string().contains(FILE) && error.hint_text().is_some());
        }
    }

    #[test]
    fn a_newer_form_is_told_from_a_damaged_one() {
        assert!(Manifest::parse("{\"format\": 2}").unwrap_err().contains("newer version"));
        assert!(Manifest::parse("{\"format\": 1").unwrap_err().contains("cannot be parsed"));
        assert!(Manifest::parse("{\"format\": 1}").unwrap_err().contains("checksum"));
    }
}
