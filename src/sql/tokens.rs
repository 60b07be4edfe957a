//! The words and names of one statement, and which roles it is about.

/// What a statement is made of, without white space and comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A keyword, or a name without quotes, as PostgreSQL takes it: in lower case.
    Word(String),
    /// A name in quotes.
    Name(String),
    /// A string.
    Text(String),
    /// Anything else.
    Other(char),
}

impl Token {
    /// Whether it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word == keyword)
    }

    /// The name that it is.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Name(name) => Some(name),
            Self::Text(_) | Self::Other(_) => None,
        }
    }
}

/// Takes one statement apart (chapter "Lexical Structure").
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (None, comment(rest)),
            '\'' => {
                let escapes = matches!(tokens.last(), Some(Token::Word(word)) if word == "e")
                    && text[..text.len() - rest.len()].ends_with(['e', 'E']);
                if escapes {
                    tokens.pop();
                }
                let (inner, length) = quoted(rest, '\'', escapes);
                (Some(Token::Text(inner)), length)
            }
            '"' => {
                let (inner, length) = quoted(rest, '"', false);
                (Some(Token::Name(inner)), length)
            }
            '$' => dollar(rest),
            _ if is_word(first) => {
                let end = rest.find(|c| !is_word(c) && c != '$').unwrap_or(rest.len());
                (Some(Token::Word(rest[..end].to_ascii_lowercase())), end)
            }
            _ if first.is_whitespace() => (None, first.len_utf8()),
            _ => (Some(Token::Other(first)), first.len_utf8()),
        };
        tokens.extend(token);
        rest = &rest[length.clamp(1, rest.len())..];
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// The length of a comment, in which there may be others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// What is between quotes, and the length with them.
fn quoted(text: &str, quote: char, escapes: bool) -> (String, usize) {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if escapes => inner.extend(chars.next().map(|(_, c)| c)),
            _ if c == quote && chars.peek().is_some_and(|(_, next)| *next == quote) => {
                chars.next();
                inner.push(quote);
            }
            _ if c == quote => return (inner, at + 1),
            _ => inner.push(c),
        }
    }
    (inner, text.len())
}

fn dollar(text: &str) -> (Option<Token>, usize) {
    let tag = text[1..].find('$').map(|end| &text[..end + 2]);
    let is_tag = |tag: &&str| {
        tag[1..tag.len() - 1].chars().all(is_word) && !tag[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    let Some(tag) = tag.filter(is_tag) else { return (Some(Token::Other('$')), 1) };
    match text[tag.len()..].find(tag) {
        Some(end) => (Some(Token::Text(text[tag.len()..][..end].to_owned())), end + 2 * tag.len()),
        None => (Some(Token::Text(text[tag.len()..].to_owned())), text.len()),
    }
}

/// The roles that must be there for a statement: owners, and those that something is granted to or taken from.
pub fn roles(tokens: &[Token]) -> Vec<String> {
    let at = |keywords: &[&str]| {
        let mut depth = 0_usize;
        tokens.iter().enumerate().find_map(|(number, token)| {
            match token {
                Token::Other('(') => depth += 1,
                Token::Other(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            let found = keywords
                .iter()
                .enumerate()
                .all(|(offset, keyword)| tokens.get(number + offset).is_some_and(|token| token.is(keyword)));
            (found && depth == 0).then_some(number + keywords.len())
        })
    };
    let starts = |keywords: &[&str]| at(keywords) == Some(keywords.len());
    let mut after: Vec<Option<usize>> = Vec::new();
    if starts(&["grant"]) {
        after.extend([at(&["to"]), at(&["granted", "by"])]);
    } else if starts(&["revoke"]) {
        after.extend([at(&["from"]), at(&["granted", "by"])]);
    } else if starts(&["alter", "default", "privileges"]) {
        after.extend([at(&["for", "role"]), at(&["for", "user"]), at(&["to"]), at(&["from"])]);
    } else if starts(&["create", "policy"]) || starts(&["alter", "policy"]) {
        after.push(at(&["to"]));
    } else if starts(&["alter"]) {
        after.push(at(&["owner", "to"]));
    } else if starts(&["create", "schema"]) {
        after.push(at(&["authorization"]));
    } else if starts(&["create", "user", "mapping"]) {
        after.push(at(&["for"]));
    } else if starts(&["set", "session", "authorization"]) {
        after.push(Some(3));
    } else if starts(&["set", "role"]) {
        after.push(Some(2));
    }
    after.into_iter().flatten().flat_map(|start| list(&tokens[start..])).collect()
}

/// What stands for a role without being one.
const NO_ROLES: [&str; 7] =
    ["public", "current_user", "current_role", "session_user", "none", "default", "user"];

/// The roles at the beginning of these, with commas between them.
fn list(tokens: &[Token]) -> Vec<String> {
    let mut roles = Vec::new();
    let mut rest = tokens;
    loop {
        // "TO GROUP a" is how it was once written.
        if let [Token::Word(group), Token::Word(_) | Token::Name(_), ..] = rest
            && group == "group"
        {
            rest = &rest[1..];
        }
        let (role, after) = match rest {
            [Token::Word(word), after @ ..] => {
                ((!NO_ROLES.contains(&word.as_str())).then(|| word.clone()), after)
            }
            [Token::Name(name) | Token::Text(name), after @ ..] => (Some(name.clone()), after),
            _ => return roles,
        };
        roles.extend(role);
        match after {
            [Token::Other(','), after @ ..] => rest = after,
            _ => return roles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_statement_is_taken_apart() {
        let word = |word: &str| Token::Word(word.into());
        let name = |name: &str| Token::Name(name.into());
        let string = |text: &str| Token::Text(text.into());
        assert_eq!(
            tokens("ALTER /* a /* b */ */ Table \"a \"\"B\".é -- x\n, 'it''s' E'\\'' $$a'$$ $x$ $$ $x$ $1;"),
            [
                word("alter"),
                word("table"),
                name("a \"B"),
                Token::Other('.'),
                word("é"),
                Token::Other(','),
                string("it's"),
                string("'"),
                string("a'"),
                string(" $$ "),
                Token::Other('$'),
                word("1"),
                Token::Other(';'),
            ]
        );
    }

    #[test]
    fn owners_and_those_that_something_is_granted_to_are_known() {
        for (text, expected) in [
            ("ALTER TABLE public.t OWNER TO synapse;", &["synapse"][..]),
            ("ALTER FUNCTION public.f(a integer, \"owner to x\" text) OWNER TO \"we ird\";", &["we ird"]),
            ("ALTER TABLE t ADD COLUMN owner text DEFAULT 'OWNER TO x';", &[]),
            (
                "GRANT SELECT ON TABLE public.t TO gone, \"Gone 2\", PUBLIC WITH GRANT OPTION;",
                &["gone", "Gone 2"],
            ),
            ("GRANT SELECT(a),INSERT(b) ON TABLE public.\"to x\" TO a GRANTED BY b;", &["a", "b"]),
            ("REVOKE ALL ON SCHEMA public FROM PUBLIC;", &[]),
            ("REVOKE ALL ON SCHEMA public FROM GROUP ada CASCADE;", &["ada"]),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA public GRANT SELECT ON TABLES TO b;",
                &["a", "b"],
            ),
            ("CREATE POLICY p ON public.t FOR SELECT TO a, b USING ((x = 'TO c'::text));", &["a", "b"]),
            ("CREATE SCHEMA s AUTHORIZATION a;", &["a"]),
            ("CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'b');", &["a"]),
            ("SET SESSION AUTHORIZATION 'a b';", &["a b"]),
            ("SET SESSION AUTHORIZATION DEFAULT;", &[]),
            ("SET ROLE a;", &["a"]),
            ("COMMENT ON TABLE t IS 'OWNER TO a';", &[]),
            ("CREATE TABLE t (a text);", &[]),
        ] {
            assert_eq!(roles(&tokens(text)), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in "([ab'\"$é\\\\;\\n(-] |E'|\\$a\\$|--|/\\*|\\*/|GRANT |TO ){0,40}") {
            roles(&tokens(&text));
        }

        #[test]
        fn a_name_in_quotes_is_itself(name in "[^\\x00]{1,20}") {
            let quoted = name.replace('"', "\"\"");
            prop_assert_eq!(roles(&tokens(&format!("ALTER TABLE t OWNER TO \"{quoted}\";"))), [name]);
        }
    }
}
