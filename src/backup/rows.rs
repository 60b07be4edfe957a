//! Counts rows, sequences and large objects in the SQL that pg_dump or pg_restore writes.
//!
//! In COPY's text format (chapter "COPY") a line end in a value is written `\n`, so that a line is a row,
//! and a line of `\.` ends the data. The counter holds no line longer than it needs: a row of 200 MB
//! passes through it in pieces.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use crate::sql::{Item, Script, Visitor};

/// What a dump holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Rows of each table whose rows are part of the dump; names are quoted as in SQL.
    pub tables: BTreeMap<String, u64>,
    /// The argument list of each sequence's `setval`: its last value, and whether that has been used.
    pub sequences: BTreeMap<String, String>,
    /// The number of large objects.
    pub large_objects: u64,
    /// How many statements brought rows that are not among these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_counted: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Contents {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }
}

/// Fed with SQL in pieces of any size.
#[derive(Debug, Default)]
pub struct RowCounter {
    script: Script,
    tally: Tally,
}

impl RowCounter {
    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.script.feed(piece, &mut self.tally);
    }

    /// What was counted, and whether pg_dump's end marker came last.
    ///
    /// # Errors
    /// A sentence on what is missing, if the SQL ends within a table's rows or a statement.
    pub fn finish(mut self) -> Result<(Contents, bool), String> {
        let rows = self.script.is_in_rows().then(|| self.script.rows());
        if self.script.finish(&mut self.tally) {
            return Ok((self.tally.contents, self.tally.ended));
        }
        Err(match (rows, self.tally.table) {
            (Some(rows), Some(table)) => format!("it is truncated after {rows} rows of table {table}"),
            (Some(rows), None) => format!("it is truncated after {rows} rows of a table"),
            (None, _) => "it is truncated in the middle of a statement".to_owned(),
        })
    }
}

impl Visitor for Tally {
    fn item(&mut self, item: Item<'_>) {
        self.take(item);
    }

    fn bytes(&mut self, _: &[u8]) {}
}

/// pg_dump's last comment in plain SQL.
const END_MARKER: &[u8] = b"-- PostgreSQL database dump complete";

/// What is counted, part by part.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) contents: Contents,
    encoding: Encoding,
    /// The comment above a table's data was the last: only then are its rows those that pg_dump has found there.
    announced: bool,
    /// Whose rows follow, or are in the statement.
    table: Option<String>,
    inserts: bool,
    ended: bool,
}

impl Tally {
    /// Counts what this part brings.
    pub(super) fn take(&mut self, item: Item<'_>) {
        match item {
            Item::Comment(line) => self.comment(line.trim_ascii()),
            Item::Statement { text, whole, words } => {
                self.ended = false;
                self.statement(text.trim_ascii(), whole, words);
            }
            Item::End(rows) if self.inserts => {
                let table = self.table.take();
                match (table, rows) {
                    (Some(table), Some(rows)) => self.add(table, rows),
                    _ => self.contents.not_counted += 1,
                }
                self.inserts = false;
            }
            Item::Command(_) | Item::End(_) | Item::Data => {}
            Item::Rows(rows) => match self.table.take() {
                Some(table) => self.add(table, rows),
                None => self.contents.not_counted += u64::from(rows > 0),
            },
        }
    }

    /// What is written in the encoding of the dump.
    pub(super) fn decode<'t>(&self, text: &'t [u8]) -> Cow<'t, str> {
        self.encoding.decode(text)
    }

    /// Whose rows follow.
    pub(super) fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    fn add(&mut self, table: String, rows: u64) {
        *self.contents.tables.entry(table).or_default() += rows;
    }

    fn comment(&mut self, line: &[u8]) {
        if line == END_MARKER {
            self.ended = true;
        } else if memchr::memmem::find(line, b"; Type: ").is_some() && line.starts_with(b"-- ") {
            // "-- Data for Name: events; Type: TABLE DATA; Schema: public; Owner: synapse"
            self.announced = memchr::memmem::find(line, b"; Type: TABLE DATA; ").is_some();
        }
    }

    fn statement(&mut self, text: &[u8], whole: bool, words: &[String]) {
        let word = |number: usize| words.get(number).map_or("", String::as_str);
        match (word(0), word(1)) {
            ("COPY", _) if whole => {
                self.table = copied_table(&self.encoding.decode(text)).filter(|_| self.announced);
            }
            ("INSERT", "INTO") => {
                let start = &text[..text.len().min(LONGEST_NAMES)];
                self.table = inserted_table(&self.encoding.decode(start)).filter(|_| self.announced);
                self.inserts = true;
            }
            ("SELECT", "PG_CATALOG") if whole => {
                let text = self.encoding.decode(text);
                if let Some((name, value)) = sequence(&text) {
                    self.contents.sequences.insert(name, value);
                }
                self.contents.large_objects += u64::from(text.starts_with("SELECT pg_catalog.lo_open("));
            }
            ("SET", "CLIENT_ENCODING") => self.encoding = Encoding::of(text),
            _ => {}
        }
    }
}

/// A schema and a table, of 63 bytes each, and twice that when they are all quotes.
const LONGEST_NAMES: usize = 1024;

/// The table in `COPY public.events (a, b) FROM stdin;`, or `COPY public.empty  FROM stdin;`.
pub(super) fn copied_table(statement: &str) -> Option<String> {
    relation(statement.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?)
}

/// The table in `INSERT INTO public.events VALUES (1);`.
fn inserted_table(statement: &str) -> Option<String> {
    relation(statement.strip_prefix("INSERT INTO ")?)
}

/// The name at the beginning.
fn relation(text: &str) -> Option<String> {
    let mut quoted = false;
    let end = text.find(|c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    (!text.contains('\u{fffd}')).then(|| text[..end.unwrap_or(text.len())].to_owned())
}

/// Name and value in `SELECT pg_catalog.setval('public.s', 42, true);`.
fn sequence(statement: &str) -> Option<(String, String)> {
    let arguments = statement.strip_prefix("SELECT pg_catalog.setval(")?.strip_suffix(");")?;
    let (name, value) = arguments.rsplit_once("', ")?;
    let name = name.strip_prefix('\'').filter(|name| !name.contains('\u{fffd}'))?;
    Some((name.replace("''", "'"), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUMP: &str = r#"--
-- Data for Name: events; Type: TABLE DATA; Schema: public; Owner: synapse
--

COPY public.events (event_id, json) FROM stdin;
$a	{"body":"COPY public.x (y) FROM stdin;"}
$b	\\.
\N	
\.


--
-- Data for Name: we ird; Type: TABLE DATA; Schema: public; Owner: synapse
--

COPY public."we "" ird" ("a b") FROM stdin;
\.


--
-- Data for Name: none; Type: TABLE DATA; Schema: public; Owner: synapse
--

COPY public.none  FROM stdin;


\.


SELECT pg_catalog.setval('public.events_stream_seq', 42, true);
SELECT pg_catalog.setval('public."it''s, a"', 1, false);
SELECT pg_catalog.lo_open('16400', 131072);
SELECT pg_catalog.lowrite(0, '\x00');
-- PostgreSQL database dump complete
"#;

    fn count(text: &str, piece: usize) -> RowCounter {
        let mut counter = RowCounter::default();
        text.as_bytes().chunks(piece).for_each(|piece| counter.feed(piece));
        counter
    }

    #[test]
    fn rows_sequences_and_large_objects_are_counted() {
        let (contents, ended) = count(DUMP, 7).finish().unwrap();
        assert!(ended);
        let tables: Vec<_> = contents.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        assert_eq!(tables, [("public.\"we \"\" ird\"", 0), ("public.events", 3), ("public.none", 2)]);
        assert_eq!(contents.rows(), 5);
        assert_eq!(contents.sequences["public.events_stream_seq"], "42, true");
        assert_eq!(contents.sequences["public.\"it's, a\""], "1, false");
        assert_eq!(contents.large_objects, 1);
    }

    #[test]
    fn names_of_several_lines_and_of_the_longest_kind_are_names() {
        let columns: Vec<_> = (0..1600).map(|n| format!("\"{n:04}{}\"", "\"\"".repeat(59))).collect();
        let copies = [
            "COPY public.\"two\nlines\" (\"a \"\"\nb\") FROM stdin;\n1\n\\.\n".to_owned(),
            "COPY public.\"ends FROM stdin;\nhere\" (x) FROM stdin;\n1\n2\n\\.\n".to_owned(),
            format!("COPY public.wide ({}) FROM stdin;\n1\n2\n3\n\\.\n", columns.join(", ")),
        ];
        let announced =
            copies.map(|copy| format!("-- Data for Name: x; Type: TABLE DATA; Schema: public\n{copy}"));
        let contents = count(&announced.concat(), 1000).finish().unwrap().0;
        let tables: Vec<_> = contents.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        assert_eq!(
            tables,
            [("public.\"ends FROM stdin;\nhere\"", 2), ("public.\"two\nlines\"", 1), ("public.wide", 3)]
        );
    }

    #[test]
    fn a_function_that_contains_a_copy_is_not_a_table() {
        let text = "CREATE FUNCTION f() AS $$\nCOPY public.events (a) FROM stdin;\nx\n$$;\n";
        assert_eq!(count(text, 5).finish().unwrap(), (Contents::default(), false));
    }

    #[test]
    fn an_end_within_the_rows_is_noticed() {
        let cut = &DUMP[..DUMP.find("$b").unwrap() + 3];
        assert_eq!(
            count(cut, 100).finish().unwrap_err(),
            "it is truncated after 1 rows of table public.events"
        );
    }

    #[test]
    fn a_row_of_any_length_is_one_row_in_little_memory() {
        let mut counter = RowCounter::default();
        counter.feed(b"-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: x\nCOPY public.t (a) FROM stdin;\n");
        for _ in 0..200 {
            counter.feed(&vec![b'x'; 1 << 16]);
        }
        counter.feed(b"\n\\.\n");
        assert_eq!(counter.finish().unwrap().0.tables["public.t"], 1);
    }

    #[test]
    fn rows_of_inserts_are_counted_too() {
        let announced = "-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: x\n--\n\n";
        let text = format!(
            "{announced}INSERT INTO public.t (a, b) VALUES (1, 'x\n-- PostgreSQL database dump complete\ny');\n\
             INSERT INTO public.t VALUES\n\t(1, '), ('),\n\t(2, 'it''s');\n\
             INSERT INTO public.\"T 2\" VALUES (1);\n-- Name: s; Type: SEQUENCE SET; Schema: public\n"
        );
        for size in [1, 1000] {
            let (contents, ended) = count(&text, size).finish().unwrap();
            assert_eq!((contents.tables["public.t"], contents.tables["public.\"T 2\""]), (3, 1));
            assert!(!ended && contents.not_counted == 0);
        }
        // What nobody has announced may come to something else than it says.
        let text = format!(
            "INSERT INTO t VALUES (1);\nCOPY t FROM stdin;\n1\n\\.\n{announced}INSERT INTO public.t SELECT 1;\n"
        );
        let contents = count(&text, 10).finish().unwrap().0;
        assert_eq!((contents.tables.len(), contents.not_counted), (0, 3));
    }

    #[test]
    fn names_are_read_in_the_encoding_of_the_dump() {
        let announced = "-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: x\n";
        for (encoding, byte, name) in [
            ("LATIN1", &[0xc4][..], "Ä"),
            ("WIN1252", &[0x80], "€"),
            ("LATIN9", &[0xa4], "€"),
            ("SQL_ASCII", &[0xc4], ""),
            ("SQL_ASCII", &[0xc3, 0x84], "Ä"),
            // It would be a letter of UTF-8, and is another of theirs.
            ("EUC_JP", &[0xc9, 0xbd], ""),
        ] {
            let mut text =
                format!("SET client_encoding = '{encoding}';\n{announced}COPY public.\"").into_bytes();
            text.extend_from_slice(byte);
            text.extend_from_slice(b"\" (a) FROM stdin;\n1\n\\.\n");
            let mut counter = RowCounter::default();
            counter.feed(&text);
            let contents = counter.finish().unwrap().0;
            match name {
                "" => assert_eq!((contents.tables.len(), contents.not_counted), (0, 1)),
                name => assert_eq!(contents.tables[&format!("public.\"{name}\"")], 1),
            }
        }
    }

    #[test]
    fn line_ends_of_windows_are_line_ends() {
        let (contents, ended) = count(&DUMP.replace('\n', "\r\n"), 7).finish().unwrap();
        assert!(ended && contents == count(DUMP, 7).finish().unwrap().0);
    }

    #[test]
    fn the_end_marker_is_the_last_that_is_said() {
        let marker = "--\n-- PostgreSQL database dump complete\n--\n\n";
        for (after, ended) in [("\\unrestrict k\n\n", true), ("", true), ("SELECT 1;\n", false)] {
            assert_eq!(count(&format!("SELECT 1;\n{marker}{after}"), 7).finish().unwrap().1, ended);
        }
        let error =
            count("INSERT INTO t VALUES ('\n-- PostgreSQL database dump complete\n", 7).finish().unwrap_err();
        assert_eq!(error, "it is truncated in the middle of a statement");
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(piece in 1usize..300) {
            prop_assert_eq!(count(DUMP, piece).finish(), count(DUMP, DUMP.len()).finish());
        }
    }
}
