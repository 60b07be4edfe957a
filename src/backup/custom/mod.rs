//! pg_dump's custom format as a stream: a table of contents, and then each table's rows, in its order.
//!
//! Reading it here is what lets a restore load several tables at the same time and build their indexes meanwhile,
//! from a file that is unpacked on the way and never lies on the disk: an archive of a few tables is the table of
//! contents with only these in it, and then their rows. The format is that of PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c` (`ReadHead`, `ReadToc`) and `pg_backup_custom.c`.
//!
//! - [`toc`]: the table of contents, and what of it can be made when
//! - [`entry`]: one of its entries
//! - [`body`]: the rows
//! - [`borders`]: where these begin, found while a dump passes
//! - [`binary`]: rows in COPY's binary format, which a server takes faster

mod binary;
mod body;
mod borders;
mod entry;
#[cfg(test)]
mod testing;
mod toc;

use std::io::{self, Read};

pub(super) use body::{Body, Rows, Size};
pub(super) use borders::EntryBorders;
pub(super) use toc::{Key, Toc};

use crate::error::{Error, Kind, Result};

/// `BLK_DATA` and `BLK_BLOBS`.
pub(in crate::backup) const ROWS: u8 = 1;
pub(in crate::backup) const LARGE_OBJECTS: u8 = 3;

/// A sign, and the number's bytes, least first.
pub(in crate::backup) fn put_int(bytes: &mut Vec<u8>, value: i32, size: usize) {
    bytes.push(u8::from(value < 0));
    bytes.extend_from_slice(&u64::from(value.unsigned_abs()).to_le_bytes()[..size]);
}

fn get_int(source: &mut impl Read, size: usize) -> Result<i32> {
    let mut bytes = [0; 9];
    source.read_exact(&mut bytes[..=size]).map_err(broken)?;
    let [sign, rest @ ..] = bytes;
    let value = i32::try_from(u64::from_le_bytes(rest))
        .map_err(|_| Error::new(Kind::Damaged, "it has a number that is too large"))?;
    Ok(if sign == 0 { value } else { -value })
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::new(Kind::Damaged, "it ends too early"),
        _ => crate::archive::into_error(error),
    }
}
