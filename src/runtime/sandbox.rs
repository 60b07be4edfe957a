//! What a program of ours may do with files: by Landlock, so that it holds whatever the program is talked into.
//!
//! A server that restores somebody's dump runs functions, and one that is the administrator's runs commands of his.
//! Neither needs more than its own directories and PostgreSQL's programs.

use std::path::{Path, PathBuf};
use std::sync::Once;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};

use crate::error::{Error, Kind, Result};
use crate::terminal;

/// Programs, libraries, time zones, locales; what every process reads of the kernel.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/dev/random",
    // The name service of systemd, and resolv.conf.
    "/run/systemd",
];

/// POSIX shared memory, and where output goes that nobody wants.
const SHARED: [&str; 2] = ["/dev/shm", "/dev/null"];

/// Where the dynamic loader is, which the kernel executes as the program's interpreter.
const LOADERS: [&str; 2] = ["/lib", "/lib64"];

/// The shell of system(3) and popen(3), and what pg_upgrade has it do.
const SHELL: [&str; 4] = ["/bin/sh", "/bin/cp", "/bin/mv", "/bin/rm"];

/// What is allowed, as a value; everything else is not. Paths that are not there are no permission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    writable: Vec<PathBuf>,
    readable: Vec<PathBuf>,
    executable: Vec<PathBuf>,
}

impl Sandbox {
    /// For what every program needs, and no program.
    pub fn new() -> Self {
        let mut executable = [terminal::SETSID, terminal::SETPRIV].map(PathBuf::from).to_vec();
        executable.extend(LOADERS.iter().flat_map(|directory| loaders(Path::new(directory))));
        Self {
            writable: SHARED.map(PathBuf::from).to_vec(),
            readable: SYSTEM.map(PathBuf::from).to_vec(),
            executable,
        }
    }

    /// For the programs in these directories, and everything that is linked into them.
    pub fn of_programs(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::new().with_programs(directories)
    }

    /// It may also be these programs, and those in these directories.
    #[must_use]
    pub fn with_programs(mut self, programs: impl IntoIterator<Item = PathBuf>) -> Self {
        self.executable.extend(programs);
        self
    }

    /// It may also do as it likes below this directory, and where a cluster in it says that parts of it are: the log, and
    /// tablespaces.
    #[must_use]
    pub fn with_cluster(mut self, data_directory: &Path) -> Self {
        let tablespaces = std::fs::read_dir(data_directory.join("pg_tblspc")).into_iter().flatten().flatten();
        let parts = tablespaces.map(|entry| entry.path()).chain([data_directory.join("pg_wal")]);
        let elsewhere = parts.filter(|path| path.is_symlink()).filter_map(|path| path.canonicalize().ok());
        self.writable.extend(elsewhere);
        self.with_directory(data_directory)
    }

    /// It may also do as it likes below this directory.
    #[must_use]
    pub fn with_directory(mut self, directory: &Path) -> Self {
        self.writable.push(directory.to_owned());
        self
    }

    /// It may also read this, and what is below it.
    #[must_use]
    pub fn with_readable(mut self, path: &Path) -> Self {
        self.readable.push(path.to_owned());
        self
    }

    /// It may also call other programs as a shell does.
    #[must_use]
    pub fn with_shell(mut self) -> Self {
        self.executable.extend(SHELL.map(PathBuf::from));
        self
    }

    /// Carries out `work`, which starts the program, on a thread that is restricted; so is everything that it starts.
    /// Where the kernel knows no such thing, it is not: then that is said once.
    ///
    /// # Errors
    /// [`Kind::Bug`] if the kernel refuses, and those of `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let restricted = scope.spawn(|| {
                match self.enter() {
                    Ok(true) => {}
                    Ok(false) => warn_once(),
                    Err(error) => {
                        return Err(Error::new(Kind::Bug, "the kernel refused a sandbox").because(error));
                    }
                }
                work()
            });
            restricted
                .join()
                .unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the thread in the sandbox panicked")))
        })
    }

    /// Restricts this thread for good; whether it is.
    fn enter(&self) -> std::result::Result<bool, RulesetError> {
        // Without it (Linux 5.13 to 5.18) no file can be moved from one directory to another, which servers do.
        let Ok(ruleset) = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V2))
        else {
            return Ok(false);
        };
        // What later kernels know besides: cutting files off, and devices' own commands.
        let handled = AccessFs::from_all(ABI::V5);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = handled & !BitFlags::from(AccessFs::Execute);
        let status = ruleset
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(handled)?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.executable, read | AccessFs::Execute))?
            .add_rules(path_beneath_rules(&self.writable, write))?
            .restrict_self()?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }
}

fn warn_once() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "temporary servers run without a sandbox: this kernel has no Landlock of Linux 5.19 or later, \
             or the unit's SystemCallFilter= does not allow it"
        );
    });
}

fn loaders(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_loader = |name: &str| ["ld-linux", "ld-musl", "ld64."].iter().any(|start| name.starts_with(start));
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_loader))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{bare, output, tool};

    #[test]
    fn a_cluster_is_where_its_links_lead_too() {
        let root = tempfile::tempdir().unwrap();
        let [data, log, space] = ["data", "log", "space"].map(|name| root.path().join(name));
        for directory in [&data.join("pg_tblspc"), &log, &space] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::os::unix::fs::symlink(&log, data.join("pg_wal")).unwrap();
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/16400")).unwrap();
        let sandbox = Sandbox::default().with_cluster(&data);
        let real = |path: &Path| path.canonicalize().unwrap();
        assert_eq!(sandbox.writable, [real(&space), real(&log), data]);
    }

    #[test]
    fn a_program_writes_and_executes_only_what_it_may() {
        let root = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| root.path().join(name));
        for directory in [&own, &other] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join("secret"), "x").unwrap();
        }
        if !matches!(std::thread::spawn(|| Sandbox::default().enter()).join().unwrap(), Ok(true)) {
            eprintln!("this kernel has no Landlock: nothing was tested");
            return;
        }
        let directory = own.canonicalize().unwrap();
        let [cat, cp, ln] = ["cat", "cp", "ln"].map(|name| tool(name, "coreutils").unwrap());
        let run = |sandbox: &Sandbox, program: &Path, arguments: &[&Path]| {
            let mut command = bare(program);
            command.args(arguments);
            sandbox.within(|| output(command, "it", &[])).is_ok()
        };
        let with = |program: &Path| Sandbox::of_programs([program.to_owned()]).with_directory(&directory);
        let secret = |directory: &Path| directory.join("secret");
        assert!(run(&with(&cat), &cat, &[&secret(&own)]));
        assert!(!run(&with(&cat), &cat, &[&secret(&other)]), "it reads what is not its own");
        assert!(!run(&with(&cat), &cp, &[&secret(&own), &own.join("a")]), "it executes another program");
        assert!(run(&with(&cp), &cp, &[&secret(&own), &own.join("a")]));
        assert!(!run(&with(&cp), &cp, &[&secret(&own), &other.join("a")]), "it writes elsewhere");
        let linked = [Path::new("-s"), &other, &own.join("link")];
        assert!(run(&with(&ln), &ln, &linked));
        assert!(!run(&with(&cp), &cp, &[&secret(&own), &own.join("link/a")]), "it follows a link");
        // It says where somebody may read it.
        assert!(run(&with(&cat).with_readable(&other), &cat, &[&secret(&other)]));
        // Nothing holds for ourselves.
        std::fs::write(other.join("b"), "x").unwrap();
    }
}
