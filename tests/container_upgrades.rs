//! Upgrades of a server in a container of docker, on which a real Synapse runs, as the Ansible playbook for Matrix lays it out:
//! its unit runs the image of the new version afterwards, and that of the old one after a rollback.

use crate::machine::containers::{Playbook, make_image, make_image_of_both};
use crate::machine::upgrade::{NOT_WELL, UPGRADE, is_closed, journal, pause_at, recovered, said};
use crate::machine::{self, Machine};

const SERVER_UNIT: &str = "matrix-postgres.service";
const DROP_IN: &str = "/etc/systemd/system/matrix-postgres.service.d/50-matrix-postgres-upgrade.conf";
const DROP_INS: &str = "/etc/systemd/system/matrix-postgres.service.d";
const KEPT: &str = "/matrix/postgres-auto-upgrade-backup";

/// What an administrator may have beside the homeserver's database.
const MORE: [&str; 5] = [
    "CREATE ROLE bridge LOGIN PASSWORD 'secret' CONNECTION LIMIT 7",
    "CREATE DATABASE \"mautrix-signal\" OWNER bridge TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'",
    "ALTER DATABASE synapse SET work_mem = '7MB'",
    "ALTER SYSTEM SET maintenance_work_mem = '123MB'",
    "CREATE TABLE of_matrix AS SELECT n, 'row ' || n AS name FROM generate_series(1, 1000) n",
];

/// An installation on 15 with somebody's talk, whose unit has the server wait for its clients; the room.
fn prepare<'a>(machine: &'a Machine, method: &str) -> (Playbook<'a>, String) {
    let playbook = Playbook::set_up(machine, 15);
    machine.ok(&format!(
        "sed -i 's/--shm-size=256M/--stop-signal=SIGTERM &/' /etc/systemd/system/{SERVER_UNIT} && systemctl daemon-reload && \
         systemctl restart {SERVER_UNIT} && systemctl enable --quiet docker.service {SERVER_UNIT}"
    ));
    playbook.wait();
    let synapse = playbook.homeserver();
    machine.ok("systemctl enable --quiet matrix-synapse.service");
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "upgrades");
    synapse.send(&user, &room, "before the upgrade");
    for statement in MORE {
        playbook.sql(statement);
    }
    machine.ok("matrix-postgres setup --yes 2>&1");
    configure(machine, method, "");
    (playbook, room)
}

fn configure(machine: &Machine, method: &str, more: &str) {
    machine.write(
        "/etc/matrix-postgres/config.toml",
        &format!("[upgrade]\nbackup_within = \"never\"\nmethod = \"{method}\"\n{more}"),
    );
}

/// Everything that the server holds, in the words of one `pg_dumpall`.
fn everything(machine: &Machine) -> Vec<String> {
    let text = machine
        .ok("cd / && runuser -u matrix -- /usr/lib/postgresql/17/bin/pg_dumpall -h /matrix/postgres/run -U matrix");
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.contains("restrict ");
    text.lines().filter(is_said).map(str::to_owned).collect()
}

/// The homeserver runs on the server of this version, in a container of its image, and has lost nothing.
#[track_caller]
fn is_on(machine: &Machine, major: u16, room: &str) {
    machine.wait_for(&format!("systemctl is-active {SERVER_UNIT} matrix-synapse.service && curl --silent --fail http://localhost:8008/health"));
    assert_eq!(
        machine.ok("docker inspect --format '{{.Config.Image}}' matrix-postgres"),
        format!("postgres:{major}")
    );
    let version = "matrix-postgres-cli -d postgres -XAtc 'SHOW server_version_num'";
    assert_eq!(machine.ok(version).get(..2), Some(major.to_string().as_str()));
    assert_eq!(machine.ok("cat /matrix/postgres/data/PG_VERSION"), major.to_string());
    assert!(said(machine, room).contains(&"before the upgrade".to_owned()));
    let rows = "matrix-postgres-cli -d postgres -XAtc 'SELECT count(*), sum(n) FROM of_matrix'";
    assert_eq!(machine.ok(rows), "1000|500500");
    machine.ok("! test -e /matrix/postgres/run-upgrade && ! ls /var/tmp/matrix-postgres/* 2>/dev/null");
    assert_eq!(machine.ok("stat -c %U /matrix/postgres/data"), "matrix");
}

#[track_caller]
fn is_old(machine: &Machine, room: &str) {
    is_on(machine, 15, room);
    machine.ok(&format!("! test -e {DROP_INS} && ! test -e {KEPT}"));
}

#[track_caller]
fn is_new(machine: &Machine, room: &str) {
    is_on(machine, 17, room);
    machine.ok(&format!("grep -q postgres:17 {DROP_IN} && test $(cat {KEPT}/PG_VERSION) = 15"));
}

#[track_caller]
fn refuses(machine: &Machine, blocker: &str, hint: &str) {
    let check = machine.run("matrix-postgres-upgrade check");
    assert_eq!(check.status, NOT_WELL, "{check}");
    assert!(check.stdout.contains(&format!("BLOCKER  {blocker}")), "{blocker}: {check}");
    assert!(check.stdout.contains(&format!("HINT: {hint}")), "{hint}: {check}");
    let refused = machine.run("matrix-postgres-upgrade run");
    assert_eq!(refused.status, NOT_WELL, "{refused}");
    assert!(refused.stderr.contains("nothing was stopped, and nothing was changed"), "{refused}");
}

/// What could go wrong afterwards is said beforehand. The image is there then.
#[track_caller]
fn is_refused_beforehand(machine: &Machine, playbook: &Playbook<'_>) {
    let before = playbook.started();
    let missing =
        "the image postgres:17, which matrix-postgres.service is to run afterwards, is not on this machine";
    refuses(machine, missing, "docker pull postgres:17");
    make_image(machine, "docker", "postgres", 17);
    configure(machine, "online", "image = \"postgres:15\"\n");
    refuses(machine, "the image postgres:15 has PostgreSQL 15, and not 17", "set upgrade.image");
    configure(machine, "online", "");
    playbook.sql("CREATE TABLE sorted (name text COLLATE \"de-x-icu\" PRIMARY KEY)");
    refuses(
        machine,
        "database \"postgres\" (collation C): indexes or partitions depend on a collation",
        "only C, POSIX and C.UTF-8",
    );
    playbook.sql("DROP TABLE sorted");
    machine.ok(&format!("mkdir /etc/systemd/system/{SERVER_UNIT}.d"));
    let another = format!("/etc/systemd/system/{SERVER_UNIT}.d/other.conf");
    machine.write(&another, "[Service]\nExecStartPre=/bin/true\n");
    machine.ok("systemctl daemon-reload");
    refuses(machine, &format!("{another} changes the commands of {SERVER_UNIT}"), "move its commands to");
    machine.ok(&format!("rm -r /etc/systemd/system/{SERVER_UNIT}.d && systemctl daemon-reload"));
    assert_eq!(playbook.started(), before);
}

#[test]
fn a_server_in_a_container_is_upgraded_by_each_method_and_back() {
    let Some(machine) = machine::for_test("container-upgrade") else { return };
    let (playbook, room) = prepare(&machine, "online");

    is_refused_beforehand(&machine, &playbook);
    // Of the playbook's own upgrades.
    let remnant = "/matrix/postgres/data-auto-upgrade-backup";
    machine.ok(&format!("mkdir {remnant} && echo 14 >{remnant}/PG_VERSION"));
    let named = format!("left by an upgrade of the playbook's, and not touched: {remnant}, PostgreSQL 14");

    for method in ["dump", "online"] {
        configure(&machine, method, "");
        machine.ok("touch /tmp/matrix-postgres-dump.sql.zst");
        let check = machine.run("matrix-postgres-upgrade check");
        assert_eq!(check.status, 0, "{check}");
        assert!(check.stdout.starts_with("server: the container matrix-postgres of docker"), "{check}");
        assert!(
            check.stdout.contains(&format!("will run postgres:17 in place of postgres:15, by {DROP_IN}")),
            "{check}"
        );
        assert!(
            check.stdout.contains(&named) && check.stdout.contains("/tmp/matrix-postgres-dump.sql.zst"),
            "{check}"
        );
        machine.ok("matrix-postgres-upgrade rehearse 2>&1");
        is_old(&machine, &room);
        let plan = machine.ok("matrix-postgres-upgrade run --dry-run");
        assert!(
            plan.contains(&format!("write {DROP_IN}, by which {SERVER_UNIT} runs postgres:17")),
            "{plan}"
        );

        // It writes whenever it is started; what does not run is not started. Somebody stays connected.
        machine.ok("systemctl stop matrix-synapse.service");
        let before = everything(&machine);
        machine
            .ok(&format!("systemd-run --quiet --unit=idle {} -c 'SELECT pg_sleep(36000)'", playbook.psql()));
        let slept = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(36000)%' AND pid <> pg_backend_pid()";
        machine.wait_for(&format!(
            "test \"$({} -c {})\" = 1",
            playbook.psql(),
            machine::synapse::quote(slept)
        ));
        let upgraded = machine.run(UPGRADE);
        let said = journal(&machine);
        assert_eq!(upgraded.status, 0, "{upgraded}\n{said}");
        eprintln!(
            "{method}: {}",
            said.lines().filter(|line| line.contains("downtime")).collect::<Vec<_>>().join("; ")
        );
        let after = everything(&machine);
        let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let come: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        assert!(before == after, "gone: {gone:#?}\ncome: {come:#?}");
        assert!(said.contains(DROP_IN), "{said}");
        machine.ok("systemctl start matrix-synapse.service");
        is_new(&machine, &room);

        // The unit is the playbook's but for the image, and its server has all that it was given.
        let show = |setting: &str| playbook.sql(&format!("SHOW {setting}"));
        assert_eq!((show("max_connections"), show("maintenance_work_mem")), ("200".into(), "123MB".into()));
        let status = machine.ok("matrix-postgres-upgrade status");
        assert!(status.contains("upgraded from PostgreSQL 15 to 17"), "{status}");
        assert!(status.contains(&format!("{DROP_IN} lets {SERVER_UNIT} run postgres:17")), "{status}");
        machine.start("matrix-postgres-backup.service");
        machine.ok("grep -q '\"version\": \"17\\.' \"$(ls -d /var/backups/matrix-postgres/2* | tail -n 1)\"/manifest.json");

        machine.power_off();
        machine.boot_again().expect("it should boot");
        is_new(&machine, &room);

        // The playbook writes its unit anew, with an image of the version that it finds.
        let unit = format!("/etc/systemd/system/{SERVER_UNIT}");
        machine.ok(&format!("cp -p {unit} /root/unit && sed -i 's/ postgres:15 / postgres:17 /' {unit} && systemctl daemon-reload"));
        let status = machine.ok("matrix-postgres-upgrade status");
        assert!(
            status.contains("was written anew since the upgrade")
                && status.contains(&format!("remove {DROP_IN}")),
            "{status}"
        );
        if method == "dump" {
            // The image of the old version is what a rollback needs then.
            machine.ok(&format!(
                "rm {DROP_IN} && systemctl daemon-reload && matrix-postgres-upgrade rollback --yes 2>&1"
            ));
            is_on(&machine, 15, &room);
            machine.ok(&format!("grep -q postgres:15 {DROP_IN} && rm -r {DROP_INS}"));
            machine.ok(&format!("cp -p /root/unit {unit} && systemctl daemon-reload"));
        } else {
            machine.ok(&format!("cp -p /root/unit {unit} && systemctl daemon-reload"));
            machine.ok("matrix-postgres-upgrade rollback --yes 2>&1");
        }
        is_old(&machine, &room);
        let aside = machine.ok("ls -d /matrix/postgres/data.upgrade-*");
        assert_eq!(machine.ok(&format!("cat {aside}/PG_VERSION")), "17");
        machine.ok("matrix-postgres-upgrade clean --yes && ! ls -d /matrix/postgres/data.*");
    }
    assert!(machine.ok("matrix-postgres-upgrade status").contains(&named));
    machine.ok(&format!("test -e {remnant}/PG_VERSION"));
}

#[test]
fn whatever_goes_wrong_the_playbooks_server_comes_up_by_itself() {
    let Some(machine) = machine::for_test("container-sad-upgrade") else { return };
    let (_, room) = prepare(&machine, "dump");
    make_image(&machine, "docker", "postgres", 17);

    // The image has the right programs, and its server does not start.
    machine.ok("docker create --name broken postgres:17 && docker commit --change 'ENTRYPOINT [\"/bin/false\"]' broken broken:17 && docker rm broken");
    configure(&machine, "dump", "image = \"broken:17\"\n");
    let failed = machine.run(UPGRADE);
    let told = journal(&machine);
    assert!(
        failed.status != 0
            && told.contains("the homeserver runs on PostgreSQL 15 again, as before; nothing was lost"),
        "{told}"
    );
    is_old(&machine, &room);
    machine.ok("! ls -d /matrix/postgres/data.*");

    let all = [
        ("online", "following"),
        ("dump", "stopping-server"),
        ("dump", "transferring"),
        ("online", "upgrading"),
        ("dump", "exchanging"),
        ("online", "starting-server"),
        ("online", "starting-clients"),
        ("dump", "keeping"),
    ];
    for (method, step) in
        machine::kills_among(&all, &[("dump", "transferring"), ("online", "starting-clients")])
    {
        eprintln!("killed: {method}, {step}");
        configure(&machine, method, "");
        pause_at(&machine, step);
        if step == "transferring" {
            // Servers of ours work on both clusters: none in a container sees them.
            assert_ne!(machine.run(&format!("systemctl start {SERVER_UNIT}")).status, 0);
            machine.ok("test -z \"$(docker ps --quiet)\"");
        }
        machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
        comes_up(&machine, step, &room);
    }
    let all = [
        ("dump", "transferring"),
        ("online", "exchanging"),
        ("dump", "starting-server"),
        ("online", "keeping"),
    ];
    for (method, step) in machine::kills_among(&all, &[("online", "exchanging")]) {
        eprintln!("power cut: {method}, {step}");
        configure(&machine, method, "");
        pause_at(&machine, step);
        machine.power_cut();
        machine.boot_again().unwrap_or_else(|error| panic!("{step}: {error}"));
        comes_up(&machine, step, &room);
    }
    is_closed(&machine);
}

#[test]
fn an_image_of_both_versions_serves_method_online() {
    let Some(machine) = machine::for_test("container-both") else { return };
    let (_, room) = prepare(&machine, "online");
    make_image_of_both(&machine, "both", 17, 15);
    configure(&machine, "online", "image = \"both:17\"\n");
    let check = machine.ok("matrix-postgres-upgrade check");
    assert!(check.contains("will run both:17 in place of postgres:15"), "{check}");
    let runs = |image: &str, major: &str| {
        machine.wait_for(&format!(
            "systemctl is-active {SERVER_UNIT} matrix-synapse.service && curl --silent --fail http://localhost:8008/health"
        ));
        assert_eq!(machine.ok("docker inspect --format '{{.Config.Image}}' matrix-postgres"), image);
        assert_eq!(machine.ok("cat /matrix/postgres/data/PG_VERSION"), major);
        assert!(said(&machine, &room).contains(&"before the upgrade".to_owned()));
    };
    // Killed while pg_upgrade runs, it is as before.
    pause_at(&machine, "upgrading");
    machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
    recovered(&machine, &format!("{SERVER_UNIT} matrix-synapse.service"));
    is_old(&machine, &room);
    machine.ok("rm -r /etc/systemd/system/matrix-postgres-upgrade.service.d && systemctl daemon-reload");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    runs("both:17", "17");
    machine.ok("matrix-postgres-upgrade rollback --yes 2>&1");
    is_old(&machine, &room);
}

/// A locale of this name, which is as C.UTF-8 is, or none.
fn locale(machine: &Machine, is_there: bool) {
    machine.ok(match is_there {
        true => "cp -r /usr/lib/locale/C.utf8 /usr/lib/locale/xx_XX.utf8",
        false => "rm -r /usr/lib/locale/xx_XX.utf8",
    });
}

#[test]
fn a_locale_that_one_of_the_servers_lacks_is_named_before_anything_stops() {
    let Some(machine) = machine::for_test("container-locale") else { return };
    locale(&machine, true);
    let (playbook, room) = prepare(&machine, "dump");
    playbook.sql("ALTER SYSTEM SET lc_messages = 'xx_XX.UTF-8'");
    playbook.sql("SELECT pg_reload_conf()");
    make_image(&machine, "docker", "postgres", 17);
    // The machine, whose programs do the work, has it no more, and the images do.
    locale(&machine, false);
    refuses(
        &machine,
        "PostgreSQL 15 of this machine does not start with the configuration of the server: invalid value for parameter \"lc_messages\"",
        "install the locale on this machine: apt-get install locales-all",
    );
    // The new image has none.
    make_image(&machine, "docker", "postgres", 17);
    locale(&machine, true);
    refuses(
        &machine,
        "the server of the image postgres:17 rejects one of lc_messages=xx_XX.UTF-8",
        "set it to C (ALTER SYSTEM SET lc_messages = 'C'), or set upgrade.image",
    );
    make_image(&machine, "docker", "postgres", 17);
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    is_new(&machine, &room);
    assert_eq!(playbook.sql("SHOW lc_messages"), "xx_XX.UTF-8");
}

#[test]
#[ignore = "make thorough"]
fn from_18_on_the_image_looks_elsewhere_and_the_data_directory_stays() {
    let Some(machine) = machine::for_test_on_newer("container-18") else { return };
    let playbook = Playbook::set_up(&machine, 17);
    playbook.make_database();
    for statement in MORE {
        playbook.sql(statement);
    }
    make_image(&machine, "docker", "postgres", 18);
    machine.ok("matrix-postgres setup --yes 2>&1");
    for method in ["dump", "online"] {
        configure(&machine, method, "to = 18\n");
        let check = machine.ok("matrix-postgres-upgrade check");
        assert!(check.contains("PGDATA") && check.contains("postgres:18"), "{check}");
        let upgraded = machine.run(UPGRADE);
        assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
        machine.ok(&format!("grep -q -- '--env=PGDATA=/var/lib/postgresql/data postgres:18' {DROP_IN}"));
        assert_eq!(machine.ok("cat /matrix/postgres/data/PG_VERSION"), "18");
        assert_eq!(playbook.sql("SHOW data_directory"), "/var/lib/postgresql/data");
        assert_eq!(playbook.sql("SELECT count(*), sum(n) FROM of_matrix"), "1000|500500");
        machine.start("matrix-postgres-backup.service");
        machine.ok("matrix-postgres-upgrade rollback --yes 2>&1 && matrix-postgres-upgrade clean --yes");
        playbook.wait();
        assert_eq!(machine.ok("cat /matrix/postgres/data/PG_VERSION"), "17");
        machine.ok(&format!("! test -e {DROP_INS}"));
        assert_eq!(playbook.sql("SELECT count(*), sum(n) FROM of_matrix"), "1000|500500");
    }
}

/// On one of the two, with nothing lost; then it goes back.
#[track_caller]
fn comes_up(machine: &Machine, step: &str, room: &str) {
    recovered(machine, &format!("{SERVER_UNIT} matrix-synapse.service"));
    if ["starting-server", "starting-clients", "keeping"].contains(&step) {
        is_new(machine, room);
        machine.ok("matrix-postgres-upgrade rollback --yes 2>&1 && matrix-postgres-upgrade clean --yes");
    }
    is_old(machine, room);
    machine.ok("! ls -d /matrix/postgres/data.*");
}
