//! Backups elsewhere: on whatever rclone(1) reaches.
//!
//! A backup is there only if its manifest is, and whole: it is sent last and removed first. What has none is on its way there, or
//! on its way out. Each machine has a directory of its own in a target.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::IgnoredAny;

use super::manifest::{self, LONGEST};
use super::name::BackupName;
use super::rclone::{Object, Rclone};
use super::store::{Item, Kind as What, Store};
use crate::archive::{self, Packed};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath;

/// A place with backups, or one of them.
#[derive(Debug)]
pub struct Elsewhere {
    rclone: Arc<Rclone>,
    path: PathBuf,
    append_only: bool,
    seen: Mutex<Seen>,
}

/// What was there when it was looked at.
#[derive(Debug)]
enum Seen {
    /// Not yet, or something was changed since.
    Nothing,
    /// A place with backups.
    Backups(BTreeMap<String, Files>),
    /// A backup.
    Files(Files),
}

/// The files of a backup.
#[derive(Debug, Clone, Default)]
struct Files {
    objects: Vec<Object>,
    manifest: Option<Vec<u8>>,
}

impl Elsewhere {
    /// The place of this path, as rclone has it; nothing in it is replaced or removed if it is `append_only`.
    pub fn new(rclone: Arc<Rclone>, path: PathBuf, append_only: bool) -> Self {
        Self { rclone, path, append_only, seen: Mutex::new(Seen::Nothing) }
    }

    /// The backups in it that are not all there, with the files that are.
    ///
    /// # Errors
    /// [`Kind::Offsite`].
    pub fn unfinished(&self) -> Result<Vec<(BackupName, Vec<String>)>> {
        if !matches!(*self.seen(), Seen::Backups(_)) {
            self.list()?;
        }
        let seen = self.seen();
        let Seen::Backups(backups) = &*seen else { return Ok(Vec::new()) };
        let unfinished = backups.iter().filter(|(_, files)| !is_whole(files.manifest.as_deref()));
        let names = unfinished.filter_map(|(name, files)| {
            let objects = files.objects.iter().map(|object| object.path.clone());
            Some((name.parse().ok()?, objects.collect()))
        });
        Ok(names.collect())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All backups in it, with their manifests, by two calls of rclone however many there are.
    fn look(&self) -> Result<BTreeMap<String, Files>> {
        let mut backups: BTreeMap<String, Files> = BTreeMap::new();
        for mut object in self.rclone.files(&self.path)? {
            let Some((name, file)) = object.path.split_once('/') else { continue };
            if name.parse::<BackupName>().is_ok() {
                let (name, file) = (name.to_owned(), file.to_owned());
                object.path = file;
                backups.entry(name).or_default().objects.push(object);
            }
        }
        let has_manifest = |files: &Files| files.objects.iter().any(is_manifest);
        if !backups.values().any(has_manifest) {
            return Ok(backups);
        }
        let scratch = self.rclone.scratch().join("manifests");
        self.rclone.copy_named(manifest::FILE, &self.path, &scratch)?;
        for (name, files) in backups.iter_mut().filter(|(_, files)| has_manifest(files)) {
            files.manifest = beneath::read(&scratch.join(name).join(manifest::FILE), LONGEST).ok();
        }
        // Only ours to know; what cannot be removed goes with the directory that it is in.
        let _ = fs::remove_dir_all(&scratch);
        Ok(backups)
    }

    /// What is there of one backup.
    fn files(&self) -> Result<Files> {
        if let Seen::Files(files) = &*self.seen() {
            return Ok(files.clone());
        }
        let objects = self.rclone.files(&self.path)?;
        let manifest = match objects.iter().any(is_manifest) {
            true => Some(self.read_now(manifest::FILE, LONGEST)?),
            false => None,
        };
        Ok(Files { objects, manifest })
    }

    /// The content of a file that is not longer than so many bytes.
    fn read_now(&self, file: &str, longest: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let read = self.rclone.open(&self.path.join(file), 0)?.take(longest).read_to_end(&mut content);
        read.map(|_| content).map_err(archive::into_error)
    }
}

fn is_manifest(object: &Object) -> bool {
    object.path == manifest::FILE
}

/// Whether a manifest has arrived to its end; whether it is to be trusted is another matter.
fn is_whole(text: Option<&[u8]>) -> bool {
    text.is_some_and(|text| match serde_json::from_slice::<IgnoredAny>(text) {
        Ok(_) => true,
        Err(error) => !error.is_eof(),
    })
}

impl Store for Elsewhere {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> Result<Vec<Item>> {
        if let Seen::Files(files) = &*self.seen() {
            let item = |object: &Object| Item { name: object.path.clone(), kind: What::File };
            return Ok(files.objects.iter().map(item).collect());
        }
        let backups = self.look()?;
        let there = backups.iter().filter(|(_, files)| is_whole(files.manifest.as_deref()));
        let items = there.map(|(name, _)| Item { name: name.clone(), kind: What::Place }).collect();
        *self.seen() = Seen::Backups(backups);
        Ok(items)
    }

    fn within(&self, name: &str) -> Arc<dyn Store> {
        let known = match &*self.seen() {
            Seen::Backups(backups) => Seen::Files(backups.get(name).cloned().unwrap_or_default()),
            _ => Seen::Nothing,
        };
        let path = self.path.join(name);
        let (rclone, append_only) = (Arc::clone(&self.rclone), self.append_only);
        Arc::new(Self { rclone, path, append_only, seen: Mutex::new(known) })
    }

    fn renames(&self) -> bool {
        false
    }

    fn remove_empty(&self, name: &str) -> Result<()> {
        self.rclone.remove_directory(&self.path.join(name))
    }

    fn open(&self, file: &str) -> Result<Packed> {
        self.open_at(file, 0)
    }

    fn open_at(&self, file: &str, start: u64) -> Result<Packed> {
        let path = self.path.join(file);
        if !self.files()?.objects.iter().any(|object| object.path == file) {
            return Err(Error::new(Kind::Damaged, format!("{} is missing", path.display())));
        }
        self.rclone.open(&path, start)
    }

    fn read(&self, file: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        let files = self.files()?;
        if file == manifest::FILE {
            return Ok(files.manifest);
        }
        match files.objects.iter().any(|object| object.path == file) {
            true => self.read_now(file, longest).map(Some),
            false => Ok(None),
        }
    }

    fn replace(&self, file: &str, text: &str) -> Result<()> {
        if self.append_only {
            log::info!("{} is not changed: the target is append_only", self.path_of(file).display());
            return Ok(());
        }
        let written = self.rclone.scratch().join("written");
        fs::write(&written, text).at("write", &written)?;
        let copied = self.rclone.copy(&written, &self.path.join(file));
        *self.seen() = Seen::Nothing;
        copied
    }

    fn remove_files(&self, files: &[String]) -> Result<()> {
        *self.seen() = Seen::Nothing;
        files.iter().try_for_each(|file| self.rclone.remove_file(&self.path.join(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_is_cut_anywhere_is_none_and_a_changed_one_is() {
        let whole = manifest::tests::example("20261124T030000Z").to_text().unwrap();
        let text = whole.trim_end().as_bytes();
        assert!(is_whole(Some(text)) && is_whole(Some(b"{\"format\": x}")));
        for length in 0..text.len() {
            assert!(!is_whole(Some(&text[..length])), "{length}");
        }
        assert!(!is_whole(None));
    }
}
