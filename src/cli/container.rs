//! `matrix-postgres-container`: what stands between our programs and docker or podman.
//!
//! The backup's units have neither privileges nor a network, and docker's socket is the power of root. They `ask` for one of
//! PostgreSQL's programs, by a socket that is theirs alone, and hand over their standard input, output and error; a unit of its
//! own, one for each call, `serve`s. What it runs is found by itself in root's configuration: image, network, user and file of
//! variables are not the asker's to choose, and no directory is. So whoever takes over the asker has what a superuser of the
//! database has, who it is anyway.

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config;
use crate::error::{Error, Kind, Result};
use crate::place::SETUP;
use crate::runtime::{Call, Container, Engine, Standby, exit_code, standby};

/// Where it is asked.
const SOCKET: &str = "/run/matrix-postgres-container/socket";

/// What is asked for when nothing is to be run.
const CLEAN: &str = "clean";

/// A request is not longer than that.
const MODEST: u32 = 1 << 20;

/// Run one of PostgreSQL's programs in a throw-away container (for matrix-postgres-backup and its likes).
#[derive(Debug, Parser)]
#[command(name = "matrix-postgres-container", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/matrix-postgres/config.toml, then config.d/*.toml beside it]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Call `docker run` with these arguments, and see to it that nothing of it is left
    Run {
        /// docker or podman
        engine: String,
        /// Arguments of docker run
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Have a program run by the unit that may do so
    Ask {
        /// The program, and its arguments
        #[arg(last = true, required = true)]
        call: Vec<String>,
    },
    /// Run what is asked for on standard input, a socket
    Serve,
    /// Remove the containers of calls that were killed
    Clean,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    program: String,
    arguments: Vec<String>,
}

/// Carries out the verb.
///
/// # Errors
/// Those of the verb.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.verb {
        Verb::Run { engine, arguments } => {
            let engine = Engine::named(&engine)
                .ok_or_else(|| Error::new(Kind::Bug, format!("{engine} runs no containers")))?;
            let standby = Standby::run(engine, &arguments, |_| {})?;
            standby::pass_on(standby.pid())?;
            standby.wait().map(|status| ExitCode::from(exit_code(status)))
        }
        Verb::Ask { call } => ask(call),
        Verb::Serve => serve(arguments.config.as_deref()),
        Verb::Clean => clean(arguments.config.as_deref()).map(|()| ExitCode::SUCCESS),
    }
}

fn ask(mut call: Vec<String>) -> Result<ExitCode> {
    let lost = |error: std::io::Error| {
        Error::new(Kind::Program, format!("{SOCKET} did not answer"))
            .because(error)
            .hint("journalctl --unit=matrix-postgres-container@*")
    };
    let mut stream = UnixStream::connect(SOCKET).map_err(|error| {
        Error::new(
            Kind::Program,
            format!("{SOCKET} cannot be reached, by which programs are run in containers"),
        )
        .because(error)
        .hint(SETUP)
    })?;
    let request = Request { program: call.remove(0), arguments: call };
    let text = serde_json::to_vec(&request)
        .map_err(|error| Error::new(Kind::Bug, "could not write JSON").because(error))?;
    send(&stream, &text).map_err(lost)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT]).map_err(lost)?;
    let mut other_end = stream.try_clone().map_err(lost)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let _ = other_end.write_all(&[u8::try_from(signal).unwrap_or_default()]);
        }
    });
    let mut code = [0];
    let answered = stream.read_exact(&mut code);
    if answered.is_err() {
        // Killed, it has left its container and the locks of that: the next one puts this right.
        put_right().map_err(lost)?;
    }
    answered.map_err(lost)?;
    Ok(ExitCode::from(code[0]))
}

fn put_right() -> std::io::Result<()> {
    let mut stream = UnixStream::connect(SOCKET)?;
    let request = Request { program: CLEAN.to_owned(), arguments: Vec::new() };
    send(&stream, &serde_json::to_vec(&request)?)?;
    stream.read_exact(&mut [0])
}

fn clean(config: Option<&Path>) -> Result<()> {
    standby::remove_abandoned(container(config)?.image().engine)
}

/// The length of the request, with our standard input, output and error; then the request.
fn send(mut stream: &UnixStream, text: &[u8]) -> std::io::Result<()> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let files = [input.as_fd(), output.as_fd(), error.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    let length = u32::try_from(text.len()).map_err(std::io::Error::other)?.to_be_bytes();
    rustix::net::sendmsg(stream, &[IoSlice::new(&length)], &mut control, SendFlags::empty())?;
    stream.write_all(text)
}

fn receive(mut stream: &UnixStream) -> std::io::Result<(Request, [OwnedFd; 3])> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut control, flags)?;
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files.collect::<Vec<_>>()),
        _ => None,
    });
    let files = <[OwnedFd; 3]>::try_from(messages.flatten().collect::<Vec<_>>());
    let files = files.map_err(|files| std::io::Error::other(format!("{} files came along", files.len())))?;
    let length = u32::from_be_bytes(length);
    if received.bytes != 4 || length > MODEST {
        return Err(std::io::Error::other("it is no request"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, files))
}

fn serve(config: Option<&Path>) -> Result<ExitCode> {
    let not_asked = |error| Error::new(Kind::Program, "standard input asks for nothing").because(error);
    let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(not_asked)?;
    let mut stream = UnixStream::from(input);
    let (request, [input, output, error]) = receive(&stream).map_err(not_asked)?;
    if request.program == CLEAN {
        let done = clean(config);
        let _ = stream.write_all(&[0]);
        return done.map(|()| ExitCode::SUCCESS);
    }
    let begun = container(config).and_then(|container| {
        let (major, engine) = (container.image().major, container.image().engine);
        let words = container.words_for_clients(major, &call(request)?)?;
        Standby::run(engine, &words, |command| {
            command.stdin(input).stdout(output);
            command.stderr(error.try_clone().map_or_else(|_| std::process::Stdio::inherit(), Into::into));
        })
    });
    let code = match begun {
        Ok(standby) => {
            let client = standby.pid();
            let mut asker = stream.try_clone().map_err(not_asked)?;
            std::thread::spawn(move || {
                let mut signal = [0];
                while asker.read_exact(&mut signal).is_ok() {
                    let _ = Signal::try_from(i32::from(signal[0])).map(|signal| kill(client, signal));
                }
                // Who has asked is gone.
                let _ = kill(client, Signal::SIGKILL);
            });
            exit_code(standby.wait()?)
        }
        Err(reason) => {
            // It is the asker's failure, who tells it.
            let _ = writeln!(std::fs::File::from(error), "{}", reason.report());
            reason.kind().exit_status()
        }
    };
    // Who is gone needs no answer.
    let _ = stream.write_all(&[code]);
    Ok(ExitCode::SUCCESS)
}

fn call(request: Request) -> Result<Call> {
    let program = Container::program(&request.program)
        .ok_or_else(|| Error::new(Kind::Config, format!("{:?} is not run in containers", request.program)))?;
    Ok(Call::new(program, request.arguments))
}

fn container(config: Option<&Path>) -> Result<Container> {
    let settings = config::load(config)?;
    let settings = super::place(&settings)?.settle(settings)?;
    let image = settings.server.image.ok_or_else(|| {
        Error::new(Kind::Config, "the server is in no container, or its version cannot be told").hint(SETUP)
    })?;
    Ok(Container::new(image, []))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_whole_with_what_is_read_and_written() {
        let (asker, server) = UnixStream::pair().unwrap();
        let request =
            Request { program: "psql".into(), arguments: vec!["it's \"so\"\n".into(), "x".repeat(100_000)] };
        let text = serde_json::to_vec(&request).unwrap();
        let (received, _files) = std::thread::scope(|scope| {
            scope.spawn(|| send(&asker, &text).unwrap());
            receive(&server).unwrap()
        });
        assert_eq!(received, request);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let (mut asker, server) = UnixStream::pair().unwrap();
        asker.write_all(&[255; 64]).unwrap();
        assert!(receive(&server).is_err());
        for program in ["sh", "postgres", "initdb", "/bin/sh"] {
            assert!(call(Request { program: program.into(), arguments: vec![] }).is_err(), "{program}");
        }
        call(Request { program: "pg_dump".into(), arguments: vec![] }).unwrap();
    }
}
