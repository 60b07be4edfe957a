//! A backup restored, its WAL replayed, and what came of it compared.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Plan;
use crate::account::Account;
use crate::backup::compare::{Expected, differences};
use crate::backup::pgbackrest::contents::Held;
use crate::backup::pgbackrest::program::Program;
use crate::backup::pgbackrest::replay::{self, Replay};
use crate::config::Settings;
use crate::error::{IoContext as _, Result};
use crate::files;
use crate::postgres::{self, Connection, HOME, PrivateServer, Session, pg_checksums, pg_controldata};
use crate::report::Progress;
use crate::runtime::{Runtime, interrupt, output};

/// How long the replay of the WAL may take until the cluster is consistent.
const REPLAY: Duration = Duration::from_secs(12 * 3600);

/// Whether it has come to where it is to stand still.
const IS_PAUSED: &str = "SELECT pg_catalog.to_json(pg_catalog.pg_is_wal_replay_paused());";

/// A trial under way.
pub(super) struct Attempt<'a> {
    pub(super) settings: &'a Settings,
    pub(super) runtime: &'a dyn Runtime,
    pub(super) program: &'a Program,
    pub(super) plan: &'a Plan,
    pub(super) scratch: &'a Path,
}

impl Attempt<'_> {
    fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    /// The server's version, and what differs.
    pub(super) fn hold(&self, progress: &mut dyn Progress) -> Result<(String, Vec<String>)> {
        let (data, tablespaces) = (self.data(), self.scratch.join("tablespaces"));
        for directory in [&data, &tablespaces] {
            DirBuilder::new().mode(0o700).create(directory).at("create", directory)?;
        }
        progress.begin("restoring by pgBackRest", None);
        self.program.restore_on_trial(&self.plan.backup.label, &data, &tablespaces)?;
        progress.end();
        interrupt::check()?;
        // None of the cluster's own; who may log in is who reaches the socket.
        for (name, text) in [
            ("postgresql.conf", ""),
            ("postgresql.auto.conf", ""),
            ("pg_hba.conf", "local all all trust\n"),
            ("pg_ident.conf", ""),
        ] {
            files::replace(&data.join(name), text)?;
        }
        let control = pg_controldata::read(self.runtime, self.plan.major, &data)?;
        let held = self.plan.held();
        let mut found = Vec::new();
        let mut version = String::new();
        let stops = held.iter().map(|held| Some(*held)).chain(held.is_empty().then_some(None));
        let count = held.len().max(1);
        for (number, held) in stops.enumerate() {
            let mut server = self.until(held, &control, progress)?;
            let connection = self.connection();
            let session = Session { runtime: self.runtime, major: self.plan.major, connection: &connection };
            if number + 1 == count {
                server = end_recovery(server, &session)?;
            }
            if number == 0 {
                let facts = postgres::server_facts(&session)?;
                version.clone_from(&facts.version);
                if facts.system_identifier != self.plan.system_identifier {
                    found.push(format!("the restored cluster is another one, {}", facts.system_identifier));
                }
                found.extend(self.missing(&session)?);
            }
            if let Some(held) = held {
                found.extend(compare(&session, held, progress)?);
            }
            server.stop()?;
        }
        if control.has_checksums {
            progress.begin("reading all pages", None);
            let check = pg_checksums::check(&data);
            output(self.runtime.command(self.plan.major, &check)?, pg_checksums::NAME, &[])
                .map_err(|error| error.context("pages of the restored cluster are damaged"))?;
            progress.end();
        }
        Ok((version, found))
    }

    fn connection(&self) -> Connection {
        let server = &self.settings.server;
        Connection::new(self.scratch, server.port, &server.superuser).to_server(self.plan.major)
    }

    /// A server that has replayed the WAL until there, and stands still.
    fn until(
        &self,
        held: Option<&Held>,
        control: &pg_controldata::Control,
        progress: &mut dyn Progress,
    ) -> Result<PrivateServer> {
        let data = self.data();
        let mut settings = match held {
            // What is written from there on was not seen.
            Some(held) => {
                vec![format!("recovery_target_lsn={}", held.lsn), "recovery_target_inclusive=off".to_owned()]
            }
            None => vec!["recovery_target=immediate".to_owned()],
        };
        let own = ["recovery_target_action=pause", "unix_socket_permissions=0700", "jit=off"];
        settings.extend(own.map(str::to_owned));
        settings.extend(control.limits.iter().cloned());
        let libraries = self.plan.recorded.as_ref().map(|recorded| recorded.libraries.clone().named_only());
        let text = held.map_or_else(|| "it is consistent".to_owned(), |held| held.lsn.clone());
        progress.begin(&format!("replaying the WAL until {text}"), None);
        let (connection, account) = (self.connection(), Account::current());
        let replay = Replay {
            settings: self.settings,
            runtime: self.runtime,
            program: self.program,
            major: self.plan.major,
            data: &data,
            account: &account,
            connection: &connection,
        };
        let session = Session { runtime: self.runtime, major: self.plan.major, connection: &connection };
        let server = replay.start(settings, &libraries.unwrap_or_default(), REPLAY)?;
        let server = replay::until(server, &session, IS_PAUSED)?;
        progress.end();
        Ok(server)
    }

    /// Databases that were there.
    fn missing(&self, session: &Session<'_>) -> Result<Vec<String>> {
        let Some(recorded) = &self.plan.recorded else { return Ok(Vec::new()) };
        let there: Vec<_> = postgres::databases(session)?.into_iter().map(|database| database.name).collect();
        let names = recorded.databases.iter().map(|held| &held.database.name).chain(&recorded.busy);
        Ok(names
            .filter(|name| !there.contains(name))
            .map(|name| format!("database {name:?} is missing"))
            .collect())
    }
}

/// It becomes a primary, as in earnest.
fn end_recovery(server: PrivateServer, session: &Session<'_>) -> Result<PrivateServer> {
    session.query::<Option<String>>(
        HOME,
        "SELECT pg_catalog.to_json(pg_catalog.pg_wal_replay_resume()::text);",
    )?;
    replay::until(server, session, replay::HAS_ENDED)
}

fn compare(session: &Session<'_>, held: &Held, progress: &mut dyn Progress) -> Result<Vec<String>> {
    let name = &held.database.name;
    let there = postgres::databases(session)?;
    if !there.iter().any(|database| database.name == *name) {
        return Ok(Vec::new());
    }
    let expected =
        Expected { database: Some(&held.database), contents: &held.contents, extensions: &held.extensions };
    progress.begin(&format!("comparing {name}"), None);
    let differences = differences(session, name, &expected)?;
    progress.end();
    Ok(differences.into_iter().map(|text| format!("database {name:?}: {text}")).collect())
}
