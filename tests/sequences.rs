//! One thing after another, by the units, as in the life of a server: what each verb leaves must not stand in the way of the
//! next, and no state is a trap.

use crate::machine::upgrade::{UPGRADE, comes_up, is_well, pause_at, prepare};
use crate::machine::{self, Machine};

const STATE: &str = "/var/lib/matrix-postgres-upgrade";
const JOURNAL: &str = "/var/lib/matrix-postgres-upgrade/upgrade/journal.json";
const BACKUP: &str = "systemctl start matrix-postgres-backup.service";

/// What systemd and the units must leave as it is.
fn owners(machine: &Machine) -> String {
    machine.ok(&format!(
        "stat --format='%n %U:%G %a' {STATE} {STATE}/lock /var/lib/matrix-postgres /var/backups/matrix-postgres; \
         find {STATE}/upgrade -printf '%f %u %m\\n' | sort"
    ))
}

#[track_caller]
fn restarts(machine: &Machine) {
    machine.ok(
        "systemctl restart matrix-postgres.service || { journalctl -u matrix-postgres -n 20 >&2; false; }",
    );
    machine.wait_for("systemctl start matrix-synapse && curl --silent --fail http://localhost:8008/health");
}

#[test]
fn backups_and_upgrades_by_their_units_do_not_stand_in_each_others_way() {
    let Some(machine) = machine::for_test("sequence") else { return };
    let (_, room) = prepare(&machine, 15, "online");
    machine.ok("systemctl enable --quiet matrix-postgres.service matrix-synapse.service");
    machine.ok(BACKUP);
    machine.ok(UPGRADE);
    let before = owners(&machine);
    assert!(before.contains(&format!("{STATE} root:root 711")), "{before}");
    assert!(before.contains(&format!("{STATE}/lock root:matrix-postgres 640")), "{before}");
    machine.ok(BACKUP);
    machine.ok("systemctl start matrix-postgres-backup-verify.service");
    assert_eq!(owners(&machine), before);
    restarts(&machine);
    machine
        .ok("matrix-postgres-backup run && matrix-postgres-backup verify && matrix-postgres-upgrade status");
    machine.ok(BACKUP);
    assert_eq!(owners(&machine), before);
    machine.power_off();
    machine.boot_again().unwrap();
    machine.wait_for("curl --silent --fail http://localhost:8008/health");
    is_well(&machine, "17", &room);
    assert_eq!(owners(&machine), before);
    machine.ok("matrix-postgres-backup status");

    // The backup's user may lock the lock, and neither write nor replace it, nor read what root keeps there.
    let mp = |script: &str| {
        machine.run(&format!("runuser -u matrix-postgres -- sh -c {}", machine::synapse::quote(script)))
    };
    assert_eq!(mp(&format!("flock --nonblock {STATE}/lock true")).status, 0);
    for denied in [
        "echo x >$/lock",
        "rm -f $/lock",
        "ls $",
        "cat $/upgrade/*",
        "ln -s /x $/y",
        "cat $/upgrade/journal.json",
    ] {
        let denied = denied.replace('$', STATE);
        assert_ne!(mp(&denied).status, 0, "{denied}");
    }
}

#[test]
fn a_backup_waits_for_what_is_under_way_and_is_made_then() {
    let Some(machine) = machine::for_test("waiting") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    machine.ok(&format!("systemd-run --quiet --unit=holder flock {STATE}/lock sleep infinity"));
    machine.wait_for(&format!("! flock --nonblock {STATE}/lock true"));
    machine.ok("systemctl start --no-block matrix-postgres-backup.service");
    machine.wait_for("journalctl -o cat -u matrix-postgres-backup | grep 'waiting: another backup, restore or upgrade is running'");
    machine.ok("matrix-postgres-backup list | grep 'no backups'");
    // A limit that is reached is told.
    machine.ok("mkdir -p /etc/matrix-postgres && echo 'wait = \"0s\"' >/etc/matrix-postgres/config.toml");
    assert_eq!(machine.run("matrix-postgres-backup run").status, machine::upgrade::LOCKED);
    machine.ok("systemctl stop holder.service");
    machine.wait_for("matrix-postgres-backup status --json | grep '\"well\": true'");
    assert_eq!(machine.ok("find /var/backups/matrix-postgres -name '.holder*'"), "");
}

#[test]
fn a_journal_that_makes_no_sense_keeps_no_server_down() {
    let Some(machine) = machine::for_test("senseless") else { return };
    machine.ok(&format!("systemctl start matrix-postgres.service && install -d -m 0700 {STATE}/upgrade"));
    for text in ["", "{\"format\": 1, \"id\":", "{\"format\": 99}", "something else"] {
        machine.write("/root/text", text);
        machine.ok(&format!(
            "install -m 0600 /root/text {JOURNAL} && systemctl restart matrix-postgres.service"
        ));
        assert!(machine.ok("matrix-postgres-upgrade status").contains(JOURNAL), "{text}");
        let recovered = machine.run("matrix-postgres-upgrade recover");
        assert!(recovered.status == 0 && recovered.stderr.contains("renamed to"), "{text}: {recovered}");
        machine.ok(&format!("! test -e {JOURNAL} && rm {STATE}/upgrade/*.unusable-*"));
    }
    // The kind of file does not matter, either.
    machine.ok(&format!("mkfifo -m 600 {JOURNAL} && timeout 60 systemctl restart matrix-postgres.service"));
    machine.ok(&format!("timeout 60 matrix-postgres-upgrade recover && ! test -e {JOURNAL}"));
    // Where the old cluster may be beside, no new one is made.
    machine
        .ok("systemctl stop matrix-postgres && cd /matrix/postgres && mv data data.upgrade-20261124T030000Z");
    assert_ne!(machine.run("systemctl start matrix-postgres.service").status, 0);
    let said = machine.ok("journalctl -o cat -u matrix-postgres -n 20");
    assert!(said.contains("data.upgrade-20261124T030000Z exists: no new cluster is initialised"), "{said}");
    machine.ok("! test -e /matrix/postgres/data");
}

/// As SIGKILL at this step would leave it if nobody put it in order.
fn cut_off(machine: &Machine, step: &str) {
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres-upgrade.service.d");
    machine.write(
        "/etc/systemd/system/matrix-postgres-upgrade.service.d/stay.conf",
        "[Service]\nExecStopPost=\n",
    );
    pause_at(machine, step);
    machine.ok("systemctl mask --runtime matrix-postgres-recover.service");
    machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
    machine.wait_for("systemctl is-failed matrix-postgres-upgrade.service");
    machine.ok("rm -r /etc/systemd/system/matrix-postgres-upgrade.service.d; \
        systemctl unmask --runtime matrix-postgres-recover.service && systemctl daemon-reload");
}

#[test]
fn what_the_version_before_has_left_is_taken_over_with_the_package() {
    let Some(machine) = machine::for_test("taken-over") else { return };
    let (_, room) = prepare(&machine, 15, "dump");
    cut_off(&machine, "transferring");
    // It kept its journal where the backup's user could write, and so it did with its lock.
    machine.ok(&format!(
        "install -d -m 0700 /var/lib/matrix-postgres/upgrade
         python3 - <<'END'
import re
slots = open('{JOURNAL}', 'rb').read()
half = len(slots) // 2
newest = max((slot for slot in (slots[:half], slots[half:]) if slot.startswith(b'journal')), key=lambda slot: slot[:28])
open('/var/lib/matrix-postgres/upgrade/journal.json', 'wb').write(newest[64:].rstrip() + b'\\n')
END
         rm -r {STATE} && touch /var/lib/matrix-postgres/lock && chown -R matrix-postgres: /var/lib/matrix-postgres
         apt-get install --reinstall --yes /root/matrix-postgres.deb 2>&1"
    ));
    machine.ok(&format!("test -f {JOURNAL} && ! ls /var/lib/matrix-postgres/upgrade/journal.json"));
    machine
        .ok("matrix-postgres-upgrade status | grep 'unfinished upgrade .*: dumping and restoring databases'");
    // It cannot be removed, as little as before.
    assert_ne!(machine.run("dpkg --remove matrix-postgres").status, 0);
    machine.ok("systemctl start matrix-postgres-recover.service");
    comes_up(&machine, "transferring", &room);
}

#[test]
fn a_state_directory_that_is_full_does_not_keep_the_homeserver_down() {
    let Some(machine) = machine::for_test("full-state") else { return };
    let (_, room) = prepare(&machine, 15, "online");
    machine.ok(&format!(
        "mount -t tmpfs -o size=1M,mode=711 tmpfs {STATE} && systemd-tmpfiles --create matrix-postgres.conf"
    ));
    pause_at(&machine, "promoting");
    machine.ok(&format!(
        "head --bytes=2M /dev/zero >{STATE}/full || true; ! head --bytes=9000 /dev/zero >{STATE}/x"
    ));
    machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
    comes_up(&machine, "promoting", &room);
    let said = machine.ok("matrix-postgres-upgrade status");
    assert!(said.contains("the homeserver runs on PostgreSQL 15: the upgrade to"), "{said}");
}

#[test]
fn a_fault_that_passes_is_outlived() {
    let Some(machine) = machine::for_test("read-only") else { return };
    let (_, room) = prepare(&machine, 15, "online");
    machine.ok(&format!(
        "mount -t tmpfs -o size=8M,mode=711 tmpfs {STATE} && systemd-tmpfiles --create matrix-postgres.conf"
    ));
    pause_at(&machine, "upgrading");
    machine.ok(&format!(
        "mount -o remount,ro {STATE}
         systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service"
    ));
    machine
        .wait_for("systemctl show --property=SubState matrix-postgres-recover.service | grep auto-restart");
    machine.ok(&format!("mount -o remount,rw {STATE}"));
    comes_up(&machine, "upgrading", &room);
}

#[test]
fn whoever_kills_all_of_an_upgrade_leaves_no_homeserver_down() {
    let Some(machine) = machine::for_test("killed-whole") else { return };
    let (_, room) = prepare(&machine, 15, "dump");
    pause_at(&machine, "transferring");
    // As `systemctl kill` does it, and who kills for want of memory: what is started after the program, too.
    machine.ok("systemctl kill --signal=KILL matrix-postgres-upgrade.service");
    comes_up(&machine, "transferring", &room);
}

#[test]
fn a_server_that_is_stopped_while_it_recovers_from_a_crash_stops() {
    let Some(machine) = machine::for_test("crashed") else { return };
    for major in [15, 17] {
        machine.ok("systemctl stop matrix-postgres.service; rm -rf /matrix/postgres/data; mkdir -p /etc/matrix-postgres");
        machine.write("/etc/matrix-postgres/config.toml", &format!("[server]\nversion = {major}\n"));
        let sql = "matrix-postgres-cli -d postgres -XAtqc";
        machine.ok(&format!(
            "systemctl start matrix-postgres.service
             {sql} \"ALTER SYSTEM SET checkpoint_timeout = '1h'\"; {sql} \"ALTER SYSTEM SET max_wal_size = '8GB'\"
             {sql} 'SELECT pg_reload_conf()'; {sql} 'CHECKPOINT'
             {sql} 'CREATE TABLE much AS SELECT generate_series(1, 3000000) AS n'
             kill -KILL $({sql} \"SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'\")
             until {{ /usr/lib/postgresql/17/bin/pg_isready -qh /run/matrix-postgres; test $? = 1; }}; do sleep 0.05; done"
        ));
        // Told so before its time, by somebody else as well, it would wait forever: before systemd is asked, or while it waits.
        let kill = "systemctl kill --kill-whom=main --signal=INT matrix-postgres.service";
        machine.ok(&match major {
            15 => format!(
                "cursor=$(journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'); {kill}
                 until journalctl --after-cursor=\"$cursor\" -u matrix-postgres.service | grep -c 'received fast shutdown'; do sleep 0.05; done"
            ),
            _ => format!(
                "systemctl stop --no-block matrix-postgres.service
                 until systemctl show -p SubState --value matrix-postgres.service | grep -cE '^(stop|dead)'; do sleep 0.05; done
                 {kill} || true"
            ),
        });
        // However long the recovery takes, it is seconds.
        let stopped = machine.run("timeout 300 systemctl stop matrix-postgres.service");
        assert_eq!(stopped.status, 0, "PostgreSQL {major}: {stopped}");
        machine.ok("systemctl start matrix-postgres.service");
        assert_eq!(machine.ok(&format!("{sql} 'SELECT count(*) FROM much'")), "3000000");
        let said = machine.ok("systemctl show -p StatusText --value matrix-postgres.service");
        assert_eq!(said, format!("PostgreSQL {major}"));
        // It is heard again when systemd has started it by itself.
        machine.ok(
            "unit=matrix-postgres.service; before=$(systemctl show -p MainPID --value $unit)
             systemctl kill --kill-whom=main --signal=KILL $unit
             timeout 300 sh -c \"until systemctl show -p MainPID -p SubState $unit | grep -v ^MainPID=$before | sort | tr '\\n' ' ' |
                 grep -q '^MainPID=[1-9][0-9]* SubState=running'; do sleep 0.05; done\"",
        );
    }
}

#[test]
fn the_backups_user_starts_and_stops_the_server_and_nothing_of_roots() {
    let Some(machine) = machine::for_test("polkit") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    // What would let the recovery act.
    machine.ok(&format!("install -m 0600 /dev/null {STATE}/rehearsing"));
    let mp = |verb: &str| {
        machine.run(&format!("runuser -u matrix-postgres -- systemctl --no-ask-password {verb}"))
    };
    for verb in ["start", "stop", "start"] {
        let done = mp(&format!("{verb} matrix-postgres.service"));
        assert_eq!(done.status, 0, "{verb}: {done}");
        machine.ok(&format!("test -e {STATE}/rehearsing"));
    }
    for denied in [
        "restart matrix-postgres.service",
        "reload matrix-postgres.service",
        "start matrix-postgres-recover.service",
        "start matrix-postgres-upgrade.service",
        "stop dbus.service",
        "daemon-reload",
        "kill matrix-postgres.service",
    ] {
        assert_ne!(mp(denied).status, 0, "{denied}");
    }
}
