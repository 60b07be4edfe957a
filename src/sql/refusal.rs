//! Why a script is not loaded.

use std::fmt;

/// Why a script is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It has this command of psql's, such as `\connect`.
    Command(String),
    /// It has a statement of this kind, such as `DROP DATABASE`.
    Statement(String),
    /// It goes on behind the end of the dump.
    Behind,
    /// Its encoding is one in which a backslash may be part of a character.
    Encoding,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(name) => write!(f, "it contains the psql command {name}, which is not allowed"),
            Self::Statement(kind) => {
                write!(
                    f,
                    "it contains a statement {kind}, which is not allowed in the restore of one database"
                )
            }
            Self::Behind => write!(f, "it contains statements after the end of the dump"),
            Self::Encoding => {
                write!(f, "its encoding is a client-only encoding; use pg_dump --encoding=UTF8")
            }
        }
    }
}
