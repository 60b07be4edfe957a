//! Which units are ours. Another file of the same name may shadow the package's: that of an administrator's playbook is called
//! `/etc/systemd/system/matrix-postgres.service`, too. What that runs is nobody's but theirs.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::manager::Manager;
use super::unit::Unit;
use crate::error::{Error, Kind, Result};

/// The package's, as far as something is started or stopped by their names.
const UNITS: [&str; 6] = [
    "matrix-postgres.service",
    "matrix-postgres-backup.service",
    "matrix-postgres-backup-verify.service",
    "matrix-postgres-backup-offsite.service",
    "matrix-postgres-upgrade.service",
    "matrix-postgres-recover.service",
];

/// A unit of ours that another file of the same name shadows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// Its name.
    pub unit: String,
    /// The other file.
    pub file: PathBuf,
}

impl fmt::Display for Shadowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, file } = self;
        write!(f, "{unit} is overridden by {}, which is not part of matrix-postgres", file.display())
    }
}

impl Shadowed {
    /// What to do about it.
    pub fn hint(&self) -> String {
        format!("systemctl cat {} shows it; disable or remove what installed it", self.unit)
    }
}

impl Unit {
    /// Whether it is defined by a file of packages.
    pub fn is_packaged(&self) -> bool {
        self.fragment_path.as_deref().is_some_and(is_packaged)
    }

    /// The file that shadows the package's, if this is a unit of ours that is not defined by that.
    fn shadow(&self) -> Option<&Path> {
        // Of one that is masked there is no other one.
        let file = self.fragment_path.as_deref().filter(|_| self.load_state != "masked")?;
        (!is_packaged(file)).then_some(file)
    }
}

fn is_packaged(file: &Path) -> bool {
    file.starts_with("/usr/lib/systemd") || file.starts_with("/lib/systemd")
}

/// Those of our units that are shadowed, but for one that is meant to be; none where systemd cannot be asked.
pub fn shadowed(adopted: Option<&str>) -> Vec<Shadowed> {
    Manager::connect().and_then(|manager| manager.shadowed(adopted)).unwrap_or_else(|error| {
        log::debug!("{}", error.report());
        Vec::new()
    })
}

impl Manager {
    /// The units of ours that are shadowed, but for the one that is `adopted`.
    ///
    /// # Errors
    /// As [`Manager::unit`].
    pub fn shadowed(&self, adopted: Option<&str>) -> Result<Vec<Shadowed>> {
        let mut shadowed = Vec::new();
        for name in UNITS.into_iter().filter(|name| adopted != Some(name)) {
            let unit = self.unit(name)?;
            shadowed
                .extend(unit.shadow().map(|file| Shadowed { unit: name.to_owned(), file: file.to_owned() }));
        }
        Ok(shadowed)
    }

    /// Makes sure that a unit is one to be started and stopped: the package's own, or one that the configuration names, which
    /// `is_named` says.
    ///
    /// # Errors
    /// [`Kind::UnitRefused`] naming its file; others as [`Manager::unit`].
    pub fn require_ours(&self, name: &str, is_named: bool) -> Result<Unit> {
        let unit = self.unit(name)?;
        match unit.shadow().filter(|_| !is_named) {
            None => Ok(unit),
            Some(file) => Err(Error::new(
                Kind::UnitRefused,
                format!("{name} is {}, which is not part of matrix-postgres: it is neither started nor stopped", file.display()),
            )
            .hint(format!(
                "systemctl cat {name} shows it; server.unit in /etc/matrix-postgres/config.toml names the server's unit"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packages_own_files_are_ours() {
        for (file, ours) in [
            ("/usr/lib/systemd/system/matrix-postgres.service", true),
            ("/lib/systemd/system/matrix-postgres.service", true),
            ("/etc/systemd/system/matrix-postgres.service", false),
            // As of a container file of podman's.
            ("/run/systemd/generator/matrix-postgres.service", false),
        ] {
            assert_eq!(is_packaged(Path::new(file)), ours, "{file}");
        }
    }
}
