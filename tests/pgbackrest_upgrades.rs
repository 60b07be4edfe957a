//! Upgrades of a server that is backed up by pgBackRest: the stanza goes along, and back.

use crate::machine::debian::{as_postgres, make_database};
use crate::machine::upgrade::{UPGRADE, configure, journal, pause_at};
use crate::machine::{self, Machine};
use crate::upgrades::STEPS;

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_WELL: i32 = 40;

const SETUP: &str = "matrix-postgres setup --engine pgbackrest --yes";
const SQL: &str = "matrix-postgres-cli -XAtq -v ON_ERROR_STOP=1 -c";
const ARCHIVE: &str = "/var/backups/matrix-postgres/pgbackrest/archive/matrix-postgres";
const JOURNAL: &str = "/var/lib/matrix-postgres-upgrade/upgrade/journal.json";

/// A server of version 15 with a table, backed up by pgBackRest, to be upgraded by this method.
fn with_backup(name: &str, method: &str) -> Option<Machine> {
    let machine = machine::for_test(name)?;
    prepare(&machine, method);
    Some(machine)
}

fn prepare(machine: &Machine, method: &str) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "[server]\nversion = 15\n");
    machine.ok("systemctl enable --quiet --now matrix-postgres.service");
    // The newest that is installed may be another one.
    configure(machine, &format!("method = \"{method}\"\nto = 17\n"));
    machine.ok(&format!("{SQL} 'CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n'"));
    machine.ok(SETUP);
    machine.start("matrix-postgres-backup.service");
    machine.ok("matrix-postgres-backup status");
}

/// The server runs on this version with its table, and there is a verified full backup of it, which nobody asked for.
#[track_caller]
fn is_well(machine: &Machine, major: &str) {
    assert_eq!(machine.ok(&format!("{SQL} 'SHOW server_version_num'"))[..2], *major);
    assert_eq!(machine.ok(&format!("{SQL} 'SELECT count(*) FROM t WHERE n <= 1000'")), "1000");
    machine.wait_for("case $(systemctl is-active matrix-postgres-backup.service) in inactive | failed) ;; *) false ;; esac");
    machine.wait_for("matrix-postgres-backup status");
    let newest = newest(machine);
    assert!(newest["present"] == true && newest["verified"] == true, "{newest}");
    let archived = format!("{SQL} \"SELECT pg_switch_wal(); CHECKPOINT\"");
    machine.ok(&archived);
    machine.wait_for(&format!(
        "test $({SQL} \"SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'\") = 0"
    ));
}

fn newest(machine: &Machine) -> serde_json::Value {
    let list = machine.run("matrix-postgres-backup list --json").json();
    list.as_array().and_then(|list| list.last().cloned()).expect("a backup")
}

/// What was archived, by the name of the cluster in the stanza.
fn archived(machine: &Machine) -> Vec<String> {
    let names = machine.ok(&format!("ls {ARCHIVE} | grep -v archive.info"));
    names.lines().map(str::to_owned).collect()
}

fn time(machine: &Machine) -> String {
    machine.ok("sleep 1; date --utc '+%F %T.%6N+00'; sleep 1")
}

/// There, back, and back in time to before the upgrade.
fn goes_along(machine: &Machine) {
    let before = time(machine);
    machine.ok(&format!("{SQL} 'INSERT INTO t VALUES (2001)'"));
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(machine));
    is_well(machine, "17");
    assert!(newest(machine)["type"] == "full", "{}", newest(machine));
    assert_eq!(archived(machine), ["15-1", "17-2"]);
    let refused = machine.run(&format!("matrix-postgres-backup restore --yes --to-time '{before}'"));
    assert!(
        refused.status != 0 && refused.stderr.contains("before the end of the first backup"),
        "{refused}"
    );
    // The next one depends on it.
    machine.start("matrix-postgres-backup.service");
    assert!(newest(machine)["type"] == "incr", "{}", newest(machine));

    machine.ok(&format!("{SQL} 'INSERT INTO t VALUES (3001)'; matrix-postgres-upgrade rollback --yes"));
    is_well(machine, "15");
    assert!(newest(machine)["type"] == "full", "{}", newest(machine));
    assert_eq!(archived(machine), ["15-1", "15-3", "17-2"]);
    let after = time(machine);
    machine.ok(&format!("{SQL} 'INSERT INTO t VALUES (4001)'"));
    let rows =
        || machine.ok(&format!("{SQL} \"SELECT string_agg(n::text, ' ' ORDER BY n) FROM t WHERE n > 1000\""));
    for (time, expected) in [(after, "2001"), (before, "")] {
        machine.ok(&format!("matrix-postgres-backup restore --yes --to-time '{time}'"));
        assert_eq!(rows(), expected, "{time}");
    }
    machine.start("matrix-postgres-backup.service");
    machine.wait_for("matrix-postgres-backup status");
    let left = machine.ok("ls /matrix/postgres");
    assert!(left.contains("data.upgrade-"), "{left}");
}

#[test]
fn by_a_dump_the_stanza_goes_along_and_back() {
    let Some(machine) = with_backup("stanza-dump", "dump") else { return };
    goes_along(&machine);
}

#[test]
fn online_the_stanza_goes_along_and_back() {
    let Some(machine) = with_backup("stanza-online", "online") else { return };
    goes_along(&machine);
}

/// Those at which something is done with the stanza, or with what it belongs to.
const OF_ITS_OWN: [&str; 3] = ["exchanging", "starting-clients", "archiving"];

/// Kills the upgrade, and each rollback at one of these steps.
fn is_killed(machine: &Machine, steps: &[&str]) {
    let back = ["starting-clients", "returning", "restarting"];
    let steps = machine::kills_among(steps, &OF_ITS_OWN);
    for (step, back) in steps.into_iter().zip(back.iter().cycle()) {
        eprintln!("killed: {step}, {back}");
        pause_at(machine, step);
        machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
        settles(machine);
        let is_new =
            ["starting-server", "starting-clients", "tending", "archiving", "keeping"].contains(&step);
        is_well(machine, if is_new { "17" } else { "15" });
        if !is_new {
            continue;
        }
        let killed = machine.run(&format!(
            "rm -f /root/rollback; touch /root/rollback
             matrix-postgres-upgrade rollback --yes --pause {back} 2>/root/rollback & pid=$!
             until grep -q 'pausing: ' /root/rollback; do kill -0 $pid || {{ cat /root/rollback; exit 1; }}; sleep 0.05; done; kill -KILL $pid"
        ));
        assert_eq!(killed.status, 0, "{killed}");
        settles(machine);
        if *back == "starting-clients" {
            is_well(machine, "17");
            machine.ok("matrix-postgres-upgrade rollback --yes");
        }
        is_well(machine, "15");
        machine.ok("rm -r /matrix/postgres/data.upgrade-*");
    }
}

/// What was killed has been put in order.
#[track_caller]
fn settles(machine: &Machine) {
    machine.wait_for(&format!(
        "systemctl is-active --quiet matrix-postgres.service && ! systemctl is-active --quiet matrix-postgres-upgrade.service &&
         ! systemctl is-active --quiet matrix-postgres-recover.service && ! grep -aq '\"ended\": null' {JOURNAL}"
    ));
}

#[test]
fn killed_at_any_step_of_a_dump_the_stanza_is_that_of_the_cluster_in_place() {
    let Some(machine) = with_backup("stanza-killed-dump", "dump") else { return };
    let (last, before) = STEPS.split_last().unwrap();
    is_killed(&machine, &[before, &["archiving", last]].concat());
}

#[test]
fn killed_at_any_step_online_the_stanza_is_that_of_the_cluster_in_place() {
    let Some(machine) = with_backup("stanza-killed-online", "online") else { return };
    is_killed(
        &machine,
        &[
            "copying",
            "following",
            "promoting",
            "upgrading",
            "exchanging",
            "starting-server",
            "starting-clients",
            "tending",
            "archiving",
            "keeping",
        ],
    );
}

#[test]
fn after_a_power_cut_the_stanza_is_that_of_the_cluster_in_place() {
    let Some(machine) = machine::for_test_with_disk("stanza-power") else { return };
    prepare(&machine, "dump");
    for (step, major) in [("exchanging", "15"), ("archiving", "17")] {
        machine.ok("sync");
        pause_at(&machine, step);
        machine.power_cut_to_disk().expect("the power should go");
        machine.boot_again().unwrap_or_else(|error| panic!("{step}: {error}"));
        settles(&machine);
        is_well(&machine, major);
    }
}

#[test]
fn until_the_stanza_is_its_own_no_wal_of_the_new_cluster_is_archived() {
    let Some(machine) = with_backup("stanza-waits", "dump") else { return };
    pause_at(&machine, "archiving");
    let files = format!("find {ARCHIVE} -type f | sort");
    let before = machine.ok(&files);
    machine.ok(&format!("{SQL} 'INSERT INTO t VALUES (2001)' -c 'SELECT pg_switch_wal()'"));
    machine.wait_for(&format!("test $({SQL} 'SELECT failed_count FROM pg_stat_archiver') != 0"));
    assert_eq!(machine.ok(&files), before);
    let status = machine.run("matrix-postgres-backup status --json");
    assert_eq!(status.status, NOT_WELL, "{status}");
    assert!(status.json()["problems"].to_string().contains("is of another cluster"), "{status}");
    machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
    settles(&machine);
    is_well(&machine, "17");
}

#[test]
fn what_pgbackrest_refuses_undoes_no_upgrade_and_is_told() {
    let Some(machine) = with_backup("stanza-refused", "dump") else { return };
    machine.ok("mv /usr/bin/pgbackrest /root/");
    let upgraded = machine.run(UPGRADE);
    assert_ne!(upgraded.status, 0, "{upgraded}");
    let said = journal(&machine);
    assert!(
        said.contains("nothing was reverted")
            && said.contains("the stanza of pgBackRest could not be upgraded"),
        "{said}"
    );
    assert!(said.contains("HINT: apt-get install pgbackrest"), "{said}");
    assert_eq!(machine.ok(&format!("{SQL} 'SHOW server_version_num'"))[..2], *"17");
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains("warning:    the stanza of pgBackRest could not be upgraded: "), "{status}");
    assert!(
        status.contains("upgraded from PostgreSQL 15 to 17")
            && status.contains("matrix-postgres setup --upgrade-stanza"),
        "{status}"
    );
    machine.ok("mv /root/pgbackrest /usr/bin/");
    assert_eq!(machine.run("matrix-postgres-backup status").status, NOT_WELL);
    // The one next command.
    machine.ok("matrix-postgres setup --upgrade-stanza --yes");
    machine.start("matrix-postgres-backup.service");
    is_well(&machine, "17");

    // On the way back, too.
    machine.ok("mv /usr/bin/pgbackrest /root/; matrix-postgres-upgrade rollback --yes; mv /root/pgbackrest /usr/bin/");
    assert_eq!(machine.ok(&format!("{SQL} 'SHOW server_version_num'"))[..2], *"15");
    assert_eq!(machine.run("matrix-postgres-backup status").status, NOT_WELL);
    machine.ok("matrix-postgres setup --upgrade-stanza --yes");
    machine.start("matrix-postgres-backup.service");
    is_well(&machine, "15");
}

#[test]
fn a_cluster_of_debians_takes_its_stanza_along_and_back() {
    let Some(machine) = machine::for_test("stanza-debian") else { return };
    machine.ok("pg_dropcluster --stop 17 main; pg_createcluster --locale C.UTF-8 --port 5433 15 main
        systemctl daemon-reload; systemctl start postgresql@15-main.service");
    make_database(&machine);
    as_postgres(&machine, "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n");
    machine.ok("matrix-postgres setup --yes");
    machine.write(
        "/etc/matrix-postgres/config.toml",
        "[upgrade]\nbackup_within = \"never\"\nmethod = \"dump\"\nto = 17\n",
    );
    machine.ok(SETUP);
    machine.start("matrix-postgres-backup.service");
    machine.ok("matrix-postgres-backup status");
    let is_well = |major: &str| {
        assert_eq!(as_postgres(&machine, "SHOW server_version_num")[..2], *major);
        machine.wait_for("case $(systemctl is-active matrix-postgres-backup.service) in inactive | failed) ;; *) false ;; esac");
        machine.wait_for("matrix-postgres-backup status");
        let newest = newest(&machine);
        assert!(
            newest["present"] == true && newest["verified"] == true && newest["type"] == "full",
            "{newest}"
        );
        machine.ok(&format!(
            "grep -qx pg1-path=/var/lib/postgresql/{major}/main /etc/pgbackrest/conf.d/matrix-postgres.conf"
        ));
    };
    is_well("15");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    is_well("17");
    machine.ok("matrix-postgres-upgrade rollback --yes");
    is_well("15");
    assert_eq!(archived(&machine), ["15-1", "15-3", "17-2"]);
}
