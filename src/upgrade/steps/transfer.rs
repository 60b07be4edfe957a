//! Method `dump`: roles and databases go from the old server to the new one by pg_dump and pg_restore.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::account::Account;
use crate::backup::globals::Globals;
use crate::backup::origin::{Files, Live, Stream};
use crate::backup::scratch::Scratch;
use crate::backup::target::{Authority, RefusedRows, Target};
use crate::backup::{load, missing};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::directories;
use crate::postgres::pg_restore::Tablespaces;
use crate::postgres::{self, Database, HOME, Session, identifier, pg_dump, refusals, stamps, vacuumdb};
use crate::report::Progress;
use crate::runtime::{Call, Child, interrupt, jobs, output};
use crate::upgrade::steps::dump_directory::DumpDirectory;
use crate::version::Major;

/// How long pg_dumpall waits for a lock: there is nobody else.
pub(in crate::upgrade) const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// How rows are loaded into the new server.
#[derive(Debug, Clone, Copy)]
pub struct Loading<'a> {
    /// A directory for what is needed on the way.
    pub scratch: &'a Scratch,
    /// With whose rights.
    pub authority: Authority,
}

/// Where there is room for what is needed on the way: root's, beside the sockets.
///
/// # Errors
/// [`Kind::File`].
pub fn scratch(socket_directory: &Path, account: &Account) -> Result<Scratch> {
    let mut path = socket_directory.as_os_str().to_owned();
    path.push("-loading");
    Scratch::make_for(Path::new(&path), Some(account))
}

/// Carries roles and databases over, and gathers the planner's statistics of them.
///
/// # Errors
/// [`Kind::Damaged`] for rows that the new server does not take, [`Kind::NoSpace`], and others.
pub fn transfer(
    old: &Session<'_>,
    new: &Session<'_>,
    files: Option<&DumpDirectory>,
    loading: Loading<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    globals(old, new)?;
    let mut databases = postgres::databases(old)?;
    // To replace these two writes everything to the disk: they come while there is nothing.
    databases.sort_by_key(|database| !by_way_of(database).1);
    let old = &dumped_by(old, new, &databases)?;
    for database in &databases {
        let carried = if let Some(directory) = files {
            by_files(old, new, &directory.0, database, loading, progress)
        } else {
            let (bytes, lock_timeout) = (database.size, LOCK_TIMEOUT);
            let stream =
                Stream { session: old, database: &database.name, bytes, lock_timeout, without_rows: false };
            load(new, &stream, database, loading, progress)
        };
        carried.inspect_err(|_| progress.end())?;
    }
    omitted_by_default(old, new)?;
    progress.begin("gathering statistics", None);
    let connection = new.connection.literally();
    let gathered = databases.iter().try_for_each(|Database { name, .. }| {
        // One that fails does not keep the others from theirs.
        let call = vacuumdb::analyze(&connection, name, jobs());
        vacuumdb::only_warn(run(new, &call, format!("vacuumdb of {name:?}")))
    });
    progress.end();
    gathered
}

/// Roles with passwords, memberships and settings; the bootstrap superuser is there already.
pub(in crate::upgrade) fn globals(old: &Session<'_>, new: &Session<'_>) -> Result<()> {
    let command = old.runtime.command(old.major, &pg_dump::globals(old.connection, LOCK_TIMEOUT))?;
    let text = output(command, "pg_dumpall", &[])?;
    let text = String::from_utf8(text).map_err(|error| {
        Error::new(Kind::Damaged, "the name or a setting of a role is not valid UTF-8").because(error)
    })?;
    let sql = Globals::parse(&text)?.for_server(&postgres::roles(new)?);
    let sql = sql + &postgres::set_for_all(&postgres::settings_of_all(old)?);
    new.execute_foreign(HOME, &sql).map_err(|error| error.context("the roles could not be restored"))
}

/// The old server with the pg_dump that the new one takes the databases from: its own, but where that is too old to
/// know what the old server has written into its catalogs.
pub(in crate::upgrade) fn dumped_by<'a>(
    old: &Session<'a>,
    new: &Session<'_>,
    databases: &[Database],
) -> Result<Session<'a>> {
    let mut session = Session { ..*old };
    for database in databases {
        if stamps::are_in(old, &database.name)? && !stamps::are_known(new)? {
            session.major = postgres::server_facts(old)?.major()?;
            log::warn!(
                "this minor version of PostgreSQL {new} is older than that of {old}, and does not know its column option {option}: \
                 pg_dump {old} omits it; install the newest minor version of PostgreSQL {new}",
                option = stamps::OPTION,
                new = new.major,
                old = session.major
            );
            break;
        }
    }
    Ok(session)
}

/// Brings what a pg_dump that is older than the new server omits since it was the default: since 18 a subscription
/// streams in parallel unless something else is written (release notes of 18, "CREATE SUBSCRIPTION").
///
/// # Errors
/// [`Kind::Server`].
pub(in crate::upgrade) fn omitted_by_default(old: &Session<'_>, new: &Session<'_>) -> Result<()> {
    const PARALLEL_BY_DEFAULT: Major = Major(18);
    if new.major < PARALLEL_BY_DEFAULT || old.major >= PARALLEL_BY_DEFAULT {
        return Ok(());
    }
    // Before 14 there is no such column, and before 16 it is a boolean.
    let not_streaming: Vec<(String, String)> = old.query(
        HOME,
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(datname, subname)), '[]')
            FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
            WHERE coalesce(pg_catalog.to_jsonb(s) OPERATOR(pg_catalog.->>) 'substream', 'f') IN ('f', 'false');",
    )?;
    for (database, subscription) in not_streaming {
        let sql = format!("ALTER SUBSCRIPTION {} SET (streaming = off);", identifier(&subscription));
        new.execute(&database, &sql)?;
    }
    Ok(())
}

/// A new cluster has these two; one of them is replaced by way of the other.
pub(in crate::upgrade) fn by_way_of(database: &Database) -> (&'static str, bool) {
    match database.name.as_str() {
        "postgres" => ("template1", true),
        "template1" => ("postgres", true),
        _ => ("postgres", false),
    }
}

fn by_files(
    old: &Session<'_>,
    new: &Session<'_>,
    directory: &Path,
    database: &Database,
    loading: Loading<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let dump = directory.join("dump");
    let call = pg_dump::directory(old.connection, &database.name, jobs(), &dump);
    progress.begin(&format!("dumping {}", database.name), None);
    run(old, &call, format!("pg_dump of {:?}", database.name))?;
    progress.end();
    load(new, &Files::open(&dump)?, database, loading, progress)?;
    directories::remove(&dump).at("remove", &dump)
}

/// Makes a database from its dump.
///
/// # Errors
/// As [`transfer`], of this database.
pub(in crate::upgrade) fn load(
    new: &Session<'_>,
    dump: &dyn Live,
    database: &Database,
    Loading { scratch, authority }: Loading<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let connection = new.connection.literally();
    let session = Session { connection: &connection, ..*new };
    let target = Target {
        session: &session,
        name: &database.name,
        shown: &database.name,
        tablespaces: Tablespaces::AsDumped,
        scratch,
        authority,
        without: &[],
        refused_rows: RefusedRows::Fail,
    };
    let missing = load::carry(&target, dump, by_way_of(database), progress)
        .map_err(|error| explain(error, &database.name))?;
    match missing::told(&missing) {
        Some(error) => Err(error.context(does_not_take(&database.name))),
        None => Ok(()),
    }
}

/// Waits for a program that says nothing.
fn run(session: &Session<'_>, call: &Call, name: String) -> Result<()> {
    let mut command = session.runtime.command(session.major, call)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = Child::spawn(command, name)?;
    while !child.has_ended() {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait()
}

fn does_not_take(database: &str) -> String {
    format!("the new server rejects the content of database {database:?}")
}

/// Whose fault it is: the machine's, or that of the old cluster, such as an index whose rows are not unique.
fn explain(error: Error, database: &str) -> Error {
    if error.kind() != Kind::Program {
        return error;
    }
    let said = error.report();
    let kind = refusals::verdict(&said);
    let error = error.with_kind(kind).context(does_not_take(database));
    if kind == Kind::NotTaken { error.hint(refusals::remedy(&said)) } else { error }
}
