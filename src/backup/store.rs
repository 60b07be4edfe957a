//! Where backups are kept: a place with backups in it, each of which is a place with files in it.
//!
//! Everything that lists, reads, checks or removes backups reaches their files through [`Store`]. A directory of this machine is
//! one, see [`super::directory`], in which they are made; a target that they are sent to is another, see [`super::elsewhere`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{Packed, Sink};
use crate::error::{Error, Kind as Failure, Result};

/// A place with files and other places in it.
///
/// Where an error is not described, it is [`crate::Kind::File`], or [`crate::Kind::NoSpace`] where something is written, and
/// names what it is about.
pub trait Store: fmt::Debug + Send + Sync {
    /// What it is called, in messages.
    fn path(&self) -> &Path;

    /// Fails unless backups may be put here: it is there, and nobody else can read or change what is in it.
    ///
    /// # Errors
    /// [`crate::Kind::File`], with the command that puts it right.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// How many bytes may still be written.
    fn free_space(&self) -> Result<u64> {
        Err(not_made_in(self.path()))
    }

    /// All that is in it, in no order.
    fn list(&self) -> Result<Vec<Item>>;

    /// The place of this name in it, whether there is one or not.
    fn within(&self, name: &str) -> Arc<dyn Store>;

    /// Makes a place in it.
    fn make(&self, _name: &str) -> Result<()> {
        Err(not_made_in(self.path()))
    }

    /// Whether a place in it can be given another name in one step.
    fn renames(&self) -> bool {
        true
    }

    /// Gives a place in it another name, in one step and durably; what is in it has been written durably, too.
    fn rename(&self, _name: &str, _to: &str) -> Result<()> {
        Err(not_made_in(self.path()))
    }

    /// Removes a place with all that is in it.
    fn remove(&self, _name: &str) -> Result<()> {
        Err(not_made_in(self.path()))
    }

    /// Removes a place with nothing in it.
    fn remove_empty(&self, name: &str) -> Result<()>;

    /// Opens a file to read it as a whole, from where it is kept: not what is left of it in memory.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`] if there is no such file.
    fn open(&self, file: &str) -> Result<Packed>;

    /// Opens a file to read a part of it, from this byte on.
    ///
    /// # Errors
    /// As [`Store::open`].
    fn open_at(&self, file: &str, start: u64) -> Result<Packed>;

    /// The content of a small file, which is not longer than so many bytes; nothing if there is none.
    fn read(&self, file: &str, longest: u64) -> Result<Option<Vec<u8>>>;

    /// Begins a new file.
    fn create(&self, _file: &str) -> Result<Box<dyn Sink + Send>> {
        Err(not_made_in(self.path()))
    }

    /// Writes a small file, in the place of the one that there is: in one step, and durably. Where nothing may be replaced, it
    /// says so, and leaves the one that there is.
    fn replace(&self, file: &str, text: &str) -> Result<()>;

    /// Removes these files, durably.
    fn remove_files(&self, files: &[String]) -> Result<()>;

    /// What a file or a place in it is called, in messages.
    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// What only the making of backups needs, where none are made.
fn not_made_in(path: &Path) -> Error {
    Error::new(Failure::Bug, format!("backups are sent to {}, and not made there", path.display()))
}

/// Something in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name; characters that are none are replaced.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What something in a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A place with things in it.
    Place,
    /// The name of a place that is elsewhere.
    LinkToPlace,
    /// None of these.
    Other,
}
