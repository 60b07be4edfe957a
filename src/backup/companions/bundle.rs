//! Reads the files and packs them. Who names a file in a configuration gets no more of it than he could read himself: what is
//! named by root is read by root, and all else by the owner of the configuration.

use std::io::{self, Cursor, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::geteuid;

use super::names::{self, CONFIGURATIONS};
use super::{Bundle, Companions, LeftOut};
use crate::account::Account;
use crate::archive::{self, Digest, Encrypted, Encryption, Method, Packing, Sink};
use crate::backup::file::File;
use crate::backup::name;
use crate::config::Compression;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::{self, Directory};
use crate::place::{Mounts, homeserver};

/// A file is not longer than that, all together are not longer than that, and a configuration names no more of them.
const LONGEST: u64 = 1 << 20;
const MOST: usize = 16 << 20;
const MANY: usize = 200;

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Found {
    files: Vec<(PathBuf, Vec<u8>)>,
    left_out: Vec<LeftOut>,
    media: Option<PathBuf>,
}

/// Finds the files of the machine whose root is `root`, `/` but in tests, as far as we may look.
pub(super) fn find(root: &Path) -> Found {
    let mut found = Found::default();
    for (configuration, unit) in configurations(root) {
        let Ok((text, author)) = read_configuration(&configuration) else { continue };
        let at = Path::new("/").join(configuration.strip_prefix(root).unwrap_or(&configuration));
        let mounts = unit.map(|unit| Mounts::of(root, unit));
        let outside =
            |path: &Path| mounts.as_ref().map_or_else(|| path.to_owned(), |mounts| mounts.outside(path));
        let mut named = names::named_by(&String::from_utf8_lossy(&text), &outside);
        found.add(at.clone(), || Ok(text));
        if named.files.len() > MANY {
            let reason = format!("it names {} files, and the first {MANY} are read", named.files.len());
            found.left_out.push(LeftOut { path: at, reason });
            named.files.truncate(MANY);
        }
        for path in named.files {
            let file = root.join(path.strip_prefix("/").unwrap_or(&path));
            found.add(path, || author.with_files(|| beneath::read(&file, LONGEST).at("read", &file)));
        }
        found.media = found.media.or(named.media);
    }
    found
}

/// Each with the unit in whose container its paths are.
fn configurations(root: &Path) -> Vec<(PathBuf, Option<&'static str>)> {
    let known = CONFIGURATIONS.map(|(file, unit)| (root.join(file), unit)).into_iter();
    known.chain(homeserver::further(root).into_iter().map(|file| (file, None))).collect()
}

/// The content of a configuration, and who it is that names files in it.
fn read_configuration(path: &Path) -> io::Result<(Vec<u8>, Account)> {
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let directory = Directory::open(parent)?;
    let file = directory.file(Path::new(name))?;
    let meta = file.metadata()?;
    let is_roots = directory.is_roots() && meta.uid() == 0 && meta.mode() & 0o022 == 0;
    let author = match geteuid().is_root() && !is_roots {
        true if meta.uid() != 0 => Account::of(meta.uid(), meta.gid()),
        true if !directory.owner().is_root() => directory.owner(),
        // Of root's, but others may write to it: it is nobody's word.
        true => return Err(io::Error::new(io::ErrorKind::InvalidData, "it may be changed by others")),
        false => Account::current(),
    };
    Ok((beneath::read_all(file, LONGEST)?, author))
}

impl Found {
    /// Reads a file that is not known yet.
    fn add(&mut self, path: PathBuf, read: impl FnOnce() -> Result<Vec<u8>>) {
        let is_known = self.files.iter().any(|(known, _)| *known == path)
            || self.left_out.iter().any(|known| known.path == path);
        if is_known {
            return;
        }
        let total: usize = self.files.iter().map(|(_, bytes)| bytes.len()).sum();
        match read() {
            Ok(bytes) if total + bytes.len() <= MOST => self.files.push((path, bytes)),
            Ok(_) => self.left_out.push(LeftOut { path, reason: "there is too much of it".to_owned() }),
            Err(error) => self.left_out.push(LeftOut { path, reason: error.one_line() }),
        }
    }

    /// Packs them, encrypted. Without encryption, or with one that root does not use, they are only named.
    ///
    /// # Errors
    /// [`Kind::Program`] if the program fails.
    pub(super) fn pack(
        self,
        encryption: Option<&Encryption>,
        (packing, compression): (Packing, Compression),
    ) -> Result<Bundle> {
        let paths = self.files.iter().map(|(path, _)| path.clone()).collect();
        let mut companions = Companions { paths, left_out: self.left_out, media: self.media, file: None };
        // gpg's directory of keys is the backups' user's.
        let encryption = encryption.filter(|encryption| encryption.method == Method::Age);
        let Some(encryption) = encryption.filter(|_| !self.files.is_empty()) else {
            return Ok(Bundle { companions, bytes: Vec::new() });
        };
        let name = name::encrypted(name::companions_file(compression), Some(encryption.method));
        let failed = |error: io::Error| Error::new(Kind::Bug, "could not write an archive").because(error);
        let text = archive(&self.files).map_err(failed)?;
        let memory = Memory::new(&name);
        let sink = Encrypted::new(memory.clone(), encryption)?;
        let stored = archive::store_into(sink, Cursor::new(text), packing, &mut |_| Ok(()))?;
        companions.file = Some(File::new(&name, stored));
        Ok(Bundle { companions, bytes: memory.take() })
    }
}

fn archive(files: &[(PathBuf, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, path.strip_prefix("/").unwrap_or(path), bytes.as_slice())?;
    }
    archive.into_inner()
}

/// A file that is none.
#[derive(Clone)]
struct Memory {
    path: PathBuf,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Memory {
    fn new(name: &str) -> Self {
        Self { path: name.into(), bytes: Arc::default() }
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Memory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn finish(self: Box<Self>) -> Result<Digest> {
        Ok(Digest::of(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Codec;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    const FURTHER: &str = "etc/matrix-synapse/conf.d";

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(root.path().join(FURTHER)).unwrap();
        write(root.path(), CONFIGURATIONS[0].0, "signing_key_path: /etc/key\nmedia_store_path: /var/media\n");
        write(root.path(), "etc/key", "ed25519 a_1 x");
        root
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn paths(found: &Found) -> Vec<&str> {
        found.files.iter().map(|(path, _)| path.to_str().unwrap()).collect()
    }

    #[test]
    fn configurations_and_what_they_name_are_found_once() {
        let root = machine();
        write(
            root.path(),
            &format!("{FURTHER}/a.yaml"),
            "signing_key_path: /etc/key\nlog_config: /etc/gone\n",
        );
        let found = find(root.path());
        assert_eq!(
            paths(&found),
            ["/etc/matrix-synapse/homeserver.yaml", "/etc/key", "/etc/matrix-synapse/conf.d/a.yaml"]
        );
        assert_eq!(found.media, Some("/var/media".into()));
        let [LeftOut { path, reason }] = found.left_out.as_slice() else { panic!("{found:?}") };
        assert!(path == Path::new("/etc/gone") && reason.contains("No such file"), "{reason}");
        let bundle = found.pack(None, (Packing::new(Codec::None, 1), Compression::None)).unwrap();
        assert!(bundle.bytes.is_empty() && bundle.companions.file.is_none());
        assert_eq!(bundle.companions.paths.len(), 3);
    }

    #[test]
    fn of_a_container_the_files_of_this_machine_are_meant() {
        let root = tempfile::tempdir().unwrap();
        let (configuration, unit) = CONFIGURATIONS[1];
        write(
            root.path(),
            configuration,
            "app_service_config_files:\n  - /bridge.yaml\nmedia_store_path: /media/store\n",
        );
        write(root.path(), "matrix/bridge/registration.yaml", "id: bridge");
        let unit = format!("etc/systemd/system/{}", unit.unwrap());
        write(
            root.path(),
            &unit,
            "[Service]\nExecStartPre=/usr/bin/env docker create --name matrix-synapse \\\n  \
             --mount type=bind,src=/matrix/bridge/registration.yaml,dst=/bridge.yaml,ro \\\n  \
             --mount type=bind,src=/matrix/synapse/storage,dst=/media synapse:v1\n",
        );
        let found = find(root.path());
        assert_eq!(
            paths(&found),
            ["/matrix/synapse/config/homeserver.yaml", "/matrix/bridge/registration.yaml"]
        );
        assert_eq!(found.media, Some("/matrix/synapse/storage/store".into()));
    }

    #[test]
    fn nobody_gets_what_he_could_not_read_himself() {
        if !geteuid().is_root() {
            return;
        }
        let root = machine();
        let below = |path: &str| root.path().join(path);
        let secret = below("etc/key");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(paths(&find(root.path())).len(), 2, "root's own word");
        // Another user's word.
        chown(below(CONFIGURATIONS[0].0), Some(65534), Some(65534)).unwrap();
        let found = find(root.path());
        assert_eq!(paths(&found), ["/etc/matrix-synapse/homeserver.yaml"]);
        assert!(found.left_out[0].reason.contains("Permission denied"), "{found:?}");
        // Anybody's.
        chown(below(CONFIGURATIONS[0].0), Some(0), Some(0)).unwrap();
        std::fs::set_permissions(below(CONFIGURATIONS[0].0), std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(paths(&find(root.path())), [""; 0]);
        // A link is not followed, whoever names it.
        write(root.path(), CONFIGURATIONS[0].0, "signing_key_path: /etc/link\n");
        symlink(&secret, below("etc/link")).unwrap();
        assert!(find(root.path()).left_out[0].reason.contains("symbolic link"));
    }

    #[test]
    fn who_names_files_without_end_is_not_followed() {
        let root = machine();
        let many: Vec<_> = (0..1000).map(|number| format!("log_config: /etc/{number}")).collect();
        write(root.path(), CONFIGURATIONS[0].0, &many.join("\n"));
        let found = find(root.path());
        assert_eq!((paths(&found).len(), found.left_out.len()), (1, 201));
        assert!(found.left_out[0].reason.contains("names 1000 files"), "{:?}", found.left_out[0]);
    }

    #[test]
    fn an_archive_has_each_file_under_its_path() {
        let files =
            [("/etc/a".into(), b"1".to_vec()), (PathBuf::from(format!("/{}", "d/".repeat(90))), vec![0; 9])];
        let text = archive(&files).unwrap();
        let mut archive = tar::Archive::new(text.as_slice());
        let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].path().unwrap(), Path::new("etc/a"));
        assert_eq!(entries[0].header().mode().unwrap(), 0o600);
    }
}
