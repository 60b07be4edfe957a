//! The shape of the house: which file of `src` knows which.
//!
//! It reads the sources as text and needs no system: `cargo test --test house`. No file may import itself by way of others,
//! a room (the first part of a path below `src`) knows only the rooms above it in the list of `src/lib.rs`, and no file is
//! longer than a person reads at once. What users read is in the field's own terms.
//!
//! What counts as knowing: each path that begins with `crate`, `super` or `self`, in a `use` or in the middle of code, outside
//! of `#[cfg(test)]`; and a path that begins with the name of a module of the same file. That a file makes names of its own
//! modules known (`pub use`) does not count: so the first file of a room can say what is in it. A name that is made known in
//! this way leads to the file that it is from.

#![allow(clippy::unwrap_used, reason = "a test that finds no value fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Lines of a file without its tests.
const LONGEST: usize = 400;

/// What was once said instead of the field's own terms, and what is said now.
const OBSCURE: [(&str, &str); 15] = [
    ("all is well", "ok, no problem"),
    ("carried over", "migrated, copied, restored"),
    ("cut off", "interrupted, truncated, disconnected"),
    ("in the way", "blocker, already exists"),
    ("is told", "is reported"),
    ("it goes", "succeeds, is possible"),
    ("made anew", "recreated"),
    ("nobody", "no role, no user, no session"),
    ("not taken", "rejected"),
    ("sent the log", "WAL sender"),
    ("somebody", "another user, another session"),
    ("things stand", "state"),
    ("thrown away", "removed, temporary"),
    ("users wait", "downtime"),
    ("what was there", "the previous one"),
];

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let circles = Sources::read(Path::new("src")).circles();
    assert!(circles.is_empty(), "these import each other: {circles:#?}");
}

#[test]
fn a_room_knows_only_the_rooms_above_it() {
    let sources = Sources::read(Path::new("src"));
    let all = rooms(&sources.files["crate"].text);
    let place = |module: &str| {
        let room = module.split("::").next().unwrap_or_default();
        all.iter().position(|name| name == room).unwrap_or_else(|| panic!("src/lib.rs does not list {room}"))
    };
    let mut upwards = BTreeSet::new();
    for (from, to) in sources.imports() {
        if from != "crate" && to != "crate" && place(&to) > place(&from) {
            upwards.insert(format!("{from} knows {to}"));
        }
    }
    // The verbs of an upgrade stand above its rooms, and use each other.
    let inside = rooms(sources.files["upgrade"].text.split("The verbs:").next().unwrap_or_default());
    let place = |module: &str| {
        let room = module.strip_prefix("upgrade::")?.split("::").next()?.to_owned();
        Some(inside.iter().position(|name| *name == room).unwrap_or(inside.len()))
    };
    for (from, to) in sources.imports() {
        if place(&to).zip(place(&from)).is_some_and(|(to, from)| to > from) {
            upwards.insert(format!("{from} knows {to}"));
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn no_file_is_longer_than_a_person_reads_at_once() {
    let sources = Sources::read(Path::new("src"));
    let long: Vec<_> = sources
        .files
        .iter()
        .map(|(module, file)| (module, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "more than {LONGEST} lines without their tests: {long:?}");
}

#[test]
fn what_users_read_is_in_the_fields_own_terms() {
    let mut read: Vec<(String, String)> = Vec::new();
    for (module, file) in Sources::read(Path::new("src")).files {
        let says = |line: &&str| !line.trim_start().starts_with("//") && line.contains('"');
        let said: Vec<_> =
            file.text.lines().filter(says).filter_map(|line| Some(line.split_once('"')?.1)).collect();
        read.push((module, said.join("\n")));
    }
    for place in ["docs", "units", "packaging/common"] {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            read.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    for file in ["README.md", "SECURITY.md"] {
        read.push((file.to_owned(), fs::read_to_string(file).unwrap()));
    }
    let found = read.iter().flat_map(|(place, text)| {
        OBSCURE
            .iter()
            .filter(|(phrase, _)| text.contains(phrase))
            .map(move |(phrase, term)| format!("{place}: {phrase:?}, better: {term}"))
    });
    let found: Vec<_> = found.collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(module, text)| ((*module).to_owned(), File::new(text))).collect();
        Sources { files }.circles()
    };
    let circle: Vec<BTreeSet<String>> = vec![["a::x", "a::y"].map(str::to_owned).into()];
    let root = ("a", "mod x;\nmod y;\npub use x::{X, Z};\n");
    let known = ("a::x", "use super::y::Y;\n");
    for other in [
        "use super::x::X;\n",
        "use crate::{\n    a::{x::{self, Z as Other}},\n};\n",
        "use super::X;\n",
        "fn f() -> crate::a::x::X {}\n",
        "use super::x;\nfn f() { x::g() }\n",
    ] {
        assert_eq!(circles(&[root, known, ("a::y", other)]), circle, "{other}");
    }
    for other in [
        "// use super::x::X;\n",
        "use super::Y;\n",
        "use std::x::X;\n",
        "#[cfg(test)]\nmod tests {\n    use super::super::x::X;\n}\n",
        "#[cfg(test)]\nmod tests;\n",
    ] {
        assert!(circles(&[root, known, ("a::y", other)]).is_empty(), "{other}");
    }
}

/// The files of a tree by the paths of their modules; `crate` is `lib.rs`.
struct Sources {
    files: BTreeMap<String, File>,
}

struct File {
    /// Without what is for tests only.
    text: String,
}

impl File {
    fn new(text: &str) -> Self {
        Self { text: without_tests(text) }
    }
}

impl Sources {
    fn read(source: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut directories = vec![source.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let below = path.strip_prefix(source).unwrap().with_extension("");
                    let parts: Vec<_> = below.iter().map(|part| part.to_str().unwrap()).collect();
                    let module = match parts.as_slice() {
                        // Mains of a few lines, and tests.
                        ["bin", ..] | [.., "tests"] => continue,
                        ["lib"] => "crate".to_owned(),
                        [room @ .., "mod"] => room.join("::"),
                        parts => parts.join("::"),
                    };
                    files.insert(module, File::new(&fs::read_to_string(&path).unwrap()));
                }
            }
        }
        Self { files }
    }

    /// Which file imports which.
    fn imports(&self) -> BTreeSet<(String, String)> {
        let made_known = self.made_known();
        let mut imports = BTreeSet::new();
        for (module, file) in &self.files {
            for Mention { names, makes_known } in paths(&file.text) {
                let Some(whole) = self.absolute(module, &names) else { continue };
                let to = self.file_of(whole, &made_known);
                let is_own = to.starts_with(&format!("{module}::")) || module == "crate";
                if to != *module && !(makes_known && is_own) {
                    imports.insert((module.clone(), to));
                }
            }
        }
        imports
    }

    /// Groups of files each of which imports, by way of others, every one of its group.
    fn circles(&self) -> Vec<BTreeSet<String>> {
        let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in self.imports() {
            direct.entry(from).or_default().insert(to);
        }
        let reached = |from: &String| {
            let mut reached = BTreeSet::new();
            let mut next: Vec<&String> = direct.get(from).into_iter().flatten().collect();
            while let Some(module) = next.pop() {
                if reached.insert(module.clone()) {
                    next.extend(direct.get(module).into_iter().flatten());
                }
            }
            reached
        };
        let reached: BTreeMap<_, _> = self.files.keys().map(|module| (module, reached(module))).collect();
        let group = |module: &String| {
            let is_in =
                |other: &&String| reached[module].contains(*other) && reached[*other].contains(module);
            self.files.keys().filter(is_in).cloned().collect::<BTreeSet<_>>()
        };
        let groups: BTreeSet<_> = self.files.keys().map(group).filter(|group| group.len() > 1).collect();
        groups.into_iter().collect()
    }

    /// The names that a file makes known and are from another one, each as a path from the crate's root.
    fn made_known(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut known = BTreeMap::new();
        for (module, file) in &self.files {
            for Mention { names, makes_known } in paths(&file.text) {
                if let (true, Some(whole), Some(name)) =
                    (makes_known, self.absolute(module, &names), names.last())
                {
                    known.insert((module.clone(), name.clone()), whole);
                }
            }
        }
        known
    }

    /// A path from the crate's root; nothing if it leads out of the crate.
    fn absolute(&self, module: &str, names: &[String]) -> Option<Vec<String>> {
        let mut parts: Vec<String> = match module {
            "crate" => Vec::new(),
            module => module.split("::").map(str::to_owned).collect(),
        };
        let mut rest = names;
        match names.first()?.as_str() {
            "crate" => parts.clear(),
            "self" | "super" => {}
            first => {
                parts.push(first.to_owned());
                let is_module = self.files.contains_key(&parts.join("::"));
                return is_module.then(|| [parts, names[1..].to_vec()].concat());
            }
        }
        while let Some((first, following)) = rest.split_first() {
            match first.as_str() {
                "super" => _ = parts.pop(),
                "self" | "crate" => {}
                _ => break,
            }
            rest = following;
        }
        parts.extend_from_slice(rest);
        Some(parts)
    }

    /// The file that has what the path leads to.
    fn file_of(&self, path: Vec<String>, made_known: &BTreeMap<(String, String), Vec<String>>) -> String {
        let (mut path, mut seen) = (path, BTreeSet::new());
        loop {
            let is_file = |length: &usize| self.files.contains_key(&path[..*length].join("::"));
            let Some(length) = (1..=path.len()).rev().find(is_file) else {
                let name = path.first().cloned().unwrap_or_default();
                match made_known.get(&("crate".to_owned(), name)) {
                    Some(whole) => path.clone_from(whole),
                    None => return "crate".to_owned(),
                }
                continue;
            };
            let file = path[..length].join("::");
            let known = path.get(length).and_then(|name| made_known.get(&(file.clone(), name.clone())));
            match known {
                Some(whole) if seen.insert(whole.clone()) => {
                    path = [whole.clone(), path[length + 1..].to_vec()].concat();
                }
                _ => return file,
            }
        }
    }
}

/// The rooms in the order of the list in the documentation of `lib.rs`.
fn rooms(library: &str) -> Vec<String> {
    let lines = library.lines().filter_map(|line| line.strip_prefix("//! - "));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Up to the tests, which come last, and without modules that are for tests only.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            match lines.peek() {
                Some(module) if module.contains("mod ") && module.ends_with(';') => _ = lines.next(),
                Some(module) if module.contains("mod ") => break,
                _ => {}
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// A path in the text of a file.
struct Mention {
    names: Vec<String>,
    /// Whether others may import it from this file.
    makes_known: bool,
}

/// Every path of two names or more, each of the braces of a `use` for itself. Text in quotes may look like one, and then leads
/// to no file.
fn paths(text: &str) -> Vec<Mention> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    );
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find(|c: char| c.is_alphabetic() || c == '_') {
        let is_use = |word: &str| {
            rest[at..].strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_whitespace))
        };
        let before = rest[..at].chars().next_back();
        rest = &rest[at..];
        if is_use("use") && before.is_none_or(char::is_whitespace) {
            let end = rest.find(';').unwrap_or(rest.len());
            let line = code[..code.len() - rest.len()].rsplit('\n').next().unwrap_or_default();
            for names in branches(rest["use".len()..end].trim()) {
                found.push(Mention { names, makes_known: line.trim_start().starts_with("pub") });
            }
            rest = &rest[end..];
            continue;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let names: Vec<_> =
            rest[..end].split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.len() > 1 && rest[..end].contains("::") {
            found.push(Mention { names, makes_known: false });
        }
        rest = &rest[end..];
    }
    found
}

/// `a::{b, c::d}` are `a::b` and `a::c::d`. Another name that is given to one is left out.
fn branches(tree: &str) -> Vec<Vec<String>> {
    let Some((stem, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|name| name.trim().to_owned()).collect()];
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0);
    for c in inner.chars().chain([',']) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match (c, depth) {
            (',', 0) => parts.push(std::mem::take(&mut part)),
            _ => part.push(c),
        }
    }
    let stem: Vec<_> =
        stem.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| branches(part).into_iter().map(|branch| [stem.clone(), branch].concat())).collect()
}
