//! Restore: into a new database beside the old one, compared with the manifest, and only then given its name.
//! Nothing is dropped: the database that was there stays under another name.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use indicatif::HumanCount;
use jiff::Timestamp;

use super::catalogue::Entry;
use super::compare::{Expected, differences};
use super::globals::Globals;
use super::leftovers;
use super::load::{self, Authority, Source, Target};
use super::loader;
use super::making;
use super::manifest::{DatabaseDump, Manifest};
use super::ownership;
use super::rows::Contents;
use super::scratch::{Need, Scratch, check_space};
use crate::config::{BackupFormat, Settings};
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::Tablespaces;
use crate::postgres::{
    self, Apart, Connection, Database, HOME, Major, Session, identifier, literal, vacuumdb,
};
use crate::report::Progress;
use crate::runtime::{Child, Guard, Runtime, interrupt, tool};
use crate::systemd::{Inhibitor, Manager, Stopped, inhibit};

/// How often the exchange is tried against clients that come back at once.
const TRIES: usize = 10;

/// A trigger of the table's owner would be run by us: none is. What is not a table is not Synapse's.
const WITHOUT_ONE_TIME_KEYS: &str = "DO $$ DECLARE keys pg_catalog.regclass; BEGIN
    SELECT oid INTO keys FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('public.e2e_one_time_keys_json')
        AND relkind = 'r';
    IF keys IS NULL THEN RETURN; END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = keys AND NOT tgisinternal) THEN
        ALTER TABLE public.e2e_one_time_keys_json DISABLE TRIGGER USER;
        TRUNCATE public.e2e_one_time_keys_json;
        ALTER TABLE public.e2e_one_time_keys_json ENABLE TRIGGER USER;
    ELSE
        TRUNCATE public.e2e_one_time_keys_json;
    END IF;
END $$;";

/// Only superusers come in, whoever owns it: what is being looked at stays as it is.
pub(super) fn closed(name: &str) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT 0;\n", identifier(name))
}

/// Others may come in, too.
pub(super) fn opened(name: &str) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT -1;\n", identifier(name))
}

/// PostgreSQL's error code of a database that somebody is connected to (appendix "Error Codes").
const OBJECT_IN_USE: &str = "55006";

/// What is asked for.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The backup.
    pub entry: &'a Entry,
    /// The database in it; by default that of the homeserver.
    pub database: Option<&'a str>,
    /// The name of the new database, beside the live one.
    pub new_name: Option<&'a str>,
    /// The private key of an encrypted backup.
    pub identity: Option<&'a Path>,
    /// With whose rights rows are loaded.
    pub authority: Authority,
    /// Extensions that the live server can make in one of its databases only.
    pub apart: &'a [Apart],
}

/// What a restore does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backup's directory.
    pub backup: PathBuf,
    /// What is restored.
    pub dump: DatabaseDump,
    /// The name that the database will have.
    pub name: String,
    /// Its name until it has been compared.
    pub unfinished: String,
    /// Under which name the database stays that has the name now.
    pub kept: Option<String>,
    /// Where a small part of the dump is unpacked.
    pub scratch: PathBuf,
    /// Whether clients are stopped for the exchange.
    pub stops_clients: bool,
    /// Whether all rows are loaded as the superuser.
    pub as_superuser: bool,
    /// Extensions that cannot be made in a database of another name. They are made when it has its own, or not at all.
    pub apart: Vec<Apart>,
}

/// The plan: pure in the backup, the names of the databases that there are, and the time.
///
/// # Errors
/// [`Kind::NoBackup`] if the backup has no such database, [`Kind::Config`] for a name that is taken or too long.
pub fn plan(settings: &Settings, wish: &Wish<'_>, existing: &[String], now: Timestamp) -> Result<Plan> {
    let manifest = trusted(wish.entry)?;
    let source = wish.database.unwrap_or(&settings.server.database);
    let dump = find(manifest, source)?.clone();
    let name = wish.new_name.unwrap_or(source).to_owned();
    let taken = existing.contains(&name);
    if taken && wish.new_name.is_some() {
        return Err(Error::new(Kind::Config, format!("there is a database {name:?} already"))
            .state("nothing was changed")
            .hint("name another one: --as"));
    }
    let plan = Plan {
        backup: wish.entry.path.clone(),
        unfinished: leftovers::unfinished_name(&name, now),
        kept: taken.then(|| leftovers::name(&name, now)),
        scratch: scratch(settings),
        stops_clients: wish.new_name.is_none(),
        // A script in SQL makes and fills its tables as it goes.
        as_superuser: wish.authority == Authority::Superuser || manifest.dump_format == BackupFormat::Plain,
        // A script in SQL is loaded as a whole.
        apart: match manifest.dump_format {
            BackupFormat::Custom => wish.apart.to_vec(),
            BackupFormat::Plain => Vec::new(),
        },
        dump,
        name,
    };
    // PostgreSQL would cut it, silently (chapter "Lexical Structure").
    if plan.unfinished.len() > 63 {
        return Err(Error::new(Kind::Config, format!("{:?} is too long a name", plan.name))
            .state("nothing was changed")
            .hint("restore it under a shorter one: --as"));
    }
    Ok(plan)
}

/// A restore is root's, who shares no directory with the user of trials.
fn scratch(settings: &Settings) -> PathBuf {
    let mut path = settings.backup.scratch_directory.clone().into_os_string();
    path.push("-restore");
    path.into()
}

fn find<'a>(manifest: &'a Manifest, database: &str) -> Result<&'a DatabaseDump> {
    manifest.databases.iter().find(|dump| dump.database.name == database).ok_or_else(|| {
        let names: Vec<_> = manifest.databases.iter().map(|dump| dump.database.name.as_str()).collect();
        let omitted = manifest.omitted.iter().find(|omitted| omitted.name == database);
        let why =
            omitted.map_or_else(String::new, |omitted| format!(": it was left out, for {}", omitted.reason));
        Error::new(Kind::NoBackup, format!("backup {} has no database {database:?}{why}", manifest.name))
            .state("nothing was changed")
            .hint(format!("it has {}: --database", names.join(", ")))
    })
}

impl Plan {
    /// Those of the extensions that are made once the database has its name, or those that are not made at all.
    fn apart(&self, made: bool) -> Vec<Apart> {
        let is = |apart: &&Apart| (apart.database.as_deref() == Some(&*self.name)) == made;
        self.apart.iter().filter(is).cloned().collect()
    }

    /// A sentence for each that the backup has and that will be missing.
    fn left_out(&self) -> Vec<String> {
        let there = |apart: &Apart| self.dump.properties.extensions.contains(&apart.extension);
        let told = |Apart { extension, schema, database }: Apart| {
            let why = match database {
                Some(database) => format!("this server can make it in database {database:?} only"),
                None => "this server does not load its library (shared_preload_libraries)".to_owned(),
            };
            format!("extension {extension:?} is left out, with what is in its schema {schema:?}: {why}")
        };
        self.apart(false).into_iter().filter(there).map(told).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backup, dump, name, kept, .. } = self;
        writeln!(f, "restore database {name:?} from {}", backup.join(&dump.dump.file).display())?;
        writeln!(f, "  load it into a new database, {:?}, while everything runs", self.unfinished)?;
        if self.as_superuser {
            writeln!(
                f,
                "  as the superuser, so that functions in constraints of its tables may do whatever he may"
            )?;
        }
        writeln!(
            f,
            "  compare {}",
            match dump.foreign {
                Some(_) => "every table's rows and every sequence with what is in the file",
                None => "its checksums, every table's rows and every sequence with the backup's manifest",
            }
        )?;
        for sentence in self.left_out() {
            writeln!(f, "  {sentence}")?;
        }
        if self.stops_clients {
            writeln!(f, "  stop the units of clients that run, and start them again afterwards")?;
        }
        match kept {
            Some(kept) => {
                write!(f, "  rename {name:?} to {kept:?}, where it stays, and the new one to {name:?}")
            }
            None => write!(f, "  rename the new one to {name:?}"),
        }
    }
}

/// A finished restore, in a sentence.
#[derive(Debug)]
pub struct Outcome(pub String);

/// Carries a plan out; the caller holds the lock.
///
/// # Errors
/// Every kind. Until the exchange, the databases that there were are as they were; the new one is dropped.
/// [`Kind::NotTaken`] also once it is in place, without an index or the rows of a view.
pub fn carry_out(
    settings: &Settings,
    runtime: &dyn Runtime,
    plan: &Plan,
    wish: &Wish<'_>,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let work = Work::new(settings, runtime, plan)?;
    let clock = Instant::now();
    let source = Source { directory: &plan.backup, manifest: trusted(wish.entry)?, identity: wish.identity };
    let scratch = Scratch::make_for(&plan.scratch, runtime.account())?;
    work.check_space()?;
    work.drop_unfinished()?;
    loader::remove_left(&work.session())?;
    let done = work.restore(&scratch, source, wish.authority, progress).and_then(|missing| {
        let loaded = clock.elapsed();
        progress.begin(&format!("comparing {}", plan.name), None);
        let contents = work.compare()?;
        progress.end();
        Ok((rows_of(&contents), loaded, missing))
    });
    let (rows, loaded, missing) = done.inspect_err(|_| work.clean_up()).map_err(|error| {
        error.state(match &plan.kept {
            Some(_) => format!("database {:?} is as it was, and its clients were not stopped", plan.name),
            None => format!("there is still no database {:?}, and nothing else was changed", plan.name),
        })
    })?;
    let compared = clock.elapsed().saturating_sub(loaded);
    let clock = Instant::now();
    work.exchange().inspect_err(|_| work.clean_up())?;
    let brought = work.bring_apart(&scratch, source);
    drop(scratch);
    let kept = match &plan.kept {
        Some(kept) => format!("; the one that was there is now {kept:?}"),
        None => String::new(),
    };
    let mut said = format!(
        "database {:?} is restored, with {rows}: loaded in {:.1} s, compared in {:.1} s, put in place in {:.1} s{kept}",
        plan.name,
        loaded.as_secs_f64(),
        compared.as_secs_f64(),
        clock.elapsed().as_secs_f64(),
    );
    for sentence in plan.left_out() {
        let _ = write!(said, "; {sentence}");
    }
    match load::told(&missing).or(brought.err()) {
        None => Ok(Outcome(said)),
        Some(error) => Err(error.context("not all of the backup could be restored").state(said)),
    }
}

/// Brings back the roles of a backup that are not there; those that are stay as they are.
///
/// # Errors
/// [`Kind::Damaged`] if the file is not what was written, [`Kind::Server`] with the server's own words.
pub fn globals(
    settings: &Settings,
    runtime: &dyn Runtime,
    entry: &Entry,
    identity: Option<&Path>,
) -> Result<Outcome> {
    let source = Source { directory: &entry.path, manifest: trusted(entry)?, identity };
    let globals = Globals::parse(&load::text(source, &source.manifest.globals)?)?;
    let Settings { socket_directory, server, .. } = settings;
    let connection =
        Connection::new(socket_directory, server.port, &server.superuser).with_database(&server.database);
    let newest = runtime.majors().last().copied().unwrap_or(Major(0));
    let session = Session { runtime, major: newest, connection: &connection };
    let (made, sql) = globals.missing(&postgres::roles(&session)?);
    let (set, for_all) = globals.missing_for_all(&postgres::settings_of_all(&session)?);
    session
        .execute_foreign(HOME, &format!("BEGIN;\n{sql}{for_all}COMMIT;\n"))
        .map_err(|error| error.state("no role was made or changed, and nothing was set"))?;
    let mut said = match made.is_empty() {
        true => "every role of the backup is there already".to_owned(),
        false => format!("made the roles {}; those that were there are as they were", made.join(", ")),
    };
    if !set.is_empty() {
        let _ = write!(said, "; set for all roles: {}", set.join(", "));
    }
    Ok(Outcome(said))
}

fn trusted(entry: &Entry) -> Result<&Manifest> {
    entry.manifest.as_ref().map_err(|error| {
        Error::new(Kind::Damaged, format!("backup {} cannot be trusted: {error}", entry.name))
            .state("nothing was changed")
            .hint("matrix-postgres-backup list shows the others")
    })
}

struct Work<'a> {
    settings: &'a Settings,
    runtime: &'a dyn Runtime,
    plan: &'a Plan,
    connection: Connection,
    major: Major,
}

impl<'a> Work<'a> {
    fn new(settings: &'a Settings, runtime: &'a dyn Runtime, plan: &'a Plan) -> Result<Self> {
        let Settings { socket_directory, server, .. } = settings;
        let connection =
            Connection::new(socket_directory, server.port, &server.superuser).with_database(&server.database);
        let newest = runtime.majors().last().copied().unwrap_or(Major(0));
        let session = Session { runtime, major: newest, connection: &connection };
        let major = postgres::server_facts(&session)?.major()?;
        let owner = &plan.dump.database.owner;
        if !postgres::roles(&session)?.contains(owner) {
            return Err(Error::new(
                Kind::Server,
                format!("there is no role {owner:?}, which owns the database"),
            )
            .state("nothing was changed")
            .hint("restore the roles first: matrix-postgres-backup restore --globals NAME"));
        }
        let connection = connection.to_server(major);
        Ok(Self { settings, runtime, plan, connection, major })
    }

    fn session(&self) -> Session<'_> {
        Session { runtime: self.runtime, major: self.major, connection: &self.connection }
    }

    /// Until it has been compared the database is ours: its owner could let himself in. Where a script is carried out as superuser
    /// anyway, it is its owner's from the beginning, as who the script may make schemas and tables
    /// (`pg_dump --use-set-session-authorization`).
    fn ours(&self) -> Database {
        let database = self.plan.dump.database.clone();
        match self.plan.as_superuser {
            true => database,
            false => Database { owner: self.connection.user.clone(), ..database },
        }
    }

    fn check_space(&self) -> Result<()> {
        let size = self.plan.dump.database.size;
        check_space(&[Need { path: self.settings.data_directory.clone(), bytes: size + size / 5 }])
    }

    /// What killed restores left behind.
    fn drop_unfinished(&self) -> Result<()> {
        for name in leftovers::unfinished(&self.session())? {
            log::warn!("dropping {name:?}, which a restore that was killed has left unfinished");
            leftovers::drop_database(&self.session(), &name, "WITH (FORCE)")?;
        }
        Ok(())
    }

    fn restore(
        &self,
        scratch: &Scratch,
        source: Source<'_>,
        authority: Authority,
        progress: &mut dyn Progress,
    ) -> Result<Vec<load::Missing>> {
        let Plan { dump, unfinished: name, .. } = self.plan;
        let session = self.session();
        // One script, so that psql comes to the mark even when we are killed in between.
        let create = making::create(name, &self.ours(), &dump.properties, self.major);
        let mark =
            format!("COMMENT ON DATABASE {} IS {};\n", identifier(name), literal(leftovers::UNFINISHED));
        session.execute(HOME, &(create + &mark + &closed(name)))?;
        let target = Target {
            session: &session,
            name,
            shown: &self.plan.name,
            tablespaces: Tablespaces::AsDumped,
            scratch,
            authority,
            without: &self.plan.apart,
        };
        let missing = load::load(&target, source, dump, progress)?;
        if dump.foreign.is_some_and(|foreign| foreign.gives_owner) {
            session.execute(name, &ownership::give(&dump.database.owner)).map_err(|error| {
                error.context(format!("could not give what is in it to {:?}", dump.database.owner))
            })?;
        }
        interrupt::check()?;
        progress.begin(&format!("gathering statistics of {}", self.plan.name), None);
        let mut command =
            self.runtime.command(self.major, &vacuumdb::analyze(&self.connection, name, load::jobs()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let gathered = Child::spawn(command, "vacuumdb")?.wait();
        progress.end();
        vacuumdb::only_warn(gathered)?;
        Ok(missing)
    }

    /// What could not be made in a database of another name than its own.
    fn bring_apart(&self, scratch: &Scratch, source: Source<'_>) -> Result<()> {
        let Plan { dump, name, .. } = self.plan;
        let apart = self.plan.apart(true);
        if apart.is_empty() {
            return Ok(());
        }
        let session = self.session();
        let target = Target {
            session: &session,
            name,
            shown: name,
            tablespaces: Tablespaces::AsDumped,
            scratch,
            // Only what extensions of the superuser's own have made.
            authority: Authority::Superuser,
            without: &[],
        };
        target.bring_apart(source, dump, &apart)
    }

    fn compare(&self) -> Result<Contents> {
        let Plan { dump, unfinished: name, .. } = self.plan;
        let Some(contents) = &dump.contents else {
            return Err(Error::new(
                Kind::Damaged,
                "the backup was never read back: nothing is known of its rows",
            )
            .hint("matrix-postgres-backup verify reads it back"));
        };
        let session = self.session();
        let mut extensions = dump.properties.extensions.clone();
        let mut contents = contents.clone();
        for apart in &self.plan.apart {
            extensions.retain(|extension| *extension != apart.extension);
            contents.tables.retain(|name, _| !apart.has(name));
            contents.sequences.retain(|name, _| !apart.has(name));
        }
        let database = self.ours();
        let expected = Expected { database: Some(&database), contents: &contents, extensions: &extensions };
        let found = differences(&session, name, &expected)?;
        if !found.is_empty() {
            let what = if dump.foreign.is_some() { "what is in the file" } else { "what was backed up" };
            let message = format!("the restored database is not {what}: {}", found.join("; "));
            return Err(Error::new(Kind::Damaged, message));
        }
        // A one-time key that is used twice breaks encrypted conversations (Synapse's documentation, "Backups").
        session.execute(name, WITHOUT_ONE_TIME_KEYS)?;
        let owner =
            format!("ALTER DATABASE {} OWNER TO {};\n", identifier(name), identifier(&dump.database.owner));
        let dress = making::dress(name, &dump.database, &dump.properties);
        session.execute(HOME, &(owner + &dress + &closed(name)))?;
        Ok(contents)
    }

    /// Both renames are one transaction: after a kill at any instant the name belongs to the old database or to
    /// the new one, and both are there.
    fn exchange(&self) -> Result<()> {
        let plan = self.plan;
        if !plan.stops_clients {
            return self.rename();
        }
        let manager = Manager::connect()?;
        let _inhibitor = Inhibitor::take(&manager, inhibit::Mode::Block, "restore of a database");
        let clients = &self.settings.clients;
        let units = Stopped::would_stop(&manager, &running(&manager, &clients.units)?)?;
        let guard = guard(&units)?;
        let stopped = Stopped::stop(&manager, &units, clients.timeout);
        let done = stopped.map(|stopped| (self.rename(), stopped.start_again()));
        // Whatever came of it, everything has been tried by now.
        if let Some(guard) = guard {
            guard.dismiss();
        }
        let (renamed, again) = done?;
        match (renamed, again) {
            (Ok(()), again) => again.map_err(|error| error.state("the restored database is in place")),
            (Err(error), Ok(())) => {
                Err(error.state(format!("database {:?} is as it was, and its clients run again", plan.name)))
            }
            (Err(error), Err(other)) => {
                log::error!("{}", other.report());
                Err(error.state(format!("database {:?} is as it was", plan.name)))
            }
        }
    }

    fn rename(&self) -> Result<()> {
        let Plan { name, unfinished, kept, dump, .. } = self.plan;
        let comment = match &dump.properties.comment {
            Some(comment) => literal(comment),
            None => "NULL".to_owned(),
        };
        let mut script = String::from("\\set VERBOSITY verbose\nBEGIN;\n");
        let disconnect = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname IN ({}, {});\n",
            literal(name),
            literal(unfinished)
        );
        if let Some(kept) = kept {
            // Writing to a String cannot fail.
            let _ = writeln!(script, "ALTER DATABASE {} RENAME TO {};", identifier(name), identifier(kept));
            script.push_str(&leftovers::mark(kept));
        }
        let _ = writeln!(
            script,
            "ALTER DATABASE {0} RENAME TO {1};\nCOMMENT ON DATABASE {1} IS {comment};\n\
             ALTER DATABASE {1} CONNECTION LIMIT {limit};\n{template}COMMIT;",
            identifier(unfinished),
            identifier(name),
            template = match dump.properties.is_template {
                true => format!("ALTER DATABASE {} IS_TEMPLATE true;\n", identifier(name)),
                false => String::new(),
            },
            limit = dump.properties.connection_limit.filter(|&limit| limit >= 0).unwrap_or(-1)
        );
        let mut tries = 0;
        loop {
            tries += 1;
            // A client that is no unit of ours may come back in between.
            match self.session().execute(HOME, &(disconnect.clone() + &script)) {
                Err(error) if tries < TRIES && error.report().contains(OBJECT_IN_USE) => {}
                Err(error) => {
                    return Err(error
                        .context(format!("could not give the new database the name {name:?}"))
                        .hint("stop what is connected: matrix-postgres-cli -c 'TABLE pg_catalog.pg_stat_activity'"));
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// The new database, if it does not have its name yet.
    fn clean_up(&self) {
        // What was killed may not have noticed yet.
        let name = &self.plan.unfinished;
        if let Err(error) = leftovers::drop_database(&self.session(), name, "WITH (FORCE)") {
            log::warn!("could not drop the unfinished {name:?}: {}", error.report());
        }
    }
}

/// How many rows there are, as far as they were counted.
fn rows_of(contents: &Contents) -> String {
    let counted = HumanCount(contents.rows());
    match (contents.not_counted, contents.tables.is_empty()) {
        (0, _) => format!("{counted} rows"),
        (_, true) => "rows that were not counted".to_owned(),
        (1, false) => format!("{counted} rows and those of 1 statement that were not counted"),
        (others, false) => format!("{counted} rows and those of {others} statements that were not counted"),
    }
}

/// Starts the units if we are killed before we do.
fn guard(units: &[String]) -> Result<Option<Guard>> {
    if units.is_empty() {
        return Ok(None);
    }
    let start = ["start"].into_iter().chain(units.iter().rev().map(String::as_str));
    Guard::post(&tool("systemctl", "systemd")?, start).map(Some)
}

/// The units that run, but for the server's own and others of ours.
fn running(manager: &Manager, patterns: &[String]) -> Result<Vec<String>> {
    let mut units = Vec::new();
    for pattern in patterns {
        units.extend(
            manager.wanted_units(pattern)?.into_iter().filter(|unit| !unit.starts_with("matrix-postgres")),
        );
    }
    units.sort();
    units.dedup();
    Ok(units)
}
