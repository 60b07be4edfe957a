//! Whether the old data directory that is kept could take its place again, as far as that can be seen while it lies there:
//! once the server is stopped it is too late to find out.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, exists, parent, size_of};
use crate::postgres::pg_controldata::{self, Control};
use crate::postgres::{self, Contents, DataDirectory, Major, pg_checksums};
use crate::report::DecimalBytes;
use crate::runtime::{AsUser, Runtime, output_within};
use crate::upgrade::records::Entry;

/// So much of the checksums is looked at as can be in this time.
const SAMPLE: Duration = Duration::from_secs(30);

/// The first version whose program looks at them under this name.
const CHECKSUMS: Major = Major(12);

/// So many bytes stay free.
const RESERVE: u64 = 64 << 20;

/// What every version from 10 on has made there, and needs to start (chapter "Database File Layout").
const DIRECTORIES: [&str; 13] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_xact",
];

/// Makes sure that `kept` is the old cluster of the upgrade, whole and shut down, that its programs are there, and that it
/// finds room beside the data directory. Nothing is changed. Returns what its control file says.
///
/// # Errors
/// What is the matter with it.
pub fn require_whole(
    runtime: &dyn Runtime,
    account: &Account,
    entry: &Entry,
    kept: &Path,
) -> Result<Control> {
    look(runtime, account, entry, kept).map_err(|error| {
        let context = format!("could not revert to PostgreSQL {}", entry.upgrade.from);
        error.context(context).state("nothing was stopped, and nothing was changed")
    })
}

fn look(runtime: &dyn Runtime, account: &Account, entry: &Entry, kept: &Path) -> Result<Control> {
    let refuse = |reason: String| {
        Err(Error::new(Kind::DataDirectory, format!("{} {reason}", kept.display())).hint(RESTORE))
    };
    if !runtime.majors().contains(&entry.upgrade.from) {
        let message = format!("PostgreSQL {} is not installed any more", entry.upgrade.from);
        return Err(Error::new(Kind::NotInstalled, message)
            .hint(format!("apt-get install postgresql-{}", entry.upgrade.from)));
    }
    if let Some(missing) = DIRECTORIES.iter().find(|name| !kept.join(name).is_dir()) {
        return refuse(format!("is incomplete: directory {missing} is missing"));
    }
    require_old(entry, kept)?;
    let found = DataDirectory::read(kept, Path::new("/proc"))?;
    if found.contents != Contents::Cluster(entry.upgrade.from) {
        return refuse(format!("is not a cluster of PostgreSQL {}", entry.upgrade.from));
    }
    if found.owner.as_ref().map(|owner| owner.uid) != Some(account.uid) {
        return refuse(format!("does not belong to {}", account.name));
    }
    if let Some(postmaster) = found.postmaster {
        return refuse(format!("is in use by process {}", postmaster.pid));
    }
    let user = AsUser { runtime, account };
    let control = pg_controldata::read(&user, entry.upgrade.from, kept)?;
    if !control.is_shut_down() {
        return refuse(format!("was not shut down cleanly: its state is {:?}", control.state));
    }
    if !exists(&kept.join("pg_wal").join(&control.redo_file)) {
        return refuse(format!("is incomplete: pg_wal/{} is missing", control.redo_file));
    }
    let bytes = size_of(kept)?;
    if let Some(before) = entry.kept_bytes.filter(|before| bytes < *before) {
        return refuse(format!(
            "is incomplete: its size is {bytes} bytes ({}), and was {before} when it was moved there",
            DecimalBytes(bytes)
        ));
    }
    account.with_files(|| tablespaces(kept, entry.upgrade.from))?;
    if is_far(entry, kept)? {
        if exists(&entry.upgrade.beside) {
            return refuse(format!(
                "cannot be copied back: {} already exists",
                entry.upgrade.beside.display()
            ));
        }
        let place = parent(&entry.upgrade.data_directory);
        let free = files::free_space(place)?;
        if free < bytes + RESERVE {
            let message = format!(
                "{} must be copied back to the file system of {}: free {}, needed {}",
                kept.display(),
                place.display(),
                DecimalBytes(free),
                DecimalBytes(bytes + RESERVE)
            );
            return Err(Error::new(Kind::NoSpace, message)
                .hint(format!("free space there: df -h {}", place.display())));
        }
    }
    if control.has_checksums && entry.upgrade.from >= CHECKSUMS {
        sample(&user, entry.upgrade.from, kept)?;
    }
    Ok(control)
}

const RESTORE: &str = "matrix-postgres-backup list shows the backups that can be restored instead";

/// Whether it lies on another file system than the data directory.
///
/// # Errors
/// [`Kind::File`].
pub fn is_far(entry: &Entry, kept: &Path) -> Result<bool> {
    let place = parent(&entry.upgrade.data_directory);
    Ok(kept.symlink_metadata().at("read", kept)?.dev() != place.metadata().at("read", place)?.dev())
}

/// Each link leads to a directory of this version.
fn tablespaces(kept: &Path, major: Major) -> Result<()> {
    let links = kept.join("pg_tblspc");
    for link in std::fs::read_dir(&links).at("read", &links)? {
        let link = link.at("read", &links)?.path();
        let ours = format!("PG_{major}_");
        let mut inside = std::fs::read_dir(&link).at("read the tablespace", &link)?.flatten();
        if !inside.any(|entry| entry.file_name().to_string_lossy().starts_with(&ours)) {
            let message = format!("the tablespace {} has no files of PostgreSQL {major}", link.display());
            return Err(Error::new(Kind::DataDirectory, message).hint(RESTORE));
        }
    }
    Ok(())
}

fn sample(user: &AsUser<'_>, major: Major, kept: &Path) -> Result<()> {
    let command = user.command(major, &pg_checksums::check(kept))?;
    match output_within(command, pg_checksums::NAME, Vec::new(), SAMPLE) {
        Err(error) if error.to_string().contains("took longer than") => {
            log::info!("the checksums of {} were verified in part", kept.display());
            Ok(())
        }
        Err(error) => Err(error
            .with_kind(Kind::Damaged)
            .context(format!("{} has damaged pages", kept.display()))
            .hint(RESTORE)),
        Ok(_) => Ok(()),
    }
}

/// What is put into place must be the old cluster, and nothing else.
///
/// # Errors
/// [`Kind::DataDirectory`].
pub fn require_old(entry: &Entry, directory: &Path) -> Result<()> {
    match postgres::system_identifier(directory)? == entry.old_identifier {
        true => Ok(()),
        false => Err(Error::new(
            Kind::DataDirectory,
            format!("{} is not the cluster that was upgraded", directory.display()),
        )
        .state("nothing was moved")),
    }
}
