//! Backups in a directory of this machine.

use std::fs;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::geteuid;

use super::store::{self, Item, Store};
use crate::account::Account;
use crate::archive::{self, FileSink, Packed, Sink};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath, sync_directory};

/// A directory, whether there is one or not.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The one of this path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Store for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self) -> Result<()> {
        check(&self.path)
    }

    fn free_space(&self) -> Result<u64> {
        files::free_space(&self.path)
    }

    fn list(&self) -> Result<Vec<Item>> {
        let entries = fs::read_dir(&self.path).at("read", &self.path);
        let entries =
            entries.map_err(|error| error.hint("run it as root or as the owner of the directory"))?;
        let item = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.at("read", &self.path)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().at("read", &entry.path())?;
            let kind = match () {
                () if kind.is_file() => store::Kind::File,
                () if kind.is_dir() => store::Kind::Place,
                () if kind.is_symlink() && entry.path().is_dir() => store::Kind::LinkToPlace,
                () => store::Kind::Other,
            };
            Ok(Item { name, kind })
        };
        entries.map(item).collect()
    }

    fn within(&self, name: &str) -> Arc<dyn Store> {
        Arc::new(Self { path: self.path_of(name) })
    }

    fn make(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| not_made(error, &self.path, &path))
    }

    fn rename(&self, name: &str, to: &str) -> Result<()> {
        let path = self.path_of(name);
        sync_directory(&path)?;
        fs::rename(&path, self.path_of(to)).at("rename", &path)?;
        sync_directory(&self.path)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        fs::remove_dir_all(&path).at("remove", &path)
    }

    fn remove_empty(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        fs::remove_dir(&path).at("remove", &path)
    }

    fn open(&self, file: &str) -> Result<Packed> {
        Ok(Box::new(archive::open_from_disk(&self.path_of(file))?))
    }

    fn open_at(&self, file: &str, start: u64) -> Result<Packed> {
        let path = self.path_of(file);
        let mut file = archive::open_file(&path)?;
        file.seek(SeekFrom::Start(start)).at("read", &path)?;
        Ok(Box::new(file))
    }

    fn read(&self, file: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path_of(file);
        match beneath::read(&path, longest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).at("read", &path),
        }
    }

    fn create(&self, file: &str) -> Result<Box<dyn Sink + Send>> {
        Ok(Box::new(FileSink::create(&self.path_of(file))?))
    }

    fn replace(&self, file: &str, text: &str) -> Result<()> {
        files::replace(&self.path_of(file), text)
    }

    fn remove_files(&self, files: &[String]) -> Result<()> {
        for file in files {
            let path = self.path_of(file);
            fs::remove_file(&path).at("remove", &path)?;
        }
        sync_directory(&self.path)
    }
}

/// Fails unless `directory` exists, belongs to the user we are and is closed to all others.
///
/// It is never made here: when the disk that holds it is not mounted, a directory made in its place would
/// fill the root file system and hide every older backup.
///
/// # Errors
/// [`Kind::File`], with the command that puts it right.
fn check(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let refuse = |message: String| Error::new(Kind::File, message).state("no backup was made");
    let meta = match directory.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refuse(format!("the backup directory {shown} does not exist")).hint(
                "mount its file system; for a new directory: systemd-tmpfiles --create matrix-postgres.conf",
            ));
        }
        Err(error) => return Err(Error::io("read", directory, error)),
    };
    // A symbolic link to another disk is an ordinary way to place backups.
    let meta = if meta.is_symlink() { directory.metadata().at("read", directory)? } else { meta };
    if !meta.is_dir() {
        return Err(refuse(format!("the backup directory {shown} is not a directory"))
            .hint("set backup.directory in /etc/matrix-postgres/config.toml"));
    }
    if meta.uid() != geteuid().as_raw() {
        let (owner, user) = (Account::of(meta.uid(), 0).name, Account::current().name);
        return Err(refuse(format!(
            "the backup directory {shown} belongs to {owner}, but this process runs as {user}"
        ))
        .hint(format!("chown {user} {shown}")));
    }
    if meta.mode() & 0o007 != 0 {
        return Err(refuse(format!(
            "the backup directory {shown} is accessible to all users (mode {:04o}), and dumps contain \
             passwords and messages",
            meta.mode() & 0o7777
        ))
        .hint(format!("chmod 0700 {shown}")));
    }
    Ok(())
}

/// The unit may write to the default directory only; whoever has configured another one must say so there, too.
fn not_made(error: io::Error, parent: &Path, path: &Path) -> Error {
    let read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
    let error = Error::io("create", path, error);
    match read_only {
        true => error.hint(format!(
            "systemctl edit matrix-postgres-backup.service, and add [Service] and ReadWritePaths={}",
            parent.display()
        )),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn each_unsuitable_directory_has_its_own_command() {
        let root = tempfile::tempdir().unwrap();
        let hint = |path: &Path| Directory::new(path).check().unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint(&root.path().join("missing")).contains("systemd-tmpfiles"));
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(hint(&root.path().join("file")).contains("set backup.directory"));
        let open = root.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(hint(&open).starts_with("chmod 0700"));
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o750)).unwrap();
        Directory::new(&open).check().unwrap();
        if !geteuid().is_root() {
            assert!(hint(Path::new("/usr")).starts_with("chown"));
        }
    }
}
