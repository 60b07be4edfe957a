//! A server that others run, on another machine: over TLS, as a superuser and as a role that is none.

use crate::machine::external::{BLOCK, other_machine, there};
use crate::machine::{self, Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const CONFIG: i32 = 27;
const NOT_INSTALLED: i32 = 30;
const SERVER: i32 = 32;
const NOT_WELL: i32 = 40;

const BACKUP: &str = "matrix-postgres-backup.service";
const TRIAL: &str = "matrix-postgres-backup-verify.service";
const CONFIGURATION: &str = "/etc/matrix-postgres/config.toml";
const FOUND: &str = "/etc/matrix-postgres/config.d/10-server.toml";
const CREDENTIAL: &str = "/etc/credstore/matrix-postgres-password";

/// Of the role that makes backups. All that means something in a password file, and to a shell.
const PASSWORD: &str = r#"cor:rect \ho'rse "$x"#;

fn synapse(machine: &Machine) -> Synapse<'_> {
    Synapse::set_up_on(machine, "db.service", BLOCK)
}

/// The backup by its unit, which fails with this status and leaves no backup; returns what it said.
fn failed(machine: &Machine, expected: i32) -> String {
    let before = backups(machine);
    let (status, journal) = machine.fails(BACKUP);
    assert_eq!(status, expected.to_string(), "{journal}");
    assert_eq!(backups(machine), before, "{journal}");
    assert!(journal.contains("HINT: "), "{journal}");
    journal
}

fn backups(machine: &Machine) -> Vec<String> {
    machine
        .ok("ls -A /var/backups/matrix-postgres | grep -v holder || true")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Nobody is asked for a notice any more.
fn settle(machine: &Machine) {
    let running = "systemctl list-units --plain --no-legend --state=active,activating,deactivating 'matrix-postgres-notify@*'";
    machine.wait_for(&format!("! {running} | grep -c ."));
}

#[track_caller]
fn said(synapse: &Synapse<'_>, room: &str) {
    let said = synapse.messages(&synapse.log_in("ada"), room);
    assert_eq!(said, [("@ada:test.local".to_owned(), "it's a start".to_owned())]);
}

/// A backup is made by the unit, and held for a while.
fn nobody_sees_the_password_of_a_backup(machine: &Machine) {
    let lock = "BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3600)";
    let mut holding = machine
        .command(&format!(
            "cd / && runuser -u postgres -- psql -X -h /srv/db/socket -d synapse -c '{lock}' 2>/dev/null"
        ))
        .spawn()
        .expect("psql");
    let held = "SELECT 1 / count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'AccessExclusiveLock'";
    machine.wait_for(&format!(
        "cd / && runuser -u postgres -- psql -X -h /srv/db/socket -d synapse -c \"{held}\""
    ));
    machine.ok(&format!("systemctl start --no-block {BACKUP}"));
    machine.wait_for("pgrep -f '[p]g_dump .*synapse'");
    let part = "ho'rse";
    machine.write("/root/part", part);
    machine.ok("! cat /proc/[0-9]*/cmdline 2>/dev/null | grep -caFf /root/part");
    machine.ok("! cat /proc/[0-9]*/environ 2>/dev/null | grep -caFf /root/part");
    there(
        machine,
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
    );
    let _ = holding.wait();
    machine
        .wait_for(&format!("test \"$(systemctl show --value --property=ActiveState {BACKUP})\" = inactive"));
}

#[test]
fn a_homeserver_whose_database_is_on_another_machine_is_backed_up_and_restored() {
    let Some(machine) = machine::for_test("external") else { return };
    other_machine(&machine);
    let password = PASSWORD.replace('\'', "''");
    there(&machine, "postgres", &format!("CREATE ROLE maintenance LOGIN SUPERUSER PASSWORD '{password}'"));
    let synapse = synapse(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    machine.write(
        CONFIGURATION,
        "[server]\nkind = \"external\"\nhost = \"db.test.local\"\nsslrootcert = \"/srv/db/authority.pem\"\n\
         superuser = \"maintenance\"\ndatabase = \"synapse\"\nrole = \"synapse_user\"\n",
    );
    machine.write(CREDENTIAL, &format!("{PASSWORD}\n"));
    machine.ok(&format!("chmod 0600 {CREDENTIAL}"));

    // The unit is closed to the network until somebody opens it.
    let journal = failed(&machine, SERVER);
    assert!(journal.contains("HINT: matrix-postgres setup"), "{journal}");
    let set_up = machine.ok("matrix-postgres setup --detect --yes");
    assert!(
        set_up.starts_with("server: external, db.test.local, port 5432: server.kind says so"),
        "{set_up}"
    );
    assert!(set_up.contains("logged in to PostgreSQL 15.") && set_up.contains("as maintenance"), "{set_up}");
    assert!(machine.ok("matrix-postgres setup").contains("all is set up"));
    let who = "SELECT current_user, current_database(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(
        machine.ok(&format!("matrix-postgres-cli -XAtc {}", machine::synapse::quote(who))),
        "maintenance|synapse|t"
    );

    nobody_sees_the_password_of_a_backup(&machine);
    machine.start(BACKUP);
    machine.start(TRIAL);
    machine.ok("journalctl --sync && ! journalctl --no-pager --output=cat | grep -cFf /root/part");
    machine.ok("! grep -rqFf /root/part /var/backups/matrix-postgres /var/tmp /tmp /run --exclude-dir=credentials --exclude-dir=credstore 2>/dev/null");

    let status = machine.run("matrix-postgres-backup status");
    assert!(status.stdout.starts_with("server:"), "{status}");
    assert!(status.stdout.contains("external, db.test.local, port 5432"), "{status}");
    assert_eq!(status.status, 0, "{status}");
    let status = machine.run("matrix-postgres-backup status --json").json();
    assert_eq!((&status["server"]["kind"], &status["well"]), (&"external".into(), &true.into()), "{status}");
    let Some([warning]) = status["warnings"].as_array().map(Vec::as_slice) else { panic!("{status}") };
    assert!(
        warning.to_string().contains("needed by the homeserver: /etc/matrix-synapse/homeserver.yaml"),
        "{status}"
    );

    // What was there is back, though the database was not.
    let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    machine.ok("systemctl stop matrix-synapse.service");
    there(&machine, "postgres", "DROP DATABASE synapse");
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    machine.ok("systemctl start matrix-synapse.service");
    said(&synapse, &room);
    // In place of the live one, beside it, and the roles.
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    said(&synapse, &room);
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy {backup} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --globals {backup} 2>&1"));
    assert!(machine.ok("echo '\\l' | matrix-postgres-cli -XAt").contains("copy|synapse_user|"));
    assert!(machine.ok("matrix-postgres-backup status || true").contains("replaced by a restore"));
    machine.ok("matrix-postgres-backup clean --yes && matrix-postgres-backup prune && matrix-postgres-backup list --json");
    assert_eq!(
        there(&machine, "postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE '%_before_%'"),
        "0"
    );
    machine.ok("matrix-postgres-backup run --dry-run && matrix-postgres-backup verify");

    // What is about a server of this machine is refused.
    let server = machine.run("/usr/libexec/matrix-postgres/matrix-postgres-server");
    assert_eq!(server.status, CONFIG, "{server}");
    assert!(server.stderr.contains("the external server db.test.local, port 5432,"), "{server}");
    assert_ne!(machine.run("systemctl start matrix-postgres.service").status, 0);
    machine.ok("! test -e /matrix/postgres/data && ! test -e /var/lib/matrix-postgres/data");
    let check = machine.run("matrix-postgres-upgrade check");
    assert_eq!(check.status, NOT_WELL, "{check}");
    assert!(
        check.stdout.starts_with("server: external, db.test.local") && check.stdout.contains("BLOCKER"),
        "{check}"
    );
    for verb in ["run", "run --dry-run", "rehearse"] {
        let refused = machine.run(&format!("matrix-postgres-upgrade {verb}"));
        assert_eq!(refused.status, CONFIG, "{refused}");
        assert!(refused.stderr.contains("is not upgraded by this version"), "{refused}");
        assert!(refused.stderr.contains("HINT: make a backup"), "{refused}");
    }

    // An older pg_dump is none for it.
    machine.ok("mv /usr/lib/postgresql/15/bin /root/bin15");
    let run = machine.run("matrix-postgres-backup run");
    assert_eq!(run.status, NOT_INSTALLED, "{run}");
    assert!(run.stderr.contains("HINT: apt-get install postgresql-client-15"), "{run}");
    machine.ok("mv /root/bin15 /usr/lib/postgresql/15/bin");
}

#[test]
fn who_is_not_the_server_gets_nothing_and_who_is_away_is_waited_for() {
    let Some(machine) = machine::for_test("external-sad") else { return };
    other_machine(&machine);
    there(&machine, "postgres", "CREATE ROLE maintenance LOGIN SUPERUSER PASSWORD 'secret'");
    let configure = |more: &str| {
        machine.write(
            CONFIGURATION,
            &format!(
                "wait = \"1h\"\n[server]\nhost = \"db.test.local\"\nsuperuser = \"maintenance\"\ndatabase = \"synapse\"\n\
                 passfile = \"/etc/matrix-postgres/passfile\"\n{more}"
            ),
        );
    };
    configure("sslrootcert = \"/srv/db/authority.pem\"\n");
    // Without the password's file, with one that everybody may read, with a wrong password.
    let setup = machine.run("matrix-postgres setup --yes");
    assert_eq!(setup.status, CONFIG, "{setup}");
    assert!(setup.stderr.contains("/etc/matrix-postgres/passfile"), "{setup}");
    machine.write("/etc/matrix-postgres/passfile", "db.test.local:5432:*:maintenance:secret\n");
    machine.ok("chmod 0644 /etc/matrix-postgres/passfile");
    let journal = failed(&machine, CONFIG);
    assert!(journal.contains("HINT: chown matrix-postgres"), "{journal}");
    machine.ok(
        "chown matrix-postgres: /etc/matrix-postgres/passfile && chmod 0600 /etc/matrix-postgres/passfile",
    );
    machine.ok("sed -i s/secret/wrong/ /etc/matrix-postgres/passfile");
    let journal = failed(&machine, SERVER);
    assert!(journal.contains("refused the login") && journal.contains("server.passfile"), "{journal}");
    machine.ok("sed -i s/wrong/secret/ /etc/matrix-postgres/passfile");
    machine.start(BACKUP);

    // A certificate that nobody trusts; one of another name; an authority that has not signed it. Nobody logs in.
    let log_ins = || {
        machine.ok("journalctl --sync; journalctl --no-pager --output=cat -u db.service | grep -c 'connection authorized' || true")
    };
    settle(&machine);
    let before = log_ins();
    for (what, back) in [
        (
            "sed -i 's/server[.]pem/other.pem/; s/server[.]key/other.key/' /srv/db/data/postgresql.conf; systemctl reload db.service",
            "sed -i 's/other[.]pem/server.pem/; s/other[.]key/server.key/' /srv/db/data/postgresql.conf; systemctl reload db.service",
        ),
        (
            "echo '10.77.0.2 wrong.test.local' >>/etc/hosts; sed -i 's/host = .*/host = \"wrong.test.local\"/' /etc/matrix-postgres/config.toml",
            "sed -i 's/host = .*/host = \"db.test.local\"/' /etc/matrix-postgres/config.toml",
        ),
        (
            "sed -i '/^sslrootcert/d' /etc/matrix-postgres/config.toml",
            "echo 'sslrootcert = \"/srv/db/authority.pem\"' >>/etc/matrix-postgres/config.toml",
        ),
    ] {
        machine.ok(what);
        if what.contains("reload") {
            let shown = "openssl s_client -starttls postgres -connect 10.77.0.2:5432 </dev/null 2>/dev/null | openssl x509 -noout -issuer";
            machine.wait_for(&format!("{shown} | grep -c db.test.local"));
        }
        let journal = failed(&machine, SERVER);
        assert!(journal.contains("certificate"), "{journal}");
        assert!(journal.contains("openssl s_client"), "{journal}");
        for command in ["matrix-postgres-backup run --dry-run", "matrix-postgres-cli -c 'SELECT 1'"] {
            assert_ne!(machine.run(command).status, 0, "{command}");
        }
        settle(&machine);
        machine.ok(back);
    }
    assert_eq!(log_ins(), before);
    let shown = "openssl s_client -starttls postgres -connect 10.77.0.2:5432 </dev/null 2>/dev/null | openssl x509 -noout -issuer";
    machine.wait_for(&format!("{shown} | grep -c authority"));
    machine.start(BACKUP);

    // The network is down, and comes back; then the server.
    for (away, back) in [
        ("ip -n db link set eth0 down", "ip -n db link set eth0 up"),
        ("systemctl stop db.service", "systemctl start db.service"),
    ] {
        let newest = backups(&machine).into_iter().max();
        machine.ok(away);
        machine.ok(&format!("systemctl start --no-block {BACKUP}"));
        let read =
            format!("journalctl --sync; journalctl --no-pager --output=cat --unit={BACKUP} --invocation=0");
        machine.wait_for(&format!("{read} | grep -c 'cannot be reached.*trying again for up to'"));
        let status = machine.run("matrix-postgres-backup status");
        assert!(status.stdout.contains("cannot be reached"), "{status}");
        machine.ok(back);
        machine.wait_for(&format!(
            "test \"$(systemctl show --value --property=ActiveState {BACKUP})\" = inactive"
        ));
        let journal = machine.journal_of(BACKUP);
        assert!(journal.contains("is back") && journal.contains("is complete"), "{journal}");
        // How many there are is up to what is kept.
        assert!(backups(&machine).into_iter().max() > newest, "{journal}");
    }
    // Who waits no longer says so.
    machine.ok(
        "systemctl stop db.service && sed -i 's/^wait = .*/wait = \"0\"/' /etc/matrix-postgres/config.toml",
    );
    let journal = failed(&machine, SERVER);
    assert!(journal.contains("cannot be reached") && journal.contains("pg_isready"), "{journal}");
}

#[test]
fn a_role_that_is_no_superuser_backs_up_what_it_may_read_and_says_what_it_may_not() {
    let Some(machine) = machine::for_test("external-role") else { return };
    other_machine(&machine);
    there(&machine, "postgres", "CREATE DATABASE others");
    there(&machine, "others", "CREATE TABLE secrets (x int)");
    there(&machine, "postgres", "CREATE DATABASE closed");
    there(&machine, "postgres", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC");
    let synapse = synapse(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");

    // homeserver.yaml says where it is, and the rest is written.
    let tried = machine.run("matrix-postgres setup --detect --yes");
    assert!(
        tried.stdout.starts_with(
            "server: external, db.test.local, port 5432: /etc/matrix-synapse/conf.d/database.yaml names it"
        ),
        "{tried}"
    );
    assert_eq!(tried.status, CONFIG, "{tried}");
    let written = machine.ok(&format!("grep -v '^#' {FOUND}"));
    assert!(
        written.contains("host = \"db.test.local\"") && written.contains("superuser = \"synapse_user\""),
        "{written}"
    );
    machine.write("/etc/matrix-postgres/passfile", "db.test.local:5432:*:synapse_user:secret\n");
    machine.ok(
        "chown matrix-postgres: /etc/matrix-postgres/passfile && chmod 0600 /etc/matrix-postgres/passfile",
    );
    let set_up = machine.ok("matrix-postgres setup --yes");
    assert!(set_up.contains("synapse_user is not a superuser"), "{set_up}");

    machine.start(BACKUP);
    let journal = machine.journal_of(BACKUP);
    assert!(journal.contains("has no privilege to read public.secrets in database \"others\""), "{journal}");
    assert!(journal.contains("is verified, but not complete"), "{journal}");
    assert!(!journal.contains("is complete"), "{journal}");
    machine.start(TRIAL);
    let status = machine.run("matrix-postgres-backup status");
    assert_eq!(status.status, NOT_WELL, "{status}");
    assert!(status.stdout.contains("the newest backup is not complete"), "{status}");
    for name in ["others", "closed"] {
        assert!(
            status.stdout.contains(&format!("database \"{name}\" is not in the newest backup")),
            "{status}"
        );
    }
    machine.write(CONFIGURATION, "backup.exclude_databases = [\"others\", \"closed\"]\n");
    machine.start(BACKUP);
    let status = machine.run("matrix-postgres-backup status --json").json();
    assert_eq!(status["well"], true, "{status}");
    assert!(status["warnings"].to_string().contains("the passwords of the roles"), "{status}");
    assert_eq!(machine.ok("matrix-postgres-cli -XAtc 'SELECT current_user'"), "synapse_user");

    // With CREATEDB it can restore what is its own.
    let backup = machine.ok("ls /var/backups/matrix-postgres | tail -n 1");
    let refused = machine.run(&format!("matrix-postgres-backup restore --yes --as copy {backup}"));
    assert_eq!(refused.status, SERVER, "{refused}");
    there(&machine, "postgres", "ALTER ROLE synapse_user CREATEDB");
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy {backup} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    said(&synapse, &room);
    machine.ok("systemctl stop matrix-synapse.service");
    there(&machine, "postgres", "DROP DATABASE synapse");
    machine.ok(&format!("matrix-postgres-backup restore --yes {backup} 2>&1"));
    machine.ok("systemctl start matrix-synapse.service");
    said(&synapse, &room);
    machine.ok("matrix-postgres-backup clean --yes");
}
