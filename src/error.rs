//! One error type: kind → stable exit status, lower-case message, `HINT:` line, source chain.
//!
//! Rules, after pgBackRest's CODING.md:
//! - the message is lower case, has no final punctuation and names the thing and its path;
//! - what state things are in after the failure is part of the message, or of [`Error::state`];
//! - the hint is one sentence with the one next command; it never tells anybody to delete data;
//! - whoever adds context wraps the error below as the source and does not repeat its words.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a script needs to tell failures apart.
///
/// The numbers are a contract and never change. They keep clear of the shell's (1, 2, 126 and up), of
/// sysexits.h (64 to 78) and of systemd's own (200 to 243, systemd.exec(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A bug in this program.
    Bug = 25,
    /// Stored data is damaged: a checksum, a length or a row count differs from what was written.
    Damaged = 26,
    /// The configuration cannot be read or is invalid.
    Config = 27,
    /// A file or directory is missing, unreadable, has the wrong owner or mode, or is not a dump that can be restored.
    File = 28,
    /// A file system is full.
    NoSpace = 29,
    /// The programs of the required major version of PostgreSQL, or the program that encrypts, are not installed.
    NotInstalled = 30,
    /// The data directory is not a cluster, or is not usable in its present state.
    DataDirectory = 31,
    /// The server cannot be reached or refused the login, or a statement failed.
    Server = 32,
    /// One of PostgreSQL's programs failed or was killed.
    Program = 33,
    /// Another backup, restore or upgrade is running.
    Locked = 34,
    /// No backup of that name, or no backup.
    NoBackup = 35,
    /// systemd: unit not found.
    NoUnit = 36,
    /// systemd: the job of a unit failed or timed out.
    UnitJob = 37,
    /// systemd or polkit refused the call.
    UnitRefused = 38,
    /// The system bus or systemd on it cannot be reached.
    NoBus = 39,
    /// A check found a problem (`status`, `check`).
    NotWell = 40,
    /// Interrupted by a signal, or not confirmed.
    Interrupted = 41,
    /// A notification could not be delivered.
    NotDelivered = 42,
    /// Encrypted data cannot be decrypted: no private key was given, or it is not the key of a recipient.
    NoKey = 43,
    /// The server rejects an object of an intact backup; a new backup would have the same problem.
    NotTaken = 44,
    /// A target of `[[offsite]]` cannot be reached, rejects the login or a file, or is full.
    Offsite = 45,
}

impl Kind {
    /// The exit status of a process that fails this way.
    pub fn exit_status(self) -> u8 {
        self as u8
    }

    /// What to do next where nobody who knew more has said so.
    fn hint(self) -> &'static str {
        match self {
            Self::Bug => "please report it, with the output of: journalctl --boot --unit='matrix-postgres*'",
            Self::Damaged | Self::NoBackup => "matrix-postgres-backup list shows the backups",
            Self::Config => "every key is explained in /usr/share/doc/matrix-postgres/config.toml.example",
            Self::File | Self::Program => "check the journal: journalctl --boot --unit='matrix-postgres*'",
            Self::NoSpace => "find the full file system: df -h",
            Self::NotInstalled => "apt-get install postgresql",
            Self::DataDirectory | Self::Locked => "matrix-postgres-upgrade status shows the state",
            Self::Server => "check the log of the server: journalctl --unit=matrix-postgres.service",
            Self::NoUnit | Self::UnitJob => "systemctl status 'matrix-*'",
            Self::UnitRefused => "run it as root",
            Self::NoBus => "systemctl is-system-running",
            Self::NotWell => "matrix-postgres-backup status",
            Self::Interrupted => "run the command again",
            Self::NotDelivered => "check [notify] in /etc/matrix-postgres/config.toml",
            Self::NoKey => "pass the private key: --identity",
            Self::Offsite => "check the target: journalctl --unit=matrix-postgres-backup-offsite.service",
            Self::NotTaken => "change the named objects in the live database, then make a new backup",
        }
    }
}

/// How many lines of a failure fit into one.
const LINES: usize = 6;

/// Whether a system call failed for want of room.
fn is_no_space(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Whether a program of ours says so: in the C library's words, for our programs speak English.
pub fn says_no_space(said: &str) -> bool {
    said.contains("No space left on device")
}

/// A failure as the administrator gets to see it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    state: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of this kind; `message` is lower case and names the thing.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), state: None, hint: None, source: None }))
    }

    /// A failed system call on a path: `could not <action> <path>`, with the kind that the cause implies.
    pub fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        let kind = if is_no_space(&source) { Kind::NoSpace } else { Kind::File };
        Self::new(kind, format!("could not {action} {}", path.display())).because(source)
    }

    /// What is the case now that this failed: what runs, what was kept, where it is.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.0.state = Some(state.into());
        self
    }

    /// The one next thing to do. Does not replace a hint that is there already, which knows more.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The failure below this one.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this failure in a sentence of the caller's; kind, state and hint stay.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let outer = Inner {
            kind: self.0.kind,
            message: message.into(),
            state: self.0.state.take(),
            hint: self.0.hint.take(),
            source: None,
        };
        Self(Box::new(outer)).because(self)
    }

    /// The same failure, filed under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same failure, filed under [`Kind::NoSpace`] if that is what a program says below it.
    #[must_use]
    pub fn or_no_space(self) -> Self {
        match says_no_space(&self.report()) {
            true => self.with_kind(Kind::NoSpace),
            false => self,
        }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What is below this failure, in its words; nothing if it is the first.
    pub fn cause(&self) -> String {
        self.source().map(ToString::to_string).unwrap_or_default()
    }

    /// The message and its causes in a line, for a record or another sentence. Of a program's last words there are the first
    /// few lines.
    pub fn one_line(&self) -> String {
        let mut lines = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            lines.extend(error.to_string().lines().map(str::to_owned));
            cause = error.source();
        }
        lines.truncate(LINES);
        lines.join(": ")
    }

    /// As [`Error::report`], and never without a hint: for whoever is told last.
    pub fn told(&self) -> String {
        let report = self.report();
        match self.0.hint {
            Some(_) => report,
            None => format!("{report}\nHINT: {}", self.0.kind.hint()),
        }
    }

    /// Everything an administrator needs, a line each: message, causes behind ` -> `, state, `HINT:`.
    pub fn report(&self) -> String {
        use fmt::Write as _;
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let _ = write!(text, "\n -> {error}");
            cause = error.source();
        }
        if let Some(state) = &self.0.state {
            let _ = write!(text, "\n{state}");
        }
        if let Some(hint) = &self.0.hint {
            let _ = write!(text, "\nHINT: {hint}");
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Every one of these is done, whatever fails.
///
/// # Errors
/// The first failure; others are logged.
pub fn each(done: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut failures = done.filter_map(Result::err);
    let first = failures.next();
    failures.for_each(|other| log::error!("{}", other.report()));
    first.map_or(Ok(()), Err)
}

/// Adds the action and the path to a failed system call.
pub trait IoContext<T> {
    /// `could not <action> <path>`, see [`Error::io`].
    fn at(self, action: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::io(action, path, error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_a_line_has_its_causes_and_no_hint() {
        let said = "could not write\nERROR:  No space left on device";
        let error = Error::new(Kind::Program, "pg_dump failed").because(said).state("s").hint("h");
        assert_eq!(error.one_line(), "pg_dump failed: could not write: ERROR:  No space left on device");
        assert_eq!(error.or_no_space().kind(), Kind::NoSpace);
    }

    #[test]
    fn a_report_reads_from_the_message_to_the_hint() {
        let full = std::io::Error::from_raw_os_error(28);
        let error = Error::io("write", Path::new("/b/x.partial"), full)
            .state("the server was not touched; the newest backup is 20261123T030000Z")
            .hint("free space there and run: systemctl start matrix-postgres-backup.service")
            .context("could not dump database \"homeserver\"");
        assert_eq!(error.kind(), Kind::NoSpace);
        assert_eq!(
            error.report(),
            "could not dump database \"homeserver\"\n \
             -> could not write /b/x.partial\n \
             -> No space left on device (os error 28)\n\
             the server was not touched; the newest backup is 20261123T030000Z\n\
             HINT: free space there and run: systemctl start matrix-postgres-backup.service"
        );
    }

    #[test]
    fn what_fails_keeps_nothing_after_it_from_being_done() {
        let mut done = Vec::new();
        let results = ["a", "b", "c", "d"].into_iter().map(|name| {
            done.push(name);
            match name {
                "b" | "c" => Err(Error::new(Kind::File, name)),
                _ => Ok(()),
            }
        });
        assert_eq!(each(results).unwrap_err().to_string(), "b");
        assert_eq!(done, ["a", "b", "c", "d"]);
    }

    #[test]
    fn the_innermost_hint_is_kept() {
        let error = Error::new(Kind::Server, "x").hint("near").context("y").hint("far");
        assert_eq!(error.hint_text(), Some("near"));
    }

    #[test]
    fn whoever_is_told_last_is_told_what_to_do() {
        let error = Error::new(Kind::Server, "x").state("y");
        assert_eq!(
            error.told(),
            "x\ny\nHINT: check the log of the server: journalctl --unit=matrix-postgres.service"
        );
        assert_eq!(error.hint("z").told(), "x\ny\nHINT: z");
    }

    #[test]
    fn every_exit_status_is_documented() {
        let documented = include_str!("../docs/exit-statuses.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok());
        assert!(documented.eq(Kind::Bug.exit_status()..=Kind::Offsite.exit_status()));
    }

    #[test]
    fn exit_statuses_are_a_contract() {
        assert_eq!(Kind::Bug.exit_status(), 25);
        assert_eq!(Kind::NoSpace.exit_status(), 29);
        assert_eq!(Kind::Locked.exit_status(), 34);
        assert_eq!(Kind::Interrupted.exit_status(), 41);
        assert_eq!(Kind::NotDelivered.exit_status(), 42);
    }
}
