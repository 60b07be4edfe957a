//! What is found, subject by subject.

use indicatif::DecimalBytes;

use super::{Finding, Weight};
use crate::backup::guarded::Foreseen;
use crate::backup::quoted;
use crate::config::Method;
use crate::postgres::{Major, identifier, support};
use crate::upgrade::choice::{Obstacle, dump_obstacles, goes, obstacles};
use crate::upgrade::configuration::Foreseen as Change;
use crate::upgrade::facts::{CatalogSetting, Cluster, Facts, Shared};
use crate::upgrade::rehearsal::Aim;
use crate::upgrade::sessions::Connected;
use crate::upgrade::subscriptions::{command, switched_off};
use crate::upgrade::transfer::Way;
use crate::upgrade::units::Units;

const WHO: &str = "matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_stat_activity' shows the sessions; iproute2 brings ss";

/// `md5_password_warnings` at each login.
const MD5_IS_WARNED_OF: Major = Major(19);

/// What was found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// All of it, the weightiest first.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.weight);
        self.0
    }

    pub(super) fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn add(&mut self, weight: Weight, message: impl Into<String>, hint: Option<&str>) {
        self.0.push(Finding { weight, message: message.into(), hint: hint.map(str::to_owned) });
    }

    pub(super) fn versions(&mut self, facts: &Facts, from: Option<Major>) {
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
        if let Some(ended) = facts.target.and_then(|target| support::ended(target, facts.now)) {
            self.add(Weight::Warning, ended, Some("install a newer one, and name it: --to"));
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

    pub(super) fn directory(&mut self, facts: &Facts) {
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

    /// Whether nothing stands in the way so far.
    pub(super) fn are_clear(&self) -> bool {
        self.0.iter().all(|finding| finding.weight != Weight::Blocker)
    }

    pub(super) fn tried(&mut self, facts: &Facts, is_clear: bool) {
        match &facts.tried {
            Some(tried) => {
                for Obstacle { message, hint } in &tried.refused {
                    self.add(Weight::Blocker, message, hint.as_deref());
                }
                self.add(Weight::Fact, "roles, settings, the rules of who may log in and every database's definitions were tried on an empty cluster of the target", None);
                for database in &tried.untried {
                    self.add(
                        Weight::Fact,
                        format!("but not the definitions of database {database:?}, which may run functions of its owners"),
                        Some("matrix-postgres-upgrade rehearse tries them, with the owners' rights"),
                    );
                }
            }
            None if is_clear => self.add(
                Weight::Blocker,
                "it was not tried on an empty cluster of the target",
                Some("matrix-postgres-upgrade check, as root"),
            ),
            None => self.add(
                Weight::Fact,
                "it was not tried on an empty cluster of the target: first comes what stands in the way",
                None,
            ),
        }
    }

    pub(super) fn method(&mut self, facts: &Facts, method: Method) {
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
                "method online: a copy follows the homeserver while that runs; the downtime does not grow with the size",
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
                        format!("method dump, whose downtime grows with the size, for: {message}"),
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
                let hint = "matrix-postgres-upgrade rehearse --method dump loads all rows";
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
                "of database {database:?}, functions of their owners are in {}: loaded with the rights of their owners, \
                 one after the other",
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
            let message = format!("the rehearsal at {:.0} does not count: {reason}", rehearsal.at);
            self.add(Weight::Fact, message, None);
        }
        if let (Some((at, seconds)), Method::Dump) = (facts.trial, method) {
            let message = format!(
                "the newest trial restore, at {at:.0}, took {seconds} s: users will wait for about as long, and for a dump"
            );
            self.add(Weight::Fact, message, None);
        }
        self.add(
            Weight::Fact,
            "it has not been rehearsed: how long users will wait is not known",
            Some("matrix-postgres-upgrade rehearse tries it on a copy, while the homeserver runs"),
        );
    }

    pub(super) fn space(&mut self, facts: &Facts, method: Method) {
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

    pub(super) fn configuration(&mut self, facts: &Facts) {
        for foreseen in &facts.configuration {
            match foreseen {
                Change::Blocker { message, hint } => self.add(Weight::Blocker, message, Some(hint)),
                Change::Change(message) => self.add(Weight::Warning, message, None),
                Change::Note(message) => self.add(Weight::Fact, message, None),
            }
        }
        for (setting, refused) in &facts.settings_gone {
            let CatalogSetting { name, value, .. } = setting;
            let whose = setting.whose();
            self.add(
                Weight::Blocker,
                match refused {
                    None => format!(
                        "the target does not know the setting {name}, which ALTER {whose} SET has set"
                    ),
                    Some(said) => format!(
                        "the target refuses {name} = {value}, which ALTER {whose} SET has set: {said}"
                    ),
                },
                Some(&format!("ALTER {whose} RESET {name}")),
            );
        }
    }

    pub(super) fn cluster(&mut self, cluster: &Cluster, facts: &Facts) {
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
                Some("matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_prepared_xacts', then COMMIT or ROLLBACK PREPARED"),
            );
        }
        for database in &shared.closed_databases {
            self.add(
                Weight::Blocker,
                format!("database {database:?} accepts no connections, and would be left behind"),
                Some(&format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")),
            );
        }
        if shared.template0_open {
            self.add(
                Weight::Blocker,
                "database \"template0\" accepts connections: every new cluster has one of its own, and what is in this one would be lost",
                Some("ALTER DATABASE template0 ALLOW_CONNECTIONS false"),
            );
        }
        for database in &shared.invalid_databases {
            self.add(
                Weight::Blocker,
                format!("a DROP DATABASE of {database:?} was interrupted: nobody can read it any more"),
                Some(&format!(
                    "matrix-postgres-cli -c {} ends it",
                    quoted(&format!("DROP DATABASE {}", identifier(database)))
                )),
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
        self.passwords(shared, facts.target);
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
    }

    /// Who is not stopped is cut off; that it cannot be told who that is, is told.
    fn sessions(&mut self, units: &Units, server: &str) {
        let connected = match &units.connected {
            Ok(connected) => connected,
            Err(reason) => {
                return self.add(
                    Weight::Warning,
                    format!("it is not known which units are connected to the server: {reason}"),
                    Some(WHO),
                );
            }
        };
        for Connected { who, unit, count } in connected {
            match unit {
                Some(unit) if !units.clients.contains(unit) && unit != server => self.add(
                    Weight::Warning,
                    format!("connected: {who}, {count} times, of {unit}, which nobody stops: it will be cut off"),
                    Some("clients.units in /etc/matrix-postgres/config.toml names what is stopped and started again"),
                ),
                Some(unit) => self.add(Weight::Fact, format!("connected: {who}, {count} times, of {unit}"), None),
                None => self.add(Weight::Fact, format!("connected: {who}, {count} times"), None),
            }
        }
    }

    fn passwords(&mut self, shared: &Shared, target: Option<Major>) {
        if shared.md5_roles.is_empty() {
            return;
        }
        let roles = shared.md5_roles.join(", ");
        let anew = "set the passwords of these roles again: \\password ROLE in matrix-postgres-cli";
        if shared.scram_only {
            let message = format!("pg_hba.conf takes scram only, and has md5: {roles}");
            self.add(Weight::Warning, message, Some(anew));
        }
        if target.is_some_and(|target| target >= MD5_IS_WARNED_OF) {
            let message = format!(
                "the target warns whoever logs in with an md5 password, and a later version will refuse it: {roles}"
            );
            self.add(Weight::Warning, message, Some(anew));
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

    /// What could not be compared.
    pub(super) fn names(&mut self, cluster: &Cluster) {
        for (database, contained) in &cluster.contents {
            if contained.unreadable_names > 0 {
                self.add(
                    Weight::Blocker,
                    format!(
                        "database {database:?}, in SQL_ASCII, has {} names that are no UTF-8: it could not be compared",
                        contained.unreadable_names
                    ),
                    Some("rename what they are of, such as ALTER TABLE … RENAME TO …"),
                );
            }
        }
    }

    pub(super) fn subscriptions(&mut self, cluster: &Cluster, method: Method, from: Option<Major>) {
        let Some(from) = from else { return };
        for (database, names) in switched_off(cluster, method, from) {
            for name in names {
                let message = format!(
                    "subscription {name:?} of database {database:?} will be switched off in the new cluster"
                );
                let hint = format!("after the upgrade: {}", command(&database, &name));
                self.add(Weight::Warning, message, Some(&hint));
            }
        }
    }

    pub(super) fn pages(&mut self, cluster: &Cluster, method: Method) {
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

    pub(super) fn units(&mut self, facts: &Facts) {
        let units = match &facts.units {
            Ok(units) => units,
            Err(reason) => {
                return self.add(
                    Weight::Blocker,
                    format!("systemd cannot be asked which units there are, and which of them run: {reason}"),
                    Some("systemctl status dbus.service"),
                );
            }
        };
        self.sessions(units, &facts.server_unit);
        for unit in &units.missing {
            self.add(
                Weight::Blocker,
                format!("there is no unit {unit}"),
                Some("clients and server.unit in /etc/matrix-postgres/config.toml name units"),
            );
        }
        for (unit, file) in &units.shadowed {
            self.add(
                Weight::Blocker,
                format!("{unit} is shadowed by {}, which is not ours", file.display()),
                Some(&format!("systemctl cat {unit} shows it; disable what installed it")),
            );
        }
        match units.clients.is_empty() {
            true => self.add(
                Weight::Warning,
                "no unit of a client runs; those that are started by other means must be stopped by hand",
                Some("clients in /etc/matrix-postgres/config.toml names their units"),
            ),
            false => {
                self.add(
                    Weight::Fact,
                    format!("to be stopped and started: {}", units.clients.join(", ")),
                    None,
                );
            }
        }
    }
}
