//! Where PostgreSQL's programs run, and how a child process is watched.
//!
//! The rest of the program makes a [`Call`], a plain value, and asks a [`Runtime`] for the command that
//! carries it out; nothing else knows whether that is a program of this machine.

mod call;
mod container;
mod engine;
mod env_file;
mod guard;
mod host;
pub mod interrupt;
mod limit;
mod mixed;
mod outside;
mod process;
mod sandbox;
mod signal;
pub mod standby;
mod together;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use call::{Argument, Call, Inside};
pub use container::{Container, Image};
pub use engine::Engine;
pub use env_file::EnvFile;
pub use guard::Guard;
pub use host::{Host, bare, tool};
pub use limit::output_within;
pub use mixed::Mixed;
pub use outside::{from_outside, sees_every_process};
pub use process::{Child, exit_code, fields_of_stat, output, run_and_quote};
pub use sandbox::Sandbox;
pub use signal::Process;
pub use standby::Standby;
pub use together::together;

use nix::unistd::geteuid;

use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::version::Major;

/// A place where PostgreSQL's programs run.
pub trait Runtime: Sync {
    /// The major versions whose server programs are installed, oldest first.
    fn majors(&self) -> Vec<Major>;

    /// Those that need no container, oldest first.
    fn near_majors(&self) -> Vec<Major> {
        self.majors()
    }

    /// The extensions that a server of `major` can create.
    ///
    /// # Errors
    /// [`crate::Kind::File`] if the directory of their control files cannot be read.
    fn extensions(&self, major: Major) -> Result<BTreeSet<String>>;

    /// Whether a server of `major` could load a library that is named as in `shared_preload_libraries`; nothing
    /// where that cannot be told.
    fn has_library(&self, _major: Major, _library: &str) -> Option<bool> {
        None
    }

    /// The directory of the programs of `major`, as its programs find it, where one can call those of several majors.
    fn programs(&self, _major: Major) -> Option<PathBuf> {
        None
    }

    /// How a program that runs here finds what has this path on this machine. The directories of sockets have the same path on
    /// both sides: a connection is one to servers and to ourselves.
    fn inside(&self, path: &Path) -> Inside {
        Inside(path.to_owned())
    }

    /// The command that carries out `call` with the programs of `major`, in a clean environment and as the user that it names.
    ///
    /// # Errors
    /// [`crate::Kind::NotInstalled`], naming the package that brings them.
    fn command(&self, major: Major, call: &Call) -> Result<Command>;

    /// Starts a server that is ours alone; it may do with files what `allowed` says, and what its program needs. Messages call it
    /// `name`.
    ///
    /// # Errors
    /// As [`Runtime::command`], and [`crate::Kind::Program`] if it does not start.
    fn start_server(&self, _major: Major, _call: &Call, _allowed: Sandbox, name: String) -> Result<Child> {
        Err(Error::new(Kind::Bug, format!("{name} cannot be started in this runtime")))
    }

    /// How many connections work at the same time.
    fn jobs(&self) -> usize {
        jobs()
    }

    /// Gives an open file to whom its programs run as, who may open it by its name.
    ///
    /// # Errors
    /// Those of fchown(2).
    fn give(&self, file: BorrowedFd<'_>) -> std::io::Result<()> {
        match self.account() {
            Some(account) => fchown(file, Some(account.uid.as_raw()), Some(account.gid.as_raw())),
            None => Ok(()),
        }
    }

    /// As whom its commands run, if that is not who we are: what they are to read must be readable for this user.
    fn account(&self) -> Option<&Account> {
        None
    }
}

/// How many workers do something when nobody said: one for each processor, eight at most.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

/// How many connections work at the same time, with servers of this machine.
pub fn jobs() -> usize {
    default_threads().max(2)
}

/// The programs of another runtime, run as this user, but for calls that name another.
pub struct AsUser<'a> {
    /// Where they run.
    pub runtime: &'a dyn Runtime,
    /// As whom.
    pub account: &'a Account,
}

impl AsUser<'_> {
    fn by_user(&self, call: &Call) -> Call {
        let user = call.user.as_ref().unwrap_or(self.account);
        call.clone().as_user(user)
    }
}

impl Runtime for AsUser<'_> {
    fn majors(&self) -> Vec<Major> {
        self.runtime.majors()
    }

    fn near_majors(&self) -> Vec<Major> {
        self.runtime.near_majors()
    }

    fn extensions(&self, major: Major) -> Result<BTreeSet<String>> {
        self.runtime.extensions(major)
    }

    fn has_library(&self, major: Major, library: &str) -> Option<bool> {
        self.runtime.has_library(major, library)
    }

    fn programs(&self, major: Major) -> Option<PathBuf> {
        self.runtime.programs(major)
    }

    fn inside(&self, path: &Path) -> Inside {
        self.runtime.inside(path)
    }

    fn command(&self, major: Major, call: &Call) -> Result<Command> {
        self.runtime.command(major, &self.by_user(call))
    }

    fn start_server(&self, major: Major, call: &Call, allowed: Sandbox, name: String) -> Result<Child> {
        self.runtime.start_server(major, &self.by_user(call), allowed, name)
    }

    fn jobs(&self) -> usize {
        self.runtime.jobs()
    }

    fn account(&self) -> Option<&Account> {
        Some(self.account).filter(|account| account.uid != geteuid())
    }
}
