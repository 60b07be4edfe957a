//! How a dump begins, up to its entries.

use std::io::Read;

use super::fields::Recorder;
use crate::error::{Error, Kind, Result};

/// The first bytes of every dump in this format.
pub(in crate::backup) const MAGIC: &[u8] = b"PGDMP";

/// Format versions that are known: of pg_dump 9.0 to 19. Each began with a field more than the one before.
pub(super) const VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;
pub(super) const WITH_ACCESS_METHOD: u8 = 14;
pub(super) const WITH_ALGORITHM: u8 = 15;
pub(super) const WITH_KIND: u8 = 16;

/// `archCustom`, and what a directory says that it is: `archTar`.
pub(super) const CUSTOM: u8 = 1;
pub(super) const DIRECTORY: u8 = 3;

/// What comes before the entries.
#[derive(Debug)]
pub(super) struct Header {
    /// As it was written, up to the number of entries; that of a directory says that it is a custom dump.
    pub(super) bytes: Vec<u8>,
    /// How many bytes a number has.
    pub(super) int: usize,
    /// Whether pg_dump compressed the rows.
    pub(super) packed: bool,
    /// Of the entries, unless a newer pg_dump wrote them than is known here.
    pub(super) known: Option<Form>,
}

/// How many entries follow, and what each looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) count: i32,
    /// See [`VERSIONS`].
    pub(super) version: u8,
    /// How many bytes say where the rows are.
    pub(super) offset: usize,
    /// Whether they are those of a directory, which says in which files the rows are.
    pub(super) directory: bool,
}

impl Header {
    /// Reads it, of a dump of this format.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is none, and those of the source.
    pub(super) fn read(source: &mut Recorder<impl Read>, expected: u8) -> Result<Self> {
        let start: [u8; 11] = source.bytes()?;
        let [_, _, _, _, _, major, version, _, int, offset, format] = start;
        if !start.starts_with(MAGIC) || format != expected {
            return Err(Error::new(Kind::Damaged, "it is not a dump in custom format"));
        }
        if let Some(last) = source.record.last_mut() {
            *last = CUSTOM;
        }
        if major != 1 || !VERSIONS.contains(&version) || !(4..=8).contains(&int) {
            return Ok(Self { bytes: source.take(), int: 4, packed: true, known: None });
        }
        source.int = usize::from(int);
        let packed = match version >= WITH_ALGORITHM {
            true => source.bytes()? != [0],
            false => source.int()? != 0,
        };
        // When it was begun.
        for _ in 0..7 {
            source.int()?;
        }
        // The database, and the versions of server and pg_dump.
        for _ in 0..3 {
            source.text()?;
        }
        let bytes = source.take();
        let count = source.int()?;
        source.take();
        let form = Form { count, version, offset: usize::from(offset), directory: expected == DIRECTORY };
        Ok(Self { bytes, int: source.int, packed, known: Some(form) })
    }
}
