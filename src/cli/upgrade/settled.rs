//! Which server a verb is about that goes on with what was begun: the journal names it.

use crate::config::Settings;
use crate::error::Result;
use crate::place::Place;
use crate::upgrade::records::Journal;

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
