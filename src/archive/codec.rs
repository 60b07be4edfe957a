//! How the bytes of a dump are stored: zstd, gzip, or as they are.
//!
//! Whatever the codec, the encoder ends with [`Encoder::finish`], and the decoder is strict: a stream that was cut
//! short, has bytes behind its end or does not match its own checksum is an error, not an end of file.
//! (The exceptions are header bytes that carry nothing, such as the time in a gzip header. The digest of the
//! file, see [`super::digest`], catches those too.)

use std::io::{self, BufReader, Read, Write};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::raw::{self, CParameter};
use zstd::stream::{read, zio};
use zstd::zstd_safe::Strategy;

use super::gzip;

/// What moves between codec and file in one call.
const BUFFER: usize = 256 * 1024;

/// How the bytes of a dump are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard (RFC 8878). Level 1 to 19; the default is tuned for dumps, see [`Codec::ZSTD`].
    Zstd {
        /// How hard to try.
        level: i32,
    },
    /// Gzip (RFC 1952), which everything reads. Level 1 to 9.
    Gzip {
        /// How hard to try.
        level: u32,
    },
    /// As it comes.
    None,
}

impl Codec {
    /// Zstandard as we use it by default.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// Gzip by default. This level of zlib-rs gives files as small as those of gzip's own level 6, in 9/10 of the
    /// time that its level 6 takes, for 0.15 % of the size.
    pub const GZIP: Self = Self::Gzip { level: 5 };

    /// A decoder of everything that `source` gives, to its end.
    pub fn decoder<R: Read>(self, source: R) -> io::Result<Decoder<R>> {
        Ok(Decoder(match self {
            Self::Zstd { .. } => {
                Unpacker::Zstd(read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, source))?)
            }
            Self::Gzip { .. } => {
                Unpacker::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, source))))
            }
            Self::None => Unpacker::None(source),
        }))
    }
}

/// How a codec is put to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// The codec.
    pub codec: Codec,
    /// Its workers, at least one; [`Codec::None`] has none.
    pub threads: usize,
    /// Whether block borders depend on the content and blocks on nothing before them: what is the same in two dumps
    /// is then the same in their files, which borg, restic and rsync make use of. Files are somewhat larger.
    pub rsyncable: bool,
}

impl Packing {
    /// A codec at its best compression with so many workers.
    pub fn new(codec: Codec, threads: usize) -> Self {
        Self { codec, threads, rsyncable: false }
    }

    /// An encoder into `sink`.
    pub fn encoder<W: Write>(self, sink: W) -> io::Result<Encoder<W>> {
        let Self { codec, threads, rsyncable } = self;
        Ok(Encoder(match codec {
            Codec::Zstd { level } => Packer::Zstd(zstd_encoder(sink, level, threads, rsyncable)?),
            Codec::Gzip { level } if rsyncable => {
                Packer::Gzip(gzip::Encoder::rsyncable(sink, level, threads)?)
            }
            Codec::Gzip { level } => Packer::Gzip(gzip::Encoder::new(sink, level, threads)?),
            Codec::None => Packer::None(sink),
        }))
    }
}

fn zstd_encoder<W: Write>(
    sink: W,
    level: i32,
    threads: usize,
    rsyncable: bool,
) -> io::Result<zio::Writer<W, raw::Encoder<'static>>> {
    let mut encoder = raw::Encoder::new(level)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    for parameter in tuning(level) {
        encoder.set_parameter(parameter)?;
    }
    let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
    encoder.set_parameter(CParameter::NbWorkers(threads))?;
    for parameter in if rsyncable { &RSYNCABLE[..] } else { &[] } {
        encoder.set_parameter(*parameter)?;
    }
    Ok(zio::Writer::new_with_capacity(sink, encoder, BUFFER))
}

/// What we ask of zstd beyond the level.
///
/// At the default level it is its fastest strategy in a long window: a dump repeats ids and keys from megabytes
/// ago, and finding those is worth more than searching harder nearby. Measured on Synapse's tables against plain
/// level 3, it takes two thirds of the processor time and gives a file that is 3 % smaller.
fn tuning(level: i32) -> Vec<CParameter> {
    if level != 3 {
        return Vec::new();
    }
    vec![
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::WindowLog(22),
        CParameter::HashLog(18),
        CParameter::MinMatch(6),
        CParameter::TargetLength(0),
        // Small jobs and a whole window between them: flat memory, and nothing lost at the borders.
        CParameter::JobSize(4 << 20),
        CParameter::OverlapSizeLog(9),
    ]
}

/// Jobs that end where the content says so and begin without any knowledge of what came before: zstd's own
/// `--rsyncable` lets each job look back into the one before, so that one changed row changes two of them.
const RSYNCABLE: [CParameter; 3] =
    [CParameter::JobSize(1 << 20), CParameter::OverlapSizeLog(1), CParameter::RSyncable(true)];

/// A [`Write`] that stores what it is given; [`Encoder::finish`] must be called at the end.
pub struct Encoder<W: Write>(Packer<W>);

enum Packer<W: Write> {
    Zstd(zio::Writer<W, raw::Encoder<'static>>),
    Gzip(gzip::Encoder<W>),
    None(W),
}

impl<W: Write> Encoder<W> {
    /// Writes what is left and the end of the stream, and gives the sink back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Packer::Zstd(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner().0)
            }
            Packer::Gzip(encoder) => encoder.finish(),
            Packer::None(sink) => Ok(sink),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Packer::Zstd(writer) => writer.write(buffer),
            Packer::Gzip(encoder) => encoder.write(buffer),
            Packer::None(sink) => sink.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Packer::Zstd(writer) => writer.flush(),
            Packer::Gzip(encoder) => encoder.flush(),
            Packer::None(sink) => sink.flush(),
        }
    }
}

/// A [`Read`] of the content of a stored stream, to its very end or to an error.
pub struct Decoder<R: Read>(Unpacker<R>);

enum Unpacker<R: Read> {
    Zstd(read::Decoder<'static, BufReader<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    None(R),
}

impl<R: Read> Decoder<R> {
    /// The reader below; what it gave and was not decoded yet is gone.
    pub fn into_inner(self) -> R {
        match self.0 {
            Unpacker::Zstd(decoder) => decoder.into_inner().into_inner(),
            Unpacker::Gzip(decoder) => decoder.into_inner().into_inner(),
            Unpacker::None(source) => source,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Unpacker::Zstd(decoder) => decoder.read(buffer),
            Unpacker::Gzip(decoder) => decoder.read(buffer),
            Unpacker::None(source) => source.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::text;
    use std::collections::HashSet;

    fn packed(content: &[u8], codec: Codec, rsyncable: bool) -> Vec<u8> {
        let packing = Packing { codec, threads: 2, rsyncable };
        let mut encoder = packing.encoder(Vec::new()).unwrap();
        for piece in content.chunks(512 * 1024) {
            encoder.write_all(piece).unwrap();
        }
        encoder.finish().unwrap()
    }

    /// Pieces as borg and restic cut them, by a sum of the bytes before: of 64 KiB, on average.
    fn chunks(bytes: &[u8]) -> Vec<&[u8]> {
        let (mut chunks, mut start, mut sum) = (Vec::new(), 0, 0_u64);
        for (place, &byte) in bytes.iter().enumerate() {
            sum = (sum << 1).wrapping_add(u64::from(byte).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if sum >> 48 == 0 {
                chunks.push(&bytes[start..=place]);
                start = place + 1;
            }
        }
        chunks.push(&bytes[start..]);
        chunks
    }

    /// The share of the bytes of `new` that are in chunks which `old` has, too.
    fn shared(old: &[u8], new: &[u8]) -> f64 {
        let known: HashSet<_> = chunks(old).into_iter().collect();
        let known = chunks(new).into_iter().filter(|chunk| known.contains(chunk)).map(<[u8]>::len);
        known.sum::<usize>() as f64 / new.len() as f64
    }

    #[test]
    fn an_inserted_line_changes_little_of_an_rsyncable_file() {
        let old = text(64 << 20);
        let new = [&old[..1_000_000], b"one more line\n", &old[1_000_000..]].concat();
        for codec in [Codec::ZSTD, Codec::Zstd { level: 1 }, Codec::GZIP] {
            let kept = shared(&packed(&old, codec, true), &packed(&new, codec, true));
            assert!(kept > 0.9, "{codec:?}: {kept}");
            let plain = shared(&packed(&old, codec, false), &packed(&new, codec, false));
            assert!(plain < 0.1, "{codec:?}: {plain}");
        }
    }

    #[test]
    fn an_rsyncable_file_unpacks_to_what_went_in() {
        for length in [0, 1, 100_000, 5_000_000] {
            let content = text(length);
            for codec in [Codec::ZSTD, Codec::GZIP] {
                let packed = packed(&content, codec, true);
                let mut unpacked = Vec::new();
                codec.decoder(&packed[..]).unwrap().read_to_end(&mut unpacked).unwrap();
                assert_eq!(unpacked, content, "{codec:?} {length}");
            }
        }
    }
}
