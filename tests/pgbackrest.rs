//! The engine pgBackRest: set up, run each night, and not well as soon as anything stands still; with the distribution's pgBackRest.

use crate::machine::{self, Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const CONFIG: i32 = 27;
const FILE: i32 = 28;
const NOT_INSTALLED: i32 = 30;
const SERVER: i32 = 32;
const NOT_WELL: i32 = 40;

const BACKUP: &str = "matrix-postgres-backup.service";
const SETUP: &str = "matrix-postgres setup --engine pgbackrest --yes";
const SQL: &str = "matrix-postgres-cli -XAtq -v ON_ERROR_STOP=1 -c";
const REPOSITORY: &str = "/var/backups/matrix-postgres/pgbackrest";
/// As an administrator who knows it would call it.
const PGBACKREST: &str = "runuser -u matrix-postgres -- pgbackrest --no-config \
    --config-include-path=/etc/pgbackrest/conf.d --stanza=matrix-postgres";

/// The homeserver's own word that it does.
const ANSWERS: &str = "curl --silent --fail --output /dev/null http://localhost:8008/_matrix/client/versions";

/// A machine with a server and a table.
fn with_server(name: &str) -> Option<Machine> {
    let machine = machine::for_test(name)?;
    machine.ok("systemctl start matrix-postgres.service");
    machine.ok(&format!("{SQL} 'CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n'"));
    Some(machine)
}

/// The same, backed up by pgBackRest.
fn with_backup(name: &str) -> Option<Machine> {
    let machine = with_server(name)?;
    machine.ok(SETUP);
    machine.start(BACKUP);
    Some(machine)
}

/// What `status` says, which must not be well.
#[track_caller]
fn problems(machine: &Machine) -> String {
    let status = machine.run("matrix-postgres-backup status --json");
    assert_eq!(status.status, NOT_WELL, "{status}");
    status.json()["problems"].to_string()
}

/// The labels of the backups, and whether they were verified.
#[track_caller]
fn labels(machine: &Machine) -> Vec<(String, bool)> {
    let list = machine.run("matrix-postgres-backup list --json").json();
    let list = list.as_array().expect("an array").clone();
    let line = |line: &serde_json::Value| {
        assert_eq!(line["engine"], "pgbackrest", "{line}");
        (line["name"].as_str().expect("a name").to_owned(), line["verified"] == true)
    };
    list.iter().map(line).collect()
}

#[test]
fn what_is_not_ours_is_refused_by_name_and_nothing_is_changed() {
    let Some(machine) = machine::for_test("pgbackrest-refused") else { return };
    let refused = |status: i32, expected: &str| {
        let done = machine.run(SETUP);
        assert_eq!(done.status, status, "{done}");
        assert!(done.stderr.contains(expected), "{done}");
        assert!(done.stderr.contains("HINT: "), "{done}");
        let untouched = "test ! -e /etc/pgbackrest/conf.d/matrix-postgres.conf && test ! -e /etc/matrix-postgres/config.d/20-engine.toml";
        machine.ok(untouched);
    };
    // No server, and none that may be asked.
    refused(SERVER, "no server is listening");
    machine.ok("systemctl start matrix-postgres.service; mv /usr/bin/pgbackrest /root/");
    refused(NOT_INSTALLED, "apt-get install pgbackrest");
    machine.ok("mv /root/pgbackrest /usr/bin/");
    // Another archive.
    machine.ok(&format!(
        "{SQL} \"ALTER SYSTEM SET archive_mode = on\" -c \"ALTER SYSTEM SET archive_command = 'test ! -e /x/%f && cp %p /x/%f'\"
         systemctl restart matrix-postgres.service"
    ));
    refused(CONFIG, "archive_command = \"test ! -e /x/%f && cp %p /x/%f\"");
    machine.ok(&format!("{SQL} 'ALTER SYSTEM RESET archive_command'; {SQL} 'SELECT pg_reload_conf()'"));
    // A repository that its owner cannot read.
    machine.ok(&format!("install -d -m 0700 {REPOSITORY}"));
    refused(FILE, "pgBackRest cannot read its repository");
    machine.ok(&format!("rmdir {REPOSITORY}"));
    // Without a restart: archive_mode is on already.
    let begun = "systemctl show --value --property=MainPID matrix-postgres.service";
    let before = machine.ok(begun);
    let said = machine.ok(SETUP);
    assert!(
        said.contains("no restart is needed") && said.contains("a segment of the WAL was archived"),
        "{said}"
    );
    assert_eq!(machine.ok(begun), before);
    // A stanza of another cluster.
    machine.ok(
        "systemctl stop matrix-postgres.service; mv /var/lib/matrix-postgres/data /var/lib/matrix-postgres/other 2>/dev/null ||
             mv /matrix/postgres/data /matrix/postgres/other
         systemctl start matrix-postgres.service",
    );
    let other = machine.run(SETUP);
    assert_eq!(other.status, CONFIG, "{other}");
    assert!(other.stderr.contains("stanza \"matrix-postgres\" is of another cluster"), "{other}");
    let (_, journal) = machine.fails(BACKUP);
    assert!(journal.contains("is of another cluster"), "{journal}");
    assert!(problems(&machine).contains("is of another cluster"));
}

#[test]
fn a_night_is_a_verified_backup_and_status_tells_what_is_wrong() {
    let Some(machine) = with_server("pgbackrest-nights") else { return };
    let plan = machine.ok("matrix-postgres setup --engine pgbackrest --dry-run");
    assert!(plan.contains("restart matrix-postgres.service, once"), "{plan}");
    machine.ok("test ! -e /etc/pgbackrest/conf.d/matrix-postgres.conf");
    machine.ok(SETUP);
    // Nothing is left to do.
    let again = machine.ok(SETUP);
    assert!(
        !again.contains("ALTER SYSTEM") && again.contains("a segment of the WAL was archived"),
        "{again}"
    );
    assert!(problems(&machine).contains("pgBackRest has no backup yet"));
    machine.ok(&format!("{PGBACKREST} check"));

    machine.start(BACKUP);
    machine.ok("matrix-postgres-backup status");
    machine.ok(&format!("{SQL} 'INSERT INTO t SELECT n FROM generate_series(1, 100) n'"));
    machine.start(BACKUP);
    let made = labels(&machine);
    assert_eq!(made.len(), 2, "{made:?}");
    assert!(
        made[0].0.ends_with('F') && made[1].0.ends_with('I') && made.iter().all(|(_, verified)| *verified),
        "{made:?}"
    );
    let status = machine.run("matrix-postgres-backup status --json").json();
    assert_eq!(status["well"], true, "{status}");
    assert_eq!(status["pgbackrest"]["lag_seconds"], 0, "{status}");
    assert!(status["pgbackrest"]["lag_bytes"].as_u64().is_some_and(|bytes| bytes < 1 << 25), "{status}");
    let shown = machine.ok("matrix-postgres-backup status");
    assert!(shown.contains("archive lag:") && shown.contains("last segment:"), "{shown}");
    machine.ok("matrix-postgres-backup verify");
    machine.start("matrix-postgres-backup-verify.service");
    // No dump was made.
    machine.ok("! ls -d /var/backups/matrix-postgres/2*Z");

    // The archive command fails: pg_wal grows, and it is said.
    machine.ok(&format!("mv {REPOSITORY}/archive {REPOSITORY}/gone; {SQL} 'SELECT pg_switch_wal()'"));
    let waits = format!("{SQL} 'SELECT failed_count FROM pg_stat_archiver' | grep -cv '^0'");
    machine.wait_for(&waits);
    let (_, journal) = machine.fails(BACKUP);
    assert!(journal.contains("HINT: "), "{journal}");
    assert!(!problems(&machine).is_empty());
    machine.ok(&format!("rm -rf {REPOSITORY}/archive; mv {REPOSITORY}/gone {REPOSITORY}/archive"));
    machine.wait_for("matrix-postgres-backup status");
    machine.ok("systemctl reset-failed");

    // A segment is lost.
    let lost = machine.ok(&format!(
        "find {REPOSITORY}/archive -name '????????????????????????-*' | sort | tail -n 3 | head -n 1"
    ));
    machine.ok(&format!("{SQL} 'CREATE TABLE u (a int)' -c 'SELECT pg_switch_wal()'; mv {lost} /root/"));
    assert!(problems(&machine).contains("WAL is missing in the archive"));
    machine.ok(&format!("mv /root/$(basename {lost}) {lost}"));
    machine.ok("matrix-postgres-backup status");

    // The disk of the repository is not mounted: none is made anew in its place.
    machine.ok(&format!(
        "mv {REPOSITORY} /root/disk && install -d -o matrix-postgres -g matrix-postgres {REPOSITORY}"
    ));
    assert!(problems(&machine).contains("with 2 verified backups, is not in"));
    let (_, journal) = machine.fails(BACKUP);
    assert!(journal.contains("is its disk mounted?"), "{journal}");
    let refused = machine.run(SETUP);
    assert!(refused.status != 0 && refused.stderr.contains("HINT: findmnt --target"), "{refused}");
    machine.ok(&format!("rm -r {REPOSITORY} && mv /root/disk {REPOSITORY}"));
    machine.wait_for("matrix-postgres-backup status");
    machine.ok("systemctl reset-failed");

    // Archiving is switched off.
    machine.ok(&format!("{SQL} \"ALTER SYSTEM SET archive_command = ''\" -c 'SELECT pg_reload_conf()'"));
    machine.wait_for("! matrix-postgres-backup status");
    assert!(problems(&machine).contains("does not archive its WAL by pgBackRest"));
    machine.ok("matrix-postgres setup --yes");
    machine.wait_for("matrix-postgres-backup status");
}

#[test]
fn a_byte_that_has_changed_in_the_repository_is_found() {
    let Some(machine) = with_backup("pgbackrest-damage") else { return };
    machine.ok(&format!(
        "file=$(find {REPOSITORY}/backup -path '*F/*' -type f ! -name 'backup.manifest*' -size +20k | sort | head -n 1)
         test -n \"$file\" && printf XXXX | dd of=\"$file\" bs=1 seek=3000 conv=notrunc status=none"
    ));
    let verified = machine.run("matrix-postgres-backup verify");
    assert_eq!(verified.status, DAMAGED, "{verified}");
    assert!(problems(&machine).contains("is not verified"));
    // It is not what the next one is made from.
    let label = labels(&machine).remove(0);
    assert!(!label.1, "{label:?}");
}

#[test]
fn after_an_upgrade_of_the_stanza_an_old_backup_is_not_enough() {
    let Some(machine) = with_backup("pgbackrest-identity") else { return };
    machine.ok(
        "systemctl stop matrix-postgres.service
         data=$(find /var/lib/matrix-postgres /matrix/postgres -maxdepth 1 -name data 2>/dev/null | head -n 1)
         cp $data/postgresql.auto.conf /root/ && mv $data $data.before && systemctl start matrix-postgres.service
         cat /root/postgresql.auto.conf >>$data/postgresql.auto.conf && systemctl restart matrix-postgres.service",
    );
    let said = machine.ok(&format!("{SETUP} --upgrade-stanza"));
    assert!(said.contains("pgbackrest stanza-upgrade"), "{said}");
    let info = machine.ok(&format!("{PGBACKREST} info"));
    assert!(info.contains("status: ok"), "{info}");
    assert!(problems(&machine).contains("no backup of the present cluster, only of one before it"));
    machine.start(BACKUP);
    machine.ok("matrix-postgres-backup status");
    assert!(labels(&machine).last().is_some_and(|(label, _)| label.ends_with('F')));
}

#[test]
fn both_engines_make_a_backup_each_and_one_that_fails_keeps_the_other_from_nothing() {
    let Some(machine) = with_server("pgbackrest-both") else { return };
    machine.ok("matrix-postgres setup --engine both --yes");
    machine.start(BACKUP);
    machine.ok("matrix-postgres-backup status && ls -d /var/backups/matrix-postgres/2*Z");
    machine.ok(&format!("chmod 0 {REPOSITORY}/backup"));
    let (_, journal) = machine.fails(BACKUP);
    assert!(journal.contains("pgBackRest") || journal.contains("pgbackrest"), "{journal}");
    assert_eq!(machine.ok("ls -d /var/backups/matrix-postgres/2*Z | wc -l"), "2");
}

/// The time of the machine, between what was done before and what is done after.
fn time(machine: &Machine) -> String {
    machine.ok("date --utc '+%F %T.%6N+00'")
}

#[test]
fn a_time_between_two_messages_has_the_first_and_not_the_second() {
    let Some(machine) = machine::for_test("pgbackrest-time") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    let before = time(&machine);
    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "room");
    synapse.settle();
    // It keeps connections, which a restart of the server cuts off.
    machine.ok(&format!("{SETUP} && systemctl restart matrix-synapse.service"));
    machine.wait_for(ANSWERS);
    machine.start(BACKUP);
    synapse.send(&user, &room, "first");
    let between = time(&machine);
    synapse.send(&user, &room, "second");
    let bodies = || synapse.messages(&user, &room).into_iter().map(|(_, body)| body).collect::<Vec<_>>();
    let both = bodies();
    assert!(both.contains(&"first".to_owned()) && both.contains(&"second".to_owned()), "{both:?}");

    // Before the first backup, in the future, no time, and not both.
    let units = "matrix-postgres.service matrix-synapse.service";
    let running = &format!("systemctl show --value --property=MainPID {units}");
    let pids = machine.ok(running);
    let refused = |arguments: &str, status: i32, expected: &str| {
        let done = machine.run(&format!("matrix-postgres-backup restore --yes {arguments}"));
        assert_eq!(done.status, status, "{done}");
        assert!(done.stderr.contains(expected), "{done}");
        assert_eq!(machine.ok(running), pids);
    };
    refused(&format!("--to-time '{before}'"), CONFIG, "is before the end of the first backup");
    refused("--to-time '2100-01-01 00:00:00+01'", CONFIG, "is in the future");
    refused("--to-time 'last night'", CONFIG, "is no time");
    refused("--to-lsn FFFFFF/0", CONFIG, "has not been written yet");
    let early = machine.run("matrix-postgres-backup restore --yes --to-lsn 0/1");
    assert!(early.status != 0 && early.stderr.contains("nothing was stopped"), "{early}");
    assert_eq!(machine.ok(running), pids);
    machine.ok("test ! -e /matrix/postgres/data.restoring");
    refused(&format!("--to-time '{between}' --to-lsn 0/1"), 2, "cannot be used with");
    refused(&format!("--to-time '{between}' --skip-broken"), 2, "cannot be used with");
    machine.ok(&format!("matrix-postgres-backup restore --dry-run --to-time '{between}'"));
    assert_eq!(machine.ok(running), pids);

    // Killed while it restores, when it stops services, and when the clusters are exchanged: one or the other is in place, whole,
    // and the services run.
    let instants = [
        "test -e /matrix/postgres/data.restoring/PG_VERSION",
        "test -e /matrix/postgres/data.restoring/postmaster.pid",
        "! systemctl is-active --quiet matrix-synapse.service",
        "test $(stat --format=%i /matrix/postgres/data) != $inode",
    ];
    for instant in instants {
        machine.ok(&format!(
            "inode=$(stat --format=%i /matrix/postgres/data)
             matrix-postgres-backup restore --yes --to-time '{between}' >/root/restore 2>&1 & pid=$!
             # A short one may be over before it is seen, on a busy machine.
             until {instant}; do kill -0 $pid || {{ wait $pid && exit; cat /root/restore; exit 1; }}; done
             kill -KILL $pid || true"
        ));
        machine.wait_for(&format!("{ANSWERS} && systemctl is-active --quiet matrix-postgres.service"));
        let held = || {
            machine
                .ok("matrix-postgres-cli -XAtc \"SELECT count(*) FROM events WHERE type = 'm.room.message'\"")
        };
        assert!(
            bodies().contains(&"first".to_owned()),
            "{instant}: {:?} of {} in the database",
            bodies(),
            held()
        );
    }
    let kept = "find /matrix/postgres -maxdepth 1 -name 'data.before-restore-*'";
    let restored = machine.run(&format!("matrix-postgres-backup restore --yes --to-time '{between}'"));
    assert_eq!(restored.status, 0, "{restored}");
    machine.wait_for(ANSWERS);
    let now = bodies();
    assert!(now.contains(&"first".to_owned()) && !now.contains(&"second".to_owned()), "{now:?}");
    assert!(!machine.ok(kept).is_empty());
    machine.ok("test ! -e /matrix/postgres/data.restoring");

    // The new timeline is archived and backed up; and from there, too, there is a way back.
    synapse.send(&user, &room, "third");
    machine.start(BACKUP);
    machine.wait_for("matrix-postgres-backup status");
    let again = time(&machine);
    synapse.send(&user, &room, "fourth");
    machine.ok(&format!("matrix-postgres-backup restore --yes --to-time '{again}'"));
    machine.wait_for(ANSWERS);
    let now = bodies();
    assert!(now.contains(&"third".to_owned()) && !now.contains(&"fourth".to_owned()), "{now:?}");
}

#[test]
fn a_damaged_cluster_is_restored_over_a_copy_of_it() {
    let Some(machine) = with_backup("pgbackrest-delta") else { return };
    machine.ok(&format!(
        "{SQL} 'INSERT INTO t VALUES (4711)'; systemctl stop matrix-postgres.service
         data=/matrix/postgres/data; : >$data/global/pg_control; rm $data/base/*/1259"
    ));
    machine.ok("! systemctl start matrix-postgres.service; systemctl stop matrix-postgres.service");
    let restored = machine.run("matrix-postgres-backup restore --delta --yes");
    assert_eq!(restored.status, 0, "{restored}");
    machine.ok("systemctl reset-failed; systemctl start matrix-postgres.service");
    assert_eq!(machine.ok(&format!("{SQL} 'SELECT count(*) FROM t WHERE n = 4711'")), "1");
    machine.ok("test -e /matrix/postgres/data.before-restore-*/PG_VERSION");

    // Back to a position, too.
    let lsn = machine.ok(&format!("{SQL} 'SELECT pg_current_wal_lsn()'"));
    machine.ok(&format!("{SQL} 'DELETE FROM t' -c 'CREATE TABLE later (a int)'"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --to-lsn {lsn}"));
    assert_eq!(machine.ok(&format!("{SQL} \"SELECT count(*), to_regclass('later') FROM t\"")), "1001|");
}

/// As the page has it, "By hand", but for the names of this machine.
#[test]
fn by_hand_a_dropped_table_is_back() {
    let Some(machine) = with_backup("pgbackrest-by-hand") else { return };
    let time = time(&machine);
    machine.ok(&format!("{SQL} 'DROP TABLE t'"));
    machine.ok(&format!(
        "systemctl stop matrix-postgres.service
         mv /matrix/postgres/data /matrix/postgres/data.before
         install -d -m 0700 -o matrix-postgres -g matrix-postgres /matrix/postgres/data
         {PGBACKREST} --type=time --target='{time}' --target-action=promote restore
         systemctl start matrix-postgres.service"
    ));
    machine.wait_for(&format!(
        "test $({SQL} 'SELECT pg_is_in_recovery()') = f && {SQL} 'SELECT 1 FROM t LIMIT 1'"
    ));
    assert_eq!(machine.ok(&format!("{SQL} 'SELECT count(*) FROM t'")), "1000");
    for name in ["recovery_target_time", "recovery_target_action", "restore_command"] {
        machine.ok(&format!("{SQL} 'ALTER SYSTEM RESET {name}'"));
    }
    machine.start(BACKUP);
    machine.ok("matrix-postgres-backup status");
}
