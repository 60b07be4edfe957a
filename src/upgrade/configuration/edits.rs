//! What becomes of the lines of settings: a plan, made without looking at anything but what was read.
//!
//! Each change replaces one line by one line, so that a number that the server names is that of the old file, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::home::Home;
use super::names::Names;
use super::refusal::Refusal;
use super::syntax;
use super::translation::{remark, translated};
use super::tree::{Found, Tree};
use crate::postgres::Major;

/// Lines to replace, with the reason for each.
#[derive(Debug, Clone, Default)]
pub(super) struct Edits {
    lines: BTreeMap<(PathBuf, usize), String>,
    /// What was changed, a sentence each.
    pub(super) notes: Vec<String>,
    /// What no change can put right, with what to do about it.
    pub(super) problems: Vec<(String, String)>,
}

impl Edits {
    /// What is known beforehand: paths that would lead astray, and settings that have another name now.
    pub(super) fn begin(tree: &Tree, names: Names<'_>, from: Major, to: Major) -> Self {
        let mut edits = Self::default();
        for (file, line, text) in &tree.includes {
            edits.lines.insert((file.clone(), *line), text.clone());
            edits.notes.push(format!("{}: now {text}", place(tree, file, *line)));
        }
        for found in tree.settings.iter().filter(|found| !found.file.is_absolute()) {
            let Found { file, line, name, value } = found;
            if let Some(text) = names.renamed(name, value) {
                // That is so of each upgrade, and nothing to be told.
                edits.lines.insert((file.clone(), *line), format!("{name} = {}", syntax::quoted(&text)));
            } else if name.eq_ignore_ascii_case("data_directory") && !tree.home.is_apart() {
                edits.comment(tree, found, "set on the server's command line");
                edits.notes.push(format!("{}: data_directory is commented out", place(tree, file, *line)));
            } else if let Some((new, text)) = translated(name, value, from, to, tree.wal_segment) {
                let old = original(tree, found);
                edits.lines.insert(
                    (file.clone(), *line),
                    format!("{new} = {} # was, before PostgreSQL {to}: {old}", syntax::quoted(&text)),
                );
                edits.notes.push(format!(
                    "{}: {name} becomes {new} = {text}, {}",
                    place(tree, file, *line),
                    remark(new)
                ));
            }
        }
        edits
    }

    /// Answers what version `to` said of these files in `directory`; whether anything was changed.
    pub(super) fn answer(&mut self, tree: &Tree, refusals: &[Refusal], new: &Home, to: Major) -> bool {
        let before = self.lines.len();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        self.problems.clear();
        for refusal in refusals {
            match refusal {
                Refusal::Unknown { name, file, line } => self.unknown(tree, name, file, *line, new, to),
                Refusal::Value { said, quoted } => self.value(tree, said, quoted, to),
                Refusal::Nameless(said) | Refusal::Other(said) => {
                    let said = said.replace(&*text(new.files()), &text(tree.home.files()));
                    let said = said.replace(&*text(new.data()), &text(tree.home.data()));
                    self.problem(format!("PostgreSQL {to} would not start: {said}"), "correct the file");
                }
            }
        }
        self.lines.len() > before
    }

    fn unknown(&mut self, tree: &Tree, name: &str, file: &Path, line: usize, new: &Home, to: Major) {
        let inside = new.find(file).unwrap_or_else(|| file.to_owned());
        let at = |found: &&Found| found.file == inside && found.line == line;
        let message =
            format!("PostgreSQL {to} does not know the setting {name} ({})", place(tree, &inside, line));
        match tree.settings.iter().find(at).filter(|found| !found.file.is_absolute()) {
            Some(found)
                if self.comment(tree, found, &format!("PostgreSQL {to} does not know this setting")) =>
            {
                self.notes.push(format!("{message}: the line is commented out"));
            }
            _ => self.problem(
                format!("{message}; the file is outside of the data directory and is not changed"),
                &format!("comment out the line: {}", file.display()),
            ),
        }
    }

    /// The server does not say which line it was. Of several with one name, it looks at the last one only; when
    /// that is a comment, at the one before it.
    fn value(&mut self, tree: &Tree, said: &str, quoted: &[String], to: Major) {
        let message = format!("PostgreSQL {to} rejects a value: {said}");
        let is = |found: &Found, name: &String| found.name.eq_ignore_ascii_case(name);
        let name = quoted.iter().find(|name| tree.settings.iter().any(|found| is(found, name)));
        let unchanged = |found: &&Found| !self.lines.contains_key(&(found.file.clone(), found.line));
        let last =
            name.and_then(|name| tree.settings.iter().rev().filter(unchanged).find(|found| is(found, name)));
        let Some(found) = last else { return self.problem(message, "correct the setting") };
        let place = place(tree, &found.file, found.line);
        if found.file.is_absolute() {
            return self.problem(
                format!("{message} ({place}); the file is outside of the data directory and is not changed"),
                &format!("correct the line: {}", found.file.display()),
            );
        }
        self.comment(tree, found, &format!("PostgreSQL {to} rejects this value"));
        self.notes.push(format!("{message} ({place}): the line is commented out"));
    }

    fn problem(&mut self, message: String, hint: &str) {
        self.problems.push((message, hint.to_owned()));
    }

    /// Turns a line into a comment; whether it was none already.
    fn comment(&mut self, tree: &Tree, found: &Found, reason: &str) -> bool {
        let text = format!("# {reason}: {}", original(tree, found));
        let was = self.lines.insert((found.file.clone(), found.line), text.clone());
        was.is_none_or(|was| was != text)
    }

    /// The settings that hold, and that no edit has touched.
    pub(super) fn unchanged<'a>(&self, tree: &'a Tree) -> impl Iterator<Item = &'a Found> {
        let mut seen = BTreeSet::new();
        tree.settings
            .iter()
            .rev()
            .filter(|found| !self.lines.contains_key(&(found.file.clone(), found.line)))
            .filter(move |found| seen.insert(found.name.to_ascii_lowercase()))
    }

    /// A file with its changes; every other line is as it was, byte for byte.
    pub(super) fn apply(&self, file: &Path, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            lines.push(match self.lines.get(&(file.to_owned(), index + 1)) {
                Some(text) => text.as_bytes(),
                None => line,
            });
        }
        lines.join(&b'\n')
    }
}

/// A line as it was written.
fn original(tree: &Tree, found: &Found) -> String {
    let bytes = tree.texts.get(&found.file).map(Vec::as_slice).unwrap_or_default();
    let line = bytes.split(|byte| *byte == b'\n').nth(found.line - 1).unwrap_or_default();
    String::from_utf8_lossy(line).trim().to_owned()
}

fn place(tree: &Tree, file: &Path, line: usize) -> String {
    format!("{}, line {line}", tree.path(file).display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::configuration::syntax::Line;

    const TEXT: &str =
        "# kept \u{e4}\nwal_keep_segments = 5\nfoo = 1 # x\nlc_time = 'C'\nlc_time 'xx'\nport = 1\n";

    fn tree() -> Tree {
        let mut tree =
            Tree { home: Home::of(Path::new("/d/data")), wal_segment: 16 << 20, ..Tree::default() };
        for (file, text) in [("postgresql.conf", TEXT), ("/etc/more.conf", "bar = 1\nssl = maybe")] {
            tree.texts.insert(file.into(), text.into());
            for (index, line) in text.lines().enumerate() {
                if let Line::Setting { name, value } = syntax::line(line) {
                    tree.settings.push(Found { file: file.into(), line: index + 1, name, value });
                }
            }
        }
        tree
    }

    fn unknown(name: &str, file: &str, line: usize) -> Refusal {
        Refusal::Unknown { name: name.into(), file: file.into(), line }
    }

    fn value(said: &str, quoted: &[&str]) -> Refusal {
        Refusal::Value { said: said.into(), quoted: quoted.iter().map(|&text| text.into()).collect() }
    }

    #[test]
    fn only_the_lines_that_must_change_do() {
        let (tree, to) = (tree(), Major(17));
        let mut edits = Edits::begin(&tree, Names::same(), Major(12), to);
        let refusals = [
            unknown("foo", "/new/postgresql.conf", 3),
            value("invalid value for parameter \"lc_time\": \"xx\"", &["lc_time", "xx"]),
        ];
        assert!(edits.answer(&tree, &refusals, &Home::of(Path::new("/new")), to));
        assert!(edits.problems.is_empty(), "{:?}", edits.problems);
        let main = Path::new("postgresql.conf");
        assert_eq!(
            String::from_utf8(edits.apply(main, TEXT.as_bytes())).unwrap(),
            "# kept \u{e4}\n\
             wal_keep_size = '80MB' # was, before PostgreSQL 17: wal_keep_segments = 5\n\
             # PostgreSQL 17 does not know this setting: foo = 1 # x\n\
             lc_time = 'C'\n\
             # PostgreSQL 17 rejects this value: lc_time 'xx'\nport = 1\n"
        );
        assert_eq!(edits.notes.len(), 3, "{:?}", edits.notes);
        assert_eq!(
            edits.notes[1],
            "PostgreSQL 17 does not know the setting foo (/d/data/postgresql.conf, line 3): the line is commented \
             out"
        );
        // The same name once more is the line before, and then there is none.
        assert!(
            edits.answer(&tree, &refusals[1..], &Home::of(Path::new("/new")), to)
                && edits.problems.is_empty()
        );
        assert!(!edits.answer(&tree, &refusals[1..], &Home::of(Path::new("/new")), to));
        assert!(edits.problems[0].0.contains("\"lc_time\": \"xx\""), "{:?}", edits.problems);
    }

    #[test]
    fn what_is_elsewhere_is_not_changed_but_told() {
        let (tree, to) = (tree(), Major(17));
        let mut edits = Edits::begin(&tree, Names::same(), Major(15), to);
        let refusals = [
            unknown("bar", "/etc/more.conf", 1),
            value("parameter \"ssl\" requires a Boolean value", &["ssl"]),
            value("something \"else\"", &["else"]),
            Refusal::Other("syntax error in file \"/new/postgresql.conf\" line 13, near token \"z\"".into()),
        ];
        assert!(!edits.answer(&tree, &refusals, &Home::of(Path::new("/new")), to));
        let problems: Vec<_> = edits.problems.iter().map(|(message, _)| message.as_str()).collect();
        assert!(
            problems[0].contains("does not know the setting bar (/etc/more.conf, line 1)"),
            "{problems:?}"
        );
        assert!(problems[1].contains("(/etc/more.conf, line 2)"), "{problems:?}");
        assert!(problems[2].ends_with("something \"else\""), "{problems:?}");
        assert!(problems[3].contains("\"/d/data/postgresql.conf\" line 13"), "{problems:?}");
    }

    #[test]
    fn bytes_that_are_no_text_stay() {
        let bytes = b"\xff = \xfe\r\n# \xe4\n\n";
        assert_eq!(Edits::default().apply(Path::new("x"), bytes), bytes);
    }
}
