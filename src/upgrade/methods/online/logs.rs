//! What pg_upgrade leaves behind when it fails: the lines with the reason are shown, and all of it is kept.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{IoContext as _, Result};
use crate::files::{self, beneath};
use crate::postgres::without_verifiers;

/// What names begin with under which they are kept, beside the journal.
pub const KEPT: &str = "pg_upgrade-";

/// pg_upgrade's files are two directories deep, and few.
const DEEPEST: usize = 4;
const MOST_LOGS: usize = 100;
const LONGEST_LOG: u64 = 16 << 20;

/// So many lines are shown of one list of objects, and of everything.
const OF_A_LIST: usize = 10;
const MOST_LINES: usize = 30;

/// Where those of the upgrade or rehearsal `id` are kept.
pub fn place(state_directory: &Path, id: &str) -> PathBuf {
    state_directory.join("upgrade").join(format!("{KEPT}{id}"))
}

/// Its files, with what is in them.
#[derive(Debug, Default)]
pub struct Logs(Vec<(PathBuf, String)>);

impl Logs {
    /// Those below these directories of the cluster's owner, as far as they can be read.
    pub fn find(account: &Account, directories: &[&Path]) -> Self {
        let found = account.with_files(|| {
            let mut files = Vec::new();
            for directory in directories {
                collect(directory, &mut files, DEEPEST);
            }
            files.sort();
            let text = |file: PathBuf| {
                let text = beneath::read(&file, LONGEST_LOG).ok()?;
                Some((file, without_verifiers(&String::from_utf8_lossy(&text))))
            };
            Ok(files.into_iter().filter_map(text).collect::<Vec<_>>())
        });
        Self(found.unwrap_or_default())
    }

    /// The lines that say why: lists of objects, errors, and what belongs to those. No statement is among them.
    pub fn reasons(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (file, text) in &self.0 {
            let found = match file.extension().is_some_and(|extension| extension == "txt") {
                true => text.lines().take(OF_A_LIST).map(str::trim).map(str::to_owned).collect(),
                false => errors(text),
            };
            for line in found {
                if !line.is_empty() && !lines.contains(&line) && lines.len() < MOST_LINES {
                    lines.push(line);
                }
            }
        }
        lines
    }

    /// Writes them into a directory of ours.
    ///
    /// # Errors
    /// [`crate::Kind::File`], [`crate::Kind::NoSpace`].
    pub fn keep(&self, directory: &Path) -> Result<()> {
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(directory).at("create", directory)?;
        for (file, text) in &self.0 {
            if let Some(name) = file.file_name() {
                files::replace(&directory.join(name), text)?;
            }
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an error is begun with, whoever has written it.
const ERRORS: [&str; 4] = ["ERROR:  ", "FATAL:  ", "PANIC:  ", ": error: "];

/// What the server and its programs say beside it.
const BESIDE: [&str; 4] = ["DETAIL:  ", "CONTEXT:  ", "pg_restore: from TOC entry ", "pg_restore: detail: "];

const NO_REASON: [&str; 2] = [
    "lock file \"postmaster.pid\" already exists",
    "FATAL:  terminating connection due to administrator command",
];

fn errors(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut entry = None;
    let mut within = false;
    for line in text.lines() {
        if line.starts_with("pg_restore: from TOC entry ") {
            entry = Some(line);
        } else if NO_REASON.iter().any(|end| line.ends_with(end)) {
            // By the first it sees that the old server runs; the other comes of the end that it makes after a failure.
            entry = None;
        } else if ERRORS.iter().any(|error| line.contains(error)) {
            found.extend(entry.take().map(str::to_owned));
            found.push(line.to_owned());
            within = true;
        } else if within && BESIDE.iter().any(|beside| line.contains(beside)) {
            found.push(line.to_owned());
        } else {
            within = false;
        }
    }
    found
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>, deeper: usize) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        // Not what a link leads to.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if files.len() >= MOST_LOGS {
            return;
        } else if is_directory && deeper > 0 {
            collect(&path, files, deeper - 1);
        } else if path.extension().is_some_and(|extension| extension == "log" || extension == "txt") {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_with_the_reason_are_shown_and_no_statement() {
        let logs = Logs(vec![
            ("x/tables_using_aclitem.txt".into(), "In database: odd\n  public.r.x\n".into()),
            (
                "x/log/pg_upgrade_dump_5.log".into(),
                "command: pg_restore\npg_restore: while PROCESSING TOC:\n\
                 pg_restore: from TOC entry 215; 1259 16385 TABLE c postgres\n\
                 pg_restore: error: could not execute query: ERROR:  child column \"b\" specifies generation expression\n\
                 HINT:  x\nCommand was: CREATE TABLE secret ();\n\n*failure*\n"
                    .into(),
            ),
            (
                "x/log/pg_upgrade_utility.log".into(),
                "ALTER ROLE a PASSWORD '…';\nALTER ROLE\npsql:globals.sql:7: ERROR:  role \"pg_x\" is reserved\n\
                 DETAIL:  y\nSTATEMENT:  CREATE ROLE pg_x\n"
                    .into(),
            ),
        ]);
        assert_eq!(
            logs.reasons(),
            [
                "In database: odd",
                "public.r.x",
                "pg_restore: from TOC entry 215; 1259 16385 TABLE c postgres",
                "pg_restore: error: could not execute query: ERROR:  child column \"b\" specifies generation expression",
                "psql:globals.sql:7: ERROR:  role \"pg_x\" is reserved",
                "DETAIL:  y",
            ]
        );
    }

    #[test]
    fn they_are_kept_without_what_nobody_may_see() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("logs/log");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("pg_upgrade_utility.log"), "PASSWORD 'SCRAM-SHA-256$4096:a$b:c';").unwrap();
        let account = Account::of(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let found = Logs::find(&account, &[&root.path().join("logs")]);
        let kept = place(root.path(), "20261124T030000Z");
        found.keep(&kept).unwrap();
        assert_eq!(std::fs::read_to_string(kept.join("pg_upgrade_utility.log")).unwrap(), "PASSWORD '…';");
    }
}
