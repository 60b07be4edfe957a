//! Method `dump`: whether the target takes what the databases hold but rows, tried while everything runs. What it does not
//! take would else be found when users wait already.

use std::process::Stdio;

use super::transfer::{LOCK_TIMEOUT, by_way_of, dumped_by, explain, globals, watch};
use crate::config::BackupFormat;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Session, pg_dump, pg_restore, refusals};
use crate::report::Silent;
use crate::runtime::Child;

/// Views whose rows are part of a dump, in the order in which they were made. Over tables without rows that is a moment.
const VIEWS: &str =
    "SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname) ORDER BY c.oid), '[]')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE relkind = 'm';";

/// Makes roles and all definitions of the running `old` server in the empty cluster of `new`, which is of no use afterwards.
/// That something could not be tried is a warning only.
///
/// # Errors
/// [`Kind::NotTaken`] naming what the target does not take.
pub fn try_out(old: &Session<'_>, new: &Session<'_>) -> Result<()> {
    let found = globals(old, new).and_then(|()| all_databases(old, new));
    let Err(error) = found else { return Ok(()) };
    match error.kind() {
        Kind::NotTaken => Err(error.state("nothing was stopped, and nothing was changed").hint(
            "change that, or leave it out: drop it, and make it anew after the upgrade; method online may take it: --method online",
        )),
        Kind::Interrupted => Err(error),
        _ => {
            log::warn!("whether the target takes all definitions could not be tried: {}", error.report());
            Ok(())
        }
    }
}

fn all_databases(old: &Session<'_>, new: &Session<'_>) -> Result<()> {
    let databases = postgres::databases(old)?;
    let old = &dumped_by(old, new, &databases)?;
    for name in databases.iter().map(|database| &database.name) {
        definitions(old, new, name).map_err(|error| explain(error, name))?;
        for view in new.query::<Vec<String>>(name, VIEWS)? {
            let sql = format!("SET search_path = '';\nREFRESH MATERIALIZED VIEW {view};");
            let Err(error) = new.execute(name, &sql) else { continue };
            let said = error.report();
            if said.contains("does not exist") && refusals::verdict(&said) == Kind::NotTaken {
                let message =
                    format!("the target does not take materialized view {view} of database {name:?}");
                return Err(error.with_kind(Kind::NotTaken).context(message).hint(refusals::remedy(&said)));
            }
        }
    }
    Ok(())
}

fn definitions(old: &Session<'_>, new: &Session<'_>, name: &str) -> Result<()> {
    let mut call = pg_dump::database(old.connection, name, BackupFormat::Custom, &[], LOCK_TIMEOUT);
    call.arguments.push("--schema-only".into());
    let mut command = old.runtime.command(old.major, &call)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut dump = Child::spawn(command, format!("pg_dump of {name:?}"))?;
    let (way, replace) = by_way_of(name);
    let call = pg_restore::create(&new.connection.literally(), way, None, 1, replace);
    let mut command = new.runtime.command(new.major, &call)?;
    command.stdin(dump.stdout().map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null());
    let restore = Child::spawn(command, format!("pg_restore of {name:?}"))?;
    let restored = watch(restore, None, &mut Silent);
    let dumped = dump.wait();
    // Where the writer failed by itself, the reader has not got all of it.
    match (restored, dumped) {
        (Err(error), _) => Err(error),
        (Ok(()), Err(error)) => Err(error.with_kind(Kind::Server)),
        (Ok(()), Ok(())) => Ok::<(), Error>(()),
    }
}
