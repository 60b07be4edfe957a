//! What the downtime of an upgrade would say, `check` says: odd databases, each of which it refuses with the reason, and the
//! server afterwards as it was; where it says yes, the upgrade goes.

use std::time::Instant;

use crate::machine::upgrade::{UPGRADE, client, configure, journal, sql, version};
use crate::machine::{self, Machine, Output, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_WELL: i32 = 40;
const PROGRAM: i32 = 33;

/// An empty cluster, with a database `odd`.
fn start(machine: &Machine, major: u16) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", &format!("[server]\nversion = {major}\n"));
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
    configure(machine, "");
    sql(machine, "postgres", "CREATE DATABASE odd");
}

fn check(machine: &Machine, arguments: &str) -> Output {
    machine.run(&format!("matrix-postgres-upgrade check {arguments}"))
}

/// It is not possible, for this reason and with this hint; nothing of the trial is left.
#[track_caller]
fn refuses(machine: &Machine, arguments: &str, expected: &[&str]) {
    let said = check(machine, arguments);
    assert_eq!(said.status, NOT_WELL, "{expected:?}: {said}");
    for expected in expected {
        assert!(said.stdout.contains(expected), "{expected}: {said}");
    }
    nothing_is_left(machine);
}

#[track_caller]
fn takes(machine: &Machine, arguments: &str, expected: &str) {
    let said = check(machine, arguments);
    assert!(said.status == 0 && said.stdout.contains(expected), "{expected}: {said}");
    nothing_is_left(machine);
}

#[track_caller]
fn nothing_is_left(machine: &Machine) {
    let left = machine.ok(
        "ls -d /matrix/postgres/data.* /run/matrix-postgres-upgrade /var/lib/matrix-postgres-upgrade/rehearsing 2>/dev/null || true; \
         pgrep -af 'data[.]check' || true",
    );
    assert_eq!(left, "");
}

/// Each is made in database `odd` by an SQL script, told by words of `check`, and undone.
type Case<'a> = (&'a str, &'a [&'a str], &'a str);

/// What 15 has, and 17 does not take.
const FROM_15: [Case<'_>; 5] = [
    (
        "CREATE TABLE p (a int, b int); CREATE TABLE c (a int, b int GENERATED ALWAYS AS (a * 2) STORED) INHERITS (p)",
        &[
            "database \"odd\": PostgreSQL 17 rejects TABLE c: child column \"b\" specifies generation expression",
            "HINT: ",
        ],
        "DROP TABLE p CASCADE",
    ),
    (
        "CREATE TEXT SEARCH DICTIONARY own (TEMPLATE = simple, STOPWORDS = own15)",
        &[
            "rejects TEXT SEARCH DICTIONARY own: could not open stop-word file",
            "HINT: copy that file from the installation of PostgreSQL",
        ],
        "DROP TEXT SEARCH DICTIONARY own",
    ),
    (
        "CREATE FUNCTION own(text, text) RETURNS real LANGUAGE c AS '$libdir/own15', 'similarity'",
        &["own15", "BLOCKER"],
        "DROP FUNCTION own",
    ),
    (
        "ALTER ROLE ada IN DATABASE odd SET session_preload_libraries = own15",
        &[
            "session_preload_libraries of ROLE \"ada\" IN DATABASE \"odd\" names the library own15",
            "HINT: ALTER ROLE \"ada\" IN DATABASE \"odd\" RESET session_preload_libraries",
        ],
        "ALTER ROLE ada IN DATABASE odd RESET session_preload_libraries",
    ),
    (
        "ALTER DATABASE template0 ALLOW_CONNECTIONS true",
        &["\"template0\" allows connections", "HINT: ALTER DATABASE template0 ALLOW_CONNECTIONS false"],
        "ALTER DATABASE template0 ALLOW_CONNECTIONS false",
    ),
];

#[track_caller]
fn try_each(machine: &Machine, cases: &[Case<'_>]) {
    for (made, expected, undone) in cases {
        eprintln!("{}", expected[0]);
        sql(machine, "odd", made);
        refuses(machine, "", expected);
        sql(machine, "odd", undone);
    }
}

/// What a server holds and has counted of this database, and its files but for those of its log and its statistics.
fn state(machine: &Machine, database: &str) -> String {
    let catalog = "for d in $(psql -h /run/matrix-postgres -U postgres -d postgres -XAtqc 'SELECT datname FROM pg_database WHERE datallowconn'); do pg_dump -h /run/matrix-postgres -U postgres -s -C $d; done | grep -v restrict | md5sum; \
        pg_dumpall -h /run/matrix-postgres -U postgres -g | grep -v restrict | md5sum";
    let counted = "SELECT relname, seq_scan, idx_scan, n_tup_ins, n_tup_upd, n_tup_del, last_analyze, last_vacuum FROM pg_stat_user_tables \
        ORDER BY 1; SELECT slot_name FROM pg_replication_slots; SELECT oid, datname, datallowconn FROM pg_database ORDER BY 1; \
        SELECT oid, rolname, rolpassword FROM pg_authid ORDER BY 1; SELECT txid_current() > 0";
    let files = "cd /matrix/postgres/data && find . -type f -not -path './pg_wal/*' -not -path './pg_stat*' -not -name 'pg_internal.init' \
        -not -path './pg_xact/*' -not -path './pg_subtrans/*' -not -path './global/pg_control' -printf '%p %s\\n' | sort | md5sum; \
        ls -A /matrix/postgres /var/tmp";
    format!("{}\n{}\n{}", machine.ok(catalog), sql(machine, database, counted), machine.ok(files))
}

#[test]
fn from_15_what_the_target_does_not_take_is_told_beforehand() {
    let Some(machine) = machine::for_test("checks15") else { return };
    start(&machine, 15);
    machine.ok("cp /usr/lib/postgresql/15/lib/pg_trgm.so /usr/lib/postgresql/15/lib/own15.so && \
        echo aber >/usr/share/postgresql/15/tsearch_data/own15.stop");
    sql(
        &machine,
        "odd",
        "CREATE ROLE ada LOGIN PASSWORD 'secret'; CREATE TABLE t AS SELECT generate_series(1, 100) AS n; \
        CREATE TABLE f (n int)",
    );
    // It changes files whenever it likes.
    sql(&machine, "odd", "ALTER SYSTEM SET autovacuum = off");
    sql(&machine, "odd", "SELECT pg_reload_conf()");
    let before = state(&machine, "odd");
    takes(&machine, "", "were tested on an empty cluster of the target version");
    assert_eq!(state(&machine, "odd"), before);

    try_each(&machine, &FROM_15);
    let before = state(&machine, "odd");

    // The rules of who may log in: what was a name is a regular expression since 16.
    for file in ["pg_hba.conf", "pg_ident.conf"] {
        let line = if file == "pg_hba.conf" { "local all \"/(\" trust" } else { "own ada \"/(\"" };
        machine.ok(&format!(
            "cp -p /matrix/postgres/data/{file} /root/ && echo '{line}' >>/matrix/postgres/data/{file}"
        ));
        let told = format!("of /matrix/postgres/data/{file}: invalid regular expression");
        refuses(&machine, "", &[&told, "HINT: correct line "]);
        let refused = machine.run("matrix-postgres-upgrade run");
        assert!(refused.status == NOT_WELL && refused.stderr.contains("nothing was stopped"), "{refused}");
        machine.ok(&format!("cp -p /root/{file} /matrix/postgres/data/{file}"));
    }
    assert_eq!(state(&machine, "odd"), before);

    // Killed, it leaves nothing that the next one does not clear away.
    for _ in 0..2 {
        machine.ok("matrix-postgres-upgrade check >/dev/null & sleep 1; kill -KILL $! || true");
        machine.wait_for("! ls -d /matrix/postgres/data.check-* /var/lib/matrix-postgres-upgrade/rehearsing 2>/dev/null && ! pgrep -f 'upgrade [r]ecover'");
    }
    takes(&machine, "", "method online");

    // What only one of the methods takes: auto takes that, and a hint leads to it.
    sql(
        &machine,
        "odd",
        "CREATE TABLE parent (a int, b int); CREATE TABLE child (b int, a int); ALTER TABLE child INHERIT parent",
    );
    takes(&machine, "", "method online");
    // A dump has the columns of a child in the order of its parent's: that is no other table.
    takes(&machine, "--method dump", "method dump, as configured");
    sql(
        &machine,
        "odd",
        "DROP TABLE child; CREATE FUNCTION cnt() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END'; \
         CREATE MATERIALIZED VIEW m AS SELECT cnt()",
    );
    takes(&machine, "", "method online");
    refuses(
        &machine,
        "--method dump",
        &[
            "view public.m cannot be refreshed after a restore: relation \"t\" does not exist",
            "SET search_path",
        ],
    );
    sql(&machine, "odd", "CREATE TABLE r (x regprocedure)");
    let said = check(&machine, "");
    assert!(said.status == NOT_WELL && !said.stdout.contains("--method"), "neither goes: {said}");
    sql(&machine, "odd", "DROP MATERIALIZED VIEW m");
    takes(
        &machine,
        "",
        "method dump, whose downtime grows with the size, because method online is not possible: pg_upgrade --check failed",
    );
    refuses(
        &machine,
        "--method online",
        &["public.r.x", "HINT: upgrade.method = \"dump\", or --method dump"],
    );
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    assert_eq!(version(&machine), "17");
    assert_eq!(sql(&machine, "odd", "SELECT count(*) FROM t"), "100");
}

/// Functions that find others by their search path only, in all that is evaluated when rows are loaded.
const BY_SEARCH_PATH: &str = "
    CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
    CREATE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1); END';
    CREATE TABLE in_check (v text CHECK (f_low(v) <> 'y')); INSERT INTO in_check VALUES ('X');
    CREATE TABLE in_column (v text, w text GENERATED ALWAYS AS (f_low(v)) STORED); INSERT INTO in_column VALUES ('X');
    CREATE TABLE in_index (v text); INSERT INTO in_index VALUES ('X'); CREATE INDEX ON in_index (f_low(v));
    CREATE TABLE in_predicate (v text); INSERT INTO in_predicate VALUES ('X');
    CREATE INDEX ON in_predicate (v) WHERE f_low(v) = 'x';
    CREATE DOMAIN small AS text CHECK (f_low(VALUE) = VALUE); CREATE TYPE pair AS (a small, b int);
    CREATE TABLE in_type (v pair[]); INSERT INTO in_type VALUES (ARRAY[('x', 1)::pair]);
    CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1) = low($2); END';
    CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
    CREATE TABLE by_operator (v text CHECK (v === 'x')); INSERT INTO by_operator VALUES ('X');
    CREATE TABLE in_view (v text); INSERT INTO in_view VALUES ('X'); CREATE VIEW amid AS SELECT * FROM in_view;
    CREATE MATERIALIZED VIEW m AS SELECT f_low(v) FROM amid;
    CREATE TABLE without_rows (v text CHECK (f_low(v) <> 'y'));
    CREATE TABLE good (v text CHECK (lower(v) <> 'y')); INSERT INTO good VALUES ('X');";

/// What its owner has written is not to be run by anybody who may do more.
const BY_OWNER: &str = "
    CREATE FUNCTION asks() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN
        IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) THEN RAISE EXCEPTION ''a superuser asks''; END IF;
        RETURN true; END';
    CREATE TABLE asked (a int CHECK (asks())); INSERT INTO asked VALUES (1);";

const NOT_LOADED: [&str; 7] =
    ["in_check", "in_column", "in_index", "in_predicate", "in_type", "by_operator", "view public.m"];

#[test]
fn rows_that_a_dump_could_not_bring_are_told_beforehand() {
    let Some(machine) = machine::for_test("checks-rows") else { return };
    start(&machine, 15);
    // Of a superuser, and of somebody else.
    machine.write("/root/odd.sql", BY_SEARCH_PATH);
    sql(&machine, "postgres", "CREATE ROLE ada LOGIN");
    sql(&machine, "postgres", "CREATE DATABASE hers OWNER ada TEMPLATE template0");
    sql(&machine, "postgres", "ALTER SYSTEM SET autovacuum = off");
    sql(&machine, "postgres", "SELECT pg_reload_conf()");
    machine.ok("matrix-postgres-cli -d odd -Xqf /root/odd.sql");
    // Of others, only a superuser could make such a key.
    sql(
        &machine,
        "odd",
        "CREATE TABLE in_key (v text) PARTITION BY LIST (f_low(v)); \
         CREATE TABLE of_key PARTITION OF in_key FOR VALUES IN ('x'); INSERT INTO in_key VALUES ('X')",
    );
    machine.write("/root/hers.sql", &format!("SET SESSION AUTHORIZATION ada; {BY_SEARCH_PATH} {BY_OWNER}"));
    machine.ok("matrix-postgres-cli -d hers -Xq -v ON_ERROR_STOP=1 -f /root/hers.sql");
    let before = state(&machine, "hers");
    takes(&machine, "", "method online");
    let said = check(&machine, "--method dump");
    assert_eq!(said.status, NOT_WELL, "{said}");
    let refused = ["odd", "hers"].into_iter().flat_map(|database| NOT_LOADED.map(|what| (database, what)));
    for (database, what) in refused.chain([("odd", "of_key")]) {
        let told = said.stdout.lines().any(|line| {
            line.contains(&format!("BLOCKER  method dump is not possible: database \"{database}\""))
                && line.contains(what)
                && line.contains("function low(text) does not exist")
        });
        assert!(told, "{database}: {what}: {said}");
    }
    assert!(
        said.stdout.contains("HINT: ") && said.stdout.contains("ALTER FUNCTION public.f_low SET search_path")
    );
    let mut blockers = said.stdout.lines().filter(|line| line.starts_with("BLOCKER"));
    assert!(!blockers.any(|line| line.contains("without_rows") || line.contains("good")), "{said}");
    nothing_is_left(&machine);
    assert_eq!(state(&machine, "hers"), before);
    assert!(!said.stdout.contains("fail while other tables are empty"), "{said}");

    sql(&machine, "postgres", "DROP DATABASE odd");
    sql(
        &machine,
        "hers",
        "ALTER FUNCTION f_low SET search_path = public; ALTER FUNCTION same SET search_path = public",
    );
    takes(&machine, "--method dump", "method dump, as configured");
    configure(&machine, "method = \"dump\"\n");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    assert_eq!(sql(&machine, "hers", "SELECT * FROM in_column, m"), "X|x|x");
}

#[test]
#[ignore = "make thorough"]
fn from_13_what_the_target_does_not_take_is_told_beforehand() {
    let Some(machine) = machine::for_test("checks13") else { return };
    start(&machine, 13);
    sql(&machine, "odd", "CREATE ROLE barman LOGIN PASSWORD 'secret'");
    try_each(
        &machine,
        &[
            (
                "GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean) TO barman",
                &[
                    "pg_start_backup(",
                    "HINT: REVOKE ALL ON FUNCTION pg_catalog.pg_start_backup(",
                    "FROM barman, in database \"odd\"",
                ],
                "REVOKE EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean) FROM barman",
            ),
            (
                "CREATE AGGREGATE own(anyelement) (sfunc = array_append, stype = anyarray, initcond = '{}')",
                &["rejects AGGREGATE own(anyelement)", "HINT: "],
                "DROP AGGREGATE own(anyelement)",
            ),
            (
                "ALTER ROLE barman SET password_encryption = 'on'",
                &[
                    "the target version rejects password_encryption = on (ALTER ROLE \"barman\" SET)",
                    "HINT: ALTER ROLE \"barman\" RESET password_encryption",
                ],
                "ALTER ROLE barman RESET password_encryption",
            ),
        ],
    );
    takes(&machine, "", "method online");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    assert_eq!(version(&machine), "17");
}

#[test]
fn a_superuser_that_initdb_has_not_made_goes_by_dump() {
    let Some(machine) = machine::for_test("checks-superuser") else { return };
    start(&machine, 15);
    machine.ok("sed -i '1i local all other trust' /matrix/postgres/data/pg_hba.conf && systemctl reload matrix-postgres.service");
    sql(
        &machine,
        "odd",
        "CREATE ROLE other SUPERUSER LOGIN; CREATE TABLE t AS SELECT generate_series(1, 100) AS n",
    );
    machine.ok(
        "psql -h /run/matrix-postgres -U other -XAtq -c 'ALTER ROLE postgres RENAME TO matrix' -c 'CREATE ROLE postgres SUPERUSER LOGIN' postgres",
    );
    takes(
        &machine,
        "",
        "method dump, whose downtime grows with the size, because method online is not possible: pg_upgrade --check failed",
    );
    // A name that neither program takes.
    machine.ok("createdb -h /run/matrix-postgres -U postgres $'of two\\nlines'");
    refuses(
        &machine,
        "",
        &[
            "pg_upgrade does not support newlines in names",
            "database name contains a newline",
            "HINT: rename it: ALTER DATABASE … RENAME TO",
        ],
    );
    machine.ok("printf 'ALTER DATABASE \"of two\\nlines\" RENAME TO two' | psql -h /run/matrix-postgres -U postgres -Xq postgres");
    let upgraded = machine.run(UPGRADE);
    assert_eq!(upgraded.status, 0, "{upgraded}\n{}", journal(&machine));
    assert_eq!(sql(&machine, "odd", "SELECT count(*) FROM t"), "100");
}

#[test]
fn when_pg_upgrade_fails_all_the_same_its_reason_is_shown_and_its_logs_are_kept() {
    let Some(machine) = machine::for_test("checks-logs") else { return };
    start(&machine, 15);
    sql(&machine, "odd", "CREATE ROLE ada LOGIN PASSWORD 'secret'; CREATE TABLE p (a int, b int)");
    // What nobody could know: somebody makes it when the clients are stopped.
    machine.write(
        "/root/odd.sh",
        "#!/bin/sh\nmatrix-postgres-cli -d odd -Xqc 'CREATE TABLE c (a int, b int GENERATED ALWAYS AS (a * 2) STORED) INHERITS (p)'\n",
    );
    machine.ok("chmod +x /root/odd.sh");
    client(&machine, "matrix-odd.service", "ExecStart=true\nExecStop=/root/odd.sh");
    configure(&machine, "method = \"online\"\n[clients]\nunits = [\"matrix-odd.service\"]\n");
    let started = machine.run(UPGRADE);
    assert_ne!(started.status, 0, "{started}");
    let said = journal(&machine);
    let status =
        machine.ok("systemctl show --value --property=ExecMainStatus matrix-postgres-upgrade.service");
    assert_eq!(status, PROGRAM.to_string(), "{said}");
    for expected in [
        "TABLE c postgres",
        "column \"b\" in child table must not be a generated column",
        "its logs are kept in /var/lib/matrix-postgres-upgrade/upgrade/pg_upgrade-",
        "the homeserver runs on PostgreSQL 15 again, as before",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("SCRAM-SHA-256$4096"), "{said}");
    let kept = "cat /var/lib/matrix-postgres-upgrade/upgrade/pg_upgrade-*/*";
    let logs = machine.ok(kept);
    assert!(
        logs.contains("must not be a generated column") && !logs.contains("SCRAM-SHA-256$4096"),
        "{logs}"
    );
    let status = machine.ok("matrix-postgres-upgrade status");
    assert!(status.contains("logs of pg_upgrade from a failed upgrade"), "{status}");
    machine.ok("matrix-postgres-upgrade clean --yes");
    assert_ne!(machine.run(kept).status, 0);
}

#[test]
#[ignore = "make thorough"]
fn a_check_of_a_homeserver_takes_seconds_at_any_size() {
    let Some(machine) = machine::for_test("checks-size") else { return };
    start(&machine, 15);
    sql(&machine, "postgres", "DROP DATABASE odd");
    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "checks");
    synapse.send(&user, &room, "before");
    let measure = |what: &str| {
        // With a target that is not newer nothing is tried.
        let timed = |arguments: &str| {
            machine.ok(&format!(
                "TIMEFORMAT='%R s, of processors %U + %S s'; {{ time (matrix-postgres-upgrade check {arguments} >/dev/null 2>&1 || true); }} 2>&1"
            ))
        };
        let begun = Instant::now();
        takes(&machine, "", "method online");
        let seconds = begun.elapsed().as_secs_f64();
        let size = sql(&machine, "homeserver", "SELECT pg_size_pretty(pg_database_size('homeserver'))");
        eprintln!("{what}, {size}: {seconds:.1} s, then {}; without trying {}", timed(""), timed("--to 15"));
        seconds
    };
    measure("a new homeserver");
    machine.ok("systemctl stop matrix-synapse.service");
    machine::synapse::fill(
        &machine,
        std::env::var("EVENTS").ok().and_then(|events| events.parse().ok()).unwrap_or(250_000),
    );
    // It changes files whenever it likes.
    sql(&machine, "homeserver", "ALTER SYSTEM SET autovacuum = off");
    sql(&machine, "homeserver", "SELECT pg_reload_conf()");
    machine.ok("while pgrep -f 'autovacuum worke[r]' >/dev/null; do sleep 1; done");
    sql(&machine, "homeserver", "VACUUM");
    sql(&machine, "homeserver", "CHECKPOINT");
    let before = state(&machine, "homeserver");
    assert!(measure("a filled one, without its homeserver") < 60.0);
    assert_eq!(state(&machine, "homeserver"), before);
    machine.ok("systemctl start matrix-synapse.service");
    // Fifteen on a machine that has nothing else to do.
    assert!(measure("a filled one") < 60.0);
    synapse.send(&user, &room, "after");
}
