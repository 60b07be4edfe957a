//! pgBackRest's configuration of the stanza: a file of its own, as its users would write it.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::program::{DIRECTORY, Version};
use crate::config::{Keep, Settings};
use crate::postgres::HOME;
use crate::runtime;

/// The file for the stanza of the settings.
pub fn file(settings: &Settings) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("{}.conf", settings.backup.stanza))
}

/// What is in it.
pub fn text(settings: &Settings, version: Version) -> String {
    let mut text = format!(
        "# Written by \"matrix-postgres setup --engine\", which writes it anew each time. What else pgBackRest is to do, such as\n\
         # keep a second repository (repo2-...), belongs into another file in this directory.\n[{}]\n",
        settings.backup.stanza
    );
    text.push_str(&place(settings));
    text.push('\n');
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value}");
    };
    line("pg1-socket-path", &settings.socket_directory.display());
    line("pg1-port", &settings.server.port);
    line("pg1-user", &settings.server.superuser);
    let connection = settings.connection();
    if connection.resolve(HOME) != HOME {
        line("pg1-database", &connection.resolve(HOME));
    }
    line("repo1-path", &settings.backup.repository.display());
    line("repo1-bundle", &"y");
    if version.has_blocks() {
        line("repo1-block", &"y");
    }
    line("repo1-retention-full", &retention(settings.backup.keep));
    line("compress-type", &"zst");
    line("process-max", &runtime::default_threads());
    line("start-fast", &"y");
    // The units have a /tmp each, and locks are for all of them. What is said goes to the journal.
    line("lock-path", &settings.backup.repository.join("lock").display());
    // That of the package is closed to everybody but `postgres`.
    line("spool-path", &settings.backup.repository.join("spool").display());
    line("log-level-file", &"off");
    text
}

/// The line that says where the cluster is.
pub fn place(settings: &Settings) -> String {
    format!("pg1-path={}", settings.data_directory.display())
}

/// How many full backups stay: one a week. pgBackRest removes them with all that depend on them and cannot keep one of a month
/// only, so that `monthly` and `yearly` mean nothing to it; and what is younger than `daily` and `last` say is never removed.
pub fn retention(keep: Keep) -> u32 {
    let weeks = |days: u32| if days == 0 { 0 } else { days.div_ceil(7).saturating_add(1) };
    [keep.weekly, weeks(keep.daily), weeks(keep.last), 1].into_iter().max().unwrap_or(1).min(MOST)
}

/// The greatest number that it takes.
const MOST: u32 = 9_999_999;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;
    use std::path::Path;

    #[test]
    fn what_is_kept_in_days_and_weeks_is_kept_in_weeks() {
        let keep = |last, daily, weekly| Keep { last, daily, weekly, monthly: 6, yearly: 9 };
        assert_eq!(retention(keep(3, 7, 4)), 4);
        assert_eq!(retention(keep(0, 0, 0)), 1);
        assert_eq!(retention(keep(0, 7, 0)), 2);
        assert_eq!(retention(keep(0, 8, 0)), 3);
        assert_eq!(retention(keep(u32::MAX, 0, 0)), MOST.min(u32::MAX.div_ceil(7)));
    }

    #[test]
    fn it_has_one_section_and_no_secret() {
        let fragment = Fragment::parse("backup.stanza = \"main\"", Path::new("c")).unwrap();
        let settings = Settings::from_fragment(fragment).unwrap();
        let text = text(&settings, Version(2, 45));
        assert!(text.contains("\n[main]\npg1-path=/var/lib/matrix-postgres/data\n"), "{text}");
        assert!(
            !text.contains("repo1-block") && super::text(&settings, Version(2, 55)).contains("repo1-block=y")
        );
        assert_eq!(file(&settings), Path::new("/etc/pgbackrest/conf.d/main.conf"));
    }
}
