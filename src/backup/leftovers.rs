//! Databases that restores have left: those that were replaced stay until somebody says that they may go, and what a restore
//! that was killed has made is nobody's.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::BackupName;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::files::stamp;
use crate::postgres::{Connection, HOME, Session, identifier, literal};
use crate::report::DecimalBytes;
use crate::runtime::Runtime;

/// What the comment of a database begins with that a restore has replaced; its own follows. Its name alone says nothing:
/// others may have such a one.
const MARK: &str = "matrix-postgres: replaced by a restore";

/// The comment of a database that a restore has not finished.
pub(super) const UNFINISHED: &str = "matrix-postgres: a restore that is not finished";

/// How many bytes a name may have (`NAMEDATALEN`).
pub(super) const LONGEST_NAME: usize = 63;

/// The command that removes them.
pub const CLEAN: &str = "matrix-postgres-backup clean";

/// Why a database is there that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A restore has replaced it.
    Replaced,
    /// A restore was killed before it had finished it.
    Unfinished,
}

/// A database that a restore has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Its name.
    pub database: String,
    /// Why it is there.
    pub cause: Cause,
    /// Its size.
    pub bytes: u64,
    /// When the restore began.
    pub since: Timestamp,
    /// Whole days since then.
    pub days: i64,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, cause, bytes, since, days } = self;
        let what = match cause {
            Cause::Replaced => "replaced by a restore",
            Cause::Unfinished => "left unfinished by an interrupted restore",
        };
        write!(f, "database {database:?}, {what}, {}, since {since:.0} ({days} days)", DecimalBytes(*bytes))
    }
}

/// The name of a database that is being restored.
pub(super) fn unfinished_name(database: &str, now: Timestamp) -> String {
    with_suffix(database, &format!("_restoring_{}", BackupName::at(now)))
}

/// The name under which a database stays that is replaced now.
pub(super) fn name(database: &str, now: Timestamp) -> String {
    with_suffix(database, &format!("_before_{}", BackupName::at(now)))
}

/// As long as a name may be: of a longer one PostgreSQL would cut off the suffix.
fn with_suffix(database: &str, suffix: &str) -> String {
    let mut end = database.len().min(LONGEST_NAME - suffix.len());
    while !database.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &database[..end])
}

/// psql's statement that marks a database as replaced by us, and keeps its own comment.
pub(super) fn mark(database: &str) -> String {
    format!(
        "SELECT pg_catalog.format('COMMENT ON DATABASE %I IS %L', datname, {} || coalesce(E'\\n'
            || pg_catalog.shobj_description(oid, 'pg_database'), ''))
         FROM pg_catalog.pg_database WHERE datname = {} \\gexec\n",
        literal(MARK),
        literal(database)
    )
}

/// Those that there are, the oldest first.
///
/// # Errors
/// [`Kind::Server`] if no server answers, and what it says.
pub fn find(settings: &Settings, runtime: &dyn Runtime, now: Timestamp) -> Result<Vec<Leftover>> {
    let connection = connect(settings)?;
    let session = Session::newest(runtime, &connection);
    let marked: Vec<Marked> = session.query(HOME, &format!(
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('database', datname, 'cause', cause,
            'bytes', pg_catalog.pg_database_size(oid))), '[]')
         FROM (SELECT oid, datname, CASE
                 WHEN NOT pg_catalog.has_database_privilege(oid, 'CONNECT') THEN NULL
                 WHEN pg_catalog.strpos(pg_catalog.shobj_description(oid, 'pg_database'), {}) = 1 THEN 'replaced'
                 WHEN {} THEN 'unfinished' END AS cause
               FROM pg_catalog.pg_database) AS d
         WHERE cause IS NOT NULL;",
        literal(MARK), is_unfinished()
    ))?;
    let mut found: Vec<_> = marked.into_iter().filter_map(|marked| marked.judge(now)).collect();
    found.sort_by(|a, b| (a.since, &a.database).cmp(&(b.since, &b.database)));
    Ok(found)
}

/// The databases that killed restores have left.
///
/// # Errors
/// [`Kind::Server`].
pub(super) fn unfinished(session: &Session<'_>) -> Result<Vec<String>> {
    session.query(
        HOME,
        &format!(
            "SELECT coalesce(pg_catalog.json_agg(datname), '[]') FROM pg_catalog.pg_database
             WHERE CASE WHEN pg_catalog.has_database_privilege(oid, 'CONNECT') THEN {} END;",
            is_unfinished()
        ),
    )
}

/// Of a row of `pg_database`: the name must be ours, and the comment; or it has none yet, and is empty.
fn is_unfinished() -> String {
    format!(
        "datname ~ '_restoring_[0-9]{{8}}T[0-9]{{6}}Z$'
           AND (pg_catalog.shobj_description(oid, 'pg_database') = {}
             OR (pg_catalog.shobj_description(oid, 'pg_database') IS NULL AND pg_catalog.pg_database_size(oid) <=
                 (SELECT pg_catalog.pg_database_size(t.oid) FROM pg_catalog.pg_database t WHERE t.datname = 'template0'
                      AND pg_catalog.has_database_privilege(t.oid, 'CONNECT'))))",
        literal(UNFINISHED)
    )
}

/// Removes one of them, unless it is none any more, or somebody is connected to it. The caller holds the lock.
///
/// # Errors
/// [`Kind::Server`].
pub fn remove(settings: &Settings, runtime: &dyn Runtime, leftover: &Leftover) -> Result<()> {
    let name = &leftover.database;
    if !find(settings, runtime, leftover.since)?.iter().any(|found| found.database == *name) {
        return Err(Error::new(Kind::Server, format!("database {name:?} is not a leftover of a restore"))
            .state("it was not removed"));
    }
    let connection = connect(settings)?;
    let session = &Session::newest(runtime, &connection);
    // Of a template there is a copy by now that is one.
    let not_template = format!("ALTER DATABASE {} IS_TEMPLATE false;", identifier(name));
    session
        .execute(HOME, &not_template)
        .and_then(|()| drop_database(session, name, ""))
        .map_err(|error| error.context(format!("could not remove database {name:?}")))
}

/// Drops a database of ours, if it is there, with these options. Subscriptions in it, which would keep it, go first; the
/// publishers do not hear of it, for slots of their names are those of the database that it is a copy of.
///
/// # Errors
/// [`Kind::Server`].
pub(super) fn drop_database(session: &Session<'_>, name: &str, options: &str) -> Result<()> {
    let subscriptions: Vec<(String, Option<String>)> = session.query(
        HOME,
        &format!(
            "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(subname, subslotname)), '[]')
             FROM pg_catalog.pg_subscription JOIN pg_catalog.pg_database d ON d.oid = subdbid WHERE datname = {};",
            literal(name)
        ),
    )?;
    for (subscription, slot) in subscriptions {
        session.execute(name, &unsubscribed(&subscription))?;
        if let Some(slot) = slot {
            log::info!(
                "subscription {subscription:?} of database {name:?} is dropped, but not the replication slot {slot:?} of its publisher"
            );
        }
    }
    session.execute(HOME, &format!("DROP DATABASE IF EXISTS {} {options};", identifier(name)))
}

/// A slot can be taken off only from one that is switched off (ALTER SUBSCRIPTION).
fn unsubscribed(subscription: &str) -> String {
    let name = identifier(subscription);
    format!(
        "ALTER SUBSCRIPTION {name} DISABLE;\nALTER SUBSCRIPTION {name} SET (slot_name = NONE);\nDROP SUBSCRIPTION {name};"
    )
}

fn connect(settings: &Settings) -> Result<Connection> {
    let connection = settings.connection();
    match connection.is_absent() {
        false => Ok(connection),
        true => Err(Error::new(Kind::Server, "the server is not running")
            .hint(format!("systemctl start {}", connection.unit()))),
    }
}

/// A database whose comment is ours.
#[derive(Deserialize)]
struct Marked {
    database: String,
    cause: Cause,
    bytes: u64,
}

impl Marked {
    /// One that has got another name since is somebody's.
    fn judge(self, now: Timestamp) -> Option<Leftover> {
        let between = match self.cause {
            Cause::Replaced => "_before_",
            Cause::Unfinished => "_restoring_",
        };
        let (_, time) = self.database.rsplit_once(between)?;
        let since = stamp::read(time)?;
        let days = now.duration_since(since).as_hours() / 24;
        Some(Leftover { database: self.database, cause: self.cause, bytes: self.bytes, since, days })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(database: &str, cause: Cause) -> Option<Leftover> {
        let marked = Marked { database: database.into(), cause, bytes: 3_000_000 };
        marked.judge("2026-12-06T04:00:00Z".parse().unwrap())
    }

    #[test]
    fn one_that_has_its_name_still_is_told_with_size_and_age() {
        let now = "2026-11-24T03:00:00.5Z".parse().unwrap();
        let found = judge(&name("a_before_b", now), Cause::Replaced).unwrap();
        assert_eq!(
            found.to_string(),
            "database \"a_before_b_before_20261124T030000Z\", replaced by a restore, 3.00 MB, \
             since 2026-11-24T03:00:00Z (12 days)"
        );
        for other in ["homeserver", "a_before_b", "a_before_20261124", "a_before_20261124T030000Z_x"] {
            assert_eq!(judge(other, Cause::Replaced), None, "{other}");
        }
        let unfinished = judge(&unfinished_name("a", now), Cause::Unfinished).unwrap().to_string();
        assert!(
            unfinished
                .contains("\"a_restoring_20261124T030000Z\", left unfinished by an interrupted restore"),
            "{unfinished}"
        );
    }

    #[test]
    fn of_a_long_name_as_much_is_kept_as_fits() {
        let now = "2026-11-24T03:00:00Z".parse().unwrap();
        let long = "d".repeat(63);
        assert_eq!(name(&long, now), format!("{}_before_20261124T030000Z", "d".repeat(39)));
        assert_eq!(unfinished_name(&long, now), format!("{}_restoring_20261124T030000Z", "d".repeat(36)));
        assert_eq!(unfinished_name(&"d".repeat(36), now).len(), 63);
        let of_two_bytes = format!("d{}", "ä".repeat(31));
        assert_eq!(
            unfinished_name(&of_two_bytes, now),
            format!("d{}_restoring_20261124T030000Z", "ä".repeat(17))
        );
        assert!(judge(&name(&of_two_bytes, now), Cause::Replaced).is_some());
    }

    #[test]
    fn whatever_its_name_is_the_mark_is_one_statement() {
        let mark = mark("it's $$");
        assert!(mark.contains("datname = 'it''s $$'") && mark.ends_with("\\gexec\n"), "{mark}");
    }
}
