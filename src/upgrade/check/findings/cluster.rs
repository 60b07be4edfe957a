//! What is in the cluster.

use super::super::report::Weight;
use super::Findings;
use crate::backup::quoted;
use crate::config::Method;
use crate::postgres::{Major, identifier, literal};
use crate::report::DecimalBytes;
use crate::upgrade::facts::{Cluster, Contained, Facts, Shared};
use crate::upgrade::plan::subscriptions::{command, switched_off};

/// `md5_password_warnings` at each login.
const MD5_IS_WARNED_OF: Major = Major(19);

impl Findings {
    pub(in crate::upgrade::check) fn cluster(&mut self, cluster: &Cluster, facts: &Facts) {
        self.server(cluster, facts);
        self.contents(cluster, facts);
        self.not_migrated(&cluster.shared);
        self.standbys(&cluster.shared);
        self.passwords(&cluster.shared, facts.target);
        self.databases(cluster);
    }

    /// Whether the server that runs is the one that is meant.
    fn server(&mut self, cluster: &Cluster, facts: &Facts) {
        if facts.system_identifier.as_ref() != Some(&cluster.server.system_identifier) {
            self.add(
                Weight::Blocker,
                format!("the running server uses another data directory than {}", facts.data_directory.path.display()),
                Some("set data_directory and socket_directory in /etc/matrix-postgres/config.toml to those of the same server"),
            );
        }
    }

    fn contents(&mut self, cluster: &Cluster, facts: &Facts) {
        let target_is_there = facts.target.is_some_and(|target| facts.installed.contains(&target));
        for (database, contained) in &cluster.contents {
            for extension in &contained.extensions {
                if target_is_there && !facts.target_extensions.contains(extension) {
                    self.add(
                        Weight::Blocker,
                        format!("extension {extension} of database {database:?} is not installed for the target version"),
                        Some("install the package of the extension for the target version"),
                    );
                }
            }
            if contained.large_objects > 0 {
                let message = format!("database {database:?} has {} large objects", contained.large_objects);
                self.add(Weight::Fact, message, None);
            }
            self.lost(database, contained);
        }
    }

    /// What no dump has of a database, and pg_upgrade goes by a dump.
    fn lost(&mut self, database: &str, contained: &Contained) {
        for object in &contained.among_the_systems {
            self.add(
                Weight::Warning,
                format!("database {database:?}: {object} is not migrated, nor backed up: it is in a schema of the system"),
                Some("move it to another schema: ALTER … SET SCHEMA"),
            );
        }
        for key in &contained.loose_keys {
            let dump = match key.is_violated {
                None => "; method dump fails if rows violate the key",
                Some(_) => "",
            };
            self.add(
                Weight::Warning,
                format!(
                    "database {database:?}: the triggers of foreign key {} are disabled, and will be enabled in the new cluster{dump}",
                    key.name
                ),
                Some("drop the key, or ENABLE TRIGGER ALL once no row violates it; or test it: matrix-postgres-upgrade rehearse"),
            );
        }
    }

    /// What neither method migrates.
    fn not_migrated(&mut self, shared: &Shared) {
        if shared.prepared_transactions > 0 {
            self.add(
                Weight::Blocker,
                format!("prepared transactions: {}; none is allowed", shared.prepared_transactions),
                Some("matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_prepared_xacts', then COMMIT or ROLLBACK PREPARED"),
            );
        }
        for database in &shared.closed_databases {
            self.add(
                Weight::Blocker,
                format!("database {database:?} does not allow connections and cannot be migrated"),
                Some(&format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")),
            );
        }
        if shared.template0_open {
            self.add(
                Weight::Blocker,
                "database \"template0\" allows connections: initdb creates a new template0, and the content of this one would be lost",
                Some("ALTER DATABASE template0 ALLOW_CONNECTIONS false"),
            );
        }
        for database in &shared.invalid_databases {
            self.add(
                Weight::Blocker,
                format!("database {database:?} is invalid: a DROP DATABASE was interrupted"),
                Some(&format!(
                    "finish it: matrix-postgres-cli -c {}",
                    quoted(&format!("DROP DATABASE {}", identifier(database)))
                )),
            );
        }
        for tablespace in &shared.tablespaces {
            self.add(
                Weight::Blocker,
                format!("tablespace {tablespace}: tablespaces are not supported"),
                Some("move its tables: ALTER TABLE … SET TABLESPACE pg_default; then DROP TABLESPACE"),
            );
        }
    }

    fn databases(&mut self, cluster: &Cluster) {
        for database in &cluster.initialisation.differing {
            let message = format!(
                "database {database:?} has another encoding or locale than template0; it will be recreated"
            );
            self.add(Weight::Warning, message, None);
        }
        for database in &cluster.initialisation.missing {
            let message =
                format!("database {database:?} does not exist; initdb will create it in the new cluster");
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
        let anew = "set the password of each role again: \\password ROLE in matrix-postgres-cli";
        if shared.scram_only {
            let message =
                format!("pg_hba.conf allows scram-sha-256 only, and these roles have md5 passwords: {roles}");
            self.add(Weight::Warning, message, Some(anew));
        }
        if target.is_some_and(|target| target >= MD5_IS_WARNED_OF) {
            let message = format!(
                "md5 passwords are deprecated in the target version, which warns at each login: {roles}"
            );
            self.add(Weight::Warning, message, Some(anew));
        }
    }

    fn standbys(&mut self, shared: &Shared) {
        if !shared.synchronous_standbys.is_empty() {
            let message = format!(
                "synchronous_standby_names is {:?}: a standby cannot replicate from another major version, and every commit would \
                 wait for it forever",
                shared.synchronous_standbys
            );
            self.add(
                Weight::Blocker,
                message,
                Some("ALTER SYSTEM SET synchronous_standby_names = '', and reload the server"),
            );
        }
        for origin in &shared.replication_origins {
            let message = format!("replication origin {origin:?} is not migrated");
            let again = format!(
                "after the upgrade: SELECT pg_catalog.pg_replication_origin_create({})",
                literal(origin)
            );
            self.add(Weight::Warning, message, Some(&again));
        }
        for slot in &shared.replication_slots {
            let message = format!("replication slot {slot} is not migrated; its standby must be recreated");
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
                        "database {database:?} (SQL_ASCII) cannot be compared: names of objects that are not valid UTF-8: {}",
                        contained.unreadable_names
                    ),
                    Some("rename these objects, such as: ALTER TABLE … RENAME TO …"),
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
                    "subscription {name:?} of database {database:?} will be disabled in the new cluster"
                );
                let hint = format!("after the upgrade: {}", command(&database, &name));
                self.add(Weight::Warning, message, Some(&hint));
            }
        }
    }

    pub(in crate::upgrade::check) fn pages(&mut self, cluster: &Cluster, method: Method) {
        if !cluster.server.data_checksums {
            let message = match method {
                Method::Dump => "data checksums: off in the old cluster, on in the new one",
                Method::Online => "data checksums: off, and stay off; method dump would turn them on",
            };
            self.add(Weight::Fact, message, None);
        }
        let stale: usize = cluster.contents.iter().map(|(_, contained)| contained.stale_indexes.len()).sum();
        if method == Method::Online && stale > 0 {
            self.add(
                Weight::Fact,
                format!(
                    "{stale} indexes depend on a collation whose version has changed, or may have, since they were \
                     built: they are rebuilt after the upgrade, while the homeserver runs"
                ),
                None,
            );
        }
    }
}
