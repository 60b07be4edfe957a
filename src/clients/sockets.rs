//! Both ends of this machine's connections: which processes are behind a session.
//!
//! An upgrade's unit sees neither the machine's network nor other users' processes, so that [`look`] is what a unit of its own
//! does, with the machine's view and no rights but those to look. It prints what [`ask`] reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::diag::{self, Place};
use super::sessions::Session;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::ControlGroup;
use crate::runtime::from_outside;

/// The verb that [`ask`] has carried out, see [`look`].
pub const VERB: &str = "connections";

/// The sockets of all processes of this machine, whoever asks.
///
/// # Errors
/// [`Kind::Program`], [`Kind::NotInstalled`]: nothing is known then.
pub(super) fn ask() -> Result<Clients> {
    let said = from_outside(vec![VERB.into()], &RIGHTS, "the look at the machine's connections")?;
    let seen: Vec<Network> = serde_json::from_slice(&said)
        .map_err(|error| Error::new(Kind::Bug, "what was seen cannot be read").because(error))?;
    Ok(Clients::of(seen))
}

/// No rights but those to look.
const RIGHTS: [&str; 3] = [
    "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_ADMIN",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
];

/// The connections of one network.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// By Unix sockets.
    unix: Vec<Socket>,
    /// By TCP.
    tcp: Vec<End>,
}

/// A Unix socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Socket {
    /// Its number, and that of the other end.
    number: u64,
    peer: u64,
    /// Whether it has such a name as PostgreSQL gives.
    is_servers: bool,
    /// Who has it.
    pids: Vec<u32>,
}

/// What there is to see from here: the connections of this machine's network, and of all others.
///
/// A connection by a Unix socket belongs, at both ends, to the network of whoever has connected: such as that of a unit with
/// `PrivateNetwork=`. One by TCP has its client's end in that of the container that the client is in.
///
/// # Errors
/// [`Kind::Program`], [`Kind::File`].
pub fn look() -> Result<Vec<Network>> {
    let proc = Path::new("/proc");
    let mut lists = vec![diag::list().map_err(|errno| not_listed(errno.into()))?];
    for pid in networks(proc)? {
        match list_of(&proc.join(pid.to_string())) {
            Ok(list) => lists.push(list),
            // It has ended meanwhile, and so have its connections.
            Err(error) => log::debug!("{}", not_listed(error).report()),
        }
    }
    let holders = holders(proc)?;
    let pids = |number: u64| holders.get(&number).cloned().unwrap_or_default();
    let network = |(network, (unix, tcp)): (usize, (Vec<diag::Unix>, Vec<diag::Tcp>))| Network {
        unix: unix
            .into_iter()
            .map(|diag::Unix { number, peer, is_servers }| Socket {
                number,
                peer,
                is_servers,
                pids: pids(number),
            })
            .collect(),
        tcp: tcp
            .into_iter()
            .map(|diag::Tcp { number, local, peer }| {
                let pids = pids(number);
                let is_proxy = pids.iter().any(|pid| is_proxy(&proc.join(pid.to_string())));
                End { network, local, peer, pids, is_proxy }
            })
            .collect(),
    };
    Ok(lists.into_iter().enumerate().map(network).collect())
}

fn not_listed(error: std::io::Error) -> Error {
    Error::new(Kind::Program, "the kernel does not list the connections of a network (sock_diag)")
        .because(error)
}

/// The connections of the network that a process is in.
fn list_of(process: &Path) -> std::io::Result<(Vec<diag::Unix>, Vec<diag::Tcp>)> {
    let network = File::open(process.join("ns/net"))?;
    // A thread goes there, and does not come back.
    std::thread::scope(|scope| {
        let list = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            diag::list()
        };
        scope.spawn(list).join().unwrap_or(Err(rustix::io::Errno::SRCH))
    })
    .map_err(Into::into)
}

/// The processes that there are now, and where they are in the process file system.
fn processes(proc: &Path) -> Result<impl Iterator<Item = (u32, PathBuf)>> {
    let entries = std::fs::read_dir(proc).at("read", proc)?.flatten();
    Ok(entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))))
}

/// Which processes have which sockets, by the sockets' numbers.
fn holders(proc: &Path) -> Result<BTreeMap<u64, Vec<u32>>> {
    let mut holders: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (pid, process) in processes(proc)? {
        let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let numbers: BTreeSet<u64> = open.filter_map(|file| socket(&file.path())).collect();
        for number in numbers {
            holders.entry(number).or_default().push(pid);
        }
    }
    Ok(holders)
}

/// The number of the socket that this is, such as `socket:[4711]`.
fn socket(descriptor: &Path) -> Option<u64> {
    let target = std::fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether a process passes on what others say to a port that a container publishes. Anybody may call a process so; the programs of
/// docker and podman are root's, and in no container.
fn is_proxy(process: &Path) -> bool {
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let is_roots = value("Uid:").split_whitespace().eq(["0"; 4]);
    let is_named = PROXIES.contains(&value("Name:").trim());
    is_named && is_roots && ControlGroup::of(process).is_some_and(|group| group.container().is_none())
}

/// A process of each network but ours.
fn networks(proc: &Path) -> Result<Vec<u32>> {
    let network = |process: &Path| std::fs::read_link(process.join("ns/net")).ok();
    let mut known: BTreeSet<_> = network(&proc.join("self")).into_iter().collect();
    let mut found = Vec::new();
    for (pid, process) in processes(proc)? {
        if network(&process).is_some_and(|network| known.insert(network)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The server whose sessions are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    is_away: bool,
    /// In a container: the processes there by their numbers in it, and by those on this machine.
    inside: BTreeMap<u32, u32>,
}

impl Server {
    /// On another machine.
    pub(super) const AWAY: Self = Self { is_away: true, inside: BTreeMap::new() };

    /// On this machine; `pid` is a process of one in a container.
    pub(super) fn near(pid: Option<i32>, proc: &Path) -> Self {
        Self { is_away: false, inside: pid.map(|pid| inside(pid, proc)).unwrap_or_default() }
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    /// The number on this machine of the process that serves a session.
    fn backend(&self, session: &Session) -> u32 {
        self.inside.get(&session.backend).copied().unwrap_or(session.backend)
    }
}

/// All processes in the container of this one: by their last number and by their first, see `NSpid` in proc_pid_status(5).
fn inside(pid: i32, proc: &Path) -> BTreeMap<u32, u32> {
    let container = |process: &Path| ControlGroup::of(process)?.container().map(|(_, id)| id.to_owned());
    let numbers = |process: &Path| -> Option<(u32, u32)> {
        let text = std::fs::read_to_string(process.join("status")).ok()?;
        let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let mut numbers = numbers.split_whitespace();
        let here = numbers.next()?.parse().ok()?;
        Some((numbers.last()?.parse().ok()?, here))
    };
    let Some(id) = container(&proc.join(pid.to_string())) else { return BTreeMap::new() };
    let processes = std::fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    processes
        .filter(|process| container(process).as_ref() == Some(&id))
        .filter_map(|it| numbers(&it))
        .collect()
}

/// One end of a TCP connection.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// In which of the networks; this machine's is the first.
    network: usize,
    /// Where it is.
    local: Place,
    /// The other end.
    peer: Place,
    /// Who has it.
    pids: Vec<u32>,
    /// Whether that passes on what others say to a port that a container publishes.
    is_proxy: bool,
}

/// Programs that do so.
const PROXIES: [&str; 2] = ["docker-proxy", "rootlessport"];

/// Both ends of the connections of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Clients {
    /// Of a process that serves a socket of PostgreSQL's: the numbers of the sockets at the other ends.
    peers: BTreeMap<u32, Vec<u64>>,
    /// Whose Unix socket it is, by its number.
    sockets: BTreeMap<u64, Vec<u32>>,
    /// The ends of TCP connections. An address may be one of several networks.
    ends: BTreeMap<Place, Vec<End>>,
}

impl Clients {
    /// All that was seen.
    pub(super) fn of(networks: Vec<Network>) -> Self {
        let mut clients = Self::default();
        for Network { unix, tcp } in networks {
            for Socket { number, peer, is_servers, pids } in unix {
                // Other sockets of a backend lead to the journal, say.
                for pid in pids.iter().filter(|_| is_servers) {
                    clients.peers.entry(*pid).or_default().push(peer);
                }
                clients.sockets.entry(number).or_default().extend(pids);
            }
            for end in tcp {
                clients.ends.entry(end.local).or_default().push(end);
            }
        }
        clients
    }

    /// Who has the client's end of a session: its processes, or, behind a proxy, those of each who may be the client. Nothing if it
    /// is not on this machine, or cannot be found.
    pub(super) fn ends_of(&self, session: &Session, server: &Server) -> Vec<&[u32]> {
        if server.is_away() && session.is_local() {
            return Vec::new();
        }
        let backend = server.backend(session);
        if let (Some(address), Some(port)) = (session.address, session.port) {
            return self.by_tcp((address.to_canonical(), port), backend);
        }
        let peers = self.peers.get(&backend).map_or(&[][..], Vec::as_slice);
        let pids = peers.iter().find_map(|peer| self.sockets.get(peer).filter(|pids| !pids.is_empty()));
        pids.map(Vec::as_slice).into_iter().collect()
    }

    fn by_tcp(&self, client: Place, backend: u32) -> Vec<&[u32]> {
        let of_server = self.ends.iter().find_map(|(local, ends)| {
            let end = ends.iter().find(|end| end.peer == client && end.pids.contains(&backend))?;
            Some((*local, end.network))
        });
        let mut ends: Vec<&End> = self.at(client).filter(|end| !end.pids.is_empty()).collect();
        if client.0.is_loopback() {
            let network = of_server.map_or(0, |(_, network)| network);
            ends.retain(|end| end.network == network);
        }
        if let Some((server, _)) = of_server
            && ends.iter().any(|end| end.peer == server)
        {
            ends.retain(|end| end.peer == server);
        }
        // The same address in two networks tells nothing.
        match ends.as_slice() {
            [end] if end.is_proxy => self.behind(client, end),
            [end] => vec![&end.pids],
            _ => Vec::new(),
        }
    }

    fn at(&self, place: Place) -> impl Iterator<Item = &End> {
        self.ends.get(&place).into_iter().flatten()
    }

    /// Who is connected to the proxy that has `end`, which is at `client`. One proxy has one port.
    fn behind(&self, client: Place, end: &End) -> Vec<&[u32]> {
        let is_its = |other: &&End| other.pids.iter().any(|pid| end.pids.contains(pid));
        let of_proxy = self.ends.iter().filter(|(local, _)| **local != client);
        let of_proxy =
            of_proxy.flat_map(|(local, ends)| ends.iter().filter(is_its).map(move |it| (*local, it.peer)));
        let of_client = |(local, peer): (Place, Place)| self.at(peer).find(|other| other.peer == local);
        of_proxy
            .filter_map(of_client)
            .filter(|other| !other.pids.is_empty())
            .map(|other| &other.pids[..])
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Connections, a line each: what it is (`server`: a Unix socket of such a name), the numbers or addresses of both ends, who has
    /// the first.
    pub(in crate::clients) fn clients(text: &str) -> Clients {
        let mut networks = vec![Network::default()];
        for line in text.lines() {
            let mut words = line.split(' ');
            let [kind, here, there] = [(); 3].map(|()| words.next().unwrap_or_default());
            let pids: Vec<u32> = words.map(|word| word.parse().unwrap()).collect();
            let place = |text: &str| {
                let place: std::net::SocketAddr = text.parse().unwrap();
                (place.ip(), place.port())
            };
            let count = networks.len() - 1;
            let network = networks.last_mut().unwrap();
            match kind {
                "unix" | "server" => network.unix.push(Socket {
                    number: here.parse().unwrap(),
                    peer: there.parse().unwrap(),
                    is_servers: kind == "server",
                    pids,
                }),
                "tcp" | "proxy" => network.tcp.push(End {
                    network: count,
                    local: place(here),
                    peer: place(there),
                    pids,
                    is_proxy: kind == "proxy",
                }),
                _ => networks.push(Network::default()),
            }
        }
        Clients::of(networks)
    }

    const HERE: &str = "\
unix 300 301 777
unix 301 300 99 1
server 20871 20870 777
unix 20870 20871 888 889
server 20881 20880 780
server 20891 20890 781
unix 1058 1057
tcp 127.0.0.1:5432 127.0.0.1:40000 778
tcp 127.0.0.1:40000 127.0.0.1:5432 999
tcp 127.0.0.1:40001 127.0.0.1:5432 1000
tcp [::1]:40002 [::1]:5432 1001
unix 20880 20881 890";

    #[test]
    fn the_other_end_of_a_session_is_found() {
        let found = clients(HERE);
        let ends = |session: &Session| found.ends_of(session, &Server::default()).concat();
        let local = |backend| ends(&Session { backend, ..Session::default() });
        // By way of its standard error, a backend is connected to the journal, too.
        assert_eq!(local(777), [888, 889]);
        assert_eq!(local(780), [890]);
        assert!(local(779).is_empty());
        let tcp = |address: &str, port| {
            let address = Some(address.parse().unwrap());
            ends(&Session { address, port: Some(port), ..Session::default() })
        };
        assert_eq!(tcp("127.0.0.1", 40000), [999]);
        assert_eq!(tcp("127.0.0.1", 40001), [1000]);
        assert_eq!(tcp("::1", 40002), [1001]);
        // Somebody else's, of another machine.
        assert!(tcp("192.0.2.1", 40000).is_empty());
        assert!(tcp("127.0.0.1", 1).is_empty());
        assert!(local(781).is_empty());
    }

    /// A server in a container (process 500, 7 there) of a bridge, and clients: in another container, in the server's own, by the
    /// port that docker publishes on this machine, and from this machine to the bridge. Two more networks have one address.
    const BRIDGE: &str = "\
tcp 172.18.0.1:33000 172.18.0.2:5432 30
proxy 172.18.0.1:33001 172.18.0.2:5432 40
proxy 127.0.0.1:5433 127.0.0.1:50000 40
tcp 127.0.0.1:50000 127.0.0.1:5433 50
tcp 127.0.0.1:33002 127.0.0.1:9 60
network
tcp 172.18.0.2:5432 172.18.0.3:33003 500
tcp 127.0.0.1:5432 127.0.0.1:33002 500
tcp 127.0.0.1:33002 127.0.0.1:5432 61
network
tcp 172.18.0.3:33003 172.18.0.2:5432 70
tcp 10.0.2.100:1 10.0.2.2:5432 71
network
tcp 10.0.2.100:1 10.0.2.2:5432 72";

    #[test]
    fn the_other_end_of_a_session_is_found_in_whatever_network() {
        let found = clients(BRIDGE);
        let server = Server { inside: [(7, 500)].into(), ..Server::default() };
        let of = |address: &str, port| {
            let address = Some(address.parse().unwrap());
            let session = Session { backend: 7, address, port: Some(port), ..Session::default() };
            found.ends_of(&session, &server).concat()
        };
        assert_eq!(of("172.18.0.1", 33000), [30]);
        assert_eq!(of("172.18.0.1", 33001), [50]);
        assert_eq!(of("172.18.0.3", 33003), [70]);
        assert_eq!(of("127.0.0.1", 33002), [61]);
        assert!(of("10.0.2.100", 1).is_empty() && of("172.18.0.9", 1).is_empty());
    }

    #[test]
    fn a_process_in_a_container_has_another_number_there() {
        let proc = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef".repeat(4);
        for (pid, container, numbers) in
            [("500", "docker", "500\t7"), ("501", "docker", "501\t8"), ("9", "", "9")]
        {
            let process = proc.path().join(pid);
            std::fs::create_dir(&process).unwrap();
            let group =
                if container.is_empty() { "x.service".to_owned() } else { format!("docker-{id}.scope") };
            std::fs::write(process.join("cgroup"), format!("0::/system.slice/{group}\n")).unwrap();
            std::fs::write(process.join("status"), format!("Name:\tx\nNSpid:\t{numbers}\n")).unwrap();
        }
        assert_eq!(inside(500, proc.path()), [(7, 500), (8, 501)].into());
        assert!(inside(9, proc.path()).is_empty() && inside(1, proc.path()).is_empty());
    }

    #[test]
    fn whoever_calls_himself_so_is_no_proxy() {
        let proc = tempfile::tempdir().unwrap();
        let group = format!("docker-{}.scope", "0123456789abcdef".repeat(4));
        for (name, user, group, expected) in [
            ("docker-proxy", "0", "docker.service", true),
            ("docker-proxy", "65534", "x.service", false),
            ("docker-proxy", "0", group.as_str(), false),
            ("other", "0", "docker.service", false),
            ("x\\nUid:\\t0", "1", "docker.service", false),
        ] {
            let ids = [user; 4].join("\t");
            let status = format!("Name:\t{name}\nUmask:\t0022\nUid:\t{ids}\n");
            std::fs::write(proc.path().join("status"), status).unwrap();
            std::fs::write(proc.path().join("cgroup"), format!("0::/system.slice/{group}\n")).unwrap();
            assert_eq!(is_proxy(proc.path()), expected, "{name} {user} {group}");
        }
    }

    #[test]
    fn who_has_a_socket_is_told_by_what_he_has_open() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = rustix::fs::fstat(&one).unwrap().st_ino;
        let found = holders(Path::new("/proc")).unwrap();
        assert_eq!(found[&number], [std::process::id()]);
    }

    #[test]
    fn each_network_but_ours_is_looked_at_once() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, network) in [("self", 1), ("1", 1), ("7", 2), ("8", 2), ("x", 3)] {
            let namespaces = proc.path().join(pid).join("ns");
            std::fs::create_dir_all(&namespaces).unwrap();
            std::os::unix::fs::symlink(format!("net:[{network}]"), namespaces.join("net")).unwrap();
        }
        std::fs::create_dir(proc.path().join("9")).unwrap();
        let found = networks(proc.path()).unwrap();
        assert!(found == [7] || found == [8], "{found:?}");
    }
}
