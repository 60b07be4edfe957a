//! The administrator's configuration, carried from the old cluster to the new one.
//!
//! - [`home`]: where it is
//! - [`tree`]: what is there
//! - [`syntax`]: a line of postgresql.conf
//! - [`rules`]: what files pg_hba.conf names
//! - [`translation`]: what has another name now
//! - [`names`]: what names the cluster itself
//! - [`lines`]: where a setting is
//! - [`defaults`]: what means something else if nothing is said
//! - [`refusal`]: what a version says of the files
//! - [`edits`]: what becomes of which line
//!
//! What the target knows is not looked up in a list: it reads the files itself, and what it refuses becomes a
//! comment, until it refuses nothing.

mod defaults;
mod edits;
mod home;
mod lines;
mod names;
mod refusal;
mod rules;
mod syntax;
mod translation;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use self::edits::Edits;
pub use self::home::Home;
pub use self::lines::{line_of, texts};
pub use self::names::Names;
use self::refusal::{Refusal, refusals};
pub(super) use self::syntax::quoted as quoted_value;
use self::tree::Tree;
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::postgres::Major;
use crate::runtime::Runtime;

/// Where files are tried out that are gone again at once. The directory's owner must be able to reach them.
const TRIALS: &str = "/tmp";

/// What was carried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// What the administrator should know, a sentence each: lines that were changed, files that nothing names,
    /// what stays behind.
    pub notes: Vec<String>,
}

/// What [`carry`] will find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreseen {
    /// It cannot be carried.
    Blocker {
        /// A sentence.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Something will not be as it was.
    Change(String),
    /// Good to know.
    Note(String),
}

/// Carries the configuration from a cluster into another one, which initdb has just made, and on which no
/// server runs: postgresql.conf and postgresql.auto.conf with what they include, the rules of who may log in,
/// certificates and keys, and small files of the administrator's. All that is done with files is done as their owner, as
/// far as whom modes and owners stay; everything lasts when this returns. A second call does the same once more.
///
/// # Errors
/// [`Kind::Config`] if the target would not start with it, for whatever [`foresee`] calls a blocker; others if
/// something cannot be read or written.
pub fn carry(
    runtime: &dyn Runtime,
    (old, from): (&Home, Major),
    (new, to): (&Home, Major),
    names: Names<'_>,
    account: &Account,
) -> Result<Carried> {
    let tree = Tree::read(old, account)?;
    let blocked = |message: String, hint: String| {
        Err(Error::new(Kind::Config, message)
            .state(format!("nothing was changed in {}", old.files().display()))
            .hint(hint))
    };
    let foreign = missing_libraries(runtime, &tree, from, to).into_iter().chain(rules_gone(&tree, to));
    if let Some((message, hint)) = foreign.into_iter().next() {
        return blocked(message, hint);
    }
    account.with_files(|| {
        tree.copied.iter().try_for_each(|file| {
            make_way(&tree, new, file)?;
            files::copy_like(&tree.path(file), &new.path(file))
        })
    })?;
    let edits = settle(runtime, &tree, names, (new, to), from, account)?;
    match edits.problems.into_iter().next() {
        Some((message, hint)) => blocked(message, hint),
        None => Ok(Carried { notes: edits.notes.into_iter().chain(remarks(&tree, from, to)).collect() }),
    }
}

/// What [`carry`] will find, without writing anything but in a directory of its own that is gone afterwards.
///
/// # Errors
/// As [`carry`], if something cannot be read.
pub fn foresee(
    runtime: &dyn Runtime,
    (old, from): (&Home, Major),
    to: Major,
    account: &Account,
) -> Result<Vec<Foreseen>> {
    let tree = match Tree::read(old, account) {
        Ok(tree) => tree,
        Err(error) if error.kind() == Kind::DataDirectory => {
            let hint = error.hint_text().unwrap_or_default().to_owned();
            return Ok(vec![Foreseen::Blocker { message: error.to_string(), hint }]);
        }
        Err(error) => return Err(error),
    };
    let trial = Trial::make(account)?;
    // What only names the cluster itself, no version refuses.
    let edits = settle(runtime, &tree, Names::same(), (&Home::of(trial.path()), to), from, account)?;
    let blockers = missing_libraries(runtime, &tree, from, to).into_iter();
    let blockers = blockers.chain(rules_gone(&tree, to)).chain(edits.problems);
    Ok(blockers
        .map(|(message, hint)| Foreseen::Blocker { message, hint })
        .chain(edits.notes.into_iter().map(Foreseen::Change))
        .chain(remarks(&tree, from, to).into_iter().map(Foreseen::Note))
        .collect())
}

/// What the server of `major` of this machine rejects of the files in `home`, in its words, so that it would not start with them.
///
/// # Errors
/// [`Kind::NotInstalled`] or [`Kind::Program`], if the server itself fails.
pub fn rejected(runtime: &dyn Runtime, major: Major, home: &Home, account: &Account) -> Result<Vec<String>> {
    Ok(refusals(runtime, major, home, account)?.into_iter().map(Refusal::said).collect())
}

/// Those of `names` that `major` does not know as settings. Names with a dot are anybody's.
///
/// # Errors
/// [`Kind::NotInstalled`], [`Kind::Program`] or [`Kind::File`].
pub fn unknown_settings(
    runtime: &dyn Runtime,
    major: Major,
    names: &BTreeSet<String>,
    account: &Account,
) -> Result<BTreeSet<String>> {
    let mut unknown = BTreeSet::new();
    if names.iter().all(|name| name.contains('.')) {
        return Ok(unknown);
    }
    let trial = Trial::make(account)?;
    loop {
        let known = names.iter().filter(|name| !name.contains('.') && !unknown.contains(*name));
        // Names are looked at before values, so that any will do.
        let lines: Vec<_> = known.map(|name| line(name, "")).collect();
        let before = unknown.len();
        for refusal in trial.refusals(runtime, major, &lines.concat())? {
            if let Refusal::Unknown { name, .. } = refusal {
                unknown.insert(name);
            }
        }
        if unknown.len() == before {
            return Ok(unknown);
        }
    }
}

/// Those of these settings, a name and a value each, whose value version `to` refuses and `from` does not, with what it says.
/// What neither takes from a file, such as `role`, tells nothing.
///
/// # Errors
/// As [`unknown_settings`].
pub fn refused_values(
    runtime: &dyn Runtime,
    (from, to): (Major, Major),
    settings: &BTreeSet<(String, String)>,
    account: &Account,
) -> Result<BTreeMap<(String, String), String>> {
    let mut refused = BTreeMap::new();
    if settings.is_empty() {
        return Ok(refused);
    }
    let trial = Trial::make(account)?;
    for (name, value) in settings {
        let alone = line(name, value);
        let Some(refusal) = trial.refusals(runtime, to, &alone)?.into_iter().next() else { continue };
        if trial.refusals(runtime, from, &alone)?.is_empty() {
            refused.insert((name.clone(), value.clone()), refusal.said());
        }
    }
    Ok(refused)
}

/// Writes the files of settings into `new`, and changes them until version `to` takes them or no change helps.
fn settle(
    runtime: &dyn Runtime,
    tree: &Tree,
    names: Names<'_>,
    (new, to): (&Home, Major),
    from: Major,
    account: &Account,
) -> Result<Edits> {
    let mut edits = Edits::begin(tree, names, from, to);
    loop {
        account.with_files(|| {
            tree.texts.iter().filter(|(file, _)| !file.is_absolute()).try_for_each(|(file, bytes)| {
                make_way(tree, new, file)?;
                let old = tree.path(file);
                let like = old.metadata().at("read", &old)?;
                files::replace_like(&new.path(file), &mut edits.apply(file, bytes).as_slice(), &like)
            })
        })?;
        let mut refusals = refusals(runtime, to, new, account)?;
        give_names(runtime, to, (tree, &edits), &mut refusals, account)?;
        // Each turn changes a line that was not changed before: there is an end to it.
        if !edits.answer(tree, &refusals, new, to) {
            return Ok(edits);
        }
    }
}

/// Finds the setting that each refusal without a name is about: the one that is refused in the same words when it is alone.
fn give_names(
    runtime: &dyn Runtime,
    to: Major,
    (tree, edits): (&Tree, &Edits),
    refusals: &mut [Refusal],
    account: &Account,
) -> Result<()> {
    if !refusals.iter().any(|refusal| matches!(refusal, Refusal::Nameless(_))) {
        return Ok(());
    }
    let trial = Trial::make(account)?;
    for found in edits.unchanged(tree) {
        let alone = trial.refusals(runtime, to, &line(&found.name, &found.value))?;
        for refusal in refusals.iter_mut().filter(|refusal| alone.contains(*refusal)) {
            if let Refusal::Nameless(said) = refusal {
                let said = format!("{} = {}: {said}", found.name, found.value);
                *refusal = Refusal::Value { said, quoted: vec![found.name.clone()] };
            }
        }
    }
    Ok(())
}

/// A line of a file of settings.
fn line(name: &str, value: &str) -> String {
    format!("{name} = {}\n", syntax::quoted(value))
}

/// Makes the directories in `new` that `file` is in.
fn make_way(tree: &Tree, new: &Home, file: &Path) -> Result<()> {
    let is_there = |directory: &&Path| [new.files(), new.data()].contains(&new.path(directory).as_path());
    let mut above: Vec<_> =
        file.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty()).collect();
    above.retain(|directory| !is_there(directory));
    above.reverse();
    for directory in above {
        let old = tree.path(directory);
        files::create_directory_like(&new.path(directory), &old.metadata().at("read", &old)?)?;
    }
    Ok(())
}

/// Settings that name libraries. Without one of the first, the server does not start; without one of the
/// others, nobody can log in, or no WAL is archived.
const LIBRARIES: [&str; 4] =
    ["shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "archive_library"];

fn missing_libraries(runtime: &dyn Runtime, tree: &Tree, from: Major, to: Major) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    // Then they may be anywhere.
    if tree.effective("dynamic_library_path").is_some_and(|path| path != "$libdir") {
        return missing;
    }
    for setting in LIBRARIES {
        for library in syntax::list(tree.effective(setting).unwrap_or_default()) {
            // What anybody may load is in a directory of its own (load_libraries in miscinit.c).
            let library = match setting == "local_preload_libraries" && !library.contains('/') {
                true => format!("$libdir/plugins/{library}"),
                false => library,
            };
            let of_the_old = [format!("/postgresql/{from}/"), format!("/pgsql-{from}/")];
            if of_the_old.iter().any(|directory| library.contains(directory)) {
                missing.push((
                    format!("{setting} names {library}, which is a library of PostgreSQL {from}"),
                    format!("write the library without its directory in {setting}"),
                ));
            } else if runtime.has_library(to, &library) == Some(false) {
                missing.push((
                    format!("library {library}, named in {setting}, is not installed for PostgreSQL {to}"),
                    format!("install the package of {library} for PostgreSQL {to}"),
                ));
            }
        }
    }
    missing
}

/// Who may log in is the administrator's to say: without such a line, another one might hold.
fn rules_gone(tree: &Tree, to: Major) -> Vec<(String, String)> {
    let of = |(file, text): (&PathBuf, &String)| {
        let path = tree.path(file).display().to_string();
        rules::refused(text, to).into_iter().map(move |(line, what)| {
            let message =
                format!("PostgreSQL {to} would not start: it does not know {what} ({path}, line {line})");
            (message, format!("change that line to another authentication method: {path}"))
        })
    };
    tree.rules.iter().flat_map(of).collect()
}

/// What has another default, what is carried though nothing names it, and what is not.
fn remarks(tree: &Tree, from: Major, to: Major) -> Vec<String> {
    let list = |paths: Vec<String>| paths.join(", ");
    let mut remarks = defaults::changed(tree, from, to);
    let shown = |path: &PathBuf| match tree.home.is_apart() {
        true => tree.path(path).display().to_string(),
        false => path.display().to_string(),
    };
    let unnamed: Vec<_> = tree.unnamed.iter().map(shown).collect();
    if !unnamed.is_empty() {
        remarks.push(format!(
            "files in the data directory that no setting refers to are copied: {}",
            list(unnamed)
        ));
    }
    for (path, what) in &tree.left {
        remarks.push(format!(
            "not copied, stays in the old data directory: {} ({what})",
            tree.path(path).display()
        ));
    }
    remarks
}

/// A directory of the cluster's owner, made and removed as that user.
struct Trial<'a> {
    directory: Option<tempfile::TempDir>,
    account: &'a Account,
}

impl<'a> Trial<'a> {
    fn make(account: &'a Account) -> Result<Self> {
        let parent = Path::new(TRIALS);
        let make = || {
            tempfile::Builder::new()
                .prefix("matrix-postgres-")
                .permissions(std::fs::Permissions::from_mode(0o700))
                .tempdir_in(parent)
                .at("create a directory in", parent)
        };
        Ok(Self { directory: Some(account.with_files(make)?), account })
    }

    /// What a version refuses of a file of settings with this text.
    fn refusals(&self, runtime: &dyn Runtime, major: Major, text: &str) -> Result<Vec<Refusal>> {
        let file = self.path().join(tree::MAIN);
        self.account.with_files(|| files::replace(&file, text))?;
        refusals(runtime, major, &Home::of(self.path()), self.account)
    }

    fn path(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new(""), tempfile::TempDir::path)
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let directory = self.directory.take();
        let removed = self.account.with_files(|| match directory {
            Some(directory) => {
                let path = directory.path().to_owned();
                directory.close().at("remove", &path)
            }
            None => Ok(()),
        });
        if let Err(error) = removed {
            log::warn!("{}", error.report());
        }
    }
}

#[cfg(test)]
mod tests;
