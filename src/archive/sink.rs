//! Where the stored bytes go: a file, for now.
//!
//! A [`Sink`] is the end of the pipeline. Off-site targets will be further implementations; encryption is one that
//! wraps another.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use super::digest::{Digest, HashingWriter};
use crate::error::{IoContext as _, Result};

/// How much is written before the disk is set to work on it.
const WRITEBACK: u64 = 64 << 20;

/// The end of the pipeline.
pub trait Sink: Write {
    /// What to call the target in a message.
    fn path(&self) -> &Path;

    /// Makes everything durable; the digest is of the bytes as they are stored.
    fn finish(self: Box<Self>) -> Result<Digest>;
}

/// A sink of any kind.
impl<S: Sink + ?Sized> Sink for Box<S> {
    fn path(&self) -> &Path {
        (**self).path()
    }

    fn finish(self: Box<Self>) -> Result<Digest> {
        (*self).finish()
    }
}

/// A new file of mode 0600, whatever the umask.
///
/// Dropped before [`Sink::finish`] was called, it removes the file: half a dump is of use to nobody, and the room
/// it takes may be what was missing.
pub struct FileSink {
    file: HashingWriter<File>,
    path: PathBuf,
    writeback: Option<Writeback>,
    started: u64,
    whole: bool,
}

impl FileSink {
    /// Creates the file; that there is none of this name yet is a condition (`O_EXCL`).
    pub fn create(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path).at("create", path)?;
        let sink = Self {
            file: HashingWriter::new(file),
            path: path.to_path_buf(),
            writeback: None,
            started: 0,
            whole: false,
        };
        // The umask can only take bits away; an odd one would leave a file that its owner cannot read.
        sink.file.get_ref().set_permissions(Permissions::from_mode(0o600)).at("set the mode of", path)?;
        Ok(sink)
    }

    /// Has the kernel write out what it holds, in the background, so that the fsync at the end is short.
    fn write_back(&mut self) -> io::Result<()> {
        self.started = self.file.bytes();
        if self.writeback.is_none() {
            self.writeback = Some(Writeback::start(self.file.get_ref().try_clone()?)?);
        }
        if self.writeback.as_ref().is_some_and(Writeback::nudge) { Ok(()) } else { self.end_writeback() }
    }

    fn end_writeback(&mut self) -> io::Result<()> {
        self.writeback.take().map_or(Ok(()), Writeback::end)
    }
}

impl Write for FileSink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        if self.file.bytes() - self.started >= WRITEBACK {
            self.write_back()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for FileSink {
    fn path(&self) -> &Path {
        &self.path
    }

    fn finish(mut self: Box<Self>) -> Result<Digest> {
        self.end_writeback().and_then(|()| self.file.get_ref().sync_all()).at("write", &self.path)?;
        self.whole = true;
        Ok(self.file.digest())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        let _ = self.end_writeback();
        if !self.whole {
            // Whoever dropped it has an error to report already, and a better one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A thread that syncs the file whenever it is told to.
struct Writeback {
    nudges: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writeback {
    fn start(file: File) -> io::Result<Self> {
        let (nudges, nudged) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("writeback".into());
        let thread = thread.spawn(move || nudged.iter().try_for_each(|()| file.sync_data()))?;
        Ok(Self { nudges, thread })
    }

    /// False when the thread has ended, which it does on an error only.
    fn nudge(&self) -> bool {
        // A full channel is fine: a sync is due anyway.
        !matches!(self.nudges.try_send(()), Err(mpsc::TrySendError::Disconnected(())))
    }

    /// The kernel tells of a failed write only once per open file, and a duplicate is the same open file: an
    /// error this thread was told must not be lost, the last fsync would not see it again.
    fn end(self) -> io::Result<()> {
        drop(self.nudges);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writeback thread panicked")))
    }
}
