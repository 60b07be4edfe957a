//! Materialized views, refreshed in an empty cluster: a dump finds names by no search path, and a view's functions may.

use crate::error::Result;
use crate::postgres::{Database, Session, refusals, without_verifiers};
use crate::upgrade::facts::Obstacle;

/// In the order in which they were made: one may read another.
const POPULATED: &str =
    "SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname) ORDER BY c.oid), '[]')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'm' AND relispopulated AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
        WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid AND deptype = 'e');";

/// Those of these databases whose names are not found. The server refreshes each as its owner, who can do nothing else
/// meanwhile. What there are no rows for says nothing of a refresh with rows.
///
/// # Errors
/// Those of asking the live server.
pub(super) fn refused(
    live: &Session<'_>,
    new: &Session<'_>,
    databases: &[Database],
) -> Result<Vec<Obstacle>> {
    let mut refused = Vec::new();
    for Database { name, .. } in databases {
        let views: Vec<String> = live.query(name, POPULATED)?;
        for view in views {
            let refreshed = new.execute(name, &format!("REFRESH MATERIALIZED VIEW {view};"));
            let Err(error) = refreshed else { continue };
            let said = error.report();
            if let Some(why) = not_found(&said) {
                let message = format!(
                    "database {name:?}: materialized view {view} cannot be refreshed after a restore: {why}"
                );
                refused.push(Obstacle {
                    message: without_verifiers(&message),
                    hint: Some(refusals::cure(&said)),
                });
            }
        }
    }
    Ok(refused)
}

fn not_found(said: &str) -> Option<&str> {
    let mut errors = said.lines().filter_map(|line| line.split_once("ERROR:  ").map(|(_, error)| error));
    errors.find(|error| error.ends_with(" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_not_found_count() {
        let said = "psql on database \"odd\" failed\n -> psql:<stdin>:1: ERROR:  relation \"t\" does not exist\nLINE 1: x";
        assert_eq!(not_found(said), Some("relation \"t\" does not exist"));
        assert_eq!(not_found("ERROR:  division by zero"), None);
    }
}
