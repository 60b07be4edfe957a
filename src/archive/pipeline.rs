//! From a source into a sink, in parts if need be.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::Scope;

use super::codec::Packing;
use super::digest::{Hasher, Stored};
use super::parts::{Borders, NoBorders, Part, Parts};
use super::sink::Sink;
use super::source::PIECE;
use crate::error::{Error, IoContext as _, Result};

/// How many pieces a source may be ahead: pg_dump works on while a full encoder is waited for.
const AHEAD: usize = 8;

/// Stores everything that `source` gives in a sink, durably.
///
/// `progress` is told the bytes of content so far, about every half megabyte; its error stops the work and is
/// handed through. A source that is silent is waited for: to stop it, end the producer. After an error there is
/// no file. The directory is not synced.
///
/// That the source has ended says nothing about the producer: its exit status must be asked too.
///
/// # Errors
/// [`crate::Kind::File`] or [`crate::Kind::NoSpace`], naming the file.
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
/// As [`store_into`].
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
            let piece = piece.at("read the data for", &path)?;
            content.update(&piece);
            parts.write(&piece, &borders.feed(&piece)).map_err(|error| not_written(error, &path))?;
            progress(content.bytes())?;
            // The reader may have come to its end and need no more room.
            let _ = used.send(piece);
        }
        Ok(())
    })?;
    let (sink, parts) = parts.finish().map_err(|error| not_written(error, &path))?;
    Ok((Stored { file: Box::new(sink).finish()?, content: content.finish() }, parts))
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

/// The error that a sink meant: one of its own, or a failed system call.
fn not_written(error: io::Error, path: &Path) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("write", path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::text;
    use crate::archive::{Codec, FileSink, into_error, open_stored};
    use crate::error::Kind;

    const CODECS: [Codec; 3] = [Codec::ZSTD, Codec::GZIP, Codec::None];

    fn store(
        content: &[u8],
        packing: Packing,
        path: &Path,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Stored> {
        store_into(FileSink::create(path)?, content, packing, progress)
    }

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
