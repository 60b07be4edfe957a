//! Method `online`: a copy of the cluster's files follows the homeserver while that runs. During the downtime pg_upgrade
//! makes the new cluster of the copy: the old one is never touched, and nothing takes longer the more rows there are.
//!
//! - [`unlogged`]: the rows that it does not get
//! - [`conversion`]: what pg_upgrade is called with
//! - [`logs`]: what it leaves when it fails
//! - [`post_upgrade`]: what can wait until the homeserver runs again

pub mod conversion;
pub mod logs;
mod post_upgrade;
pub mod unlogged;

use self::conversion::Conversion;
pub use self::post_upgrade::post_upgrade;
use self::unlogged::Unlogged;
use crate::config::Depth;
use crate::error::Result;
use crate::postgres::{self, HOME, Session, Setting, stamps};
use crate::report::Silent;
use crate::runtime::{interrupt, jobs, together};
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::facts::left_behind::require_nothing_left_behind;
use crate::upgrade::methods::stage::Stage;
use crate::upgrade::records::{Census, Step, Upgrade};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::copy::Source;
use crate::upgrade::steps::servers::{Private, Side, Sockets};
use crate::upgrade::steps::site::Site;

/// See [`super::build`].
pub(super) fn build(stage: &mut dyn Stage, site: &Site<'_>) -> Result<()> {
    let Site { settings, runtime, account, plan } = *site;
    let Upgrade { id, data_directory, beside, to, .. } = &plan.upgrade;
    let copied_to = plan.upgrade.copy()?;
    let source = Source::of(site);

    stage.step(Step::Preparing)?;
    cluster::make(runtime, account, plan)?;
    let sockets = Sockets::make(&settings.socket_directory, account)?;
    let mut follower = stage.follow(site, &source, &sockets)?;
    let logs = Some(logs::place(&settings.state_directory, id));
    let conversion = Conversion { runtime, account, sockets: &sockets, plan, logs };
    conversion.check(match plan.upgrade.container {
        // pg_upgrade sees no server in a container, and would start a second one.
        Some(_) => (copied_to, follower.port()),
        None => (data_directory, source.connection.port),
    })?;
    let stamped = conversion.stamped(&source.session())?;
    follower.catch_up(&source)?;
    // What was changed in it while the copy was made; the notes have been told.
    cluster::configure(runtime, account, plan)?;
    // Most of it is on the disk then before it is waited for.
    cluster::sync_file_system(copied_to)?;
    unlogged::require_few(&source.session())?;
    interrupt::check()?;

    let cut = stage.cut(site)?;
    stage.step(Step::Promoting)?;
    follower.prove(&source, plan, &cut)?;
    // What takes the server time to promote itself is enough to look at it: nothing is changed by that.
    let (promoted, (old, for_all)) = follower.promote(|session| {
        let old = Snapshot::take(session, Depth::Files, jobs(), &mut Silent)?;
        Ok((old, postgres::settings_of_all(session)?))
    })?;
    require_nothing_left_behind(&promoted.session())?;
    // Its rows are read while it is what it was: of a composite type it does not read those whose stamps are gone.
    stage.examine_old(&promoted.session())?;
    remove_stamps(&promoted.session(), &stamped)?;
    promoted.stop()?;
    let unlogged = Unlogged::bring(account, data_directory, copied_to, &cut)?;
    stage.step(Step::Upgrading)?;
    conversion.carry_out()?;
    stage.step(Step::Comparing)?;
    let new = Private::start(runtime, account, &sockets, plan, (Side::New, beside, *to))?;
    let session = new.session();
    set_for_all(&session, &for_all)?;
    let (settled, (found, census)) = together(
        || unlogged.settle(&session),
        || Census::beside(&session, || Snapshot::take(&session, Depth::Files, jobs(), &mut Silent)),
    );
    require_equal(&old, &found?)?;
    stage.counted(census);
    let compared = old.size();
    stage.compared(compared);
    settled?;
    stage.examine_new(&session)?;
    new.stop()?;
    log::info!("compared, and equal: {compared}");
    stage.step(Step::Syncing)?;
    cluster::sync_file_system(beside)
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
        .map_err(|error| error.context("could not restore the settings of ALTER ROLE ALL"))
}

/// Removes from the copy what the new version does not know: see [`Conversion::stamped`].
///
/// # Errors
/// [`crate::Kind::Server`].
fn remove_stamps(copy: &Session<'_>, databases: &[String]) -> Result<()> {
    databases.iter().try_for_each(|database| stamps::remove(copy, database))
}
