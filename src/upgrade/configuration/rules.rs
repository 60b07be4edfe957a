//! pg_hba.conf and pg_ident.conf (hba.c): only which other files they name.

use super::syntax::Include;

/// The files that lines of pg_hba.conf or pg_ident.conf name: `@file` in place of a name, and since PostgreSQL 16
/// the directives.
pub(super) fn named(text: &str) -> Vec<(Include, String)> {
    let mut named = Vec::new();
    for line in text.lines() {
        let words = words(line);
        let directives = [Include::File, Include::FileIfThere, Include::Directory];
        match words.as_slice() {
            [first, path, ..] if directives.iter().any(|what| what.name() == first) => {
                let what = directives.into_iter().find(|what| what.name() == first);
                named.extend(what.map(|what| (what, path.clone())));
            }
            words => {
                let files = words.iter().filter_map(|word| word.strip_prefix('@'));
                named.extend(
                    files.filter(|file| !file.is_empty()).map(|file| (Include::File, file.to_owned())),
                );
            }
        }
    }
    named
}

/// Words between blanks and commas, up to a comment. Quotes keep blanks in a word; one that begins with a quote
/// is never a file, which is told by a space before it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut in_quotes) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        match letter {
            '"' => {
                if word.is_empty() && !in_quotes {
                    word.push(' ');
                }
                in_quotes = !in_quotes;
            }
            '#' if !in_quotes => break,
            letter if !in_quotes && (letter == ',' || letter.is_whitespace()) => {
                words.push(std::mem::take(&mut word));
            }
            letter => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    // The path of a directive may be in quotes.
    if let [_, path, ..] = words.as_mut_slice()
        && let Some(unmarked) = path.strip_prefix(' ').filter(|path| !path.starts_with('@'))
    {
        *path = unmarked.to_owned();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_names() {
        let files = |text: &str| named(text).into_iter().map(|(_, file)| file).collect::<Vec<_>>();
        assert_eq!(files("local @databases ada,@users peer # @not"), ["databases", "users"]);
        assert_eq!(files("host \"@name\" @\"a file\" samenet scram-sha-256"), ["a file"]);
        assert_eq!(
            named("include_if_exists \"more hba\"\ninclude_dir hba.d"),
            [(Include::FileIfThere, "more hba".to_owned()), (Include::Directory, "hba.d".to_owned())]
        );
        assert!(files("local all all peer\n\n#include x\nlocal @ x peer").is_empty());
    }
}
