//! Until there is no way back, nobody else's row is in a cluster that is taken away again; and the way back says before
//! anything is stopped whether it can be gone, and what would be missed.

#[path = "machine/mod.rs"]
mod machine;

use std::collections::BTreeSet;
use std::time::Duration;

use machine::Machine;
use machine::upgrade::{
    NOT_WELL, UNIT_JOB, UPGRADE, client, configure, is_well, journal, prepare, refused, sql, version,
};

/// Belongs to no unit that is stopped, comes back at once, and notes down each row that the server has acknowledged.
const STRANGER: &str = "
import psycopg2
n = 0
with open('/var/tmp/acknowledged', 'a', buffering=1) as acknowledged:
    while True:
        try:
            connection = psycopg2.connect('host=/run/matrix-postgres user=bridge dbname=mautrix-signal')
            connection.autocommit = True
            cursor = connection.cursor()
            while True:
                n += 1
                for table in ('written', 'cache'):
                    cursor.execute(f'INSERT INTO public.{table} VALUES (%s)', (n,))
                    acknowledged.write(f'{table} {n}\\n')
        except psycopg2.Error:
            pass
";

fn stranger(machine: &Machine) {
    sql(
        machine,
        "mautrix-signal",
        "CREATE TABLE public.written (n bigint PRIMARY KEY); \
         CREATE UNLOGGED TABLE public.cache (n bigint PRIMARY KEY, at point DEFAULT '(1, 1)'); \
         CREATE INDEX places ON public.cache USING gist (at); GRANT ALL ON public.written, public.cache TO bridge",
    );
    machine.write("/root/stranger.py", STRANGER);
    comes(machine);
}

fn comes(machine: &Machine) {
    machine.ok("rm -f /var/tmp/acknowledged; systemd-run --quiet --unit=stranger python3 /root/stranger.py");
    machine.wait_for("test $(wc -l </var/tmp/acknowledged) -gt 100", Duration::from_secs(30));
}

/// Everything that the stranger was told of is there; it has gone afterwards, and so have its rows.
#[track_caller]
fn nothing_acknowledged_is_lost(machine: &Machine) {
    machine.ok("systemctl stop stranger.service");
    let acknowledged = machine.ok("cat /var/tmp/acknowledged");
    for table in ["written", "cache"] {
        let told: BTreeSet<_> =
            acknowledged.lines().filter_map(|line| line.strip_prefix(table).map(str::trim)).collect();
        let rows = sql(machine, "mautrix-signal", &format!("SELECT n FROM public.{table}"));
        let rows: BTreeSet<_> = rows.lines().collect();
        let lost: Vec<_> = told.difference(&rows).collect();
        assert!(lost.is_empty(), "{table}: {} of {} are lost: {lost:?}", lost.len(), told.len());
    }
    let places = "SET enable_seqscan = off; SELECT count(*) = (SELECT max(n) FROM public.written) FROM public.cache WHERE at <@ box '((0,0),(2,2))'";
    eprintln!(
        "{} rows were acknowledged; by the index: {}",
        acknowledged.lines().count(),
        sql(machine, "mautrix-signal", places)
    );
    sql(machine, "mautrix-signal", "TRUNCATE public.written, public.cache");
}

const DROPIN: &str = "/etc/systemd/system/matrix-postgres.service.d/test.conf";

/// What the server's unit does once its server is up, on the new version only.
fn once_up(machine: &Machine, command: &str) {
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres.service.d");
    let post = format!("/bin/sh -c 'grep -q 15 /matrix/postgres/data/PG_VERSION || {{ {command}; }}'");
    machine.write(DROPIN, &format!("[Service]\nExecStartPost={post}\nRestart=no\n"));
    machine.ok("systemctl daemon-reload");
}

#[test]
fn whoever_comes_back_at_once_is_let_in_when_there_is_no_way_back() {
    let Some(machine) = machine::for_test("no-return") else { return };
    let (_, room) = prepare(&machine, 15, "online");
    stranger(&machine);
    let rules = "cd /matrix/postgres/data && sha256sum pg_hba.conf pg_ident.conf && ls -A | grep -v '^PG_VERSION$' | grep pg_";
    let before = machine.ok(rules);

    // Told to stop while the new server is up.
    once_up(&machine, "sleep 4");
    machine.ok(&UPGRADE.replace("start", "start --no-block"));
    machine.wait_for(
        "systemctl show --property=SubState matrix-postgres.service | grep -q start-post",
        Duration::from_secs(120),
    );
    machine.ok("systemctl stop matrix-postgres-upgrade.service");
    let said = journal(&machine);
    assert!(said.contains("runs on PostgreSQL 15 again, as before; nothing was lost"), "{said}");
    nothing_acknowledged_is_lost(&machine);
    is_well(&machine, "15", &room);

    // It does not stay up.
    comes(&machine);
    once_up(&machine, "sleep 2; false");
    let said = refused(&machine, UNIT_JOB);
    assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
    nothing_acknowledged_is_lost(&machine);
    is_well(&machine, "15", &room);
    assert_eq!(machine.ok(rules), before);

    // It does, and everybody comes in by the same rules as before.
    machine.ok(&format!("rm {DROPIN} && systemctl daemon-reload"));
    comes(&machine);
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    let told = machine.ok("wc -l </var/tmp/acknowledged");
    machine.wait_for(
        &format!("test $(wc -l </var/tmp/acknowledged) -gt $(({} + 50))", told.trim()),
        Duration::from_secs(30),
    );
    nothing_acknowledged_is_lost(&machine);
    is_well(&machine, "17", &room);
    assert_eq!(machine.ok(rules), before);
}

#[test]
fn a_transaction_that_is_prepared_while_the_clients_stop_leads_back() {
    let Some(machine) = machine::for_test("no-return-prepared") else { return };
    let (_, room) = prepare(&machine, 15, "dump");
    sql(&machine, "mautrix-signal", "CREATE TABLE late (method text)");
    sql(&machine, "postgres", "ALTER SYSTEM SET max_prepared_transactions = 5");
    machine.ok("systemctl restart matrix-postgres.service matrix-synapse.service");
    for method in ["dump", "online"] {
        configure(&machine, &format!("method = \"{method}\"\n"));
        machine.write(
            "/root/late.sh",
            &format!(
                "matrix-postgres-cli -d mautrix-signal -c BEGIN -c \"INSERT INTO late VALUES ('{method}')\" -c \"PREPARE TRANSACTION 'late'\"\n"
            ),
        );
        client(&machine, "matrix-late.service", "ExecStart=true\nExecStop=bash /root/late.sh");
        let said = refused(&machine, NOT_WELL);
        assert!(said.contains("prepared transactions are not ended: 'late' of database"), "{said}");
        assert!(said.contains("runs on PostgreSQL 15 again, as before; nothing was lost"), "{said}");
        sql(&machine, "mautrix-signal", "COMMIT PREPARED 'late'");
        is_well(&machine, "15", &room);
        machine.ok("rm /etc/systemd/system/matrix-late.service /root/late.sh && touch /root/late.sh; systemctl stop matrix-late.service; systemctl daemon-reload; journalctl --quiet --rotate && journalctl --quiet --vacuum-time=1s");
    }
    assert_eq!(sql(&machine, "mautrix-signal", "SELECT method FROM late ORDER BY 1"), "dump\nonline");
    assert_eq!(version(&machine), "15");
}
