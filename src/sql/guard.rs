//! What may reach a server of a script that somebody else wrote.
//!
//! It is loaded into one database that is made for it. Commands of psql's would lead it into another one, or run a program;
//! statements about databases and roles would change those that are there.

use super::output::Output;
use super::refusal::Refusal;
use super::script::{Item, Script, Visitor};
use super::tokens::Token;

/// Of a command no more than its name is told.
const LONGEST_NAME: usize = 16;

/// Encodings of clients whose characters may hold a backslash (chapter "Character Set Support").
const CLIENT_ONLY: [&str; 8] =
    ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "MSKANJI"];

/// Fed with a script; hands on what is not psql's own, and refuses its commands. Statements may be of any kind.
#[derive(Debug, Default)]
pub struct Guard {
    script: Script,
    judge: Judge,
}

#[derive(Debug, Default)]
struct Judge(Output);

impl Guard {
    /// Takes the next piece, and appends to `kept` what a server gets of it: all but `\restrict` and `\unrestrict`, by which
    /// pg_dump protects those who load its scripts without us. A statement that is open is not handed on yet.
    pub fn feed(&mut self, piece: &[u8], kept: &mut Vec<u8>) {
        self.script.feed(piece, &mut self.judge);
        self.judge.0.append_to(kept);
    }

    /// What is left; or why the script must not be loaded, and in which line.
    ///
    /// # Errors
    /// The first reason.
    pub fn finish(mut self, kept: &mut Vec<u8>) -> Result<(), (usize, Refusal)> {
        self.script.finish(&mut self.judge);
        self.judge.0.append_to(kept);
        self.judge.0.refused().cloned().map_or(Ok(()), Err)
    }
}

impl Visitor for Judge {
    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Comment(_) | Item::Data | Item::Statement { .. } => self.0.keeps = true,
            Item::Command(text) => {
                self.0.keeps = false;
                if let Some(refusal) = refused_command(text) {
                    self.0.refuse(text, refusal);
                }
            }
            Item::End(_) | Item::Rows(_) => {}
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
    }
}

/// More of a statement is not needed to know what it is about.
const LONGEST_UNDERSTOOD: usize = 16 * 1024;

/// So much of a statement as is needed to know what it is about.
pub fn beginning(text: &[u8]) -> &[u8] {
    &text[..text.len().min(LONGEST_UNDERSTOOD)]
}

/// What is shared by all databases.
const SHARED: [&str; 7] = ["database", "role", "user", "group", "tablespace", "parameter", "system"];

/// What a statement says of databases, roles and the like: `DROP DATABASE`, `GRANT … ON DATABASE`, `GRANT …` of a role.
pub fn about_shared(tokens: &[Token]) -> Option<String> {
    let word = |number: usize| {
        tokens.get(number).map_or("", |token| match token {
            Token::Word(word) => word.as_str(),
            _ => "",
        })
    };
    let shared = |number: usize| SHARED.contains(&word(number)).then(|| word(number));
    let on = tokens.iter().position(|token| token.is("on"));
    let (verb, found) = match word(0) {
        verb @ ("create" | "alter" | "drop") if word(2) != "mapping" => {
            (verb, shared(1).map(|kind| format!(" {kind}")))
        }
        verb @ "comment" => (verb, shared(2).map(|kind| format!(" on {kind}"))),
        verb @ ("grant" | "revoke" | "security") => {
            let found = match on {
                Some(on) => shared(on + 1).map(|kind| format!(" on {kind}")),
                None => Some(" of a role".to_owned()),
            };
            (verb, found)
        }
        verb @ "update" => {
            let names = tokens.iter().skip(1).take_while(|token| !token.is("set"));
            let is_shared =
                names.filter_map(Token::name).any(|name| name == "pg_database" || name == "pg_authid");
            (verb, is_shared.then(|| " of the catalog".to_owned()))
        }
        verb => (verb, None),
    };
    found.map(|found| format!("{verb}{found}").to_ascii_uppercase())
}

/// Why a statement is not carried out; its first words, as [`super::Lexer::words`], and its tokens.
pub fn refused_statement(words: &[String], tokens: &[Token]) -> Option<Refusal> {
    let word = |number: usize| words.get(number).map_or("", String::as_str);
    if let Some(kind) = about_shared(tokens) {
        return Some(Refusal::Statement(kind));
    }
    // In a long comment in front of it.
    if let ("CREATE" | "ALTER" | "DROP", "DATABASE" | "ROLE" | "TABLESPACE" | "SYSTEM") = (word(0), word(1)) {
        return Some(Refusal::Statement(format!("{} {}", word(0), word(1))));
    }
    // Where a string ends depends on this setting, and must be where the lexer takes it to end.
    let of_strings = |token: &Token| match token {
        Token::Word(name) | Token::Name(name) | Token::Text(name) => name == "standard_conforming_strings",
        Token::Other(_) => false,
    };
    match (word(0), word(1)) {
        ("ROLLBACK" | "ABORT" | "DISCARD", _) => return Some(Refusal::Statement(word(0).to_owned())),
        // They reach what is shared.
        ("DROP" | "REASSIGN", "OWNED") => {
            return Some(Refusal::Statement(format!("{} OWNED", word(0))));
        }
        ("RESET", "ALL") => return Some(Refusal::Statement("RESET ALL".to_owned())),
        ("SELECT" | "RESET", _) if tokens.iter().any(of_strings) => {
            return Some(Refusal::Statement(format!("{} standard_conforming_strings", word(0))));
        }
        ("SET", _) => {}
        _ => return None,
    }
    match tokens.iter().filter_map(Token::name).nth(1) {
        Some("client_encoding" | "names") => {
            let client_only = tokens.iter().any(|token| match token {
                Token::Word(text) | Token::Text(text) | Token::Name(text) => {
                    CLIENT_ONLY.contains(&text.to_ascii_uppercase().as_str())
                }
                Token::Other(_) => false,
            });
            client_only.then_some(Refusal::Encoding)
        }
        Some(_) if is_plain_setting_of_strings(words) => None,
        Some(_) => tokens
            .iter()
            .any(of_strings)
            .then(|| Refusal::Statement("SET standard_conforming_strings".to_owned())),
        _ => None,
    }
}

/// `SET standard_conforming_strings = on`, as pg_dump writes it, and as the lexer understands it.
pub fn is_plain_setting_of_strings(words: &[String]) -> bool {
    match words {
        [set, name, value] => {
            set == "SET" && name == "STANDARD_CONFORMING_STRINGS" && (value == "ON" || value == "OFF")
        }
        _ => false,
    }
}

/// The words of a command of psql's.
pub fn command(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().to_owned()
}

/// Why a command is not left out; nothing, if it is pg_dump's own protection.
pub fn refused_command(text: &[u8]) -> Option<Refusal> {
    let text = command(text);
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
    use crate::sql::tokens;

    /// Minds statements, too.
    #[derive(Default)]
    struct Both(Judge);

    impl Visitor for Both {
        fn item(&mut self, item: Item<'_>) {
            self.0.item(item);
            if let Item::Statement { text, words, .. } = item
                && let Some(refusal) =
                    refused_statement(words, &tokens(&String::from_utf8_lossy(beginning(text))))
            {
                self.0.0.refuse(text, refusal);
            }
        }

        fn bytes(&mut self, bytes: &[u8]) {
            self.0.bytes(bytes);
        }
    }

    fn guard(text: &str, size: usize) -> (String, Option<(usize, Refusal)>) {
        let (mut script, mut both, mut kept) = (Script::default(), Both::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            script.feed(piece, &mut both);
        }
        script.finish(&mut both);
        both.0.0.append_to(&mut kept);
        (String::from_utf8(kept).unwrap(), both.0.0.refused().cloned())
    }

    #[test]
    fn what_pg_dump_writes_passes_but_for_its_own_protection() {
        let text = "\\restrict aB3\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\nGRANT SELECT ON TABLE public.t TO a;\nCOPY public.t (a) FROM stdin;\n\\N\n\\.\n\nCREATE USER MAPPING FOR a SERVER b;\n\\unrestrict aB3\n";
        for size in [1, 7, 1000] {
            let (kept, refused) = guard(text, size);
            assert_eq!(refused, None);
            assert_eq!(kept, text.replace("\\restrict aB3\n", "\n").replace("\n\\unrestrict aB3\n", "\n"));
        }
    }

    #[test]
    fn what_is_left_out_moves_nothing_to_another_line() {
        let text = "COPY t FROM stdin; \\restrict k\nDROP DATABASE live;\n\\.\n";
        assert_eq!(guard(text, 5), ("COPY t FROM stdin;\nDROP DATABASE live;\n\\.\n".to_owned(), None));
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
            ("SET NAMES 'gbk';", 1, Refusal::Encoding),
            // psql carries out what is left at the end.
            ("SELECT 1;\nDROP DATABASE live", 2, Refusal::Statement("DROP DATABASE".into())),
            ("GRANT postgres TO thief;", 1, Refusal::Statement("GRANT OF A ROLE".into())),
            ("REVOKE ALL ON DATABASE live FROM PUBLIC;", 1, Refusal::Statement("REVOKE ON DATABASE".into())),
            ("COMMENT ON ROLE x IS 'y';", 1, Refusal::Statement("COMMENT ON ROLE".into())),
            (
                "UPDATE pg_catalog.pg_database SET datistemplate = false;",
                1,
                Refusal::Statement("UPDATE OF THE CATALOG".into()),
            ),
            ("REASSIGN OWNED BY a TO b;", 1, Refusal::Statement("REASSIGN OWNED".into())),
            ("BEGIN;ROLLBACK;", 1, Refusal::Statement("ROLLBACK".into())),
            (
                "SELECT set_config('standard_conforming_strings', 'off', false);",
                1,
                Refusal::Statement("SELECT standard_conforming_strings".into()),
            ),
            (
                "SET standard_conforming_strings TO 'off'; SELECT 'a\\''; DROP DATABASE live; --'",
                1,
                Refusal::Statement("SET standard_conforming_strings".into()),
            ),
        ] {
            for size in [1, 1000] {
                assert_eq!(guard(text, size).1, Some((line, refusal.clone())), "{text:?}, {size}");
            }
        }
    }
}
