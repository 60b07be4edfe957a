//! Restores in booted machines: of a homeserver that lost its database, over one that runs, and killed at any instant.

use crate::machine::synapse::User;
use crate::machine::{self, Machine, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const NO_BACKUP: i32 = 35;
const INTERRUPTED: i32 = 41;
const NOT_TAKEN: i32 = 44;

const BACKUPS: &str = "/var/backups/matrix-postgres";

/// Runs its arguments at a terminal, and types Ctrl-C where it is asked: that must be their end.
const INTERRUPTED_AT_THE_QUESTION: &str = r"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
said = b''
while b'[y/N]' not in said:
    said += os.read(terminal, 4096)
os.write(terminal, b'\x03')
status = os.waitpid(pid, 0)[1]
sys.exit(status == 0)
";

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -d postgres -XAtqc {}", machine::synapse::quote(statement)))
}

fn databases(machine: &Machine) -> Vec<String> {
    let names = sql(machine, "SELECT datname FROM pg_database WHERE datname LIKE 'homeserver%' ORDER BY 1");
    names.lines().map(str::to_owned).collect()
}

/// A homeserver with talk and a backup of it; the backup's name.
fn prepare(machine: &Machine) -> (User, String, String) {
    machine.ok("systemctl start matrix-postgres.service");
    let synapse = Synapse::set_up(machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "restores");
    synapse.send(&user, &room, "before the backup");
    sql(machine, "ALTER DATABASE homeserver SET work_mem = '9MB'");
    sql(machine, "COMMENT ON DATABASE homeserver IS 'ours'");
    machine.ok("systemctl start matrix-postgres-backup.service");
    let name = machine.ok(&format!("ls {BACKUPS} | tail -n 1"));
    (user, room, name)
}

fn said(machine: &Machine, room: &str) -> Vec<String> {
    let synapse = Synapse::of(machine);
    let messages = synapse.messages(&synapse.log_in("ada"), room);
    messages.into_iter().map(|(_, text)| text).collect()
}

fn clean(machine: &Machine) {
    machine.ok(
        "test -z \"$(ls -A /var/tmp/matrix-postgres-restore)\" && systemctl is-active matrix-synapse.service",
    );
}

#[test]
fn a_homeserver_that_lost_its_database_gets_it_back() {
    let Some(machine) = machine::for_test("restore") else { return };
    let (user, room, name) = prepare(&machine);

    // Over the one that runs: the old one stays, whole.
    Synapse::of(&machine).send(&user, &room, "after the backup");
    let dry = machine.ok(&format!("matrix-postgres-backup restore --dry-run {name}"));
    assert!(dry.contains("rename \"homeserver\" to \"homeserver_before_"), "{dry}");
    let unasked = machine.run(&format!("matrix-postgres-backup restore {name} </dev/null"));
    assert_eq!(unasked.status, INTERRUPTED, "{unasked}");
    assert!(unasked.stderr.contains("HINT: pass --yes"), "{unasked}");
    assert_eq!(databases(&machine), ["homeserver"]);
    machine.write("/root/interrupted.py", INTERRUPTED_AT_THE_QUESTION);
    machine.ok(&format!("timeout 300 python3 /root/interrupted.py matrix-postgres-backup restore {name}"));
    assert_eq!(databases(&machine), ["homeserver"]);
    let done = machine.run(&format!("matrix-postgres-backup restore --yes {name}"));
    assert_eq!(done.status, 0, "{done}");
    assert_eq!(said(&machine, &room), ["before the backup"]);
    let both = databases(&machine);
    assert!(both.len() == 2 && both[1].starts_with("homeserver_before_"), "{both:?}");
    let rows = format!("matrix-postgres-cli -d {} -XAtc \"SELECT count(*) FROM event_json\"", both[1]);
    assert_ne!(machine.ok(&rows), "0");
    let show = "SHOW work_mem; SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'homeserver'";
    assert_eq!(
        machine.ok(&format!("matrix-postgres-cli -XAtq <<<{}", machine::synapse::quote(show))),
        "9MB\nours"
    );
    clean(&machine);

    // After it was dropped, with Synapse down.
    machine.ok("systemctl stop matrix-synapse.service");
    sql(&machine, "DROP DATABASE homeserver");
    machine.ok(&format!("matrix-postgres-backup restore --yes {name} 2>&1"));
    machine
        .ok("! systemctl is-active --quiet matrix-synapse.service && systemctl start matrix-synapse.service");
    assert_eq!(said(&machine, &room), ["before the backup"]);
    // Whoever ran it, the next backup is not in its way.
    machine.ok("systemctl start matrix-postgres-backup.service");

    // Beside it: nobody is stopped.
    let since = machine.ok("systemctl show -P ActiveEnterTimestampMonotonic matrix-synapse.service");
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy {name} 2>&1"));
    assert_eq!(machine.ok("systemctl show -P ActiveEnterTimestampMonotonic matrix-synapse.service"), since);
    assert_eq!(machine.ok("matrix-postgres-cli -d copy -XAtc 'SELECT count(*) FROM users'"), "1");
    let taken = machine.run(&format!("matrix-postgres-backup restore --yes --as copy {name}"));
    assert!(taken.status != 0 && taken.stderr.contains("database \"copy\" already exists"), "{taken}");
    let missing = machine.run(&format!("matrix-postgres-backup restore --yes --database none {name}"));
    assert_eq!(missing.status, NO_BACKUP, "{missing}");
    clean(&machine);

    // Roles that are gone come back, with their passwords; those that are there stay.
    machine.ok(&format!("matrix-postgres-backup restore --globals {name} 2>&1"));

    // Files of other tools, by path; one that was cut off is refused before anything changes.
    machine.ok("pg_dump=/usr/lib/postgresql/17/bin/pg_dump; from='-h /run/matrix-postgres -U postgres homeserver'
         $pg_dump $from | gzip >/root/x.sql.gz; $pg_dump $from | zstd -q >/root/x.sql.zst; $pg_dump -Fc $from >/root/x.dump
         zcat /root/x.sql.gz >/root/x.sql; head -c 100000 /root/x.sql | gzip >/root/cut.sql.gz; head -c 60000 /root/x.dump >/root/cut.dump
         head -c 10000 /root/x.sql.zst >/root/cut.sql.zst
         all='/usr/lib/postgresql/17/bin/pg_dumpall -h /run/matrix-postgres -U postgres'
         $all >/root/all.sql; $all --clean --if-exists | gzip >/root/clean.sql.gz
         $pg_dump --create --clean $from | zstd -q >/root/create.sql.zst
         head -c -50 /root/all.sql >/root/cut-all.sql");
    let live = "SELECT oid, datname FROM pg_database WHERE datname = 'homeserver'";
    let live_before = sql(&machine, live);
    let files = ["x.sql.gz", "x.sql.zst", "x.dump", "all.sql", "clean.sql.gz", "create.sql.zst"];
    for (number, file) in files.into_iter().enumerate() {
        machine.ok(&format!("matrix-postgres-backup restore --yes --as classic{number} /root/{file} 2>&1"));
        let count = "SELECT count(*) FROM event_json";
        let (here, there) = (
            format!("matrix-postgres-cli -XAtc '{count}'"),
            format!("matrix-postgres-cli -d classic{number} -XAtc '{count}'"),
        );
        assert_eq!(machine.ok(&here), machine.ok(&there));
    }
    assert_eq!(sql(&machine, live), live_before);
    let none = machine.run("matrix-postgres-backup restore --yes --as cut --database none /root/all.sql");
    assert!(none.status == NO_BACKUP && none.stderr.contains("HINT: it contains template1, "), "{none}");
    for file in ["cut.sql.gz", "cut.sql.zst", "cut.dump", "cut-all.sql"] {
        let refused = machine.run(&format!("matrix-postgres-backup restore --yes --as cut /root/{file}"));
        assert!(refused.status != 0 && refused.stderr.contains("nothing was changed"), "{file}: {refused}");
        assert_eq!(sql(&machine, "SELECT count(*) FROM pg_database WHERE datname LIKE 'cut%'"), "0");
    }

    // A damaged dump changes nothing.
    let before = databases(&machine);
    let dump = format!("{BACKUPS}/{name}/homeserver.dump.zst");
    machine.ok(&format!("printf x | dd of={dump} bs=1 seek=1000 conv=notrunc status=none"));
    let damaged = machine.run(&format!("matrix-postgres-backup restore --yes {name}"));
    assert_eq!(damaged.status, DAMAGED, "{damaged}");
    assert_eq!(databases(&machine), before);
    clean(&machine);
}

/// Indexes and a view by a function that, since they were made, finds another one by its search path only.
const BY_SEARCH_PATH: &str = "
    CREATE TABLE t (v text, w int); INSERT INTO t VALUES ('X', 1);
    CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
    CREATE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower($1); END';
    CREATE INDEX bad ON t (f_low(v)); COMMENT ON INDEX bad IS 'x'; CREATE UNIQUE INDEX good ON t (w);
    COMMENT ON INDEX good IS 'kept'; ALTER TABLE t CLUSTER ON bad;
    CREATE MATERIALIZED VIEW m AS SELECT public.f_low(v) FROM t; CREATE MATERIALIZED VIEW n AS SELECT v FROM t;
    CREATE OR REPLACE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1); END';
    CREATE TABLE zz_last (a int); INSERT INTO zz_last VALUES (7);";

#[test]
fn all_of_a_backup_comes_back_on_a_new_server_and_one_that_is_damaged_keeps_no_other_from_it() {
    let Some(machine) = machine::for_test("restores-all") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    for statement in [
        "CREATE ROLE bridge LOGIN PASSWORD 'secret'",
        "CREATE ROLE other LOGIN",
        "CREATE DATABASE bridge OWNER bridge",
        "CREATE DATABASE other OWNER other",
    ] {
        sql(&machine, statement);
    }
    for (database, owner) in [("bridge", "bridge"), ("other", "other"), ("homeserver", "synapse")] {
        machine.ok(&format!(
            "matrix-postgres-cli -d {database} -c 'CREATE TABLE t AS SELECT generate_series(1, 20) AS n' -c 'ALTER TABLE t OWNER TO {owner}'"
        ));
    }
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'bridge'";
    let password = sql(&machine, verifier);
    machine.ok("systemctl start matrix-postgres-backup.service");
    let name = machine.ok("ls /var/backups/matrix-postgres");

    let anew = || {
        machine.ok("systemctl stop matrix-postgres.service && rm -r /matrix/postgres/data && systemctl start matrix-postgres.service");
    };
    anew();
    let both = machine.run(&format!("matrix-postgres-backup restore --all --database bridge --yes {name}"));
    assert_eq!(both.status, 2, "{both}");
    let plan = machine.ok(&format!("matrix-postgres-backup restore --all --dry-run {name}"));
    for part in
        ["create the missing roles", "database \"bridge\"", "database \"other\"", "database \"homeserver\""]
    {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    assert_eq!(databases(&machine), ["homeserver"]);
    let done = machine.run(&format!("matrix-postgres-backup restore --all --yes {name}"));
    assert_eq!(done.status, 0, "{done}");
    assert_eq!(sql(&machine, verifier), password);
    let rows = |database: &str| {
        machine.ok(&format!("matrix-postgres-cli -d {database} -XAtc 'SELECT count(*), tableowner FROM t, pg_tables WHERE tablename = $$t$$ GROUP BY 2'"))
    };
    assert_eq!((rows("bridge"), rows("other")), ("20|bridge".to_owned(), "20|other".to_owned()));
    assert_eq!(rows("homeserver"), "20|synapse");

    anew();
    machine.ok(&format!(
        "printf xx | dd of=/var/backups/matrix-postgres/{name}/bridge.dump.zst bs=1 seek=40 conv=notrunc status=none"
    ));
    let done = machine.run(&format!("matrix-postgres-backup restore --all --yes {name}"));
    assert_eq!(done.status, DAMAGED, "{done}");
    assert!(done.stderr.contains("1 of 3 databases could not be restored"), "{done}");
    assert_eq!(rows("other"), "20|other");
    assert_eq!(rows("homeserver"), "20|synapse");
    assert_eq!(sql(&machine, "SELECT count(*) FROM pg_database WHERE datname LIKE 'bridge%'"), "0", "{done}");
}

#[test]
fn what_no_server_takes_of_a_dump_in_sql_is_told_and_all_else_is_there() {
    let Some(machine) = machine::for_test("restore-sql") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    sql(&machine, "CREATE DATABASE odd TEMPLATE template0");
    machine.write("/root/odd.sql", BY_SEARCH_PATH);
    machine.ok("matrix-postgres-cli -d odd -Xq -v ON_ERROR_STOP=1 -f /root/odd.sql");
    machine.ok("dump='/usr/lib/postgresql/17/bin/pg_dump -h /run/matrix-postgres -U postgres'
         $dump odd | gzip >/root/odd.sql.gz; $dump --inserts -C odd >/root/inserts.sql; $dump -Fc odd >/root/odd.dump
         /usr/lib/postgresql/17/bin/pg_dumpall -h /run/matrix-postgres -U postgres >/root/all.sql");
    for (number, file) in ["odd.dump", "odd.sql.gz", "inserts.sql", "all.sql"].into_iter().enumerate() {
        let done = machine.run(&format!(
            "matrix-postgres-backup restore --yes --database odd --as new{number} /root/{file}"
        ));
        assert_eq!(done.status, NOT_TAKEN, "{file}: {done}");
        for told in [
            "index public.bad (ERROR:  function low(text) does not exist)",
            "materialized view public.m (ERROR:  function low(text) does not exist)",
            "HINT: a restore runs with an empty search_path",
            "ALTER FUNCTION public.f_low SET search_path",
        ] {
            assert!(done.stderr.contains(told), "{file}: {told}: {done}");
        }
        let there = "SELECT string_agg(relname || coalesce(' ' || obj_description(oid, 'pg_class'), ''), ',' ORDER BY relname) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relispopulated; SELECT * FROM zz_last; SELECT * FROM n";
        let there = machine
            .ok(&format!("matrix-postgres-cli -d new{number} -XAtq <<<{}", machine::synapse::quote(there)));
        assert_eq!(there, "good kept,n,t,zz_last\n7\nX", "{file}");
    }
    // Rows that contradict each other are something else.
    machine.ok("sed \"s/INSERT INTO public.t VALUES ('X', 1);/&&/\" /root/inserts.sql >/root/twice.sql && ! cmp -s /root/inserts.sql /root/twice.sql");
    let twice = machine.run("matrix-postgres-backup restore --yes --as twice /root/twice.sql");
    assert!(twice.status != 0 && twice.status != NOT_TAKEN, "{twice}");
    assert!(twice.stderr.contains("could not create unique index \"good\""), "{twice}");
    assert_eq!(sql(&machine, "SELECT count(*) FROM pg_database WHERE datname ~ 'twice'"), "0");
}

#[test]
fn a_database_with_a_subscription_that_was_replaced_can_be_removed() {
    let Some(machine) = machine::for_test("restore-subscription") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    sql(&machine, "CREATE DATABASE odd TEMPLATE template0");
    machine.write(
        "/root/odd.sql",
        "CREATE TABLE t (a int PRIMARY KEY);
         CREATE SUBSCRIPTION \"it's on\" CONNECTION 'host=/nowhere dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'follows');
         ALTER SUBSCRIPTION \"it's on\" ENABLE;",
    );
    machine.ok("matrix-postgres-cli -d odd -Xq -v ON_ERROR_STOP=1 -f /root/odd.sql && systemctl start matrix-postgres-backup.service");
    machine
        .ok(&format!("matrix-postgres-backup restore --yes --database odd $(ls {BACKUPS} | tail -n 1) 2>&1"));
    let cleaned = machine.run("matrix-postgres-backup clean --yes");
    assert_eq!(cleaned.status, 0, "{cleaned}");
    assert_eq!(
        sql(&machine, "SELECT string_agg(datname, ',') FROM pg_database WHERE datname ~ 'odd'"),
        "odd"
    );
    assert_eq!(sql(&machine, "SELECT count(*) FROM pg_subscription"), "1");
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_or_the_new_and_never_none() {
    let Some(machine) = machine::for_test("killed-restore") else { return };
    let (_, room, name) = prepare(&machine);
    machine::Synapse::of(&machine).settle();
    machine::synapse::fill(&machine, 2000);
    machine.ok("systemctl start matrix-postgres-backup.service");
    let name = {
        let newest = machine.ok(&format!("ls {BACKUPS} | tail -n 1"));
        assert_ne!(newest, name);
        newest
    };
    let clock = std::time::Instant::now();
    machine.ok(&format!("matrix-postgres-backup restore --yes {name} 2>&1"));
    let whole = clock.elapsed();
    for instant in 1..=20_u32 {
        let before = databases(&machine);
        let seconds = (whole * instant / 20).as_secs_f64();
        machine
            .run(&format!("timeout --signal=KILL {seconds:.3} matrix-postgres-backup restore --yes {name}"));
        // It has been started more often than systemd likes.
        machine.ok("systemctl reset-failed; systemctl start matrix-synapse.service");
        let after = databases(&machine);
        assert!(after.iter().any(|database| database == "homeserver"), "{seconds}: {after:?}");
        assert!(
            before.iter().all(|database| after.contains(database) || database.contains("_restoring_")),
            "{after:?}"
        );
        let rows = machine.ok("matrix-postgres-cli -XAtc 'SELECT count(*) > 2000 FROM event_json'");
        assert_eq!(rows, "t", "{seconds}");
    }
    // Killed, and nothing else of it, while clients are stopped: they come back.
    machine.ok("systemctl reset-failed");
    machine.ok(&format!(
        "matrix-postgres-backup restore --yes {name} >/root/said 2>&1 & pid=$!
         for i in $(seq 6000); do systemctl is-active --quiet matrix-synapse.service || break; sleep 0.01; done
         kill -KILL $pid; status=0; wait $pid || status=$?; test $status = 137 || {{ cat /root/said >&2; false; }}"
    ));
    machine.wait_for("systemctl is-active matrix-synapse.service");
    machine.ok("! pgrep -f 'read -[r] _'");
    // What they left is cleared away by the next.
    machine.ok("systemctl reset-failed");
    machine.ok(&format!("matrix-postgres-backup restore --yes {name} 2>&1"));
    assert!(!databases(&machine).iter().any(|database| database.contains("_restoring_")));
    assert!(said(&machine, &room).contains(&"before the backup".to_owned()));
    machine.wait_for("curl --silent --fail http://localhost:8008/health");
    clean(&machine);
}

/// Tables large enough for a connection of their own, and small ones; of columns that are loaded in binary, and others.
const VALUES: &str = r#"
CREATE SCHEMA "od d";
CREATE TABLE "od d"."ta ""ble" ("col ""umn" text, s smallint, i integer, b bigint, f boolean, v varchar(12), j json, "jb" jsonb);
INSERT INTO "od d"."ta ""ble" SELECT
    CASE n % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'\t\n\r\b\f\x0b\\' WHEN 3 THEN E'\\N' WHEN 4 THEN E'\\.'
        WHEN 5 THEN repeat(E'\\x41 äß€𝄞 ', 20) ELSE 'NULL' END,
    CASE n % 4 WHEN 0 THEN -32768 WHEN 1 THEN 32767 WHEN 2 THEN 0 END,
    CASE n % 4 WHEN 1 THEN -2147483648 WHEN 2 THEN 2147483647 WHEN 3 THEN -1 END,
    CASE n % 4 WHEN 2 THEN -9223372036854775808 WHEN 3 THEN 9223372036854775807 ELSE n END,
    CASE n % 3 WHEN 0 THEN true WHEN 1 THEN false END,
    left(E'a\\b\tc\n' || n, 12),
    json_build_object('k', E'"\\\n\t', 'n', n), jsonb_build_object('k', E'"\\\n\t', 'n', n)
    FROM generate_series(1, 60000) n;
CREATE TABLE one AS SELECT E'\\.'::text AS value, n::bigint FROM generate_series(1, 3) n;
CREATE TABLE wide AS SELECT repeat(E'\t', 3000000)::text AS value, 1 AS n FROM generate_series(1, 2);
CREATE TABLE others AS SELECT n, n::text::bytea AS bytes, n / 3.0::float8 AS f, n::numeric / 7 AS d, now() + n * interval '1 s' AS t,
    n::text::char(9) AS c, to_tsvector('simple', 'words of ' || n) AS v, ARRAY[n, NULL] AS a FROM generate_series(1, 60000) n;
CREATE TABLE generated (a text, b bigint GENERATED ALWAYS AS IDENTITY, c text GENERATED ALWAYS AS (a || '!') STORED);
INSERT INTO generated (a) SELECT repeat(E'\\', n % 99) FROM generate_series(1, 40000) n;
CREATE TABLE dropped (a text, gone int, z bigint);
INSERT INTO dropped SELECT repeat('x', 40), n, n FROM generate_series(1, 40000) n;
ALTER TABLE dropped DROP COLUMN gone;
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
"#;

/// Flips a bit at so many sevenths of the dump; once more, and it is as it was.
fn damage(machine: &Machine, name: &str, sevenths: u32) {
    machine.ok(&format!(
        "python3 -c 'import sys
file = open(sys.argv[1], \"r+b\")
place = file.seek(0, 2) * {sevenths} // 7 + 100
file.seek(place)
byte = file.read(1)[0]
file.seek(place)
file.write(bytes([byte ^ 4]))' {BACKUPS}/{name}/homeserver.dump*"
    ));
}

#[test]
fn every_value_is_the_same_after_a_restore_and_any_damage_is_found() {
    let Some(machine) = machine::for_test("values") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres && systemctl start matrix-postgres.service");
    machine.write("/root/values.sql", VALUES);
    machine.ok("matrix-postgres-cli -d homeserver -Xq -v ON_ERROR_STOP=1 -f /root/values.sql");
    for settings in ["", "compression = \"none\"", "compression = \"gzip\"\nrsyncable = true"] {
        machine.write("/etc/matrix-postgres/config.toml", &format!("[backup]\n{settings}\n"));
        machine.ok("matrix-postgres-backup run");
        let name = machine.ok(&format!("ls {BACKUPS} | tail -n 1"));
        let parts = machine.ok(&format!(
            "python3 -c 'import json; print(*[len(d.get(\"parts\", [])) for d in json.load(open(\"{BACKUPS}/{name}/manifest.json\"))[\"databases\"] if d[\"name\"] == \"homeserver\"])'"
        ));
        assert!(parts.parse::<u32>().unwrap() > 1, "{parts}");
        for share in 0..7 {
            damage(&machine, &name, share);
            let damaged = machine.run(&format!("matrix-postgres-backup restore --yes --as copy {name}"));
            assert!(
                damaged.status == DAMAGED && damaged.stderr.contains("was not created"),
                "{share}: {damaged}"
            );
            damage(&machine, &name, share);
        }
        machine.ok(&format!("matrix-postgres-backup restore --yes --as copy {name} 2>&1"));
        machine.ok("for database in homeserver copy; do
             /usr/lib/postgresql/17/bin/pg_dump -h /run/matrix-postgres -U postgres $database \
                 | grep -v restrict >/root/$database.sql; done
             test $(wc -l </root/copy.sql) -gt 200000 && cmp /root/homeserver.sql /root/copy.sql
             matrix-postgres-cli -qc 'DROP DATABASE copy'");
    }
}
