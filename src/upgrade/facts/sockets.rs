//! Both ends of this machine's connections: which processes are behind a session.
//!
//! An upgrade's unit sees neither the machine's network nor other users' processes, so that [`look`] is what a unit of its own
//! does, with the machine's view and no rights but those to look. It prints what [`Clients::parse`] reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use crate::error::{IoContext as _, Result};
use crate::runtime::{bare, from_outside, output_in_silence, tool};
use crate::upgrade::facts::sessions::Session;

const SS: [&str; 3] = ["--processes", "--numeric", "--no-header"];

/// The verb that [`ask`] has carried out, see [`look`].
pub const VERB: &str = "connections";

/// The sockets of all processes of this machine, whoever asks.
///
/// # Errors
/// [`crate::Kind::Program`], [`crate::Kind::NotInstalled`]: nothing is known then.
pub(in crate::upgrade) fn ask() -> Result<Clients> {
    let text = from_outside(vec![VERB.into()], &RIGHTS, "the look at the machine's connections")?;
    Ok(Clients::parse(&String::from_utf8_lossy(&text)))
}

/// No rights but those to look.
const RIGHTS: [&str; 3] = [
    "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_ADMIN",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
];

/// What there is to see from here, as text: what ss prints of this machine's network, and of Unix sockets in all others.
///
/// A connection by a Unix socket belongs, at both ends, to the network of whoever has connected: such as that of a unit with
/// `PrivateNetwork=`.
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
        command.arg("--net").arg(format!("--target={pid}")).arg(&ss).arg("--unix").args(SS);
        match output_in_silence(command, "ss in another network") {
            Ok(more) => text.extend(more),
            // It has ended meanwhile, and so have its connections.
            Err(error) => log::debug!("{}", error.report()),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

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

/// Both ends of the connections of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::upgrade) struct Clients {
    /// Of a process that serves a socket of PostgreSQL's: the numbers of the sockets at the other ends.
    peers: BTreeMap<u32, Vec<u64>>,
    /// Whose Unix socket it is, by its number.
    sockets: BTreeMap<u64, Vec<u32>>,
    /// Whose end of a TCP connection it is.
    ends: BTreeMap<(IpAddr, u16), Vec<u32>>,
}

impl Clients {
    /// Takes apart what ss prints: kind, state, two lengths of queues, the two ends, and who has the first of them.
    pub(in crate::upgrade) fn parse(text: &str) -> Self {
        let mut clients = Self::default();
        for line in text.lines() {
            let (ends, users) = line.split_once("users:(").unwrap_or((line, ""));
            let pids: Vec<u32> = users
                .split("pid=")
                .skip(1)
                .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
                .collect();
            let words: Vec<_> = ends.split_whitespace().collect();
            match words.as_slice() {
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
                ["tcp", _, _, _, local, ..] => {
                    if let Some(end) = end(local) {
                        clients.ends.entry(end).or_default().extend(pids);
                    }
                }
                _ => {}
            }
        }
        clients
    }

    /// The client's processes; nothing if it is not on this machine, or cannot be found.
    pub(in crate::upgrade) fn processes(&self, session: &Session) -> &[u32] {
        let found = if let (Some(address), Some(port)) = (session.address, session.port) {
            self.ends.get(&(address.to_canonical(), port))
        } else {
            let peers = self.peers.get(&session.backend).map_or(&[][..], Vec::as_slice);
            peers.iter().find_map(|peer| self.sockets.get(peer).filter(|pids| !pids.is_empty()))
        };
        found.map_or(&[], Vec::as_slice)
    }
}

/// `127.0.0.1:5432`, `[::1]:5432`, `[fe80::1]%eth0:5432`
fn end(text: &str) -> Option<(IpAddr, u16)> {
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
        let local = |backend| clients.processes(&Session { backend, ..Session::default() }).to_vec();
        // By way of its standard error, a backend is connected to the journal, too.
        assert_eq!(local(777), [888, 889]);
        assert_eq!(local(780), [890]);
        assert!(local(779).is_empty());
        let tcp = |address: &str, port| {
            let address = Some(address.parse().unwrap());
            clients.processes(&Session { address, port: Some(port), ..Session::default() }).to_vec()
        };
        assert_eq!(tcp("127.0.0.1", 40000), [999]);
        assert_eq!(tcp("127.0.0.1", 40001), [1000]);
        assert_eq!(tcp("::1", 40002), [1001]);
        // Somebody else's, of another machine.
        assert!(tcp("192.0.2.1", 40000).is_empty());
        assert!(tcp("127.0.0.1", 1).is_empty());
        assert!(local(781).is_empty());
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
