//! postgres(1): the server's arguments, and a server of our own on a private socket.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::data_directory::{LOCK_FILE, is_ready};
use super::{Connection, Major, Startup};
use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::files::beneath;
use crate::runtime::{Call, Child, Runtime, Sandbox, interrupt};

/// A server on `data_directory` whose socket is in `connection`'s directory, if it has one; `listen` are its TCP addresses.
/// Given as arguments they hold whatever the cluster's postgresql.conf says.
pub fn arguments(data_directory: &Path, connection: &Connection, listen: &[String]) -> Call {
    let mut call = Call::new("postgres", ["-D"]);
    call.arguments.push(data_directory.into());
    let sockets = connection.socket_directory().map(|directory| quoted(&directory.to_string_lossy()));
    for (name, value) in [
        ("unix_socket_directories", sockets.unwrap_or_default()),
        ("port", connection.port.to_string()),
        ("listen_addresses", listen.join(",")),
    ] {
        call.arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    call
}

/// `unix_socket_directories` is a list: a name with a comma or a space in it must be quoted.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', "\"\""))
}

/// What a server of our own may do with files: nothing outside of its own directories, but for the files of rules.
fn allowed(startup: &Startup, data_directory: &Path, connection: &Connection) -> Sandbox {
    let sandbox = startup.sandbox().clone().with_cluster(data_directory);
    let sandbox = connection.socket_directory().into_iter().fold(sandbox, Sandbox::with_directory);
    let files = startup.settings().iter().filter_map(|setting| {
        setting.strip_prefix("hba_file=").or_else(|| setting.strip_prefix("ident_file="))
    });
    // Other files of rules, which they name, are beside them.
    let directories = files.filter_map(|file| Path::new(file).parent());
    directories.fold(sandbox, Sandbox::with_readable)
}

/// A server that only we talk to, in a process of ours and in a sandbox; it is stopped when dropped.
#[derive(Debug)]
pub struct PrivateServer {
    child: Option<Child>,
}

impl PrivateServer {
    /// Starts the cluster in `data_directory` on the socket of `connection`, without TCP, with settings that hold whatever
    /// the cluster's own files say, and waits until it accepts connections.
    ///
    /// # Errors
    /// [`Kind::Server`] if it ends by itself or is not ready in time, with its last words.
    pub fn start(
        runtime: &dyn Runtime,
        major: Major,
        data_directory: &Path,
        connection: &Connection,
        account: &Account,
        startup: &Startup,
        deadline: Duration,
    ) -> Result<Self> {
        let settings = startup.settings();
        let mut call = arguments(data_directory, connection, &[]);
        call.arguments.extend(settings.iter().flat_map(|setting| ["-c".into(), setting.into()]));
        call.arguments.extend(startup.is_for_binary_upgrade().then(|| "-b".into()));
        let call = call.as_user(account);
        let name = format!("postgres on {}", data_directory.display());
        let allowed = allowed(startup, data_directory, connection);
        let mut child = runtime.start_server(major, &call, allowed, name)?;
        let limit = Instant::now() + deadline;
        while !accepts(connection, data_directory) {
            interrupt::check()?;
            if child.has_ended() {
                return child.wait().map_err(|error| error.with_kind(Kind::Server)).and_then(|()| {
                    Err(Error::new(
                        Kind::Server,
                        format!("postgres on {} exited immediately", data_directory.display()),
                    ))
                });
            }
            if Instant::now() > limit {
                return Err(Error::new(
                    Kind::Server,
                    format!(
                        "postgres on {} was not ready within {} s",
                        data_directory.display(),
                        deadline.as_secs()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { child: Some(child) })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(Child::has_ended)
    }

    /// Stops it ("fast": clients are cut off, everything is written) and waits for its end.
    ///
    /// # Errors
    /// [`Kind::Program`] if it did not end cleanly.
    pub fn stop(self) -> Result<()> {
        self.stop_and_tell().map(drop)
    }

    /// The same; returns the last lines that it has said.
    ///
    /// # Errors
    /// As [`PrivateServer::stop`].
    pub fn stop_and_tell(mut self) -> Result<String> {
        let Some(mut child) = self.child.take() else { return Ok(String::new()) };
        end(&mut child, &ENDING);
        let (status, stderr) = child.wait_status()?;
        match status.success() {
            true => Ok(stderr),
            false => Err(Error::new(Kind::Program, format!("postgres did not shut down cleanly ({status})"))
                .because(stderr)),
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, &ENDING);
            let _ = child.wait_status();
        }
    }
}

/// "Fast", then "immediate" (chapter "Shutting Down the Server"), each for so long; what does not end then is killed. The
/// last checkpoint of a large cluster takes minutes.
const ENDING: [(Signal, Duration); 2] =
    [(Signal::SIGINT, Duration::from_secs(1800)), (Signal::SIGQUIT, Duration::from_secs(60))];

/// Sees to it that a server ends.
fn end(child: &mut Child, ending: &[(Signal, Duration)]) {
    for (signal, patience) in ending {
        child.signal(*signal);
        let limit = Instant::now() + *patience;
        while Instant::now() < limit {
            if child.has_ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        log::warn!("process {} did not end after {signal}", child.pid());
    }
    child.signal(Signal::SIGKILL);
}

fn accepts(connection: &Connection, data_directory: &Path) -> bool {
    !connection.is_absent()
        && beneath::read(&data_directory.join("postmaster.pid"), LOCK_FILE)
            .is_ok_and(|text| is_ready(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended() {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "trap '' INT QUIT; echo >&2; while :; do sleep 1; done"]);
        let mut child = Child::spawn(command, "a server").unwrap();
        let moment = Duration::from_millis(50);
        end(&mut child, &[(Signal::SIGINT, moment), (Signal::SIGQUIT, moment)]);
        assert!(!child.wait_status().unwrap().0.success());
    }

    #[test]
    fn without_addresses_there_is_no_tcp() {
        let call = arguments(Path::new("/d"), &Connection::new(Path::new("/run/a b"), 5433, "x"), &[]);
        let text: Vec<_> = call.arguments.iter().map(|a| a.to_string_lossy()).collect();
        assert_eq!(
            text,
            [
                "-D",
                "/d",
                "-c",
                "unix_socket_directories=\"/run/a b\"",
                "-c",
                "port=5433",
                "-c",
                "listen_addresses="
            ]
        );
    }
}
