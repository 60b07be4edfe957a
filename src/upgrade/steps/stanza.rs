//! The stanza of pgBackRest goes along with the cluster that is in place.
//!
//! Only when no failure leads back any more: until then the server of the new cluster keeps its WAL, which pgBackRest does not take
//! for that of the old one. Whatever pgBackRest says, the cluster stays where it is.

use crate::backup::pgbackrest::stanza::{self, AGAIN};
use crate::error::{Error, Result};
use crate::upgrade::records::Which;
use crate::upgrade::steps::work::Work;

/// The unit that makes a backup.
pub(in crate::upgrade) const BACKUP: &str = "matrix-postgres-backup.service";

/// Whether there is anything to do.
pub(in crate::upgrade) fn is_used(work: &Work<'_>) -> bool {
    work.settings.backup.engine.is_pgbackrest()
}

/// Makes the stanza that of this one, whose server runs; in the journal it says why it is not. Done again, it changes nothing.
///
/// # Errors
/// As [`stanza::follow`].
pub(in crate::upgrade) fn follow(work: &mut Work<'_>, which: Which) -> Result<()> {
    if !is_used(work) {
        return Ok(());
    }
    let settings = work.entry().upgrade.settle(work.settings.clone(), which);
    let followed = stanza::follow(&settings, work.runtime);
    work.journal.entry.not_archived = followed.as_ref().err().map(Error::one_line);
    followed.map_err(|error| {
        error
            .context("the stanza of pgBackRest could not be upgraded")
            .state("WAL is not archived, and stays in pg_wal; backups by pgBackRest fail")
            .hint(AGAIN)
    })
}

/// Has a backup of this one started, if pgBackRest has none yet, which waits until this has ended. That it cannot be is no
/// failure: `status` is not well until there is one.
pub(in crate::upgrade) fn back_up(work: &Work<'_>, which: Which) {
    if !is_used(work) || work.entry().not_archived.is_some() {
        return;
    }
    let settings = work.entry().upgrade.settle(work.settings.clone(), which);
    let queued = stanza::is_without_backup(&settings).and_then(|is_without| {
        if is_without {
            work.manager.require_ours(BACKUP, false)?;
            work.manager.queue_start(BACKUP)?;
            log::info!("{BACKUP} was started: the first backup of this cluster by pgBackRest is a full one");
        }
        Ok(())
    });
    if let Err(error) = queued {
        let error = error.context("no backup was started").hint(format!("systemctl start {BACKUP}"));
        log::warn!("{}", error.report());
    }
}
