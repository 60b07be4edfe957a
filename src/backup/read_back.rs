//! Reads a backup back whole: bytes, digests, and every row as a restore would get it.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::Stdio;

use super::manifest::{File, How, Manifest};
use super::rows::{Contents, RowCounter};
use super::store::Store;
use crate::archive::{self, Codec, Digest, Stored, StoredReader};
use crate::config::Compression;
use crate::error::{Error, Kind, Result};
use crate::postgres::{BackupFormat, Major, pg_restore};
use crate::report::{Progress, Silent};
use crate::runtime::{Child, Runtime, interrupt};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;

/// What [`examine`] has found to be good.
#[derive(Debug)]
pub struct Findings {
    pub(super) how: How,
    /// What the dumps hold, if they were read.
    pub(super) contents: Option<Vec<Contents>>,
}

/// Reads a backup's `files` back, decrypted with `identity` where it is needed, and changes nothing.
///
/// # Errors
/// [`Kind::Damaged`]; [`Kind::NoKey`] if the identity is the wrong one; and others when it could not be read.
pub fn examine(
    files: &dyn Store,
    manifest: &Manifest,
    identity: Option<&Path>,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Findings> {
    let how = match (&manifest.encryption, identity) {
        (None, _) => How::Files,
        (Some(_), Some(_)) => How::Decrypted,
        (Some(_), None) => How::Stream,
    };
    if how != How::Stream {
        let contents = read_back(files, manifest, identity, runtime, progress)?;
        return Ok(Findings { how, contents: Some(contents) });
    }
    if manifest.databases.iter().any(|dump| dump.contents.is_none()) {
        return Err(Error::new(
            Kind::NoKey,
            format!("{} is encrypted and was never read back", files.path().display()),
        )
        .hint("read it back with the private key of one of its recipients: verify --identity FILE"));
    }
    compare_digests(files, manifest, progress)?;
    Ok(Findings { how, contents: None })
}

/// Reads every one of a backup's `files` and compares it with `manifest`; returns what the dumps
/// hold, in the order of the manifest's databases. What is encrypted is decrypted with `identity`.
///
/// # Errors
/// [`Kind::Damaged`] naming the file and what is wrong with it, and others when it could not be read at all.
fn read_back(
    files: &dyn Store,
    manifest: &Manifest,
    identity: Option<&Path>,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Vec<Contents>> {
    let reader = Reader { files, manifest, identity, runtime };
    reader.plain(&manifest.globals, progress)?;
    if let Some(file) = &manifest.companions.file {
        reader.plain(file, progress)?;
    }
    let mut contents = Vec::new();
    for dump in &manifest.databases {
        progress.begin(&format!("reading back {}", dump.dump.file), Some(dump.dump.content_bytes));
        let counted = reader.database(&dump.dump, progress)?;
        if dump.contents.as_ref().is_some_and(|before| *before != counted) {
            return Err(damaged(
                &files.path_of(&dump.dump.file),
                "its row counts differ from those that were counted before",
            ));
        }
        contents.push(counted);
        progress.end();
    }
    Ok(contents)
}

/// Reads every one of a backup's `files` as it lies there, and compares its digest with the manifest's.
///
/// # Errors
/// As [`read_back`].
fn compare_digests(files: &dyn Store, manifest: &Manifest, progress: &mut dyn Progress) -> Result<()> {
    for file in manifest.files() {
        let path = files.path_of(&file.file);
        progress.begin(&format!("reading back {}", file.file), Some(file.bytes));
        let found = archive::digest_of(files.open(&file.file)?, &path, &mut |done| {
            progress.advance(done);
            interrupt::check()
        })?;
        compare_file(&path, file, &found)?;
        progress.end();
    }
    Ok(())
}

struct Reader<'a> {
    files: &'a dyn Store,
    manifest: &'a Manifest,
    identity: Option<&'a Path>,
    runtime: &'a dyn Runtime,
}

impl Reader<'_> {
    /// What is no database.
    fn plain(&self, file: &File, progress: &mut dyn Progress) -> Result<()> {
        progress.begin(&format!("reading back {}", file.file), Some(file.content_bytes));
        let read = self.open(file).and_then(|content| read_through(content, progress));
        self.compare(file, read.map_err(|error| self.judge(file, error))?)?;
        progress.end();
        Ok(())
    }

    fn database(&self, file: &File, progress: &mut dyn Progress) -> Result<Contents> {
        let counting = Counting {
            format: self.manifest.dump_format,
            major: self.manifest.server.major()?,
            runtime: self.runtime,
        };
        let path = self.files.path_of(&file.file);
        let read = self.open(file).and_then(|content| counting.count(content, &path, progress));
        let (stored, contents) = read.map_err(|error| self.judge(file, error))?;
        self.compare(file, stored)?;
        contents
    }

    fn open(&self, file: &File) -> Result<StoredReader> {
        archive::open(
            self.files.open(&file.file)?,
            &self.files.path_of(&file.file),
            codec(self.manifest.compression),
            self.manifest.encryption.as_ref().map(|encryption| encryption.method),
            self.identity,
        )
    }

    /// A file that cannot be decrypted is damaged, unless it is as it was written: then the key is the wrong one.
    fn judge(&self, file: &File, error: Error) -> Error {
        if error.kind() != Kind::NoKey || self.identity.is_none() {
            return error;
        }
        let path = self.files.path_of(&file.file);
        let found = self.files.open(&file.file);
        let found = found.and_then(|read| archive::digest_of(read, &path, &mut |_| interrupt::check()));
        match found.and_then(|found| compare_file(&path, file, &found)) {
            Err(damage) => damage,
            Ok(()) => error,
        }
    }

    fn compare(&self, file: &File, found: Stored) -> Result<()> {
        require_same(&self.files.path_of(&file.file), file, found)
    }
}

pub(super) fn compare_file(path: &Path, file: &File, found: &Digest) -> Result<()> {
    match (found.bytes == file.bytes, found.sha256 == file.sha256) {
        (true, true) => Ok(()),
        (false, _) => {
            Err(damaged(path, &format!("it is {} bytes long, expected {}", found.bytes, file.bytes)))
        }
        (true, false) => Err(damaged(path, "its SHA-256 checksum does not match")),
    }
}

/// Reads roles and tablespaces to their end.
pub(super) fn read_through(mut content: StoredReader, progress: &mut dyn Progress) -> Result<Stored> {
    copy(&mut content, progress, |_| Ok(()))?;
    content.finish()
}

/// Counts what is in a dump.
pub(super) struct Counting<'a> {
    /// What the dump is.
    pub(super) format: BackupFormat,
    /// Of the server it is from.
    pub(super) major: Major,
    pub(super) runtime: &'a dyn Runtime,
}

impl Counting<'_> {
    /// Reads a dump to its end: the digests of what was read, which are to be compared first, and what it holds, or
    /// why that cannot be relied on. `path` is for messages only.
    pub(super) fn count(
        &self,
        mut content: StoredReader,
        path: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(Stored, Result<Contents>)> {
        let mut counter = RowCounter::default();
        let (stored, read) = match self.format {
            BackupFormat::Custom => self.through_pg_restore(content, path, &mut counter, progress)?,
            BackupFormat::Plain => {
                copy(&mut content, progress, |piece| {
                    counter.feed(piece);
                    Ok(())
                })?;
                (content.finish()?, Ok(()))
            }
        };
        let contents = read.and_then(|()| match counter.finish() {
            Ok((_, false)) if self.format == BackupFormat::Plain => {
                Err(damaged(path, "pg_dump's end marker is missing"))
            }
            Ok((contents, _)) => Ok(contents),
            Err(reason) => Err(damaged(path, &reason)),
        });
        Ok((stored, contents))
    }

    /// The dump goes to pg_restore in one thread while its SQL is counted in this one.
    fn through_pg_restore(
        &self,
        mut content: StoredReader,
        path: &Path,
        counter: &mut RowCounter,
        progress: &mut dyn Progress,
    ) -> Result<(Stored, Result<()>)> {
        let major = restoring_major(self.runtime, self.major);
        let mut command = self.runtime.command(major, &pg_restore::read_rows())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let file = path.file_name().unwrap_or_default().display().to_string();
        let mut child = Child::spawn(command, format!("pg_restore of {file}"))?;
        let (Some(mut stdin), Some(mut stdout)) = (child.stdin(), child.stdout()) else {
            return Err(Error::new(Kind::Bug, "pg_restore was started without its pipes"));
        };
        archive::enlarge_pipe(&stdin);
        archive::enlarge_pipe(&stdout);
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                let fed = copy(&mut content, &mut Silent, |piece| match stdin.write_all(piece) {
                    // pg_restore has ended; its exit status says whether that was too early, and the rest of
                    // the file is still compared.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                    Err(error) => Err(Error::new(Kind::Program, "could not feed pg_restore").because(error)),
                    Ok(()) => Ok(()),
                });
                drop(stdin);
                fed
            });
            let counted = copy(&mut stdout, progress, |piece| {
                counter.feed(piece);
                Ok(())
            });
            // When counting failed, nobody reads on: the feeder must not wait for a full pipe.
            drop(stdout);
            let fed =
                feeder.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the reading thread panicked")));
            fed.and(counted)
        })?;
        let stored = content.finish()?;
        match child.wait() {
            Err(error) if error.kind() == Kind::Program => {
                Ok((stored, Err(damaged(path, "pg_restore cannot read it").because(error))))
            }
            ended => ended.map(|()| (stored, Ok(()))),
        }
    }
}

/// What was read of the file at `path` must be what was written, in its stored and in its unpacked form.
pub(super) fn require_same(path: &Path, file: &File, found: Stored) -> Result<()> {
    compare_file(path, file, &found.file)?;
    match File::new(&file.file, found) == *file {
        true => Ok(()),
        false => Err(damaged(path, "its decompressed content does not match its checksum")),
    }
}

/// Levels matter to the writer only.
pub(super) fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::Zstd => Codec::Zstd { level: 0 },
        Compression::Gzip => Codec::Gzip { level: 0 },
        Compression::None => Codec::None,
    }
}

/// The major itself, or the next newer one that is installed, without a container if there is one: pg_restore reads older dumps.
pub(super) fn restoring_major(runtime: &dyn Runtime, major: Major) -> Major {
    let mut majors = runtime.near_majors().into_iter().chain(runtime.majors());
    majors.find(|&installed| installed >= major).unwrap_or(major)
}

/// Moves everything from `source` to `sink` in pieces; a signal ends it.
pub(super) fn copy(
    source: &mut impl Read,
    progress: &mut dyn Progress,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        interrupt::check()?;
        let length = match source.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(archive::into_error(error)),
        };
        sink(&piece[..length])?;
        done += length as u64;
        progress.advance(done);
    }
}

pub(super) fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Kind::Damaged, format!("{} is damaged: {reason}", path.display()))
}
