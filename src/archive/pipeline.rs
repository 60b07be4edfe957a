//! From a source into a file, and back.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::Scope;

use nix::fcntl::{FcntlArg, PosixFadviseAdvice, fcntl, posix_fadvise};
use serde::{Deserialize, Serialize};

use super::codec::{Codec, Decoder, Packing};
use super::digest::{Digest, Hasher, HashingReader};
use super::encryption::{Decrypted, Method};
use super::parts::{Borders, NoBorders, Part, Parts};
use super::sink::{FileSink, Sink};
use crate::error::{Error, IoContext as _, Kind, Result};

/// What is read and compressed in one piece.
pub(super) const PIECE: usize = 512 * 1024;

/// How many pieces a source may be ahead: pg_dump works on while a full encoder is waited for.
const AHEAD: usize = 8;

/// The most that an unprivileged process may ask of a pipe (`/proc/sys/fs/pipe-max-size`).
const PIPE: i32 = 1 << 20;

/// What was stored: the file as it lies on the disk, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The bytes of the file; `sha256sum` gives the same.
    pub file: Digest,
    /// The bytes that the source gave, before the codec.
    pub content: Digest,
}

/// Stores everything that `source` gives in a new file at `path`, durably.
///
/// `progress` is told the bytes of content so far, about every half megabyte; its error stops the work and is
/// handed through. A source that is silent is waited for: to stop it, end the producer. After an error there is
/// no file. The directory is not synced.
///
/// That the source has ended says nothing about the producer: its exit status must be asked too.
///
/// # Errors
/// [`Kind::File`] or [`Kind::NoSpace`], naming the file.
pub fn store(
    source: impl Read + Send,
    packing: Packing,
    path: &Path,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Stored> {
    store_into(FileSink::create(path)?, source, packing, progress)
}

/// [`store`] into any sink.
///
/// # Errors
/// As [`store`].
pub fn store_into<S: Sink>(
    sink: S,
    source: impl Read + Send,
    packing: Packing,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Stored> {
    store_in_parts(sink, source, packing, &mut NoBorders, progress).map(|(stored, _)| stored)
}

/// [`store_into`] in parts that unpack by themselves and begin at some of the `borders`.
///
/// # Errors
/// As [`store`].
pub fn store_in_parts<S: Sink>(
    sink: S,
    source: impl Read + Send,
    packing: Packing,
    borders: &mut dyn Borders,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Stored, Vec<Part>)> {
    let path = sink.path().to_path_buf();
    let mut parts = Parts::new(packing, sink).at("start to write", &path)?;
    let mut content = Hasher::default();
    std::thread::scope(|scope| {
        let (pieces, used) = read_ahead(scope, source);
        for piece in pieces {
            let piece = piece.at("read what belongs into", &path)?;
            content.update(&piece);
            parts.write(&piece, &borders.feed(&piece)).map_err(|error| not_written(error, &path))?;
            progress(content.bytes())?;
            // The reader may have come to its end and need no more room.
            let _ = used.send(piece);
        }
        Ok(())
    })?;
    let (sink, parts) = parts.finish().map_err(|error| not_written(error, &path))?;
    Ok((Stored { file: sink.finish()?, content: content.finish() }, parts))
}

/// Reads full pieces in a thread of its own; used ones come back through the sender.
fn read_ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut source: impl Read + Send + 'scope,
) -> (Receiver<io::Result<Vec<u8>>>, Sender<Vec<u8>>) {
    let (sender, pieces) = mpsc::sync_channel(AHEAD);
    let (used, room) = mpsc::channel::<Vec<u8>>();
    scope.spawn(move || {
        loop {
            let mut piece = room.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
            piece.clear();
            let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            let ended = !matches!(read, Ok(length) if length == PIECE);
            // Nobody takes it after an error on the other side.
            if sender.send(read.map(|_| piece)).is_err() || ended {
                return;
            }
        }
    });
    (pieces, used)
}

/// Opens what [`store`] has written and did not encrypt, as [`open`] does.
///
/// # Errors
/// As [`open`].
pub fn open_stored(path: &Path, codec: Codec) -> Result<StoredReader> {
    open(path, codec, None, None)
}

/// Opens a stored file. The pages that writing left in memory are given up first, so that the bytes come from the
/// disk.
///
/// What is encrypted by `encryption` is decrypted with `identity`: age's identity file, or for OpenPGP gpg's
/// directory, with the private key.
///
/// # Errors
/// [`Kind::Damaged`] if there is no such file, [`Kind::File`] if it cannot be read, [`Kind::NoKey`] if it is
/// encrypted and there is no identity. That the identity is the wrong one, or that the program that decrypts does not
/// take the file, is told when it is read: [`Kind::NoKey`], too, for only the file's digest tells the two apart.
pub fn open(
    path: &Path,
    codec: Codec,
    encryption: Option<Method>,
    identity: Option<&Path>,
) -> Result<StoredReader> {
    let file = open_from_disk(path)?;
    let source: Box<dyn Source> = match (encryption, identity) {
        (None, _) => Box::new(HashingReader::new(Located::new(file, path))),
        (Some(method), Some(identity)) => Box::new(Decrypted::open(path, file, method, identity)?),
        (Some(_), None) => {
            return Err(Error::new(
                Kind::NoKey,
                format!("{} is encrypted, and no private key was named", path.display()),
            )
            .hint("name the private key of one of its recipients: --identity FILE"));
        }
    };
    StoredReader::new(source, codec, path)
}

/// The digest of a file as it lies on the disk, whatever is in it. `progress` is told the bytes so far.
///
/// # Errors
/// [`Kind::Damaged`] if there is no such file, [`Kind::File`] if it cannot be read, and that of `progress`.
pub fn digest_of(path: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Digest> {
    let mut file = HashingReader::new(Located::new(open_from_disk(path)?, path));
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(file.finish()),
            Ok(read) => {
                done += read as u64;
                progress(done)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(into_error(error)),
        }
    }
}

/// Opens a file of which nothing may come from memory that writing it has left there.
fn open_from_disk(path: &Path) -> Result<File> {
    let file = open_file(path)?;
    // Advice only; a file system that does not take it reads as well as ever.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(file)
}

pub(super) fn open_file(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(Kind::Damaged, format!("{} is missing", path.display())),
        _ => Error::io("open", path, error),
    })?;
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
    Ok(file)
}

/// Where the packed bytes come from: a file, a program that decrypts one, or what is being written.
pub(super) trait Source: Read + Send {
    /// The digest of the file, all of which has been read.
    fn finish(self: Box<Self>) -> Result<Digest>;
}

impl Source for HashingReader<Located> {
    fn finish(self: Box<Self>) -> Result<Digest> {
        Ok((*self).finish())
    }
}

/// A [`Read`] of what a stored file holds. Its errors are made for [`into_error`].
pub struct StoredReader {
    decoder: Decoder<Box<dyn Source>>,
    content: Hasher,
    hashes_content: bool,
    path: PathBuf,
}

impl StoredReader {
    pub(super) fn new(source: Box<dyn Source>, codec: Codec, path: &Path) -> Result<Self> {
        let decoder = codec.decoder(source).at("start to read", path)?;
        Ok(Self { decoder, content: Hasher::default(), hashes_content: true, path: path.to_path_buf() })
    }

    /// For somebody who looks at the digest of the file only, from which the content follows; that of the content will
    /// be none.
    #[must_use]
    pub fn without_content(self) -> Self {
        Self { hashes_content: false, ..self }
    }

    /// The digests of the whole file and of what was read of its content.
    ///
    /// # Errors
    /// [`Kind::File`] if the rest of the file cannot be read, and as reading.
    pub fn finish(self) -> Result<Stored> {
        let mut source = self.decoder.into_inner();
        io::copy(&mut source, &mut io::sink()).map_err(into_error)?;
        Ok(Stored { file: source.finish()?, content: self.content.finish() })
    }
}

impl Read for StoredReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer).map_err(|error| not_unpacked(error, &self.path))?;
        if self.hashes_content {
            self.content.update(&buffer[..read]);
        }
        Ok(read)
    }
}

/// The error of a decoder: that of what is below it, or damage.
pub(super) fn not_unpacked(error: io::Error, path: &Path) -> io::Error {
    match error.get_ref() {
        Some(inner) if inner.is::<Error>() => error,
        _ if error.kind() == io::ErrorKind::Interrupted => error,
        _ => {
            let message = format!("{} is damaged: it does not unpack", path.display());
            io::Error::other(Error::new(Kind::Damaged, message).because(error))
        }
    }
}

/// A file whose errors are told apart from those of the codec above it.
pub(super) struct Located {
    file: File,
    path: PathBuf,
}

impl Located {
    pub(super) fn new(file: File, path: &Path) -> Self {
        Self { file, path: path.to_path_buf() }
    }
}

impl Read for Located {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(Error::io("read", &self.path, error)),
        })
    }
}

/// The error that a sink meant: one of its own, or a failed system call.
fn not_written(error: io::Error, path: &Path) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("write", path, error),
    }
}

/// The error that a [`StoredReader`] meant.
pub fn into_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(Kind::File, "could not read from a pipe").because(error),
    }
}

/// Makes a pipe hold 1 MiB instead of 64 KiB, so that its two ends wait for each other less often.
///
/// Best effort: the kernel may refuse, and then the pipe is as good as it was. The result is its size in bytes.
pub fn enlarge_pipe(pipe: impl AsFd) -> Option<usize> {
    let size = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE)).or_else(|_| fcntl(&pipe, FcntlArg::F_GETPIPE_SZ));
    size.ok().and_then(|size| usize::try_from(size).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::text;

    const CODECS: [Codec; 3] = [Codec::ZSTD, Codec::GZIP, Codec::None];

    fn stored(content: &[u8], codec: Codec, path: &Path) -> Stored {
        store(content, Packing::new(codec, 2), path, &mut |_| Ok(())).unwrap()
    }

    fn read(path: &Path, codec: Codec) -> Result<(Vec<u8>, Stored)> {
        let mut reader = open_stored(path, codec)?;
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(into_error)?;
        Ok((content, reader.finish()?))
    }

    #[test]
    fn what_was_stored_comes_back_with_the_same_digests() {
        let directory = tempfile::tempdir().unwrap();
        for (number, codec) in CODECS.into_iter().enumerate() {
            for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 7, 30 * PIECE] {
                let path = directory.path().join(format!("{number}-{length}"));
                let content = text(length);
                let written = stored(&content, codec, &path);
                assert_eq!(written.file.bytes, path.metadata().unwrap().len());
                assert_eq!(read(&path, codec).unwrap(), (content, written), "{codec:?} {length}");
            }
        }
    }

    /// A byte flipped, or the end cut off: either the reader fails, or a digest differs.
    #[test]
    fn no_damage_goes_unnoticed() {
        let directory = tempfile::tempdir().unwrap();
        for (number, codec) in CODECS.into_iter().enumerate() {
            let path = directory.path().join(number.to_string());
            let written = stored(&text(2 * PIECE), codec, &path);
            let good = std::fs::read(&path).unwrap();
            let places = (0..good.len()).step_by(good.len() / 50);
            for place in places.chain([good.len() - 1]) {
                let mut flipped = good.clone();
                flipped[place] ^= 0x10;
                for bad in [&flipped[..], &good[..place]] {
                    std::fs::write(&path, bad).unwrap();
                    match read(&path, codec) {
                        Ok((_, stored)) => assert_ne!(stored, written, "{codec:?} at {place}"),
                        Err(error) => assert_eq!(error.kind(), Kind::Damaged, "{}", error.report()),
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_behind_the_end_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        for (number, codec) in CODECS.into_iter().enumerate() {
            let path = directory.path().join(number.to_string());
            let written = stored(&text(PIECE), codec, &path);
            let mut longer = std::fs::read(&path).unwrap();
            longer.extend_from_slice(b"more");
            std::fs::write(&path, longer).unwrap();
            assert!(!matches!(read(&path, codec), Ok((_, stored)) if stored == written), "{codec:?}");
        }
    }

    #[test]
    fn after_an_error_there_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let stop = |_| Err(Error::new(Kind::Interrupted, "stopped"));
        let error =
            store(&text(4 * PIECE)[..], Packing::new(Codec::ZSTD, 2), &path, &mut { stop }).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_there_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, "older").unwrap();
        let error = store(&b"newer"[..], Packing::new(Codec::None, 1), &path, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::File);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "older");
    }

    #[test]
    fn a_missing_file_is_damage() {
        let error = open_stored(Path::new("/nonexistent/homeserver.dump.zst"), Codec::ZSTD).err().unwrap();
        assert_eq!(error.kind(), Kind::Damaged);
    }
}
