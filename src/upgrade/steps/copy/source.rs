//! The running server that is copied.

use crate::account::Account;
use crate::error::Result;
use crate::postgres::{Connection, HOME, Major, Session};
use crate::runtime::{AsUser, Call, Runtime};
use crate::upgrade::steps::site::Site;

/// The running server, and how to copy it.
pub struct Source<'a> {
    /// Where PostgreSQL's programs run.
    pub runtime: &'a dyn Runtime,
    /// The cluster's owner.
    pub account: &'a Account,
    /// How to reach the server.
    pub connection: Connection,
    /// Its version.
    pub from: Major,
    /// The version of the programs that ask.
    pub programs: Major,
}

impl<'a> Source<'a> {
    /// The server that is upgraded.
    pub fn of(site: &Site<'a>) -> Self {
        let Site { settings: _, runtime, account, plan } = *site;
        let (from, programs) = (plan.upgrade.from, plan.upgrade.to);
        Self { runtime, account, connection: site.live(), from, programs }
    }

    /// To ask it for things.
    pub fn session(&self) -> Session<'_> {
        Session { runtime: self.runtime, major: self.programs, connection: &self.connection }
    }

    pub(super) fn command(&self, call: &Call) -> Result<std::process::Command> {
        AsUser { runtime: self.runtime, account: self.account }.command(self.from, call)
    }

    /// Writes what the server holds in memory to the disk, so that its stop has less to do.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.session().execute(HOME, "CHECKPOINT;")
    }

    /// The end of what it has written to its log.
    ///
    /// # Errors
    /// [`crate::Kind::Server`].
    pub fn end_of_log(&self) -> Result<String> {
        self.session().query(HOME, "SELECT pg_catalog.to_json(pg_catalog.pg_current_wal_flush_lsn());")
    }
}
