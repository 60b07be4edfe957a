//! Backups restored on trial: good ones, bad ones, without room, and killed.

use crate::machine::{self, Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const NO_SPACE: i32 = 29;

fn start(machine: &Machine) {
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
}

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -XAtc {}", machine::synapse::quote(statement)))
}

/// Nothing of a trial is left: no directory, no server.
fn nothing_is_left(machine: &Machine) {
    machine.ok("! find /var/tmp -path '*/scratch-*' 2>/dev/null | grep .");
    machine.ok("! pgrep -f -- '-D [^ ]*/scratch-'");
}

#[test]
fn a_good_backup_passes_its_trial_and_the_server_need_not_run() {
    let Some(machine) = machine::for_test("trial") else { return };
    start(&machine);
    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    sql(
        &machine,
        "CREATE EXTENSION pg_trgm; CREATE SCHEMA \"we \"\"ird\"; CREATE TABLE \"we \"\"ird\".\"select\" (a int); \
         INSERT INTO \"we \"\"ird\".\"select\" VALUES (1); ALTER ROLE synapse SET work_mem = '8MB'",
    );
    // Large objects, a table that is loaded by a connection of its own, and keys that wait for its indexes.
    sql(
        &machine,
        "SELECT lo_from_bytea(4711, 'one'), lo_from_bytea(4712, decode(repeat('00ff', 1000000), 'hex')); \
         CREATE TABLE large (a int PRIMARY KEY, b int UNIQUE, up int REFERENCES large, t text); \
         INSERT INTO large SELECT n, n, nullif(n - 1, 0), repeat('x', 100) FROM generate_series(1, 50000) n; \
         CREATE TABLE small (a int REFERENCES large (b)); INSERT INTO small VALUES (1)",
    );
    sql(&machine, "ALTER DATABASE homeserver SET search_path = public, \"we \"\"ird\"");
    sql(&machine, "REVOKE CONNECT ON DATABASE homeserver FROM PUBLIC");
    machine.start("matrix-postgres-backup.service");
    machine.ok("systemctl stop matrix-synapse.service matrix-postgres.service");
    machine.start("matrix-postgres-backup-verify.service");
    nothing_is_left(&machine);
    let list = machine.ok("matrix-postgres-backup list");
    assert!(list.lines().nth(1).is_some_and(|line| line.ends_with("trial restore")), "{list}");
    let status = machine.run("matrix-postgres-backup status").stdout;
    assert!(status.contains(" passed on "), "{status}");
    // By hand, as root, it is the same.
    machine.ok("matrix-postgres-backup verify --trial --dry-run && matrix-postgres-backup verify --trial");
    nothing_is_left(&machine);
}

#[test]
fn on_18_a_backup_is_made_and_tried_and_restored() {
    let Some(machine) = machine::for_test_on_newer("trial-18") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "server.version = 18\n");
    start(&machine);
    assert!(sql(&machine, "SHOW server_version").starts_with("18."));
    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    for format in ["custom", "plain"] {
        machine.write("/etc/matrix-postgres/config.toml", &format!("backup.format = \"{format}\"\n"));
        machine.start("matrix-postgres-backup.service");
        machine.start("matrix-postgres-backup-verify.service");
        nothing_is_left(&machine);
        let status = machine.run("matrix-postgres-backup status").stdout;
        assert!(status.contains(" passed on "), "{status}");
        sql(&machine, "DELETE FROM event_json");
        machine.ok(
            "matrix-postgres-backup restore --yes \"$(ls /var/backups/matrix-postgres | tail -n 1)\" 2>&1",
        );
        let said = synapse.messages(&synapse.log_in("ada"), &room);
        assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())], "{format}");
    }
}

#[test]
fn a_database_that_cannot_be_restored_fails_its_trial() {
    let Some(machine) = machine::for_test("trial-bad") else { return };
    start(&machine);
    // Two rows under one key, as a broken index lets in: found by nothing but a restore.
    sql(&machine, "CREATE TABLE twice (id int PRIMARY KEY); INSERT INTO twice VALUES (1)");
    sql(
        &machine,
        "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indrelid = 'twice'::regclass",
    );
    sql(&machine, "INSERT INTO twice VALUES (1)");
    sql(
        &machine,
        "UPDATE pg_index SET indisready = true, indisvalid = true WHERE indrelid = 'twice'::regclass",
    );
    machine.start("matrix-postgres-backup.service");
    let trial = machine.run("matrix-postgres-backup verify --trial");
    assert_eq!(trial.status, DAMAGED, "{trial}");
    assert!(trial.stderr.contains("twice_pkey"), "{trial}");
    nothing_is_left(&machine);
    let status = machine.run("matrix-postgres-backup status");
    assert_ne!(status.status, 0, "{status}");
    assert!(status.stdout.contains("failed its trial restore"), "{status}");
}

#[test]
fn a_trial_without_room_is_refused_and_a_killed_one_is_cleared_away() {
    let Some(machine) = machine::for_test("trial-room") else { return };
    start(&machine);
    machine.start("matrix-postgres-backup.service");
    machine.ok(
        "mkdir -p /mnt/small /etc/matrix-postgres && mount -t tmpfs -o size=64M,mode=0700 none /mnt/small",
    );
    machine.ok("chown matrix-postgres /mnt/small");
    machine.write("/etc/matrix-postgres/config.toml", "backup.scratch_directory = \"/mnt/small\"\n");
    let trial = machine.run("matrix-postgres-backup verify --trial");
    assert_eq!(trial.status, NO_SPACE, "{trial}");
    assert!(trial.stderr.contains("not enough disk space in "), "{trial}");
    machine.ok("test -z \"$(ls -A /mnt/small)\" && rm /etc/matrix-postgres/config.toml");
    machine.ok("matrix-postgres-backup verify --trial & sleep 1; kill -KILL $!; wait $! || true
         ls -d /var/tmp/matrix-postgres/scratch-*");
    machine.ok("matrix-postgres-backup verify --trial");
    nothing_is_left(&machine);
}
