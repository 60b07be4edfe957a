//! A file of a backup, as its manifest has it.

use serde::{Deserialize, Serialize};

use crate::archive::Stored;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name among the backup's files.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its digest, as `sha256sum` prints it.
    pub sha256: String,
    /// The length of what it unpacks to, in bytes.
    pub content_bytes: u64,
    /// The digest of what it unpacks to.
    pub content_sha256: String,
}

impl File {
    /// A file that has been written, or read.
    pub fn new(file: &str, stored: Stored) -> Self {
        Self {
            file: file.to_owned(),
            bytes: stored.file.bytes,
            sha256: stored.file.sha256,
            content_bytes: stored.content.bytes,
            content_sha256: stored.content.sha256,
        }
    }
}
