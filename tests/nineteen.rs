//! Version 19 in booted machines, as a server and as what an upgrade goes to: of a real homeserver, with what 19 has removed and
//! what it has under another name.

use crate::machine::upgrade::{NOT_WELL, journal, prepare, sql, upgrade};
use crate::machine::{self, Synapse};

#[test]
fn a_server_of_19_is_backed_up_tried_and_restored() {
    let Some(machine) = machine::for_test_on_newer("nineteen") else { return };
    assert!(machine.ok("systemctl --version").starts_with("systemd 262 "));
    let units = machine.run("systemd-analyze verify /usr/lib/systemd/system/matrix-*.{service,timer} 2>&1");
    assert!(units.status == 0 && !units.stdout.contains("matrix-"), "{units}");
    machine.start("matrix-postgres.service");
    assert!(sql(&machine, "postgres", "SHOW server_version").starts_with("19"));
    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    machine.ok("mkdir -p /etc/matrix-postgres");
    for format in ["custom", "plain"] {
        machine.write("/etc/matrix-postgres/config.toml", &format!("backup.format = \"{format}\"\n"));
        machine.start("matrix-postgres-backup.service");
        machine.start("matrix-postgres-backup-verify.service");
        let verified = machine.ok("matrix-postgres-backup verify 2>&1");
        let status = machine.run("matrix-postgres-backup status").stdout;
        assert!(status.contains(" passed on "), "{verified}\n{status}");
        sql(&machine, "homeserver", "DELETE FROM event_json");
        machine.ok(
            "matrix-postgres-backup restore --yes \"$(ls /var/backups/matrix-postgres | tail -n 1)\" 2>&1",
        );
        let said = synapse.messages(&synapse.log_in("ada"), &room);
        assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())], "{format}");
    }
}

/// The longest way.
#[test]
#[ignore = "make thorough"]
fn from_13_all_goes_along_online_and_back() {
    let Some(machine) = machine::for_test_on_newer("nineteen13-online") else { return };
    upgrade(&machine, prepare(&machine, 13, "online"), 13, 19, "on");
}

#[test]
#[ignore = "make thorough"]
fn from_15_it_is_rehearsed_and_all_goes_along_online_and_back() {
    let Some(machine) = machine::for_test_on_newer("nineteen15") else { return };
    let prepared = prepare(&machine, 15, "online");
    machine.ok("matrix-postgres-upgrade rehearse 2>&1");
    let check = machine.ok("matrix-postgres-upgrade check");
    assert!(check.contains("upgrade from PostgreSQL 15 to 19: possible"), "{check}");
    assert!(check.contains(": succeeded; downtime "), "{check}");
    upgrade(&machine, prepared, 15, 19, "on");
}

/// Of what is set in files, the target takes what it can; what else it would not take is found while all runs.
#[test]
fn from_18_all_goes_along_online_and_back() {
    let Some(machine) = machine::for_test_on_newer("nineteen18") else { return };
    let prepared = prepare(&machine, 18, "online");
    sql(&machine, "postgres", "SET password_encryption = md5; CREATE ROLE elder LOGIN PASSWORD 'old'");
    sql(&machine, "postgres", "ALTER ROLE elder SET standard_conforming_strings = off");
    sql(
        &machine,
        "postgres",
        "ALTER ROLE readers SET escape_string_warning = off; ALTER ROLE readers SET role = bridge",
    );
    machine.ok("echo 'host all elder samenet radius radiusservers=\"::1\" radiussecrets=\"x\"' >>/matrix/postgres/data/pg_hba.conf");
    let check = machine.run("matrix-postgres-upgrade check");
    assert_eq!(check.status, NOT_WELL, "{check}");
    for expected in [
        "not possible, 3 blockers",
        "the target version rejects standard_conforming_strings = off (ALTER ROLE \"elder\" SET): non-standard string literals",
        "the target version does not know the setting escape_string_warning (ALTER ROLE \"readers\" SET)",
        "PostgreSQL 19 would not start: it does not know radius (/matrix/postgres/data/pg_hba.conf, line ",
        "md5 passwords are deprecated in the target version, which warns at each login: elder",
        "default of jit changed from on to off",
    ] {
        assert!(check.stdout.contains(expected), "{expected}: {check}");
    }
    sql(&machine, "postgres", "DROP ROLE elder; ALTER ROLE readers RESET ALL");
    machine.ok("sed -i /radius/d /matrix/postgres/data/pg_hba.conf");
    for set in [
        "io_workers = 5",
        "escape_string_warning = off",
        "standard_conforming_strings = off",
        "max_locks_per_transaction = 64",
    ] {
        sql(&machine, "postgres", &format!("ALTER SYSTEM SET {set}"));
    }
    machine.ok("systemctl reload matrix-postgres.service");
    upgrade(&machine, prepared, 18, 19, "on");
    let said = journal(&machine);
    for expected in [
        "io_workers becomes io_max_workers = 5, which is the most of them",
        "does not know the setting escape_string_warning",
        "rejects a value: standard_conforming_strings = off: non-standard string literals are not supported",
        "max_locks_per_transaction = 64 is kept, and allows about half as many locks as before",
        "default of default_toast_compression changed from pglz to lz4",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn of_a_version_without_corrections_status_warns_and_is_well() {
    let Some(machine) = machine::for_test_on_newer("nineteen13") else { return };
    let warning = "PostgreSQL 13 has been out of support since 2025-11-13 and gets no security fixes";
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "server.version = 13\n");
    machine.start("matrix-postgres.service");
    machine.start("matrix-postgres-backup.service");
    for name in ["backup", "upgrade"] {
        let status = machine.run(&format!("matrix-postgres-{name} status"));
        assert!(status.status == 0 && status.stdout.contains(warning), "{status}");
        assert!(status.stdout.contains("HINT: matrix-postgres-upgrade check shows"), "{status}");
        let json = machine.ok(&format!("matrix-postgres-{name} status --json"));
        assert!(json.contains(warning), "{json}");
    }
}

#[test]
fn from_17_all_goes_along_by_dump_and_back() {
    let Some(machine) = machine::for_test_on_newer("nineteen17") else { return };
    upgrade(&machine, prepare(&machine, 17, "dump"), 17, 19, "on");
}
