//! pgbackrest(1): what it is told to do, and what it says.
//!
//! Only the files in [`DIRECTORY`] are its configuration: Debian's `/etc/pgbackrest.conf` is closed to everybody but `postgres`,
//! and pgBackRest gives up where it cannot read that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::info::{self, Stanza};
use crate::account::Account;
use crate::config::Backup;
use crate::error::{Error, Kind, Result};
use crate::runtime::{self, output};
use crate::systemd::notify;

/// Where its configuration is, a file for each stanza.
pub const DIRECTORY: &str = "/etc/pgbackrest/conf.d";

/// The oldest one that is driven: that of Debian 12.
const OLDEST: Version = Version(2, 45);

/// The first one that stores of a changed file the changed blocks only, and not as a preview.
const BLOCKS: Version = Version(2, 50);

/// One that is known to verify a single backup.
const SETS: Version = Version(2, 55);

/// How often the service manager is told that it still works, and how much longer it may take each time.
const ALIVE: Duration = Duration::from_secs(10);
const AHEAD: Duration = Duration::from_secs(1800);

/// Its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Takes apart what `pgbackrest version` prints, such as `pgBackRest 2.55.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().strip_prefix("pgBackRest ")?.split('.');
        let mut number = || {
            let part = parts.next()?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        };
        Some(Self(number()?, number()?))
    }

    /// Whether it stores changed blocks only.
    pub fn has_blocks(self) -> bool {
        self >= BLOCKS
    }
}

/// The program, for one stanza.
#[derive(Debug)]
pub struct Program {
    file: PathBuf,
    account: Option<Account>,
    stanza: String,
    /// Its version.
    pub version: Version,
}

/// Which backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Everything.
    Full,
    /// What has changed since the one before.
    Incremental,
}

impl Type {
    fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incr",
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        })
    }
}

impl Program {
    /// The one that is installed. For root, it runs as `account`, the owner of the cluster.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`], also if it is too old.
    pub fn find(settings: &Backup, account: Option<Account>) -> Result<Self> {
        let file = runtime::tool("pgbackrest", "pgbackrest")?;
        let said = output(by(&file, account.as_ref(), &["version".to_owned()]), "pgbackrest version", &[])?;
        let said = String::from_utf8_lossy(&said);
        let version = Version::parse(&said).ok_or_else(|| {
            Error::new(Kind::Program, format!("pgBackRest has an unknown version: {:?}", said.trim()))
        })?;
        if version < OLDEST {
            return Err(Error::new(
                Kind::NotInstalled,
                format!("pgBackRest is too old: {}.{}; 2.45 or newer is required", version.0, version.1),
            )
            .hint("install a newer package pgbackrest"));
        }
        Ok(Self { file, account, stanza: settings.stanza.clone(), version })
    }

    /// What it knows of the stanza; `repository` is where it keeps backups, for as long as no configuration says so.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn info(&self, repository: &Path) -> Result<Stanza> {
        let at = format!("--repo1-path={}", repository.display());
        let said = self.ask("info", &["--output=json".to_owned(), at])?;
        info::parse(&said, &self.stanza)
    }

    /// Makes the stanza.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn create_stanza(&self) -> Result<()> {
        self.ask("stanza-create", &[]).map(drop)
    }

    /// Makes the stanza that of the cluster as it is now.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn upgrade_stanza(&self) -> Result<()> {
        self.ask("stanza-upgrade", &[]).map(drop)
    }

    /// Has the server switch to another segment of the WAL, and waits until that before it has been archived.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn check(&self) -> Result<()> {
        self.ask("check", &[]).map(drop)
    }

    /// Makes a backup, and removes none.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words, [`Kind::NoSpace`].
    pub fn back_up(&self, kind: Type) -> Result<()> {
        self.ask("backup", &[format!("--type={}", kind.word()), "--no-expire-auto".to_owned()]).map(drop)
    }

    /// Removes all but so many full backups with those that depend on them, and the WAL that none needs.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn expire(&self, full: u32) -> Result<()> {
        self.ask("expire", &[format!("--repo1-retention-full={full}")]).map(drop)
    }

    /// Reads back what is stored: all of it, or the backup of this label where the version can; what is wrong with it.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn verify(&self, label: Option<&str>) -> Result<Vec<String>> {
        let mut words = vec!["--output=text".to_owned()];
        words.extend(label.filter(|_| self.version >= SETS).map(|label| format!("--set={label}")));
        self.ask("verify", &words).map(|said| problems(&said))
    }

    /// The names of the archived segments.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn segments(&self, archive: &str) -> Result<String> {
        self.ask("repo-ls", &["--recurse".to_owned(), format!("archive/{}/{archive}", self.stanza)])
    }

    /// Puts the files of the backup of this label into this directory; with `delta` over those that are there.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words, [`Kind::NoSpace`].
    pub fn restore(&self, label: &str, into: &Path, target: &[String], delta: bool) -> Result<()> {
        let mut words = vec![format!("--pg1-path={}", into.display()), format!("--set={label}")];
        words.extend_from_slice(target);
        words.extend(delta.then(|| "--delta".to_owned()));
        self.ask("restore", &words).map(drop)
    }

    /// The same for a cluster that is thrown away: its tablespaces go into a directory, too.
    ///
    /// # Errors
    /// As [`Program::restore`].
    pub fn restore_on_trial(&self, label: &str, into: &Path, tablespaces: &Path) -> Result<()> {
        let target = [
            "--type=immediate".to_owned(),
            "--archive-mode=off".to_owned(),
            format!("--tablespace-map-all={}", tablespaces.display()),
        ];
        self.restore(label, into, &target, false)
    }

    /// What a server on this directory has a shell do to get a segment of the WAL.
    pub fn restore_command(&self, data: &Path) -> String {
        let always = self.always().join(" ");
        format!("{} {always} --pg1-path={} archive-get %f \"%p\"", self.file.display(), data.display())
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What the server has a shell do with each segment of the WAL.
    pub fn archive_command(&self) -> String {
        format!("{} {} archive-push %p", self.file.display(), self.always().join(" "))
    }

    fn always(&self) -> [String; 3] {
        [
            "--no-config".to_owned(),
            format!("--config-include-path={DIRECTORY}"),
            format!("--stanza={}", self.stanza),
        ]
    }

    /// What it prints; it says what is wrong on standard error, where it is looked for.
    fn ask(&self, verb: &str, options: &[String]) -> Result<String> {
        let mut words = self.always().to_vec();
        words.extend(
            ["--log-level-console=off", "--log-level-stderr=warn", "--no-log-timestamp"].map(str::to_owned),
        );
        // What is no option comes behind the verb.
        words.push(verb.to_owned());
        words.extend_from_slice(options);
        // pgBackRest fails where there is no such directory.
        if !Path::new(DIRECTORY).is_dir() {
            words.retain(|word| !word.starts_with("--config-include-path="));
        }
        let name = format!("pgbackrest {verb}");
        let (done, ended) = mpsc::channel::<()>();
        let said = std::thread::scope(|scope| {
            let shown = name.clone();
            scope.spawn(move || {
                while ended.recv_timeout(ALIVE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    notify::alive(&shown, AHEAD);
                }
            });
            let said = output(by(&self.file, self.account.as_ref(), &words), &name, &[]);
            drop(done);
            said
        });
        said.map(|said| String::from_utf8_lossy(&said).into_owned()).map_err(Error::or_no_space)
    }
}

fn by(file: &Path, account: Option<&Account>, words: &[String]) -> Command {
    let mut command = runtime::bare(file);
    command.args(words);
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command
}

/// What `verify` has found: it ends with 0 whatever that is (2.55).
fn problems(said: &str) -> Vec<String> {
    let is_bad = |line: &str| {
        let counted = |name: &str| {
            let number = line.split_once(name).map(|(_, rest)| rest.trim_start());
            number.is_some_and(|rest| rest.starts_with(|digit: char| ('1'..='9').contains(&digit)))
        };
        ["status: invalid", "status: error"].iter().any(|bad| line.contains(bad))
            || ["missing:", "checksum invalid:", "size invalid:", "other:"].iter().any(|name| counted(name))
    };
    said.lines().map(str::trim).filter(|line| is_bad(line)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(Version::parse("pgBackRest 2.55.1\n"), Some(Version(2, 55)));
        assert_eq!(Version::parse("pgBackRest 2.60dev"), Some(Version(2, 60)));
        assert_eq!(Version::parse("psql 17"), None);
        assert!(Version(2, 9) < OLDEST && Version(2, 45) >= OLDEST && Version(3, 0).has_blocks());
        assert!(!Version(2, 45).has_blocks());
    }

    #[test]
    fn what_a_verification_has_found_is_not_in_its_exit_status() {
        let bad = "stanza: x\nstatus: error\n  backup: 20261129-154529F, status: invalid, total files checked: 966, \
                   total valid files: 965\n    checksum invalid: 1\n";
        assert_eq!(problems(bad).len(), 3);
        let good = "stanza: x\nstatus: ok\n  archiveId: 17-1, total WAL checked: 8, total valid WAL: 8\n    missing: 0, \
                    checksum invalid: 0, size invalid: 0, other: 0\n  backup: 20261129-154529F, status: valid\n";
        assert!(problems(good).is_empty());
        assert!(problems("").is_empty());
    }

    #[test]
    fn the_server_needs_no_path_and_no_file_of_others() {
        let program = Program {
            file: "/usr/bin/pgbackrest".into(),
            account: None,
            stanza: "main".into(),
            version: Version(2, 55),
        };
        assert_eq!(
            program.archive_command(),
            "/usr/bin/pgbackrest --no-config --config-include-path=/etc/pgbackrest/conf.d --stanza=main archive-push %p"
        );
    }
}
