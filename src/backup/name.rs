//! Names of backups and of the files in them.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::archive::Method;
use crate::config::Compression;
use crate::files::stamp;
use crate::postgres::BackupFormat;

/// The name of a backup: the time at which it was begun, in UTC, such as `20261124T030000Z`.
///
/// Nothing else is a backup's name, so that nothing else is ever touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName(Timestamp);

/// A clock may be off by so much.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

impl BackupName {
    /// The name of a backup that begins now; fractions of a second are cut off.
    pub fn at(time: Timestamp) -> Self {
        Self(Timestamp::from_second(time.as_second()).unwrap_or(time))
    }

    /// When it was begun.
    pub fn time(self) -> Timestamp {
        self.0
    }

    /// Whether it bears a time that is yet to come, by more than clocks may be off. Such a backup stays, and counts for
    /// nothing: neither names nor decisions of today are to follow a clock that was wrong.
    pub fn is_future(self, now: Timestamp) -> bool {
        self.0.duration_since(now) > TOLERANCE
    }

    /// The name one second later.
    #[must_use]
    pub fn next(self) -> Self {
        Self(Timestamp::from_second(self.0.as_second() + 1).unwrap_or(self.0))
    }

    /// The name of the directory while the backup is being made; hidden, and never a backup's name.
    pub fn partial(self) -> String {
        format!(".{self}.partial")
    }

    /// The backup whose unfinished directory has this name.
    pub fn from_partial(name: &str) -> Option<Self> {
        name.strip_prefix('.')?.strip_suffix(".partial")?.parse().ok()
    }

    /// The name of the directory while the backup is being removed; hidden, and never a backup's name.
    pub fn removing(self) -> String {
        format!(".{self}.removing")
    }

    /// The backup whose half-removed directory has this name.
    pub fn from_removing(name: &str) -> Option<Self> {
        name.strip_prefix('.')?.strip_suffix(".removing")?.parse().ok()
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&stamp::write(self.0))
    }
}

/// The text is not a backup's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAName;

impl FromStr for BackupName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        stamp::read(text).map(Self).ok_or(NotAName)
    }
}

impl serde::Serialize for BackupName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BackupName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a backup's name")))
    }
}

/// The file that holds a database: `homeserver.dump.zst`, `homeserver.sql.gz`.
///
/// Letters, digits, `-`, `_` and `.` stand for themselves and all other bytes are written `%XX`, so that
/// different databases have different files whatever their names are made of.
pub fn database_file(database: &str, format: BackupFormat, compression: Compression) -> String {
    let mut file = String::new();
    for (position, byte) in database.bytes().enumerate() {
        // `globals.sql.gz` is taken, and a leading dot would hide the file.
        let plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && position > 0);
        if plain && !(position == 0 && database == "globals") {
            file.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(file, "%{byte:02X}");
        }
    }
    file + match format {
        BackupFormat::Custom => ".dump",
        BackupFormat::Plain => ".sql",
    } + extension(compression)
}

/// The file that holds roles and tablespaces.
pub fn globals_file(compression: Compression) -> String {
    format!("globals.sql{}", extension(compression))
}

/// The file that holds what a homeserver needs beside its databases; it is always encrypted.
pub fn companions_file(compression: Compression) -> String {
    format!("companions.tar{}", extension(compression))
}

/// What a file is called once it is encrypted by this, if it is.
pub fn encrypted(file: String, method: Option<Method>) -> String {
    match method {
        Some(method) => format!("{file}.{}", method.extension()),
        None => file,
    }
}

fn extension(compression: Compression) -> &'static str {
    match compression {
        Compression::Zstd => ".zst",
        Compression::Gzip => ".gz",
        Compression::None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_we_write_is_a_name() {
        let name: BackupName = "20261124T030000Z".parse().unwrap();
        assert_eq!(name.to_string(), "20261124T030000Z");
        assert_eq!(name.next().to_string(), "20261124T030001Z");
        assert_eq!(BackupName::from_partial(&name.partial()), Some(name));
        assert_eq!(BackupName::from_removing(&name.removing()), Some(name));
        for other in [
            "20261124",
            "20261124T030000",
            "20261324T030000Z",
            "20261124T030000Z.old",
            "latest",
            "",
            "2026112 T030000Z",
        ] {
            assert_eq!(other.parse::<BackupName>(), Err(NotAName), "{other}");
        }
        assert_eq!(BackupName::from_partial("20261124T030000Z"), None);
    }

    #[test]
    fn file_names_are_readable_and_safe() {
        let file = |name| database_file(name, BackupFormat::Custom, Compression::Zstd);
        assert_eq!(file("homeserver"), "homeserver.dump.zst");
        assert_eq!(file("../etc"), "%2E./etc".replace('/', "%2F") + ".dump.zst");
        assert_eq!(file("it's \"ü\""), "it%27s%20%22%C3%BC%22.dump.zst");
        assert_eq!(database_file("globals", BackupFormat::Plain, Compression::Gzip), "%67lobals.sql.gz");
        assert_eq!(database_file("homeserver", BackupFormat::Plain, Compression::Gzip), "homeserver.sql.gz");
    }

    proptest! {
        #[test]
        fn different_databases_have_different_files(a in "\\PC{1,20}", b in "\\PC{1,20}") {
            let file = |name: &str| database_file(name, BackupFormat::Plain, Compression::Gzip);
            prop_assert_eq!(a == b, file(&a) == file(&b));
            prop_assert!(file(&a) != globals_file(Compression::Gzip));
            prop_assert!(!file(&a).starts_with('.') && !file(&a).contains('/'));
        }

        #[test]
        fn names_sort_by_time(a in 0i64..4_000_000_000, b in 0i64..4_000_000_000) {
            let name = |seconds| BackupName::at(Timestamp::from_second(seconds).unwrap());
            prop_assert_eq!(name(a).cmp(&name(b)), name(a).to_string().cmp(&name(b).to_string()));
        }
    }
}
