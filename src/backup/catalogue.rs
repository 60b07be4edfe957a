//! Which backups there are.

use std::sync::Arc;

use jiff::Timestamp;

use super::manifest::Manifest;
use super::name::BackupName;
use super::store::{Item, Kind as What, Store};
use crate::error::{Error, Kind, Result};

/// One backup, as far as it can be read.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: BackupName,
    /// Its files.
    pub files: Arc<dyn Store>,
    /// Its manifest, or why that cannot be trusted.
    pub manifest: Result<Manifest>,
}

impl Entry {
    /// Why it is not to be relied on, if it is not.
    pub fn problem(&self) -> Option<String> {
        match &self.manifest {
            Err(error) => Some(format!("cannot be trusted: {error}")),
            Ok(Manifest { read_back: None, .. }) => Some("has not been read back".to_owned()),
            Ok(Manifest { read_back: Some(read_back), trial, .. }) => {
                let trial = trial.as_ref().and_then(|trial| trial.damage.as_ref());
                read_back
                    .damage
                    .as_ref()
                    .map(|damage| format!("is damaged: {damage}"))
                    .or_else(|| trial.map(|damage| format!("failed its trial restore: {damage}")))
            }
        }
    }

    /// Whether it was read back whole and found good.
    pub fn is_verified(&self) -> bool {
        self.manifest.as_ref().is_ok_and(Manifest::is_verified)
    }
}

/// The backups that there are, oldest first. What does not bear a backup's name is not looked at.
///
/// # Errors
/// [`Kind::File`] if the store cannot be read.
pub fn list(store: &dyn Store) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for Item { name, kind } in store.list()? {
        if let (Ok(backup), What::Place | What::LinkToPlace) = (name.parse(), kind) {
            let files = store.within(&name);
            entries.push(Entry { name: backup, manifest: load(backup, &*files), files });
        }
    }
    entries.sort_by_key(|entry| entry.name);
    Ok(entries)
}

/// Those of `entries`, which are sorted, that are not of the future, and those that are: see [`BackupName::is_future`].
pub fn split(entries: &[Entry], now: Timestamp) -> (&[Entry], &[Entry]) {
    entries.split_at(entries.partition_point(|entry| !entry.name.is_future(now)))
}

fn load(name: BackupName, files: &dyn Store) -> Result<Manifest> {
    let manifest = Manifest::load(files)?;
    match manifest.name == name {
        true => Ok(manifest),
        false => Err(Error::new(
            Kind::Damaged,
            format!("{} holds the manifest of {}", files.path().display(), manifest.name),
        )),
    }
}

/// The backup called `name`, or the newest that is not of the future.
///
/// # Errors
/// [`Kind::NoBackup`], naming those that there are.
pub fn find(store: &dyn Store, name: Option<&str>, now: Timestamp) -> Result<Entry> {
    let mut entries = list(store)?;
    let Some(name) = name else {
        let (past, future) = split(&entries, now);
        let but = if future.is_empty() { "" } else { ", except those with a time in the future" };
        entries.truncate(past.len());
        return entries.pop().ok_or_else(|| {
            Error::new(Kind::NoBackup, format!("there is no backup in {}{but}", store.path().display()))
                .hint("systemctl start matrix-postgres-backup.service")
        });
    };
    match entries.iter().position(|entry| entry.name.to_string() == name) {
        Some(position) => Ok(entries.swap_remove(position)),
        None => Err(Error::new(
            Kind::NoBackup,
            format!("there is no backup {name:?} in {}", store.path().display()),
        )
        .hint("matrix-postgres-backup list shows their names")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;

    #[test]
    fn the_list_is_by_time_and_holds_only_backups() {
        let root = tempfile::tempdir().unwrap();
        for name in ["20261124T030000Z", "20261123T030000Z"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            example(name).save(&Directory::new(&root.path().join(name))).unwrap();
        }
        for name in ["20261122T030000Z", "latest", ".20261121T030000Z.partial", "20261120T030000Z.old"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("20261119T030000Z"), "").unwrap();
        let entries = list(&Directory::new(root.path())).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["20261122T030000Z", "20261123T030000Z", "20261124T030000Z"]);
        assert!(entries[0].manifest.is_err(), "without a manifest it is shown, but not trusted");
        assert!(entries[2].is_verified());
        let find =
            |name: Option<&str>, now: &str| find(&Directory::new(root.path()), name, now.parse().unwrap());
        let newest = |now| find(None, now).map(|entry| entry.name.to_string());
        assert_eq!(newest("2026-11-24T09:00:00Z").unwrap(), "20261124T030000Z");
        assert_eq!(find(Some("x"), "2026-11-24T09:00:00Z").unwrap_err().kind(), Kind::NoBackup);
        // One of the future is the newest of nothing, and found by its name.
        assert_eq!(newest("2026-11-24T02:54:59Z").unwrap(), "20261123T030000Z");
        assert_eq!(newest("2026-11-24T02:55:00Z").unwrap(), "20261124T030000Z");
        assert!(find(Some("20261124T030000Z"), "2020-01-01T00:00:00Z").is_ok());
        let none = newest("2020-01-01T00:00:00Z").unwrap_err();
        assert!(none.to_string().ends_with("except those with a time in the future"), "{none}");
    }

    #[test]
    fn a_manifest_in_the_wrong_directory_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("20261124T030000Z")).unwrap();
        example("20261123T030000Z").save(&Directory::new(&root.path().join("20261124T030000Z"))).unwrap();
        assert!(list(&Directory::new(root.path())).unwrap()[0].manifest.is_err());
    }
}
