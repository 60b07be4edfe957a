//! What the units keep from whoever has taken over a process of theirs, tried from inside.

use std::fmt::Write as _;
use std::time::Duration;

use crate::machine::{self, Machine};

/// What is tried, in bash: what it is called, and what succeeds without the unit's confinement.
type Attempt = (&'static str, &'static str);

/// What no unit that runs as the backups' user may do.
const ATTEMPTS: [Attempt; 10] = [
    ("write the data directory", "touch /matrix/postgres/data/attempt"),
    (
        "write it as the server sees it",
        "touch /proc/$(head -n 1 /matrix/postgres/data/postmaster.pid)/root/matrix/postgres/data/attempt",
    ),
    ("write elsewhere", "touch /srv/open/attempt"),
    ("read /home", "grep private /home/admin/letter"),
    ("become root", "test \"$(/usr/local/bin/setuid-id --user)\" = 0"),
    ("become root in a namespace", "unshare --user --map-root-user true"),
    (
        "make a program that is run as its owner",
        "cp /bin/true \"$WRITABLE/own\" && chmod u+s \"$WRITABLE/own\"",
    ),
    ("see processes of others", "test -e /proc/1/comm"),
    ("change its priority", "ionice --class 3 true"),
    ("read the kernel's files", "test -e /proc/uptime"),
];

/// What those may not do that have no network.
const NETWORK: [Attempt; 2] = [
    ("reach another machine's port", "exec 3<>/dev/tcp/127.0.0.1/5432"),
    (
        "open any socket but a Unix one",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)'",
    ),
];

/// What those may not do, either, that read what others have made.
const SERVER: [Attempt; 1] = [("log in to the server", "matrix-postgres-cli -XAtc 'SELECT 1'")];

/// A server that runs, and a machine in which every attempt could succeed.
fn machine(name: &str) -> Option<Machine> {
    let machine = machine::for_test(name)?;
    machine.start("matrix-postgres.service");
    machine.ok("install -d -m 0755 /home/admin && echo private >/home/admin/letter
        install -d -m 0777 /srv/open && install -m 4755 /usr/bin/id /usr/local/bin/setuid-id");
    Some(machine)
}

/// A program that tries all of it and says of each whether it could.
fn script(attempts: &[Attempt]) -> String {
    let mut text = "#!/bin/bash\nexec 2>/dev/null\n".to_owned();
    for (name, attempt) in attempts {
        let _ = writeln!(
            text,
            "if ( {attempt} ) >/dev/null; then echo \"could {name}\"; else echo \"could not {name}\"; fi"
        );
    }
    text + "true\n"
}

/// Has a unit of the package run this instead of its own program, with all else as it is.
fn replace(machine: &Machine, unit: &str, program: &str) {
    let directory = format!("/run/systemd/system/{unit}.d");
    machine.ok(&format!("mkdir -p {directory}"));
    machine.write(
        &format!("{directory}/attempt.conf"),
        &format!(
            "[Service]\nExecStart=\nExecStart={program}\nEnvironment=WRITABLE=/var/backups/matrix-postgres\n"
        ),
    );
    machine.ok("systemctl daemon-reload");
}

fn put_back(machine: &Machine, unit: &str) {
    machine.ok(&format!("rm -r /run/systemd/system/{unit}.d && systemctl daemon-reload"));
}

#[test]
fn who_takes_over_a_backup_reaches_nothing_from_there() {
    let Some(machine) = machine("confinement") else { return };
    let outside = ATTEMPTS.iter().chain(&NETWORK).chain(&SERVER).copied().collect::<Vec<_>>();
    let program = "/usr/local/bin/attempt";
    machine.write(program, &script(&outside));
    machine.ok(&format!("chmod 0755 {program}"));
    // Without a unit's confinement the same user can do everything of it, or nothing would be shown.
    let said = machine.ok(&format!(
        "setpriv --reuid=matrix-postgres --regid=matrix-postgres --clear-groups env WRITABLE=/srv/open {program}"
    ));
    for (name, _) in &outside {
        assert!(said.lines().any(|line| line == format!("could {name}")), "{name}\n{said}");
    }
    machine.ok("rm -f /matrix/postgres/data/attempt /srv/open/*");

    // This one first: a backup that succeeds starts it, too.
    for (unit, kept) in [
        ("matrix-postgres-backup-offsite.service", [&ATTEMPTS[..], &SERVER].concat()),
        ("matrix-postgres-backup.service", [&ATTEMPTS[..], &NETWORK].concat()),
        ("matrix-postgres-backup-verify.service", outside.clone()),
    ] {
        replace(&machine, unit, program);
        machine.start(unit);
        let said = machine.journal_of(unit);
        for (name, _) in kept {
            assert!(said.lines().any(|line| line == format!("could not {name}")), "{unit}: {name}\n{said}");
        }
        put_back(&machine, unit);
    }
    machine.ok("test ! -e /matrix/postgres/data/attempt -a ! -e /srv/open/attempt");
    // What they are for they can do.
    for unit in ["matrix-postgres-backup.service", "matrix-postgres-backup-verify.service"] {
        machine.start(unit);
    }
    machine.ok("matrix-postgres-backup status");
}

#[test]
fn a_server_has_all_that_it_needs_whoever_owns_it() {
    let Some(machine) = machine("confinement-server") else { return };
    let sql = |statement: &str| {
        machine.ok(&format!("matrix-postgres-cli -XAtc {}", machine::synapse::quote(statement)))
    };
    let pid = || machine.ok("systemctl show --value --property=MainPID matrix-postgres.service");
    let owner = |machine: &Machine, of: &str| machine.ok(&format!("stat -c %U {of}"));
    // It writes machine code, takes a configuration again, and none of its processes has any of root's rights.
    let compiled = "SET jit_above_cost = 0; EXPLAIN ANALYZE SELECT sum(n) FROM generate_series(1, 9) n";
    assert!(sql(compiled).contains("JIT:"), "{}", sql(compiled));
    machine.ok("matrix-postgres-cli -XAtc \"ALTER SYSTEM SET work_mem = '5MB'\" && systemctl reload matrix-postgres.service");
    machine.wait_for("matrix-postgres-cli -XAtc 'SHOW work_mem' | grep -x 5MB", Duration::from_secs(60));
    machine.ok(&format!(
        "grep -P '^Cap(Prm|Eff|Bnd|Amb):\\t0{{16}}$' /proc/{}/status | wc -l | grep -x 3",
        pid()
    ));
    sql("CREATE TABLE t AS SELECT 1 AS n");

    // A directory that was there before belongs to another user, and stays that user's.
    machine.ok("systemctl stop matrix-postgres.service && useradd --system other
        chown -R other: /matrix/postgres && sed -i 's/matrix-postgres  *postgres$/other postgres/' /matrix/postgres/data/pg_ident.conf");
    for verb in ["start", "restart"] {
        machine.ok(&format!(
            "systemctl {verb} matrix-postgres.service || {{ journalctl -u matrix-postgres >&2; false; }}"
        ));
        assert_eq!(owner(&machine, &format!("/proc/{}", pid())), "other");
        assert_eq!(owner(&machine, "/run/matrix-postgres"), "other");
        assert_eq!(machine.ok("stat -c %a /run/matrix-postgres"), "755");
        assert_eq!(sql("SELECT n FROM t"), "1");
    }
    machine.ok("matrix-postgres-cli -XAtc \"ALTER SYSTEM SET work_mem = '6MB'\" && systemctl reload matrix-postgres.service");
    machine.wait_for("matrix-postgres-cli -XAtc 'SHOW work_mem' | grep -x 6MB", Duration::from_secs(60));
    machine.ok("systemctl stop matrix-postgres.service");
    let state = "pg_controldata=$(ls -d /usr/lib/postgresql/*/bin/pg_controldata | tail -n 1)
        $pg_controldata /matrix/postgres/data | grep 'cluster state'";
    assert!(machine.ok(state).ends_with("shut down"), "{}", machine.ok(state));

    // A new one in a place of root's is made for the unit's user.
    machine.ok("install -d -m 0755 /srv/new");
    machine.write("/etc/matrix-postgres/config.toml", "data_directory = \"/srv/new/data\"\n");
    machine.start("matrix-postgres.service");
    assert_eq!(machine.ok("stat -c '%U %a' /srv/new /srv/new/data"), "root 755\nmatrix-postgres 700");
    assert_eq!(owner(&machine, "/run/matrix-postgres"), "matrix-postgres");
    sql("SELECT 1");
}
