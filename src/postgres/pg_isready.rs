//! pg_isready(1): whether a server lets clients in, whoever they are.

use std::process::Stdio;

use super::{Connection, Major};
use crate::error::Result;
use crate::runtime::{Call, Child, Runtime};

/// What it is called.
const NAME: &str = "pg_isready";

/// The exit status for a server that is there, and refuses everybody: it starts, recovers from a crash, or stops.
const REJECTING: i32 = 1;

/// Asks where the server listens.
pub fn ask(connection: &Connection) -> Call {
    Call::new(NAME, ["--quiet".to_owned(), "--dbname".to_owned(), connection.conninfo_for_presence()])
}

/// Whether the server is there, and refuses everybody.
///
/// # Errors
/// [`crate::Kind::NotInstalled`], [`crate::Kind::Program`] if it cannot be asked.
pub fn is_rejecting(runtime: &dyn Runtime, major: Major, connection: &Connection) -> Result<bool> {
    let mut command = runtime.command(major, &ask(connection))?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (status, _) = Child::spawn(command, NAME)?.wait_status()?;
    Ok(status.code() == Some(REJECTING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn it_asks_at_the_socket_and_nobody_in_particular() {
        let call = ask(&Connection::new(Path::new("/run/x"), 5433, "postgres"));
        let expected = "host='/run/x' port=5433 connect_timeout=120";
        assert_eq!(call.arguments, ["--quiet", "--dbname", expected]);
    }
}
