//! Where the stored bytes come from, and what is read of them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, PosixFadviseAdvice, fcntl, posix_fadvise};

use super::codec::{Codec, Decoder};
use super::digest::{Digest, Hasher, HashingReader, Stored};
use crate::error::{Error, IoContext as _, Kind, Result};

/// What is read and compressed in one piece.
pub(super) const PIECE: usize = 512 * 1024;

/// The most that an unprivileged process may ask of a pipe (`/proc/sys/fs/pipe-max-size`).
const PIPE: i32 = 1 << 20;

/// The packed bytes of a file, wherever it is.
pub type Packed = Box<dyn Read + Send>;

/// The digest of a file, whatever is in it; `path` is for messages. `progress` is told the bytes so far.
///
/// # Errors
/// [`Kind::File`] if it cannot be read, and that of `progress`.
pub fn digest_of(file: Packed, path: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Digest> {
    let mut file = HashingReader::new(Located::new(file, path));
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
///
/// # Errors
/// As [`open_file`].
pub fn open_from_disk(path: &Path) -> Result<File> {
    let file = open_file(path)?;
    // Advice only; a file system that does not take it reads as well as ever.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(file)
}

/// Opens a file that is read from one end to the other.
///
/// # Errors
/// [`Kind::Damaged`] if there is no such file, [`Kind::File`] if it cannot be opened.
pub fn open_file(path: &Path) -> Result<File> {
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
            let message = format!("{} is damaged: it cannot be decompressed", path.display());
            io::Error::other(Error::new(Kind::Damaged, message).because(error))
        }
    }
}

/// A file whose errors are told apart from those of the codec above it.
pub(super) struct Located {
    file: Packed,
    path: PathBuf,
}

impl Located {
    pub(super) fn new(file: Packed, path: &Path) -> Self {
        Self { file, path: path.to_path_buf() }
    }
}

impl Read for Located {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            // Of a program that says itself what is wrong.
            _ if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>) => error,
            _ => io::Error::other(Error::io("read", &self.path, error)),
        })
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
