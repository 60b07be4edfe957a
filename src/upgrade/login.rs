//! Who may log in to the new cluster: until its clients are started, only we. Nobody else's row can lie in it then when it
//! is taken away again.
//!
//! The first rule that fits decides (chapter "The pg_hba.conf File"), so that ours come before those of the administrator,
//! which the server reads at its start all the same: a file that it would not take is known while there is a way back.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::files::beneath::{self, Directory};
use crate::postgres::Major;
use crate::runtime::{AsUser, Call, Runtime, output};

/// The administrator's file while ours is in its place.
const ASIDE: &str = ".matrix-postgres-aside";

/// The map by which root and the cluster's owner become the superuser.
const MAP: &str = "matrix-postgres-upgrade";

/// What they are called where nothing else is set.
const USUAL: [&str; 2] = ["pg_hba.conf", "pg_ident.conf"];

/// A file of rules is no larger; what is, is none.
const MODEST: u64 = 1 << 20;

/// The files of rules that the new cluster in `directory` will read once it is in place as `data_directory`, relative to
/// either: pg_hba.conf and pg_ident.conf. None if they are somewhere else, where they are not ours to change.
///
/// # Errors
/// If the server cannot be asked.
pub fn find(
    runtime: &dyn Runtime,
    account: &Account,
    major: Major,
    directory: &Path,
    data_directory: &Path,
) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for setting in ["hba_file", "ident_file"] {
        let mut call = Call::new("postgres", ["-C", setting, "-D"]);
        call.arguments.push(directory.into());
        let text = output(AsUser { runtime, account }.command(major, &call)?, "postgres -C", &[])?;
        let path = PathBuf::from(String::from_utf8_lossy(&text).trim_end());
        let inside = [directory, data_directory].into_iter().find_map(|root| path.strip_prefix(root).ok());
        // A link leads to what others may read, too.
        let ours = |file: &&Path| directory.join(file).symlink_metadata().is_ok_and(|meta| meta.is_file());
        match inside.filter(ours) {
            Some(file) => files.push(file.to_owned()),
            None => return Ok(Vec::new()),
        }
    }
    Ok(files)
}

/// Lets nobody in to the cluster in `directory` but root and its owner as `superuser`. What [`find`] has found is put
/// aside; it can be repeated.
///
/// # Errors
/// [`Kind::File`], [`Kind::NoSpace`].
pub fn close(directory: &Path, files: &[PathBuf], account: &Account, superuser: &str) -> Result<()> {
    let [hba, ident] = files else { return Ok(()) };
    account.with_files(|| put_aside(directory, (hba, ident), account, superuser))
}

fn put_aside(
    directory: &Path,
    (hba, ident): (&Path, &Path),
    account: &Account,
    superuser: &str,
) -> Result<()> {
    let (rules, map) = (rules(superuser), map(&account.name, superuser));
    for (file, before, after) in [(hba, rules.as_str(), ""), (ident, "", map.as_str())] {
        let path = directory.join(file);
        let aside = aside(&path);
        if !is_there(&aside) {
            files::copy_like(&path, &aside)?;
        }
        let (text, meta) = read(&aside)?;
        let closed = [before.as_bytes(), &text, b"\n", after.as_bytes()].concat();
        files::replace_like(&path, &mut closed.as_slice(), &meta)?;
    }
    Ok(())
}

/// Puts the administrator's files back. Returns whether that was needed.
///
/// # Errors
/// [`Kind::File`].
pub fn open(directory: &Path, files: &[PathBuf]) -> Result<bool> {
    if !is_there(directory) {
        return Ok(false);
    }
    Directory::open(directory).at("open", directory)?.as_owner(|| put_back(directory, files))
}

fn put_back(directory: &Path, files: &[PathBuf]) -> Result<bool> {
    let mut opened = false;
    for file in files {
        let path = directory.join(file);
        let aside = aside(&path);
        if is_there(&aside) {
            std::fs::rename(&aside, &path).at("put back", &path)?;
            files::sync_directory(path.parent().unwrap_or(&path))?;
            opened = true;
        }
    }
    Ok(opened)
}

/// The same, where nobody knows any more which files they were.
///
/// # Errors
/// As [`open`].
pub fn open_usual(directory: &Path) -> Result<bool> {
    open(directory, &USUAL.map(PathBuf::from))
}

/// Whether it is closed.
pub fn is_closed(directory: &Path, files: &[PathBuf]) -> bool {
    files.first().is_some_and(|hba| is_there(&aside(&directory.join(hba))))
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ASIDE);
    name.into()
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn read(path: &Path) -> Result<(Vec<u8>, std::fs::Metadata)> {
    let file = beneath::open(path).at("read", path)?;
    let meta = file.metadata().at("read", path)?;
    if meta.nlink() != 1 {
        return Err(Error::new(Kind::File, format!("{} is no file of rules", path.display())));
    }
    Ok((beneath::read_all(file, MODEST).at("read", path)?, meta))
}

fn rules(superuser: &str) -> String {
    let aside = format!("{}{ASIDE}", USUAL[0]);
    format!(
        "# By matrix-postgres-upgrade, for as long as an upgrade is not finished: nobody else comes in. What was here is\n\
         # below, and in {aside}, which matrix-postgres-upgrade recover puts back.\n\
         local all {} peer map={MAP}\n\
         local all all reject\n\
         local replication all reject\n\
         host all all all reject\n\
         host replication all all reject\n\n",
        quoted(superuser)
    )
}

fn map(owner: &str, superuser: &str) -> String {
    let mut users = vec!["root", owner];
    users.dedup();
    users.into_iter().fold(String::new(), |mut text, user| {
        let _ = writeln!(text, "{MAP} {} {}", quoted(user), quoted(superuser));
        text
    })
}

/// In quotes, no word means something else than itself; there is no way to write a quote.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn closed_only_we_come_in_and_opened_it_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = |file: &str| directory.path().join(file);
        std::fs::write(path("pg_hba.conf"), "local all all trust\n").unwrap();
        std::fs::write(path("pg_ident.conf"), "mine root postgres").unwrap();
        std::fs::set_permissions(path("pg_hba.conf"), std::fs::Permissions::from_mode(0o640)).unwrap();
        let meta = directory.path().metadata().unwrap();
        let account = Account { name: "mp".into(), ..Account::of(meta.uid(), meta.gid()) };
        let files = USUAL.map(PathBuf::from);
        for _ in 0..2 {
            close(directory.path(), &files, &account, "postgres").unwrap();
            let text = std::fs::read_to_string(path("pg_hba.conf")).unwrap();
            let rules: Vec<_> =
                text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
            assert_eq!(
                rules[..2],
                ["local all \"postgres\" peer map=matrix-postgres-upgrade", "local all all reject"]
            );
            assert_eq!(rules[2..5].iter().filter(|rule| rule.ends_with(" reject")).count(), 3);
            assert_eq!(rules[5..], ["local all all trust"]);
            assert_eq!(
                std::fs::read_to_string(path("pg_ident.conf")).unwrap(),
                "mine root postgres\nmatrix-postgres-upgrade \"root\" \"postgres\"\n\
                 matrix-postgres-upgrade \"mp\" \"postgres\"\n"
            );
            assert!(is_closed(directory.path(), &files));
        }
        assert!(open(directory.path(), &files).unwrap());
        assert!(!open_usual(directory.path()).unwrap() && !is_closed(directory.path(), &files));
        assert_eq!(std::fs::read_to_string(path("pg_hba.conf")).unwrap(), "local all all trust\n");
        assert_eq!(std::fs::read_to_string(path("pg_ident.conf")).unwrap(), "mine root postgres");
        assert_eq!(path("pg_hba.conf").metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
