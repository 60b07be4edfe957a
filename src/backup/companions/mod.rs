//! What a homeserver needs beside its databases: homeserver.yaml and what it names, such as the signing key and the registrations
//! of bridges, and the configuration of the Matrix Authentication Service, without whose `secrets` parts of its database cannot be
//! read. (Synapse's documentation, "Backups".)
//!
//! A backup that is encrypted holds these files. They are encrypted by root before the backups' user has them: who makes backups
//! learns no more of the homeserver than the names. All others only name them, and `status` says what is in no backup.

mod ask;
mod bundle;
mod found;
mod names;

use std::io::Write as _;

pub use self::ask::{answer, gather};
pub use self::found::{Companions, LeftOut};
use super::read_back;
use super::store::Store;
use crate::archive::Sink as _;
use crate::error::{IoContext as _, Result};

/// What goes into a backup.
#[derive(Debug, Default)]
pub struct Bundle {
    /// For the manifest.
    pub companions: Companions,
    /// The content of its file.
    pub bytes: Vec<u8>,
}

impl Bundle {
    /// Writes the archive among the files of a backup.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is not what it is said to be; those of writing.
    pub(super) fn save(self, files: &dyn Store) -> Result<Companions> {
        let Some(file) = &self.companions.file else { return Ok(self.companions) };
        let mut sink = files.create(&file.file)?;
        let path = sink.path().to_owned();
        sink.write_all(&self.bytes).at("write", &path)?;
        let written = Box::new(sink).finish()?;
        match written.sha256 == file.sha256 {
            true => Ok(self.companions),
            false => Err(read_back::damaged(&path, "it differs from what was to be written")),
        }
    }
}
