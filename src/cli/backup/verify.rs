//! `verify`: reads a backup back completely.

use std::path::Path;

use jiff::Timestamp;

use super::places::{Backups, VERIFICATION, become_owner};
use crate::backup::catalogue::{self, Entry};
use crate::backup::engine::{Dumps, Engine as _};
use crate::backup::manifest::Manifest;
use crate::backup::pgbackrest;
use crate::backup::store::Store;
use crate::backup::verify::record;
use crate::config::Settings;
use crate::error::{Kind, Result};
use crate::report::{self, DecimalBytes, HumanCount, Progress};
use crate::runtime::interrupt;

/// Reads back what pgBackRest has stored.
pub(super) fn of_pgbackrest(settings: &Settings) -> Result<()> {
    interrupt::listen()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let label = pgbackrest::run::verify(settings, &crate::cli::programs(settings), progress.as_mut())?;
    log::info!("all that pgBackRest has stored is intact; the newest backup is {label}");
    Ok(())
}

/// Reads a backup back, and records the result.
pub(super) fn verify(
    settings: &Settings,
    name: Option<&str>,
    dry_run: bool,
    identity: Option<&Path>,
    backups: &Backups,
) -> Result<()> {
    let Entry { name, files, manifest } = catalogue::find(&*backups.store, name, Timestamp::now())?;
    let manifest = manifest?;
    if dry_run {
        return crate::cli::print(&format!(
            "read back {} ({})\n",
            files.path().display(),
            DecimalBytes(manifest.bytes())
        ));
    }
    interrupt::listen()?;
    let mut progress = report::progress(crate::cli::on_terminal());
    let manifest = if let Some(identity) = identity.filter(|_| manifest.encryption.is_some()) {
        decrypt(settings, backups, &*files, manifest, identity, progress.as_mut())?
    } else {
        become_owner(settings)?;
        backups.store.check()?;
        let _lock = backups.lock(settings, VERIFICATION)?;
        let host = crate::cli::programs(settings);
        Dumps::new(settings, &host).verify(&*files, manifest, progress.as_mut())?
    };
    let rows = HumanCount(manifest.rows().unwrap_or(0));
    match (&manifest.encryption, identity) {
        (Some(encryption), None) => log::info!(
            "backup {name} is encrypted with {}: the checksums of its files are correct. Their content, {rows} rows, was \
             read back before encryption, and not now; to read it back, pass the private key: --identity",
            encryption.method.program()
        ),
        _ => log::info!("backup {name} is intact: {rows} rows"),
    }
    Ok(())
}

/// Reads as whoever has the key, and records the result as the owner. A copy that cannot be written to, on another
/// machine, is as good as any: then nothing is recorded.
fn decrypt(
    settings: &Settings,
    backups: &Backups,
    files: &dyn Store,
    manifest: Manifest,
    identity: &Path,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let host = crate::cli::programs(settings);
    let found = Dumps::new(settings, &host).examine(files, &manifest, Some(identity), progress);
    if found.as_ref().is_err_and(|error| error.kind() != Kind::Damaged) {
        return record(files, manifest, found);
    }
    let lock = become_owner(settings)
        .and_then(|()| backups.store.check())
        .and_then(|()| backups.lock(settings, VERIFICATION))
        .and_then(|lock| Manifest::load(files).map(|now| (lock, now)));
    match lock {
        Ok((_lock, now)) => record(files, now, found),
        Err(error) => {
            log::warn!("the result could not be recorded: {error}");
            found.map(|_| manifest)
        }
    }
}
