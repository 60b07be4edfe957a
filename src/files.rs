//! Files that must not be half there.

use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, IoContext as _, Result};

/// Makes renames in `directory` last.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn sync_directory(directory: &Path) -> Result<()> {
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).at("sync", directory)
}

/// Writes `file` in one step, readable for its owner only, replacing one that is there; it lasts when this
/// returns.
///
/// # Errors
/// [`crate::Kind::File`] or [`crate::Kind::NoSpace`]; the old file is then as it was.
pub fn replace(file: &Path, text: &str) -> Result<()> {
    let directory = file.parent().unwrap_or(file);
    let mut temporary = tempfile::NamedTempFile::new_in(directory).at("write", file)?;
    temporary.write_all(text.as_bytes()).at("write", file)?;
    temporary.as_file().sync_all().at("sync", file)?;
    temporary.persist(file).map_err(|error| Error::io("write", file, error.error))?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        std::fs::write(&file, "a longer text").unwrap();
        replace(&file, "short").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "short");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
