//! A server of ours that replays the WAL of the repository.

use std::path::Path;
use std::time::Duration;

use super::program::Program;
use crate::account::Account;
use crate::config::Settings;
use crate::error::Result;
use crate::postgres::{Connection, HOME, Libraries, Major, PrivateServer, Purpose, Session, Startup};
use crate::runtime::{Runtime, Sandbox, interrupt};

/// How often it is asked how far it is.
const TICK: Duration = Duration::from_millis(50);

/// What a restored cluster is recovered by.
pub(super) struct Replay<'a> {
    /// The settings.
    pub(super) settings: &'a Settings,
    /// Where PostgreSQL's programs run.
    pub(super) runtime: &'a dyn Runtime,
    /// What fetches the WAL.
    pub(super) program: &'a Program,
    /// The version of the cluster.
    pub(super) major: Major,
    /// Where it is.
    pub(super) data: &'a Path,
    /// Whose it is.
    pub(super) account: &'a Account,
    /// Where its server is to listen.
    pub(super) connection: &'a Connection,
}

impl Replay<'_> {
    /// Starts the server with these settings, and waits, no longer than `limit`, until the cluster is consistent.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub(super) fn start(
        &self,
        mut settings: Vec<String>,
        libraries: &Libraries,
        limit: Duration,
    ) -> Result<PrivateServer> {
        let Self { runtime, program, major, data, account, connection, .. } = *self;
        settings.push(format!("restore_command={}", program.restore_command(data)));
        settings.push("max_wal_size=512MB".to_owned());
        let startup = Startup::new(Purpose::Copy, major, libraries).with(settings).within(
            Sandbox::new()
                .with_shell()
                .with_programs([program.file().to_owned()])
                .with_readable(&self.settings.backup.repository),
        );
        PrivateServer::start(runtime, major, data, connection, account, &startup, limit)
    }
}

/// Waits until the server answers this question with true. One that has ended meanwhile says more by its last words.
///
/// # Errors
/// [`crate::Kind::Server`], [`crate::Kind::Interrupted`].
pub(super) fn until(
    mut server: PrivateServer,
    session: &Session<'_>,
    question: &str,
) -> Result<PrivateServer> {
    loop {
        interrupt::check()?;
        match session.query::<bool>(HOME, question) {
            Ok(true) => return Ok(server),
            Ok(false) => std::thread::sleep(TICK),
            Err(error) if server.has_ended() => return server.stop().and(Err(error)),
            Err(error) => return Err(error),
        }
    }
}

/// Whether all is replayed, and the server takes writes.
pub(super) const HAS_ENDED: &str = "SELECT pg_catalog.to_json(NOT pg_catalog.pg_is_in_recovery());";
