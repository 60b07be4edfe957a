//! A program that is fed with a dump.

use std::io::{Read, Write as _};
use std::process::ChildStdin;

use nix::sys::signal::Signal;

use super::read_back::copy;
use crate::archive;
use crate::error::{Error, Kind, Result};
use crate::report::Progress;
use crate::runtime::Child;

/// A pg_restore that takes an archive.
pub(super) struct Feed {
    child: Child,
    stdin: ChildStdin,
    reads_on: bool,
    /// It took no more.
    is_closed: bool,
}

impl Feed {
    pub(super) fn of(mut child: Child) -> Result<Self> {
        let Some(stdin) = child.stdin() else {
            return Err(Error::new(Kind::Bug, "pg_restore was started without its pipe"));
        };
        archive::enlarge_pipe(&stdin);
        Ok(Self { child, stdin, reads_on: false, is_closed: false })
    }

    /// Whether an archive is read to its end though the program takes no more: there are others behind it.
    pub(super) fn reading_on(self, reads_on: bool) -> Self {
        Self { reads_on, ..self }
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        match self.stdin.write_all(piece) {
            Err(_) if self.reads_on => self.is_closed = true,
            Err(error) => return Err(took_no_more().because(error)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Its exit status counts more than that it took no more.
    pub(super) fn finish<T>(self, fed: Result<T>) -> Result<T> {
        let Self { child, stdin, is_closed, .. } = self;
        drop(stdin);
        match fed {
            Err(error) if error.kind() != Kind::Program => Err(error),
            fed => {
                child.wait().and(fed).and_then(|fed| if is_closed { Err(took_no_more()) } else { Ok(fed) })
            }
        }
    }
}

fn took_no_more() -> Error {
    Error::new(Kind::Program, "could not write to pg_restore")
}

/// Sends content to a program, or what `section` appends of it, and waits for its end.
pub(super) fn feed(
    mut child: Child,
    content: &mut impl Read,
    progress: &mut dyn Progress,
    section: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let fed = feed_to(&mut child, content, progress, section)?;
    child.wait().and(fed)
}

/// Sends content to a program, or what `section` appends of it; within, what the program's own end tells more of.
pub(super) fn feed_to(
    child: &mut Child,
    content: &mut impl Read,
    progress: &mut dyn Progress,
    mut section: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<Result<()>> {
    let Some(mut stdin) = child.stdin() else {
        return Err(Error::new(Kind::Bug, "a program was started without its pipe"));
    };
    archive::enlarge_pipe(&stdin);
    let mut kept = Vec::new();
    // One that has ended says why by its exit status.
    let fed = copy(content, progress, |piece| {
        kept.clear();
        // At the end of its input it would carry out the statement that has begun.
        section(piece, &mut kept).inspect_err(|_| child.signal(Signal::SIGKILL))?;
        stdin
            .write_all(&kept)
            .map_err(|error| Error::new(Kind::Program, "could not write to the program").because(error))
    });
    drop(stdin);
    match fed {
        Err(error) if error.kind() != Kind::Program => Err(error),
        fed => Ok(fed),
    }
}
