//! Which restore is made, and what is refused.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::kept::{BEFORE, RESTORING};
use crate::backup::name::BackupName;
use crate::backup::pgbackrest::info::{Backup, Stanza, position};
use crate::backup::pgbackrest::refusal::{SETUP, of_another, unreadable};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::{Major, ServerFacts};
use crate::report::DecimalBytes;

/// So much of the WAL is there at once while it is replayed.
const WAL: u64 = 1 << 30;

/// Until where WAL is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Until the last transaction that had ended then.
    Time(Timestamp),
    /// Until this position.
    Lsn(u64),
    /// As far as there is any.
    End,
}

impl Target {
    /// A position, such as `0/1A2B3C8`.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn lsn(text: &str) -> Result<Self> {
        position(text).map(Self::Lsn).ok_or_else(|| {
            Error::new(Kind::Config, format!("{text:?} is no position in the WAL"))
                .hint("such as --to-lsn 0/1A2B3C8")
        })
    }

    /// What pgBackRest is told.
    pub(super) fn options(self) -> Vec<String> {
        let of = |kind| {
            vec![format!("--type={kind}"), format!("--target={self}"), "--target-action=promote".into()]
        };
        self.kind().map_or_else(Vec::new, of)
    }

    /// What the server is told.
    pub(super) fn settings(self) -> Vec<String> {
        let of =
            |kind| vec![format!("recovery_target_{kind}={self}"), "recovery_target_action=promote".into()];
        self.kind().map_or_else(Vec::new, of)
    }

    /// As both call it.
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::End => None,
            Self::Time(_) => Some("time"),
            Self::Lsn(_) => Some("lsn"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S%.6f+00")),
            Self::Lsn(lsn) => write!(f, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff),
            Self::End => f.write_str("the end of the archived WAL"),
        }
    }
}

/// What is found.
#[derive(Debug)]
pub struct Facts {
    /// What pgBackRest knows.
    pub stanza: Stanza,
    /// The server, if it runs.
    pub server: Option<ServerFacts>,
    /// How far its WAL is.
    pub written: Option<u64>,
    /// The identity of the cluster that is there, if that is to be read.
    pub identifier: Option<String>,
    /// Whether parts of the cluster are outside of its directory, as far as that can be told.
    pub is_scattered: Option<bool>,
    /// Bytes that are free beside it.
    pub free: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) target: Target,
    pub(super) label: String,
    pub(super) delta: bool,
    pub(super) major: Major,
    pub(super) data: PathBuf,
    pub(super) beside: PathBuf,
    pub(super) kept: PathBuf,
}

/// The plan for this target.
///
/// # Errors
/// [`Kind::Config`] for one before the first backup or in the future, and for a stanza of another cluster; [`Kind::NoBackup`].
pub fn plan(facts: &Facts, settings: &Settings, target: Target, delta: bool, now: Timestamp) -> Result<Plan> {
    let Facts { stanza, server, written, identifier: found, is_scattered, free } = facts;
    let refused = |message: String| {
        Error::new(Kind::Config, message)
            .hint("matrix-postgres-backup list shows the backups and their times")
    };
    if let Some(reason) = stanza.unreadable() {
        return Err(unreadable(reason));
    }
    // pgBackRest would write into those of the cluster that is there.
    match is_scattered {
        Some(true) => {
            return Err(by_hand("parts of the cluster are outside of its directory: tablespaces, or links"));
        }
        None if delta => {
            return Err(by_hand(
                "it cannot be told whether parts of the cluster are outside of its directory: pg_tblspc is not readable",
            ));
        }
        _ => {}
    }
    let Some(present) = stanza.present() else {
        return Err(Error::new(Kind::NoBackup, "the stanza of pgBackRest does not exist").hint(SETUP));
    };
    if let Some(server) = server.as_ref().filter(|server| !stanza.is_of(server)) {
        return Err(of_another(stanza, server, SETUP));
    }
    let identifier = present.system_identifier.to_string();
    if found.as_ref().is_some_and(|found| *found != identifier) {
        return Err(by_hand(&format!(
            "stanza {:?} is of another cluster than that in {}",
            stanza.name,
            settings.data_directory.display()
        )));
    }
    let (Some(first), Some(newest)) =
        (stanza.backups_of(&identifier).next(), stanza.backups_of(&identifier).next_back())
    else {
        return Err(Error::new(Kind::NoBackup, "pgBackRest has no backup of the present cluster")
            .hint("systemctl start matrix-postgres-backup.service"));
    };
    match target {
        Target::Time(time) if time > now => return Err(refused(format!("{target} is in the future"))),
        Target::Time(time) if time < first.ended() => {
            return Err(refused(format!(
                "{target} is before the end of the first backup, {}, at {}",
                first.label,
                Target::Time(first.ended())
            )));
        }
        Target::Lsn(lsn) if first.lsn.stop.as_deref().and_then(position).is_some_and(|stop| lsn < stop) => {
            return Err(refused(format!(
                "position {target} of the WAL is before the end of the first backup, {}",
                first.label
            )));
        }
        Target::Lsn(lsn) if written.is_some_and(|written| lsn > written) => {
            return Err(refused(format!("position {target} of the WAL has not been written yet")));
        }
        _ => {}
    }
    // pgBackRest itself would take one of another cluster that is newer, as after an upgrade that was rolled back.
    let reaches = |backup: &&Backup| match target {
        Target::Time(time) => backup.ended() <= time,
        Target::Lsn(lsn) => backup.lsn.stop.as_deref().and_then(position).is_none_or(|stop| stop <= lsn),
        Target::End => true,
    };
    let backup = stanza.backups_of(&identifier).rfind(reaches).unwrap_or(first);
    let needed = newest.info.size.saturating_add(WAL);
    if needed > *free {
        return Err(Error::new(
            Kind::NoSpace,
            format!(
                "not enough disk space beside {}: needed about {}, free {}",
                settings.data_directory.display(),
                DecimalBytes(needed),
                DecimalBytes(*free)
            ),
        ));
    }
    let major = Major::from_pg_version(&present.version).ok_or_else(|| {
        Error::new(Kind::Program, format!("pgBackRest names an unknown version: {}", present.version))
    })?;
    let data = settings.data_directory.clone();
    let named = |suffix: &str| {
        let mut name = data.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let kept = files::free_name(&named(&format!("{BEFORE}{}", BackupName::at(now))));
    Ok(Plan { target, label: backup.label.clone(), delta, major, beside: named(RESTORING), kept, data })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "restore the cluster of PostgreSQL {} by pgBackRest into {}",
            self.major,
            self.beside.display()
        )?;
        if self.delta {
            writeln!(f, "  over a copy of {}: only files that differ are restored", self.data.display())?;
        }
        writeln!(f, "  replay the WAL until {}", self.target)?;
        writeln!(
            f,
            "  then stop the server and the services that use it, exchange both directories, and start them again"
        )?;
        write!(f, "  the previous cluster is kept in {}", self.kept.display())
    }
}

pub(super) fn by_hand(why: &str) -> Error {
    Error::new(Kind::Config, why)
        .state("nothing was stopped, and nothing was changed")
        .hint("restore it by pgBackRest's own commands: see \"By hand\" in docs/pgbackrest.md")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::pgbackrest::info::tests::{NEW, OLD, server, stanza_of};
    use crate::backup::pgbackrest::info::{Database, Of};
    use crate::config::Fragment;

    fn planned(target: Target, change: impl Fn(&mut Facts)) -> Result<Plan> {
        let mut facts = Facts {
            stanza: stanza_of(OLD),
            server: Some(server(OLD)),
            written: Some(0x0900_0000),
            identifier: Some(OLD.to_owned()),
            is_scattered: Some(false),
            free: 2 * WAL,
        };
        change(&mut facts);
        let settings = Settings::from_fragment(Fragment::default()).unwrap();
        plan(&facts, &settings, target, false, "2026-11-29T17:00:00Z".parse().unwrap())
    }

    fn time(text: &str) -> Target {
        Target::Time(text.parse().unwrap())
    }

    #[test]
    fn what_lies_before_the_first_backup_or_in_the_future_is_refused() {
        let refused = |target| planned(target, |_| {}).unwrap_err().to_string();
        assert!(refused(time("2026-11-29T15:45:30.9Z")).contains("is before the end of the first backup"));
        assert!(refused(time("2026-11-29T17:00:01Z")).contains("is in the future"));
        assert!(refused(Target::lsn("0/9000001").unwrap()).contains("has not been written yet"));
        assert!(planned(time("2026-11-29T15:45:31Z"), |_| {}).is_ok());
        assert!(planned(Target::lsn("0/9000000").unwrap(), |_| {}).is_ok());
        let other = planned(Target::End, |facts| facts.server = Some(server("1"))).unwrap_err();
        assert!(other.to_string().contains("is of another cluster"));
        assert!(planned(Target::End, |facts| facts.server = None).is_ok());
        assert_eq!(
            planned(Target::End, |facts| facts.stanza.backup.clear()).unwrap_err().kind(),
            Kind::NoBackup
        );
    }

    #[test]
    fn the_backup_is_the_newest_of_this_cluster_that_reaches_the_target() {
        let chosen = |target| planned(target, |_| {}).unwrap().label;
        let (full, incremental) = ("20261129-154529F", "20261129-154529F_20261129-154530I");
        assert_eq!(chosen(time("2026-11-29T15:45:32.9Z")), full);
        assert_eq!(chosen(time("2026-11-29T15:45:33Z")), incremental);
        assert_eq!(chosen(Target::lsn("0/700004F").unwrap()), full);
        assert_eq!(chosen(Target::lsn("0/7000050").unwrap()), incremental);
        // After a rollback the newest one is of the cluster that was left.
        let back = |facts: &mut Facts| {
            facts.stanza = stanza_of(NEW);
            facts.stanza.db.push(Database { id: 3, ..facts.stanza.db[0].clone() });
            let other =
                Backup { label: "X".into(), database: Of { id: 2 }, ..facts.stanza.backup[0].clone() };
            facts.stanza.backup.push(other);
        };
        assert_eq!(planned(Target::End, back).unwrap().label, incremental);
    }

    #[test]
    fn what_would_fill_the_disk_or_write_into_the_present_cluster_is_refused() {
        let refused = |change: fn(&mut Facts)| planned(Target::End, change).unwrap_err();
        assert_eq!(refused(|facts| facts.free = WAL).kind(), Kind::NoSpace);
        let other = refused(|facts| (facts.server, facts.identifier) = (None, Some("1".to_owned())));
        assert!(other.to_string().contains("is of another cluster than that in"), "{other}");
        let scattered = refused(|facts| facts.is_scattered = Some(true));
        assert!(scattered.report().contains("By hand"), "{}", scattered.report());
    }

    #[test]
    fn targets_are_written_as_both_programs_read_them() {
        assert_eq!(time("2026-11-27T03:00:00.5+01").to_string(), "2026-11-27 02:00:00.500000+00");
        assert_eq!(Target::lsn("1/1A2B3C8").unwrap().to_string(), "1/1A2B3C8");
        assert!(Target::lsn("0").is_err() && Target::lsn("0/x").is_err() && Target::lsn("").is_err());
        assert!(Target::End.options().is_empty());
    }
}
