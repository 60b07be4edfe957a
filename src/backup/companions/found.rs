//! What was found, for the manifest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::backup::file::File;

/// What a homeserver needs beside its databases, see [`super`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companions {
    /// The files that were found.
    pub paths: Vec<PathBuf>,
    /// Those that are named somewhere and could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The directory of media, which is never in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<PathBuf>,
    /// The archive with the files, if they are in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
}

/// A file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl Companions {
    fn missing(&self) -> Vec<&Path> {
        let named = self.paths.iter().filter(|_| self.file.is_none());
        let left_out = self.left_out.iter().map(|left_out| &left_out.path);
        named.chain(left_out).chain(&self.media).map(PathBuf::as_path).collect()
    }

    /// What a homeserver needs beside its databases, and is in no backup that is known here.
    pub fn uncopied(&self) -> Option<String> {
        let paths: Vec<_> = self.missing().iter().map(|path| path.display().to_string()).collect();
        let more = match &self.file {
            Some(_) => "",
            None => "; a backup encrypted by age holds all but the media (backup.encrypt_to)",
        };
        (!paths.is_empty()).then(|| {
            format!(
                "not in the backup, and needed by the homeserver: {}; copy them elsewhere{more}",
                paths.join(", ")
            )
        })
    }
}
