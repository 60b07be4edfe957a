//! What a run will write, as a value: facts, settings and the time in, plan out.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::catalogue::{self, Entry};
use super::manifest::{Manifest, Omission, Omitted};
use super::name::{self, BackupName};
use crate::archive::Encryption;
use crate::config::{Backup, Compression};
use crate::error::{Error, Kind, Result};
use crate::postgres::{BackupFormat, Closed, Database, ServerFacts};
use crate::report::DecimalBytes;

/// What a plan is made of.
#[derive(Debug)]
pub struct Facts {
    /// The server.
    pub server: ServerFacts,
    /// Its databases that accept connections.
    pub databases: Vec<Database>,
    /// Those that do not.
    pub closed: Vec<(String, Closed)>,
    /// Those of which the role cannot read everything.
    pub unreadable: Vec<String>,
    /// Those that restores which were cut off have left: a copy of what a backup holds, or a part of it.
    pub unfinished: Vec<String>,
    /// The backups that there are, oldest first.
    pub backups: Vec<Entry>,
    /// Bytes that are free where they are.
    pub free: u64,
    /// The encryption that was asked for, and tried.
    pub encryption: Option<Encryption>,
}

/// What one run will write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backup's name.
    pub name: BackupName,
    /// The directory it will appear in.
    pub directory: PathBuf,
    /// The server it is taken from.
    pub server: ServerFacts,
    /// What the dumps are.
    pub format: BackupFormat,
    /// How they are packed.
    pub compression: Compression,
    /// How they are encrypted, if they are.
    pub encryption: Option<Encryption>,
    /// The file for roles and tablespaces.
    pub globals_file: String,
    /// The databases, in order.
    pub databases: Vec<DatabasePlan>,
    /// Those that are left out, by name.
    pub omitted: Vec<Omitted>,
    /// What it will take, if an earlier backup of the same kind tells.
    pub expected: Option<Expected>,
    /// Bytes that are free where it will be.
    pub free: u64,
}

/// What a run will take, going by the last one and by how the databases have grown since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Bytes on disk.
    pub bytes: u64,
    /// Time to dump.
    pub time: Duration,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64().ceil();
        match seconds < 100.0 {
            true => write!(f, "about {} and {seconds:.0} s", DecimalBytes(self.bytes)),
            false => write!(f, "about {} and {:.0} min", DecimalBytes(self.bytes), (seconds / 60.0).ceil()),
        }
    }
}

impl Plan {
    /// Fails if there is less room than the backup will take.
    ///
    /// # Errors
    /// [`Kind::NoSpace`] with the numbers.
    pub fn check_space(&self) -> Result<()> {
        match self.expected {
            Some(expected) if expected.bytes > self.free => Err(Error::new(
                Kind::NoSpace,
                format!(
                    "not enough disk space for the backup: needed about {}, free {} on the file system of {}",
                    DecimalBytes(expected.bytes),
                    DecimalBytes(self.free),
                    self.directory.display()
                ),
            )
            .hint("free some space, or keep fewer backups: [backup.keep] in /etc/matrix-postgres/config.toml, then matrix-postgres-backup prune")),
            _ => Ok(()),
        }
    }
}

/// One database of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabasePlan {
    /// The database.
    pub database: Database,
    /// Its file's name.
    pub file: String,
    /// About how many bytes pg_dump will write.
    pub estimate: u64,
}

/// The plan for a backup that begins `now`.
pub fn plan(settings: &Backup, mut facts: Facts, now: Timestamp) -> Plan {
    let omitted = omit(settings, &mut facts);
    let name = next_name(&facts.backups, now);
    let earlier = catalogue::split(&facts.backups, now).0;
    let previous = earlier.iter().rev().find_map(|entry| entry.manifest.as_ref().ok());
    let expected = previous.and_then(|manifest| expect(settings, manifest, &facts.databases));
    let method = facts.encryption.as_ref().map(|encryption| encryption.method);
    let encrypted = |file| name::encrypted(file, method);
    let databases = facts.databases.into_iter().map(|database| {
        let before = previous
            .and_then(|manifest| manifest.databases.iter().find(|dump| dump.database.name == database.name));
        let estimate = match before {
            Some(dump) if dump.database.size > 0 => {
                scaled(database.size, dump.dump.content_bytes, dump.database.size)
            }
            // Without indexes, and with rows as text: so it is with Synapse's tables.
            _ => scaled(database.size, 11, 20),
        };
        let file = encrypted(name::database_file(&database.name, settings.format, settings.compression));
        DatabasePlan { database, file, estimate }
    });
    Plan {
        name,
        directory: settings.directory.clone(),
        format: settings.format,
        compression: settings.compression,
        globals_file: encrypted(name::globals_file(settings.compression)),
        databases: databases.collect(),
        omitted,
        encryption: facts.encryption,
        server: facts.server,
        expected,
        free: facts.free,
    }
}

/// Names grow: neither a second run within a second nor a clock set back a little hides the newest backup. One of the
/// future is not followed there.
fn next_name(backups: &[Entry], now: Timestamp) -> BackupName {
    let (past, future) = catalogue::split(backups, now);
    let mut name = BackupName::at(now);
    if let Some(newest) = past.last().filter(|newest| newest.name >= name) {
        name = newest.name.next();
    }
    while future.iter().any(|entry| entry.name == name) {
        name = name.next();
    }
    name
}

/// Takes those out that are not to be backed up, and names all that will not be.
fn omit(settings: &Backup, facts: &mut Facts) -> Vec<Omitted> {
    let excluded = |name: &str| settings.excludes(name).then_some(Omission::Excluded);
    let closed = facts.closed.iter().map(|(name, closed)| Omitted {
        name: name.clone(),
        reason: excluded(name).unwrap_or_else(|| Omission::from(*closed)),
    });
    let mut omitted: Vec<_> = closed.collect();
    let unfinished = |name: &String| facts.unfinished.contains(name).then_some(Omission::Unfinished);
    let unreadable = |name: &String| facts.unreadable.contains(name).then_some(Omission::NoPrivilege);
    let reason = |name: &String| excluded(name).or_else(|| unfinished(name)).or_else(|| unreadable(name));
    facts.databases.retain(|Database { name, .. }| match reason(name) {
        Some(reason) => {
            omitted.push(Omitted { name: name.clone(), reason });
            false
        }
        None => true,
    });
    omitted.sort_by(|a, b| a.name.cmp(&b.name));
    omitted
}

/// Nothing where the last backup is of another kind, or of other databases only.
fn expect(settings: &Backup, manifest: &Manifest, databases: &[Database]) -> Option<Expected> {
    if (manifest.dump_format, manifest.compression) != (settings.format, settings.compression) {
        return None;
    }
    let mut expected = Expected { bytes: manifest.globals.bytes, time: Duration::ZERO };
    let mut known = false;
    for database in databases {
        let dump = manifest.databases.iter().find(|dump| dump.database.name == database.name);
        if let Some(dump) = dump.filter(|dump| dump.database.size > 0) {
            let grown = |value| scaled(value, database.size, dump.database.size);
            expected.bytes = expected.bytes.saturating_add(grown(dump.dump.bytes));
            expected.time += Duration::from_millis(grown(dump.milliseconds));
            known = true;
        }
    }
    known.then_some(expected)
}

fn scaled(value: u64, numerator: u64, denominator: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(numerator) / u128::from(denominator)).unwrap_or(u64::MAX)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "backup {} of PostgreSQL {}", self.name, self.server.version)?;
        writeln!(f, "  into {}", self.directory.join(self.name.to_string()).display())?;
        writeln!(f, "  {:<38} roles and tablespaces", self.globals_file)?;
        for DatabasePlan { database, file, .. } in &self.databases {
            writeln!(
                f,
                "  {file:<38} database {:?}, {} on disk",
                database.name,
                DecimalBytes(database.size)
            )?;
        }
        for Omitted { name, reason } in &self.omitted {
            writeln!(f, "  without database {name:?}: {reason}")?;
        }
        if let Some(expected) = self.expected {
            writeln!(f, "  {expected}, as last time; free space: {}", DecimalBytes(self.free))?;
        }
        if let Some(encryption) = &self.encryption {
            writeln!(f, "  encrypted with {} to {}", encryption.method.program(), encryption.shown())?;
            return write!(
                f,
                "  then the rows of every table are counted before encryption, and the checksums of the files are verified"
            );
        }
        write!(f, "  then every file is read back, and the rows of every table are counted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Method;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;
    use crate::config::{Fragment, Settings};
    use std::path::Path;
    use std::sync::Arc;

    fn facts(backups: &[&str]) -> Facts {
        let manifest = example("20261123T030000Z");
        let mut database = manifest.databases[0].database.clone();
        database.size *= 2;
        Facts {
            server: manifest.server,
            databases: vec![database],
            closed: vec![],
            unreadable: vec![],
            unfinished: vec![],
            free: 1_500_000,
            backups: backups
                .iter()
                .map(|name| Entry {
                    name: name.parse().unwrap(),
                    files: Arc::new(Directory::new(Path::new(name))),
                    manifest: Ok(example(name)),
                })
                .collect(),
            encryption: None,
        }
    }

    #[test]
    fn a_plan_says_to_whom_it_encrypts() {
        let settings = Settings::from_fragment(Fragment::default()).unwrap();
        let encryption = Encryption {
            method: Method::Age,
            program: "/usr/bin/age".into(),
            recipients: vec!["age1a".into(), "age1b".into()],
            home: None,
        };
        let facts = Facts { encryption: Some(encryption), ..facts(&[]) };
        assert_reads(
            &plan(&settings.backup, facts, "2026-11-24T03:00:00.5Z".parse().unwrap()).to_string(),
            "backup 20261124T030000Z of PostgreSQL 17.6
  into /var/backups/matrix-postgres/20261124T030000Z
  globals.sql.zst.age                    roles and tablespaces
  home%22server.dump.zst.age             database \"home\\\"server\", 6.00 MB on disk
  encrypted with age to age1a, age1b
  then the rows of every table are counted before encryption, and the checksums of the files are verified",
        );
    }

    fn plan_at(backups: &[&str], now: &str) -> Plan {
        let settings = Settings::from_fragment(Fragment::default()).unwrap();
        plan(&settings.backup, facts(backups), now.parse().unwrap())
    }

    #[test]
    fn a_plan_reads_like_this() {
        assert_reads(
            &plan_at(&[], "2026-11-24T03:00:00.5Z").to_string(),
            "backup 20261124T030000Z of PostgreSQL 17.6
  into /var/backups/matrix-postgres/20261124T030000Z
  globals.sql.zst                        roles and tablespaces
  home%22server.dump.zst                 database \"home\\\"server\", 6.00 MB on disk
  then every file is read back, and the rows of every table are counted",
        );
    }

    #[test]
    fn what_is_excluded_or_closed_is_left_out_and_named() {
        let fragment = "backup.exclude_databases = [\"home*\", \"old\"]";
        let fragment = Fragment::parse(fragment, std::path::Path::new("c.toml")).unwrap();
        let settings = Settings::from_fragment(fragment).unwrap();
        let closed = vec![("old".into(), Closed::NoConnections), ("x".into(), Closed::HalfDropped)];
        let mut facts = Facts {
            closed,
            unfinished: vec!["u".into()],
            unreadable: vec!["theirs".into()],
            ..facts(&["20261123T030000Z"])
        };
        for name in ["u", "theirs"] {
            let another = Database { name: name.into(), ..facts.databases[0].clone() };
            facts.databases.push(another);
        }
        let plan = plan(&settings.backup, facts, "2026-11-24T03:00:00Z".parse().unwrap());
        assert!(plan.databases.is_empty() && plan.expected.is_none());
        let omitted: Vec<_> = plan.omitted.iter().map(|one| (one.name.as_str(), one.reason)).collect();
        assert_eq!(
            omitted,
            [
                ("home\"server", Omission::Excluded),
                ("old", Omission::Excluded),
                ("theirs", Omission::NoPrivilege),
                ("u", Omission::Unfinished),
                ("x", Omission::HalfDropped)
            ]
        );
        let expected = "  without database \"x\": a DROP DATABASE of it was interrupted\n";
        assert!(plan.to_string().contains(expected), "{plan}");
    }

    fn assert_reads(actual: &str, expected: &str) {
        assert_eq!(actual, expected);
    }

    #[test]
    fn names_grow_even_when_the_clock_was_set_back_a_little() {
        let name = |backups: &[&str], now: &str| plan_at(backups, now).name.to_string();
        let last = ["20261124T030000Z"];
        assert_eq!(name(&last, "2026-11-24T03:00:00Z"), "20261124T030001Z");
        assert_eq!(name(&last, "2026-11-24T02:55:00Z"), "20261124T030001Z");
        // Of the future: it is not followed, and its name is taken.
        assert_eq!(name(&last, "2026-11-24T02:54:59Z"), "20261124T025459Z");
        assert_eq!(name(&last, "2020-01-01T00:00:00Z"), "20200101T000000Z");
        let both = ["20261124T025959Z", "20261124T030000Z", "20261124T030001Z"];
        assert_eq!(name(&both, "2026-11-24T02:54:59Z"), "20261124T030002Z");
    }

    #[test]
    fn what_a_backup_of_the_future_took_is_no_measure() {
        let plan = plan_at(&["20301124T030000Z"], "2026-11-24T03:00:00Z");
        assert_eq!((plan.name.to_string().as_str(), plan.expected), ("20261124T030000Z", None));
    }

    #[test]
    fn too_little_space_is_said_beforehand_with_the_numbers() {
        // Nothing is known before the first backup.
        plan_at(&[], "2026-11-24T03:00:00Z").check_space().unwrap();
        let mut plan = plan_at(&["20261123T030000Z"], "2026-11-24T03:00:00Z");
        assert_eq!(plan.expected.unwrap().to_string(), "about 2.00 MB and 3 s");
        let error = plan.check_space().unwrap_err();
        assert_eq!(error.kind(), Kind::NoSpace);
        assert!(
            error
                .to_string()
                .starts_with("not enough disk space for the backup: needed about 2.00 MB, free 1.50 MB"),
            "{error}"
        );
        plan.free = 3_000_000;
        plan.check_space().unwrap();
    }

    #[test]
    fn the_last_backup_tells_how_large_a_dump_is() {
        assert_eq!(plan_at(&["20261123T030000Z"], "2026-11-24T03:00:00Z").databases[0].estimate, 6_000_000);
        assert_eq!(plan_at(&[], "2026-11-24T03:00:00Z").databases[0].estimate, 3_300_000);
    }
}
