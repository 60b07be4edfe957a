//! pg_hba.conf and pg_ident.conf (hba.c): which other files they name, and which methods a version does not have any more.
//! A server reads them after its settings, and does not start with a line that it does not understand.

use std::net::IpAddr;

use super::syntax::Include;
use crate::postgres::Major;

/// Methods that are gone, and since when.
const GONE: [(&str, Major); 1] = [("radius", Major(19))];

/// Options that are gone: since 14 there are `verify-ca` and `verify-full` only.
const CERTIFICATES: (&str, [&str; 3], Major) = ("clientcert=", ["0", "1", "no-verify"], Major(14));

/// What version `to` does not know of the lines of pg_hba.conf: the line, from 1 on, and the words.
pub(super) fn refused(text: &str, to: Major) -> Vec<(usize, String)> {
    let mut refused = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = fields(line);
        let host = words.first().is_some_and(|kind| kind.starts_with("host"));
        // An address without the number of its bits is followed by a mask.
        let masked = host && words.get(3).is_some_and(|address| address.parse::<IpAddr>().is_ok());
        let at = match words.first().map(String::as_str) {
            Some("local") => 3,
            Some(_) if host => 4 + usize::from(masked),
            _ => continue,
        };
        let Some((method, options)) = words.get(at..).and_then(<[String]>::split_first) else { continue };
        let gone = GONE.iter().any(|(gone, since)| method == gone && to >= *since);
        refused.extend(gone.then(|| (index + 1, method.clone())));
        let (name, values, since) = CERTIFICATES;
        let option = options.iter().find(|option| {
            option.strip_prefix(name).is_some_and(|value| values.contains(&value)) && to >= since
        });
        refused.extend(option.map(|option| (index + 1, option.clone())));
    }
    refused
}

/// The fields of a line, without quotes: those between blanks, where no comma continues them.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut in_quotes) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        match letter {
            '"' => in_quotes = !in_quotes,
            '#' if !in_quotes => break,
            letter if !in_quotes && letter.is_whitespace() => {
                if !field.is_empty() && !field.ends_with(',') {
                    fields.push(std::mem::take(&mut field));
                }
            }
            letter => field.push(letter),
        }
    }
    fields.push(field);
    fields.retain(|field| !field.is_empty());
    fields
}

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
    fn methods_that_are_gone_are_told_from_names() {
        let text = "local radius radius peer\nhost all all 10.0.0.0/8 radius radiusservers=\"a\"\n\
                    hostssl a, b all 10.0.0.0 255.0.0.0 radius # x\n#local all all radius\n\
                    host all radius samenet md5\nhostssl all all ::1/128 cert clientcert=1\nlocal x radius\n\
                    hostssl all all all scram-sha-256 clientcert=verify-ca\nlocal all \"a radius\" radius";
        let lines = |to| refused(text, Major(to)).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines(19), [2, 3, 6, 9]);
        assert_eq!(lines(18), [6]);
        assert!(lines(13).is_empty());
        assert_eq!(refused(text, Major(14)), [(6, "clientcert=1".to_owned())]);
    }

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
