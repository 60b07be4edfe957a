//! Trial restores of backups by pgBackRest, and restores that are cut off.

use crate::machine::{self, Machine};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: &str = "26";
const NOT_WELL: i32 = 40;

const BACKUP: &str = "matrix-postgres-backup.service";
const TRIAL: &str = "matrix-postgres-backup-verify.service";
const SETUP: &str = "matrix-postgres setup --engine pgbackrest --yes";
const SQL: &str = "matrix-postgres-cli -XAtq -v ON_ERROR_STOP=1 -c";
const REPOSITORY: &str = "/var/backups/matrix-postgres/pgbackrest";
const CONTENTS: &str = "/var/backups/matrix-postgres/.pgbackrest-contents.json";

/// A server with two databases, large objects and a tablespace, which archives by pgBackRest.
fn prepare(machine: &Machine) {
    machine.ok("systemctl enable --quiet --now matrix-postgres.service");
    machine.ok(&format!(
        "install -d -o matrix-postgres -g matrix-postgres -m 0700 /srv/more
         {SQL} 'CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n' -c \"CREATE TABLESPACE more LOCATION '/srv/more'\" \
            -c 'CREATE TABLE far TABLESPACE more AS SELECT n FROM generate_series(1, 77) n' \
            -c 'CREATE UNLOGGED TABLE volatile AS SELECT 1 AS n' -c 'SELECT lo_create(0)' -c 'CREATE DATABASE other'
         matrix-postgres-cli -d other -XAtqc 'CREATE TABLE \"of; others\" AS SELECT n FROM generate_series(1, 5) n'
         {SETUP}"
    ));
}

#[test]
fn the_newest_backup_is_restored_on_trial_and_compared() {
    let Some(machine) = machine::for_test("pgbackrest-trial") else { return };
    prepare(&machine);
    machine.start(BACKUP);
    machine.ok(&format!(
        "{SQL} 'INSERT INTO t SELECT n FROM generate_series(2001, 2100) n' -c 'DROP TABLE volatile'"
    ));
    machine.start(BACKUP);
    machine.wait_for("matrix-postgres-backup verify --trial --dry-run");
    let plan = machine.ok("matrix-postgres-backup verify --trial --dry-run");
    assert!(
        plan.contains("tables of database \"postgres\"") && plan.contains("database \"other\""),
        "{plan}"
    );
    // What is written later is not in it; and nothing of the user's own is called, and nothing archived.
    machine.ok(&format!(
        "{SQL} 'DELETE FROM t WHERE n < 500' -c \"ALTER SYSTEM SET recovery_end_command = 'touch /var/backups/matrix-postgres/called'\" \
            -c 'SELECT pg_switch_wal()'"
    ));
    machine.wait_for("matrix-postgres-backup status");
    let archived = format!("find {REPOSITORY}/archive -type f | sort");
    let before = machine.ok(&archived);
    machine.start(TRIAL);
    let said = machine.journal_of(TRIAL);
    assert!(
        said.contains("succeeded: restored into PostgreSQL") && said.contains(" tables compared"),
        "{said}"
    );
    assert!(!said.contains("not compared"), "{said}");
    machine.ok("! ls /var/backups/matrix-postgres/called && { test ! -e /var/tmp/matrix-postgres || test -z \"$(ls /var/tmp/matrix-postgres)\"; }");
    assert_eq!(machine.ok(&archived), before);
    let status = machine.ok("matrix-postgres-backup status");
    assert!(status.contains("last trial:") && status.contains(" passed on "), "{status}");
    assert!(machine.ok("matrix-postgres-backup list").contains("trial restore"));

    // A row, a table and a database that are not in it.
    for (change, expected) in [
        ("s/\"public.t\":1100/\"public.t\":1101/", "table public.t has 1100 rows, and had 1101 before"),
        ("s/\"public.t\":1100/\"public.gone\":1100/", "table public.gone is missing"),
        ("s/\"name\":\"other\"/\"name\":\"gone\"/", "database \\\"gone\\\" is missing"),
    ] {
        machine.ok(&format!("cp -a {CONTENTS} /root/; sed -i '{change}' {CONTENTS}"));
        let (status, said) = machine.fails(TRIAL);
        assert_eq!(status, DAMAGED, "{said}");
        assert!(said.contains(&expected.replace('\\', "")), "{expected}: {said}");
        let well = machine.run("matrix-postgres-backup status --json");
        assert_eq!(well.status, NOT_WELL, "{well}");
        assert!(well.json()["problems"].to_string().contains("failed its trial restore"), "{well}");
        machine.ok(&format!("mv /root/.pgbackrest-contents.json {CONTENTS}"));
    }
    machine.start(TRIAL);
    machine.ok("matrix-postgres-backup status");

    // A file of the full backup, on which the other depends.
    machine.ok(&format!(
        "file=$(find {REPOSITORY}/backup -path '*F/*' -type f ! -name 'backup.manifest*' -size +20k | sort | head -n 1)
         test -n \"$file\" && printf XXXX | dd of=\"$file\" bs=1 seek=3000 conv=notrunc status=none"
    ));
    let (status, said) = machine.fails(TRIAL);
    assert_eq!(status, DAMAGED, "{said}");
    assert_eq!(machine.run("matrix-postgres-backup status").status, NOT_WELL);
}

#[test]
fn with_both_engines_both_are_tried() {
    let Some(machine) = machine::for_test("pgbackrest-trial-both") else { return };
    machine.ok("systemctl enable --quiet --now matrix-postgres.service");
    machine.ok(&format!("{SQL} 'CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n'"));
    machine.ok("matrix-postgres setup --engine both --yes");
    machine.start(BACKUP);
    machine.wait_for("matrix-postgres-backup verify --trial --dry-run");
    machine.start(TRIAL);
    let said = machine.journal_of(TRIAL);
    assert_eq!(said.matches("succeeded: restored into PostgreSQL").count(), 2, "{said}");
}

/// The old or the restored cluster is in place, whole, and its server runs; what is there is the old one again afterwards.
#[track_caller]
fn is_whole(machine: &Machine) -> bool {
    machine.wait_for(&format!("systemctl is-active --quiet matrix-postgres.service && {SQL} 'SELECT 1'"));
    machine.ok(
        "runuser -u matrix-postgres -- pg_dumpall --host=/run/matrix-postgres --username=postgres >/dev/null",
    );
    assert_eq!(machine.ok(&format!("{SQL} 'SELECT count(*) FROM t WHERE n <= 1000'")), "1000");
    let later = machine.ok(&format!("{SQL} 'SELECT count(*) FROM t WHERE n > 1000'"));
    assert!(["0", "1"].contains(&later.as_str()), "{later}");
    let is_restored = later == "0";
    if is_restored {
        machine.ok(&format!("{SQL} 'INSERT INTO t VALUES (2001)'"));
    }
    is_restored
}

/// A server with a backup, and a time between that and a row.
fn with_time(machine: &Machine) -> String {
    machine.ok("systemctl enable --quiet --now matrix-postgres.service");
    machine.ok(&format!("{SQL} 'CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n'; {SETUP}"));
    machine.start(BACKUP);
    let time = machine.ok("sleep 1; date --utc '+%F %T.%6N+00'; sleep 1");
    machine.ok(&format!("{SQL} 'INSERT INTO t VALUES (2001)'"));
    time
}

#[test]
fn a_restore_that_is_killed_at_any_instant_leaves_a_whole_cluster() {
    let instants = if machine::at_every_step() { 20 } else { 6 };
    let Some(machine) = machine::for_test("pgbackrest-killed") else { return };
    let time = with_time(&machine);
    let restore = format!("matrix-postgres-backup restore --yes --to-time '{time}'");
    let milliseconds =
        machine.ok(&format!("begun=$(date +%s%3N); {restore} >&2; echo $(($(date +%s%3N) - begun))"));
    let milliseconds: u32 = milliseconds.parse().expect("a number");
    assert!(is_whole(&machine));
    let mut restored = 0;
    for instant in 0..instants {
        let after = f64::from(milliseconds) / 1000.0 * f64::from(instant) / f64::from(instants - 1);
        let said = machine.ok(&format!(
            "{restore} >/root/restore 2>&1 & pid=$!; sleep {after:.3}; kill -KILL $pid 2>/dev/null && echo killed || echo ended"
        ));
        let is_restored = is_whole(&machine);
        eprintln!("after {after:.3} s: {said}, {}", if is_restored { "restored" } else { "as before" });
        restored += u32::from(is_restored);
    }
    assert!(restored < instants, "none was cut off");
    // It can be repeated.
    machine.ok(&restore);
    assert!(is_whole(&machine));
    // What is left is told, and goes when somebody says so.
    let status = machine.ok("matrix-postgres-backup status || true");
    assert!(
        status.contains("/matrix/postgres/data.before-restore-")
            && status.contains("cluster before a restore, "),
        "{status}"
    );
    let plan = machine.ok("matrix-postgres-backup clean --dry-run");
    assert!(plan.contains("remove /matrix/postgres/data.before-restore-"), "{plan}");
    machine.ok("matrix-postgres-backup clean --yes");
    assert_eq!(machine.ok("ls -d /matrix/postgres/data*"), "/matrix/postgres/data");
    assert!(!is_whole(&machine));
}

#[test]
fn after_a_power_cut_in_a_restore_a_whole_cluster_is_in_place() {
    let Some(machine) = machine::for_test_with_disk("pgbackrest-power") else { return };
    let time = with_time(&machine);
    let restore = format!("matrix-postgres-backup restore --yes --to-time '{time}'");
    let instants = [
        "test -e /matrix/postgres/data.restoring/PG_VERSION",
        "test -e /matrix/postgres/data.restoring/postmaster.pid",
        "! systemctl is-active --quiet matrix-postgres.service",
        "test $(stat --format=%i /matrix/postgres/data) != $inode",
    ];
    for instant in instants {
        machine.ok(&format!(
            "sync; inode=$(stat --format=%i /matrix/postgres/data); {restore} >/root/restore 2>&1 & pid=$!
             until {instant}; do kill -0 $pid || {{ wait $pid && break; cat /root/restore; exit 1; }}; done"
        ));
        machine.power_cut_to_disk().expect("the power should go");
        machine.boot_again().unwrap_or_else(|error| panic!("{instant}: {error}"));
        let is_restored = is_whole(&machine);
        eprintln!("{instant}: {}", if is_restored { "restored" } else { "as before" });
        // It can be repeated.
        machine.ok(&restore);
        assert!(is_whole(&machine), "{instant}");
    }
}
