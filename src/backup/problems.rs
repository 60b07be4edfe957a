//! What is wrong with backups as a whole: none, too old, not verified, no timer. Pure.

use jiff::Timestamp;

use super::catalogue::Entry;
use crate::config::Backup;

const BACK_UP: &str = "systemctl start matrix-postgres-backup.service";

/// What systemd says of the timer that starts the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// The configuration names none: something else starts the backup.
    None,
    /// systemd could not be asked, for this reason.
    Unknown(String),
    /// It is not active.
    Inactive,
    /// What it starts runs right now.
    Running,
    /// It will start the backup at this time.
    Next(Timestamp),
}

/// What is wrong, the most important first, and what to do about the first of it that says so.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) list: Vec<String>,
    pub(super) hint: Option<String>,
}

impl Problems {
    pub(super) fn add(&mut self, problems: impl IntoIterator<Item = String>, hint: Option<String>) {
        let known = self.list.len();
        self.list.extend(problems);
        if self.list.len() > known && self.hint.is_none() {
            self.hint = hint;
        }
    }

    pub(super) fn newest(&mut self, newest: Option<&Entry>, future: &[Entry]) {
        match newest {
            None if future.is_empty() => {
                self.add(["there is no backup".to_owned()], Some(BACK_UP.to_owned()));
            }
            None => {
                let problem = "there is no backup except those with a time in the future";
                self.add([problem.to_owned()], None);
            }
            Some(entry) if !entry.is_verified() => {
                let problem = entry.problem().unwrap_or_default();
                // One that was found bad does not become better by reading it again.
                let hint = match entry.manifest.as_ref().is_ok_and(|manifest| manifest.read_back.is_none()) {
                    true => Some(format!("matrix-postgres-backup verify {}", entry.name)),
                    false => Some(BACK_UP.to_owned()),
                };
                self.add([format!("the newest backup, {}, {problem}", entry.name)], hint);
            }
            Some(_) => {}
        }
    }

    pub(super) fn age(&mut self, verified: Option<&Entry>, settings: &Backup, now: Timestamp) {
        let Some(age) = verified.map(|entry| now.duration_since(entry.name.time())) else { return };
        if age.is_positive() && age.unsigned_abs() > settings.max_age {
            let (hours, limit) = (age.as_hours(), settings.max_age.as_secs() / 3600);
            let problem = format!("the newest verified backup is {hours} hours old (limit: {limit} hours)");
            self.add([problem], Some(BACK_UP.to_owned()));
        }
    }

    pub(super) fn timer(&mut self, timer: &Timer) {
        match timer {
            Timer::Inactive => {
                let problem = "the timer is not active: no backup will be made automatically";
                let hint = "systemctl enable --now matrix-postgres-backup.timer";
                self.add([problem.to_owned()], Some(hint.to_owned()));
            }
            Timer::Unknown(reason) => {
                let problem = format!("could not ask systemd for the time of the next backup: {reason}");
                self.add([problem], None);
            }
            Timer::None | Timer::Running | Timer::Next(_) => {}
        }
    }
}
