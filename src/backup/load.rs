//! One dump into one empty database.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::crew::Crew;
use super::custom::Toc;
use super::manifest::{DatabaseDump, File, Manifest};
use super::read_back::{Silent, codec, compare_file, copy, damaged, require_same};
use super::scratch::Scratch;
use super::section::Section;
use crate::archive::{self, StoredReader};
use crate::config::BackupFormat;
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::{self, Part, Tablespaces};
use crate::postgres::{HELPERS, Session, psql_load, psql_restriction};
use crate::report::Progress;
use crate::runtime::{Child, interrupt};

/// How much is read at a time.
pub(super) const PIECE: usize = 512 * 1024;

/// How many connections work at the same time.
pub fn jobs() -> usize {
    archive::default_threads().max(2)
}

/// A backup, and the private key if it is encrypted.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its directory.
    pub directory: &'a Path,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// age's identity file, or gpg's directory.
    pub identity: Option<&'a Path>,
}

impl Source<'_> {
    fn path(&self, file: &File) -> PathBuf {
        self.directory.join(&file.file)
    }

    pub(super) fn open(&self, file: &File) -> Result<StoredReader> {
        let method = self.manifest.encryption.as_ref().map(|encryption| encryption.method);
        archive::open(&self.path(file), codec(self.manifest.compression), method, self.identity)
    }

    /// The file that was read must be the one that was written. What it unpacks to follows from that: it was compared
    /// when the backup was read back, and the codec checks its own sums as it unpacks.
    pub(super) fn require_same_file(&self, file: &File, read: StoredReader) -> Result<()> {
        compare_file(&self.path(file), file, &read.finish()?.file)
    }

    /// The parts of a dump, each with its place in the file; none if it can be read from its beginning only.
    fn parts(&self, dump: &DatabaseDump) -> Vec<(u64, archive::Part)> {
        let mut parts = Vec::new();
        let (mut bytes, mut content) = (0, 0);
        for part in &dump.parts {
            parts.push((bytes, *part));
            bytes += part.bytes;
            content += part.content_bytes;
        }
        let whole = bytes == dump.dump.bytes && content == dump.dump.content_bytes;
        match whole && self.manifest.encryption.is_none() {
            true => parts,
            false => Vec::new(),
        }
    }

    pub(super) fn open_part(
        &self,
        dump: &DatabaseDump,
        (start, part): (u64, archive::Part),
    ) -> Result<impl BufRead + Send> {
        let reader =
            archive::open_part(&self.path(&dump.dump), codec(self.manifest.compression), start, part)?;
        Ok(BufReader::with_capacity(PIECE, reader))
    }
}

/// The content of a whole file of a backup, compared with its digests.
///
/// # Errors
/// [`Kind::Damaged`].
pub fn text(source: Source<'_>, file: &File) -> Result<String> {
    let path = source.path(file);
    let mut content = source.open(file)?;
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(archive::into_error)?;
    require_same(&path, file, content.finish()?)?;
    String::from_utf8(bytes).map_err(|error| damaged(&path, "it is not UTF-8").because(error))
}

/// Loads a dump into the empty database `name`, and compares on the way the file that was read with its digest. After an
/// error, and so after any difference, the database is of no use.
///
/// # Errors
/// [`Kind::Damaged`] if the dump is not what was written or the server does not take it, [`Kind::NoSpace`] if it
/// has no room for it.
pub fn load(
    target: &Target<'_>,
    source: Source<'_>,
    dump: &DatabaseDump,
    progress: &mut dyn Progress,
) -> Result<()> {
    let shown = target.shown;
    let explain = |error| explain(error, shown, dump.foreign.is_some());
    progress.begin(&format!("restoring {shown}"), Some(dump.dump.content_bytes));
    let loaded = match target.in_parts(source, dump, progress)? {
        Some(loaded) => loaded,
        None => target.whole(source, dump, progress)?,
    };
    progress.end();
    if let Some(rest) = loaded.map_err(explain)? {
        progress.begin(&format!("finishing {shown}"), None);
        target.rest(&rest).map_err(explain)?;
        progress.end();
    }
    Ok(())
}

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
}

/// A file of definitions only.
const TOC: &str = "toc";

/// The types of each table's columns, by what pg_dump's `COPY` says of it.
const COLUMNS: &str = "SELECT coalesce(pg_catalog.json_object_agg(name, types), '{}') FROM (
    SELECT pg_catalog.format('%I.%I (%s)', nspname, relname,
            pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum)) AS name,
        pg_catalog.json_agg(atttypid::bigint ORDER BY attnum) AS types
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        JOIN pg_catalog.pg_attribute ON attrelid = c.oid
    WHERE relkind = 'r' AND nspname <> 'pg_catalog' AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    GROUP BY c.oid, nspname, relname) AS tables;";

/// Entries of a dump that are still to be restored, in order.
struct Rest(Vec<i32>);

impl Target<'_> {
    /// Loads a dump that can be entered in several places, and meanwhile takes the digest of its file; nothing if it is
    /// none. A damaged dump is damaged, whatever the server says of it.
    fn in_parts(
        &self,
        source: Source<'_>,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<Option<Result<Option<Rest>>>> {
        let parts = source.parts(dump);
        let Some((first, others)) = parts.split_first() else { return Ok(None) };
        let path = source.path(&dump.dump);
        let mut content = source.open_part(dump, *first)?;
        let toc = Toc::read(&mut content)?;
        if !toc.is_known() {
            return Ok(None);
        }
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| archive::digest_of(&path, &mut |_| interrupt::check()));
            let loaded = self.rows(content, toc, source, dump, others, progress);
            let panicked = |_| Err(Error::new(Kind::Bug, "the thread that reads the file panicked"));
            compare_file(&path, &dump.dump, &digest.join().unwrap_or_else(panicked)?)?;
            Ok(Some(loaded))
        })
    }

    /// Loads a dump from its beginning to its end.
    fn whole(
        &self,
        source: Source<'_>,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<Result<Option<Rest>>> {
        let mut content = source.open(&dump.dump)?.without_content();
        let loaded = match source.manifest.dump_format {
            BackupFormat::Custom => self.custom(&mut content, source, dump, progress),
            BackupFormat::Plain => self.script(&mut content, dump, progress).map(|()| None),
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
    ) -> Result<Option<Rest>> {
        let mut content = BufReader::with_capacity(PIECE, content);
        let toc = Toc::read(&mut content)?;
        if toc.is_known() {
            return self.rows(content, toc, source, dump, &[], progress);
        }
        let child = self.start(Part::Everything, None, HELPERS)?;
        let head = toc.bytes();
        let mut content = head.chain(content);
        feed(child, &mut content, progress, |piece, kept| {
            kept.extend_from_slice(piece);
            Ok(())
        })
        .map(|()| None)
    }

    /// Makes everything in the custom dump, but for what is returned: definitions, and what follows the table of contents
    /// in `content` and in `parts`.
    fn rows(
        &self,
        content: impl BufRead + Send,
        toc: Toc,
        source: Source<'_>,
        dump: &DatabaseDump,
        parts: &[(u64, archive::Part)],
        progress: &mut dyn Progress,
    ) -> Result<Option<Rest>> {
        let file = self.scratch.write(TOC, &toc.bytes())?;
        self.start(Part::Definitions, Some((&file, 1)), 0)?.wait()?;
        let before = toc.before_rows();
        if !before.is_empty() {
            self.start_listed(&before, 1, 0)?.wait()?;
        }
        let toc = toc.with_binary(&self.session.query(self.name, COLUMNS)?);
        let made = Crew::new(self, source, dump, &toc, parts).work(content, progress)?;
        Ok(Some(Rest(toc.after_rows().filter(|id| !made.contains(id)).collect())))
    }

    /// For rows that are to follow.
    pub(super) fn start_rows(&self) -> Result<Child> {
        self.start(Part::Rows, None, 0)
    }

    fn rest(&self, rest: &Rest) -> Result<()> {
        self.start_listed(&rest.0, jobs(), 0)?.wait()
    }

    /// What belongs to `database` in a dump in SQL.
    fn script(
        &self,
        content: &mut StoredReader,
        dump: &DatabaseDump,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let Session { runtime, major, connection } = self.session;
        let mut command = runtime.command(*major, &psql_load(connection, self.name))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut section = Section::new(&dump.database.name);
        let mut restriction = psql_restriction(*runtime, *major)?.into_bytes();
        if dump.foreign.is_some() {
            // What somebody has written in front of it is meant for a session without settings of ours.
            restriction.extend_from_slice(b"SET search_path = public;\n");
        }
        let child = Child::spawn(command, "psql with the dump")?;
        feed(child, content, progress, |piece, kept| {
            kept.append(&mut restriction);
            section.feed(piece, kept);
            match section.refused() {
                Some((_, refusal)) => {
                    Err(Error::new(Kind::Damaged, format!("the dump is not loaded: {refusal}")))
                }
                None => Ok(()),
            }
        })
    }

    fn start(&self, part: Part, file: Option<(&Path, usize)>, helpers: usize) -> Result<Child> {
        self.start_on(Stdio::piped(), part, file, helpers)
    }

    fn start_on(
        &self,
        stdin: Stdio,
        part: Part,
        file: Option<(&Path, usize)>,
        helpers: usize,
    ) -> Result<Child> {
        let Session { runtime, major, connection } = self.session;
        let call = pg_restore::restore(connection, self.name, part, file, helpers, self.tablespaces);
        let mut command = runtime.command(*major, &call)?;
        command.stdin(stdin).stdout(Stdio::null());
        Child::spawn(command, "pg_restore")
    }

    /// Makes these entries, which come after the rows, by so many connections with so many helpers each.
    pub(super) fn start_listed(&self, entries: &[i32], jobs: usize, helpers: usize) -> Result<Child> {
        let no_pipe = |error| Error::new(Kind::Program, "could not make a pipe").because(error);
        let (reader, mut writer) = std::io::pipe().map_err(no_pipe)?;
        // It is opened by its name, for which its owner is asked.
        if let Some(account) = self.session.runtime.account() {
            fchown(&writer, Some(account.uid.as_raw()), Some(account.gid.as_raw())).map_err(no_pipe)?;
        }
        let file = self.scratch.path().join(TOC);
        let child = self.start_on(reader.into(), Part::Listed, Some((&file, jobs)), helpers)?;
        let list = entries.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n";
        // One that has ended already says why by its exit status.
        let _ = writer.write_all(list.as_bytes());
        Ok(child)
    }
}

/// Sends content to a program, or what `section` appends of it.
fn feed(
    mut child: Child,
    content: &mut impl Read,
    progress: &mut dyn Progress,
    mut section: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let Some(mut stdin) = child.stdin() else {
        return Err(Error::new(Kind::Bug, "a program was started without its pipe"));
    };
    archive::enlarge_pipe(&stdin);
    let mut kept = Vec::new();
    // One that has ended says why by its exit status.
    let fed = copy(content, progress, |piece| {
        kept.clear();
        // At the end of its input it would carry out the statement that has begun.
        section(piece, &mut kept).inspect_err(|_| child.signal(Signal::SIGKILL))?;
        stdin
            .write_all(&kept)
            .map_err(|error| Error::new(Kind::Program, "the program took no more").because(error))
    });
    drop(stdin);
    match fed {
        Err(error) if error.kind() != Kind::Program => Err(error),
        fed => child.wait().and(fed),
    }
}

/// Whose fault it is: the machine's, or the dump's. Of a dump that another tool wrote it is not known whether any server
/// would take it.
fn explain(error: Error, database: &str, foreign: bool) -> Error {
    if error.kind() != Kind::Program {
        return error;
    }
    let report = error.report();
    let kind = match report.contains("No space left on device") {
        true => Kind::NoSpace,
        false
            if report.contains("terminating connection")
                || report.contains("server closed the connection") =>
        {
            Kind::Server
        }
        false if foreign => Kind::Server,
        false => Kind::Damaged,
    };
    error.with_kind(kind).context(format!("database {database:?} could not be restored"))
}
