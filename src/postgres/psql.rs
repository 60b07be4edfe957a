//! SQL goes through `psql`, as one more external program: every runtime then has the same one way in.

use std::io::ErrorKind;

use serde::de::DeserializeOwned;

use super::{Connection, HELPERS, Major};
use crate::error::{Error, Kind, Result};
use crate::runtime::{Call, Runtime, output};

/// psql for a script on standard input that changes nothing: no start-up file, bare tuples, stop at the first error.
pub fn script(connection: &Connection, database: &str) -> Call {
    bare(&connection.conninfo_for_asking(database))
}

/// The same for one that does.
fn change(connection: &Connection, database: &str) -> Call {
    bare(&connection.conninfo_for_changing(database))
}

fn bare(conninfo: &str) -> Call {
    Call::new(
        "psql",
        [
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
            "--dbname",
            conninfo,
        ],
    )
}

/// psql for SQL that others wrote, such as a dump, on standard input: the first error ends it.
pub fn load(connection: &Connection, database: &str) -> Call {
    Call::new(
        "psql",
        [
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--output=/dev/null",
            "--file=-",
            "--dbname",
            &connection.conninfo_for_loading(database, HELPERS),
        ],
    )
}

/// psql that logs in as a standby does, and asks only who the server is (chapter "Streaming Replication Protocol").
pub fn identify_system(connection: &Connection) -> Call {
    Call::new(
        "psql",
        [
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--command=IDENTIFY_SYSTEM",
            "--dbname",
            &format!("{} replication=true", connection.conninfo_for_replication()),
        ],
    )
}

/// A way to ask one server for things.
pub struct Session<'a> {
    /// Where psql runs.
    pub runtime: &'a dyn Runtime,
    /// Whose psql: any version talks to any server, so that the newest one will do.
    pub major: Major,
    /// The server.
    pub connection: &'a Connection,
}

impl Session<'_> {
    /// Runs a script for its effect.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words.
    pub fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.carry_out(&change(self.connection, database), database, sql.as_bytes()).map(drop)
    }

    /// Runs a query that returns one JSON document: whatever names and values are made of, they arrive whole.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words.
    pub fn query<T: DeserializeOwned>(&self, database: &str, sql: &str) -> Result<T> {
        let answer = self.ask(database, sql)?;
        serde_json::from_slice(&answer).map_err(|error| {
            let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
            Error::new(Kind::Bug, format!("unexpected answer to a query on database {database:?}: {text:?}"))
                .because(error)
        })
    }

    /// Runs a script whose queries return one JSON document each.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words.
    pub fn answers<T: DeserializeOwned>(&self, database: &str, sql: &str) -> Result<Vec<T>> {
        let answers = self.ask(database, sql)?;
        serde_json::Deserializer::from_slice(&answers).into_iter().collect::<Result<_, _>>().map_err(
            |error| {
                Error::new(Kind::Bug, format!("unexpected answer to a script on database {database:?}"))
                    .because(error)
            },
        )
    }

    /// Runs SQL that pg_dump wrote.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words.
    pub fn load(&self, database: &str, sql: &[u8]) -> Result<()> {
        self.carry_out(&load(self.connection, database), database, sql).map(drop)
    }

    fn ask(&self, database: &str, sql: &str) -> Result<Vec<u8>> {
        self.carry_out(&script(self.connection, database), database, sql.as_bytes())
    }

    fn carry_out(&self, call: &Call, database: &str, sql: &[u8]) -> Result<Vec<u8>> {
        let command = self.runtime.command(self.major, call)?;
        let name = format!("psql on database {database:?}");
        output(command, &name, sql).map_err(|error| match error.kind() {
            Kind::Program => self.explain(error),
            _ => error,
        })
    }

    fn explain(&self, error: Error) -> Error {
        let socket = self.connection.socket();
        let gone = matches!(socket.symlink_metadata(), Err(e) if e.kind() == ErrorKind::NotFound);
        match gone {
            true => Error::new(Kind::Server, format!("no server listens on {}", socket.display()))
                .hint("systemctl start matrix-postgres.service"),
            false => error.with_kind(Kind::Server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_first_error_ends_a_script_and_no_password_is_asked_for() {
        let call = script(&Connection::new(Path::new("/s"), 1, "u"), "d");
        for expected in ["--set=ON_ERROR_STOP=1", "--no-password", "--no-psqlrc"] {
            assert!(call.arguments.iter().any(|argument| argument == expected), "{expected}");
        }
    }
}
