//! Until there is no way back, nobody else's row is in a cluster that is taken away again; and the way back says before
//! anything is stopped whether it can be gone, and what would be missed.

use std::collections::BTreeSet;

use crate::machine::upgrade::{
    NOT_WELL, UNIT_JOB, UPGRADE, client, configure, is_well, journal, prepare, refused, sql, version,
};
use crate::machine::{self, Machine, Synapse};

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
    machine.wait_for("test $(wc -l </var/tmp/acknowledged) -gt 100");
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
    let by_index =
        "SET enable_seqscan = off; SELECT count(*) FROM public.cache WHERE at <@ box '((0,0),(2,2))'";
    let by_index = sql(machine, "mautrix-signal", by_index);
    assert_eq!(sql(machine, "mautrix-signal", "SELECT count(*) FROM public.cache"), by_index);
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

/// Nothing keeps the new server down any more: the stranger comes in as before, and has lost nothing.
#[track_caller]
fn upgraded_it_is_open_to_all(machine: &Machine) {
    machine.ok(&format!("rm {DROPIN} && systemctl daemon-reload"));
    comes(machine);
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(machine));
    let told = machine.ok("wc -l </var/tmp/acknowledged");
    machine.wait_for(&format!("test $(wc -l </var/tmp/acknowledged) -gt $(({} + 50))", told.trim()));
    nothing_acknowledged_is_lost(machine);
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
    machine.wait_for("systemctl show --property=SubState matrix-postgres.service | grep -c start-post");
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
    upgraded_it_is_open_to_all(&machine);
    is_well(&machine, "17", &room);
    assert_eq!(machine.ok(rules), before);
}

#[test]
#[ignore = "make thorough"]
fn rules_outside_of_the_data_directory_let_nobody_in_either_until_there_is_no_way_back() {
    let Some(machine) = machine::for_test("no-return-rules") else { return };
    let (_, room) = prepare(&machine, 15, "online");
    // As Debian's clusters have them, and one that is a link in the data directory.
    machine.ok("install -d /etc/matrix-rules && mv /matrix/postgres/data/pg_hba.conf /matrix/postgres/data/pg_ident.conf /etc/matrix-rules/
        chmod 755 /etc/matrix-rules && ln -s /etc/matrix-rules/pg_ident.conf /matrix/postgres/data/
        echo \"hba_file = '/etc/matrix-rules/pg_hba.conf'\" >>/matrix/postgres/data/postgresql.conf
        systemctl restart matrix-postgres.service matrix-synapse.service");
    stranger(&machine);
    let settings = "cat /matrix/postgres/data/postgresql.auto.conf; cat /etc/matrix-rules/*; matrix-postgres-cli -At -c 'SHOW hba_file' -c 'SHOW ident_file'";
    let before = machine.ok(settings);

    once_up(&machine, "sleep 2; false");
    let said = refused(&machine, UNIT_JOB);
    assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
    nothing_acknowledged_is_lost(&machine);
    is_well(&machine, "15", &room);
    assert_eq!(machine.ok(settings), before);

    upgraded_it_is_open_to_all(&machine);
    // What the administrator changes counts at once, and after the next start the server reads it by itself.
    comes(&machine);
    machine.ok("sed -i '1i local all bridge reject' /etc/matrix-rules/pg_hba.conf && systemctl reload matrix-postgres.service");
    let refused = "PGOPTIONS= setpriv --reuid=nobody --clear-groups psql -h /run/matrix-postgres -U bridge mautrix-signal -c ''";
    machine.wait_for(&format!("! {refused}"));
    machine.ok("sed -i 1d /etc/matrix-rules/pg_hba.conf && systemctl restart matrix-postgres.service matrix-synapse.service");
    assert_eq!(machine.ok(settings), before);
    nothing_acknowledged_is_lost(&machine);
    is_well(&machine, "17", &room);
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
        assert!(said.contains("prepared transactions exist: 'late' of database"), "{said}");
        assert!(said.contains("runs on PostgreSQL 15 again, as before; nothing was lost"), "{said}");
        sql(&machine, "mautrix-signal", "COMMIT PREPARED 'late'");
        is_well(&machine, "15", &room);
        machine.ok("rm /etc/systemd/system/matrix-late.service /root/late.sh && touch /root/late.sh; systemctl stop matrix-late.service; systemctl daemon-reload; journalctl --quiet --rotate && journalctl --quiet --vacuum-time=1s");
    }
    assert_eq!(sql(&machine, "mautrix-signal", "SELECT method FROM late ORDER BY 1"), "dump\nonline");
    assert_eq!(version(&machine), "15");
}

const PIDS: &str = "systemctl show --value --property=MainPID matrix-postgres.service matrix-synapse.service";

#[test]
fn a_way_back_that_cannot_be_gone_stops_nothing_and_one_that_can_says_what_would_be_missed() {
    let Some(machine) = machine::for_test("no-return-back") else { return };
    machine.ok("mount -t tmpfs -o size=3G matrix /matrix && mkdir /matrix/postgres");
    machine.ok("mkdir /mnt/far && mount -t tmpfs -o size=2G far /mnt/far");
    let (user, room) = prepare(&machine, 15, "online");
    configure(&machine, "method = \"online\"\nkeep_path = \"/mnt/far/kept\"\n");
    sql(&machine, "postgres", "CREATE ROLE fleeting");
    sql(&machine, "mautrix-signal", "CREATE TABLE s.fleeting (a int)");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));

    let before = machine.ok(PIDS);
    let refuses = |spoil: &str, mend: &str, expected: &str| {
        machine.ok(spoil);
        let refused = machine.run("matrix-postgres-upgrade rollback --yes");
        assert!(refused.status != 0 && refused.stderr.contains(expected), "{expected}: {refused}");
        assert!(refused.stderr.contains("nothing was stopped, and nothing was changed"), "{refused}");
        assert_eq!(machine.ok(PIDS), before);
        machine.ok(mend);
    };
    let kept = "cd /mnt/far/kept";
    refuses(
        &format!("{kept} && mv global /root/"),
        &format!("{kept} && mv /root/global ."),
        "is incomplete: directory global is missing",
    );
    let file = machine.ok("cd /mnt/far/kept && find base -size +100k -type f | sort | head -n 1");
    let file = format!("/mnt/far/kept/{}", file.trim());
    refuses(&format!("mv {file} /root/file"), &format!("mv /root/file {file}"), "is incomplete: its size is");
    refuses(
        &format!(
            "cp -a {file} /root/file && printf nonsense | dd of={file} bs=1 seek=9000 conv=notrunc status=none"
        ),
        &format!("mv /root/file {file}"),
        "has damaged pages",
    );
    refuses(
        "fallocate -l $(($(df --output=avail -B1 /matrix | tail -n 1) - 60000000)) /matrix/full",
        "rm /matrix/full",
        "must be copied back to the file system of /matrix/postgres",
    );
    is_well(&machine, "17", &room);

    // The old server would not start: the new one runs again.
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres.service.d");
    machine
        .write(DROPIN, "[Service]\nExecStartPre=grep -q 17 /matrix/postgres/data/PG_VERSION\nRestart=no\n");
    machine.ok("systemctl daemon-reload");
    let failed = machine.run("matrix-postgres-upgrade rollback --yes");
    assert!(failed.status == UNIT_JOB, "{failed}");
    assert!(failed.stderr.contains("the homeserver runs on PostgreSQL 17, as before"), "{failed}");
    machine.ok(&format!("rm {DROPIN} && systemctl daemon-reload"));
    is_well(&machine, "17", &room);
    assert!(machine.ok("matrix-postgres-upgrade status").contains("\nkept:       /mnt/far/kept"));

    // What the server counts is gone after a crash; what was written is not.
    Synapse::of(&machine).send(&user, &room, "after the upgrade");
    machine.write(
        "/etc/systemd/system/needy.service",
        "[Unit]\nRequires=matrix-postgres.service\nAfter=matrix-postgres.service\n[Service]\nExecStart=sleep infinity\n",
    );
    machine.ok("systemctl stop matrix-synapse.service && systemctl kill --signal=KILL --kill-whom=all matrix-postgres.service");
    machine.wait_for("systemctl is-active matrix-postgres.service && matrix-postgres-cli -c 'SELECT 1'");
    machine.ok("systemctl daemon-reload && systemctl start matrix-synapse.service needy.service");
    let asked = machine.run("matrix-postgres-upgrade rollback");
    assert!(asked.status == 41 && asked.stdout.contains("will be lost"), "{asked}");
    assert!(asked.stdout.contains("homeserver: public.events 1 rows"), "{asked}");
    assert!(!asked.stdout.contains("removed"), "{asked}");
    // What is gone leaves no row behind.
    sql(&machine, "postgres", "DROP ROLE fleeting");
    sql(&machine, "mautrix-signal", "DROP TABLE s.fleeting");
    sql(&machine, "mautrix-signal", "SELECT nextval('s.portal_id_seq')");
    let asked = machine.run("matrix-postgres-upgrade rollback --dry-run");
    for gone in [
        "; deleted roles",
        "; deleted tables, views and sequences of database \"mautrix-signal\"",
        "; sequences of database \"mautrix-signal\"",
    ] {
        assert!(asked.stdout.contains(gone), "{gone}: {asked}");
    }
    machine.ok("systemctl is-active matrix-synapse.service");
    let back = machine.run("matrix-postgres-upgrade rollback --yes");
    assert_eq!(back.status, 0, "{back}");
    machine.ok("systemctl is-active needy.service && rm -r /matrix/postgres/data.upgrade-*");
    is_well(&machine, "15", &room);
}
