//! Which backup is restored on trial, and with what it is compared.

use std::fmt;
use std::path::PathBuf;

use crate::backup::pgbackrest::contents::{Held, Recorded};
use crate::backup::pgbackrest::info::{Backup, Stanza, position};
use crate::backup::pgbackrest::refusal::{BACK_UP, unreadable};
use crate::backup::scratch::Need;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::Major;
use crate::report::DecimalBytes;

/// Room for the WAL, and for what a server writes by itself.
const OVERHEAD: u64 = 1_500_000_000;

/// The first version that is told by settings until where it is to replay the WAL.
const OLDEST: Major = Major(12);

/// What a trial will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) backup: Backup,
    pub(super) system_identifier: String,
    pub(super) major: Major,
    pub(super) scratch: PathBuf,
    /// What it is compared with; nothing if that is of another backup.
    pub(super) recorded: Option<Recorded>,
}

/// The plan for a trial of the newest backup of the present cluster.
///
/// # Errors
/// [`Kind::NoBackup`]; [`Kind::File`] if the repository cannot be read; [`Kind::Config`] for a version that is too old, and while
/// the WAL that is needed was not archived yet.
pub fn plan(settings: &Settings, stanza: &Stanza) -> Result<Plan> {
    if let Some(reason) = stanza.unreadable() {
        return Err(unreadable(reason));
    }
    let (Some(present), Some(backup)) = (stanza.present(), stanza.backups_of_present().next_back()) else {
        return Err(
            Error::new(Kind::NoBackup, "pgBackRest has no backup of the present cluster").hint(BACK_UP)
        );
    };
    let major =
        Major::from_pg_version(&present.version).filter(|major| *major >= OLDEST).ok_or_else(|| {
            let message = format!(
                "backups of PostgreSQL {} by pgBackRest are not restored on trial: 12 or newer is needed",
                present.version
            );
            Error::new(Kind::Config, message)
        })?;
    let system_identifier = present.system_identifier.to_string();
    let recorded = Recorded::load(&settings.backup.directory, &backup.label)
        .filter(|recorded| recorded.server.system_identifier == system_identifier);
    if let Some(until) = recorded.as_ref().and_then(|recorded| recorded.until.as_deref())
        && !stanza.archives_of(&system_identifier).any(|archive| archive.max.as_deref() >= Some(until))
    {
        let message =
            format!("the WAL after backup {} was not archived yet: segment {until} is missing", backup.label);
        return Err(Error::new(Kind::Config, message)
            .state("nothing was started")
            .hint("matrix-postgres-backup status shows whether WAL is archived"));
    }
    Ok(Plan {
        backup: backup.clone(),
        system_identifier,
        major,
        scratch: settings.backup.scratch_directory.clone(),
        recorded,
    })
}

impl Plan {
    pub(super) fn need(&self) -> Need {
        Need { path: self.scratch.clone(), bytes: self.backup.info.size + OVERHEAD }
    }

    /// In the order in which the WAL comes to them.
    pub(super) fn held(&self) -> Vec<&Held> {
        let mut held: Vec<_> = self.recorded.iter().flat_map(|recorded| &recorded.databases).collect();
        held.sort_by_key(|held| position(&held.lsn));
        held
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "trial restore of backup {} by pgBackRest (PostgreSQL {})",
            self.backup.label, self.major
        )?;
        writeln!(f, "  into a new directory in {}", self.scratch.display())?;
        match self.held().as_slice() {
            [] => writeln!(
                f,
                "  replay the WAL until the cluster is consistent; there is nothing to compare it with"
            )?,
            held => {
                for Held { database, lsn, contents, .. } in held {
                    let tables = contents.tables.len();
                    writeln!(
                        f,
                        "  replay the WAL until {lsn}, and compare {tables} tables of database {:?}",
                        database.name
                    )?;
                }
            }
        }
        let bytes = DecimalBytes(self.need().bytes);
        write!(f, "  disk space needed there: about {bytes}; everything is removed afterwards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::pgbackrest::info::tests::{NEW, OLD, stanza_of};
    use crate::config::Fragment;

    fn planned(stanza: &Stanza) -> Result<Plan> {
        plan(&Settings::from_fragment(Fragment::default()).unwrap(), stanza)
    }

    #[test]
    fn the_newest_of_the_present_cluster_is_tried() {
        let plan = planned(&stanza_of(OLD)).unwrap();
        assert_eq!(plan.backup.label, "20261129-154529F_20261129-154530I");
        assert_eq!(
            plan.to_string(),
            "trial restore of backup 20261129-154529F_20261129-154530I by pgBackRest (PostgreSQL 17)\n  \
             into a new directory in /var/tmp/matrix-postgres\n  \
             replay the WAL until the cluster is consistent; there is nothing to compare it with\n  \
             disk space needed there: about 1.52 GB; everything is removed afterwards"
        );
        assert_eq!(planned(&stanza_of(NEW)).unwrap_err().kind(), Kind::NoBackup);
        let mut old = stanza_of(OLD);
        old.db[0].version = "11".into();
        assert!(planned(&old).unwrap_err().to_string().contains("12 or newer is needed"));
    }
}
