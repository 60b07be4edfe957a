//! The fields that everything in the format consists of: numbers and texts.

use std::io::{self, Read};

use crate::error::{Error, Kind, Result};

/// `BLK_DATA` and `BLK_BLOBS`.
pub(in crate::backup) const ROWS: u8 = 1;
pub(in crate::backup) const LARGE_OBJECTS: u8 = 3;

/// A sign, and the number's bytes, least first.
pub(in crate::backup) fn put_int(bytes: &mut Vec<u8>, value: i32, size: usize) {
    bytes.push(u8::from(value < 0));
    bytes.extend_from_slice(&u64::from(value.unsigned_abs()).to_le_bytes()[..size]);
}

pub(super) fn get_int(source: &mut impl Read, size: usize) -> Result<i32> {
    let mut bytes = [0; 9];
    source.read_exact(&mut bytes[..=size]).map_err(broken)?;
    let [sign, rest @ ..] = bytes;
    let value = i32::try_from(u64::from_le_bytes(rest))
        .map_err(|_| Error::new(Kind::Damaged, "it contains a number that is too large"))?;
    Ok(if sign == 0 { value } else { -value })
}

pub(super) fn put_text(bytes: &mut Vec<u8>, text: &[u8], int: usize) {
    put_int(bytes, i32::try_from(text.len()).unwrap_or(i32::MAX), int);
    bytes.extend_from_slice(text);
}

pub(super) fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::new(Kind::Damaged, "it is truncated"),
        _ => crate::archive::into_error(error),
    }
}

/// Reads fields, and remembers their bytes.
pub(super) struct Recorder<R> {
    pub(super) source: R,
    pub(super) int: usize,
    pub(super) record: Vec<u8>,
}

impl<R: Read> Recorder<R> {
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.record)
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(broken)?;
        self.record.extend_from_slice(&bytes);
        Ok(bytes)
    }

    pub(super) fn int(&mut self) -> Result<i32> {
        let value = get_int(&mut self.source, self.int)?;
        put_int(&mut self.record, value, self.int);
        Ok(value)
    }

    pub(super) fn text(&mut self) -> Result<Option<Vec<u8>>> {
        let Ok(length) = u64::try_from(self.int()?) else { return Ok(None) };
        let mut text = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut text).map_err(broken)?;
        if text.len() as u64 != length {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.record.extend_from_slice(&text);
        Ok(Some(text))
    }
}
