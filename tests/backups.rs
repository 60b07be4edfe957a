//! Attempts to break the backup, in booted machines: bad names, huge rows, locks, killed programs, full disks,
//! damaged files. Each asserts what an administrator gets to see: exit status, message, what is left behind.

#![allow(clippy::unwrap_used, reason = "a test that finds no value fails")]
#![allow(clippy::doc_markdown, reason = "PostgreSQL is not code")]

use std::collections::BTreeSet;

use crate::machine::synapse::quote;
use crate::machine::{self, Machine, Output, Synapse};
use serde_json::Value;

// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const CONFIG: i32 = 27;
const FILE: i32 = 28;
const NO_SPACE: i32 = 29;
const DATA_DIRECTORY: i32 = 31;
const SERVER: i32 = 32;
const PROGRAM: i32 = 33;
const LOCKED: i32 = 34;
const UNIT_REFUSED: i32 = 38;
const NOT_WELL: i32 = 40;
const INTERRUPTED: i32 = 41;

const BACKUPS: &str = "/var/backups/matrix-postgres";
const CONFIGURATION: &str = "/etc/matrix-postgres/config.toml";

/// psql on Debian's own cluster, with the tools that anybody has.
const OTHER: &str = "runuser -u postgres -- psql -XAt -p 5432";

fn start(machine: &Machine) {
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
}

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.ok(&format!("systemctl show --value --property={name} {unit}"))
}

fn sql(machine: &Machine, database: &str, statements: &str) -> String {
    machine.ok(&format!(
        "matrix-postgres-cli -XAtq -v ON_ERROR_STOP=1 -d {} <<'END'\n{statements}\nEND",
        quote(&conninfo(database))
    ))
}

/// A database by its name, whatever that is made of.
fn conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))
}

fn configure(machine: &Machine, text: &str) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write(CONFIGURATION, text);
}

/// Runs the backup's unit: its exit status, and all that its journal says of this run.
fn unit(machine: &Machine) -> (i32, String) {
    let started = machine.run("systemctl reset-failed; systemctl start matrix-postgres-backup.service");
    let journal = machine.ok("journalctl --sync; journalctl --no-pager --output=cat \
         _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID matrix-postgres-backup.service)");
    let status = property(machine, "matrix-postgres-backup.service", "ExecMainStatus").parse().unwrap();
    assert_eq!(started.status == 0, status == 0, "{started}\n{journal}");
    (status, journal)
}

/// The backup's command, by hand.
fn command(machine: &Machine, arguments: &str) -> Output {
    machine.run(&format!("matrix-postgres-backup {arguments}"))
}

#[track_caller]
fn assert_fails(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status, status, "{output}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in:\n{output}");
    }
}

fn json(machine: &Machine, arguments: &str) -> Value {
    command(machine, arguments).json()
}

/// All names in the backup directory, hidden ones, too.
fn names(machine: &Machine) -> BTreeSet<String> {
    // Who was killed has left word of who he was, which the next one writes over.
    machine
        .ok(&format!("ls -A {BACKUPS}"))
        .lines()
        .filter(|&name| name != ".holder.json")
        .map(str::to_owned)
        .collect()
}

/// Nothing but these backups is there, all of them whole.
#[track_caller]
fn assert_only(machine: &Machine, backups: &BTreeSet<String>) {
    assert_eq!(&names(machine), backups);
    let listed = json(machine, "list --json");
    for entry in listed.as_array().unwrap() {
        assert_eq!(entry["verified"], true, "{listed:#}");
    }
    assert_eq!(listed.as_array().unwrap().len(), backups.len());
    machine.ok(
        "! pgrep -x pg_dump && ! pgrep -x pg_restore && ! pgrep -f '^/usr/bin/matrix-postgres-backup run'",
    );
    // And the server is as well as before.
    assert_eq!(machine.wait_for("matrix-postgres-cli -XAtc 'SELECT 1'"), "1");
}

/// Every table of a database: rows counted, and a digest of all that is in them. Sequences, large objects, views.
const EVERYTHING: &str = r#"
SELECT format('%I.%I %s', nspname, relname, query_to_xml(format(CASE relkind
    WHEN 'S' THEN 'SELECT last_value, is_called FROM %I.%I'
    ELSE 'SELECT count(*) AS n, md5(coalesce(string_agg(md5(ROW(t.*)::text), ''''
          ORDER BY md5(ROW(t.*)::text) COLLATE "C"), '''')) AS h FROM ONLY %I.%I t' END,
    nspname, relname), false, true, '')::text) COLLATE "C"
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm', 'S', 'p', 'v') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
UNION ALL SELECT format('large object %s %s', oid, md5(lo_get(oid))) FROM pg_largeobject_metadata
ORDER BY 1"#;

/// Roles with everything that they have, and who is a member of what.
const ROLES: &str = "
SELECT rolname, rolsuper, rolcreatedb, rolcanlogin, rolconnlimit, rolpassword, rolvaliduntil FROM pg_authid
WHERE rolname <> 'postgres' ORDER BY rolname;
SELECT roleid::regrole, member::regrole FROM pg_auth_members ORDER BY 1, 2;
SELECT setrole::regrole, setconfig FROM pg_db_role_setting WHERE setdatabase = 0 ORDER BY 1";

const STRANGE: [&str; 7] = [
    "it's \"quoted\"",
    "with  spaces ",
    "🐘 emoji",
    "dbname=postgres port=1",
    "-F",
    "two\nlines\nMAINPID=1",
    "../globals",
];

/// One of everything that a database can hold.
const ZOO: &str = r#"
CREATE TABLE "we""ird 'näme; --" ("a b" int, "FROM stdin;" text);
INSERT INTO "we""ird 'näme; --" VALUES (1, E'\\.'), (2, E'a\nb\tc\\N'), (3, NULL), (4, '');
CREATE TABLE "two
lines" ("also
two" int); INSERT INTO "two
lines" SELECT generate_series(1, 7);
CREATE TABLE "ends FROM stdin;
here" (x text); INSERT INTO "ends FROM stdin;
here" VALUES ('-- Data for Name: x; Type: TABLE DATA; '), ('COPY public.x FROM stdin;');
CREATE TABLE "-t" (); INSERT INTO "-t" DEFAULT VALUES;
CREATE SCHEMA "Sch.ema"; CREATE TABLE "Sch.ema"."Tab.le" AS SELECT 1 AS a;
CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE parted_d PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT n, date '2025-06-01' + n FROM generate_series(1, 500) n;
CREATE SEQUENCE counted START 40; SELECT nextval('counted'), nextval('counted');
CREATE SEQUENCE untouched;
CREATE MATERIALIZED VIEW summed AS SELECT count(*) AS n FROM parted;
CREATE VIEW seen AS SELECT * FROM parted WHERE id > 3;
CREATE TABLE made (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int GENERATED ALWAYS AS IDENTITY);
INSERT INTO made (a) SELECT generate_series(1, 10);
CREATE UNLOGGED TABLE unlogged AS SELECT 5 AS x;
SELECT lo_from_bytea(4711, 'one'::bytea), lo_from_bytea(4712, decode(repeat('00ff', 100000), 'hex'));
CREATE TABLE bytes AS SELECT decode('00ff0a5c', 'hex') AS b, 'Infinity'::float8 AS f, 'NaN'::numeric AS n;
DO $$ BEGIN EXECUTE (SELECT format('CREATE TABLE wide (%s)', string_agg(format('%I int', rpad('c' || n, 60, '_')), ','))
    FROM generate_series(1, 1500) n); END $$;
INSERT INTO wide (c1__________________________________________________________) VALUES (1), (2);
"#;

/// Restores every database of a backup into Debian's own cluster, as anybody does who has but the files.
fn restore_everything(machine: &Machine, backup: &str) {
    // "role postgres already exists" is all that may go wrong, as PostgreSQL's documentation says.
    let output = machine.ok(&format!(
        "zstd -dc {backup}/globals.sql.zst | {OTHER} -q 2>&1 >/dev/null | grep -v 'role \"postgres\" already' || true"
    ));
    assert_eq!(output, "");
    let manifest: Value = serde_json::from_str(&machine.ok(&format!("cat {backup}/manifest.json"))).unwrap();
    for dump in manifest["databases"].as_array().unwrap() {
        let (name, file) = (dump["name"].as_str().unwrap(), dump["file"].as_str().unwrap());
        machine.ok(&format!(
            "database={name}; file={backup}/{file}; target={conninfo}
             if ! [[ $database =~ ^(postgres|template1)$ ]]; then
                 {OTHER} -q -v db=\"$database\" -v owner={owner} <<'END'\n\
             CREATE DATABASE :\"db\" OWNER :\"owner\" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';\nEND\n\
             fi
             zstd -dc \"$file\" | runuser -u postgres -- pg_restore -p 5432 --exit-on-error --dbname=\"$target\"",
            name = quote(name),
            file = quote(file),
            conninfo = quote(&conninfo(name)),
            owner = quote(dump["owner"].as_str().unwrap()),
        ));
    }
}

#[test]
fn every_table_of_every_database_comes_back() {
    let Some(machine) = machine::for_test("all-tables") else { return };
    // With no cluster at all, nothing is made in order to be backed up.
    let (status, journal) = unit(&machine);
    assert_eq!(status, DATA_DIRECTORY, "{journal}");
    assert!(
        journal.contains(
            "/matrix/postgres/data holds no cluster, and the server of Debian's cluster 17/main tells only"
        ),
        "{journal}"
    );
    assert!(
        journal.contains("there is nothing to back up") && journal.contains("HINT: matrix-postgres setup"),
        "{journal}"
    );
    machine.ok("! test -e /matrix/postgres/data && ! systemctl is-active --quiet matrix-postgres.service");
    assert!(names(&machine).is_empty());
    let status = command(&machine, "status");
    assert_eq!(status.status, NOT_WELL, "{status}");
    assert!(status.stdout.contains("there is no backup"), "{status}");
    assert_eq!(json(&machine, "status --json")["well"], false);

    start(&machine);
    let synapse = Synapse::set_up(&machine);
    let people = [synapse.register("ada"), synapse.register("grace")];
    let room = synapse.create_room(&people[0], "it's \\ \"secret\" 🐘");
    synapse.join(&people[1], &room);
    for number in 0..20 {
        synapse.send(&people[number % 2], &room, &format!("{number}: \\. \\N \t 'x' 🐘"));
    }
    machine.ok("systemctl stop matrix-synapse.service");
    sql(
        &machine,
        "postgres",
        r#"CREATE ROLE "o'wner ""x""" LOGIN PASSWORD 'p''w' CONNECTION LIMIT 7 VALID UNTIL '2031-01-01';
           CREATE ROLE readers; GRANT readers TO synapse; ALTER ROLE synapse SET work_mem = '7MB';"#,
    );
    for name in STRANGE {
        let identifier = format!("\"{}\"", name.replace('"', "\"\""));
        let create = format!("CREATE DATABASE {identifier} OWNER \"o'wner \"\"x\"\"\"");
        sql(&machine, "postgres", &create);
    }
    for name in &STRANGE[1..] {
        sql(&machine, name, &format!("CREATE TABLE t AS SELECT {} AS name", dollar(name)));
    }
    sql(&machine, "-F", ZOO);
    // What an interrupted DROP DATABASE leaves behind cannot be dumped, and nobody can use it.
    sql(
        &machine,
        "postgres",
        "CREATE DATABASE half_dropped; UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped';
         CREATE DATABASE closed ALLOW_CONNECTIONS false;",
    );

    let (status, journal) = unit(&machine);
    assert_eq!(status, 0, "{journal}");
    for left_out in ["half_dropped", "closed"] {
        assert!(journal.contains(&format!("database \"{left_out}\" is not backed up")), "{journal}");
    }
    // The user's last process has ended: the server must have kept its shared memory.
    assert_eq!(property(&machine, "matrix-postgres.service", "ActiveState"), "active");
    sql(&machine, "-F", "SET debug_parallel_query = on; SELECT count(*) FROM parted");
    let first = names(&machine);
    assert_only(&machine, &first);
    left_out_is_told(&machine, &journal);
    assert_eq!(command(&machine, "verify").status, 0);

    let backup = format!("{BACKUPS}/{}", first.first().unwrap());
    assert_eq!(machine.ok(&format!("find {backup} -type f ! -perm 600 -o -type d ! -perm 700")), "");
    restore_everything(&machine, &backup);
    let roles = sql(&machine, "postgres", ROLES);
    assert!(roles.contains("SCRAM-SHA-256$"), "{roles}");
    assert_eq!(machine.ok(&format!("{OTHER} <<<{}", quote(ROLES))), roles);
    let manifest: Value = serde_json::from_str(&machine.ok(&format!("cat {backup}/manifest.json"))).unwrap();
    let mut databases = 0;
    for dump in manifest["databases"].as_array().unwrap() {
        let name = dump["name"].as_str().unwrap();
        let live = sql(&machine, name, EVERYTHING);
        let restored = machine.ok(&format!(
            "{OTHER} -v ON_ERROR_STOP=1 -d {} <<'END'\n{EVERYTHING}\nEND",
            quote(&conninfo(name))
        ));
        assert_eq!(live, restored, "{name}");
        // The manifest counted every table, those with line ends in their names, too.
        let counted = &dump["contents"]["tables"];
        let tables = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
            AND relname <> 'e2e_one_time_keys_json'";
        assert_eq!(
            counted.as_object().unwrap().len().to_string(),
            sql(&machine, name, tables),
            "{name} {counted:#}"
        );
        if name == "-F" {
            for (table, rows) in
                [("public.\"two\nlines\"", 7), ("public.\"ends FROM stdin;\nhere\"", 2), ("public.wide", 2)]
            {
                assert_eq!(counted[table], rows, "{table}: {counted:#}");
            }
            assert_eq!(dump["contents"]["large_objects"], 2);
        }
        databases += 1;
    }
    assert_eq!(databases, STRANGE.len() + 3, "homeserver, postgres and template1, too");

    a_server_that_is_off(&machine);
}

/// What nobody can dump is not well, unless the configuration says that it needs no backup.
fn left_out_is_told(machine: &Machine, journal: &str) {
    let status = command(machine, "status");
    assert_eq!(status.status, NOT_WELL, "{status}");
    for problem in [
        "database \"closed\" is not in the newest backup: it does not allow connections (ALLOW_CONNECTIONS false)",
        "database \"half_dropped\" is not in the newest backup: a DROP DATABASE of it was interrupted",
    ] {
        assert!(status.stdout.contains(problem), "{status}");
        // Which is what makes a warning of the notice.
        assert!(journal.contains(problem), "{journal}");
    }
    let omitted = &json(machine, "list --json")[0]["omitted"];
    assert_eq!(omitted[0]["name"], "closed", "{omitted}");
    assert_eq!(omitted[0]["reason"], "no-connections", "{omitted}");

    configure(machine, "backup.exclude_databases = [\"closed\", \"half_*\", \"two?lines*\"]\n");
    let status = command(machine, "status");
    assert_eq!(status.status, 0, "{status}");
    let plan = command(machine, "run --dry-run");
    let without = "without database \"two\\nlines\\nMAINPID=1\": excluded by backup.exclude_databases";
    assert!(plan.stdout.contains(without), "{plan}");
    machine.ok(&format!("rm {CONFIGURATION}"));
}

/// It is started by the unit, which has no privileges, and stopped again.
fn a_server_that_is_off(machine: &Machine) {
    machine.ok("systemctl stop matrix-postgres.service && systemctl enable --quiet matrix-postgres.service");
    let (status, journal) = unit(machine);
    assert_eq!(status, 0, "{journal}");
    assert!(journal.contains("starting matrix-postgres.service for the backup"), "{journal}");
    assert_eq!(property(machine, "matrix-postgres.service", "ActiveState"), "inactive");
    assert_eq!(names(machine).len(), 2);

    // Who may start it, but not stop it, has a backup all the same, and is told what still runs.
    machine.ok("sed -i 's/\\[\"start\", \"stop\"\\]/[\"start\"]/' /usr/share/polkit-1/rules.d/50-matrix-postgres.rules \
         && systemctl try-restart polkit.service");
    let (status, journal) = unit(machine);
    assert_eq!(status, UNIT_REFUSED, "{journal}");
    assert!(
        journal.contains("the backup is complete; the server, which was started for it, is still running"),
        "{journal}"
    );
    assert_eq!(names(machine).len(), 3);
    assert_only(machine, &names(machine));
}

fn dollar(text: &str) -> String {
    format!("$text${text}$text$::text")
}

/// Slow enough to be caught in the middle.
const SLOW: &str = "[backup]\ncompression = \"gzip\"\nlevel = 9\nthreads = 1\n";

/// Starts a backup by hand and waits until the large database is in the middle of its dump; the script that
/// follows meddles. The result is what the backup said.
fn meddle(machine: &Machine, script: &str) -> Output {
    machine.run(&format!(
        "matrix-postgres-backup run & backup=$!
         trap 'kill -KILL $backup 2>/dev/null || true' EXIT
         for try in $(seq 300); do
             [ -n \"$(find {BACKUPS}/.*.partial -name 'large.dump.*' -size +0 2>/dev/null)\" ] && break; sleep 0.05
         done
         [ $try -lt 300 ]
         dump=$(pgrep -x pg_dump)
         {script}
         wait $backup"
    ))
}

#[test]
fn whatever_happens_in_the_middle_nothing_is_lost_and_nothing_is_left() {
    let Some(machine) = machine::for_test("meddling") else { return };
    start(&machine);
    let (status, journal) = unit(&machine);
    assert_eq!(status, 0, "{journal}");
    let older = names(&machine);
    let kept = older.first().unwrap().clone();
    let reassured = format!("the data of the server was only read; the newest verified backup is {kept}");
    sql(&machine, "postgres", "CREATE DATABASE large");
    sql(
        &machine,
        "large",
        "CREATE TABLE t AS SELECT md5(n::text) || md5((-n)::text) AS x FROM generate_series(1, 1000000) n",
    );

    // A table that is locked.
    configure(&machine, "[backup]\nlock_timeout = \"1s\"\n");
    machine.ok("systemd-run --quiet --unit=locker matrix-postgres-cli -d large \
         -c \"BEGIN; LOCK TABLE t; SELECT pg_sleep(600)\"");
    machine.wait_for("[ $(matrix-postgres-cli -XAtc \"SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'\") = 1 ]");
    let output = command(&machine, "run");
    assert_fails(&output, PROGRAM, &["could not dump database \"large\"", "public.t", &reassured, "HINT: "]);
    sql(
        &machine,
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock'",
    );
    assert_only(&machine, &older);

    configure(&machine, SLOW);
    let output = meddle(&machine, "kill -KILL $dump");
    assert_fails(&output, PROGRAM, &["could not dump database \"large\"", "killed by SIGKILL", &reassured]);
    assert_only(&machine, &older);

    let output = meddle(&machine, "systemctl kill --kill-whom=main --signal=KILL matrix-postgres.service");
    assert_fails(&output, PROGRAM, &["could not dump database \"large\"", "pg_dump failed", &reassured]);
    assert_only(&machine, &older);

    for signal in ["TERM", "INT", "HUP"] {
        let output = meddle(&machine, &format!("pkill -{signal} -x matrix-postgres"));
        let word = format!("stopped by SIG{signal} before the work was done");
        assert_fails(&output, INTERRUPTED, &[&word, &reassured]);
        assert_only(&machine, &older);
    }

    // A second run meanwhile, which does not disturb the first; that is killed with all that it may not catch.
    configure(&machine, &format!("wait = \"0s\"\n{SLOW}"));
    let output = meddle(
        &machine,
        "matrix-postgres-backup run && false || echo second: $? >&2
         matrix-postgres-backup verify && false || echo verification: $? >&2
         kill -0 $backup; pkill -KILL -x matrix-postgres",
    );
    let locked = ["backup is running (process ", ", since ", "HINT: wait for it to end"];
    assert_fails(&output, 137, &locked);
    for who in ["second", "verification"] {
        assert!(output.stderr.contains(&format!("{who}: {LOCKED}")), "{output}");
    }
    machine.wait_for("! pgrep -x pg_dump");
    assert_eq!(names(&machine).len(), 2, "the kill leaves something unfinished");
    assert!(names(&machine).iter().any(|name| name.ends_with(".partial")), "which is not called a backup");
    assert_eq!(json(&machine, "list --json").as_array().unwrap().len(), 1);
    machine.ok(&format!("rm {CONFIGURATION}"));

    // No room: first while a dump is written, with an older backup beside it.
    machine.ok(&format!(
        "cp -a {BACKUPS} /root/kept && rm -rf /root/kept/.*.partial
         mount -t tmpfs -o size=8m,mode=0700,uid=matrix-postgres,gid=matrix-postgres tmpfs {BACKUPS}
         cp -a /root/kept/. {BACKUPS}/"
    ));
    let (status, journal) = unit(&machine);
    assert_eq!(status, NO_SPACE, "{journal}");
    for word in ["could not dump database \"large\"", "No space left on device", &reassured, "HINT: "] {
        assert!(journal.contains(word), "{journal}");
    }
    assert_only(&machine, &older);
    machine.ok(&format!("umount {BACKUPS}"));

    // The next run removes what the killed one left.
    let (status, journal) = unit(&machine);
    assert_eq!(status, 0, "{journal}");
    assert!(journal.contains("removed an unfinished backup of "), "{journal}");
    let both = names(&machine);
    assert!(both.len() == 2 && both.contains(&kept), "{both:?}");
    assert_only(&machine, &both);

    a_unit_that_is_stopped(&machine, &both);
    a_row_of_200_megabytes(&machine);
}

/// The server, started for the backup, is stopped again with it.
fn a_unit_that_is_stopped(machine: &Machine, older: &BTreeSet<String>) {
    configure(machine, SLOW);
    machine.ok(&format!(
        "systemctl enable --quiet matrix-postgres.service && systemctl stop matrix-postgres.service
         systemctl start --no-block matrix-postgres-backup.service
         for try in $(seq 300); do
             [ -n \"$(find {BACKUPS}/.*.partial -name 'large.dump.*' -size +0 2>/dev/null)\" ] && break; sleep 0.05
         done
         [ $try -lt 300 ]
         timeout 30 systemctl stop matrix-postgres-backup.service"
    ));
    let status = property(machine, "matrix-postgres-backup.service", "ExecMainStatus");
    assert_eq!(status, INTERRUPTED.to_string());
    machine.wait_for("[ $(systemctl is-active matrix-postgres.service) = inactive ]");
    assert_eq!(&names(machine), older);
    machine.ok(&format!("rm {CONFIGURATION}"));
    start(machine);
    assert_only(machine, older);

    // No room for the manifest once the dumps are there: what is called a backup was written whole.
    sql(
        machine,
        "postgres",
        "ALTER DATABASE large RENAME TO elsewhere; DROP DATABASE elsewhere; CREATE DATABASE large",
    );
    for size in ["8k", "12k", "16k", "20k", "24k", "28k", "32k"] {
        machine.ok(&format!(
            "mount -t tmpfs -o size={size},mode=0700,uid=matrix-postgres,gid=matrix-postgres tmpfs {BACKUPS}"
        ));
        let (status, journal) = unit(machine);
        let listed = json(machine, "list --json");
        let left = names(machine);
        machine.ok(&format!("umount {BACKUPS}"));
        assert!([0, NO_SPACE].contains(&status), "{size}: {journal}");
        assert_eq!(listed.as_array().unwrap().len(), left.len(), "{size}: {left:?}\n{journal}");
        for entry in listed.as_array().unwrap() {
            assert_eq!(entry["verified"], status == 0, "{size}: {listed:#}\n{journal}");
            assert!(entry["bytes"].is_u64(), "{size}: the manifest is there: {listed:#}\n{journal}");
        }
    }
}

/// It passes through our memory in pieces, whatever pg_dump itself needs.
fn a_row_of_200_megabytes(machine: &Machine) {
    sql(
        machine,
        "large",
        "DROP TABLE IF EXISTS t; CREATE TABLE row AS SELECT repeat(md5('x'), 6250000) AS x; CHECKPOINT",
    );
    let output = machine.run(
        "matrix-postgres-backup run & backup=$!
         while grep VmHWM /proc/$backup/status >/root/now 2>/dev/null; do mv /root/now /root/peak; sleep 0.02; done
         wait $backup && awk '{print $2}' /root/peak",
    );
    assert_eq!(output.status, 0, "{output}");
    let peak: u32 = output.stdout.parse().unwrap();
    assert!((1_000..100_000).contains(&peak), "{peak} kB");
    let listed = json(machine, "list --json");
    assert_eq!(listed.as_array().unwrap().last().unwrap()["verified"], true);
}

#[test]
fn damage_is_found_named_and_remembered() {
    let Some(machine) = machine::for_test("damage") else { return };
    start(&machine);
    sql(&machine, "homeserver", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    directories_and_configurations(&machine);

    for (format, compression, extension) in [("custom", "zstd", "dump.zst"), ("plain", "gzip", "sql.gz")] {
        machine.ok(&format!("rm -rf {BACKUPS}/*"));
        configure(&machine, &format!("[backup]\nformat = \"{format}\"\ncompression = \"{compression}\"\n"));
        let (status, journal) = unit(&machine);
        assert_eq!(status, 0, "{journal}");
        let name = names(&machine).first().unwrap().clone();
        let backup = format!("{BACKUPS}/{name}");
        machine.ok(&format!("rm -rf /root/good && cp -a {backup} /root/good"));
        let globals = format!("globals.sql.{}", extension.rsplit('.').next().unwrap());
        let dump = format!("homeserver.{extension}");
        for file in [&dump, &globals, "manifest.json"] {
            let path = format!("{backup}/{file}");
            for damage in [
                format!(
                    "python3 -c 'import sys; p = sys.argv[1]; b = bytearray(open(p, \"rb\").read()); \
                         b[len(b) // 2] ^= 0x80; open(p, \"wb\").write(b)' {path}"
                ),
                format!("truncate --size=-1 {path}"),
                format!("truncate --size=0 {path}"),
                format!("echo more >>{path}"),
                format!("rm {path}"),
                format!(
                    "sed -i 's/\"rows\\|tables\"/\"x\"/; s/\"bytes\": 1/\"bytes\": 2/' {backup}/manifest.json"
                ),
            ] {
                // White space at the manifest's end says nothing, and text is edited in the manifest only.
                let harmless = ["echo more", "size=-1"].iter().any(|part| damage.contains(part));
                if (file == "manifest.json" && harmless)
                    || (file != "manifest.json" && damage.contains("sed -i"))
                {
                    continue;
                }
                machine.ok(&damage);
                let verified = command(&machine, &format!("verify {name}"));
                assert_fails(&verified, DAMAGED, &[&path, "HINT: "]);
                let list = machine.ok("matrix-postgres-backup list");
                let word = if file == "manifest.json" { "UNREADABLE" } else { "DAMAGED" };
                assert!(list.contains(word), "{damage}: {list}");
                let status = command(&machine, "status");
                assert_eq!(status.status, NOT_WELL, "{damage}: {status}");
                assert!(
                    status.stdout.contains("PROBLEM") && status.stdout.contains(file),
                    "{damage}: {status}"
                );
                assert!(
                    status.stdout.contains("HINT: systemctl start matrix-postgres-backup.service"),
                    "{damage}: {status}"
                );
                assert_eq!(json(&machine, "status --json")["well"], false);
                assert_eq!(json(&machine, "list --json")[0]["verified"], false);
                machine.ok(&format!("rm -rf {backup} && cp -a /root/good {backup}"));
            }
        }
        assert_eq!(command(&machine, "verify").status, 0);
        assert_eq!(command(&machine, "status").status, 0);
    }
    // What is there now is the classic.
    machine.ok(&format!(
        "runuser -u postgres -- createdb -p 5432 classic
         zcat {BACKUPS}/*/globals.sql.gz | {OTHER} -q 2>/dev/null >&2
         zcat {BACKUPS}/*/homeserver.sql.gz | {OTHER} -q -v ON_ERROR_STOP=1 -d classic >/dev/null"
    ));
    assert_eq!(machine.ok(&format!("{OTHER} -d classic -c 'SELECT count(*), sum(n) FROM t'")), "1000|500500");
    machine.ok("systemctl stop matrix-postgres-backup.timer");
    let status = command(&machine, "status");
    assert_eq!(status.status, NOT_WELL, "{status}");
    assert!(status.stdout.contains("HINT: systemctl enable --now matrix-postgres-backup.timer"), "{status}");
}

/// What is refused before anything is started.
fn directories_and_configurations(machine: &Machine) {
    let refused = |prepare: &str, status: i32, words: &[&str], undo: &str| {
        machine.ok(prepare);
        let (found, journal) = unit(machine);
        assert_eq!(found, status, "{prepare}: {journal}");
        for word in words {
            assert!(journal.contains(word), "{prepare}: {word:?} is not in:\n{journal}");
        }
        machine.ok(undo);
    };
    refused(
        &format!("rmdir {BACKUPS}"),
        FILE,
        &["the backup directory /var/backups/matrix-postgres does not exist", "HINT: mount its file system"],
        "systemd-tmpfiles --create matrix-postgres.conf",
    );
    refused(
        &format!("chown root {BACKUPS}"),
        FILE,
        &["belongs to root", "HINT: chown matrix-postgres /var/backups/matrix-postgres"],
        &format!("chown matrix-postgres {BACKUPS}"),
    );
    refused(
        &format!("chmod 0755 {BACKUPS}"),
        FILE,
        &["is accessible to all users (mode 0755)", "HINT: chmod 0700 /var/backups/matrix-postgres"],
        &format!("chmod 0700 {BACKUPS}"),
    );
    machine.ok("mkdir -p /etc/matrix-postgres && install -d -o matrix-postgres -m 0700 /srv/backups");
    refused(
        &format!("printf '[backup]\\n\\ncompresion = \"gzip\"\\n' >{CONFIGURATION}"),
        CONFIG,
        &[
            "/etc/matrix-postgres/config.toml, line 3: unknown key `compresion`",
            "HINT: did you mean `compression`?",
        ],
        "true",
    );
    refused(
        &format!("printf '[backup]\\ncompression = \"lzma\"\\n' >{CONFIGURATION}"),
        CONFIG,
        &["backup.compression = \"lzma\"", "HINT: backup.compression takes zstd, gzip or none"],
        "true",
    );
    refused(
        &format!("printf '[backup]\\nlevel = 99\\n' >{CONFIGURATION}; chmod 0600 {CONFIGURATION}"),
        CONFIG,
        &["could not read /etc/matrix-postgres/config.toml", "Permission denied", "chmod 0644"],
        &format!("rm {CONFIGURATION}"),
    );
    // A directory that the unit may not write to: the drop-in that opens it is named.
    refused(
        &format!("printf '[backup]\\ndirectory = \"/srv/backups\"\\n' >{CONFIGURATION}"),
        FILE,
        &[
            "Read-only file system",
            "HINT: systemctl edit matrix-postgres-backup.service",
            "ReadWritePaths=/srv/backups",
        ],
        &format!("rm {CONFIGURATION}"),
    );
    assert!(names(machine).is_empty());

    // The command line.
    let cli = |script: &str| machine.run(script);
    for user in ["root", "matrix-postgres"] {
        let output = cli(&format!("cd / && runuser -u {user} -- matrix-postgres-cli -XAtc 'select 1'"));
        assert_eq!((output.status, output.stdout.as_str()), (0, "1"), "{user}: {output}");
    }
    let output = cli("echo 'SELECT 6*7; SELECT current_database()' | matrix-postgres-cli -XAt");
    assert_eq!((output.status, output.stdout.as_str()), (0, "42\nhomeserver"), "{output}");
    assert_eq!(cli("echo nonsense | matrix-postgres-cli -X -v ON_ERROR_STOP=1").status, 3);
    assert_eq!(cli("matrix-postgres-cli -Xc nonsense").status, 1);
    assert_eq!(cli("matrix-postgres-cli -X -d nowhere -c 'SELECT 1'").status, 2);
    let output =
        cli("printf '[server]\\nport = 99\\n' >/root/c.toml; matrix-postgres-cli --config /root/c.toml -l");
    assert_fails(&output, SERVER, &["no server is listening on /run/matrix-postgres/.s.PGSQL.99", "HINT: "]);
}

#[test]
fn older_majors_are_backed_up_and_restored_by_stock_tools() {
    let Some(machine) = machine::for_test("older") else { return };
    for major in ["13", "15"] {
        configure(&machine, &format!("[server]\nversion = {major}\n"));
        start(&machine);
        let quoted = machine::synapse::quote(ZOO);
        machine.ok(&format!("matrix-postgres-cli -Xq -v ON_ERROR_STOP=1 >/dev/null <<<{quoted}"));
        let (status, journal) = unit(&machine);
        assert_eq!(status, 0, "{journal}");
        let live = sql(&machine, "homeserver", EVERYTHING);
        machine.ok(&format!(
            "runuser -u postgres -- psql -Xqc 'CREATE ROLE synapse' 2>/dev/null || true
             runuser -u postgres -- createdb --template=template0 --locale=C restored{major}
             zstd -dc $(ls -d {BACKUPS}/* | tail -n 1)/homeserver.dump.zst |
                 runuser -u postgres -- pg_restore --exit-on-error --dbname=restored{major}"
        ));
        let restored =
            machine.ok(&format!("{OTHER} -v ON_ERROR_STOP=1 -d restored{major} <<'END'\n{EVERYTHING}\nEND"));
        assert_eq!(live, restored);
        machine.ok(&format!(
            "systemctl stop matrix-postgres.service && mv /matrix/postgres/data /matrix/postgres/{major}"
        ));
    }
}

/// Bytes flipped and ends cut off, wherever chance has it.
const DAMAGES: &str = r#"
import os, random, shutil, subprocess, sys
backup = sys.argv[1]
chance = random.Random(20261124)
files = sorted(os.listdir(backup))
sizes = [os.path.getsize(os.path.join(backup, file)) for file in files]
missed = []
for number in range(200):
    # Half of them where most bytes are, half of them evenly, for a small file matters as much.
    file = chance.choices(files, weights=sizes if number % 2 else None)[0]
    path = os.path.join(backup, file)
    good = open(path, "rb").read()
    place = chance.randrange(len(good) - 1)
    if number % 4 < 2:
        bad, what = good[:place] + bytes([good[place] ^ 1 << chance.randrange(8)]) + good[place + 1:], "flipped"
    else:
        bad, what = good[:place], "cut off"
    # A space of the manifest that became another white space means the same.
    if file == "manifest.json" and good[place:place + 1].isspace() and bad[place:place + 1].isspace():
        continue
    open(path, "wb").write(bad)
    status = subprocess.run(["matrix-postgres-backup", "verify"], stderr=subprocess.DEVNULL).returncode
    open(path, "wb").write(good)
    if file != "manifest.json":
        # The result was recorded.
        shutil.copyfile("/root/manifest.json", os.path.join(backup, "manifest.json"))
    if status != 26:
        missed.append(f"{file}: {what} at {place} of {len(good)}: exit status {status}")
print("\n".join(missed))
"#;

#[test]
fn damage_at_two_hundred_places_is_found() {
    let Some(machine) = machine::for_test("places") else { return };
    start(&machine);
    sql(
        &machine,
        "homeserver",
        "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n",
    );
    let (status, journal) = unit(&machine);
    assert_eq!(status, 0, "{journal}");
    let backup = format!("{BACKUPS}/{}", names(&machine).first().unwrap());
    machine.ok(&format!("cp {backup}/manifest.json /root/"));
    machine.write("/root/damages.py", DAMAGES);
    assert_eq!(machine.ok(&format!("python3 /root/damages.py {backup}")), "");
    assert_eq!(command(&machine, "verify").status, 0);
}
