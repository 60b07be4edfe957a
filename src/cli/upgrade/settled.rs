//! Which server a verb is about that goes on with what was begun: the journal names it.

use jiff::Timestamp;

use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::place::Place;
use crate::runtime::Runtime;
use crate::upgrade::facts::adopted;
use crate::upgrade::records::{Entry, Journal};
use crate::upgrade::rollback;

/// The settings for what the latest upgrade was, or is, of. Where it tells nothing, `is_to_look` says whether the server is
/// looked for.
pub(super) fn of_journal(settings: Settings, is_to_look: bool) -> Result<Settings> {
    // One that cannot be used is told by the verbs.
    let journal = Journal::read(&settings.state_directory).ok().flatten();
    match journal.filter(|journal| journal.entry.upgrade.names_its_server()) {
        Some(Journal { entry, .. }) => {
            let in_place = entry.is_in_place();
            Ok(entry.upgrade.settle(settings, in_place))
        }
        None if is_to_look => match crate::cli::place(&settings) {
            Ok(place @ (Place::Debian { .. } | Place::Container { .. })) => place.settle(settings),
            _ => Ok(settings),
        },
        None => Ok(settings),
    }
}

/// The same for a rollback: where no upgrade of ours is the latest, that may be one of the playbook's.
pub(super) fn for_rollback(settings: Settings) -> Result<Settings> {
    match Journal::read(&settings.state_directory)? {
        Some(journal) if rollback::is_latest(&journal.entry) => Ok(settings),
        _ => match crate::cli::place(&settings) {
            Ok(place @ Place::Container { .. }) => place.settle(settings),
            _ => Ok(settings),
        },
    }
}

/// The upgrade that a rollback is of: the latest of ours, or one of the playbook's that came after it.
///
/// # Errors
/// If there is none.
pub(super) fn to_roll_back(settings: &Settings, runtime: &dyn Runtime) -> Result<Entry> {
    let own = Journal::read(&settings.state_directory)?.map(|journal| journal.entry);
    if let Some(entry) = own.as_ref().filter(|entry| rollback::is_latest(entry)) {
        return Ok(entry.clone());
    }
    let adopted = adopted::entry(settings, runtime, Timestamp::now())?;
    adopted.or(own).ok_or_else(nothing_to_roll_back)
}

pub(super) fn nothing_to_roll_back() -> Error {
    Error::new(Kind::DataDirectory, "there is no upgrade to roll back").state("nothing was changed")
}
