//! The package in booted machines: what it installs, how the server runs beside Debian's own, and how it
//! refuses.

#[path = "machine/mod.rs"]
mod machine;

use std::time::Duration;

use machine::{Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_INSTALLED: &str = "30";
const DATA_DIRECTORY: &str = "31";

fn start(machine: &Machine) {
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
}

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.ok(&format!("systemctl show --value --property={name} {unit}"))
}

/// Starts the server, which must refuse; returns its journal.
fn refusal(machine: &Machine, status: &str) -> String {
    let started = machine.run("systemctl start matrix-postgres.service");
    assert_ne!(started.status, 0, "{started}");
    let journal = machine.ok("journalctl --no-pager --output=cat --unit=matrix-postgres.service");
    assert_eq!(property(machine, "matrix-postgres.service", "ExecMainStatus"), status, "{journal}");
    // It is not tried again and again.
    assert_eq!(property(machine, "matrix-postgres.service", "ActiveState"), "failed", "{journal}");
    journal
}

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -XAtc {}", machine::synapse::quote(statement)))
}

#[test]
fn a_package_without_configuration_gives_a_server_for_synapse() {
    let Some(machine) = machine::for_test("server") else { return };
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "active");
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "UnitFileState"), "enabled");
    assert_eq!(property(&machine, "matrix-postgres.service", "ActiveState"), "inactive");
    assert_eq!(machine.ok("stat -c '%U %a' /var/backups/matrix-postgres"), "matrix-postgres 700");
    machine.ok("man -w matrix-postgres-backup matrix-postgres-cli && man -w 8 matrix-postgres-server");

    start(&machine);
    assert_eq!(property(&machine, "matrix-postgres.service", "ActiveState"), "active");
    let pid = property(&machine, "matrix-postgres.service", "MainPID");
    assert_eq!(machine.ok(&format!("ps -o user:32= -p {pid}")), "matrix-postgres");
    assert_eq!(machine.ok("stat -c '%U %a' /matrix/postgres/data"), "matrix-postgres 700");
    assert_eq!(machine.ok("stat -c '%U %a' /matrix/postgres/synapse-database.yaml"), "matrix-postgres 600");

    // Debian's own cluster has port 5432; ours has none.
    let sockets = machine.ok("grep -H '' /proc/net/tcp /proc/net/tcp6 | awk '$5 == \"0A\" {print $3}'");
    assert_eq!(sockets.lines().filter(|socket| socket.ends_with(":1538")).count(), 2, "{sockets}");
    assert_eq!(sql(&machine, "SHOW listen_addresses"), "");
    assert_eq!(machine.ok("runuser -u postgres -- psql -XAtc 'SHOW listen_addresses'"), "localhost");

    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    let version = sql(&machine, "SHOW server_version");

    // A restart of the server is survived by the homeserver, and changes nothing.
    machine.ok("systemctl restart matrix-postgres.service");
    assert_eq!(sql(&machine, "SHOW server_version"), version);
    machine.wait_for("curl --silent --fail http://localhost:8008/health", Duration::from_secs(30));
    machine.power_cut();
    machine.boot_again().unwrap();
    machine.ok("systemctl start matrix-synapse.service");
    assert_eq!(property(&machine, "matrix-postgres.service", "ActiveState"), "active");
    let said = Synapse::of(&machine).messages(&Synapse::of(&machine).log_in("ada"), &room);
    assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())]);
}

#[test]
fn the_units_expose_little() {
    let Some(machine) = machine::for_test("security") else { return };
    for (unit, limit) in [
        ("matrix-postgres-backup.service", 2.0),
        ("matrix-postgres-notify@x.service", 4.0),
        ("matrix-postgres-backup-verify.service", 2.0),
        ("matrix-postgres.service", 3.0),
        ("matrix-postgres-upgrade.service", 3.0),
        ("matrix-postgres-recover.service", 3.0),
    ] {
        let verified = machine.run(&format!("systemd-analyze verify {unit}"));
        assert_eq!((verified.status, verified.stderr.as_str()), (0, ""), "{unit}");
        let report = machine.ok(&format!("systemd-analyze security --no-pager {unit}"));
        let level =
            report.lines().last().and_then(|line| line.split(": ").nth(1)?.split(' ').next()?.parse().ok());
        let level: f64 = level.expect(&report);
        assert!(level <= limit, "{unit}: {level}\n{report}");
    }
}

#[test]
fn removing_and_purging_the_package_keeps_the_data() {
    let Some(machine) = machine::for_test("purge") else { return };
    start(&machine);
    machine.ok("touch /var/backups/matrix-postgres/kept && dpkg --remove matrix-postgres 2>&1");
    machine.ok("! pgrep -u matrix-postgres && ! systemctl --quiet is-active matrix-postgres-backup.timer");
    machine.ok("dpkg --purge matrix-postgres 2>&1");
    machine.ok("test -f /matrix/postgres/data/PG_VERSION -a -f /var/backups/matrix-postgres/kept");
    // Installed once more, it goes on where it was.
    machine::package::install(&machine);
    start(&machine);
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "active");
}

#[test]
fn the_package_stays_while_an_upgrade_is_not_ended() {
    let Some(machine) = machine::for_test("removal") else { return };
    machine
        .ok("mkdir -p /etc/matrix-postgres && echo 'server.version = 15' >/etc/matrix-postgres/config.toml");
    start(&machine);
    machine.ok("echo 'upgrade.backup_within = \"never\"' >/etc/matrix-postgres/config.toml
         matrix-postgres-upgrade run --pause stopping-server >/root/said 2>&1 & echo $! >/root/pid");
    machine.wait_for("grep 'pausing: ' /root/said", Duration::from_secs(60));
    let removed = machine.run("dpkg --remove matrix-postgres");
    assert_ne!(removed.status, 0, "{removed}");
    assert!(removed.stderr.contains("HINT: matrix-postgres-upgrade recover"), "{removed}");
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "active");
    machine.ok("kill -KILL $(cat /root/pid)");
    let ended = "matrix-postgres-upgrade recover
         ! grep -a '\"ended\": null' /var/lib/matrix-postgres-upgrade/upgrade/journal.json";
    machine.wait_for(ended, Duration::from_secs(60));
    machine.ok("systemctl is-active matrix-postgres.service");
    machine.ok("dpkg --remove matrix-postgres");
}

#[test]
fn a_timer_that_was_disabled_stays_so() {
    let Some(machine) = machine::for_test("timer") else { return };
    machine.ok("systemctl disable --quiet --now matrix-postgres-backup.timer");
    machine.ok("apt-get install --reinstall --yes /root/matrix-postgres.deb 2>&1");
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "inactive");
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "UnitFileState"), "disabled");
}

#[test]
fn each_major_version_runs_and_a_missing_one_is_named() {
    let Some(machine) = machine::for_test("majors") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    for major in ["13", "15"] {
        machine.write("/etc/matrix-postgres/config.toml", &format!("[server]\nversion = {major}\n"));
        start(&machine);
        // The setting is for new clusters. One that exists keeps its own.
        machine.ok("rm /etc/matrix-postgres/config.toml && systemctl restart matrix-postgres.service");
        let version = sql(&machine, "SHOW server_version");
        assert!(version.starts_with(&format!("{major}.")), "{version}");
        machine.ok("systemctl stop matrix-postgres.service");
        machine.ok(&format!("mv /matrix/postgres/data /matrix/postgres/{major}"));
    }
    machine.ok("mv /matrix/postgres/13 /matrix/postgres/data && rm -r /usr/lib/postgresql/13");
    let journal = refusal(&machine, NOT_INSTALLED);
    assert!(journal.contains("PostgreSQL 13 is not installed (installed: 15, 17)"), "{journal}");
    assert!(journal.contains("HINT: apt-get install postgresql-13"), "{journal}");
    machine.ok("test -f /matrix/postgres/data/PG_VERSION");
}

#[test]
fn a_data_directory_in_use_is_left_alone() {
    let Some(machine) = machine::for_test("in-use") else { return };
    start(&machine);
    machine.ok("systemctl stop matrix-postgres.service");
    machine.ok("systemd-run --quiet --unit=other.service --uid=matrix-postgres --service-type=notify \
         /usr/lib/postgresql/17/bin/postgres -D /matrix/postgres/data -k /tmp -c listen_addresses=");
    let journal = refusal(&machine, DATA_DIRECTORY);
    assert!(journal.contains("/matrix/postgres/data is in use by other.service"), "{journal}");
    assert!(journal.contains("HINT: systemctl stop other.service"), "{journal}");
    assert_eq!(property(&machine, "other.service", "ActiveState"), "active");

    // As the hint says.
    machine.ok("systemctl stop other.service");
    start(&machine);
}

#[test]
fn a_server_that_is_killed_comes_back() {
    let Some(machine) = machine::for_test("killed") else { return };
    start(&machine);
    let pid = property(&machine, "matrix-postgres.service", "MainPID");
    machine.ok(&format!("kill -KILL {pid}"));
    machine.wait_for("matrix-postgres-cli -XAtc 'SELECT 1'", Duration::from_secs(30));
    assert_ne!(property(&machine, "matrix-postgres.service", "MainPID"), pid);
}

#[test]
fn a_check_before_an_upgrade_names_what_stands_in_the_way_and_changes_nothing() {
    let Some(machine) = machine::for_test("check") else { return };
    machine.write("/etc/matrix-postgres.toml", "[server]\nversion = 15\n");
    let refused = machine.run("matrix-postgres-upgrade check");
    assert_eq!(refused.status.to_string(), DATA_DIRECTORY, "{refused}");
    machine
        .ok("mkdir -p /etc/matrix-postgres && mv /etc/matrix-postgres.toml /etc/matrix-postgres/config.toml");
    let stopped = |machine: &Machine| machine.run("matrix-postgres-upgrade check").stdout;
    start(&machine);
    Synapse::set_up(&machine);
    let state = "find /matrix/postgres/data -maxdepth 1 -printf '%f %i\\n' | sort";
    let before = machine.ok(state);
    let report = machine.ok("matrix-postgres-upgrade check");
    assert!(report.contains("\nupgrade from PostgreSQL 15 to 17: possible"), "{report}");
    assert!(report.contains("to be stopped and started: matrix-synapse.service"), "{report}");
    assert!(report.contains("connected: synapse@homeserver"), "{report}");
    assert_eq!(machine.ok(state), before);

    sql(&machine, "CREATE EXTENSION pg_trgm");
    sql(&machine, "ALTER SYSTEM SET vacuum_defer_cleanup_age = 0");
    machine.ok("mv /usr/share/postgresql/17/extension/pg_trgm.control /root/");
    let found = machine.run("matrix-postgres-upgrade check --json");
    assert_eq!(found.status, 40, "{found}");
    assert!(found.stdout.contains("extension pg_trgm of database \\\"homeserver\\\""), "{found}");
    machine.ok("systemctl restart matrix-postgres.service");
    assert!(stopped(&machine).contains("does not know the setting vacuum_defer_cleanup_age"));
    let same = machine.run("matrix-postgres-upgrade check --to 15");
    assert!(same.status == 40 && same.stdout.contains("current 15, target 15"), "{same}");
    let missing = machine.run("matrix-postgres-upgrade check --to 18");
    assert!(missing.stdout.contains("HINT: apt-get install postgresql-18"), "{missing}");
    machine.ok("systemctl stop matrix-postgres.service");
    assert!(stopped(&machine).contains("BLOCKER  the server is not running"));
}
