//! Facts and settings → what an upgrade will do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use indicatif::DecimalBytes;
use jiff::Timestamp;

use super::choice::choose;
use super::facts::Facts;
use super::keep::free_name;
use super::subscriptions::switched_off;
use super::transfer::Way;
use crate::backup::target::Authority;
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::postgres::initdb::Initialisation;
use crate::postgres::{Contents, Libraries, Major};

/// What an upgrade will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The name of this upgrade: `20261124T030000Z`.
    pub id: String,
    /// The old version.
    pub from: Major,
    /// The new version.
    pub to: Major,
    /// The data directory.
    pub data_directory: PathBuf,
    /// Where the new cluster is made.
    pub beside: PathBuf,
    /// How the databases get there.
    pub method: Method,
    /// Method `online`: where the copy is made that becomes the new cluster.
    pub copy: PathBuf,
    /// Method `online`: indexes to be built anew afterwards, by database.
    pub stale_indexes: BTreeMap<String, Vec<String>>,
    /// Subscriptions that will be switched off, by database.
    pub subscriptions: BTreeMap<String, Vec<String>>,
    /// Whether the pages of the new cluster carry checksums.
    pub checksums: bool,
    /// Where the old data directory is kept.
    pub keep_path: PathBuf,
    /// Where the databases lie while they are carried over.
    pub dump_directory: PathBuf,
    /// How they travel.
    pub way: Way,
    /// Method `dump`: with whose rights rows are loaded.
    pub authority: Authority,
    /// Bytes of the data directory.
    pub bytes: u64,
    /// Whether a backup is made first.
    pub backup: bool,
    /// The units of clients that run now.
    pub clients: Vec<String>,
    /// The server's unit.
    pub server_unit: String,
    /// What the new cluster is made like.
    pub initialisation: Initialisation,
    /// What servers of ours load for what the databases hold.
    pub libraries: Libraries,
}

/// The plan: pure. `newest_backup` is when the newest verified backup was begun.
///
/// # Errors
/// [`Kind::DataDirectory`] or [`Kind::NotInstalled`] if there is nothing to go from or to.
pub fn plan(
    settings: &Settings,
    facts: &Facts,
    newest_backup: Option<Timestamp>,
    now: Timestamp,
) -> Result<Plan> {
    let Contents::Cluster(from) = facts.data_directory.contents else {
        let message = format!("{} holds no cluster", facts.data_directory.path.display());
        return Err(Error::new(Kind::DataDirectory, message));
    };
    let Some(to) = facts.target else {
        return Err(Error::new(Kind::NotInstalled, "no PostgreSQL server is installed"));
    };
    let Some(cluster) = &facts.cluster else {
        return Err(Error::new(Kind::Server, "the server is not running"));
    };
    let id = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let old_enough = |newest: Option<Timestamp>, within| {
        newest.is_none_or(|newest| now.duration_since(newest).unsigned_abs() > within)
    };
    let method = choose(facts);
    let contents = cluster.contents.iter().filter(|(_, contained)| !contained.stale_indexes.is_empty());
    Ok(Plan {
        beside: named_after(&facts.data_directory.path, &format!("upgrade-{id}")),
        copy: named_after(&facts.data_directory.path, &format!("upgrade-{id}-copy")),
        stale_indexes: contents
            .map(|(name, contained)| (name.clone(), contained.stale_indexes.clone()))
            .collect(),
        subscriptions: switched_off(cluster, method, from),
        // pg_upgrade takes pages as they are.
        checksums: method == Method::Dump || cluster.server.data_checksums,
        method,
        data_directory: facts.data_directory.path.clone(),
        keep_path: free_name(&settings.upgrade.keep_path),
        dump_directory: settings.upgrade.dump_directory.join(format!("upgrade-{id}")),
        way: facts.space.way(facts.data_bytes).unwrap_or(Way::Stream),
        authority: match settings.upgrade.trust_owners {
            true => Authority::Superuser,
            false => Authority::Owner,
        },
        bytes: facts.data_bytes,
        backup: settings.upgrade.backup_within.is_some_and(|within| old_enough(newest_backup, within)),
        clients: facts.units.as_ref().map_or_else(|_| Vec::new(), |units| units.clients.clone()),
        server_unit: settings.server.unit.clone(),
        initialisation: cluster.initialisation.clone(),
        libraries: cluster.libraries.clone(),
        id,
        from,
        to,
    })
}

/// Where the file `path` is once its directory, one of `from`, is `to`; where it was if it is in none of them.
pub(super) fn moved(path: &Path, from: &[&Path], to: &Path) -> PathBuf {
    let inside = from.iter().find_map(|from| path.strip_prefix(from).ok());
    inside.map_or_else(|| path.to_owned(), |inside| to.join(inside))
}

/// A directory beside the data directory.
pub(super) fn named_after(data_directory: &Path, suffix: &str) -> PathBuf {
    let mut name = data_directory.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    name.into()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, data_directory, beside, keep_path, clients, .. } = self;
        let size = DecimalBytes(self.bytes);
        writeln!(
            f,
            "upgrade {} from PostgreSQL {from} to {to}, method {}:",
            data_directory.display(),
            self.method
        )?;
        if self.backup {
            writeln!(f, "  make a backup and read it back")?;
        }
        writeln!(f, "  make a new cluster in {}, while the homeserver runs", beside.display())?;
        if self.method == Method::Online {
            let copy = self.copy.display();
            writeln!(f, "  copy {size} to {copy} and let the copy follow, while the homeserver runs")?;
            writeln!(f, "  ask pg_upgrade whether it would go")?;
        }
        match clients.as_slice() {
            [] => writeln!(f, "  no client's unit runs: nothing to stop")?,
            clients => writeln!(f, "  stop {}", clients.join(", "))?,
        }
        writeln!(f, "  stop {}", self.server_unit)?;
        match (self.method, &self.way) {
            (Method::Online, _) => {
                writeln!(
                    f,
                    "  make sure that the copy has everything, and let pg_upgrade make the new cluster of it"
                )?;
                writeln!(f, "  compare roles, every database's relations, sequences and files")?;
            }
            (Method::Dump, way) => {
                match way {
                    Way::Files => {
                        writeln!(f, "  carry {size} over by way of {}", self.dump_directory.display())?;
                    }
                    Way::Stream => {
                        writeln!(f, "  carry {size} over from server to server: there is no room for files")?;
                    }
                }
                if self.authority == Authority::Superuser {
                    writeln!(
                        f,
                        "  as the superuser, so that functions in constraints of tables may do whatever he may"
                    )?;
                }
                writeln!(f, "  compare roles, settings, every database's objects and every table's rows")?;
            }
        }
        writeln!(f, "  exchange the two data directories")?;
        writeln!(f, "  start the server and the clients")?;
        if self.method == Method::Online {
            let indexes: usize = self.stale_indexes.values().map(Vec::len).sum();
            writeln!(f, "  gather statistics, while the homeserver runs")?;
            if indexes > 0 {
                writeln!(f, "  build {indexes} indexes anew whose collation has another version now")?;
            }
        }
        write!(f, "  keep the old data directory in {}", keep_path.display())
    }
}
