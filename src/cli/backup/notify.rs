//! `notify`: what `matrix-postgres-notify@.service` runs, with the name of the unit that began or ended. It may read the whole
//! journal, and has the access token of a room: so it is no process of the server's user, who could look into it. How the
//! backups are is asked by `describe` before it, which is one.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::place::Place;
use crate::report::event;
use crate::report::notice::{self, Event, Notice};
use crate::runtime::output_within;
use crate::systemd::Manager;

/// Before the name of a unit that begins.
const START: &str = "start:";
/// Before the name of a unit that ended well.
const SUCCESS: &str = "success:";
/// The access token's name in the unit's credentials.
const TOKEN: &str = "matrix-postgres.matrix-token";
const JOURNAL_LINES: &str = "--lines=15";
const JOURNAL_LIMIT: Duration = Duration::from_secs(20);
/// More is not read of what `describe` has written.
const MODEST: u64 = 1 << 20;

/// How the backups are.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Backups {
    /// What is not well.
    problems: Vec<String>,
    /// All of it, in words.
    lines: Vec<String>,
}

/// Prints how the backups are, for [`notify`], and brings the metrics up to date.
pub(super) fn describe(settings: &Settings, server: Option<&Place>, instance: &str) -> Result<()> {
    if instance.starts_with(START) {
        return Ok(());
    }
    let status = status::now(settings);
    if let Ok(status) = &status {
        status::publish(settings, status);
    }
    let lines = match &status {
        Ok(status) => status::in_words(status, server),
        Err(error) => error.report(),
    };
    crate::cli::print_json(&Backups {
        problems: status.map(|status| status.problems).unwrap_or_default(),
        lines: lines.lines().map(str::to_owned).collect(),
    })
}

fn backups(file: Option<&Path>) -> Backups {
    let read = |file: &Path| -> std::io::Result<Backups> {
        let mut text = String::new();
        std::fs::File::open(file)?.take(MODEST).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    file.map_or_else(|| Ok(Backups::default()), read).unwrap_or_else(|error| Backups {
        problems: Vec::new(),
        lines: vec![format!("the state of the backups is unknown: {error}")],
    })
}

/// Tells of the unit that is named by `instance`; `described` is the file with what [`describe`] has printed.
pub(super) fn notify(settings: &Settings, instance: &str, described: Option<&Path>) -> Result<()> {
    let notice = match instance.strip_prefix(START) {
        Some(unit) => gathered(unit, Event::Started, Vec::new(), Vec::new()),
        None => match instance.strip_prefix(SUCCESS) {
            Some(unit) => ended(unit, None, backups(described)),
            None => ended(instance, failure(instance)?, backups(described)),
        },
    };
    if notice.event == Event::Started && settings.notify.ping_url.is_none() {
        return Ok(());
    }
    let failures = notice::send(&settings.notify, &notice, token());
    for (way, error) in &failures {
        log::error!(
            MESSAGE_ID = event::NOT_DELIVERED, WAY = way, FAILED_UNIT = notice.unit;
            "the notification could not be delivered by {way}: {}", error.report()
        );
    }
    let for_people = notice.is_for_people(settings.notify.on_success);
    if for_people && (!failures.is_empty() || !settings.notify.has_ways()) {
        log::warn!(FAILED_UNIT = notice.unit; "{}", notice.text());
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            Kind::NotDelivered,
            format!("{} notifications about {} could not be delivered", failures.len(), notice.unit),
        )
        .state("the notification is in the journal; all other ways were tried")
        .hint("check [notify] in /etc/matrix-postgres/config.toml")),
    }
}

/// A unit that has ended, and how the backups are now.
fn ended(unit: &str, failure: Option<Event>, Backups { problems, lines }: Backups) -> Notice {
    let event = match failure {
        Some(failure) => failure,
        None if problems.is_empty() => Event::Success,
        None => Event::Warning(problems),
    };
    gathered(unit, event, journal(unit), lines)
}

/// How it failed, if it did. systemd tells whom it starts for a unit that ended (systemd.exec(5), 251 and
/// later); else it is asked, when the unit may have been started again.
fn failure(unit: &str) -> Result<Option<Event>> {
    let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if told("MONITOR_UNIT").as_deref() == Some(unit)
        && let Some(result) = told("MONITOR_SERVICE_RESULT")
    {
        let status = told("MONITOR_EXIT_STATUS");
        return Ok((result != "success").then_some(Event::Failure { result, status }));
    }
    let result = Manager::connect()?.unit(unit)?.result.unwrap_or_else(|| "unknown".to_owned());
    Ok((result != "success").then_some(Event::Failure { result, status: None }))
}

/// Its last lines, of its last run only where that is known.
fn journal(unit: &str) -> Vec<String> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet", "--output=cat", JOURNAL_LINES]);
    match std::env::var("MONITOR_INVOCATION_ID") {
        Ok(id) => {
            command.args([&format!("_SYSTEMD_INVOCATION_ID={id}"), "+", &format!("INVOCATION_ID={id}")])
        }
        Err(_) => command.arg(format!("--unit={unit}")),
    };
    match output_within(command, "journalctl", Vec::new(), JOURNAL_LIMIT) {
        Ok(text) => String::from_utf8_lossy(&text).lines().map(str::to_owned).collect(),
        Err(error) => vec![format!("(the journal cannot be read: {error})")],
    }
}

fn gathered(unit: &str, event: Event, journal: Vec<String>, status: Vec<String>) -> Notice {
    let host = nix::unistd::gethostname().map(|name| name.display().to_string());
    Notice {
        unit: unit.to_owned(),
        event,
        host: host.unwrap_or_else(|_| "localhost".to_owned()),
        journal,
        status,
        // Of two notices about one run, the second says nothing new.
        id: std::env::var("MONITOR_INVOCATION_ID")
            .unwrap_or_else(|_| jiff::Timestamp::now().as_millisecond().to_string()),
    }
}

fn token() -> Result<String> {
    let missing = || {
        Error::new(Kind::NotDelivered, format!("there is no access token (credential {TOKEN})"))
            .hint(format!("write it to /etc/credstore/{TOKEN}, mode 0600"))
    };
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(missing)?;
    let file = Path::new(&directory).join(TOKEN);
    if !file.exists() {
        return Err(missing());
    }
    let token = std::fs::read_to_string(&file).at("read", &file)?.trim().to_owned();
    match token.is_empty() || token.contains(|c: char| c.is_control() || c.is_whitespace()) {
        true => Err(missing()),
        false => Ok(token),
    }
}
