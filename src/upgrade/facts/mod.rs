//! What there is before an upgrade: the cluster, both sets of programs, the file systems, the units. Nothing is changed.
//!
//! - [`cluster`]: what the running server says
//! - [`units`]: what systemd says
//! - [`registered`]: what Debian has of the cluster
//! - [`adopted`]: an upgrade of the playbook's own, as a journal of ours would have it
//! - [`container`]: what a playbook has of it
//! - [`remnants`]: what a playbook has left
//! - [`space`]: room on each file system
//! - [`tried`]: what an empty cluster of the target has shown
//! - [`kept`]: whether what is kept could take its place again
//! - [`left_behind`]: what no upgrade carries over
//! - [`loose_keys`]: foreign keys that nothing enforces
//! - [`written`]: whether a return would lose anything

pub mod adopted;
pub mod cluster;
pub mod container;
pub mod kept;
pub mod left_behind;
pub mod loose_keys;
pub mod registered;
pub mod remnants;
pub mod space;
pub mod tried;
pub mod units;
pub mod written;

pub use cluster::{CatalogSetting, Cluster, Contained, Shared};
pub use loose_keys::LooseKey;
pub use tried::{Obstacle, Tried};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::account::Account;
use crate::backup::{catalogue, store_of};
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::{self, Contents, DataDirectory, Major, Occupant};
use crate::runtime::{AsUser, Runtime, output};
use crate::upgrade::configuration::{self, Foreseen, Home};
use crate::upgrade::facts::container::Containment;
use crate::upgrade::facts::registered::Registration;
use crate::upgrade::facts::remnants::Remnant;
use crate::upgrade::facts::space::{Room, Space};
use crate::upgrade::facts::units::Units;
use crate::upgrade::records::Rehearsal;

/// Everything that the check looks at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The data directory, and whether its path is a symbolic link.
    pub data_directory: DataDirectory,
    /// Who has it.
    pub occupant: Option<Occupant>,
    /// Whether the data directory's path is a symbolic link.
    pub is_symlink: bool,
    /// Bytes of the data directory, tablespaces left out.
    pub data_bytes: u64,
    /// The majors that are installed, oldest first.
    pub installed: Vec<Major>,
    /// The major to go to, if there is one.
    pub target: Option<Major>,
    /// What the running server says; nothing if none runs.
    pub cluster: Option<Cluster>,
    /// Extensions that the target's packages bring.
    pub target_extensions: BTreeSet<String>,
    /// What becomes of the configuration files, if both versions are installed.
    pub configuration: Vec<Foreseen>,
    /// Settings of roles and databases that the target does not know, or whose value it refuses, with what it says of that.
    pub settings_gone: Vec<(CatalogSetting, Option<String>)>,
    /// Free space where the upgrade writes.
    pub space: Space,
    /// The method that the settings ask for; nothing for `auto`.
    pub method: Option<Method>,
    /// Whether a dump is loaded as the superuser, whatever it calls.
    pub trust_owners: bool,
    /// Whether one program can call those of both versions.
    pub programs_together: bool,
    /// Why no copy can follow the server, in its words, if it was asked and has refused.
    pub replication_refused: Option<String>,
    /// What the latest rehearsal has shown.
    pub rehearsal: Option<Rehearsal>,
    /// When all this was so.
    pub now: Timestamp,
    /// The path under which the old data directory will be kept, and whether something is there already.
    pub keep_path: (PathBuf, bool),
    /// See [`Settings::misplaced`].
    pub misplaced: Vec<(&'static str, PathBuf)>,
    /// Why the dump directory cannot be used, if so.
    pub dump_directory_problem: Option<String>,
    /// Of a cluster of Debian's: its registration.
    pub registered: Option<Registration>,
    /// Of a server in a container: what its unit runs.
    pub contained: Option<Containment>,
    /// What the playbook's own upgrades have left.
    pub remnants: Vec<Remnant>,
    /// The identity of the cluster in the data directory.
    pub system_identifier: Option<String>,
    /// Where its socket is.
    pub socket_directory: PathBuf,
    /// The server's unit.
    pub server_unit: String,
    /// What systemd says of the units; or why it says nothing.
    pub units: Result<Units, String>,
    /// What an empty cluster of the target has shown, if it was asked.
    pub tried: Option<Tried>,
    /// How long the newest trial restore took, in seconds, and when that was.
    pub trial: Option<(Timestamp, u64)>,
}

/// Gathers the facts for an upgrade to `to`, or to the newest installed version.
///
/// # Errors
/// [`Kind::DataDirectory`] if there is no cluster to upgrade; others if something cannot be read.
pub fn gather(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>) -> Result<Facts> {
    let path = &settings.data_directory;
    let data_directory = DataDirectory::read(path, Path::new("/proc"))?;
    let Contents::Cluster(current) = data_directory.contents else {
        return Err(Error::new(
            Kind::DataDirectory,
            format!("there is nothing to upgrade: {} is not a cluster", path.display()),
        )
        .state("nothing was changed")
        .hint("set data_directory in /etc/matrix-postgres/config.toml"));
    };
    let installed = runtime.majors();
    let target = to.or(settings.upgrade.to).or(installed.last().copied());
    let cluster = cluster::ask(settings, runtime, &installed)?;
    let both = target.filter(|target| installed.contains(target) && installed.contains(&current));
    let owner = data_directory.owner.as_ref();
    let registered = registered::look(settings, current, target)?;
    let contained = container::look(settings, runtime, cluster.as_ref(), target, owner)?;
    let home = match &registered {
        Some(Registration { registered, .. }) => Home::apart(&registered.old_configuration, path),
        None => Home::of(path),
    };
    let (configuration, settings_gone) = match both.zip(owner) {
        Some((target, owner)) => (
            configuration::foresee(runtime, (&home, current), target, owner)?,
            settings_gone(runtime, cluster.as_ref(), (current, target), owner)?,
        ),
        None => Default::default(),
    };
    // One of Debian's stays where it is.
    let keep_path = registered.as_ref().map_or(&settings.upgrade.keep_path, |_| path).clone();
    let kept = registered.is_none() && keep_path.symlink_metadata().is_ok();
    let is_used = |key: &str| registered.is_none() || key != "upgrade.keep_path";
    let misplaced = settings.misplaced().into_iter().filter(|(key, _)| is_used(key));
    Ok(Facts {
        misplaced: misplaced.map(|(key, path)| (key, path.to_owned())).collect(),
        is_symlink: path.is_symlink(),
        data_bytes: files::size_of(path)?,
        target_extensions: both.map(|target| runtime.extensions(target)).transpose()?.unwrap_or_default(),
        space: Space {
            beside: Room::of(files::parent(path))?,
            dump: Room::of(&settings.upgrade.dump_directory)?,
            keep: Room::of(files::parent(&keep_path))?,
        },
        dump_directory_problem: data_directory.owner.as_ref().and_then(|owner| {
            space::check_private(&settings.upgrade.dump_directory, owner).err().map(|error| error.to_string())
        }),
        system_identifier: postgres::system_identifier(path).ok(),
        socket_directory: settings.socket_directory.clone(),
        server_unit: settings.server.unit.clone(),
        method: settings.upgrade.method,
        trust_owners: settings.upgrade.trust_owners,
        programs_together: both
            .is_some_and(|target| [current, target].iter().all(|major| runtime.programs(*major).is_some())),
        replication_refused: match both.zip(owner).filter(|_| cluster.is_some()) {
            Some((target, owner)) => replication_refused(settings, runtime, target, owner)?,
            None => None,
        },
        rehearsal: Rehearsal::read(&settings.state_directory)?,
        now: Timestamp::now(),
        keep_path: (keep_path, kept),
        units: units::ask(settings, cluster.as_ref().map_or(&[], |cluster| &cluster.shared.sessions)),
        trial: trial(settings),
        tried: None,
        registered,
        contained,
        remnants: remnants::find(settings),
        occupant: Occupant::find(path)?,
        data_directory,
        installed,
        target,
        cluster,
        configuration,
        settings_gone,
    })
}

/// What the databases took the last time that they were restored on trial.
fn trial(settings: &Settings) -> Option<(Timestamp, u64)> {
    let backups = catalogue::list(&*store_of(&settings.backup)).unwrap_or_default();
    let backups = catalogue::split(&backups, Timestamp::now()).0;
    let trials = backups.iter().rev().filter_map(|backup| backup.manifest.as_ref().ok()?.trial.as_ref());
    trials.into_iter().find(|trial| trial.damage.is_none()).map(|trial| (trial.at, trial.seconds))
}

/// Logs in as a copy would that follows the server, and does nothing then.
fn replication_refused(
    settings: &Settings,
    runtime: &dyn Runtime,
    target: Major,
    owner: &Account,
) -> Result<Option<String>> {
    let connection = settings.connection();
    let call = postgres::identify_system(&connection);
    let command = AsUser { runtime, account: owner }.command(target, &call)?;
    match output(command, "psql for replication", &[]) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == Kind::Program => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            Ok(Some(source.unwrap_or_else(|| error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// The restore of any of them would fail.
fn settings_gone(
    runtime: &dyn Runtime,
    cluster: Option<&Cluster>,
    (from, target): (Major, Major),
    owner: &Account,
) -> Result<Vec<(CatalogSetting, Option<String>)>> {
    let settings = cluster.map(|cluster| cluster.shared.settings.as_slice()).unwrap_or_default();
    let names = settings.iter().map(|setting| setting.name.clone()).collect();
    let unknown = configuration::unknown_settings(runtime, target, &names, owner)?;
    let pair = |setting: &CatalogSetting| (setting.name.clone(), setting.value.clone());
    let known = settings.iter().filter(|setting| !unknown.contains(&setting.name)).map(pair).collect();
    let refused = configuration::refused_values(runtime, (from, target), &known, owner)?;
    let gone = |setting: &CatalogSetting| match refused.get(&pair(setting)) {
        Some(said) => Some((setting.clone(), Some(said.clone()))),
        None => unknown.contains(&setting.name).then(|| (setting.clone(), None)),
    };
    Ok(settings.iter().filter_map(gone).collect())
}
