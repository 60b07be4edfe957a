//! One dump into one empty database.

use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::manifest::{DatabaseDump, File, Manifest};
use super::read_back::{codec, copy, damaged, require_same};
use crate::archive;
use crate::config::BackupFormat;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::pg_restore::{self, Tablespaces};
use crate::postgres::{Session, literal, psql_load};
use crate::report::Progress;
use crate::runtime::{Child, interrupt};

/// How often the server is asked how large the database is by now.
const TICK: Duration = Duration::from_secs(2);

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

/// A dump that lies ready for pg_restore, and is removed when dropped; or one that psql reads as it comes.
#[derive(Debug)]
pub enum Unpacked {
    /// For pg_restore, which needs to seek in it to work in parallel.
    Custom(PathBuf),
    /// For psql; it has been read whole.
    Plain,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Self::Custom(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Reads a dump whole, compares it with its digests, and leaves it unpacked in `scratch` if that is of use.
///
/// # Errors
/// [`Kind::Damaged`], [`Kind::NoSpace`].
pub fn unpack(
    source: Source<'_>,
    dump: &DatabaseDump,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<Unpacked> {
    let file = &dump.dump;
    let path = source.path(file);
    let mut content = source.open(file)?;
    progress.begin(&format!("unpacking {}", file.file), Some(file.content_bytes));
    let unpacked = match source.manifest.dump_format {
        BackupFormat::Plain => {
            copy(&mut content, progress, |_| Ok(()))?;
            Unpacked::Plain
        }
        BackupFormat::Custom => {
            let target = scratch.join("dump");
            // Thrown away soon: no digest of its own, and nothing that waits for the disk.
            let mut options = OpenOptions::new();
            let mut sink =
                options.write(true).create_new(true).mode(0o600).open(&target).at("create", &target)?;
            let unpacked = Unpacked::Custom(target.clone());
            copy(&mut content, progress, |piece| {
                sink.write_all(piece).map_err(|error| Error::io("write", &target, error))
            })?;
            unpacked
        }
    };
    progress.end();
    require_same(&path, file, content.finish()?)?;
    Ok(unpacked)
}

/// Loads it into the empty database `name`.
///
/// # Errors
/// [`Kind::Damaged`] if the server does not take it, [`Kind::NoSpace`] if it has no room for it.
pub fn load(
    session: &Session<'_>,
    name: &str,
    unpacked: &Unpacked,
    source: Source<'_>,
    dump: &DatabaseDump,
    tablespaces: Tablespaces,
    progress: &mut dyn Progress,
) -> Result<()> {
    let shown = &dump.database.name;
    progress.begin(&format!("restoring {shown}"), Some(dump.database.size));
    let loaded = match unpacked {
        Unpacked::Custom(file) => {
            let call = pg_restore::restore(session.connection, name, file, jobs(), tablespaces);
            let mut command = session.runtime.command(session.major, &call)?;
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let child = Child::spawn(command, format!("pg_restore of {}", dump.dump.file))?;
            watch(session, name, child, progress)
        }
        Unpacked::Plain => {
            let mut command = session.runtime.command(session.major, &psql_load(session.connection, name))?;
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            let content = source.open(&dump.dump)?;
            feed(Child::spawn(command, format!("psql with {}", dump.dump.file))?, content, progress)
        }
    };
    progress.end();
    loaded.map_err(|error| explain(error, shown))
}

/// Waits for a child that says nothing, and asks the server how far it is.
fn watch(session: &Session<'_>, name: &str, mut child: Child, progress: &mut dyn Progress) -> Result<()> {
    let mut asked = Instant::now();
    while !child.has_ended() {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(50));
        if asked.elapsed() > TICK {
            let size = format!("SELECT to_json(pg_database_size({}));", literal(name));
            if let Ok(size) = session.query("postgres", &size) {
                progress.advance(size);
            }
            asked = Instant::now();
        }
    }
    child.wait()
}

fn feed(mut child: Child, mut content: impl Read, progress: &mut dyn Progress) -> Result<()> {
    let Some(mut stdin) = child.stdin() else {
        return Err(Error::new(Kind::Bug, "psql was started without its pipe"));
    };
    archive::enlarge_pipe(&stdin);
    // psql that has ended says why by its exit status.
    let fed = copy(&mut content, progress, |piece| {
        stdin.write_all(piece).map_err(|error| Error::new(Kind::Program, "psql took no more").because(error))
    });
    drop(stdin);
    match fed {
        Err(error) if error.kind() != Kind::Program => Err(error),
        _ => child.wait(),
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
