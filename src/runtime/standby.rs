//! Who stands by a throw-away container: it is removed however this ends.
//!
//! Signals reach the program by way of docker's client and of an init process in the container, without which `pg_dumpall`,
//! `psql` and a shell ignore SIGTERM. Killed itself, docker's client leaves the container and its locks behind. Therefore it is
//! removed by name when the client has not ended in order, when whoever has called us is gone, and, by a [`Guard`], when we are.
//! What a kill of all of them leaves has a label with our process, and the next one removes what bears that of none.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, ExitStatus};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use rustix::process::{PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::host::bare;
use super::process::{fields_of_stat, output};
use super::{Engine, Guard};
use crate::error::{Error, Kind, Result};

/// The label of our containers; its value is the process that stands by.
const LABEL: &str = "matrix-postgres.process";

/// Where an init process for containers is that podman has by itself; docker brings its own.
const INITS: [&str; 3] = ["/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit"];

/// The option for an init process, where there is one.
pub(super) fn init(engine: Engine) -> Option<&'static str> {
    let has_one = engine == Engine::Docker || INITS.iter().any(|file| Path::new(file).exists());
    has_one.then_some("--init")
}

/// A container that is removed whatever happens.
#[derive(Debug)]
pub struct Standby {
    engine: Engine,
    name: String,
    client: Child,
    guard: Guard,
}

impl Standby {
    /// Removes what others have left behind, and calls `docker run` with these arguments; a name and a label come before them.
    /// Standard input, output and error are those of the caller, unless `files` replaces them.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`], [`Kind::Program`].
    pub fn run(
        engine: Engine,
        arguments: &[OsString],
        files: impl FnOnce(&mut std::process::Command),
    ) -> Result<Self> {
        let program = engine.program()?;
        remove_abandoned(engine)?;
        let me = std::process::id();
        let name = format!(
            "matrix-postgres-{me}-{:08x}",
            started(Path::new("/proc"), me).unwrap_or_default() & 0xffff_ffff
        );
        let guard = Guard::post(&program, ["rm", "--force", "--volumes", &name])?;
        let mut command = bare(&program);
        command
            .args(["run", "--name", &name, "--label", &format!("{LABEL}={}", identity(me))])
            .args(arguments);
        files(&mut command);
        let client = command
            .spawn()
            .map_err(|error| Error::new(Kind::Program, format!("could not start {engine}")).because(error))?;
        Ok(Self { engine, name, client, guard })
    }

    /// The client's number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.client.id().cast_signed())
    }

    /// Waits for the program's end. The container is gone then.
    ///
    /// # Errors
    /// [`Kind::Program`] if the system cannot tell.
    pub fn wait(mut self) -> Result<ExitStatus> {
        let status = self.client.wait().map_err(|error| {
            Error::new(Kind::Program, format!("could not wait for {}", self.engine)).because(error)
        });
        // It removes its container by itself, if it gets to it; of one that is gone there is nothing to say.
        let is_in_order = status.as_ref().is_ok_and(|status| status.code().is_some_and(|code| code < 125));
        if !is_in_order {
            remove(self.engine, &[&self.name]);
        }
        self.guard.dismiss();
        status
    }
}

/// Passes on signals to this process, and ends it when who has called us is gone.
///
/// # Errors
/// [`Kind::Bug`] if the kernel refuses.
pub fn pass_on(client: Pid) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])
        .map_err(|error| Error::new(Kind::Bug, "could not listen for signals").because(error))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let _ = Signal::try_from(signal).map(|signal| kill(client, signal));
        }
    });
    let parent = rustix::process::Pid::from_raw(getppid().as_raw());
    let parent = parent.and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok());
    if let Some(parent) = parent {
        std::thread::spawn(move || {
            let mut ends = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
            while poll(&mut ends, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
            let _ = kill(client, Signal::SIGKILL);
        });
    }
    Ok(())
}

/// A process as nobody else is it: its number, and when it was started (proc_pid_stat(5)).
fn identity(pid: u32) -> String {
    format!("{pid}.{}", started(Path::new("/proc"), pid).unwrap_or_default())
}

fn started(proc: &Path, pid: u32) -> Option<u64> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    fields_of_stat(&text)?.get(19)?.parse().ok()
}

/// Removes what calls that were killed have left behind.
///
/// # Errors
/// [`Kind::NotInstalled`], [`Kind::Program`].
pub fn remove_abandoned(engine: Engine) -> Result<()> {
    let mut command = bare(&engine.program()?);
    command.args(["ps", "--all", "--no-trunc", "--filter", &format!("label={LABEL}")]);
    command.args(["--format", &format!("{{{{.ID}}}} {{{{.Label {LABEL:?}}}}}")]);
    let text = output(command, &format!("{engine} ps"), &[])?;
    let text = String::from_utf8_lossy(&text);
    let ids = abandoned(&text, |process| {
        process.split_once('.').is_some_and(|(pid, _)| pid.parse().is_ok_and(|pid| identity(pid) == process))
    });
    if !ids.is_empty() {
        log::warn!("removing {} containers of runs that were killed", ids.len());
        remove(engine, &ids);
    }
    Ok(())
}

/// The containers of processes that are not `alive`, of lines with an id and a label.
fn abandoned(text: &str, alive: impl Fn(&str) -> bool) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, process)| !alive(process.trim())).map(|(id, _)| id).collect()
}

fn remove<A: AsRef<OsStr>>(engine: Engine, containers: &[A]) {
    let removed = engine.program().and_then(|program| {
        let mut command = bare(&program);
        command.args(["rm", "--force", "--volumes"]).args(containers);
        output(command, &format!("{engine} rm"), &[])
    });
    if let Err(error) = removed
        && !error.report().to_lowercase().contains("no such container")
    {
        log::warn!("{}", error.report());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bears_the_label_of_a_process_that_is_gone_is_abandoned() {
        let me = identity(std::process::id());
        let text = format!("aa {me}\nbb 1.0\ncc {}\n", identity(u32::MAX));
        let found = abandoned(&text, |process| process == me);
        assert_eq!(found, ["bb", "cc"]);
        assert!(me.split_once('.').unwrap().1.parse::<u64>().unwrap() > 0);
    }
}
