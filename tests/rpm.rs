//! The .rpm, installed by rpm in a booted Debian that has the presets of a Fedora: its scripts, and a backup. What needs a
//! Fedora, docs/rpm.md says.

use std::path::Path;
use std::process::Command;

use crate::machine::{self, Machine, package};

const UNITS: [&str; 5] = [
    "matrix-postgres.service",
    "matrix-postgres-recover.service",
    "matrix-postgres-backup.timer",
    "matrix-postgres-backup-verify.timer",
    "matrix-postgres-backup-offsite.timer",
];

/// A machine with rpm, both versions of the package in /root, and nothing installed.
fn for_test(name: &str) -> Option<Machine> {
    let machine = machine::bare_for_test(name)?;
    let rpm = package::current_rpm().expect("the .rpm should be there");
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let older = tempfile::tempdir().expect("a temporary directory");
    build(tree, older.path());
    machine.copy_in(&older.path().join("older.rpm"), "/root/older.rpm");
    machine.copy_in(&rpm, "/root/matrix-postgres.rpm");
    // rpm of this machine, with the libraries that the other one lacks.
    let needed = "ldd /usr/bin/rpm | sed -n 's/.*=> \\(.*\\) (.*/\\1/p'";
    let libraries = String::from_utf8(sh(needed).stdout).expect("paths");
    let lacking = libraries.lines().filter(|file| {
        let name = file.rsplit('/').next().unwrap_or_default();
        machine.run(&format!("ldconfig -p | grep -cF '{name} '")).status != 0
    });
    let files: Vec<_> = ["/usr/bin/rpm", "/usr/lib/rpm"].into_iter().chain(lacking).collect();
    let archive = older.path().join("rpm.tar");
    let packed =
        sh(&format!("tar --create --dereference --file={} {} 2>&1", archive.display(), files.join(" ")));
    assert!(packed.status.success(), "{packed:?}");
    machine.copy_in(&archive, "/root/rpm.tar");
    machine.ok("tar --extract --keep-directory-symlink --directory=/ --file=/root/rpm.tar && ldconfig && rpm --version");
    machine.ok("mkdir -p /etc/systemd/system-preset
        echo 'disable *' >/etc/systemd/system-preset/99-default-disable.preset");
    Some(machine)
}

fn sh(script: &str) -> std::process::Output {
    Command::new("sh").args(["-c", script]).output().expect("sh should run")
}

/// The same package, with a lower version.
fn build(tree: &Path, into: &Path) {
    let spec = std::fs::read_to_string(tree.join("packaging/rpm/matrix-postgres.spec")).expect("the spec");
    let file = into.join("older.spec");
    std::fs::write(&file, spec.replace("\nVersion:        ", "\nVersion:        0.0."))
        .expect("a spec should be written");
    let built = Command::new("rpmbuild")
        .args([
            "-bb",
            "--quiet",
            "--define",
            "_rpmfilename older.rpm",
            "--define",
            "__os_install_post %{nil}",
        ])
        .args(["--define", &format!("_topdir {}/build", into.display())])
        .args(["--define", &format!("_rpmdir {}", into.display())])
        .args(["--define", &format!("tree {}", tree.display())])
        .arg(&file)
        .output()
        .expect("rpmbuild should run");
    assert!(built.status.success(), "{built:?}");
}

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.ok(&format!("systemctl show --value --property={name} {unit}"))
}

fn states(machine: &Machine, name: &str) -> [String; UNITS.len()] {
    UNITS.map(|unit| property(machine, unit, name))
}

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -XAtc {}", machine::synapse::quote(statement)))
}

#[test]
fn it_is_installed_updated_while_a_backup_runs_and_removed() {
    let Some(machine) = for_test("rpm") else { return };
    machine.ok("rpm --install --nodeps /root/older.rpm 2>&1");
    // Presets say what is enabled, and nothing is started.
    assert_eq!(states(&machine, "UnitFileState"), ["disabled"; UNITS.len()]);
    assert_eq!(states(&machine, "ActiveState"), ["inactive"; UNITS.len()]);
    assert_eq!(machine.ok("stat -c '%U %a' /var/backups/matrix-postgres"), "matrix-postgres 700");
    machine.ok("systemd-analyze verify matrix-postgres.service matrix-postgres-backup.service 2>&1");
    // As the README says.
    machine.ok(&format!("systemctl enable --quiet --now {}", UNITS.join(" ")));
    sql(&machine, "CREATE TABLE t AS SELECT generate_series(1, 5) n");
    machine.ok("systemctl start matrix-postgres-backup.service && matrix-postgres-backup status");
    machine.ok("systemctl start matrix-postgres-backup-verify.service");

    // pg_dump waits for the table.
    machine.ok("systemd-run --quiet --unit=holder matrix-postgres-cli -XAtc \
        'BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3600)'");
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
    machine.wait_for(&format!("matrix-postgres-cli -XAtc \"{held}\" | grep 1"));
    machine.ok("systemctl start --no-block matrix-postgres-backup.service");
    machine.wait_for("pgrep -x pg_dump");
    let pids = || {
        ["matrix-postgres.service", "matrix-postgres-backup.service"]
            .map(|unit| property(&machine, unit, "MainPID"))
    };
    let before = pids();
    machine.ok("sed -i 's/^#wait = .*/wait = \"1h\"/' /etc/matrix-postgres/config.toml");
    machine.ok("rpm --upgrade --nodeps /root/matrix-postgres.rpm 2>&1");
    assert_eq!(machine.ok("rpm --query matrix-postgres --queryformat '%{version}'"), "0.1.0");
    assert_eq!(pids(), before);
    machine.ok("grep '^wait = \"1h\"' /etc/matrix-postgres/config.toml");
    sql(
        &machine,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted",
    );
    machine.wait_for("test \"$(systemctl is-active matrix-postgres-backup.service)\" = inactive");
    assert_eq!(property(&machine, "matrix-postgres-backup.service", "Result"), "success");
    machine.ok("matrix-postgres-backup status && matrix-postgres-backup verify");
    assert_eq!(states(&machine, "UnitFileState"), ["enabled"; UNITS.len()]);

    let removed = machine.ok("rpm --erase matrix-postgres 2>&1");
    assert!(removed.contains("/var/lib/matrix-postgres is kept"), "{removed}");
    assert!(removed.contains("/var/backups/matrix-postgres is kept"), "{removed}");
    machine.ok("! pgrep -u matrix-postgres && ! ls /etc/systemd/system/*.wants | grep matrix-postgres");
    machine.ok(
        "test -f /var/lib/matrix-postgres/data/PG_VERSION && grep '^wait = \"1h\"' /etc/matrix-postgres/config.toml*",
    );
    assert_eq!(states(&machine, "ActiveState"), ["inactive"; UNITS.len()]);
    // Installed once more, it goes on where it was.
    machine.ok(
        "rpm --install --nodeps /root/matrix-postgres.rpm 2>&1 && systemctl start matrix-postgres.service",
    );
    assert_eq!(sql(&machine, "SELECT count(*) FROM t"), "5");
}

#[test]
fn a_playbooks_units_and_an_unfinished_upgrade_are_safe_from_it() {
    let Some(machine) = for_test("rpm-shadowed") else { return };
    machine.write(
        "/etc/systemd/system/matrix-postgres.service",
        "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
    );
    machine.ok("systemctl daemon-reload && systemctl enable --quiet --now matrix-postgres.service");
    let theirs = || {
        let unit = "matrix-postgres.service";
        ["MainPID", "ActiveState", "UnitFileState", "FragmentPath"].map(|name| property(&machine, unit, name))
    };
    let before = theirs();
    assert_eq!(before[2], "enabled");
    machine.ok("rpm --install --nodeps /root/older.rpm 2>&1");
    assert_eq!(theirs(), before);
    machine.ok("rpm --upgrade --nodeps /root/matrix-postgres.rpm 2>&1");
    assert_eq!(theirs(), before);
    // Half an upgrade would be left to nobody.
    let journal = "/var/lib/matrix-postgres-upgrade/upgrade/journal.json";
    machine.ok(&format!("install -D -m 0600 /dev/null {journal} && echo '{{\"ended\": null}}' >{journal}"));
    let refused = machine.run("rpm --erase matrix-postgres");
    assert!(
        refused.status != 0 && refused.stderr.contains("HINT: matrix-postgres-upgrade recover"),
        "{refused}"
    );
    machine.ok(&format!("command -v matrix-postgres-upgrade && rm {journal}"));
    machine.ok("rpm --erase matrix-postgres 2>&1");
    assert_eq!(theirs(), before);
}
