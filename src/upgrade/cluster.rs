//! The new cluster, as initdb makes it, with the administrator's configuration; and its way to the disk.

use std::os::unix::fs::{DirBuilderExt as _, fchown};
use std::path::Path;
use std::process::Stdio;

use super::configuration;
use super::plan::Plan;
use crate::account::Account;
use crate::error::{IoContext as _, Result};
use crate::files;
use crate::files::beneath::Directory;
use crate::postgres::initdb;
use crate::runtime::{Child, Runtime, output};

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
    let beside = &plan.beside;
    make_directory(beside, account)?;
    let call = initdb::like(beside, &plan.initialisation, plan.to, plan.checksums);
    let mut command = runtime.command(plan.to, &call)?;
    account.apply(&mut command);
    output(command, "initdb", &[]).map(drop)
}

/// Carries the configuration into it as it is now, and returns what the administrator should know. It can be repeated: a
/// copy may have taken hours.
///
/// # Errors
/// Those of [`configuration::carry`].
pub fn configure(runtime: &dyn Runtime, account: &Account, plan: &Plan) -> Result<Vec<String>> {
    let (old, new) = ((plan.data_directory.as_path(), plan.from), (plan.beside.as_path(), plan.to));
    configuration::carry(runtime, old, new, account).map(|carried| carried.notes)
}

/// An empty data directory. In a place of root's, where its owner may make none, root makes it: nobody else can meddle there.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn make_directory(directory: &Path, account: &Account) -> Result<()> {
    let make = || std::fs::DirBuilder::new().mode(0o700).create(directory);
    let made = account.with_files(|| Ok(make()))?;
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && is_roots(parent(directory)) => {
            make().at("create", directory)?;
            let made = Directory::open(directory).and_then(|directory| directory.readable());
            made.and_then(|made| fchown(made, Some(account.uid.as_raw()), Some(account.gid.as_raw())))
                .at("change the owner of", directory)
        }
        made => made.at("create", directory),
    }
}

fn is_roots(directory: &Path) -> bool {
    Directory::open(directory).is_ok_and(|directory| directory.is_roots())
}

/// Writes every file of it to the disk, one by one; what else there is on the file system can wait.
///
/// # Errors
/// Those of `initdb --sync-only`.
pub fn sync(runtime: &dyn Runtime, account: &Account, plan: &Plan) -> Result<()> {
    let mut command = runtime.command(plan.to, &initdb::sync(&plan.beside))?;
    account.apply(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Child::spawn(command, "initdb --sync-only")?.wait()?;
    files::sync_directory(parent(&plan.beside))
}

/// Writes the whole file system to the disk that it is on: for a cluster most of whose files are there already.
///
/// # Errors
/// [`crate::Kind::File`], [`crate::Kind::NoSpace`].
pub fn sync_file_system(directory: &Path) -> Result<()> {
    let open = Directory::open(directory).and_then(|directory| directory.readable()).at("open", directory)?;
    nix::unistd::syncfs(&open).map_err(std::io::Error::from).at("write to the disk", directory)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
