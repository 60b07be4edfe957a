//! One dump into one empty database.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::custom::Toc;
use super::manifest::{DatabaseDump, File, Manifest};
use super::read_back::{Silent, codec, copy, damaged, require_same};
use super::section::Section;
use crate::archive::{self, StoredReader};
use crate::config::BackupFormat;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::pg_restore::{self, Part, Tablespaces};
use crate::postgres::{Session, psql_load};
use crate::report::Progress;
use crate::runtime::{Child, interrupt};

/// How often it is seen whether a program has ended.
const TICK: Duration = Duration::from_millis(10);

/// How much is read at a time.
const PIECE: usize = 512 * 1024;

/// Indexes of a table with more than this are built before all tables are loaded. More than a pipe holds.
const LARGE: u64 = 8 << 20;

/// How many connections restore at the same time: one more than processors, for one often waits for the disk.
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

    fn open(&self, file: &File) -> Result<archive::StoredReader> {
        let method = self.manifest.encryption.as_ref().map(|encryption| encryption.method);
        archive::open(&self.path(file), codec(self.manifest.compression), method, self.identity)
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

/// Loads a dump into the empty database `name`, and compares on the way what was read with the digests. After an
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
    let shown = &dump.database.name;
    let explain = |error| explain(error, shown);
    let mut content = source.open(&dump.dump)?;
    progress.begin(&format!("restoring {shown}"), Some(dump.dump.content_bytes));
    let loaded = match source.manifest.dump_format {
        BackupFormat::Custom => target.rows(&mut content, progress),
        BackupFormat::Plain => target.script(&mut content, shown, progress).map(|()| None),
    };
    interrupt::check()?;
    // A damaged dump is damaged, whatever the server says of it.
    if loaded.is_err() {
        copy(&mut content, &mut Silent, |_| Ok(()))?;
    }
    require_same(&source.path(&dump.dump), &dump.dump, content.finish()?)?;
    progress.end();
    if let Some(rest) = loaded.map_err(explain)? {
        progress.begin(&format!("building indexes of {shown}"), None);
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
    /// Where its tables may lie.
    pub tablespaces: Tablespaces,
    /// A directory for a small file.
    pub scratch: &'a Path,
}

/// Entries of a dump that are still to be restored, in order.
struct Rest(Vec<i32>);

impl Target<'_> {
    /// Everything in the custom dump, but for what is returned: indexes of small tables, keys between tables. Those
    /// of a large table are built while the next tables are loaded.
    fn rows(&self, content: &mut StoredReader, progress: &mut dyn Progress) -> Result<Option<Rest>> {
        let mut content = BufReader::with_capacity(PIECE, content);
        let toc = Toc::read(&mut content)?;
        std::fs::write(self.toc(), toc.bytes()).at("write", &self.toc())?;
        let part = if toc.is_known() { Part::Rows } else { Part::Everything };
        let mut child = self.start(part, None)?;
        let Some(mut stdin) = child.stdin() else {
            return Err(Error::new(Kind::Bug, "pg_restore was started without its pipe"));
        };
        archive::enlarge_pipe(&stdin);
        let (ready, indexes) = mpsc::channel();
        let builders =
            Builders { target: self, indexes: Mutex::new(indexes), stopped: AtomicBool::new(false) };
        let mut early = BTreeSet::new();
        std::thread::scope(|scope| {
            // One beside the rows, and the others when these are all there.
            let mut threads = vec![scope.spawn(|| builders.build())];
            let mut done = 0;
            let fed = toc.forward(
                content,
                |piece| {
                    interrupt::check()?;
                    builders.check()?;
                    done += piece.len() as u64;
                    progress.advance(done);
                    stdin
                        .write_all(piece)
                        .map_err(|error| Error::new(Kind::Program, "pg_restore took no more").because(error))
                },
                |rows, length| {
                    // The end of a smaller one may have been written into the pipe before pg_restore has begun
                    // with the table. It has begun with this one, and an index waits until it is through.
                    if length > LARGE {
                        for index in toc.indexes_of(rows) {
                            early.insert(index);
                            let _ = ready.send(index);
                        }
                    }
                    Ok(())
                },
            );
            drop(stdin);
            drop(ready);
            let loaded = match fed {
                Err(error) if error.kind() != Kind::Program => Err(error),
                fed => {
                    threads.extend((1..jobs()).map(|_| scope.spawn(|| builders.build())));
                    child.wait().and(fed)
                }
            };
            if loaded.is_err() {
                builders.stop();
            }
            let built = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a building thread panicked")))
            });
            built.collect::<Result<Vec<_>>>().and(loaded)
        })?;
        let rest = toc.ids().filter(|id| !early.contains(id)).collect();
        Ok(toc.is_known().then_some(Rest(rest)))
    }

    fn rest(&self, rest: &Rest) -> Result<()> {
        self.start_listed(&rest.0, jobs())?.wait()
    }

    /// What belongs to `database` in a dump in SQL.
    fn script(&self, content: &mut StoredReader, database: &str, progress: &mut dyn Progress) -> Result<()> {
        let Session { runtime, major, connection } = self.session;
        let mut command = runtime.command(*major, &psql_load(connection, self.name))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        feed(Child::spawn(command, "psql with the dump")?, content, Section::new(database), progress)
    }

    /// Definitions only.
    fn toc(&self) -> PathBuf {
        self.scratch.join("toc")
    }

    fn start(&self, part: Part, file: Option<(&Path, usize)>) -> Result<Child> {
        let Session { runtime, major, connection } = self.session;
        let call = pg_restore::restore(connection, self.name, part, file, self.tablespaces);
        let mut command = runtime.command(*major, &call)?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Child::spawn(command, "pg_restore")
    }

    fn start_listed(&self, entries: &[i32], jobs: usize) -> Result<Child> {
        let mut child = self.start(Part::Listed, Some((&self.toc(), jobs)))?;
        let list = entries.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n";
        // One that has ended already says why by its exit status.
        let _ = child.stdin().map(|mut stdin| stdin.write_all(list.as_bytes()));
        Ok(child)
    }
}

/// Build indexes, each in a thread of its own, until there are no more to come.
struct Builders<'a> {
    target: &'a Target<'a>,
    indexes: Mutex<Receiver<i32>>,
    stopped: AtomicBool,
}

impl Builders<'_> {
    fn build(&self) -> Result<()> {
        while let Some(index) = self.next() {
            let built = self.target.start_listed(&[index], 1).and_then(|child| self.wait(child));
            built.inspect_err(|_| self.stop())?;
        }
        Ok(())
    }

    fn next(&self) -> Option<i32> {
        let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        indexes.recv().ok().filter(|_| self.check().is_ok())
    }

    fn wait(&self, mut child: Child) -> Result<()> {
        while !child.has_ended() {
            // It is killed when it is dropped.
            self.check()?;
            std::thread::sleep(TICK);
        }
        child.wait()
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        match self.stopped.load(Ordering::SeqCst) {
            true => Err(Error::new(Kind::Bug, "stopped for another error")),
            false => Ok(()),
        }
    }
}

fn feed(
    mut child: Child,
    content: &mut impl Read,
    mut section: Section,
    progress: &mut dyn Progress,
) -> Result<()> {
    let Some(mut stdin) = child.stdin() else {
        return Err(Error::new(Kind::Bug, "psql was started without its pipe"));
    };
    archive::enlarge_pipe(&stdin);
    let mut kept = Vec::new();
    // psql that has ended says why by its exit status.
    let fed = copy(content, progress, |piece| {
        kept.clear();
        section.feed(piece, &mut kept);
        stdin.write_all(&kept).map_err(|error| Error::new(Kind::Program, "psql took no more").because(error))
    });
    drop(stdin);
    match fed {
        Err(error) if error.kind() != Kind::Program => Err(error),
        fed => child.wait().and(fed),
    }
}

/// Whose fault it is: the machine's, or the dump's.
fn explain(error: Error, database: &str) -> Error {
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
        false => Kind::Damaged,
    };
    error.with_kind(kind).context(format!("database {database:?} could not be restored"))
}
