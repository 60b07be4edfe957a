//! Who is connected to the server, and which unit each belongs to: what nobody stops loses its connection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::runtime::{bare, output, tool};
use crate::systemd::Manager;

/// A session as the server sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `role@database (application)`
    pub who: String,
    /// The process that serves it.
    pub backend: u32,
    /// The client's port; nothing if it comes by the Unix socket.
    pub port: Option<u16>,
}

/// Sessions of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// `role@database (application)`
    pub who: String,
    /// The unit that the client belongs to, if that can be found out.
    pub unit: Option<String>,
    /// How many.
    pub count: usize,
}

/// Finds the units of these sessions' clients. Where ss(8) is not installed, none is found.
///
/// # Errors
/// If systemd cannot be asked.
pub fn connected(sessions: &[Session], manager: &Manager) -> Result<Vec<Connected>> {
    let clients = match tool("ss", "iproute2") {
        Ok(program) => {
            let mut command = bare(&program);
            command.args(["--unix", "--tcp", "--processes", "--numeric", "--no-header"]);
            Clients::parse(&String::from_utf8_lossy(&output(command, "ss", &[])?))
        }
        Err(_) => Clients::default(),
    };
    let mut counts: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    for session in sessions {
        // Who has gone meanwhile belongs to no unit.
        let unit = clients.process(session).and_then(|pid| manager.unit_of(pid).ok().flatten());
        *counts.entry((session.who.clone(), unit)).or_default() += 1;
    }
    let mut connected: Vec<_> =
        counts.into_iter().map(|((who, unit), count)| Connected { who, unit, count }).collect();
    connected.sort_by_key(|connected| std::cmp::Reverse(connected.count));
    Ok(connected)
}

/// Both ends of the connections of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Clients {
    /// Of a process that serves a Unix socket: the numbers of the sockets at the other ends.
    peers: BTreeMap<u32, Vec<u64>>,
    /// Whose Unix socket it is, by its number.
    sockets: BTreeMap<u64, u32>,
    /// Whose TCP port it is.
    ports: BTreeMap<u16, u32>,
}

impl Clients {
    /// Takes apart what ss prints: kind, state, two lengths of queues, the two ends, and who has the first of them.
    fn parse(text: &str) -> Self {
        let mut clients = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let Some(pid) =
                line.split_once("pid=").and_then(|(_, rest)| rest.split(',').next()?.parse().ok())
            else {
                continue;
            };
            match words.as_slice() {
                // Path (or *), number, then the same of the other end.
                ["u_str", _, _, _, _, number, _, peer, ..] => {
                    if let (Ok(number), Ok(peer)) = (number.parse(), peer.parse()) {
                        clients.sockets.insert(number, pid);
                        clients.peers.entry(pid).or_default().push(peer);
                    }
                }
                ["tcp", _, _, _, local, ..] => {
                    if let Some(port) = local.rsplit(':').next().and_then(|port| port.parse().ok()) {
                        clients.ports.insert(port, pid);
                    }
                }
                _ => {}
            }
        }
        clients
    }

    /// The client's process.
    fn process(&self, session: &Session) -> Option<u32> {
        if let Some(port) = session.port {
            return self.ports.get(&port).copied();
        }
        let peers = self.peers.get(&session.backend)?;
        // Other sockets of a backend lead to the server itself.
        peers.iter().filter_map(|peer| self.sockets.get(peer)).find(|pid| **pid != session.backend).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SS: &str = "\
u_seq ESTAB 0      0                                  * 49902  * 0      users:((\"systemd-nspawn\",pid=25854,fd=14))
u_str ESTAB 0      0   /run/matrix-postgres/.s.PGSQL.5432 20871 * 20870 users:((\"postgres\",pid=777,fd=9))
u_str ESTAB 0      0                                  * 20870 * 20871 users:((\"python\",pid=888,fd=12))
u_str ESTAB 0      0                                  * 1058  * 1057
tcp   ESTAB 0      0                   127.0.0.1:5432    127.0.0.1:40000 users:((\"postgres\",pid=778,fd=9))
tcp   ESTAB 0      0                   127.0.0.1:40000   127.0.0.1:5432  users:((\"mautrix-signal\",pid=999,fd=7))
";

    #[test]
    fn the_other_end_of_a_session_is_found() {
        let clients = Clients::parse(SS);
        let session = |backend, port| Session { who: "x".into(), backend, port };
        assert_eq!(clients.process(&session(777, None)), Some(888));
        assert_eq!(clients.process(&session(778, Some(40000))), Some(999));
        assert_eq!(clients.process(&session(779, None)), None);
        assert_eq!(clients.process(&session(779, Some(1))), None);
    }
}
