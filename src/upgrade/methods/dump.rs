//! Method `dump`: the homeserver is down while pg_dump and pg_restore carry its databases from the old server to the new.

use super::stage::Stage;
use crate::config::Depth;
use crate::error::{Error, Kind, Result};
use crate::report::{Progress, Silent};
use crate::runtime::jobs;
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::facts::left_behind::require_nothing_left_behind;
use crate::upgrade::facts::space::TransferMode;
use crate::upgrade::records::{Census, Compared, Step};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::dump_directory::DumpDirectory;
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::site::Site;
use crate::upgrade::steps::transfer::{self, Loading, transfer};

/// See [`super::build`].
pub(super) fn build(stage: &mut dyn Stage, site: &Site<'_>) -> Result<()> {
    let Site { settings, runtime, account, plan } = *site;

    stage.step(Step::Preparing)?;
    let files = match plan.transfer {
        TransferMode::Files => Some(DumpDirectory::make(&plan.upgrade.dump_directory, account)?),
        TransferMode::Stream => None,
    };
    let scratch = transfer::scratch(&settings.socket_directory, account)?;
    cluster::make(runtime, account, plan)?;
    let sockets = Sockets::make(&settings.socket_directory, account)?;
    let beside = (Side::New, plan.upgrade.beside.as_path(), plan.upgrade.to);
    let new = Private::start(runtime, account, &sockets, plan, beside)?;

    let old = stage.cut_to_private(site, &sockets)?;
    require_nothing_left_behind(&old.session())?;
    stage.step(Step::Transferring)?;
    let loading = Loading { scratch: &scratch, authority: plan.authority };
    transfer(&old.session(), &new.session(), files.as_ref(), loading, stage.progress())?;
    stage.step(Step::Comparing)?;
    let session = new.session();
    let depth = settings.upgrade.compare;
    let (compared, census) = Census::beside(&session, || compare(&old, &new, depth, stage.progress()));
    let compared = compared?;
    stage.counted(census);
    stage.compared(compared);
    log::info!("compared, and equal: {compared}");
    old.stop()?;
    new.stop()?;
    stage.step(Step::Syncing)?;
    cluster::sync(runtime, account, plan)
}

/// Old and new at the same time; what differs ends the upgrade. Returns how much that is.
///
/// # Errors
/// [`Kind::Damaged`] naming what differs.
fn compare(
    old: &Private<'_>,
    new: &Private<'_>,
    depth: Depth,
    progress: &mut dyn Progress,
) -> Result<Compared> {
    let (old, new) = (old.session(), new.session());
    let (old, new) = std::thread::scope(|scope| {
        let old = scope.spawn(|| Snapshot::take(&old, depth, jobs(), &mut Silent));
        let new = Snapshot::take(&new, depth, jobs(), progress);
        let panicked = |_| Err(Error::new(Kind::Bug, "the comparison of the old server panicked"));
        (old.join().unwrap_or_else(panicked), new)
    });
    let (old, new) = (old?, new?);
    require_equal(&old, &new)?;
    Ok(new.size())
}
