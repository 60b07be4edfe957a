//! Rows of unlogged tables, which no standby gets (CREATE TABLE, `UNLOGGED`). Synapse keeps the locks of its workers in such.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::{self, Session};
use crate::report::DecimalBytes;
use crate::runtime::{Child, bare, tool};
use crate::upgrade::plan::choice::MUCH;
use crate::upgrade::steps::cut::Cut;

/// Their files. A crash would have emptied the tables: there are few, and they are small.
pub(in crate::upgrade) struct Unlogged {
    bytes: u64,
}

/// So many files in a command.
const AT_ONCE: usize = 500;

const FOUND: &str = "SELECT pg_catalog.json_build_array(
    (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(oid)), 0)::bigint FROM pg_catalog.pg_class
        WHERE relpersistence = 'u' AND relkind IN ('r', 't', 'i', 'S')),
    (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname)), '[]') FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace JOIN pg_catalog.pg_am a ON a.oid = relam
        WHERE relpersistence = 'u' AND relkind = 'i' AND amname = 'gist'));";

const THEIRS: &str = "SELECT pg_catalog.json_build_array(
    coalesce(pg_catalog.json_agg(name) FILTER (WHERE relkind = 'r'), '[]'),
    coalesce(pg_catalog.json_agg(name) FILTER (WHERE relkind = 'S'), '[]'))
    FROM (SELECT relkind, pg_catalog.format('%I.%I', nspname, relname) AS name
        FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        WHERE relpersistence = 'u' AND relkind IN ('r', 'S')) AS theirs;";

const BYTES: &str = "SET lock_timeout = '10s';
    SELECT pg_catalog.to_json(coalesce(pg_catalog.sum(pg_catalog.pg_table_size(oid)), 0)::bigint)
    FROM pg_catalog.pg_class WHERE relpersistence = 'u' AND relkind = 'r';";

/// There may have been few when the copy was begun, hours ago.
///
/// # Errors
/// [`Kind::NotWell`].
pub(in crate::upgrade) fn require_few(session: &Session<'_>) -> Result<()> {
    for database in postgres::databases(session)?.into_iter().map(|database| database.name) {
        let bytes: u64 = session.query(&database, BYTES).map_err(|error| locked(error, &database))?;
        if bytes > MUCH {
            let message = format!(
                "unlogged tables of database {database:?} now have {}: copying their rows would add to the downtime",
                DecimalBytes(bytes)
            );
            return Err(Error::new(Kind::NotWell, message)
                .hint("ALTER TABLE … SET LOGGED, for tables whose rows must be kept"));
        }
    }
    Ok(())
}

impl Unlogged {
    /// Copies their files from the data directory `old` to `copy`, in which they are empty. Both are of one cluster, are at
    /// the same place in its log, and have been shut down: a server that is shut down writes everything of them, and
    /// whatever anybody was told of is there. The old one is only read.
    ///
    /// Files of a server that goes on are of no moment: they show how long it takes, and are as they may be.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::Program`], [`Kind::NoSpace`].
    pub(in crate::upgrade) fn bring(account: &Account, old: &Path, copy: &Path, cut: &Cut) -> Result<Self> {
        match (Self::copied(account, old, copy), cut) {
            (Ok(bytes), Cut::Stopped) => Ok(Self { bytes }),
            (Err(error), Cut::Stopped) => Err(error),
            (copied, Cut::Running { .. }) => {
                if let Err(error) = copied {
                    log::warn!(
                        "{}",
                        error.context("unlogged tables were changed while they were copied").report()
                    );
                }
                Ok(Self { bytes: 0 })
            }
        }
    }

    fn copied(account: &Account, old: &Path, copy: &Path) -> Result<u64> {
        let base = old.join("base");
        let mut bytes = 0;
        let found = account.with_files(|| {
            let databases = std::fs::read_dir(&base).at("read", &base)?;
            let files = |database: std::io::Result<std::fs::DirEntry>| {
                let database = database.at("read", &base)?;
                Ok((database.file_name(), files_of(&database.path())?))
            };
            databases.map(files).collect::<Result<Vec<_>>>()
        })?;
        for (database, files) in found {
            let to = copy.join("base").join(database);
            for some in files.chunks(AT_ONCE) {
                bytes += some.iter().filter(|file| file.is_main).map(|file| file.bytes).sum::<u64>();
                let mut command = bare(&tool("cp", "coreutils")?);
                command.arg("--preserve=mode,timestamps").arg("--target-directory").arg(&to).arg("--");
                command.args(some.iter().map(|file| &file.path));
                account.apply(&mut command);
                command.stdin(Stdio::null()).stdout(Stdio::null());
                Child::spawn(command, "cp of unlogged tables")?.wait()?;
            }
        }
        Ok(bytes)
    }

    /// Empties them, and begins their sequences anew, in a cluster that got files of a server that went on: their pages may
    /// not fit together.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub(in crate::upgrade) fn empty(session: &Session<'_>) -> Result<()> {
        for database in postgres::databases(session)?.into_iter().map(|database| database.name) {
            let (tables, sequences): (Vec<String>, Vec<String>) = session.query(&database, THEIRS)?;
            let mut sql = match tables.is_empty() {
                true => String::new(),
                false => format!("TRUNCATE ONLY {};\n", tables.join(", ONLY ")),
            };
            for sequence in sequences {
                let _ = writeln!(sql, "ALTER SEQUENCE {sequence} RESTART;");
            }
            session.execute(&database, &sql)?;
        }
        Ok(())
    }

    /// Makes sure that the new server has them, and builds those indexes anew in whose pages there are places of a count
    /// that begins anew with a cluster (`unloggedLSN`, gist/README).
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it does not.
    pub(in crate::upgrade) fn settle(&self, session: &Session<'_>) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let mut found = 0;
        let mut stale: Vec<(String, Vec<String>)> = Vec::new();
        for database in postgres::databases(session)?.into_iter().map(|database| database.name) {
            let (bytes, indexes): (u64, Vec<String>) = session.query(&database, FOUND)?;
            found += bytes;
            if !indexes.is_empty() {
                stale.push((database, indexes));
            }
        }
        if found != self.bytes {
            let message = format!(
                "unlogged tables have {} in the new cluster, and {} in the old one",
                DecimalBytes(found),
                DecimalBytes(self.bytes)
            );
            return Err(Error::new(Kind::Damaged, message)
                .hint("matrix-postgres-upgrade run --method dump, which dumps their rows"));
        }
        for (database, indexes) in stale {
            for index in indexes {
                session.execute(&database, &format!("REINDEX INDEX {index};"))?;
            }
        }
        Ok(())
    }
}

/// A file of an unlogged table, of an index of one, or of a sequence.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    path: PathBuf,
    bytes: u64,
    /// Of the rows themselves.
    is_main: bool,
}

/// In a database's directory: each has a file `N_init` of how it looks when it is empty (chapter "The Initialization
/// Fork"), and beside it `N`, `N.1`…, `N_fsm` and `N_vm`.
fn files_of(directory: &Path) -> Result<Vec<Piece>> {
    let (mut unlogged, mut pieces) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(directory).at("read", directory)? {
        let entry = entry.at("read", directory)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.split(['_', '.']).next().unwrap_or_default().to_owned();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if name.ends_with("_init") {
            unlogged.insert(number);
            continue;
        }
        let meta = entry.metadata().at("read", &entry.path())?;
        let is_main = !name.contains('_');
        pieces.push((number, Piece { path: entry.path(), bytes: meta.len(), is_main }));
    }
    let mut pieces: Vec<_> =
        pieces.into_iter().filter(|(number, _)| unlogged.contains(number)).map(|(_, piece)| piece).collect();
    pieces.sort();
    Ok(pieces)
}

fn locked(error: Error, database: &str) -> Error {
    let text = error.report();
    match text.contains("lock timeout") {
        true => error
            .context(format!("another session has locked an unlogged table of database {database:?}"))
            .hint("matrix-postgres-upgrade check shows the sessions"),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_what_has_an_empty_form_are_taken() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["7", "7_init", "7.1", "7_vm", "70", "70_fsm", "8_init", "PG_VERSION", "pg_filenode.map"]
        {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let pieces = files_of(directory.path()).unwrap();
        let names: Vec<_> =
            pieces.iter().map(|piece| piece.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["7", "7.1", "7_vm"]);
        assert_eq!(pieces.iter().filter(|piece| piece.is_main).map(|piece| piece.bytes).sum::<u64>(), 4);
    }
}
