//! pg_controldata(1): what a cluster's control file says.

use std::path::Path;

use super::Major;
use crate::error::{Error, Kind, Result};
use crate::runtime::{Call, Runtime, output};

/// Prints the control file of the cluster in `directory`, running or not.
pub fn print(directory: &Path) -> Call {
    let mut call = Call::new("pg_controldata", ["--pgdata"]);
    call.arguments.push(directory.into());
    call
}

/// Asks the program of `major` about the cluster in `directory`.
///
/// # Errors
/// [`Kind::Program`], also if what it says cannot be read or does not match its own checksum.
pub fn read(runtime: &dyn Runtime, major: Major, directory: &Path) -> Result<Control> {
    let text = output(runtime.command(major, &print(directory))?, "pg_controldata", &[])?;
    let text = String::from_utf8_lossy(&text);
    let control = Control::parse(&text).filter(|_| !text.contains("WARNING"));
    control.ok_or_else(|| {
        let message = format!("could not parse the output of pg_controldata for {}", directory.display());
        Error::new(Kind::Program, message)
    })
}

/// As it calls them, and as the server does.
const LIMITS: [(&str, &str); 5] = [
    ("max_connections", "max_connections"),
    ("max_worker_processes", "max_worker_processes"),
    ("max_wal_senders", "max_wal_senders"),
    ("max_prepared_xacts", "max_prepared_transactions"),
    ("max_locks_per_xact", "max_locks_per_transaction"),
];

/// Where a cluster stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Such as `shut down`, `shut down in recovery`, `in production`.
    pub state: String,
    /// Place of the latest checkpoint in the log, such as `0/3000028`.
    pub checkpoint: String,
    /// The next transaction at that checkpoint, such as `0:745`.
    pub next_xid: String,
    /// Whether pages carry checksums.
    pub has_checksums: bool,
    /// The file of the log that a start would read first.
    pub redo_file: String,
    /// What a standby must have at least as much of, each as `name=value`.
    pub limits: Vec<String>,
}

impl Control {
    /// Takes apart what the program prints; nothing if it says something else.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
        };
        Some(Self {
            state: value("Database cluster state")?,
            checkpoint: value("Latest checkpoint location")?,
            next_xid: value("Latest checkpoint's NextXID")?,
            has_checksums: value("Data page checksum version")? != "0",
            redo_file: value("Latest checkpoint's REDO WAL file")?,
            limits: LIMITS
                .iter()
                .filter_map(|(short, name)| Some(format!("{name}={}", value(&format!("{short} setting"))?)))
                .collect(),
        })
    }

    /// Whether it was stopped as a primary, with everything written.
    pub fn is_shut_down(&self) -> bool {
        self.state == "shut down"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_checkpoint_are_found() {
        let text = "pg_control version number:            1300\n\
                    Database cluster state:               shut down\n\
                    Latest checkpoint location:           0/1A2B3C8\n\
                    Latest checkpoint's REDO location:    0/1A2B3C8\n\
                    Latest checkpoint's REDO WAL file:    000000010000000000000001\n\
                    Latest checkpoint's NextXID:          0:745\n\
                    max_connections setting:              100\n\
                    max_prepared_xacts setting:           2\n\
                    Data page checksum version:           1\n";
        let control = Control::parse(text).unwrap();
        assert!(control.is_shut_down());
        assert_eq!(control.checkpoint, "0/1A2B3C8");
        assert_eq!((control.next_xid.as_str(), control.redo_file.len()), ("0:745", 24));
        assert!(control.has_checksums);
        assert_eq!(control.limits, ["max_connections=100", "max_prepared_transactions=2"]);
        assert!(!Control::parse(&text.replace("shut down", "shut down in recovery")).unwrap().is_shut_down());
        assert_eq!(Control::parse("nonsense"), None);
    }
}
