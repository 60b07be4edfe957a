//! What may reach a server of a script that somebody else wrote.
//!
//! It is loaded into one database that is made for it. Commands of psql's would lead it into another one, or run a program;
//! statements about databases and roles would change those that are there.

use std::fmt;

use super::lexer::{Event, Lexer};

/// Of a command no more than its name is told.
const LONGEST_NAME: usize = 16;

/// More of a command is not needed to understand it.
const LONGEST_COMMAND: usize = 256;

/// Why a script is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It has this command of psql's, such as `\connect`.
    Command(String),
    /// It has a statement of this kind, such as `DROP DATABASE`.
    Statement(String),
    /// Its encoding is one in which a backslash may be part of a character.
    Encoding,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(name) => write!(f, "it has the command {name} of psql's, which is not carried out"),
            Self::Statement(kind) => {
                write!(f, "it has a statement {kind}, which is not for a restore of one database")
            }
            Self::Encoding => {
                write!(f, "its encoding is for clients only; pg_dump --encoding=UTF8 writes another")
            }
        }
    }
}

/// Encodings of clients whose characters may hold a backslash (chapter "Character Set Support").
const CLIENT_ONLY: [&str; 8] =
    ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "MSKANJI"];

/// Fed with a script; hands on what is not psql's own.
#[derive(Debug, Default)]
pub struct Guard {
    lexer: Lexer,
    /// Statements may be of any kind.
    commands_only: bool,
    /// What was seen of the command that we are in.
    command: Option<Vec<u8>>,
    /// The first line of a script is the first.
    line: usize,
    refused: Option<(usize, Refusal)>,
}

impl Guard {
    /// One that minds only commands of psql's.
    pub fn commands_only() -> Self {
        Self { commands_only: true, ..Self::default() }
    }

    /// Takes the next piece, and appends to `kept` what a server gets of it: all but `\restrict` and `\unrestrict`, by which
    /// pg_dump protects those who load its scripts without us.
    pub fn feed(&mut self, piece: &[u8], kept: &mut Vec<u8>) {
        let Self { lexer, commands_only, command, line, refused } = self;
        let mut start = 0;
        let mut note = |found: Option<Refusal>, line: usize, at: usize| {
            if let (Some(found), None) = (found, &refused) {
                *refused = Some((line + memchr::memchr_iter(b'\n', &piece[..at]).count() + 1, found));
            }
        };
        lexer.feed(piece, &mut |event, at, lexer| match event {
            Event::Begin => {}
            Event::End if *commands_only => {}
            Event::End => note(statement(lexer.words(), &piece[start.min(at)..at]), *line, at - 1),
            Event::Command => {
                kept.extend_from_slice(&piece[start..at]);
                start = at;
                *command = Some(Vec::new());
            }
            Event::CommandEnd => {
                let mut text = command.take().unwrap_or_default();
                append(&mut text, &piece[start..at]);
                start = at;
                note(refused_command(&text), *line, at - 1);
            }
        });
        match command {
            Some(text) => append(text, &piece[start..]),
            None => kept.extend_from_slice(&piece[start..]),
        }
        *line += memchr::memchr_iter(b'\n', piece).count();
    }

    /// What must not be loaded, and in which line.
    pub fn refused(&self) -> Option<&(usize, Refusal)> {
        self.refused.as_ref()
    }

    /// Why the script must not be loaded, if so; a command without a line end is one, too.
    pub fn finish(self) -> Option<(usize, Refusal)> {
        let open =
            self.command.and_then(|text| refused_command(&text)).map(|refusal| (self.line + 1, refusal));
        self.refused.or(open)
    }
}

fn append(text: &mut Vec<u8>, piece: &[u8]) {
    let room = LONGEST_COMMAND.saturating_sub(text.len());
    text.extend_from_slice(&piece[..piece.len().min(room)]);
}

fn statement(words: &[String], text: &[u8]) -> Option<Refusal> {
    let word = |number: usize| words.get(number).map_or("", String::as_str);
    let kind = || Some(Refusal::Statement(format!("{} {}", word(0), word(1))));
    match (word(0), word(1)) {
        ("CREATE" | "ALTER" | "DROP", "DATABASE" | "ROLE" | "USER" | "GROUP" | "TABLESPACE")
            if word(2) != "MAPPING" =>
        {
            kind()
        }
        ("ALTER", "SYSTEM") => kind(),
        ("SET", "CLIENT_ENCODING") => {
            let text = String::from_utf8_lossy(text).to_ascii_uppercase();
            let client_only = CLIENT_ONLY.iter().any(|name| text.contains(&format!("'{name}'")));
            client_only.then_some(Refusal::Encoding)
        }
        _ => None,
    }
}

fn refused_command(text: &[u8]) -> Option<Refusal> {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_whitespace();
    let (name, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_key =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()) && words.next().is_none();
    match name {
        r"\restrict" | r"\unrestrict" if is_key => None,
        _ => {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
            Some(Refusal::Command(shown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(text: &str, size: usize) -> (String, Option<(usize, Refusal)>) {
        let (mut guard, mut kept) = (Guard::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            guard.feed(piece, &mut kept);
        }
        (String::from_utf8(kept).unwrap(), guard.finish())
    }

    #[test]
    fn what_pg_dump_writes_passes_but_for_its_own_protection() {
        let text = "\\restrict aB3\n\nSET client_encoding = 'UTF8';\nCOPY public.t (a) FROM stdin;\n\\N\n\\.\n\nCREATE USER MAPPING FOR a SERVER b;\n\\unrestrict aB3\n";
        for size in [1, 7, 1000] {
            let (kept, refused) = guard(text, size);
            assert_eq!(refused, None);
            assert_eq!(kept, text.replace("\\restrict aB3\n", "").replace("\\unrestrict aB3\n", ""));
        }
    }

    #[test]
    fn what_is_not_for_one_database_is_refused_by_its_line_and_kind() {
        for (text, line, refusal) in [
            ("SELECT 1;\n\\! id\n", 2, Refusal::Command("\\!".into())),
            ("SELECT 1 \\! id\n;\n", 1, Refusal::Command("\\!".into())),
            ("SELECT 1\\gexec\n", 1, Refusal::Command("\\gexec".into())),
            ("\n\n\\c live", 3, Refusal::Command("\\c".into())),
            ("\\restrict a; \\! id\n", 1, Refusal::Command("\\restrict".into())),
            ("\\restrict 'a\n", 1, Refusal::Command("\\restrict".into())),
            ("a;\ndrop /* */ database live;", 2, Refusal::Statement("DROP DATABASE".into())),
            ("CREATE ROLE x PASSWORD 'secret';", 1, Refusal::Statement("CREATE ROLE".into())),
            ("ALTER SYSTEM SET a = b;", 1, Refusal::Statement("ALTER SYSTEM".into())),
            ("SET client_encoding = 'sjis';", 1, Refusal::Encoding),
        ] {
            for size in [1, 1000] {
                // Words of an encoding are looked for in one piece only; dumps are fed in large ones.
                if refusal == Refusal::Encoding && size == 1 {
                    continue;
                }
                assert_eq!(guard(text, size).1, Some((line, refusal.clone())), "{text:?}, {size}");
            }
        }
    }
}
