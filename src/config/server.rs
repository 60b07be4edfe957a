//! `[server]`: where the server is, and what the one is like that `matrix-postgres.service` runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::remote::remote;
use super::value::{contradiction, duration, name, refused};
use crate::error::Result;
use crate::postgres::Remote;
use crate::runtime::Image;
use crate::version::Major;

/// The `[server]` table.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct ServerFragment {
    pub kind: Option<ServerKind>,
    pub cluster: Option<String>,
    pub version: Option<u16>,
    pub listen: Option<Vec<String>>,
    pub port: Option<u16>,
    pub host: Option<String>,
    pub sslmode: Option<String>,
    pub sslrootcert: Option<String>,
    pub passfile: Option<String>,
    pub user: Option<String>,
    pub superuser: Option<String>,
    pub database: Option<String>,
    pub role: Option<String>,
    pub unit: Option<String>,
    pub start_timeout: Option<String>,
}

/// Whose the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// That of `matrix-postgres.service`, or one whose data directory, socket and unit the configuration names.
    Own,
    /// One of Debian's clusters, which `pg_lsclusters` lists.
    Debian,
    /// One in a container.
    Container,
    /// One that is reached over the network, and that others run.
    External,
}

impl std::fmt::Display for ServerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Debian => "debian",
            Self::Container => "container",
            Self::External => "external",
        })
    }
}

/// `[server]`: where the server is, and what the one is like that `matrix-postgres.service` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `kind`: whose it is, and the key that says so: another one may leave no choice. Default: what is found.
    pub kind: Option<(ServerKind, &'static str)>,
    /// `cluster`: which of Debian's clusters, such as `15/main`. Default: the only one.
    pub cluster: Option<String>,
    /// `version`: major version of a cluster that is yet to be initialised. Default: the newest installed.
    /// An existing cluster always keeps its own.
    pub version: Option<Major>,
    /// `host`, `sslmode`, `sslrootcert` and `passfile`: a server on the network, and how it is reached. Default: none.
    pub remote: Option<Remote>,
    /// `listen`: addresses for TCP, as in PostgreSQL's `listen_addresses`. Default: none, the socket only.
    pub listen: Vec<String>,
    /// `port`: of the socket's name and of TCP. Default 5432.
    pub port: u16,
    /// `user`: the system user that owns a new data directory. Default `matrix-postgres`.
    pub user: String,
    /// `superuser`: the role we log in as. Default `postgres`.
    pub superuser: String,
    /// `database`: created at the first start, and what `matrix-postgres-cli` opens. Default `homeserver`.
    pub database: String,
    /// Whether the configuration names it.
    pub is_database_named: bool,
    /// `role`: owner of that database, for Synapse. Default `synapse`.
    pub role: String,
    /// `unit`: the server's unit. Default `matrix-postgres.service`.
    pub unit: String,
    /// Whether the configuration names it: then it is touched whatever file it is defined by.
    pub is_unit_named: bool,
    /// `start_timeout`: how long the unit may take to start or stop. Default 10 minutes.
    pub start_timeout: Duration,
    /// What the server's container is made of, once that is found.
    pub image: Option<Image>,
}

impl ServerFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(self, other; kind, cluster, version, listen, port, host, sslmode, sslrootcert, passfile, user, superuser, database, role, unit, start_timeout)
    }
}

impl Server {
    /// The unit of a server in a container, which may have the name of the package's own: it is meant to be another.
    pub fn adopted(&self) -> Option<&str> {
        self.kind.filter(|(kind, _)| *kind == ServerKind::Container).map(|_| self.unit.as_str())
    }

    /// `places` are the keys outside of this table that say where a server is, each with whether it is set.
    pub(super) fn from_fragment(input: ServerFragment, places: [(&'static str, bool); 2]) -> Result<Self> {
        let cluster = cluster(input.cluster.as_deref())?;
        let remote =
            remote([&input.host, &input.sslmode, &input.sslrootcert, &input.passfile].map(Option::as_deref))?;
        Ok(Self {
            kind: kind(&input, cluster.is_some(), places)?,
            cluster,
            remote,
            version: input.version.map(Major),
            listen: input.listen.unwrap_or_default(),
            port: input.port.unwrap_or(5432),
            user: user(name("server.user", input.user, "matrix-postgres")?)?,
            superuser: name("server.superuser", input.superuser, "postgres")?,
            is_database_named: input.database.is_some(),
            database: name("server.database", input.database, "homeserver")?,
            role: name("server.role", input.role, "synapse")?,
            is_unit_named: input.unit.is_some(),
            unit: name("server.unit", input.unit, "matrix-postgres.service")?,
            start_timeout: duration("server.start_timeout", input.start_timeout.as_deref(), "10m")?,
            image: None,
        })
    }
}

/// PostgreSQL does not run as root, and backups are not made as root.
fn user(name: String) -> Result<String> {
    match name == "root" {
        true => Err(refused("server.user", &name, "a user that is not root")),
        false => Ok(name),
    }
}

/// A version and a name, as `pg_lsclusters` lists them; an empty text is none.
fn cluster(text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let is_one = text.split_once('/').is_some_and(|(version, name)| {
        let in_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        version.parse::<u16>().is_ok() && !name.is_empty() && name.bytes().all(in_name)
    });
    match is_one {
        true => Ok(Some(text.to_owned())),
        false => Err(refused("server.cluster", text, "a version and a name, such as 15/main")),
    }
}

/// What says that the server is one on the network.
fn external(input: &ServerFragment) -> Option<&'static str> {
    if input.kind == Some(ServerKind::External) {
        return Some("server.kind is \"external\"");
    }
    input.host.as_ref().filter(|host| !host.is_empty()).map(|_| "server.host is set")
}

fn external_kind(
    input: &ServerFragment,
    said: &str,
    others: impl Iterator<Item = (&'static str, bool)>,
) -> Result<Option<(ServerKind, &'static str)>> {
    let with_others = others.into_iter().find(|(_, is_set)| *is_set);
    match (input.kind, &input.host, &input.user) {
        (Some(other), ..) if other != ServerKind::External => Err(contradiction(
            &format!("{said}, and server.kind is {:?}", other.to_string()),
            "remove server.host, or say server.kind = \"external\"",
        )),
        (_, None, _) => {
            Err(contradiction(&format!("{said}, and server.host is not set"), "set server.host to its host"))
        }
        // Which user somebody means who knows libpq's keys.
        (_, _, Some(user)) => Err(contradiction(
            &format!("{said}, and so is server.user, which is the system user of a server of this machine"),
            &format!("remove server.user; the role to log in as is server.superuser = {user:?}"),
        )),
        _ => match with_others {
            Some((key, _)) => Err(contradiction(
                &format!("{said}, and so is {key}, which is about a server of this machine"),
                &format!("remove {key}, or server.host and server.kind"),
            )),
            None if input.kind.is_some() => Ok(Some((ServerKind::External, "server.kind"))),
            None => Ok(Some((ServerKind::External, "server.host"))),
        },
    }
}

/// Whose the server is, as far as it is written: who says where its socket is leaves no choice.
fn kind(
    input: &ServerFragment,
    names_cluster: bool,
    places: [(&'static str, bool); 2],
) -> Result<Option<(ServerKind, &'static str)>> {
    let [data_directory, socket_directory] = places;
    if let Some(said) = external(input) {
        let own = [data_directory, socket_directory, ("server.unit", input.unit.is_some())];
        let of_others = [("server.cluster", names_cluster), ("server.listen", input.listen.is_some())];
        return external_kind(input, said, own.into_iter().chain(of_others));
    }
    let own = [("server.port", input.port.is_some()), ("server.unit", input.unit.is_some())];
    let own = [socket_directory].into_iter().chain(own);
    let debians = (input.kind == Some(ServerKind::Debian)).then_some("server.kind is \"debian\"");
    let debians = debians.or(names_cluster.then_some("server.cluster is set"));
    match (input.kind, debians) {
        (Some(other), Some(said)) if other != ServerKind::Debian => Err(contradiction(
            &format!("{said}, and server.kind is {:?}", other.to_string()),
            "only Debian's clusters have such a name: remove server.cluster, or say server.kind = \"debian\"",
        )),
        (_, Some(said)) => match own.chain([data_directory]).find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(contradiction(
                &format!("{said}, and so is {key}, which Debian's own configuration of the cluster says"),
                &format!("remove {key}, or say server.kind = \"own\""),
            )),
            None if input.kind.is_some() => Ok(Some((ServerKind::Debian, "server.kind"))),
            None => Ok(Some((ServerKind::Debian, "server.cluster"))),
        },
        (Some(kind), None) => Ok(Some((kind, "server.kind"))),
        (None, None) => {
            let key = own.into_iter().find(|(_, is_set)| *is_set);
            Ok(key.map(|(key, _)| (ServerKind::Own, key)))
        }
    }
}
