//! Logging in to a server on the network: the password, and what we may do there.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use rustix::fs::{MemfdFlags, Mode, fchmod, fchown, memfd_create};
use serde::Deserialize;

use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath;
use crate::postgres::{Connection, HOME, Session, is_away};
use crate::runtime::{Runtime, interrupt};
use crate::systemd::notify;

/// The password's name among the credentials of a unit. Not one that the unit of the notices imports.
pub const CREDENTIAL: &str = "matrix-postgres-password";

/// Where systemd finds a credential of that name, and root without systemd.
const STORES: [&str; 3] = ["/etc/credstore", "/run/credstore", "/usr/lib/credstore"];

/// A password is no longer than that.
const MODEST: u64 = 4096;

/// How long the first try waits for the second, and how long they wait at most.
const FIRST: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(15);

/// How much longer the service manager waits each time, which is more than a try takes that nobody answers.
const AHEAD: Duration = Duration::from_secs(900);

/// The password of a server on the network, open for our programs for as long as this is there.
#[derive(Debug)]
#[must_use = "the programs find no password when this is dropped"]
pub struct Password(#[allow(dead_code, reason = "its descriptor is what programs open")] OwnedFd);

/// Lets the programs that `account` runs, or we do, find the password, and the settings say where. `credentials` is the
/// directory of our unit's. Nothing where there is none: the server may need none.
///
/// # Errors
/// [`Kind::Config`] if the file of `server.passfile` is open to others, or is not that user's, whose programs would not read it.
pub fn provide(
    settings: &mut Settings,
    account: Option<&Account>,
    credentials: Option<&Path>,
) -> Result<Option<Password>> {
    let Some(remote) = &mut settings.server.remote else { return Ok(None) };
    if let Some(file) = &remote.passfile {
        return require_private(file, account).map(|()| None);
    }
    let Some(file) = credential_file(CREDENTIAL, credentials) else { return Ok(None) };
    let text = beneath::read(&file, MODEST).at("read", &file)?;
    let line = passfile(&String::from_utf8_lossy(&text), &file)?;
    let (password, path) = in_memory(line.as_bytes(), account)?;
    remote.passfile = Some(path);
    Ok(Some(password))
}

/// The file of a credential: among those of our unit, which are in this directory, or, for root, where systemd looks for it.
pub fn credential_file(name: &str, credentials: Option<&Path>) -> Option<PathBuf> {
    let in_store = STORES.iter().map(Path::new).filter(|_| geteuid().is_root());
    credentials.into_iter().chain(in_store).map(|directory| directory.join(name)).find(|file| file.exists())
}

/// As libpq wants it (`passwordFromFile` in fe-connect.c).
fn require_private(file: &Path, account: Option<&Account>) -> Result<()> {
    let owner = account.cloned().unwrap_or_else(Account::current);
    let named = |error: Error| error.with_kind(Kind::Config).state("nothing was started");
    let meta = file.metadata().at("read the password file", file).map_err(|error| {
        named(error).hint(format!(
            "write a line HOST:PORT:*:ROLE:PASSWORD to it: install -m 0600 -o {} /dev/stdin {}",
            owner.name,
            file.display()
        ))
    })?;
    let is_open = meta.mode() & 0o077 != 0;
    match meta.is_file() && !is_open && (meta.uid() == owner.uid.as_raw() || owner.is_root()) {
        true => Ok(()),
        false => Err(named(Error::new(
            Kind::Config,
            format!("{} does not belong to {}, or others may read it", file.display(), owner.name),
        ))
        .hint(format!("chown {0} {1} && chmod 0600 {1}", owner.name, file.display()))),
    }
}

/// The line of a password file for every server, for there is one only.
fn passfile(text: &str, file: &Path) -> Result<String> {
    let password = text.strip_suffix('\n').unwrap_or(text);
    match password.is_empty() || password.contains(['\n', '\r', '\0']) {
        true => Err(Error::new(Kind::Config, format!("{} is not one line with a password", file.display()))
            .state("nothing was started")),
        false => Ok(format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))),
    }
}

/// A file that is on no disk: those find it who inherit it, by a name that leads to it in each of them, and nobody else.
fn in_memory(content: &[u8], account: Option<&Account>) -> Result<(Password, PathBuf)> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::File, "could not keep the password in memory").because(error)
    };
    let descriptor = memfd_create("password", MemfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    let mut file = File::from(descriptor);
    file.write_all(content).map_err(failed)?;
    fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|errno| failed(errno.into()))?;
    if let Some(account) = account {
        let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
        let ids = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        fchown(&file, Some(ids.0), Some(ids.1)).map_err(|errno| failed(errno.into()))?;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    Ok((Password(file.into()), path))
}

/// What a server says of us.
#[derive(Debug, Deserialize)]
struct Known {
    is_superuser: bool,
}

const WHO: &str = "SELECT pg_catalog.json_build_object('is_superuser', rolsuper)
    FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER;";

/// The settings with what we may do on a server on the network, which is asked. One that is away is waited for, for so long.
///
/// # Errors
/// [`Kind::Server`] if it is still away then, or refuses the login.
pub fn introduce(settings: &Settings, runtime: &dyn Runtime, patience: Duration) -> Result<Settings> {
    let mut settings = settings.clone();
    let connection = settings.connection();
    if let Some(remote) = &mut settings.server.remote {
        remote.is_superuser = wait(&connection, runtime, patience)?.is_superuser;
    }
    Ok(settings)
}

fn wait(connection: &Connection, runtime: &dyn Runtime, patience: Duration) -> Result<Known> {
    let (begun, mut pause, mut told) = (Instant::now(), FIRST, false);
    loop {
        interrupt::check()?;
        let error = match Session::newest(runtime, connection).query(HOME, WHO) {
            Ok(known) => {
                if told {
                    log::info!("the server {} is back", connection.place());
                }
                return Ok(known);
            }
            Err(error) => error,
        };
        if !is_away(&error) || begun.elapsed() >= patience {
            return Err(error);
        }
        if !told {
            log::warn!("{}; trying again for up to {:?}", error.one_line(), patience);
            told = true;
        }
        notify::alive(&format!("waiting for the server {}", connection.place()), AHEAD);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        pause = (pause * 2).min(LATER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings(text: &str) -> Settings {
        Settings::from_fragment(Fragment::parse(text, Path::new("c")).unwrap()).unwrap()
    }

    #[test]
    fn a_password_is_what_libpq_reads_in_its_file() {
        let line = |text| passfile(text, Path::new("/c")).unwrap();
        assert_eq!(line("it's a \\: #\n"), "*:*:*:*:it's a \\\\\\: #\n");
        assert_eq!(line("x"), "*:*:*:*:x\n");
        for wrong in ["", "\n", "secret\nsecret\n"] {
            let report = passfile(wrong, Path::new("/c")).unwrap_err().report();
            assert!(!report.contains("secret"), "{report}");
        }
    }

    #[test]
    fn programs_find_it_and_no_disk_has_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(CREDENTIAL), "secret\n").unwrap();
        let mut settings = settings("server.host = \"db\"");
        let password = provide(&mut settings, None, Some(directory.path())).unwrap().unwrap();
        let path = settings.server.remote.as_ref().unwrap().passfile.clone().unwrap();
        let mut command = crate::runtime::bare(&crate::runtime::tool("cat", "coreutils").unwrap());
        command.arg(&path);
        assert_eq!(crate::runtime::output(command, "cat", &[]).unwrap(), b"*:*:*:*:secret\n");
        let meta = path.metadata().unwrap();
        assert!(meta.is_file() && meta.mode() & 0o777 == 0o600);
        drop(password);
        assert!(!path.exists());
    }

    #[test]
    fn a_password_file_that_libpq_would_not_read_is_refused_beforehand() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passfile");
        let mut settings = settings(&format!("server = {{ host = \"db\", passfile = {file:?} }}"));
        assert_eq!(provide(&mut settings, None, None).unwrap_err().kind(), Kind::Config);
        std::fs::write(&file, "x").unwrap();
        for (mode, works) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(provide(&mut settings, None, None).is_ok(), works, "{mode:o}");
        }
        let mut own = Settings::from_fragment(Fragment::default()).unwrap();
        assert!(provide(&mut own, None, Some(directory.path())).unwrap().is_none());
    }
}
