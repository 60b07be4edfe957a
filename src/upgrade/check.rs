//! Facts → blockers, warnings and facts. Pure.

use std::fmt;

use indicatif::DecimalBytes;
use serde::Serialize;

use super::choice::{Obstacle, choose, obstacles};
use super::configuration::Foreseen;
use super::facts::{CatalogSetting, Cluster, Facts, Shared};
use super::transfer::Way;
use crate::config::Method;
use crate::postgres::{Contents, Major, identifier};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// An upgrade would not be begun.
    Blocker,
    /// It would, and somebody should know.
    Warning,
    /// Good to know.
    Fact,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// A sentence, lower case.
    pub message: String,
    /// What to do about it, if anything.
    pub hint: Option<String>,
}

/// The answer to `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version that the data directory holds.
    pub from: Option<Major>,
    /// The version to go to.
    pub to: Option<Major>,
    /// How.
    pub method: Method,
    /// What was found, the weightiest first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether an upgrade could be begun.
    pub fn is_possible(&self) -> bool {
        self.blockers().next().is_none()
    }

    /// What stands in the way.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Blocker)
    }
}

/// Judges the facts.
pub fn check(facts: &Facts) -> Report {
    let mut findings = Findings(Vec::new());
    let from = match facts.data_directory.contents {
        Contents::Cluster(major) => Some(major),
        _ => None,
    };
    findings.versions(facts, from);
    findings.directory(facts);
    let method = choose(facts);
    findings.method(facts, method);
    findings.space(facts, method);
    findings.configuration(facts);
    match &facts.cluster {
        Some(cluster) => {
            findings.cluster(cluster, facts);
            findings.pages(cluster, method);
        }
        None => findings.add(
            Weight::Blocker,
            "the server is not running, so that its databases cannot be looked at",
            Some("systemctl start matrix-postgres.service"),
        ),
    }
    findings.units(facts);
    let mut findings = findings.0;
    findings.sort_by_key(|finding| finding.weight);
    Report { from, to: facts.target, method, findings }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, weight: Weight, message: impl Into<String>, hint: Option<&str>) {
        self.0.push(Finding { weight, message: message.into(), hint: hint.map(str::to_owned) });
    }

    fn versions(&mut self, facts: &Facts, from: Option<Major>) {
        let installed: Vec<_> = facts.installed.iter().map(ToString::to_string).collect();
        for (major, whose) in [(from, "the cluster's own"), (facts.target, "the target")] {
            if let Some(major) = major.filter(|major| !facts.installed.contains(major)) {
                self.add(
                    Weight::Blocker,
                    format!(
                        "PostgreSQL {major}, {whose}, is not installed (installed: {})",
                        installed.join(", ")
                    ),
                    Some(&format!("apt-get install postgresql-{major}")),
                );
            }
        }
        if let (Some(from), Some(to)) = (from, facts.target)
            && to <= from
        {
            self.add(
                Weight::Blocker,
                format!("the cluster is of version {from}, and {to} is not newer"),
                Some(&format!("apt-get install postgresql-{}, or name another one: --to", from.0 + 1)),
            );
        }
    }

    fn directory(&mut self, facts: &Facts) {
        let path = facts.data_directory.path.display();
        if facts.is_symlink {
            self.add(
                Weight::Blocker,
                format!("{path} is a symbolic link, and only a directory can be exchanged for another one"),
                Some("data_directory in /etc/matrix-postgres/config.toml: name the directory that it points to"),
            );
        } else if facts.data_directory.is_mount_point {
            self.add(
                Weight::Blocker,
                format!("{path} is a mount point, and cannot be exchanged for another directory"),
                Some("stop the server, and move the cluster into a directory below the mount point"),
            );
        }
        let (keep, occupied) = &facts.keep_path;
        if keep.starts_with(&facts.data_directory.path) {
            self.add(
                Weight::Blocker,
                format!("the old data directory would be kept within itself, in {}", keep.display()),
                Some("upgrade.keep_path in /etc/matrix-postgres/config.toml"),
            );
        }
        if *occupied {
            let message =
                format!("{} is taken and will not be touched; the next free name is used", keep.display());
            self.add(Weight::Fact, message, None);
        }
    }

    fn method(&mut self, facts: &Facts, method: Method) {
        let obstacles = obstacles(facts);
        match method {
            Method::Online if obstacles.is_empty() => self.add(
                Weight::Fact,
                "method online: a copy follows the homeserver while that runs; the downtime does not grow with the size",
                None,
            ),
            // It was asked for.
            Method::Online => {
                for Obstacle { message, hint } in obstacles {
                    let hint = hint.unwrap_or_else(|| "upgrade.method = \"dump\", or --method dump".to_owned());
                    self.add(Weight::Blocker, format!("method online is not possible: {message}"), Some(&hint));
                }
            }
            Method::Dump if facts.method.is_none() => {
                for Obstacle { message, hint } in obstacles {
                    self.add(
                        Weight::Warning,
                        format!("method dump, whose downtime grows with the size, for: {message}"),
                        hint.as_deref(),
                    );
                }
            }
            Method::Dump => self.add(
                Weight::Fact,
                "method dump, as configured: pg_dump and pg_restore while the homeserver is down",
                None,
            ),
        }
        match &facts.rehearsal {
            Some(rehearsal) => {
                let weight = if rehearsal.went_well() { Weight::Fact } else { Weight::Warning };
                self.add(weight, rehearsal.to_string(), None);
            }
            None => self.add(
                Weight::Fact,
                "it has not been rehearsed: how long users will wait is not known",
                Some("matrix-postgres-upgrade rehearse tries it on a copy, while the homeserver runs"),
            ),
        }
    }

    fn space(&mut self, facts: &Facts, method: Method) {
        let data = DecimalBytes(facts.data_bytes);
        if method == Method::Online {
            let free = DecimalBytes(facts.space.beside.free);
            self.add(
                Weight::Fact,
                format!("the data directory has {data}, and {free} are free beside it"),
                None,
            );
            return;
        }
        match facts.space.way(facts.data_bytes) {
            Err(shortage) => self.add(
                Weight::Blocker,
                format!("the data directory has {data}; {shortage}"),
                Some("free some space there, or name other places: --keep-path, --dump-dir"),
            ),
            Ok(Way::Stream) => self.add(
                Weight::Warning,
                format!(
                    "the data directory has {data}, and {} has no room for its rows: they go from server to server, \
                     which takes longer",
                    facts.space.dump.path.display()
                ),
                Some("free some space, or name another place: --dump-dir"),
            ),
            Ok(Way::Files) => {
                let free = DecimalBytes(facts.space.beside.free);
                self.add(Weight::Fact, format!("the data directory has {data}, and {free} are free beside it"), None);
            }
        }
        if let Some(problem) = &facts.dump_directory_problem {
            let hint = "name another one, which need not be there yet: --dump-dir";
            self.add(Weight::Blocker, problem.clone(), Some(hint));
        }
    }

    fn configuration(&mut self, facts: &Facts) {
        for foreseen in &facts.configuration {
            match foreseen {
                Foreseen::Blocker { message, hint } => self.add(Weight::Blocker, message, Some(hint)),
                Foreseen::Change(message) => self.add(Weight::Warning, message, None),
                Foreseen::Note(message) => self.add(Weight::Fact, message, None),
            }
        }
        for CatalogSetting { role, database, name } in &facts.settings_gone {
            let whose = match (role, database) {
                (Some(role), None) => format!("ROLE {}", identifier(role)),
                (Some(role), Some(database)) => {
                    format!("ROLE {} IN DATABASE {}", identifier(role), identifier(database))
                }
                (None, Some(database)) => format!("DATABASE {}", identifier(database)),
                (None, None) => "ROLE ALL".to_owned(),
            };
            self.add(
                Weight::Blocker,
                format!("the target does not know the setting {name}, which ALTER {whose} SET has set"),
                Some(&format!("ALTER {whose} RESET {name}")),
            );
        }
    }

    fn cluster(&mut self, cluster: &Cluster, facts: &Facts) {
        if facts.system_identifier.as_ref() != Some(&cluster.server.system_identifier) {
            self.add(
                Weight::Blocker,
                format!("the server that answers is not that of {}", facts.data_directory.path.display()),
                Some("data_directory and socket_directory in /etc/matrix-postgres/config.toml must be of one server"),
            );
        } else if let Some(postmaster) = &facts.data_directory.postmaster
            && postmaster.unit.as_ref() != Some(&facts.server_unit)
        {
            let whose = postmaster.unit.as_deref().unwrap_or("no unit at all");
            self.add(
                Weight::Blocker,
                format!("the server is run by {whose}, and not by {}", facts.server_unit),
                Some("server.unit in /etc/matrix-postgres/config.toml names the unit that runs it"),
            );
        }
        let shared = &cluster.shared;
        let target_is_there = facts.target.is_some_and(|target| facts.installed.contains(&target));
        for (database, contained) in &cluster.contents {
            for extension in &contained.extensions {
                if target_is_there && !facts.target_extensions.contains(extension) {
                    self.add(
                        Weight::Blocker,
                        format!("extension {extension} of database {database:?} is not there for the target"),
                        Some("install the target's package of it"),
                    );
                }
            }
            if contained.large_objects > 0 {
                let message = format!("database {database:?} has {} large objects", contained.large_objects);
                self.add(Weight::Fact, message, None);
            }
        }
        if shared.prepared_transactions > 0 {
            self.add(
                Weight::Blocker,
                format!("{} prepared transactions are not ended", shared.prepared_transactions),
                Some("matrix-postgres-cli -c 'SELECT * FROM pg_prepared_xacts', then COMMIT or ROLLBACK PREPARED"),
            );
        }
        for database in &shared.closed_databases {
            self.add(
                Weight::Blocker,
                format!("database {database:?} accepts no connections, and would be left behind"),
                Some(&format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")),
            );
        }
        for database in &shared.invalid_databases {
            self.add(
                Weight::Blocker,
                format!("a DROP DATABASE of {database:?} was interrupted: nobody can read it any more"),
                Some(&format!("matrix-postgres-cli -c 'DROP DATABASE {}' ends it", identifier(database))),
            );
        }
        for tablespace in &shared.tablespaces {
            self.add(
                Weight::Blocker,
                format!("tablespace {tablespace}: data outside of the data directory is not carried over"),
                Some("move its tables back: ALTER TABLE … SET TABLESPACE pg_default"),
            );
        }
        self.standbys(shared);
        if shared.scram_only && !shared.md5_roles.is_empty() {
            self.add(
                Weight::Warning,
                format!("pg_hba.conf takes scram only, and has md5: {}", shared.md5_roles.join(", ")),
                Some("set the passwords of these roles again: \\password ROLE in matrix-postgres-cli"),
            );
        }
        for database in &cluster.initialisation.differing {
            let message = format!(
                "database {database:?} has another encoding or locale than template0, and will be made anew"
            );
            self.add(Weight::Warning, message, None);
        }
        for database in &cluster.initialisation.missing {
            let message = format!("there is no database {database:?}; a new cluster will have one");
            self.add(Weight::Warning, message, None);
        }
        for database in &cluster.databases {
            self.add(
                Weight::Fact,
                format!(
                    "database {:?} of {}: {}, {}, collation {}",
                    database.name,
                    database.owner,
                    DecimalBytes(database.size),
                    database.encoding,
                    database.collate
                ),
                None,
            );
        }
        for (who, connections) in &shared.sessions {
            self.add(Weight::Fact, format!("connected: {who}, {connections} times"), None);
        }
    }

    fn standbys(&mut self, shared: &Shared) {
        if !shared.synchronous_standbys.is_empty() {
            let message = format!(
                "synchronous_standby_names is {:?}: no standby can follow to another version, and every commit would \
                 wait for it forever",
                shared.synchronous_standbys
            );
            self.add(
                Weight::Blocker,
                message,
                Some("ALTER SYSTEM SET synchronous_standby_names = '', and reload the server"),
            );
        }
        for slot in &shared.replication_slots {
            let message = format!("replication slot {slot} will be gone; its standby must be made anew");
            self.add(Weight::Warning, message, None);
        }
    }

    fn pages(&mut self, cluster: &Cluster, method: Method) {
        if !cluster.server.data_checksums {
            let message = match method {
                Method::Dump => "pages carry no checksums yet; those of the new cluster will",
                Method::Online => {
                    "pages carry no checksums, and will not; method dump would make new ones, which do"
                }
            };
            self.add(Weight::Fact, message, None);
        }
        let stale: usize = cluster.contents.iter().map(|(_, contained)| contained.stale_indexes.len()).sum();
        if method == Method::Online && stale > 0 {
            self.add(
                Weight::Fact,
                format!(
                    "{stale} indexes depend on a collation that has, or may have, another version than when they were \
                     built: they are built anew once the homeserver runs"
                ),
                None,
            );
        }
    }

    fn units(&mut self, facts: &Facts) {
        for unit in &facts.missing_units {
            self.add(
                Weight::Blocker,
                format!("there is no unit {unit}"),
                Some("clients and server.unit in /etc/matrix-postgres/config.toml name units"),
            );
        }
        for (unit, file) in &facts.shadowed {
            self.add(
                Weight::Blocker,
                format!("{unit} is shadowed by {}, which is not ours", file.display()),
                Some(&format!("systemctl cat {unit} shows it; disable what installed it")),
            );
        }
        match facts.clients.is_empty() {
            true => self.add(
                Weight::Warning,
                "no unit of a client runs; those that are started by other means must be stopped by hand",
                Some("clients in /etc/matrix-postgres/config.toml names their units"),
            ),
            false => {
                self.add(
                    Weight::Fact,
                    format!("to be stopped and started: {}", facts.clients.join(", ")),
                    None,
                );
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |major: Option<Major>| major.map_or_else(|| "?".to_owned(), |major| major.to_string());
        write!(f, "upgrade from PostgreSQL {} to {}: ", version(self.from), version(self.to))?;
        match self.blockers().count() {
            0 => writeln!(f, "nothing stands in the way")?,
            1 => writeln!(f, "1 thing stands in the way")?,
            count => writeln!(f, "{count} things stand in the way")?,
        }
        for Finding { weight, message, hint } in &self.findings {
            let label = match weight {
                Weight::Blocker => "BLOCKER",
                Weight::Warning => "warning",
                Weight::Fact => "fact",
            };
            write!(f, "\n{label:<9}{message}")?;
            if let Some(hint) = hint {
                write!(f, "\n         HINT: {hint}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::postgres::initdb::Initialisation;
    use crate::postgres::{DataDirectory, ServerFacts};
    use crate::upgrade::facts::Contained;
    use crate::upgrade::space::tests::space;

    fn facts() -> Facts {
        Facts {
            data_directory: DataDirectory {
                path: "/d/data".into(),
                contents: Contents::Cluster(Major(15)),
                owner: None,
                is_mount_point: false,
                postmaster: None,
            },
            is_symlink: false,
            data_bytes: 3_000_000_000,
            installed: vec![Major(15), Major(17)],
            target: Some(Major(17)),
            cluster: Some(Cluster {
                server: ServerFacts {
                    version: "15.18".into(),
                    version_num: 150_018,
                    system_identifier: "1".into(),
                    data_checksums: true,
                },
                databases: vec![],
                shared: shared(),
                contents: vec![(
                    "homeserver".into(),
                    Contained { extensions: vec!["plpgsql".into()], ..Contained::default() },
                )],
                initialisation: Initialisation::default(),
            }),
            target_extensions: ["plpgsql".to_owned()].into(),
            configuration: vec![],
            settings_gone: vec![],
            space: space([10_000_000_000; 3], [1; 3]),
            method: None,
            programs_together: true,
            replication_refused: None,
            rehearsal: None,
            dump_directory_problem: None,
            socket_directory: "/run/matrix-postgres".into(),
            system_identifier: Some("1".into()),
            server_unit: "matrix-postgres.service".into(),
            missing_units: vec![],
            keep_path: ("/d/kept".into(), false),
            shadowed: vec![],
            clients: vec!["matrix-synapse.service".into()],
        }
    }

    fn shared() -> Shared {
        Shared {
            wal_level: "replica".into(),
            free_wal_senders: 10,
            free_replication_slots: 10,
            ..Shared::default()
        }
    }

    fn cluster(facts: &mut Facts) -> &mut Cluster {
        facts.cluster.as_mut().unwrap()
    }

    #[test]
    fn a_homeserver_as_it_should_be_can_be_upgraded() {
        let report = check(&facts());
        assert!(report.is_possible(), "{report}");
        assert_eq!(
            report.to_string(),
            "upgrade from PostgreSQL 15 to 17: nothing stands in the way\n\n\
             fact     method online: a copy follows the homeserver while that runs; the downtime does not grow with \
             the size\n\
             fact     it has not been rehearsed: how long users will wait is not known\n         \
             HINT: matrix-postgres-upgrade rehearse tries it on a copy, while the homeserver runs\n\
             fact     the data directory has 3.00 GB, and 10.00 GB are free beside it\n\
             fact     to be stopped and started: matrix-synapse.service"
        );
    }

    #[test]
    fn everything_that_would_stop_it_half_way_is_found_beforehand() {
        type Change = fn(&mut Facts);
        let cases: [(Change, &str); 21] = [
            (|facts| facts.target = Some(Major(15)), "15 is not newer"),
            (|facts| facts.target = Some(Major(18)), "PostgreSQL 18, the target, is not installed"),
            (|facts| facts.installed = vec![Major(17)], "PostgreSQL 15, the cluster's own, is not installed"),
            (|facts| facts.is_symlink = true, "is a symbolic link"),
            (|facts| facts.data_directory.is_mount_point = true, "is a mount point"),
            (|facts| facts.keep_path.0 = PathBuf::from("/d/data/old"), "within itself"),
            (|facts| facts.space = space([3_000_000_000; 3], [1; 3]), "4.37 GB are needed"),
            (
                |facts| {
                    facts.method = Some(Method::Dump);
                    facts.dump_directory_problem = Some("the dump directory is open".into());
                },
                "is open",
            ),
            (
                |facts| {
                    facts.method = Some(Method::Online);
                    cluster(facts).shared.wal_level = "minimal".into();
                },
                "method online is not possible: wal_level is minimal",
            ),
            (|facts| facts.missing_units = vec!["x.service".into()], "no unit x.service"),
            (|facts| facts.system_identifier = Some("2".into()), "is not that of /d/data"),
            (|facts| facts.cluster = None, "is not running"),
            (|facts| facts.target_extensions.clear(), "extension plpgsql of database \"homeserver\""),
            (|facts| cluster(facts).shared.synchronous_standbys = "*".into(), "every commit would wait"),
            (|facts| cluster(facts).shared.invalid_databases = vec!["x".into()], "was interrupted"),
            (|facts| cluster(facts).shared.prepared_transactions = 2, "2 prepared transactions"),
            (|facts| cluster(facts).shared.closed_databases = vec!["x".into()], "accepts no connections"),
            (
                |facts| cluster(facts).shared.tablespaces = vec!["fast in /ssd".into()],
                "tablespace fast in /ssd",
            ),
            (
                |facts| {
                    facts.configuration =
                        vec![Foreseen::Blocker { message: "library x".into(), hint: "install it".into() }];
                },
                "library x",
            ),
            (
                |facts| {
                    let name = "old_snapshot_threshold".into();
                    facts.settings_gone = vec![CatalogSetting { name, ..CatalogSetting::default() }];
                },
                "setting old_snapshot_threshold, which ALTER ROLE ALL SET",
            ),
            (
                |facts| facts.shadowed = vec![("matrix-postgres.service".into(), "/etc/x".into())],
                "shadowed by /etc/x",
            ),
        ];
        for (change, expected) in cases {
            let mut facts = facts();
            change(&mut facts);
            let report = check(&facts);
            assert!(!report.is_possible(), "{expected}");
            let blocker = &report.findings[0];
            assert!(blocker.message.contains(expected), "{expected}: {report}");
            assert!(blocker.hint.is_some(), "{expected}");
        }
    }

    #[test]
    fn what_only_needs_to_be_known_stops_nothing() {
        let mut facts = facts();
        facts.configuration = vec![
            Foreseen::Change("the setting wal_keep_segments becomes a comment".into()),
            Foreseen::Note("my.conf is carried".into()),
        ];
        facts.clients.clear();
        facts.keep_path.1 = true;
        cluster(&mut facts).shared = Shared {
            md5_roles: vec!["synapse".into()],
            scram_only: true,
            replication_slots: vec!["standby".into()],
            ..shared()
        };
        cluster(&mut facts).initialisation.differing = vec!["template1".into()];
        let report = check(&facts);
        assert!(report.is_possible(), "{report}");
        let text = report.to_string();
        for expected in [
            "warning  the setting wal_keep_segments",
            "fact     my.conf",
            "\"template1\" has another",
            "slot standby",
            "has md5: synapse",
            "no unit of a client",
            "is taken",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn where_no_copy_can_follow_the_method_is_another_and_says_why() {
        type Change = fn(&mut Facts);
        let cases: [(Change, &str); 9] = [
            (|facts| facts.programs_together = false, "not in one place"),
            (|facts| facts.socket_directory = "/run/my server".into(), "a path such as /run/my server"),
            (|facts| facts.data_directory.path = "/my data".into(), "a path such as /my data"),
            (|facts| cluster(facts).shared.wal_level = "minimal".into(), "wal_level is minimal"),
            (|facts| cluster(facts).shared.free_wal_senders = 2, "2 more may be sent the log"),
            (|facts| cluster(facts).shared.free_replication_slots = 0, "room for 0 replication slots"),
            (|facts| facts.replication_refused = Some("no pg_hba.conf entry".into()), "no pg_hba.conf entry"),
            (|facts| cluster(facts).contents[0].1.unlogged_bytes = 100_000_000, "hold 100.00 MB"),
            (|facts| facts.data_directory.contents = Contents::Cluster(Major(11)), "11 cannot be followed"),
        ];
        for (change, expected) in cases {
            let mut facts = facts();
            facts.installed.insert(0, Major(11));
            change(&mut facts);
            let report = check(&facts);
            assert_eq!(report.method, Method::Dump, "{expected}");
            assert!(report.is_possible(), "{report}");
            let text = report.to_string();
            let line = text.lines().find(|line| line.contains("method dump")).unwrap_or_default();
            assert!(line.starts_with("warning") && line.contains(expected), "{text}");
        }
    }
}
