//! postgresql.conf, line by line, as the server's own scanner reads it (guc-file.l): a name, a value after it
//! with or without `=`, and a comment. No line continues another one.

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing: it is empty, or a comment.
    Nothing,
    /// A setting, with its name as it was written and its value without quotes.
    Setting { name: String, value: String },
    /// More lines are elsewhere.
    Include { what: Include, path: String },
    /// What the server takes for a syntax error.
    Wrong,
}

/// The directives that name other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    /// `include`: it must be there.
    File,
    /// `include_if_exists`
    FileIfThere,
    /// `include_dir`: its files `*.conf`, in the order of their names.
    Directory,
}

impl Include {
    /// The directive's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::File => "include",
            Self::FileIfThere => "include_if_exists",
            Self::Directory => "include_dir",
        }
    }
}

/// Reads one line, without its line end.
pub(super) fn line(text: &str) -> Line {
    let text = text.trim_matches(BLANK);
    if text.is_empty() || text.starts_with('#') {
        return Line::Nothing;
    }
    let end = text.find(|c: char| !is_of_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.starts_with(|c: char| c.is_ascii_digit() || c == '.') || name.is_empty() {
        return Line::Wrong;
    }
    let rest = rest.trim_start_matches(BLANK);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start_matches(BLANK);
    let Some((value, rest)) = value(rest) else { return Line::Wrong };
    let rest = rest.trim_start_matches(BLANK);
    if !rest.is_empty() && !rest.starts_with('#') {
        return Line::Wrong;
    }
    let includes = [Include::File, Include::FileIfThere, Include::Directory];
    match includes.into_iter().find(|include| include.name().eq_ignore_ascii_case(name)) {
        Some(what) => Line::Include { what, path: value },
        None => Line::Setting { name: name.to_owned(), value },
    }
}

const BLANK: [char; 3] = [' ', '\t', '\r'];

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.' || !c.is_ascii()
}

/// The value at the beginning, and what comes after it.
fn value(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('\'') {
        return string(quoted);
    }
    let end = text.find(|c: char| !(is_of_name(c) || "-+:/".contains(c))).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// The rest of a string, after its first quote: `''` and `\'` are quotes in it.
fn string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' if letters.next_if(|(_, next)| *next == '\'').is_some() => value.push('\''),
            '\'' => return Some((value, &text[at + 1..])),
            '\\' => {
                let (_, escaped) = letters.next()?;
                value.push(match escaped {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0'..='7' => {
                        let mut code = escaped.to_digit(8)?;
                        for _ in 0..2 {
                            let Some((_, digit)) = letters.next_if(|(_, next)| next.is_digit(8)) else {
                                break;
                            };
                            code = code * 8 + digit.to_digit(8)?;
                        }
                        char::from(u8::try_from(code & 0xff).ok()?)
                    }
                    other => other,
                });
            }
            other => value.push(other),
        }
    }
    None
}

/// A value in quotes.
pub(in crate::upgrade) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The elements of a value that is a list, such as `shared_preload_libraries`.
pub(super) fn list(value: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let (mut in_quotes, mut letters) = (false, value.chars().peekable());
    while let Some(letter) = letters.next() {
        let Some(element) = elements.last_mut() else { break };
        match letter {
            '"' if in_quotes && letters.next_if_eq(&'"').is_some() => element.push('"'),
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => elements.push(String::new()),
            letter if letter.is_whitespace() && !in_quotes => {}
            letter => element.push(letter),
        }
    }
    elements.retain(|element| !element.is_empty());
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(text: &str) -> (String, String) {
        match line(text) {
            Line::Setting { name, value } => (name, value),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn settings_in_every_spelling() {
        for (text, name, value) in [
            ("work_mem = 4MB", "work_mem", "4MB"),
            ("work_mem=4MB#small", "work_mem", "4MB"),
            ("  Work_Mem\t 4MB  # no equals sign\r", "Work_Mem", "4MB"),
            ("a = -1.5e-3", "a", "-1.5e-3"),
            ("a = 0x1F", "a", "0x1F"),
            ("a = +3", "a", "+3"),
            ("log_timezone = Europe/Berlin", "log_timezone", "Europe/Berlin"),
            ("a='it''s' # x", "a", "it's"),
            (r"a = 'it\'s \\ \101 \n'", "a", "it's \\ A \n"),
            ("a = '# no comment'", "a", "# no comment"),
            ("a = ''", "a", ""),
            ("pg_stat_statements.max = 10000", "pg_stat_statements.max", "10000"),
            // The server does not know continued lines: this is a value that ends in a backslash.
            (r"a = 'x\\'", "a", "x\\"),
        ] {
            assert_eq!(setting(text), (name.to_owned(), value.to_owned()), "{text}");
        }
    }

    #[test]
    fn includes_and_what_is_no_setting() {
        let include = |what, path: &str| Line::Include { what, path: path.into() };
        assert_eq!(line("include 'a b.conf'"), include(Include::File, "a b.conf"));
        assert_eq!(line("INCLUDE_IF_EXISTS = 'x'"), include(Include::FileIfThere, "x"));
        assert_eq!(line("include_dir = conf.d # there"), include(Include::Directory, "conf.d"));
        for text in ["", " \t", "# work_mem = 4MB", "   #x", "\r"] {
            assert_eq!(line(text), Line::Nothing, "{text:?}");
        }
        for text in ["work_mem", "work_mem =", "a = 'open", "a = b c", "= 4", "4 = 5", r"a = 'x\", "a = x \\"]
        {
            assert_eq!(line(text), Line::Wrong, "{text}");
        }
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for value in ["", "it's", r"C:\x", "ä # '' \\'"] {
            assert_eq!(setting(&format!("a = {}", quoted(value))).1, value);
        }
    }

    #[test]
    fn lists_have_elements_in_quotes_or_not() {
        assert_eq!(
            list("pg_stat_statements, \"auto, explain\",x"),
            ["pg_stat_statements", "auto, explain", "x"]
        );
        assert!(list(" ").is_empty());
        assert_eq!(list("\"a\"\"b\""), ["a\"b"]);
    }
}
