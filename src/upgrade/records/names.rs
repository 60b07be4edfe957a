//! The names of what belongs to an upgrade.

use std::path::{Path, PathBuf};

/// Where the file `path` is once its directory, one of `from`, is `to`; where it was if it is in none of them.
pub(in crate::upgrade) fn moved(path: &Path, from: &[&Path], to: &Path) -> PathBuf {
    let inside = from.iter().find_map(|from| path.strip_prefix(from).ok());
    inside.map_or_else(|| path.to_owned(), |inside| to.join(inside))
}

/// A directory beside the data directory.
pub(in crate::upgrade) fn named_after(data_directory: &Path, suffix: &str) -> PathBuf {
    let mut name = data_directory.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    name.into()
}
