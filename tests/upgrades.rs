//! Upgrades by method `dump` in booted machines, of a real homeserver: all goes along; what fails leads back; what is refused stops
//! nothing.

use crate::machine::upgrade::{
    DAMAGED, LOCKED, NO_SPACE, NOT_WELL, UNIT_JOB, UPGRADE, client, comes_up, configure, cut_the_power,
    is_well, journal, pause_at, prepare, prepare_17, refused, said, sql, upgrade, version,
};
use crate::machine::{self, Machine};

const METHOD: &str = "dump";

#[test]
fn from_15_all_goes_along_and_back() {
    let Some(machine) = machine::for_test("upgrade15") else { return };
    upgrade(&machine, prepare(&machine, 15, METHOD), 15, 17, "on");
}

#[test]
#[ignore = "make thorough"]
fn from_13_all_goes_along_and_back() {
    let Some(machine) = machine::for_test("upgrade13") else { return };
    upgrade(&machine, prepare(&machine, 13, METHOD), 13, 17, "on");
}

#[test]
fn from_17_to_18_all_goes_along_and_back() {
    let Some(machine) = machine::for_test_on_newer("upgrade17") else { return };
    let prepared = prepare_17(&machine, METHOD);
    upgrade(&machine, prepared, 17, 18, "on");
    let said = journal(&machine);
    for expected in
        ["does not know the setting extension_destdir", "ssl_ecdh_curve becomes ssl_groups = secp384r1"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

pub const STEPS: [&str; 10] = [
    "preparing",
    "stopping-clients",
    "stopping-server",
    "transferring",
    "comparing",
    "syncing",
    "exchanging",
    "starting-server",
    "starting-clients",
    "keeping",
];

#[test]
fn killed_at_any_step_the_homeserver_comes_up_by_itself() {
    let Some(machine) = machine::for_test("upgrade-killed") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    let most = ["transferring", "exchanging", "starting-server", "starting-clients", "keeping"];
    for step in machine::kills_among(&STEPS, &most) {
        eprintln!("killed: {step}");
        pause_at(&machine, step);
        machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
        comes_up(&machine, step, &room);
    }
}

#[test]
fn after_a_power_cut_at_any_step_the_homeserver_comes_up_by_itself() {
    let Some(machine) = machine::for_test_with_disk("upgrade-power") else { return };
    let most = ["transferring", "exchanging", "starting-server"];
    cut_the_power(&machine, METHOD, &machine::kills_among(&STEPS, &most));
}

#[test]
fn what_stands_in_the_way_is_refused_before_anything_stops() {
    let Some(machine) = machine::for_test("upgrade-refused") else { return };
    prepare(&machine, 15, METHOD);
    let pids = "systemctl show --value --property=MainPID matrix-postgres.service matrix-synapse.service";
    let before = machine.ok(pids);
    let refuse = |configuration: &str, expected: &str| {
        configure(&machine, &format!("method = \"{METHOD}\"\n{configuration}"));
        let said = refused(&machine, NOT_WELL);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("nothing was stopped, and nothing was changed\nHINT: "), "{said}");
        assert_eq!(machine.ok(pids), before, "{expected}");
    };
    refuse("to = 15\n", "current 15, target 15");
    refuse("to = 18\n", "PostgreSQL 18, the target version, is not installed");
    refuse("keep_path = \"/matrix/postgres/data/old\"\n", "upgrade.keep_path is inside the data directory");
    refuse("[clients]\nunits = [\"no-such.service\"]\n", "unit no-such.service not found");
    machine.ok("install -d -m 0755 /var/tmp/open");
    refuse(
        "dump_directory = \"/var/tmp/open\"\n",
        "is not a directory of matrix-postgres, or its permissions are too open",
    );
    machine.ok("mv /usr/share/postgresql/17/extension/pg_trgm.control /root/");
    refuse("", "extension pg_trgm of database \"mautrix-signal\"");
    machine.ok("mv /root/pg_trgm.control /usr/share/postgresql/17/extension/");
    machine.ok(
        "cp /usr/lib/systemd/system/matrix-postgres.service /etc/systemd/system/ && systemctl daemon-reload",
    );
    refuse("", "overridden by /etc/systemd/system/matrix-postgres.service");
    machine.ok("rm /etc/systemd/system/matrix-postgres.service && systemctl daemon-reload");

    // Another run, and a backup, are told who is there.
    configure(&machine, "method = \"dump\"\n");
    pause_at(&machine, "transferring");
    let second = machine.run("matrix-postgres-upgrade run");
    assert!(second.status == LOCKED && second.stderr.contains("upgrade is running"), "{second}");
    let server = machine.run("systemctl start matrix-postgres.service");
    assert_ne!(server.status, 0, "nobody starts the server on a cluster that is carried over: {server}");
    // Told to stop, it goes back.
    machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
    machine.wait_for("systemctl is-active matrix-synapse.service");
}

#[test]
fn whatever_fails_after_the_stop_leads_back_with_the_reason() {
    let Some(machine) = machine::for_test("upgrade-fails") else { return };
    machine.ok("mount -t tmpfs -o size=3G matrix /matrix && mkdir /matrix/postgres");
    let (_, room) = prepare(&machine, 15, METHOD);
    let back = |status: i32, expected: &str| {
        let said = refused(&machine, status);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
        is_well(&machine, "15", &room);
        machine.ok("journalctl --quiet --rotate && journalctl --quiet --vacuum-time=1s");
    };

    // A unique index whose rows are not.
    let index = "indexrelid = 's.portal_name_key'::regclass";
    sql(&machine, "mautrix-signal", &format!("UPDATE pg_index SET indisunique = false WHERE {index}"));
    sql(
        &machine,
        "mautrix-signal",
        "INSERT INTO s.portal (name, n) SELECT name, n FROM s.portal WHERE n = 5",
    );
    sql(&machine, "mautrix-signal", &format!("UPDATE pg_index SET indisunique = true WHERE {index}"));
    back_with_duplicate(&machine);
    sql(&machine, "mautrix-signal", "DELETE FROM s.portal WHERE id > 1000");

    // The disk fills up while the clients stop.
    client(
        &machine,
        "matrix-filler.service",
        "ExecStart=true\nExecStop=bash -c 'fallocate -l $(($(stat -f -c %%a*%%S /matrix) - 40000000)) /matrix/filler'\nExecStopPost=true",
    );
    let said = refused(&machine, NO_SPACE);
    assert!(said.contains("the file system of /matrix/postgres is full"), "{said}");
    machine.ok("rm -f /matrix/filler; systemctl stop matrix-filler.service; rm -f /matrix/filler /etc/systemd/system/matrix-filler.service; systemctl daemon-reload");
    is_well(&machine, "15", &room);

    // The new server does not come up.
    let dropin = "/etc/systemd/system/matrix-postgres.service.d/picky.conf";
    machine.ok("mkdir -p /etc/systemd/system/matrix-postgres.service.d");
    machine
        .write(dropin, "[Service]\nExecStartPre=grep -q 15 /matrix/postgres/data/PG_VERSION\nRestart=no\n");
    machine.ok("systemctl daemon-reload");
    back(UNIT_JOB, "matrix-postgres.service");
    machine.ok(&format!("rm {dropin} && systemctl daemon-reload"));

    // A client does not, and the settings ask for a return. What was open to clients is not removed.
    client(&machine, "matrix-picky.service", "ExecStart=grep -q 15 /matrix/postgres/data/PG_VERSION");
    configure(&machine, "method = \"dump\"\nrevert_on_client_failure = true\n");
    let said = refused(&machine, UNIT_JOB);
    assert!(said.contains("services that did not start: matrix-picky.service"), "{said}");
    assert!(said.contains("as before; the new cluster is in /matrix/postgres/data.upgrade-"), "{said}");
    machine.ok("rm -r /matrix/postgres/data.upgrade-*");
    is_well(&machine, "15", &room);
    machine.ok("systemctl is-active matrix-picky.service");

    // They do not: it is named, and the upgrade stands.
    configure(&machine, "method = \"dump\"\n");
    let said = refused(&machine, UNIT_JOB);
    assert!(said.contains("services that did not start: matrix-picky.service"), "{said}");
    assert!(said.contains("the server runs on PostgreSQL 17 and may have been written to"), "{said}");
    is_well(&machine, "17", &room);
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains("upgraded from PostgreSQL 15 to 17"), "{status}");
    assert!(status.contains("\nwarning:    matrix-picky.service did not start"), "{status}");
}

/// The row that is there twice is named, and nothing has changed.
fn back_with_duplicate(machine: &Machine) {
    let said = refused(machine, DAMAGED);
    assert!(said.contains("could not create unique index \"portal_name_key\""), "{said}");
    assert!(said.contains("the homeserver runs on PostgreSQL 15 again, as before"), "{said}");
    assert_eq!(version(machine), "15");
    machine.ok("systemctl is-active matrix-synapse.service");
}

#[test]
fn the_old_data_directory_is_kept_on_any_file_system_and_never_over_another() {
    let Some(machine) = machine::for_test("upgrade-keep") else { return };
    let (_, room) = prepare(&machine, 15, METHOD);
    machine.ok("mkdir /mnt/far && mount -t tmpfs -o size=2G far /mnt/far && mkdir /mnt/far/kept && touch /mnt/far/kept/mine");
    configure(&machine, "method = \"dump\"\nkeep_path = \"/mnt/far/kept\"\n");
    machine.ok(&format!("{UPGRADE} || {{ journalctl -u matrix-postgres-upgrade >&2; false; }}"));
    is_well(&machine, "17", &room);
    assert_eq!(machine.ok("cat /mnt/far/kept-2/PG_VERSION && ls /mnt/far/kept"), "15\nmine");
    assert_eq!(machine.ok("stat -c '%U %a' /mnt/far/kept-2"), "matrix-postgres 700");
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains("\nkept:       /mnt/far/kept-2, PostgreSQL 15"), "{status}");
    machine.ok("systemctl stop matrix-synapse.service");
    machine.ok("matrix-postgres-upgrade rollback --yes && systemctl start matrix-synapse.service");
    assert_eq!(version(&machine), "15");
    assert_eq!(said(&machine, &room), ["before the upgrade"]);
}
