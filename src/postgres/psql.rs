//! SQL goes through `psql`, as one more external program: every runtime then has the same one way in.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use serde::de::DeserializeOwned;

use super::away::{has_no_network, hint, is_away};
use super::{Connection, HELPERS, HOME, Major};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::runtime::{Call, Child, Runtime, interrupt, output};

/// psql for a script on standard input that changes nothing: no start-up file, bare tuples, stop at the first error.
pub fn script(connection: &Connection, database: &str) -> Call {
    bare(&connection.conninfo_for_asking(database))
}

/// The same for one that does.
fn change(connection: &Connection, database: &str) -> Call {
    bare(&connection.conninfo_for_changing(database))
}

/// The same for a script on standard input over this connection.
pub fn script_over(conninfo: &str) -> Call {
    bare(conninfo)
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
            // Without the statement, in which there may be anything.
            "--set=VERBOSITY=terse",
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

/// A line for psql, after which it carries out no command of its own, such as one that runs a program or leads into another
/// database, but for `\unrestrict` with the same key; nothing where psql is older than that (13.22, 14.19, 15.14, 16.10,
/// 17.6 and 18 have it; psql(1), CVE-2025-8714). The key is of no use to anybody but the script that it stands in.
///
/// # Errors
/// Those of psql.
pub fn restriction(runtime: &dyn Runtime, major: Major) -> Result<String> {
    let command = runtime.command(major, &Call::new("psql", ["--version"]))?;
    let version = output(command, "psql --version", &[])?;
    match restricts(&String::from_utf8_lossy(&version)) {
        true => key().map(|key| format!("\\restrict {key}\n")),
        false => Ok(String::new()),
    }
}

fn restricts(version: &str) -> bool {
    let number = version.split_once("(PostgreSQL) ").map_or("", |(_, number)| number);
    let number = number.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let first = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];
    major >= 18 || first.iter().any(|(of, since)| major == *of && minor >= *since)
}

/// As many random bytes as a key has, in hexadecimal digits.
///
/// # Errors
/// [`Kind::File`].
pub fn key() -> Result<String> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).at("read", source)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
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

impl<'a> Session<'a> {
    /// With the newest psql that is installed. Where there is none, the first question says so.
    pub fn newest(runtime: &'a dyn Runtime, connection: &'a Connection) -> Self {
        Self { runtime, major: runtime.majors().last().copied().unwrap_or(Major(0)), connection }
    }
}

impl Session<'_> {
    /// Runs a script for its effect.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words.
    pub fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.carry_out(|| change(self.connection, database), database, sql.as_bytes()).map(drop)
    }

    /// Runs statements that others wrote: psql does nothing of its own for them, and what they say is not part of an error.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words.
    pub fn execute_foreign(&self, database: &str, sql: &str) -> Result<()> {
        let call = || {
            let mut call = change(self.connection, database);
            call.arguments.insert(0, "--set=VERBOSITY=terse".into());
            call
        };
        let script = restriction(self.runtime, self.major)? + sql;
        self.carry_out(call, database, script.as_bytes()).map(drop)
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

    /// Reads all rows of a table, which is quoted as in SQL, in COPY's text format, after the statements in `settings`: without a
    /// plan, and so without a look at the expressions of its indexes, see [`PLANNING_CALLS`](super::PLANNING_CALLS). A line end
    /// is that of a row.
    ///
    /// # Errors
    /// [`Kind::Server`] with the server's own words; those of `sink`.
    pub fn copied(
        &self,
        database: &str,
        settings: &str,
        table: &str,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<()> {
        self.copied_until(database, settings, table, |piece| {
            sink(piece);
            true
        })
    }

    /// The same, for as long as `sink` wants more.
    ///
    /// # Errors
    /// As [`Session::copied`].
    pub fn copied_until(
        &self,
        database: &str,
        settings: &str,
        table: &str,
        mut sink: impl FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        let mut command = self.runtime.command(self.major, &script(self.connection, database))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, "psql")?;
        let lost = |error| Error::new(Kind::Program, "the connection to psql broke").because(error);
        if let Some(mut stdin) = child.stdin() {
            stdin.write_all(format!("{settings}COPY {table} TO STDOUT;\n").as_bytes()).map_err(lost)?;
        }
        let mut piece = vec![0; 64 * 1024];
        if let Some(mut stdout) = child.stdout() {
            loop {
                match stdout.read(&mut piece).map_err(lost)? {
                    0 => break,
                    length if sink(&piece[..length]) => {}
                    _ => return Ok(()),
                }
                interrupt::check()?;
            }
        }
        child.wait().map_err(|error| error.with_kind(Kind::Server))
    }

    fn ask(&self, database: &str, sql: &str) -> Result<Vec<u8>> {
        self.carry_out(|| script(self.connection, database), database, sql.as_bytes())
    }

    fn carry_out(&self, call: impl Fn() -> Call, database: &str, sql: &[u8]) -> Result<Vec<u8>> {
        let run = || {
            let command = self.runtime.command(self.major, &call())?;
            output(command, &format!("psql on database {:?}", self.connection.resolve(database)), sql)
        };
        let done = match run() {
            Err(error)
                if database == HOME && was_not_let_in(&error) && !is_away(&error) && self.find_home()? =>
            {
                run()
            }
            done => done,
        };
        done.map_err(|error| match error.kind() {
            Kind::Program if database == HOME && was_not_let_in(&error) => {
                self.explain(error).hint("createdb postgres, as superuser")
            }
            Kind::Program => self.explain(error),
            _ => error,
        })
    }

    /// Looks for a database that lets us in where [`HOME`] does not.
    fn find_home(&self) -> Result<bool> {
        if self.connection.resolve(HOME) != HOME || self.connection.is_absent() {
            return Ok(false);
        }
        for database in self.connection.homes() {
            let command = self.runtime.command(self.major, &script(self.connection, database))?;
            if output(command, "psql", b"SELECT 1;").is_ok() {
                // A session that ended early for another reason has nothing to do with its database.
                if database != HOME {
                    self.connection.stand_in(database);
                }
                return Ok(database != HOME);
            }
        }
        Ok(false)
    }

    fn explain(&self, error: Error) -> Error {
        if let Some(remote) = self.connection.endpoint().remote() {
            let said = error.report();
            let what = match (is_away(&error) || has_no_network(&said), was_not_let_in(&error)) {
                (true, _) => "cannot be reached",
                (false, true) => "refused the login",
                (false, false) => return error.with_kind(Kind::Server),
            };
            let next = hint(&said, &remote.host, self.connection.port);
            let message = format!("the server {} {what}", self.connection.place());
            return error.with_kind(Kind::Server).context(message).hint(next);
        }
        match self.connection.is_absent() {
            true => {
                Error::new(Kind::Server, format!("no server is listening on {}", self.connection.place()))
                    .hint(format!("systemctl start {}", self.connection.unit()))
            }
            // As whom backups are made is a matter of where the server is.
            false if error.report().contains("Peer authentication failed") => {
                error.with_kind(Kind::Server).hint("matrix-postgres setup")
            }
            false => error.with_kind(Kind::Server),
        }
    }
}

/// psql's exit status where there was no session (psql(1), "Exit Status").
fn was_not_let_in(error: &Error) -> bool {
    error.kind() == Kind::Program && error.to_string().ends_with("(exit status 2)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_psql_that_can_be_restricted_is_known_by_its_version() {
        for (version, can) in [
            ("13.21", false),
            ("13.22 (Debian)", true),
            ("15.18 (x)", true),
            ("17.5", false),
            ("18.0", true),
            ("19rc1", true),
            ("12.22", false),
        ] {
            assert_eq!(restricts(&format!("psql (PostgreSQL) {version}\n")), can, "{version}");
        }
    }

    #[test]
    fn the_first_error_ends_a_script_and_no_password_is_asked_for() {
        let call = script(&Connection::new(Path::new("/s"), 1, "u"), "d");
        for expected in ["--set=ON_ERROR_STOP=1", "--no-password", "--no-psqlrc"] {
            assert!(call.arguments.iter().any(|argument| argument == expected), "{expected}");
        }
    }
}
