//! pg_dump's custom format as a stream: a table of contents, and then each table's rows, in its order.
//!
//! Reading it here is what lets a restore build the indexes of one table while the next one is still being loaded,
//! from a file that is unpacked on the way and never lies on the disk. The format is that of PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c` (`ReadHead`, `ReadToc`) and `pg_backup_custom.c`.

use std::collections::BTreeSet;
use std::io::{self, Read};

use super::read_back::{Silent, copy};
use super::rows::copied_table;
use crate::error::{Error, Kind, Result};

const MAGIC: &[u8] = b"PGDMP";

/// Format versions that are known: of pg_dump 9.0 to 18. Each began with a field more than the one before.
const VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;
const WITH_ACCESS_METHOD: u8 = 14;
const WITH_ALGORITHM: u8 = 15;
const WITH_KIND: u8 = 16;

/// `archCustom`.
const CUSTOM: u8 = 1;

/// `BLK_DATA` and `BLK_BLOBS`.
const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;

/// The first byte of a second table of contents, which pg_dump writes over the first one; into a file that is open
/// for appending, it comes at the end.
const AGAIN: u8 = 0;

/// `K_OFFSET_POS_NOT_SET` and `K_OFFSET_POS_SET`: whether an entry says where in the file its rows are.
const NOWHERE: u8 = 1;
const SOMEWHERE: u8 = 2;

/// pg_dump writes each row as a block of its own; a block this large costs pg_restore and the server far less.
const BLOCK: usize = 128 * 1024;

/// The table of contents.
#[derive(Debug)]
pub(super) struct Toc {
    int: usize,
    head: Vec<u8>,
    /// Nothing, if a newer pg_dump wrote it than is known here: pg_restore then has to do with it as it is.
    entries: Option<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: i32,
    description: Vec<u8>,
    /// Schema and name.
    name: (Option<Vec<u8>>, Vec<u8>),
    dependencies: BTreeSet<i32>,
    /// It is as it was written, but for the statement in its middle.
    before: Vec<u8>,
    copy: Option<Vec<u8>>,
    after: Vec<u8>,
}

impl Toc {
    /// Reads it from the beginning of a dump.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is none, and those of `source`.
    pub(super) fn read(source: impl Read) -> Result<Self> {
        let mut source = Recorder { source, int: 4, record: Vec::new() };
        let start: [u8; 11] = source.bytes()?;
        let [_, _, _, _, _, major, version, _, int, offset, format] = start;
        if !start.starts_with(MAGIC) || format != CUSTOM {
            return Err(Error::new(Kind::Damaged, "it is no dump in the custom format"));
        }
        if major != 1 || !VERSIONS.contains(&version) || !(4..=8).contains(&int) {
            return Ok(Self { int: 4, head: source.take(), entries: None });
        }
        source.int = usize::from(int);
        match version >= WITH_ALGORITHM {
            true => drop(source.bytes::<1>()?),
            false => drop(source.int()?),
        }
        for _ in 0..7 {
            source.int()?;
        }
        for _ in 0..3 {
            source.text()?;
        }
        let count = source.int()?;
        let head = source.take();
        let mut entries =
            (0..count).map(|_| source.entry(version, usize::from(offset))).collect::<Result<Vec<_>>>()?;
        freeze(&mut entries);
        Ok(Self { int: source.int, head, entries: Some(entries) })
    }

    /// Whether it is of a version that is known here.
    pub(super) fn is_known(&self) -> bool {
        self.entries.is_some()
    }

    fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    /// As it is written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        for entry in self.entries() {
            bytes.extend_from_slice(&entry.before);
            match &entry.copy {
                None => put_int(&mut bytes, -1, self.int),
                Some(text) => {
                    put_int(&mut bytes, i32::try_from(text.len()).unwrap_or(i32::MAX), self.int);
                    bytes.extend_from_slice(text);
                }
            }
            bytes.extend_from_slice(&entry.after);
        }
        bytes
    }

    /// Numbers of all entries, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = i32> {
        self.entries().iter().map(|entry| entry.id)
    }

    /// The indexes, also those of constraints, of the table whose rows have this number; in order, and only those
    /// that can be built as soon as the table has its rows.
    pub(super) fn indexes_of(&self, rows: i32) -> Vec<i32> {
        let Some(rows) = self.entries().iter().find(|entry| entry.id == rows) else { return Vec::new() };
        let table = of_kind(self.entries(), b"TABLE").find(|table| table.name == rows.name);
        let Some(table) = table.map(|table| table.id) else { return Vec::new() };
        let late: BTreeSet<_> =
            self.entries().iter().skip_while(|entry| entry.id != rows.id).map(|entry| entry.id).collect();
        let indexes = self.entries().iter().filter(|entry| {
            (entry.description == b"INDEX" || entry.description == b"CONSTRAINT")
                && entry.dependencies.contains(&table)
                && entry.dependencies.is_disjoint(&late)
        });
        indexes.map(|entry| entry.id).collect()
    }

    /// Sends it to `sink`, and all that comes after it; `ended` is told the number and the length of each
    /// entry's data.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it ends too early, and those of `source` and `sink`.
    pub(super) fn forward(
        &self,
        source: impl Read,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
        mut ended: impl FnMut(i32, u64) -> Result<()>,
    ) -> Result<()> {
        if !self.is_known() {
            let mut source = source;
            sink(&self.head)?;
            return copy(&mut source, &mut Silent, sink);
        }
        sink(&self.bytes())?;
        let mut blocks = Blocks { source, int: self.int, block: Vec::with_capacity(BLOCK + 16) };
        loop {
            let mut kind = Vec::new();
            blocks.source.by_ref().take(1).read_to_end(&mut kind).map_err(broken)?;
            let Some(&kind) = kind.first().filter(|&&kind| kind != AGAIN) else {
                return io::copy(&mut blocks.source, &mut io::sink()).map(drop).map_err(broken);
            };
            let id = blocks.int()?;
            let mut start = vec![kind];
            put_int(&mut start, id, self.int);
            sink(&start)?;
            let mut length = 0;
            match kind {
                ROWS => length = blocks.copy(&mut sink)?,
                LARGE_OBJECTS => loop {
                    let object = blocks.int()?;
                    let mut start = Vec::new();
                    put_int(&mut start, object, self.int);
                    sink(&start)?;
                    if object == 0 {
                        break;
                    }
                    length += blocks.copy(&mut sink)?;
                },
                _ => return Err(Error::new(Kind::Damaged, format!("it has a block of unknown kind {kind}"))),
            }
            ended(id, length)?;
        }
    }
}

/// Rows of tables that are made by the dump itself are written as those that have always been there: nobody,
/// neither an index that is built nor the first query, writes to them again only to note that they are valid.
/// For that the table must be empty and locked: a text of several statements is one transaction (chapter "COPY",
/// `FREEZE`; chapter "Message Flow", "Multiple Statements in a Simple Query").
fn freeze(entries: &mut [Entry]) {
    let tables: BTreeSet<_> = of_kind(entries, b"TABLE").map(|entry| entry.name.clone()).collect();
    for entry in entries {
        let own = entry.description == b"TABLE DATA" && tables.contains(&entry.name);
        let Some(copy) = entry.copy.as_mut().filter(|_| own) else { continue };
        let statement = copy.trim_ascii_end();
        // A partition's rows may go to the table that it is a part of.
        let Some(table) = copied_table(statement).filter(|table| is_named(table, &entry.name.1)) else {
            continue;
        };
        let statement = String::from_utf8_lossy(statement.strip_suffix(b";").unwrap_or(statement));
        let frozen = format!("TRUNCATE TABLE ONLY {table};\n{statement} WITH (FREEZE);\n");
        *copy = frozen.into_bytes();
    }
}

fn of_kind<'a>(entries: &'a [Entry], description: &'static [u8]) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(move |entry| entry.description == description)
}

/// Whether `table`, as it is quoted in SQL, ends in this name.
fn is_named(table: &str, name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name);
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    [&*name, &quoted]
        .iter()
        .any(|name| table.strip_suffix(name).is_some_and(|schema| schema.is_empty() || schema.ends_with('.')))
}

/// A sign, and the number's bytes, least first.
fn put_int(bytes: &mut Vec<u8>, value: i32, size: usize) {
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

/// Reads fields, and remembers their bytes.
struct Recorder<R> {
    source: R,
    int: usize,
    record: Vec<u8>,
}

impl<R: Read> Recorder<R> {
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.record)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(broken)?;
        self.record.extend_from_slice(&bytes);
        Ok(bytes)
    }

    fn int(&mut self) -> Result<i32> {
        let value = get_int(&mut self.source, self.int)?;
        put_int(&mut self.record, value, self.int);
        Ok(value)
    }

    fn text(&mut self) -> Result<Option<Vec<u8>>> {
        let Ok(length) = u64::try_from(self.int()?) else { return Ok(None) };
        let mut text = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut text).map_err(broken)?;
        if text.len() as u64 != length {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.record.extend_from_slice(&text);
        Ok(Some(text))
    }

    fn entry(&mut self, version: u8, offset: usize) -> Result<Entry> {
        let id = self.int()?;
        self.int()?; // whether it has data
        self.text()?; // the catalog's number
        self.text()?; // its own
        let tag = self.text()?.unwrap_or_default();
        let description = self.text()?.unwrap_or_default();
        self.int()?; // the section
        self.text()?; // its definition
        self.text()?; // and how to drop it
        let before = self.take();
        let copy = self.text()?;
        self.take();
        let schema = self.text()?;
        self.text()?; // the tablespace
        if version >= WITH_ACCESS_METHOD {
            self.text()?;
        }
        if version >= WITH_KIND {
            self.int()?;
        }
        self.text()?; // the owner
        self.text()?; // no longer used
        let mut dependencies = BTreeSet::new();
        while let Some(text) = self.text()? {
            dependencies.extend(std::str::from_utf8(&text).ok().and_then(|text| text.parse::<i32>().ok()));
        }
        // Where its data is: no longer true once the length of anything before has changed.
        if self.bytes::<1>()? == [SOMEWHERE]
            && let Some(last) = self.record.last_mut()
        {
            *last = NOWHERE;
        }
        for _ in 0..offset {
            self.bytes::<1>()?;
        }
        Ok(Entry { id, description, name: (schema, tag), dependencies, before, copy, after: self.take() })
    }
}

/// Blocks, which come small and leave large.
struct Blocks<R> {
    source: R,
    int: usize,
    block: Vec<u8>,
}

impl<R: Read> Blocks<R> {
    fn int(&mut self) -> Result<i32> {
        get_int(&mut self.source, self.int)
    }

    /// All blocks of one entry, and the end after them.
    fn copy(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let start = self.int + 1;
        let mut total = 0;
        self.block.resize(start, 0);
        loop {
            let mut left = usize::try_from(self.int()?)
                .map_err(|_| Error::new(Kind::Damaged, "it has a block of negative length"))?;
            if left == 0 {
                break;
            }
            total += left as u64;
            while left > 0 {
                let length = self.block.len();
                let part = left.min(start + BLOCK - length);
                self.block.resize(length + part, 0);
                self.source.read_exact(&mut self.block[length..]).map_err(broken)?;
                left -= part;
                if self.block.len() == start + BLOCK {
                    self.flush(start, sink)?;
                }
            }
        }
        if self.block.len() > start {
            self.flush(start, sink)?;
        }
        let mut end = Vec::new();
        put_int(&mut end, 0, self.int);
        sink(&end)?;
        Ok(total)
    }

    fn flush(&mut self, start: usize, sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut length = Vec::with_capacity(start);
        put_int(&mut length, i32::try_from(self.block.len() - start).unwrap_or(i32::MAX), self.int);
        self.block[..start].copy_from_slice(&length);
        sink(&self.block)?;
        self.block.truncate(start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn text(bytes: &mut Vec<u8>, text: Option<&str>) {
        match text {
            None => put_int(bytes, -1, 4),
            Some(text) => {
                put_int(bytes, i32::try_from(text.len()).unwrap(), 4);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// What is in a dump, by the numbers of its entries.
    fn data_of(dump: &[u8]) -> BTreeMap<i32, u64> {
        let mut found = BTreeMap::new();
        let mut source = dump;
        let toc = Toc::read(&mut source).unwrap();
        let ended = |id, length| {
            found.insert(id, length);
            Ok(())
        };
        toc.forward(source, |_| Ok(()), ended).unwrap();
        found
    }

    struct Made<'a>(i32, &'a str, &'a str, Option<&'a str>, &'a [&'a str]);

    /// A dump as pg_dump of this format version writes it.
    fn dump(version: u8, entries: &[Made<'_>]) -> Vec<u8> {
        let mut bytes = b"PGDMP\x01".to_vec();
        bytes.extend([version, 0, 4, 8, CUSTOM]);
        match version >= WITH_ALGORITHM {
            true => bytes.push(0),
            false => put_int(&mut bytes, 0, 4),
        }
        for _ in 0..7 {
            put_int(&mut bytes, 1, 4);
        }
        for name in ["homeserver", "17.1", "17.1"] {
            text(&mut bytes, Some(name));
        }
        put_int(&mut bytes, i32::try_from(entries.len()).unwrap(), 4);
        for Made(id, tag, description, copy, dependencies) in entries {
            put_int(&mut bytes, *id, 4);
            put_int(&mut bytes, i32::from(copy.is_some()), 4);
            for value in ["1259", "16384", tag, description] {
                text(&mut bytes, Some(value));
            }
            put_int(&mut bytes, 2, 4);
            text(&mut bytes, Some("DEFINITION"));
            text(&mut bytes, Some(""));
            text(&mut bytes, *copy);
            text(&mut bytes, Some("public"));
            text(&mut bytes, Some(""));
            if version >= WITH_ACCESS_METHOD {
                text(&mut bytes, Some("heap"));
            }
            if version >= WITH_KIND {
                put_int(&mut bytes, 114, 4);
            }
            text(&mut bytes, Some("synapse"));
            text(&mut bytes, Some("false"));
            for dependency in *dependencies {
                text(&mut bytes, Some(dependency));
            }
            text(&mut bytes, None);
            bytes.push(if copy.is_some() { SOMEWHERE } else { 3 });
            bytes.extend([7; 8]);
        }
        bytes
    }

    fn entries() -> [Made<'static>; 7] {
        [
            Made(1, "we ird", "TABLE", None, &[]),
            Made(2, "plugin", "FUNCTION", None, &[]),
            Made(3, "we ird", "TABLE DATA", Some("COPY public.\"we ird\" (a) FROM stdin;\n"), &["1"]),
            Made(4, "config", "TABLE DATA", Some("COPY public.config (a) FROM stdin;\n"), &["2"]),
            Made(5, "we ird_pkey", "CONSTRAINT", None, &["1"]),
            Made(6, "we ird_a", "INDEX", None, &["1", "2"]),
            Made(7, "we ird_fkey", "FK CONSTRAINT", None, &["1", "5"]),
        ]
    }

    #[test]
    fn rows_of_tables_that_the_dump_makes_are_frozen_and_nothing_else_changes() {
        for version in VERSIONS {
            let bytes = dump(version, &entries());
            let toc = Toc::read(&bytes[..]).unwrap();
            let frozen = "TRUNCATE TABLE ONLY public.\"we ird\";\nCOPY public.\"we ird\" (a) FROM stdin WITH (FREEZE);\n";
            let mut changed = entries();
            changed[2].3 = Some(frozen);
            let mut expected = dump(version, &changed);
            for at in 0..expected.len() - 8 {
                if expected[at..at + 9] == [SOMEWHERE, 7, 7, 7, 7, 7, 7, 7, 7] {
                    expected[at] = NOWHERE;
                }
            }
            assert!(toc.bytes() == expected, "version {version}");
        }
    }

    #[test]
    fn indexes_are_those_that_need_nothing_but_the_table() {
        let toc = Toc::read(&dump(16, &entries())[..]).unwrap();
        assert_eq!(toc.indexes_of(3), [5, 6]);
        assert!(toc.indexes_of(4).is_empty() && toc.indexes_of(99).is_empty());
    }

    #[test]
    fn rows_arrive_in_larger_blocks_and_are_the_same() {
        let mut data = dump(16, &entries());
        data.push(ROWS);
        put_int(&mut data, 3, 4);
        for row in 0..50_000 {
            text(&mut data, Some(&format!("row {row}\n")));
        }
        text(&mut data, Some(&"x".repeat(3 * BLOCK)));
        put_int(&mut data, 0, 4);
        data.push(LARGE_OBJECTS);
        put_int(&mut data, 9, 4);
        put_int(&mut data, 4711, 4);
        text(&mut data, Some("object"));
        put_int(&mut data, 0, 4);
        put_int(&mut data, 0, 4);
        let mut sent = Vec::new();
        let mut pieces = 0;
        let mut source = &data[..];
        let toc = Toc::read(&mut source).unwrap();
        let sink = |piece: &[u8]| {
            pieces += 1;
            sent.extend_from_slice(piece);
            Ok(())
        };
        toc.forward(source, sink, |_, _| Ok(())).unwrap();
        assert!(sent.len() < data.len() && pieces < 30, "{pieces}");
        assert_eq!(data_of(&sent), data_of(&data));
        assert_eq!(data_of(&data)[&9], 6);
        let again = [source, b"\x00\x02\x00\x00\x00and so on"].concat();
        let mut length = 0;
        let sink = |piece: &[u8]| {
            length += piece.len();
            Ok(())
        };
        toc.forward(&again[..], sink, |_, _| Ok(())).unwrap();
        assert_eq!(length, sent.len());
        let cut = toc.forward(&source[..source.len() - 6], |_| Ok(()), |_, _| Ok(())).unwrap_err();
        assert_eq!(cut.kind(), Kind::Damaged);
    }

    #[test]
    fn a_dump_of_a_version_to_come_passes_as_it_is() {
        let bytes = b"PGDMP\x01\x20\x00\x04\x08\x01and so on";
        let mut source = &bytes[..];
        let toc = Toc::read(&mut source).unwrap();
        let mut sent = Vec::new();
        let sink = |piece: &[u8]| {
            sent.extend_from_slice(piece);
            Ok(())
        };
        toc.forward(source, sink, |_, _| Ok(())).unwrap();
        assert!(sent == bytes && !toc.is_known());
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for bytes in [&b"PGDMP"[..], b"-- PostgreSQL database dump"] {
            assert_eq!(Toc::read(bytes).unwrap_err().kind(), Kind::Damaged);
        }
    }
}
