//! Method `online`: a copy of the cluster's files follows the homeserver while that runs. During the downtime pg_upgrade
//! makes the new cluster of the copy: the old one is never touched, and nothing takes longer the more rows there are.
//!
//! - [`copy`]: the copy, and the proof that it has everything
//! - [`held`]: what the server keeps as it is meanwhile
//! - [`unlogged`]: the rows that it does not get
//! - [`conversion`]: what pg_upgrade is called with
//! - [`logs`]: what it leaves when it fails
//! - [`tending`]: what can wait until the homeserver runs again

pub mod conversion;
pub mod copy;
mod held;
pub mod logs;
mod tending;
mod unlogged;

use self::conversion::Conversion;
use self::copy::{Follower, Source};
pub use self::tending::tend;
use self::unlogged::Unlogged;
use crate::config::Depth;
use crate::error::Result;
use crate::postgres::{self, HOME, Session, Setting, stamps};
use crate::report::Silent;
use crate::runtime::interrupt;
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::methods::dump::require_nothing_left_behind;
use crate::upgrade::plan::Plan;
use crate::upgrade::records::{Census, Step};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::cut::{stop_clients, stop_server};
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::transfer::jobs;
use crate::upgrade::steps::work::Work;

/// Everything until the new cluster is whole, equal to the old one, and on the disk.
///
/// # Errors
/// Every kind; the old cluster has not been touched.
pub fn build(work: &mut Work<'_>, plan: &Plan) -> Result<()> {
    let (settings, runtime) = (work.settings, work.runtime);
    let account = work.account.clone();
    let live = work.live_connection().to_server(plan.from);
    let source =
        Source { runtime, account: &account, connection: live.clone(), from: plan.from, programs: plan.to };

    work.step(Step::Preparing)?;
    cluster::make(runtime, &account, plan)?;
    let sockets = Sockets::make(&settings.socket_directory, &account)?;
    work.step(Step::Copying)?;
    let taken = copy::take(&source, &plan.copy, settings.upgrade.max_rate, plan.bytes, work.progress)?;
    work.step(Step::Following)?;
    let mut follower = Follower::start(&source, &sockets, plan, taken)?;
    let logs = Some(logs::place(&settings.state_directory, &plan.id));
    let conversion = Conversion { runtime, account: &account, sockets: &sockets, plan, logs };
    conversion.check(&live)?;
    let stamped = conversion.stamped(&source.session())?;
    follower.catch_up(&source)?;
    // What was changed in it while the copy was made; the notes have been told.
    cluster::configure(runtime, &account, plan)?;
    // Most of it is on the disk then before it is waited for.
    cluster::sync_file_system(&plan.copy)?;
    unlogged::require_few(&source.session())?;
    interrupt::check()?;

    stop_clients(work)?;
    stop_server(work, plan)?;
    work.step(Step::Promoting)?;
    follower.prove(&source, plan)?;
    let promoted = follower.promote()?;
    require_nothing_left_behind(&promoted.session())?;
    remove_stamps(&promoted.session(), &stamped)?;
    let old = Snapshot::take(&promoted.session(), Depth::Files, jobs(), &mut Silent)?;
    let for_all = postgres::settings_of_all(&promoted.session())?;
    promoted.stop()?;
    let unlogged = Unlogged::bring(&account, &plan.data_directory, &plan.copy)?;
    work.step(Step::Upgrading)?;
    conversion.carry_out()?;
    work.step(Step::Comparing)?;
    let new = (Side::New, plan.beside.as_path(), plan.to);
    let new = Private::start(runtime, &account, &sockets, plan, new)?;
    let session = new.session();
    set_for_all(&session, &for_all)?;
    let (found, census) =
        Census::beside(&session, || Snapshot::take(&session, Depth::Files, jobs(), &mut Silent));
    require_equal(&old, &found?)?;
    work.journal.entry.census = census;
    unlogged.settle(&session)?;
    new.stop()?;
    log::info!("old and new are equal: {} tables", old.tables());
    work.step(Step::Syncing)?;
    cluster::sync_file_system(&plan.beside)
}

/// Sets in the new cluster what pg_upgrade has left behind.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn set_for_all(new: &Session<'_>, settings: &[Setting]) -> Result<()> {
    let sql = postgres::set_for_all(settings);
    if sql.is_empty() {
        return Ok(());
    }
    new.execute_foreign(HOME, &sql)
        .map_err(|error| error.context("what is set for all roles could not be carried over"))
}

/// Removes from the copy what the new version does not know: see [`Conversion::stamped`].
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn remove_stamps(copy: &Session<'_>, databases: &[String]) -> Result<()> {
    databases.iter().try_for_each(|database| stamps::remove(copy, database))
}
