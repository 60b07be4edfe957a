//! Files that must not be half there.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
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
    replace_with_mode(file, text, 0o600)
}

/// The same, readable for everybody.
///
/// # Errors
/// As [`replace`].
pub fn publish(file: &Path, text: &str) -> Result<()> {
    replace_with_mode(file, text, 0o644)
}

fn replace_with_mode(file: &Path, text: &str, mode: u32) -> Result<()> {
    let directory = file.parent().unwrap_or(file);
    // What a power cut leaves tells by its name what it was to be.
    let prefix = format!(".{}.", file.file_name().unwrap_or_default().display());
    let mut temporary = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory).at("write", file)?;
    temporary.as_file().set_permissions(Permissions::from_mode(mode)).at("write", file)?;
    temporary.write_all(text.as_bytes()).at("write", file)?;
    temporary.as_file().sync_all().at("sync", file)?;
    temporary.persist(file).map_err(|error| Error::io("write", file, error.error))?;
    sync_directory(directory)
}

/// Bytes that an ordinary user may still write to the file system of `directory`.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn free_space(directory: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory).at("ask for the free space of", directory)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        std::fs::write(&file, "a longer text").unwrap();
        replace(&file, "short").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "short");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        publish(&file, "for all").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }
}
