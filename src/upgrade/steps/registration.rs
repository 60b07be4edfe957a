//! Clusters of Debian's: their configuration in /etc/postgresql, and which of the two systemd starts.
//!
//! All that is done with files there is done as the clusters' owner, who may change the directories that they are in.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath, directories, exists};
use crate::place::aside::{self, Reason};
use crate::upgrade::configuration::{self, Home};
use crate::upgrade::records::{Registered, Upgrade, Which};
use crate::upgrade::steps::exchange::{exchange, move_to};

/// When a cluster's server is started (pg_createcluster(1)).
const START: &str = "start.conf";

/// What initdb writes into the data directory, and a cluster of Debian's has elsewhere.
const OF_INITDB: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// A file of the configuration is no longer than that.
const LONGEST: u64 = 16 << 20;

/// Where the new cluster's configuration will be, which says that nobody is to start it.
///
/// # Errors
/// [`Kind::File`], also if there is something already.
pub(super) fn make(upgrade: &Upgrade, account: &Account) -> Result<()> {
    let Upgrade { beside, registered: Some(registered), .. } = upgrade else { return Ok(()) };
    if registered.is_unregistered(beside) {
        return Ok(());
    }
    let Registered { configuration, old_configuration, .. } = registered;
    account.with_files(|| {
        OF_INITDB
            .iter()
            .map(|name| beside.join(name))
            .try_for_each(|file| std::fs::remove_file(&file).at("remove", &file))
    })?;
    make_parent(configuration)?;
    directories::make_private(configuration, account)?;
    account.with_files(|| {
        let like = old_configuration.metadata().at("read", old_configuration)?;
        let mode = Permissions::from_mode(like.mode() & 0o777);
        std::fs::set_permissions(configuration, mode).at("change the mode of", configuration)?;
        let text = aside::start(&start(old_configuration)?, "disabled", Reason::UnderWay);
        files::publish(&configuration.join(START), &text)
    })
}

/// Makes what it will be in, for others to read, as Debian does.
fn make_parent(path: &Path) -> Result<()> {
    let directory = files::parent(path);
    if exists(directory) {
        return Ok(());
    }
    directories::make_all(directory, 0o755)?;
    let made = beneath::Directory::open(directory).at("open", directory)?;
    let mode = Permissions::from_mode(0o755);
    made.as_owner(|| std::fs::set_permissions(directory, mode).at("change the mode of", directory))
}

/// From here on nobody starts the server of the one that is in place, but whoever puts a cluster in place.
///
/// # Errors
/// [`Kind::File`].
pub(in crate::upgrade) fn bar(upgrade: &Upgrade, which: Which, account: &Account) -> Result<()> {
    match &upgrade.registered {
        Some(registered) => write_start(of(registered, which), account, |text| {
            aside::start(text, "disabled", Reason::UnderWay)
        }),
        None => Ok(()),
    }
}

/// Puts this one of the clusters in place and the other one aside; it lasts when this returns. `account` is their owner.
///
/// # Errors
/// [`Kind::File`].
pub(in crate::upgrade) fn put(upgrade: &Upgrade, which: Which, account: &Account) -> Result<()> {
    match &upgrade.registered {
        Some(registered) => put_registered(upgrade, registered, which, account),
        None => exchange(&upgrade.data_directory, &upgrade.beside),
    }
}

/// At no instant would systemd start both, nor one whose data are not in place. It can be repeated.
fn put_registered(upgrade: &Upgrade, registered: &Registered, which: Which, account: &Account) -> Result<()> {
    let home = &registered.data_directory;
    put_aside(upgrade, registered, other(which), account)?;
    let (from, to) = match which {
        Which::New => (&upgrade.beside, home),
        Which::Old => (home, &upgrade.beside),
    };
    make_parent(to)?;
    if exists(from) && !move_to(from, to)? {
        let message = format!("{} and {} are on different file systems", from.display(), to.display());
        return Err(Error::new(Kind::File, message));
    }
    restore(upgrade, registered, which, account)
}

/// Makes their files say which one is in place; what is so stays.
///
/// # Errors
/// As [`put`].
pub(in crate::upgrade) fn settle(upgrade: &Upgrade, which: Which, account: &Account) -> Result<()> {
    let Some(registered) = &upgrade.registered else { return Ok(()) };
    // A new one that was never in place says so itself, if it is ours at all.
    if which == Which::New {
        put_aside(upgrade, registered, Which::Old, account)?;
    }
    restore(upgrade, registered, which, account)
}

fn other(which: Which) -> Which {
    match which {
        Which::Old => Which::New,
        Which::New => Which::Old,
    }
}

fn of(registered: &Registered, which: Which) -> &Path {
    match which {
        Which::Old => &registered.old_configuration,
        Which::New => &registered.configuration,
    }
}

/// It is not started by itself any more; the old one moves to another port, too, and says what has come in its place.
fn put_aside(upgrade: &Upgrade, registered: &Registered, which: Which, account: &Account) -> Result<()> {
    let configuration = of(registered, which);
    if !exists(configuration) {
        return Ok(());
    }
    if which == Which::New {
        return write_start(configuration, account, |text| aside::start(text, "disabled", Reason::UnderWay));
    }
    let successor = format!("{}/{}", upgrade.to, registered.name);
    let reason = Reason::UpgradedTo(&successor);
    write_start(configuration, account, |text| aside::start(text, "manual", reason))?;
    let home = Home::apart(configuration, &upgrade.data_directory);
    let texts = account.with_files(|| {
        let texts = configuration::texts(&home, account)?;
        texts.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()
    })?;
    if texts.iter().any(|text| aside::is_marked(text)) {
        return Ok(());
    }
    let (file, line) = match configuration::line_of(&home, "port", account)? {
        Some((file, line)) => (file, Some(line)),
        None => (registered.old_file(), None),
    };
    let port = format!("port = {}", registered.port_aside);
    change(&file, account, |text| aside::replaced(text, line, &port, reason))
}

/// It is as it was before it was put aside.
fn restore(upgrade: &Upgrade, registered: &Registered, which: Which, account: &Account) -> Result<()> {
    let configuration = of(registered, which);
    if which == Which::Old {
        let home = Home::apart(configuration, &upgrade.data_directory);
        for file in account.with_files(|| configuration::texts(&home, account))? {
            change(&file, account, aside::restored)?;
        }
    }
    write_start(configuration, account, aside::restored)
}

/// The new cluster is in place no more, and keeps no place in the package's lists.
///
/// # Errors
/// [`Kind::File`].
pub(in crate::upgrade) fn forget(upgrade: &Upgrade) -> Result<()> {
    let Some(registered) = &upgrade.registered else { return Ok(()) };
    let Registered { configuration, data_directory, .. } = registered;
    // Where there are data, or which its server would be started with, it is somebody else's.
    let is_anothers =
        || exists(&registered.file()) && !start(configuration).is_ok_and(|text| aside::is_marked(&text));
    if exists(data_directory) || registered.is_unregistered(&upgrade.beside) || is_anothers() {
        return Ok(());
    }
    directories::remove(configuration).at("remove", configuration)?;
    for made in [configuration, data_directory].map(|path| files::parent(path)) {
        // What is not empty stays.
        if let Ok(directory) = beneath::Directory::open(files::parent(made))
            && let Some(name) = made.file_name()
        {
            let _ = directory.as_owner(|| Ok(directory.remove_directory(name)));
        }
    }
    Ok(())
}

/// The new cluster's configuration goes into its data directory, which is put aside as well: it may be looked into.
///
/// # Errors
/// [`Kind::File`], [`Kind::NoSpace`].
pub(in crate::upgrade) fn take_along(upgrade: &Upgrade, account: &Account) -> Result<()> {
    let Some(Registered { configuration, .. }) = &upgrade.registered else { return Ok(()) };
    if !exists(configuration) {
        return Ok(());
    }
    account.with_files(|| {
        for entry in std::fs::read_dir(configuration).at("read", configuration)? {
            let name = entry.at("read", configuration)?.file_name();
            files::copy_like(&configuration.join(&name), &upgrade.beside.join(&name))?;
        }
        Ok(())
    })
}

fn start(configuration: &Path) -> Result<String> {
    let file = configuration.join(START);
    if exists(&file) { read(&file) } else { Ok(String::new()) }
}

fn write_start(
    configuration: &Path,
    account: &Account,
    new: impl FnOnce(&str) -> String + Send,
) -> Result<()> {
    let file = configuration.join(START);
    if exists(&file) {
        return change(&file, account, new);
    }
    // Without one the server is started.
    account.with_files(|| match new("") {
        text if text.is_empty() => Ok(()),
        text => files::publish(&file, &text),
    })
}

/// Writes a file anew if its text is another one then.
fn change(file: &Path, account: &Account, new: impl FnOnce(&str) -> String + Send) -> Result<()> {
    account.with_files(|| {
        let text = read(file)?;
        let changed = new(&text);
        if changed == text {
            return Ok(());
        }
        let like = file.metadata().at("read", file)?;
        files::replace_like(file, &mut changed.as_bytes(), &like)
    })
}

fn read(file: &Path) -> Result<String> {
    let bytes = beneath::read(file, LONGEST).at("read", file)?;
    String::from_utf8(bytes).map_err(|error| {
        Error::new(Kind::File, format!("{} is not UTF-8 text", file.display())).because(error)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::upgrade::records::registered::tests::registered;

    const CONF: &str = "data_directory = '/d'\nport = 5432\t\t# (change requires restart)\nwork_mem = 7MB";

    /// 15/main below a root of its own, and the new cluster beside it.
    fn clusters() -> (tempfile::TempDir, Upgrade, Account) {
        let root = tempfile::tempdir().unwrap();
        let below = |path: &Path| root.path().join(path.strip_prefix("/").unwrap());
        let mut upgrade = registered();
        for path in [&mut upgrade.data_directory, &mut upgrade.beside] {
            *path = below(path);
            std::fs::create_dir_all(&path).unwrap();
        }
        for name in OF_INITDB {
            std::fs::write(upgrade.beside.join(name), "of initdb").unwrap();
        }
        let registered = upgrade.registered.as_mut().unwrap();
        let paths = [
            &mut registered.data_directory,
            &mut registered.old_configuration,
            &mut registered.configuration,
        ];
        for path in paths {
            *path = below(path);
        }
        std::fs::create_dir_all(&registered.old_configuration).unwrap();
        std::fs::write(registered.old_file(), CONF).unwrap();
        std::fs::write(registered.old_configuration.join(START), "# comment\nauto\n").unwrap();
        let meta = root.path().metadata().unwrap();
        (root, upgrade, Account::of(meta.uid(), meta.gid()))
    }

    fn mode(configuration: &Path) -> String {
        let text = start(configuration).unwrap();
        text.lines().last().unwrap().split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn of_the_two_only_the_one_in_place_is_started_and_each_has_its_port() {
        let (_root, upgrade, account) = clusters();
        let Some(registered) = &upgrade.registered else { unreachable!() };
        let Registered { configuration: new, old_configuration: old, .. } = registered;
        make(&upgrade, &account).unwrap();
        std::fs::write(registered.file(), CONF).unwrap();
        assert_eq!((mode(old), mode(new)), ("auto".into(), "disabled".into()));
        assert_eq!(std::fs::read_dir(&upgrade.beside).unwrap().count(), 0);
        // In the downtime nobody starts either of them.
        bar(&upgrade, Which::Old, &account).unwrap();
        assert_eq!(mode(old), "disabled");
        for _ in 0..2 {
            put(&upgrade, Which::New, &account).unwrap();
            settle(&upgrade, Which::New, &account).unwrap();
            assert_eq!((mode(old), mode(new)), ("manual".into(), "auto".into()));
            assert_eq!(aside::successor(&start(old).unwrap()), Some("17/main"));
            let text = read(&registered.old_file()).unwrap();
            assert!(text.contains("\nport = 5433 # ") && text.ends_with("work_mem = 7MB\n"), "{text}");
            assert!(registered.data_directory.exists() && !upgrade.beside.exists());
            put(&upgrade, Which::Old, &account).unwrap();
            settle(&upgrade, Which::Old, &account).unwrap();
            assert_eq!((mode(old), mode(new)), ("auto".into(), "disabled".into()));
            assert_eq!(read(&registered.old_file()).unwrap().trim_end(), CONF);
            assert!(!registered.data_directory.exists() && upgrade.beside.exists());
        }
        take_along(&upgrade, &account).unwrap();
        assert!(upgrade.beside.join("postgresql.conf").exists());
        forget(&upgrade).unwrap();
        let parents = [new, &registered.data_directory].map(|path| files::parent(path).to_owned());
        assert!(parents.iter().all(|parent| !parent.exists()), "{parents:?}");
        settle(&upgrade, Which::Old, &account).unwrap();
    }

    #[test]
    fn what_others_have_made_meanwhile_is_not_touched() {
        let (_root, upgrade, account) = clusters();
        let Some(registered) = &upgrade.registered else { unreachable!() };
        std::fs::create_dir_all(&registered.configuration).unwrap();
        std::fs::write(registered.file(), "port = 1\n").unwrap();
        std::fs::write(registered.configuration.join(START), "auto\n").unwrap();
        let there: PathBuf = registered.file();
        settle(&upgrade, Which::Old, &account).unwrap();
        forget(&upgrade).unwrap();
        assert!(there.exists());
        assert_eq!(mode(&registered.configuration), "auto");
    }
}
