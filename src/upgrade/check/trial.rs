//! What the cut will say, asked beforehand: empty clusters of the target are given everything but rows, by both methods, and
//! thrown away. The live server is only read.

use std::time::Duration;

use super::definitions::{self, Carried};
use super::{is_to_be_tried, rules, views};
use crate::account::Account;
use crate::backup::globals::Globals;
use crate::backup::origin::Stream;
use crate::backup::sample::{self, Refused, Sampled};
use crate::backup::scratch::Scratch;
use crate::backup::target::Authority;
use crate::config::{Depth, Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::{
    self, Connection, Database, HOME, Major, Session, pg_dump, refusals, stamps, without_verifiers,
};
use crate::report::Silent;
use crate::runtime::{Runtime, output};
use crate::upgrade::facts::{self, CatalogSetting, Facts, Obstacle, Tried};
use crate::upgrade::methods::online;
use crate::upgrade::methods::online::conversion::Conversion;
use crate::upgrade::plan::choice::standing_obstacles;
use crate::upgrade::plan::{Plan, plan};
use crate::upgrade::records::{Journal, Upgrade, named_after};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::temporary::{self, CHECK, TemporaryClusters};
use crate::upgrade::steps::transfer::{self, Loading};
use crate::upgrade::steps::work::owner;

const SUPERUSERS: &str = "SELECT pg_catalog.json_agg(rolname) FROM pg_catalog.pg_roles WHERE rolsuper;";

/// The facts for an upgrade to `to`, or to the newest installed version, with what the target says of all that can be tried
/// without rows. The caller holds the lock of the cluster.
///
/// # Errors
/// As [`facts::gather`]; [`Kind::Locked`] while an upgrade has not ended; others if it could not be tried.
pub fn gather(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>, _lock: &Lock) -> Result<Facts> {
    let mut facts = facts::gather(settings, runtime, to)?;
    if is_to_be_tried(&facts) {
        let tried = attempt(settings, runtime, &facts).map_err(|error| {
            error
                .context("the test on an empty cluster of the target version failed")
                .state("nothing was stopped, and nothing was changed")
        })?;
        facts.tried = Some(tried);
    }
    Ok(facts)
}

fn attempt(settings: &Settings, runtime: &dyn Runtime, facts: &Facts) -> Result<Tried> {
    Journal::require_ended(&settings.state_directory)?;
    temporary::clear_abandoned(settings)?;
    let plan = plan(settings, facts, None, facts.now)?;
    let place =
        |end: &str| named_after(&plan.upgrade.data_directory, &format!("{CHECK}{}{end}", plan.upgrade.id));
    let by = |method, end: &str| Upgrade { method, ..plan.upgrade.clone().thrown_away(place(end)) };
    let by_dump = Plan { upgrade: by(Method::Dump, ""), checksums: true, ..plan.clone() };
    let by_pg_upgrade = Plan {
        upgrade: by(Method::Online, "-copy"),
        checksums: facts.cluster.as_ref().is_some_and(|cluster| cluster.server.data_checksums),
        ..plan.clone()
    };
    let account = &owner(&facts.data_directory)?;
    let _clusters = TemporaryClusters::set(
        settings,
        &plan.upgrade.id,
        vec![by_dump.upgrade.beside.clone(), by_pg_upgrade.upgrade.beside.clone()],
    )?;
    let sockets = &Sockets::make(&settings.socket_directory, account)?;
    let live = &settings.connection().to_server(plan.upgrade.from);
    let trial = |plan| Trial { settings, runtime, account, sockets, facts, live, plan };
    let (restored, recreated) = std::thread::scope(|scope| {
        let recreated = scope.spawn(|| trial(&by_pg_upgrade).recreate());
        let restored = trial(&by_dump).restore();
        let panicked = |_| Err(Error::new(Kind::Bug, "the trial of pg_upgrade panicked"));
        (restored, recreated.join().unwrap_or_else(panicked))
    });
    let mut tried = restored?;
    let (refused, untried) = recreated?;
    tried.online = refused;
    tried.untried.extend(untried);
    Ok(tried.sorted())
}

/// One of the two.
struct Trial<'a> {
    settings: &'a Settings,
    runtime: &'a dyn Runtime,
    account: &'a Account,
    sockets: &'a Sockets,
    facts: &'a Facts,
    live: &'a Connection,
    plan: &'a Plan,
}

impl Trial<'_> {
    fn live(&self) -> Session<'_> {
        Session { runtime: self.runtime, major: self.plan.upgrade.to, connection: self.live }
    }

    fn make(&self) -> Result<()> {
        cluster::create(self.runtime, self.account, self.plan)?;
        // What becomes of which line is among the facts already.
        cluster::configure(self.runtime, self.account, self.plan).map(drop)
    }

    fn start(&self, side: Side) -> Result<Private<'_>> {
        let new = (side, self.plan.upgrade.beside.as_path(), self.plan.upgrade.to);
        Private::start(self.runtime, self.account, self.sockets, self.plan, new)
    }

    /// By method `dump`: the files of the configuration, roles and settings, and every database's definitions.
    fn restore(&self) -> Result<Tried> {
        let mut tried = Tried::default();
        self.make()?;
        tried.refused = rules::refused(self.runtime, self.account, self.sockets, self.plan, &self.live())?;
        if !tried.refused.is_empty() {
            return Ok(tried);
        }
        tried.refused = self.libraries();
        if !tried.refused.is_empty() {
            return Ok(tried);
        }
        let new = self.start(Side::New)?;
        let session = new.session();
        if let Err(error) = transfer::globals(&self.live(), &session) {
            tried.refused.push(said(error)?);
            return Ok(tried);
        }
        let mut databases = self.databases()?;
        let old = transfer::dumped_by(&self.live(), &session, &databases)?;
        (tried.dump, tried.untried) = self.carry(&old, &session, &databases, false)?;
        databases.retain(|database| !tried.untried.contains(&database.name));
        let is_carried = tried.dump.is_empty();
        if is_carried
            && tried.untried.is_empty()
            && let Err(error) = transfer::omitted_by_default(&old, &session)
        {
            tried.dump.push(said(error)?);
            return Ok(tried);
        }
        if is_carried && tried.untried.is_empty() {
            let depth = match self.settings.upgrade.compare {
                Depth::Files => Depth::Files,
                Depth::Rows | Depth::Content => Depth::Rows,
            };
            tried.dump = self.differing(&session, depth)?;
        }
        if is_carried {
            self.rows(&session, &databases, &mut tried)?;
        }
        tried.dump.extend(views::refused(&self.live(), &session, &databases)?);
        Ok(tried)
    }

    /// By method `online`: what pg_upgrade looks at by itself, and what it then gives the new cluster. What is refused, and
    /// which databases were not tried.
    fn recreate(&self) -> Result<(Vec<Obstacle>, Vec<String>)> {
        let refused = |error| said(error).map(|obstacle| (vec![obstacle], Vec::new()));
        if !standing_obstacles(self.facts).is_empty() {
            return Ok(Default::default());
        }
        self.make()?;
        let Self { runtime, account, sockets, plan, .. } = *self;
        let conversion = Conversion { runtime, account, sockets, plan, logs: None };
        // It would not see the server in a container, and start a second one. An upgrade has it look at a copy.
        let old = (plan.upgrade.data_directory.as_path(), self.live.port);
        if plan.upgrade.container.is_none()
            && let Err(error) = conversion.check(old)
        {
            return refused(error);
        }
        let new = self.start(Side::Recreated)?;
        let session = new.session();
        if let Err(error) = self.numbered_globals(&session) {
            return refused(error);
        }
        let databases = self.databases()?;
        for database in &databases {
            // The copy is freed of them first, and this pg_dump does not know them.
            if stamps::are_in(&self.live(), &database.name)? && !stamps::are_known(&session)? {
                return Ok(Default::default());
            }
        }
        let (obstacles, untried) = self.carry(&self.live(), &session, &databases, true)?;
        if !obstacles.is_empty() || !untried.is_empty() {
            return Ok((obstacles, untried));
        }
        // pg_upgrade leaves this behind, and an upgrade brings it afterwards.
        let for_all = postgres::settings_of_all(&self.live())?;
        match online::set_for_all(&session, &for_all) {
            Ok(()) => Ok((self.differing(&session, Depth::Files)?, Vec::new())),
            Err(error) => refused(error),
        }
    }

    /// In the order in which an upgrade takes them: the two that are replaced come first.
    fn databases(&self) -> Result<Vec<Database>> {
        let mut databases = postgres::databases(&self.live())?;
        databases.sort_by_key(|database| !transfer::by_way_of(database).1);
        Ok(databases)
    }

    /// What is refused, and which databases were not tried.
    fn carry(
        &self,
        old: &Session<'_>,
        new: &Session<'_>,
        databases: &[Database],
        numbered: bool,
    ) -> Result<(Vec<Obstacle>, Vec<String>)> {
        let Upgrade { from, to, .. } = &self.plan.upgrade;
        let lock_timeout = self.lock_timeout();
        let superusers = match self.facts.trust_owners {
            true => None,
            false => Some(self.live().query(HOME, SUPERUSERS)?),
        };
        let carried = Carried { old, new, from: *from, to: *to, lock_timeout, numbered, superusers };
        let (mut refused, mut untried) = (Vec::new(), Vec::new());
        for database in databases {
            let obstacles = match carried.database(database)? {
                // As an upgrade does it, which gives owners no more than their own rights.
                None if !numbered => self.by_owners(old, new, database)?,
                obstacles => obstacles,
            };
            match obstacles {
                Some(obstacles) => refused.extend(obstacles),
                None => untried.push(database.name.clone()),
            }
        }
        Ok((refused, untried))
    }

    /// The first thing that is refused of a database whose definitions may run functions of its owners; nothing where only a
    /// superuser could make them.
    fn by_owners(
        &self,
        old: &Session<'_>,
        new: &Session<'_>,
        database: &Database,
    ) -> Result<Option<Vec<Obstacle>>> {
        let scratch = &self.scratch()?;
        let lock_timeout = self.lock_timeout();
        let dump =
            Stream { session: old, database: &database.name, bytes: 0, lock_timeout, without_rows: true };
        let loading = Loading { scratch, authority: Authority::Owner };
        match transfer::load(new, &dump, database, loading, &mut Silent) {
            Ok(()) => Ok(Some(Vec::new())),
            Err(error) if error.kind() == Kind::Config => Ok(None),
            Err(error) => {
                let hint = error.hint_text().map(str::to_owned);
                said(error).map(|obstacle| Some(vec![Obstacle { hint, ..obstacle }]))
            }
        }
    }

    fn scratch(&self) -> Result<Scratch> {
        transfer::scratch(&self.settings.socket_directory, self.account)
    }

    fn lock_timeout(&self) -> Duration {
        self.settings.backup.lock_timeout.min(transfer::LOCK_TIMEOUT)
    }

    /// The first of those that make the server call functions.
    fn rows(&self, new: &Session<'_>, databases: &[Database], tried: &mut Tried) -> Result<()> {
        for Database { name, .. } in databases {
            let sampled = sample::load(&self.live(), new, name, || self.scratch(), self.facts.trust_owners);
            let Sampled { refused, unknown } = match sampled {
                // Nobody can log in with the owners' rights, or the like.
                Err(error) if error.kind() == Kind::Config => {
                    tried.unknown.push(format!("database {name:?}: no rows were tested: {error}"));
                    continue;
                }
                sampled => sampled?,
            };
            tried.unknown.extend(unknown.into_iter().map(|what| format!("database {name:?}: {what}")));
            tried.dump.extend(refused.into_iter().map(|Refused { table, error, said }| {
                let message = format!(
                    "database {name:?}: rows of table {table} cannot be restored from a dump: {error}"
                );
                Obstacle { message: without_verifiers(&message), hint: Some(refusals::cure(&said)) }
            }));
        }
        Ok(())
    }

    /// What cannot be compared now cannot be in the downtime.
    fn differing(&self, new: &Session<'_>, depth: Depth) -> Result<Vec<Obstacle>> {
        definitions::differing(&self.live(), new, depth)
            .or_else(|error| said(error).map(|obstacle| vec![obstacle]))
    }

    /// As pg_upgrade carries them.
    fn numbered_globals(&self, new: &Session<'_>) -> Result<()> {
        let live = self.live();
        let call = pg_dump::globals_numbered(live.connection, transfer::LOCK_TIMEOUT);
        let text = output(live.runtime.command(live.major, &call)?, "pg_dumpall", &[])?;
        let globals = Globals::parse(&String::from_utf8_lossy(&text))?;
        new.execute_foreign(HOME, &globals.for_server(&[]))
            .map_err(|error| error.context("pg_upgrade could not restore the roles"))
    }

    /// Libraries that settings of roles and databases name, and the target has not. Their values are among the facts already.
    fn libraries(&self) -> Vec<Obstacle> {
        let settings = self.facts.cluster.as_ref().map(|cluster| cluster.shared.settings.as_slice());
        let refused = |setting: &CatalogSetting| {
            let (library, whose) = (self.missing_library(setting)?, setting.whose());
            let CatalogSetting { name, .. } = setting;
            let to = self.plan.upgrade.to;
            Some(Obstacle {
                message: format!(
                    "{name} of {whose} names the library {library}, which is not installed for PostgreSQL {to}"
                ),
                hint: Some(format!("ALTER {whose} RESET {name}")),
            })
        };
        settings.unwrap_or_default().iter().filter_map(refused).collect()
    }

    /// Without it, nobody whom the setting is for could log in.
    fn missing_library(&self, setting: &CatalogSetting) -> Option<String> {
        if !["session_preload_libraries", "local_preload_libraries"].contains(&setting.name.as_str()) {
            return None;
        }
        let directory = if setting.name.starts_with("local") { "$libdir/plugins/" } else { "" };
        let names = postgres::elements(&setting.value).into_iter().filter(|name| !name.is_empty());
        let files = names.map(|name| if name.contains('/') { name } else { format!("{directory}{name}") });
        files.into_iter().find(|file| self.runtime.has_library(self.plan.upgrade.to, file) == Some(false))
    }
}

/// A refusal in a program's or a server's words; what is no refusal is an error of our own.
fn said(error: Error) -> Result<Obstacle> {
    use Kind::{Damaged, NotTaken, NotWell, Program, Server};
    if !matches!(error.kind(), Server | Program | NotWell | Damaged | NotTaken) {
        return Err(error);
    }
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    let mut sentence = String::new();
    let mut is_warning = false;
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // A program that we let connect by itself repeats what the server warns of at each login.
        let [warns, explains] = [&["WARNING: "][..], &["DETAIL: ", "HINT: "]]
            .map(|starts| starts.iter().any(|start| line.starts_with(start)));
        is_warning = warns || is_warning && explains;
        if is_warning {
            continue;
        }
        // Long sentences come in several lines.
        let goes_on = line.starts_with(|c: char| c.is_lowercase());
        sentence.push_str(if sentence.is_empty() {
            ""
        } else if goes_on {
            " "
        } else {
            "; "
        });
        sentence.push_str(line);
    }
    Ok(Obstacle { message: without_verifiers(&sentence), hint: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_sentence_without_passwords() {
        let error =
            Error::new(Kind::Program, "psql failed").because("ERROR:  x\n\nPASSWORD 'SCRAM-SHA-256$4096:y'");
        assert_eq!(said(error).unwrap().message, "psql failed: ERROR:  x; PASSWORD '…'");
        let noisy = "Checking for x  fatal\nWARNING:  invalid value\nDETAIL:  y is gone.\nWARNING:  invalid value\nin database:\nq";
        let error = Error::new(Kind::Program, "pg_upgrade failed").because(noisy);
        assert_eq!(said(error).unwrap().message, "pg_upgrade failed: Checking for x  fatal in database: q");
        assert!(said(Error::new(Kind::Interrupted, "x")).is_err());
    }
}
