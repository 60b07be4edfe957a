//! pg_controldata(1): what a cluster's control file says.

use std::path::Path;

use crate::runtime::Call;

/// Prints the control file of the cluster in `directory`, running or not.
pub fn print(directory: &Path) -> Call {
    let mut call = Call::new("pg_controldata", ["--pgdata"]);
    call.arguments.push(directory.into());
    call
}

/// Where a cluster stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Such as `shut down`, `shut down in recovery`, `in production`.
    pub state: String,
    /// Place of the latest checkpoint in the log, such as `0/3000028`.
    pub checkpoint: String,
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
                    Latest checkpoint's REDO location:    0/1A2B3C8\n";
        let control = Control::parse(text).unwrap();
        assert!(control.is_shut_down());
        assert_eq!(control.checkpoint, "0/1A2B3C8");
        assert!(!Control::parse(&text.replace("shut down", "shut down in recovery")).unwrap().is_shut_down());
        assert_eq!(Control::parse("nonsense"), None);
    }
}
