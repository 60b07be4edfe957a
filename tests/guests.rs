//! Clients that are in no setting: by their connections they are found, stopped and started again with the others, wherever they are.

use crate::machine::containers::{Playbook, make_image, start_docker};
use crate::machine::synapse::quote;
use crate::machine::upgrade::{UPGRADE, journal, sql};
use crate::machine::{self, Machine};

/// A unit whose client comes back whenever it is disconnected, and says so.
fn unit(machine: &Machine, name: &str, command: &str) {
    // As the first process of a container, psql takes no SIGTERM; docker has an init process for that.
    let stop = match command.contains("/podman ") {
        true => format!("ExecStop=/usr/bin/podman stop --time=1 {name}\n"),
        false => String::new(),
    };
    machine.write(
        &format!("/etc/systemd/system/{name}.service"),
        &format!(
            "[Service]\nExecStart={command}\n{stop}Restart=always\nRestartSec=1\nTimeoutStopSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
        ),
    );
    machine.ok(&format!("systemctl daemon-reload && systemctl start {name}.service"));
}

/// psql that stays connected; `how` is its connection.
fn stays(name: &str, how: &str) -> String {
    format!("psql \"{how} application_name={name}\" -XAtqc \"SELECT pg_catalog.pg_sleep(36000)\"")
}

/// Waits until all of them have a session.
#[track_caller]
fn are_connected(machine: &Machine, names: &[&str]) {
    for name in names {
        let asked = format!("SELECT 1 FROM pg_catalog.pg_stat_activity WHERE application_name = '{name}'");
        machine.wait_for(&format!(
            "matrix-postgres-cli -d postgres -XAtqc {} | grep -c 1 || {{ journalctl --no-pager -n 20; docker ps; false; }}",
            quote(&asked)
        ));
    }
}

/// They have been stopped and started by systemd, and not by their own `Restart=`.
#[track_caller]
fn were_stopped_and_started(machine: &Machine, said: &str, names: &[&str]) {
    for name in names {
        machine.ok(&format!("systemctl is-active {name}.service"));
        let restarts = machine.ok(&format!("systemctl show --value --property=NRestarts {name}.service"));
        assert_eq!(restarts, "0", "{name}: {said}\n{}", machine.journal_of(&format!("{name}.service")));
        let stopped = machine.ok(&format!("journalctl --no-pager -o cat --unit={name}.service"));
        assert!(stopped.contains("Stopping") || stopped.contains("Stopped"), "{name}: {stopped}");
    }
    are_connected(machine, names);
    machine.ok("journalctl --rotate --quiet && journalctl --vacuum-time=1s --quiet");
}

/// The playbook's password, for a file of variables.
const PASSWORD: &str = "--env-file=/matrix/postgres/env-postgres-psql";

#[test]
fn clients_in_containers_of_docker_are_found_and_stopped_with_the_others() {
    let Some(machine) = machine::for_test("guests-docker") else { return };
    let playbook = Playbook::set_up(&machine, 15);
    make_image(&machine, "docker", "postgres", 17);
    playbook.make_database();
    machine.ok("matrix-postgres setup --yes 2>&1");
    machine.write(
        "/etc/matrix-postgres/config.toml",
        "[upgrade]\nbackup_within = \"never\"\nmethod = \"dump\"\n",
    );
    let run = |name: &str, more: &str, how: &str| {
        format!(
            "/usr/bin/docker run --rm --name={name} --network=matrix {PASSWORD} --stop-signal=SIGTERM --init {more} --entrypoint=psql \
             postgres:15 \"{how} application_name={name}\" -XAtqc \"SELECT pg_catalog.pg_sleep(36000)\""
        )
    };
    let by_network = "host=matrix-postgres dbname=postgres";
    // As the playbook writes units, and as others do.
    unit(&machine, "bridge", &run("bridge", "", by_network));
    machine.ok(&format!("{} >/dev/null", run("attached", "", by_network).replace(" run --rm ", " create ")));
    unit(&machine, "attached", "/usr/bin/env docker start --attach attached");
    // By the socket, from a container that has its directory.
    let sockets = "--user=791 --mount type=bind,src=/matrix/postgres/run,dst=/sockets";
    unit(&machine, "by-socket", &run("by-socket", sockets, "host=/sockets dbname=synapse"));
    // From the machine, to the address on the bridge.
    let address = machine.ok(
        "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' matrix-postgres",
    );
    unit(
        &machine,
        "near",
        &format!(
            "/usr/bin/{}",
            stays("near", &format!("host={address} user=synapse password=secret dbname=synapse"))
        ),
    );
    // Of no unit.
    machine.ok(&format!("{} >/dev/null", run("stray", "--detach", by_network)));
    let all = ["bridge", "attached", "by-socket", "near"];
    are_connected(&machine, &all);
    are_connected(&machine, &["stray"]);

    let nobodys =
        "matrix@postgres (stray), sessions: 1, from the container stray of docker, which no unit runs";
    let check = machine.ok("matrix-postgres-upgrade check");
    for name in all {
        assert!(check.contains(&format!("({name}), sessions: 1, from {name}.service\n")), "{name}: {check}");
    }
    assert!(check.contains(&format!("warning  connected: {nobodys}: will be disconnected")), "{check}");
    assert!(check.contains("HINT: docker stop stray"), "{check}");
    let plan = machine.ok("matrix-postgres-upgrade run --dry-run");
    assert!(plan.contains(&format!("will be disconnected: {nobodys}")), "{plan}");
    assert!(all.iter().all(|name| plan.contains(&format!("{name}.service"))), "{plan}");

    let upgraded = machine.run(UPGRADE);
    let said = journal(&machine);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{said}");
    assert!(said.contains(&format!("will be disconnected: {nobodys}")), "{said}");
    were_stopped_and_started(&machine, &said, &all);
    machine.ok("matrix-postgres-upgrade rollback --yes 2>&1");
    were_stopped_and_started(&machine, "rollback", &all);

    // A restore stops those of its database, and no others.
    machine.ok("docker rm --force stray");
    machine.start("matrix-postgres-backup.service");
    let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    let since = |name: &str| {
        machine.ok(&format!("systemctl show --value --property=ActiveEnterTimestampMonotonic {name}.service"))
    };
    let (before, bridge) = (since("by-socket"), since("bridge"));
    let restored = machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    were_stopped_and_started(&machine, &restored, &["by-socket", "near"]);
    assert_ne!(since("by-socket"), before);
    assert_eq!(since("bridge"), bridge);
}

#[test]
fn clients_of_our_own_server_are_found_in_containers_of_docker_and_of_podman() {
    let Some(machine) = machine::for_test("guests-own") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write(
        "/etc/matrix-postgres/config.toml",
        "[server]\nversion = 15\nport = 5433\nlisten = [\"*\"]\n[upgrade]\nbackup_within = \"never\"\n",
    );
    machine.ok("systemctl start matrix-postgres.service");
    sql(&machine, "postgres", "CREATE ROLE bot LOGIN");
    machine.ok(
        "echo 'host postgres bot 0.0.0.0/0 trust' | sed -i '1r /dev/stdin' /matrix/postgres/data/pg_hba.conf \
         && systemctl reload matrix-postgres.service",
    );
    start_docker(&machine);
    make_image(&machine, "docker", "postgres", 15);
    make_image(&machine, "podman", "localhost/postgres", 15);
    machine.ok("docker network create --subnet=172.30.0.0/24 --gateway=172.30.0.1 bots >/dev/null");
    let run = |program: &str, name: &str, more: &str, host: &str, image: &str| {
        let how = format!("host={host} port=5433 user=bot dbname=postgres");
        format!(
            "/usr/bin/{program} run --rm --name={name} {more} --entrypoint=psql {image} {}",
            &stays(name, &how)["psql ".len()..]
        )
    };
    let socket = "host=/run/matrix-postgres";
    unit(
        &machine,
        "of-docker",
        &run("docker", "of-docker", "--init --network=bots", "172.30.0.1", "postgres:15"),
    );
    unit(
        &machine,
        "of-podman",
        &run("podman", "of-podman", "--replace --network=host", "127.0.0.1", "localhost/postgres:15"),
    );
    // In the unit's own control group, as units that podman writes.
    let split = "--replace --network=host --cgroups=split --sdnotify=ignore";
    unit(&machine, "of-quadlet", &run("podman", "of-quadlet", split, "127.0.0.1", "localhost/postgres:15"));
    unit(
        &machine,
        "plain",
        &format!("/usr/bin/{}", stays("plain", &format!("{socket} port=5433 user=postgres dbname=postgres"))),
    );
    // An administrator who looks around, by a unit that is gone once it is stopped.
    machine.ok(&format!(
        "systemd-run --quiet --unit=transient {}",
        stays("transient", &format!("{socket} port=5433 user=postgres dbname=postgres"))
    ));
    let all = ["of-docker", "of-podman", "of-quadlet", "plain"];
    are_connected(&machine, &all);
    are_connected(&machine, &["transient"]);

    let check = machine.ok("matrix-postgres-upgrade check");
    for name in all {
        assert!(check.contains(&format!("({name}), sessions: 1, from {name}.service\n")), "{name}: {check}");
    }
    let left = "postgres@postgres (transient), sessions: 1, from transient.service";
    assert!(check.contains(&format!("{left}: will be disconnected")), "{check}");
    let upgraded = machine.run(UPGRADE);
    let said = journal(&machine);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{said}");
    assert!(said.contains(&format!("will be disconnected: {left}")), "{said}");
    assert!(!said.contains("from matrix-postgres-upgrade.service"), "{said}");
    were_stopped_and_started(&machine, &said, &all);
    machine.ok("matrix-postgres-upgrade rollback --yes 2>&1");
    were_stopped_and_started(&machine, "rollback", &all);
}
