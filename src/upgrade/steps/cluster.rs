//! The new cluster, as initdb makes it, with the administrator's configuration; and its way to the disk.

use std::path::Path;
use std::process::Stdio;

use crate::account::Account;
use crate::error::{IoContext as _, Result};
use crate::files::beneath::Directory;
use crate::files::{self, directories, parent};
use crate::postgres::initdb;
use crate::runtime::{Child, Runtime, output};
use crate::upgrade::configuration::{self, Home, Names};
use crate::upgrade::plan::Plan;
use crate::upgrade::records::Upgrade;
use crate::upgrade::steps::registration;

/// Makes an empty cluster that can take what the old one holds, and carries the configuration into it.
///
/// # Errors
/// Those of initdb, and of [`configuration::carry`].
pub fn make(runtime: &dyn Runtime, account: &Account, plan: &Plan) -> Result<()> {
    create(runtime, account, plan)?;
    for note in configure(runtime, account, plan)? {
        log::warn!("{note}");
    }
    Ok(())
}

/// The same without the configuration.
///
/// # Errors
/// Those of initdb.
pub fn create(runtime: &dyn Runtime, account: &Account, plan: &Plan) -> Result<()> {
    let beside = &plan.upgrade.beside;
    directories::make_private(beside, account)?;
    let call = initdb::like(beside, &plan.initialisation, plan.upgrade.to, plan.checksums);
    output(runtime.command(plan.upgrade.to, &call.as_user(account))?, "initdb", &[])?;
    registration::make(&plan.upgrade, account)
}

/// Carries the configuration into it as it is now, and returns what the administrator should know. It can be repeated: a
/// copy may have taken hours.
///
/// # Errors
/// Those of [`configuration::carry`].
pub fn configure(runtime: &dyn Runtime, account: &Account, plan: &Plan) -> Result<Vec<String>> {
    let Upgrade { from, to, data_directory, beside, registered, .. } = &plan.upgrade;
    let (old, new) = match registered {
        Some(registered) => (
            Home::apart(&registered.old_configuration, data_directory),
            Home::apart(&registered.configuration, beside),
        ),
        None => (Home::of(data_directory), Home::of(beside)),
    };
    let names = Names::of(&plan.upgrade);
    configuration::carry(runtime, (&old, *from), (&new, *to), names, account).map(|carried| carried.notes)
}

/// Writes every file of it to the disk, one by one; what else there is on the file system can wait.
///
/// # Errors
/// Those of `initdb --sync-only`.
pub fn sync(runtime: &dyn Runtime, account: &Account, plan: &Plan) -> Result<()> {
    let call = initdb::sync(&plan.upgrade.beside).as_user(account);
    let mut command = runtime.command(plan.upgrade.to, &call)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Child::spawn(command, "initdb --sync-only")?.wait()?;
    files::sync_directory(parent(&plan.upgrade.beside))
}

/// Writes the whole file system to the disk that it is on: for a cluster most of whose files are there already.
///
/// # Errors
/// [`crate::Kind::File`], [`crate::Kind::NoSpace`].
pub fn sync_file_system(directory: &Path) -> Result<()> {
    let open = Directory::open(directory).and_then(|directory| directory.readable()).at("open", directory)?;
    nix::unistd::syncfs(&open).map_err(std::io::Error::from).at("write to the disk", directory)
}
