//! `server.host` and the keys beside it: a server that is reached over the network.

use super::server::ServerFragment;
use super::value::{absolute, contradiction, name, refused};
use crate::error::Result;
use crate::postgres::{Remote, SslMode};

/// libpq's word for the authorities that the system trusts.
const SYSTEM: &str = "system";

/// The server that `server.host` names.
pub(super) fn remote(input: &ServerFragment) -> Result<Option<Remote>> {
    let Some(host) = input.host.as_ref().filter(|host| !host.is_empty()) else {
        return match keys(input).find(|(_, is_set)| *is_set) {
            None => Ok(None),
            Some((key, _)) => Err(contradiction(
                &format!("{key} is set, and server.host is not"),
                &format!("set server.host to the host of the server, or remove {key}"),
            )),
        };
    };
    let host = name("server.host", Some(host.clone()), "")?;
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
        return Err(refused("server.host", &host, "the name or address of one host"));
    }
    let sslmode = match input.sslmode.as_deref().filter(|mode| !mode.is_empty()) {
        None => SslMode::for_host(&host),
        Some(text) => SslMode::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            let names: Vec<_> = SslMode::ALL.map(SslMode::name).into();
            refused("server.sslmode", text, &names.join(", "))
        })?,
    };
    let sslrootcert = match input.sslrootcert.as_deref().filter(|path| !path.is_empty()) {
        None | Some(SYSTEM) => None,
        Some(path) => Some(absolute("server.sslrootcert", Some(path.into()), "")?),
    };
    let passfile = input.passfile.as_deref().filter(|path| !path.is_empty());
    let passfile = passfile.map(|path| absolute("server.passfile", Some(path.into()), "")).transpose()?;
    Ok(Some(Remote { sslmode, sslrootcert, passfile, ..Remote::to(&host) }))
}

/// What is of no use without a host.
fn keys(input: &ServerFragment) -> impl Iterator<Item = (&'static str, bool)> {
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    [
        ("server.sslmode", is_set(&input.sslmode)),
        ("server.sslrootcert", is_set(&input.sslrootcert)),
        ("server.passfile", is_set(&input.passfile)),
    ]
    .into_iter()
}
