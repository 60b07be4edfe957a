//! What the playbook's own upgrade (`--tags=upgrade-postgres`) leaves: the data directory of before, and the dump of an upgrade that
//! failed. It is not ours to remove.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::config::{ServerKind, Settings};
use crate::files::size_of;
use crate::postgres::{DataDirectory, Major};
use crate::report::DecimalBytes;

/// What it calls a data directory that it has put aside: behind the name of that.
const ASIDE: &str = "-auto-upgrade-backup";

/// What it calls a dump: behind the name of the server.
const DUMPS: [&str; 3] = ["-dump.sql.zst", "-dump.sql.gz", "-dump.sql"];

/// Where it makes dumps.
const DUMPED: &str = "/tmp";

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remnant {
    /// Where.
    pub path: PathBuf,
    /// Of a data directory: its version.
    pub major: Option<Major>,
    /// Bytes, as far as they can be read.
    pub bytes: Option<u64>,
    /// When it was written to last; of a cluster, when its server was stopped.
    pub used: Option<Timestamp>,
}

/// Those of the server in a container that the settings are of; of another one there are none.
pub fn find(settings: &Settings) -> Vec<Remnant> {
    match settings.server.kind {
        Some((ServerKind::Container, _)) => {
            look(&settings.data_directory, &settings.server.unit, Path::new(DUMPED))
        }
        _ => Vec::new(),
    }
}

fn look(data_directory: &Path, unit: &str, dumped: &Path) -> Vec<Remnant> {
    let mut aside = data_directory.as_os_str().to_owned();
    aside.push(ASIDE);
    let server = unit.rsplit_once('.').map_or(unit, |(server, _)| server);
    let dumps = DUMPS.map(|suffix| dumped.join(format!("{server}{suffix}")));
    let places = std::iter::once(PathBuf::from(aside)).chain(dumps);
    // Others may make links there.
    let is_there = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.is_dir() || meta.is_file());
    places.filter(is_there).map(Remnant::read).collect()
}

impl Remnant {
    fn read(path: PathBuf) -> Self {
        let directory = path.is_dir().then(|| DataDirectory::read(&path, Path::new("/proc")).ok()).flatten();
        let bytes = match path.is_dir() {
            true => size_of(&path).ok(),
            false => path.symlink_metadata().ok().map(|meta| meta.len()),
        };
        // The last thing that a server writes.
        let file = if path.is_dir() { path.join("global/pg_control") } else { path.clone() };
        let used = file.symlink_metadata().and_then(|meta| meta.modified()).ok();
        let used = used.and_then(|used| Timestamp::try_from(used).ok());
        Self { major: directory.and_then(|directory| directory.contents.major()), bytes, used, path }
    }
}

impl fmt::Display for Remnant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left by an upgrade of the playbook's, and not touched: {}", self.path.display())?;
        if let Some(major) = self.major {
            write!(f, ", PostgreSQL {major}")?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, ", {}", DecimalBytes(bytes))?;
        }
        if let Some(used) = self.used {
            let days = Timestamp::now().duration_since(used).as_hours() / 24;
            write!(f, ", last used at {used:.0} ({days} days ago)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_before_and_a_dump_are_found_and_no_link() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        assert_eq!(look(&data, "matrix-postgres.service", root.path()), []);
        std::fs::create_dir(root.path().join("data-auto-upgrade-backup")).unwrap();
        std::fs::write(root.path().join("data-auto-upgrade-backup/PG_VERSION"), "15\n").unwrap();
        std::fs::write(root.path().join("matrix-postgres-dump.sql.zst"), "0123456789").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("matrix-postgres-dump.sql.gz")).unwrap();
        let found = look(&data, "matrix-postgres.service", root.path());
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("/data-auto-upgrade-backup, PostgreSQL 15, "), "{told:?}");
        assert!(told[1].contains("/matrix-postgres-dump.sql.zst, 10 B, last used at "), "{told:?}");
    }
}
