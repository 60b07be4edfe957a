//! A backup whose files are read.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::manifest::{DatabaseDump, File, Manifest};
use super::read_back::{codec, compare_file, damaged, require_same};
use super::store::Store;
use crate::archive::{self, StoredReader};
use crate::error::Result;

/// How much is read at a time.
pub(super) const PIECE: usize = 512 * 1024;

/// A backup, and the private key if it is encrypted.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its files.
    pub files: &'a dyn Store,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// age's identity file, or gpg's directory.
    pub identity: Option<&'a Path>,
}

impl Source<'_> {
    pub(super) fn path(&self, file: &File) -> PathBuf {
        self.files.path_of(&file.file)
    }

    pub(super) fn open(&self, file: &File) -> Result<StoredReader> {
        let method = self.manifest.encryption.as_ref().map(|encryption| encryption.method);
        archive::open(
            self.files.open(&file.file)?,
            &self.path(file),
            codec(self.manifest.compression),
            method,
            self.identity,
        )
    }

    /// The file that was read must be the one that was written. What it unpacks to follows from that: it was compared
    /// when the backup was read back, and the codec checks its own sums as it unpacks.
    pub(super) fn require_same_file(&self, file: &File, read: StoredReader) -> Result<()> {
        compare_file(&self.path(file), file, &read.finish()?.file)
    }

    /// The parts of a dump, each with its place in the file; none if it can be read from its beginning only.
    pub(super) fn parts(&self, dump: &DatabaseDump) -> Vec<(u64, archive::Part)> {
        let mut parts = Vec::new();
        let (mut bytes, mut content) = (0, 0);
        for part in &dump.parts {
            parts.push((bytes, *part));
            bytes += part.bytes;
            content += part.content_bytes;
        }
        let whole = bytes == dump.dump.bytes && content == dump.dump.content_bytes;
        match whole && self.manifest.encryption.is_none() {
            true => parts,
            false => Vec::new(),
        }
    }

    pub(super) fn open_part(
        &self,
        dump: &DatabaseDump,
        (start, part): (u64, archive::Part),
    ) -> Result<impl BufRead + Send> {
        let reader = archive::open_part(
            self.files.open_at(&dump.dump.file, start)?,
            &self.path(&dump.dump),
            codec(self.manifest.compression),
            part,
        )?;
        Ok(BufReader::with_capacity(PIECE, reader))
    }
}

/// The content of a whole file of a backup, compared with its digests.
///
/// # Errors
/// [`crate::Kind::Damaged`].
pub fn text(source: Source<'_>, file: &File) -> Result<String> {
    let path = source.path(file);
    let mut content = source.open(file)?;
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(archive::into_error)?;
    require_same(&path, file, content.finish()?)?;
    String::from_utf8(bytes).map_err(|error| damaged(&path, "it is not UTF-8").because(error))
}
