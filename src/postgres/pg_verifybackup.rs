//! pg_verifybackup(1), since PostgreSQL 13: whether a copy's files are what the server sent.

use std::path::Path;

use crate::runtime::Call;

/// Reads the whole copy, its log included.
pub fn verify(directory: &Path) -> Call {
    let mut call = Call::new("pg_verifybackup", ["--quiet", "--exit-on-error"]);
    call.arguments.push(directory.into());
    call
}
