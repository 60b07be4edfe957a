//! Is all well? Pure in the list, the settings and the time.

use jiff::Timestamp;
use serde::Serialize;

use super::catalogue::{self, Entry};
use super::leftovers::Leftover;
use super::manifest::{Manifest, Omission, Omitted, Trial};
use super::name::BackupName;
use super::newest::Newest;
use super::offsite::state::{SEND, State};
use super::pgbackrest;
use super::pgbackrest::restore::kept::Kept;
use super::problems::Problems;
pub use super::problems::Timer;
use crate::config::{Backup, Settings};
use crate::error::Error;
use crate::postgres::{Major, support};
use crate::report::DecimalBytes;
use crate::systemd::Shadowed;

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Nothing to complain about.
    pub well: bool,
    /// How many backups there are.
    pub backups: usize,
    /// Those of the future, which count for nothing else here.
    pub future: Vec<BackupName>,
    /// The newest backup, verified or not.
    pub newest: Option<Newest>,
    /// The newest one that was read back whole.
    pub newest_verified: Option<BackupName>,
    /// When that was read back.
    pub newest_verified_at: Option<Timestamp>,
    /// Bytes that are free on the file system of the backups.
    pub free_bytes: Option<u64>,
    /// The newest backup that was restored on trial, and how that went.
    pub newest_trial: Option<(BackupName, Trial)>,
    /// When the timer starts the next one.
    pub next_run: Option<Timestamp>,
    /// The databases that are not in the newest backup.
    pub omitted: Vec<Omitted>,
    /// The databases that restores have replaced, and that are still there.
    pub leftovers: Vec<Leftover>,
    /// Why it is not known whether there are such.
    pub leftovers_unknown: Option<String>,
    /// The clusters that restores have replaced, and that are still there.
    pub kept_clusters: Vec<Kept>,
    /// The targets of `[[offsite]]`.
    pub offsite: Vec<State>,
    /// The backups of pgBackRest, where that is the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgbackrest: Option<pgbackrest::status::State>,
    /// What should be known and makes nothing unwell, a sentence each.
    pub warnings: Vec<String>,
    /// What is not well, a sentence each.
    pub problems: Vec<String>,
    /// The one next command.
    pub hint: Option<String>,
}

impl Status {
    /// The same, with the databases that restores have replaced, or why it is not known whether there are such.
    #[must_use]
    pub fn with_leftovers(self, found: Result<Vec<Leftover>, String>) -> Self {
        match found {
            Ok(leftovers) => Self { leftovers, ..self },
            Err(reason) => Self { leftovers_unknown: Some(reason), ..self },
        }
    }

    /// The same, with the clusters that restores have replaced.
    #[must_use]
    pub fn with_kept_clusters(self, kept_clusters: Vec<Kept>) -> Self {
        Self { kept_clusters, ..self }
    }

    /// The same, with the targets of `[[offsite]]`.
    #[must_use]
    pub fn with_offsite(mut self, offsite: Vec<State>) -> Self {
        let known = self.problems.len();
        self.problems.extend(offsite.iter().flat_map(|target| target.problems.clone()));
        let is_new = self.problems.len() > known;
        self.hint = self.hint.or_else(|| is_new.then(|| SEND.to_owned()));
        Self { well: self.well && !is_new, offsite, ..self }
    }

    /// The same, with the backups of pgBackRest, or why nothing is known of them.
    #[must_use]
    pub fn with_pgbackrest(mut self, state: Result<pgbackrest::status::State, Error>) -> Self {
        let (problems, hint) = match &state {
            Ok(state) => (state.problems.clone(), state.hint.clone()),
            Err(error) => (
                vec![format!("the backups of pgBackRest are not known: {}", error.one_line())],
                error.hint_text().map(str::to_owned),
            ),
        };
        self.well &= problems.is_empty();
        self.problems.extend(problems);
        self.hint = self.hint.or(hint);
        Self { pgbackrest: state.ok(), ..self }
    }

    /// The same, with the units of ours that are shadowed. Backups may be as good as any: it is well.
    #[must_use]
    pub fn with_shadowed(mut self, shadowed: &[Shadowed]) -> Self {
        self.warnings.extend(shadowed.iter().map(ToString::to_string));
        self.hint = self.hint.or_else(|| shadowed.first().map(Shadowed::hint));
        self
    }

    /// The same, with why there would be no backup now, if so.
    #[must_use]
    pub fn with_obstacle(mut self, obstacle: Option<&Error>) -> Self {
        if let Some(obstacle) = obstacle {
            self.problems.push(obstacle.to_string());
            self.well = false;
            self.hint = self.hint.or_else(|| obstacle.hint_text().map(str::to_owned));
        }
        self
    }

    /// The same, with what is to be said of a server of this version. Backups of it are as good as any: it is well.
    #[must_use]
    pub fn with_version(mut self, major: Option<Major>, now: Timestamp) -> Self {
        if let Some(warning) = major.and_then(|major| support::ended(major, now)) {
            self.warnings.push(warning);
            self.hint = self.hint.or_else(|| Some(support::UPGRADE.to_owned()));
        }
        self
    }

    /// The same, with what is to be said where the programs of the server have been replaced since it started; `unit` is its.
    #[must_use]
    pub fn with_replaced_server(mut self, is_replaced: bool, unit: &str) -> Self {
        if is_replaced {
            self.warnings.push(format!(
                "an update of PostgreSQL was installed, and the server still runs the version before it: {unit}"
            ));
            self.hint = self.hint.or_else(|| Some(format!("systemctl restart {unit}")));
        }
        self
    }
}

/// Judges the backups, oldest first; `free` is how many bytes are left beside them.
pub fn judge(
    entries: &[Entry],
    settings: &Settings,
    timer: &Timer,
    free: Option<u64>,
    now: Timestamp,
) -> Status {
    let homeserver = &settings.server.database;
    let settings = &settings.backup;
    let (past, future) = catalogue::split(entries, now);
    let newest = past.last();
    let manifest = newest.and_then(|entry| entry.manifest.as_ref().ok());
    let verified = past.iter().rev().find(|entry| entry.is_verified());
    let omitted = manifest.map_or(&[][..], |manifest| manifest.omitted.as_slice());
    let newest_trial = newest_trial(past);
    let companions =
        manifest.filter(|_| settings.companions).and_then(|manifest| manifest.companions.uncopied());

    let mut problems = Problems::default();
    // Those of before another engine was chosen need not be new.
    if settings.engine.dumps() {
        problems.newest(newest, future);
        problems.age(verified, settings, now);
    }
    if let Some((problem, what)) = of_the_future(future, settings) {
        problems.add([problem], Some(what));
    }
    problems.add(shrunk(past, settings.shrink_alarm), Some(SHRUNK.to_owned()));
    problems.add(missed(omitted, settings, homeserver), Some(EXCLUDE.to_owned()));
    problems.add(not_taken(newest_trial.as_ref()), Some(SEARCH_PATH.to_owned()));
    let full = no_room(free, manifest.map(Manifest::bytes));
    problems.add(full, Some(format!("df -h {}", settings.directory.display())));
    problems.timer(timer);

    Status {
        well: problems.list.is_empty(),
        backups: entries.len(),
        future: future.iter().map(|entry| entry.name).collect(),
        newest: newest.map(|entry| Newest::of(entry, now)),
        newest_verified: verified.map(|entry| entry.name),
        newest_verified_at: verified
            .and_then(|entry| entry.manifest.as_ref().ok()?.read_back.as_ref())
            .map(|read_back| read_back.at),
        free_bytes: free,
        newest_trial,
        next_run: match timer {
            Timer::Next(time) => Some(*time),
            _ => None,
        },
        omitted: omitted.to_vec(),
        leftovers: Vec::new(),
        leftovers_unknown: None,
        kept_clusters: Vec::new(),
        offsite: Vec::new(),
        pgbackrest: None,
        warnings: manifest.map(incomplete).into_iter().flatten().chain(companions).collect(),
        problems: problems.list,
        hint: problems.hint,
    }
}

/// Whether there is too little room for another backup of so many bytes.
fn no_room(free: Option<u64>, bytes: Option<u64>) -> Option<String> {
    let (free, bytes) = free.zip(bytes).filter(|(free, bytes)| free < bytes)?;
    Some(format!(
        "not enough disk space for another backup: free {}, size of the newest backup {}",
        DecimalBytes(free),
        DecimalBytes(bytes)
    ))
}

/// What is said of backups of the future, and what to do about them.
fn of_the_future(future: &[Entry], settings: &Backup) -> Option<(String, String)> {
    let first = future.first()?.name;
    let directory = settings.directory.display();
    let names: Vec<_> = future.iter().map(|entry| entry.name.to_string()).collect();
    let is = if names.len() == 1 { "is" } else { "are" };
    Some((
        format!(
            "{} {is} in the future; check the clock. Such backups are kept and do not count",
            names.join(", ")
        ),
        format!(
            "timedatectl; if the clock is correct now, move the backup out of {directory}: mv {directory}/{first} ..."
        ),
    ))
}

fn newest_trial(entries: &[Entry]) -> Option<(BackupName, Trial)> {
    let of = |entry: &Entry| Some((entry.name, entry.manifest.as_ref().ok()?.trial.clone()?));
    entries.iter().rev().find_map(of)
}

/// No other backup would do.
fn not_taken(trial: Option<&(BackupName, Trial)>) -> Option<String> {
    let (name, trial) = trial?;
    let reason = trial.not_taken.as_ref()?;
    Some(format!("backup {name} is intact, but cannot be restored completely: {reason}"))
}

const SHRUNK: &str = "matrix-postgres-backup list shows both; check that no data is missing";

const SEARCH_PATH: &str = "change the named objects in the live database, such as by ALTER FUNCTION ... SET search_path; \
    then make a backup: systemctl start matrix-postgres-backup.service";

const EXCLUDE: &str = "add it to backup.exclude_databases in /etc/matrix-postgres/config.toml if it needs no \
    backup; or ALTER DATABASE ... ALLOW_CONNECTIONS true";

/// What a backup lacks that nobody could have left out or read.
fn incomplete(manifest: &Manifest) -> Vec<String> {
    let missing = manifest.missing();
    let sentence = format!("the newest backup is not complete: it was made without {}", missing.join(", "));
    if missing.is_empty() { Vec::new() } else { vec![sentence] }
}

/// The databases that nobody has said need no backup, and that have none; and the homeserver's own, whoever says so.
fn missed(omitted: &[Omitted], settings: &Backup, homeserver: &str) -> Vec<String> {
    let left_out = omitted.iter().filter(|omitted| !settings.excludes(&omitted.name)).filter_map(
        |Omitted { name, reason }| match reason {
            // It was so when the backup was made, and the next will have it.
            // The other is told as what is left over.
            Omission::Excluded | Omission::Unfinished => None,
            reason => Some(format!("database {name:?} is not in the newest backup: {reason}")),
        },
    );
    let own = settings.excludes(homeserver).then(|| {
        format!("database {homeserver:?}, that of the homeserver, is not backed up: {}", Omission::Excluded)
    });
    left_out.chain(own).collect()
}

/// Dumps of less than this change by large shares without meaning anything.
const TOO_SMALL_TO_TELL: u64 = 100_000;

/// The databases whose dump in the newest verified backup is smaller by more than `alarm` than in the
/// verified one before. It is the unpacked dump that counts: whatever the compression, rows are rows.
fn shrunk(entries: &[Entry], alarm: f64) -> Vec<String> {
    let mut verified = entries.iter().rev().filter(|entry| entry.is_verified());
    let (Some(newest), Some(before)) = (verified.next(), verified.next()) else { return Vec::new() };
    let (Ok(new), Ok(old)) = (&newest.manifest, &before.manifest) else { return Vec::new() };
    if new.dump_format != old.dump_format {
        return Vec::new();
    }
    let mut alarms = Vec::new();
    for dump in old.databases.iter().filter(|dump| dump.dump.content_bytes >= TOO_SMALL_TO_TELL) {
        let name = &dump.database.name;
        // That is known, or told as such.
        if new.omitted.iter().any(|omitted| omitted.name == *name) {
            continue;
        }
        let was = dump.dump.content_bytes;
        let now = new.databases.iter().find(|dump| dump.database.name == *name);
        let now = now.map_or(0, |dump| dump.dump.content_bytes);
        let share = 1.0 - now as f64 / was as f64;
        if share > alarm + f64::EPSILON {
            alarms.push(match now {
                0 => format!(
                    "database {name:?} is not in the newest verified backup, but was in an earlier one ({}, {})",
                    DecimalBytes(was),
                    before.name
                ),
                now => format!(
                    "the dump of database {name:?} shrank by {:.0} %: {} in {}, {} in {}",
                    share * 100.0,
                    DecimalBytes(was),
                    before.name,
                    DecimalBytes(now),
                    newest.name
                ),
            });
        }
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;
    use crate::backup::manifest::{How, ReadBack};
    use crate::config::Fragment;
    use std::path::Path;
    use std::sync::Arc;

    enum Found {
        NotRead,
        Good,
        Bad(&'static str),
    }
    use Found::{Bad, Good, NotRead};

    fn entry(name: &str, found: Found) -> Entry {
        let mut manifest = example(name);
        let read_back = |damage: Option<&str>| ReadBack {
            at: manifest.name.time(),
            damage: damage.map(str::to_owned),
            how: How::Files,
        };
        manifest.read_back = match found {
            NotRead => None,
            Good => Some(read_back(None)),
            Bad(damage) => Some(read_back(Some(damage))),
        };
        Entry {
            name: manifest.name,
            files: Arc::new(Directory::new(Path::new(name))),
            manifest: Ok(manifest),
        }
    }

    fn judged(entries: &[Entry], timer: &Timer) -> Status {
        judged_with("", entries, timer)
    }

    fn judged_with(configuration: &str, entries: &[Entry], timer: &Timer) -> Status {
        let fragment = Fragment::parse(configuration, std::path::Path::new("c.toml")).unwrap();
        let settings = Settings::from_fragment(fragment).unwrap();
        judge(entries, &settings, timer, Some(2_000_000), "2026-11-24T09:00:00Z".parse().unwrap())
    }

    fn next() -> Timer {
        Timer::Next("2026-11-25T03:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_young_verified_backup_and_a_timer_are_all_it_takes() {
        let status = judged(&[entry("20261124T030000Z", Good)], &next());
        assert!(status.well, "{:?}", status.problems);
        assert_eq!(status.newest.unwrap().age_seconds, 6 * 3600);
        assert!(judged(&[entry("20261124T030000Z", Good)], &Timer::None).well);
    }

    #[test]
    fn a_version_without_corrections_is_told_and_all_is_well() {
        let now = "2026-11-28T00:00:00Z".parse().unwrap();
        let of = |major| judged(&[entry("20261124T030000Z", Good)], &next()).with_version(major, now);
        let old = of(Some(Major(13)));
        assert!(
            old.well && old.warnings[0].contains("out of support since 2025-11-13"),
            "{:?}",
            old.warnings
        );
        assert_eq!(old.hint.as_deref(), Some(support::UPGRADE));
        for fine in [of(Some(Major(17))), of(None)] {
            assert!(fine.warnings.is_empty() && fine.hint.is_none());
        }
        // What is not well comes first.
        let none = judged(&[], &next()).with_version(Some(Major(14)), now);
        assert_eq!(none.hint.as_deref(), Some("systemctl start matrix-postgres-backup.service"));
    }

    #[test]
    fn a_server_that_was_not_restarted_after_an_update_is_told_and_all_is_well() {
        let of = |is_replaced| {
            judged(&[entry("20261124T030000Z", Good)], &next()).with_replaced_server(is_replaced, "x.service")
        };
        let old = of(true);
        assert!(old.well && old.warnings[0].contains("an update of PostgreSQL was installed"));
        assert_eq!(old.hint.as_deref(), Some("systemctl restart x.service"));
        assert!(of(false).warnings.is_empty());
    }

    #[test]
    fn everything_else_is_named() {
        let good = || entry("20261123T050000Z", Good);
        for (entries, timer, expected) in [
            (vec![], next(), "there is no backup"),
            (vec![entry("20261120T030000Z", Good)], next(), "102 hours old"),
            (vec![good(), entry("20261124T030000Z", NotRead)], next(), "has not been read back"),
            (vec![good(), entry("20261124T030000Z", Bad("x"))], next(), "is damaged: x"),
            (vec![entry("20271124T030000Z", Good)], next(), "is in the future"),
            (vec![good()], Timer::Inactive, "timer is not active"),
            (vec![good()], Timer::Unknown("no bus".into()), "no bus"),
        ] {
            let status = judged(&entries, &timer);
            assert!(!status.well);
            assert!(
                status.problems.iter().any(|problem| problem.contains(expected)),
                "{:?}",
                status.problems
            );
        }
    }

    #[test]
    fn a_backup_of_the_future_hides_nothing_of_today() {
        let future = || entry("20301124T030000Z", Good);
        let status = judged(&[entry("20261124T030000Z", Good), future()], &next());
        assert_eq!(status.newest.unwrap().name.to_string(), "20261124T030000Z");
        assert_eq!(status.newest_verified.unwrap().to_string(), "20261124T030000Z");
        assert_eq!(status.future, [future().name]);
        let [problem] = status.problems.as_slice() else { panic!("{:?}", status.problems) };
        assert!(problem.starts_with("20301124T030000Z is in the future"), "{problem}");
        let hint = status.hint.unwrap();
        assert!(
            hint.contains("timedatectl") && hint.contains("mv /var/backups/matrix-postgres/20301124T030000Z")
        );
        // An old one of today is old, although there is a newer one of the future.
        let problems = judged(&[entry("20261120T030000Z", Good), future()], &next()).problems;
        assert!(problems[0].contains("102 hours old"), "{problems:?}");
        let status = judged(&[future()], &next());
        assert!(
            status.newest.is_none()
                && status.problems[0].contains("no backup except those with a time in the future")
        );
        assert!(status.hint.unwrap().starts_with("timedatectl"));
    }

    #[test]
    fn a_dump_that_shrank_raises_the_alarm() {
        let sized = |name: &str, bytes: Option<u64>| {
            let mut entry = entry(name, Good);
            let manifest = entry.manifest.as_mut().unwrap();
            match bytes {
                Some(bytes) => manifest.databases[0].dump.content_bytes = bytes,
                None => manifest.databases.clear(),
            }
            entry
        };
        let of = |before, newest| {
            let entries = [sized("20261123T050000Z", before), sized("20261124T030000Z", newest)];
            judged(&entries, &next()).problems
        };
        let none: [String; 0] = [];
        assert_eq!(of(Some(1_000_000), Some(700_000)), none);
        assert_eq!(of(Some(99_999), Some(1)), none);
        assert_eq!(of(None, Some(1)), none);
        assert_eq!(
            of(Some(1_000_000), Some(690_000)),
            [
                "the dump of database \"home\\\"server\" shrank by 31 %: 1.00 MB in 20261123T050000Z, 690.00 kB in \
              20261124T030000Z"
            ]
        );
        assert!(of(Some(1_000_000), None)[0].contains("is not in the newest verified backup"));
        // A damaged one in between is not compared with.
        let entries = [
            sized("20261122T050000Z", Some(1_000_000)),
            entry("20261123T050000Z", Bad("x")),
            sized("20261124T030000Z", Some(900_000)),
        ];
        assert_eq!(judged(&entries, &next()).problems, none);
    }

    #[test]
    fn a_database_that_is_left_out_is_named_unless_the_configuration_names_it() {
        let mut without = entry("20261124T030000Z", Good);
        without.manifest.as_mut().unwrap().omitted = vec![
            Omitted { name: "closed".into(), reason: Omission::NoConnections },
            Omitted { name: "gone".into(), reason: Omission::HalfDropped },
            Omitted { name: "scratch".into(), reason: Omission::Excluded },
        ];
        let entries = [without];
        let status = judged(&entries, &next());
        assert_eq!(
            status.problems,
            [
                "database \"closed\" is not in the newest backup: it does not allow connections (ALLOW_CONNECTIONS false)",
                "database \"gone\" is not in the newest backup: a DROP DATABASE of it was interrupted"
            ]
        );
        assert!(!status.well && status.hint.unwrap().starts_with("add it to backup.exclude_databases"));
        assert_eq!(status.omitted.len(), 3);
        let excluded = "backup.exclude_databases = [\"closed\", \"g*\"]";
        assert!(judged_with(excluded, &entries, &next()).well);
        let own = judged_with("backup.exclude_databases = [\"*\"]", &entries, &next());
        assert_eq!(
            own.problems,
            [
                "database \"homeserver\", that of the homeserver, is not backed up: excluded by backup.exclude_databases"
            ]
        );
    }

    #[test]
    fn a_database_that_is_excluded_has_not_shrunk() {
        let before = entry("20261123T050000Z", Good);
        let mut now = entry("20261124T030000Z", Good);
        let manifest = now.manifest.as_mut().unwrap();
        let name = manifest.databases.remove(0).database.name;
        manifest.omitted = vec![Omitted { name, reason: Omission::Excluded }];
        assert!(judged(&[before, now], &next()).well);
    }

    #[test]
    fn a_disk_without_room_for_another_is_not_well() {
        let mut large = entry("20261124T030000Z", Good);
        large.manifest.as_mut().unwrap().databases[0].dump.bytes = 3_000_000;
        let problems = judged(&[large], &next()).problems;
        assert_eq!(
            problems,
            ["not enough disk space for another backup: free 2.00 MB, size of the newest backup 3.00 MB"]
        );
    }

    #[test]
    fn an_unverified_newest_does_not_hide_the_verified_one() {
        let status = judged(&[entry("20261123T050000Z", Good), entry("20261124T030000Z", NotRead)], &next());
        assert_eq!(status.newest_verified.unwrap().to_string(), "20261123T050000Z");
        assert_eq!(status.hint.unwrap(), "matrix-postgres-backup verify 20261124T030000Z");
    }

    #[test]
    fn a_damaged_backup_is_not_to_be_read_again_but_to_be_replaced() {
        let status = judged(&[entry("20261124T030000Z", Bad("x"))], &next());
        assert_eq!(status.hint.unwrap(), "systemctl start matrix-postgres-backup.service");
    }
}
