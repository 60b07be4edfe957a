//! pg_checksums(1): whether the pages of a cluster that is shut down are what was written.

use std::path::Path;

use crate::runtime::Call;

/// What it is called.
pub const NAME: &str = "pg_checksums";

/// Reads every page of the cluster in `directory`.
pub fn check(directory: &Path) -> Call {
    let mut call = Call::new(NAME, ["--check", "--pgdata"]);
    call.arguments.push(directory.into());
    call
}
