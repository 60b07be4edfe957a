//! What was compared, in numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::HumanCount;

/// How much of the old and of the new cluster was compared, and found equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Tables of all databases.
    pub tables: u64,
    /// Rows of all tables; nothing where tables were compared by the sizes of their files.
    pub rows: Option<u64>,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = HumanCount(self.tables);
        match self.rows {
            Some(rows) => write!(f, "{tables} tables, {} rows", HumanCount(rows)),
            None => write!(f, "{tables} tables, by definition and file size"),
        }
    }
}
