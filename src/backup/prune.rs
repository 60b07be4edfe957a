//! Carries a plan of [`super::retention`] out: a backup loses its name first and its files afterwards, and
//! only those files that its manifest names.

use std::collections::BTreeSet;

use jiff::ZonedDateTime;

use super::catalogue::{self, Entry};
use super::manifest::{self, Manifest};
use super::name::BackupName;
use super::retention::{self, Candidate, Plan, Reason, State};
use super::store::{Item, Kind as What, Store};
use crate::config::Keep;
use crate::error::{Error, Kind, Result};
use crate::report::event;

/// Files of ours that a manifest does not name.
const BESIDE: [&str; 1] = [manifest::FILE];

/// Decides which of the backups that there are go.
///
/// # Errors
/// [`Kind::File`] if the store cannot be read.
pub fn plan(store: &dyn Store, keep: &Keep, now: &ZonedDateTime) -> Result<Plan> {
    let items = store.list()?;
    let is_link = |entry: &Entry| {
        let name = entry.name.to_string();
        items.iter().any(|item| item.name == name && item.kind == What::LinkToPlace)
    };
    let backups: Vec<_> =
        catalogue::list(store)?.iter().map(|entry| candidate(entry, is_link(entry))).collect();
    Ok(retention::plan(&backups, keep, now))
}

fn candidate(entry: &Entry, is_link: bool) -> Candidate {
    let (state, foreign) = match &entry.manifest {
        Err(_) => (State::Unreadable, None),
        Ok(manifest) => {
            let state = match (&manifest.read_back, manifest.is_verified()) {
                (_, true) => State::Verified,
                (Some(_), false) => State::Damaged,
                (None, false) => State::NotReadBack,
            };
            let foreign = match is_link {
                true => Some("it is a symbolic link".to_owned()),
                false => foreign(&*entry.files, manifest),
            };
            (state, foreign)
        }
    };
    Candidate { name: entry.name, state, foreign }
}

/// What is among a backup's files and not of the backup.
fn foreign(files: &dyn Store, manifest: &Manifest) -> Option<String> {
    let ours: BTreeSet<_> = manifest.files().map(|file| file.file.as_str()).chain(BESIDE).collect();
    let items = match files.list() {
        Ok(items) => items,
        Err(error) => return Some(error.to_string()),
    };
    let is_ours = |Item { name, kind }: &Item| {
        (ours.contains(name.as_str()) || is_unfinished(name)) && *kind == What::File
    };
    items.iter().find(|item| !is_ours(item)).map(|item| format!("it contains {}", item.name))
}

/// What a killed replacement of the manifest leaves, see [`crate::files::replace`].
fn is_unfinished(name: &str) -> bool {
    BESIDE.iter().any(|file| {
        name.strip_prefix('.')
            .and_then(|name| name.strip_prefix(file))
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Removes what the plan says, oldest first; the caller holds the lock. Returns what was removed.
///
/// # Errors
/// [`Kind::File`]: what could not be removed, and everything newer, is still there.
pub fn carry_out(store: &dyn Store, plan: &Plan) -> Result<Vec<BackupName>> {
    remove_leftovers(store)?;
    for decision in plan.left() {
        let reasons: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
        log::warn!(BACKUP:display = decision.name; "left {}: {}", decision.name, reasons.join(", "));
    }
    let mut removed = Vec::new();
    for name in plan.removed() {
        retire(store, name)?;
        removed.push(name);
    }
    if let (Some(oldest), Some(newest)) = (removed.first(), removed.last()) {
        log::info!(
            MESSAGE_ID = event::PRUNED, BACKUPS = removed.len();
            "removed {} backups that no rule of retention keeps, {oldest} to {newest}, from {}; remaining: {}",
            removed.len(),
            store.path().display(),
            plan.decisions.len() - removed.len()
        );
    }
    Ok(removed)
}

/// From one step on it is no backup any more, however far its removal gets.
fn retire(store: &dyn Store, name: BackupName) -> Result<()> {
    if store.renames() {
        store.rename(&name.to_string(), &name.removing())?;
        return remove(store, &name.removing());
    }
    // Where there is no such step, it is none without its manifest. What is left of it then is known by its name.
    let files = store.within(&name.to_string());
    let others = Manifest::load(&*files)?.files().map(|file| file.file.clone()).collect::<Vec<_>>();
    files.remove_files(&[manifest::FILE.to_owned()])?;
    files.remove_files(&others)?;
    store.remove_empty(&name.to_string())
}

/// Goes on where a killed prune was.
fn remove_leftovers(store: &dyn Store) -> Result<()> {
    for Item { name: hidden, kind } in store.list()? {
        let Some(name) = BackupName::from_removing(&hidden).filter(|_| kind == What::Place) else { continue };
        match remove(store, &hidden) {
            Ok(()) => log::info!("removed the rest of {name}, whose removal had been interrupted"),
            Err(error) => log::warn!("{}", error.report()),
        }
    }
    Ok(())
}

/// The manifest goes last, so that as long as there is a file, it is known whose it is.
fn remove(store: &dyn Store, hidden: &str) -> Result<()> {
    let files = store.within(hidden);
    let is_manifest = |item: &Item| item.name == manifest::FILE;
    let items = files.list()?;
    if items.iter().any(is_manifest) {
        let manifest = Manifest::load(&*files)?;
        if let Some(what) = foreign(&*files, &manifest) {
            let path = files.path().display();
            return Err(Error::new(
                Kind::File,
                format!("{path} was not removed, it contains other files: {}", Reason::Foreign(what)),
            )
            .hint(format!("ls -la {path}")));
        }
        let others = items.into_iter().filter(|item| !is_manifest(item));
        files.remove_files(&others.map(|item| item.name).collect::<Vec<_>>())?;
        files.remove_files(&[manifest::FILE.to_owned()])?;
    }
    store.remove_empty(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;
    use crate::config::{Backup, Fragment, Settings};
    use std::path::Path;

    fn backups(names: &[&str]) -> (tempfile::TempDir, Backup) {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let path = root.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let manifest = example(name);
            for file in manifest.files() {
                std::fs::write(path.join(&file.file), "x").unwrap();
            }
            manifest.save(&Directory::new(&path)).unwrap();
        }
        let mut settings = Settings::from_fragment(Fragment::default()).unwrap().backup;
        settings.directory = root.path().to_owned();
        settings.keep = crate::config::Keep { last: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
        (root, settings)
    }

    fn now() -> ZonedDateTime {
        "2026-11-24T09:00:00+00:00[UTC]".parse().unwrap()
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_is_ours_goes() {
        let old = ["20261119T030000Z", "20261120T030000Z", "20261121T030000Z", "20261122T030000Z"];
        let (root, settings) = backups(&[&old[..], &["20261124T030000Z"]].concat());
        std::fs::write(root.path().join(old[0]).join("notes.txt"), "mine").unwrap();
        std::fs::create_dir(root.path().join(old[1]).join("media")).unwrap();
        std::fs::write(root.path().join(old[2]).join(".manifest.json.Ab3"), "").unwrap();
        std::os::unix::fs::symlink(old[0], root.path().join("20261118T030000Z")).unwrap();
        std::fs::write(root.path().join("20261117T030000Z.tar"), "").unwrap();
        let store = Directory::new(root.path());
        let plan = plan(&store, &settings.keep, &now()).unwrap();
        let removed = carry_out(&store, &plan).unwrap();
        assert_eq!(removed.iter().map(ToString::to_string).collect::<Vec<_>>(), [old[2], old[3]]);
        assert_eq!(
            names(root.path()),
            ["20261117T030000Z.tar", "20261118T030000Z", old[0], old[1], "20261124T030000Z"]
        );
        assert_eq!(std::fs::read_dir(root.path().join(old[0])).unwrap().count(), 4);
    }

    #[test]
    fn a_removal_cut_short_anywhere_is_finished_by_the_next() {
        for left in 0..=3 {
            let (root, settings) = backups(&["20261120T030000Z", "20261124T030000Z"]);
            let hidden = root.path().join(".20261120T030000Z.removing");
            std::fs::rename(root.path().join("20261120T030000Z"), &hidden).unwrap();
            let files = ["globals.sql.zst", "home%22server.dump.zst", manifest::FILE];
            for file in &files[..left] {
                std::fs::remove_file(hidden.join(file)).unwrap();
            }
            let store = Directory::new(root.path());
            carry_out(&store, &plan(&store, &settings.keep, &now()).unwrap()).unwrap();
            assert_eq!(names(root.path()), ["20261124T030000Z"]);
        }
    }

    #[test]
    fn a_leftover_with_anything_else_in_it_stays() {
        let (root, settings) = backups(&["20261124T030000Z"]);
        let hidden = root.path().join(".20261120T030000Z.removing");
        std::fs::create_dir(&hidden).unwrap();
        std::fs::write(hidden.join("x"), "").unwrap();
        let store = Directory::new(root.path());
        carry_out(&store, &plan(&store, &settings.keep, &now()).unwrap()).unwrap();
        assert!(hidden.join("x").exists());
    }
}
