//! Upgrades by method `online` in booted machines, of a real homeserver: nothing that was acknowledged is lost, what fails
//! leads back, and a rehearsal leaves nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::machine::upgrade::{
    NOT_WELL, UNIT_JOB, UPGRADE, client, comes_up, configure, cut_the_power, is_well, journal, pause_at,
    prepare, prepare_17, refused, sql, upgrade, version,
};
use crate::machine::{self, Machine};

const METHOD: &str = "online";

#[test]
fn from_15_all_goes_along_and_back() {
    let Some(machine) = machine::for_test("online15") else { return };
    let prepared = prepare(&machine, 15, METHOD);
    upgrade(&machine, prepared, 15, 17, "on");
}

#[test]
fn from_13_all_goes_along_and_back() {
    let Some(machine) = machine::for_test("online13") else { return };
    let prepared = prepare(&machine, 13, METHOD);
    upgrade(&machine, prepared, 13, 17, "on");
}

#[test]
fn from_17_to_18_all_goes_along_and_back() {
    let Some(machine) = machine::for_test_on_newer("online17") else { return };
    let prepared = prepare_17(&machine, METHOD);
    upgrade(&machine, prepared, 17, 18, "off");
    let said = journal(&machine);
    for expected in
        ["does not know the setting extension_destdir", "ssl_ecdh_curve becomes ssl_groups = secp384r1"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// Writes a row every 10 ms, and notes down each that the server has acknowledged.
const WRITER: &str = "
import psycopg2, time
def connect():
    while True:
        try:
            return psycopg2.connect('host=/run/matrix-postgres user=bridge dbname=mautrix-signal')
        except psycopg2.OperationalError:
            time.sleep(0.05)
acknowledged = open('/var/tmp/acknowledged', 'a', buffering=1)
connection = connect()
connection.autocommit = True
cursor = connection.cursor()
cursor.execute('CREATE TABLE IF NOT EXISTS public.written (n bigint PRIMARY KEY)')
cursor.execute('SELECT coalesce(max(n), 0) FROM public.written')
n = cursor.fetchone()[0]
while True:
    n += 1
    cursor.execute('INSERT INTO public.written VALUES (%s)', (n,))
    acknowledged.write(f'{n}\\n')
    time.sleep(0.01)
";

fn writer(machine: &Machine) {
    machine.write("/root/writer.py", WRITER);
    sql(machine, "mautrix-signal", "GRANT CREATE ON SCHEMA public TO bridge");
    machine.write(
        "/etc/systemd/system/mautrix-writer.service",
        "[Unit]\nAfter=matrix-postgres.service\n[Service]\nExecStart=/usr/bin/python3 /root/writer.py\nTimeoutStopSec=5\n",
    );
    machine.ok("systemctl daemon-reload && systemctl start mautrix-writer.service");
    machine.wait_for("test $(wc -l </var/tmp/acknowledged) -gt 20");
}

/// Every row that the writer was told of is there.
#[track_caller]
fn nothing_acknowledged_is_lost(machine: &Machine) -> usize {
    machine.ok("systemctl stop mautrix-writer.service");
    let acknowledged = machine.ok("cat /var/tmp/acknowledged");
    let acknowledged: BTreeSet<_> = acknowledged.lines().collect();
    let rows = sql(machine, "mautrix-signal", "SELECT n FROM written");
    let rows: BTreeSet<_> = rows.lines().collect();
    let lost: Vec<_> = acknowledged.difference(&rows).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    acknowledged.len()
}

#[test]
fn a_client_that_writes_all_the_time_finds_every_acknowledged_row() {
    let Some(machine) = machine::for_test("online-writer") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    writer(&machine);
    let before: usize = machine.ok("wc -l </var/tmp/acknowledged").trim().parse().unwrap();
    // 80 MB take four seconds then.
    configure(&machine, "method = \"online\"\nmax_rate = 20\n");
    let begun = Instant::now();
    machine.ok(&UPGRADE.replace("start", "start --no-block"));
    machine.wait_for("ls /matrix/postgres/data.upgrade-*-copy/global");
    sql(&machine, "postgres", "ALTER SYSTEM SET work_mem = '9MB'");
    // A tablespace would be the server's and the copy's.
    let made = machine.run(
        "PGOPTIONS='-c lock_timeout=100ms' psql -h /run/matrix-postgres -U postgres -c \"CREATE TABLESPACE t LOCATION '/var/tmp'\"",
    );
    assert!(made.stderr.contains("lock timeout"), "{made}");
    machine.wait_for(
        "test $(systemctl show --value --property=ActiveState matrix-postgres-upgrade.service) != activating",
    );
    assert_eq!(version(&machine), "17", "{}", journal(&machine));
    assert!(begun.elapsed() > Duration::from_secs(3), "the copy obeys the rate");
    assert_eq!(sql(&machine, "postgres", "SHOW work_mem"), "9MB", "it was set while the copy was made");
    let compared = journal(&machine);
    assert!(compared.contains("compared, and equal: 1"), "more than a hundred tables: {compared}");
    let at_the_end: usize = machine.ok("wc -l </var/tmp/acknowledged").trim().parse().unwrap();
    assert!(at_the_end > before + 50, "it wrote while the copy was made");
    // It runs again, and writes to the new cluster.
    machine.wait_for(&format!("test $(wc -l </var/tmp/acknowledged) -gt {at_the_end}"));
    nothing_acknowledged_is_lost(&machine);
    is_well(&machine, "17", &room);
    eprintln!("{}", machine.ok("matrix-postgres-upgrade status"));
    // The planner knows the tables.
    let known = "SELECT count(*) > 100 FROM pg_stats WHERE schemaname = 'public'";
    assert_eq!(sql(&machine, "homeserver", known), "t");
}

const STEPS: [&str; 14] = [
    "preparing",
    "copying",
    "following",
    "stopping-clients",
    "stopping-server",
    "promoting",
    "upgrading",
    "comparing",
    "syncing",
    "exchanging",
    "starting-server",
    "starting-clients",
    "tending",
    "keeping",
];

#[test]
fn killed_at_any_step_the_homeserver_comes_up_by_itself() {
    let Some(machine) = machine::for_test("online-killed") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    writer(&machine);
    let most = ["following", "stopping-server", "upgrading", "exchanging", "starting-clients"];
    for step in machine::kills_among(&STEPS, &most) {
        eprintln!("killed: {step}");
        machine.ok("systemctl start mautrix-writer.service");
        pause_at(&machine, step);
        machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
        // Before it goes back for the next step.
        machine.wait_for("! systemctl is-active matrix-postgres-upgrade.service && systemctl is-active mautrix-writer.service");
        nothing_acknowledged_is_lost(&machine);
        comes_up(&machine, step, &room);
        machine.ok("rm /var/tmp/acknowledged && touch /var/tmp/acknowledged");
    }
}

#[test]
fn after_a_power_cut_at_any_step_the_homeserver_comes_up_by_itself() {
    let Some(machine) = machine::for_test_with_disk("online-power") else { return };
    let most = ["upgrading", "exchanging", "starting-server"];
    cut_the_power(&machine, METHOD, &machine::kills_among(&STEPS, &most));
}

const PIDS: &str = "systemctl show --value --property=MainPID matrix-postgres.service matrix-synapse.service";

#[test]
fn where_no_copy_can_follow_the_check_says_why_and_what_to_do() {
    let Some(machine) = machine::for_test("online-choice") else { return };
    prepare(&machine, 15, "auto");
    let says = |expected: &str| {
        let said = machine.ok("matrix-postgres-upgrade check");
        assert!(said.contains(expected), "{expected}: {said}");
        said
    };
    says("fact     method online");
    says("not rehearsed: the downtime is unknown");
    let said = says("connected: synapse@homeserver (unnamed), ");
    assert!(said.contains(", from matrix-synapse.service"), "{said}");

    sql(
        &machine,
        "mautrix-signal",
        "CREATE UNLOGGED TABLE cache AS SELECT repeat('x', 100) FROM generate_series(1, 600000)",
    );
    let before = machine.ok(PIDS);
    says(
        "warning  method dump, whose downtime grows with the size, because method online is not possible: unlogged tables of database \"mautrix-signal\" have",
    );
    configure(&machine, "method = \"online\"\n");
    let said = refused(&machine, NOT_WELL);
    assert!(said.contains("method online is not possible: unlogged tables of database"), "{said}");
    assert!(said.contains("nothing was stopped, and nothing was changed\nHINT: ALTER TABLE"), "{said}");
    assert_eq!(machine.ok(PIDS), before);
    sql(&machine, "mautrix-signal", "DROP TABLE cache");

    configure(&machine, "");
    machine.ok("sed -i 's/^local *replication/# &/' /matrix/postgres/data/pg_hba.conf && systemctl reload matrix-postgres.service");
    let said = says("the server refuses a replication connection");
    assert!(said.contains("HINT: add a line for the database \"replication\" to pg_hba.conf"), "{said}");
    machine.ok("sed -i 's/^# local/local/' /matrix/postgres/data/pg_hba.conf && systemctl reload matrix-postgres.service");
    machine.wait_for("matrix-postgres-upgrade check | grep -c 'method online:'");

    for setting in ["max_wal_senders = 0", "wal_level = minimal"] {
        sql(&machine, "postgres", &format!("ALTER SYSTEM SET {setting}"));
    }
    machine.ok("systemctl restart matrix-postgres.service");
    let said = says("wal_level is minimal");
    assert!(said.contains("HINT: ALTER SYSTEM SET wal_level = replica"), "{said}");
    // The other method takes it.
    let plan = machine.ok("matrix-postgres-upgrade run --dry-run");
    assert!(plan.contains("method dump") && plan.contains("by way of"), "{plan}");
    let refused = machine.run("matrix-postgres-upgrade rehearse");
    assert!(refused.status == NOT_WELL && refused.stderr.contains("wal_level is minimal"), "{refused}");
}

#[test]
fn an_upgrade_takes_the_steps_of_its_rehearsal() {
    let Some(machine) = machine::for_test("online-steps") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    let steps = |of: &str| {
        let status: serde_json::Value =
            serde_json::from_str(&machine.ok("matrix-postgres-upgrade status --json")).unwrap();
        let step = |duration: &serde_json::Value| duration[0].as_str().unwrap().to_owned();
        status[of]["durations"].as_array().unwrap().iter().map(step).collect::<Vec<_>>()
    };
    machine.ok("matrix-postgres-upgrade rehearse");
    machine.ok("matrix-postgres-upgrade run");
    let mut taken = steps("latest");
    taken.truncate(taken.iter().position(|step| step == "exchanging").unwrap());
    // Which is all that a rehearsal does without.
    taken.retain(|step| !step.starts_with("stopping-"));
    assert_eq!(steps("rehearsal"), taken);
    is_well(&machine, "17", &room);
}

#[test]
fn a_rehearsal_says_how_long_users_will_wait_and_leaves_nothing() {
    let Some(machine) = machine::for_test("online-rehearsal") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    let before = machine.ok(PIDS);
    let plan = machine.ok("matrix-postgres-upgrade rehearse --dry-run");
    assert!(plan.contains("nothing is stopped"), "{plan}");
    for method in ["online", "dump"] {
        let rehearsed = machine.run(&format!("matrix-postgres-upgrade rehearse --method {method}"));
        assert_eq!(rehearsed.status, 0, "{rehearsed}");
        let expected = format!("by method {method}, at ");
        // Of an upgrade by this method; it says nothing of the other one's.
        for verb in [&format!("check --method {method}"), "status"] {
            let said = machine.ok(&format!("matrix-postgres-upgrade {verb}"));
            let line = said.lines().find(|line| line.contains(&expected)).unwrap_or_default();
            assert!(line.contains(": succeeded; downtime "), "{said}");
        }
        assert_eq!(machine.ok(PIDS), before);
        is_well(&machine, "15", &room);
    }

    // Killed, it is cleared away by itself.
    machine.ok(
        "systemd-run --quiet --unit=rehearsal --property=KillMode=process matrix-postgres-upgrade rehearse",
    );
    machine.wait_for("test -e /run/matrix-postgres-upgrade/copy/.s.PGSQL.5432");
    machine.ok("systemctl kill --kill-whom=main --signal=KILL rehearsal.service");
    machine.wait_for("! ls -d /matrix/postgres/*.rehearsal-* && ! pgrep -f [d]ata.rehearsal");

    // What would fail is known beforehand: an index that is broken.
    let file = sql(&machine, "mautrix-signal", "CHECKPOINT; SELECT pg_relation_filepath('s.portal_pkey')");
    machine.ok("systemctl stop matrix-synapse.service matrix-postgres.service");
    machine.ok("/usr/lib/postgresql/15/bin/pg_checksums --disable /matrix/postgres/data >&2 || runuser -u matrix-postgres -- /usr/lib/postgresql/15/bin/pg_checksums --disable /matrix/postgres/data");
    machine.ok(&format!(
        "printf 'nonsense' | dd of=/matrix/postgres/data/{file} bs=1 seek=16300 conv=notrunc status=none"
    ));
    machine.ok("systemctl start matrix-postgres.service matrix-synapse.service");
    let rehearsed = machine.run("matrix-postgres-upgrade rehearse");
    assert_ne!(rehearsed.status, 0, "{rehearsed}");
    assert!(rehearsed.stderr.contains("the homeserver was not affected"), "{rehearsed}");
    let said = machine.ok("matrix-postgres-upgrade check");
    assert!(said.contains(": failed: "), "{said}");
    eprintln!("{said}");
}

#[test]
fn whatever_fails_after_the_stop_leads_back_with_the_reason() {
    let Some(machine) = machine::for_test("online-fails") else { return };
    machine.ok("mount -t tmpfs -o size=4G matrix /matrix && mkdir /matrix/postgres");
    let (_, room) = prepare(&machine, 15, METHOD);
    let back = |status: i32, expected: &str| {
        let said = refused(&machine, status);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
        is_well(&machine, "15", &room);
        machine.ok("journalctl --quiet --rotate && journalctl --quiet --vacuum-time=1s");
    };

    // The copy is lost while the clients stop.
    client(
        &machine,
        "matrix-killer.service",
        "ExecStart=true\nExecStop=-bash -c 'kill -9 $(head -n 1 /matrix/postgres/data.upgrade-*-copy/postmaster.pid)'",
    );
    back(32, "psql");
    machine.ok("systemctl stop matrix-killer.service; rm /etc/systemd/system/matrix-killer.service; systemctl daemon-reload");

    // The old server is not stopped cleanly: what it has not sent, nobody has.
    let dropin = "/etc/systemd/system/matrix-postgres.service.d/test.conf";
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres.service.d");
    machine.write(dropin, "[Service]\nExecStop=\nExecStop=-/bin/kill -9 $MAINPID\nRestart=no\n");
    machine.ok("systemctl daemon-reload");
    back(31, "was not shut down cleanly");
    machine.ok(&format!("rm {dropin} && systemctl daemon-reload"));

    // pg_upgrade fails half-way.
    machine.ok("mv /usr/lib/postgresql/17/bin/pg_upgrade /usr/lib/postgresql/17/bin/pg_upgrade.real");
    machine.write(
        "/usr/lib/postgresql/17/bin/pg_upgrade",
        "#!/bin/sh\ncase \"$*\" in *--check*) exec /usr/lib/postgresql/17/bin/pg_upgrade.real \"$@\";; esac\n\
         timeout --signal=KILL 2 /usr/lib/postgresql/17/bin/pg_upgrade.real \"$@\"\n",
    );
    machine.ok("chmod 755 /usr/lib/postgresql/17/bin/pg_upgrade");
    back(33, "pg_upgrade failed");
    machine.ok("mv /usr/lib/postgresql/17/bin/pg_upgrade.real /usr/lib/postgresql/17/bin/pg_upgrade");

    // The new server does not come up.
    machine
        .write(dropin, "[Service]\nExecStartPre=grep -q 15 /matrix/postgres/data/PG_VERSION\nRestart=no\n");
    machine.ok("systemctl daemon-reload");
    back(UNIT_JOB, "matrix-postgres.service");
    machine.ok(&format!("rm {dropin} && systemctl daemon-reload"));

    // Somebody whom nobody stops locks what is read while the clients wait.
    machine.write(
        "/root/lock.sh",
        "(echo 'BEGIN; LOCK TABLE s.volatile;'; sleep infinity) | psql -h /run/matrix-postgres -U postgres mautrix-signal\n",
    );
    client(
        &machine,
        "matrix-locker.service",
        "ExecStart=true\nExecStop=systemd-run --quiet --unit=locker bash /root/lock.sh\nExecStop=sleep 2",
    );
    // The crash above has emptied them.
    sql(
        &machine,
        "mautrix-signal",
        "TRUNCATE s.volatile RESTART IDENTITY; INSERT INTO s.volatile (name) SELECT 'row ' || n FROM generate_series(1, 10) n",
    );
    // The files of unlogged tables are taken when the server is down: nobody has to be waited for.
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    assert_eq!(sql(&machine, "mautrix-signal", "SELECT count(*), max(id) FROM s.volatile"), "10|10");
    is_well(&machine, "17", &room);
    machine.ok("matrix-postgres-upgrade rollback --yes && rm -r /matrix/postgres/data.upgrade-*");
    is_well(&machine, "15", &room);
    machine.ok("rm /etc/systemd/system/matrix-locker.service; systemctl stop locker.service matrix-locker.service; systemctl daemon-reload");
    machine.ok("systemctl reset-failed; systemctl stop locker.service || true");

    // The disk fills while the copy is made: the server needs what is left.
    configure(&machine, "method = \"online\"\nmax_rate = 5\n");
    machine.ok("systemctl start --no-block matrix-postgres-upgrade.service");
    machine.wait_for("pgrep -f '[p]g_basebackup'");
    machine.ok("fallocate -l $(($(df --output=avail -B1 /matrix | tail -n 1) - 300000000)) /matrix/full");
    machine.wait_for("systemctl is-failed matrix-postgres-upgrade.service");
    let said = journal(&machine);
    assert!(
        said.contains("are free on the file system of") && said.contains("nothing was stopped"),
        "{said}"
    );
    machine.ok("rm /matrix/full");
    configure(&machine, "method = \"online\"\n");
    is_well(&machine, "15", &room);

    // pg_upgrade would not take it: nothing is stopped.
    let before = machine.ok(PIDS);
    sql(&machine, "mautrix-signal", "CREATE TABLE refused (t pg_catalog.regproc)");
    let said = refused(&machine, NOT_WELL);
    assert!(said.contains("pg_upgrade --check failed") && said.contains("--method dump"), "{said}");
    assert_eq!(machine.ok(PIDS), before);
}

/// Users need the server, and not the end of its unit's start.
#[test]
fn users_are_let_in_before_the_last_command_of_the_servers_unit_has_ended() {
    let Some(machine) = machine::for_test("online-let-in") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres.service.d");
    let dropin = "/etc/systemd/system/matrix-postgres.service.d/test.conf";
    let waits = "/bin/sh -c 'grep -q 15 /matrix/postgres/data/PG_VERSION || until test -e /run/go; do sleep 0.1; done'";
    machine.write(dropin, &format!("[Service]\nExecStartPost=-{waits}\n"));
    machine.ok("systemctl daemon-reload");
    machine.ok(&UPGRADE.replace("start", "start --no-block"));
    machine.wait_for("systemctl show --property=SubState matrix-postgres.service | grep -c start-post");
    let who = "psql -XAtq -h /run/matrix-postgres -U bridge mautrix-signal -c 'SHOW server_version_num'";
    machine.wait_for(&format!("{who} | grep ^17"));
    let status = machine.ok("systemctl is-active matrix-postgres.service || true");
    assert_eq!(status, "activating");
    machine.ok("touch /run/go");
    machine.wait_for("matrix-postgres-upgrade status | grep kept:");
    is_well(&machine, "17", &room);
    machine.ok(&format!("rm {dropin} && systemctl daemon-reload"));
}

#[test]
fn what_is_left_to_do_afterwards_is_done_as_far_as_it_goes() {
    let Some(machine) = machine::for_test("online-tending") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    sql(
        &machine,
        "mautrix-signal",
        "CREATE TABLE names (name text COLLATE \"de-x-icu\"); CREATE INDEX german ON names (name)",
    );
    // Its transaction is one that building an index beside has to wait for.
    client(
        &machine,
        "matrix-busy.service",
        "ExecStart=systemd-run --collect --unit=busy matrix-postgres-cli -d mautrix-signal -1 \
         -c \"INSERT INTO names VALUES ('x')\" -c 'SELECT pg_sleep(10000)'\nExecStop=-systemctl stop busy.service",
    );
    sql(&machine, "mautrix-signal", "UPDATE pg_collation SET collversion = '1' WHERE collname = 'de-x-icu'");
    // 17 has newer versions of both; that of the first is not possible while a view of the user's needs the old one.
    sql(
        &machine,
        "mautrix-signal",
        "CREATE EXTENSION pg_stat_statements; CREATE VIEW s.slow AS SELECT * FROM pg_stat_statements; CREATE EXTENSION amcheck",
    );
    // Cut off while it builds, it goes on by itself, and leaves nothing behind that is kept up to date for nobody.
    machine.ok("systemctl start --no-block matrix-postgres-upgrade.service");
    let building = "matrix-postgres-cli -d mautrix-signal -c '\\d names' | grep 'german_ccnew.*INVALID'";
    machine.wait_for(building);
    machine.ok("systemctl kill --signal=KILL --kill-whom=main matrix-postgres-upgrade.service");
    machine.wait_for(
        "journalctl -u matrix-postgres-upgrade | grep 'dropping the unfinished index public.german_ccnew'",
    );
    let end =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    sql(&machine, "postgres", end);
    machine.wait_for("matrix-postgres-upgrade status | grep kept:");
    let said = journal(&machine);
    assert!(
        said.contains("extension pg_stat_statements of database 'mautrix-signal' was not updated"),
        "{said}"
    );
    assert!(said.contains("ALTER EXTENSION \"pg_stat_statements\" UPDATE"), "{said}");
    assert!(said.contains("nothing was reverted"), "{said}");
    is_well(&machine, "17", &room);
    let newer = "SELECT extname FROM pg_extension JOIN pg_available_extensions ON name = extname \
        WHERE extversion <> default_version";
    assert_eq!(sql(&machine, "mautrix-signal", newer), "pg_stat_statements");
    let broken = "SELECT c.relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid";
    assert_eq!(sql(&machine, "mautrix-signal", broken), "");
}

#[test]
fn indexes_of_a_collation_that_has_changed_are_built_anew() {
    let Some(machine) = machine::for_test("online-collations") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    sql(
        &machine,
        "mautrix-signal",
        "CREATE TABLE names (name text COLLATE \"de-x-icu\", other text COLLATE \"C\"); \
         CREATE INDEX german ON names (name); CREATE INDEX plain ON names (other); INSERT INTO names VALUES ('ä', 'ä')",
    );
    sql(&machine, "mautrix-signal", "UPDATE pg_collation SET collversion = '1' WHERE collname = 'de-x-icu'");
    let said = machine.ok("matrix-postgres-upgrade check");
    assert!(said.contains("1 indexes depend on a collation"), "{said}");
    machine.ok(&format!("{UPGRADE} || {{ journalctl -u matrix-postgres-upgrade >&2; false; }}"));
    let said = journal(&machine);
    assert!(said.contains("rebuilding index public.german") && !said.contains("public.plain"), "{said}");
    is_well(&machine, "17", &room);
    assert_eq!(version(&machine), "17");
    let stale = "SELECT count(*) FROM pg_collation WHERE collversion IS DISTINCT FROM pg_collation_actual_version(oid) AND collversion <> ''";
    assert_eq!(sql(&machine, "mautrix-signal", stale), "0");
}

/// What an administrator may have set for days when this server is a standby, and for others than us.
const ODD_CONFIGURATION: &str = "
archive_cleanup_command = 'touch /var/tmp/touched-%r'
recovery_end_command = 'touch /var/tmp/touched-%r'
recovery_target_time = '2030-01-01 00:00:00'
restore_command = 'false'
promote_trigger_file = '/etc/passwd'
wal_receiver_status_interval = 0
statement_timeout = '3s'
";

/// What a cluster may hold that the upgrade, or the other version, has in another way.
const ODDITIES: &str = "
    DROP SCHEMA public CASCADE; CREATE SCHEMA public; COMMENT ON SCHEMA public IS 'made anew';
    DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql;
    CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER t AFTER INSERT ON parts FOR EACH ROW EXECUTE FUNCTION f();
    INSERT INTO parts VALUES (1);";

const NO_CHANGES: &str = "
    CREATE FUNCTION s.refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$not here$$; END';
    CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION s.refuse();";

#[test]
fn whatever_a_cluster_holds_and_is_set_to_it_goes_along() {
    let Some(machine) = machine::for_test("online-odd") else { return };
    let (_, room) = prepare(&machine, 13, METHOD);
    machine.ok(&format!(
        "cat >>/matrix/postgres/data/postgresql.conf <<'EOF'{ODD_CONFIGURATION}EOF\nsystemctl restart matrix-postgres.service"
    ));
    sql(&machine, "postgres", r#"CREATE DATABASE "it's a=b ""x"" ü""#);
    sql(&machine, "postgres", "CREATE DATABASE odd");
    sql(&machine, "odd", ODDITIES);
    sql(&machine, "mautrix-signal", NO_CHANGES);
    // Which waits for a restart, while the server has more.
    sql(&machine, "postgres", "ALTER SYSTEM SET max_connections = 60");
    sql(&machine, "postgres", "ALTER DATABASE \"mautrix-signal\" SET default_transaction_read_only = on");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    is_well(&machine, "17", &room);
    assert_eq!(sql(&machine, "mautrix-signal", "SELECT count(*), max(id) FROM s.volatile"), "10|10");
    assert_eq!(machine.ok("ls /var/tmp | grep touched || true"), "");
    // What stands in the way of every upgrade is known before anything is stopped.
    machine.ok("matrix-postgres-upgrade rollback --yes");
    sql(&machine, "postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'odd'");
    sql(&machine, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'far'");
    machine.ok("systemctl reload matrix-postgres.service");
    machine.wait_for(
        "{ matrix-postgres-upgrade check || true; } | grep -c '^BLOCKER  synchronous_standby_names is'",
    );
    let said = machine.run("matrix-postgres-upgrade check").stdout;
    assert!(said.contains("is invalid: a DROP DATABASE was interrupted"), "{said}");
}

#[test]
fn a_rehearsal_that_is_cut_off_leaves_nothing() {
    let Some(machine) = machine::for_test("online-cut-off") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    let processes = "pgrep -af '[r]ehearsal|[p]g_(basebackup|upgrade|dump|restore)|[5]0433' || true";
    let slots = "SELECT count(*) FROM pg_replication_slots";
    for (configuration, pattern, signal) in [
        ("max_rate = 2", "[p]g_basebackup.*--pgdata", "TERM"),
        ("max_rate = 2", "[p]g_basebackup.*--pgdata", "KILL"),
        ("", "[b]in/postgres.*50433.*-b", "TERM"),
        ("", "[p]g_upgrade.*--link", "TERM"),
    ] {
        eprintln!("{signal} at {pattern}");
        configure(&machine, &format!("method = \"online\"\n{configuration}\n"));
        machine.ok("matrix-postgres-upgrade rehearse >/var/tmp/log 2>&1 & echo $! >/var/tmp/pid");
        machine.wait_for(&format!("pgrep -f '{pattern}'"));
        machine.ok(&format!("kill -{signal} $(cat /var/tmp/pid)"));
        machine.wait_for("! kill -0 $(cat /var/tmp/pid)");
        machine.wait_for("! ls -d /matrix/postgres/data?* && ! pgrep -f '[m]atrix-postgres-upgrade recover'");
        // The server learns from its next message that nobody is there any more.
        machine.wait_for(&format!("test -z \"$({processes})\""));
        assert_eq!(machine.ok("ls -A /run/matrix-postgres"), ".s.PGSQL.5432\n.s.PGSQL.5432.lock");
        assert_eq!(sql(&machine, "postgres", slots), "0");
        is_well(&machine, "15", &room);
    }
}

#[test]
fn who_is_told_to_stop_goes_back_first_by_hand_as_well() {
    let Some(machine) = machine::for_test("online-told") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    client(&machine, "matrix-slow.service", "ExecStart=true\nExecStop=sleep 5");
    machine.ok("matrix-postgres-upgrade run >/var/tmp/log 2>&1 & echo $! >/var/tmp/pid");
    machine.wait_for("systemctl show --property=ActiveState matrix-slow.service | grep -c deactivating");
    machine.ok("kill -TERM $(cat /var/tmp/pid)");
    machine.wait_for("! kill -0 $(cat /var/tmp/pid)");
    let said = machine.ok("cat /var/tmp/log");
    assert!(said.contains("runs on PostgreSQL 15 again, as before"), "{said}");
    machine.ok("systemctl is-active matrix-slow.service");
    is_well(&machine, "15", &room);
}
