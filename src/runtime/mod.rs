//! Where PostgreSQL's programs run, and how a child process is watched.
//!
//! The rest of the program makes a [`Call`], a plain value, and asks a [`Runtime`] for the command that
//! carries it out; nothing else knows whether that is a program of this machine.

mod guard;
mod host;
pub mod interrupt;
mod limit;
mod process;
mod sandbox;
mod signal;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

pub use guard::Guard;
pub use host::{Host, bare, tool};
pub use limit::output_within;
pub use process::{Child, output, output_in_silence, run_and_quote};
pub use sandbox::Sandbox;
pub use signal::Process;

use nix::unistd::geteuid;

use crate::account::Account;
use crate::error::Result;
use crate::version::Major;

/// One call of one of PostgreSQL's programs, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The program's name, such as `pg_dump`.
    pub program: &'static str,
    /// Its arguments. Never a secret: every user of the machine can read them.
    pub arguments: Vec<OsString>,
    /// What it finds in its environment beside what every program does. Never a secret either.
    pub environment: Vec<(&'static str, OsString)>,
    /// Whether it writes so much that its standard output should have a large buffer.
    pub bulk_output: bool,
}

impl Call {
    /// A call of `program` with these arguments.
    pub fn new<A: Into<OsString>>(program: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, environment: Vec::new(), bulk_output: false }
    }

    /// The same call with a large buffer for its standard output, where the runtime can give it one.
    #[must_use]
    pub fn with_bulk_output(mut self) -> Self {
        self.bulk_output = true;
        self
    }
}

/// A place where PostgreSQL's programs run.
pub trait Runtime: Sync {
    /// The major versions whose server programs are installed, oldest first.
    fn majors(&self) -> Vec<Major>;

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

    /// The directory of the programs of `major`, where one program can call those of several majors.
    fn programs(&self, _major: Major) -> Option<PathBuf> {
        None
    }

    /// The command that carries out `call` with the programs of `major`, in a clean environment.
    ///
    /// # Errors
    /// [`crate::Kind::NotInstalled`], naming the package that brings them.
    fn command(&self, major: Major, call: &Call) -> Result<Command>;

    /// As whom its commands run, if that is not who we are: what they are to read must be readable for this user.
    fn account(&self) -> Option<&Account> {
        None
    }
}

/// The programs of another runtime, run as this user.
pub struct AsUser<'a> {
    /// Where they run.
    pub runtime: &'a dyn Runtime,
    /// As whom.
    pub account: &'a Account,
}

impl Runtime for AsUser<'_> {
    fn majors(&self) -> Vec<Major> {
        self.runtime.majors()
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

    fn command(&self, major: Major, call: &Call) -> Result<Command> {
        let mut command = self.runtime.command(major, call)?;
        self.account.apply(&mut command);
        Ok(command)
    }

    fn account(&self) -> Option<&Account> {
        Some(self.account).filter(|account| account.uid != geteuid())
    }
}
