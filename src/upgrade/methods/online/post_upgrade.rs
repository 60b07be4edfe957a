//! After the homeserver runs on the new cluster: what pg_upgrade leaves to others, and does not have to be waited for.

use std::fmt::Write as _;
use std::process::Stdio;

use crate::backup::quoted;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Database, Major, Session, identifier, literal, vacuumdb};
use crate::runtime::{Child, jobs};
use crate::upgrade::steps::work::Work;

/// The first version to which pg_upgrade takes the planner's statistics along.
const STATISTICS_GO_ALONG: Major = Major(18);

/// A homeserver that has just started builds indexes and drops tables of its own, of which vacuumdb has the names already: it
/// waits for the one until one of the two is ended for a deadlock, and fails for the other.
const TRIES: u32 = 4;

/// How long an extension's update waits for a lock that the homeserver holds.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '5s';";

/// How long the building of an index waits for each transaction that is older, such as one that a client never ends.
const PATIENCE: &str = "SET lock_timeout = '15min';";

/// The first version that records which collation a database was made with.
const DATABASES_HAVE_VERSIONS: Major = Major(15);

/// Gathers statistics in stages, coarse ones first; builds the indexes anew whose collation has another version; brings
/// extensions up to date. Each can be repeated, and one that fails does not keep the others from being done.
///
/// # Errors
/// The first failure, when all has been tried.
pub fn post_upgrade(work: &Work<'_>) -> Result<()> {
    let to = work.entry().upgrade.to;
    let connection = work.live_connection().to_server(to);
    let session = work.live_session(&connection);
    let mut failed = statistics(&session, to, &work.settings.server.database);
    for (database, indexes) in &work.entry().upgrade.stale_indexes {
        failed.extend(reindex(&session, to, database, indexes).err());
    }
    failed.extend(extensions(&session));
    let mut failed = failed.into_iter();
    let first = failed.next();
    failed.for_each(|error| log::warn!("{}", error.report()));
    first.map_or(Ok(()), Err)
}

/// Of each database, that of the homeserver first; returns what failed.
fn statistics(session: &Session<'_>, to: Major, homeserver: &str) -> Vec<Error> {
    let mut databases = match crate::postgres::databases(session) {
        Ok(databases) => databases,
        Err(error) => return vec![error],
    };
    databases.sort_by_key(|database| database.name != homeserver);
    databases.iter().filter_map(|database| statistics_of(session, to, &database.name).err()).collect()
}

fn statistics_of(session: &Session<'_>, to: Major, database: &str) -> Result<()> {
    let connection = session.connection.literally();
    let analyze = || {
        let missing_only = to >= STATISTICS_GO_ALONG;
        let call = vacuumdb::analyze_in_stages(&connection, database, jobs(), missing_only);
        let mut command = session.runtime.command(to, &call)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Child::spawn(command, format!("vacuumdb of {database:?}"))?.wait()
    };
    let mut done = analyze();
    for _ in 1..TRIES {
        let Err(error) = &done else { break };
        log::info!("gathering statistics of database {database:?} again: {error}");
        done = analyze();
    }
    vacuumdb::only_warn(done.map_err(|error| {
        error
            .context(format!("queries of database {database:?} may be slow"))
            .hint(format!("to gather the rest: {}", by_hand(database, "ANALYZE")))
    }))
}

/// The command for a shell that does it, whatever owners have called what is theirs.
fn by_hand(database: &str, statement: &str) -> String {
    format!("matrix-postgres-cli -d {} -c {}", quoted(database), quoted(statement))
}

/// Without locking anybody out; only when all of a database are done, the new version is recorded.
fn reindex(session: &Session<'_>, to: Major, database: &str, indexes: &[String]) -> Result<()> {
    for index in indexes {
        // It may have been dropped since the upgrade was planned.
        let there =
            format!("SELECT pg_catalog.to_json(pg_catalog.to_regclass({}) IS NOT NULL);", literal(index));
        if !session.query::<bool>(database, &there)? {
            continue;
        }
        remove_unfinished(session, database, index)?;
        log::info!("database {database:?}: rebuilding index {index}");
        let sql = format!("{PATIENCE}\nREINDEX INDEX CONCURRENTLY {index};");
        if let Err(error) = session.execute(database, &sql) {
            if let Err(error) = remove_unfinished(session, database, index) {
                log::warn!("{}", error.report());
            }
            return Err(error
                .context(format!(
                    "index {index} of database {database:?} depends on a collation that has changed"
                ))
                .hint(by_hand(database, &format!("REINDEX INDEX {index}"))));
        }
    }
    let collations: Vec<String> = session.query(
        database,
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, collname)), '[]') FROM pg_catalog.pg_collation c
            JOIN pg_catalog.pg_namespace n ON n.oid = collnamespace
            WHERE collversion IS DISTINCT FROM pg_catalog.pg_collation_actual_version(c.oid) AND collversion IS NOT NULL;",
    )?;
    let mut sql = String::new();
    for name in collations {
        let _ = writeln!(sql, "ALTER COLLATION {name} REFRESH VERSION;");
    }
    if to >= DATABASES_HAVE_VERSIONS {
        let _ = writeln!(sql, "ALTER DATABASE {} REFRESH COLLATION VERSION;", identifier(database));
    }
    session.execute(database, &sql)
}

/// What a REINDEX that was cut off has left: it is not valid, bears the index's name with a suffix, and is kept up to date
/// at every write (REINDEX, "Rebuilding Indexes Concurrently").
fn remove_unfinished(session: &Session<'_>, database: &str, index: &str) -> Result<()> {
    let left: Vec<String> = session.query(
        database,
        &format!(
            "SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', n.nspname, c.relname)), '[]')
                FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_catalog.pg_index o ON o.indrelid = i.indrelid AND o.indexrelid = pg_catalog.to_regclass({})
                JOIN pg_catalog.pg_class oc ON oc.oid = o.indexrelid
                WHERE NOT i.indisvalid AND i.indexrelid <> o.indexrelid
                    AND c.relname ~ '_cc(new|old)[0-9]*$'
                    AND pg_catalog.starts_with(oc.relname, pg_catalog.regexp_replace(c.relname, '_cc(new|old)[0-9]*$', ''));",
            literal(index)
        ),
    )?;
    for unfinished in left {
        log::info!("database {database:?}: dropping the unfinished index {unfinished}");
        session.execute(database, &format!("DROP INDEX CONCURRENTLY IF EXISTS {unfinished};"))?;
    }
    Ok(())
}

/// All are tried; returns what failed.
fn extensions(session: &Session<'_>) -> Vec<Error> {
    let databases = match crate::postgres::databases(session) {
        Ok(databases) => databases,
        Err(error) => return vec![error],
    };
    databases.iter().filter_map(|database| extensions_of(session, database).err()).flatten().collect()
}

fn extensions_of(session: &Session<'_>, database: &Database) -> Result<(), Vec<Error>> {
    let mut failed = Vec::new();
    let outdated: Vec<String> = session
        .query(
            &database.name,
            "SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM pg_catalog.pg_available_extensions
                WHERE installed_version <> default_version;",
        )
        .map_err(|error| vec![error])?;
    for extension in outdated {
        log::info!("database {:?}: updating extension {extension}", database.name);
        let name = identifier(&extension);
        let updated = session
            .execute(&database.name, &format!("{LOCK_TIMEOUT} ALTER EXTENSION {name} UPDATE;"))
            .map_err(|error: Error| {
                error
                    .with_kind(Kind::Server)
                    .context(format!(
                        "extension {extension} of database {} was not updated",
                        literal(&database.name)
                    ))
                    .hint(by_hand(&database.name, &format!("ALTER EXTENSION {name} UPDATE")))
            });
        failed.extend(updated.err());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}
