//! The table of contents.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use memchr::memmem;

use super::binary::Columns;
use super::entry::{Entry, Recorder, bare};
use super::put_int;
use crate::backup::rows::copied_table;
use crate::error::{Error, Kind, Result};
use crate::sql::{Event, Lexer, tokens};

/// The first bytes of every dump in this format.
pub(in crate::backup) const MAGIC: &[u8] = b"PGDMP";

/// Format versions that are known: of pg_dump 9.0 to 19. Each began with a field more than the one before.
pub(super) const VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;
pub(super) const WITH_ACCESS_METHOD: u8 = 14;
pub(super) const WITH_ALGORITHM: u8 = 15;
pub(super) const WITH_KIND: u8 = 16;

/// `archCustom`, and what a directory says that it is: `archTar`.
pub(super) const CUSTOM: u8 = 1;
const DIRECTORY: u8 = 3;

/// `SECTION_PRE_DATA` and `SECTION_DATA`: definitions; rows, large objects and values of sequences.
pub(super) const DEFINITIONS: i32 = 2;
pub(super) const DATA: i32 = 3;

const LARGE_OBJECTS_AS_SUCH: &[u8] = b"BLOB METADATA";
const LARGE_OBJECTS: &[u8] = b"BLOBS";

/// Kinds of entries without which all rows are there, and nothing else fails: indexes, what a view had gathered, privileges
/// and what is said of objects, what does something at certain events.
const CAN_BE_MISSED: [&[u8]; 17] = [
    b"ACL",
    b"COMMENT",
    b"DEFAULT ACL",
    b"EVENT TRIGGER",
    b"INDEX",
    b"INDEX ATTACH",
    b"MATERIALIZED VIEW DATA",
    b"POLICY",
    b"PUBLICATION",
    b"PUBLICATION TABLE",
    b"PUBLICATION TABLES IN SCHEMA",
    b"RULE",
    b"SECURITY LABEL",
    b"STATISTICS",
    b"SUBSCRIPTION",
    b"SUBSCRIPTION TABLE",
    b"TRIGGER",
];

/// The table of contents.
#[derive(Debug)]
pub struct Toc {
    pub(super) int: usize,
    /// Up to the number of entries.
    head: Vec<u8>,
    /// Whether pg_dump compressed the rows.
    packed: bool,
    /// Nothing, if a newer pg_dump wrote it than is known here: pg_restore then has to do with it as it is.
    entries: Option<Vec<Entry>>,
    /// Entries that are not restored with the others.
    apart: BTreeSet<i32>,
}

/// A key between two tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backup) struct Key {
    /// Its number.
    pub(in crate::backup) id: i32,
    /// The entry with the rows that are looked up in the other table, each of them.
    pub(in crate::backup) rows: i32,
    /// The entries with the rows of both tables, and all of their indexes.
    pub(in crate::backup) needs: BTreeSet<i32>,
}

impl Toc {
    /// Reads it from the beginning of a dump.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is none, and those of `source`.
    pub(in crate::backup) fn read(source: impl Read) -> Result<Self> {
        Self::read_as(source, CUSTOM)
    }

    /// Reads it from the file `toc.dat` of a dump that is a directory. It is then that of a custom dump with the same rows.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(in crate::backup) fn read_of_directory(source: impl Read) -> Result<Self> {
        Self::read_as(source, DIRECTORY)
    }

    fn read_as(source: impl Read, expected: u8) -> Result<Self> {
        let mut source = Recorder { source, int: 4, record: Vec::new() };
        let start: [u8; 11] = source.bytes()?;
        let [_, _, _, _, _, major, version, _, int, offset, format] = start;
        if !start.starts_with(MAGIC) || format != expected {
            return Err(Error::new(Kind::Damaged, "it is no dump in the custom format"));
        }
        let directory = expected == DIRECTORY;
        if let Some(last) = source.record.last_mut() {
            *last = CUSTOM;
        }
        if major != 1 || !VERSIONS.contains(&version) || !(4..=8).contains(&int) {
            return Ok(Self {
                int: 4,
                head: source.take(),
                packed: true,
                entries: None,
                apart: BTreeSet::new(),
            });
        }
        source.int = usize::from(int);
        let packed = match version >= WITH_ALGORITHM {
            true => source.bytes()? != [0],
            false => source.int()? != 0,
        };
        for _ in 0..7 {
            source.int()?;
        }
        for _ in 0..3 {
            source.text()?;
        }
        let head = source.take();
        let count = source.int()?;
        source.take();
        let mut entries = (0..count)
            .map(|_| source.entry(version, usize::from(offset), directory))
            .collect::<Result<Vec<_>>>()?;
        find_own(&mut entries);
        Ok(Self { int: source.int, head, packed, entries: Some(entries), apart: BTreeSet::new() })
    }

    /// How many bytes a number has.
    pub(in crate::backup) fn int(&self) -> usize {
        self.int
    }

    /// Whether it is of a version that is known here.
    pub(in crate::backup) fn is_known(&self) -> bool {
        self.entries.is_some()
    }

    fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    /// Takes an extension, all that is in its schema, and all that needs either, out of what is restored; whether there was
    /// any of it.
    pub(in crate::backup) fn take_apart(&mut self, extension: &str, schema: &str) -> bool {
        let names = [format!("EXTENSION {extension}"), format!("SCHEMA {schema}")];
        let before = self.apart.len();
        let mut apart = std::mem::take(&mut self.apart);
        let is_its = |entry: &Entry| {
            let Entry { description, name: (of, name), .. } = entry;
            let is = |text: &[u8], other: &str| text == other.as_bytes();
            (is(description, "EXTENSION") && is(name, extension))
                || (is(description, "SCHEMA") && is(name, schema))
                || of.as_deref().is_some_and(|of| is(of, schema))
                || names.iter().any(|whole| is(name, whole))
        };
        apart.extend(self.entries().iter().filter(|entry| is_its(entry)).map(|entry| entry.id));
        if apart.len() == before {
            self.apart = apart;
            return false;
        }
        loop {
            let needs =
                |entry: &&Entry| !entry.dependencies.is_disjoint(&apart) && !apart.contains(&entry.id);
            let more: Vec<_> = self.entries().iter().filter(needs).map(|entry| entry.id).collect();
            if more.is_empty() {
                break;
            }
            apart.extend(more);
        }
        self.apart = apart;
        true
    }

    /// What [`Self::take_apart`] has taken out, in order.
    pub(in crate::backup) fn apart(&self) -> Vec<i32> {
        self.entries().iter().map(|entry| entry.id).filter(|id| self.is_apart(*id)).collect()
    }

    /// Whether an entry was taken out.
    pub(in crate::backup) fn is_apart(&self, id: i32) -> bool {
        self.apart.contains(&id)
    }

    /// The roles that own something in it or have privileges on it, and those that own something.
    pub(in crate::backup) fn roles(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        // Those of the database as a whole are not restored.
        let entries = || self.entries().iter().filter(|entry| !is_of_database(entry));
        let owners: BTreeSet<_> =
            entries().filter(|entry| !entry.owner.is_empty()).map(|entry| entry.owner.clone()).collect();
        let mut roles = owners.clone();
        for privileges in entries().filter_map(|entry| entry.privileges.as_ref()) {
            let (mut lexer, mut start) = (Lexer::default(), 0);
            lexer.feed(privileges, &mut |event, at, _| match event {
                Event::Begin => start = at,
                Event::End => {
                    let statement = String::from_utf8_lossy(&privileges[start..at]);
                    roles.extend(crate::sql::tokens::roles(&tokens(&statement)));
                }
                _ => {}
            });
        }
        // Names in other encodings are not understood.
        roles.retain(|role| !role.contains('\u{fffd}'));
        (roles, owners)
    }

    /// Lets rows be sent in binary where that is possible. `tables` are those of the database that has been made by the
    /// definitions, with the types of their columns, by what a `COPY` says of them: `public.events (event_id, room_id)`.
    pub(in crate::backup) fn with_binary(mut self, tables: &BTreeMap<String, Vec<u32>>) -> Self {
        // Other encodings may have a backslash in a character.
        if self.packed || !self.is_utf8() {
            return self;
        }
        for entry in self.entries.iter_mut().flatten().filter(|entry| entry.own.is_some()) {
            let named = entry.copy.as_deref().and_then(|copy| {
                std::str::from_utf8(bare(copy)).ok()?.strip_prefix("COPY ")?.strip_suffix(" FROM stdin")
            });
            entry.columns = named.and_then(|named| tables.get(named)).and_then(|types| Columns::of(types));
        }
        self
    }

    /// What is in the columns of the table whose rows have this number, if they are to be sent in binary.
    pub(super) fn columns_of(&self, rows: i32) -> Option<&Columns> {
        self.entries().iter().find(|entry| entry.id == rows)?.columns.as_ref()
    }

    /// All of it, as it was written; of one that is not known, what was read of it.
    pub(in crate::backup) fn bytes(&self) -> Vec<u8> {
        match self.is_known() {
            true => self.written(|_| true, |entry| entry.copy.as_deref().map(Cow::Borrowed)),
            false => self.head.clone(),
        }
    }

    /// The beginning of an archive with the rows of these entries only, to which theirs are to be added, in order.
    /// Those of a table may be `frozen`, if nobody else uses it yet.
    pub(in crate::backup) fn archive(&self, rows: &[i32], frozen: bool) -> Vec<u8> {
        let of_archive = |entry: &&Entry| entry.section == DEFINITIONS || rows.contains(&entry.id);
        self.written(of_archive, |entry| entry.statement(frozen))
    }

    fn written<'a>(
        &'a self,
        wanted: impl Fn(&&Entry) -> bool,
        statement: impl Fn(&'a Entry) -> Option<Cow<'a, [u8]>>,
    ) -> Vec<u8> {
        let wanted = |entry: &&Entry| wanted(entry) && !self.is_apart(entry.id);
        let mut bytes = self.head.clone();
        let count = self.entries().iter().filter(&wanted).count();
        put_int(&mut bytes, i32::try_from(count).unwrap_or(i32::MAX), self.int);
        for entry in self.entries().iter().filter(&wanted) {
            bytes.extend_from_slice(&entry.before);
            match statement(entry) {
                None => put_int(&mut bytes, -1, self.int),
                Some(text) => {
                    put_int(&mut bytes, i32::try_from(text.len()).unwrap_or(i32::MAX), self.int);
                    bytes.extend_from_slice(&text);
                }
            }
            bytes.extend_from_slice(&entry.after);
        }
        bytes
    }

    /// Numbers of the entries that come after the definitions and must be there before any rows: large objects as
    /// such, which since PostgreSQL 17 are no longer among the definitions.
    pub(in crate::backup) fn before_rows(&self) -> Vec<i32> {
        self.later()
            .filter(|entry| entry.description == LARGE_OBJECTS_AS_SUCH)
            .map(|entry| entry.id)
            .collect()
    }

    /// Numbers of all other entries that come after the definitions, in order, but for those whose rows are in the dump.
    pub(in crate::backup) fn after_rows(&self) -> impl Iterator<Item = i32> {
        self.later().filter(|entry| entry.description != LARGE_OBJECTS_AS_SUCH).map(|entry| entry.id)
    }

    fn later(&self) -> impl Iterator<Item = &Entry> {
        let definitions = |entry: &&Entry| entry.section < DATA;
        let of_all = |entry: &&Entry| !entry.has_rows && !self.is_apart(entry.id);
        self.entries().iter().skip_while(definitions).filter(of_all)
    }

    /// What an entry is, and its name: `index public.t_f_idx`.
    pub(in crate::backup) fn shown(&self, id: i32) -> Option<String> {
        let Entry { description, name: (schema, name), .. } =
            self.entries().iter().find(|entry| entry.id == id)?;
        let kind = String::from_utf8_lossy(description).to_lowercase();
        let kind = kind.strip_suffix(" data").unwrap_or(&kind);
        let schema = schema
            .as_deref()
            .map_or_else(String::new, |schema| format!("{}.", String::from_utf8_lossy(schema)));
        Some(format!("{kind} {schema}{}", String::from_utf8_lossy(name)))
    }

    /// Whether what is missing without this entry is an index, or what a view had gathered: rows are not.
    pub(in crate::backup) fn can_be_missed(&self, id: i32, missing: &BTreeSet<i32>) -> bool {
        self.entries().iter().find(|entry| entry.id == id).is_some_and(|entry| {
            CAN_BE_MISSED.contains(&&*entry.description)
                // Comments are of no section.
                || (![DEFINITIONS, DATA].contains(&entry.section) && !entry.dependencies.is_disjoint(missing))
        })
    }

    /// Numbers of the entries whose rows are in the dump.
    pub(in crate::backup) fn with_rows(&self) -> BTreeSet<i32> {
        let ids = self.entries().iter().filter(|entry| entry.has_rows).map(|entry| entry.id);
        ids.filter(|id| !self.is_apart(*id)).collect()
    }

    /// In which files the rows of its entries are, if it is that of a directory, and whether they are large objects.
    pub(in crate::backup) fn files(&self) -> impl Iterator<Item = (i32, &str, bool)> {
        let with_rows = self.entries().iter().filter(|entry| entry.has_rows);
        with_rows
            .filter_map(|entry| Some((entry.id, entry.file.as_deref()?, entry.description == LARGE_OBJECTS)))
    }

    /// The entries that are of the database as a whole: they make it, and say what is set for it.
    pub(in crate::backup) fn of_database(&self) -> Vec<i32> {
        self.entries().iter().filter(|entry| is_of_database(entry)).map(|entry| entry.id).collect()
    }

    /// Names and owners of tables, by the entries with their rows.
    pub(in crate::backup) fn tables(
        &self,
        rows: &BTreeMap<i32, String>,
    ) -> BTreeMap<(Vec<u8>, Vec<u8>), String> {
        let found = self.entries().iter().filter_map(|entry| {
            let (schema, name) = entry.name.clone();
            Some(((schema.unwrap_or_default(), name), rows.get(&entry.id)?.clone()))
        });
        found.collect()
    }

    /// Whether names in it are as they are here; if not, only their ASCII characters are.
    pub(in crate::backup) fn is_utf8(&self) -> bool {
        let utf8 = |entry: &Entry| memmem::find(&entry.before, b"client_encoding = 'UTF8'").is_some();
        of_kind(self.entries(), b"ENCODING").any(utf8)
    }

    /// The entries with rows of a table, by schema and name, for which `choice` has something.
    pub(in crate::backup) fn rows_of<T>(
        &self,
        choice: impl Fn(&[u8], &[u8]) -> Option<T>,
    ) -> BTreeMap<i32, T> {
        let rows = self.entries().iter().filter(|entry| entry.has_rows && entry.description == b"TABLE DATA");
        rows.filter_map(|entry| {
            Some((entry.id, choice(entry.name.0.as_deref().unwrap_or_default(), &entry.name.1)?))
        })
        .collect()
    }

    /// The entries that come after the rows and make the server evaluate something as whoever makes them, with what belongs to
    /// them: name and owner, of those owners that are `chosen`. pg_dump leaves a constraint until then whose function needs
    /// the table itself. A key between tables may need casts, and to query these tables is to evaluate what is constant in
    /// the expressions of their indexes, which are also compared with those of an index that they become a part of: where
    /// there are functions for that.
    pub(in crate::backup) fn evaluated_later(
        &self,
        functions: bool,
        chosen: impl Fn(&str) -> bool,
    ) -> BTreeMap<i32, (String, String)> {
        let mut found: BTreeMap<i32, (String, String)> = BTreeMap::new();
        for entry in self.later() {
            let evaluates = match &entry.description[..] {
                b"CHECK CONSTRAINT" => entry.validates,
                b"FK CONSTRAINT" => functions && entry.validates,
                b"INDEX ATTACH" => functions,
                _ => false,
            };
            if evaluates && chosen(&entry.owner) {
                found.insert(
                    entry.id,
                    (String::from_utf8_lossy(&entry.name.1).into_owned(), entry.owner.clone()),
                );
            } else if let Some(of) = entry.dependencies.iter().find_map(|id| found.get(id)).cloned() {
                found.insert(entry.id, of);
            }
        }
        found
    }

    /// The definitions of what may hold rows, but for those that make the server evaluate the constraints of a domain, and these
    /// with all that needs them; nothing if there are none. The bounds of a partition may be of a domain, and so may the first
    /// value of an aggregate.
    pub(in crate::backup) fn evaluated_definitions(&self) -> Option<(Vec<i32>, Vec<i32>)> {
        of_kind(self.entries(), b"DOMAIN").next()?;
        let (mut first, mut last) = (Vec::new(), BTreeSet::new());
        for entry in self.entries().iter().take_while(|entry| entry.section < DATA) {
            let evaluates = entry.description == b"AGGREGATE" || entry.description == b"TABLE ATTACH";
            match evaluates || !entry.dependencies.is_disjoint(&last) {
                true => _ = last.insert(entry.id),
                false => first.push(entry.id),
            }
        }
        let in_order = |entry: &&Entry| last.contains(&entry.id);
        let last: Vec<_> = self.entries().iter().filter(in_order).map(|entry| entry.id).collect();
        (!last.is_empty()).then_some((first, last))
    }

    /// Name and owner of each table whose key calls what is not PostgreSQL's own: it is evaluated as whoever makes the table, as
    /// far as it is constant.
    pub(in crate::backup) fn calling_keys(&self) -> impl Iterator<Item = (String, &str)> {
        let tables = of_kind(self.entries(), b"TABLE").filter(|entry| entry.has_calling_key);
        tables.map(|entry| (String::from_utf8_lossy(&entry.name.1).into_owned(), entry.owner.as_str()))
    }

    /// Whether the server may run what somebody who is `chosen` has written, while the definitions are made.
    pub(in crate::backup) fn may_run(&self, chosen: impl Fn(&str) -> bool) -> bool {
        self.entries().iter().any(|entry| entry.may_run && chosen(&entry.owner))
            || self.calling_keys().any(|(_, owner)| chosen(owner))
    }

    /// Names of the aggregates whose owner is `chosen`.
    pub(in crate::backup) fn aggregates(&self, chosen: impl Fn(&str) -> bool) -> Vec<String> {
        of_kind(self.entries(), b"AGGREGATE")
            .filter(|entry| chosen(&entry.owner))
            .map(|entry| String::from_utf8_lossy(&entry.name.1).into_owned())
            .collect()
    }

    /// The indexes, also those of constraints, of the table whose rows have this number; in order, and only those
    /// that can be built as soon as the table has its rows.
    pub(in crate::backup) fn indexes_of(&self, rows: i32) -> Vec<i32> {
        let Some(rows) = self.entries().iter().find(|entry| entry.id == rows) else { return Vec::new() };
        let table = of_kind(self.entries(), b"TABLE").find(|table| table.name == rows.name);
        let Some(table) = table.map(|table| table.id) else { return Vec::new() };
        let late: BTreeSet<_> =
            self.entries().iter().skip_while(|entry| entry.section < DATA).map(|entry| entry.id).collect();
        let indexes = self.entries().iter().filter(|entry| {
            (entry.description == b"INDEX" || entry.description == b"CONSTRAINT")
                && entry.dependencies.contains(&table)
                && entry.dependencies.is_disjoint(&late)
                && !self.is_apart(entry.id)
        });
        indexes.map(|entry| entry.id).collect()
    }

    /// Keys between tables; only those that need nothing but rows and indexes.
    pub(in crate::backup) fn keys(&self) -> Vec<Key> {
        let tables: BTreeMap<_, _> =
            of_kind(self.entries(), b"TABLE").map(|table| (&table.name, table.id)).collect();
        let rows: BTreeMap<_, _> = of_kind(self.entries(), b"TABLE DATA")
            .filter_map(|rows| Some((*tables.get(&rows.name)?, rows)))
            .collect();
        let late: BTreeSet<_> = self.after_rows().collect();
        let key = |entry: &Entry| {
            let tables = entry.dependencies.iter().filter_map(|dependency| rows.get(dependency));
            // It is called by its table's name and its own.
            let is_own = |rows: &&&Entry| {
                entry.name.1.strip_prefix(&*rows.name.1).is_some_and(|rest| rest.starts_with(b" "))
            };
            let rows = tables.clone().find(is_own)?.id;
            let mut needs = BTreeSet::new();
            for table in tables {
                needs.insert(table.id);
                needs.extend(self.indexes_of(table.id));
            }
            let possible = entry.dependencies.intersection(&late).all(|late| needs.contains(late));
            possible.then_some(Key { id: entry.id, rows, needs })
        };
        let keys = of_kind(self.entries(), b"FK CONSTRAINT").filter(|entry| !self.is_apart(entry.id));
        keys.filter_map(key).collect()
    }
}

/// A table may be called like what is said of a database.
fn is_of_database(entry: &Entry) -> bool {
    let says = [&b"ACL"[..], b"COMMENT", b"SECURITY LABEL"].contains(&&*entry.description);
    entry.description.starts_with(b"DATABASE") || (says && entry.name.1.starts_with(b"DATABASE "))
}

/// Finds the tables that are made by the dump itself.
fn find_own(entries: &mut [Entry]) {
    let tables: BTreeSet<_> = of_kind(entries, b"TABLE").map(|entry| entry.name.clone()).collect();
    for entry in entries {
        let own = entry.description == b"TABLE DATA" && tables.contains(&entry.name);
        let Some(copy) = entry.copy.as_ref().filter(|_| own) else { continue };
        // A partition's rows may go to the table that it is a part of.
        let copied = std::str::from_utf8(copy.trim_ascii_end()).ok().and_then(copied_table);
        entry.own = copied.filter(|table| is_named(table, &entry.name.1));
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

#[cfg(test)]
mod tests {
    use super::super::entry::{NOWHERE, SOMEWHERE};
    use super::super::testing::{Made, dump, entries};
    use super::*;

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
    fn rows_go_in_binary_if_their_columns_are_known_and_are_no_others() {
        let mut made = entries();
        made.push(Made(0, "ENCODING", "ENCODING", None, &[]));
        let named = |name: &str, types: &[u32]| BTreeMap::from([(name.to_owned(), types.to_vec())]);
        let statement = |toc: Toc, id: i32, frozen: bool| {
            let entry = toc.entries().iter().find(|entry| entry.id == id).unwrap();
            String::from_utf8(entry.statement(frozen).unwrap().into_owned()).unwrap()
        };
        let read = |tables| Toc::read(&dump(16, &made)[..]).unwrap().with_binary(&tables);
        let table = "public.\"we ird\" (a)";
        assert_eq!(
            statement(read(named(table, &[25])), 3, false),
            "COPY public.\"we ird\" (a) FROM stdin WITH (FORMAT binary);\n"
        );
        assert_eq!(
            statement(read(named(table, &[25])), 3, true),
            "TRUNCATE TABLE ONLY public.\"we ird\";\n\
             COPY public.\"we ird\" (a) FROM stdin WITH (FREEZE, FORMAT binary);\n"
        );
        let as_dumped = "COPY public.\"we ird\" (a) FROM stdin;\n";
        for tables in [named(table, &[17]), named("public.\"we ird\" (b)", &[25]), BTreeMap::new()] {
            assert_eq!(statement(read(tables), 3, false), as_dumped);
        }
        // The dump does not make this table.
        let other = read(named("public.config (a)", &[25]));
        assert_eq!(statement(other, 4, true), "COPY public.config (a) FROM stdin;\n");
        // The encoding is not known, or pg_dump compressed the rows.
        let without = Toc::read(&dump(16, &entries())[..]).unwrap().with_binary(&named(table, &[25]));
        assert_eq!(statement(without, 3, false), as_dumped);
        let mut packed = dump(16, &made);
        packed[11] = 1;
        let packed = Toc::read(&packed[..]).unwrap().with_binary(&named(table, &[25]));
        assert_eq!(statement(packed, 3, false), as_dumped);
    }

    #[test]
    fn what_is_evaluated_as_whoever_makes_it_is_found() {
        let mut made = entries();
        made.extend([
            Made(20, "t whole", "CHECK CONSTRAINT", None, &["1"]),
            Made(21, "CONSTRAINT whole ON t", "COMMENT", None, &["20"]),
            Made(22, "i", "INDEX ATTACH", None, &["6"]),
        ]);
        let toc = Toc::read(&dump(16, &made)[..]).unwrap();
        let found = |functions, owner: &str| {
            let found = toc.evaluated_later(functions, |other| other == owner);
            found.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(found(false, "synapse"), [20, 21]);
        assert_eq!(found(true, "synapse"), [7, 10, 20, 21, 22]);
        assert!(found(true, "postgres").is_empty());
        assert_eq!(toc.evaluated_definitions(), None);
        assert_eq!(
            toc.rows_of(|schema, name| (schema == b"public" && name == b"config").then_some(())),
            [(4, ())].into()
        );
    }

    #[test]
    fn partitions_and_aggregates_wait_for_the_domains() {
        let made = [
            Made(1, "d", "DOMAIN", None, &[]),
            Made(2, "a", "AGGREGATE", None, &["1"]),
            Made(3, "v", "VIEW", None, &["2"]),
            Made(4, "t", "TABLE", None, &[]),
        ];
        let toc = Toc::read(&dump(16, &made)[..]).unwrap();
        assert_eq!(toc.evaluated_definitions(), Some((vec![1, 4], vec![2, 3])));
        assert_eq!(toc.aggregates(|owner| owner == "synapse"), ["a"]);
    }

    #[test]
    fn what_can_be_made_when_follows_from_what_it_needs() {
        let toc = Toc::read(&dump(16, &entries())[..]).unwrap();
        assert_eq!(toc.with_rows(), [3, 4].into());
        assert_eq!(toc.before_rows(), [11]);
        assert_eq!(toc.after_rows().collect::<Vec<_>>(), [9, 5, 6, 8, 7, 10]);
        assert_eq!(toc.indexes_of(3), [5, 6]);
        assert!(toc.indexes_of(4).is_empty() && toc.indexes_of(99).is_empty());
        assert_eq!(toc.keys(), [Key { id: 7, rows: 3, needs: [3, 5, 6].into() }]);
    }

    #[test]
    fn an_extension_is_taken_apart_with_all_that_needs_it() {
        let mut made = entries();
        made.push(Made(20, "pg_cron", "EXTENSION", None, &[]));
        made.push(Made(21, "EXTENSION pg_cron", "COMMENT", None, &["20"]));
        made.push(Made(22, "of_jobs", "VIEW", None, &["20"]));
        let mut toc = Toc::read(&dump(16, &made)[..]).unwrap();
        assert!(!toc.take_apart("other", "other"));
        assert!(toc.take_apart("pg_cron", "cron"));
        assert_eq!(toc.apart(), [20, 21, 22]);
        assert!(toc.bytes() == expected(16, &entries()));
        assert_eq!(toc.with_rows(), [3, 4].into());
        assert_eq!(toc.after_rows().collect::<Vec<_>>(), [9, 5, 6, 8, 7, 10]);
    }

    #[test]
    fn roles_are_known_and_the_schema_that_every_database_has_is_not_made() {
        let made = |number: i32, name| Made(number, name, "SCHEMA", None, &[]);
        for version in VERSIONS {
            let entries = [made(1, "public"), made(2, "other"), Made(3, "TABLE t", "ACL", None, &[])];
            let toc = Toc::read(&dump(version, &entries)[..]).unwrap();
            let (roles, owners) = toc.roles();
            assert_eq!(owners, ["synapse".to_owned()].into());
            assert_eq!(roles, ["synapse", "gone", "Gone 2"].map(str::to_owned).into());
            let bytes = toc.bytes();
            let count = |what: &[u8]| memmem::find_iter(&bytes, what).count();
            assert_eq!((count(b"CREATE SCHEMA public"), count(b"-- *not* creating schema")), (1, 1));
            // It is a table of contents still.
            assert_eq!(Toc::read(&bytes[..]).unwrap().bytes(), bytes);
            let of_database = [Made(1, "DATABASE x", "ACL", None, &[]), Made(2, "x", "DATABASE", None, &[])];
            assert!(Toc::read(&dump(version, &of_database)[..]).unwrap().roles().0.is_empty());
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
