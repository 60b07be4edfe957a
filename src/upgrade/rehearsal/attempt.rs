//! The upgrade of the copy, part by part.

use std::path::Path;
use std::time::Instant;

use crate::account::Account;
use crate::config::{Depth, Method, Settings};
use crate::error::{Kind, Result};
use crate::files;
use crate::files::exists;
use crate::postgres::{self, Connection, Major, Session, pg_amcheck};
use crate::report::{Progress, Silent};
use crate::runtime::{Runtime, interrupt, run_and_quote};
use crate::systemd::notify;
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::facts::space::Way;
use crate::upgrade::methods::dump;
use crate::upgrade::methods::online::conversion::Conversion;
use crate::upgrade::methods::online::copy::{self, Follower, Source};
use crate::upgrade::methods::online::{logs, remove_stamps, set_for_all};
use crate::upgrade::plan::Plan;
use crate::upgrade::records::{Rehearsal, Step};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::dump_directory::DumpDirectory;
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::transfer::{self, Loading, jobs, transfer};

/// The first version whose tables can be checked, too.
const STRUCTURE_CHECKED: Major = Major(14);

/// Times the parts.
pub(super) struct Parts<'a> {
    rehearsal: &'a mut Rehearsal,
    begun: Option<(Step, Instant)>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(rehearsal: &'a mut Rehearsal) -> Self {
        Self { rehearsal, begun: None }
    }

    fn begin(&mut self, step: Step) -> Result<()> {
        self.end();
        interrupt::check()?;
        self.begun = Some((step, Instant::now()));
        notify::status(&step.to_string());
        Ok(())
    }

    pub(super) fn end(&mut self) {
        if let Some((step, begun)) = self.begun.take() {
            let seconds = begun.elapsed().as_secs_f64();
            log::info!("{step}: {seconds:.1} s");
            match self.rehearsal.durations.iter_mut().find(|(known, _)| *known == step) {
                Some((_, sum)) => *sum += seconds,
                None => self.rehearsal.durations.push((step, seconds)),
            }
        }
    }
}

/// Does it.
///
/// # Errors
/// Whatever the upgrade would fail with.
pub(super) fn attempt(
    settings: &Settings,
    runtime: &dyn Runtime,
    account: &Account,
    plan: &Plan,
    parts: &mut Parts<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let live = Connection::new(&settings.socket_directory, settings.server.port, &settings.server.superuser)
        .to_server(plan.from);
    let source = Source { runtime, account, connection: live.clone(), from: plan.from, programs: plan.to };
    parts.begin(Step::Preparing)?;
    cluster::make(runtime, account, plan)?;
    let sockets = Sockets::make(&settings.socket_directory, account)?;
    parts.begin(Step::Copying)?;
    let taken = copy::take(&source, &plan.copy, settings.upgrade.max_rate, plan.bytes, progress)?;
    parts.begin(Step::Following)?;
    let mut follower = Follower::start(&source, &sockets, plan, taken)?;
    let logs = Some(logs::place(&settings.state_directory, &plan.id));
    let conversion = Conversion { runtime, account, sockets: &sockets, plan, logs };
    if plan.method == Method::Online {
        conversion.check(&live)?;
    }
    let stamped = match plan.method {
        Method::Online => conversion.stamped(&source.session())?,
        Method::Dump => Vec::new(),
    };
    follower.catch_up(&source)?;
    cluster::sync_file_system(&plan.copy)?;
    let start = |side, directory: &Path, major| {
        Private::start(runtime, account, &sockets, plan, (side, directory, major))
    };
    match plan.method {
        Method::Dump => {
            let old = follower.promote()?;
            let new = start(Side::New, &plan.beside, plan.to)?;
            let files = match plan.way {
                Way::Files => Some(DumpDirectory::make(&plan.dump_directory, account)?),
                Way::Stream => None,
            };
            parts.begin(Step::Transferring)?;
            let scratch = transfer::scratch(&settings.socket_directory, account)?;
            let loading = Loading { scratch: &scratch, authority: plan.authority };
            transfer(&old.session(), &new.session(), files.as_ref(), loading, progress)?;
            parts.begin(Step::Comparing)?;
            dump::compare(&old, &new, settings.upgrade.compare, progress)?;
            old.stop()?;
            new.stop()?;
            parts.begin(Step::Syncing)?;
            cluster::sync(runtime, account, plan)?;
            parts.end();
        }
        Method::Online => {
            parts.begin(Step::Promoting)?;
            let promoted = follower.promote()?;
            remove_stamps(&promoted.session(), &stamped)?;
            parts.end();
            check_structure(&promoted.session(), plan.from)?;
            // Which no upgrade waits for: here there is time.
            let old = Snapshot::take(&promoted.session(), settings.upgrade.compare, jobs(), progress)?;
            parts.begin(Step::Promoting)?;
            let old_files = Snapshot::take(&promoted.session(), Depth::Files, jobs(), &mut Silent)?;
            let for_all = postgres::settings_of_all(&promoted.session())?;
            promoted.stop()?;
            parts.begin(Step::Upgrading)?;
            conversion.carry_out()?;
            parts.begin(Step::Comparing)?;
            let new = start(Side::New, &plan.beside, plan.to)?;
            set_for_all(&new.session(), &for_all)?;
            require_equal(&old_files, &Snapshot::take(&new.session(), Depth::Files, jobs(), &mut Silent)?)?;
            parts.end();
            require_equal(
                &old,
                &Snapshot::take(&new.session(), settings.upgrade.compare, jobs(), progress)?,
            )?;
            new.stop()?;
            parts.begin(Step::Syncing)?;
            cluster::sync_file_system(&plan.beside)?;
            parts.end();
        }
    }
    let size = |directory: &Path| if exists(directory) { files::size_of(directory) } else { Ok(0) };
    // The new cluster's files are the copy's.
    parts.rehearsal.bytes = match plan.method {
        Method::Online => size(&plan.copy)?.max(size(&plan.beside)?),
        Method::Dump => size(&plan.copy)? + size(&plan.beside)?,
    };
    Ok(())
}

/// Tables and indexes, page by page, by the rules of the version that wrote them. The copy is left as it was.
fn check_structure(copy: &Session<'_>, from: Major) -> Result<()> {
    if from < STRUCTURE_CHECKED || !copy.runtime.extensions(from)?.contains("amcheck") {
        log::warn!(
            "the structure of tables and indexes is not checked: PostgreSQL {from} has no amcheck for that"
        );
        return Ok(());
    }
    let mut without = Vec::new();
    for database in postgres::databases(copy)? {
        let has = "SELECT pg_catalog.to_json(pg_catalog.count(*)) FROM pg_catalog.pg_extension WHERE extname = 'amcheck';";
        if copy.query::<u32>(&database.name, has)? == 0 {
            without.push(database.name);
        }
    }
    let forbidding = forbidding(copy)?;
    for (database, triggers) in &forbidding {
        copy.execute(database, &set_all(triggers, "ENABLE"))?;
    }
    let command = copy.runtime.command(copy.major, &pg_amcheck::all(copy.connection, jobs()))?;
    run_and_quote(command, "pg_amcheck").map_err(|error| {
        // Its word for damage; with 1 it could not look.
        if !error.to_string().ends_with("(exit status 2)") {
            return error;
        }
        error
            .with_kind(Kind::Damaged)
            .context("a table or an index of the cluster is damaged")
            .hint("REINDEX INDEX for an index that it names, in matrix-postgres-cli; for a table, a restore of the newest backup")
    })?;
    without.iter().try_for_each(|database| copy.execute(database, "DROP EXTENSION IF EXISTS amcheck;"))?;
    forbidding
        .iter()
        .try_for_each(|(database, triggers)| copy.execute(database, &set_all(triggers, "ENABLE ALWAYS")))
}

/// Event triggers that are carried out whatever a session says: one may forbid to make an extension.
fn forbidding(copy: &Session<'_>) -> Result<Vec<(String, Vec<String>)>> {
    let always = "SELECT coalesce(pg_catalog.json_agg(pg_catalog.quote_ident(evtname)), '[]')
        FROM pg_catalog.pg_event_trigger WHERE evtenabled = 'A';";
    let mut found = Vec::new();
    for database in postgres::databases(copy)? {
        let triggers: Vec<String> = copy.query(&database.name, always)?;
        if !triggers.is_empty() {
            found.push((database.name, triggers));
        }
    }
    Ok(found)
}

/// Commands for event triggers carry out none.
fn set_all(triggers: &[String], state: &str) -> String {
    triggers
        .iter()
        .map(|trigger| format!("ALTER EVENT TRIGGER {trigger} {state};\n"))
        .collect::<Vec<_>>()
        .concat()
}
