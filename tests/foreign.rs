//! Files and backups that somebody else has written, given to root to be restored.

#[path = "machine/mod.rs"]
mod machine;

use machine::Machine;

/// As the server's own user: it is the caller's psql.
const CLI: &str = "runuser -u matrix-postgres -- matrix-postgres-cli";
const BACKUPS: &str = "/var/backups/matrix-postgres";

/// Each program of the server's packages notes down as whom it runs.
const NOTE: &str = "touch /tmp/ran && chmod 666 /tmp/ran
cd /usr/lib/postgresql/17/bin
for program in psql pg_restore pg_dump pg_dumpall vacuumdb initdb pg_amcheck; do
    mv $program $program.real
    printf '#!/bin/sh\\necho \"$(id -u) %s\" >>/tmp/ran\\nexec %s \"$@\"\\n' $program $PWD/$program.real >$program
    chmod 755 $program
done";

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("{CLI} -d homeserver -XAtqc {}", machine::synapse::quote(statement)))
}

fn start(machine: &Machine) {
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
}

fn backup(machine: &Machine) -> String {
    machine.ok("systemctl start matrix-postgres-backup.service || { journalctl -u matrix-postgres-backup >&2; false; }");
    machine.ok(&format!("ls {BACKUPS} | tail -n 1"))
}

/// psql does what it is fed with, and what root feeds it with is not root's.
#[test]
fn no_program_of_postgresql_runs_as_root() {
    let Some(machine) = machine::for_test("never-root") else { return };
    machine.ok(NOTE);
    start(&machine);
    sql(&machine, "CREATE TABLE t AS SELECT n, repeat('x', 200) AS x FROM generate_series(1, 50000) n");
    sql(&machine, "CREATE INDEX ON t (n); CREATE SEQUENCE s; SELECT lo_from_bytea(4711, 'one')");
    let name = backup(&machine);
    machine.ok("pg_dump=/usr/lib/postgresql/17/bin/pg_dump.real; from='-h /run/matrix-postgres -U postgres homeserver'
         $pg_dump $from >/root/x.sql; $pg_dump -Fc $from >/root/x.dump; rm /tmp/ran; install -m 666 /dev/null /tmp/ran");
    for (number, restore) in [name.as_str(), "/root/x.sql", "/root/x.dump"].into_iter().enumerate() {
        machine.ok(&format!("matrix-postgres-backup restore --yes --as copy{number} {restore} 2>&1"));
        let count = format!("{CLI} -d copy{number} -XAtc 'SELECT count(*) FROM t'");
        assert_eq!(machine.ok(&count), "50000");
    }
    machine.ok(&format!("matrix-postgres-backup restore --yes {name} 2>&1"));
    sql(&machine, "DROP OWNED BY synapse; REASSIGN OWNED BY synapse TO postgres");
    machine.ok(&format!("matrix-postgres-backup restore --globals {name} 2>&1"));
    machine.ok(&format!(
        "matrix-postgres-backup verify --trial 2>&1; matrix-postgres-backup verify {name} 2>&1"
    ));
    machine.ok("matrix-postgres-upgrade check || true");
    machine.ok("matrix-postgres-upgrade compare --old /run/matrix-postgres --new /run/matrix-postgres");

    // With a key that only root can read.
    machine.ok("mkdir -p /etc/matrix-postgres && age-keygen -o /root/key 2>/dev/null");
    let recipient = machine.ok("age-keygen -y /root/key");
    machine.write("/etc/matrix-postgres/config.toml", &format!("[backup]\nencrypt_to = [\"{recipient}\"]\n"));
    let name = backup(&machine);
    machine.ok(&format!("matrix-postgres-backup verify --identity /root/key {name} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy3 --identity /root/key {name} 2>&1"));

    let ran = machine.ok("sort /tmp/ran | uniq -c");
    assert!(!ran.lines().any(|line| line.trim_start().split(' ').nth(1) == Some("0")), "{ran}");
    for program in ["psql", "pg_restore", "pg_dump", "pg_dumpall", "vacuumdb", "initdb"] {
        assert!(ran.lines().any(|line| line.ends_with(&format!(" {program}"))), "{program}: {ran}");
    }
}
