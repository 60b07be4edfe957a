//! Sessions of one kind together, and which units are stopped for them: what is not stopped loses its connection.

use std::collections::{BTreeMap, BTreeSet};

use super::origins::Origin;
use super::sessions::Session;
use super::sockets::{Clients, Server};
use crate::error::{Error, Kind, Result};
use crate::systemd::{Manager, Unit};

/// Sessions of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// `role@database (application)`
    pub who: String,
    /// Where their clients are: one place, or several behind one proxy; nothing if that cannot be found out.
    pub origins: BTreeSet<Origin>,
    /// How many.
    pub count: usize,
}

impl Connected {
    /// Who it is, how many, and from where, in a sentence's part.
    pub fn describe(&self) -> String {
        let Self { who, origins, count } = self;
        let from: Vec<_> = origins.iter().map(ToString::to_string).collect();
        let from = match from.is_empty() {
            true => String::new(),
            false => format!(", from {}", from.join(" or ")),
        };
        format!("{who}, sessions: {count}{from}")
    }

    /// Whether these are sessions of this program, which is in the unit `own`.
    pub(super) fn is_ours(&self, own: Option<&str>) -> bool {
        let is_own = |origin: &Origin| matches!(origin, Origin::Unit(unit) if Some(unit.as_str()) == own);
        self.who.ends_with("(matrix-postgres)") && self.origins.iter().all(is_own)
    }

    /// Whether all of its clients are in units of `stopped`, or in the server's own.
    pub fn is_stopped(&self, stopped: &[String], server: &str) -> bool {
        let is_so = |origin: &Origin| matches!(origin, Origin::Unit(unit) if stopped.contains(unit) || unit == server);
        !self.origins.is_empty() && self.origins.iter().all(is_so)
    }
}

/// A sentence for each kind of sessions that only end with the server.
pub fn disconnected(connected: &[Connected], stopped: &[String], server: &str) -> Vec<String> {
    let left = connected.iter().filter(|connected| !connected.is_stopped(stopped, server));
    left.map(|connected| format!("will be disconnected: {}", connected.describe())).collect()
}

/// Those of one kind together, the most numerous first; `origin` tells that of the processes that have one end of a connection.
///
/// # Errors
/// [`Kind::Program`] if none is found of all those that must be there.
pub(super) fn connected(
    sessions: &[Session],
    server: &Server,
    clients: &Clients,
    origin: impl Fn(&[u32]) -> Option<Origin>,
) -> Result<Vec<Connected>> {
    let is_here = |session: &&Session| session.is_local() && !server.is_away();
    let mut local = sessions.iter().filter(is_here).peekable();
    if local.peek().is_some() && local.all(|session| clients.ends_of(session, server).is_empty()) {
        let message = "none of the server's sessions was found among the connections of this machine";
        return Err(Error::new(Kind::Program, message));
    }
    let mut counts: BTreeMap<(String, BTreeSet<Origin>), usize> = BTreeMap::new();
    for session in sessions {
        let ends = clients.ends_of(session, server);
        let mut origins: BTreeSet<_> = ends.iter().filter_map(|pids| origin(pids)).collect();
        if ends.is_empty() {
            let elsewhere = session.address.filter(|_| !session.is_local());
            origins.extend(elsewhere.map(|address| Origin::Address(address.to_canonical())));
        }
        *counts.entry((session.who.clone(), origins)).or_default() += 1;
    }
    let mut connected: Vec<_> =
        counts.into_iter().map(|((who, origins), count)| Connected { who, origins, count }).collect();
    connected.sort_by_key(|connected| std::cmp::Reverse(connected.count));
    Ok(connected)
}

/// Units in which there are processes of others: people who are logged in, jobs, containers. Also servers of PostgreSQL, which may be
/// connected to each other. Their end would be that of much else. By what their names begin with, before `@` and the dot.
const HOSTS: [&str; 26] = [
    "anacron",
    "atd",
    "autovt",
    "console-getty",
    "container-getty",
    "containerd",
    "cron",
    "crond",
    "cronie",
    "dbus",
    "dbus-broker",
    "docker",
    "getty",
    "incus",
    "k3s",
    "kubelet",
    "libvirtd",
    "lxc",
    "lxd",
    "podman",
    "polkit",
    "postgresql",
    "serial-getty",
    "ssh",
    "sshd",
    "user",
];

/// Where systemd has the files of units that are gone once they are stopped.
const TRANSIENT: &str = "/run/systemd/transient";

/// The units of clients that can be stopped, and started again as they were. Never one of `servers`, nor ours.
///
/// # Errors
/// If systemd cannot be asked.
pub fn to_stop(manager: &Manager, connected: &[Connected], servers: &[&str]) -> Result<Vec<String>> {
    let mut units = BTreeSet::new();
    for origin in connected.iter().flat_map(|connected| &connected.origins) {
        let Origin::Unit(name) = origin else { continue };
        if is_client(name, servers) && comes_back(&manager.unit(name)?) {
            units.insert(name.clone());
        }
    }
    if let Some(own) = manager.unit_of(0)? {
        units.remove(&own);
    }
    Ok(units.into_iter().collect())
}

fn is_client(name: &str, servers: &[&str]) -> bool {
    let stem = name.split(['@', '.']).next().unwrap_or_default();
    let is_host = HOSTS.contains(&stem) || stem.starts_with("systemd-");
    name.ends_with(".service") && !is_host && !name.starts_with("matrix-postgres") && !servers.contains(&name)
}

fn comes_back(unit: &Unit) -> bool {
    unit.exists() && unit.fragment_path.as_ref().is_some_and(|file| !file.starts_with(TRANSIENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::sockets::tests::clients;

    fn session(backend: u32, address: Option<&str>, port: Option<u16>) -> Session {
        Session {
            who: "x".into(),
            database: None,
            backend,
            address: address.map(|text| text.parse().unwrap()),
            port,
        }
    }

    fn unit(name: &str) -> Origin {
        Origin::Unit(name.to_owned())
    }

    #[test]
    fn a_list_in_which_nobody_is_found_is_no_list() {
        let (none, server) = (Clients::default(), Server::default());
        let origin = |_: &[u32]| Some(unit("x.service"));
        assert_eq!(connected(&[], &server, &none, origin).unwrap(), []);
        let remote = session(1, Some("192.0.2.1"), Some(40000));
        let found = connected(std::slice::from_ref(&remote), &server, &none, origin).unwrap();
        assert_eq!(found[0].describe(), "x, sessions: 1, from 192.0.2.1");
        for local in [session(1, None, None), session(1, Some("127.0.0.1"), Some(40000))] {
            assert!(connected(&[local.clone(), remote.clone()], &server, &none, origin).is_err());
            // What is local to another machine is not to be found here.
            let away = connected(&[local], &Server::AWAY, &none, origin).unwrap();
            assert_eq!(away[0].describe(), "x, sessions: 1");
        }
    }

    #[test]
    fn sessions_of_one_unit_are_one_entry_with_their_number() {
        let text = "server 2 1 7\nunix 1 2 8 9\ntcp 127.0.0.1:40000 127.0.0.1:5432 9";
        let sessions =
            [session(7, None, None), session(77, Some("127.0.0.1"), Some(40000)), session(78, None, None)];
        let origin = |pids: &[u32]| pids.contains(&9).then(|| unit("b.service"));
        let found = connected(&sessions, &Server::default(), &clients(text), origin).unwrap();
        let described: Vec<_> = found.iter().map(Connected::describe).collect();
        assert_eq!(described, ["x, sessions: 2, from b.service", "x, sessions: 1"]);
        let left = disconnected(&found, &["b.service".to_owned()], "server.service");
        assert_eq!(left, ["will be disconnected: x, sessions: 1"]);
    }

    #[test]
    fn what_people_and_jobs_run_in_is_no_client() {
        for name in ["grafana.service", "bridge@one.service", "user-portal.service", "pgbouncer.service"] {
            assert!(is_client(name, &["db.service"]), "{name}");
        }
        for name in [
            "db.service",
            "session-3.scope",
            "user@0.service",
            "ssh.service",
            "getty@tty1.service",
            "docker.service",
            "systemd-nspawn@x.service",
            "postgresql@17-main.service",
            "matrix-postgres-backup.service",
        ] {
            assert!(!is_client(name, &["db.service"]), "{name}");
        }
    }
}
