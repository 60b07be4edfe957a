//! Log lines: into the journal with their priority and fields when standard error is connected to it, else
//! as plain sentences on standard error.

use std::io::Write as _;

use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use super::plain;

/// Sets the logger up, once, for the program called `name`.
pub fn set_up(name: &str) {
    if connected_to_journal()
        && let Ok(journal) = JournalLog::new()
        && let journal = Journal(journal.with_syslog_identifier(name.to_owned()))
        && log::set_boxed_logger(Box::new(journal)).is_ok()
    {
        log::set_max_level(LevelFilter::Info);
        return;
    }
    if log::set_boxed_logger(Box::new(Plain { name: name.to_owned() })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// How long journald is given to read our last lines.
const LAST_LINES: std::time::Duration = std::time::Duration::from_millis(150);

/// Waits, at the very end, until the journal knows whose the last lines were: it looks up the unit of a line's
/// sender when it reads the line, and for a process that is gone it finds none, so that
/// `journalctl --unit` would not show why a unit has failed.
pub fn settle() {
    if connected_to_journal() {
        std::thread::sleep(LAST_LINES);
    }
}

/// Readers of the journal have terminals, too.
struct Journal(JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        self.0.log(&record.to_builder().args(format_args!("{}", plain(&text))).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

struct Plain {
    name: String,
}

impl Log for Plain {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Nobody is left to be told when standard error is gone.
            let text = record.args().to_string();
            let _ = writeln!(std::io::stderr(), "{}: {}{}", self.name, prefix(record.level()), plain(&text));
        }
    }

    fn flush(&self) {}
}

fn prefix(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        _ => "",
    }
}
