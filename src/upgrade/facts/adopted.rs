//! An upgrade of the playbook's own (`--tags=upgrade-postgres`), as a journal of ours would have it, so that the way back from it is that
//! of our own. All that is known of it is what it has left: the data directory of before, beside the present one.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use super::container::{self, Containment};
use super::remnants;
use super::tried::Obstacle;
use crate::account::Account;
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::files::stamp;
use crate::place::{self, image};
use crate::postgres::{self, DataDirectory, Major};
use crate::runtime::Runtime;
use crate::upgrade::records::{Container, Ended, Entry, Opened, Outcome, Upgrade, named_after};

/// The upgrade that has left a data directory beside that of these settings; nothing if there is none.
///
/// # Errors
/// Why there is no way back to it; nothing was changed.
pub fn entry(settings: &Settings, runtime: &dyn Runtime, now: Timestamp) -> Result<Option<Entry>> {
    let left =
        remnants::find(settings).into_iter().find_map(|left| Some((left.path, left.major?, left.used)));
    let Some((kept, from, used)) = left else { return Ok(None) };
    let refuse = |message: String| Error::new(Kind::DataDirectory, message).state("nothing was changed");
    let home = &settings.data_directory;
    let data = DataDirectory::read(home, Path::new("/proc"))?;
    let Some((to, owner)) = data.contents.major().zip(data.owner) else {
        return Err(refuse(format!("{} is not a cluster", home.display())));
    };
    let identifier = postgres::system_identifier(&kept)?;
    if identifier == postgres::system_identifier(home)? {
        return Err(refuse(format!("{} and {} are the same cluster", kept.display(), home.display())));
    }
    let container = container(settings, runtime, from, &owner)?;
    let id = stamp::write(now);
    let at = used.unwrap_or(Timestamp::UNIX_EPOCH);
    let upgrade = Upgrade {
        beside: named_after(home, &format!("upgrade-{id}")),
        copy: None,
        stale_indexes: BTreeMap::new(),
        subscriptions: BTreeMap::new(),
        method: Method::Dump,
        data_directory: home.clone(),
        keep_path: kept.clone(),
        dump_directory: settings.upgrade.dump_directory.join(format!("upgrade-{id}")),
        server_unit: settings.server.unit.clone(),
        registered: None,
        container: Some(container),
        by_playbook: true,
        id,
        from,
        to,
    };
    let ended = Ended { outcome: Outcome::Upgraded, at, message: "upgraded by the playbook".to_owned() };
    Ok(Some(Entry {
        kept: Some(kept),
        opened: Some(Opened { at, position: None }),
        clients_started: Some(at),
        ended: Some(ended),
        ..Entry::new(upgrade, identifier, now)
    }))
}

/// What the unit runs now is the new one's, and what it is to run is an image of the version of before.
fn container(settings: &Settings, runtime: &dyn Runtime, from: Major, owner: &Account) -> Result<Container> {
    let mut settings = settings.clone();
    let found = place::Container::find(Path::new("/"), &settings.server.unit);
    if found.is_some_and(|found| image::of_version(&found.image, from).is_some()) {
        // That is about another version.
        settings.upgrade.image = None;
    }
    let looked = container::look(&settings, runtime, None, Some(from), Some(owner))?;
    let Some(Containment { container, obstacles, .. }) = looked else {
        return Err(Error::new(Kind::Bug, "the server is in no container"));
    };
    match obstacles.into_iter().next() {
        None => Ok(Container { old: container.new, new: container.old, ..container }),
        Some(Obstacle { message, hint }) => {
            let error =
                Error::new(Kind::NotWell, message).context(format!("could not revert to PostgreSQL {from}"));
            Err(error.state("nothing was stopped, and nothing was changed").hint(hint.unwrap_or_default()))
        }
    }
}
