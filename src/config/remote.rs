//! `server.host` and the keys beside it: a server that is reached over the network.

use super::value::{absolute, contradiction, name, refused};
use crate::error::Result;
use crate::postgres::{Remote, SslMode};

/// libpq's word for the authorities that the system trusts.
const SYSTEM: &str = "system";

/// What is of no use without a host.
const KEYS: [&str; 3] = ["server.sslmode", "server.sslrootcert", "server.passfile"];

/// `host`, `sslmode`, `sslrootcert` and `passfile` as written; an empty text is none.
pub(super) fn remote(input: [Option<&str>; 4]) -> Result<Option<Remote>> {
    let input = input.map(|text| text.filter(|text| !text.is_empty()));
    let [host, sslmode, sslrootcert, passfile] = input;
    let Some(host) = host else {
        return match KEYS.into_iter().zip(&input[1..]).find(|(_, text)| text.is_some()) {
            None => Ok(None),
            Some((key, _)) => Err(contradiction(
                &format!("{key} is set, and server.host is not"),
                &format!("set server.host to the host of the server, or remove {key}"),
            )),
        };
    };
    let host = name("server.host", Some(host.to_owned()), "")?;
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
        return Err(refused("server.host", &host, "the name or address of one host"));
    }
    let sslmode = match sslmode {
        None => SslMode::for_host(&host),
        Some(text) => SslMode::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            let names: Vec<_> = SslMode::ALL.map(SslMode::name).into();
            refused("server.sslmode", text, &names.join(", "))
        })?,
    };
    let sslrootcert = match sslrootcert {
        None | Some(SYSTEM) => None,
        Some(path) => Some(absolute("server.sslrootcert", Some(path.into()), "")?),
    };
    let passfile = passfile.map(|path| absolute("server.passfile", Some(path.into()), "")).transpose()?;
    Ok(Some(Remote { sslmode, sslrootcert, passfile, ..Remote::to(&host) }))
}
