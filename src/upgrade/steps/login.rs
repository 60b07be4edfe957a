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
use crate::files::beneath::{self, Directory};
use crate::files::{self};
use crate::postgres::Major;
use crate::runtime::{AsUser, Call, Runtime, output};
use crate::upgrade::configuration::quoted_value;
use crate::upgrade::records::{Upgrade, Which, moved};

/// The administrator's file while ours is in its place.
const ASIDE: &str = ".matrix-postgres-aside";

/// The map by which root and the cluster's owner become the superuser.
const MAP: &str = "matrix-postgres-upgrade";

/// What they are called where nothing else is set.
const USUAL: [&str; 2] = ["pg_hba.conf", "pg_ident.conf"];

/// Files of ours that the new server reads in place of rules that are somewhere else, and what names them to it.
const OURS: [&str; 3] =
    ["matrix-postgres-upgrade.hba.conf", "matrix-postgres-upgrade.ident.conf", "postgresql.auto.conf"];

/// A file of rules is no larger; what is, is none.
const MODEST: u64 = 1 << 20;

/// The first major version whose files of rules can include others.
const INCLUDES: Major = Major(16);

/// Where the new cluster reads who may log in: pg_hba.conf, and pg_ident.conf.
#[derive(Debug, PartialEq, Eq)]
pub enum Rules {
    /// In files that are its own: of its data directory, relative to that, or of its directory in /etc.
    Within([PathBuf; 2]),
    /// At least one is somewhere else, where it is not ours to change.
    Elsewhere {
        /// Where they are once the cluster is in place.
        files: [PathBuf; 2],
        /// Its place.
        data_directory: PathBuf,
        /// Whether a file of ours can include them; else it has a copy of what they say, until the server starts again.
        includes: bool,
    },
}

/// Which rules the new cluster of an upgrade will read once it is in place.
///
/// # Errors
/// If the server cannot be asked.
pub fn find(runtime: &dyn Runtime, account: &Account, upgrade: &Upgrade) -> Result<Rules> {
    let (major, directory, data_directory) = (upgrade.to, upgrade.beside.as_path(), upgrade.home(Which::New));
    let mut found = Vec::new();
    for setting in ["hba_file", "ident_file"] {
        let mut call = Call::new("postgres", ["-C", setting, "-D"]);
        call.arguments.push(directory.into());
        if let Some(file) = upgrade.configured_by(Which::New) {
            let place = format!("data_directory={}", directory.display());
            call.arguments.extend(["-c".into(), file.into(), "-c".into(), place.into()]);
        }
        let text = output(AsUser { runtime, account }.command(major, &call)?, "postgres -C", &[])?;
        found.push(PathBuf::from(String::from_utf8_lossy(&text).trim_end()));
    }
    let inside = |path: &Path| -> Option<PathBuf> {
        let inside = [directory, data_directory].into_iter().find_map(|root| path.strip_prefix(root).ok());
        inside.map(Path::to_owned)
    };
    // A link leads to what others may read, too.
    let ours = |file: &PathBuf| directory.join(file).symlink_metadata().is_ok_and(|meta| meta.is_file());
    let [hba, ident] = [&found[0], &found[1]];
    if let Some(registered) = &upgrade.registered
        && [hba, ident].iter().all(|file| file.starts_with(&registered.configuration) && ours(file))
    {
        return Ok(Rules::Within([hba.clone(), ident.clone()]));
    }
    if let (Some(hba), Some(ident)) = (inside(hba).filter(ours), inside(ident).filter(ours)) {
        return Ok(Rules::Within([hba, ident]));
    }
    let files = [hba, ident].map(|file| moved(file, &[directory, data_directory], data_directory));
    // There is no way to write a quote in it.
    let includes = major >= INCLUDES && files.iter().all(|file| !file.display().to_string().contains('"'));
    Ok(Rules::Elsewhere { files, data_directory: data_directory.to_owned(), includes })
}

/// Lets nobody in to the cluster in `directory` but root and its owner, whom its server knows by this name, as `superuser`; it
/// can be repeated. Returns the files that [`open`] is to put back, relative to the data directory.
///
/// # Errors
/// [`Kind::File`], [`Kind::NoSpace`].
pub fn close(
    directory: &Path,
    rules: &Rules,
    (account, name): (&Account, &str),
    superuser: &str,
) -> Result<Vec<PathBuf>> {
    let ours = [(own_rules(superuser), String::new()), (String::new(), map(name, superuser))];
    account.with_files(|| match rules {
        Rules::Within(files) => {
            for (file, (before, after)) in files.iter().zip(&ours) {
                let path = directory.join(file);
                put_aside(&path, |text| [before.as_bytes(), text, b"\n", after.as_bytes()].concat())?;
            }
            Ok(files.to_vec())
        }
        Rules::Elsewhere { files, data_directory, includes } => {
            let settings = directory.join(OURS[2]);
            let (_, like) = read(&settings)?;
            for ((name, file), (before, after)) in OURS.into_iter().zip(files).zip(&ours) {
                let text = stand_in(directory, data_directory, file, *includes)?;
                let path = directory.join(name);
                files::replace_like(&aside(&path), &mut text.as_bytes(), &like)?;
                files::replace_like(&path, &mut [before, text.as_str(), after].concat().as_bytes(), &like)?;
            }
            put_aside(&settings, |text| {
                let ours = ["hba_file", "ident_file"].iter().zip(OURS).map(|(setting, name)| {
                    let path = data_directory.join(name).display().to_string();
                    format!("{setting} = {}\n", quoted_value(&path))
                });
                [text, b"\n", ours.collect::<String>().as_bytes()].concat()
            })?;
            Ok(OURS.map(PathBuf::from).to_vec())
        }
    })
}

/// Puts a file aside, unless it is there already, and what is made of it in its place.
fn put_aside(path: &Path, closed: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<()> {
    let aside = aside(path);
    if !is_there(&aside) {
        files::copy_like(path, &aside)?;
    }
    let (text, meta) = read(&aside)?;
    files::replace_like(path, &mut closed(&text).as_slice(), &meta)
}

/// What stands for a file of rules that is somewhere else, until the server starts again and reads that itself.
fn stand_in(directory: &Path, data_directory: &Path, file: &Path, includes: bool) -> Result<String> {
    let shown = file.display();
    if includes {
        return Ok(format!(
            "# Written by matrix-postgres-upgrade, used until the next start of the server.\ninclude \"{shown}\"\n"
        ));
    }
    // The cluster is not in its place yet.
    let now = moved(file, &[data_directory], directory);
    let (text, _) = now.canonicalize().at("read", &now).and_then(|now| read(&now))?;
    log::warn!(
        "until its next start the new server uses a copy of {shown}; changes to the file have no effect until then"
    );
    Ok(format!(
        "# Written by matrix-postgres-upgrade, used until the next start of the server: a copy of {shown}.\n{}\n",
        String::from_utf8_lossy(&text)
    ))
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
            files::sync_directory(files::parent(&path))?;
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
    let files: Vec<_> = USUAL.into_iter().chain(OURS).map(PathBuf::from).collect();
    open(directory, &files)
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
        return Err(Error::new(Kind::File, format!("{} is not a regular file", path.display())));
    }
    Ok((beneath::read_all(file, MODEST).at("read", path)?, meta))
}

fn own_rules(superuser: &str) -> String {
    let aside = format!("{}{ASIDE}", USUAL[0]);
    format!(
        "# Written by matrix-postgres-upgrade during an unfinished upgrade: all other logins are rejected. The original is\n\
         # below and in {aside}; matrix-postgres-upgrade recover restores it.\n\
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
        let rules = Rules::Within(USUAL.map(PathBuf::from));
        let mut files = Vec::new();
        for _ in 0..2 {
            files = close(directory.path(), &rules, (&account, "mp"), "postgres").unwrap();
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

    #[test]
    fn rules_that_are_somewhere_else_are_not_touched_and_nobody_comes_in_by_them() {
        let (directory, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |file: &str| std::fs::read_to_string(directory.path().join(file)).unwrap();
        std::fs::write(directory.path().join("postgresql.auto.conf"), "work_mem = '1MB'").unwrap();
        let outside = USUAL.map(|name| etc.path().join(name));
        std::fs::write(&outside[0], "local all all trust\n").unwrap();
        std::fs::write(&outside[1], "mine root postgres\n").unwrap();
        let meta = directory.path().metadata().unwrap();
        let account = Account { name: "mp".into(), ..Account::of(meta.uid(), meta.gid()) };
        for includes in [true, false] {
            let data_directory = PathBuf::from("/it's/data");
            let rules = Rules::Elsewhere { files: outside.clone(), data_directory, includes };
            let mut files = Vec::new();
            for _ in 0..2 {
                files = close(directory.path(), &rules, (&account, "mp"), "postgres").unwrap();
                assert!(is_closed(directory.path(), &files));
                let own = read("matrix-postgres-upgrade.hba.conf");
                let rule = own.lines().find(|line| !line.starts_with('#')).unwrap();
                assert_eq!(rule, "local all \"postgres\" peer map=matrix-postgres-upgrade");
                assert!(read("matrix-postgres-upgrade.ident.conf").contains("\"root\" \"postgres\"\n"));
                let settings = read("postgresql.auto.conf");
                assert!(
                    settings.starts_with(
                        "work_mem = '1MB'\nhba_file = '/it''s/data/matrix-postgres-upgrade.hba.conf'\nident"
                    ),
                    "{settings}"
                );
            }
            assert!(open_usual(directory.path()).unwrap() && !is_closed(directory.path(), &files));
            assert_eq!(read("postgresql.auto.conf"), "work_mem = '1MB'");
            let opened = read("matrix-postgres-upgrade.hba.conf");
            let expected = match includes {
                true => format!("include \"{}\"", outside[0].display()),
                false => "local all all trust".to_owned(),
            };
            assert!(opened.contains(&expected) && !opened.contains("reject"), "{opened}");
        }
        assert_eq!(std::fs::read_to_string(&outside[0]).unwrap(), "local all all trust\n");
    }
}
