//! Where the backups are that a verb is about: in the directory of this machine, or in a target elsewhere.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::unistd::geteuid;

use crate::account::Account;
use crate::backup::offsite::{self, machine::Machine};
use crate::backup::rclone::Rclone;
use crate::backup::store::Store;
use crate::backup::store_of;
use crate::config::{Keep, Settings};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::{self, Directory};
use crate::lock::Lock;
use crate::place::credential_file;
use crate::runtime::output;

/// rclone's configuration among the credentials of a unit. Not one that the unit of the notices imports.
const CREDENTIAL: &str = "matrix-postgres-rclone.conf";

/// Where systemd finds an encrypted one.
const ENCRYPTED: &str = "/etc/credstore.encrypted";

/// rclone's configuration is not longer than that.
const MODEST: u64 = 1 << 20;

/// For whom others wait.
pub(super) const VERIFICATION: &str = "verification of a backup";

/// What a verb is told of it.
#[derive(Debug, Default, Clone)]
pub(super) struct At {
    /// A target, or nothing for this machine.
    pub(super) target: Option<String>,
    /// The directory of the machine whose backups are meant.
    pub(super) host: Option<String>,
}

/// The backups that a verb is about.
pub(super) struct Backups {
    pub(super) store: Arc<dyn Store>,
    /// How many are to stay.
    pub(super) keep: Keep,
    is_here: bool,
}

impl Backups {
    /// Those of this machine.
    pub(super) fn here(settings: &Settings) -> Self {
        Self { store: store_of(&settings.backup), keep: settings.backup.keep, is_here: true }
    }

    /// Those that are meant, with the configuration of rclone for those elsewhere.
    ///
    /// # Errors
    /// Those of [`offsite::open`].
    pub(super) fn find(settings: &Settings, at: &At, configuration: Option<&str>) -> Result<Self> {
        let (Some(target), Some(configuration)) = (&at.target, configuration) else {
            return Ok(Self::here(settings));
        };
        let rclone = rclone(settings, configuration)?;
        let found = offsite::open(settings, rclone, target, at.host.as_deref(), &machine()?)?;
        if !found.others.is_empty() {
            log::info!(
                "{target} has backups of other machines, too: --host {}",
                found.others.join(", --host ")
            );
        }
        let keep = found.keep.unwrap_or(ALL);
        Ok(Self { store: Arc::new(found.store), keep, is_here: false })
    }

    /// The lock for work on them: what is elsewhere keeps no backup of this machine waiting.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub(super) fn lock(&self, settings: &Settings, work: &str) -> Result<Option<Lock>> {
        self.is_here.then(|| Lock::take(settings, work)).transpose()
    }
}

/// Where nothing may be removed.
const ALL: Keep = Keep { last: u32::MAX, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

/// This machine.
///
/// # Errors
/// [`Kind::File`] without machine-id(5).
pub(super) fn machine() -> Result<Machine> {
    let file = Path::new("/etc/machine-id");
    let id = std::fs::read_to_string(file).at("read", file)?;
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    Ok(Machine::new(&host.unwrap_or_else(|_| "localhost".to_owned()), &id))
}

/// rclone, which runs as the backups' owner.
///
/// # Errors
/// Those of [`Rclone::new`].
pub(super) fn rclone(settings: &Settings, configuration: &str) -> Result<Arc<Rclone>> {
    let account = if geteuid().is_root() { owner(settings)? } else { None };
    Rclone::new(configuration, account).map(Arc::new)
}

/// Whose the backups are, or would be; nothing if that is root.
fn owner(settings: &Settings) -> Result<Option<Account>> {
    let owner = match Directory::open(&settings.backup.directory) {
        Ok(directory) => Some(directory.owner()),
        Err(_) => Account::named(&settings.server.user)?,
    };
    Ok(owner.filter(|owner| !owner.is_root()))
}

/// rclone's configuration: a credential of our unit, or what root finds where systemd would have found it.
///
/// # Errors
/// [`Kind::Config`] if there is none.
pub(super) fn configuration() -> Result<String> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    if let Some(file) = credential_file(CREDENTIAL, credentials.as_deref()) {
        let text = beneath::read(&file, MODEST).at("read", &file)?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    let encrypted = Path::new(ENCRYPTED).join(CREDENTIAL);
    if geteuid().is_root() && encrypted.exists() {
        let mut command = Command::new("systemd-creds");
        command.arg("decrypt").arg(format!("--name={CREDENTIAL}")).arg(&encrypted).arg("-");
        return output(command, "systemd-creds", &[]).map(|text| String::from_utf8_lossy(&text).into_owned());
    }
    Err(Error::new(Kind::Config, format!("there is no configuration of rclone (credential {CREDENTIAL})"))
        .hint(format!("write it to /etc/credstore/{CREDENTIAL}, mode 0600, and run this as root")))
}

/// By hand it is run as root, by systemd as the service's user: the files belong to the latter either way.
pub(super) fn become_owner(settings: &Settings) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    match Directory::open(&settings.backup.directory) {
        Ok(directory) => directory.owner().assume(),
        // What is not there is told by whoever needs it; where a link of somebody else's leads is not.
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(error).at("open", &settings.backup.directory)
        }
        Err(_) => Ok(()),
    }
}
