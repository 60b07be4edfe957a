//! The outcome of an upgrade or of a rehearsal as a table, for a terminal and for the journal.

use std::fmt;

use crate::backup::pgbackrest::stanza::AGAIN;
use crate::config::Method;
use crate::report::{DecimalBytes, columns};
use crate::upgrade::plan::subscriptions;
use crate::upgrade::records::{Compared, Entry, Rehearsal, Step, Which};
use crate::upgrade::steps::{drop_in, stand_in};

/// What the table shows. Lines without a value are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// How.
    pub method: Method,
    /// Seconds; of a rehearsal those that are expected.
    pub downtime: String,
    /// Seconds of each step, in order.
    pub durations: Vec<(Step, f64)>,
    /// What was compared; nothing in records of earlier versions.
    pub compared: Option<Compared>,
    /// Bytes that a rehearsal has taken on the disk.
    pub disk: Option<u64>,
    /// Old data directories that are kept.
    pub kept: Vec<String>,
    /// What is not as it was before.
    pub warnings: Vec<String>,
}

impl Summary {
    /// Of an upgrade that has ended well.
    pub fn of_upgrade(entry: &Entry) -> Self {
        let size = entry.kept_bytes.map(|bytes| format!(", {}", DecimalBytes(bytes))).unwrap_or_default();
        let kept = entry.kept.iter();
        let kept = kept.map(|kept| format!("{}, PostgreSQL {}{size}", kept.display(), entry.upgrade.from));
        let not_started = entry.not_started.iter().map(|unit| format!("{unit} did not start"));
        let disabled = subscriptions::commands(&entry.upgrade.subscriptions);
        let disabled =
            disabled.into_iter().map(|command| format!("a subscription was disabled; enable it: {command}"));
        let not_archived = entry.not_archived.iter().map(|reason| {
            format!("the stanza of pgBackRest could not be upgraded: {reason}; unless that was done since: {AGAIN}")
        });
        let is_new = entry.is_in_place() == Which::New;
        let stand_in = is_new.then(|| stand_in::file(&entry.upgrade)).flatten().map(|file| {
            let units = entry.upgrade.registered.iter().flat_map(|registered| registered.dependents.clone());
            let units: Vec<_> = units.collect();
            format!(
                "{} starts the server of the new cluster, for the units that name the old one: {}",
                file.display(),
                units.join(", ")
            )
        });
        let drop_in = is_new.then(|| drop_in::told(&entry.upgrade)).flatten();
        Self {
            method: entry.upgrade.method,
            downtime: format!("{:.1} s", entry.downtime()),
            durations: entry.durations.clone(),
            compared: entry.compared,
            disk: None,
            kept: kept.collect(),
            warnings: not_started
                .chain(not_archived)
                .chain(disabled)
                .chain(stand_in)
                .chain(drop_in)
                .collect(),
        }
    }

    /// Of a rehearsal that succeeded, or that came as far as its steps tell.
    pub fn of_rehearsal(rehearsal: &Rehearsal) -> Self {
        Self {
            method: rehearsal.method,
            downtime: rehearsal.expected_downtime(),
            durations: rehearsal.durations.clone(),
            compared: rehearsal.compared,
            disk: Some(rehearsal.bytes),
            kept: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// A line each, with the seconds below each other; marked where the services are down meanwhile.
    fn steps(&self) -> Vec<String> {
        let width =
            self.durations.iter().map(|(_, seconds)| format!("{seconds:.1}").len()).max().unwrap_or(0);
        let row = |(step, seconds): &(Step, f64)| {
            let down = if step.is_downtime() { "downtime" } else { "" };
            vec![step.to_string(), format!("{seconds:>width$.1} s"), down.to_owned()]
        };
        let rows: Vec<_> = self.durations.iter().map(row).collect();
        columns(&rows).lines().map(str::to_owned).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to_revert =
            if self.kept.is_empty() { vec![] } else { vec!["matrix-postgres-upgrade rollback".to_owned()] };
        let parts: [(&str, Vec<String>); 8] = [
            ("method", vec![self.method.to_string()]),
            ("downtime", vec![self.downtime.clone()]),
            ("steps", self.steps()),
            ("compared", self.compared.iter().map(ToString::to_string).collect()),
            ("disk space", self.disk.iter().map(|bytes| DecimalBytes(*bytes).to_string()).collect()),
            ("kept", self.kept.clone()),
            ("to revert", to_revert),
            ("warning", self.warnings.clone()),
        ];
        let mut rows = Vec::new();
        for (name, values) in parts {
            for (number, value) in values.into_iter().enumerate() {
                // A command or a path is found by the name on its own line.
                let is_first = number == 0 || name == "kept" || name == "warning";
                let name = if is_first { format!("{name}:") } else { String::new() };
                rows.push(vec![name, value]);
            }
        }
        f.write_str(columns(&rows).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::records::entry::tests::entry;
    use crate::upgrade::records::rehearsal::tests::rehearsal;

    #[test]
    fn an_upgrade_is_a_table() {
        let entry = Entry {
            durations: vec![
                (Step::Preparing, 12.34),
                (Step::StoppingClients, 1.0),
                (Step::Transferring, 100.25),
                (Step::StartingClients, 2.0),
                (Step::Keeping, 0.04),
            ],
            compared: Some(Compared { tables: 170, rows: Some(1_234_567) }),
            kept: Some("/m/kept".into()),
            kept_bytes: Some(3_000_000_000),
            not_started: vec!["mautrix-signal.service".into(), "mautrix-irc.service".into()],
            ..entry()
        };
        assert_eq!(
            Summary::of_upgrade(&entry).to_string(),
            "method:     dump\n\
             downtime:   103.2 s\n\
             steps:      preparing the new cluster         12.3 s\n\
             \u{20}           stopping the services              1.0 s  downtime\n\
             \u{20}           dumping and restoring databases  100.2 s  downtime\n\
             \u{20}           starting the services              2.0 s  downtime\n\
             \u{20}           moving the old data directory      0.0 s\n\
             compared:   170 tables, 1,234,567 rows\n\
             kept:       /m/kept, PostgreSQL 15, 3.00 GB\n\
             to revert:  matrix-postgres-upgrade rollback\n\
             warning:    mautrix-signal.service did not start\n\
             warning:    mautrix-irc.service did not start"
        );
    }

    #[test]
    fn a_rehearsal_is_a_table() {
        assert_eq!(
            Summary::of_rehearsal(&rehearsal()).to_string(),
            "method:      online\n\
             downtime:    3.5 s expected, plus stopping and starting the server and the services\n\
             steps:       copying the cluster             60.0 s\n\
             \u{20}            promoting the copy               0.5 s  downtime\n\
             \u{20}            running pg_upgrade on the copy   3.0 s  downtime\n\
             compared:    12 tables, by definition and file size\n\
             disk space:  3.00 GB"
        );
    }

    #[test]
    fn what_earlier_versions_did_not_record_is_left_out() {
        let table = Summary::of_upgrade(&entry()).to_string();
        assert_eq!(table, "method:    dump\ndowntime:  0.0 s");
    }
}
