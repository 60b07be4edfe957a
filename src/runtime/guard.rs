//! A command that is carried out when this process dies before its work is done, even by SIGKILL.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use super::host::{bare, tool};
use crate::error::{Error, Kind, Result};

/// It waits for a line. At the end of a pipe that nobody has open any more, there is none.
const SCRIPT: &str = "trap '' HUP INT TERM; read -r _ || exec \"$@\"";

/// A process in a session of its own that outlives us, and waits. Only [`Guard::dismiss`] keeps it from carrying out
/// its command.
#[derive(Debug)]
#[must_use = "the command is carried out when this is dropped"]
pub struct Guard {
    process: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// Posts a guard that will carry out this command, a program by its absolute path and its arguments, in a clean
    /// environment.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`] or [`Kind::Program`] if there cannot be one.
    pub fn post<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Result<Self> {
        let not_posted = || {
            Error::new(Kind::Program, format!("could not start a guard process for {}", program.display()))
        };
        let mut command = bare(&tool("setsid", "util-linux")?);
        command.arg("/bin/sh").args(["-c", SCRIPT, "sh"]).arg(program).args(arguments);
        // Whoever waits for all that write to our terminal or journal must not wait for it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(|error| not_posted().because(error))?;
        // No program that we start holds the other end: it is closed on exec.
        let pipe = process.stdin.take().ok_or_else(not_posted)?;
        Ok(Self { process, pipe })
    }

    /// The work is done: it ends without carrying out anything.
    pub fn dismiss(mut self) {
        let told = self.pipe.write_all(b"done\n");
        drop(self.pipe);
        let ended = self.process.wait();
        if let Err(error) = told.and(ended) {
            log::warn!("a guard process ended early: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn it_acts_unless_it_is_dismissed() {
        let directory = tempfile::tempdir().unwrap();
        let touch = tool("touch", "coreutils").unwrap();
        let [dismissed, dropped] = ["dismissed", "dropped"].map(|name| directory.path().join(name));
        Guard::post(&touch, [&dismissed]).unwrap().dismiss();
        drop(Guard::post(&touch, [&dropped]).unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !dropped.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(dropped.exists() && !dismissed.exists());
    }
}
