//! One database's definitions, carried into an empty cluster of the target; and whether those are what they were.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use crate::backup::guarded;
use crate::config::Depth;
use crate::error::{Kind, Result};
use crate::postgres::refusals::{self, Refusal};
use crate::postgres::{
    Database, Major, Session, identifier, key_trigger, pg_dump, pg_restore, without_verifiers,
};
use crate::runtime::{Child, interrupt, jobs, output};
use crate::upgrade::compare::{Snapshot, differences};
use crate::upgrade::facts::Obstacle;
use crate::upgrade::steps::transfer::by_way_of;

/// pg_restore tells of each object that it makes.
const MANY_LINES: usize = 200_000;

/// So many refusals are told of one database: what is missing then is refused again and again.
const MOST: usize = 5;

/// How definitions are carried.
pub(super) struct Carried<'a> {
    /// The live server, and the pg_dump that reads it.
    pub(super) old: &'a Session<'a>,
    /// The empty cluster.
    pub(super) new: &'a Session<'a>,
    /// The old version.
    pub(super) from: Major,
    /// The new version.
    pub(super) to: Major,
    /// How long somebody else may keep a table locked.
    pub(super) lock_timeout: Duration,
    /// Whether as pg_upgrade does it.
    pub(super) numbered: bool,
    /// Whose functions may run as superuser; nobody's are asked about where all may.
    pub(super) superusers: Option<BTreeSet<String>>,
}

impl Carried<'_> {
    /// What the target does not take of it. Nothing where that is not tried: it is the dump itself that says whether functions of
    /// its owners would run, and by its definitions alone nobody else's rights could be given to them.
    ///
    /// # Errors
    /// [`Kind::Interrupted`], and if a program cannot be started.
    pub(super) fn database(&self, database: &Database) -> Result<Option<Vec<Obstacle>>> {
        let Self { old, new, .. } = self;
        let name = &database.name;
        let call = pg_dump::schema(old.connection, name, self.lock_timeout, self.numbered);
        let dumped = output(old.runtime.command(old.major, &call)?, "pg_dump", &[]);
        let dump = match dumped {
            Ok(dump) => dump,
            Err(error) if error.kind() == Kind::Program => {
                let said = error.cause();
                return Ok(Some(vec![Self::not_dumped(name, &said)]));
            }
            Err(error) => return Err(error),
        };
        if let Some(superusers) = &self.superusers
            && guarded::may_run(&dump, superusers)?
        {
            return Ok(None);
        }
        let (way, replace) = by_way_of(database);
        let call = pg_restore::create_as_far_as_it_goes(&new.connection.literally(), way, replace);
        let mut command = new.runtime.command(new.major, &call)?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = Child::spawn_that_says(command, "pg_restore", MANY_LINES)?;
        if let Some(mut stdin) = child.stdin() {
            // One that ends without reading everything says why by its exit status.
            let _ = stdin.write_all(&dump);
        }
        let (status, said) = child.wait_status()?;
        interrupt::check()?;
        Ok(Some(if status.success() { Vec::new() } else { self.not_taken(name, &said) }))
    }

    fn not_dumped(database: &str, said: &str) -> Obstacle {
        let said: Vec<_> = said.lines().filter(|line| !line.contains("query was: ")).take(3).collect();
        let hint = said
            .iter()
            .any(|line| line.contains("lock timeout"))
            .then(|| "matrix-postgres-upgrade check, once no session locks the table any more".to_owned());
        let message = format!("database {database:?} cannot be dumped: {}", said.join("; "));
        Obstacle { message: without_verifiers(&message), hint }
    }

    fn not_taken(&self, database: &str, said: &str) -> Vec<Obstacle> {
        let mut refused = refusals::first_refusals(said);
        // Our own restores leave it out; where pg_upgrade's would have it, that is not tried.
        if !refused.is_empty() {
            refused.retain(|refusal| !is_key_trigger(&refusal.header));
            if refused.is_empty() {
                return Vec::new();
            }
        }
        if refused.is_empty() {
            let errors = said.lines().filter_map(|line| line.split_once("error: ").map(|(_, error)| error));
            let errors: Vec<_> = errors.take(3).collect();
            let message =
                format!("PostgreSQL {} rejects database {database:?}: {}", self.to, errors.join("; "));
            return vec![Obstacle { message: without_verifiers(&message), hint: None }];
        }
        let mut obstacles: Vec<_> =
            refused.iter().take(MOST).map(|refusal| self.obstacle(database, refusal)).collect();
        if refused.len() > MOST
            && let Some(last) = obstacles.last_mut()
        {
            let _ = write!(last.message, "; and {} more", refused.len() - MOST);
        }
        obstacles
    }

    fn obstacle(&self, database: &str, refusal: &Refusal) -> Obstacle {
        let Refusal { header, error, said, .. } = refusal;
        // Behind it comes whose it is.
        let object = header.rsplit_once(' ').map_or(header.as_str(), |(object, _)| object);
        let error = error.strip_prefix("ERROR:  ").unwrap_or(error);
        let message = format!("database {database:?}: PostgreSQL {} rejects {object}: {error}", self.to);
        Obstacle { message: without_verifiers(&message), hint: Some(self.cure(database, object, said)) }
    }

    fn cure(&self, database: &str, object: &str, said: &str) -> String {
        let Self { from, to, .. } = self;
        let says = |text: &str| said.contains(text);
        if let Some((of, whom)) = said.lines().find_map(granted).filter(|_| object.starts_with("ACL ")) {
            format!("REVOKE ALL ON {of} FROM {whom}, in database {}", identifier(database))
        } else if says("could not open") && says("file \"") {
            format!("copy that file from the installation of PostgreSQL {from}")
        } else if ["could not load library", "could not access file", "could not find function"]
            .iter()
            .any(|text| says(text))
        {
            format!("install the package of that library for PostgreSQL {to}")
        } else if says("CONTEXT:") && says("does not exist") {
            refusals::cure(said)
        } else {
            format!("change or drop it in database {}", identifier(database))
        }
    }
}

/// Whether it is one such as `TRIGGER part RI_ConstraintTrigger_c_16495 postgres`.
fn is_key_trigger(header: &str) -> bool {
    header.starts_with("TRIGGER ") && header.split(' ').any(key_trigger::is_name)
}

/// Of `GRANT ALL ON FUNCTION f() TO somebody;`, what and to whom.
fn granted(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("Command was: ").unwrap_or(line);
    let (_, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    rest.trim_end_matches(';').rsplit_once(" TO ")
}

/// What an upgrade would find that is not equal, but for rows.
///
/// # Errors
/// As [`Snapshot::definitions`].
pub(super) fn differing(live: &Session<'_>, new: &Session<'_>, depth: Depth) -> Result<Vec<Obstacle>> {
    let take = |session| Snapshot::definitions(session, depth, jobs()).map(without_rows);
    let (old, new) = (take(live)?, take(new)?);
    let serious: Vec<_> =
        differences(&old, &new).into_iter().filter(|difference| difference.serious).collect();
    if serious.is_empty() {
        return Ok(Vec::new());
    }
    // Somebody may have made something meanwhile.
    if take(live)? != old {
        let hint =
            Some("matrix-postgres-upgrade check, once no session changes the schema any more".to_owned());
        return Ok(vec![Obstacle { message: "the schema was changed during the check".to_owned(), hint }]);
    }
    let obstacle = |message| Obstacle { message, hint: None };
    Ok(serious
        .iter()
        .take(MOST)
        .map(|difference| obstacle(format!("the new cluster would differ from the old one: {difference}")))
        .collect())
}

/// The same as of a cluster whose tables are empty.
fn without_rows(mut snapshot: Snapshot) -> Snapshot {
    for database in snapshot.databases.values_mut() {
        database.startup_problems.clear();
        database.large_objects = crate::upgrade::compare::LargeObjects::default();
        database.counts.retain(|what, _| !what.starts_with("bytes of table "));
        database.relations.values_mut().for_each(|relation| relation.populated = false);
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn carried<R>(work: impl FnOnce(&Carried<'_>) -> R) -> R {
        let host = crate::runtime::Host::new(Path::new("/"), None);
        let connection = crate::postgres::Connection::new(Path::new("/s"), 1, "u");
        let session = Session { runtime: &host, major: Major(17), connection: &connection };
        work(&Carried {
            old: &session,
            new: &session,
            from: Major(15),
            to: Major(17),
            lock_timeout: Duration::ZERO,
            numbered: false,
            superusers: None,
        })
    }

    #[test]
    fn a_partitions_trigger_of_a_key_is_left_out() {
        let said = "pg_restore: from TOC entry 9; 2620 16495 TRIGGER my part RI_ConstraintTrigger_c_16495 postgres\n\
            pg_restore: error: could not execute query: ERROR:  trigger \"RI_ConstraintTrigger_c_16495\" for table \"my part\" does \
            not exist\nCommand was: ALTER TABLE public.\"my part\" DISABLE TRIGGER \"RI_ConstraintTrigger_c_16495\";\n\n\n\
            pg_restore: warning: errors ignored on restore: 1";
        assert_eq!(carried(|it| it.not_taken("odd", said)), []);
        let more = format!("{said}\n{SAID}");
        assert_eq!(carried(|it| it.not_taken("odd", &more)), carried(|it| it.not_taken("odd", SAID)));
    }

    const SAID: &str = "pg_restore: while PROCESSING TOC:\n\
        pg_restore: from TOC entry 215; 1259 16385 TABLE c postgres\n\
        pg_restore: error: could not execute query: ERROR:  child column \"b\" specifies generation expression\n\
        HINT:  x\nCommand was: CREATE TABLE public.c ();\n\n\n\
        pg_restore: from TOC entry 9; 0 0 ACL FUNCTION pg_start_backup(label text) postgres\n\
        pg_restore: error: could not execute query: ERROR:  function pg_catalog.pg_start_backup(text) does not exist\n\
        Command was: GRANT ALL ON FUNCTION pg_catalog.pg_start_backup(label text) TO barman;\n\n\n\
        pg_restore: warning: errors ignored on restore: 2";

    #[test]
    fn what_is_refused_is_named_with_what_to_do() {
        let obstacles = carried(|it| it.not_taken("odd", SAID));
        assert_eq!(
            obstacles,
            [
                Obstacle {
                    message: "database \"odd\": PostgreSQL 17 rejects TABLE c: child column \"b\" specifies \
                        generation expression"
                        .into(),
                    hint: Some("change or drop it in database \"odd\"".into()),
                },
                Obstacle {
                    message: "database \"odd\": PostgreSQL 17 rejects ACL FUNCTION pg_start_backup(label text): \
                        function pg_catalog.pg_start_backup(text) does not exist"
                        .into(),
                    hint: Some(
                        "REVOKE ALL ON FUNCTION pg_catalog.pg_start_backup(label text) FROM barman, in database \"odd\""
                            .into()
                    ),
                },
            ]
        );
        let obstacles = carried(|it| it.not_taken("odd", "pg_restore: error: connection failed"));
        assert_eq!(obstacles[0].message, "PostgreSQL 17 rejects database \"odd\": connection failed");
    }

    #[test]
    fn each_refusal_has_its_own_cure() {
        let cure = |said: &str| carried(|it| it.cure("odd", "FUNCTION f", said));
        assert!(
            cure("ERROR:  could not open stop-word file \"/x.stop\"")
                .contains("from the installation of PostgreSQL 15")
        );
        assert!(cure("ERROR:  could not access file \"$libdir/x\"").contains("for PostgreSQL 17"));
        assert!(
            cure("ERROR:  x does not exist\nCONTEXT:  SQL function \"f\"").contains("ALTER FUNCTION f SET")
        );
    }
}
