//! Reads a backup back whole: bytes, digests, and every row as a restore would get it.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::Stdio;

use super::manifest::{File, Manifest};
use super::rows::{Contents, RowCounter};
use crate::archive::{self, Codec, StoredReader};
use crate::config::{BackupFormat, Compression};
use crate::error::{Error, Kind, Result};
use crate::postgres::{Major, pg_restore};
use crate::report::Progress;
use crate::runtime::{Child, Runtime, interrupt};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;

/// Reads every file of the backup in `directory` and compares it with `manifest`; returns what the dumps
/// hold, in the order of the manifest's databases.
///
/// # Errors
/// [`Kind::Damaged`] naming the file and what is wrong with it, and others when it could not be read at all.
pub fn read_back(
    directory: &Path,
    manifest: &Manifest,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Vec<Contents>> {
    let reader = Reader { directory, manifest, runtime };
    reader.globals(progress)?;
    let mut contents = Vec::new();
    for dump in &manifest.databases {
        progress.begin(&format!("reading back {}", dump.dump.file), Some(dump.dump.content_bytes));
        let counted = reader.database(&dump.dump, progress)?;
        if dump.contents.as_ref().is_some_and(|before| *before != counted) {
            return Err(damaged(
                &directory.join(&dump.dump.file),
                "it holds other rows than were counted before",
            ));
        }
        contents.push(counted);
        progress.end();
    }
    Ok(contents)
}

struct Reader<'a> {
    directory: &'a Path,
    manifest: &'a Manifest,
    runtime: &'a dyn Runtime,
}

impl Reader<'_> {
    fn globals(&self, progress: &mut dyn Progress) -> Result<()> {
        let file = &self.manifest.globals;
        progress.begin(&format!("reading back {}", file.file), Some(file.content_bytes));
        let mut content = self.open(file)?;
        copy(&mut content, progress, |_| Ok(()))?;
        self.compare(file, content)?;
        progress.end();
        Ok(())
    }

    fn database(&self, file: &File, progress: &mut dyn Progress) -> Result<Contents> {
        let path = self.directory.join(&file.file);
        let mut counter = RowCounter::default();
        match self.manifest.dump_format {
            BackupFormat::Custom => self.through_pg_restore(file, &mut counter, progress)?,
            BackupFormat::Plain => {
                let mut content = self.open(file)?;
                copy(&mut content, progress, |piece| {
                    counter.feed(piece);
                    Ok(())
                })?;
                self.compare(file, content)?;
                if !counter.has_end_marker() {
                    return Err(damaged(&path, "pg_dump's end marker is missing"));
                }
            }
        }
        counter.finish().map_err(|reason| damaged(&path, &reason))
    }

    /// The dump goes to pg_restore in one thread while its SQL is counted in this one.
    fn through_pg_restore(
        &self,
        file: &File,
        counter: &mut RowCounter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let major = restoring_major(self.runtime, self.manifest.server.major()?);
        let mut command = self.runtime.command(major, &pg_restore::read_rows())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut content = self.open(file)?;
        let mut child = Child::spawn(command, format!("pg_restore of {}", file.file))?;
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
        self.compare(file, content)?;
        child.wait().map_err(|error| match error.kind() {
            Kind::Program => {
                damaged(&self.directory.join(&file.file), "pg_restore does not read it").because(error)
            }
            _ => error,
        })
    }

    fn open(&self, file: &File) -> Result<StoredReader> {
        archive::open_stored(&self.directory.join(&file.file), codec(self.manifest.compression))
    }

    fn compare(&self, file: &File, content: StoredReader) -> Result<()> {
        let path = self.directory.join(&file.file);
        let found = content.finish()?;
        let found = File::new(&file.file, found);
        match (found.bytes == file.bytes, found.sha256 == file.sha256, found == *file) {
            (_, _, true) => Ok(()),
            (false, ..) => {
                Err(damaged(&path, &format!("it is {} bytes long, and was {}", found.bytes, file.bytes)))
            }
            (_, false, _) => Err(damaged(&path, "its sha256 is not the one that was written")),
            _ => Err(damaged(&path, "it unpacks to other bytes than were packed")),
        }
    }
}

/// Levels matter to the writer only.
fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::Zstd => Codec::Zstd { level: 0 },
        Compression::Gzip => Codec::Gzip { level: 0 },
        Compression::None => Codec::None,
    }
}

/// The major itself, or the next newer one that is installed: pg_restore reads older dumps.
fn restoring_major(runtime: &dyn Runtime, major: Major) -> Major {
    runtime.majors().into_iter().find(|&installed| installed >= major).unwrap_or(major)
}

/// Moves everything from `source` to `sink` in pieces; a signal ends it.
fn copy(
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

struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: Option<u64>) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Kind::Damaged, format!("{} is damaged: {reason}", path.display()))
}
