//! Where a dump is loaded, and the programs that load it there.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use super::custom::Toc;
use super::feed::Feed;
use super::missing::Missing;
use super::scratch::Scratch;
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::{self, Part, Tablespaces};
use crate::postgres::{Apart, Session, refusals};
use crate::runtime::{Child, interrupt};

/// Where a dump is loaded.
pub struct Target<'a> {
    /// The server.
    pub session: &'a Session<'a>,
    /// The empty database.
    pub name: &'a str,
    /// What it is called in messages.
    pub shown: &'a str,
    /// Where its tables may lie.
    pub tablespaces: Tablespaces,
    /// A directory for a small file.
    pub scratch: &'a Scratch,
    /// With whose rights rows are loaded.
    pub authority: Authority,
    /// Extensions that are left out, for they cannot be made in a database of this name.
    pub without: &'a [Apart],
    /// What is done about a table whose rows the server does not take.
    pub refused_rows: RefusedRows,
}

/// What is done about a table whose rows the server does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedRows {
    /// It stays empty, and all else is loaded.
    Skip,
    /// The load ends, and whoever reads of it is told how such a table is skipped.
    Offer,
    /// The load ends.
    Fail,
}

/// With whose rights a table's rows are loaded, where loading them runs code of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// His. A dump in SQL, and one of a pg_dump that is not known here, is loaded by the superuser all the same.
    Owner,
    /// The superuser's: in a server in a sandbox, or where the owners are trusted.
    Superuser,
}

/// The option of [`RefusedRows::Skip`].
const SKIP: &str = "--skip-broken";

/// A file of definitions only.
pub(super) const TOC: &str = "toc";

/// Of what pg_restore says of single entries: some lines for each of many.
pub(super) const LINES: usize = 100_000;

impl Target<'_> {
    pub(super) fn conninfo(&self, helpers: usize) -> String {
        self.session.connection.conninfo_for_loading(self.name, helpers)
    }

    pub(super) fn start(&self, part: Part, file: Option<(&Path, usize)>, conninfo: String) -> Result<Child> {
        self.start_on(Stdio::piped(), part, file, conninfo)
    }

    pub(super) fn start_on(
        &self,
        stdin: Stdio,
        part: Part,
        file: Option<(&Path, usize)>,
        conninfo: String,
    ) -> Result<Child> {
        let Session { runtime, major, .. } = self.session;
        let call = pg_restore::restore(conninfo, part, file, self.tablespaces);
        let mut command = runtime.command(*major, &call)?;
        command.stdin(stdin).stdout(Stdio::null());
        match part {
            Part::Everything | Part::Rows | Part::RowsOrNone => Child::spawn(command, "pg_restore"),
            _ => Child::spawn_that_says(command, "pg_restore", LINES),
        }
    }

    /// For rows that are to follow.
    pub(super) fn start_rows(&self, conninfo: Option<String>) -> Result<Feed> {
        let part = if self.skips_rows() { Part::RowsOrNone } else { Part::Rows };
        let child = self.start(part, None, conninfo.unwrap_or_else(|| self.conninfo(0)))?;
        Ok(Feed::of(child)?.reading_on(self.skips_rows()))
    }

    /// Whether a table is left empty whose rows the server does not take.
    pub(super) fn skips_rows(&self) -> bool {
        self.refused_rows == RefusedRows::Skip
    }

    /// What is missing, if it is only that the server does not take the rows of this table, and they are to be skipped.
    ///
    /// # Errors
    /// The one that is given, if it is anything else.
    pub(super) fn skip_rows(&self, toc: &Toc, id: i32, error: Error) -> Result<Missing> {
        let said = error.report();
        let is_refused = error.kind() == Kind::Program && refusals::verdict(&said) == Kind::NotTaken;
        match (toc.table_of(id).filter(|_| is_refused), self.refused_rows) {
            (Some(table), RefusedRows::Skip) => Ok(Missing::of_rows(toc, id, table, &said)),
            (Some(_), RefusedRows::Offer) => {
                Err(error.hint(format!("{SKIP} restores everything else and leaves this table empty")))
            }
            _ => Err(error),
        }
    }

    /// Makes these entries, which come after the rows, by so many connections with so many helpers each, or over this one.
    pub(super) fn start_listed(
        &self,
        entries: &[i32],
        jobs: usize,
        helpers: usize,
        conninfo: Option<String>,
    ) -> Result<Child> {
        let conninfo = conninfo.unwrap_or_else(|| self.conninfo(helpers));
        self.start_part_from_list(Part::Listed, entries, jobs, conninfo)
    }

    pub(super) fn start_part_from_list(
        &self,
        part: Part,
        entries: &[i32],
        jobs: usize,
        conninfo: String,
    ) -> Result<Child> {
        let file = self.scratch.path().join(TOC);
        self.start_from_list(entries, |list| self.start_on(list, part, Some((&file, jobs)), conninfo))
    }

    pub(super) fn start_from_list(
        &self,
        entries: &[i32],
        start: impl FnOnce(Stdio) -> Result<Child>,
    ) -> Result<Child> {
        let no_pipe = |error| Error::new(Kind::Program, "could not make a pipe").because(error);
        let (reader, mut writer) = std::io::pipe().map_err(no_pipe)?;
        // It is opened by its name, for which its owner is asked.
        self.session.runtime.give(writer.as_fd()).map_err(no_pipe)?;
        let child = start(reader.into())?;
        let list = entries.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n";
        // One that has ended already says why by its exit status.
        let _ = writer.write_all(list.as_bytes());
        Ok(child)
    }
}

/// Waits for the end of what [`Target::start_listed`] began, and adds to `missing` what the server has not taken and can be
/// missed.
///
/// # Errors
/// [`Kind::Program`] with the last words, if it is anything else.
pub(super) fn finish_listed(child: Child, toc: &Toc, missing: &mut Vec<Missing>) -> Result<()> {
    let (status, said) = child.wait_status()?;
    if status.success() {
        return Ok(());
    }
    interrupt::check()?;
    let failed = |said: &str| {
        let is_told = |line: &&str| match line.strip_prefix("pg_restore: ") {
            Some(message) => message.starts_with("error: ") || message.starts_with("from TOC entry "),
            None => true,
        };
        self::failed("pg_restore", status, said.lines().filter(is_told))
    };
    let refused =
        refusals::refusals(&said).filter(|refused| !refused.is_empty()).ok_or_else(|| failed(&said))?;
    for refusal in refused {
        let gone = missing.iter().filter_map(|one| one.id).collect();
        let header = format!("{}\n{}", refusal.header, refusal.said);
        let can_be_missed = refusals::verdict(&refusal.said) == Kind::NotTaken
            && toc.can_be_missed(refusal.entry, &gone)
            || toc.is_key_of(refusal.entry, &gone);
        if !can_be_missed {
            return Err(failed(&header));
        }
        let what = toc.shown(refusal.entry).unwrap_or(refusal.header);
        log::warn!("the server rejects {what}: {}", refusal.error);
        let remedy = refusals::remedy(&refusal.said);
        missing.push(Missing { id: Some(refusal.entry), table: None, what, why: refusal.error, remedy });
    }
    Ok(())
}

/// With the last of what was said.
pub(super) fn failed<'l>(name: &str, status: ExitStatus, said: impl Iterator<Item = &'l str>) -> Error {
    let lines: Vec<_> = said.collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    Error::new(Kind::Program, format!("{name} failed ({status})")).because(last)
}
