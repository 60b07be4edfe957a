//! Content and failures for the tests of this room.

use std::io::{self, Write};

/// Text that compresses about as well as a dump does, always the same.
pub(super) fn text(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut text = Vec::with_capacity(length + 200);
    while text.len() < length {
        let (room, event) = (next() % 97, next());
        let line =
            format!("${event:016x}{:016x}\t!room{room}:test.local\t{{\"body\":\"about backups\"}}\n", next());
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(length);
    text
}

/// A sink whose disk is full after so many bytes.
pub(super) struct FailingSink(usize);

impl FailingSink {
    pub(super) fn after(bytes: usize) -> Self {
        Self(bytes)
    }
}

impl Write for FailingSink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let taken = buffer.len().min(self.0);
        self.0 -= taken;
        if taken == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
