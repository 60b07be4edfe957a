//! What the server keeps for as long as a session of ours lives, however that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Stdio};

use super::source::Source;
use crate::error::{Error, Kind, Result};
use crate::postgres::{HOME, literal, psql_script};
use crate::runtime::Child;

/// What a session says when it has what it is to hold.
const DONE: &str = "held";

/// A session that holds something.
pub(in crate::upgrade) struct HeldSession {
    _session: Child,
    /// The session ends with it.
    _input: ChildStdin,
}

impl HeldSession {
    /// The log from here on, by a temporary replication slot (chapter "Replication Slots").
    pub(in crate::upgrade) fn log(source: &Source<'_>) -> Result<Self> {
        let slot = literal(&format!("matrix_postgres_{}", std::process::id()));
        let sql = format!(
            "SELECT '{DONE}' FROM pg_catalog.pg_create_physical_replication_slot({slot}, true, true);\n"
        );
        Self::open(source, &sql).map_err(|error| error.context("could not create a replication slot"))
    }

    /// The tablespaces as they are: a new one would be in the same place for the copy, which would write in it what the
    /// server has written over since.
    pub(in crate::upgrade) fn tablespaces(source: &Source<'_>) -> Result<Self> {
        let sql = format!(
            "SET lock_timeout = '30s'; BEGIN;\n\
             LOCK TABLE pg_catalog.pg_tablespace IN SHARE MODE; SELECT '{DONE}';\n"
        );
        Self::open(source, &sql).map_err(|error| error.context("another session is creating a tablespace"))
    }

    fn open(source: &Source<'_>, sql: &str) -> Result<Self> {
        let call = psql_script(&source.connection, HOME);
        let mut command = source.runtime.command(source.programs, &call)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut session = Child::spawn(command, "psql")?;
        let not_asked =
            |error: std::io::Error| Error::new(Kind::Server, "could not write to psql").because(error);
        let Some(mut input) = session.stdin() else {
            return Err(Error::new(Kind::Bug, "psql was started without standard input"));
        };
        input.write_all(sql.as_bytes()).map_err(not_asked)?;
        let mut answer = String::new();
        if let Some(stdout) = session.stdout() {
            BufReader::new(stdout).read_line(&mut answer).map_err(not_asked)?;
        }
        if answer.trim() == DONE {
            return Ok(Self { _session: session, _input: input });
        }
        drop(input);
        let failed = session.wait().err().map(|error| error.with_kind(Kind::Server));
        Err(failed.unwrap_or_else(|| Error::new(Kind::Server, "psql ended unexpectedly")))
    }
}
