//! What is printed on one machine and on another.

use std::collections::BTreeMap;

/// Whether this was printed, as far as the page says; see the head of `pages.rs`.
pub fn are(expected: &str, said: &str) -> bool {
    let expected: Vec<_> = expected.trim_end().lines().map(without_numbers).collect();
    let said: Vec<_> = said.trim_end().lines().map(without_numbers).collect();
    lines(&expected, &said)
}

fn lines(expected: &[String], said: &[String]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=said.len()).any(|skipped| lines(rest, &said[skipped..]))
        }
        Some((first, rest)) => {
            said.split_first().is_some_and(|(line, more)| within(first, line) && lines(rest, more))
        }
    }
}

/// `…` is any text.
fn within(expected: &str, said: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| said.strip_prefix(first)) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

const DAYS: [&str; 6] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Digits and what stands between them in a number, a gap and its width, a rule and its length.
fn without_numbers(line: &str) -> String {
    let mut plain = String::new();
    for c in line.trim_end().chars() {
        let c = match c {
            '0'..='9' => '0',
            '─' => '-',
            other => other,
        };
        let repeated = plain.ends_with(c) && matches!(c, '0' | ' ' | '-');
        if !repeated {
            plain.push(c);
        }
    }
    // 1.5 GB is as good as 980 MB, and 3 s as 0.9 s.
    let plain = plain.replace("0.0", "0");
    let plain = ["kB", "MB", "GB"].iter().fold(plain, |text, unit| text.replace(&format!("0 {unit}"), "0 B"));
    // A page is followed on any day of the week.
    DAYS.iter().fold(plain, |text, day| text.replace(&format!("{day} 0"), "Sun 0"))
}

/// Names that are other ones on each machine: those of backups and upgrades, which are made of the time.
#[derive(Default)]
pub struct Names(BTreeMap<String, String>);

impl Names {
    /// Takes the names in what was printed for those that the page has at the same place.
    pub fn learn(&mut self, expected: &str, said: &str) {
        for (shown, actual) in stamps(expected).into_iter().zip(stamps(said)) {
            self.0.entry(shown).or_insert(actual);
        }
    }

    /// A command of the page as it must be here.
    pub fn actual(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (shown, actual)| text.replace(shown, actual))
    }

    /// What was printed here as the page would have it.
    pub fn shown(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (shown, actual)| text.replace(actual, shown))
    }
}

/// `20261129T030000Z`, each once.
fn stamps(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_stamp = |word: &str| {
        word.len() == 16
            && word.bytes().enumerate().all(|(at, b)| match at {
                8 => b == b'T',
                15 => b == b'Z',
                _ => b.is_ascii_digit(),
            })
    };
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        if is_stamp(word) && !found.iter().any(|one| one == word) {
            found.push(word.to_owned());
        }
    }
    found
}

#[test]
fn numbers_and_gaps_may_be_others_and_words_may_not() {
    assert!(are("homeserver   15.6 MB", "homeserver  115 kB"));
    assert!(are("took 3 s", "took 12.25 s"));
    assert!(!are("took 3 s", "took 3 min"));
    assert!(are("next run: Sun 2026-11-29", "next run: Mon 2026-11-30"));
    assert!(are("a\n…\nz", "a\nb\nc\nz"));
    assert!(are("a\n…", "a"));
    assert!(!are("a\n…\nz", "a\nb"));
    assert!(are("up … ago", "up since 3 minutes ago"));
    assert!(!are("", "something"));
}

#[test]
fn a_name_is_followed_from_page_to_machine() {
    let mut names = Names::default();
    names.learn("20261129T030000Z  verified", "20271231T235959Z  verified");
    assert_eq!(names.actual("verify 20261129T030000Z"), "verify 20271231T235959Z");
    assert_eq!(names.shown("20271231T235959Z is fine"), "20261129T030000Z is fine");
}
