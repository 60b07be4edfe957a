//! SHA-256 and a count of bytes, taken in passing.
//!
//! The `sha2` crate finds the processor's SHA instructions by itself at run time; with them a digest costs
//! about half a second per gigabyte, without them five times that.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a run of bytes was: how many, and their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
}

impl Digest {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Takes the [`Digest`] of bytes as they come.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    bytes: u64,
    sha256: Sha256,
}

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    /// How many bytes there were so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of everything that came.
    pub fn finish(self) -> Digest {
        let mut hex = String::with_capacity(64);
        for byte in self.sha256.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Digest { bytes: self.bytes, sha256: hex }
    }
}

/// A writer that takes the digest of what the writer below it accepted.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// Starts an empty digest over `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// How many bytes were accepted so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// The writer below.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The digest of what was accepted so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that takes the digest of what the reader below it gave.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    /// Starts an empty digest over `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// The digest of what was read.
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// What was stored: the file as it lies on the disk, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The bytes of the file; `sha256sum` gives the same.
    pub file: Digest,
    /// The bytes that the source gave, before the codec.
    pub content: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn it_is_the_sha256_of_fips_180() {
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Digest { bytes: 3, sha256: ABC.into() });
        let empty = Hasher::default().finish();
        assert_eq!(empty.bytes, 0);
        assert!(empty.sha256.starts_with("e3b0c44298fc1c14"), "{}", empty.sha256);
    }

    #[test]
    fn only_what_was_accepted_is_counted() {
        let mut room = [0; 3];
        let mut writer = HashingWriter::new(&mut room[..]);
        assert_eq!(writer.write(b"abcdef").unwrap(), 3);
        assert_eq!(writer.digest(), Digest { bytes: 3, sha256: ABC.into() });
    }

    #[test]
    fn reading_takes_the_same_digest() {
        let mut reader = HashingReader::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish(), Digest { bytes: 3, sha256: ABC.into() });
    }
}
