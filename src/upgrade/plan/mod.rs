//! Facts and settings → what an upgrade will do. Pure.
//!
//! - [`choice`]: which method, and why
//! - [`subscriptions`]: those that are switched off afterwards

pub mod choice;
pub mod subscriptions;

use std::fmt;

use jiff::Timestamp;

use crate::backup::target::Authority;
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::files::free_name;
use crate::postgres::initdb::Initialisation;
use crate::postgres::{Contents, Libraries};
use crate::report::DecimalBytes;
use crate::upgrade::facts::space::TransferMode;
use crate::upgrade::facts::{Contained, Facts};
use crate::upgrade::plan::choice::choose;
use crate::upgrade::plan::subscriptions::switched_off;
use crate::upgrade::records::{Upgrade, named_after};

/// What an upgrade will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which, and where.
    pub upgrade: Upgrade,
    /// Whether the pages of the new cluster carry checksums.
    pub checksums: bool,
    /// How the databases travel.
    pub transfer: TransferMode,
    /// Method `dump`: with whose rights rows are loaded.
    pub authority: Authority,
    /// Bytes of the data directory.
    pub bytes: u64,
    /// Whether a backup is made first.
    pub backup: bool,
    /// The units of clients that run now.
    pub clients: Vec<String>,
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
    let place = |suffix: &str| named_after(&facts.data_directory.path, &format!("upgrade-{id}{suffix}"));
    let stale = |contained: &Contained| contained.stale_indexes.clone();
    let upgrade = Upgrade {
        beside: place(""),
        copy: (method == Method::Online).then(|| place("-copy")),
        stale_indexes: contents.map(|(name, contained)| (name.clone(), stale(contained))).collect(),
        subscriptions: switched_off(cluster, method, from),
        method,
        data_directory: facts.data_directory.path.clone(),
        keep_path: free_name(&settings.upgrade.keep_path),
        dump_directory: settings.upgrade.dump_directory.join(format!("upgrade-{id}")),
        server_unit: settings.server.unit.clone(),
        id,
        from,
        to,
    };
    Ok(Plan {
        upgrade,
        // pg_upgrade takes pages as they are.
        checksums: method == Method::Dump || cluster.server.data_checksums,
        transfer: facts.space.transfer_mode(facts.data_bytes).unwrap_or(TransferMode::Stream),
        authority: match settings.upgrade.trust_owners {
            true => Authority::Superuser,
            false => Authority::Owner,
        },
        bytes: facts.data_bytes,
        backup: settings.upgrade.backup_within.is_some_and(|within| old_enough(newest_backup, within)),
        clients: facts.units.as_ref().map_or_else(|_| Vec::new(), |units| units.clients.clone()),
        initialisation: cluster.initialisation.clone(),
        libraries: cluster.libraries.clone(),
    })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Upgrade { from, to, data_directory, beside, method, keep_path, copy, .. } = &self.upgrade;
        let size = DecimalBytes(self.bytes);
        writeln!(
            f,
            "upgrade {} from PostgreSQL {from} to {to}, method {}:",
            data_directory.display(),
            method
        )?;
        if self.backup {
            writeln!(f, "  make a backup and read it back")?;
        }
        writeln!(f, "  make a new cluster in {}, while the homeserver runs", beside.display())?;
        if let Some(copy) = copy {
            let copy = copy.display();
            writeln!(f, "  copy {size} to {copy} and let the copy follow, while the homeserver runs")?;
            writeln!(f, "  ask pg_upgrade whether it would go")?;
        }
        match self.clients.as_slice() {
            [] => writeln!(f, "  no client's unit runs: nothing to stop")?,
            clients => writeln!(f, "  stop {}", clients.join(", "))?,
        }
        writeln!(f, "  stop {}", self.upgrade.server_unit)?;
        match (*method, &self.transfer) {
            (Method::Online, _) => {
                writeln!(
                    f,
                    "  make sure that the copy has everything, and let pg_upgrade make the new cluster of it"
                )?;
                writeln!(f, "  compare roles, every database's relations, sequences and files")?;
            }
            (Method::Dump, way) => {
                match way {
                    TransferMode::Files => {
                        writeln!(
                            f,
                            "  carry {size} over by way of {}",
                            self.upgrade.dump_directory.display()
                        )?;
                    }
                    TransferMode::Stream => {
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
        if *method == Method::Online {
            let indexes: usize = self.upgrade.stale_indexes.values().map(Vec::len).sum();
            writeln!(f, "  gather statistics, while the homeserver runs")?;
            if indexes > 0 {
                writeln!(f, "  build {indexes} indexes anew whose collation has another version now")?;
            }
        }
        write!(f, "  keep the old data directory in {}", keep_path.display())
    }
}
