//! Nothing is silent: what an administrator is told without having asked for it, by hand and by the units.

use crate::machine::upgrade::{NOT_WELL, sql};
use crate::machine::{self, Machine};

/// A client that is a unit of its own, which nobody stops.
fn connect(machine: &Machine, name: &str, how: &str, properties: &str) {
    machine.ok(&format!(
        "systemd-run --quiet --unit={name} {properties} \
         psql 'port=5433 dbname=postgres application_name={name} {how}' -XAtqc 'SELECT pg_catalog.pg_sleep(3600)'"
    ));
    let asked = format!("SELECT 1 FROM pg_catalog.pg_stat_activity WHERE application_name = '{name}'");
    machine.wait_for(&format!("matrix-postgres-cli -XAtqc \"{asked}\" | grep 1"));
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
        "[server]\nversion = 15\nport = 5433\nlisten = [\"127.0.0.1\"]\n[upgrade]\nbackup_within = \"never\"\n",
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
        "connected: postgres@postgres (bot-socket), sessions: 1, from bot-socket.service: will be disconnected",
        "connected: bot@postgres (bot-tcp), sessions: 1, from bot-tcp.service: will be disconnected",
        "connected: postgres@postgres (bot-hidden), sessions: 1, from bot-hidden.service: will be disconnected",
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
        assert!(!said.contains("journald") && !said.contains("(matrix-postgres)"), "{how}: {said}");
    }

    // What cannot be found out is told, and stops nothing.
    machine.write("/no-netlink.conf", "[Service]\nRestrictAddressFamilies=AF_UNIX\n");
    machine.ok(
        "install -D -m 0644 -t /etc/systemd/system/run-.service.d /no-netlink.conf && systemctl daemon-reload",
    );
    let said = machine.ok("matrix-postgres-upgrade check");
    assert!(
        said.contains("warning  could not determine which units are connected to the server: "),
        "{said}"
    );
    let said = by_the_unit(&machine, "run --dry-run");
    assert!(said.contains("could not determine which units are connected"), "{said}");

    machine.ok("systemctl stop dbus.socket dbus.service");
    let report = machine.run("matrix-postgres-upgrade check");
    assert_eq!(report.status, NOT_WELL, "{report}");
    assert!(report.stdout.contains("BLOCKER  could not ask systemd for its units"), "{report}");
}

#[test]
fn what_is_left_over_is_told_with_size_and_age_and_goes_by_one_command() {
    let Some(machine) = machine::for_test("left-over") else { return };
    machine.ok("systemctl start matrix-postgres.service matrix-postgres-backup.service");
    sql(&machine, "postgres", "COMMENT ON DATABASE homeserver IS 'of the administrator'");
    sql(&machine, "postgres", "CREATE DATABASE \"x_before_20261124T030000Z\"");
    sql(&machine, "postgres", "CREATE DATABASE x_before_y");
    let name = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    machine.ok(&format!("matrix-postgres-backup restore --yes {name} 2>&1"));
    let named = "SELECT datname FROM pg_catalog.pg_database WHERE datname ~ '_before_' ORDER BY 1";
    let databases = || sql(&machine, "postgres", named);
    let kept = databases().lines().next().unwrap_or_default().to_owned();
    assert!(kept.starts_with("homeserver_before_"), "{kept}");
    let comment = sql(
        &machine,
        "postgres",
        &format!(
            "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = '{kept}'"
        ),
    );
    assert_eq!(comment, "matrix-postgres: replaced by a restore\nof the administrator");
    let said = machine.ok("matrix-postgres-backup status");
    assert!(said.contains(&format!("database \"{kept}\", replaced by a restore, ")), "{said}");
    assert!(
        said.contains("(0 days); to remove: matrix-postgres-backup clean") && !said.contains("x_before"),
        "{said}"
    );
    let json = machine.ok("matrix-postgres-backup status --json");
    assert!(json.contains(&format!("\"database\": \"{kept}\"")), "{json}");
    assert_ne!(machine.run("matrix-postgres-backup clean </dev/null").status, 0);
    machine.ok("matrix-postgres-backup clean --dry-run");
    assert_eq!(databases().lines().count(), 3);
    machine.ok("matrix-postgres-backup clean --yes");
    assert_eq!(databases(), "x_before_20261124T030000Z\nx_before_y");
    assert!(!machine.ok("matrix-postgres-backup status").contains("leftover"));

    // As a restore leaves it that is killed while it loads; the others are somebody's.
    let unfinished = "homeserver_restoring_20261124T030000Z";
    for name in [unfinished, "x_restoring_20261124T030000Z"] {
        sql(&machine, "postgres", &format!("CREATE DATABASE \"{name}\""));
        sql(&machine, name, "CREATE TABLE public.schema_version (lock char(1), version integer)");
    }
    let mark = "'matrix-postgres: a restore that is not finished'";
    sql(&machine, "postgres", &format!("COMMENT ON DATABASE \"{unfinished}\" IS {mark}"));
    sql(&machine, "postgres", &format!("COMMENT ON DATABASE x_before_y IS {mark}"));
    machine.ok("systemctl start matrix-postgres-backup.service");
    let list = machine.ok("matrix-postgres-backup list --json");
    assert!(list.contains("x_restoring_20261124T030000Z") && list.contains("x_before_y"), "{list}");
    let said = machine.ok("matrix-postgres-backup status");
    let expected = format!("database \"{unfinished}\", left unfinished by an interrupted restore, ");
    assert!(said.contains(&expected) && said.contains("state:       ok"), "{said}");
    sql(&machine, "postgres", "DROP DATABASE \"x_restoring_20261124T030000Z\"");
    machine.ok("systemctl start matrix-postgres-backup.service");
    machine.ok("systemctl start matrix-postgres-backup-verify.service");
    machine.ok("matrix-postgres-backup clean --yes");
    assert!(!machine.ok("matrix-postgres-backup status").contains("leftover"));
    assert!(!sql(&machine, "postgres", "TABLE pg_catalog.pg_database").contains("restoring"));

    let state = "/var/lib/matrix-postgres-upgrade/upgrade";
    machine.ok(&format!(
        "install -d -m 0700 {state} && install -m 0600 /dev/null {state}/journal.json.unusable-20261124T030000Z
         cd /matrix/postgres && mkdir data.upgrade-20261124T030000Z data.upgrade-mine data.rehearsal-20261124T030000Z-copy"
    ));
    let said = machine.ok("matrix-postgres-upgrade status");
    for expected in [
        "leftover: /matrix/postgres/data.upgrade-20261124T030000Z, of an upgrade that is no longer running, ",
        "leftover: /matrix/postgres/data.rehearsal-20261124T030000Z-copy, of a rehearsal that is no longer running, ",
        "journal.json.unusable-20261124T030000Z, unusable journal of an upgrade, 0 B, since 2026-11-24",
        "\nto remove leftovers: matrix-postgres-upgrade clean",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(machine.ok("matrix-postgres-upgrade status --json").contains("\"what\": \"rehearsal\""));
    let cleaned = machine.run("matrix-postgres-upgrade clean --yes");
    assert_eq!(cleaned.status, 0, "{cleaned}");
    let said = machine.ok("matrix-postgres-upgrade status");
    assert!(!said.contains("leftover"), "{said}: {cleaned}");
    assert_eq!(machine.ok("cd /matrix/postgres && ls -d data?*"), "data.upgrade-mine");
    machine.ok("systemctl restart matrix-postgres.service");
}

#[test]
fn a_server_that_an_update_has_left_behind_is_told_until_it_is_restarted() {
    let Some(machine) = machine::for_test("replaced") else { return };
    machine.ok("systemctl start matrix-postgres.service matrix-postgres-backup.service");
    let status = || machine.run("matrix-postgres-backup status");
    let said = "an update of PostgreSQL was installed, and the server still runs the version before it";
    assert!(!status().stdout.contains(said), "{}", status());
    // As dpkg does it.
    machine.ok(
        "cd /usr/lib/postgresql/17/bin && cp -p postgres postgres.dpkg-new && mv postgres.dpkg-new postgres",
    );
    let told = status();
    assert_eq!(told.status, 0, "{told}");
    assert!(told.stdout.contains(said), "{told}");
    assert!(told.stdout.contains("HINT: systemctl restart matrix-postgres.service"), "{told}");
    machine.ok("systemctl restart matrix-postgres.service");
    assert!(!status().stdout.contains(said), "{}", status());
    // needrestart leaves it to the administrator.
    machine.ok(r#"perl -we 'our %nrconf; require "/etc/needrestart/conf.d/matrix-postgres.conf";
            exit !grep { "matrix-postgres.service" =~ /$_/ } keys %{$nrconf{override_rc}}'"#);
}
