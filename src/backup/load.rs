//! One dump into one empty database.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;

use super::crew::{Crew, Feed};
use super::custom::{Body, Toc};
use super::guarded::{Facts, Guarded};
use super::loader::{Loaders, TRUST};
use super::manifest::{DatabaseDump, File, Manifest};
use super::origin::{Live, Origin, Part, Stored};
use super::read_back::{Silent, codec, compare_file, copy, damaged, require_same};
use super::scratch::Scratch;
use super::section::Section;
use crate::archive::{self, StoredReader};
use crate::config::BackupFormat;
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::{self, Part as Step, Tablespaces};
use crate::postgres::{Apart, HELPERS, Session, psql_load, psql_restriction, refusals};
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
    pub(super) fn parts(&self, dump: &DatabaseDump) -> Vec<(u64, archive::Part)> {
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
            return Err(Error::new(Kind::Config, "what this pg_dump writes is not known here")
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

/// What the server does not take, and can be missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its entry in the dump, where it has one.
    id: Option<i32>,
    /// What it is: `index public.t_f_idx`.
    pub what: String,
    /// The server's error.
    pub why: String,
    /// What an administrator does about it.
    pub remedy: String,
}

impl Missing {
    /// Something of a dump in SQL.
    pub(super) fn of_script(what: String, why: String, remedy: String) -> Self {
        Self { id: None, what, why, remedy }
    }
}

/// In a sentence: which objects of a database are missing, and why.
pub fn told(missing: &[Missing]) -> Option<Error> {
    let first = missing.first()?;
    let list: Vec<_> = missing.iter().map(|Missing { what, why, .. }| format!("{what} ({why})")).collect();
    let message = format!("the server does not take {}", list.join(", "));
    Some(Error::new(Kind::NotTaken, message).hint(first.remedy.clone()))
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
    /// With whose rights rows are loaded.
    pub authority: Authority,
    /// Extensions that are left out, for they cannot be made in a database of this name.
    pub without: &'a [Apart],
}

/// With whose rights a table's rows are loaded, where loading them runs code of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// His. A dump in SQL, and one of a pg_dump that is not known here, is loaded by the superuser all the same.
    Owner,
    /// The superuser's: in a server in a sandbox, or where the owners are trusted.
    Superuser,
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

/// What of a dump is still to be restored.
struct Rest<'a> {
    toc: Toc,
    /// Entries, in order.
    entries: Vec<i32>,
    guarded: Guarded,
    /// Where anything is guarded.
    loaders: Option<Loaders<'a>>,
    /// What the server has not taken.
    missing: Vec<Missing>,
}

/// Of what pg_restore says of single entries: some lines for each of many.
const LINES: usize = 100_000;

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
            let digest = scope.spawn(|| archive::digest_of(&path, &mut |_| interrupt::check()));
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

    /// Makes everything in the custom dump, but for what is returned: definitions, and what follows the table of contents
    /// in `content` and in `parts`.
    fn rows(
        &self,
        content: impl BufRead + Send,
        toc: Toc,
        origin: &dyn Origin,
        parts: Vec<Part>,
        progress: &mut dyn Progress,
    ) -> Result<Rest<'a>> {
        let mut toc = toc;
        for Apart { extension, schema, .. } in self.without {
            if toc.take_apart(extension, schema) {
                log::warn!("extension {extension:?} is left out, with what is in its schema {schema:?}");
            }
        }
        let file = self.scratch.write(TOC, &toc.bytes())?;
        let mut not_made = Vec::new();
        self.definitions(&toc, &file, &mut not_made)?;
        let before = toc.before_rows();
        if !before.is_empty() {
            finish_listed(self.start_listed(&before, 1, 0, None)?, &toc, &mut Vec::new())?;
        }
        // Where names are no UTF-8, they cannot be asked for.
        let toc = match toc.is_utf8() {
            true => toc.with_binary(&self.session.query(self.name, COLUMNS)?),
            false => toc,
        };
        let (guarded, loaders) = self.guarded(&toc)?;
        // Before any of their code runs, everything else is there.
        let (made, missing) = Crew::new(self, origin, &toc, &guarded, parts).work(content, progress)?;
        let missing = [not_made, missing].concat();
        let left = |id: &i32| !made.contains(id) && !guarded.later.contains_key(id);
        let entries = toc.after_rows().filter(left).collect();
        Ok(Rest { toc, entries, guarded, loaders, missing })
    }

    /// Makes what may hold rows.
    fn definitions(&self, toc: &Toc, file: &Path, missing: &mut Vec<Missing>) -> Result<()> {
        let everything = |missing: &mut Vec<Missing>| {
            finish_listed(self.start(Step::Definitions, Some((file, 1)), self.conninfo(0))?, toc, missing)
        };
        if self.authority == Authority::Superuser {
            return everything(missing);
        }
        if toc.calling_keys().next().is_some() {
            let facts = Facts::find(self.session, self.name)?;
            let keys = toc.calling_keys().filter(|(_, owner)| facts.is_foreign(owner));
            require_none("are in the keys", keys.map(|(name, _)| name).collect())?;
        }
        let Some((first, last)) = toc.evaluated_definitions() else { return everything(missing) };
        let listed = |entries: &[i32], missing: &mut Vec<Missing>| {
            let child = self.start_part_from_list(Step::ListedDefinitions, entries, 1, self.conninfo(0))?;
            finish_listed(child, toc, missing)
        };
        listed(&first, missing)?;
        let facts = Facts::find(self.session, self.name)?;
        let mut evaluated = facts.keys.clone();
        if !facts.types.is_empty() {
            evaluated.extend(toc.aggregates(|owner| facts.is_foreign(owner)));
        }
        let functions = format!("of the types {} are in the definitions", facts.types.join(", "));
        require_none(&functions, evaluated)?;
        listed(&last, missing)
    }

    fn guarded(&self, toc: &Toc) -> Result<(Guarded, Option<Loaders<'a>>)> {
        if self.authority == Authority::Superuser {
            return Ok((Guarded::default(), None));
        }
        let facts = Facts::find(self.session, self.name)?;
        let guarded = Guarded::new(toc, &facts);
        if guarded.owners().is_empty() {
            return Ok((guarded, None));
        }
        log::info!("with the rights of their owners: {}", guarded.names.join(", "));
        let loaders = Loaders::make(self.session, self.name, self.scratch, &guarded, facts)?;
        Ok((guarded, Some(loaders)))
    }

    /// Makes what [`Self::rows`] has left out.
    fn finish(
        &self,
        mut rest: Rest<'_>,
        origin: &dyn Origin,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Missing>> {
        if !rest.guarded.rows.is_empty() {
            progress.begin(&format!("loading what runs code of its owners into {}", self.shown), None);
            self.guarded_rows(origin, &rest)?;
            progress.end();
        }
        progress.begin(&format!("finishing {}", self.shown), None);
        self.rest(&mut rest)?;
        progress.end();
        Ok(rest.missing)
    }

    /// Reads the dump once more, for the rows that were left out.
    fn guarded_rows(&self, origin: &dyn Origin, rest: &Rest<'_>) -> Result<()> {
        let Some(loaders) = &rest.loaders else { return Ok(()) };
        // Of another dump of the same, the numbers may be others.
        let tables = rest.toc.tables(&rest.guarded.rows);
        loaders.with_logins(false, || {
            origin.again(&rest.guarded.rows.keys().copied().collect(), &mut |toc, content| {
                let owners =
                    toc.rows_of(|schema, name| tables.get(&(schema.to_vec(), name.to_vec())).cloned());
                if owners.len() != rest.guarded.rows.len() {
                    return Err(Error::new(
                        Kind::Damaged,
                        "it has not the same tables when it is read again",
                    ));
                }
                let mut body = Body::new(content, &toc);
                let mut left = owners.len();
                while let Some(rows) = body.next()? {
                    let Some(owner) = owners.get(&rows.id) else {
                        body.copy(rows, &toc, |_| interrupt::check())?;
                        continue;
                    };
                    let mut feed = Feed::of(self.start_rows(Some(loaders.conninfo(owner)?))?)?;
                    let fed = feed.write(&toc.archive(&[rows.id], false)).and_then(|()| {
                        body.copy(rows, &toc, |piece| interrupt::check().and_then(|()| feed.write(piece)))
                    });
                    feed.finish(fed)?;
                    left -= 1;
                }
                match left {
                    0 => Ok(()),
                    _ => Err(Error::new(Kind::Damaged, "it has not the same rows when it is read again")),
                }
            })
        })
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

    /// For rows that are to follow.
    pub(super) fn start_rows(&self, conninfo: Option<String>) -> Result<Child> {
        self.start(Step::Rows, None, conninfo.unwrap_or_else(|| self.conninfo(0)))
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

    /// What is guarded comes last: it may change what belongs to its owner.
    fn rest(&self, rest: &mut Rest<'_>) -> Result<()> {
        let Rest { toc, entries, guarded, loaders, missing } = rest;
        finish_listed(self.start_listed(entries, jobs(), 0, None)?, toc, missing)?;
        let Some(loaders) = loaders.take() else { return Ok(()) };
        if !guarded.later.is_empty() {
            loaders.with_logins(true, || {
                guarded.later.iter().try_for_each(|(entry, owner)| {
                    let child = self.start_listed(&[*entry], 1, 0, Some(loaders.conninfo(owner)?))?;
                    finish_listed(child, toc, missing)
                })
            })?;
        }
        loaders.finish()
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
                    Err(Error::new(Kind::Damaged, format!("the dump is not loaded: {refusal}")))
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

    fn conninfo(&self, helpers: usize) -> String {
        self.session.connection.conninfo_for_loading(self.name, helpers)
    }

    fn start(&self, part: Step, file: Option<(&Path, usize)>, conninfo: String) -> Result<Child> {
        self.start_on(Stdio::piped(), part, file, conninfo)
    }

    fn start_on(
        &self,
        stdin: Stdio,
        part: Step,
        file: Option<(&Path, usize)>,
        conninfo: String,
    ) -> Result<Child> {
        let Session { runtime, major, .. } = self.session;
        let call = pg_restore::restore(conninfo, part, file, self.tablespaces);
        let mut command = runtime.command(*major, &call)?;
        command.stdin(stdin).stdout(Stdio::null());
        match part {
            Step::Everything | Step::Rows => Child::spawn(command, "pg_restore"),
            _ => Child::spawn_that_says(command, "pg_restore", LINES),
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
        self.start_part_from_list(Step::Listed, entries, jobs, conninfo)
    }

    fn start_part_from_list(
        &self,
        part: Step,
        entries: &[i32],
        jobs: usize,
        conninfo: String,
    ) -> Result<Child> {
        let file = self.scratch.path().join(TOC);
        self.start_from_list(entries, |list| self.start_on(list, part, Some((&file, jobs)), conninfo))
    }

    fn start_from_list(&self, entries: &[i32], start: impl FnOnce(Stdio) -> Result<Child>) -> Result<Child> {
        let no_pipe = |error| Error::new(Kind::Program, "could not make a pipe").because(error);
        let (reader, mut writer) = std::io::pipe().map_err(no_pipe)?;
        // It is opened by its name, for which its owner is asked.
        if let Some(account) = self.session.runtime.account() {
            fchown(&writer, Some(account.uid.as_raw()), Some(account.gid.as_raw())).map_err(no_pipe)?;
        }
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
        if refusals::verdict(&refusal.said) != Kind::NotTaken || !toc.can_be_missed(refusal.entry, &gone) {
            return Err(failed(&header));
        }
        let what = toc.shown(refusal.entry).unwrap_or(refusal.header);
        log::warn!("the server does not take {what}: {}", refusal.error);
        let remedy = refusals::remedy(&refusal.said);
        missing.push(Missing { id: Some(refusal.entry), what, why: refusal.error, remedy });
    }
    Ok(())
}

/// With the last of what was said.
fn failed<'l>(name: &str, status: ExitStatus, said: impl Iterator<Item = &'l str>) -> Error {
    let lines: Vec<_> = said.collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    Error::new(Kind::Program, format!("{name} failed ({status})")).because(last)
}

/// Sends content to a program, or what `section` appends of it, and waits for its end.
fn feed(
    mut child: Child,
    content: &mut impl Read,
    progress: &mut dyn Progress,
    section: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let fed = feed_to(&mut child, content, progress, section)?;
    child.wait().and(fed)
}

/// Sends content to a program, or what `section` appends of it; within, what the program's own end tells more of.
fn feed_to(
    child: &mut Child,
    content: &mut impl Read,
    progress: &mut dyn Progress,
    mut section: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<Result<()>> {
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
        fed => Ok(fed),
    }
}

/// What only a superuser could make, and would evaluate on the way.
fn require_none(functions: &str, evaluated: Vec<String>) -> Result<()> {
    match evaluated.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Config,
            format!(
                "functions of their owners {functions} of {}, which only the superuser could make",
                evaluated.join(", ")
            ),
        )
        .hint(format!("{TRUST}, if these functions may do whatever the superuser may"))),
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
