//! The servers that people have already: Debian's clusters, beside a server of our own and instead of one.

use crate::machine::debian::{BLOCK, as_postgres, make_database};
use crate::machine::{self, Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const CONFIG: i32 = 27;
const DATA_DIRECTORY: i32 = 31;
const SERVER: i32 = 32;
const NOT_WELL: i32 = 40;
const INTERRUPTED: i32 = 41;

const SERVER_UNIT: &str = "postgresql@15-main.service";
const BACKUP: &str = "matrix-postgres-backup.service";
const TRIAL: &str = "matrix-postgres-backup-verify.service";
const FILE: &str = "/etc/matrix-postgres/config.d/10-server.toml";

/// Debian's cluster 15/main beside the empty one that the machine has, 17/main.
fn cluster(machine: &Machine) {
    machine.ok(&format!(
        "pg_createcluster --locale C.UTF-8 15 main && systemctl start {SERVER_UNIT} && pg_lsclusters"
    ));
    make_database(machine);
}

/// It was not stopped in between.
fn main_pid(machine: &Machine) -> String {
    machine.ok("head -n 1 /var/lib/postgresql/15/main/postmaster.pid")
}

#[test]
fn a_homeserver_on_debians_cluster_is_backed_up_and_restored() {
    let Some(machine) = machine::for_test("debian") else { return };
    cluster(&machine);
    let rules = machine.ok("md5sum /etc/postgresql/15/main/*.conf");
    let synapse = Synapse::set_up_on(&machine, SERVER_UNIT, BLOCK);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");

    // Without having been set up: the unit's user is told nothing, and says what to do.
    let (status, journal) = machine.fails(BACKUP);
    assert_eq!(status, DATA_DIRECTORY.to_string(), "{journal}");
    assert!(journal.contains("nothing was started, and nothing was changed"), "{journal}");
    assert!(journal.contains("HINT: matrix-postgres setup"), "{journal}");
    // Root is.
    assert!(machine.ok("matrix-postgres-cli -XAtc 'SHOW server_version'").starts_with("15."));
    // Its user may not enter this directory, and nothing is said of it.
    assert_eq!(machine.ok("cd /root && matrix-postgres-cli -XAtc 'SELECT 1' 2>&1"), "1");
    let run = machine.run("matrix-postgres-backup run");
    assert_eq!(run.status, CONFIG, "{run}");
    assert!(run.stderr.contains("HINT: matrix-postgres setup"), "{run}");
    let server = machine.run("systemctl start matrix-postgres.service");
    assert_ne!(server.status, 0, "{server}");
    machine.ok("! test -e /matrix/postgres/data");

    // Nothing is written that was not asked for.
    let tried = machine.ok("matrix-postgres setup --detect --dry-run");
    assert!(
        tried.starts_with("server: Debian's cluster 15/main, postgresql@15-main.service: it has"),
        "{tried}"
    );
    assert_eq!(machine.run("matrix-postgres setup --detect </dev/null").status, INTERRUPTED);
    machine.ok(&format!("! test -e {FILE} && ! test -e /etc/systemd/system/{BACKUP}.d"));
    assert_eq!(machine.run("runuser -u synapse -- matrix-postgres setup --yes").status, 38);

    let set_up = machine.ok("matrix-postgres setup --detect --yes");
    assert!(set_up.contains("logged in to PostgreSQL 15."), "{set_up}");
    assert!(set_up.ends_with("next: systemctl start matrix-postgres-backup.service"), "{set_up}");
    let written = machine.ok(&format!("grep -v '^#' {FILE}"));
    assert!(
        written.contains("cluster = \"15/main\"\ndatabase = \"synapse\"\nrole = \"synapse_user\""),
        "{written}"
    );
    assert!(machine.ok("matrix-postgres setup").contains("all is set up"));

    machine.start(BACKUP);
    machine.start(TRIAL);
    let status = machine.run("matrix-postgres-backup status");
    assert!(status.stdout.starts_with("server:"), "{status}");
    assert!(
        status.stdout.lines().next().is_some_and(|line| line.contains("Debian's cluster 15/main")),
        "{status}"
    );
    assert_eq!(status.status, 0, "{status}");
    let status = machine.run("matrix-postgres-backup status --json").json();
    assert_eq!(
        (&status["server"]["kind"], &status["server"]["cluster"]["name"]),
        (&"debian".into(), &"15/main".into())
    );
    assert_eq!(status["well"], true, "{status}");
    let owners = machine.ok("find /var/backups/matrix-postgres -printf '%u\n' | sort -u");
    assert_eq!(owners, "postgres");

    // What was there is back, though the database was not.
    let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    machine.ok("systemctl stop matrix-synapse.service");
    as_postgres(&machine, "DROP DATABASE synapse");
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    machine.ok("systemctl start matrix-synapse.service");
    let said = synapse.messages(&synapse.log_in("ada"), &room);
    assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())]);
    // In place of the live one, beside it, and the roles.
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    let said = synapse.messages(&synapse.log_in("ada"), &room);
    assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())]);
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy {backup} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --globals {backup} 2>&1"));
    assert!(machine.ok("echo '\\l' | matrix-postgres-cli -XAt").contains("copy|synapse_user|"));
    machine.ok("matrix-postgres-backup clean --yes && matrix-postgres-backup prune --dry-run && matrix-postgres-backup run");

    // An upgrade would end in a cluster whose name is taken.
    let (pid, check) = (main_pid(&machine), machine.run("matrix-postgres-upgrade check"));
    assert_eq!(check.status, NOT_WELL, "{check}");
    assert!(check.stdout.starts_with("server: Debian's cluster 15/main"), "{check}");
    assert!(check.stdout.contains("BLOCKER"), "{check}");
    let check = machine.run("matrix-postgres-upgrade check --json").json();
    assert_eq!((&check["server"]["kind"], &check["from"]), (&"debian".into(), &15.into()), "{check}");
    for verb in ["run", "run --dry-run", "rehearse"] {
        let refused = machine.run(&format!("matrix-postgres-upgrade {verb}"));
        assert_eq!(refused.status, NOT_WELL, "{refused}");
        assert!(refused.stderr.contains("nothing was stopped, and nothing was changed"), "{refused}");
        assert!(refused.stderr.contains("HINT: pg_renamecluster 17 main unused"), "{refused}");
    }
    assert_ne!(machine.run("systemctl start matrix-postgres-upgrade.service").status, 0);
    assert_eq!(main_pid(&machine), pid);
    assert_eq!(machine.ok("md5sum /etc/postgresql/15/main/*.conf"), rules);
}

#[test]
fn what_is_wrong_is_said_and_what_others_run_goes_on_running() {
    let Some(machine) = machine::for_test("debian-sad") else { return };
    cluster(&machine);
    machine.ok("matrix-postgres setup --yes");
    let config = "/etc/matrix-postgres/config.toml";

    // A name that is none, and two that are possible.
    machine.write(config, "server.cluster = \"16/main\"\n");
    machine.ok(&format!("rm {FILE}"));
    let setup = machine.run("matrix-postgres setup --yes");
    assert_eq!(setup.status, DATA_DIRECTORY, "{setup}");
    assert!(setup.stderr.contains("pg_lsclusters shows 15/main and 17/main"), "{setup}");
    assert!(
        setup.stderr.contains("HINT: server.cluster = \"15/main\" or server.cluster = \"17/main\""),
        "{setup}"
    );
    machine.ok("rm -r /etc/matrix-synapse/conf.d");
    machine.write(config, "server.kind = \"debian\"\n");
    let cli = machine.run("matrix-postgres-cli -c 'SELECT 1'");
    assert_eq!(cli.status, DATA_DIRECTORY, "{cli}");
    assert!(
        cli.stderr.contains("which of them has the homeserver's database \"homeserver\" is not certain"),
        "{cli}"
    );
    machine.write(config, "server = { cluster = \"15/main\", port = 5433 }\n");
    assert_eq!(machine.run("matrix-postgres-backup status").status, CONFIG);

    // A server that was stopped is not started by anybody but the administrator.
    machine.write(config, "server = { cluster = \"15/main\", database = \"synapse\" }\n");
    machine.ok(&format!("systemctl stop {SERVER_UNIT}"));
    let cli = machine.run("matrix-postgres-cli -c 'SELECT 1'");
    assert_eq!(cli.status, SERVER, "{cli}");
    assert!(cli.stderr.contains(&format!("HINT: systemctl start {SERVER_UNIT}")), "{cli}");
    let (_, journal) = machine.fails(BACKUP);
    assert!(journal.contains("HINT"), "{journal}");
    machine.ok(&format!("! systemctl is-active --quiet {SERVER_UNIT} && systemctl start {SERVER_UNIT}"));
    machine.start(BACKUP);

    // A package that is installed again, removed and purged.
    let pid = main_pid(&machine);
    let install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --reinstall /root/matrix-postgres.deb 2>&1";
    machine.ok(install);
    machine.start(BACKUP);
    machine.ok("apt-get remove --yes --quiet matrix-postgres 2>&1");
    machine.ok(install);
    machine.start(BACKUP);
    machine.start(TRIAL);
    machine.ok("apt-get purge --yes --quiet matrix-postgres 2>&1");
    machine
        .ok(&format!("! test -e /etc/systemd/system/{BACKUP}.d && ! test -e /etc/systemd/system/{TRIAL}.d"));
    assert_eq!(main_pid(&machine), pid);
    machine.ok(&format!("systemctl is-active --quiet {SERVER_UNIT}"));
    machine.ok(install);
    let (_, journal) = machine.fails(BACKUP);
    assert!(journal.contains("HINT: matrix-postgres setup"), "{journal}");
    // A purge has removed the configuration file, which is the package's.
    machine.write(config, "server = { cluster = \"15/main\", database = \"synapse\" }\n");
    machine.ok("matrix-postgres setup --yes");
    machine.start(BACKUP);
}

#[test]
fn data_of_our_own_stay_and_the_way_leads_to_debians_cluster_and_back() {
    let Some(machine) = machine::for_test("debian-own") else { return };
    machine.start("matrix-postgres.service");
    cluster(&machine);
    let config = "/etc/matrix-postgres/config.toml";
    let kind = || machine.run("matrix-postgres-backup status --json").json()["server"]["kind"].clone();
    assert_eq!(kind(), "own");
    machine.ok("matrix-postgres setup --yes");
    machine.ok(&format!("! test -e {FILE} && ! test -e /etc/systemd/system/{BACKUP}.d"));
    machine.start(BACKUP);

    let newest = |major: &str| {
        machine.ok(&format!(
            "grep -q '\"version\": \"{major}\\.' \"$(ls -d /var/backups/matrix-postgres/2* | tail -n 1)\"/manifest.json"
        ));
    };
    newest("17");
    for _ in 0..2 {
        machine.ok("mkdir -p /etc/matrix-postgres");
        machine.write(config, "server.cluster = \"15/main\"\n");
        assert_eq!(kind(), "debian");
        let (status, journal) = machine.fails(BACKUP);
        assert_eq!(status, CONFIG.to_string(), "{journal}");
        assert!(journal.contains("HINT: matrix-postgres setup"), "{journal}");
        machine.ok("matrix-postgres setup --yes");
        machine.start(BACKUP);
        machine.start(TRIAL);
        assert_eq!(machine.ok("find /var/backups/matrix-postgres -printf '%u\n' | sort -u"), "postgres");
        newest("15");

        machine.write(config, "server.kind = \"own\"\n");
        let (status, journal) = machine.fails(BACKUP);
        assert_eq!(status, SERVER.to_string(), "{journal}");
        assert!(journal.contains("HINT: matrix-postgres setup"), "{journal}");
        machine.ok("matrix-postgres setup --yes");
        machine.ok(&format!("! test -e /etc/systemd/system/{BACKUP}.d"));
        machine.start(BACKUP);
        machine.start(TRIAL);
        assert_eq!(
            machine.ok("find /var/backups/matrix-postgres -printf '%u\n' | sort -u"),
            "matrix-postgres"
        );
    }
}
