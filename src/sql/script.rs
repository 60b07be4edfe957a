//! A script in parts: each is seen whole before any byte of it is handed on.
//!
//! What is longer than anything that has to be understood is judged by its beginning, and passes as it comes.

use std::borrow::Cow;

use super::lexer::{Event, Lexer};

/// Longer parts are handed on in pieces: a COPY names 1600 columns at most, of 63 bytes each, and twice that when they
/// are all quotes.
pub const LONGEST: usize = 256 * 1024;

/// A part of a script, with white space and other comments before it.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A comment to the line's end that stands between statements.
    Comment(&'a [u8]),
    /// A command of psql's.
    Command(&'a [u8]),
    /// A statement, and its first words; its beginning, if it is too long, or a command of psql's is in its middle.
    Statement {
        /// What it says.
        text: &'a [u8],
        /// Whether that is all.
        whole: bool,
        /// As [`Lexer::words`].
        words: &'a [String],
    },
    /// The statement before has ended. It names so many rows, as [`Lexer::values`].
    End(Option<u64>),
    /// The rows of the COPY before begin.
    Data,
    /// The rows of the COPY before have ended; so many they are.
    Rows(u64),
}

/// Who looks at a script.
pub trait Visitor {
    /// What comes next.
    fn item(&mut self, item: Item<'_>);
    /// Bytes of what was told last.
    fn bytes(&mut self, bytes: &[u8]);
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Nothing,
    Comment,
    Command,
    Statement,
}

/// Fed with a script in pieces of any size.
#[derive(Debug, Default)]
pub struct Script {
    lexer: Lexer,
    /// What is open, and was not told yet.
    pending: Vec<u8>,
    kind: Kind,
    /// What is open was told.
    told: bool,
}

impl Script {
    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8], visitor: &mut impl Visitor) {
        let Self { lexer, pending, kind, told } = self;
        let mut start = 0;
        lexer.feed(piece, &mut |event, at, lexer| {
            match event {
                Event::Begin => *kind = Kind::Statement,
                Event::Comment => *kind = Kind::Comment,
                Event::Command if !lexer.is_in_statement() => *kind = Kind::Command,
                _ => {
                    let part = &piece[start..at];
                    start = at;
                    let text = if pending.is_empty() {
                        Cow::Borrowed(part)
                    } else {
                        pending.extend_from_slice(part);
                        Cow::Owned(std::mem::take(pending))
                    };
                    if !*told {
                        tell(*kind, &text, event == Event::End, lexer, visitor);
                    }
                    visitor.bytes(&text);
                    (*kind, *told) = match event {
                        Event::Command => (Kind::Command, false),
                        Event::CommandEnd if lexer.is_in_statement() => (Kind::Statement, true),
                        Event::Rows => (Kind::Nothing, true),
                        _ => (Kind::Nothing, false),
                    };
                }
            }
            match event {
                Event::End => visitor.item(Item::End(lexer.values())),
                Event::Rows => visitor.item(Item::Data),
                Event::RowsEnd => visitor.item(Item::Rows(lexer.rows())),
                _ => {}
            }
        });
        let rest = &piece[start..];
        if *told {
            return visitor.bytes(rest);
        }
        pending.extend_from_slice(rest);
        if pending.len() > LONGEST {
            tell(*kind, pending, false, lexer, visitor);
            visitor.bytes(pending);
            pending.clear();
            *told = *kind != Kind::Nothing;
        }
    }

    /// Tells what is open at the end; whether that is nothing but a comment or a command.
    pub fn finish(&mut self, visitor: &mut impl Visitor) -> bool {
        let Self { lexer, pending, kind, told } = self;
        if !*told {
            tell(*kind, pending, false, lexer, visitor);
        }
        visitor.bytes(&std::mem::take(pending));
        lexer.is_between_statements() || *kind == Kind::Command && !lexer.is_in_statement()
    }

    /// Whether the next line is a row, or the end of rows.
    pub fn is_in_rows(&self) -> bool {
        self.lexer.is_in_rows()
    }

    /// How many rows there have been since the last COPY.
    pub fn rows(&self) -> u64 {
        self.lexer.rows()
    }
}

fn tell(kind: Kind, text: &[u8], whole: bool, lexer: &Lexer, visitor: &mut impl Visitor) {
    match kind {
        Kind::Nothing => {}
        Kind::Comment => visitor.item(Item::Comment(text)),
        Kind::Command => visitor.item(Item::Command(text)),
        Kind::Statement => visitor.item(Item::Statement { text, whole, words: lexer.words() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Heard {
        items: Vec<String>,
        bytes: Vec<u8>,
    }

    impl Visitor for Heard {
        fn item(&mut self, item: Item<'_>) {
            let text = |text: &[u8]| String::from_utf8_lossy(text).trim().to_owned();
            self.items.push(match item {
                Item::Comment(line) | Item::Command(line) => text(line),
                Item::Statement { text: statement, whole, .. } => {
                    text(statement) + if whole { "" } else { "…" }
                }
                Item::End(rows) => format!("{rows:?}"),
                Item::Data => "data".to_owned(),
                Item::Rows(rows) => format!("{rows} rows"),
            });
        }

        fn bytes(&mut self, bytes: &[u8]) {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn heard(text: &str, size: usize) -> Heard {
        let (mut script, mut heard) = (Script::default(), Heard::default());
        for piece in text.as_bytes().chunks(size) {
            script.feed(piece, &mut heard);
        }
        script.finish(&mut heard);
        heard
    }

    #[test]
    fn a_script_is_told_in_parts_and_nothing_of_it_is_lost() {
        let text = "--\n-- Name: t\n--\n\n\\restrict k\nCOPY t FROM stdin;\n-- a\n\\.\n\n/* b */ SELECT 1 -- ;\n\\x\n;INSERT INTO t VALUES (1), (2);\nSELECT";
        for size in [1, 3, 1000] {
            let Heard { items, bytes } = heard(text, size);
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            assert_eq!(
                items,
                [
                    "--",
                    "-- Name: t",
                    "--",
                    "\\restrict k",
                    "COPY t FROM stdin;",
                    "None",
                    "data",
                    "1 rows",
                    "/* b */ SELECT 1 -- ;…",
                    "\\x",
                    "None",
                    "INSERT INTO t VALUES (1), (2);",
                    "Some(2)",
                    "SELECT…"
                ]
            );
        }
    }

    #[test]
    fn what_is_long_passes_in_little_memory() {
        let (mut script, mut heard) = (Script::default(), Heard::default());
        script.feed(b"SELECT '", &mut heard);
        for _ in 0..100 {
            script.feed(&vec![b'x'; 100_000], &mut heard);
            assert!(script.pending.len() <= LONGEST);
        }
        script.feed(b"';\nCOPY t FROM stdin;\n", &mut heard);
        for _ in 0..100 {
            script.feed(&vec![b'x'; 100_000], &mut heard);
            assert!(script.pending.is_empty());
        }
        script.feed(b"\n\\.\n", &mut heard);
        assert_eq!(heard.bytes.len(), 8 + 10_000_000 + 22 + 10_000_000 + 4);
        assert_eq!(heard.items.len(), 6);
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(
            text in "([ab'\"$\\\\;\\n(-] |E'|\\$a\\$|--|/\\*|\\*/|COPY t FROM stdin;\\n|\\\\\\.\\n|BEGIN |VALUES \\(1\\)){0,40}",
            size in 1usize..20,
        ) {
            let (one, other) = (heard(&text, size), heard(&text, 1 << 20));
            prop_assert_eq!(&one.items, &other.items);
            prop_assert_eq!(&other.bytes, text.as_bytes());
            prop_assert_eq!(one.bytes, other.bytes);
        }
    }
}
