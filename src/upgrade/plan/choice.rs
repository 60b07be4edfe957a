//! Which method an upgrade takes, and why. Pure.

use crate::config::Method;
use crate::postgres::{Contents, Major, identifier, pg_upgrade};
use crate::report::DecimalBytes;
use crate::upgrade::facts::{Cluster, Facts, Obstacle};

/// The oldest server that a copy can follow as it is done here (`standby.signal`, `pg_promote`).
const OLDEST: Major = Major(12);

/// pg_basebackup takes two of them at the same time, and the copy one.
const SENDERS: i64 = 2;

/// Rows in so many bytes of unlogged tables are carried over by themselves in a moment.
pub(in crate::upgrade) const MUCH: u64 = 64 << 20;

/// The method that is asked for, or, if that is left to us, `online` where nothing is in its way.
pub fn choose(facts: &Facts) -> Method {
    facts.method.unwrap_or_else(|| match obstacles(facts).is_empty() {
        true => Method::Online,
        false => Method::Dump,
    })
}

/// Whether a method is known to work. What was not tried is not.
pub fn goes(facts: &Facts, method: Method) -> bool {
    let is_free = match method {
        Method::Online => obstacles(facts).is_empty(),
        Method::Dump => {
            let has_room =
                facts.space.transfer_mode(facts.data_bytes).is_ok() && facts.dump_directory_problem.is_none();
            has_room && dump_obstacles(facts).is_empty()
        }
    };
    facts.tried.is_some() && is_free
}

/// What is in the way of method `dump`, but for room.
pub fn dump_obstacles(facts: &Facts) -> Vec<Obstacle> {
    let tried = facts.tried.iter().flat_map(|tried| tried.dump.iter().cloned());
    tried.chain(guarded_obstacles(facts)).chain(violated_keys(facts)).collect()
}

/// Keys that a dump could not make again.
fn violated_keys(facts: &Facts) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for (database, contained) in facts.cluster.iter().flat_map(|cluster| &cluster.contents) {
        for key in contained.loose_keys.iter().filter(|key| key.is_violated == Some(true)) {
            found.push(Obstacle {
                message: format!(
                    "database {database:?}: rows violate foreign key {}, whose triggers are disabled",
                    key.name
                ),
                hint: Some("correct the rows, or drop the key: ALTER TABLE … DROP CONSTRAINT …".to_owned()),
            });
        }
    }
    found
}

/// What only a superuser could load, and would call owners' functions on the way.
fn guarded_obstacles(facts: &Facts) -> Vec<Obstacle> {
    let of = facts.cluster.iter().flat_map(|cluster| &cluster.foreseen).filter(|_| !facts.trust_owners);
    let hint = (!obstacles(facts).is_empty()).then(|| {
        "--trust-owners, or upgrade.trust_owners, if these functions may run with superuser privileges; or method online, \
         once its blockers are removed"
            .to_owned()
    });
    of.flat_map(|(database, foreseen)| foreseen.obstacles.iter().map(move |obstacle| (database, obstacle)))
        .map(|(database, obstacle)| Obstacle {
            message: format!("database {database:?} cannot be dumped and restored safely: {obstacle}"),
            hint: hint.clone(),
        })
        .collect()
}

/// What is in the way of method `online`.
pub fn obstacles(facts: &Facts) -> Vec<Obstacle> {
    let tried = facts.tried.iter().flat_map(|tried| tried.online.iter().cloned());
    standing_obstacles(facts).into_iter().chain(tried).collect()
}

/// Those of method `online` that can be seen without trying anything.
pub(in crate::upgrade) fn standing_obstacles(facts: &Facts) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |message: String, hint: Option<&str>| {
        found.push(Obstacle { message, hint: hint.map(str::to_owned) });
    };
    if let Contents::Cluster(from) = facts.data_directory.contents
        && from < OLDEST
    {
        add(format!("PostgreSQL {from} is too old; {OLDEST} is the oldest version that is supported"), None);
    }
    if !facts.programs_together {
        add("the programs of both versions are not on the same host".to_owned(), None);
    }
    if let Err(shortage) = facts.space.copy(facts.data_bytes) {
        add(shortage, None);
    }
    for path in [&facts.socket_directory, &facts.data_directory.path] {
        if !pg_upgrade::needs_no_quotes(&path.to_string_lossy()) {
            add(format!("pg_upgrade does not support a path such as {}", path.display()), None);
        }
    }
    if let Some(cluster) = &facts.cluster {
        found.extend(server_obstacles(cluster, facts.replication_refused.as_deref()));
        found.extend(unspeakable(cluster));
        found.extend(partitions_apart(cluster));
    }
    found
}

/// pg_upgrade hands names of databases to a shell, and ends half-way at one that it cannot (`appendShellString`).
fn unspeakable(cluster: &Cluster) -> Vec<Obstacle> {
    let is_so = |name: &&String| name.contains(['\n', '\r']);
    let names = cluster.databases.iter().map(|database| &database.name).filter(is_so);
    let obstacle = |name: &String| Obstacle {
        message: format!("pg_upgrade does not support newlines in names: database {name:?}"),
        hint: Some("rename it: ALTER DATABASE … RENAME TO …".to_owned()),
    };
    names.map(obstacle).collect()
}

/// pg_upgrade's dump says of their triggers what the new server refuses.
fn partitions_apart(cluster: &Cluster) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for (database, contained) in &cluster.contents {
        found.extend(contained.partitions_apart.iter().map(|table| Obstacle {
            message: format!(
                "pg_upgrade does not support partitions whose triggers of foreign keys are enabled or disabled apart from \
                 their parent's: {table} in database {database:?}"
            ),
            hint: Some(format!("ALTER TABLE {table} ENABLE TRIGGER ALL, in database {}", identifier(database))),
        }));
    }
    found
}

/// Why no copy can follow the server.
pub(in crate::upgrade) fn server_obstacles(cluster: &Cluster, refused: Option<&str>) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |message: String, hint: Option<&str>| {
        found.push(Obstacle { message, hint: hint.map(str::to_owned) });
    };
    let shared = &cluster.shared;
    if shared.wal_level == "minimal" {
        add(
            "wal_level is minimal, needed: replica".to_owned(),
            Some(
                "ALTER SYSTEM SET wal_level = replica, then restart the server; it will write somewhat more WAL",
            ),
        );
    } else if shared.free_wal_senders <= SENDERS {
        add(
            format!(
                "free WAL sender slots (max_wal_senders): {}, needed: {}",
                shared.free_wal_senders,
                SENDERS + 1
            ),
            Some("ALTER SYSTEM SET max_wal_senders = 10, then restart the server"),
        );
    } else if shared.free_replication_slots < SENDERS {
        add(
            format!(
                "free replication slots (max_replication_slots): {}, needed: {SENDERS}",
                shared.free_replication_slots
            ),
            Some("ALTER SYSTEM SET max_replication_slots = 10, then restart the server"),
        );
    } else if let Some(said) = refused {
        add(
            format!("the server refuses a replication connection: {}", said.trim()),
            Some(
                "add a line for the database \"replication\" to pg_hba.conf, like that of the superuser, then reload the server",
            ),
        );
    }
    for (database, contained) in &cluster.contents {
        if contained.unlogged_bytes > MUCH {
            add(
                format!(
                    "unlogged tables of database {database:?} have {}: they are not replicated, and copying them would add to the downtime",
                    DecimalBytes(contained.unlogged_bytes)
                ),
                Some("ALTER TABLE … SET LOGGED, for those that are meant to last"),
            );
        }
    }
    for database in &cluster.initialisation.missing {
        add(format!("pg_upgrade needs a database {database:?}, which does not exist"), None);
    }
    found
}
