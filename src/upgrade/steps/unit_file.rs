//! Files of units, and drop-ins, that an upgrade writes for others' units, and takes away again.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath, exists};

/// Ours begin with it.
pub(super) const WRITTEN: &str = "# Written by matrix-postgres-upgrade:";

/// No file of ours is longer.
const LONGEST: u64 = 1 << 17;

/// Whether it is one of ours.
///
/// # Errors
/// [`Kind::File`].
pub(super) fn is_ours(file: &Path) -> Result<bool> {
    match beneath::read(file, LONGEST) {
        Ok(text) => Ok(text.starts_with(WRITTEN.as_bytes())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        // A link, as of a unit that is masked.
        Err(_) if file.is_symlink() => Ok(false),
        Err(error) => {
            Err(Error::new(Kind::File, format!("could not read {}", file.display())).because(error))
        }
    }
}

/// Writes one, for everybody to read; it lasts when this returns.
///
/// # Errors
/// [`Kind::File`], [`Kind::NoSpace`].
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    let directory = files::parent(file);
    if !exists(directory) {
        DirBuilder::new().mode(0o755).create(directory).at("create", directory)?;
        // Whatever is kept from others elsewhere.
        std::fs::set_permissions(directory, Permissions::from_mode(0o755))
            .at("change the mode of", directory)?;
        files::sync_directory(files::parent(directory))?;
    }
    files::publish(file, text)
}

/// Removes one that is ours, with the directory of drop-ins if nothing else is in it.
///
/// # Errors
/// [`Kind::File`].
pub(super) fn remove(file: &Path) -> Result<()> {
    if !is_ours(file)? {
        return Ok(());
    }
    std::fs::remove_file(file).at("remove", file)?;
    files::sync_directory(files::parent(file))?;
    if file.parent().is_some_and(|directory| directory.extension().is_some_and(|extension| extension == "d"))
    {
        // What is not empty stays.
        let _ = std::fs::remove_dir(files::parent(file));
    }
    Ok(())
}
