//! rclone(1), which knows the way to all kinds of stores: what it is told to do, and what it says.
//!
//! Files go there by `copyto` and never by `rcat`: of a stream that ends early, that leaves a file under its final name. Secrets
//! are in its configuration only, which is a credential. rclone writes to its configuration, such as what it has found out about
//! an SFTP server, and waits for seconds where it cannot: it gets a copy in a directory of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use serde::Deserialize;
use tempfile::TempDir;

use crate::account::Account;
use crate::archive::Packed;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::runtime::{self, Child, exit_code, interrupt};
use crate::terminal;

/// What follows each verb. A target that cannot be reached is given up within a minute or so.
const ALWAYS: [&str; 5] =
    ["--ask-password=false", "--contimeout=20s", "--low-level-retries=3", "--retries=3", "--stats=0"];

/// How many of its last words are kept.
const LINES: usize = 12;

/// Exit statuses for a directory and a file that are not there (rclone's manual, "Exit code").
const NOT_THERE: [u8; 2] = [3, 4];

/// The program, with its configuration.
#[derive(Debug)]
pub struct Rclone {
    program: PathBuf,
    directory: TempDir,
    account: Option<Account>,
}

/// A file, as rclone lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    /// Relative to what was listed.
    pub path: String,
    /// In bytes; -1 if the store does not tell.
    pub size: i64,
    /// By the names of [`HASHES`]; those that the store has.
    #[serde(default)]
    pub hashes: BTreeMap<String, String>,
}

/// The hashes that are asked for, the best one first. A store has some of them, or none.
pub const HASHES: [&str; 3] = ["sha256", "sha1", "md5"];

impl Rclone {
    /// With this configuration. For root, it runs as `account`: it talks to others on the network.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`], [`Kind::File`].
    pub fn new(configuration: &str, account: Option<Account>) -> Result<Self> {
        let program = runtime::tool("rclone", "rclone")?;
        let place = Path::new(if account.is_some() { "/run" } else { "/tmp" });
        let directory = tempfile::Builder::new()
            .prefix("matrix-postgres-rclone-")
            .tempdir_in(place)
            .at("write to", place)?;
        let file = directory.path().join(CONFIGURATION);
        fs::write(&file, configuration).at("write", &file)?;
        fs::set_permissions(&file, Permissions::from_mode(0o600)).at("write", &file)?;
        if let Some(account) = &account {
            let ids = (Some(account.uid.as_raw()), Some(account.gid.as_raw()));
            for path in [&file, directory.path()] {
                chown(path, ids.0, ids.1).at("change the owner of", path)?;
            }
        }
        Ok(Self { program, directory, account })
    }

    /// A directory of rclone's user for files that it writes.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The directories in one; none where that is not there.
    ///
    /// # Errors
    /// [`Kind::Offsite`] with rclone's last words.
    pub fn directories(&self, path: &Path) -> Result<Vec<String>> {
        let listed = self.ask(list_directories(path))?;
        Ok(parse(&listed.unwrap_or_default())?.into_iter().map(|object| object.path).collect())
    }

    /// All files below a directory, without their hashes; none where it is not there.
    ///
    /// # Errors
    /// As [`Rclone::directories`].
    pub fn files(&self, path: &Path) -> Result<Vec<Object>> {
        parse(&self.ask(list_files(path, false))?.unwrap_or_default())
    }

    /// The same, with the hashes of those that the store has, or this machine for a directory of it.
    ///
    /// # Errors
    /// As [`Rclone::directories`].
    pub fn hashes(&self, path: &Path) -> Result<Vec<Object>> {
        parse(&self.ask(list_files(path, true))?.unwrap_or_default())
    }

    /// Opens a file that is there, from this byte on.
    ///
    /// # Errors
    /// [`Kind::Program`] if rclone cannot be started. All else is told when it is read.
    pub fn open(&self, path: &Path, start: u64) -> Result<Packed> {
        let mut command = self.command(cat(path, start));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn_that_says(command, NAME, LINES)?;
        let stdout =
            child.stdout().ok_or_else(|| Error::new(Kind::Bug, "rclone was started without its pipe"))?;
        Ok(Box::new(Opened { path: path.to_owned(), child: Some(child), stdout }))
    }

    /// Copies a file, in the place of one that is there; either is a file of this machine, or one elsewhere.
    ///
    /// # Errors
    /// [`Kind::Offsite`] with rclone's last words.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.tell(copy(from, to))
    }

    /// Copies the files called `name` in the directories that are directly in one, to the same places in another.
    ///
    /// # Errors
    /// [`Kind::Offsite`] with rclone's last words.
    pub fn copy_named(&self, name: &str, from: &Path, to: &Path) -> Result<()> {
        self.tell(copy_named(name, from, to))
    }

    /// Removes a file; that it is not there is no error.
    ///
    /// # Errors
    /// [`Kind::Offsite`] with rclone's last words.
    pub fn remove_file(&self, path: &Path) -> Result<()> {
        self.ask(vec!["deletefile".into(), path.into()]).map(drop)
    }

    /// Removes an empty directory, if the store has such things.
    ///
    /// # Errors
    /// [`Kind::Offsite`] with rclone's last words.
    pub fn remove_directory(&self, path: &Path) -> Result<()> {
        self.ask(vec!["rmdir".into(), path.into()]).map(drop)
    }

    fn command(&self, words: Vec<OsString>) -> Command {
        let mut command = runtime::bare(&self.program);
        command.args(words).args(ALWAYS).arg("--config").arg(self.directory.path().join(CONFIGURATION));
        match &self.account {
            Some(account) => account.apply(&mut command),
            None => terminal::leave(&mut command),
        }
        command
    }

    fn tell(&self, words: Vec<OsString>) -> Result<()> {
        match self.ask(words)? {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::Offsite, "rclone failed: a file is not there any more")),
        }
    }

    /// What it prints; nothing if what it is to work on is not there.
    fn ask(&self, words: Vec<OsString>) -> Result<Option<String>> {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn_that_says(command, NAME, LINES)?;
        let mut printed = Vec::new();
        if let Some(mut stdout) = child.stdout() {
            stdout.read_to_end(&mut printed).map_err(|error| {
                Error::new(Kind::Program, "could not read what rclone prints").because(error)
            })?;
        }
        // Whoever succeeds may have complained: of a hash that a store does not have.
        let (status, said) = child.wait_status()?;
        match exit_code(status) {
            0 => Ok(Some(String::from_utf8_lossy(&printed).into_owned())),
            code if NOT_THERE.contains(&code) => Ok(None),
            code => Err(failed(code, &said)),
        }
    }
}

const NAME: &str = "rclone";
const CONFIGURATION: &str = "rclone.conf";

fn failed(code: u8, said: &str) -> Error {
    if let Err(interrupted) = interrupt::check() {
        return interrupted;
    }
    Error::new(Kind::Offsite, format!("rclone failed (exit status {code})")).because(plain(said))
}

/// Its words without the time, which the journal has, and without those that repeat others.
fn plain(said: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in said.lines() {
        let is_date =
            |word: &str| word.len() >= 8 && word.bytes().all(|byte| b"0123456789/:.".contains(&byte));
        let mut rest = line;
        while let Some((word, after)) = rest.split_once(' ').filter(|(word, _)| is_date(word)) {
            (rest, _) = (after, word);
        }
        if !lines.contains(&rest) {
            lines.push(rest);
        }
    }
    lines.join("\n")
}

/// What it prints as a list.
fn parse(text: &str) -> Result<Vec<Object>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|error| {
        Error::new(Kind::Offsite, "the list that rclone prints cannot be parsed").because(error)
    })
}

fn list_directories(path: &Path) -> Vec<OsString> {
    let words = ["lsjson", "--dirs-only", "--no-modtime", "--no-mimetype"].map(OsString::from);
    words.into_iter().chain([path.into()]).collect()
}

fn list_files(path: &Path, with_hashes: bool) -> Vec<OsString> {
    let words =
        ["lsjson", "--recursive", "--files-only", "--no-modtime", "--no-mimetype"].map(OsString::from);
    let mut words: Vec<_> = words.into();
    if with_hashes {
        words.push("--hash".into());
        words.extend(HASHES.map(|hash| format!("--hash-type={hash}").into()));
    }
    words.push(path.into());
    words
}

fn cat(path: &Path, start: u64) -> Vec<OsString> {
    vec!["cat".into(), format!("--offset={start}").into(), path.into()]
}

/// Whether it is to be copied has been decided by what is in it, and no date matters.
fn copy(from: &Path, to: &Path) -> Vec<OsString> {
    vec!["copyto".into(), "--ignore-times".into(), from.into(), to.into()]
}

fn copy_named(name: &str, from: &Path, to: &Path) -> Vec<OsString> {
    let pattern = format!("--include=/*/{name}");
    vec!["copy".into(), "--ignore-times".into(), pattern.into(), from.into(), to.into()]
}

/// A file elsewhere that is read. Its end is one only if rclone says so.
struct Opened {
    path: PathBuf,
    child: Option<Child>,
    stdout: ChildStdout,
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let Some(child) = self.child.take() else { return Ok(0) };
        let (status, said) = child.wait_status().map_err(io::Error::other)?;
        match exit_code(status) {
            0 => Ok(0),
            code => {
                let what = format!("could not read {}", self.path.display());
                Err(io::Error::other(failed(code, &said).context(what)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_told_has_no_secrets_and_names_both_ends() {
        let words = |words: Vec<OsString>| {
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(copy("/a/b".as_ref(), "x:y/b".as_ref())), "copyto --ignore-times /a/b x:y/b");
        assert_eq!(words(cat("x:y/b".as_ref(), 7)), "cat --offset=7 x:y/b");
        assert_eq!(
            words(list_files("x:y".as_ref(), true)),
            "lsjson --recursive --files-only --no-modtime --no-mimetype --hash --hash-type=sha256 --hash-type=sha1 --hash-type=md5 x:y"
        );
        assert!(words(copy_named("m", "x:".as_ref(), "/t".as_ref())).contains("--include=/*/m x: /t"));
    }

    #[test]
    fn a_list_has_names_sizes_and_the_hashes_that_there_are() {
        let listed = parse(
            "[\n{\"Path\":\"h/f\",\"Name\":\"f\",\"Size\":3,\"IsDir\":false,\"Hashes\":{\"md5\":\"aa\"}},\n\
             {\"Path\":\"g\",\"Name\":\"g\",\"Size\":-1,\"ModTime\":\"\",\"IsDir\":false}\n]\n",
        )
        .unwrap();
        assert_eq!((listed[0].path.as_str(), listed[0].size, listed[1].size), ("h/f", 3, -1));
        assert_eq!(listed[0].hashes["md5"], "aa");
        assert!(parse("").unwrap().is_empty());
        assert_eq!(parse("[\n").unwrap_err().kind(), Kind::Offsite);
    }

    #[test]
    fn its_words_are_told_once_and_without_the_time() {
        let said =
            "2026/11/29 09:54:04 ERROR : x\n2026/11/29 09:54:05 ERROR : x\n2026/11/29 09:54:05 Failed: y 1/2";
        assert_eq!(plain(said), "ERROR : x\nFailed: y 1/2");
    }
}
