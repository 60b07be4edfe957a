//! An upgrade that the playbook has made by itself (`--tags=upgrade-postgres`): it leaves `data-auto-upgrade-backup` beside the data
//! directory, and there is a way back to that.

use crate::machine::containers::{Playbook, make_image};
use crate::machine::upgrade::{NOT_WELL, recovered, said};
use crate::machine::{self, Machine};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DATA_DIRECTORY: i32 = 31;

const SERVER_UNIT: &str = "matrix-postgres.service";
const BOTH: &str = "matrix-postgres.service matrix-synapse.service";
const LEFT: &str = "/matrix/postgres/data-auto-upgrade-backup";
const DROP_IN: &str = "/etc/systemd/system/matrix-postgres.service.d/50-matrix-postgres-upgrade.conf";

/// What the playbook does: a dump, another data directory, and a unit with another image, into which the dump is loaded.
fn upgrade_as_the_playbook(machine: &Machine, playbook: &Playbook<'_>) {
    machine.ok("systemctl stop matrix-synapse.service");
    machine.ok("docker exec matrix-postgres pg_dumpall -U matrix >/tmp/matrix-postgres-dump.sql");
    machine.ok(&format!(
        "systemctl stop {SERVER_UNIT} && mv /matrix/postgres/data {LEFT} && install -d -o matrix -g matrix -m 0700 /matrix/postgres/data && \
         sed -i 's/ postgres:15 / postgres:17 /' /etc/systemd/system/{SERVER_UNIT} && systemctl daemon-reload && systemctl start {SERVER_UNIT}"
    ));
    playbook.wait();
    machine.ok(&format!(
        "{} </tmp/matrix-postgres-dump.sql >/dev/null 2>&1; rm /tmp/matrix-postgres-dump.sql",
        playbook.psql()
    ));
    machine.ok("systemctl start matrix-synapse.service");
}

/// The server of this version runs, and the homeserver says this in the room.
#[track_caller]
fn is_on(machine: &Machine, major: &str, room: &str, expected: &[&str]) {
    recovered(machine, BOTH);
    let version = "matrix-postgres-cli -d postgres -XAtc 'SHOW server_version_num'";
    assert_eq!(machine.ok(version).get(..2), Some(major));
    assert_eq!(machine.ok("cat /matrix/postgres/data/PG_VERSION"), major);
    let image = machine.ok("docker inspect --format '{{.Config.Image}}' matrix-postgres");
    assert_eq!(image, format!("postgres:{major}"));
    let said: Vec<_> = said(machine, room).into_iter().filter(|text| text.contains("the upgrade")).collect();
    assert_eq!(said, expected);
}

#[test]
fn there_is_a_way_back_from_an_upgrade_of_the_playbooks_own() {
    let Some(machine) = machine::for_test("adopted") else { return };
    let playbook = Playbook::set_up(&machine, 15);
    let synapse = playbook.homeserver();
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "upgrades");
    synapse.send(&user, &room, "before the upgrade");
    machine.ok("matrix-postgres setup --yes 2>&1");
    let nothing = machine.run("matrix-postgres-upgrade rollback --yes");
    assert!(
        nothing.status == DATA_DIRECTORY && nothing.stderr.contains("there is no upgrade to roll back"),
        "{nothing}"
    );
    make_image(&machine, "docker", "postgres", 17);
    upgrade_as_the_playbook(&machine, &playbook);
    let user = synapse.log_in("ada");
    synapse.send(&user, &room, "after the upgrade");

    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains(&format!("and not touched: {LEFT}, PostgreSQL 15, ")), "{status}");
    assert!(
        status.contains(", last used at 20")
            && status.contains("to revert to that data directory: matrix-postgres-upgrade rollback"),
        "{status}"
    );
    let before = playbook.started();
    let dry = machine.ok("matrix-postgres-upgrade rollback --dry-run");
    assert!(dry.contains(&format!("replace /matrix/postgres/data by {LEFT}")), "{dry}");
    let unknown = "its amount is unknown: the playbook's upgrade has recorded no position; the homeserver has received ";
    assert!(dry.contains(unknown) && !dry.contains("received 0 events"), "{dry}");
    // Without an answer nothing is done.
    assert_ne!(machine.run("matrix-postgres-upgrade rollback </dev/null").status, 0);
    machine.ok("! ls /var/lib/matrix-postgres-upgrade/upgrade/journal.json");

    // What could go wrong is seen before anything stops.
    for (spoil, mend, status, expected) in [
        (
            "docker tag postgres:15 saved:15 && docker rmi postgres:15",
            "docker tag saved:15 postgres:15",
            NOT_WELL,
            "the image postgres:15",
        ),
        (
            &*format!("mv {LEFT}/pg_xact /root/"),
            &*format!("mv /root/pg_xact {LEFT}/"),
            DATA_DIRECTORY,
            "directory pg_xact is missing",
        ),
        (
            &*format!("chown root: {LEFT}"),
            &*format!("chown matrix: {LEFT}"),
            DATA_DIRECTORY,
            "does not belong to matrix",
        ),
    ] {
        machine.ok(spoil);
        let refused = machine.run("matrix-postgres-upgrade rollback --yes");
        assert_eq!(refused.status, status, "{refused}");
        assert!(
            refused.stderr.contains(expected)
                && refused.stderr.contains("nothing was stopped, and nothing was changed"),
            "{refused}"
        );
        machine.ok(mend);
    }
    assert_eq!(playbook.started(), before);

    // Killed, the homeserver comes up by itself: on what the playbook has made, or, on the way back, on what was before.
    machine.ok(
        "systemd-run --quiet --unit=back matrix-postgres-upgrade rollback --yes --pause starting-clients",
    );
    machine.wait_for("journalctl --no-pager -o cat --unit=back | tail -n 1 | grep -q 'pausing: '");
    machine.ok("systemctl kill --signal=KILL back.service");
    machine.ok("matrix-postgres-upgrade recover 2>&1");
    is_on(&machine, "17", &room, &["before the upgrade", "after the upgrade"]);
    machine.ok(&format!(
        "test $(cat {LEFT}/PG_VERSION) = 15 && ! test -e {DROP_IN} && ! ls -d /matrix/postgres/data.*"
    ));
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(
        status.contains("upgraded from PostgreSQL 15 to 17 by the playbook") && status.contains(LEFT),
        "{status}"
    );

    let back = machine.ok("matrix-postgres-upgrade rollback --yes 2>&1");
    assert!(back.contains("the homeserver runs on PostgreSQL 15 again; that of PostgreSQL 17 is in /matrix/postgres/data.upgrade-"), "{back}");
    is_on(&machine, "15", &room, &["before the upgrade"]);
    machine.ok(&format!("grep -q postgres:15 {DROP_IN} && ! test -e {LEFT} && test $(cat /matrix/postgres/data.upgrade-*/PG_VERSION) = 17"));
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains("runs on PostgreSQL 15: the upgrade to 17 was reverted"), "{status}");
    machine.power_off();
    machine.boot_again().expect("it should boot");
    machine.ok(&format!("systemctl start docker.service {BOTH}"));
    is_on(&machine, "15", &room, &["before the upgrade"]);
}
