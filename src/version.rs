//! Major versions.

use std::fmt;

/// A major version of PostgreSQL, 10 or later: the number before the dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Major(pub u16);

impl Major {
    /// From `PG_VERSION`, the file in every data directory: one line with the number.
    pub fn from_pg_version(text: &str) -> Option<Self> {
        text.trim_end().parse().ok().filter(|&major| major >= 10).map(Self)
    }

    /// From `server_version_num`, such as 170006.
    pub fn from_version_num(number: u32) -> Option<Self> {
        u16::try_from(number / 10_000).ok().filter(|&major| major >= 10).map(Self)
    }

    /// From what `--version` prints, such as `pg_dump (PostgreSQL) 17.6 (Debian 17.6-1)`.
    pub fn from_version_line(text: &str) -> Option<Self> {
        let number = text.split_once("(PostgreSQL) ")?.1;
        let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
        Self::from_pg_version(digits)
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_version() {
        assert_eq!(Major::from_pg_version("17\n"), Some(Major(17)));
        assert_eq!(Major::from_pg_version("9.6\n"), None);
        assert_eq!(Major::from_pg_version(""), None);
        assert_eq!(Major::from_version_num(150_018), Some(Major(15)));
        assert_eq!(Major::from_version_line("pg_dump (PostgreSQL) 17.6 (Debian 17.6-1)"), Some(Major(17)));
        assert_eq!(Major::from_version_line("postgres (PostgreSQL) 18devel"), Some(Major(18)));
        assert_eq!(Major::from_version_line("something else 17"), None);
    }
}
