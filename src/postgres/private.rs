//! What a server of our own is started with, whatever the cluster's own files say.
//!
//! Such a server reads a cluster, or makes one, and is then stopped. Nothing of what its files ask it to do beside that is
//! its work: it would take part in replication with others, carry out somebody's jobs a second time, hand its log to an
//! archive that is another server's, or end our sessions. So this is the one place that says what it does.

use super::Major;
use super::libraries::Libraries;
use crate::runtime::Sandbox;

/// What a server of our own is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new cluster gets its first role and database.
    Initialisation,
    /// A backup is restored into a cluster that is thrown away.
    Trial,
    /// The old cluster of an upgrade is read.
    Old,
    /// A copy of the old cluster follows it, until it is promoted.
    Copy,
    /// The new cluster is filled, or looked at.
    New,
    /// One of pg_upgrade's two, the old one.
    ConvertedFrom,
    /// One of pg_upgrade's two, the new one.
    ConvertedTo,
    /// An empty cluster is given what pg_upgrade would give it.
    Recreated,
    /// An empty cluster reads the configuration, the rules of who may log in among it.
    Configured,
}

/// A setting that others call `name=value`, too.
type Set = &'static str;

/// In each of them.
const ALWAYS: [Set; 22] = [
    // Messages come to us.
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=warning",
    "log_statement=none",
    "external_pid_file=",
    "ssl=off",
    "bonjour=off",
    // Nobody waits for a standby, and it is none.
    "synchronous_standby_names=",
    "primary_conninfo=",
    "primary_slot_name=",
    "restore_command=",
    "archive_cleanup_command=",
    "recovery_end_command=",
    // Another server's archive, and another server's subscriptions.
    "archive_mode=off",
    "archive_command=",
    "max_logical_replication_workers=0",
    // Nothing is done that nobody asked for.
    "autovacuum=off",
    "session_preload_libraries=",
    "local_preload_libraries=",
    // Nothing ends us early, and nothing of ours waits for others.
    "statement_timeout=0",
    "lock_timeout=0",
    "idle_in_transaction_session_timeout=0",
];

/// The same, since this version.
const SINCE: [(Major, Set); 6] = [
    (Major(14), "idle_session_timeout=0"),
    (Major(15), "archive_library="),
    (Major(17), "event_triggers=off"),
    (Major(17), "transaction_timeout=0"),
    (Major(17), "summarize_wal=off"),
    (Major(17), "sync_replication_slots=off"),
];

/// What libraries would do by themselves even where no background worker can be.
const OF_LIBRARIES: [(&str, Set); 4] = [
    ("pg_cron", "cron.launch_active_jobs=off"),
    ("pg_cron", "cron.use_background_workers=off"),
    ("pg_prewarm", "pg_prewarm.autoprewarm=off"),
    ("timescaledb", "timescaledb.max_background_workers=0"),
];

/// Of a server that is read.
const READ_ONLY: [Set; 1] = ["default_transaction_read_only=on"];

/// Of one that is written to the disk as a whole before anybody relies on it (chapter "Populating a Database";
/// `wal_level=minimal` lets COPY into a new table do without a log).
const BULK: [Set; 10] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "maintenance_work_mem=256MB",
    "shared_buffers=256MB",
    "huge_pages=off",
];

/// Nothing of this server is to last, and nobody but us is there. Without `jit`, for a hardened unit may not write code;
/// without huge pages, whose number it may not read.
const TRIAL: [Set; 11] = [
    "unix_socket_permissions=0700",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=1GB",
    "checkpoint_timeout=1h",
    "shared_buffers=256MB",
    "huge_pages=off",
    "jit=off",
];

/// Of a copy that follows the old one (chapter "Log-Shipping Standby Servers"). It has memory of its own beside that of
/// the server that it follows, and is written to the disk as a whole before anybody relies on it. What a postgresql.conf
/// has for the day when its server is a standby would clear away another one's archive.
const COPY: [Set; 15] = [
    "hot_standby=on",
    "fsync=off",
    "shared_buffers=128MB",
    "huge_pages=off",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "recovery_target=",
    "recovery_target_name=",
    "recovery_target_time=",
    "recovery_target_xid=",
    "recovery_target_lsn=",
    "recovery_target_timeline=latest",
    "recovery_min_apply_delay=0",
    "max_standby_streaming_delay=-1",
    // It says how far it is, or it would be taken for one that does not follow.
    "wal_receiver_status_interval=1",
];

/// Of those that pg_upgrade starts, which says by itself what they need beyond this. What comes of both is written to the disk as
/// a whole.
const CONVERTED: [Set; 3] = ["fsync=off", "shared_buffers=128MB", "huge_pages=off"];

/// Of one that starts beside the live server, and says in a known form what it does not like.
const CONFIGURED: [Set; 8] = [
    "fsync=off",
    "shared_buffers=128MB",
    "huge_pages=off",
    "max_wal_senders=0",
    "wal_level=minimal",
    "log_line_prefix=",
    "log_error_verbosity=default",
    "lc_messages=C",
];

/// What a server of our own is started with. There is no other way to start one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    settings: Vec<String>,
    binary_upgrade: bool,
    sandbox: Sandbox,
}

impl Startup {
    /// For this purpose, of a server of this version; `libraries` are those of the cluster that it is about.
    pub fn new(purpose: Purpose, major: Major, libraries: &Libraries) -> Self {
        let own: &[Set] = match purpose {
            Purpose::Initialisation => &[],
            Purpose::Trial => &TRIAL,
            Purpose::Old => &READ_ONLY,
            Purpose::Copy => &COPY,
            Purpose::New | Purpose::Recreated => &BULK,
            Purpose::ConvertedFrom | Purpose::ConvertedTo => &CONVERTED,
            Purpose::Configured => &CONFIGURED,
        };
        let since = SINCE.iter().filter(|(since, _)| major >= *since).map(|(_, setting)| setting);
        // The file that promotes a standby.
        let promoting = (purpose == Purpose::Copy && major.0 < 16).then_some(&"promote_trigger_file=");
        // That of Debian's clusters is the live server's, too.
        let statistics = (major.0 < 15).then_some(&"stats_temp_directory=pg_stat_tmp");
        let always = ALWAYS.iter().chain(statistics);
        let mut settings: Vec<_> = always.chain(since).chain(own).chain(promoting).collect();
        let loaded = loaded(libraries, purpose);
        let is_loaded = |library: &str| loaded.iter().any(|loaded| loaded == library);
        settings.extend(OF_LIBRARIES.iter().filter(|(library, _)| is_loaded(library)).map(|(_, set)| set));
        // What is loaded starts its workers with the server. Where there is room for none, none starts. A standby must have
        // as many as the server that it follows, and loads only what its rows need.
        if !loaded.is_empty() && purpose != Purpose::Copy {
            settings.push(&"max_worker_processes=0");
        }
        let mut settings: Vec<_> = settings.into_iter().map(ToString::to_string).collect();
        settings.push(format!("shared_preload_libraries={}", loaded.join(",")));
        if purpose == Purpose::Trial {
            settings.extend(libraries.settings.iter().map(|(name, value)| format!("{name}={value}")));
        }
        Self { settings, binary_upgrade: purpose == Purpose::Recreated, sandbox: Sandbox::new() }
    }

    /// The same for a server that may do this besides what each may.
    #[must_use]
    pub fn within(self, sandbox: Sandbox) -> Self {
        Self { sandbox, ..self }
    }

    /// What it may do with files, but for its own.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The same with these settings, which win.
    #[must_use]
    pub fn with(mut self, settings: impl IntoIterator<Item = String>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// Each as `name=value`.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// Whether it takes objects under the numbers that they had, as pg_upgrade wants it (`postgres -b`).
    pub fn is_for_binary_upgrade(&self) -> bool {
        self.binary_upgrade
    }
}

/// Those of a cluster that a server for this purpose loads.
fn loaded(libraries: &Libraries, purpose: Purpose) -> &[String] {
    match purpose {
        Purpose::Initialisation => &[],
        Purpose::Trial | Purpose::New | Purpose::ConvertedTo | Purpose::Recreated | Purpose::Configured => {
            &libraries.made
        }
        Purpose::Old | Purpose::Copy | Purpose::ConvertedFrom => &libraries.read,
    }
}

#[cfg(test)]
mod tests {
    use super::super::libraries::{Server, Used};
    use super::*;
    use std::collections::BTreeSet;

    const PURPOSES: [Purpose; 9] = [
        Purpose::Initialisation,
        Purpose::Trial,
        Purpose::Old,
        Purpose::Copy,
        Purpose::New,
        Purpose::ConvertedFrom,
        Purpose::ConvertedTo,
        Purpose::Recreated,
        Purpose::Configured,
    ];

    fn libraries() -> Libraries {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let server = Server {
            preloaded: "pg_cron, \"$libdir/pgaudit\",auto_explain, timescaledb , /x/own.so".to_owned(),
            settings: [("cron.database_name".to_owned(), "homeserver".to_owned())].into(),
        };
        let used = Used {
            made: names(&["pg_cron", "pgaudit", "timescaledb-2.1", "plpgsql"]),
            read: names(&["timescaledb-2.1"]),
        };
        Libraries::of(&server, &used)
    }

    /// The last one of a name holds.
    fn value(startup: &Startup, name: &str) -> Option<String> {
        let values = startup.settings().iter().filter_map(|setting| setting.split_once('='));
        values.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next_back()
    }

    #[test]
    fn nothing_of_the_clusters_own_work_is_done_whatever_it_is_for() {
        for purpose in PURPOSES {
            for major in [13, 14, 15, 16, 17, 18, 19].map(Major) {
                let startup = Startup::new(purpose, major, &libraries());
                let is = |name, expected: &str| {
                    assert_eq!(
                        value(&startup, name).as_deref(),
                        Some(expected),
                        "{purpose:?} {major} {name}"
                    );
                };
                is("max_logical_replication_workers", "0");
                is("archive_mode", "off");
                is("archive_command", "");
                is("primary_conninfo", "");
                is("primary_slot_name", "");
                is("restore_command", "");
                is("session_preload_libraries", "");
                is("idle_in_transaction_session_timeout", "0");
                for (since, name, expected) in [
                    (14, "idle_session_timeout", "0"),
                    (15, "archive_library", ""),
                    (17, "event_triggers", "off"),
                    (17, "transaction_timeout", "0"),
                    (17, "sync_replication_slots", "off"),
                ] {
                    match major.0 >= since {
                        true => is(name, expected),
                        false => assert_eq!(value(&startup, name), None, "{purpose:?} {major} {name}"),
                    }
                }
            }
        }
    }

    #[test]
    fn only_libraries_that_the_databases_need_are_loaded_and_none_has_a_worker() {
        let loaded = |purpose| {
            let startup = Startup::new(purpose, Major(17), &libraries());
            (value(&startup, "shared_preload_libraries").unwrap(), value(&startup, "max_worker_processes"))
        };
        let none = Some("0".to_owned());
        for purpose in [Purpose::Trial, Purpose::New, Purpose::ConvertedTo] {
            assert_eq!(loaded(purpose), ("pg_cron,pgaudit,timescaledb".to_owned(), none.clone()));
        }
        for purpose in [Purpose::Old, Purpose::ConvertedFrom] {
            assert_eq!(loaded(purpose), ("timescaledb".to_owned(), none.clone()));
        }
        // One that follows another server needs as many as that has.
        assert_eq!(loaded(Purpose::Copy), ("timescaledb".to_owned(), None));
        assert_eq!(loaded(Purpose::Initialisation), (String::new(), None));
        let trial = Startup::new(Purpose::Trial, Major(17), &libraries());
        assert_eq!(value(&trial, "cron.launch_active_jobs").as_deref(), Some("off"));
        assert_eq!(value(&trial, "cron.database_name").as_deref(), Some("homeserver"));
        let plain = Startup::new(Purpose::New, Major(17), &Libraries::default());
        assert_eq!(value(&plain, "max_worker_processes"), None);
    }

    #[test]
    fn what_pg_upgrade_hands_to_a_shell_needs_no_quotes_but_for_its_own() {
        for purpose in [Purpose::ConvertedFrom, Purpose::ConvertedTo] {
            for setting in Startup::new(purpose, Major(17), &libraries()).settings() {
                assert!(crate::postgres::pg_upgrade::needs_no_quotes(setting), "{setting}");
            }
        }
    }

    #[test]
    fn a_manifest_names_no_file() {
        let mut libraries = libraries();
        libraries.made = vec!["pg_cron".into(), "/x/own".into(), "../x".into(), String::new()];
        libraries.settings.insert("fsync".into(), "off".into());
        libraries.settings.insert("a.b c".into(), "x".into());
        let named = libraries.named_only();
        assert_eq!(named.made, ["pg_cron"]);
        assert_eq!(named.settings.keys().collect::<Vec<_>>(), ["cron.database_name"]);
    }
}
