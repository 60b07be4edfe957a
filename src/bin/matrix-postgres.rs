//! All programs are one file, and the name by which it is called says which of them it is.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use matrix_postgres::cli::{self, backup, container, psql, server, setup, upgrade};

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some(name @ "matrix-postgres-backup") => cli::main(name, backup::run),
        Some(name @ "matrix-postgres-cli") => cli::main(name, psql::run),
        Some(name @ "matrix-postgres-container") => cli::main(name, container::run),
        Some(name @ "matrix-postgres-server") => cli::main(name, server::run),
        Some(name @ "matrix-postgres-upgrade") => cli::main(name, upgrade::run),
        // Another name, as of a copy, is that of the program whose help names the others.
        _ => cli::main("matrix-postgres", setup::run),
    }
}
