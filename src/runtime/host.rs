//! Programs of this machine: `/usr/lib/postgresql/N/bin`, `/usr/pgsql-N/bin`, then the search path.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use super::process::{Child, output};
use super::sandbox::Sandbox;
use super::{Call, Runtime};
use crate::account::Account;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::terminal;
use crate::version::Major;

/// The environment of every program we start: nothing of a user's `PG*` variables may redirect it, and
/// messages come in one language.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")];

/// Programs that are in a package of their own, which needs no server.
const CLIENTS: [&str; 6] = ["pg_dump", "pg_dumpall", "pg_isready", "pg_restore", "psql", "vacuumdb"];

/// The programs installed on this machine.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    search_path: Vec<PathBuf>,
    account: Option<Account>,
}

impl Host {
    /// The programs below `root` (`/`, but for tests), then those in the directories of `search_path`.
    pub fn new(root: &Path, search_path: Option<OsString>) -> Self {
        let search_path = search_path.map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        Self { root: root.to_owned(), search_path, account: None }
    }

    /// The same, run as this user when we are root. What psql is fed with may make it run whatever it likes, and what
    /// pg_restore reads was written by somebody else: without a user, root gets no command at all.
    #[must_use]
    pub fn run_as(self, account: Option<Account>) -> Self {
        Self { account, ..self }
    }

    /// The file of `program` in this major version.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`], naming the package.
    pub fn program(&self, name: &str, major: Major) -> Result<PathBuf> {
        let packaged = self.directories(major).into_iter().map(|directory| directory.join(name));
        packaged
            .into_iter()
            .find(|file| is_executable(file))
            .or_else(|| self.in_search_path(name).filter(|file| self.version_of(file) == Some(major)))
            .ok_or_else(|| self.not_installed(name, major))
    }

    /// Debian's and PGDG's directories, in the order in which they are looked at.
    fn directories(&self, major: Major) -> [PathBuf; 2] {
        [
            self.root.join(format!("usr/lib/postgresql/{major}/bin")),
            self.root.join(format!("usr/pgsql-{major}/bin")),
        ]
    }

    /// Nothing of PostgreSQL's runs as root: the user is the one that is named, or else the one that all commands run as.
    fn give_up_root(&self, command: &mut Command, named: Option<&Account>) -> Result<()> {
        let of_all = self.account.as_ref().filter(|_| geteuid().is_root());
        let mut users = [named, of_all].into_iter().flatten().filter(|account| !account.is_root());
        match users.next() {
            Some(account) => account.apply(command),
            None if !geteuid().is_root() => {}
            None => {
                let program = terminal::program(command).display();
                return Err(Error::new(
                    Kind::Config,
                    format!("{program} cannot run as root, and its system user does not exist"),
                )
                .state("nothing was started")
                .hint("systemd-sysusers matrix-postgres.conf"));
            }
        }
        Ok(())
    }

    /// Every one of PostgreSQL's programs answers `--version` in the same form. Even for this it is not started as root.
    fn version_of(&self, file: &Path) -> Option<Major> {
        let mut command = bare(file);
        command.arg("--version");
        self.give_up_root(&mut command, None).ok()?;
        let text = output(command, "--version", &[]).ok()?;
        Major::from_version_line(std::str::from_utf8(&text).ok()?)
    }

    fn in_search_path(&self, name: &str) -> Option<PathBuf> {
        self.search_path.iter().map(|directory| directory.join(name)).find(|file| is_executable(file))
    }

    fn not_installed(&self, name: &str, major: Major) -> Error {
        let installed: Vec<_> = self.majors().iter().map(ToString::to_string).collect();
        let installed = match installed.is_empty() {
            true => "no version is installed".to_owned(),
            false => format!("installed: {}", installed.join(", ")),
        };
        Error::new(Kind::NotInstalled, format!("{name} of PostgreSQL {major} is not installed ({installed})"))
            .hint(match (self.root.join("usr/bin/dpkg").exists(), CLIENTS.contains(&name)) {
                (true, true) => format!("apt-get install postgresql-client-{major}"),
                (true, false) => format!("apt-get install postgresql-{major}"),
                (false, true) => format!("dnf install postgresql{major}"),
                (false, false) => format!("dnf install postgresql{major}-server"),
            })
    }
}

impl Runtime for Host {
    fn majors(&self) -> Vec<Major> {
        let mut majors = BTreeSet::new();
        for (parent, prefix) in [("usr/lib/postgresql", ""), ("usr", "pgsql-")] {
            let Ok(entries) = std::fs::read_dir(self.root.join(parent)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let major =
                    name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|n| n.parse().ok());
                if let Some(major) = major.filter(|_| is_executable(&entry.path().join("bin/postgres"))) {
                    majors.insert(Major(major));
                }
            }
        }
        majors.extend(self.in_search_path("postgres").and_then(|file| self.version_of(&file)));
        majors.into_iter().collect()
    }

    /// Each has a file `NAME.control` (chapter "Packaging Related Objects into an Extension").
    fn extensions(&self, major: Major) -> Result<BTreeSet<String>> {
        let debian = self.root.join(format!("usr/share/postgresql/{major}/extension"));
        let pgdg = self.root.join(format!("usr/pgsql-{major}/share/extension"));
        let directory = if debian.is_dir() { debian } else { pgdg };
        let entries = std::fs::read_dir(&directory).at("read", &directory)?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(".control").map(str::to_owned)).collect())
    }

    /// As `expand_dynamic_library_name` finds it (dfmgr.c): bare names are in the package's own directory.
    fn has_library(&self, major: Major, library: &str) -> Option<bool> {
        let packaged = [format!("usr/lib/postgresql/{major}/lib"), format!("usr/pgsql-{major}/lib")];
        let directory =
            packaged.iter().map(|path| self.root.join(path)).find(|directory| directory.is_dir())?;
        let file = match (library.strip_prefix("$libdir/"), library.strip_prefix('/')) {
            (Some(name), _) => directory.join(name),
            (_, Some(path)) => self.root.join(path),
            (None, None) if library.contains('/') => return None,
            (None, None) => directory.join(library),
        };
        let mut with_suffix = file.clone().into_os_string();
        with_suffix.push(".so");
        Some(file.is_file() || Path::new(&with_suffix).is_file())
    }

    fn programs(&self, major: Major) -> Option<PathBuf> {
        let server = self.program("postgres", major).ok()?;
        server.parent().map(Path::to_owned)
    }

    fn command(&self, major: Major, call: &Call) -> Result<Command> {
        let program = self.program(call.program, major)?;
        let stdbuf = self.root.join("usr/bin/stdbuf");
        let mut command = match call.bulk_output && is_executable(&stdbuf) {
            true => buffered(&stdbuf, &program),
            false => Command::new(program),
        };
        command.args(call.arguments.iter().map(|argument| argument.rendered(|path| self.inside(path))));
        command.env_clear().envs(ENVIRONMENT).current_dir("/");
        command.envs(call.environment.iter().map(|(name, value)| (name, value)));
        self.give_up_root(&mut command, call.user.as_ref())?;
        // Root's, too, if it has become the owner before.
        terminal::leave(&mut command);
        Ok(command)
    }

    fn start_server(&self, major: Major, call: &Call, allowed: Sandbox, name: String) -> Result<Child> {
        let mut command = self.command(major, call)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let program = Path::new(terminal::program(&command));
        // The server is one program, and Debian's may be found by a link to it.
        let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        allowed.with_programs([program]).within(|| Child::spawn(command, name))
    }

    fn account(&self) -> Option<&Account> {
        self.account.as_ref().filter(|_| geteuid().is_root())
    }
}

/// The file of a program that is not one of PostgreSQL's.
///
/// # Errors
/// [`Kind::NotInstalled`], naming the package.
pub fn tool(name: &str, package: &str) -> Result<PathBuf> {
    let directories = std::env::split_paths(ENVIRONMENT[0].1);
    directories.map(|directory| directory.join(name)).find(|file| is_executable(file)).ok_or_else(|| {
        let installer = if Path::new("/usr/bin/dpkg").exists() { "apt-get" } else { "dnf" };
        Error::new(Kind::NotInstalled, format!("the program {name} is not installed"))
            .hint(format!("{installer} install {package}"))
    })
}

/// A command of this file, in a clean environment.
pub fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(ENVIRONMENT).current_dir("/");
    command
}

/// `program` by way of stdbuf(1), which replaces itself by it. pg_dump writes to a pipe in pieces of 4 KiB; in
/// larger ones a dump costs a third less of the processors that compression needs.
fn buffered(stdbuf: &Path, program: &Path) -> Command {
    let mut command = Command::new(stdbuf);
    command.arg("--output=128K").arg(program);
    command
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// To whoever is not root.
    fn open(root: &Path) {
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn majors_come_from_both_packagings_and_the_search_path_oldest_first() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/lib/postgresql/17/bin/postgres", "");
        install(root.path(), "usr/lib/postgresql/9.6/bin/postgres", "");
        install(root.path(), "usr/pgsql-15/bin/postgres", "");
        std::fs::create_dir_all(root.path().join("usr/lib/postgresql/16/bin")).unwrap();
        install(root.path(), "opt/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 18.1 (x)'\n");
        open(root.path());
        let somebody = geteuid().is_root().then(|| Account::of(1234, 1234));
        let host = Host::new(root.path(), Some(root.path().join("opt").into())).run_as(somebody);
        assert_eq!(host.majors(), [Major(15), Major(17), Major(18)]);
        assert!(host.program("postgres", Major(18)).unwrap().ends_with("opt/postgres"));
    }

    #[test]
    fn a_major_that_is_not_installed_names_the_package() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/lib/postgresql/17/bin/postgres", "");
        install(root.path(), "usr/bin/dpkg", "");
        let error = Host::new(root.path(), None).program("postgres", Major(15)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotInstalled);
        let client = Host::new(root.path(), None).program("pg_dump", Major(15)).unwrap_err();
        assert!(client.report().ends_with("HINT: apt-get install postgresql-client-15"));
        assert_eq!(
            error.report(),
            "postgres of PostgreSQL 15 is not installed (installed: 17)\nHINT: apt-get install postgresql-15"
        );
    }

    #[test]
    fn nothing_of_postgresql_runs_as_root() {
        let root = tempfile::tempdir().unwrap();
        // A call whose process tells as whom it runs.
        install(root.path(), "usr/lib/postgresql/17/bin/psql", "#!/bin/sh\nid -u\n");
        open(root.path());
        let host = Host::new(root.path(), None);
        let call = Call::new("psql", ["-X"]);
        let uid = |host: &Host| {
            let command = host.command(Major(17), &call)?;
            output(command, "psql", b"").map(|uid| String::from_utf8_lossy(&uid).trim().to_owned())
        };
        if !geteuid().is_root() {
            assert_eq!(uid(&host).unwrap(), geteuid().to_string());
            return;
        }
        for none in [None, Some(Account::of(0, 0))] {
            assert_eq!(uid(&host.clone().run_as(none)).unwrap_err().kind(), Kind::Config);
        }
        assert_eq!(uid(&host.run_as(Some(Account::of(1234, 1234)))).unwrap(), "1234");
    }

    #[test]
    fn libraries_are_found_as_the_server_finds_them() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/lib/postgresql/17/lib/pg_stat_statements.so", "");
        install(root.path(), "usr/lib/postgresql/17/lib/plugins/p.so", "");
        install(root.path(), "opt/x.so", "");
        let host = Host::new(root.path(), None);
        let has = |library| host.has_library(Major(17), library);
        for there in
            ["pg_stat_statements", "pg_stat_statements.so", "$libdir/plugins/p", "/opt/x", "/opt/x.so"]
        {
            assert_eq!(has(there), Some(true), "{there}");
        }
        assert_eq!((has("timescaledb"), has("/opt/y")), (Some(false), Some(false)));
        assert_eq!((has("relative/x"), host.has_library(Major(18), "x")), (None, None));
    }
}
