//! The cluster as it was at a time, by pgBackRest: made beside the one that is there, recovered, and only then put in its place.
//!
//! Until then nothing is stopped. Both directories are exchanged in one step: after a kill at any instant, the old cluster is in
//! place or the restored one, whole. The one that was there is kept.

pub mod kept;
mod plan;
mod work;

use std::io;
use std::path::Path;
use std::time::Instant;

use self::plan::by_hand;
pub use self::plan::{Facts, Plan, Target, plan};
use self::work::Work;
use super::program::Program;
use super::refusal::require_near;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::lock::Lock;
use crate::postgres::{self, Session, account_of};
use crate::report::Progress;
use crate::runtime::Runtime;

/// Gathers the facts.
///
/// # Errors
/// [`Kind::NotInstalled`], [`Kind::Program`], [`Kind::Config`] if the cluster is not one of our own.
pub fn gather(settings: &Settings, runtime: &dyn Runtime) -> Result<(Facts, Program)> {
    require_near(settings)?;
    if settings.server.cluster.is_some() {
        return Err(by_hand("a cluster of Debian's has its configuration outside of its directory"));
    }
    let owner = account_of(&settings.data_directory, &settings.server.user);
    let program = Program::find(&settings.backup, owner)?;
    let stanza = program.info(&settings.backup.repository)?;
    let connection = settings.connection();
    let session = Session::newest(runtime, &connection);
    let (mut server, mut written) = (None, None);
    if !connection.is_absent() {
        server = Some(postgres::server_facts(&session)?);
        written = Some(super::archive::read(&session)?.written);
    }
    let identifier = postgres::system_identifier(&settings.data_directory).ok();
    let is_scattered = is_scattered(&settings.data_directory).ok();
    let free = files::free_space(files::parent(&settings.data_directory))?;
    Ok((Facts { stanza, server, written, identifier, is_scattered, free }, program))
}

/// Whether it has tablespaces, or a link in it leads elsewhere, as that of a `pg_wal` on a disk of its own.
fn is_scattered(data: &Path) -> io::Result<bool> {
    let has_tablespaces = std::fs::read_dir(data.join("pg_tblspc"))?.next().is_some();
    let mut entries = std::fs::read_dir(data)?;
    Ok(has_tablespaces || entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_symlink())))
}

/// Carries the plan out, as root; what has been done, in a sentence.
///
/// # Errors
/// Every kind. Until the exchange, the cluster that was there is in place, and nothing was stopped.
pub fn carry_out(
    settings: &Settings,
    runtime: &dyn Runtime,
    program: &Program,
    plan: &Plan,
    progress: &mut dyn Progress,
) -> Result<String> {
    let _lock = Lock::take_cluster(settings, "restore")?;
    let account = account_of(&plan.data, &settings.server.user).ok_or_else(|| {
        Error::new(Kind::DataDirectory, format!("the owner of {} is not known", plan.data.display()))
    })?;
    let work = Work { settings, runtime, program, plan, account };
    let clock = Instant::now();
    let made = work.make(progress);
    if made.is_err() {
        let _ = work.remove();
    }
    made.map_err(|error| error.state("the cluster is unchanged, and nothing was stopped"))?;
    let recovered = clock.elapsed();
    let clock = Instant::now();
    work.exchange()?;
    Ok(format!(
        "the cluster is as it was at {}: restored and recovered in {:.1} s, services stopped for {:.1} s; the previous one is kept in {}; \
         make a backup now: systemctl start matrix-postgres-backup.service",
        plan.target,
        recovered.as_secs_f64(),
        clock.elapsed().as_secs_f64(),
        plan.kept.display()
    ))
}
