//! The old data directory goes to where it is kept, on whatever file system that is.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::files::{self, directories, exists};
use crate::runtime::{Child, bare, tool};
use crate::upgrade::steps::exchange::{self, move_to};

/// Moves the data directory `from` to `to`. Across file systems it is copied, synced, compared, and only then removed
/// from its old place; cut off at any instant, it is done by calling this again.
///
/// # Errors
/// [`Kind::File`], [`Kind::NoSpace`], [`Kind::Damaged`] if the copy differs: `from` is then as it was.
pub fn keep(from: &Path, to: &Path, id: &str) -> Result<()> {
    let parent = files::parent(to);
    directories::make_all(parent, 0o755)?;
    match bring(from, to, id)? {
        Brought::Renamed => Ok(()),
        Brought::Copied => remove_copied(from),
    }
}

/// How a directory came to another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// It is not at the old one any more.
    Renamed,
    /// It is at both.
    Copied,
}

/// Brings the data directory `from` to `to`, which appears whole or not at all.
///
/// # Errors
/// As [`keep`].
pub fn bring(from: &Path, to: &Path, id: &str) -> Result<Brought> {
    if move_to(from, to)? {
        return Ok(Brought::Renamed);
    }
    log::info!("{} and {} are on different file systems: copying", to.display(), from.display());
    remove_partial(to, id)?;
    let partial = partial(to, id);
    copy(from, &partial)?;
    move_to(&partial, to)?;
    Ok(Brought::Copied)
}

/// Removes what has been copied whole.
fn remove_copied(from: &Path) -> Result<()> {
    exchange::remove(from)?;
    files::sync_directory(files::parent(from))
}

/// Whether [`keep`] was cut off after the copy had its name: only the removal is left then.
///
/// # Errors
/// As [`keep`].
pub fn finish(from: &Path, to: &Path) -> Result<()> {
    if exists(from) && exists(to) {
        compare(from, to)?;
    }
    match exists(to) {
        // Of what was being removed, something may be left, too.
        true => remove_copied(from),
        false => Ok(()),
    }
}

/// Removes what [`bring`] has not finished.
///
/// # Errors
/// [`Kind::File`].
pub fn remove_partial(to: &Path, id: &str) -> Result<()> {
    let partial = partial(to, id);
    directories::remove(&partial).at("remove the unfinished", &partial)
}

fn partial(to: &Path, id: &str) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".partial-{id}"));
    name.into()
}

/// Copies a directory with everything that cp(1) can keep, onto the disk, and compares; as its owner, who may do it.
///
/// # Errors
/// As [`keep`].
fn copy(from: &Path, to: &Path) -> Result<()> {
    directories::make_private(to, &owner(from)?)?;
    run("cp", "coreutils", &["--archive", "--no-target-directory"], [from, to])
        .and_then(|()| run("sync", "coreutils", &["--file-system"], [to, to]))
        .and_then(|()| compare(from, to))
        .inspect_err(|_| {
            let _ = directories::remove(to);
        })
}

fn compare(from: &Path, to: &Path) -> Result<()> {
    run("diff", "diffutils", &["--recursive", "--brief", "--no-dereference"], [from, to]).map_err(|error| {
        let kind = error.kind();
        error.with_kind(if kind == Kind::Program { Kind::Damaged } else { kind }).context(format!(
            "the copy {} differs from {}",
            to.display(),
            from.display()
        ))
    })
}

fn owner(directory: &Path) -> Result<Account> {
    Directory::open(directory).at("open", directory).map(|directory| directory.owner())
}

fn run(name: &'static str, package: &str, options: &[&str], paths: [&Path; 2]) -> Result<()> {
    let mut command = bare(&tool(name, package)?);
    command.args(options).arg("--").args(paths);
    owner(paths[0])?.apply(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Child::spawn(command, format!("{name} of {}", paths[0].display()))?.wait().map_err(Error::or_no_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_one_file_system_it_is_renamed_and_a_taken_name_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (from, to) = (parent.path().join("data"), parent.path().join("far/kept"));
        std::fs::create_dir(&from).unwrap();
        keep(&from, &to, "x").unwrap();
        assert!(!from.exists() && to.is_dir());
        std::fs::create_dir(&from).unwrap();
        assert!(keep(&from, &to, "x").is_err());
        assert!(from.is_dir());
    }

    #[test]
    fn a_copy_is_compared_and_one_that_differs_is_not_kept() {
        let parent = tempfile::tempdir().unwrap();
        let (from, to) = (parent.path().join("data"), parent.path().join("copy"));
        std::fs::create_dir_all(from.join("base")).unwrap();
        std::fs::write(from.join("base/1"), "rows").unwrap();
        std::os::unix::fs::symlink("base", from.join("link")).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("base"));
        std::fs::write(to.join("base/1"), "rowz").unwrap();
        let error = finish(&from, &to).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{}", error.report());
        assert!(from.join("base/1").exists());
        std::fs::write(to.join("base/1"), "rows").unwrap();
        finish(&from, &to).unwrap();
        assert!(!from.exists());
    }
}
