//! Servers in containers: an installation as the Ansible playbook for Matrix lays it out, with docker and with podman, is
//! maintained beside its own units.

use crate::machine::containers::{Playbook, make_image};
use crate::machine::synapse::quote;
use crate::machine::upgrade::NOT_WELL;
use crate::machine::{self, Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const CONFIG: i32 = 27;
const SERVER: i32 = 32;

const SERVER_UNIT: &str = "matrix-postgres.service";
const BACKUP: &str = "matrix-postgres-backup.service";
const TRIAL: &str = "matrix-postgres-backup-verify.service";

fn newest_is_of(machine: &Machine, major: u16) {
    machine.ok("matrix-postgres-backup list");
    let newest = "\"$(ls -d /var/backups/matrix-postgres/2* | tail -n 1)\"/manifest.json";
    machine.ok(&format!("grep -q '\"version\": \"{major}\\.' {newest}"));
}

/// The newest backup brings back what was dropped.
#[track_caller]
fn brings_back(machine: &Machine, playbook: &Playbook<'_>, synapse: &Synapse<'_>, room: &str) {
    let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    machine.ok("systemctl stop matrix-synapse.service");
    playbook.sql("DROP DATABASE synapse");
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    machine.ok("systemctl start matrix-synapse.service");
    let said = synapse.messages(&synapse.log_in("ada"), room);
    assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())]);
}

#[test]
fn a_playbooks_installation_is_backed_up_and_restored_without_docker() {
    let Some(machine) = machine::for_test("containers") else { return };
    let playbook = Playbook::set_up(&machine, 15);
    let synapse = playbook.homeserver();
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    let before = playbook.started();
    // The programs of the machine are enough.
    machine.ok("mv /usr/bin/docker /usr/bin/away");

    // Without having been set up: the unit's user gets no further than the directory, and says what to do.
    let (status, journal) = machine.fails(BACKUP);
    assert_eq!(status, CONFIG.to_string(), "{journal}");
    assert!(journal.contains("HINT: matrix-postgres setup"), "{journal}");
    // Root does.
    let who = "SELECT current_user, current_database(), inet_server_addr() IS NULL";
    assert_eq!(machine.ok(&format!("matrix-postgres-cli -XAtc {}", quote(who))), "matrix|synapse|t");
    // There is no second server.
    let server = machine.run("/usr/libexec/matrix-postgres/matrix-postgres-server");
    assert_eq!(server.status, CONFIG, "{server}");
    assert!(server.stderr.contains("HINT: systemctl start matrix-postgres.service"), "{server}");

    let tried = machine.ok("matrix-postgres setup --dry-run");
    assert!(
        tried.starts_with("server: the container matrix-postgres of docker, matrix-postgres.service: "),
        "{tried}"
    );
    machine.ok(&format!("! test -e /etc/systemd/system/{BACKUP}.d"));
    let set_up = machine.ok("matrix-postgres setup --yes");
    assert!(set_up.contains("logged in to PostgreSQL 15."), "{set_up}");
    assert!(machine.ok("matrix-postgres setup").contains("all is set up"));
    machine.ok("! test -e /etc/matrix-postgres/config.d/10-server.toml");

    machine.start(BACKUP);
    machine.start(TRIAL);
    let status = machine.run("matrix-postgres-backup status");
    assert_eq!(status.status, 0, "{status}");
    let first = status.stdout.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("server:") && first.contains(" the container matrix-postgres of docker"),
        "{status}"
    );
    let status = machine.run("matrix-postgres-backup status --json").json();
    assert_eq!((&status["server"]["kind"], &status["well"]), (&"container".into(), &true.into()), "{status}");
    assert_eq!(status["server"]["container"]["name"], "matrix-postgres");
    let status = machine.run("matrix-postgres-upgrade status");
    assert!(status.status == 0 && !status.stdout.contains("is overridden"), "{status}");
    assert_eq!(machine.ok("find /var/backups/matrix-postgres -printf '%u\n' | sort -u"), "matrix");
    newest_is_of(&machine, 15);

    machine.ok("mv /usr/bin/away /usr/bin/docker");
    brings_back(&machine, &playbook, &synapse, &room);
    // In place of the live one, beside it, and the roles.
    let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy {backup} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --globals {backup} 2>&1"));
    assert!(machine.ok("echo '\\l' | matrix-postgres-cli -XAt").contains("copy|synapse|"));
    machine.ok(
        "matrix-postgres-backup clean --yes && matrix-postgres-backup prune && matrix-postgres-backup run",
    );

    // Without an image to run afterwards there is no upgrade; with one, see `container_upgrades.rs`.
    let check = machine.run("matrix-postgres-upgrade check");
    assert_eq!(check.status, NOT_WELL, "{check}");
    assert!(check.stdout.starts_with("server: the container matrix-postgres of docker"), "{check}");
    assert!(
        check.stdout.contains("BLOCKER  the image postgres:17, which matrix-postgres.service"),
        "{check}"
    );
    for verb in ["run", "run --dry-run", "rehearse"] {
        let refused = machine.run(&format!("matrix-postgres-upgrade {verb}"));
        assert_eq!(refused.status, NOT_WELL, "{refused}");
        assert!(refused.stderr.contains("nothing was stopped, and nothing was changed"), "{refused}");
    }
    assert_eq!(playbook.started(), before);

    // Stopped by its administrator, it is started by nobody else.
    machine.ok(&format!("systemctl stop {SERVER_UNIT} && rm -f /matrix/postgres/run/.s.PGSQL.*"));
    let (status, journal) = machine.fails(BACKUP);
    assert_eq!(status, SERVER.to_string(), "{journal}");
    assert!(journal.contains(&format!("HINT: systemctl start {SERVER_UNIT}")), "{journal}");
    let cli = machine.run("matrix-postgres-cli -c 'SELECT 1'");
    assert!(
        cli.status == SERVER && cli.stderr.contains(&format!("HINT: systemctl start {SERVER_UNIT}")),
        "{cli}"
    );
    machine.ok(&format!("! systemctl is-active --quiet {SERVER_UNIT}"));
}

/// This machine has servers and clients, but not of this version.
fn without_programs(machine: &Machine, major: u16) {
    machine.ok(&format!("mv /usr/lib/postgresql/{major} /root/postgresql-{major}"));
}

/// Nothing of ours is left.
#[track_caller]
fn nothing_is_left(machine: &Machine, program: &str) {
    let ours = format!("{program} ps --all --quiet --filter label=matrix-postgres.process");
    machine.wait_for(&format!("test -z \"$({ours})\" || {{ {program} ps --all; false; }}"));
}

#[test]
fn programs_that_the_machine_lacks_are_run_in_containers_of_the_servers_image() {
    let Some(machine) = machine::for_test("containers-image") else { return };
    let playbook = Playbook::set_up(&machine, 15);
    let synapse = playbook.homeserver();
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    without_programs(&machine, 15);

    let set_up = machine.ok("matrix-postgres setup --yes 2>&1");
    assert!(set_up.contains("SocketUser=matrix"), "{set_up}");
    assert!(set_up.contains("logged in to PostgreSQL 15."), "{set_up}");
    machine.start(BACKUP);
    nothing_is_left(&machine, "docker");
    machine.start(TRIAL);
    let status = machine.run("matrix-postgres-backup status");
    assert_eq!(status.status, 0, "{status}");
    newest_is_of(&machine, 15);
    // By hand, too.
    machine.ok("matrix-postgres-backup run");
    brings_back(&machine, &playbook, &synapse, &room);
    nothing_is_left(&machine, "docker");

    // Nobody else may ask, and nothing but PostgreSQL's clients is run.
    let ask = "/usr/libexec/matrix-postgres/matrix-postgres-container ask --";
    assert_ne!(machine.run(&format!("runuser -u matrix-postgres -- {ask} psql --version")).status, 0);
    assert!(machine.ok(&format!("runuser -u matrix -- {ask} psql --version")).contains("(PostgreSQL) 15."));
    for program in ["sh", "postgres", "initdb"] {
        let refused = machine.run(&format!("runuser -u matrix -- {ask} {program} --version"));
        assert!(refused.status == CONFIG && refused.stderr.contains("not run in containers"), "{refused}");
    }
    let ended = machine
        .run(&format!("runuser -u matrix -- {ask} psql --dbname=host=/matrix/postgres/run -c 'SELECT 1/0'"));
    assert!(ended.status == 1 && ended.stderr.contains("division by zero"), "{ended}");

    // What is killed in the middle of its work leaves no container and no lock behind.
    playbook.sql("CREATE DATABASE locked");
    let locked = "docker exec -i matrix-postgres psql -U matrix -d locked -XAt -qc";
    machine.ok(&format!("{locked} 'CREATE TABLE t (n int)'"));
    machine.ok(&format!(
        "systemd-run --quiet --unit=locker {locked} 'BEGIN; LOCK TABLE t; SELECT pg_sleep(3600)'"
    ));
    machine.wait_for(&format!(
        "test $({locked} \"SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'\") -ge 1"
    ));
    let dumps = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' OR query LIKE 'LOCK TABLE public.t %'";
    for (how, end) in [
        ("the unit", "systemctl kill --signal=SIGKILL --kill-whom=all matrix-postgres-backup.service"),
        (
            "what calls docker",
            "systemctl kill --signal=SIGKILL --kill-whom=all 'matrix-postgres-container@*.service'",
        ),
        ("the unit, by its administrator", "systemctl stop matrix-postgres-backup.service"),
    ] {
        machine.ok(&format!("systemctl reset-failed {BACKUP}; systemctl start --no-block {BACKUP}"));
        machine.wait_for(&format!("test $({locked} \"{dumps}\") -ge 1"));
        machine.ok(end);
        // While it runs, it is "activating"; a start then would be none.
        machine.wait_for(&format!(
            "systemctl show --value --property=ActiveState {BACKUP} | grep -cE 'inactive|failed'"
        ));
        machine.wait_for(&format!(
            "test $({locked} \"{dumps}\") = 0 || {{ echo {}; docker ps --all; false; }}",
            quote(how)
        ));
        nothing_is_left(&machine, "docker");
    }
    // The end of docker's client would not be that of what it runs by exec.
    playbook.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'");
    machine.start(BACKUP);
}

/// As the playbook did it before 2026-03: its server is reached by its network and its password only.
fn without_socket(machine: &Machine, playbook: &Playbook<'_>) {
    machine.ok(&format!(
        "sed -i 's|--mount type=bind,src=/matrix/postgres/run,dst=/var/run/postgresql|--tmpfs=/var/run/postgresql:rw,mode=1777|' \
         /etc/systemd/system/{SERVER_UNIT} && systemctl daemon-reload && systemctl restart {SERVER_UNIT}"
    ));
    machine.ok("! grep -q /matrix/postgres/run /etc/systemd/system/matrix-postgres.service && rm -r /matrix/postgres/run");
    playbook.wait();
}

#[test]
fn a_server_without_a_socket_on_the_machine_is_reached_by_its_network_with_the_password_as_it_is() {
    let Some(machine) = machine::for_test("containers-network") else { return };
    let playbook = Playbook::set_up(&machine, 15);
    without_socket(&machine, &playbook);
    let synapse = playbook.homeserver();
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");

    let who = "SELECT current_user, current_database(), inet_server_addr() IS NULL";
    assert_eq!(machine.ok(&format!("matrix-postgres-cli -XAtc {}", quote(who))), "matrix|synapse|f");
    assert_eq!(machine.ok("echo 'SELECT 1 + 1' | matrix-postgres-cli -XAt"), "2");
    let refused = machine.run("runuser -u matrix -- matrix-postgres-cli -c 'SELECT 1'");
    assert!(refused.status != 0 && refused.stderr.contains("HINT: sudo matrix-postgres-cli"), "{refused}");
    machine.ok("matrix-postgres setup --yes 2>&1");
    machine.start(BACKUP);
    machine.start(TRIAL);
    newest_is_of(&machine, 15);
    let status = machine.run("matrix-postgres-backup status");
    assert_eq!(status.status, 0, "{status}");
    brings_back(&machine, &playbook, &synapse, &room);
    nothing_is_left(&machine, "docker");

    // The password was in no argument list, and in nothing that is written.
    let journal = machine.ok("journalctl --no-pager -o cat");
    assert!(!journal.contains("\"a\" secret #"), "the password is in the journal");
    machine.ok(
        "! grep -rF '\"a\" secret #' /var/backups/matrix-postgres /etc/matrix-postgres /etc/systemd/system",
    );

    // What docker refuses is named by its line.
    machine.ok("sed -i '1i export NAME=secret-too' /matrix/postgres/env-postgres-psql");
    let (_, journal) = machine.fails(BACKUP);
    assert!(!journal.contains("secret-too"), "{journal}");
    assert!(journal.contains("HINT"), "{journal}");
    machine.ok("sed -i 1d /matrix/postgres/env-postgres-psql");
    machine.start(BACKUP);
}

/// A unit with podman, as administrators write one.
const PODMAN: &str = "\
[Unit]
Description=PostgreSQL
After=network.target

[Service]
Type=exec
ExecStart=/usr/bin/podman run --rm --replace --name matrix-postgres --network=host --user=791 --log-driver=none \
    --env-file=/matrix/postgres/env-postgres-server -v /matrix/postgres/data:/var/lib/postgresql/data \
    -v /matrix/postgres/run:/var/run/postgresql -v /etc/passwd:/etc/passwd:ro localhost/postgres:15 \
    postgres -c listen_addresses=
ExecStop=/usr/bin/podman stop --time 60 matrix-postgres

[Install]
WantedBy=multi-user.target
";

#[test]
fn a_server_in_a_container_of_podmans_is_backed_up_and_restored() {
    let Some(machine) = machine::for_test("containers-podman") else { return };
    make_image(&machine, "podman", "localhost/postgres", 15);
    machine.ok("useradd --system --uid 791 --no-create-home --home-dir /matrix matrix
        install -d -o matrix -g matrix -m 0700 /matrix /matrix/postgres /matrix/postgres/data
        install -d -o matrix -g matrix -m 0755 /matrix/postgres/run");
    machine.write("/matrix/postgres/env-postgres-server", "POSTGRES_USER=matrix\nPOSTGRES_PASSWORD=x\nPOSTGRES_DB=matrix\nPOSTGRES_INITDB_ARGS=--locale=C --encoding=UTF8\n");
    machine.write(&format!("/etc/systemd/system/{SERVER_UNIT}"), PODMAN);
    machine.ok(&format!("systemctl daemon-reload && systemctl start {SERVER_UNIT}"));
    let ready = "podman exec matrix-postgres pg_isready --quiet --username=matrix";
    machine.wait_for(&format!("{ready} || {{ journalctl --no-pager -n 30 >&2; false; }}"));
    let started = "matrix-postgres-cli -XAtc 'SELECT pg_postmaster_start_time()'";
    let before = machine.ok(started);
    machine.ok("matrix-postgres-cli -c \"CREATE TABLE t AS SELECT generate_series(1, 500) n\"");

    for programs in ["the machine's", "the image's"] {
        if programs != "the machine's" {
            without_programs(&machine, 15);
        }
        let set_up = machine.ok("matrix-postgres setup --yes 2>&1");
        assert!(set_up.starts_with("server: the container matrix-postgres of podman"), "{set_up}");
        machine.start(BACKUP);
        machine.start(TRIAL);
        newest_is_of(&machine, 15);
        let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
        machine.ok("matrix-postgres-cli -d postgres -c 'DROP DATABASE matrix'");
        machine.ok(&format!("matrix-postgres-backup restore --yes --database matrix {backup} 2>&1"));
        assert_eq!(machine.ok("matrix-postgres-cli -XAtc 'SELECT count(*), sum(n) FROM t'"), "500|125250");
        nothing_is_left(&machine, "podman");
    }
    assert_eq!(machine.ok(started), before);
    let check = machine.run("matrix-postgres-upgrade check");
    assert!(
        check.status == NOT_WELL && check.stdout.contains("BLOCKER  the server in the container"),
        "{check}"
    );
}
