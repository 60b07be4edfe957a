//! Trial restores of backups by pgBackRest.

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
    machine.ok("! ls /var/backups/matrix-postgres/called; test ! -e /var/tmp/matrix-postgres || test -z \"$(ls /var/tmp/matrix-postgres)\"");
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
