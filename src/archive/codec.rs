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

    /// How its files end, without the dot; empty when nothing is appended.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd { .. } => "zst",
            Self::Gzip { .. } => "gz",
            Self::None => "",
        }
    }

    /// The codec of a file of this name, at the default level: decoders do not need to know the level.
    pub fn of_file_name(name: &str) -> Self {
        match name.rsplit_once('.') {
            Some((_, "zst")) => Self::ZSTD,
            Some((_, "gz")) => Self::GZIP,
            _ => Self::None,
        }
    }

    /// An encoder into `sink` with `threads` workers (at least one; [`Codec::None`] has none).
    pub fn encoder<W: Write>(self, sink: W, threads: usize) -> io::Result<Encoder<W>> {
        Ok(Encoder(match self {
            Self::Zstd { level } => Packer::Zstd(zstd_encoder(sink, level, threads)?),
            Self::Gzip { level } => Packer::Gzip(gzip::Encoder::new(sink, level, threads)?),
            Self::None => Packer::None(sink),
        }))
    }

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

/// How many workers compress when nobody said: one for each processor, eight at most.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

fn zstd_encoder<W: Write>(
    sink: W,
    level: i32,
    threads: usize,
) -> io::Result<zio::Writer<W, raw::Encoder<'static>>> {
    let mut encoder = raw::Encoder::new(level)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    for parameter in tuning(level) {
        encoder.set_parameter(parameter)?;
    }
    let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
    encoder.set_parameter(CParameter::NbWorkers(threads))?;
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
    /// The reader below.
    pub fn get_ref(&self) -> &R {
        match &self.0 {
            Unpacker::Zstd(decoder) => decoder.get_ref().get_ref(),
            Unpacker::Gzip(decoder) => decoder.get_ref().get_ref(),
            Unpacker::None(source) => source,
        }
    }

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
