//! Databases that are legal and unusual: extensions whose library must be loaded at the start, subscriptions, jobs, triggers
//! on login and against DDL, settings for all roles, no database `postgres`, and what no server takes from a dump.

use crate::machine::{self, Machine, Output};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_TAKEN: i32 = 44;

const BACKUP: &str = "systemctl start matrix-postgres-backup.service";
const TRIAL: &str = "matrix-postgres-backup verify --trial 2>&1";
const NEWEST: &str = "\"$(ls /var/backups/matrix-postgres | tail -n 1)\"";

fn start(machine: &Machine, major: u16) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write(
        "/etc/matrix-postgres/config.toml",
        &format!("[server]\nversion = {major}\n[upgrade]\nbackup_within = \"never\"\n"),
    );
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
    machine.write("/etc/matrix-postgres/config.toml", "[upgrade]\nbackup_within = \"never\"\n");
}

#[track_caller]
fn sql(machine: &Machine, database: &str, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -d {database} -XAtqc {}", machine::synapse::quote(statement)))
}

fn restore(machine: &Machine, arguments: &str) -> Output {
    machine.run(&format!("matrix-postgres-backup restore {NEWEST} {arguments} --yes 2>&1"))
}

#[track_caller]
fn goes(output: &Output) {
    assert_eq!(output.status, 0, "{output}");
}

/// Of all roles, as the catalog has them.
fn of_all(machine: &Machine) -> String {
    sql(
        machine,
        "homeserver",
        "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = 0 AND setrole = 0",
    )
}

#[test]
fn what_must_be_loaded_at_the_start_is_and_login_triggers_count_for_nothing() {
    let Some(machine) = machine::for_test("preloaded") else { return };
    start(&machine, 17);
    for setting in [
        "shared_preload_libraries = pg_cron, pgaudit, auto_explain",
        "cron.database_name = 'homeserver'",
        "cron.use_background_workers = on",
    ] {
        sql(&machine, "postgres", &format!("ALTER SYSTEM SET {setting}"));
    }
    machine.ok("systemctl restart matrix-postgres.service");
    sql(
        &machine,
        "homeserver",
        "CREATE EXTENSION pg_cron; CREATE EXTENSION pgaudit; CREATE TABLE t AS SELECT generate_series(1, 100) AS n; \
         SELECT cron.schedule('never', '0 0 30 2 *', 'SELECT 1')",
    );
    sql(
        &machine,
        "homeserver",
        "CREATE TABLE logins (who text); CREATE FUNCTION note_login() RETURNS event_trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO public.logins VALUES (session_user); END $$; \
         CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION note_login(); ALTER EVENT TRIGGER on_login ENABLE ALWAYS",
    );
    machine.ok(BACKUP);
    goes(&machine.run(TRIAL));
    let status = machine.run("matrix-postgres-backup status");
    assert!(status.stdout.contains(" passed on "), "{status}");

    // Beside the live one the extension cannot be made: that is said before, and the rest is there.
    let dry = machine.ok(&format!("matrix-postgres-backup restore {NEWEST} --as beside --dry-run"));
    assert!(dry.contains("extension \"pg_cron\""), "{dry}");
    goes(&restore(&machine, "--as beside"));
    assert_eq!(sql(&machine, "beside", "SELECT count(*) FROM t"), "100");
    let extensions = "SELECT string_agg(extname, ' ' ORDER BY extname) FROM pg_extension";
    assert_eq!(sql(&machine, "beside", extensions), "pgaudit plpgsql");

    // In its own place it can, and so its jobs are there.
    goes(&restore(&machine, ""));
    assert_eq!(sql(&machine, "homeserver", extensions), "pg_cron pgaudit plpgsql");
    assert_eq!(sql(&machine, "homeserver", "SELECT jobname FROM cron.job"), "never");
    assert_eq!(sql(&machine, "homeserver", "SELECT count(*) FROM t"), "100");
}

#[test]
fn without_a_database_postgres_everything_goes() {
    let Some(machine) = machine::for_test("no-postgres") else { return };
    start(&machine, 15);
    sql(&machine, "homeserver", "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    sql(&machine, "template1", "DROP DATABASE postgres");
    machine.ok(BACKUP);
    goes(&machine.run(TRIAL));
    machine.run("matrix-postgres-backup status");
    goes(&restore(&machine, "--as beside"));
    assert_eq!(sql(&machine, "beside", "SELECT count(*) FROM t"), "100");
    let check = machine.run("matrix-postgres-upgrade check");
    assert!(check.status == 0 && check.stdout.contains("database \"postgres\" does not exist"), "{check}");
    goes(&machine.run("matrix-postgres-upgrade run --method dump 2>&1"));
    assert_eq!(sql(&machine, "homeserver", "SELECT count(*) FROM t"), "100");
    assert!(sql(&machine, "homeserver", "SHOW server_version").starts_with("17"));

    // Whoever has a trigger against DDL may still be restored and tried; nor is template1 needed.
    sql(&machine, "postgres", "ALTER DATABASE template1 ALLOW_CONNECTIONS false");
    sql(&machine, "homeserver", "DROP DATABASE postgres");
    machine.ok(BACKUP);
    goes(&restore(&machine, "--as again"));
}

#[test]
fn what_is_set_for_all_roles_goes_along_and_triggers_against_ddl_do_not_stop_us() {
    let Some(machine) = machine::for_test("of-all") else { return };
    start(&machine, 15);
    sql(&machine, "homeserver", "ALTER ROLE ALL SET work_mem = '9MB'");
    sql(&machine, "homeserver", "ALTER ROLE ALL SET search_path = '$user', public, 'we, \"ird'");
    sql(&machine, "homeserver", "CREATE EXTENSION pg_stat_statements VERSION '1.9'");
    sql(
        &machine,
        "homeserver",
        "CREATE FUNCTION stop_it() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no ddl by %', current_user; END $$",
    );
    sql(
        &machine,
        "homeserver",
        "CREATE EVENT TRIGGER stop_it ON ddl_command_start EXECUTE FUNCTION stop_it()",
    );
    let settings = of_all(&machine);
    machine.ok(BACKUP);
    goes(&machine.run(TRIAL));
    sql(&machine, "homeserver", "ALTER ROLE ALL RESET ALL");
    let globals = machine.ok(&format!("matrix-postgres-backup restore {NEWEST} --globals --yes 2>&1"));
    assert!(globals.contains("settings of ALTER ROLE ALL: work_mem, search_path"), "{globals}");
    assert_eq!(of_all(&machine), settings);

    for method in ["dump", "online"] {
        goes(&machine.run(&format!("matrix-postgres-upgrade rehearse --method {method} 2>&1")));
    }
    goes(&machine.run("matrix-postgres-upgrade run --method online 2>&1"));
    assert!(sql(&machine, "homeserver", "SHOW server_version").starts_with("17"));
    assert_eq!(of_all(&machine), settings);
    let version = "SELECT extversion = default_version FROM pg_extension \
        JOIN pg_available_extensions ON name = extname WHERE extname = 'pg_stat_statements'";
    assert_eq!(sql(&machine, "homeserver", version), "t");
}

#[test]
fn servers_of_ours_take_no_part_in_replication_and_carry_out_no_jobs() {
    let Some(machine) = machine::for_test("subscription") else { return };
    // Whom the homeserver's cluster follows: Debian's own.
    machine.ok(
        "echo 'host all all 127.0.0.1/32 trust' | sed -i '1r /dev/stdin' /etc/postgresql/17/main/pg_hba.conf",
    );
    machine.ok("echo 'wal_level = logical' >>/etc/postgresql/17/main/postgresql.conf");
    machine.ok("systemctl restart postgresql@17-main.service");
    let publisher = "psql -h 127.0.0.1 -U postgres -XAtqc";
    machine.ok(&format!(
        "{publisher} 'CREATE TABLE t (n serial PRIMARY KEY)' -c 'CREATE PUBLICATION p FOR TABLE t'"
    ));

    start(&machine, 15);
    sql(&machine, "postgres", "ALTER SYSTEM SET shared_preload_libraries = pg_cron");
    machine.ok("systemctl restart matrix-postgres.service");
    sql(&machine, "postgres", "ALTER SYSTEM SET cron.database_name = 'homeserver'");
    sql(&machine, "postgres", "ALTER SYSTEM SET cron.use_background_workers = on");
    machine.ok("systemctl restart matrix-postgres.service");
    sql(&machine, "homeserver", "CREATE EXTENSION pg_cron; CREATE TABLE t (n int PRIMARY KEY)");
    sql(
        &machine,
        "homeserver",
        "SELECT cron.schedule('j', '* * * * *', \
         $$COPY (SELECT pg_catalog.current_setting('data_directory')) TO PROGRAM 'cat >>/var/tmp/jobs'$$)",
    );
    sql(
        &machine,
        "homeserver",
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 user=postgres dbname=postgres' PUBLICATION p",
    );
    machine.ok(&format!(
        "(while [ ! -e /var/tmp/enough ]; do {publisher} 'INSERT INTO t DEFAULT VALUES'; sleep 0.1; done) >/dev/null 2>&1 & "
    ));
    let all_there = |machine: &Machine| {
        let received = "matrix-postgres-cli -d homeserver -XAtqc 'SELECT count(*) FROM t'";
        machine.wait_for(&format!("test \"$({received})\" = \"$({publisher} 'SELECT count(*) FROM t')\""));
    };
    goes(&machine.run("matrix-postgres-upgrade rehearse --method online 2>&1"));
    goes(&machine.run("matrix-postgres-upgrade run --method online 2>&1"));
    assert!(sql(&machine, "homeserver", "SHOW server_version").starts_with("17"));
    // The old cluster goes on where it was, and nobody has taken its rows meanwhile.
    goes(&machine.run("matrix-postgres-upgrade rollback --yes 2>&1"));
    machine.ok("touch /var/tmp/enough");
    all_there(&machine);
    machine.ok("! grep -e rehearsal -e upgrade- /var/tmp/jobs");
}

#[test]
fn what_no_server_takes_is_told_and_the_rest_is_restored() {
    let Some(machine) = machine::for_test("not-taken") else { return };
    start(&machine, 15);
    sql(
        &machine,
        "homeserver",
        "CREATE TABLE t AS SELECT n, 'x' || n AS v FROM generate_series(1, 1000) n; CREATE INDEX good ON t (n); \
         CREATE FUNCTION cnt() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t'; \
         CREATE MATERIALIZED VIEW m AS SELECT public.cnt() AS n; CREATE INDEX of_m ON m (n); \
         CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; \
         CREATE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1); END'; \
         CREATE INDEX bad ON t (f_low(v)); COMMENT ON INDEX bad IS 'x'",
    );
    machine.ok(BACKUP);
    let trial = machine.run(TRIAL);
    assert_eq!(trial.status, NOT_TAKEN, "{trial}");
    for expected in ["index public.bad", "materialized view public.m", "ALTER FUNCTION", "SET search_path"] {
        assert!(trial.stdout.contains(expected), "{expected}: {trial}");
    }
    assert!(
        !trial.stdout.contains("make a new one") && !trial.stdout.contains("not what was written"),
        "{trial}"
    );
    let status = machine.run("matrix-postgres-backup status");
    assert!(status.status != 0 && status.stdout.contains("index public.bad"), "{status}");
    // It is as good as any other to whoever prunes.
    let list = machine.ok("matrix-postgres-backup list --json");
    assert!(!list.contains("\"damage\": \""), "{list}");

    let restored = restore(&machine, "--as beside");
    assert_eq!(restored.status, NOT_TAKEN, "{restored}");
    assert!(restored.stdout.contains("index public.bad"), "{restored}");
    assert_eq!(sql(&machine, "beside", "SELECT count(*) FROM t"), "1000");
    assert_eq!(
        sql(&machine, "beside", "SELECT count(*) FROM pg_indexes WHERE indexname IN ('good', 'of_m')"),
        "2"
    );

    // What cannot be missed ends the restore, and is no damage either.
    sql(
        &machine,
        "homeserver",
        "DROP INDEX bad; DROP MATERIALIZED VIEW m; CREATE TABLE p (a int); CREATE TABLE c () INHERITS (p); \
         INSERT INTO c VALUES (NULL); ALTER TABLE ONLY p ADD PRIMARY KEY (a)",
    );
    machine.ok(BACKUP);
    let trial = machine.run(TRIAL);
    assert_eq!(trial.status, NOT_TAKEN, "{trial}");
    assert!(!trial.stdout.contains("make a new one"), "{trial}");
    let restored = restore(&machine, "--as third");
    assert_eq!(restored.status, NOT_TAKEN, "{restored}");
    assert!(restored.stdout.contains("table \"c\""), "{restored}");
}

/// A function of a generated column, of a check and of a domain that finds what it calls by the search path only, which a
/// dump does not set.
#[test]
fn tables_whose_rows_no_server_takes_are_skipped_if_asked_and_all_else_is_restored() {
    let Some(machine) = machine::for_test("refused-rows") else { return };
    start(&machine, 17);
    sql(
        &machine,
        "homeserver",
        "CREATE TABLE first (n int PRIMARY KEY); INSERT INTO first SELECT generate_series(1, 10);
         CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
         CREATE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1); END';
         CREATE TABLE small (n int PRIMARY KEY, v text CHECK (f_low(v) <> '')); INSERT INTO small VALUES (1, 'X');
         CREATE TABLE large (n int PRIMARY KEY, v text, l text GENERATED ALWAYS AS (f_low(v)) STORED);
         INSERT INTO large SELECT n, repeat('X', 200) FROM generate_series(1, 40000) n;
         CREATE INDEX of_large ON large (v);
         CREATE TABLE of_owner (v text CHECK (f_low(v) <> '')); ALTER TABLE of_owner OWNER TO synapse;
         INSERT INTO of_owner VALUES ('Y'); ALTER FUNCTION f_low OWNER TO synapse; ALTER FUNCTION low OWNER TO synapse;
         CREATE TABLE last (n int PRIMARY KEY, s int REFERENCES small, f int REFERENCES first);
         INSERT INTO last SELECT n, 1, 1 + n % 10 FROM generate_series(1, 20000) n",
    );
    machine.ok(BACKUP);

    let refused = restore(&machine, "--as nothing");
    assert_eq!(refused.status, NOT_TAKEN, "{refused}");
    assert!(refused.stdout.contains("HINT: --skip-broken restores everything else"), "{refused}");
    assert_eq!(sql(&machine, "postgres", "SELECT count(*) FROM pg_database WHERE datname = 'nothing'"), "0");

    let restored = restore(&machine, "--as beside --skip-broken");
    assert_eq!(restored.status, NOT_TAKEN, "{restored}");
    for expected in [
        "the rows of table public.small",
        "the rows of table public.large",
        "the rows of table public.of_owner",
        "public.last last_s_fkey",
    ] {
        assert!(restored.stdout.contains(expected), "{expected}: {restored}");
    }
    let counted = "SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM small), (SELECT count(*) FROM large), \
         (SELECT count(*) FROM last), (SELECT count(*) FROM of_owner)";
    assert_eq!(sql(&machine, "beside", counted), "10|0|0|20000|0");
    let there = "SELECT string_agg(name, ' ' ORDER BY name) FROM (SELECT indexname::text FROM pg_indexes \
         WHERE schemaname = 'public' UNION ALL SELECT conname FROM pg_constraint WHERE contype = 'f') AS t (name)";
    assert_eq!(
        sql(&machine, "beside", there),
        "first_pkey large_pkey last_f_fkey last_pkey of_large small_pkey"
    );

    // The trial names all of it, and is no damage.
    let trial = machine.run(TRIAL);
    assert_eq!(trial.status, NOT_TAKEN, "{trial}");
    for expected in ["table public.small", "table public.large", "table public.of_owner"] {
        assert!(trial.stdout.contains(expected), "{expected}: {trial}");
    }
    let status = machine.run("matrix-postgres-backup status");
    assert!(status.status != 0 && status.stdout.contains("the rows of table public.small"), "{status}");
}
