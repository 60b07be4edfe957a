//! `list` and `status` for members of `matrix-postgres-admin`, who may read neither the backups nor the data directory.
//!
//! They `ask` by a socket that is their group's, and matrix-postgres-report@.service, which runs as the backups' user, may
//! write nothing and has no network, `answer`s. What can be asked for is one of the four words of [`Question`]; no path, no name
//! and no setting is the asker's to choose.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::report::plain;
use crate::runtime::exit_code;

/// Where it is asked.
const SOCKET: &str = "/run/matrix-postgres-report/socket";

/// The one whose verbs these are.
const PROGRAM: &str = "matrix-postgres-backup";

/// A question is not longer than that.
const MODEST: u64 = 64;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// `list`
    List { json: bool },
    /// `status`
    Status { json: bool },
}

/// What was printed, and how it ended.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    status: u8,
    output: String,
    errors: String,
}

impl Question {
    fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::new(Kind::Config, "only list and status can be asked for").because(error))
    }

    fn arguments(self) -> impl Iterator<Item = &'static str> {
        let (verb, json) = match self {
            Self::List { json } => ("list", json),
            Self::Status { json } => ("status", json),
        };
        [verb].into_iter().chain(json.then_some("--json"))
    }
}

/// Has it answered and prints that; nothing where we are not let in, or nobody is there: then we look for ourselves.
pub(super) fn ask(question: Question) -> Result<Option<ExitCode>> {
    let lost = |error: std::io::Error| {
        Error::new(Kind::Program, format!("{SOCKET} did not answer"))
            .because(error)
            .hint("journalctl --unit='matrix-postgres-report@*'")
    };
    let mut stream = match UnixStream::connect(SOCKET) {
        Ok(stream) => stream,
        Err(error) => {
            log::debug!("{SOCKET}: {error}");
            return Ok(None);
        }
    };
    let mut text = String::new();
    serde_json::to_writer(&stream, &question)
        .map_err(Into::into)
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut text))
        .map_err(lost)?;
    let answer: Answer = serde_json::from_str(&text).map_err(|error| lost(error.into()))?;
    eprint_all(&answer.errors);
    crate::cli::print(&answer.output)?;
    Ok(Some(ExitCode::from(answer.status)))
}

/// A reader who has gone away is no failure.
fn eprint_all(text: &str) {
    let _ = std::io::stderr().write_all(plain(text).as_bytes());
}

/// Answers what is asked on standard input, a socket.
pub(super) fn answer() -> Result<ExitCode> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Program, "could not answer a member of matrix-postgres-admin").because(error)
    };
    let mut text = String::new();
    std::io::stdin().take(MODEST).read_to_string(&mut text).map_err(failed)?;
    let question = Question::parse(&text)?;
    let program = std::env::current_exe().map_err(failed)?.with_file_name(PROGRAM);
    let said =
        Command::new(program).args(question.arguments()).stdin(Stdio::null()).output().map_err(failed)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let answer =
        Answer { status: exit_code(said.status), output: text(said.stdout), errors: text(said.stderr) };
    match serde_json::to_writer(std::io::stdout(), &answer).map_err(std::io::Error::from) {
        // The asker has gone away.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_can_be_asked_for() {
        for question in [Question::List { json: true }, Question::Status { json: false }] {
            let text = serde_json::to_string(&question).unwrap();
            assert!(text.len() < 64);
            assert_eq!(Question::parse(&text).unwrap(), question);
        }
        let arguments: Vec<_> = Question::List { json: true }.arguments().collect();
        assert_eq!(arguments, ["list", "--json"]);
        for text in [
            "",
            "list",
            r#"{"restore":{"json":false}}"#,
            r#"{"list":{"json":false,"at":"x"}}"#,
            r#"{"list":{"json":"--config"}}"#,
            r#"{"status":{"json":true}} {"list":{"json":true}}"#,
        ] {
            assert_eq!(Question::parse(text).unwrap_err().kind(), Kind::Config, "{text}");
        }
    }
}
