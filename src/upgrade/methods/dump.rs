//! Method `dump`: the homeserver is down while pg_dump and pg_restore carry its databases from the old server to the new.

use indicatif::HumanCount;

use crate::config::Depth;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, HOME, Session};
use crate::report::{Progress, Silent};
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::facts::space::Way;
use crate::upgrade::plan::Plan;
use crate::upgrade::records::{Census, Step};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::cut::{stop_clients, stop_server};
use crate::upgrade::steps::dump_directory::DumpDirectory;
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::transfer::{self, Loading, jobs, transfer};
use crate::upgrade::steps::work::Work;

/// Everything until the new cluster is whole, equal to the old one, and on the disk.
///
/// # Errors
/// Every kind; the old cluster has not been touched.
pub fn build(work: &mut Work<'_>, plan: &Plan) -> Result<()> {
    let (settings, runtime) = (work.settings, work.runtime);
    let account = work.account.clone();

    work.step(Step::Preparing)?;
    let files = match plan.way {
        Way::Files => Some(DumpDirectory::make(&plan.dump_directory, &account)?),
        Way::Stream => None,
    };
    let scratch = transfer::scratch(&settings.socket_directory, &account)?;
    cluster::make(runtime, &account, plan)?;
    let sockets = Sockets::make(&settings.socket_directory, &account)?;
    let new = Private::start(runtime, &account, &sockets, plan, (Side::New, &plan.beside, plan.to))?;

    stop_clients(work)?;
    stop_server(work, plan)?;
    let old = (Side::Old, plan.data_directory.as_path(), plan.from);
    let old = Private::start(runtime, &account, &sockets, plan, old)?;
    require_nothing_left_behind(&old.session())?;

    work.step(Step::Transferring)?;
    let loading = Loading { scratch: &scratch, authority: plan.authority };
    transfer(&old.session(), &new.session(), files.as_ref(), loading, work.progress)?;
    work.step(Step::Comparing)?;
    let session = new.session();
    let (rows, census) =
        Census::beside(&session, || compare(&old, &new, settings.upgrade.compare, work.progress));
    let rows = rows?;
    work.journal.entry.census = census;
    log::info!("old and new are equal: {} rows", HumanCount(rows));
    old.stop()?;
    new.stop()?;
    work.step(Step::Syncing)?;
    cluster::sync(runtime, &account, plan)
}

/// Asks again, of a server that nobody else reaches any more, what the check has asked: nothing of it is carried over, and
/// nothing else would tell.
///
/// # Errors
/// [`Kind::NotWell`].
pub fn require_nothing_left_behind(old: &Session<'_>) -> Result<()> {
    let refuse = |message: String, hint: &str| Err(Error::new(Kind::NotWell, message).hint(hint));
    let (prepared, tablespaces): (Vec<String>, Vec<String>) = old.query(HOME, LEFT_BEHIND)?;
    if !prepared.is_empty() {
        return refuse(
            format!("prepared transactions are not ended: {}", prepared.join(", ")),
            "matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_prepared_xacts', then COMMIT or ROLLBACK PREPARED",
        );
    }
    if !tablespaces.is_empty() {
        return refuse(
            format!("tablespaces were made meanwhile: {}", tablespaces.join(", ")),
            "move their tables back: ALTER TABLE … SET TABLESPACE pg_default",
        );
    }
    match postgres::closed_databases(old)?.into_iter().next() {
        Some((name, reason)) => refuse(
            format!("database {name:?} cannot be carried over: {reason}"),
            "matrix-postgres-upgrade check",
        ),
        None => Ok(()),
    }
}

/// Names are quoted, for they may be anything.
const LEFT_BEHIND: &str = "SELECT pg_catalog.json_build_array(
    (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%L of database %I', gid, database)), '[]') FROM pg_catalog.pg_prepared_xacts),
    (SELECT coalesce(pg_catalog.json_agg(spcname), '[]') FROM pg_catalog.pg_tablespace
        WHERE spcname NOT IN ('pg_default', 'pg_global')));";

/// Old and new at the same time; what differs ends the upgrade. Returns the rows of all tables.
///
/// # Errors
/// [`Kind::Damaged`] naming what differs.
pub fn compare(
    old: &Private<'_>,
    new: &Private<'_>,
    depth: Depth,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let (old, new) = (old.session(), new.session());
    let (old, new) = std::thread::scope(|scope| {
        let old = scope.spawn(|| Snapshot::take(&old, depth, jobs(), &mut Silent));
        let new = Snapshot::take(&new, depth, jobs(), progress);
        let panicked = |_| Err(Error::new(Kind::Bug, "the comparison of the old server panicked"));
        (old.join().unwrap_or_else(panicked), new)
    });
    let (old, new) = (old?, new?);
    require_equal(&old, &new)?;
    Ok(new.rows())
}
