//! Nothing is silent: what an administrator is told without having asked for it, by hand and by the units.

#[path = "machine/mod.rs"]
mod machine;

use std::time::Duration;

use machine::Machine;
use machine::upgrade::sql;

const PATIENCE: Duration = Duration::from_secs(120);

/// A client that is a unit of its own, which nobody stops.
fn connect(machine: &Machine, name: &str, how: &str, properties: &str) {
    machine.ok(&format!(
        "systemd-run --quiet --unit={name} {properties} \
         psql 'dbname=postgres application_name={name} {how}' -XAtqc 'SELECT pg_catalog.pg_sleep(3600)'"
    ));
    let asked = format!("SELECT 1 FROM pg_catalog.pg_stat_activity WHERE application_name = '{name}'");
    machine.wait_for(&format!("matrix-postgres-cli -XAtqc \"{asked}\" | grep 1"), PATIENCE);
}

/// What the verb of an upgrade says within the sandbox of its unit.
fn by_the_unit(machine: &Machine, verb: &str) -> String {
    let unit = "/etc/systemd/system/matrix-postgres-upgrade.service.d";
    machine.ok(&format!("mkdir -p {unit}"));
    machine.write(
        &format!("{unit}/verb.conf"),
        &format!("[Service]\nExecStart=\nExecStart=/usr/bin/matrix-postgres-upgrade {verb}\nExecStopPost=\n"),
    );
    machine.ok("systemctl daemon-reload && systemctl start matrix-postgres-upgrade.service");
    let said = machine.ok("journalctl --no-pager --output=cat --unit=matrix-postgres-upgrade.service \
        _SYSTEMD_INVOCATION_ID=$(systemctl show --value --property=InvocationID matrix-postgres-upgrade.service)");
    machine.ok(&format!("rm -r {unit} && systemctl daemon-reload"));
    said
}

#[test]
fn units_that_are_connected_are_told_by_hand_and_by_the_unit() {
    let Some(machine) = machine::for_test("connected") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write(
        "/etc/matrix-postgres/config.toml",
        "[server]\nversion = 15\nlisten = [\"127.0.0.1\"]\n[upgrade]\nbackup_within = \"never\"\n",
    );
    machine.ok("systemctl start matrix-postgres.service");
    sql(&machine, "postgres", "CREATE ROLE bot LOGIN");
    machine.ok("echo 'host postgres bot 127.0.0.1/32 trust' | sed -i '1r /dev/stdin' /matrix/postgres/data/pg_hba.conf \
         && systemctl reload matrix-postgres.service");
    let socket = "host=/run/matrix-postgres user=postgres";
    connect(&machine, "bot-socket", socket, "");
    connect(&machine, "bot-tcp", "host=127.0.0.1 user=bot", "");
    // It has a network of its own, as hardened units do.
    connect(&machine, "bot-hidden", socket, "--property=PrivateNetwork=yes --property=PrivateUsers=no");
    let expected = [
        "connected: postgres@postgres (bot-socket), 1 times, of bot-socket.service, which nobody stops",
        "connected: bot@postgres (bot-tcp), 1 times, of bot-tcp.service, which nobody stops",
        "connected: postgres@postgres (bot-hidden), 1 times, of bot-hidden.service, which nobody stops",
    ];
    let ran = machine.run("matrix-postgres-upgrade run --dry-run");
    for (how, said) in [
        ("by hand", machine.ok("matrix-postgres-upgrade check")),
        ("by the unit", by_the_unit(&machine, "check")),
        ("by hand, in the run", ran.stderr),
        ("by the unit, in the run", by_the_unit(&machine, "run --dry-run")),
    ] {
        for expected in expected {
            assert!(said.contains(expected), "{how}: {expected}: {said}");
        }
        assert!(!said.contains("journald") && !said.contains("netlink"), "{how}: {said}");
    }

    // What cannot be found out is told, and stops nothing.
    machine.ok("chmod -x $(readlink -f /usr/bin/ss)");
    let said = machine.ok("matrix-postgres-upgrade check");
    assert!(said.contains("warning  it is not known which units are connected to the server: "), "{said}");
    let said = by_the_unit(&machine, "run --dry-run");
    assert!(said.contains("it is not known which units are connected"), "{said}");

    machine.ok("systemctl stop dbus.socket dbus.service");
    let report = machine.run("matrix-postgres-upgrade check");
    assert_eq!(report.status, machine::upgrade::NOT_WELL, "{report}");
    assert!(report.stdout.contains("BLOCKER  systemd cannot be asked which units there are"), "{report}");
}
