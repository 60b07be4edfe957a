//! One dump into one empty database.

use std::io::{BufReader, Read as _};
use std::process::Stdio;

use super::custom::Toc;
use super::feed::{feed, feed_to};
use super::manifest::DatabaseDump;
use super::missing::Missing;
use super::origin::{Live, Origin as _, Stored};
use super::read_back::{compare_file, copy};
use super::section::Section;
use super::source::{PIECE, Source};
use super::stages::Rest;
use super::target::{Authority, LINES, TOC, Target, failed};
use crate::archive::{self, StoredReader};
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::{self, Part as Step};
use crate::postgres::{Apart, BackupFormat, HELPERS, Session, psql_load, psql_restriction, refusals};
use crate::report::{Progress, Silent};
use crate::runtime::{Child, interrupt};

/// Loads a dump into the empty database `name`, and compares on the way the file that was read with its digest. After an
/// error, and so after any difference, the database is of no use. Returns the indexes, and the views that cannot be
/// refreshed, that the server does not take: all else is there.
///
/// # Errors
/// [`Kind::Damaged`] if the dump is not what was written, [`Kind::NotTaken`] if the server does not take something of it
/// that cannot be missed, [`Kind::NoSpace`] if it has no room for it.
pub fn load(
    target: &Target<'_>,
    source: Source<'_>,
    dump: &DatabaseDump,
    progress: &mut dyn Progress,
) -> Result<Vec<Missing>> {
    let shown = target.shown;
    let explain = |error| explain(error, shown, dump.foreign.is_some());
    progress.begin(&format!("restoring {shown}"), Some(dump.dump.content_bytes));
    let loaded = match target.in_parts(source, dump, progress)? {
        Some(loaded) => loaded,
        None => target.whole(source, dump, progress)?,
    };
    progress.end();
    match loaded.map_err(explain)? {
        Loaded::All(missing) => Ok(missing),
        Loaded::But(rest) => target.finish(*rest, &Stored::new(source, dump), progress).map_err(explain),
    }
}

/// Makes the database that a dump of another server is of, with everything that is set for it, and loads the dump into it, as
/// [`load`] does. It is made by way of the database `by_way_of`; one of its name is replaced, if asked for. After an error the
/// database is of no use.
///
/// # Errors
/// [`Kind::Program`] with the server's words if it does not take something; [`Kind::Config`] for what only a superuser could
/// load.
pub fn carry(
    target: &Target<'_>,
    dump: &dyn Live,
    (by_way_of, replace): (&str, bool),
    progress: &mut dyn Progress,
) -> Result<Vec<Missing>> {
    let mut rest = None;
    dump.read(&mut |toc, content| {
        if !toc.is_known() && target.authority == Authority::Owner {
            return Err(Error::new(Kind::Config, "the output of this version of pg_dump is not supported")
                .hint("upgrade.method = \"online\" in /etc/matrix-postgres/config.toml needs no dump"));
        }
        target.database(&toc, by_way_of, replace)?;
        progress.begin(&format!("loading {}", target.shown), Some(dump.bytes()));
        rest = Some(target.rows(content, toc, dump, dump.parts(), progress)?);
        progress.end();
        Ok(())
    })?;
    match rest {
        Some(rest) => target.finish(rest, dump, progress),
        None => Ok(Vec::new()),
    }
}

/// How far a dump has been loaded.
enum Loaded<'a> {
    /// To its end, but for this.
    All(Vec<Missing>),
    /// What comes last is left.
    But(Box<Rest<'a>>),
}

impl<'a> Loaded<'a> {
    fn but(rest: Rest<'a>) -> Self {
        Self::But(Box::new(rest))
    }
}

impl<'a> Target<'a> {
    /// Loads a dump that can be entered in several places, and meanwhile takes the digest of its file; nothing if it is
    /// none. A damaged dump is damaged, whatever the server says of it.
    fn in_parts(
        &self,
        source: Source<'_>,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<Option<Result<Loaded<'a>>>> {
        let stored = Stored::new(source, dump);
        let mut parts = stored.parts();
        if parts.is_empty() {
            return Ok(None);
        }
        let path = source.path(&dump.dump);
        let mut content = stored.open_part(parts.remove(0).number)?;
        let toc = Toc::read(&mut content)?;
        if !toc.is_known() {
            return Ok(None);
        }
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| {
                let file = source.files.open(&dump.dump.file)?;
                archive::digest_of(file, &path, &mut |_| interrupt::check())
            });
            let loaded = self.rows(content, toc, &stored, parts, progress);
            let panicked = |_| Err(Error::new(Kind::Bug, "the thread that reads the file panicked"));
            compare_file(&path, &dump.dump, &digest.join().unwrap_or_else(panicked)?)?;
            Ok(Some(loaded.map(Loaded::but)))
        })
    }

    /// Loads a dump from its beginning to its end.
    fn whole(
        &self,
        source: Source<'_>,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<Result<Loaded<'a>>> {
        let mut content = source.open(&dump.dump)?.without_content();
        let loaded = match source.manifest.dump_format {
            BackupFormat::Custom => self.custom(&mut content, source, dump, progress),
            BackupFormat::Plain => self.script(&mut content, dump, progress).map(Loaded::All),
        };
        interrupt::check()?;
        // A damaged dump is damaged, whatever the server says of it.
        if loaded.is_err() {
            copy(&mut content, &mut Silent, |_| Ok(()))?;
        }
        source.require_same_file(&dump.dump, content)?;
        Ok(loaded)
    }

    fn custom(
        &self,
        content: &mut StoredReader,
        source: Source<'_>,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<Loaded<'a>> {
        let mut content = BufReader::with_capacity(PIECE, content);
        let toc = Toc::read(&mut content)?;
        if toc.is_known() {
            let stored = Stored::new(source, dump);
            return self.rows(content, toc, &stored, Vec::new(), progress).map(Loaded::but);
        }
        let child = self.start(Step::Everything, None, self.conninfo(HELPERS))?;
        let head = toc.bytes();
        let mut content = head.chain(content);
        feed(child, &mut content, progress, |piece, kept| {
            kept.extend_from_slice(piece);
            Ok(())
        })
        .map(|()| Loaded::All(Vec::new()))
    }

    /// What belongs to `database` in a dump in SQL.
    fn script(
        &self,
        content: &mut StoredReader,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Missing>> {
        let Session { runtime, major, connection } = self.session;
        let mut command = runtime.command(*major, &psql_load(connection, self.name))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut section = Section::to_load(&dump.database.name);
        let mut restriction = psql_restriction(*runtime, *major)?.into_bytes();
        if dump.foreign.is_some() {
            // What somebody has written in front of it is meant for a session without settings of ours.
            restriction.extend_from_slice(b"SET search_path = public;\n");
        }
        let mut child = Child::spawn_that_says(command, "psql with the dump", LINES)?;
        let fed = feed_to(&mut child, content, progress, |piece, kept| {
            kept.append(&mut restriction);
            section.feed(piece, kept);
            match section.refused() {
                Some((_, refusal)) => {
                    Err(Error::new(Kind::Damaged, format!("the dump was not loaded: {refusal}")))
                }
                None => Ok(()),
            }
        })?;
        let (status, said) = child.wait_status()?;
        interrupt::check()?;
        match status.success() {
            true => fed.map(|()| section.missing(&said)),
            false => Err(failed("psql with the dump", status, said.lines())),
        }
    }

    /// Makes the database itself.
    fn database(&self, toc: &Toc, by_way_of: &str, replace: bool) -> Result<()> {
        let file = self.scratch.write(TOC, &toc.bytes())?;
        let Session { runtime, major, connection } = self.session;
        let call = pg_restore::create(connection, by_way_of, &file, replace);
        self.start_from_list(&toc.of_database(), |list| {
            let mut command = runtime.command(*major, &call)?;
            command.stdin(list).stdout(Stdio::null());
            Child::spawn(command, "pg_restore")
        })?
        .wait()
    }

    /// Makes what was left out of a dump, in a database in which it can be made. Nothing if it was not.
    ///
    /// # Errors
    /// [`Kind::NotTaken`] if the server does not take it.
    pub fn bring_apart(&self, source: Source<'_>, dump: &DatabaseDump, apart: &[Apart]) -> Result<()> {
        let mut content = BufReader::with_capacity(PIECE, source.open(&dump.dump)?);
        let mut toc = Toc::read(&mut content)?;
        let head = toc.bytes();
        let mut found = false;
        for Apart { extension, schema, .. } in apart {
            found |= toc.take_apart(extension, schema);
        }
        if !found {
            return Ok(());
        }
        let list = toc.apart().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n";
        let list = self.scratch.write("list", list.as_bytes())?;
        let Session { runtime, major, connection } = self.session;
        let mut command = runtime.command(*major, &pg_restore::listed(connection, self.name, &list))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = Child::spawn(command, "pg_restore")?;
        feed(child, &mut head.chain(content), &mut Silent, |piece, kept| {
            kept.extend_from_slice(piece);
            Ok(())
        })
        .map_err(|error| explain(error, self.name, dump.foreign.is_some()))
    }
}

/// Whose fault it is: the machine's, the dump's, or that of what was dumped. Of a dump that another tool wrote it is not known
/// whether any server would take it.
fn explain(error: Error, database: &str, foreign: bool) -> Error {
    if error.kind() != Kind::Program {
        return error;
    }
    let said = error.report();
    let (kind, not_taken) = match refusals::verdict(&said) {
        Kind::NotTaken if foreign => (Kind::Server, true),
        Kind::Damaged if foreign => (Kind::Server, false),
        kind => (kind, kind == Kind::NotTaken),
    };
    let error = error.with_kind(kind).context(format!("database {database:?} could not be restored"));
    if not_taken { error.hint(refusals::remedy(&said)) } else { error }
}
