//! Facts and settings → what an upgrade will do. Pure.
//!
//! - [`choice`]: which method, and why
//! - [`subscriptions`]: those that are switched off afterwards

pub mod choice;
pub mod subscriptions;

use std::fmt;
use std::path::Path;

use jiff::Timestamp;

use crate::backup::target::Authority;
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::files::{free_name, stamp};
use crate::place::image::drop_in_of;
use crate::postgres::initdb::Initialisation;
use crate::postgres::{Contents, Libraries};
use crate::report::DecimalBytes;
use crate::upgrade::facts::space::TransferMode;
use crate::upgrade::facts::{Contained, Facts};
use crate::upgrade::plan::choice::choose;
use crate::upgrade::plan::subscriptions::switched_off;
use crate::upgrade::records::{Registered, Upgrade, named_after};

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
    /// Those of them that are no setting's, and were found by their connections.
    pub found: Vec<String>,
    /// A sentence for each kind of sessions that no unit has that is stopped.
    pub disconnected: Vec<String>,
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
        let message = format!("{} is not a cluster", facts.data_directory.path.display());
        return Err(Error::new(Kind::DataDirectory, message));
    };
    let Some(to) = facts.target else {
        return Err(Error::new(Kind::NotInstalled, "no PostgreSQL server is installed"));
    };
    let Some(cluster) = &facts.cluster else {
        return Err(Error::new(Kind::Server, "the server is not running"));
    };
    let id = stamp::write(now);
    let old_enough = |newest: Option<Timestamp>, within| {
        newest.is_none_or(|newest| now.duration_since(newest).unsigned_abs() > within)
    };
    let method = choose(facts);
    let contents = cluster.contents.iter().filter(|(_, contained)| !contained.stale_indexes.is_empty());
    let place = |suffix: &str| named_after(&facts.data_directory.path, &format!("upgrade-{id}{suffix}"));
    let stale = |contained: &Contained| contained.stale_indexes.clone();
    let registered = facts.registered.as_ref().map(|registration| &registration.registered);
    let upgrade = Upgrade {
        beside: place(""),
        copy: (method == Method::Online).then(|| place("-copy")),
        stale_indexes: contents.map(|(name, contained)| (name.clone(), stale(contained))).collect(),
        subscriptions: switched_off(cluster, method, from),
        method,
        data_directory: facts.data_directory.path.clone(),
        keep_path: match registered {
            Some(_) => facts.data_directory.path.clone(),
            None => free_name(&settings.upgrade.keep_path),
        },
        dump_directory: settings.upgrade.dump_directory.join(format!("upgrade-{id}")),
        server_unit: settings.server.unit.clone(),
        registered: registered.cloned(),
        container: facts.contained.as_ref().map(|contained| contained.container.clone()),
        by_playbook: false,
        id,
        from,
        to,
    };
    let units = facts.units.as_ref().ok();
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
        clients: units.map_or_else(Vec::new, |units| units.clients.clone()),
        found: units.map_or_else(Vec::new, |units| units.found.clone()),
        disconnected: units.map_or_else(Vec::new, |units| units.disconnected(&settings.server.unit)),
        initialisation: cluster.initialisation.clone(),
        libraries: cluster.libraries.clone(),
    })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Upgrade { from, to, data_directory, method, .. } = &self.upgrade;
        write!(f, "upgrade {} from PostgreSQL {from} to {to}, method {method}:", data_directory.display())?;
        [self.beforehand(), self.in_the_downtime(), self.afterwards()]
            .concat()
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The plan in words, a line for each step.
impl Plan {
    fn beforehand(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.backup {
            lines.push("make a backup and verify it".to_owned());
        }
        let beside = self.upgrade.beside.display();
        lines.push(format!("create a new cluster in {beside} (initdb), while the homeserver runs"));
        if let Some(copy) = &self.upgrade.copy {
            let (size, copy) = (DecimalBytes(self.bytes), copy.display());
            lines.push(format!(
                "copy {size} to {copy} (pg_basebackup) and run the copy as a standby, while the homeserver runs"
            ));
            lines.push("run pg_upgrade --check".to_owned());
        }
        lines
    }

    fn in_the_downtime(&self) -> Vec<String> {
        let mut lines = vec![match self.clients.as_slice() {
            [] => "no service to stop: none of clients.units is running, and none is connected".to_owned(),
            clients => format!("stop {}", clients.join(", ")),
        }];
        lines.extend(self.disconnected.iter().cloned());
        lines.push(format!("stop {}", self.upgrade.server_unit));
        lines.extend(match self.upgrade.method {
            Method::Online => vec![
                "verify that the copy has replayed all WAL, promote it, and run pg_upgrade on it".to_owned(),
                "compare roles and, in every database, relations, sequences and sizes of files".to_owned(),
            ],
            Method::Dump => self.transferring(),
        });
        lines.extend(match &self.upgrade.registered {
            Some(registered) => registered_as(registered, &self.upgrade),
            None => vec!["exchange the two data directories".to_owned()],
        });
        lines.extend(self.upgrade.container.as_ref().map(|container| {
            format!(
                "write {}, by which {} runs {}",
                drop_in_of(Path::new("/"), &self.upgrade.server_unit).display(),
                self.upgrade.server_unit,
                container.new.image
            )
        }));
        lines.push("start the server and the services".to_owned());
        lines
    }

    fn transferring(&self) -> Vec<String> {
        let (size, directory) = (DecimalBytes(self.bytes), self.upgrade.dump_directory.display());
        let mut lines = vec![match self.transfer {
            TransferMode::Files => format!("dump and restore {size} by way of {directory}"),
            TransferMode::Stream => {
                format!("pipe {size} from pg_dump to pg_restore: not enough disk space for a dump")
            }
        }];
        if self.authority == Authority::Superuser {
            lines.push(
                "as superuser: functions in table constraints run with superuser privileges".to_owned(),
            );
        }
        lines.push(
            "compare roles, settings, the objects of every database and the rows of every table".to_owned(),
        );
        lines
    }

    fn afterwards(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.upgrade.method == Method::Online {
            let indexes: usize = self.upgrade.stale_indexes.values().map(Vec::len).sum();
            lines.push("gather statistics, while the homeserver runs".to_owned());
            if indexes > 0 {
                lines.push(format!("rebuild {indexes} indexes whose collation version has changed"));
            }
        }
        lines.push(format!("keep the old data directory in {}", self.upgrade.keep_path.display()));
        lines
    }
}

/// What becomes of both in Debian's lists.
fn registered_as(registered: &Registered, upgrade: &Upgrade) -> Vec<String> {
    let Upgrade { from, to, server_unit, .. } = upgrade;
    let Registered { name, data_directory, configuration, port, port_aside, dependents, .. } = registered;
    let mut lines = vec![
        format!("set cluster {from}/{name} to port {port_aside} and to manual in start.conf"),
        format!(
            "rename the new cluster to {}, as {to}/{name} on port {port} with its configuration in {}",
            data_directory.display(),
            configuration.display()
        ),
    ];
    if !dependents.is_empty() {
        let units = dependents.join(", ");
        lines.push(format!(
            "write a unit {server_unit} that starts the new server, for the units that name it: {units}"
        ));
    }
    lines
}
