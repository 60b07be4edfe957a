//! People are told how a unit ended: by a program, by mail, in a Matrix room, by a dead-man's switch. Each
//! way has a time limit of its own, all go at the same time, and one that fails holds up no other.
//!
//! - [`text`]: what is said, pure
//! - [`http`]: requests by way of curl(1), whose secrets are on its standard input only

mod http;
pub mod text;

use std::process::Command;

pub use text::{Event, Notice};

use crate::config::{Matrix, Notify};
use crate::error::{Error, Kind, Result};
use crate::runtime::output_within;
use http::Request;

/// Fits sendmail's own place on Debian, Red Hat and all others that have one.
const SENDMAIL: &str = "/usr/sbin/sendmail";

/// The ways that failed, each with the reason.
pub type Failures = Vec<(&'static str, Error)>;

/// One way, with its name.
type Way<'a> = (&'static str, Box<dyn FnOnce() -> Result<()> + Send + 'a>);

/// Sends the notice by every configured way; `token` is that of the account in the Matrix room, or why
/// there is none.
pub fn send(settings: &Notify, notice: &Notice, token: Result<String>) -> Failures {
    let mut ways: Vec<Way<'_>> = Vec::new();
    if notice.is_for_people(settings.on_success) {
        if !settings.command.is_empty() {
            ways.push(("command", Box::new(|| by_command(settings, notice))));
        }
        if !settings.mail_to.is_empty() {
            ways.push(("mail", Box::new(|| by_mail(settings, notice))));
        }
        if let Some(matrix) = &settings.matrix {
            ways.push(("matrix", Box::new(move || by_matrix(settings, matrix, notice, &token?))));
        }
    }
    if let (Some(url), Some(path)) = (&settings.ping_url, notice.ping()) {
        ways.push(("ping", Box::new(move || by_ping(settings, url, path, notice))));
    }
    std::thread::scope(|scope| {
        let sent: Vec<_> = ways.into_iter().map(|(name, way)| (name, scope.spawn(way))).collect();
        let failed = |(name, thread): (_, std::thread::ScopedJoinHandle<'_, Result<()>>)| {
            let result =
                thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a delivery thread panicked")));
            result.err().map(|error| (name, error))
        };
        sent.into_iter().filter_map(failed).collect()
    })
}

fn by_command(settings: &Notify, notice: &Notice) -> Result<()> {
    let Some((program, arguments)) = settings.command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("MATRIX_POSTGRES_EVENT", notice.event.name())
        .env("MATRIX_POSTGRES_UNIT", &notice.unit);
    output_within(command, program, notice.text().into_bytes(), settings.time_limit).map(drop)
}

fn by_mail(settings: &Notify, notice: &Notice) -> Result<()> {
    let mut command = Command::new(SENDMAIL);
    command.arg("-i").arg("--").args(&settings.mail_to);
    let mail = text::mail(notice, &settings.mail_to).into_bytes();
    output_within(command, "sendmail", mail, settings.time_limit)
        .map(drop)
        .map_err(|error| error.hint("install a mail server, such as postfix, exim4 or msmtp-mta"))
}

fn by_ping(settings: &Notify, url: &str, path: &str, notice: &Notice) -> Result<()> {
    let url = format!("{}{path}", url.trim_end_matches('/'));
    // Others' eyes: what happened, and no lines of the journal.
    let request = Request { method: "POST", url, token: None, body: Some(notice.headline()) };
    http::send(&request, settings.time_limit).map(drop)
}

fn by_matrix(settings: &Notify, matrix: &Matrix, notice: &Notice, token: &str) -> Result<()> {
    let base = format!("{}/_matrix/client/v3", matrix.homeserver.trim_end_matches('/'));
    let request = |method, path: String, body: serde_json::Value| Request {
        method,
        url: format!("{base}/{path}"),
        token: Some(token.to_owned()),
        body: Some(body.to_string()),
    };
    // Who is in the room already is told its id; who was invited comes in.
    let join = request("POST", format!("join/{}", http::escape(&matrix.room)), serde_json::json!({}));
    let joined = http::send(&join, settings.time_limit)?;
    let room = joined["room_id"].as_str().unwrap_or(&matrix.room);
    let path =
        format!("rooms/{}/send/m.room.message/{}", http::escape(room), http::escape(&notice.transaction()));
    http::send(&request("PUT", path, text::message(notice)), settings.time_limit).map(drop)
}
