//! Counts rows, sequences and large objects in the SQL that pg_dump or pg_restore writes.
//!
//! In COPY's text format (chapter "COPY") a line end in a value is written `\n`, so that a line is a row,
//! and a line of `\.` ends the data. The counter holds no line longer than it needs: a row of 200 MB
//! passes through it in pieces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Statements longer than this are none that we look for: a COPY names 1600 columns at most, of 63 bytes each,
/// and twice that when they are all quotes.
const LONGEST_STATEMENT: usize = 256 * 1024;

/// What a dump holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Rows of each table whose rows are part of the dump; names are quoted as in SQL.
    pub tables: BTreeMap<String, u64>,
    /// The argument list of each sequence's `setval`: its last value, and whether that has been used.
    pub sequences: BTreeMap<String, String>,
    /// The number of large objects.
    pub large_objects: u64,
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
    contents: Contents,
    state: State,
    /// The line so far; of a row no more than tells it from `\.`.
    line: Vec<u8>,
    /// The comment above a table's data was seen: only then is `COPY` one of pg_dump's own.
    data_announced: bool,
    ended: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Statements,
    Rows {
        table: String,
        rows: u64,
    },
}

/// pg_dump's last comment in plain SQL.
const END_MARKER: &[u8] = b"-- PostgreSQL database dump complete";

impl RowCounter {
    /// Takes the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            self.keep(&piece[..end]);
            if self.goes_on() {
                self.keep(b"\n");
            } else {
                self.end_of_line();
                self.line.clear();
            }
            piece = &piece[end + 1..];
        }
        self.keep(piece);
    }

    /// What was counted.
    ///
    /// # Errors
    /// A sentence on what is missing, if the SQL ends within a table's rows.
    pub fn finish(self) -> Result<Contents, String> {
        match self.state {
            State::Statements if self.line.is_empty() => Ok(self.contents),
            State::Statements => Err("it ends in the middle of a line".to_owned()),
            State::Rows { table, rows } => Err(format!("it ends after {rows} rows of table {table}")),
        }
    }

    /// Whether the next line is a row, or the end of rows.
    pub fn is_in_rows(&self) -> bool {
        matches!(self.state, State::Rows { .. })
    }

    /// Whether pg_dump's end marker was seen.
    pub fn has_end_marker(&self) -> bool {
        self.ended
    }

    fn keep(&mut self, piece: &[u8]) {
        let longest = match self.state {
            State::Statements => LONGEST_STATEMENT,
            State::Rows { .. } => 3,
        };
        let room = longest.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Whether this line end belongs to a name in the `COPY` that was announced.
    fn goes_on(&self) -> bool {
        matches!(self.state, State::Statements)
            && self.data_announced
            && self.line.starts_with(b"COPY ")
            && self.line.len() < LONGEST_STATEMENT
            && memchr::memchr_iter(b'"', &self.line).count() % 2 == 1
    }

    fn end_of_line(&mut self) {
        match &mut self.state {
            State::Rows { rows, .. } if self.line != br"\." => *rows += 1,
            State::Rows { table, rows } => {
                *self.contents.tables.entry(std::mem::take(table)).or_default() += *rows;
                self.state = State::Statements;
            }
            State::Statements => self.statement(),
        }
    }

    fn statement(&mut self) {
        if self.line.starts_with(b"-- ") {
            // "-- Data for Name: events; Type: TABLE DATA; Schema: public; Owner: synapse"
            self.data_announced |= memchr::memmem::find(&self.line, b"; Type: TABLE DATA; ").is_some();
            self.ended |= self.line == END_MARKER;
        } else if self.data_announced && self.line.starts_with(b"COPY ") {
            if let Some(table) = copied_table(&self.line) {
                self.state = State::Rows { table, rows: 0 };
                self.data_announced = false;
            }
        } else if self.line.starts_with(b"SELECT pg_catalog.setval(") {
            if let Some((name, value)) = sequence(&self.line) {
                self.contents.sequences.insert(name, value);
            }
        } else if self.line.starts_with(b"SELECT pg_catalog.lo_open(") {
            self.contents.large_objects += 1;
        }
    }
}

/// The table in `COPY public.events (a, b) FROM stdin;`, or `COPY public.empty  FROM stdin;`.
pub(super) fn copied_table(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?;
    let mut quoted = false;
    let end = rest.find(|c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    Some(rest[..end.unwrap_or(rest.len())].to_owned())
}

/// Name and value in `SELECT pg_catalog.setval('public.s', 42, true);`.
fn sequence(line: &[u8]) -> Option<(String, String)> {
    let line = std::str::from_utf8(line).ok()?;
    let arguments = line.strip_prefix("SELECT pg_catalog.setval(")?.strip_suffix(");")?;
    let (name, value) = arguments.rsplit_once("', ")?;
    Some((name.strip_prefix('\'')?.replace("''", "'"), value.to_owned()))
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
        let counter = count(DUMP, 7);
        assert!(counter.has_end_marker());
        let contents = counter.finish().unwrap();
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
        let contents = count(&announced.concat(), 1000).finish().unwrap();
        let tables: Vec<_> = contents.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        assert_eq!(
            tables,
            [("public.\"ends FROM stdin;\nhere\"", 2), ("public.\"two\nlines\"", 1), ("public.wide", 3)]
        );
    }

    #[test]
    fn a_function_that_contains_a_copy_is_not_a_table() {
        let text = "CREATE FUNCTION f() AS $$\nCOPY public.events (a) FROM stdin;\nx\n$$;\n";
        assert_eq!(count(text, 5).finish().unwrap(), Contents::default());
    }

    #[test]
    fn an_end_within_the_rows_is_noticed() {
        let cut = &DUMP[..DUMP.find("$b").unwrap() + 3];
        assert_eq!(count(cut, 100).finish().unwrap_err(), "it ends after 1 rows of table public.events");
    }

    #[test]
    fn a_row_of_any_length_is_one_row_in_little_memory() {
        let mut counter = RowCounter::default();
        counter.feed(b"-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: x\nCOPY public.t (a) FROM stdin;\n");
        for _ in 0..200 {
            counter.feed(&vec![b'x'; 1 << 16]);
        }
        assert!(counter.line.capacity() <= 2 * LONGEST_STATEMENT);
        counter.feed(b"\n\\.\n");
        assert_eq!(counter.finish().unwrap().tables["public.t"], 1);
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(piece in 1usize..300) {
            prop_assert_eq!(count(DUMP, piece).finish(), count(DUMP, DUMP.len()).finish());
        }
    }
}
