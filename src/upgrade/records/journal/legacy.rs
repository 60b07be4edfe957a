//! Journals that versions before 2026-12 have left in `/var/lib/matrix-postgres`, a directory of the backup's user. They
//! are taken over once, and only if they name nothing but what the settings do: that user could have written anything.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::geteuid;

use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files;
use crate::files::beneath::Directory;
use crate::lock::{Lock, make_state_directory};
use crate::upgrade::records::journal::{directory, parse};
use crate::upgrade::records::{Entry, Journal};

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
    let upgrades = place.join("upgrade");
    let there = |opened: std::io::Result<Directory>| match opened {
        Err(error)
            if [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::InvalidData]
                .contains(&error.kind()) =>
        {
            Ok(None)
        }
        opened => opened.at("read", &upgrades).map(Some),
    };
    let Some(parent) = there(Directory::open(place))? else { return Ok(()) };
    let Some(directory) = there(parent.directory(Path::new("upgrade")))? else { return Ok(()) };
    let mut names = directory.names().at("read", &upgrades)?;
    names.retain(|name| name.as_encoded_bytes().ends_with(b".json"));
    if names.is_empty() {
        return Ok(());
    }
    let Some(_lock) = Lock::try_cluster(settings, "upgrade")? else { return Err(under_way()) };
    let _old_lock = match parent.file(Path::new("lock")) {
        Ok(lock) if lock.try_lock().is_err() => return Err(under_way()),
        lock => lock,
    };
    make_state_directory(&settings.state_directory)?;
    for name in names {
        let shown = upgrades.join(&name);
        match entry(&directory, &name, settings) {
            Ok(entry) => {
                adopt(entry, name == "journal.json", settings)?;
                directory.remove_file(&name).at("remove", &shown)?;
                log::info!("imported {}", shown.display());
            }
            Err(reason) => log::warn!("{} was not imported: {reason}", shown.display()),
        }
    }
    Ok(())
}

fn under_way() -> Error {
    Error::new(
        Kind::Locked,
        "a backup or an upgrade of the previous version of matrix-postgres is still running",
    )
    .state("nothing was changed")
    .hint("wait for it to end, then: matrix-postgres-upgrade recover")
}

fn entry(directory: &Directory, name: &OsStr, settings: &Settings) -> Result<Entry, String> {
    let text = directory.read(Path::new(name), LONGEST).map_err(|error| error.to_string())?;
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    let entry = parse(&text)?;
    let keeps = |path: &Path| {
        path.as_os_str()
            .as_encoded_bytes()
            .starts_with(settings.upgrade.keep_path.as_os_str().as_encoded_bytes())
    };
    match () {
        () if entry.upgrade.data_directory != settings.data_directory => {
            Err("it is of another data directory".into())
        }
        () if entry.upgrade.server_unit != settings.server.unit => Err("it is of another server".into()),
        // There was none such yet.
        () if entry.upgrade.registered.is_some() => Err("it is of a registered cluster".into()),
        () if !keeps(&entry.upgrade.keep_path) => Err("it has another keep_path".into()),
        () if entry.upgrade.dump_directory.parent() != Some(&settings.upgrade.dump_directory) => {
            Err("it has another dump directory".into())
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
    files::replace(&journals.join(format!("{}.json", entry.upgrade.id)), &(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;
    use crate::upgrade::records::Upgrade;
    use crate::upgrade::records::entry::tests::{entry as example, entry_of, upgrade};
    use std::fs::File;

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
        let earlier = entry_of(Upgrade {
            id: id.into(),
            beside: format!("/m/data.upgrade-{id}").into(),
            dump_directory: format!("/var/tmp/x/upgrade-{id}").into(),
            ..upgrade()
        });
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
            entry_of(Upgrade {
                data_directory: "/srv/data".into(),
                beside: "/srv/data.upgrade-20261124T030000Z".into(),
                ..upgrade()
            }),
            entry_of(Upgrade { beside: "/srv/precious".into(), ..upgrade() }),
            entry_of(Upgrade { keep_path: "/srv/kept".into(), ..upgrade() }),
            entry_of(Upgrade { dump_directory: "/srv/upgrade-20261124T030000Z".into(), ..upgrade() }),
            entry_of(Upgrade { copy: Some("/srv/precious".into()), ..upgrade() }),
            Entry { kept: Some("/srv/precious".into()), ..example() },
            entry_of(Upgrade { server_unit: "sshd.service".into(), ..upgrade() }),
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
