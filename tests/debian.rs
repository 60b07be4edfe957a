//! Upgrades of a cluster of Debian's, on which a real Synapse runs: into a cluster of Debian's of the new version, and back.

use crate::machine::debian::{BLOCK, PORT, as_postgres, make_database};
use crate::machine::upgrade::{NOT_WELL, UNIT_JOB, UPGRADE, is_closed, pause_at, recovered, refused};
use crate::machine::{self, Machine, Synapse};

const OLD: &str = "postgresql@15-main.service";
const NEW: &str = "postgresql@17-main.service";
const STAND_IN: &str = "/etc/systemd/system/postgresql@15-main.service";

/// Of the old cluster beside the new one, which has its port then.
const ASIDE: &str = "5432";

/// Debian's cluster 15/main as an administrator may have made it his own, and its homeserver, whose unit names the server's.
fn homeserver<'a>(machine: &'a Machine, method: &str) -> (Synapse<'a>, String) {
    machine.ok("pg_createcluster --locale C.UTF-8 --port 5433 15 main");
    machine.ok(
        "cd /etc/postgresql/15/main
        openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=db.test -keyout own.key -out own.crt 2>/dev/null
        chmod 0600 own.key
        mkdir -p conf.d && grep -q ^include_dir postgresql.conf || echo \"include_dir = 'conf.d'\" >>postgresql.conf
        printf '%s\\n' \"ssl = on\" \"ssl_cert_file = '$PWD/own.crt'\" \"ssl_key_file = '$PWD/own.key'\" \
            \"work_mem = '7MB'\" \"old_snapshot_threshold = 1h\" >conf.d/10-own.conf
        echo \"MINE = 'yes'\" >>environment
        echo '# of the administrator' >>pg_hba.conf
        chown -R postgres: own.* conf.d",
    );
    machine.ok(&format!("systemctl daemon-reload && systemctl start {OLD}"));
    make_database(machine);
    as_postgres(machine, "ALTER SYSTEM SET max_connections = 123");
    let synapse = Synapse::set_up_on(machine, OLD, BLOCK);
    machine.ok("systemctl enable --quiet matrix-synapse.service");
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "upgrades");
    synapse.send(&user, &room, "before the upgrade");
    machine.ok("matrix-postgres setup --yes");
    configure(machine, method);
    (synapse, room)
}

/// Without the empty cluster that the machine has. (It cannot be renamed there, for a layer of the file system has it.)
fn make_way(machine: &Machine) {
    machine.ok("pg_dropcluster --stop 17 main");
}

fn configure(machine: &Machine, method: &str) {
    machine.write(
        "/etc/matrix-postgres/config.toml",
        &format!("[upgrade]\nbackup_within = \"never\"\nmethod = \"{method}\"\n"),
    );
}

/// Everything that the server holds, in the words of one `pg_dumpall`.
fn everything(machine: &Machine) -> Vec<String> {
    let text = machine
        .ok(&format!("cd / && runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_dumpall -p {PORT}"));
    let is_told = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.contains("restrict ");
    text.lines().filter(is_told).map(str::to_owned).collect()
}

/// Version, name, port and status of each cluster.
fn listed(machine: &Machine) -> Vec<String> {
    let listed = machine.ok("pg_lsclusters --no-header | awk '{ print $1, $2, $3, $4 }'");
    listed.lines().map(str::to_owned).collect()
}

fn starts(machine: &Machine, cluster: &str) -> String {
    machine.ok(&format!("sed 's/#.*//; /^ *$/d; s/ *$//' /etc/postgresql/{cluster}/start.conf"))
}

/// The homeserver answers, and has what was said.
#[track_caller]
fn talks(machine: &Machine, room: &str) {
    machine.wait_for("curl --silent --fail http://localhost:8008/health");
    let synapse = Synapse::of(machine);
    let said = synapse.messages(&synapse.log_in("ada"), room);
    assert!(said.iter().any(|(_, text)| text == "before the upgrade"), "{said:?}");
}

/// The old cluster is as it was, and of the new one nothing is left but what is put aside.
#[track_caller]
fn is_old(machine: &Machine, room: &str) {
    assert_eq!(listed(machine), [format!("15 main {PORT} online")]);
    assert_eq!(starts(machine, "15/main"), "auto");
    machine.ok(&format!(
        "systemctl is-active {OLD} && ! systemctl is-active {NEW} && ! test -e {STAND_IN} && \
         ! test -e /etc/postgresql/17/main && ! test -e /var/lib/postgresql/17/main && \
         ! test -e /run/postgresql-upgrade && ! grep -rq matrix-postgres-upgrade /etc/postgresql/15"
    ));
    assert_eq!(
        machine
            .ok("systemctl show --value --property=FragmentPath postgresql@15-main | grep -c '@.service$'"),
        "1"
    );
    talks(machine, room);
}

/// The new cluster is in place as Debian has one, and the old one beside it.
#[track_caller]
fn is_new(machine: &Machine, room: &str) {
    assert_eq!(listed(machine), [format!("15 main {ASIDE} down"), format!("17 main {PORT} online")]);
    assert_eq!((starts(machine, "15/main"), starts(machine, "17/main")), ("manual".into(), "auto".into()));
    machine.ok(&format!("systemctl is-active {NEW} && test -d /var/lib/postgresql/15/main/base"));
    machine.ok("! test -e /var/lib/postgresql/15/main/postmaster.pid");
    assert_eq!(as_postgres(machine, "SHOW server_version_num").get(..2), Some("17"));
    talks(machine, room);
}

#[test]
fn a_debian_cluster_is_upgraded_by_each_method_and_back() {
    let Some(machine) = machine::for_test("debian-upgrade") else { return };
    let (_, room) = homeserver(&machine, "online");

    // The name of the new one is that of another, which stays.
    let check = machine.run("matrix-postgres-upgrade check");
    assert_eq!(check.status, NOT_WELL, "{check}");
    assert!(check.stdout.contains("a cluster 17/main exists already: /etc/postgresql/17/main"), "{check}");
    assert!(check.stdout.contains("HINT: pg_renamecluster 17 main unused"), "{check}");
    make_way(&machine);
    // As the package makes one when it is installed; it runs.
    machine.ok("pg_createcluster --start 17 main");
    assert_eq!(machine.run("matrix-postgres-upgrade check").status, NOT_WELL);
    machine.ok("pg_renamecluster 17 main unused");
    let check = machine.run("matrix-postgres-upgrade check");
    assert_eq!(check.status, 0, "{check}");
    machine.ok("pg_dropcluster --stop 17 unused");

    for method in ["online", "dump"] {
        configure(&machine, method);
        let configuration =
            machine.ok("cd /etc/postgresql/15/main && md5sum $(find . -type f ! -name start.conf | sort)");
        let check = machine.run("matrix-postgres-upgrade check");
        assert_eq!(check.status, 0, "{check}");
        assert!(check.stdout.starts_with("server: Debian's cluster 15/main"), "{check}");
        machine.ok("matrix-postgres-upgrade rehearse 2>&1");
        is_old(&machine, &room);
        let plan = machine.ok("matrix-postgres-upgrade run --dry-run");
        assert!(plan.contains(&format!("set cluster 15/main to port {ASIDE} and to manual")), "{plan}");
        assert!(
            plan.contains("as 17/main on port 5433 with its configuration in /etc/postgresql/17/main"),
            "{plan}"
        );
        assert!(plan.contains(&format!("write a unit {OLD}")), "{plan}");

        // It writes whenever it is started; what does not run is not started.
        machine.ok("systemctl stop matrix-synapse.service");
        let before = everything(&machine);
        let upgraded = machine.run(UPGRADE);
        let said = machine::upgrade::journal(&machine);
        assert_eq!(upgraded.status, 0, "{upgraded}\n{said}");
        eprintln!(
            "{method}: {}",
            said.lines().filter(|line| line.contains("downtime")).collect::<Vec<_>>().join("; ")
        );
        let after = everything(&machine);
        let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let come: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        assert!(before == after, "gone: {gone:#?}\ncome: {come:#?}");
        assert!(said.contains(STAND_IN), "{said}");
        // The unit that it names is another one now.
        machine.ok("systemctl start matrix-synapse.service");
        is_new(&machine, &room);

        // Its configuration is the old one's.
        assert_eq!(as_postgres(&machine, "SHOW work_mem"), "7MB");
        assert_eq!(as_postgres(&machine, "SHOW max_connections"), "123");
        assert_eq!(as_postgres(&machine, "SHOW hba_file"), "/etc/postgresql/17/main/pg_hba.conf");
        assert_eq!(as_postgres(&machine, "SHOW ssl_key_file"), "/etc/postgresql/17/main/own.key");
        assert_eq!(as_postgres(&machine, "SHOW external_pid_file"), "/var/run/postgresql/17-main.pid");
        machine.ok("grep -q '^# old_snapshot_threshold\\|: old_snapshot_threshold' /etc/postgresql/17/main/conf.d/10-own.conf || cat /etc/postgresql/17/main/conf.d/10-own.conf >&2");
        let served = machine.ok(
            "PGPASSWORD=secret psql 'host=127.0.0.1 port=5433 user=synapse_user dbname=synapse sslmode=require' \
             -XAtc 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'",
        );
        assert_eq!(served, "t");
        let files = |major: &str| {
            machine.ok(&format!("cd /etc/postgresql/{major}/main && find . -printf '%P %y %m %u\n' | sort"))
        };
        assert_eq!(files("17"), files("15"));
        machine.ok("cd /etc/postgresql && for file in pg_hba.conf pg_ident.conf environment pg_ctl.conf own.crt own.key; do cmp 15/main/$file 17/main/$file; done");
        assert_eq!(
            machine.ok("stat -c '%U %G %a' /var/log/postgresql/postgresql-17-main.log"),
            "postgres adm 640"
        );
        machine.ok("! ls /var/lib/postgresql/17/main/*.conf | grep -v auto.conf");

        // A backup finds it by what was configured before.
        machine.ok("matrix-postgres-cli -XAtc 'SHOW server_version' | grep ^17");
        machine.ok("systemctl start matrix-postgres-backup.service");
        machine.ok("grep -q '\"version\": \"17\\.' \"$(ls -d /var/backups/matrix-postgres/2* | tail -n 1)\"/manifest.json");
        assert!(machine.ok("matrix-postgres-upgrade status").contains("upgraded from PostgreSQL 15 to 17"));

        machine.power_off();
        machine.boot_again().expect("it should boot");
        is_new(&machine, &room);

        let asked = machine.run("matrix-postgres-upgrade rollback --dry-run");
        assert!(asked.stdout.contains("give port 5433 back to cluster 15/main"), "{asked}");
        machine.ok("matrix-postgres-upgrade rollback --yes 2>&1");
        is_old(&machine, &room);
        assert_eq!(
            machine.ok("cd /etc/postgresql/15/main && md5sum $(find . -type f ! -name start.conf | sort)"),
            configuration
        );
        let aside = machine.ok("ls -d /var/lib/postgresql/15/main.upgrade-*");
        machine.ok(&format!("grep -q ^17 {aside}/PG_VERSION && test -e {aside}/pg_hba.conf"));
        machine.ok("matrix-postgres-upgrade clean --yes && ! ls -d /var/lib/postgresql/15/main.*");
        machine.power_off();
        machine.boot_again().expect("it should boot");
        is_old(&machine, &room);
    }
}

#[test]
fn whatever_goes_wrong_debians_cluster_comes_up_by_itself() {
    let Some(machine) = machine::for_test("debian-sad-upgrade") else { return };
    let (_, room) = homeserver(&machine, "online");
    make_way(&machine);

    // The new server does not start.
    machine.ok(&format!("mkdir -p /etc/systemd/system/{NEW}.d"));
    let drop_in = format!("/etc/systemd/system/{NEW}.d/fails.conf");
    machine.write(&drop_in, "[Service]\nType=oneshot\nPIDFile=\nExecStart=\nExecStart=/bin/false\n");
    machine.ok("systemctl daemon-reload");
    let said = refused(&machine, UNIT_JOB);
    assert!(
        said.contains("the homeserver runs on PostgreSQL 15 again, as before; nothing was lost"),
        "{said}"
    );
    is_old(&machine, &room);
    machine.ok(&format!("rm {drop_in} && systemctl daemon-reload"));

    let all = [
        ("online", "preparing"),
        ("online", "following"),
        ("online", "stopping-server"),
        ("dump", "transferring"),
        ("online", "upgrading"),
        ("online", "exchanging"),
        ("online", "starting-server"),
        ("online", "starting-clients"),
        ("online", "keeping"),
    ];
    for (method, step) in
        machine::kills_among(&all, &[("online", "exchanging"), ("online", "starting-clients")])
    {
        eprintln!("killed: {method}, {step}");
        configure(&machine, method);
        pause_at(&machine, step);
        machine.ok("systemctl kill --kill-whom=main --signal=KILL matrix-postgres-upgrade.service");
        comes_up(&machine, step, &room);
    }
    for step in
        machine::kills_among(&["upgrading", "exchanging", "starting-server", "keeping"], &["upgrading"])
    {
        eprintln!("power cut: {step}");
        pause_at(&machine, step);
        machine.power_cut();
        machine.boot_again().unwrap_or_else(|error| panic!("{step}: {error}"));
        comes_up(&machine, step, &room);
    }
    is_closed(&machine);
}

/// On one of the two, with nothing lost; then it goes back.
#[track_caller]
fn comes_up(machine: &Machine, step: &str, room: &str) {
    recovered(machine, "matrix-synapse.service");
    let is_forward = ["starting-server", "starting-clients", "keeping"].contains(&step);
    if is_forward {
        is_new(machine, room);
        machine.ok("matrix-postgres-upgrade rollback --yes 2>&1 && matrix-postgres-upgrade clean --yes");
    }
    is_old(machine, room);
    machine.ok("! ls -d /var/lib/postgresql/15/main.*");
}
