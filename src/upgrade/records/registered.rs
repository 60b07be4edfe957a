//! A cluster that Debian's postgresql-common has registered, and becomes one of another version: where both are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{ServerKind, Settings};

/// Its name for the file of settings.
const MAIN: &str = "postgresql.conf";

/// What a registration of the package's consists of, of the old cluster and of the new one. Both have one name, and their
/// configuration is outside of their data directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// As both are called, such as `main`.
    pub name: String,
    /// Where the new cluster is once it is in place. The old one stays where it is.
    pub data_directory: PathBuf,
    /// Where the old one's configuration is.
    pub old_configuration: PathBuf,
    /// Where the new one's is.
    pub configuration: PathBuf,
    /// The unit of the new one's server.
    pub server_unit: String,
    /// Where the sockets are.
    pub socket_directory: PathBuf,
    /// The port of the one that is in place.
    pub port: u16,
    /// The port of the old one while the new one is in place.
    pub port_aside: u16,
    /// The system user that both belong to.
    pub owner: String,
    /// The homeserver's database.
    pub database: String,
    /// Units that name that of the old server.
    pub dependents: Vec<String>,
}

impl Registered {
    /// The old one's file of settings.
    pub fn old_file(&self) -> PathBuf {
        self.old_configuration.join(MAIN)
    }

    /// The new one's.
    pub fn file(&self) -> PathBuf {
        self.configuration.join(MAIN)
    }

    /// Whether the new one's configuration is in the new cluster itself, as that of one which is thrown away.
    pub fn is_unregistered(&self, cluster: &Path) -> bool {
        self.configuration == cluster
    }

    /// Those of its paths by which root finds what it moves.
    pub(super) fn paths(&self) -> [&PathBuf; 4] {
        [&self.data_directory, &self.old_configuration, &self.configuration, &self.socket_directory]
    }

    /// The settings for the server of the one whose data directory and unit these are.
    #[must_use]
    pub(super) fn settle(&self, mut settings: Settings, (home, unit): (&Path, &str)) -> Settings {
        home.clone_into(&mut settings.data_directory);
        settings.socket_directory.clone_from(&self.socket_directory);
        let server = &mut settings.server;
        server.kind = Some((ServerKind::Debian, "the upgrade"));
        server.port = self.port;
        unit.clone_into(&mut server.unit);
        server.is_unit_named = true;
        server.user.clone_from(&self.owner);
        server.superuser.clone_from(&self.owner);
        server.database.clone_from(&self.database);
        settings
    }
}

#[cfg(test)]
pub(in crate::upgrade) mod tests {
    use super::*;
    use crate::upgrade::records::entry::tests::{entry_of, upgrade};
    use crate::upgrade::records::{Upgrade, Which};

    /// Of 15/main.
    pub(crate) fn registered() -> Upgrade {
        let old = "/var/lib/postgresql/15/main";
        Upgrade {
            data_directory: old.into(),
            beside: format!("{old}.upgrade-20261124T030000Z").into(),
            keep_path: old.into(),
            server_unit: "postgresql@15-main.service".into(),
            registered: Some(Registered {
                name: "main".into(),
                data_directory: "/var/lib/postgresql/17/main".into(),
                old_configuration: "/etc/postgresql/15/main".into(),
                configuration: "/etc/postgresql/17/main".into(),
                server_unit: "postgresql@17-main.service".into(),
                socket_directory: "/var/run/postgresql".into(),
                port: 5432,
                port_aside: 5433,
                owner: "postgres".into(),
                database: "synapse".into(),
                dependents: Vec::new(),
            }),
            ..upgrade()
        }
    }

    #[test]
    fn each_of_the_two_has_its_place_its_unit_and_its_configuration() {
        let upgrade = registered();
        assert_eq!(upgrade.home(Which::Old), Path::new("/var/lib/postgresql/15/main"));
        assert_eq!(upgrade.home(Which::New), Path::new("/var/lib/postgresql/17/main"));
        assert_eq!(upgrade.unit(Which::New), "postgresql@17-main.service");
        assert_eq!(upgrade.old_aside(), upgrade.home(Which::Old));
        let file = upgrade.configured_by(Which::New).unwrap();
        assert_eq!(file, "config_file=/etc/postgresql/17/main/postgresql.conf");
        let thrown_away = upgrade.clone().thrown_away("/d/x".into());
        assert_eq!(thrown_away.configured_by(Which::New).unwrap(), "config_file=/d/x/postgresql.conf");
        assert!(thrown_away.registered.unwrap().is_unregistered(Path::new("/d/x")));
        // The journal has all of it.
        let entry = entry_of(upgrade);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<crate::upgrade::records::Entry>(&json).unwrap(), entry);
        entry.names_only_its_own().unwrap();
        let mut forged = entry;
        forged.upgrade.registered.as_mut().unwrap().configuration = "/etc/postgresql/../shadow".into();
        assert!(forged.names_only_its_own().is_err());
    }
}
