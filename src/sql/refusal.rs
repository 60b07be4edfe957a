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
            Self::Command(name) => write!(f, "it has the command {name} of psql's, which is not carried out"),
            Self::Statement(kind) => {
                write!(f, "it has a statement {kind}, which is not for a restore of one database")
            }
            Self::Behind => write!(f, "there are statements behind the end of the dump"),
            Self::Encoding => {
                write!(f, "its encoding is for clients only; pg_dump --encoding=UTF8 writes another")
            }
        }
    }
}
