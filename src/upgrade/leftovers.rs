//! What upgrades and rehearsals have left that no journal under way speaks of: it stays until somebody says that it may go.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result, each};
use crate::files::{size_of, stamp};
use crate::lock::Lock;
use crate::postgres::is_whole;
use crate::report::DecimalBytes;
use crate::upgrade::methods::online::logs::KEPT as LOGS;
use crate::upgrade::records::{Entry, Journal, Outcome};
use crate::upgrade::steps::dump_directory;
use crate::upgrade::steps::exchange::GONE;
use crate::upgrade::steps::servers::take_down;

/// The command that removes them.
pub const CLEAN: &str = "matrix-postgres-upgrade clean";

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The new cluster of an upgrade that was undone after clients had been let in: what they wrote is in there.
    WasOpen,
    /// A directory of an upgrade that no journal knows, or one that was not removed whole.
    Upgrade,
    /// A directory of a rehearsal.
    Rehearsal,
    /// A directory of a check.
    Check,
    /// What pg_upgrade wrote when it failed.
    Logs,
    /// A copy that should have become the kept data directory.
    Keeping,
    /// Where the databases lay while they were carried over.
    Dump,
    /// A journal that makes no sense, and was set aside.
    Journal,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WasOpen => "new cluster of an upgrade that was reverted; it may have been written to",
            Self::Upgrade => "of an upgrade that is no longer running",
            Self::Rehearsal => "of a rehearsal that is no longer running",
            Self::Check => "of a check that is no longer running",
            Self::Logs => "logs of pg_upgrade from a failed upgrade",
            Self::Keeping => "incomplete copy of an old data directory",
            Self::Dump => "dump of an upgrade that is no longer running",
            Self::Journal => "unusable journal of an upgrade",
        })
    }
}

/// Something that was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub what: What,
    /// Bytes of it.
    pub bytes: u64,
    /// Since when, by its name.
    pub since: Timestamp,
    /// Whole days since then.
    pub days: i64,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, bytes, since, days } = self;
        let (path, bytes) = (path.display(), DecimalBytes(*bytes));
        write!(f, "{path}, {what}, {bytes}, since {since:.0} ({days} days)")
    }
}

/// What there is. While an upgrade or a rehearsal is under way, what is its own is not left over.
///
/// # Errors
/// [`Kind::File`] if a directory or a journal cannot be read.
pub fn find(settings: &Settings, now: Timestamp) -> Result<Vec<Leftover>> {
    look(settings, now, Lock::is_cluster_taken(settings)?)
}

/// Whoever holds the lock himself knows that nothing else is under way.
fn look(settings: &Settings, now: Timestamp, under_way: bool) -> Result<Vec<Leftover>> {
    let entries = Journal::all(&settings.state_directory)?;
    let mut found = Vec::new();
    for (place, kind) in places(settings) {
        let (Some(parent), Some(prefix)) = (place.parent(), place.file_name()) else { continue };
        for path in listed(parent)? {
            let name = path.file_name().unwrap_or_default().as_bytes();
            let Some((id, since)) = name.strip_prefix(prefix.as_bytes()).and_then(|rest| kind.id(rest))
            else {
                continue;
            };
            let entry = entries.iter().find(|entry| entry.upgrade.id == id);
            if entry.is_some_and(Entry::is_open)
                || under_way && matches!(kind.what, What::Rehearsal | What::Check)
            {
                continue;
            }
            let Ok(meta) = path.symlink_metadata() else { continue };
            let bytes = match (kind.what, meta.is_dir()) {
                (What::Journal, false) => meta.len(),
                (What::Journal, true) | (_, false) => continue,
                // Whoever is not root sees no further.
                (_, true) => size_of(&path).unwrap_or(0),
            };
            let was_open = kind.what == What::Upgrade && entry.is_some_and(|entry| kept_open(entry, &path));
            let what = if was_open { What::WasOpen } else { kind.what };
            found.push(Leftover {
                path,
                what,
                bytes,
                since,
                days: now.duration_since(since).as_hours() / 24,
            });
        }
    }
    found.sort_by(|a, b| (a.since, &a.path).cmp(&(b.since, &b.path)));
    Ok(found)
}

/// See [`super::revert`]: such a one is not removed by us.
fn kept_open(entry: &Entry, path: &Path) -> bool {
    let returned = entry.ended.as_ref().is_some_and(|ended| ended.outcome == Outcome::Returned);
    returned && entry.was_open() && entry.upgrade.beside == path
}

/// Removes them. The caller holds the lock, and has asked.
///
/// # Errors
/// [`Kind::Locked`] while a journal is open, [`Kind::DataDirectory`] if the only whole cluster may be among them;
/// [`Kind::File`], [`Kind::Server`].
pub fn remove(settings: &Settings, leftovers: &[Leftover], now: Timestamp) -> Result<()> {
    Journal::require_ended(&settings.state_directory).map_err(|error| error.state("nothing was removed"))?;
    if !is_whole(&settings.data_directory) {
        let message = format!(
            "{} is not a complete cluster: a leftover may be the only copy",
            settings.data_directory.display()
        );
        return Err(Error::new(Kind::DataDirectory, message).state("nothing was removed"));
    }
    let still = look(settings, now, false)?;
    let is_there = |it: &&Leftover| still.iter().any(|now| now.path == it.path && now.what == it.what);
    each(leftovers.iter().filter(is_there).map(remove_one))
}

fn remove_one(leftover: &Leftover) -> Result<()> {
    let path = &leftover.path;
    match leftover.what {
        What::Journal => std::fs::remove_file(path).at("remove", path)?,
        What::Dump | What::Logs => dump_directory::remove(path)?,
        What::WasOpen | What::Upgrade | What::Rehearsal | What::Check | What::Keeping => take_down(path)?,
    }
    log::info!("removed {}", path.display());
    Ok(())
}

/// Names that are ours: what comes before the time in them, and what may come after it.
struct Naming {
    what: What,
    before: &'static str,
    after: &'static [&'static str],
}

impl Naming {
    /// The time in what follows the prefix, as it is written there.
    fn id<'a>(&self, rest: &'a [u8]) -> Option<(&'a str, Timestamp)> {
        let rest = std::str::from_utf8(rest).ok()?;
        let (before, rest) = match self.what {
            // A later one has a number of its own.
            What::Keeping => rest.split_once(self.before)?,
            _ => ("", rest.strip_prefix(self.before)?),
        };
        let numbered = |before: &str| before.strip_prefix('-').is_some_and(|it| it.parse::<u32>().is_ok());
        if !(before.is_empty() || numbered(before)) {
            return None;
        }
        let (id, after) = rest.split_at_checked(stamp::LENGTH)?;
        let time = stamp::read(id)?;
        self.after.contains(&after).then_some((id, time))
    }
}

const BESIDE: [&str; 5] = ["", "-copy", GONE, "-copy.gone", ".aside"];

/// Where something may have been left, with what its name begins like.
fn places(settings: &Settings) -> Vec<(PathBuf, Naming)> {
    let naming = |what, before, after| Naming { what, before, after };
    let data = &settings.data_directory;
    let dumps = settings.upgrade.dump_directory.join("upgrade-");
    let rehearsals = settings.upgrade.dump_directory.join("rehearsal-");
    let journal = settings.state_directory.join("upgrade/journal.json");
    let logs = settings.state_directory.join(format!("upgrade/{LOGS}"));
    vec![
        (data.clone(), naming(What::Upgrade, ".upgrade-", &BESIDE)),
        (data.clone(), naming(What::Rehearsal, ".rehearsal-", &BESIDE)),
        (data.clone(), naming(What::Check, ".check-", &BESIDE)),
        (logs, naming(What::Logs, "", &[""])),
        (settings.upgrade.keep_path.clone(), naming(What::Keeping, ".partial-", &["", GONE])),
        (dumps, naming(What::Dump, "", &[""])),
        (rehearsals, naming(What::Rehearsal, "", &[""])),
        (journal, naming(What::Journal, ".unusable-", &[""])),
    ]
}

fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries.at("read", directory)?.flatten().map(|entry| entry.path()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;
    use crate::upgrade::records::Ended;
    use crate::upgrade::records::entry::tests::entry;

    struct Place(tempfile::TempDir, Settings);

    /// With a cluster that is whole.
    fn place() -> Place {
        let root = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_fragment(Fragment::default()).unwrap();
        settings.data_directory = root.path().join("data");
        settings.state_directory = root.path().join("state");
        settings.upgrade.keep_path = root.path().join("kept");
        settings.upgrade.dump_directory = root.path().join("dump");
        for directory in ["data/global", "data/base", "data/pg_wal", "data/pg_xact", "state/upgrade"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::fs::write(settings.data_directory.join("PG_VERSION"), "15\n").unwrap();
        std::fs::write(settings.data_directory.join("global/pg_control"), [0; 8192]).unwrap();
        Place(root, settings)
    }

    const ID: &str = "20261124T030000Z";
    const OURS: [&str; 10] = [
        "data.upgrade-20261124T030000Z",
        "data.upgrade-20261124T030000Z-copy",
        "data.upgrade-20261124T030000Z.gone",
        "data.rehearsal-20261124T030000Z-copy",
        "data.check-20261124T030000Z",
        "state/upgrade/pg_upgrade-20261124T030000Z",
        "kept.partial-20261124T030000Z",
        "kept-2.partial-20261124T030000Z",
        "dump/upgrade-20261124T030000Z",
        "dump/rehearsal-20261124T030000Z",
    ];
    const OTHERS: [&str; 8] = [
        "data.upgrade-x",
        "data.upgrade-20261124T030000Z.mine",
        "data.upgrade-20261324T030000Z",
        "data2.upgrade-20261124T030000Z",
        "kept",
        "kept-x.partial-20261124T030000Z",
        "kept-2",
        "dump/20261124T030000Z",
    ];

    fn names(place: &Place) -> Vec<String> {
        let now = "2026-12-06T04:00:00Z".parse().unwrap();
        let found = find(&place.1, now).unwrap();
        assert!(found.iter().all(|it| it.days == 12));
        let name = |path: &Path| path.strip_prefix(place.0.path()).unwrap().display().to_string();
        let mut names: Vec<_> = found.iter().map(|it| name(&it.path)).collect();
        names.sort();
        names
    }

    #[test]
    fn what_bears_our_names_is_named_and_goes_and_nothing_else_does() {
        let place = place();
        for name in OURS.iter().chain(&OTHERS) {
            std::fs::create_dir_all(place.0.path().join(name)).unwrap();
        }
        std::fs::write(place.0.path().join("data.upgrade-20261124T030001Z"), "no directory").unwrap();
        let aside = "state/upgrade/journal.json.unusable-20261124T030000Z";
        std::fs::write(place.0.path().join(aside), "not ours").unwrap();
        let mut expected: Vec<_> = OURS.into_iter().chain([aside]).collect();
        expected.sort_unstable();
        assert_eq!(names(&place), expected);

        let now = Timestamp::now();
        let found = find(&place.1, now).unwrap();
        // Where the data directory is not whole, one of them may be the only cluster.
        let control = place.1.data_directory.join("global/pg_control");
        std::fs::write(&control, "").unwrap();
        assert_eq!(remove(&place.1, &found, now).unwrap_err().kind(), Kind::DataDirectory);
        std::fs::write(&control, [0; 8192]).unwrap();
        // As the command does it. What is under way elsewhere is not left over; here, the lock is our own.
        let lock =
            nix::unistd::geteuid().is_root().then(|| Lock::take_cluster(&place.1, "clean-up").unwrap());
        if lock.is_some() {
            assert!(names(&place).iter().all(|name| !name.contains("rehearsal")));
        }
        remove(&place.1, &found, now).unwrap();
        drop(lock);
        assert!(names(&place).is_empty());
        assert!(OTHERS.iter().all(|name| place.0.path().join(name).exists()));
    }

    #[test]
    fn what_an_open_journal_speaks_of_is_not_left_over_and_what_clients_wrote_is_told() {
        let place = place();
        let name = format!("data.upgrade-{ID}");
        let beside = place.0.path().join(&name);
        std::fs::create_dir(&beside).unwrap();
        let mut open = entry();
        open.upgrade.data_directory.clone_from(&place.1.data_directory);
        open.upgrade.beside.clone_from(&beside);
        open.upgrade.keep_path.clone_from(&place.1.upgrade.keep_path);
        open.upgrade.dump_directory = place.1.upgrade.dump_directory.join(format!("upgrade-{ID}"));
        let mut journal = Journal::begin(&place.1.state_directory, open).unwrap();
        assert!(names(&place).is_empty());
        let now = Timestamp::now();
        assert_eq!(remove(&place.1, &[], now).unwrap_err().kind(), Kind::Locked);
        journal.entry.clients_started = Some(now);
        journal.entry.ended = Some(Ended { outcome: Outcome::Returned, at: now, message: String::new() });
        journal.write().unwrap();
        let found = find(&place.1, now).unwrap();
        assert_eq!((found.len(), found[0].what), (1, What::WasOpen));
        assert!(found[0].to_string().contains("it may have been written to"), "{}", found[0]);
    }
}
