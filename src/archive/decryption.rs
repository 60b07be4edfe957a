//! Decryption by the distribution's `age` or `gpg`.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::thread::JoinHandle;

use super::digest::{Digest, HashingReader};
use super::encryption::{BUFFER, Method, program};
use super::source::{Located, Packed, Source, enlarge_pipe, into_error};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::runtime::{self, Child, interrupt};

/// The content of an encrypted file, by the program that decrypts it; what that is fed with is the whole file, of which the digest
/// is taken.
pub(super) struct Decrypted {
    path: PathBuf,
    child: Option<Child>,
    stdout: ChildStdout,
    digest: JoinHandle<Result<Digest>>,
}

impl Decrypted {
    /// Starts the program. `identity` is a file for age, and gpg's directory for OpenPGP.
    pub(super) fn open(path: &Path, file: Packed, method: Method, identity: &Path) -> Result<Self> {
        require_fitting(method, identity, path)?;
        let mut command = runtime::bare(&program(method)?);
        // The program is started in the root directory.
        let identity = std::path::absolute(identity).at("find", identity)?;
        match method {
            Method::Age => command.arg("--decrypt").arg("--identity").arg(identity),
            Method::Gpg => command.arg("--homedir").arg(identity).args([
                "--batch",
                "--no-tty",
                "--quiet",
                "--decrypt",
                "--output=-",
            ]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, method.program())?;
        let (Some(stdin), Some(stdout)) = (child.stdin(), child.stdout()) else {
            return Err(Error::new(Kind::Bug, "a program that decrypts was started without its pipes"));
        };
        enlarge_pipe(&stdin);
        enlarge_pipe(&stdout);
        let file = HashingReader::new(Located::new(file, path));
        let thread = std::thread::Builder::new().name("digest".into());
        let digest = thread.spawn(move || feed(file, stdin)).at("read", path)?;
        Ok(Self { path: path.to_path_buf(), child: Some(child), stdout, digest })
    }
}

/// Each program takes a key in its own form.
fn require_fitting(method: Method, identity: &Path, path: &Path) -> Result<()> {
    let directory = identity.metadata().at("read", identity)?.is_dir();
    let hint = match (method, directory) {
        (Method::Age, true) => "pass the identity file that age-keygen has written",
        (Method::Gpg, false) => "pass the GnuPG home directory with the private key, such as ~/.gnupg",
        _ => return Ok(()),
    };
    let (path, identity) = (path.display(), identity.display());
    let message = format!(
        "{path} is encrypted with {}, which cannot use {identity} as a private key",
        method.program()
    );
    Err(Error::new(Kind::NoKey, message).hint(hint))
}

/// Gives the program the file, and takes its digest. The program may end before it has taken everything; then the rest is read, for
/// the digest, unless a signal comes.
fn feed(mut file: HashingReader<Located>, stdin: ChildStdin) -> Result<Digest> {
    let mut piece = vec![0; BUFFER];
    let mut taker = Some(stdin);
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => return Ok(file.finish()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(into_error(error)),
        };
        if taker.as_mut().is_none_or(|stdin| stdin.write_all(&piece[..length]).is_err()) {
            taker = None;
            interrupt::check()?;
        }
    }
}

impl Read for Decrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        // The end is one only if the program says so.
        let ended = self.child.take().map_or(Ok(()), Child::wait);
        ended.map(|()| 0).map_err(|error| {
            io::Error::other(match error.kind() {
                Kind::Program => {
                    Error::new(Kind::NoKey, format!("could not decrypt {}", self.path.display()))
                        .because(error)
                        .hint("pass the private key of one of the recipients in manifest.json: --identity")
                }
                _ => error,
            })
        })
    }
}

impl Source for Decrypted {
    fn finish(self: Box<Self>) -> Result<Digest> {
        drop(self.stdout);
        drop(self.child);
        self.digest.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the reading thread panicked")))
    }
}
