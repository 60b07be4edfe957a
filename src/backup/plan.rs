//! What a run will write, as a value: facts, settings and the time in, plan out.

use std::fmt;
use std::path::PathBuf;

use indicatif::DecimalBytes;
use jiff::Timestamp;

use super::catalogue::Entry;
use super::name::{self, BackupName};
use crate::config::{Backup, BackupFormat, Compression};
use crate::postgres::{Database, ServerFacts};

/// What a plan is made of.
#[derive(Debug)]
pub struct Facts {
    /// The server.
    pub server: ServerFacts,
    /// Its databases that accept connections.
    pub databases: Vec<Database>,
    /// The backups that there are, oldest first.
    pub backups: Vec<Entry>,
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
    /// The file for roles and tablespaces.
    pub globals_file: String,
    /// The databases, in order.
    pub databases: Vec<DatabasePlan>,
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
pub fn plan(settings: &Backup, facts: Facts, now: Timestamp) -> Plan {
    let mut name = BackupName::at(now);
    // Names only grow: neither a second run within a second nor a clock set back hides the newest backup.
    if let Some(newest) = facts.backups.last().filter(|newest| newest.name >= name) {
        name = newest.name.next();
    }
    let previous = facts.backups.iter().rev().find_map(|entry| entry.manifest.as_ref().ok());
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
        let file = name::database_file(&database.name, settings.format, settings.compression);
        DatabasePlan { database, file, estimate }
    });
    Plan {
        name,
        directory: settings.directory.clone(),
        format: settings.format,
        compression: settings.compression,
        globals_file: name::globals_file(settings.compression),
        databases: databases.collect(),
        server: facts.server,
    }
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
        write!(f, "  then every file is read back and every table's rows are counted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::example;
    use crate::config::{Fragment, Settings};

    fn facts(backups: &[&str]) -> Facts {
        let manifest = example("20261123T030000Z");
        let mut database = manifest.databases[0].database.clone();
        database.size *= 2;
        Facts {
            server: manifest.server,
            databases: vec![database],
            backups: backups
                .iter()
                .map(|name| Entry {
                    name: name.parse().unwrap(),
                    path: PathBuf::from(name),
                    manifest: Ok(example(name)),
                })
                .collect(),
        }
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
  then every file is read back and every table's rows are counted",
        );
    }

    fn assert_reads(actual: &str, expected: &str) {
        assert_eq!(actual, expected);
    }

    #[test]
    fn names_grow_even_when_the_clock_was_set_back() {
        let plan = plan_at(&["20261124T030000Z"], "2026-11-24T03:00:00Z");
        assert_eq!(plan.name.to_string(), "20261124T030001Z");
        let plan = plan_at(&["20261124T030000Z"], "2020-01-01T00:00:00Z");
        assert_eq!(plan.name.to_string(), "20261124T030001Z");
    }

    #[test]
    fn the_last_backup_tells_how_large_a_dump_is() {
        assert_eq!(plan_at(&["20261123T030000Z"], "2026-11-24T03:00:00Z").databases[0].estimate, 6_000_000);
        assert_eq!(plan_at(&[], "2026-11-24T03:00:00Z").databases[0].estimate, 3_300_000);
    }
}
