//! Which unit each session belongs to: what nobody stops loses its connection.

use std::collections::BTreeMap;

use super::sessions::Session;
use super::sockets::Clients;
use crate::error::{Error, Kind, Result};

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

/// Those of one kind together, the most numerous first; `unit_of` tells the unit of a process.
///
/// # Errors
/// [`Kind::Program`] if none is found of all those that must be there.
pub(in crate::upgrade) fn connected(
    sessions: &[Session],
    clients: &Clients,
    unit_of: impl Fn(u32) -> Option<String>,
) -> Result<Vec<Connected>> {
    let mut local = sessions.iter().filter(|session| session.is_local()).peekable();
    if local.peek().is_some() && local.all(|session| clients.processes(session).is_empty()) {
        let message = "none of the server's sessions was found by ss";
        return Err(Error::new(Kind::Program, message));
    }
    let mut counts: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    for session in sessions {
        // Who has gone meanwhile belongs to no unit.
        let unit = clients.processes(session).iter().find_map(|pid| unit_of(*pid));
        *counts.entry((session.who.clone(), unit)).or_default() += 1;
    }
    let mut connected: Vec<_> =
        counts.into_iter().map(|((who, unit), count)| Connected { who, unit, count }).collect();
    connected.sort_by_key(|connected| std::cmp::Reverse(connected.count));
    Ok(connected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(backend: u32, address: Option<&str>, port: Option<u16>) -> Session {
        Session { who: "x".into(), backend, address: address.map(|text| text.parse().unwrap()), port }
    }

    #[test]
    fn a_list_in_which_nobody_is_found_is_no_list() {
        let none = Clients::default();
        let unit_of = |_| Some("x.service".to_owned());
        assert_eq!(connected(&[], &none, unit_of).unwrap(), []);
        let remote = session(1, Some("192.0.2.1"), Some(40000));
        let found = connected(std::slice::from_ref(&remote), &none, unit_of).unwrap();
        assert_eq!((found.len(), &found[0].unit), (1, &None));
        for local in [session(1, None, None), session(1, Some("127.0.0.1"), Some(40000))] {
            assert!(connected(&[local, remote.clone()], &none, unit_of).is_err());
        }
    }

    #[test]
    fn sessions_of_one_unit_are_one_entry_with_their_number() {
        let text = "u_str ESTAB 0 0 /run/x/.s.PGSQL.5432 2 * 1 users:((\"postgres\",pid=7,fd=9))\n\
                    u_str ESTAB 0 0 * 1 * 2 users:((\"a\",pid=8,fd=3),(\"b\",pid=9,fd=3))\n\
                    tcp ESTAB 0 0 127.0.0.1:40000 127.0.0.1:5432 users:((\"b\",pid=9,fd=4))";
        let sessions =
            [session(7, None, None), session(77, Some("127.0.0.1"), Some(40000)), session(78, None, None)];
        let unit_of = |pid| (pid == 9).then(|| "b.service".to_owned());
        let found = connected(&sessions, &Clients::parse(text), unit_of).unwrap();
        let found: Vec<_> = found.iter().map(|it| (it.unit.as_deref(), it.count)).collect();
        assert_eq!(found, [(Some("b.service"), 2), (None, 1)]);
    }
}
