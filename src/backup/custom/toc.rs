//! The table of contents.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use memchr::memmem;

use super::binary::Columns;
use super::entry::{DEFINITIONS, Entry, bare};
use super::fields::{Recorder, put_int};
use super::header::{CUSTOM, DIRECTORY, Header};
use crate::backup::rows::copied_table;
use crate::error::Result;
use crate::sql::{Event, Lexer, tokens};

const LARGE_OBJECTS: &[u8] = b"BLOBS";

/// The table of contents.
#[derive(Debug)]
pub struct Toc {
    header: Header,
    /// None, if a newer pg_dump wrote them than is known here: pg_restore then has to do with the dump as it is.
    entries: Vec<Entry>,
    /// Entries that are not restored with the others.
    pub(super) apart: BTreeSet<i32>,
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
        let header = Header::read(&mut source, expected)?;
        let Some(form) = header.known else {
            return Ok(Self { header, entries: Vec::new(), apart: BTreeSet::new() });
        };
        let mut entries =
            (0..form.count).map(|_| Entry::read(&mut source, form)).collect::<Result<Vec<_>>>()?;
        find_own(&mut entries);
        Ok(Self { header, entries, apart: BTreeSet::new() })
    }

    /// How many bytes a number has.
    pub(in crate::backup) fn int(&self) -> usize {
        self.header.int
    }

    /// Whether it is of a version that is known here.
    pub(in crate::backup) fn is_known(&self) -> bool {
        self.header.known.is_some()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether an entry was taken out.
    pub(in crate::backup) fn is_apart(&self, id: i32) -> bool {
        self.apart.contains(&id)
    }

    /// What [`Self::take_apart`] has taken out, in order.
    pub(in crate::backup) fn apart(&self) -> Vec<i32> {
        self.entries().iter().map(|entry| entry.id).filter(|id| self.is_apart(*id)).collect()
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
        if self.header.packed || !self.is_utf8() {
            return self;
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.own.is_some()) {
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
            false => self.header.bytes.clone(),
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
        let mut bytes = self.header.bytes.clone();
        let count = self.entries().iter().filter(&wanted).count();
        put_int(&mut bytes, i32::try_from(count).unwrap_or(i32::MAX), self.header.int);
        for entry in self.entries().iter().filter(&wanted) {
            bytes.extend_from_slice(&entry.before);
            match statement(entry) {
                None => put_int(&mut bytes, -1, self.header.int),
                Some(text) => {
                    put_int(&mut bytes, i32::try_from(text.len()).unwrap_or(i32::MAX), self.header.int);
                    bytes.extend_from_slice(&text);
                }
            }
            bytes.extend_from_slice(&entry.after);
        }
        bytes
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

    /// The table, as it is quoted in SQL, that the rows with this number are of.
    pub(in crate::backup) fn table_of(&self, id: i32) -> Option<String> {
        let entry = self.entries().iter().find(|entry| entry.id == id)?;
        copied_table(std::str::from_utf8(entry.copy.as_ref()?.trim_ascii_end()).ok()?)
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

pub(super) fn of_kind<'a>(
    entries: &'a [Entry],
    description: &'static [u8],
) -> impl Iterator<Item = &'a Entry> {
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
    use super::super::header::VERSIONS;
    use super::super::testing::{Made, dump, entries, expected};
    use super::*;
    use crate::error::Kind;

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
