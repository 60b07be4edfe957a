//! Never a second server on one data directory, and nobody else's unit is touched: beside a server in a container, with a
//! playbook's units that shadow ours, and beside our own.

use crate::machine::containers::{Playbook, make_image};
use crate::machine::upgrade::{NOT_WELL, UNIT_JOB, UPGRADE, configure, sql};
use crate::machine::{self, Machine, Output, package};

// Of the programs' contract: see `matrix_postgres::error::Kind`.
const CONFIG: i32 = 27;
const DATA_DIRECTORY: i32 = 31;
const SERVER: i32 = 32;

const SERVER_PROGRAM: &str = "/usr/libexec/matrix-postgres/matrix-postgres-server";

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.ok(&format!("systemctl show --value --property={name} {unit}"))
}

/// Starts a unit, which must fail with this status; returns what it said.
#[track_caller]
fn fails(machine: &Machine, unit: &str, status: i32) -> String {
    let started = machine.run(&format!("systemctl start {unit}"));
    assert_ne!(started.status, 0, "{started}");
    let said = machine.journal_of(unit);
    assert_eq!(property(machine, unit, "ExecMainStatus"), status.to_string(), "{said}");
    said
}

#[track_caller]
fn refuses(output: &Output, status: i32, expected: &[&str]) {
    assert_eq!(output.status, status, "{output}");
    for expected in expected {
        assert!(output.stdout.contains(expected) || output.stderr.contains(expected), "{expected}: {output}");
    }
}

/// What a second server, an upgrade or a return would write.
const TRACES: &str = "cat /matrix/postgres/data/postmaster.pid; ls /matrix/postgres; cat /var/lib/matrix-postgres-upgrade/upgrade/journal.json";

#[test]
fn a_container_has_its_data_directory_for_itself() {
    let Some(machine) = machine::for_test("second") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "[server]\nversion = 15\n");
    machine.ok("systemctl start matrix-postgres.service");
    configure(&machine, "method = \"dump\"\n");
    machine.ok(&format!("{UPGRADE} || {{ journalctl -u matrix-postgres-upgrade >&2; false; }}"));
    sql(&machine, "postgres", "CREATE TABLE t (n int)");
    machine.ok("systemctl enable --quiet matrix-postgres.service && systemctl stop matrix-postgres.service");

    let playbook = Playbook::on_ours(&machine, 17, "matrix-db.service");
    assert!(machine.ok("head -n 1 /matrix/postgres/data/postmaster.pid").starts_with('1'));
    let before = (playbook.started(), machine.ok(TRACES));
    let inserts = "for n in $(seq 500); do echo \"INSERT INTO t VALUES ($n);\"; sleep 0.02; done";
    machine.ok(&format!(
        "systemd-run --quiet --unit=writer --property=StandardOutput=file:/root/acknowledged \
         bash -c {}",
        machine::synapse::quote(&format!("({inserts}) | {}", playbook.psql()))
    ));
    machine.wait_for("grep -q 'INSERT 0 1' /root/acknowledged");

    let pid = playbook.pid();
    let container =
        format!("the container matrix-postgres of docker, which matrix-db.service runs (process {pid}");
    let in_use = format!("/matrix/postgres/data is in use by {container}");
    let hint = "HINT: systemctl stop matrix-db.service";
    let unchanged = "nothing was changed";
    let said = fails(&machine, "matrix-postgres.service", DATA_DIRECTORY);
    assert!(said.contains(&in_use) && said.contains(hint) && said.contains(unchanged), "{said}");
    assert_eq!(property(&machine, "matrix-postgres.service", "ActiveState"), "failed");
    refuses(&machine.run(SERVER_PROGRAM), DATA_DIRECTORY, &[&in_use, hint, unchanged]);
    // Who starts it for a backup learns why it does not start.
    let said = fails(&machine, "matrix-postgres-backup.service", UNIT_JOB);
    assert!(said.contains(&in_use), "{said}");

    let blocker = format!("BLOCKER  {in_use}");
    refuses(&machine.run("matrix-postgres-upgrade check"), NOT_WELL, &[&blocker]);
    for verb in ["run", "rehearse"] {
        let refused = machine.run(&format!("matrix-postgres-upgrade {verb}"));
        refuses(&refused, NOT_WELL, &[&in_use, "nothing was stopped, and nothing was changed"]);
    }
    let said = fails(&machine, "matrix-postgres-upgrade.service", NOT_WELL);
    assert!(said.contains(&in_use), "{said}");
    let refused = machine.run("matrix-postgres-upgrade rollback --yes");
    refuses(&refused, DATA_DIRECTORY, &[&in_use, hint, "nothing was stopped, and nothing was changed"]);
    assert_eq!((playbook.started(), machine.ok(TRACES)), before);

    // As one that was cut off.
    let file = "/var/lib/matrix-postgres-upgrade/upgrade/journal.json";
    machine.ok(&format!(
        "cp -p {file} /root/journal.json && matrix-postgres-upgrade status --json | python3 -c \"
import json, sys; journal = json.load(sys.stdin)['latest']; journal['ended'] = None
json.dump(journal, open('{file}', 'w'), indent=2)\""
    ));
    let refused = machine.run("matrix-postgres-upgrade recover");
    refuses(&refused, DATA_DIRECTORY, &[&in_use, "nothing was stopped, and nothing was changed"]);
    machine.ok(&format!("systemctl stop matrix-postgres-recover.service; cp -p /root/journal.json {file}"));

    machine.wait_for("! systemctl is-active --quiet writer");
    assert_eq!(machine.ok("grep -c 'INSERT 0 1' /root/acknowledged"), "500");
    assert_eq!(playbook.sql("SELECT count(*), sum(n) FROM t"), "500|125250");
    assert_eq!((playbook.started(), machine.ok(TRACES)), before);
    assert_eq!(machine.ok("systemctl is-active matrix-db.service matrix-synapse.service"), "active\nactive");

    // As the hint says.
    machine.ok("systemctl stop matrix-db.service");
    machine.ok("systemctl start matrix-postgres.service || { journalctl -n 60 >&2; false; }");
    assert_eq!(sql(&machine, "postgres", "SELECT count(*), sum(n) FROM t"), "500|125250");
}

#[test]
fn a_playbooks_units_of_our_names_are_left_alone() {
    let Some(machine) = machine::bare_for_test("shadowed") else { return };
    let playbook = Playbook::set_up(&machine, 17);
    playbook.sql("CREATE TABLE t AS SELECT generate_series(1, 500) n");
    machine.write(
        "/etc/systemd/system/matrix-postgres-backup.service",
        "[Service]\nExecStart=sleep infinity\nRestart=always\n[Install]\nWantedBy=multi-user.target\n",
    );
    machine.ok("systemctl daemon-reload && systemctl start matrix-postgres-backup.service");
    let units = "matrix-postgres.service matrix-synapse.service matrix-postgres-backup.service";
    let pids = format!("systemctl show --value --property=MainPID {units}");
    let before = (playbook.started(), machine.ok(&pids));
    let unharmed = |when: &str| {
        assert_eq!((playbook.started(), machine.ok(&pids)), before, "{when}");
        assert_eq!(playbook.sql("SELECT count(*) FROM t"), "500", "{when}");
    };

    machine.copy_in(&package::current().unwrap(), "/root/matrix-postgres.deb");
    let install =
        "DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet /root/matrix-postgres.deb 2>&1";
    let installed = machine.ok(install);
    let shadow = |unit: &str| {
        format!("{unit} is overridden by /etc/systemd/system/{unit}, which is not part of matrix-postgres")
    };
    for unit in ["matrix-postgres.service", "matrix-postgres-backup.service"] {
        assert!(installed.contains(&shadow(unit)), "{installed}");
    }
    // It would start the playbook's.
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "inactive");
    assert_eq!(property(&machine, "matrix-postgres-backup-verify.timer", "ActiveState"), "active");
    unharmed("installed");

    // The server's unit is that of the container, and meant to be. That of the backup is not.
    let container = "the container matrix-postgres of docker";
    let blocker = format!("BLOCKER  {}", shadow("matrix-postgres-backup.service"));
    let check = machine.run("matrix-postgres-upgrade check");
    refuses(&check, NOT_WELL, &[&format!("server: {container}"), &blocker]);
    let warning = format!("warning: {}", shadow("matrix-postgres-backup.service"));
    let status = machine.run("matrix-postgres-backup status");
    refuses(&status, NOT_WELL, &[&warning, container]);
    refuses(&machine.run("matrix-postgres-upgrade status"), 0, &[&warning, "HINT: systemctl cat"]);
    let adopted = shadow("matrix-postgres.service");
    assert!(!status.stdout.contains(&adopted), "{status}");
    assert!(!check.stdout.contains(&adopted), "{check}");
    refuses(
        &machine.run(SERVER_PROGRAM),
        CONFIG,
        &[container, "HINT: systemctl start matrix-postgres.service"],
    );
    for verb in ["stop", "start"] {
        let asked = format!(
            "runuser -u matrix-postgres -- systemctl --no-ask-password {verb} matrix-postgres.service"
        );
        assert_ne!(machine.run(&asked).status, 0, "{verb}");
    }
    unharmed("asked");

    let removed = machine.ok("apt-get remove --yes matrix-postgres 2>&1");
    assert!(removed.contains("which is not part of matrix-postgres; it is left alone"), "{removed}");
    unharmed("removed");
    machine.ok(
        "systemctl is-active matrix-postgres.service matrix-synapse.service matrix-postgres-backup.service",
    );
    machine.ok("DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet /root/matrix-postgres.deb 2>&1");
    machine.ok("dpkg --purge matrix-postgres 2>&1");
    unharmed("purged");
    machine.ok("test -f /etc/systemd/system/matrix-postgres.service -a -f /matrix/postgres/data/PG_VERSION");
}

#[test]
fn a_server_that_was_stopped_by_hand_is_not_started_for_a_backup() {
    let Some(machine) = machine::for_test("stopped") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres && systemctl enable --quiet --now matrix-postgres.service");
    sql(&machine, "postgres", "CREATE TABLE t AS SELECT generate_series(1, 5) n");
    let state = || property(&machine, "matrix-postgres.service", "ActiveState");
    // Enabled, it is meant to run.
    machine.ok("systemctl stop matrix-postgres.service && systemctl start matrix-postgres-backup.service");
    assert!(
        machine
            .journal_of("matrix-postgres-backup.service")
            .contains("starting matrix-postgres.service for the backup")
    );
    assert_eq!(state(), "inactive");
    machine.ok("matrix-postgres-backup status");

    machine.ok("systemctl disable --quiet matrix-postgres.service");
    let refused =
        "the server is not running, and is not started for a backup: matrix-postgres.service is disabled";
    let said = fails(&machine, "matrix-postgres-backup.service", SERVER);
    assert!(said.contains(refused), "{said}");
    assert!(
        said.contains(
            "nothing was started, and no backup was made\nHINT: systemctl start matrix-postgres.service"
        ),
        "{said}"
    );
    let status = machine.run("matrix-postgres-backup status");
    refuses(&status, NOT_WELL, &[refused, "HINT: systemctl start matrix-postgres.service"]);
    assert_eq!(state(), "inactive");
    configure(&machine, "[backup]\nstart_server = true\n");
    machine.ok("systemctl start matrix-postgres-backup.service && matrix-postgres-backup status");
    assert_eq!(state(), "inactive");
    configure(&machine, "[backup]\nstart_server = false\n");
    machine.ok("systemctl enable --quiet matrix-postgres.service");
    let said = fails(&machine, "matrix-postgres-backup.service", SERVER);
    assert!(said.contains("backup.start_server is false"), "{said}");

    // A second server of ours: by hand, by another unit, and where it sees nothing of the first.
    machine.ok("systemctl start matrix-postgres.service");
    let pid = property(&machine, "matrix-postgres.service", "MainPID");
    let in_use = format!("/matrix/postgres/data is in use by matrix-postgres.service (process {pid})");
    refuses(
        &machine.run(SERVER_PROGRAM),
        DATA_DIRECTORY,
        &[&in_use, "HINT: systemctl stop matrix-postgres.service"],
    );
    machine.ok("sed 's/^RuntimeDirectory=.*/RuntimeDirectory=second/' /usr/lib/systemd/system/matrix-postgres.service \
        >/etc/systemd/system/second.service && systemctl daemon-reload");
    let said = fails(&machine, "second.service", DATA_DIRECTORY);
    assert!(said.contains(&in_use), "{said}");
    let apart = machine.run(&format!("unshare --pid --ipc --fork --mount-proc {SERVER_PROGRAM}"));
    refuses(
        &apart,
        DATA_DIRECTORY,
        &["in use by another server, which cannot be seen from here", "HINT: lslocks"],
    );
    assert_eq!(property(&machine, "matrix-postgres.service", "MainPID"), pid);
    assert_eq!(sql(&machine, "postgres", "SELECT count(*) FROM t"), "5");
    // Killed, it comes back, whatever its children still hold.
    machine.ok(&format!("kill -KILL {pid}"));
    machine.wait_for("matrix-postgres-cli -XAtc 'SELECT 1'");
}

#[test]
fn a_container_of_podmans_is_named_too() {
    let Some(machine) = machine::for_test("second-podman") else { return };
    machine.ok("systemctl start matrix-postgres.service && systemctl stop matrix-postgres.service");
    make_image(&machine, "podman", "localhost/postgres", 17);
    machine.ok("podman run --detach --name db --network=host --user=$(stat --format %u:%g /matrix/postgres/data) \
        --volume=/matrix/postgres/data:/var/lib/postgresql/data --volume=/etc/passwd:/etc/passwd:ro localhost/postgres:17 \
        postgres -c listen_addresses= >/dev/null");
    machine.wait_for(
        "podman exec db pg_isready --quiet --host=/var/run/postgresql || { podman logs db >&2; false; }",
    );
    let pid = machine.ok("podman inspect --format '{{.State.Pid}}' db");
    let in_use = format!("/matrix/postgres/data is in use by the container db of podman (process {pid}");
    let said = fails(&machine, "matrix-postgres.service", DATA_DIRECTORY);
    assert!(said.contains(&in_use) && said.contains("HINT: podman stop db"), "{said}");
    machine.ok("podman exec db pg_isready --quiet --host=/var/run/postgresql && podman stop db >/dev/null");
    machine.ok("systemctl start matrix-postgres.service");
}
