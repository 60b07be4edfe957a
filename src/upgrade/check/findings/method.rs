//! How, and for how long.

use super::super::report::Weight;
use super::Findings;
use crate::backup::guarded::Foreseen;
use crate::config::Method;
use crate::report::DecimalBytes;
use crate::upgrade::facts::space::TransferMode;
use crate::upgrade::facts::{Facts, Obstacle};
use crate::upgrade::plan::choice::{dump_obstacles, goes, obstacles};
use crate::upgrade::records::Aim;

impl Findings {
    pub(in crate::upgrade::check) fn method(&mut self, facts: &Facts, method: Method) {
        let obstacles = obstacles(facts);
        let in_the_way = dump_obstacles(facts);
        let blocked = |method: Method, Obstacle { message, hint }: Obstacle, other: Method| {
            let hint = hint.or_else(|| {
                goes(facts, other).then(|| format!("upgrade.method = \"{other}\", or --method {other}"))
            });
            (format!("method {method} is not possible: {message}"), hint)
        };
        if method == Method::Dump {
            for obstacle in in_the_way.iter().cloned() {
                let (message, hint) = blocked(Method::Dump, obstacle, Method::Online);
                self.add(Weight::Blocker, message, hint.as_deref());
            }
        }
        match method {
            Method::Online if obstacles.is_empty() => self.add(
                Weight::Fact,
                "method online: pg_upgrade on a physical copy that is kept in sync by streaming replication; the downtime does not depend on the size",
                None,
            ),
            // It was asked for, or neither goes.
            _ if method == Method::Online || (facts.method.is_none() && !in_the_way.is_empty()) => {
                for obstacle in obstacles {
                    let (message, hint) = blocked(Method::Online, obstacle, Method::Dump);
                    self.add(Weight::Blocker, message, hint.as_deref());
                }
            }
            _ if facts.method.is_none() => {
                for Obstacle { message, hint } in obstacles {
                    self.add(
                        Weight::Warning,
                        format!("method dump, whose downtime grows with the size, because method online is not possible: {message}"),
                        hint.as_deref(),
                    );
                }
            }
            _ => self.add(
                Weight::Fact,
                "method dump, as configured: pg_dump and pg_restore while the homeserver is down",
                None,
            ),
        }
        if method == Method::Dump && !facts.trust_owners {
            self.guarded(facts);
        }
        self.rows(facts, method);
        self.duration(facts, method);
    }

    /// What method `dump` would say, where the other one is taken; and what is not known of it.
    fn rows(&mut self, facts: &Facts, method: Method) {
        let Some(tried) = &facts.tried else { return };
        match method {
            Method::Online => {
                for Obstacle { message, hint } in &tried.dump {
                    let message = format!("method dump would not be possible: {message}");
                    self.add(Weight::Fact, message, hint.as_deref());
                }
            }
            Method::Dump => {
                let hint = "matrix-postgres-upgrade rehearse --method dump restores all rows";
                tried.unknown.iter().for_each(|what| self.add(Weight::Warning, what, Some(hint)));
            }
        }
    }

    /// What a dump holds that calls functions of others.
    fn guarded(&mut self, facts: &Facts) {
        let foreseen = facts.cluster.iter().flat_map(|cluster| &cluster.foreseen);
        for (database, Foreseen { tables, .. }) in
            foreseen.filter(|(_, foreseen)| !foreseen.tables.is_empty())
        {
            let message = format!(
                "database {database:?}: these tables call functions of their owners, and are restored with the privileges of their owners, \
                 one after the other: {}",
                tables.join(", ")
            );
            self.add(Weight::Fact, message, None);
        }
    }

    /// As far as it is known.
    fn duration(&mut self, facts: &Facts, method: Method) {
        if let Some(rehearsal) = &facts.rehearsal {
            let aim = Aim {
                from: facts.data_directory.contents.major(),
                to: facts.target,
                method: Some(method),
                data_bytes: Some(facts.data_bytes),
            };
            let Some(reason) = rehearsal.outdated(&aim, facts.now) else {
                let weight = if rehearsal.went_well() { Weight::Fact } else { Weight::Warning };
                return self.add(weight, rehearsal.to_string(), None);
            };
            let message = format!("the rehearsal at {:.0} is outdated: {reason}", rehearsal.at);
            self.add(Weight::Fact, message, None);
        }
        if let (Some((at, seconds)), Method::Dump) = (facts.trial, method) {
            let message = format!(
                "expected downtime: about {seconds} s (the latest trial restore, at {at:.0}), plus the dump"
            );
            self.add(Weight::Fact, message, None);
        }
        self.add(
            Weight::Fact,
            "not rehearsed: the downtime is unknown",
            Some("matrix-postgres-upgrade rehearse tests the upgrade on a copy, while the homeserver runs"),
        );
    }

    pub(in crate::upgrade::check) fn space(&mut self, facts: &Facts, method: Method) {
        let data = DecimalBytes(facts.data_bytes);
        if method == Method::Online {
            let free = DecimalBytes(facts.space.beside.free);
            self.add(
                Weight::Fact,
                format!("data directory: {data}; free space on its file system: {free}"),
                None,
            );
            return;
        }
        match facts.space.transfer_mode(facts.data_bytes) {
            Err(shortage) => self.add(
                Weight::Blocker,
                format!("data directory: {data}; {shortage}"),
                Some("free some space there, or use other directories: --keep-path, --dump-dir"),
            ),
            Ok(TransferMode::Stream) => self.add(
                Weight::Warning,
                format!(
                    "data directory: {data}; not enough space for a dump in {}: pg_dump is piped into pg_restore, \
                     which takes longer",
                    facts.space.dump.path.display()
                ),
                Some("free some space, or use another directory: --dump-dir"),
            ),
            Ok(TransferMode::Files) => {
                let free = DecimalBytes(facts.space.beside.free);
                self.add(Weight::Fact, format!("data directory: {data}; free space on its file system: {free}"), None);
            }
        }
        if let Some(problem) = &facts.dump_directory_problem {
            let hint = "use another directory, which need not exist yet: --dump-dir";
            self.add(Weight::Blocker, problem.clone(), Some(hint));
        }
    }
}
