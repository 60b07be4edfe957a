//! Gzip by several threads into one ordinary gzip member, the way pigz does it.
//!
//! The input is cut into blocks of 512 KiB. A worker deflates a block on its own, but with the last 32 KiB of the
//! block before it as the dictionary (the whole window of deflate, RFC 1951), so that hardly any match is lost, and
//! ends it with a sync flush (an empty stored block), so that it ends on a byte. The blocks put one behind the
//! other are one deflate stream. Header and trailer are RFC 1952; the CRC-32 of the blocks is combined, not
//! computed twice. Every gzip reader takes it.
//!
//! Where a file is to share blocks with that of yesterday ([`Encoder::rsyncable`]), a block ends where the content
//! says so, and has no dictionary: what is the same in both inputs is then the same in both outputs.
//!
//! The thread that writes is the one that calls: it needs no locks for the sink, and gets the sink's errors
//! directly. Memory is flat, about 1 MiB for each block under way.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, FlushCompress, Status};

/// How much input one worker takes at a time. At 128 KiB the result is 0.04 % bigger, at 1 MiB memory doubles.
pub const BLOCK: usize = 512 * 1024;

/// Deflate looks back no farther than this (RFC 1951, 2).
const WINDOW: usize = 32 * 1024;

/// Bits of the rolling sum that are all zero at a border: one is found every 128 KiB on average.
const BORDER: u64 = ((1 << 17) - 1) << 47;

/// Magic, deflate, no flags, no time (the same input gives the same file), no extra flags, Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// One block on its way to a worker.
struct Job {
    /// Dictionary, then the block.
    buffer: Vec<u8>,
    /// Where in `buffer` the block begins.
    start: usize,
    last: bool,
    /// Recycled room for the result.
    packed: Vec<u8>,
    reply: SyncSender<io::Result<Done>>,
}

/// One block on its way back.
struct Done {
    packed: Vec<u8>,
    crc: crc32fast::Hasher,
    size: u32,
    buffer: Vec<u8>,
}

/// A [`Write`] that compresses into one gzip member; [`Encoder::finish`] must be called at the end.
///
/// Blocks are handed on when they are full: `flush` does not push out a block that is not.
pub struct Encoder<W: Write> {
    sink: Option<W>,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    pending: VecDeque<Receiver<io::Result<Done>>>,
    most_pending: usize,
    buffer: Vec<u8>,
    start: usize,
    borders: Option<Box<Borders>>,
    spare: Vec<(Vec<u8>, Vec<u8>)>,
    crc: crc32fast::Hasher,
    size: u32,
    header_written: bool,
    failed: bool,
}

impl<W: Write> Encoder<W> {
    /// Starts `threads` workers (at least one) that compress at `level`, 1 (fast) to 9 (small).
    pub fn new(sink: W, level: u32, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let most_pending = threads * 2;
        let (jobs, queue) = mpsc::sync_channel(most_pending);
        let queue = Arc::new(Mutex::new(queue));
        let mut encoder = Self {
            sink: Some(sink),
            jobs: Some(jobs),
            workers: Vec::with_capacity(threads),
            pending: VecDeque::with_capacity(most_pending),
            most_pending,
            buffer: Vec::with_capacity(WINDOW + BLOCK),
            start: 0,
            borders: None,
            spare: Vec::new(),
            crc: crc32fast::Hasher::new(),
            size: 0,
            header_written: false,
            failed: false,
        };
        let level = Compression::new(level.clamp(1, 9));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let worker = std::thread::Builder::new().name("gzip".into());
            // An error here drops the encoder, which ends the workers that were started.
            encoder.workers.push(worker.spawn(move || work(&queue, level))?);
        }
        Ok(encoder)
    }

    /// As [`Encoder::new`], with blocks that depend on nothing but their own content.
    pub fn rsyncable(sink: W, level: u32, threads: usize) -> io::Result<Self> {
        let mut encoder = Self::new(sink, level, threads)?;
        encoder.borders = Some(Box::new(Borders::new()));
        Ok(encoder)
    }

    /// Compresses what is left, writes the trailer and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.check()?;
        self.hand_on(true)?;
        while !self.pending.is_empty() {
            self.collect()?;
        }
        // Both numbers of the trailer are modulo 2^32 (RFC 1952, 2.3.1).
        let size = self.size.to_le_bytes();
        let crc = self.crc.clone().finalize().to_le_bytes();
        self.put(&crc)?;
        self.put(&size)?;
        self.sink.take().ok_or_else(ended)
    }

    /// An encoder that has failed stays failed: a gap in the stream must not be closed by a trailer.
    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("the gzip stream has already failed")) } else { Ok(()) }
    }

    /// Gives the block to a worker, and begins the next one with the end of it as the dictionary.
    fn hand_on(&mut self, last: bool) -> io::Result<()> {
        if self.pending.len() >= self.most_pending {
            self.collect()?;
        }
        let (mut next, packed) = self
            .spare
            .pop()
            .unwrap_or_else(|| (Vec::with_capacity(WINDOW + BLOCK), Vec::with_capacity(BLOCK)));
        next.clear();
        if self.borders.is_none() {
            next.extend_from_slice(&self.buffer[self.buffer.len().saturating_sub(WINDOW)..]);
        }
        let start = std::mem::replace(&mut self.start, next.len());
        let buffer = std::mem::replace(&mut self.buffer, next);
        let (reply, answer) = mpsc::sync_channel(1);
        let job = Job { buffer, start, last, packed, reply };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            self.failed = true;
            return Err(ended());
        }
        self.pending.push_back(answer);
        Ok(())
    }

    /// Waits for the oldest block and writes it.
    fn collect(&mut self) -> io::Result<()> {
        let Some(answer) = self.pending.pop_front() else { return Ok(()) };
        let done = answer
            .recv()
            .map_err(|_| ended())
            .and_then(|answer| answer)
            .inspect_err(|_| self.failed = true)?;
        self.crc.combine(&done.crc);
        self.size = self.size.wrapping_add(done.size);
        self.put(&done.packed)?;
        self.spare.push((done.buffer, done.packed));
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sink = self.sink.as_mut().ok_or_else(ended)?;
        let mut written = Ok(());
        if !self.header_written {
            self.header_written = true;
            written = sink.write_all(&HEADER);
        }
        written.and_then(|()| sink.write_all(bytes)).inspect_err(|_| self.failed = true)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut room = self.start + BLOCK - self.buffer.len();
        // A full block waits for the byte after it: only then it is known not to be the last.
        if room == 0 || self.borders.as_ref().is_some_and(|borders| borders.reached) {
            self.hand_on(false)?;
            room = BLOCK;
        }
        let mut taken = room.min(bytes.len());
        if let Some(borders) = &mut self.borders {
            taken = borders.look_for(&bytes[..taken]);
        }
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.sink.as_mut().ok_or_else(ended)?.flush()
    }
}

impl<W: Write> Drop for Encoder<W> {
    fn drop(&mut self) {
        // Without a sender the workers end once they have emptied the queue; each answer has room to wait in.
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has been noticed: its answer never came.
            let _ = worker.join();
        }
    }
}

/// Finds the places where blocks end by their content: a gear hash of the last 64 bytes, which moves along with the
/// content when something is inserted before it.
struct Borders {
    gear: [u64; 256],
    sum: u64,
    /// The last byte that was looked at is the last one of a block.
    reached: bool,
}

impl Borders {
    fn new() -> Self {
        // Numbers without a pattern (splitmix64); any will do as long as they stay the same.
        let mut state = 0_u64;
        let gear = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        Self { gear, sum: 0, reached: false }
    }

    /// How many of these bytes belong to the block.
    fn look_for(&mut self, bytes: &[u8]) -> usize {
        let mut sum = self.sum;
        let border = bytes.iter().position(|&byte| {
            sum = (sum << 1).wrapping_add(self.gear[usize::from(byte)]);
            sum & BORDER == 0
        });
        self.sum = sum;
        self.reached = border.is_some();
        border.map_or(bytes.len(), |place| place + 1)
    }
}

fn ended() -> io::Error {
    io::Error::other("a gzip worker ended unexpectedly")
}

/// A worker's life: takes blocks until nobody can send any more.
fn work(queue: &Mutex<Receiver<Job>>, level: Compression) {
    let mut deflate = Compress::new(level, false);
    loop {
        // The lock is held while waiting: one worker waits for a block, the others for the lock.
        let job = queue.lock().ok().and_then(|queue| queue.recv().ok());
        let Some(Job { buffer, start, last, mut packed, reply }) = job else { return };
        let answer = pack(&mut deflate, &buffer, start, last, &mut packed).map(|()| {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&buffer[start..]);
            // A block is far below 4 GiB.
            let size = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
            Done { packed, crc, size, buffer }
        });
        // Nobody waits when the encoder was dropped.
        let _ = reply.send(answer);
    }
}

/// Deflates `buffer[start..]` with what lies before it as the dictionary.
fn pack(
    deflate: &mut Compress,
    buffer: &[u8],
    start: usize,
    last: bool,
    packed: &mut Vec<u8>,
) -> io::Result<()> {
    deflate.reset();
    packed.clear();
    if start > 0 {
        deflate.set_dictionary(&buffer[..start]).map_err(io::Error::other)?;
    }
    let block = &buffer[start..];
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        packed.reserve(BLOCK / 4);
        let taken = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        let status = deflate.compress_vec(&block[taken..], packed, flush).map_err(io::Error::other)?;
        // zlib.h: a flush is complete when it returns with room left in the output.
        let flushed = deflate.total_in() == block.len() as u64 && packed.len() < packed.capacity();
        if status == Status::StreamEnd || (!last && flushed) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{FailingSink, text};

    fn gzip(content: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), 6, threads).unwrap();
        for piece in content.chunks(piece) {
            encoder.write_all(piece).unwrap();
        }
        encoder.finish().unwrap()
    }

    #[test]
    fn the_file_does_not_depend_on_threads_or_pieces() {
        let content = text(3 * BLOCK + 17);
        let one = gzip(&content, 1, 4096);
        assert_eq!(one, gzip(&content, 3, 1_000_003));
        assert_eq!(one[..10], HEADER);
        assert_eq!(one[one.len() - 4..], (3 * 512 * 1024 + 17_u32).to_le_bytes());
    }

    #[test]
    fn priming_keeps_blocks_about_as_small_as_one_stream() {
        let content = text(8 * BLOCK);
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), Compression::new(6));
        whole.write_all(&content).unwrap();
        let whole = whole.finish().unwrap().len();
        let ours = gzip(&content, 2, 65_536).len();
        assert!(ours * 1000 <= whole * 1005, "{ours} against {whole}");
    }

    #[test]
    fn nothing_is_a_valid_gzip_too() {
        assert_eq!(gzip(b"", 2, 1), [&HEADER[..], &[3, 0], &[0; 8]].concat());
    }

    #[test]
    fn the_error_of_the_sink_comes_back_and_stays() {
        let mut encoder = Encoder::new(FailingSink::after(300_000), 6, 2).unwrap();
        let content = text(BLOCK);
        let error = (0..1000).find_map(|_| encoder.write_all(&content).err()).expect("an error");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(encoder.write(b"x").is_err());
        assert!(encoder.finish().is_err());
    }

    #[test]
    fn a_dropped_encoder_ends_its_threads() {
        for blocks in 0..8 {
            let mut encoder = Encoder::new(io::sink(), 6, 3).unwrap();
            encoder.write_all(&text(blocks * BLOCK + 1)).unwrap();
            drop(encoder);
        }
    }

    #[test]
    fn no_more_blocks_are_under_way_than_twice_the_threads() {
        let mut encoder = Encoder::new(io::sink(), 6, 2).unwrap();
        let content = text(BLOCK);
        for _ in 0..40 {
            encoder.write_all(&content).unwrap();
            assert!(encoder.pending.len() <= 4);
            let spare: usize = encoder.spare.iter().map(|(a, b)| a.capacity() + b.capacity()).sum();
            assert!(spare <= 5 * (WINDOW + 3 * BLOCK), "{spare}");
        }
    }
}
