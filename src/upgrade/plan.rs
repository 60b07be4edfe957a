//! Facts and settings → what an upgrade will do.

use std::fmt;
use std::path::{Path, PathBuf};

use indicatif::DecimalBytes;
use jiff::Timestamp;

use super::facts::Facts;
use super::keep::free_name;
use super::transfer::Way;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::initdb::Initialisation;
use crate::postgres::{Contents, Major};

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
    /// Where the old data directory is kept.
    pub keep_path: PathBuf,
    /// Where the databases lie while they are carried over.
    pub dump_directory: PathBuf,
    /// How they travel.
    pub way: Way,
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
    Ok(Plan {
        beside: beside(&facts.data_directory.path, &id),
        data_directory: facts.data_directory.path.clone(),
        keep_path: free_name(&settings.upgrade.keep_path),
        dump_directory: settings.upgrade.dump_directory.join(format!("upgrade-{id}")),
        way: facts.space.way(facts.data_bytes).unwrap_or(Way::Stream),
        bytes: facts.data_bytes,
        backup: settings.upgrade.backup_within.is_some_and(|within| old_enough(newest_backup, within)),
        clients: facts.clients.clone(),
        server_unit: settings.server.unit.clone(),
        initialisation: cluster.initialisation.clone(),
        id,
        from,
        to,
    })
}

fn beside(data_directory: &Path, id: &str) -> PathBuf {
    let mut name = data_directory.as_os_str().to_owned();
    name.push(format!(".upgrade-{id}"));
    name.into()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, data_directory, beside, keep_path, clients, .. } = self;
        writeln!(f, "upgrade {} from PostgreSQL {from} to {to}:", data_directory.display())?;
        if self.backup {
            writeln!(f, "  make a backup and read it back")?;
        }
        writeln!(f, "  make a new cluster in {}, while the homeserver runs", beside.display())?;
        match clients.as_slice() {
            [] => writeln!(f, "  no client's unit runs: nothing to stop")?,
            clients => writeln!(f, "  stop {}", clients.join(", "))?,
        }
        writeln!(f, "  stop {}", self.server_unit)?;
        let way = match self.way {
            Way::Files => format!("by way of {}", self.dump_directory.display()),
            Way::Stream => "from server to server: there is no room for files".to_owned(),
        };
        writeln!(f, "  carry {} over {way}", DecimalBytes(self.bytes))?;
        writeln!(f, "  compare roles, settings, every database's objects and every table's rows")?;
        writeln!(f, "  exchange the two data directories")?;
        writeln!(f, "  start the server and the clients")?;
        write!(f, "  keep the old data directory in {}", keep_path.display())
    }
}
