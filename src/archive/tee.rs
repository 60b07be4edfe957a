//! What is written is read back at the same time, before it is encrypted: afterwards nobody here can.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};

use super::codec::Codec;
use super::digest::{Digest, Hasher};
use super::sink::Sink;
use super::source::{Source, StoredReader};
use crate::error::Result;

/// How many pieces the reader may be behind, each of at most a codec's block; then the writer waits.
const BEHIND: usize = 8;

/// A sink above another, whose every byte goes to a reader, too.
pub struct Tee<S> {
    below: S,
    pieces: SyncSender<Vec<u8>>,
}

/// The other end of a [`Tee`], for the thread that reads.
pub struct Branch {
    source: Pieces,
    codec: Codec,
    path: PathBuf,
}

/// A sink on top of `below`, and what to read from in another thread.
///
/// The reader ends where the sink is finished or dropped. A reader that is dropped early makes the sink fail, with
/// [`io::ErrorKind::BrokenPipe`].
pub fn tee<S: Sink>(below: S, codec: Codec) -> (Tee<S>, Branch) {
    let (pieces, coming) = mpsc::sync_channel(BEHIND);
    let path = below.path().to_path_buf();
    let source = Pieces { coming, piece: Vec::new(), taken: 0, hasher: Hasher::default() };
    (Tee { below, pieces }, Branch { source, codec, path })
}

impl Branch {
    /// A reader that unpacks what goes through the sink. It may wait for the first bytes.
    ///
    /// # Errors
    /// [`crate::Kind::File`] if the decoder does not start.
    pub fn open(self) -> Result<StoredReader> {
        StoredReader::new(Box::new(self.source), self.codec, &self.path)
    }
}

impl<S: Sink> Write for Tee<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.below.write(buffer)?;
        match self.pieces.send(buffer[..written].to_vec()) {
            Ok(()) => Ok(written),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.below.flush()
    }
}

impl<S: Sink> Sink for Tee<S> {
    fn path(&self) -> &Path {
        self.below.path()
    }

    fn finish(self: Box<Self>) -> Result<Digest> {
        drop(self.pieces);
        Box::new(self.below).finish()
    }
}

/// The reader's end.
struct Pieces {
    coming: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    taken: usize,
    hasher: Hasher,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            let Ok(piece) = self.coming.recv() else { return Ok(0) };
            self.hasher.update(&piece);
            self.piece = piece;
            self.taken = 0;
        }
        let length = buffer.len().min(self.piece.len() - self.taken);
        buffer[..length].copy_from_slice(&self.piece[self.taken..][..length]);
        self.taken += length;
        Ok(length)
    }
}

impl Source for Pieces {
    /// Of what was packed, before it was encrypted.
    fn finish(self: Box<Self>) -> Result<Digest> {
        Ok(self.hasher.finish())
    }
}
