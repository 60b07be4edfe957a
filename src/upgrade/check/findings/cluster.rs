//! What is in the cluster.

use super::super::report::Weight;
use super::Findings;
use crate::backup::quoted;
use crate::config::Method;
use crate::postgres::{Major, identifier};
use crate::report::DecimalBytes;
use crate::upgrade::facts::{Cluster, Facts, Shared};
use crate::upgrade::plan::subscriptions::{command, switched_off};

/// `md5_password_warnings` at each login.
const MD5_IS_WARNED_OF: Major = Major(19);

impl Findings {
    pub(in crate::upgrade::check) fn cluster(&mut self, cluster: &Cluster, facts: &Facts) {
        if facts.system_identifier.as_ref() != Some(&cluster.server.system_identifier) {
            self.add(
                Weight::Blocker,
                format!("the server that answers is not that of {}", facts.data_directory.path.display()),
                Some("data_directory and socket_directory in /etc/matrix-postgres/config.toml must be of one server"),
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
    pub(in crate::upgrade::check) fn names(&mut self, cluster: &Cluster) {
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

    pub(in crate::upgrade::check) fn subscriptions(
        &mut self,
        cluster: &Cluster,
        method: Method,
        from: Option<Major>,
    ) {
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

    pub(in crate::upgrade::check) fn pages(&mut self, cluster: &Cluster, method: Method) {
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
}
