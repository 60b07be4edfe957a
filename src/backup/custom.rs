//! pg_dump's custom format as a stream: a table of contents, and then each table's rows, in its order.
//!
//! Reading it here is what lets a restore load several tables at the same time and build their indexes meanwhile,
//! from a file that is unpacked on the way and never lies on the disk: an archive of a few tables is the table of
//! contents with only these in it, and then their rows. The format is that of PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c` (`ReadHead`, `ReadToc`) and `pg_backup_custom.c`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read};

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

/// `SECTION_PRE_DATA` and `SECTION_DATA`: definitions; rows, large objects and values of sequences.
const DEFINITIONS: i32 = 2;
const DATA: i32 = 3;

const LARGE_OBJECTS_AS_SUCH: &[u8] = b"BLOB METADATA";

/// pg_dump writes each row as a block of its own; a block this large costs pg_restore and the server far less.
const BLOCK: usize = 128 * 1024;

/// The table of contents.
#[derive(Debug)]
pub(super) struct Toc {
    int: usize,
    /// Up to the number of entries.
    head: Vec<u8>,
    /// Nothing, if a newer pg_dump wrote it than is known here: pg_restore then has to do with it as it is.
    entries: Option<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: i32,
    /// Whether rows of it follow, or large objects.
    has_rows: bool,
    section: i32,
    description: Vec<u8>,
    /// Schema and name.
    name: (Option<Vec<u8>>, Vec<u8>),
    dependencies: BTreeSet<i32>,
    /// It is as it was written, but for the statement in its middle.
    before: Vec<u8>,
    copy: Option<Vec<u8>>,
    frozen: Option<Vec<u8>>,
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
        let head = source.take();
        let count = source.int()?;
        source.take();
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

    /// All of it, as it was written; of one that is not known, what was read of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self.is_known() {
            true => self.written(self.entries().iter().map(|entry| (entry, entry.copy.as_deref()))),
            false => self.head.clone(),
        }
    }

    /// The beginning of an archive with the rows of these entries only, to which theirs are to be added, in order.
    /// Those of a table may be `frozen`, if nobody else uses it yet.
    pub(super) fn archive(&self, rows: &[i32], frozen: bool) -> Vec<u8> {
        let of_archive = |entry: &&Entry| entry.section == DEFINITIONS || rows.contains(&entry.id);
        self.written(self.entries().iter().filter(of_archive).map(|entry| {
            let copy = entry.frozen.as_deref().filter(|_| frozen).or(entry.copy.as_deref());
            (entry, copy)
        }))
    }

    fn written<'a>(&self, entries: impl Iterator<Item = (&'a Entry, Option<&'a [u8]>)> + Clone) -> Vec<u8> {
        let mut bytes = self.head.clone();
        put_int(&mut bytes, i32::try_from(entries.clone().count()).unwrap_or(i32::MAX), self.int);
        for (entry, copy) in entries {
            bytes.extend_from_slice(&entry.before);
            match copy {
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

    /// Numbers of the entries that come after the definitions and must be there before any rows: large objects as
    /// such, which since PostgreSQL 17 are no longer among the definitions.
    pub(super) fn before_rows(&self) -> Vec<i32> {
        self.later()
            .filter(|entry| entry.description == LARGE_OBJECTS_AS_SUCH)
            .map(|entry| entry.id)
            .collect()
    }

    /// Numbers of all other entries that come after the definitions, in order, but for those whose rows are in the dump.
    pub(super) fn after_rows(&self) -> impl Iterator<Item = i32> {
        self.later().filter(|entry| entry.description != LARGE_OBJECTS_AS_SUCH).map(|entry| entry.id)
    }

    fn later(&self) -> impl Iterator<Item = &Entry> {
        let definitions = |entry: &&Entry| entry.section < DATA;
        self.entries().iter().skip_while(definitions).filter(|entry| !entry.has_rows)
    }

    /// Numbers of the entries whose rows are in the dump.
    pub(super) fn with_rows(&self) -> BTreeSet<i32> {
        self.entries().iter().filter(|entry| entry.has_rows).map(|entry| entry.id).collect()
    }

    /// The indexes, also those of constraints, of the table whose rows have this number; in order, and only those
    /// that can be built as soon as the table has its rows.
    pub(super) fn indexes_of(&self, rows: i32) -> Vec<i32> {
        let Some(rows) = self.entries().iter().find(|entry| entry.id == rows) else { return Vec::new() };
        let table = of_kind(self.entries(), b"TABLE").find(|table| table.name == rows.name);
        let Some(table) = table.map(|table| table.id) else { return Vec::new() };
        let late: BTreeSet<_> =
            self.entries().iter().skip_while(|entry| entry.section < DATA).map(|entry| entry.id).collect();
        let indexes = self.entries().iter().filter(|entry| {
            (entry.description == b"INDEX" || entry.description == b"CONSTRAINT")
                && entry.dependencies.contains(&table)
                && entry.dependencies.is_disjoint(&late)
        });
        indexes.map(|entry| entry.id).collect()
    }

    /// Keys between tables, each with the numbers of what it needs: rows of tables, and all of their indexes. Only
    /// those that need nothing else.
    pub(super) fn keys(&self) -> Vec<(i32, BTreeSet<i32>)> {
        let tables: BTreeMap<_, _> =
            of_kind(self.entries(), b"TABLE").map(|table| (&table.name, table.id)).collect();
        let rows: BTreeMap<_, _> = of_kind(self.entries(), b"TABLE DATA")
            .filter_map(|rows| Some((*tables.get(&rows.name)?, rows.id)))
            .collect();
        let needs = |key: &Entry| {
            let mut needs = BTreeSet::new();
            for dependency in &key.dependencies {
                if let Some(&rows) = rows.get(dependency) {
                    needs.insert(rows);
                    needs.extend(self.indexes_of(rows));
                }
            }
            needs
        };
        let late: BTreeSet<_> = self.after_rows().collect();
        of_kind(self.entries(), b"FK CONSTRAINT")
            .map(|key| (key, needs(key)))
            .filter(|(key, needs)| key.dependencies.intersection(&late).all(|late| needs.contains(late)))
            .map(|(key, needs)| (key.id, needs))
            .collect()
    }
}

/// The rows of one entry, which come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    /// The entry's number.
    pub(super) id: i32,
    kind: u8,
}

/// How much was in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    /// pg_dump makes one of each row, unless it compresses them.
    pub(super) blocks: u64,
    /// What is in them.
    pub(super) bytes: u64,
}

/// What follows a table of contents: the rows of its entries. They come in small blocks and leave in large ones.
pub(super) struct Body<R> {
    source: R,
    int: usize,
    block: Vec<u8>,
}

impl<R: BufRead> Body<R> {
    /// What comes in `source` after `toc`, which was read from it.
    pub(super) fn new(source: R, toc: &Toc) -> Self {
        Self { source, int: toc.int, block: Vec::with_capacity(BLOCK + 16) }
    }

    /// Whose rows come next, or nothing at the end.
    ///
    /// # Errors
    /// [`Kind::Damaged`], and those of the source.
    pub(super) fn next(&mut self) -> Result<Option<Rows>> {
        let mut kind = Vec::new();
        self.source.by_ref().take(1).read_to_end(&mut kind).map_err(broken)?;
        let Some(&kind) = kind.first().filter(|&&kind| kind != AGAIN) else {
            return io::copy(&mut self.source, &mut io::sink()).map(|_| None).map_err(broken);
        };
        if kind != ROWS && kind != LARGE_OBJECTS {
            return Err(Error::new(Kind::Damaged, format!("it has a block of unknown kind {kind}")));
        }
        Ok(Some(Rows { id: self.int()?, kind }))
    }

    /// Sends these rows to `sink`, as they are to follow an archive's table of contents.
    ///
    /// # Errors
    /// As [`Self::next`], and those of `sink`.
    pub(super) fn copy(&mut self, rows: Rows, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<Size> {
        let mut start = vec![rows.kind];
        put_int(&mut start, rows.id, self.int);
        sink(&start)?;
        let mut size = Size::default();
        match rows.kind {
            LARGE_OBJECTS => loop {
                let object = self.int()?;
                let mut start = Vec::new();
                put_int(&mut start, object, self.int);
                sink(&start)?;
                if object == 0 {
                    break Ok(size);
                }
                self.blocks(&mut size, &mut sink)?;
            },
            _ => self.blocks(&mut size, &mut sink).map(|()| size),
        }
    }

    /// Leaves these rows out.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(super) fn skip(&mut self, rows: Rows) -> Result<()> {
        while rows.kind != LARGE_OBJECTS || self.int()? != 0 {
            loop {
                let mut left = self.length()?;
                if left == 0 {
                    break;
                }
                while left > 0 {
                    let part = self.source.fill_buf().map_err(broken)?.len().min(left);
                    if part == 0 {
                        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.source.consume(part);
                    left -= part;
                }
            }
            if rows.kind != LARGE_OBJECTS {
                break;
            }
        }
        Ok(())
    }

    fn int(&mut self) -> Result<i32> {
        get_int(&mut self.source, self.int)
    }

    /// Of the next block.
    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.int()?)
            .map_err(|_| Error::new(Kind::Damaged, "it has a block of negative length"))
    }

    /// All blocks of one table or large object, and the end after them.
    fn blocks(&mut self, size: &mut Size, sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let start = self.int + 1;
        self.block.resize(start, 0);
        loop {
            let mut left = self.length()?;
            if left == 0 {
                break;
            }
            size.blocks += 1;
            size.bytes += left as u64;
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
        sink(&end)
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

/// Rows of tables that are made by the dump itself are written as those that have always been there: nobody,
/// neither an index that is built nor the first query, writes to them again only to note that they are valid.
/// For that the table must be empty and locked: a text of several statements is one transaction (chapter "COPY",
/// `FREEZE`; chapter "Message Flow", "Multiple Statements in a Simple Query").
fn freeze(entries: &mut [Entry]) {
    let tables: BTreeSet<_> = of_kind(entries, b"TABLE").map(|entry| entry.name.clone()).collect();
    for entry in entries {
        let own = entry.description == b"TABLE DATA" && tables.contains(&entry.name);
        let Some(copy) = entry.copy.as_ref().filter(|_| own) else { continue };
        let statement = copy.trim_ascii_end();
        // A partition's rows may go to the table that it is a part of.
        let Some(table) = copied_table(statement).filter(|table| is_named(table, &entry.name.1)) else {
            continue;
        };
        let statement = String::from_utf8_lossy(statement.strip_suffix(b";").unwrap_or(statement));
        let frozen = format!("TRUNCATE TABLE ONLY {table};\n{statement} WITH (FREEZE);\n");
        entry.frozen = Some(frozen.into_bytes());
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
        let has_rows = self.int()? != 0;
        self.text()?; // the catalog's number
        self.text()?; // its own
        let tag = self.text()?.unwrap_or_default();
        let description = self.text()?.unwrap_or_default();
        let section = self.int()?;
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
        Ok(Entry {
            id,
            has_rows,
            section,
            description,
            name: (schema, tag),
            dependencies,
            before,
            copy,
            frozen: None,
            after: self.take(),
        })
    }
}

#[cfg(test)]
mod tests {
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
    fn data_of(dump: &[u8]) -> BTreeMap<i32, Size> {
        let mut source = dump;
        let toc = Toc::read(&mut source).unwrap();
        let mut body = Body::new(source, &toc);
        let mut found = BTreeMap::new();
        while let Some(rows) = body.next().unwrap() {
            found.insert(rows.id, body.copy(rows, |_| Ok(())).unwrap());
        }
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
            let section = match *id {
                _ if copy.is_some() || ["SEQUENCE SET", "BLOB METADATA"].contains(description) => DATA,
                ..5 => DEFINITIONS,
                _ => DATA + 1,
            };
            put_int(&mut bytes, section, 4);
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

    fn entries() -> Vec<Made<'static>> {
        vec![
            Made(1, "we ird", "TABLE", None, &[]),
            Made(2, "plugin", "FUNCTION", None, &[]),
            Made(3, "we ird", "TABLE DATA", Some("COPY public.\"we ird\" (a) FROM stdin;\n"), &["1"]),
            Made(4, "config", "TABLE DATA", Some("COPY public.config (a) FROM stdin;\n"), &["2"]),
            Made(11, "4711", "BLOB METADATA", None, &[]),
            Made(9, "s", "SEQUENCE SET", None, &["1"]),
            Made(5, "we ird_pkey", "CONSTRAINT", None, &["1"]),
            Made(6, "we ird_a", "INDEX", None, &["1", "2"]),
            Made(8, "we ird_b", "INDEX", None, &["1", "5"]),
            Made(7, "we ird_fkey", "FK CONSTRAINT", None, &["1", "5"]),
            Made(10, "we ird_fkey2", "FK CONSTRAINT", None, &["1", "8"]),
        ]
    }

    /// Without where its rows were.
    fn expected(version: u8, entries: &[Made<'_>]) -> Vec<u8> {
        let mut bytes = dump(version, entries);
        for at in 0..bytes.len() - 8 {
            if bytes[at..at + 9] == [SOMEWHERE, 7, 7, 7, 7, 7, 7, 7, 7] {
                bytes[at] = NOWHERE;
            }
        }
        bytes
    }

    #[test]
    fn an_archive_has_the_definitions_and_the_rows_that_are_asked_for() {
        for version in VERSIONS {
            let toc = Toc::read(&dump(version, &entries())[..]).unwrap();
            assert!(toc.bytes() == expected(version, &entries()), "version {version}");
            let mut some = entries();
            some.retain(|entry| entry.0 < 4);
            assert!(toc.archive(&[3], false) == expected(version, &some), "version {version}");
            let frozen = "TRUNCATE TABLE ONLY public.\"we ird\";\nCOPY public.\"we ird\" (a) FROM stdin WITH (FREEZE);\n";
            some[2].3 = Some(frozen);
            assert!(toc.archive(&[3], true) == expected(version, &some), "version {version}");
            // The dump does not make this table.
            let mut other = entries();
            other.retain(|entry| [1, 2, 4].contains(&entry.0));
            assert!(toc.archive(&[4], true) == expected(version, &other), "version {version}");
        }
    }

    #[test]
    fn what_can_be_made_when_follows_from_what_it_needs() {
        let toc = Toc::read(&dump(16, &entries())[..]).unwrap();
        assert_eq!(toc.with_rows(), [3, 4].into());
        assert_eq!(toc.before_rows(), [11]);
        assert_eq!(toc.after_rows().collect::<Vec<_>>(), [9, 5, 6, 8, 7, 10]);
        assert_eq!(toc.indexes_of(3), [5, 6]);
        assert!(toc.indexes_of(4).is_empty() && toc.indexes_of(99).is_empty());
        assert_eq!(toc.keys(), [(7, [3, 5, 6].into())]);
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
        put_int(&mut data, 4, 4);
        put_int(&mut data, 4711, 4);
        text(&mut data, Some("object"));
        put_int(&mut data, 0, 4);
        put_int(&mut data, 0, 4);
        let sizes = data_of(&data);
        assert_eq!(sizes[&3].blocks, 50_001);
        assert_eq!(sizes[&4], Size { blocks: 1, bytes: 6 });

        let mut source = &data[..];
        let toc = Toc::read(&mut source).unwrap();
        let mut body = Body::new(source, &toc);
        let mut archives = BTreeMap::new();
        while let Some(rows) = body.next().unwrap() {
            let mut pieces = 0;
            let mut archive = toc.archive(&[rows.id], true);
            let sink = |piece: &[u8]| {
                pieces += 1;
                archive.extend_from_slice(piece);
                Ok(())
            };
            body.copy(rows, sink).unwrap();
            assert!(pieces < 30, "{pieces}");
            archives.insert(rows.id, archive);
        }
        for (id, archive) in archives {
            let found = data_of(&archive);
            assert_eq!(found.len(), 1);
            assert_eq!(found[&id].bytes, sizes[&id].bytes);
        }
    }

    #[test]
    fn a_dump_is_left_out_to_its_end_and_one_that_is_cut_off_is_noticed() {
        let mut data = dump(16, &entries());
        let start = data.len();
        for (kind, id) in [(ROWS, 3), (LARGE_OBJECTS, 4)] {
            data.push(kind);
            put_int(&mut data, id, 4);
            if kind == LARGE_OBJECTS {
                put_int(&mut data, 4711, 4);
            }
            text(&mut data, Some("something"));
            put_int(&mut data, 0, 4);
        }
        put_int(&mut data, 0, 4);
        let whole = data.len();
        let again = [&data[..], b"\x00\x02\x00\x00\x00and so on"].concat();
        let read = |mut data: &[u8], skip: bool| {
            let toc = Toc::read(&mut data)?;
            let mut body = Body::new(data, &toc);
            let mut ids = Vec::new();
            while let Some(rows) = body.next()? {
                match skip {
                    true => body.skip(rows)?,
                    false => body.copy(rows, |_| Ok(())).map(drop)?,
                }
                ids.push(rows.id);
            }
            Ok::<_, Error>(ids)
        };
        for skip in [true, false] {
            assert_eq!(read(&data, skip).unwrap(), [3, 4]);
            assert_eq!(read(&again, skip).unwrap(), [3, 4]);
            for length in start + 1..whole {
                match read(&data[..length], skip) {
                    Ok(ids) => assert_eq!(ids, [3], "{length}"),
                    Err(error) => assert_eq!(error.kind(), Kind::Damaged),
                }
            }
        }
    }

    #[test]
    fn a_dump_of_a_version_to_come_passes_as_it_is() {
        let bytes = b"PGDMP\x01\x20\x00\x04\x08\x01and so on";
        let mut source = &bytes[..];
        let toc = Toc::read(&mut source).unwrap();
        assert!([toc.bytes(), source.to_vec()].concat() == bytes && !toc.is_known());
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for bytes in [&b"PGDMP"[..], b"-- PostgreSQL database dump"] {
            assert_eq!(Toc::read(bytes).unwrap_err().kind(), Kind::Damaged);
        }
    }
}
