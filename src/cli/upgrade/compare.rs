//! `compare`, hidden: the comparison of an upgrade, of two servers that run anyway.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::config::{Depth, Settings};
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Connection, Major, Session};
use crate::report;
use crate::runtime::Runtime as _;
use crate::upgrade::compare::{Snapshot, differences};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Socket directory of the old server
    #[arg(long, value_name = "DIRECTORY")]
    old: PathBuf,
    /// Socket directory of the new server
    #[arg(long, value_name = "DIRECTORY")]
    new: PathBuf,
    /// Major version of the programs to use [default: the newest installed]
    #[arg(long, value_name = "MAJOR")]
    to: Option<u16>,
    /// "rows" or "content" [default: upgrade.compare]
    #[arg(long)]
    depth: Option<Depth>,
    /// Concurrent connections to each server
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(settings: &Settings, asked: &Arguments) -> Result<ExitCode> {
    let host = crate::cli::host(settings);
    let newest = || {
        host.majors()
            .last()
            .copied()
            .ok_or_else(|| Error::new(Kind::NotInstalled, "no PostgreSQL is installed"))
    };
    let major = asked.to.map(Major).map_or_else(newest, Ok)?;
    let depth = asked.depth.unwrap_or(settings.upgrade.compare);
    let snapshot = |socket: &Path| {
        let connection = Connection::new(socket, settings.server.port, &settings.server.superuser);
        let session = Session { runtime: &host, major, connection: &connection };
        let connection = connection.clone().to_server(postgres::server_facts(&session)?.major()?);
        let session = Session { connection: &connection, ..session };
        Snapshot::take(&session, depth, asked.jobs, &mut *report::progress(crate::cli::on_terminal()))
    };
    let (old, new) = std::thread::scope(|scope| {
        let old = scope.spawn(|| snapshot(&asked.old));
        let new = snapshot(&asked.new);
        let panicked = |_| Err(Error::new(Kind::Bug, "the comparison of the old server panicked"));
        (old.join().unwrap_or_else(panicked), new)
    });
    let (old, new) = (old?, new?);
    let found = differences(&old, &new);
    if asked.json {
        crate::cli::print_json(&found)?;
    } else {
        let mut text = String::new();
        for difference in &found {
            let weight = if difference.serious { "serious" } else { "note" };
            let _ = writeln!(text, "{weight}: {difference}");
        }
        let databases = old.databases().count();
        let (tables, rows) = (old.tables(), old.rows());
        let _ = writeln!(text, "compared {databases} databases, {tables} tables, {rows} rows");
        crate::cli::print(&text)?;
    }
    Ok(crate::cli::well(found.iter().all(|difference| !difference.serious)))
}
