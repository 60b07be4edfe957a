//! The state of the backups for Prometheus, by way of node_exporter's textfile collector.

use std::fmt::Write as _;

use super::offsite::state::State;
use super::status::Status;

/// The whole file: what is not known has no line.
pub fn text(status: &Status) -> String {
    let newest = status.newest.as_ref();
    let seconds = |time: jiff::Timestamp| time.as_second() as f64;
    let count = |number: Option<u64>| number.map(|number| number as f64);
    let metrics = [
        ("well", "1 if status reports no problem", Some(f64::from(u8::from(status.well)))),
        ("backups", "Number of backups", Some(status.backups as f64)),
        (
            "last_success_timestamp_seconds",
            "Start of the newest backup",
            newest.map(|newest| seconds(newest.time)),
        ),
        (
            "last_verified_timestamp_seconds",
            "Start of the newest verified backup",
            status.newest_verified.map(|name| seconds(name.time())),
        ),
        (
            "last_read_back_timestamp_seconds",
            "Time when the newest verified backup was read back",
            status.newest_verified_at.map(seconds),
        ),
        (
            "age_seconds",
            "Age of the newest backup when this file was written",
            newest.map(|newest| newest.age_seconds as f64),
        ),
        ("size_bytes", "Size of the newest backup", count(newest.and_then(|newest| newest.bytes))),
        (
            "duration_seconds",
            "Duration of the dump of the newest backup",
            count(newest.and_then(|newest| newest.milliseconds)).map(|milliseconds| milliseconds / 1000.0),
        ),
        ("rows", "Rows in the newest backup", count(newest.and_then(|newest| newest.rows))),
        ("free_bytes", "Free space on the file system of the backups", count(status.free_bytes)),
        ("next_run_timestamp_seconds", "Next elapse of the timer", status.next_run.map(seconds)),
    ];
    let mut text = String::new();
    for (name, help, value) in metrics {
        if let Some(value) = value {
            let name = format!("matrix_postgres_backup_{name}");
            let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}");
        }
    }
    let _ = write!(text, "{}", offsite(status));
    text
}

/// The same of each target of `[[offsite]]`, by its name.
fn offsite(status: &Status) -> String {
    type Value = fn(&State) -> Option<f64>;
    let metrics: [(&str, &str, Value); 5] = [
        ("well", "1 if status reports no problem with the target", |target| {
            Some(f64::from(u8::from(target.problems.is_empty())))
        }),
        ("backups", "Number of backups in the target", |target| Some(target.backups as f64)),
        ("missing", "Number of backups that the target lacks", |target| Some(target.missing.len() as f64)),
        ("last_backup_timestamp_seconds", "Start of the newest backup in the target", |target| {
            target.newest.map(|name| name.time().as_second() as f64)
        }),
        ("last_reached_timestamp_seconds", "Time when the target was last reached", |target| {
            target.reached.map(|time| time.as_second() as f64)
        }),
    ];
    let mut text = String::new();
    for (name, help, value) in metrics.into_iter().filter(|_| !status.offsite.is_empty()) {
        let name = format!("matrix_postgres_offsite_{name}");
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge");
        for target in &status.offsite {
            if let Some(value) = value(target) {
                let _ = writeln!(text, "{name}{{target=\"{}\"}} {value}", target.target);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::catalogue::Entry;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::tests::example;
    use crate::backup::status::{Timer, judge};
    use crate::config::{Fragment, Settings};
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn what_is_known_has_a_line_and_nothing_else() {
        let manifest = example("20261124T030000Z");
        let entry = Entry {
            name: manifest.name,
            files: Arc::new(Directory::new(Path::new("x"))),
            manifest: Ok(manifest),
        };
        let settings = Settings::from_fragment(Fragment::default()).unwrap();
        let now = "2026-11-24T04:00:00Z".parse().unwrap();
        let full = text(&judge(&[entry], &settings, &Timer::None, Some(5_000_000_000), now));
        for line in [
            "matrix_postgres_backup_well 1\n",
            "matrix_postgres_backup_last_verified_timestamp_seconds 1795489200\n",
            "matrix_postgres_backup_age_seconds 3600\n",
            "matrix_postgres_backup_size_bytes 1000100\n",
            "matrix_postgres_backup_duration_seconds 1.5\n",
            "matrix_postgres_backup_rows 12\n",
            "matrix_postgres_backup_free_bytes 5000000000\n",
        ] {
            assert!(full.contains(line), "{line}{full}");
        }
        assert!(!full.contains("next_run") && !full.contains("offsite"));
        let target = State {
            target: "store".into(),
            path: None,
            reached: None,
            backups: 2,
            newest: Some("20261124T030000Z".parse().unwrap()),
            age_seconds: None,
            missing: vec![],
            failure: None,
            problems: vec!["x".into()],
        };
        let empty = judge(&[], &settings, &Timer::None, None, now).with_offsite(vec![target]);
        assert!(!empty.well && empty.problems.contains(&"x".to_owned()));
        let empty = text(&empty);
        assert!(empty.contains("matrix_postgres_offsite_well{target=\"store\"} 0\n"), "{empty}");
        assert!(
            empty.contains("offsite_last_backup_timestamp_seconds{target=\"store\"} 1795489200\n"),
            "{empty}"
        );
        assert!(!empty.contains("last_reached_timestamp_seconds{"), "{empty}");
        assert!(empty.contains("matrix_postgres_backup_backups 0\n"), "{empty}");
        assert!(!empty.contains("age_seconds"), "{empty}");
    }
}
