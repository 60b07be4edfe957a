//! Where the files of method `dump` lie.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{IoContext as _, Result};
use crate::files::{self, directories};
use crate::upgrade::facts::space::check_private;

/// A directory for the files, of the cluster's owner alone; removed when dropped.
#[derive(Debug)]
pub struct DumpDirectory(pub(in crate::upgrade) PathBuf);

impl DumpDirectory {
    /// Makes `path`, which belongs to one upgrade. What a dead run of it has left is replaced.
    ///
    /// # Errors
    /// [`crate::Kind::File`]; see [`check_private`].
    pub fn make(path: &Path, account: &Account) -> Result<Self> {
        let parent = files::parent(path);
        if parent.symlink_metadata().is_err() {
            directories::make_all(files::parent(parent), 0o755)?;
            directories::make_private(parent, account)?;
        }
        check_private(parent, account)?;
        remove(path)?;
        account.with_files(|| std::fs::DirBuilder::new().mode(0o700).create(path).at("create", path))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for DumpDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            log::warn!("{}", error.report());
        }
    }
}

/// Removes what a dump directory holds, if there is one.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn remove(path: &Path) -> Result<()> {
    directories::remove(path).at("remove", path)
}
