//! Just enough of SQL's lexical structure (chapter of that name) to take apart what pg_dump and pg_dumpall write:
//! whatever is quoted stays one piece, so that nothing in a function's body or in a comment passes for a statement.

use crate::archive::digest::Hasher;

/// What a piece of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key word, a bare name or a number.
    Word,
    /// A name in double quotes.
    Name,
    /// A string in any of its forms.
    Text,
    /// One character of an operator or of punctuation.
    Mark,
    /// From `--` to the end of the line.
    Comment,
}

/// A piece of SQL, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
}

impl<'a> Token<'a> {
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    pub(super) fn is_mark(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }

    /// A name without the quotes that it does not need. Which words need them, each major has its own opinion on.
    fn plain(&self) -> &'a str {
        let inner = self.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let simple = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        match inner {
            Some(inner) if self.kind == Kind::Name && inner.bytes().all(simple) => inner,
            _ => self.text,
        }
    }

    /// The name itself, as the catalog has it.
    pub(super) fn name(&self) -> String {
        match self.text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(inner) if self.kind == Kind::Name => inner.replace("\"\"", "\""),
            _ => self.text.to_owned(),
        }
    }
}

/// Takes SQL apart. psql's own commands (`\connect`, `\restrict`) are left out.
///
/// # Errors
/// A sentence, if the text ends within quotes.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let begins_line = at == 0 || bytes[at - 1] == b'\n';
        let rest = &text[at..];
        let (kind, length) = match byte {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'\\' if begins_line => {
                at += line(rest);
                continue;
            }
            b'-' if rest.starts_with("--") => (Kind::Comment, line(rest)),
            b'\'' => (Kind::Text, quoted(rest, 1, b'\'', false)?),
            b'E' if rest.starts_with("E'") => (Kind::Text, quoted(rest, 2, b'\'', true)?),
            b'"' => (Kind::Name, quoted(rest, 1, b'"', false)?),
            b'$' => match dollar_quoted(rest)? {
                Some(length) => (Kind::Text, length),
                None => (Kind::Mark, 1),
            },
            b if b.is_ascii_digit() => (Kind::Word, span(rest, |b| b.is_ascii_alphanumeric() || b == b'.')),
            b if is_in_word(b) => (Kind::Word, span(rest, |b| is_in_word(b) || b == b'$')),
            _ => (Kind::Mark, 1),
        };
        tokens.push(Token { kind, text: &rest[..length] });
        at += length;
    }
    Ok(tokens)
}

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn span(text: &str, belongs: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|b| !belongs(b)).unwrap_or(text.len())
}

fn line(text: &str) -> usize {
    span(text, |b| b != b'\n')
}

/// The length of what is quoted from the start of `text`, whose first `opening` bytes open it.
fn quoted(text: &str, opening: usize, quote: u8, escapes: bool) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let mut at = opening;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            b if b == quote && bytes.get(at + 1) == Some(&quote) => 2,
            b if b == quote => return Ok(at + 1),
            _ => 1,
        };
    }
    Err("it ends within quotes".to_owned())
}

/// The length of a string in dollar quotes, if one begins here.
fn dollar_quoted(text: &str) -> Result<Option<usize>, String> {
    let tag = 1 + span(&text[1..], is_in_word);
    if text.as_bytes().get(tag) != Some(&b'$') || text.as_bytes()[1].is_ascii_digit() {
        return Ok(None);
    }
    let (opening, body) = text.split_at(tag + 1);
    match body.find(opening) {
        Some(length) => Ok(Some(2 * opening.len() + length)),
        None => Err("it ends within dollar quotes".to_owned()),
    }
}

/// Statements, without the semicolons. In a function whose body is SQL (`BEGIN ATOMIC`) they are parts of one.
pub(super) fn statements<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t [Token<'a>]> {
    tokens.split(|token| token.is_mark(";")).filter(|statement| !statement.is_empty())
}

/// The tokens with one space between them, whatever there was.
pub(super) fn text<'a>(tokens: impl IntoIterator<Item = Token<'a>>) -> String {
    let mut text = String::new();
    for token in tokens {
        let joins = |c: char| ".(".contains(c);
        let joined = text.ends_with(joins) || [".", ",", ")", "("].contains(&token.text);
        if !(text.is_empty() || joined && token.kind == Kind::Mark || text.ends_with(joins)) {
            text.push(' ');
        }
        text.push_str(token.plain());
    }
    text
}

/// Without the parentheses and the names of tables before those of columns, which majors write as they like: 16
/// leaves the latter out where it can.
pub(super) fn blurred(tokens: &[Token<'_>]) -> String {
    let mut kept = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let qualifies = matches!(token.kind, Kind::Word | Kind::Name)
            && tokens.get(at + 1).is_some_and(|next| next.is_mark("."));
        if !qualifies && !["(", ")", "."].iter().any(|mark| token.is_mark(mark)) {
            kept.push(*token);
        }
    }
    text(kept)
}

/// SHA-256 of a text.
pub(super) fn digest(text: &str) -> String {
    let mut hasher = Hasher::default();
    hasher.update(text.as_bytes());
    hasher.finish().sha256
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        tokens(sql).unwrap().into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn what_is_quoted_is_one_piece() {
        assert_eq!(
            texts("a 'b;''c' E'd\\'; e' \"f\"\"; g\" $x$;'$$;$x$ $1 1.5e3 -- h\n\\restrict i\nj"),
            ["a", "'b;''c'", "E'd\\'; e'", "\"f\"\"; g\"", "$x$;'$$;$x$", "$", "1", "1.5e3", "-- h", "j"]
        );
        for cut in ["'a", "E'a\\'", "\"a", "$$a", "$x$a$$"] {
            assert!(tokens(cut).is_err(), "{cut}");
        }
    }

    #[test]
    fn quotes_and_spaces_that_mean_nothing_go() {
        let normal = |sql| text(tokens(sql).unwrap());
        assert_eq!(normal("GRANT ALL\n  ON \"user\" TO \"A b\""), "GRANT ALL ON user TO \"A b\"");
        assert_eq!(normal("f( a , 'b  c')"), "f(a, 'b  c')");
        let blurry = |sql| blurred(&tokens(sql).unwrap());
        assert_eq!(
            blurry("SELECT e.id FROM public.e WHERE (e.a = 1.5)"),
            blurry("SELECT id FROM e WHERE a = 1.5")
        );
    }
}
