//! The connections of a network as the kernel lists them (sock_diag(7)): numbers, and no words of those who have the sockets. Anybody
//! may give a socket or a process a name, with ends of lines in it, and would be believed by whoever reads a list in text, as ss(8)
//! prints it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// `NLMSG_ERROR`, `NLMSG_DONE`, `SOCK_DIAG_BY_FAMILY`
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;

/// `NLM_F_REQUEST` and `NLM_F_DUMP`
const ALL: u16 = 0x301;

/// The bit of `TCP_ESTABLISHED`, and those of all states in which two ends belong together, from `TCP_SYN_SENT` to `TCP_CLOSING`.
const ESTABLISHED: u32 = 1 << 1;
const CONNECTED: u32 = ESTABLISHED | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// `UDIAG_SHOW_NAME` and `UDIAG_SHOW_PEER`; what they are answered with.
const NAME_AND_PEER: u32 = 1 | 4;
const NAME: u16 = 0;
const PEER: u16 = 2;

/// `AF_UNIX`, `SOCK_STREAM`, `AF_INET`, `AF_INET6`, `IPPROTO_TCP`
const UNIX: u8 = 1;
const STREAM: u8 = 1;
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;

/// The lengths of `nlmsghdr`, `unix_diag_msg`, `inet_diag_msg`, `inet_diag_sockid`.
const HEADER: usize = 16;
const OF_UNIX: usize = 16;
const OF_INET: usize = 72;
const ID: usize = 48;

/// No part of the kernel's answer is longer.
const LONGEST: usize = 1 << 18;

/// Address and port.
pub(super) type Place = (IpAddr, u16);

/// A Unix socket that is connected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unix {
    /// Its number, and that of the other end.
    pub(super) number: u64,
    pub(super) peer: u64,
    /// Whether its name is that of PostgreSQL's sockets, which anybody may give one.
    pub(super) is_servers: bool,
}

/// One end of a TCP connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) number: u64,
    pub(super) local: Place,
    pub(super) peer: Place,
}

/// All of the network that this thread is in.
pub(super) fn list() -> Result<(Vec<Unix>, Vec<Tcp>)> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    // From here on it takes no messages but the kernel's.
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    let mut asked = vec![UNIX, 0, 0, 0];
    asked.extend([ESTABLISHED, 0, NAME_AND_PEER, u32::MAX, u32::MAX].iter().flat_map(|it| it.to_ne_bytes()));
    let unix = ask(&socket, &asked)?.iter().filter_map(|message| unix(message)).collect();
    let mut ends = Vec::new();
    for family in [INET, INET6] {
        let mut asked = vec![family, TCP, 0, 0];
        asked.extend(CONNECTED.to_ne_bytes());
        asked.extend([0; ID]);
        ends.extend(ask(&socket, &asked)?.iter().filter_map(|message| tcp(message)));
    }
    Ok((unix, ends))
}

/// All messages of the answer, without their headers.
fn ask(socket: &OwnedFd, asked: &[u8]) -> Result<Vec<Vec<u8>>> {
    let length = u32::try_from(HEADER + asked.len()).map_err(|_| Errno::MSGSIZE)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(ALL.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(asked);
    send(socket, &message, SendFlags::empty())?;
    let (mut messages, mut buffer) = (Vec::new(), vec![0; LONGEST]);
    loop {
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 {
            return Err(Errno::BADMSG);
        }
        let mut rest = &buffer[..length];
        while let Some((kind, message, after)) = next(rest) {
            match kind {
                DONE => return Ok(messages),
                ERROR => {
                    let code = number::<4>(message, 0).map_or(0, i32::from_ne_bytes);
                    return Err(Errno::from_raw_os_error(code.wrapping_neg()));
                }
                BY_FAMILY => messages.push(message.to_vec()),
                _ => {}
            }
            rest = after;
        }
    }
}

/// The first of these messages, its kind, and those after it.
fn next(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(number(messages, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(number(messages, 4)?);
    let message = messages.get(HEADER..length)?;
    Some((kind, message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn unix(message: &[u8]) -> Option<Unix> {
    let number_of = |at: usize| number(message, at).map(u32::from_ne_bytes).map(u64::from);
    let socket = number_of(4).filter(|_| message.get(1) == Some(&STREAM))?;
    let (mut peer, mut is_servers) = (None, false);
    let mut rest = message.get(OF_UNIX..)?;
    while let (Some(length), Some(kind)) = (number(rest, 0), number(rest, 2)) {
        let length = usize::from(u16::from_ne_bytes(length));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes(kind) {
            PEER => peer = number(value, 0).map(u32::from_ne_bytes).map(u64::from),
            NAME => is_servers = value.windows(SERVERS.len()).any(|part| part == SERVERS),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Unix { number: socket, peer: peer.filter(|peer| *peer != 0)?, is_servers })
}

/// What the names of PostgreSQL's sockets have in them.
const SERVERS: &[u8] = b"/.s.PGSQL.";

fn tcp(message: &[u8]) -> Option<Tcp> {
    let message = message.get(..OF_INET)?;
    let address = |at: usize| -> Option<IpAddr> {
        match message[0] {
            INET => Some(Ipv4Addr::from(number::<4>(message, at)?).into()),
            INET6 => Some(IpAddr::from(Ipv6Addr::from(number::<16>(message, at)?)).to_canonical()),
            _ => None,
        }
    };
    let port = |at: usize| number(message, at).map(u16::from_be_bytes);
    let socket = u64::from(u32::from_ne_bytes(number(message, 68)?));
    Some(Tcp {
        number: Some(socket).filter(|socket| *socket != 0)?,
        local: (address(8)?, port(4)?),
        peer: (address(24)?, port(6)?),
    })
}

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..)?.first_chunk::<BYTES>().copied()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn number_of(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn the_kernel_tells_both_ends_whatever_the_names() {
        let directory = tempfile::tempdir().unwrap();
        for (name, is_servers) in [(".s.PGSQL.5432", true), ("x\nu_str ESTAB 0 0 .s.PGSQL. 9 * 8", false)] {
            let path = directory.path().join(name);
            let listener = UnixListener::bind(&path).unwrap();
            let client = UnixStream::connect(&path).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (of_client, of_server) = (number_of(&client), number_of(&server));
            let (found, _) = list().unwrap();
            let expected = [
                Unix { number: of_server, peer: of_client, is_servers },
                Unix { number: of_client, peer: of_server, is_servers: false },
            ];
            assert!(expected.iter().all(|end| found.contains(end)), "{found:?}");
            assert_eq!(found.iter().filter(|end| [8, 9].contains(&end.number)).count(), 0);
        }
    }

    #[test]
    fn both_ends_of_a_connection_by_either_protocol_are_there() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let place = |address: std::net::SocketAddr| (address.ip(), address.port());
            let (here, there) = (place(client.local_addr().unwrap()), place(client.peer_addr().unwrap()));
            let (_, found) = list().unwrap();
            let of_client = Tcp { number: number_of(&client), local: here, peer: there };
            let of_server = Tcp { number: number_of(&server), local: there, peer: here };
            assert!(found.contains(&of_client) && found.contains(&of_server), "{found:?}");
            drop(client);
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn what_is_too_short_is_nothing() {
        assert!(next(&[]).is_none() && next(&[200, 0, 0, 0, 20, 0]).is_none());
        assert!(unix(&[1, 1, 1, 0]).is_none() && tcp(&[2; 71]).is_none());
        // A length that leads nowhere.
        let mut message = vec![1, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend([0, 0, 2, 0]);
        assert!(unix(&message).is_none());
    }
}
