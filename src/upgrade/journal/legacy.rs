//! Journals that versions before 2026-12 have left in `/var/lib/matrix-postgres`, a directory of the backup's user. They
//! are taken over once, and only if they name nothing but what the settings do: that user could have written anything.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::{Entry, Journal, directory, parse};
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::lock::{Lock, make_state_directory};

/// Where they are.
const PLACE: &str = "/var/lib/matrix-postgres";

/// A longer one is none of ours.
const LONGEST: u64 = 16 << 20;

/// Takes over what is there. An upgrade of the earlier version may still be under way: then nothing is done.
///
/// # Errors
/// [`Kind::Locked`] if one is; [`Kind::File`], [`Kind::NoSpace`].
pub fn take_over(settings: &Settings) -> Result<()> {
    match geteuid().is_root() && settings.state_directory != Path::new(PLACE) {
        true => take_over_from(Path::new(PLACE), settings),
        false => Ok(()),
    }
}

fn take_over_from(place: &Path, settings: &Settings) -> Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let open = |name: &Path| match Dir::open(name, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno),
    };
    let Some(parent) = open(place).at("read", place)? else { return Ok(()) };
    let upgrades = place.join("upgrade");
    let mut upgrades_dir = match Dir::openat(&parent, "upgrade", flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        Err(errno) => return Err(Error::io("read", &upgrades, errno.into())),
    };
    let names: Vec<_> = upgrades_dir.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| name.to_bytes().ends_with(b".json")).collect();
    if names.is_empty() {
        return Ok(());
    }
    let Some(_lock) = Lock::try_cluster(settings, "upgrade")? else { return Err(under_way()) };
    let _old_lock = match read(&parent, c"lock") {
        Some(lock) if lock.try_lock().is_err() => return Err(under_way()),
        lock => lock,
    };
    make_state_directory(&settings.state_directory)?;
    for name in names {
        let shown = upgrades.join(name.to_string_lossy().as_ref());
        match entry(&upgrades_dir, &name, settings) {
            Ok(entry) => {
                adopt(entry, name.to_bytes() == b"journal.json", settings)?;
                unlinkat(&upgrades_dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir).at("remove", &shown)?;
                log::info!("took over {}", shown.display());
            }
            Err(reason) => log::warn!("{} is not taken over: {reason}", shown.display()),
        }
    }
    Ok(())
}

fn under_way() -> Error {
    Error::new(Kind::Locked, "a backup or an upgrade of the version before is still under way")
        .state("nothing was changed")
        .hint("wait for it to end, then: matrix-postgres-upgrade recover")
}

/// A file of that directory, as it was opened: it is neither a link nor a pipe.
fn read(directory: &Dir, name: &std::ffi::CStr) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty()).ok()?);
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}

fn entry(directory: &Dir, name: &std::ffi::CStr, settings: &Settings) -> Result<Entry, String> {
    let file = read(directory, name).ok_or("it is no file")?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let entry = parse(&text)?;
    let keeps = |path: &Path| {
        path.as_os_str()
            .as_encoded_bytes()
            .starts_with(settings.upgrade.keep_path.as_os_str().as_encoded_bytes())
    };
    match () {
        () if entry.data_directory != settings.data_directory => {
            Err("it is of another data directory".into())
        }
        () if entry.server_unit != settings.server.unit => Err("it is of another server".into()),
        () if !keeps(&entry.keep_path) => Err("it names another place to keep data directories".into()),
        () if entry.dump_directory.parent() != Some(&settings.upgrade.dump_directory) => {
            Err("it names another dump directory".into())
        }
        () => Ok(entry),
    }
}

fn adopt(entry: Entry, is_latest: bool, settings: &Settings) -> Result<()> {
    let state = &settings.state_directory;
    if is_latest && Journal::read(state).is_ok_and(|journal| journal.is_none()) {
        return Journal::begin(state, entry).map(drop);
    }
    let journals = directory(state);
    std::fs::create_dir_all(&journals).at("create", &journals)?;
    let text = serde_json::to_string_pretty(&entry).map_err(std::io::Error::from).at("write", &journals)?;
    files::replace(&journals.join(format!("{}.json", entry.id)), &(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry as example;
    use super::*;
    use crate::config::Fragment;

    fn settings(root: &Path) -> Settings {
        let mut settings = Settings::from_fragment(Fragment::default()).unwrap();
        settings.state_directory = root.join("state");
        settings.data_directory = "/m/data".into();
        settings.upgrade.keep_path = "/m/kept".into();
        settings.upgrade.dump_directory = "/var/tmp/x".into();
        settings
    }

    fn leave(place: &Path, name: &str, entry: &Entry) {
        std::fs::create_dir_all(place.join("upgrade")).unwrap();
        std::fs::write(place.join("upgrade").join(name), serde_json::to_string_pretty(entry).unwrap())
            .unwrap();
    }

    #[test]
    fn journals_are_taken_over_once_an_open_one_too() {
        let root = tempfile::tempdir().unwrap();
        let (place, settings) = (root.path().join("old"), settings(root.path()));
        take_over_from(&place, &settings).unwrap();
        leave(&place, "journal.json", &example());
        let id = "20261123T030000Z";
        let earlier = Entry {
            id: id.into(),
            beside: format!("/m/data.upgrade-{id}").into(),
            dump_directory: format!("/var/tmp/x/upgrade-{id}").into(),
            ..example()
        };
        leave(&place, &format!("{id}.json"), &earlier);
        take_over_from(&place, &settings).unwrap();
        let journal = Journal::read(&settings.state_directory).unwrap().unwrap();
        assert_eq!(journal.entry, example());
        assert_eq!(Journal::all(&settings.state_directory).unwrap().len(), 2);
        assert_eq!(std::fs::read_dir(place.join("upgrade")).unwrap().count(), 0);
        take_over_from(&place, &settings).unwrap();
    }

    #[test]
    fn what_names_other_places_stays_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let (place, settings) = (root.path().join("old"), settings(root.path()));
        for forged in [
            Entry {
                data_directory: "/srv/data".into(),
                beside: "/srv/data.upgrade-20261124T030000Z".into(),
                ..example()
            },
            Entry { beside: "/srv/precious".into(), ..example() },
            Entry { keep_path: "/srv/kept".into(), ..example() },
            Entry { dump_directory: "/srv/upgrade-20261124T030000Z".into(), ..example() },
            Entry { copy: Some("/srv/precious".into()), ..example() },
            Entry { kept: Some("/srv/precious".into()), ..example() },
            Entry { server_unit: "sshd.service".into(), ..example() },
        ] {
            leave(&place, "journal.json", &forged);
            take_over_from(&place, &settings).unwrap();
            assert!(Journal::read(&settings.state_directory).unwrap().is_none(), "{forged:?}");
            assert!(place.join("upgrade/journal.json").exists());
        }
        std::fs::remove_dir_all(place.join("upgrade")).unwrap();
        std::os::unix::fs::symlink("/etc", place.join("upgrade")).unwrap();
        take_over_from(&place, &settings).unwrap();
    }

    #[test]
    fn what_is_still_under_way_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (place, settings) = (root.path().join("old"), settings(root.path()));
        leave(&place, "journal.json", &example());
        let lock = File::create(place.join("lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(take_over_from(&place, &settings).unwrap_err().kind(), Kind::Locked);
        assert!(place.join("upgrade/journal.json").exists());
    }
}
