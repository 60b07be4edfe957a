//! Upgrades of a real homeserver, whatever the method: what they start from, what must be the case afterwards, and how they
//! are cut off.

use std::time::Duration;

use super::synapse::User;
use super::{Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
pub const DAMAGED: i32 = 26;
pub const NO_SPACE: i32 = 29;
pub const LOCKED: i32 = 34;
pub const UNIT_JOB: i32 = 37;
pub const NOT_WELL: i32 = 40;

pub const UPGRADE: &str = "systemctl start matrix-postgres-upgrade.service";

pub fn sql(machine: &Machine, database: &str, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -d {database} -XAtqc {}", super::synapse::quote(statement)))
}

/// What an administrator may have beside the homeserver's database.
const MORE: &str = "
    CREATE ROLE bridge LOGIN PASSWORD 'secret' CONNECTION LIMIT 7;
    CREATE ROLE readers NOLOGIN; GRANT readers TO bridge;
    ALTER ROLE bridge SET search_path = 'x, y';
    CREATE DATABASE \"mautrix-signal\" OWNER bridge ENCODING 'UTF8' TEMPLATE template0;
    ALTER DATABASE homeserver SET work_mem = '7MB';
    COMMENT ON DATABASE \"mautrix-signal\" IS 'of the bridge';
    REVOKE CONNECT ON DATABASE \"mautrix-signal\" FROM PUBLIC;
    GRANT CONNECT ON DATABASE \"mautrix-signal\" TO readers;
    ALTER SYSTEM SET max_connections = 123;";
const BRIDGE: &str = "
    CREATE EXTENSION pg_trgm;
    CREATE SCHEMA s; COMMENT ON SCHEMA s IS 'schema';
    CREATE DOMAIN s.positive AS int CHECK (VALUE > 0);
    CREATE TABLE s.portal (id bigserial PRIMARY KEY, name text NOT NULL UNIQUE, n s.positive);
    INSERT INTO s.portal (name, n) SELECT 'portal ' || n, n FROM generate_series(1, 1000) n;
    CREATE INDEX ON s.portal USING gin (name gin_trgm_ops);
    CREATE UNLOGGED TABLE s.volatile (id serial PRIMARY KEY, name text);
    INSERT INTO s.volatile (name) SELECT 'row ' || n FROM generate_series(1, 10) n;
    CREATE VIEW s.large AS SELECT * FROM s.portal WHERE n > 900;
    GRANT SELECT ON s.portal TO readers;
    ALTER TABLE s.portal ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON s.portal TO readers USING (n < 10);
    SELECT lo_from_bytea(0, ('large object ' || n)::bytea) FROM generate_series(1, 3) n;";

/// A homeserver on this version with talk, and more beside it, to be upgraded by this method.
pub fn prepare(machine: &Machine, major: u16, method: &str) -> (User, String) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", &format!("[server]\nversion = {major}\n"));
    machine.ok("systemctl start matrix-postgres.service");
    configure(machine, &format!("method = \"{method}\"\n"));
    // The version of Synapse here wants 14; on 13 an older one has run.
    machine.ok("sed -i 's/_version < 140000/_version < 130000/' /opt/synapse/lib/python3*/site-packages/synapse/storage/engines/postgres.py");
    let synapse = Synapse::set_up(machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "upgrades");
    synapse.send(&user, &room, "before the upgrade");
    for statement in MORE.split(';').filter(|statement| !statement.trim().is_empty()) {
        sql(machine, "postgres", statement);
    }
    sql(machine, "mautrix-signal", BRIDGE);
    machine.ok("echo 'local all bridge trust # of the administrator' | sed -i '1r /dev/stdin' /matrix/postgres/data/pg_hba.conf");
    machine.ok("systemctl restart matrix-postgres.service && systemctl restart matrix-synapse.service");
    (user, room)
}

/// A homeserver on 17, as initdb makes clusters before 18, with what 18 does not know, what has another name there, and
/// what it complains of.
pub fn prepare_17(machine: &Machine, method: &str) -> (User, String) {
    let prepared = prepare(machine, 17, method);
    machine.ok("systemctl stop matrix-synapse.service matrix-postgres.service");
    machine.ok("runuser -u matrix-postgres -- /usr/lib/postgresql/17/bin/pg_checksums --disable /matrix/postgres/data");
    machine.ok("echo \"extension_destdir = ''\" >>/matrix/postgres/data/postgresql.conf");
    machine.ok("systemctl start matrix-postgres.service matrix-synapse.service");
    assert_eq!(sql(machine, "postgres", "SHOW data_checksums"), "off");
    sql(machine, "postgres", "ALTER SYSTEM SET ssl_ecdh_curve = 'secp384r1'");
    sql(machine, "postgres", "SET password_encryption = md5; CREATE ROLE elder LOGIN PASSWORD 'old'");
    prepared
}

/// Everything that the server holds, in the words of this `pg_dumpall`; without what tells the versions apart.
pub fn everything(machine: &Machine, major: u16) -> Vec<String> {
    let text = machine
        .ok(&format!("/usr/lib/postgresql/{major}/bin/pg_dumpall -h /run/matrix-postgres -U postgres"));
    let mut lines: Vec<_> = text.lines().map(alike).collect();
    let differs = [
        "restrict",
        "(pg_attver=",
        "GRANT readers TO bridge",
        "portal.n",
        "    name,",
        "    n",
        "portal.id",
        "SELECT id",
        "n)::integer > 900",
    ];
    lines.retain(|line| {
        !line.is_empty() && !line.starts_with("--") && !differs.iter().any(|part| line.contains(part))
    });
    lines.sort();
    lines
}

/// Without the name of NOT NULL, which 18 gives it, and without a stamp among a column's options.
fn alike(line: &str) -> String {
    let named = line.split_once(" CONSTRAINT ").and_then(|(column, rest)| {
        rest.split_once(" NOT NULL").map(|(_, rest)| format!("{column} NOT NULL{rest}"))
    });
    let stamped = line
        .split_once("(pg_attver=")
        .and_then(|(column, stamp)| stamp.split_once(", ").map(|(_, options)| format!("{column}({options}")));
    named.or(stamped).unwrap_or_else(|| line.to_owned())
}

pub fn version(machine: &Machine) -> String {
    sql(machine, "postgres", "SHOW server_version_num")[..2].to_owned()
}

pub fn said(machine: &Machine, room: &str) -> Vec<String> {
    let synapse = Synapse::of(machine);
    let messages = synapse.messages(&synapse.log_in("ada"), room);
    messages.into_iter().map(|(_, text)| text).collect()
}

/// The homeserver runs on this version and has lost nothing.
pub fn is_well(machine: &Machine, major: &str, room: &str) {
    assert_eq!(version(machine), major);
    machine.ok("systemctl is-active matrix-postgres.service matrix-synapse.service");
    assert!(said(machine, room).contains(&"before the upgrade".to_owned()));
    assert_eq!(sql(machine, "mautrix-signal", "SELECT count(*), sum(n) FROM s.portal"), "1000|500500");
    let left = machine.ok("ls -d /matrix/postgres/data?* /run/matrix-postgres-upgrade /var/tmp/matrix-postgres/* 2>/dev/null || true");
    assert_eq!(left, "");
}

pub fn journal(machine: &Machine) -> String {
    machine.journal_of("matrix-postgres-upgrade.service")
}

/// Starts the upgrade, which must fail with this status; returns what it said.
#[track_caller]
pub fn refused(machine: &Machine, status: i32) -> String {
    let started = machine.run(UPGRADE);
    assert_ne!(started.status, 0, "{started}");
    let said = journal(machine);
    let found =
        machine.ok("systemctl show --value --property=ExecMainStatus matrix-postgres-upgrade.service");
    assert_eq!(found, status.to_string(), "{said}");
    said
}

/// Upgrades what [`prepare`] has made, looks whether everything is there, and goes back.
pub fn upgrade(machine: &Machine, (user, room): (User, String), from: u16, to: u16, checksums: &str) {
    // The newest that is installed may be another one; what is last in the file is about upgrades.
    machine.ok(&format!("echo 'to = {to}' >>/etc/matrix-postgres/config.toml"));
    let plan = machine.ok("matrix-postgres-upgrade run --dry-run");
    assert!(plan.contains("stop matrix-synapse.service"), "{plan}");
    // It writes whenever it is started; what does not run is not started.
    machine.ok("systemctl stop matrix-synapse.service");
    let before = everything(machine, to);

    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(machine));
    assert_eq!(machine.run("systemctl is-active matrix-synapse.service").stdout, "inactive");
    let after = everything(machine, to);
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let come: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(before == after, "gone: {gone:#?}\ncome: {come:#?}");
    machine.ok("systemctl start matrix-synapse.service");
    is_well(machine, &to.to_string(), &room);
    assert_eq!(sql(machine, "homeserver", "SHOW work_mem"), "7MB");
    assert_eq!(sql(machine, "postgres", "SHOW max_connections"), "123");
    assert_eq!(sql(machine, "postgres", "SHOW data_checksums"), checksums);
    // The administrator's line of pg_hba.conf lets in whom it did.
    machine.ok("psql -h /run/matrix-postgres -U bridge -XAtc 'SELECT 1' mautrix-signal");
    assert_eq!(machine.ok("cat /matrix/postgres-auto-upgrade-backup/PG_VERSION"), from.to_string());
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains(&format!("upgraded from PostgreSQL {from} to {to}")), "{status}");
    assert!(status.contains("\nkept:       /matrix/postgres-auto-upgrade-backup"), "{status}");

    // Users have written since: going back is possible, and asks.
    Synapse::of(machine).send(&user, &room, "after the upgrade");
    let asked = machine.run("matrix-postgres-upgrade rollback");
    // What is said before the question, or, of what the server had not counted yet, in place of it.
    let said_all = format!("{}{}", asked.stdout, asked.stderr);
    assert!(asked.status == 41 && said_all.contains("will be lost"), "{asked}");
    assert!(said_all.contains("homeserver: public."), "{asked}");
    machine.wait_for("systemctl is-active matrix-synapse.service");
    machine.ok("matrix-postgres-upgrade rollback --yes");
    assert_eq!(version(machine), from.to_string());
    assert_eq!(said(machine, &room), ["before the upgrade"]);
    let aside = machine.ok("ls -d /matrix/postgres/data.upgrade-*");
    assert_eq!(machine.ok(&format!("cat {aside}/PG_VERSION")), to.to_string());
    assert_eq!(machine.run("matrix-postgres-upgrade rollback").status, 31);
}

/// Lets the upgrade stand still at a step, so that it can be cut off there.
pub fn pause_at(machine: &Machine, step: &str) {
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres-upgrade.service.d");
    machine.write(
        "/etc/systemd/system/matrix-postgres-upgrade.service.d/pause.conf",
        &format!("[Service]\nExecStart=\nExecStart=/usr/bin/matrix-postgres-upgrade run --pause {step}\n"),
    );
    machine.ok("systemctl daemon-reload && systemctl start --no-block matrix-postgres-upgrade.service");
    let standing = "journalctl --no-pager --output=cat --boot --unit=matrix-postgres-upgrade.service | tail -n 1 | grep -q 'pausing: '";
    machine.wait_for(standing);
}

/// Waits until these units run, the journal is closed, and the homeserver answers.
#[track_caller]
pub fn recovered(machine: &Machine, units: &str) {
    machine.wait_for(&format!(
        "if systemctl is-failed matrix-postgres-recover.service {units}; then \
               journalctl --no-pager --boot --unit='matrix-*' --lines=80; fi; systemctl is-active {units} && \
             ! systemctl is-active matrix-postgres-upgrade.service matrix-postgres-recover.service && \
             ! grep -aq '\"ended\": null' /var/lib/matrix-postgres-upgrade/upgrade/journal.json && \
             curl --silent --fail http://localhost:8008/health"
    ));
}

/// No upgrade is under way, as `status` says.
#[track_caller]
pub fn is_closed(machine: &Machine) {
    let status = machine.run("matrix-postgres-upgrade status --json").json();
    assert_eq!(status["open"], false, "{status}");
}

/// The homeserver has come up by itself, on one of the two versions, and has lost nothing.
#[track_caller]
pub fn comes_up(machine: &Machine, step: &str, room: &str) {
    recovered(machine, "matrix-postgres.service matrix-synapse.service");
    let expected = if ["starting-server", "starting-clients", "tending", "keeping"].contains(&step) {
        "17"
    } else {
        "15"
    };
    is_well(machine, expected, room);
    if expected == "17" {
        assert_eq!(machine.ok("cat /matrix/postgres-auto-upgrade-backup/PG_VERSION"), "15", "{step}");
        machine.ok("matrix-postgres-upgrade rollback --yes && rm -r /matrix/postgres/data.upgrade-*");
        is_well(machine, "15", room);
    }
}

/// Cuts the power at each of these steps of an upgrade from 15 to 17.
pub fn cut_the_power(machine: &Machine, method: &str, steps: &[&str]) {
    let (_, room) = prepare(machine, 15, method);
    // As on a server that boots unattended.
    machine.ok("systemctl enable --quiet matrix-postgres.service matrix-synapse.service");
    for step in steps {
        eprintln!("power cut: {step}");
        machine.ok("sync");
        pause_at(machine, step);
        machine.power_cut_to_disk().expect("the power should go");
        machine.boot_again().unwrap_or_else(|error| panic!("{step}: {error}"));
        comes_up(machine, step, &room);
    }
}

/// A unit of a client.
pub fn client(machine: &Machine, name: &str, text: &str) {
    let text = format!("[Service]\nType=oneshot\nRemainAfterExit=yes\n{text}\n");
    machine.write(&format!("/etc/systemd/system/{name}"), &text);
    machine.ok(&format!("systemctl daemon-reload && systemctl start {name}"));
}

pub fn configure(machine: &Machine, text: &str) {
    machine
        .write("/etc/matrix-postgres/config.toml", &format!("[upgrade]\nbackup_within = \"never\"\n{text}"));
}
