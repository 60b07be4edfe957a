//! `[backup]`: where backups go and what they are made of.

use std::path::PathBuf;
use std::time::Duration;

use glob::Pattern;
use serde::Deserialize;

use super::encryption::{EncryptTo, encrypt_to};
use super::keep::{Keep, KeepFragment};
use super::value::{absolute, contradiction, duration, optional_path, patterns, refused, share};
use crate::error::Result;
use crate::postgres::BackupFormat;

/// The `[backup]` table.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct BackupFragment {
    pub directory: Option<PathBuf>,
    pub engine: Option<String>,
    pub stanza: Option<String>,
    pub repository: Option<PathBuf>,
    pub format: Option<String>,
    pub compression: Option<String>,
    pub level: Option<i32>,
    pub threads: Option<usize>,
    pub rsyncable: Option<bool>,
    pub encrypt_to: Option<Vec<String>>,
    pub recipients_file: Option<String>,
    pub gnupg_home: Option<PathBuf>,
    pub exclude_table_data: Option<Vec<String>>,
    pub exclude_databases: Option<Vec<String>>,
    pub lock_timeout: Option<String>,
    pub max_age: Option<String>,
    pub timer: Option<String>,
    pub shrink_alarm: Option<f64>,
    pub metrics_file: Option<String>,
    pub start_server: Option<StartFragment>,
    pub companions: Option<bool>,
    pub keep: KeepFragment,
    pub scratch_directory: Option<PathBuf>,
}

impl BackupFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(
            self, other;
            directory, engine, stanza, repository, format, compression, level, threads, rsyncable, encrypt_to, recipients_file, gnupg_home,
            exclude_table_data, exclude_databases, lock_timeout, max_age, timer, shrink_alarm, metrics_file,
            start_server, companions,
            scratch_directory;
            keep
        )
    }
}

/// `[backup]`: where backups go and what they are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// `directory`: default `/var/backups/matrix-postgres`.
    pub directory: PathBuf,
    /// `engine`: what makes backups. Default `dump`.
    pub engine: Engine,
    /// `stanza`: what pgBackRest calls the cluster. Default `matrix-postgres`.
    pub stanza: String,
    /// `repository`: where pgBackRest keeps backups and the archived WAL. Default `pgbackrest` in `directory`.
    pub repository: PathBuf,
    /// `format`: `custom` (default) or `plain`.
    pub format: BackupFormat,
    /// `compression`: `zstd` (default), `gzip` or `none`.
    pub compression: Compression,
    /// `level`: the codec's own scale, 1 to 19 or 1 to 9. Default 3 for zstd and 5 for gzip.
    pub level: i32,
    /// `threads`: of compression. Default 0: one for each processor, 8 at most.
    pub threads: usize,
    /// `rsyncable`: whether what is the same in two dumps is the same in their files, for tools that store
    /// each block once. Default: no.
    pub rsyncable: bool,
    /// `encrypt_to`, `recipients_file` and `gnupg_home`: whom the backups are encrypted to. Default: nobody.
    pub encryption: Option<EncryptTo>,
    /// `exclude_table_data`: patterns (pg_dump(1), `--exclude-table-data`) of tables whose rows are left
    /// out. Default: Synapse's one-time keys, which must not be restored, for a key used twice breaks
    /// encrypted conversations (Synapse's documentation, "Backups").
    pub exclude_table_data: Vec<String>,
    /// `exclude_databases`: names, or patterns with `*`, `?` and `[...]`, of databases that need no backup. Default: none.
    pub exclude_databases: Vec<Pattern>,
    /// `lock_timeout`: how long pg_dump waits for a locked table. Default 10 minutes.
    pub lock_timeout: Duration,
    /// `max_age`: `status` complains when the newest verified backup is older. Default 30 hours.
    pub max_age: Duration,
    /// `timer`: the unit that starts the backup, for `status`; empty when it is run by other means.
    pub timer: String,
    /// `shrink_alarm`: `status` complains when the dump of a database is smaller than that of the backup
    /// before by more than this share. Default 0.3; 1 for never.
    pub shrink_alarm: f64,
    /// `metrics_file`: for the textfile collector of Prometheus' node_exporter. Default: none.
    pub metrics_file: Option<PathBuf>,
    /// `start_server`: whether a server that does not run is started for a backup, and stopped again. Default `auto`.
    pub start_server: StartServer,
    /// `companions`: whether homeserver.yaml and the files that it names are looked for: they are in a backup that is encrypted, and
    /// `status` says which ones are in none. Default: yes.
    pub companions: bool,
    /// `[backup.keep]`
    pub keep: Keep,
    /// `scratch_directory`: where dumps are unpacked and trial servers are made. Default
    /// `/var/tmp/matrix-postgres`; not /tmp, which is memory on many systems.
    pub scratch_directory: PathBuf,
}

/// What makes backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// pg_dump.
    Dump,
    /// pgBackRest.
    Pgbackrest,
    /// Each of them.
    Both,
}

impl Engine {
    /// Whether databases are dumped.
    pub fn dumps(self) -> bool {
        self != Self::Pgbackrest
    }

    /// Whether pgBackRest backs up the cluster.
    pub fn is_pgbackrest(self) -> bool {
        self != Self::Dump
    }
}

/// `start_server`, as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum StartFragment {
    Always(bool),
    Text(String),
}

/// Whether a server that does not run is started for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartServer {
    /// If it is our own unit, and starts at boot: who has stopped one for good has disabled it.
    Auto,
    /// Whenever it does not run.
    Always,
    /// Never.
    Never,
}

/// How the bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Zstandard, RFC 8878.
    Zstd,
    /// gzip, RFC 1952.
    Gzip,
    /// As it is.
    None,
}

impl Backup {
    pub(super) fn from_fragment(input: BackupFragment) -> Result<Self> {
        let compression = compression(input.compression.as_deref())?;
        let encryption = encrypt_to(
            input.encrypt_to.unwrap_or_default(),
            optional_path("backup.recipients_file", input.recipients_file)?,
            absolute("backup.gnupg_home", input.gnupg_home, "/etc/matrix-postgres/gnupg")?,
        )?;
        let directory = absolute("backup.directory", input.directory, "/var/backups/matrix-postgres")?;
        let beside = directory.join("pgbackrest");
        Ok(Self {
            engine: engine(input.engine.as_deref())?,
            stanza: stanza(input.stanza)?,
            repository: absolute("backup.repository", input.repository, &beside.to_string_lossy())?,
            directory,
            format: format(input.format.as_deref())?,
            compression,
            level: level(compression, input.level)?,
            threads: input.threads.unwrap_or(0),
            rsyncable: rsyncable(input.rsyncable, encryption.as_ref())?,
            encryption,
            exclude_table_data: input.exclude_table_data.unwrap_or_else(|| vec![ONE_TIME_KEYS.to_owned()]),
            exclude_databases: patterns(
                "backup.exclude_databases",
                input.exclude_databases.unwrap_or_default(),
            )?,
            lock_timeout: duration("backup.lock_timeout", input.lock_timeout.as_deref(), "10m")?,
            max_age: duration("backup.max_age", input.max_age.as_deref(), "30h")?,
            timer: input.timer.unwrap_or_else(|| "matrix-postgres-backup.timer".into()),
            shrink_alarm: share("backup.shrink_alarm", input.shrink_alarm.unwrap_or(0.3))?,
            metrics_file: optional_path("backup.metrics_file", input.metrics_file)?,
            start_server: start_server(input.start_server)?,
            companions: input.companions.unwrap_or(true),
            keep: Keep::from_fragment("backup.keep", &input.keep)?,
            scratch_directory: absolute(
                "backup.scratch_directory",
                input.scratch_directory,
                "/var/tmp/matrix-postgres",
            )?,
        })
    }

    /// Whether `exclude_databases` names this database.
    pub fn excludes(&self, database: &str) -> bool {
        self.exclude_databases.iter().any(|pattern| pattern.matches(database))
    }
}

fn level(compression: Compression, level: Option<i32>) -> Result<i32> {
    let (default, range) = match compression {
        Compression::Zstd => (3, 1..=19),
        Compression::Gzip => (5, 1..=9),
        Compression::None => (0, 0..=0),
    };
    let level = level.unwrap_or(default);
    match range.contains(&level) {
        true => Ok(level),
        false => {
            Err(refused("backup.level", &level.to_string(), &format!("{} to {}", range.start(), range.end())))
        }
    }
}

/// Synapse's one-time keys.
const ONE_TIME_KEYS: &str = "*.e2e_one_time_keys_json";

fn compression(text: Option<&str>) -> Result<Compression> {
    match text {
        None | Some("zstd") => Ok(Compression::Zstd),
        Some("gzip") => Ok(Compression::Gzip),
        Some("none") => Ok(Compression::None),
        Some(other) => Err(refused("backup.compression", other, "zstd, gzip or none")),
    }
}

fn engine(text: Option<&str>) -> Result<Engine> {
    match text {
        None | Some("dump") => Ok(Engine::Dump),
        Some("pgbackrest") => Ok(Engine::Pgbackrest),
        Some("both") => Ok(Engine::Both),
        Some(other) => Err(refused("backup.engine", other, "dump, pgbackrest or both")),
    }
}

/// It is a name of directories, and stands in commands of a shell.
fn stanza(name: Option<String>) -> Result<String> {
    let name = name.unwrap_or_else(|| "matrix-postgres".to_owned());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match name.bytes().all(is_plain) && name.bytes().next().is_some_and(|first| first != b'-') {
        true => Ok(name),
        false => Err(refused("backup.stanza", &name, "letters, digits, - and _")),
    }
}

fn format(text: Option<&str>) -> Result<BackupFormat> {
    match text {
        None | Some("custom") => Ok(BackupFormat::Custom),
        Some("plain") => Ok(BackupFormat::Plain),
        Some(other) => Err(refused("backup.format", other, "custom or plain")),
    }
}

fn start_server(asked: Option<StartFragment>) -> Result<StartServer> {
    match asked {
        None => Ok(StartServer::Auto),
        Some(StartFragment::Always(true)) => Ok(StartServer::Always),
        Some(StartFragment::Always(false)) => Ok(StartServer::Never),
        Some(StartFragment::Text(text)) if text == "auto" => Ok(StartServer::Auto),
        Some(StartFragment::Text(other)) => {
            Err(refused("backup.start_server", &other, "\"auto\", true or false"))
        }
    }
}

fn rsyncable(asked: Option<bool>, encryption: Option<&EncryptTo>) -> Result<bool> {
    match (asked.unwrap_or(false), encryption) {
        (true, Some(_)) => Err(contradiction(
            "backup.rsyncable has no effect on encrypted files",
            "set backup.rsyncable = false, or leave the encryption to the tool that stores the backups",
        )),
        (asked, _) => Ok(asked),
    }
}
