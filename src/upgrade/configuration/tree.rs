//! The files of an administrator in a data directory: what is there, read without changing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::home::{Home, normal, relative};
use super::rules;
use super::syntax::{self, Include, Line};
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath;

/// The main file, the one of ALTER SYSTEM, which is read after it, and the rules of who may log in.
pub(super) const MAIN: &str = "postgresql.conf";
const AUTO: &str = "postgresql.auto.conf";
const RULES: [(&str, &str); 2] = [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")];

/// Settings that name files or directories which the server reads.
const NAMING: [&str; 7] = [
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_crl_dir",
    "ssl_dh_params_file",
    "krb_server_keyfile",
];

/// Deeper, the server itself gives up (guc-file.l).
const DEEPEST_INCLUDE: usize = 10;

/// Larger, a file of nobody knows whom is no configuration.
const MODEST: u64 = 1 << 20;

/// A configuration is read whole, up to here: files may include each other without end, and each other's files.
const LONGEST: u64 = 16 << 20;

/// What each of its files counts at least.
const LEAST: u64 = 4 << 10;

/// What was found. Files have the names that [`Home`] gives them where they are in the cluster's directories, and are absolute
/// elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    /// Where it is.
    pub(super) home: Home,
    /// Files of settings, in and outside of it.
    pub(super) texts: BTreeMap<PathBuf, Vec<u8>>,
    /// Settings in the order in which the server reads them: the last one of a name holds.
    pub(super) settings: Vec<Found>,
    /// Include lines whose path leads astray when the directory is elsewhere, with what to write instead.
    pub(super) includes: Vec<(PathBuf, usize, String)>,
    /// Other files and directories to carry as they are: rules, certificates, and what is beside them.
    pub(super) copied: BTreeSet<PathBuf>,
    /// The text of files of rules, of those that are in the data directory.
    pub(super) rules: BTreeMap<PathBuf, String>,
    /// Those of `copied` that nothing names.
    pub(super) unnamed: BTreeSet<PathBuf>,
    /// What stays behind, and why.
    pub(super) left: Vec<(PathBuf, &'static str)>,
    /// Size of a WAL file in bytes.
    pub(super) wal_segment: u64,
    /// Bytes that have been read.
    pub(super) length: u64,
}

/// A setting in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) file: PathBuf,
    /// From 1 on.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: String,
}

impl Tree {
    /// Reads what is there, as far as `account` may.
    ///
    /// # Errors
    /// [`Kind::DataDirectory`] if the configuration is not; [`Kind::File`].
    pub(super) fn read(home: &Home, account: &Account) -> Result<Self> {
        // A link in the data directory may lead anywhere: what the directory's owner may not read is not copied to where he can.
        account.with_files(|| Self::find(home, account))
    }

    fn find(home: &Home, account: &Account) -> Result<Self> {
        let mut tree = Self { home: home.clone(), wal_segment: wal_segment(home.data()), ..Self::default() };
        if !home.files().join(MAIN).exists() {
            return Err(Error::new(
                Kind::DataDirectory,
                format!(
                    "{} has no {MAIN}: configuration files outside of the data directory are not supported",
                    home.files().display()
                ),
            )
            .hint(format!(
                "copy {MAIN}, pg_hba.conf and pg_ident.conf of the cluster into the data directory"
            )));
        }
        for file in [MAIN.into(), home.in_data(AUTO)] {
            tree.follow(&file, account, 0)?;
        }
        for (setting, default) in RULES {
            let file = match tree.effective(setting) {
                Some(file) => home.place(home.data(), file),
                None => Some(default.into()),
            };
            if let Some(file) = file {
                tree.follow_rules(&file, account, 0)?;
            }
        }
        for setting in NAMING {
            let value = tree.effective(setting).unwrap_or_default();
            let value = value.strip_prefix("FILE:").unwrap_or(value);
            let inside = (!value.is_empty()).then(|| home.place(home.data(), value)).flatten();
            if let Some(path) = inside {
                tree.copy_with_target(path);
            }
        }
        tree.look_around(Path::new(""))?;
        if home.is_apart() {
            tree.look_around(&home.in_data(""))?;
        }
        tree.leave_unreadable();
        Ok(tree)
    }

    /// The value that holds, of those in files.
    pub(super) fn effective(&self, name: &str) -> Option<&str> {
        let mut found = self.settings.iter().rev();
        found.find(|setting| setting.name.eq_ignore_ascii_case(name)).map(|setting| setting.value.as_str())
    }

    /// Where a file of the tree is.
    pub(super) fn path(&self, file: &Path) -> PathBuf {
        self.home.path(file)
    }

    /// Reads a file as a part of the whole, which has an end.
    fn take(&mut self, file: &Path, account: &Account) -> Result<Option<Vec<u8>>> {
        let bytes = read(&self.path(file), account)?;
        self.length += bytes.as_ref().map_or(0, |bytes| (bytes.len() as u64).max(LEAST));
        if self.length <= LONGEST {
            return Ok(bytes);
        }
        let message = format!(
            "the configuration in {}, with all included files, is longer than {LONGEST} bytes",
            self.home.files().display()
        );
        Err(Error::new(Kind::File, message).hint(format!("ls -l {}", self.path(file).display())))
    }

    /// Reads a file of settings and those that it includes.
    fn follow(&mut self, file: &Path, account: &Account, depth: usize) -> Result<()> {
        let Some(bytes) = self.take(file, account)? else { return Ok(()) };
        let path = self.path(file);
        let directory = path.parent().unwrap_or(&path).to_owned();
        self.texts.insert(file.to_owned(), bytes.clone());
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            match syntax::line(&String::from_utf8_lossy(line)) {
                Line::Setting { name, value } => {
                    self.settings.push(Found { file: file.to_owned(), line: number, name, value });
                }
                Line::Include { what, path } if depth < DEEPEST_INCLUDE => {
                    let place = self.home.place(&directory, &path);
                    self.note_include(file, number, what, &path, place.as_deref());
                    let included = place.unwrap_or_else(|| normal(&directory.join(&path)));
                    for file in self.included(what, &included)? {
                        self.follow(&file, account, depth + 1)?;
                    }
                }
                Line::Include { .. } | Line::Nothing | Line::Wrong => {}
            }
        }
        Ok(())
    }

    /// A path in the data directory must be relative to the file that has it, and any other one absolute: then
    /// it means the same wherever the directory is.
    fn note_include(&mut self, file: &Path, line: usize, what: Include, path: &str, place: Option<&Path>) {
        if file.is_absolute() {
            return;
        }
        let better = match (place, Path::new(path).is_absolute()) {
            (Some(place), true) => match relative(file.parent().unwrap_or(file), place) {
                Some(better) => better,
                None => return,
            },
            (None, false) => normal(&self.path(file.parent().unwrap_or(file)).join(path)),
            _ => return,
        };
        let text = format!("{} {}", what.name(), syntax::quoted(&better.to_string_lossy()));
        self.includes.push((file.to_owned(), line, text));
    }

    /// The files that a directive names.
    fn included(&self, what: Include, path: &Path) -> Result<Vec<PathBuf>> {
        if what != Include::Directory {
            return Ok(vec![path.to_owned()]);
        }
        let directory = self.path(path);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &directory, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.at("read", &directory)?.file_name();
            let text = name.to_string_lossy();
            if !text.starts_with('.') && text.ends_with(".conf") && !directory.join(&name).is_dir() {
                names.push(path.join(&name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Notes a file of rules and those that it includes.
    fn follow_rules(&mut self, file: &Path, account: &Account, depth: usize) -> Result<()> {
        let Some(bytes) = self.take(file, account)? else { return Ok(()) };
        self.copy_with_target(file.to_owned());
        let path = self.path(file);
        let directory = path.parent().unwrap_or(&path);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.rules.insert(file.to_owned(), text.clone());
        for (what, named) in rules::named(&text) {
            let Some(place) = self.home.place(directory, &named).filter(|_| depth < DEEPEST_INCLUDE) else {
                continue;
            };
            for file in self.included(what, &place)? {
                self.follow_rules(&file, account, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What a symbolic link points to in the data directory goes with it.
    fn copy_with_target(&mut self, path: PathBuf) {
        if path.as_os_str().is_empty() || self.is_postgresqls(&path) || !self.copied.insert(path.clone()) {
            return;
        }
        if let Ok(target) = self.path(&path).read_link() {
            let full = self.path(&path);
            if let Some(target) = self.home.place(full.parent().unwrap_or(&full), &target.to_string_lossy()) {
                self.copy_with_target(target);
            }
        }
    }

    /// What else is there, at the top and beside what is carried.
    fn look_around(&mut self, directory: &Path) -> Result<()> {
        let path = self.path(directory);
        let mut entries: Vec<_> = std::fs::read_dir(&path).at("read", &path)?.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let relative = directory.join(entry.file_name());
            if self.texts.contains_key(&relative)
                || self.copied.contains(&relative)
                || self.is_postgresqls(&relative)
                || self.is_of_the_package(&relative)
            {
                continue;
            }
            // A running server removes files while we look.
            let Ok(meta) = entry.metadata() else { continue };
            let holds = |path: &PathBuf| path.starts_with(&relative);
            let is_way = self.texts.keys().chain(&self.copied).any(holds);
            match meta.file_type() {
                // What is behind it is carried as files.
                kind if kind.is_symlink() && is_way => {}
                kind if kind.is_symlink() => {
                    self.unnamed.insert(relative.clone());
                    self.copy_with_target(relative);
                }
                kind if kind.is_file() && meta.len() < MODEST => {
                    self.unnamed.insert(relative.clone());
                    self.copied.insert(relative);
                }
                kind if kind.is_file() => self.left.push((relative, "a file larger than 1 MiB")),
                kind if kind.is_dir() && is_way => self.look_around(&relative)?,
                kind if kind.is_dir() => self.left.push((relative, "a directory")),
                _ => self.left.push((relative, "a special file")),
            }
        }
        Ok(())
    }

    /// Whether it is a file of postgresql-common's, which takes its part in the configuration.
    fn is_of_the_package(&mut self, file: &Path) -> bool {
        let name = file.to_str().filter(|_| self.home.is_apart()).unwrap_or_default();
        // What is behind a link is carried as files.
        let is_packaged = PACKAGED.contains(&name) && !(name == "conf.d" && self.path(file).is_symlink());
        if is_packaged {
            self.copied.insert(file.to_owned());
        }
        is_packaged || UNCARRIED.contains(&name)
    }

    /// Whether what is copied can be; the server itself reads nothing that its owner may not.
    fn leave_unreadable(&mut self) {
        let is_readable = |path: &PathBuf| {
            let full = self.path(path);
            let is_file = full.symlink_metadata().is_ok_and(|meta| meta.is_file());
            !is_file || beneath::open(&full).is_ok()
        };
        let unreadable: Vec<_> = self.copied.iter().filter(|path| !is_readable(path)).cloned().collect();
        for path in unreadable {
            self.copied.remove(&path);
            self.unnamed.remove(&path);
            self.left.push((path, "not readable by its owner"));
        }
    }

    /// Whether a path is one of the server's own, or below one.
    fn is_postgresqls(&self, path: &Path) -> bool {
        let home = &self.home;
        let Some(inside) = home.inside_data(path) else { return false };
        let Some(Component::Normal(first)) = inside.components().next() else { return false };
        let name = first.to_string_lossy();
        let is_directory = home.data().join(first).is_dir();
        let logs = self.effective("log_directory").and_then(|logs| home.place(home.data(), logs));
        OWN.contains(&&*name)
            || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name.ends_with(".signal")
            || (is_directory && name.starts_with("pg_"))
            || (is_directory && logs.is_some_and(|logs| path.starts_with(logs)))
    }
}

/// Files of postgresql-common's beside postgresql.conf, see pg_createcluster(1).
const PACKAGED: [&str; 4] = ["conf.d", "environment", "log", "pg_ctl.conf"];

/// The same, which say what is so of one cluster only.
const UNCARRIED: [&str; 2] = ["start.conf", "pgdata"];

/// What the server, its programs and the file system make at the top of a data directory (chapter "Database File
/// Layout"); directories `pg_*`, and files `*.signal`, are not listed.
const OWN: [&str; 9] = [
    "PG_VERSION",
    "base",
    "global",
    "log",
    "postgresql.auto.conf.tmp",
    "recovery.conf",
    "recovery.done",
    "delete_old_cluster.sh",
    "lost+found",
];
const OWN_PREFIXES: [&str; 6] =
    ["postmaster.", "current_logfiles", "backup_label", "backup_manifest", "tablespace_map", ".s.PGSQL."];

/// Reads a file, if it is there, as the directory's owner. That user's links are followed, as the server follows them.
fn read(path: &Path, account: &Account) -> Result<Option<Vec<u8>>> {
    let read = beneath::open_through_links(path).and_then(|file| beneath::read_all(file, LONGEST));
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message = format!("{} is not a file that {} may read", path.display(), account.name);
            Err(Error::new(Kind::File, message).because(error).hint(format!("ls -l {}", path.display())))
        }
    }
}

/// The size of the WAL files that are there; 16 MiB, which is usual, where none is.
fn wal_segment(root: &Path) -> u64 {
    let files = std::fs::read_dir(root.join("pg_wal")).into_iter().flatten().flatten();
    let is_segment = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    files
        .filter(|file| file.file_name().to_str().is_some_and(is_segment))
        .find_map(|file| file.metadata().ok().map(|meta| meta.len()).filter(|size| size.is_power_of_two()))
        .unwrap_or(16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn us() -> Account {
        Account::of(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    }

    fn names<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<String> {
        paths.into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn settings_are_found_in_the_order_in_which_they_hold() {
        let directory = tempfile::tempdir().unwrap();
        let root = &directory.path().join("data");
        let outside = directory.path().join("outside.conf");
        std::fs::create_dir(root).unwrap();
        std::fs::write(&outside, "work_mem = 3MB\n").unwrap();
        write(
            root,
            MAIN,
            &format!(
                "work_mem = 1MB\ninclude_dir 'conf.d'\ninclude_if_exists 'nope'\ninclude '{}'\n\
                 include_dir '{}/conf.d'\ninclude '../outside.conf'",
                outside.display(),
                root.display()
            ),
        );
        write(root, "conf.d/b.conf", "work_mem = 2MB\ninclude 'sub/c'");
        write(root, "conf.d/a.conf", "Work_Mem = 4MB");
        write(root, "conf.d/.hidden.conf", "work_mem = 9MB");
        write(root, "conf.d/sub/c", "port = 1");
        write(root, AUTO, "# Do not edit\nwork_mem = '5MB'\n");
        let tree = Tree::read(&Home::of(root), &us()).unwrap();
        let values: Vec<_> = tree.settings.iter().map(|found| found.value.as_str()).collect();
        assert_eq!(values, ["1MB", "4MB", "2MB", "1", "3MB", "4MB", "2MB", "1", "3MB", "5MB"]);
        assert_eq!(tree.effective("WORK_MEM"), Some("5MB"));
        let texts = names(tree.texts.keys());
        let outside = outside.display().to_string();
        assert_eq!(texts, [&outside, "conf.d/a.conf", "conf.d/b.conf", "conf.d/sub/c", AUTO, MAIN]);
        // They mean the same wherever the directory is.
        assert_eq!(
            tree.includes,
            [
                (MAIN.into(), 5, "include_dir 'conf.d'".to_owned()),
                (MAIN.into(), 6, format!("include '{outside}'"))
            ]
        );
        assert_eq!(names(&tree.unnamed), ["conf.d/.hidden.conf"]);
    }

    #[test]
    fn what_rules_and_settings_name_is_carried_and_what_is_postgresqls_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = &directory.path().join("data");
        let absolute = root.join("certs/server.crt");
        write(
            root,
            MAIN,
            &format!(
                "ssl_key_file = 'certs/server.key'\nssl_cert_file = '{}'\nlog_directory = 'journal'\n\
                 krb_server_keyfile = 'FILE:krb/tab'\nssl_ca_file = '/etc/ssl/ca.pem'\nssl_crl_dir = 'crl'\n",
                absolute.display()
            ),
        );
        write(root, "pg_hba.conf", "local all @users \"@no\",x peer # @comment\ninclude \"more hba\"\n");
        write(root, "more hba", "host \"@file\" @\"with blank\" samenet reject");
        for file in
            ["users", "with blank", "pg_ident.conf", "certs/server.key", "certs/server.crt", "certs/x.pem"]
        {
            write(root, file, "");
        }
        for file in
            ["krb/tab", "crl/ab.r0", "base/1/1259", "pg_wal/x", "log/l", "journal/l", "mine/x", "PG_VERSION"]
        {
            write(root, file, "");
        }
        for file in ["postmaster.pid", "standby.signal", "backup_label.old", "notes.txt"] {
            write(root, file, "");
        }
        std::fs::File::create(root.join("core")).unwrap().set_len(2 << 20).unwrap();
        std::fs::File::create(root.join("pg_wal").join("0".repeat(24))).unwrap().set_len(1 << 20).unwrap();
        symlink("certs/x.pem", root.join("link")).unwrap();
        let tree = Tree::read(&Home::of(root), &us()).unwrap();
        assert_eq!(
            names(&tree.copied),
            [
                "certs/server.crt",
                "certs/server.key",
                "certs/x.pem",
                "crl",
                "krb/tab",
                "link",
                "more hba",
                "notes.txt",
                "pg_hba.conf",
                "pg_ident.conf",
                "users",
                "with blank"
            ]
        );
        assert_eq!(names(&tree.unnamed), ["certs/x.pem", "link", "notes.txt"]);
        let left: Vec<_> = tree.left.iter().map(|(path, why)| (path.to_str().unwrap(), *why)).collect();
        assert_eq!(left, [("core", "a file larger than 1 MiB"), ("mine", "a directory")]);
        assert_eq!(tree.wal_segment, 1 << 20);
    }

    #[test]
    fn a_configuration_that_is_elsewhere_or_is_not_the_owners_to_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Tree::read(&Home::of(directory.path()), &us()).unwrap_err();
        assert_eq!(error.kind(), Kind::DataDirectory);
        write(directory.path(), "secret", "x");
        let secret = directory.path().join("secret");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&secret, directory.path().join(MAIN)).unwrap();
        let open = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        open(directory.path());
        // Whoever is not root cannot be another.
        if nix::unistd::geteuid().is_root() {
            let error = Tree::read(&Home::of(directory.path()), &Account::of(54_321, 54_321)).unwrap_err();
            assert!(error.to_string().contains("is not a file that 54321 may read"), "{error}");
            std::fs::remove_file(directory.path().join(MAIN)).unwrap();
            write(directory.path(), MAIN, "");
            open(&directory.path().join(MAIN));
            let tree = Tree::read(&Home::of(directory.path()), &Account::of(54_321, 54_321)).unwrap();
            assert_eq!(tree.left, [(PathBuf::from("secret"), "not readable by its owner")]);
            std::fs::remove_file(directory.path().join(MAIN)).unwrap();
        }
        let _ = std::fs::remove_file(directory.path().join(MAIN));
        nix::unistd::mkfifo(&directory.path().join(MAIN), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(
            Tree::read(&Home::of(directory.path()), &us())
                .unwrap_err()
                .to_string()
                .contains("is not a file that")
        );
    }

    #[test]
    fn files_that_include_each_other_without_end_are_read_up_to_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let error = |main: &str| {
            write(root, MAIN, main);
            Tree::read(&Home::of(root), &us()).unwrap_err().to_string()
        };
        // Each of the ten times deeper there are eight times as many.
        write(root, "itself.conf", &"include 'itself.conf'\n".repeat(8));
        assert!(error("include 'itself.conf'\n").contains("is longer than"));
        for number in 0..5 {
            let file = format!("many/{number}.conf");
            write(root, &file, "");
            std::fs::File::create(root.join(file)).unwrap().set_len(4 << 20).unwrap();
        }
        assert!(error("include_dir 'many'\n").contains("is longer than"));
        // A few do no harm.
        write(root, "itself.conf", "include 'itself.conf'\n");
        write(root, MAIN, "include 'itself.conf'\n");
        Tree::read(&Home::of(root), &us()).unwrap();
    }
}
