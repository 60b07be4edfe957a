//! What is said.

use std::fmt::Write as _;

/// What happened to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It begins.
    Started,
    /// It ended well, and so is everything else.
    Success,
    /// It ended well, and these are not.
    Warning(Vec<String>),
    /// It failed, in systemd's words: `exit-code`, `timeout`; and with this exit status or signal.
    Failure {
        /// `exit-code`, `signal`, `timeout`, `oom-kill` …
        result: String,
        /// Exit status or the signal's name.
        status: Option<String>,
    },
}

impl Event {
    /// For programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "start",
            Self::Success => "success",
            Self::Warning(_) => "warning",
            Self::Failure { .. } => "failure",
        }
    }
}

/// Everything that is known when a unit has begun or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The unit.
    pub unit: String,
    /// What happened.
    pub event: Event,
    /// This machine.
    pub host: String,
    /// Its last lines in the journal.
    pub journal: Vec<String>,
    /// How the backups are, a line each.
    pub status: Vec<String>,
    /// Tells this notice from all others.
    pub id: String,
}

/// The unit whose runs the dead-man's switch is about.
const PINGING: &str = "matrix-postgres-backup.service";

impl Notice {
    /// Whether it is worth somebody's attention.
    pub fn is_for_people(&self, on_success: bool) -> bool {
        match self.event {
            Event::Started => false,
            Event::Success => on_success,
            Event::Warning(_) | Event::Failure { .. } => true,
        }
    }

    /// What is appended to the URL of the dead-man's switch, if it is to be told.
    pub fn ping(&self) -> Option<&'static str> {
        let path = match self.event {
            Event::Started => "/start",
            Event::Success => "",
            Event::Warning(_) | Event::Failure { .. } => "/fail",
        };
        (self.unit == PINGING).then_some(path)
    }

    /// One line.
    pub fn headline(&self) -> String {
        let Self { unit, host, .. } = self;
        match &self.event {
            Event::Started => format!("{host}: {unit} started"),
            Event::Success => format!("{host}: {unit} succeeded"),
            Event::Warning(_) => format!("{host}: {unit} succeeded, with problems"),
            Event::Failure { result, status: None } => format!("{host}: {unit} failed ({result})"),
            Event::Failure { result, status: Some(status) } => {
                format!("{host}: {unit} failed ({result}, {status})")
            }
        }
    }

    /// All of it.
    pub fn text(&self) -> String {
        let mut text = self.headline() + "\n";
        if let Event::Warning(problems) = &self.event {
            for problem in problems {
                let _ = writeln!(text, "- {problem}");
            }
        }
        for (heading, lines) in [("Backups", &self.status), ("Last lines of the journal", &self.journal)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{heading}:");
                for line in lines {
                    let _ = writeln!(text, "  {}", clean(line));
                }
            }
        }
        if !matches!(self.event, Event::Success) {
            let _ = writeln!(text, "\nMore: journalctl -u {}", self.unit);
        }
        text
    }

    /// The same notice is sent to a room once only.
    pub(super) fn transaction(&self) -> String {
        format!("matrix-postgres-{}-{}-{}", self.unit, self.event.name(), self.id)
    }
}

/// Without what a terminal or a mail would take for more than text.
fn clean(line: &str) -> String {
    line.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A mail, as sendmail takes it.
pub(super) fn mail(notice: &Notice, to: &[String]) -> String {
    format!(
        "To: {}\nSubject: {}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 8bit\n\n{}",
        to.join(", "),
        clean(&notice.headline()),
        notice.text()
    )
}

/// The content of an event in a room. Clients make no noise about an `m.notice`.
pub(super) fn message(notice: &Notice) -> serde_json::Value {
    let kind = if notice.event == Event::Success { "m.notice" } else { "m.text" };
    serde_json::json!({"msgtype": kind, "body": notice.text()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(event: Event) -> Notice {
        Notice {
            unit: PINGING.into(),
            event,
            host: "matrix".into(),
            journal: vec!["error: no room\u{1b}[0m".into()],
            status: vec!["state: PROBLEM".into()],
            id: "1".into(),
        }
    }

    #[test]
    fn a_failure_reads_like_this() {
        let failure = Event::Failure { result: "exit-code".into(), status: Some("29".into()) };
        assert_eq!(
            notice(failure).text(),
            "matrix: matrix-postgres-backup.service failed (exit-code, 29)\n\nBackups:\n  state: PROBLEM\n\n\
             Last lines of the journal:\n  error: no room [0m\n\nMore: journalctl -u matrix-postgres-backup.service\n"
        );
    }

    #[test]
    fn who_is_told_what() {
        let failure = || Event::Failure { result: "timeout".into(), status: None };
        for (event, quiet, loud, ping) in [
            (Event::Started, false, false, "/start"),
            (Event::Success, false, true, ""),
            (Event::Warning(vec!["x".into()]), true, true, "/fail"),
            (failure(), true, true, "/fail"),
        ] {
            let notice = notice(event);
            assert_eq!((notice.is_for_people(false), notice.is_for_people(true)), (quiet, loud));
            assert_eq!(notice.ping(), Some(ping));
        }
        // A good upgrade must not hide that there are no backups.
        assert_eq!(
            Notice { unit: "matrix-postgres-upgrade.service".into(), ..notice(failure()) }.ping(),
            None
        );
    }

    #[test]
    fn a_mail_has_the_headers_that_we_mean() {
        let mut notice = notice(Event::Success);
        notice.host = "a\nBcc: b".into();
        let mail = mail(&notice, &["root".into()]);
        assert!(
            mail.starts_with("To: root\nSubject: a Bcc: b: matrix-postgres-backup.service succeeded\n"),
            "{mail}"
        );
    }
}
