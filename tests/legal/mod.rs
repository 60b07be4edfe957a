//! Legal databases that are odd, and their way through everything: backup, read back, trial, restore, restore in place,
//! upgrade by either method, rehearsals. Whether two databases are equal is what `pg_dump` says, and not our own comparison.
//!
//! What is expected is written in a file's first lines, the comments:
//! - `create: OPTIONS` of CREATE DATABASE, `database: NAME` if it is not the file's, `in place`: restored so as well
//! - `since: MAJOR` and `until: MAJOR`, of the server that it is made on
//! - `check: TEXT` that `check` must say of it
//! - `differs: TEXT`: what `pg_dump` writes of an object with this text need not be equal; `differs by dump`,
//!   `differs across majors` and `differs online`: by way of a dump, from one major to another, by `pg_upgrade` only
//! - `unqualified across majors`: views need not say what their columns are of where it is clear, which 16 does not
//! - `rows move: TABLE TABLE`: by way of a dump, rows of one may come to another
//! - `not taken: TEXT`: restores and trials end with 44 and say so, and all else is there
//! - `no part`: of what is not taken, a restore has not even the rest
//! - `alone: METHOD STATUS`: with it there, an upgrade by this method ends with this status before anything is stopped;
//!   it is gone before the upgrades of all others; `alone: nothing`: no upgrade is tried
//! - `no restore`: the backup is without it, which is told
#![allow(dead_code, reason = "not everybody who includes this uses all of it")]
#![allow(unreachable_pub, clippy::missing_panics_doc)]

pub mod dumps;
pub mod everything;

pub use everything::Everything;

/// One of the files.
#[derive(Debug, Default)]
pub struct Oddity {
    pub file: String,
    pub text: String,
    pub database: String,
    pub create: String,
    pub since: u16,
    pub until: u16,
    pub in_place: bool,
    pub restores: Restores,
    pub apart: bool,
    pub unqualified: bool,
    pub check: Vec<String>,
    pub not_taken: Vec<String>,
    /// The prefix of a way, and the text.
    pub differs: Vec<(&'static str, String)>,
    /// Tables whose rows may change places by way of a dump.
    pub moving: Vec<String>,
    /// Method and status.
    pub alone: Vec<(String, i32)>,
}

/// What can be restored of one.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Restores {
    /// All that is taken.
    #[default]
    All,
    /// Nothing, for something is not taken.
    NoPart,
    /// It is not in a backup.
    NotBackedUp,
}

/// Ways to another database; "" is all of them.
const DIFFERS: [(&str, &str); 4] = [
    ("differs: ", ""),
    ("differs by dump: ", "dump"),
    ("differs across majors: ", "majors"),
    ("differs online: ", "online"),
];

impl Oddity {
    pub fn parse(file: &str, text: String) -> Self {
        let mut oddity =
            Self { file: file.to_owned(), database: file.to_owned(), until: u16::MAX, ..Self::default() };
        for line in text.lines().map_while(|line| line.strip_prefix("-- ")) {
            let value = |key: &str| line.strip_prefix(key).map(str::to_owned);
            let major = |value: String| value.parse().unwrap_or_else(|_| panic!("{file}: {line}"));
            match line {
                "in place" => oddity.in_place = true,
                "unqualified across majors" => oddity.unqualified = true,
                "no restore" => oddity.restores = Restores::NotBackedUp,
                "no part" => oddity.restores = Restores::NoPart,
                _ => {}
            }
            oddity.database = value("database: ").unwrap_or(oddity.database);
            oddity.create = value("create: ").unwrap_or(oddity.create);
            oddity.since = value("since: ").map_or(oddity.since, major);
            oddity.until = value("until: ").map_or(oddity.until, major);
            oddity
                .moving
                .extend(value("rows move: ").iter().flat_map(|line| line.split(' ').map(str::to_owned)));
            oddity.check.extend(value("check: "));
            oddity.not_taken.extend(value("not taken: "));
            oddity.differs.extend(DIFFERS.iter().filter_map(|(key, way)| Some((*way, value(key)?))));
            oddity.apart |= line.starts_with("alone: ");
            oddity.alone.extend(value("alone: ").filter(|value| value != "nothing").map(|value| {
                let (method, status) = value.split_once(' ').unwrap_or_else(|| panic!("{file}: {line}"));
                (method.to_owned(), status.parse().unwrap_or_else(|_| panic!("{file}: {line}")))
            }));
        }
        oddity.text = text;
        oddity
    }

    /// Texts that objects have which need not be equal on this way.
    pub fn allowed(&self, ways: &[&str]) -> Vec<&str> {
        let allowed = self.differs.iter().filter(|(way, _)| way.is_empty() || ways.contains(way));
        allowed.map(|(_, text)| text.as_str()).collect()
    }
}
