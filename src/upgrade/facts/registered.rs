//! What there is of a cluster of Debian's, and where the new one will be.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::space::Room;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::files::{self, exists};
use crate::place::{Cluster, clusters};
use crate::postgres::Major;
use crate::systemd::Manager;
use crate::upgrade::records::Registered;

/// The first port of PostgreSQL's.
const FIRST: u16 = 5432;

/// What it will be, and what is in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What it will be.
    pub registered: Registered,
    /// What bears the name of the new one already.
    pub taken: Vec<PathBuf>,
}

/// Looks for the registration of the cluster that the settings are of, if Debian's package has it, in an upgrade to `target`.
///
/// # Errors
/// Those of `pg_lsclusters`; [`Kind::Config`] for a name that is none of its.
pub(super) fn look(settings: &Settings, from: Major, target: Option<Major>) -> Result<Option<Registration>> {
    let (Some(name), Some(to)) = (&settings.server.cluster, target) else { return Ok(None) };
    let Some((_, short)) = name.split_once('/') else {
        let message = format!("{name:?} is not the name of one of Debian's clusters");
        return Err(Error::new(Kind::Config, message));
    };
    let new = format!("{to}/{short}");
    let old = &settings.data_directory;
    let data_directory =
        place(old, from, to, |path| Ok(Room::of(path)?.device == Room::of(files::parent(old))?.device))?;
    let configuration = Cluster::configuration(&new);
    let taken = [configuration.clone(), data_directory.clone()].into_iter().filter(|path| exists(path));
    let server = &settings.server;
    Ok(Some(Registration {
        taken: taken.collect(),
        registered: Registered {
            name: short.to_owned(),
            data_directory,
            old_configuration: Cluster::configuration(name),
            configuration,
            server_unit: Cluster::unit_of(&new),
            socket_directory: settings.socket_directory.clone(),
            port: server.port,
            port_aside: free_port(&settings.socket_directory)?,
            owner: server.user.clone(),
            database: server.database.clone(),
            // Without systemd there is no upgrade.
            dependents: Manager::connect()
                .and_then(|manager| named_by(&manager, &server.unit))
                .unwrap_or_default(),
        },
    }))
}

/// Where the new data directory will be: where the old one is, with the other version in its path if it has one. It is made
/// beside the old one, and must be renamed from there: `is_near` says whether it can be.
fn place(old: &Path, from: Major, to: Major, is_near: impl Fn(&Path) -> Result<bool>) -> Result<PathBuf> {
    let version = OsString::from(from.to_string());
    let parts: Vec<_> = old.components().collect();
    if let Some(at) = parts.iter().rposition(|part| part.as_os_str() == version) {
        let (before, after) = (&parts[..at], &parts[at + 1..]);
        let version = to.to_string();
        let of = |parts: &[Component<'_>]| parts.iter().collect::<PathBuf>();
        let new = of(before).join(version).join(of(after));
        if !after.is_empty() && is_near(files::parent(&new))? {
            return Ok(new);
        }
    }
    let mut new = old.as_os_str().to_owned();
    new.push(format!("-{to}"));
    Ok(new.into())
}

/// The next one that no cluster has, and that no server has a socket of. As pg_createcluster(1) takes one.
fn free_port(sockets: &Path) -> Result<u16> {
    let taken: BTreeSet<_> = clusters(Path::new("/"))?.into_iter().map(|cluster| cluster.port).collect();
    let is_free = |port: &u16| !taken.contains(port) && !exists(&sockets.join(format!(".s.PGSQL.{port}")));
    (FIRST..u16::MAX).find(is_free).ok_or_else(|| Error::new(Kind::Config, "there is no free port"))
}

/// Units that name the unit of the server, other than the package's own and ours.
fn named_by(manager: &Manager, unit: &str) -> Result<Vec<String>> {
    let mut names = manager.named_by(unit)?;
    let is_other = |name: &String| {
        name != "postgresql.service"
            && !name.starts_with("matrix-postgres")
            && !["shutdown.target", "multi-user.target", "umount.target"].contains(&name.as_str())
    };
    names.retain(is_other);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_one_is_where_the_old_one_is() {
        let place = |old: &str, is_near| {
            place(Path::new(old), Major(15), Major(17), |_| Ok(is_near)).unwrap().display().to_string()
        };
        assert_eq!(place("/var/lib/postgresql/15/main", true), "/var/lib/postgresql/17/main");
        assert_eq!(place("/srv/15/pg/15/main", true), "/srv/15/pg/17/main");
        assert_eq!(place("/var/lib/postgresql/15/main", false), "/var/lib/postgresql/15/main-17");
        assert_eq!(place("/srv/postgres", true), "/srv/postgres-17");
        assert_eq!(place("/srv/15", true), "/srv/15-17");
    }
}
