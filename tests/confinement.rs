//! What the units keep from whoever has taken over a process of theirs, tried from inside; and what they leave to those who
//! work with them.

use std::fmt::Write as _;

use crate::machine::{self, Machine, Output};

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
    machine.wait_for("matrix-postgres-cli -XAtc 'SHOW work_mem' | grep -x 5MB");
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
    machine.wait_for("matrix-postgres-cli -XAtc 'SHOW work_mem' | grep -x 6MB");
    assert_eq!(
        machine.ok("stat -c %U /run/matrix-postgres /run/matrix-postgres/.s.PGSQL.5432.lock"),
        "other\nother"
    );
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

fn as_user(machine: &Machine, user: &str, command: &str) -> Output {
    machine.run(&format!("setpriv --reuid={user} --regid={user} --init-groups {command}"))
}

#[test]
fn a_member_of_the_group_starts_backups_and_reads_of_them_and_no_more() {
    let Some(machine) = machine("confinement-group") else { return };
    machine.ok("useradd --groups matrix-postgres-admin member && useradd stranger");
    // Its free space is not the same twice.
    let lasting = |text: &str| {
        text.lines().filter(|line| !line.starts_with("free space:")).map(str::to_owned).collect::<Vec<_>>()
    };
    let status = |output: &Output| (output.status, lasting(&output.stdout));
    let start = "systemctl --no-ask-password start matrix-postgres-backup.service";
    let refused = as_user(&machine, "stranger", start);
    assert_ne!(refused.status, 0, "{refused}");
    machine.ok("! ls /var/backups/matrix-postgres | grep .");
    let started = as_user(&machine, "member", start);
    assert_eq!(started.status, 0, "{started}");
    machine.ok("ls /var/backups/matrix-postgres | grep -c . | grep -x 1");

    // The same as root is told, with the same exit status.
    for question in ["list", "list --json", "status"] {
        let roots = machine.run(&format!("matrix-postgres-backup {question}"));
        let members = as_user(&machine, "member", &format!("matrix-postgres-backup {question}"));
        assert_eq!(status(&members), status(&roots), "{members}\n{roots}");
        let strangers = as_user(&machine, "stranger", &format!("matrix-postgres-backup {question}"));
        assert_ne!(strangers.status, 0, "{strangers}");
        assert!(!strangers.stdout.contains("matrix-postgres"), "{strangers}");
    }
    let json = as_user(&machine, "member", "matrix-postgres-backup status --json").json();
    assert_eq!(json["well"], true, "{json}");
    // Also that something is wrong.
    machine.ok("systemctl stop matrix-postgres-backup.timer");
    let unwell = as_user(&machine, "member", "matrix-postgres-backup status");
    assert_eq!(status(&unwell), status(&machine.run("matrix-postgres-backup status")), "{unwell}");
    assert_ne!(unwell.status, 0, "{unwell}");
    machine.ok("systemctl start matrix-postgres-backup.timer");

    let name = machine.ok("ls /var/backups/matrix-postgres");
    for refused in [
        "systemctl --no-ask-password stop matrix-postgres-backup.service",
        "systemctl --no-ask-password restart matrix-postgres-backup.service",
        "systemctl --no-ask-password kill matrix-postgres-backup.service",
        "systemctl --no-ask-password stop matrix-postgres-backup.timer",
        "systemctl --no-ask-password start matrix-postgres-backup-verify.service",
        "systemctl --no-ask-password start matrix-postgres-upgrade.service",
        "systemctl --no-ask-password stop matrix-postgres.service",
        "systemctl --no-ask-password restart matrix-postgres.service",
        "systemctl --no-ask-password stop matrix-postgres-report.socket",
        "systemctl --no-ask-password disable matrix-postgres-backup.timer",
        "systemctl --no-ask-password set-property matrix-postgres-backup.service CPUWeight=1",
        "ls /var/backups/matrix-postgres",
        &format!("cat /var/backups/matrix-postgres/{name}/manifest.json"),
        "ls /matrix/postgres/data",
        "cat /matrix/postgres/synapse-database.yaml",
        "matrix-postgres-backup run",
        "matrix-postgres-backup verify",
        "matrix-postgres-backup prune",
        &format!("matrix-postgres-backup restore --yes {name}"),
        "matrix-postgres-upgrade run",
        "matrix-postgres-cli -XAtc 'SELECT 1'",
    ] {
        let tried = as_user(&machine, "member", refused);
        assert_ne!(tried.status, 0, "{refused}: {tried}");
    }
    // Whatever is said to the socket.
    let said = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect('/run/matrix-postgres-report/socket')
s.sendall(sys.argv[1].encode()); s.shutdown(socket.SHUT_WR)
answer = b''
while part := s.recv(65536): answer += part
print(answer.decode())";
    machine.write("/usr/local/bin/say.py", said);
    for question in [
        "",
        "restore",
        "{\"restore\":{\"json\":false}}",
        "{\"list\":{\"json\":false,\"config\":\"/etc/shadow\"}}",
    ] {
        let quoted = machine::synapse::quote(question);
        let answer = as_user(&machine, "member", &format!("python3 /usr/local/bin/say.py {quoted}"));
        assert_eq!((answer.status, answer.stdout.as_str()), (0, ""), "{question}: {answer}");
    }
    let answer = as_user(&machine, "stranger", "python3 /usr/local/bin/say.py x");
    assert_ne!(answer.status, 0, "{answer}");

    // A unit of the same name that is not ours is nobody's to start.
    machine.ok("printf '[Service]\\nType=oneshot\\nExecStart=/usr/bin/touch /root/started\\n' \
        >/etc/systemd/system/matrix-postgres-backup.service && systemctl daemon-reload");
    let refused = as_user(&machine, "member", start);
    assert_ne!(refused.status, 0, "{refused}");
    machine.ok("test ! -e /root/started");
}
