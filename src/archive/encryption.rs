//! Encryption by the distribution's `age` or `gpg`: a program in the stream, between the codec and the file.
//!
//! It fails closed. The program's exit status counts, what it writes must begin as its format does, and whatever
//! goes wrong, there is no file. Nothing that is not encrypted reaches the disk.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::sink::Sink;
use super::source::{enlarge_pipe, into_error};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::runtime::{self, Child};
use crate::terminal;

/// What moves from the program to the file in one call.
pub(super) const BUFFER: usize = 256 * 1024;

/// The program that encrypts, and the format that comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// age(1), <https://age-encryption.org/v1>.
    Age,
    /// gpg(1), OpenPGP (RFC 9580).
    Gpg,
}

impl Method {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Gpg => "gpg",
        }
    }

    /// How its files end, without the dot.
    pub fn extension(self) -> &'static str {
        self.program()
    }

    /// Whether a file may begin like this. OpenPGP's begin with the packet of a session key.
    fn is_beginning(self, bytes: &[u8]) -> bool {
        match self {
            Self::Age => bytes.starts_with(b"age-encryption.org/v1\n"),
            Self::Gpg => matches!(bytes.first(), Some(0x84..=0x86 | 0xc1)),
        }
    }

    /// How many bytes it takes to tell.
    fn beginning(self) -> usize {
        match self {
            Self::Age => 22,
            Self::Gpg => 1,
        }
    }
}

/// Whom to encrypt to, and by which program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// What comes out.
    pub method: Method,
    /// The program's file.
    pub program: PathBuf,
    /// As the program takes them. They are public.
    pub recipients: Vec<String>,
    /// gpg's directory of public keys.
    pub home: Option<PathBuf>,
}

impl Encryption {
    /// The program of `method` on this machine, for these recipients.
    ///
    /// # Errors
    /// [`Kind::NotInstalled`], naming the package.
    pub fn new(method: Method, recipients: Vec<String>, home: Option<PathBuf>) -> Result<Self> {
        Ok(Self { method, program: program(method)?, recipients, home })
    }

    /// Encrypts a few bytes, as a test of program and recipients.
    ///
    /// # Errors
    /// [`Kind::Config`] with what the program says.
    pub fn check(&self) -> Result<()> {
        let name = self.method.program();
        let refused = |error: Error| {
            error.with_kind(Kind::Config).context(format!("cannot encrypt with {name} to {}", self.shown()))
        };
        let probe = b"matrix-postgres checks whether it can encrypt";
        let packed = runtime::output(self.command(), name, probe).map_err(refused)?;
        match self.method.is_beginning(&packed) && memchr::memmem::find(&packed, probe).is_none() {
            true => Ok(()),
            false => Err(refused(not_encrypted(name))),
        }
    }

    /// The recipients, for a message.
    pub fn shown(&self) -> String {
        self.recipients.join(", ")
    }

    /// Standard input to standard output, encrypted.
    fn command(&self) -> Command {
        let mut command = runtime::bare(&self.program);
        match self.method {
            Method::Age => {
                command.arg("--encrypt");
            }
            Method::Gpg => {
                if let Some(home) = &self.home {
                    command.arg("--homedir").arg(home);
                }
                // Nobody is asked, no configuration is read but ours, and nothing is written to its directory, which
                // need be neither ours nor writable. Which keys are good was decided by who put them there.
                command.args([
                    "--batch",
                    "--no-tty",
                    "--quiet",
                    "--no-options",
                    "--no-autostart",
                    "--lock-never",
                    "--no-random-seed-file",
                    "--no-permission-warning",
                    "--no-auto-check-trustdb",
                    "--no-auto-key-locate",
                    "--no-encrypt-to",
                    "--trust-model=always",
                    // Packed already. What is in its files is no name of ours, either.
                    "--compress-algo=none",
                    "--encrypt",
                    "--output=-",
                ]);
            }
        }
        for recipient in &self.recipients {
            command.arg("--recipient").arg(recipient);
        }
        // By hand, root has become the backups' owner, and the terminal is still root's.
        terminal::leave(&mut command);
        command
    }
}

/// The file of the program that encrypts and decrypts.
pub(super) fn program(method: Method) -> Result<PathBuf> {
    let (name, package) = match method {
        Method::Age => ("age", "age"),
        Method::Gpg => ("gpg", "gnupg"),
    };
    runtime::tool(name, package)
}

fn not_encrypted(name: &str) -> Error {
    Error::new(Kind::Program, format!("the output of {name} is not encrypted"))
}

/// A sink that encrypts into another one.
///
/// A thread carries what the program writes to the sink below. Dropped before [`Sink::finish`] was called, it kills
/// the program and drops that sink, with its file.
pub struct Encrypted<S> {
    path: PathBuf,
    method: Method,
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    below: Option<JoinHandle<Result<Option<S>>>>,
}

impl<S: Sink + Send + 'static> Encrypted<S> {
    /// Starts the program.
    ///
    /// # Errors
    /// [`Kind::Program`] if it does not start.
    pub fn new(below: S, encryption: &Encryption) -> Result<Self> {
        let path = below.path().to_path_buf();
        let method = encryption.method;
        let mut command = encryption.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, method.program())?;
        let (Some(stdin), Some(stdout)) = (child.stdin(), child.stdout()) else {
            return Err(Error::new(Kind::Bug, "a program that encrypts was started without its pipes"));
        };
        enlarge_pipe(&stdin);
        enlarge_pipe(&stdout);
        let thread = std::thread::Builder::new().name(method.program().into());
        let below = thread.spawn(move || carry(stdout, below, method)).at("write", &path)?;
        Ok(Self { path, method, child: Some(child), stdin: Some(stdin), below: Some(below) })
    }

    /// Ends the program's input and waits for both ends: its exit status counts, and so does the sink. Of two
    /// failures the sink's is the cause: a program whose output is not taken fails, too.
    fn end(&mut self) -> Result<S> {
        drop(self.stdin.take());
        let (Some(below), Some(child)) = (self.below.take(), self.child.take()) else {
            return Err(Error::new(Kind::Bug, "an encrypted file was closed twice"));
        };
        let carried =
            below.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the writing thread panicked")));
        let ended = child.wait();
        let below = carried?;
        ended.and_then(|()| below.ok_or_else(|| not_encrypted(self.method.program())))
    }
}

/// Everything that the program writes goes into the sink, which is given back unless there was nothing.
fn carry<S: Sink>(mut stdout: ChildStdout, mut below: S, method: Method) -> Result<Option<S>> {
    let path = below.path().to_path_buf();
    let mut piece = Vec::with_capacity(BUFFER);
    let mut begun = false;
    loop {
        piece.clear();
        // The first piece is long enough to show what it is.
        let least = if begun { 1 } else { method.beginning() };
        while piece.len() < least {
            let room = (BUFFER - piece.len()) as u64;
            let read = read_some(&mut stdout, &mut piece, room).map_err(into_error)?;
            if read == 0 {
                break;
            }
        }
        if piece.is_empty() {
            return Ok(begun.then_some(below));
        }
        if !begun && !method.is_beginning(&piece) {
            return Err(not_encrypted(method.program()));
        }
        begun = true;
        below.write_all(&piece).at("write", &path)?;
    }
}

/// One read, appended.
fn read_some(source: &mut impl Read, piece: &mut Vec<u8>, room: u64) -> io::Result<usize> {
    let start = piece.len();
    piece.resize(start + usize::try_from(room).unwrap_or(BUFFER), 0);
    let read = loop {
        match source.read(&mut piece[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    piece.truncate(start + *read.as_ref().unwrap_or(&0));
    read
}

impl<S: Sink + Send + 'static> Write for Encrypted<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &mut self.stdin else {
            return Err(io::Error::other("the encryption has already failed"));
        };
        match stdin.write(buffer) {
            // It has ended before its time. Why, its exit status or the sink below says.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let name = self.method.program();
                Err(io::Error::other(self.end().err().unwrap_or_else(|| {
                    Error::new(Kind::Program, format!("{name} ended before it had read all input"))
                })))
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Sink + Send + 'static> Sink for Encrypted<S> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn finish(mut self: Box<Self>) -> Result<Digest> {
        Box::new(self.end()?).finish()
    }
}

impl<S> Drop for Encrypted<S> {
    fn drop(&mut self) {
        // Killed before its input ends: it must not take that for the end of the content.
        drop(self.child.take());
        drop(self.stdin.take());
        if let Some(below) = self.below.take() {
            // The sink, with its file, is gone when this returns.
            drop(below.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{FailingSink, text};
    use crate::archive::{Codec, FileSink, Packed, Packing, Stored, digest_of, open, store_into, tee};
    use std::os::unix::fs::PermissionsExt as _;

    /// An encryption by a script in place of age.
    fn scripted(directory: &Path, script: &str) -> Encryption {
        let program = directory.join("age");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Encryption { method: Method::Age, program, recipients: vec!["age1x".into()], home: None }
    }

    fn encrypt(content: &[u8], encryption: &Encryption, path: &Path) -> Result<Stored> {
        let sink = FileSink::create(path).and_then(|file| Encrypted::new(file, encryption))?;
        store_into(sink, content, Packing::new(Codec::None, 1), &mut |_| Ok(()))
    }

    /// Real recipients, where age is installed: an encryption, and the file of its identity.
    fn real(directory: &Path, name: &str) -> Option<(Encryption, PathBuf)> {
        let keygen = runtime::tool("age-keygen", "age").ok()?;
        let identity = directory.join(name);
        let mut command = runtime::bare(&keygen);
        command.arg("-o").arg(&identity);
        runtime::output(command, "age-keygen", b"").unwrap();
        let mut command = runtime::bare(&keygen);
        command.arg("-y").arg(&identity);
        let recipient = String::from_utf8(runtime::output(command, "age-keygen", b"").unwrap()).unwrap();
        Some((Encryption::new(Method::Age, vec![recipient.trim().into()], None).unwrap(), identity))
    }

    const HEADER: &str = "echo age-encryption.org/v1";

    #[test]
    fn whatever_the_program_does_wrong_there_is_no_file_and_its_words_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.age");
        for (script, expected) in [
            ("cat >/dev/null; echo no room >&2; exit 1", "age failed (exit status 1)\n -> no room"),
            (&*format!("{HEADER}; head -c 300000; echo tired >&2; exit 3"), "(exit status 3)\n -> tired"),
            (&format!("{HEADER}; head -c 300000; kill -KILL $$"), "killed by SIGKILL"),
            (&format!("{HEADER}; head -c 300000"), "age ended before it had read all input"),
            (&format!("{HEADER}; cat; exit 4"), "exit status 4"),
            ("cat", "the output of age is not encrypted"),
            ("cat >/dev/null", "the output of age is not encrypted"),
        ] {
            let encryption = scripted(directory.path(), script);
            let error = encrypt(&text(8 << 20), &encryption, &path).expect_err(script);
            assert!(error.report().contains(expected), "{script}: {}", error.report());
            assert!(!path.exists(), "{script}");
        }
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        struct Full(FailingSink, PathBuf);
        impl Write for Full {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                self.0.write(buffer)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Sink for Full {
            fn path(&self) -> &Path {
                &self.1
            }
            fn finish(self: Box<Self>) -> Result<Digest> {
                Err(Error::new(Kind::Bug, "finished"))
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let encryption = scripted(directory.path(), &format!("{HEADER}; exec cat"));
        for room in [100, 3_000_000] {
            let sink = Encrypted::new(Full(FailingSink::after(room), "/b/x".into()), &encryption).unwrap();
            let content = text(8 << 20);
            let error =
                store_into(sink, &content[..], Packing::new(Codec::None, 1), &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), Kind::NoSpace, "{}", error.report());
        }
    }

    #[test]
    fn a_sink_that_is_dropped_leaves_neither_file_nor_program() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.age");
        let encryption = scripted(directory.path(), &format!("{HEADER}; exec cat"));
        let mut sink = Encrypted::new(FileSink::create(&path).unwrap(), &encryption).unwrap();
        sink.write_all(&text(1 << 20)).unwrap();
        let pid = sink.child.as_ref().unwrap().pid();
        drop(sink);
        assert!(!path.exists() && nix::sys::signal::kill(pid, None).is_err());
    }

    #[test]
    fn a_program_that_does_not_encrypt_is_found_before() {
        let directory = tempfile::tempdir().unwrap();
        for script in
            ["cat", &format!("{HEADER}; cat"), "cat >/dev/null", "echo malformed recipient >&2; exit 1"]
        {
            let error = scripted(directory.path(), script).check().expect_err(script);
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains("cannot encrypt with age to age1x"), "{}", error.report());
        }
    }

    #[test]
    fn what_is_written_is_read_back_before_and_after() {
        let directory = tempfile::tempdir().unwrap();
        let Some((encryption, identity)) = real(directory.path(), "mine") else { return };
        let (_, other) = real(directory.path(), "other").unwrap();
        encryption.check().unwrap();
        for codec in [Codec::ZSTD, Codec::GZIP, Codec::None] {
            let path = directory.path().join(format!("{codec:?}.age"));
            let file = || -> Packed { Box::new(std::fs::File::open(&path).unwrap()) };
            let digest = || digest_of(file(), &path, &mut |_| Ok(())).unwrap();
            let content = text(6 << 20);
            let sink = Encrypted::new(FileSink::create(&path).unwrap(), &encryption).unwrap();
            let (sink, branch) = tee(sink, codec);
            let (stored, read) = std::thread::scope(|scope| {
                let reading = scope.spawn(move || {
                    let mut reader = branch.open().unwrap();
                    io::copy(&mut reader, &mut io::sink()).unwrap();
                    reader.finish().unwrap()
                });
                let packing = Packing::new(codec, 2);
                let stored = store_into(sink, &content[..], packing, &mut |_| Ok(())).unwrap();
                (stored, reading.join().unwrap())
            });
            assert_eq!(stored.content, read.content);
            assert!(read.file.bytes < stored.file.bytes, "encryption adds a header");
            assert_eq!(digest(), stored.file);

            let decrypted = |identity: &Path| -> Result<(Vec<u8>, Stored)> {
                let mut reader = open(file(), &path, codec, Some(Method::Age), Some(identity))?;
                let mut content = Vec::new();
                reader.read_to_end(&mut content).map_err(into_error)?;
                Ok((content, reader.finish()?))
            };
            assert!(decrypted(&identity).unwrap() == (content, stored.clone()));
            let error = decrypted(&other).unwrap_err();
            assert_eq!(error.kind(), Kind::NoKey);
            assert!(error.report().contains("no identity matched"), "{}", error.report());
            assert_eq!(
                open(file(), &path, codec, Some(Method::Age), None).err().unwrap().kind(),
                Kind::NoKey
            );

            // A byte flipped anywhere, or the end cut off, is found with the key and without it.
            let good = std::fs::read(&path).unwrap();
            for place in (0..good.len()).step_by(good.len() / 12).chain([good.len() - 1]) {
                let mut flipped = good.clone();
                flipped[place] ^= 1;
                for bad in [&flipped[..], &good[..place]] {
                    std::fs::write(&path, bad).unwrap();
                    assert!(decrypted(&identity).is_err(), "at {place}");
                    assert_ne!(digest(), stored.file);
                }
            }
        }
    }

    #[test]
    fn a_reader_that_gives_up_ends_the_writing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let (sink, reader) = tee(FileSink::create(&path).unwrap(), Codec::None);
        drop(reader);
        let content = text(8 << 20);
        store_into(sink, &content[..], Packing::new(Codec::None, 1), &mut |_| Ok(())).unwrap_err();
        assert!(!path.exists());
    }
}
