//! Where settings are in files, for whoever changes one of them.

use std::path::PathBuf;

use super::home::Home;
use super::tree::Tree;
use crate::account::Account;
use crate::error::Result;

/// The files of settings that are in the cluster's own directories.
///
/// # Errors
/// [`crate::Kind::DataDirectory`] or [`crate::Kind::File`], if they cannot be read.
pub fn texts(home: &Home, account: &Account) -> Result<Vec<PathBuf>> {
    let tree = Tree::read(home, account)?;
    Ok(tree.texts.keys().filter(|file| !file.is_absolute()).map(|file| tree.path(file)).collect())
}

/// Where the setting is that holds, as a file and the index of its line; nothing if it is in none of these files.
///
/// # Errors
/// As [`texts`].
pub fn line_of(home: &Home, setting: &str, account: &Account) -> Result<Option<(PathBuf, usize)>> {
    let tree = Tree::read(home, account)?;
    let found = tree.settings.iter().rev().find(|found| found.name.eq_ignore_ascii_case(setting));
    let found = found.filter(|found| !found.file.is_absolute());
    Ok(found.map(|found| (tree.path(&found.file), found.line - 1)))
}
