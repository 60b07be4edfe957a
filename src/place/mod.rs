//! Where the server is that everything else works on: our own, one of Debian's clusters, a container's, or one that others run.
//!
//! [`Facts`] are gathered, [`decide`] makes a [`Place`] of them and of what is configured, and [`Place::settle`] makes it the
//! settings that the rest works with: a data directory, a socket, a unit, a user.

pub mod aside;
mod cluster;
mod container;
mod created;
mod decision;
mod exec;
mod facts;
pub mod homeserver;
pub mod image;
mod login;
pub mod setup;

use std::fmt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::Serialize;

pub use self::cluster::{Cluster, Packaging, clusters};
pub use self::container::{Container, Mounts};
pub use self::decision::decide;
pub use self::facts::{Candidate, Facts, Unasked};
pub use self::homeserver::Database;
pub use self::login::{CREDENTIAL, Password, credential_file, introduce, provide};
use crate::account::Account;
use crate::config::{Server, ServerKind, Settings};
use crate::error::{Error, Kind, Result};
use crate::postgres::{Remote, SslMode};
use crate::runtime::Host;
use crate::version::Major;

/// What puts right whom backups are made by.
pub const SETUP: &str = "matrix-postgres setup";

/// Where the server is, and why it is thought to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Place {
    /// The one of `matrix-postgres.service`, or one whose directory, socket and unit are configured.
    Own {
        /// Why.
        why: String,
    },
    /// A cluster that a package of the distribution has made, and whose server it runs.
    Debian {
        /// Which.
        cluster: Cluster,
        /// The homeserver's database and role, if it is known that they have other names than ours.
        #[serde(skip)]
        homeserver: Option<(String, Option<String>)>,
        /// Why.
        why: String,
    },
    /// One on the network, which others run.
    External {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
        /// The homeserver's database, if homeserver.yaml is what names the host.
        #[serde(skip)]
        homeserver: Option<Database>,
        /// Why.
        why: String,
    },
    /// One in a container, of a playbook for example.
    Container {
        /// Which.
        container: Container,
        /// The homeserver's database and role, if they are known.
        #[serde(skip)]
        homeserver: Option<(String, Option<String>)>,
        /// Why.
        why: String,
    },
    /// It cannot be told.
    Unknown {
        /// Why not.
        why: String,
        /// The line to write, or the command to run.
        hint: String,
    },
}

impl Place {
    /// Looks for it on this machine; `programs` are PostgreSQL's.
    ///
    /// # Errors
    /// Those of `pg_lsclusters`.
    pub fn find(settings: &Settings, programs: &Host) -> Result<Self> {
        Ok(decide(settings, &Facts::gather(Path::new("/"), settings, programs)?))
    }

    /// The settings for it. Of a cluster of a package, the package says where everything is.
    ///
    /// # Errors
    /// [`Kind::DataDirectory`] if it cannot be told.
    pub fn settle(&self, mut settings: Settings) -> Result<Settings> {
        match self {
            Self::Own { .. } => {}
            Self::Container { container, homeserver, .. } => {
                if let Some(directory) = &container.data_directory {
                    settings.data_directory.clone_from(directory);
                }
                if let Some(directory) = &container.socket_directory {
                    settings.socket_directory.clone_from(directory);
                }
                // Without a socket on this machine, only containers on its network reach it.
                let remote = container.socket_directory.is_none().then(|| Remote {
                    sslmode: SslMode::Prefer,
                    is_superuser: true,
                    ..Remote::to(&container.name)
                });
                let server = &mut settings.server;
                server.kind = server.kind.or(Some((ServerKind::Container, "what was found")));
                server.unit.clone_from(&container.unit);
                server.is_unit_named = true;
                server.user.clone_from(&container.owner);
                server.image = container.image();
                server.remote = remote;
                if let Some(superuser) = &container.superuser {
                    server.superuser.clone_from(superuser);
                }
                let made = container.database.clone().map(|database| (database, None));
                name_database(server, homeserver.clone().or(made));
            }
            Self::Debian { cluster, homeserver, .. } => {
                settings.data_directory.clone_from(&cluster.data_directory);
                settings.socket_directory.clone_from(&cluster.socket_directory);
                let server = &mut settings.server;
                server.kind = server.kind.or(Some((ServerKind::Debian, "what was found")));
                server.port = cluster.port;
                server.unit.clone_from(&cluster.unit);
                server.cluster = (cluster.packaging == Packaging::Debian).then(|| cluster.name.clone());
                // It is the package's that has the cluster, and no unit of ours.
                server.is_unit_named = true;
                server.user.clone_from(&cluster.owner);
                server.superuser.clone_from(&cluster.owner);
                name_database(server, homeserver.clone());
            }
            Self::External { host, port, homeserver, .. } => {
                let server = &mut settings.server;
                server.kind = server.kind.or(Some((ServerKind::External, "what was found")));
                server.port = *port;
                let remote = server.remote.get_or_insert_with(|| Remote::to(host));
                let its = homeserver.as_ref().and_then(|database| database.sslrootcert.clone());
                let known = remote.sslrootcert.take().or(its);
                remote.sslrootcert = known.or_else(|| Some(trusted(Path::new("/"))));
                if let Some(database) = homeserver.as_ref().filter(|_| !server.is_database_named) {
                    server.database.clone_from(&database.name);
                    if let Some(role) = &database.role {
                        server.role.clone_from(role);
                        server.superuser.clone_from(role);
                    }
                }
            }
            Self::Unknown { why, hint } => {
                return Err(Error::new(
                    Kind::DataDirectory,
                    format!("it is not known where the server is: {why}"),
                )
                .state("nothing was started, and nothing was changed")
                .hint(hint));
            }
        }
        Ok(settings)
    }

    /// The cluster of a package, if it is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Debian { cluster, .. } => Some(cluster),
            Self::Own { .. } | Self::External { .. } | Self::Container { .. } | Self::Unknown { .. } => None,
        }
    }

    /// The version of its cluster, if it is of a package or in a container, as far as we may look.
    pub fn major(&self) -> Option<Major> {
        match self {
            Self::Debian { cluster, .. } => Some(cluster.major),
            Self::Container { container, .. } => container.major,
            Self::Own { .. } | Self::External { .. } | Self::Unknown { .. } => None,
        }
    }

    /// The only user who reaches the server, if there is one: the owner of a package's cluster, or of a container's directories.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Debian { cluster, .. } => Some(&cluster.owner),
            Self::Container { container, .. } => Some(&container.owner),
            Self::Own { .. } | Self::External { .. } | Self::Unknown { .. } => None,
        }
    }

    /// That user, if this machine knows him.
    pub fn account(&self) -> Option<Account> {
        self.owner().and_then(|owner| Account::named(owner).ok().flatten())
    }

    /// Fails unless we are who reaches the server.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn require_user(&self) -> Result<()> {
        let Some(owner) = self.owner().filter(|_| !geteuid().is_root()) else { return Ok(()) };
        let user = Account::current().name;
        if user == owner {
            return Ok(());
        }
        let what = match self {
            Self::Container { container, .. } => format!("the directories of {container} are open to"),
            _ => format!(
                "the server of {} lets in",
                self.cluster().map_or_else(String::new, ToString::to_string)
            ),
        };
        Err(Error::new(Kind::Config, format!("{what} {owner}, its owner, and this runs as {user}"))
            .state("nothing was started, and nothing was changed")
            .hint(SETUP))
    }

    /// Fails for a server whose cluster cannot be exchanged by us: `verb` is what would have been done.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn require_own(&self, verb: &str) -> Result<()> {
        let name = match self {
            Self::Own { .. } | Self::Unknown { .. } => return Ok(()),
            Self::Debian { cluster, .. } => cluster.to_string(),
            Self::External { host, port, .. } => format!("the external server {host}, port {port},"),
            Self::Container { container, .. } => format!("the server in {container}"),
        };
        Err(Error::new(Kind::Config, format!("{name} {verb}"))
            .state("nothing was stopped, and nothing was changed"))
    }
}

/// The homeserver's database has the name that it is known to have, unless the configuration names it.
fn name_database(server: &mut Server, found: Option<(String, Option<String>)>) {
    let Some((database, role)) = found.filter(|_| !server.is_database_named) else { return };
    server.database = database;
    if let Some(role) = role {
        server.role = role;
    }
}

/// The certificates of the authorities that the system trusts, as Debian and Red Hat have them in a file of their own; libpq
/// knows them by itself since version 16.
fn trusted(root: &Path) -> PathBuf {
    let bundles = ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt"];
    let found = bundles.map(|file| root.join(file)).into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| "system".into())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { why } => write!(f, "our own: {why}"),
            Self::Debian { cluster, why, .. } => write!(f, "{cluster}, {}: {why}", cluster.unit),
            Self::Container { container, why, .. } => write!(f, "{container}, {}: {why}", container.unit),
            Self::External { host, port, why, .. } => write!(f, "external, {host}, port {port}: {why}"),
            Self::Unknown { why, hint } => write!(f, "not known: {why} (HINT: {hint})"),
        }
    }
}
