//! Parts of a stored file that unpack by themselves: zstd's frames, gzip's members. One behind the other, they are a
//! file that any tool unpacks as a whole.

use std::io::{self, Read, Take, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::codec::{Codec, Decoder, Encoder, Packing};
use super::source::{Located, PIECE, Packed, not_unpacked};
use crate::error::{IoContext as _, Result};

/// A part has at least so much content: to begin one costs a little room, and a moment in which nobody compresses.
const SMALLEST: u64 = 8 << 20;

/// A part of a file. It begins where the one before ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its length in the file.
    pub bytes: u64,
    /// The length of what it unpacks to.
    pub content_bytes: u64,
}

/// Says where the content may be entered, which is what a part has to begin with.
pub trait Borders: Send {
    /// Takes the next piece of content; the places in it, in order.
    fn feed(&mut self, piece: &[u8]) -> Vec<usize>;
}

/// For content that is read from its beginning only.
pub struct NoBorders;

impl Borders for NoBorders {
    fn feed(&mut self, _: &[u8]) -> Vec<usize> {
        Vec::new()
    }
}

/// An encoder that begins anew with each part.
pub(super) struct Parts<S: Write> {
    packing: Packing,
    /// Nothing, after an error.
    encoder: Option<Encoder<Counting<S>>>,
    done: Vec<Part>,
    /// Where this part begins in the file.
    start: u64,
    /// How much content this part has.
    content: u64,
}

impl<S: Write> Parts<S> {
    pub(super) fn new(packing: Packing, sink: S) -> io::Result<Self> {
        let encoder = Some(packing.encoder(Counting { inner: sink, bytes: 0 })?);
        Ok(Self { packing, encoder, done: Vec::new(), start: 0, content: 0 })
    }

    /// Packs a piece, in which `borders` are.
    pub(super) fn write(&mut self, piece: &[u8], borders: &[usize]) -> io::Result<()> {
        let mut written = 0;
        for &border in borders {
            self.pack(&piece[written..border])?;
            written = border;
            if self.content >= SMALLEST {
                let sink = self.end()?;
                self.encoder = Some(self.packing.encoder(sink)?);
            }
        }
        self.pack(&piece[written..])
    }

    /// The sink, and the parts that it got.
    pub(super) fn finish(mut self) -> io::Result<(S, Vec<Part>)> {
        let sink = self.end()?;
        Ok((sink.inner, self.done))
    }

    fn pack(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content += bytes.len() as u64;
        match &mut self.encoder {
            Some(encoder) => encoder.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn end(&mut self) -> io::Result<Counting<S>> {
        let Some(encoder) = self.encoder.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let sink = encoder.finish()?;
        self.done.push(Part { bytes: sink.bytes - self.start, content_bytes: self.content });
        (self.start, self.content) = (sink.bytes, 0);
        Ok(sink)
    }
}

/// The parts of content that is stored as it comes, by somebody else.
///
/// # Errors
/// Those of `source`.
pub fn parts_of(mut source: impl Read, borders: &mut dyn Borders) -> io::Result<Vec<Part>> {
    let mut parts = Parts::new(Packing::new(Codec::None, 1), io::sink())?;
    let mut piece = Vec::with_capacity(PIECE);
    while source.by_ref().take(PIECE as u64).read_to_end(&mut piece)? > 0 {
        parts.write(&piece, &borders.feed(&piece))?;
        piece.clear();
    }
    Ok(parts.finish()?.1)
}

struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A [`Read`] of the content of one part. Its errors are made for [`super::into_error`].
pub struct PartReader {
    decoder: Decoder<Take<Located>>,
    path: PathBuf,
}

/// Opens a part that `file` is read from the beginning of; `path` is for messages. The codec's checksums are compared; that the
/// file is the one that was written, only the digest of all of it can tell.
///
/// # Errors
/// [`crate::Kind::File`] if it cannot be read.
pub fn open_part(file: Packed, path: &Path, codec: Codec, part: Part) -> Result<PartReader> {
    let decoder = codec.decoder(Located::new(file, path).take(part.bytes)).at("start to read", path)?;
    Ok(PartReader { decoder, path: path.to_owned() })
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| not_unpacked(error, &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::text;
    use crate::archive::{into_error, open_stored, store_in_parts};
    use crate::error::Kind;
    use std::io::{Seek as _, SeekFrom};

    const CODECS: [Codec; 3] = [Codec::ZSTD, Codec::GZIP, Codec::None];

    /// Every so many bytes.
    struct Every {
        length: usize,
        left: usize,
    }

    impl Borders for Every {
        fn feed(&mut self, piece: &[u8]) -> Vec<usize> {
            let places: Vec<_> = (self.left..piece.len()).step_by(self.length).collect();
            self.left = places.last().map_or(self.left, |last| last + self.length) - piece.len();
            places
        }
    }

    fn stored(content: &[u8], codec: Codec, path: &Path) -> Vec<Part> {
        let mut borders = Every { length: 3_000_001, left: 3_000_001 };
        let packing = Packing::new(codec, 2);
        let sink = crate::archive::FileSink::create(path).unwrap();
        let (stored, parts) = store_in_parts(sink, content, packing, &mut borders, &mut |_| Ok(())).unwrap();
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), stored.file.bytes);
        parts
    }

    fn opened(path: &Path, codec: Codec, start: u64, part: Part) -> PartReader {
        let mut file = std::fs::File::open(path).unwrap();
        file.seek(SeekFrom::Start(start)).unwrap();
        open_part(Box::new(file), path, codec, part).unwrap()
    }

    #[test]
    fn each_part_unpacks_by_itself_and_all_of_them_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let content = text(40 << 20);
        for (number, codec) in CODECS.into_iter().enumerate() {
            let path = directory.path().join(number.to_string());
            let parts = stored(&content, codec, &path);
            let lengths: Vec<_> = parts.iter().map(|part| part.content_bytes).collect();
            assert_eq!(lengths, [9_000_003, 9_000_003, 9_000_003, 9_000_003, (40 << 20) - 36_000_012]);
            let (mut start, mut at) = (0, 0);
            for part in &parts {
                let mut unpacked = Vec::new();
                opened(&path, codec, start, *part).read_to_end(&mut unpacked).unwrap();
                assert!(content[at..].starts_with(&unpacked), "{codec:?} at {at}");
                start += part.bytes;
                at += unpacked.len();
            }
            assert_eq!(at, content.len());
            let mut whole = Vec::new();
            open_stored(&path, codec).unwrap().read_to_end(&mut whole).unwrap();
            assert!(whole == content, "{codec:?}");
        }
    }

    #[test]
    fn a_part_that_was_changed_does_not_unpack() {
        let directory = tempfile::tempdir().unwrap();
        for (number, codec) in [Codec::ZSTD, Codec::GZIP].into_iter().enumerate() {
            let path = directory.path().join(number.to_string());
            let parts = stored(&text(20 << 20), codec, &path);
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = usize::try_from(parts[0].bytes + parts[1].bytes / 2).unwrap();
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let mut reader = opened(&path, codec, parts[0].bytes, parts[1]);
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(into_error(error).kind(), Kind::Damaged);
        }
    }

    #[test]
    fn little_content_is_one_part() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, 7 << 20] {
            let path = directory.path().join(length.to_string());
            let parts = stored(&text(length), Codec::ZSTD, &path);
            assert_eq!(parts.len(), 1);
            assert_eq!(parts[0].content_bytes, length as u64);
        }
    }
}
