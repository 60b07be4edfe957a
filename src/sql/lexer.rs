//! The lexical structure of a script for psql (chapter "Lexical Structure"; `psqlscan.l`), fed in pieces of any size.
//!
//! Known are comments, strings with and without escapes, quoted identifiers, dollar quotes, the data of `COPY … FROM stdin`,
//! the bodies of `BEGIN ATOMIC`, and psql's own commands, which begin with a backslash anywhere but in these.

use memchr::{memchr, memchr2};

use super::statement::{LONGEST, Statement};

/// What was found, at a place in the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The first byte of a statement.
    Begin,
    /// The byte after a statement's semicolon; [`Lexer::words`] are those of the statement.
    End,
    /// The backslash of a command of psql's.
    Command,
    /// The byte after the line with the command.
    CommandEnd,
    /// A comment to the line's end that stands between statements; the second dash.
    Comment,
    /// The byte after its line.
    CommentEnd,
    /// The first row of `COPY … FROM stdin`.
    Rows,
    /// The byte after the line that ends them; [`Lexer::rows`] is their number.
    RowsEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Plain,
    /// Whether it stands between statements.
    LineComment(bool),
    /// How deep it is nested, and the byte before.
    BlockComment(usize, u8),
    /// Whether a backslash escapes, and whether the next byte is escaped.
    String {
        escapes: bool,
        escaped: bool,
    },
    Identifier,
    /// What may become a dollar quote.
    DollarOpening(Vec<u8>),
    /// The quote that ends it, and how much of that has been seen.
    Dollar(Vec<u8>, Vec<u8>),
    Command,
    /// The start of the line, of which no more is needed than tells it from the end.
    Copy(Vec<u8>),
}

/// Fed with a script from its beginning.
#[derive(Debug)]
pub struct Lexer {
    state: State,
    statement: Statement,
    /// The byte before, outside of everything.
    previous: u8,
    is_statement: bool,
    /// The rows of a COPY begin with the next line.
    rows_follow: bool,
    rows: u64,
    /// A string that may go on after a line end: whether backslashes escape in it, and whether there was a line end.
    may_go_on: Option<(bool, bool)>,
    standard_strings: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            state: State::Plain,
            statement: Statement::default(),
            previous: 0,
            is_statement: false,
            rows_follow: false,
            rows: 0,
            may_go_on: None,
            standard_strings: true,
        }
    }
}

impl Lexer {
    /// The first words of the statement that has just ended, in upper case; what is in quotes is none.
    pub fn words(&self) -> &[String] {
        self.statement.words()
    }

    /// Whether nothing is open: no statement, comment, quote, and no rows.
    pub fn is_between_statements(&self) -> bool {
        !self.is_statement && !self.rows_follow && matches!(self.state, State::Plain | State::LineComment(_))
    }

    /// Whether a statement has begun, and has not ended.
    pub fn is_in_statement(&self) -> bool {
        self.is_statement
    }

    /// Whether the next line is a row, or the end of rows.
    pub fn is_in_rows(&self) -> bool {
        matches!(self.state, State::Copy(_))
    }

    /// How many rows there have been since the last COPY.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows the INSERT names that has just ended, if it says nothing but that.
    pub fn values(&self) -> Option<u64> {
        self.statement.rows()
    }

    /// Takes the next piece, and tells what is in it.
    pub fn feed(&mut self, piece: &[u8], event: &mut impl FnMut(Event, usize, &Self)) {
        let mut at = 0;
        while at < piece.len() {
            let rest = &piece[at..];
            match &mut self.state {
                State::Plain => {
                    self.plain(piece[at], at, event);
                    at += 1;
                }
                State::LineComment(between) => match memchr(b'\n', rest) {
                    // It is white space outside.
                    Some(end) => {
                        let between = *between;
                        self.state = State::Plain;
                        self.previous = 0;
                        at += end;
                        if between {
                            event(Event::CommentEnd, at + 1, self);
                        }
                    }
                    None => return,
                },
                State::BlockComment(depth, previous) => {
                    let byte = piece[at];
                    at += 1;
                    match (*previous, byte) {
                        (b'/', b'*') => (*depth, *previous) = (*depth + 1, 0),
                        (b'*', b'/') if *depth == 1 => self.state = State::Plain,
                        (b'*', b'/') => (*depth, *previous) = (*depth - 1, 0),
                        _ => *previous = byte,
                    }
                }
                State::String { escaped, .. } if *escaped => {
                    *escaped = false;
                    at += 1;
                }
                State::String { escapes, escaped } => {
                    let found = if *escapes { memchr2(b'\'', b'\\', rest) } else { memchr(b'\'', rest) };
                    let Some(end) = found else { return };
                    at += end + 1;
                    if rest[end] == b'\\' {
                        *escaped = true;
                    } else {
                        // Two of them are one in the string: it begins anew at once.
                        self.may_go_on = Some((*escapes, false));
                        self.previous = b'\'';
                        self.state = State::Plain;
                    }
                }
                State::Identifier => match memchr(b'"', rest) {
                    Some(end) => {
                        self.state = State::Plain;
                        at += end + 1;
                    }
                    None => return,
                },
                State::DollarOpening(_) | State::Dollar(..) => match self.dollar(piece, at) {
                    Some(next) => at = next,
                    None => return,
                },
                State::Command => match memchr(b'\n', rest) {
                    Some(end) => {
                        at += end + 1;
                        self.state = State::Plain;
                        event(Event::CommandEnd, at, self);
                        self.begin_rows(at, event);
                    }
                    None => return,
                },
                State::Copy(_) => match self.row(piece, at) {
                    Some(next) => {
                        at = next;
                        if !self.is_in_rows() {
                            event(Event::RowsEnd, at, self);
                        }
                    }
                    None => return,
                },
            }
        }
    }

    /// Where to go on in a dollar quote, or in what may become one.
    fn dollar(&mut self, piece: &[u8], at: usize) -> Option<usize> {
        let byte = piece[at];
        match &mut self.state {
            State::DollarOpening(tag) => {
                let goes_on = is_word(byte) && !(tag.len() == 1 && byte.is_ascii_digit());
                if byte == b'$' {
                    tag.push(byte);
                    self.state = State::Dollar(std::mem::take(tag), Vec::new());
                } else if goes_on && tag.len() < LONGEST {
                    tag.push(byte);
                } else {
                    // It was none, such as $1.
                    self.state = State::Plain;
                    self.previous = b'$';
                    return Some(at);
                }
                Some(at + 1)
            }
            State::Dollar(_, seen) if seen.is_empty() => {
                let start = memchr(b'$', &piece[at..])?;
                seen.push(b'$');
                Some(at + start + 1)
            }
            State::Dollar(tag, seen) if tag.get(seen.len()) == Some(&byte) => {
                seen.push(byte);
                if seen == tag {
                    self.state = State::Plain;
                    self.previous = b'$';
                }
                Some(at + 1)
            }
            State::Dollar(_, seen) => {
                // Another dollar is looked at as the first one.
                seen.clear();
                Some(at)
            }
            _ => Some(at),
        }
    }

    /// Where to go on after a row.
    fn row(&mut self, piece: &[u8], at: usize) -> Option<usize> {
        let State::Copy(start) = &mut self.state else { return Some(at) };
        let rest = &piece[at..];
        let end = memchr(b'\n', rest);
        let line = &rest[..end.unwrap_or(rest.len())];
        let room = 4_usize.saturating_sub(start.len());
        start.extend_from_slice(&line[..line.len().min(room)]);
        let next = at + end? + 1;
        let is_end = start == br"\." || start == b"\\.\r";
        start.clear();
        match is_end {
            true => {
                self.state = State::Plain;
                self.previous = 0;
            }
            false => self.rows += 1,
        }
        Some(next)
    }

    fn plain(&mut self, byte: u8, at: usize, event: &mut impl FnMut(Event, usize, &Self)) {
        let previous = std::mem::replace(&mut self.previous, byte);
        if let Some((escapes, line_end)) = self.may_go_on {
            match byte {
                b'\'' if previous == b'\'' || line_end => {
                    self.may_go_on = None;
                    self.state = State::String { escapes, escaped: false };
                    return;
                }
                b'\n' | b'\r' => self.may_go_on = Some((escapes, true)),
                b' ' | b'\t' => {}
                _ => self.may_go_on = None,
            }
        }
        if is_word(byte) || (byte == b'$' && self.statement.is_in_word()) {
            self.begin(at, event);
            self.statement.add(byte);
            return;
        }
        let word = self.statement.end_word();
        match byte {
            b'\n' => self.begin_rows(at + 1, event),
            b'-' if previous == b'-' => {
                self.state = State::LineComment(!self.is_statement);
                if !self.is_statement {
                    event(Event::Comment, at, self);
                }
            }
            b'*' if previous == b'/' => self.state = State::BlockComment(1, 0),
            // White space; and what begins a comment, or is part of an operator, which follows something else.
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c | b'-' | b'/' => {}
            b'\\' => {
                self.state = State::Command;
                event(Event::Command, at, self);
            }
            b';' if self.statement.may_end() => self.end(at, event),
            _ => {
                self.begin(at, event);
                match byte {
                    b'\'' => {
                        let escapes = word == "E" || !self.standard_strings;
                        self.state = State::String { escapes, escaped: false };
                    }
                    b'"' => self.state = State::Identifier,
                    b'$' => self.state = State::DollarOpening(vec![b'$']),
                    b'(' => self.statement.open_parenthesis(),
                    b')' => self.statement.close_parenthesis(),
                    _ => {}
                }
            }
        }
    }

    fn begin(&mut self, at: usize, event: &mut impl FnMut(Event, usize, &Self)) {
        if !std::mem::replace(&mut self.is_statement, true) {
            self.statement.begin();
            event(Event::Begin, at, self);
        }
    }

    fn end(&mut self, at: usize, event: &mut impl FnMut(Event, usize, &Self)) {
        self.rows_follow |= self.statement.is_copy_from_stdin();
        self.standard_strings = self.statement.standard_strings().unwrap_or(self.standard_strings);
        self.is_statement = false;
        self.statement.end();
        event(Event::End, at + 1, self);
        self.statement.forget();
    }

    /// Those of a COPY begin with the line after its semicolon.
    fn begin_rows(&mut self, at: usize, event: &mut impl FnMut(Event, usize, &Self)) {
        if std::mem::take(&mut self.rows_follow) {
            self.state = State::Copy(Vec::new());
            self.rows = 0;
            event(Event::Rows, at, self);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The statements and commands of a text, given in pieces of this size.
    fn parts(text: &str, size: usize) -> Vec<String> {
        let (mut lexer, mut found, mut start, mut offset) = (Lexer::default(), Vec::new(), 0, 0);
        for piece in text.as_bytes().chunks(size) {
            lexer.feed(piece, &mut |event, at, _| match event {
                Event::Begin | Event::Command => start = offset + at,
                Event::End | Event::CommandEnd => found.push(text[start..offset + at].trim_end().to_owned()),
                _ => {}
            });
            offset += piece.len();
        }
        if !lexer.is_between_statements() {
            found.push("…".to_owned());
        }
        found
    }

    #[test]
    fn what_looks_like_an_end_and_is_none() {
        for statement in [
            "CREATE ROLE \"o'brien\";",
            "CREATE ROLE \"a;\"\"b\";",
            "COMMENT ON ROLE x IS 'a;\n-- b''s \\! x;';",
            "SELECT E'it\\'s; \\\\';",
            "SELECT E'a'\n  'b\\';';",
            "SELECT U&'a\\' ;",
            "SELECT $$ ; ' \\! $x$ $$;",
            "SELECT $a$ $$ ; $b$ $a$;",
            "SELECT a$b$ c;",
            "SELECT $1 + 2;",
            "SELECT 1 -- ; \\! ' \"\n;",
            "SELECT 1 /* ; /* nested ; */ ' \\! */ + 1;",
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b);",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
            "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;",
            "SELECT 5 - -3 / 2 * 1;",
        ] {
            assert_eq!(
                parts(&format!("{statement}\nSELECT 1;\n"), 1),
                [statement, "SELECT 1;"],
                "{statement}"
            );
        }
    }

    #[test]
    fn a_command_is_found_wherever_psql_finds_one() {
        assert_eq!(parts("\\restrict k\nSELECT 1;\n", 3), ["\\restrict k", "SELECT 1;"]);
        assert_eq!(parts("SELECT 1 \\! id\n;", 100)[0], "\\! id");
        assert_eq!(parts("SELECT 1; \\c other\n", 100), ["SELECT 1;", "\\c other"]);
        assert_eq!(parts("SELECT a\\gexec\n", 100)[0], "\\gexec");
        assert!(parts("SELECT '\\! id\n';\n-- \\! id\n", 100).iter().all(|part| !part.starts_with('\\')));
    }

    #[test]
    fn rows_are_no_statements() {
        let text = "COPY t (a) FROM stdin;\n\\! id\n';\n\\N\n\\.x\n\\.\nSELECT 1;\n";
        assert_eq!(parts(text, 2), ["COPY t (a) FROM stdin;", "SELECT 1;"]);
        // What is on the line of the COPY is none of them.
        let text = "COPY t FROM STDIN; \\! id\nrow\n\\.\n";
        assert_eq!(parts(text, 100), ["COPY t FROM STDIN;", "\\! id"]);
        assert_eq!(parts("COPY t TO stdout;\n\\x\n", 100), ["COPY t TO stdout;", "\\x"]);
        assert_eq!(parts("SELECT 'COPY t FROM stdin;';\n\\x\n", 100)[1], "\\x");
    }

    #[test]
    fn a_backslash_escapes_where_strings_are_not_standard() {
        let text = "SET standard_conforming_strings = off;\nSELECT 'it\\'s;';\nSET standard_conforming_strings = on;\nSELECT 'a\\';\n";
        assert_eq!(parts(text, 100).len(), 4, "{:?}", parts(text, 100));
    }

    #[test]
    fn words_tell_the_kind() {
        let mut lexer = Lexer::default();
        let mut words = Vec::new();
        lexer.feed(b"create /* x */ Database \"a b\" OWNER c;", &mut |event, _, lexer| {
            if event == Event::End {
                words = lexer.words().to_vec();
            }
        });
        assert_eq!(words, ["CREATE", "DATABASE", "OWNER", "C"]);
    }

    #[test]
    fn rows_are_counted_wherever_they_are() {
        let counted = |text: &str| {
            let (mut lexer, mut found) = (Lexer::default(), Vec::new());
            lexer.feed(text.as_bytes(), &mut |event, _, lexer| match event {
                Event::End => found.push(lexer.values()),
                Event::RowsEnd => found.push(Some(lexer.rows())),
                _ => {}
            });
            found
        };
        assert_eq!(counted("COPY t FROM stdin;\na\n\n\\N\n\\.\n"), [None, Some(3)]);
        for (text, rows) in [
            ("INSERT INTO t (a, b) VALUES (1, f(2)), ('(', (3)), (4, 5);", Some(3)),
            ("insert into t overriding system value values\n\t(1),\n\t(2);", Some(2)),
            ("INSERT INTO t DEFAULT VALUES;", Some(1)),
            ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING;", None),
            ("INSERT INTO t SELECT 1;", None),
            ("INSERT INTO t VALUES (1) RETURNING (a);", None),
            ("SELECT * FROM (VALUES (1)) AS v;", None),
            ("VALUES (1);", None),
        ] {
            assert_eq!(counted(text), [rows], "{text}");
        }
    }

    #[test]
    fn what_is_open_at_the_end_is_known() {
        for text in ["SELECT 1", "SELECT '", "/* ", "COPY t FROM stdin;\nrow\n", "\\c x", "SELECT $$;"] {
            assert_eq!(parts(text, 1).pop().unwrap(), "…", "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(
            text in "([ab'\"$\\\\;\\n(-] |E'|\\$a\\$|--|/\\*|\\*/|COPY t FROM stdin;\\n|\\\\\\.\\n|BEGIN ){0,40}",
            size in 1usize..20,
        ) {
            prop_assert_eq!(parts(&text, size), parts(&text, 1 << 20));
        }
    }
}
