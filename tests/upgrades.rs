//! Upgrades in booted machines, of a real homeserver: all goes along; what fails leads back; what is refused stops
//! nothing.

#[path = "machine/mod.rs"]
mod machine;

use std::time::Duration;

use machine::synapse::User;
use machine::{Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const NO_SPACE: i32 = 29;
const LOCKED: i32 = 34;
const UNIT_JOB: i32 = 37;
const NOT_WELL: i32 = 40;

const UPGRADE: &str = "systemctl start matrix-postgres-upgrade.service";

fn sql(machine: &Machine, database: &str, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -d {database} -XAtqc {}", machine::synapse::quote(statement)))
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
    CREATE VIEW s.large AS SELECT * FROM s.portal WHERE n > 900;
    GRANT SELECT ON s.portal TO readers;
    ALTER TABLE s.portal ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON s.portal TO readers USING (n < 10);
    SELECT lo_from_bytea(0, ('large object ' || n)::bytea) FROM generate_series(1, 3) n;";

/// A homeserver on this version with talk, and more beside it.
fn prepare(machine: &Machine, major: u16) -> (User, String) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", &format!("[server]\nversion = {major}\n"));
    machine.ok("systemctl start matrix-postgres.service");
    machine.write("/etc/matrix-postgres/config.toml", "[upgrade]\nbackup_within = \"never\"\n");
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

/// Everything that the server holds, in the words of this `pg_dumpall`; without what tells the versions apart.
fn everything(machine: &Machine, major: u16) -> Vec<String> {
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

fn version(machine: &Machine) -> String {
    sql(machine, "postgres", "SHOW server_version_num")[..2].to_owned()
}

fn said(machine: &Machine, room: &str) -> Vec<String> {
    let synapse = Synapse::of(machine);
    let messages = synapse.messages(&synapse.log_in("ada"), room);
    messages.into_iter().map(|(_, text)| text).collect()
}

/// The homeserver runs on this version and has lost nothing.
fn is_well(machine: &Machine, major: &str, room: &str) {
    assert_eq!(version(machine), major);
    machine.ok("systemctl is-active matrix-postgres.service matrix-synapse.service");
    assert!(said(machine, room).contains(&"before the upgrade".to_owned()));
    assert_eq!(sql(machine, "mautrix-signal", "SELECT count(*), sum(n) FROM s.portal"), "1000|500500");
    let left = machine.ok("ls -d /matrix/postgres/data?* /run/matrix-postgres-upgrade /var/tmp/matrix-postgres/* 2>/dev/null || true");
    assert_eq!(left, "");
}

fn journal(machine: &Machine) -> String {
    machine.ok("journalctl --no-pager --output=cat --unit=matrix-postgres-upgrade.service \
         --invocation=0 2>/dev/null || journalctl --no-pager --output=cat --unit=matrix-postgres-upgrade.service")
}

/// Starts the upgrade, which must fail with this status; returns what it said.
#[track_caller]
fn refused(machine: &Machine, status: i32) -> String {
    let started = machine.run(UPGRADE);
    assert_ne!(started.status, 0, "{started}");
    let said = journal(machine);
    let found =
        machine.ok("systemctl show --value --property=ExecMainStatus matrix-postgres-upgrade.service");
    assert_eq!(found, status.to_string(), "{said}");
    said
}

/// Upgrades what [`prepare`] has made, looks whether everything is there, and goes back.
fn upgrade(machine: &Machine, (user, room): (User, String), from: u16, to: u16) {
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
    assert_eq!(sql(machine, "postgres", "SHOW data_checksums"), "on");
    // The administrator's line of pg_hba.conf lets in whom it did.
    machine.ok("psql -h /run/matrix-postgres -U bridge -XAtc 'SELECT 1' mautrix-signal");
    assert_eq!(machine.ok("cat /matrix/postgres-auto-upgrade-backup/PG_VERSION"), from.to_string());
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains(&format!("upgraded from PostgreSQL {from} to {to}")), "{status}");
    assert!(status.contains("kept: /matrix/postgres-auto-upgrade-backup"), "{status}");

    // Users have written since: going back is possible, and asks.
    Synapse::of(machine).send(&user, &room, "after the upgrade");
    let asked = machine.run("matrix-postgres-upgrade rollback");
    // What is said before the question, or, of what the server had not counted yet, in place of it.
    let said_all = format!("{}{}", asked.stdout, asked.stderr);
    assert!(asked.status == 41 && said_all.contains("users would miss it"), "{asked}");
    assert!(said_all.contains("homeserver: public."), "{asked}");
    machine.wait_for("systemctl is-active matrix-synapse.service", Duration::from_secs(60));
    machine.ok("matrix-postgres-upgrade rollback --yes");
    assert_eq!(version(machine), from.to_string());
    assert_eq!(said(machine, &room), ["before the upgrade"]);
    let aside = machine.ok("ls -d /matrix/postgres/data.upgrade-*");
    assert_eq!(machine.ok(&format!("cat {aside}/PG_VERSION")), to.to_string());
    assert_eq!(machine.run("matrix-postgres-upgrade rollback").status, 31);
}

#[test]
fn from_15_all_goes_along_and_back() {
    let Some(machine) = machine::for_test("upgrade15") else { return };
    upgrade(&machine, prepare(&machine, 15), 15, 17);
}

#[test]
fn from_13_all_goes_along_and_back() {
    let Some(machine) = machine::for_test("upgrade13") else { return };
    upgrade(&machine, prepare(&machine, 13), 13, 17);
}

#[test]
fn from_17_to_18_all_goes_along_and_back() {
    let Some(machine) = machine::for_test_with_18("upgrade17") else { return };
    let prepared = prepare(&machine, 17);
    // As initdb makes clusters before 18.
    machine.ok("systemctl stop matrix-synapse.service matrix-postgres.service");
    machine.ok("runuser -u matrix-postgres -- /usr/lib/postgresql/17/bin/pg_checksums --disable /matrix/postgres/data");
    // What 18 does not know, what has another name there, and what it complains of.
    machine.ok("echo \"extension_destdir = ''\" >>/matrix/postgres/data/postgresql.conf");
    machine.ok("systemctl start matrix-postgres.service matrix-synapse.service");
    assert_eq!(sql(&machine, "postgres", "SHOW data_checksums"), "off");
    sql(&machine, "postgres", "ALTER SYSTEM SET ssl_ecdh_curve = 'secp384r1'");
    sql(&machine, "postgres", "SET password_encryption = md5; CREATE ROLE elder LOGIN PASSWORD 'old'");
    upgrade(&machine, prepared, 17, 18);
    let said = journal(&machine);
    for expected in
        ["does not know the setting extension_destdir", "ssl_ecdh_curve becomes ssl_groups = secp384r1"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// Lets the upgrade stand still at a step, so that it can be cut off there.
fn pause_at(machine: &Machine, step: &str) {
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres-upgrade.service.d");
    machine.write(
        "/etc/systemd/system/matrix-postgres-upgrade.service.d/pause.conf",
        &format!("[Service]\nExecStart=\nExecStart=/usr/bin/matrix-postgres-upgrade run --pause {step}\n"),
    );
    machine.ok("systemctl daemon-reload && systemctl start --no-block matrix-postgres-upgrade.service");
    let standing = "journalctl --no-pager --output=cat --boot --unit=matrix-postgres-upgrade.service | tail -n 1 | grep -q 'standing still'";
    machine.wait_for(standing, Duration::from_secs(120));
}

/// The homeserver has come up by itself, on one of the two versions, and has lost nothing.
#[track_caller]
fn comes_up(machine: &Machine, step: &str, room: &str) {
    machine.wait_for(
        "if systemctl is-failed matrix-postgres-recover.service matrix-postgres.service matrix-synapse.service; then \
           journalctl --no-pager --boot --unit='matrix-*' --lines=80; fi; systemctl is-active matrix-postgres.service matrix-synapse.service && \
         ! systemctl is-active matrix-postgres-upgrade.service matrix-postgres-recover.service && \
         ! grep -q '\"ended\": null' /var/lib/matrix-postgres/upgrade/journal.json && \
         curl --silent --fail http://localhost:8008/health",
        Duration::from_secs(180),
    );
    let expected =
        if ["starting-server", "starting-clients", "keeping"].contains(&step) { "17" } else { "15" };
    is_well(machine, expected, room);
    if expected == "17" {
        assert_eq!(machine.ok("cat /matrix/postgres-auto-upgrade-backup/PG_VERSION"), "15", "{step}");
        machine.ok("matrix-postgres-upgrade rollback --yes && rm -r /matrix/postgres/data.upgrade-*");
        is_well(machine, "15", room);
    }
}

const STEPS: [&str; 10] = [
    "preparing",
    "stopping-clients",
    "stopping-server",
    "transferring",
    "comparing",
    "syncing",
    "exchanging",
    "starting-server",
    "starting-clients",
    "keeping",
];

#[test]
fn killed_at_any_step_the_homeserver_comes_up_by_itself() {
    let Some(machine) = machine::for_test("upgrade-killed") else { return };
    let (_, room) = prepare(&machine, 15);
    for step in STEPS {
        eprintln!("killed: {step}");
        pause_at(&machine, step);
        machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
        comes_up(&machine, step, &room);
    }
}

#[test]
fn after_a_power_cut_at_any_step_the_homeserver_comes_up_by_itself() {
    let Some(machine) = machine::for_test_with_disk("upgrade-power") else { return };
    let (_, room) = prepare(&machine, 15);
    // As on a server that boots unattended.
    machine.ok("systemctl enable --quiet matrix-postgres.service matrix-synapse.service");
    for step in STEPS {
        eprintln!("power cut: {step}");
        machine.ok("sync");
        pause_at(&machine, step);
        machine.power_cut_to_disk().unwrap();
        if let Err(error) = machine.boot_again() {
            machine.debug();
            panic!("{step}: {error}");
        }
        comes_up(&machine, step, &room);
    }
}

/// A unit of a client.
fn client(machine: &Machine, name: &str, text: &str) {
    let text = format!("[Service]\nType=oneshot\nRemainAfterExit=yes\n{text}\n");
    machine.write(&format!("/etc/systemd/system/{name}"), &text);
    machine.ok(&format!("systemctl daemon-reload && systemctl start {name}"));
}

fn configure(machine: &Machine, text: &str) {
    machine
        .write("/etc/matrix-postgres/config.toml", &format!("[upgrade]\nbackup_within = \"never\"\n{text}"));
}

#[test]
fn what_stands_in_the_way_is_refused_before_anything_stops() {
    let Some(machine) = machine::for_test("upgrade-refused") else { return };
    prepare(&machine, 15);
    let pids = "systemctl show --value --property=MainPID matrix-postgres.service matrix-synapse.service";
    let before = machine.ok(pids);
    let refuse = |configuration: &str, expected: &str| {
        configure(&machine, configuration);
        let said = refused(&machine, NOT_WELL);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("nothing was stopped, and nothing was changed\nHINT: "), "{said}");
        assert_eq!(machine.ok(pids), before, "{expected}");
    };
    refuse("to = 15\n", "15 is not newer");
    refuse("to = 18\n", "PostgreSQL 18, the target, is not installed");
    refuse("keep_path = \"/matrix/postgres/data/old\"\n", "within itself");
    refuse("[clients]\nunits = [\"no-such.service\"]\n", "there is no unit no-such.service");
    machine.ok("install -d -m 0755 /var/tmp/open");
    refuse("dump_directory = \"/var/tmp/open\"\n", "is not a directory of matrix-postgres alone");
    machine.ok("mv /usr/share/postgresql/17/extension/pg_trgm.control /root/");
    refuse("", "extension pg_trgm of database \"mautrix-signal\"");
    machine.ok("mv /root/pg_trgm.control /usr/share/postgresql/17/extension/");
    machine.ok(
        "cp /usr/lib/systemd/system/matrix-postgres.service /etc/systemd/system/ && systemctl daemon-reload",
    );
    refuse("", "shadowed by /etc/systemd/system/matrix-postgres.service");
    machine.ok("rm /etc/systemd/system/matrix-postgres.service && systemctl daemon-reload");

    // Another run, and a backup, are told who is there.
    configure(&machine, "");
    pause_at(&machine, "transferring");
    let second = machine.run("matrix-postgres-upgrade run");
    assert!(second.status == LOCKED && second.stderr.contains("upgrade is under way"), "{second}");
    let server = machine.run("systemctl start matrix-postgres.service");
    assert_ne!(server.status, 0, "nobody starts the server on a cluster that is carried over: {server}");
    // Told to stop, it goes back.
    machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
    machine.wait_for("systemctl is-active matrix-synapse.service", Duration::from_secs(60));
}

#[test]
fn whatever_fails_after_the_stop_leads_back_with_the_reason() {
    let Some(machine) = machine::for_test("upgrade-fails") else { return };
    machine.ok("mount -t tmpfs -o size=3G matrix /matrix && mkdir /matrix/postgres");
    let (_, room) = prepare(&machine, 15);
    let back = |status: i32, expected: &str| {
        let said = refused(&machine, status);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
        is_well(&machine, "15", &room);
        machine.ok("journalctl --quiet --rotate && journalctl --quiet --vacuum-time=1s");
    };

    // A unique index whose rows are not.
    let index = "indexrelid = 's.portal_name_key'::regclass";
    sql(&machine, "mautrix-signal", &format!("UPDATE pg_index SET indisunique = false WHERE {index}"));
    sql(
        &machine,
        "mautrix-signal",
        "INSERT INTO s.portal (name, n) SELECT name, n FROM s.portal WHERE n = 5",
    );
    sql(&machine, "mautrix-signal", &format!("UPDATE pg_index SET indisunique = true WHERE {index}"));
    back_with_duplicate(&machine);
    sql(&machine, "mautrix-signal", "DELETE FROM s.portal WHERE id > 1000");

    // The disk fills up while the clients stop.
    client(
        &machine,
        "matrix-filler.service",
        "ExecStart=true\nExecStop=bash -c 'fallocate -l $(($(stat -f -c %%a*%%S /matrix) - 40000000)) /matrix/filler'\nExecStopPost=true",
    );
    let said = refused(&machine, NO_SPACE);
    assert!(said.contains("the file system of /matrix/postgres is full"), "{said}");
    machine.ok("rm -f /matrix/filler; systemctl stop matrix-filler.service; rm -f /matrix/filler /etc/systemd/system/matrix-filler.service; systemctl daemon-reload");
    is_well(&machine, "15", &room);

    // The new server does not come up.
    let dropin = "/etc/systemd/system/matrix-postgres.service.d/picky.conf";
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres.service.d");
    machine
        .write(dropin, "[Service]\nExecStartPre=grep -q 15 /matrix/postgres/data/PG_VERSION\nRestart=no\n");
    machine.ok("systemctl daemon-reload");
    back(UNIT_JOB, "matrix-postgres.service");
    machine.ok(&format!("rm {dropin} && systemctl daemon-reload"));

    // A client does not.
    client(&machine, "matrix-picky.service", "ExecStart=grep -q 15 /matrix/postgres/data/PG_VERSION");
    back(UNIT_JOB, "not started: matrix-picky.service");
    machine.ok("systemctl is-active matrix-picky.service");
}

/// The row that is there twice is named, and nothing has changed.
fn back_with_duplicate(machine: &Machine) {
    let said = refused(machine, DAMAGED);
    assert!(said.contains("could not create unique index \"portal_name_key\""), "{said}");
    assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
    assert_eq!(version(machine), "15");
    machine.ok("systemctl is-active matrix-synapse.service");
}

#[test]
fn the_old_data_directory_is_kept_on_any_file_system_and_never_over_another() {
    let Some(machine) = machine::for_test("upgrade-keep") else { return };
    let (_, room) = prepare(&machine, 15);
    machine.ok("mkdir /mnt/far && mount -t tmpfs -o size=2G far /mnt/far && mkdir /mnt/far/kept && touch /mnt/far/kept/mine");
    configure(&machine, "keep_path = \"/mnt/far/kept\"\n");
    machine.ok(&format!("{UPGRADE} || {{ journalctl -u matrix-postgres-upgrade >&2; false; }}"));
    is_well(&machine, "17", &room);
    assert_eq!(machine.ok("cat /mnt/far/kept-2/PG_VERSION && ls /mnt/far/kept"), "15\nmine");
    assert_eq!(machine.ok("stat -c '%U %a' /mnt/far/kept-2"), "matrix-postgres 700");
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains("kept: /mnt/far/kept-2, PostgreSQL 15"), "{status}");
    machine.ok("systemctl stop matrix-synapse.service");
    machine.ok("matrix-postgres-upgrade rollback --yes && systemctl start matrix-synapse.service");
    assert_eq!(version(&machine), "15");
    assert_eq!(said(&machine, &room), ["before the upgrade"]);
}
