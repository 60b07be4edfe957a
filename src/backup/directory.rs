//! The directory that holds the backups.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::geteuid;

use super::name::BackupName;
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};

/// Fails unless `directory` exists, belongs to the user we are and is closed to all others.
///
/// It is never made here: when the disk that holds it is not mounted, a directory made in its place would
/// fill the root file system and hide every older backup.
///
/// # Errors
/// [`Kind::File`], with the command that puts it right.
pub fn check(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let refuse = |message: String| Error::new(Kind::File, message).state("no backup was made");
    let meta = match directory.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refuse(format!("the backup directory {shown} does not exist"))
                .hint("mount its disk, or for a new one: systemd-tmpfiles --create matrix-postgres.conf"));
        }
        Err(error) => return Err(Error::io("read", directory, error)),
    };
    // A symbolic link to another disk is an ordinary way to place backups.
    let meta = if meta.is_symlink() { directory.metadata().at("read", directory)? } else { meta };
    if !meta.is_dir() {
        return Err(refuse(format!("the backup directory {shown} is not a directory"))
            .hint("name another one: backup.directory in /etc/matrix-postgres/config.toml"));
    }
    if meta.uid() != geteuid().as_raw() {
        let (owner, user) = (Account::of(meta.uid(), 0).name, Account::of(geteuid().as_raw(), 0).name);
        return Err(refuse(format!(
            "the backup directory {shown} belongs to {owner}, and this runs as {user}"
        ))
        .hint(format!("chown {user} {shown}")));
    }
    if meta.mode() & 0o007 != 0 {
        return Err(refuse(format!(
            "the backup directory {shown} is open to every user of this machine (mode {:04o}), and dumps hold \
             passwords and messages",
            meta.mode() & 0o7777
        ))
        .hint(format!("chmod 0700 {shown}")));
    }
    Ok(())
}

/// Removes what killed runs left unfinished; the caller holds the lock, so that nobody is writing there.
///
/// # Errors
/// [`Kind::File`].
pub fn remove_partial(directory: &Path) -> Result<Vec<BackupName>> {
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(directory).at("read", directory)? {
        let entry = entry.at("read", directory)?;
        let Some(name) = entry.file_name().to_str().and_then(BackupName::from_partial) else { continue };
        if entry.file_type().at("read", &entry.path())?.is_dir() {
            std::fs::remove_dir_all(entry.path()).at("remove", &entry.path())?;
            removed.push(name);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn each_unsuitable_directory_has_its_own_command() {
        let root = tempfile::tempdir().unwrap();
        let hint = |path: &Path| check(path).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint(&root.path().join("missing")).contains("systemd-tmpfiles"));
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(hint(&root.path().join("file")).contains("name another one"));
        let open = root.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(hint(&open).starts_with("chmod 0700"));
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o750)).unwrap();
        check(&open).unwrap();
        if !geteuid().is_root() {
            assert!(hint(Path::new("/usr")).starts_with("chown"));
        }
    }

    #[test]
    fn only_our_own_unfinished_directories_are_removed() {
        let root = tempfile::tempdir().unwrap();
        for name in [".20261124T030000Z.partial", "20261124T030000Z", ".other.partial"] {
            std::fs::create_dir_all(root.path().join(name).join("x")).unwrap();
        }
        std::fs::write(root.path().join(".20261125T030000Z.partial"), "a file of somebody's").unwrap();
        let removed = remove_partial(root.path()).unwrap();
        assert_eq!(removed, ["20261124T030000Z".parse().unwrap()]);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 3);
    }
}
