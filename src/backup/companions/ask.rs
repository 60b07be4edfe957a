//! The backups' user asks for the files by a socket, and a unit of root's answers with what is encrypted.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;

use super::Bundle;
use super::bundle;
use crate::backup::{create, encryption};
use crate::config::Backup;
use crate::error::{Error, Kind, Result};

/// Where it is asked.
const SOCKET: &str = "/run/matrix-postgres-companions/socket";

/// An answer is not longer than that, and does not take longer.
const LONGEST: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes into a backup beside the databases, as these settings say. A backup is made without it, too: whatever stands in the
/// way is a warning.
pub fn gather(settings: &Backup) -> Bundle {
    if !settings.companions {
        return Bundle::default();
    }
    let gathered = match geteuid().is_root() {
        true => make(settings),
        false => ask(settings),
    };
    gathered.unwrap_or_else(|error| {
        log::warn!("the homeserver's own files are not looked at: {}", error.one_line());
        Bundle::default()
    })
}

fn ask(settings: &Backup) -> Result<Bundle> {
    let failed =
        |error: std::io::Error| Error::new(Kind::Program, format!("{SOCKET} did not answer")).because(error);
    let mut stream = match UnixStream::connect(SOCKET) {
        // Nobody has set it up, and they would only be named.
        Err(error) if error.kind() == ErrorKind::NotFound && settings.encryption.is_none() => {
            log::debug!("{SOCKET}: {error}");
            return Ok(Bundle::default());
        }
        connected => connected.map_err(failed)?,
    };
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    (&mut stream).take(LONGEST).read_to_end(&mut answer).map_err(failed)?;
    parse(&answer).map_err(failed)
}

/// A line of JSON, and the archive.
fn parse(answer: &[u8]) -> std::io::Result<Bundle> {
    let end = memchr::memchr(b'\n', answer).ok_or(ErrorKind::UnexpectedEof)?;
    let bundle =
        Bundle { companions: serde_json::from_slice(&answer[..end])?, bytes: answer[end + 1..].to_vec() };
    let length = bundle.companions.file.as_ref().map_or(0, |file| file.bytes);
    match length == bundle.bytes.len() as u64 {
        true => Ok(bundle),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn make(settings: &Backup) -> Result<Bundle> {
    if !settings.companions {
        return Ok(Bundle::default());
    }
    let encryption = encryption::prepare(settings)?;
    let packing = (create::packing(settings), settings.compression);
    bundle::find(Path::new("/")).pack(encryption.as_ref(), packing)
}

/// Answers who has asked on standard output, a socket.
///
/// # Errors
/// [`Kind::Config`] for an encryption that does not work, and others of reading and packing.
pub fn answer(settings: &Backup) -> Result<()> {
    let Bundle { companions, bytes } = make(settings)?;
    let failed =
        |error: std::io::Error| Error::new(Kind::Program, "could not answer a backup").because(error);
    let text = serde_json::to_string(&companions).map_err(|error| failed(error.into()))?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{text}")
        .and_then(|()| output.write_all(&bytes))
        .and_then(|()| output.flush())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::companions::Companions;

    #[test]
    fn half_an_answer_is_none() {
        let whole = br#"{"paths":["/a"],"file":{"file":"f","bytes":3,"sha256":"","content_bytes":1,"content_sha256":""}}"#;
        let whole = [whole.as_slice(), b"\na\nb"].concat();
        assert_eq!(parse(&whole).unwrap().bytes, b"a\nb");
        for length in [0, 5, whole.len() - 5, whole.len() - 1] {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        assert_eq!(parse(b"{\"paths\":[]}\n").unwrap().companions, Companions::default());
    }
}
