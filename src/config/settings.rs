//! Settings: validated, complete, nothing left to guess at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;

use super::{Fragment, Keep, Notify, Upgrade};
use crate::error::{Error, Kind, Result};
use crate::postgres::Major;

/// Everything that can be configured, with the defaults of the contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `data_directory`: the cluster. Default `/matrix/postgres/data`.
    pub data_directory: PathBuf,
    /// `state_directory`: locks and journals, in a directory that only root may write to. Default
    /// `/var/lib/matrix-postgres-upgrade`.
    pub state_directory: PathBuf,
    /// `socket_directory`: where the server's Unix socket is. Default `/run/matrix-postgres`.
    pub socket_directory: PathBuf,
    /// `wait`: how long a backup, a restore or an upgrade waits for another one that is under way. Default 6 hours.
    pub wait: Duration,
    /// `[server]`
    pub server: Server,
    /// `[backup]`
    pub backup: Backup,
    /// `[clients]`
    pub clients: Clients,
    /// `[upgrade]`
    pub upgrade: Upgrade,
    /// `[notify]`
    pub notify: Notify,
}

/// `[server]`: the server that `matrix-postgres.service` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `version`: major version of a cluster that is yet to be initialised. Default: the newest installed.
    /// An existing cluster always keeps its own.
    pub version: Option<Major>,
    /// `listen`: addresses for TCP, as in PostgreSQL's `listen_addresses`. Default: none, the socket only.
    pub listen: Vec<String>,
    /// `port`: of the socket's name and of TCP. Default 5432.
    pub port: u16,
    /// `user`: the system user that owns a new data directory. Default `matrix-postgres`.
    pub user: String,
    /// `superuser`: the role we log in as. Default `postgres`.
    pub superuser: String,
    /// `database`: created at the first start, and what `matrix-postgres-cli` opens. Default `homeserver`.
    pub database: String,
    /// `role`: owner of that database, for Synapse. Default `synapse`.
    pub role: String,
    /// `unit`: the server's unit. Default `matrix-postgres.service`.
    pub unit: String,
    /// `start_timeout`: how long the unit may take to start or stop. Default 10 minutes.
    pub start_timeout: Duration,
}

/// `[backup]`: where backups go and what they are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// `directory`: default `/var/backups/matrix-postgres`.
    pub directory: PathBuf,
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
    /// `[backup.keep]`
    pub keep: Keep,
    /// `scratch_directory`: where dumps are unpacked and trial servers are made. Default
    /// `/var/tmp/matrix-postgres`; not /tmp, which is memory on many systems.
    pub scratch_directory: PathBuf,
}

/// `[clients]`: who uses the databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// `units`: names and patterns of the units that are stopped while their data moves, if they run, and are
    /// started again. Units of ours are never among them. Default: the homeserver and what is named like its
    /// workers, bridges and authentication service.
    pub units: Vec<String>,
    /// `timeout`: how long they may take to stop, and again to start. Default 10 minutes.
    pub timeout: Duration,
}

/// What kind of file pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupFormat {
    /// pg_dump's custom format, for pg_restore.
    Custom,
    /// SQL, for psql.
    Plain,
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

/// Whom backups are encrypted to, as it was written: nothing has been looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncryptTo {
    /// By age(1).
    Age {
        /// Recipients: `age1…`, or SSH's public keys.
        recipients: Vec<String>,
        /// A file of further ones.
        file: Option<PathBuf>,
    },
    /// By gpg(1).
    OpenPgp {
        /// Fingerprints, or addresses.
        keys: Vec<String>,
        /// `gnupg_home`: where their public keys are. Default `/etc/matrix-postgres/gnupg`.
        home: PathBuf,
    },
}

impl Backup {
    /// Whether `exclude_databases` names this database.
    pub fn excludes(&self, database: &str) -> bool {
        self.exclude_databases.iter().any(|pattern| pattern.matches(database))
    }
}

impl Settings {
    /// Validates what was written and fills in the rest.
    ///
    /// # Errors
    /// [`Kind::Config`] naming key, value and what is allowed.
    pub fn from_fragment(input: Fragment) -> Result<Self> {
        let compression = match input.backup.compression.as_deref() {
            None | Some("zstd") => Compression::Zstd,
            Some("gzip") => Compression::Gzip,
            Some("none") => Compression::None,
            Some(other) => return Err(refused("backup.compression", other, "zstd, gzip or none")),
        };
        let gnupg_home =
            absolute("backup.gnupg_home", input.backup.gnupg_home, "/etc/matrix-postgres/gnupg")?;
        let recipients_file = match input.backup.recipients_file {
            Some(file) if !file.is_empty() => {
                Some(absolute("backup.recipients_file", Some(file.into()), "")?)
            }
            _ => None,
        };
        let encryption =
            encrypt_to(input.backup.encrypt_to.unwrap_or_default(), recipients_file, gnupg_home)?;
        let rsyncable = input.backup.rsyncable.unwrap_or(false);
        if rsyncable && encryption.is_some() {
            return Err(contradiction(
                "backup.rsyncable is true, and encrypted files have nothing in common from one day to the next",
                "leave the encryption to the tool that stores them, or set backup.rsyncable = false",
            ));
        }
        Ok(Self {
            data_directory: absolute("data_directory", input.data_directory, "/matrix/postgres/data")?,
            state_directory: absolute(
                "state_directory",
                input.state_directory,
                "/var/lib/matrix-postgres-upgrade",
            )?,
            socket_directory: absolute("socket_directory", input.socket_directory, "/run/matrix-postgres")?,
            wait: match input.wait.as_deref() {
                Some("0" | "0s") => Duration::ZERO,
                wait => duration("wait", wait, "6h")?,
            },
            server: Server {
                version: input.server.version.map(Major),
                listen: input.server.listen.unwrap_or_default(),
                port: input.server.port.unwrap_or(5432),
                user: name("server.user", input.server.user, "matrix-postgres")?,
                superuser: name("server.superuser", input.server.superuser, "postgres")?,
                database: name("server.database", input.server.database, "homeserver")?,
                role: name("server.role", input.server.role, "synapse")?,
                unit: name("server.unit", input.server.unit, "matrix-postgres.service")?,
                start_timeout: duration(
                    "server.start_timeout",
                    input.server.start_timeout.as_deref(),
                    "10m",
                )?,
            },
            backup: Backup {
                directory: absolute(
                    "backup.directory",
                    input.backup.directory,
                    "/var/backups/matrix-postgres",
                )?,
                format: match input.backup.format.as_deref() {
                    None | Some("custom") => BackupFormat::Custom,
                    Some("plain") => BackupFormat::Plain,
                    Some(other) => return Err(refused("backup.format", other, "custom or plain")),
                },
                compression,
                level: level(compression, input.backup.level)?,
                threads: input.backup.threads.unwrap_or(0),
                rsyncable,
                encryption,
                exclude_table_data: input
                    .backup
                    .exclude_table_data
                    .unwrap_or_else(|| vec!["*.e2e_one_time_keys_json".into()]),
                exclude_databases: patterns(
                    "backup.exclude_databases",
                    input.backup.exclude_databases.unwrap_or_default(),
                )?,
                lock_timeout: duration("backup.lock_timeout", input.backup.lock_timeout.as_deref(), "10m")?,
                max_age: duration("backup.max_age", input.backup.max_age.as_deref(), "30h")?,
                timer: input.backup.timer.unwrap_or_else(|| "matrix-postgres-backup.timer".into()),
                shrink_alarm: share("backup.shrink_alarm", input.backup.shrink_alarm.unwrap_or(0.3))?,
                metrics_file: match input.backup.metrics_file.filter(|file| !file.is_empty()) {
                    None => None,
                    Some(file) => Some(absolute("backup.metrics_file", Some(file.into()), "")?),
                },
                keep: Keep::from_fragment(&input.backup.keep)?,
                scratch_directory: absolute(
                    "backup.scratch_directory",
                    input.backup.scratch_directory,
                    "/var/tmp/matrix-postgres",
                )?,
            },
            clients: Clients {
                units: input.clients.units.unwrap_or_else(|| CLIENTS.map(str::to_owned).to_vec()),
                timeout: duration("clients.timeout", input.clients.timeout.as_deref(), "10m")?,
            },
            upgrade: Upgrade::from_fragment(input.upgrade)?,
            notify: Notify::from_fragment(input.notify)?,
        })
    }
}

pub(super) fn absolute(key: &str, path: Option<PathBuf>, default: &str) -> Result<PathBuf> {
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    match path.is_absolute() && path != Path::new("/") {
        true => Ok(path),
        false => Err(refused(key, &path.display().to_string(), "an absolute path")),
    }
}

/// Debian's package, Synapse's own workers, and the playbook call their units so.
const CLIENTS: [&str; 4] = ["matrix-*.service", "matrix-*.target", "mautrix-*.service", "synapse.service"];

fn name(key: &str, value: Option<String>, default: &str) -> Result<String> {
    match value {
        None => Ok(default.to_owned()),
        Some(value) if value.is_empty() || value.contains(['\0', '\n']) => {
            Err(refused(key, &value, "a name of one line"))
        }
        Some(value) => Ok(value),
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

fn patterns(key: &str, texts: Vec<String>) -> Result<Vec<Pattern>> {
    let pattern = |text: String| match Pattern::new(&text) {
        Ok(pattern) if !text.is_empty() => Ok(pattern),
        _ => {
            Err(refused(key, &text, "names of databases, or patterns with *, ? and [...]; [*] is a * itself"))
        }
    };
    texts.into_iter().map(pattern).collect()
}

fn share(key: &str, value: f64) -> Result<f64> {
    match value > 0.0 && value <= 1.0 {
        true => Ok(value),
        false => Err(refused(key, &value.to_string(), "a number above 0, and 1 at most")),
    }
}

/// A time span as people and systemd write it: `90s`, `10m`, `30h`, `2d`, `1h 30m`.
pub(super) fn duration(key: &str, text: Option<&str>, default: &str) -> Result<Duration> {
    let text = text.unwrap_or(default);
    let spans = || refused(key, text, "a time span such as 90s, 10m, 30h or 2d");
    let span: jiff::Span = text.parse().map_err(|_| spans())?;
    let seconds = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| spans())?;
    Duration::try_from(seconds).ok().filter(|duration| !duration.is_zero()).ok_or_else(spans)
}

/// What the recipients look like says which program encrypts.
fn encrypt_to(recipients: Vec<String>, file: Option<PathBuf>, home: PathBuf) -> Result<Option<EncryptTo>> {
    let (mut age, mut keys) = (Vec::new(), Vec::new());
    for recipient in recipients {
        let text = recipient.trim();
        if holds_secret(text) {
            return Err(contradiction(
                "backup.encrypt_to holds a private key, which does not belong on this machine",
                "put the recipient there, which `age-keygen -y` prints, and make a new key: this one is no secret any more",
            ));
        }
        if is_age_recipient(text) {
            age.push(text.to_owned());
        } else if let Some(key) = openpgp_key(text) {
            keys.push(key);
        } else {
            return Err(refused(
                "backup.encrypt_to",
                text,
                "recipients of age (age1...), or of OpenPGP: whole fingerprints (40 digits) or addresses",
            ));
        }
    }
    match (age.is_empty() && file.is_none(), keys.is_empty()) {
        (true, true) => Ok(None),
        (false, true) => Ok(Some(EncryptTo::Age { recipients: age, file })),
        (true, false) => Ok(Some(EncryptTo::OpenPgp { keys, home })),
        (false, false) => Err(contradiction(
            "backup.encrypt_to and backup.recipients_file name recipients of age and of OpenPGP, and a file is \
             encrypted by one of them",
            "keep either kind",
        )),
    }
}

/// Whether this is a private key, of which nothing must be shown.
pub(crate) fn holds_secret(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    text.contains("AGE-SECRET-KEY") || text.contains("AGE-PLUGIN-") || text.contains("PRIVATE KEY")
}

/// Whether this is a recipient as age takes it; age itself has the last word.
pub(crate) fn is_age_recipient(text: &str) -> bool {
    let one_line = !text.contains(char::is_control);
    one_line && ["age1", "ssh-ed25519 ", "ssh-rsa "].iter().any(|start| text.starts_with(start))
}

/// A whole fingerprint or an address, as gpg takes them. Shorter ids of keys are forged within minutes.
fn openpgp_key(text: &str) -> Option<String> {
    let digits: String = text.strip_prefix("0x").unwrap_or(text).chars().filter(|c| *c != ' ').collect();
    if matches!(digits.len(), 40 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_uppercase());
    }
    let address = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    let (name, domain) = address.split_once('@')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "<>@\"=".contains(c))
    };
    // In angle brackets it is this address, and not any that it is a part of.
    (plain(name) && plain(domain)).then(|| format!("<{address}>"))
}

fn contradiction(message: &str, hint: &str) -> Error {
    Error::new(Kind::Config, format!("configuration: {message}")).state("nothing was started").hint(hint)
}

pub(super) fn refused(key: &str, value: &str, allowed: &str) -> Error {
    Error::new(Kind::Config, format!("configuration: {key} = {value:?} makes no sense here"))
        .state("nothing was started")
        .hint(format!("{key} takes {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings> {
        Settings::from_fragment(Fragment::parse(text, Path::new("c.toml"))?)
    }

    #[test]
    fn values_outside_their_range_are_refused_with_what_is_allowed() {
        for (text, expected) in [
            ("data_directory = \"data\"", "an absolute path"),
            ("data_directory = \"/\"", "an absolute path"),
            ("backup.compression = \"lz4\"", "zstd, gzip or none"),
            ("backup.format = \"tar\"", "custom or plain"),
            ("upgrade.compare = \"all\"", "rows or content"),
            ("backup.level = 20", "1 to 19"),
            ("backup = { compression = \"gzip\", level = 10 }", "1 to 9"),
            ("backup.max_age = \"soon\"", "a time span"),
            ("backup.max_age = \"-1h\"", "a time span"),
            ("server.role = \"\"", "a name"),
            ("backup.exclude_databases = [\"\"]", "names of databases"),
            ("backup.exclude_databases = [\"scratch[\"]", "names of databases"),
            ("backup.encrypt_to = [\"ada\"]", "recipients of age"),
            ("backup.encrypt_to = [\"DEADBEEF\"]", "whole fingerprints"),
            ("backup.encrypt_to = [\"--output=x@y z\"]", "recipients of age"),
            ("backup.recipients_file = \"keys\"", "an absolute path"),
            ("backup.encrypt_to = [\"age1x\", \"a@b.example\"]", "keep either kind"),
            ("backup = { recipients_file = \"/r\", encrypt_to = [\"a@b.example\"] }", "keep either kind"),
            ("backup = { recipients_file = \"/r\", rsyncable = true }", "nothing in common"),
        ] {
            let report = settings(text).unwrap_err().report();
            assert!(report.contains(expected), "{text}: {report}");
        }
    }

    #[test]
    fn databases_are_excluded_by_name_or_by_pattern() {
        let backup = settings("backup.exclude_databases = [\"scratch\", \"test_*\"]").unwrap().backup;
        assert!(backup.excludes("scratch") && backup.excludes("test_") && backup.excludes("test_a/b"));
        assert!(
            !backup.excludes("scratch2") && !backup.excludes("a_test_b") && !backup.excludes("homeserver")
        );
    }

    #[test]
    fn what_recipients_look_like_says_who_encrypts() {
        let encryption = |text| settings(text).unwrap().backup.encryption;
        assert_eq!(encryption("backup = { encrypt_to = [], recipients_file = \"\" }"), None);
        let age = EncryptTo::Age { recipients: vec!["age1xyz".into()], file: Some("/r".into()) };
        assert_eq!(
            encryption("backup = { encrypt_to = [\"age1xyz\"], recipients_file = \"/r\" }"),
            Some(age)
        );
        let fingerprint = "AAAA AAAA AAAA AAAA AAAA  AAAA AAAA AAAA AAAA AAAa";
        let keys = vec!["A".repeat(40), "<ada@test.example>".into()];
        assert_eq!(
            encryption(&format!("backup.encrypt_to = [{fingerprint:?}, \"ada@test.example\"]")),
            Some(EncryptTo::OpenPgp { keys, home: "/etc/matrix-postgres/gnupg".into() })
        );
    }

    #[test]
    fn a_private_key_is_refused_and_not_shown() {
        let report = settings("backup.encrypt_to = [\"AGE-SECRET-KEY-1QQQQ\"]").unwrap_err().report();
        assert!(report.contains("holds a private key") && !report.contains("QQQQ"), "{report}");
    }

    #[test]
    fn time_spans_read_as_systemd_writes_them() {
        let settings = settings("backup = { max_age = \"2d\", lock_timeout = \"1h 30m\" }").unwrap();
        assert_eq!(settings.backup.max_age, Duration::from_secs(2 * 86_400));
        assert_eq!(settings.backup.lock_timeout, Duration::from_secs(5400));
    }
}
