//! `matrix-postgres-upgrade`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config;
use crate::error::{Kind, Result};
use crate::postgres::Major;
use crate::upgrade::{check, gather};

/// Tell whether the homeserver's databases could be carried to another major version of PostgreSQL.
///
/// Nothing is changed. Exit status: 0 when nothing stands in the way, 40 when something does.
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres-upgrade", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/matrix-postgres/config.toml, then config.d/*.toml beside it]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what stands in the way of an upgrade, and what is good to know before one
    Check {
        /// Major version to go to; the newest installed if none is given
        #[arg(long, value_name = "MAJOR")]
        to: Option<u16>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Carries out the verb.
///
/// # Errors
/// See [`gather`].
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let settings = config::load(arguments.config.as_deref())?;
    let Verb::Check { to, json } = arguments.verb;
    let report = check(&gather(&settings, &super::host(), to.map(Major))?);
    match json {
        true => super::print_json(&report)?,
        false => super::print(&format!("{report}\n"))?,
    }
    Ok(match report.is_possible() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Kind::NotWell.exit_status()),
    })
}
