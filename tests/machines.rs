//! The package in booted machines: what it installs, how the server runs beside Debian's own, and how it
//! refuses.

use crate::machine::{self, Machine, Synapse};

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
    machine.wait_for("curl --silent --fail http://localhost:8008/health");
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
        ("matrix-postgres-backup.service", 0.5),
        ("matrix-postgres-notify@x.service", 2.5),
        ("matrix-postgres-backup-verify.service", 0.5),
        ("matrix-postgres-backup-offsite.service", 1.5),
        ("matrix-postgres-container@x.service", 1.5),
        ("matrix-postgres-report@x.service", 1.0),
        ("matrix-postgres-companions@x.service", 1.5),
        // See SECURITY.md for what is open.
        ("matrix-postgres.service", 2.6),
        ("matrix-postgres-upgrade.service", 2.5),
        ("matrix-postgres-recover.service", 2.5),
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
    let removed = machine.ok("touch /var/backups/matrix-postgres/kept && dpkg --remove matrix-postgres 2>&1");
    for kept in ["/matrix/postgres is kept", "/var/backups/matrix-postgres is kept"] {
        assert!(removed.contains(kept), "{removed}");
    }
    machine.ok("! pgrep -u matrix-postgres && ! systemctl --quiet is-active matrix-postgres-backup.timer");
    machine.ok("dpkg --purge matrix-postgres 2>&1");
    machine.ok("test -f /matrix/postgres/data/PG_VERSION -a -f /var/backups/matrix-postgres/kept");
    machine.ok("! test -e /etc/matrix-postgres && ! ls /etc/systemd/system/*.wants | grep matrix-postgres");
    // Installed once more, it goes on where it was.
    machine::package::install(&machine);
    start(&machine);
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "active");
}

#[test]
fn the_programs_are_one_file_and_each_is_what_it_is_called() {
    let Some(machine) = machine::for_test("names") else { return };
    let files = machine.ok("stat -L -c '%i %n' /usr/bin/matrix-postgres* /usr/libexec/matrix-postgres/*");
    let inodes: Vec<_> = files.lines().map(|line| line.split(' ').next()).collect();
    assert!(inodes.len() == 6 && inodes.iter().all(|inode| *inode == inodes[0]), "{files}");
    for name in ["matrix-postgres", "matrix-postgres-backup", "matrix-postgres-upgrade"] {
        let version = machine.ok(&format!("{name} --version"));
        assert!(version.starts_with(&format!("{name} ")), "{version}");
    }
    let server = "/usr/libexec/matrix-postgres/matrix-postgres-server";
    assert!(machine.ok(&format!("{server} --version")).starts_with("matrix-postgres-server "));
    // A copy by another name tells which the others are.
    machine.ok("cp /usr/bin/matrix-postgres /root/mp");
    let said = machine.run("/root/mp --help");
    assert!(said.stdout.contains("matrix-postgres-backup(1)"), "{said}");
}

/// The package, with another version.
const OLDER: &str = "cd /root && rm -rf older && dpkg-deb -R matrix-postgres.deb older
    sed -i 's/^Version: .*/Version: 0.0.1-1/' older/DEBIAN/control && dpkg-deb -Zgzip -b older older.deb";

#[test]
fn an_update_of_the_package_interrupts_neither_server_nor_backup() {
    let Some(machine) = machine::for_test("update") else { return };
    machine.ok(&format!("{OLDER} && dpkg --install older.deb 2>&1"));
    start(&machine);
    sql(&machine, "CREATE TABLE t AS SELECT generate_series(1, 5) n");
    // pg_dump waits for the table.
    machine.ok("systemd-run --quiet --unit=holder matrix-postgres-cli -XAtc \
        'BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3600)'");
    machine.wait_for("matrix-postgres-cli -XAtc \"SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted\" | grep 1");
    machine.ok("systemctl start --no-block matrix-postgres-backup.service");
    machine.wait_for("pgrep -x pg_dump");
    let pids = || {
        ["matrix-postgres.service", "matrix-postgres-backup.service"]
            .map(|unit| property(&machine, unit, "MainPID"))
    };
    let before = pids();
    let updated = machine.ok("dpkg --install /root/matrix-postgres.deb 2>&1");
    assert!(updated.contains("over (0.0.1-1)"), "{updated}");
    assert_eq!(pids(), before);
    sql(
        &machine,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted",
    );
    machine.wait_for("matrix-postgres-backup status --json | grep '\"well\": true'");
    assert_eq!(property(&machine, "matrix-postgres-backup.service", "Result"), "success");
    assert_eq!(property(&machine, "matrix-postgres.service", "MainPID"), before[0]);
    for timer in [
        "matrix-postgres-backup.timer",
        "matrix-postgres-backup-verify.timer",
        "matrix-postgres-backup-offsite.timer",
    ] {
        assert_eq!(property(&machine, timer, "ActiveState"), "active");
    }
}

#[test]
fn a_new_cluster_is_in_var_lib_and_stays_there() {
    let Some(machine) = machine::for_test("layout") else { return };
    // What only an earlier version has made.
    machine.ok("rmdir /matrix/postgres && mkdir -p /etc/matrix-postgres");
    machine.write(
        "/etc/matrix-postgres/config.toml",
        "server.version = 15\nupgrade.backup_within = \"never\"\n",
    );
    start(&machine);
    let home = "/var/lib/matrix-postgres";
    assert_eq!(
        machine.ok(&format!("stat -c '%U %a' {home} {home}/data")),
        "matrix-postgres 700\nmatrix-postgres 700"
    );
    machine.ok("! ls /matrix/postgres");
    let synapse = machine::Synapse::set_up_on(
        &machine,
        "matrix-postgres.service",
        &format!("{home}/synapse-database.yaml"),
    );
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "layouts");
    synapse.send(&user, &room, "before the upgrade");
    let talks = || {
        machine.wait_for("curl --silent --fail http://localhost:8008/health");
        let said = synapse.messages(&synapse.log_in("ada"), &room);
        assert!(said.iter().any(|(_, text)| text == "before the upgrade"), "{said:?}");
    };
    machine.ok("systemctl enable --quiet matrix-postgres.service matrix-synapse.service");
    machine.ok("systemctl start matrix-postgres-backup.service matrix-postgres-backup-verify.service");

    // A playbook that comes later has the other place.
    machine.ok("mkdir -p /matrix/postgres/data");
    machine.power_off();
    machine.boot_again().unwrap();
    talks();
    machine.ok("systemctl start matrix-postgres-upgrade.service");
    talks();
    assert_eq!(
        machine.ok(&format!("cat {home}/data/PG_VERSION {home}/auto-upgrade-backup/PG_VERSION")),
        "17\n15"
    );
    machine.ok("systemctl start matrix-postgres-backup.service && matrix-postgres-upgrade rollback --yes");
    talks();
    assert_eq!(machine.ok(&format!("cat {home}/data/PG_VERSION")), "15");
    machine.ok("systemctl start matrix-postgres-backup.service && matrix-postgres-upgrade clean --yes");
    assert_eq!(machine.ok(&format!("ls -A {home} | grep -v synapse-database")), "data");

    let removed = machine.ok("dpkg --purge matrix-postgres 2>&1");
    assert!(removed.contains(&format!("{home} is kept")), "{removed}");
    assert_eq!(machine.ok(&format!("cat {home}/data/PG_VERSION")), "15");
}

#[test]
fn a_configuration_that_was_there_before_the_package_stays() {
    let Some(machine) = machine::bare_for_test("config-before") else { return };
    let file = "/etc/matrix-postgres/config.toml";
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write(file, "server.version = 15\n");
    machine.ok(&format!("chmod 0640 {file}"));
    // Nobody is there who could be asked.
    machine::package::install(&machine);
    let theirs = format!("cat {file} && stat -c %a {file} && ls -A /etc/matrix-postgres");
    assert_eq!(machine.ok(&theirs), "server.version = 15\n640\nconfig.toml");
    machine.ok("apt-get install --reinstall --yes /root/matrix-postgres.deb 2>&1 </dev/null");
    assert_eq!(machine.ok(&theirs), "server.version = 15\n640\nconfig.toml");
    start(&machine);
    assert_eq!(machine.ok("cat /matrix/postgres/data/PG_VERSION"), "15");
    machine.ok("dpkg --purge matrix-postgres 2>&1 && ! test -e /etc/matrix-postgres");
    // Without one, there is the package's, in which everything is commented out.
    machine::package::install(&machine);
    assert_eq!(machine.ok(&format!("grep -v -e '^#' -e '^$' -e '^\\[' {file} || true")), "");
    machine.ok(&format!("grep '^#data_directory' {file} && matrix-postgres-backup status || true"));
}

#[test]
fn the_package_can_be_installed_in_an_image_that_is_being_built() {
    let Some(machine) = machine::bare_for_test("image") else { return };
    machine.copy_in(&machine::package::current().unwrap(), "/root/matrix-postgres.deb");
    // Neither /proc nor /run nor a running systemd.
    machine.ok("mkdir /mnt/root && mount --bind / /mnt/root && test ! -e /mnt/root/proc/self
        test -c /mnt/root/dev/null || mknod -m 666 /mnt/root/dev/null c 1 3
        chroot /mnt/root dpkg --install /root/matrix-postgres.deb 2>&1 && umount /mnt/root");
    machine.ok("dpkg-query --show --showformat='${Status}' matrix-postgres | grep 'install ok installed'");
    machine.ok("getent passwd matrix-postgres matrix-postgres-notify");
    machine.power_off();
    machine.boot_again().unwrap();
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "active");
    start(&machine);
    machine.ok("systemctl start matrix-postgres-backup.service && matrix-postgres-backup status");
}

#[test]
fn the_packages_own_test_passes() {
    let Some(machine) = machine::for_test("autopkgtest") else { return };
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb/tests");
    machine.copy_in(&tests.join("server-and-backup"), "/root/server-and-backup");
    machine.ok("sh /root/server-and-backup 2>&1");
}

#[test]
fn the_package_stays_while_an_upgrade_is_not_ended() {
    let Some(machine) = machine::for_test("removal") else { return };
    machine
        .ok("mkdir -p /etc/matrix-postgres && echo 'server.version = 15' >/etc/matrix-postgres/config.toml");
    start(&machine);
    machine.ok("echo 'upgrade.backup_within = \"never\"' >/etc/matrix-postgres/config.toml
         matrix-postgres-upgrade run --pause stopping-server >/root/said 2>&1 & echo $! >/root/pid");
    machine.wait_for("grep 'pausing: ' /root/said");
    let removed = machine.run("dpkg --remove matrix-postgres");
    assert_ne!(removed.status, 0, "{removed}");
    assert!(removed.stderr.contains("HINT: matrix-postgres-upgrade recover"), "{removed}");
    assert_eq!(property(&machine, "matrix-postgres-backup.timer", "ActiveState"), "active");
    machine.ok("kill -KILL $(cat /root/pid)");
    let ended = "matrix-postgres-upgrade recover
         ! grep -a '\"ended\": null' /var/lib/matrix-postgres-upgrade/upgrade/journal.json";
    machine.wait_for(ended);
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
    machine.wait_for("matrix-postgres-cli -XAtc 'SELECT 1'");
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
