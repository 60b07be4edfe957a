//! Whether tables and indexes are what their rules say.

use crate::error::{Kind, Result};
use crate::postgres::{self, Major, Session, pg_amcheck};
use crate::runtime::{jobs, run_and_quote};

/// The first version whose tables can be checked, too.
const STRUCTURE_CHECKED: Major = Major(14);

/// Tables and indexes, page by page, by the rules of the version that wrote them. The copy is left as it was, but for
/// the version of an amcheck that it has itself.
///
/// # Errors
/// [`Kind::Damaged`].
pub(super) fn check(copy: &Session<'_>, from: Major) -> Result<()> {
    if from < STRUCTURE_CHECKED || !copy.runtime.extensions(from)?.contains("amcheck") {
        log::warn!("tables and indexes are not checked by pg_amcheck: not available for PostgreSQL {from}");
        return Ok(());
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for database in postgres::databases(copy)? {
        let has = "SELECT pg_catalog.to_json(pg_catalog.count(*)) FROM pg_catalog.pg_extension WHERE extname = 'amcheck';";
        let those = if copy.query::<u32>(&database.name, has)? == 0 { &mut without } else { &mut with };
        those.push(database.name);
    }
    let forbidding = forbidding(copy)?;
    for (database, triggers) in &forbidding {
        copy.execute(database, &set_all(triggers, "ENABLE"))?;
    }
    // One that has been brought along from before 14 does not know how to check tables.
    with.iter().try_for_each(|database| copy.execute(database, "ALTER EXTENSION amcheck UPDATE;"))?;
    let command = copy.runtime.command(copy.major, &pg_amcheck::all(copy.connection, jobs()))?;
    run_and_quote(command, "pg_amcheck").map_err(|error| {
        // Its word for damage; with 1 it could not look.
        if !error.to_string().ends_with("(exit status 2)") {
            return error;
        }
        error
            .with_kind(Kind::Damaged)
            .context("pg_amcheck found a damaged table or index")
            .hint("for an index: REINDEX INDEX in matrix-postgres-cli; for a table: restore it from a backup")
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
