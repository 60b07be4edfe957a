//! How a new cluster is made: one text for the upgrade and for its rehearsal.
//!
//! - [`dump`]: pg_dump and pg_restore carry the databases over
//! - [`online`]: pg_upgrade makes it of a copy that follows the homeserver
//! - `stage`: where: in earnest, or on copies

pub mod dump;
pub mod online;
mod stage;

pub use self::stage::Stage;

use crate::config::Method;
use crate::error::Result;
use crate::upgrade::steps::site::Site;

/// Everything until the new cluster is whole, equal to the old one, and on the disk.
///
/// # Errors
/// Every kind; the old cluster has not been touched.
pub fn build(stage: &mut dyn Stage, site: &Site<'_>) -> Result<()> {
    match site.plan.upgrade.method {
        Method::Online => online::build(stage, site),
        Method::Dump => dump::build(stage, site),
    }
}
