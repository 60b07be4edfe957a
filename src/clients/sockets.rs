//! Both ends of this machine's connections: which processes are behind a session.
//!
//! An upgrade's unit sees neither the machine's network nor other users' processes, so that [`look`] is what a unit of its own
//! does, with the machine's view and no rights but those to look. It prints what [`Clients::parse`] reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use super::sessions::Session;
use crate::error::{IoContext as _, Result};
use crate::postgres::ControlGroup;
use crate::runtime::{bare, from_outside, output_in_silence, tool};

const SS: [&str; 3] = ["--processes", "--numeric", "--no-header"];

/// The verb that [`ask`] has carried out, see [`look`].
pub const VERB: &str = "connections";

/// The sockets of all processes of this machine, whoever asks.
///
/// # Errors
/// [`crate::Kind::Program`], [`crate::Kind::NotInstalled`]: nothing is known then.
pub(super) fn ask() -> Result<Clients> {
    let text = from_outside(vec![VERB.into()], &RIGHTS, "the look at the machine's connections")?;
    Ok(Clients::parse(&String::from_utf8_lossy(&text)))
}

/// No rights but those to look.
const RIGHTS: [&str; 3] = [
    "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_ADMIN",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
];

/// What there is to see from here, as text: what ss prints of this machine's network, and of all others, behind a line for each.
///
/// A connection by a Unix socket belongs, at both ends, to the network of whoever has connected: such as that of a unit with
/// `PrivateNetwork=`. One by TCP has its client's end in that of the container that the client is in.
///
/// # Errors
/// [`crate::Kind::Program`], [`crate::Kind::NotInstalled`], [`crate::Kind::File`].
pub fn look() -> Result<String> {
    let ss = tool("ss", "iproute2")?;
    let mut command = bare(&ss);
    command.args(["--tcp", "--unix"]).args(SS);
    // Where it is refused something, it says so, prints what it has, and ends with 0.
    let mut text = output_in_silence(command, "ss")?;
    let nsenter = tool("nsenter", "util-linux")?;
    for pid in networks(Path::new("/proc"))? {
        let mut command = bare(&nsenter);
        command.arg("--net").arg(format!("--target={pid}")).arg(&ss).args(["--tcp", "--unix"]).args(SS);
        match output_in_silence(command, "ss in another network") {
            Ok(more) => {
                text.extend(format!("{NETWORK}\n").into_bytes());
                text.extend(more);
            }
            // It has ended meanwhile, and so have its connections.
            Err(error) => log::debug!("{}", error.report()),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The line before what is in another network.
const NETWORK: &str = "network";

/// A process of each network but ours.
fn networks(proc: &Path) -> Result<Vec<u32>> {
    let network = |process: &Path| std::fs::read_link(process.join("ns/net")).ok();
    let mut known: BTreeSet<_> = network(&proc.join("self")).into_iter().collect();
    let mut found = Vec::new();
    for process in std::fs::read_dir(proc).at("read", proc)?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if network(&process.path()).is_some_and(|network| known.insert(network)) {
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

/// Address and port.
type Place = (IpAddr, u16);

/// One end of a TCP connection.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// In which of the networks; this machine's is the first.
    network: usize,
    /// The other end.
    peer: Place,
    /// Who has it.
    pids: Vec<u32>,
    /// Whether that passes on what others say to a port that a container publishes.
    is_proxy: bool,
}

/// Programs that do so.
const PROXIES: [&str; 2] = ["((\"docker-proxy\"", "((\"rootlessport\""];

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
    /// Takes apart what ss prints: kind, state, two lengths of queues, the two ends, and who has the first of them.
    pub(super) fn parse(text: &str) -> Self {
        let mut clients = Self::default();
        let mut network = 0;
        for line in text.lines() {
            let (ends, users) = line.split_at(line.find("users:(").unwrap_or(line.len()));
            let pids: Vec<u32> = users
                .split("pid=")
                .skip(1)
                .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
                .collect();
            let words: Vec<_> = ends.split_whitespace().collect();
            match words.as_slice() {
                [NETWORK] => network += 1,
                // Path (or *), number, then the same of the other end. A path may have spaces in it.
                ["u_str", _, _, _, path @ .., number, _, peer] => {
                    if let (Ok(number), Ok(peer)) = (number.parse(), peer.parse()) {
                        // Other sockets of a backend lead to the journal, say.
                        if path.last().is_some_and(|path| path.contains("/.s.PGSQL.")) {
                            for pid in &pids {
                                clients.peers.entry(*pid).or_default().push(peer);
                            }
                        }
                        clients.sockets.entry(number).or_default().extend(pids);
                    }
                }
                ["tcp", _, _, _, local, peer, ..] => {
                    if let Some((local, peer)) = place(local).zip(place(peer)) {
                        let is_proxy = PROXIES.iter().any(|name| users.contains(name));
                        clients.ends.entry(local).or_default().push(End { network, peer, pids, is_proxy });
                    }
                }
                _ => {}
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

/// `127.0.0.1:5432`, `[::1]:5432`, `[fe80::1]%eth0:5432`
fn place(text: &str) -> Option<Place> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.split('%').next()?.trim_start_matches('[').trim_end_matches(']');
    Some((address.parse::<IpAddr>().ok()?.to_canonical(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SS: &str = "\
u_seq ESTAB 0      0                                  * 49902  * 0      users:((\"systemd-nspawn\",pid=25854,fd=14))
u_str ESTAB 0      0                                  * 300 * 301 users:((\"postgres\",pid=777,fd=2))
u_str ESTAB 0      0   /run/systemd/journal/stdout 301 * 300 users:((\"systemd-journal\",pid=99,fd=31),(\"systemd\",pid=1,fd=3))
u_str ESTAB 0      0   /run/matrix-postgres/.s.PGSQL.5432 20871 * 20870 users:((\"postgres\",pid=777,fd=9))
u_str ESTAB 0      0                                  * 20870 * 20871 users:((\"python\",pid=888,fd=12),(\"python\",pid=889,fd=12))
u_str ESTAB 0      0   /run/my server/.s.PGSQL.5432 20881 * 20880 users:((\"postgres\",pid=780,fd=9))
u_str ESTAB 0      0   /run/matrix-postgres/.s.PGSQL.5432 20891 * 20890 users:((\"postgres\",pid=781,fd=9))
u_str ESTAB 0      0                                  * 1058  * 1057
tcp   ESTAB 0      0                   127.0.0.1:5432    127.0.0.1:40000 users:((\"postgres\",pid=778,fd=9))
tcp   ESTAB 0      0                   127.0.0.1:40000   127.0.0.1:5432  users:((\"mautrix-signal\",pid=999,fd=7))
tcp   ESTAB 0      0          [::ffff:127.0.0.1]:40001   [::ffff:127.0.0.1]:5432  users:((\"java\",pid=1000,fd=7))
tcp   ESTAB 0      0                        [::1]:40002   [::1]:5432  users:((\"go\",pid=1001,fd=7))
u_str ESTAB 0      0                                  * 20880 * 20881 users:((\"hidden\",pid=890,fd=3))
";

    #[test]
    fn the_other_end_of_a_session_is_found() {
        let clients = Clients::parse(SS);
        let ends = |session: &Session| clients.ends_of(session, &Server::default()).concat();
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
tcp ESTAB 0 0 172.18.0.1:33000 172.18.0.2:5432 users:((\"psql\",pid=30,fd=3))
tcp ESTAB 0 0 172.18.0.1:33001 172.18.0.2:5432 users:((\"docker-proxy\",pid=40,fd=9))
tcp ESTAB 0 0 127.0.0.1:5433 127.0.0.1:50000 users:((\"docker-proxy\",pid=40,fd=8))
tcp ESTAB 0 0 127.0.0.1:50000 127.0.0.1:5433 users:((\"bot\",pid=50,fd=3))
tcp ESTAB 0 0 127.0.0.1:33002 127.0.0.1:9 users:((\"other\",pid=60,fd=3))
network
tcp ESTAB 0 0 172.18.0.2:5432 172.18.0.3:33003 users:((\"postgres\",pid=500,fd=9))
tcp ESTAB 0 0 127.0.0.1:5432 127.0.0.1:33002 users:((\"postgres\",pid=500,fd=10))
tcp ESTAB 0 0 127.0.0.1:33002 127.0.0.1:5432 users:((\"psql\",pid=61,fd=3))
network
tcp ESTAB 0 0 172.18.0.3:33003 172.18.0.2:5432 users:((\"bridge\",pid=70,fd=3))
tcp ESTAB 0 0 10.0.2.100:1 10.0.2.2:5432 users:((\"a\",pid=71,fd=3))
network
tcp ESTAB 0 0 10.0.2.100:1 10.0.2.2:5432 users:((\"b\",pid=72,fd=3))
";

    #[test]
    fn the_other_end_of_a_session_is_found_in_whatever_network() {
        let clients = Clients::parse(BRIDGE);
        let server = Server { inside: [(7, 500)].into(), ..Server::default() };
        let of = |address: &str, port| {
            let address = Some(address.parse().unwrap());
            let session = Session { backend: 7, address, port: Some(port), ..Session::default() };
            clients.ends_of(&session, &server).concat()
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
