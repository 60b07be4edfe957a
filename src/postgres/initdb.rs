//! initdb(1).

use std::path::Path;

use crate::runtime::Call;

/// A cluster that is thrown away: whoever reaches its socket may log in, so that the socket must be in a
/// directory that is closed to others. Nothing of it is made to last.
pub fn throw_away(directory: &Path, superuser: &str) -> Call {
    let mut call = Call::new(
        "initdb",
        ["--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync", "--username", superuser, "--pgdata"],
    );
    call.arguments.push(directory.into());
    call
}

/// A new cluster as Synapse wants it: UTF8, locale C (Synapse's documentation, "Using Postgres"), with page
/// checksums, and scram for every login that is not mapped.
pub fn create(directory: &Path, superuser: &str) -> Call {
    let mut call = Call::new(
        "initdb",
        [
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--auth-local=peer",
            "--auth-host=scram-sha-256",
            "--username",
            superuser,
            "--pgdata",
        ],
    );
    call.arguments.push(directory.into());
    call
}
