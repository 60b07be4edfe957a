//! Files and backups that somebody else has written, given to root to be restored.

use crate::machine::{self, Machine};

/// As the server's own user: it is the caller's psql.
const CLI: &str = "runuser -u matrix-postgres -- matrix-postgres-cli";
const BACKUPS: &str = "/var/backups/matrix-postgres";

/// Each program of the server's packages notes down as whom it runs.
const NOTE: &str = "touch /tmp/ran && chmod 666 /tmp/ran
cd /usr/lib/postgresql/17/bin
for program in psql pg_restore pg_dump pg_dumpall vacuumdb initdb pg_amcheck; do
    mv $program $program.real
    printf '#!/bin/sh\\necho \"$(id -u) %s\" >>/tmp/ran\\nexec %s \"$@\"\\n' $program $PWD/$program.real >$program
    chmod 755 $program
done";

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("{CLI} -d homeserver -XAtqc {}", machine::synapse::quote(statement)))
}

fn start(machine: &Machine) {
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
}

fn backup(machine: &Machine) -> String {
    machine.ok("systemctl start matrix-postgres-backup.service || { journalctl -u matrix-postgres-backup >&2; false; }");
    machine.ok(&format!("ls {BACKUPS} | tail -n 1"))
}

/// psql does what it is fed with, and what root feeds it with is not root's.
#[test]
fn no_program_of_postgresql_runs_as_root() {
    let Some(machine) = machine::for_test("never-root") else { return };
    machine.ok(NOTE);
    start(&machine);
    sql(&machine, "CREATE TABLE t AS SELECT n, repeat('x', 200) AS x FROM generate_series(1, 50000) n");
    sql(&machine, "CREATE INDEX ON t (n); CREATE SEQUENCE s; SELECT lo_from_bytea(4711, 'one')");
    let name = backup(&machine);
    machine.ok("pg_dump=/usr/lib/postgresql/17/bin/pg_dump.real; from='-h /run/matrix-postgres -U postgres homeserver'
         $pg_dump $from >/root/x.sql; $pg_dump -Fc $from >/root/x.dump; rm /tmp/ran; install -m 666 /dev/null /tmp/ran");
    for (number, restore) in [name.as_str(), "/root/x.sql", "/root/x.dump"].into_iter().enumerate() {
        machine.ok(&format!("matrix-postgres-backup restore --yes --as copy{number} {restore} 2>&1"));
        let count = format!("{CLI} -d copy{number} -XAtc 'SELECT count(*) FROM t'");
        assert_eq!(machine.ok(&count), "50000");
    }
    machine.ok(&format!("matrix-postgres-backup restore --yes {name} 2>&1"));
    sql(&machine, "DROP OWNED BY synapse; REASSIGN OWNED BY synapse TO postgres");
    machine.ok(&format!("matrix-postgres-backup restore --globals {name} 2>&1"));
    machine.ok(&format!(
        "matrix-postgres-backup verify --trial 2>&1; matrix-postgres-backup verify {name} 2>&1"
    ));
    machine.ok("matrix-postgres-upgrade check || true");
    machine.ok("matrix-postgres-upgrade compare --old /run/matrix-postgres --new /run/matrix-postgres");

    // With a key that only root can read.
    machine.ok("mkdir -p /etc/matrix-postgres && age-keygen -o /root/key 2>/dev/null");
    let recipient = machine.ok("age-keygen -y /root/key");
    machine.write("/etc/matrix-postgres/config.toml", &format!("[backup]\nencrypt_to = [\"{recipient}\"]\n"));
    let name = backup(&machine);
    machine.ok(&format!("matrix-postgres-backup verify --identity /root/key {name} 2>&1"));
    machine.ok(&format!("matrix-postgres-backup restore --yes --as copy3 --identity /root/key {name} 2>&1"));

    let ran = machine.ok("sort /tmp/ran | uniq -c");
    assert!(!ran.lines().any(|line| line.trim_start().split(' ').nth(1) == Some("0")), "{ran}");
    for program in ["psql", "pg_restore", "pg_dump", "pg_dumpall", "vacuumdb", "initdb"] {
        assert!(ran.lines().any(|line| line.ends_with(&format!(" {program}"))), "{program}: {ran}");
    }
}

/// A dump as it could have been written, with this in its middle.
fn dump_with(text: &str) -> String {
    format!(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n\
         --\n-- Name: t; Type: TABLE; Schema: public; Owner: synapse\n--\n\n\
         CREATE TABLE public.t (a text);\n{text}\n\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    )
}

/// What psql would carry out by itself, and what changes other databases, reaches no server from any place of a file.
#[test]
fn a_file_leads_psql_nowhere_and_changes_nothing_that_is_there() {
    let Some(machine) = machine::for_test("leads-nowhere") else { return };
    start(&machine);
    machine.ok("matrix-postgres-cli -XAtqc 'CREATE DATABASE live' && matrix-postgres-cli -d live -XAtqc 'CREATE TABLE t ()'");
    let databases =
        "matrix-postgres-cli -XAtc 'SELECT string_agg(datname, chr(32) ORDER BY datname) FROM pg_database'";
    let before = machine.ok(databases);
    let both = dump_with("") + &dump_with("DROP DATABASE live;");
    for (number, text) in [
        dump_with("\\! touch /root/PWNED /tmp/PWNED"),
        dump_with("SELECT 1 \\! touch /root/PWNED /tmp/PWNED\n;"),
        dump_with("SELECT 'touch /tmp/PWNED' \\g |sh"),
        dump_with("SELECT 1; \\copy public.t TO PROGRAM 'touch /tmp/PWNED'"),
        dump_with("\\c live\nDROP TABLE t;"),
        dump_with("\\connect live\n\\c live"),
        dump_with("drop /* of somebody's */ database live;"),
        dump_with("\\restrict a\n\\unrestrict a\n\\o /tmp/PWNED"),
        dump_with("CREATE ROLE thief SUPERUSER;"),
        dump_with("ALTER SYSTEM SET archive_command = 'touch /tmp/PWNED';"),
        both,
    ]
    .into_iter()
    .enumerate()
    {
        machine.write("/root/x.sql", &text);
        let refused = machine.run("matrix-postgres-backup restore /root/x.sql --as new --yes");
        assert_eq!(refused.status, 28, "{number}: {text}\n{refused}");
        assert!(refused.stderr.contains("nothing was changed"), "{refused}");
        machine.ok("! test -e /root/PWNED && ! test -e /tmp/PWNED");
        assert_eq!(machine.ok(databases), before, "{number}");
    }
    machine.ok("matrix-postgres-cli -d live -XAtqc 'TABLE t'");
    // In strings, comments and rows a backslash is only a backslash.
    machine.write(
        "/root/x.sql",
        &dump_with("-- \\! touch /tmp/PWNED\nINSERT INTO public.t VALUES ('\n\\! touch /tmp/PWNED\n');\nINSERT INTO public.t VALUES ($$\\c live\n$$);"),
    );
    machine.ok("matrix-postgres-backup restore /root/x.sql --as new --yes && ! test -e /tmp/PWNED");
    assert_eq!(machine.ok("matrix-postgres-cli -d new -XAtc 'SELECT count(*) FROM t'"), "2");
}

/// The backup's user may write backups, with digests that fit, and root restores them.
#[test]
fn a_forged_backup_makes_root_run_nothing() {
    let Some(machine) = machine::for_test("forged") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine
        .write("/etc/matrix-postgres/config.toml", "[backup]\nformat = \"plain\"\ncompression = \"none\"\n");
    start(&machine);
    let name = backup(&machine);
    let forge = |file: &str, text: &str| {
        machine.write("/root/forged", text);
        machine.write("/root/forge.py", FORGE);
        machine.ok(&format!("python3 /root/forge.py {BACKUPS}/{name} {file} /root/forged"));
    };
    forge("globals.sql", "CREATE ROLE x \\! touch /root/PWNED /tmp/PWNED\n;\n");
    let refused = machine.run(&format!("matrix-postgres-backup restore --globals {name}"));
    assert_eq!(refused.status, 26, "{refused}");
    forge("homeserver.sql", &dump_with("\\! touch /root/PWNED /tmp/PWNED\n"));
    let refused = machine.run(&format!("matrix-postgres-backup restore {name} --as new --yes"));
    assert_eq!(refused.status, 26, "{refused}");
    machine.ok("! test -e /root/PWNED && ! test -e /tmp/PWNED");
    // What fails in a server does not tell what it was.
    forge("homeserver.sql", &dump_with(""));
    forge(
        "globals.sql",
        "CREATE ROLE x;\nALTER ROLE x WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:verifier' NOSUCHTHING;\n",
    );
    for verb in [
        format!("matrix-postgres-backup restore --globals {name}"),
        format!("matrix-postgres-backup verify --trial {name}"),
    ] {
        let failed = machine.run(&format!("{verb} 2>&1"));
        assert_ne!(failed.status, 0, "{verb}: {failed}");
        assert!(failed.stdout.contains("unrecognized role option"), "{verb}: {failed}");
        assert!(!failed.stdout.contains("SCRAM"), "{verb}: {failed}");
    }
    machine.ok(&format!(
        "! grep -rF SCRAM {BACKUPS}/{name}/manifest.json && ! journalctl --no-pager | grep -F SCRAM"
    ));
}

/// Replaces a file of a backup, and puts the manifest right.
const FORGE: &str = "
import hashlib, json, shutil, sys
directory, file, source = sys.argv[1:]
shutil.copyfile(source, f'{directory}/{file}')
data = open(source, 'rb').read()
with open(f'{directory}/manifest.json') as opened:
    manifest = json.load(opened)
def walk(value):
    if isinstance(value, dict):
        if value.get('file') == file:
            value.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            value.update(content_bytes=len(data), content_sha256=hashlib.sha256(data).hexdigest())
        for child in value.values(): walk(child)
    elif isinstance(value, list):
        for child in value: walk(child)
walk(manifest)
manifest.pop('sha256', None)
text = json.dumps(manifest, separators=(',', ':'), ensure_ascii=False)
manifest['sha256'] = hashlib.sha256(text.encode()).hexdigest()
with open(f'{directory}/manifest.json', 'w') as opened:
    json.dump(manifest, opened, indent=2)
";

/// A name ends where its quotes do, and no password's verifier is shown to anybody.
#[test]
fn an_apostrophe_in_a_roles_name_is_only_that() {
    let Some(machine) = machine::for_test("apostrophe") else { return };
    start(&machine);
    sql(&machine, "CREATE ROLE \"o'brien\" LOGIN PASSWORD 'p'; CREATE ROLE \"a;b\" LOGIN PASSWORD 'q'");
    let name = backup(&machine);
    machine.ok("systemctl start matrix-postgres-backup-verify.service || { journalctl -u matrix-postgres-backup-verify >&2; false; }");
    sql(&machine, "DROP ROLE \"o'brien\"");
    machine.ok(&format!("matrix-postgres-backup restore --globals {name}"));
    assert_eq!(
        sql(
            &machine,
            "SELECT count(*) FROM pg_authid WHERE rolname = 'o''brien' AND rolpassword LIKE 'SCRAM%'"
        ),
        "1"
    );
    // One that fails in the middle does not tell what it was.
    sql(&machine, "DROP ROLE \"o'brien\"; ALTER ROLE \"a;b\" RENAME TO kept");
    machine.ok(&format!("! grep -rF 'SCRAM-SHA-256$4096' {BACKUPS}/*/manifest.json && ! journalctl --no-pager | grep -F 'SCRAM-SHA-256$4096'"));
}

/// A database with what dumps have trouble with, `one`, in which each row belongs to synapse.
const ONE: &str = "
CREATE TABLE t1 (a int, b text); INSERT INTO t1 SELECT n, 'x' || n FROM generate_series(1, 20) n;
CREATE SEQUENCE s1 OWNED BY t1.a; SELECT nextval('s1');
INSERT INTO t1 VALUES (0, E'q\\n--\\n-- PostgreSQL database dump complete\\n--\\n\\nw; ''(1), (2)');
CREATE TABLE \"Ä b\" (\"ö\" text); INSERT INTO \"Ä b\" VALUES ('1');
CREATE TYPE e AS ENUM ('a', 'b'); CREATE DOMAIN d AS int; CREATE TYPE c AS (a int);
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW v AS SELECT f(), a FROM t1;
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a; CREATE SCHEMA other; CREATE TABLE other.t (a c, b d);
CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = 0); CREATE STATISTICS st ON a, b FROM t1;
CREATE TABLE id (a int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE h (k e, v int) PARTITION BY HASH (k);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT CASE WHEN n % 3 = 0 THEN 'a' ELSE 'b' END::e, n FROM generate_series(1, 99) n;
CREATE TABLE p (k int) PARTITION BY RANGE (k);
CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (50);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (50) TO (200);
INSERT INTO p SELECT generate_series(1, 100);
SELECT lo_from_bytea(4711, 'one'); CREATE EXTENSION pgcrypto;";

/// `t1`, `Ä b`, `h` and `p`.
const ONES_ROWS: u32 = 21 + 1 + 99 + 100;

/// A machine with that, and with a file that says where the server's programs are.
fn with_one(name: &str) -> Option<Machine> {
    let machine = machine::for_test(name)?;
    start(&machine);
    machine.ok("matrix-postgres-cli -XAtqc 'CREATE DATABASE one OWNER synapse'");
    machine.write(
        "/root/one.sql",
        &format!("SET ROLE synapse; {}", ONE.replace("CREATE EXT", "RESET ROLE; CREATE EXT")),
    );
    machine.ok("chmod 711 /root && chmod 644 /root/one.sql && matrix-postgres-cli -d one -XAtqv ON_ERROR_STOP=1 </root/one.sql");
    machine.write(
        "/root/tools",
        "export PGHOST=/run/matrix-postgres PGUSER=postgres PATH=/usr/lib/postgresql/17/bin:$PATH; cd /root\n",
    );
    Some(machine)
}

fn restore(machine: &Machine, file: &str, name: &str) -> machine::Output {
    machine
        .run(&format!("cd /root && matrix-postgres-backup restore {file} --database one --as {name} --yes"))
}

fn in_new(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -d new -XAtqc {}", machine::synapse::quote(statement)))
}

fn drop_new(machine: &Machine) {
    machine.ok("matrix-postgres-cli -XAtqc 'DROP DATABASE new'");
}

/// However a dump was made, and whatever was done to its file without harm, every row is there and is counted.
#[test]
fn a_dump_is_restored_however_it_was_made() {
    let Some(machine) = with_one("however-made") else { return };
    for how in [
        "pg_dump one",
        "pg_dump -Fc one",
        "pg_dump -n public -n other --large-objects one",
        "pg_dump -Fc -n public -n other --large-objects one",
        "pg_dump --load-via-partition-root one",
        "pg_dump --load-via-partition-root -Fc one",
        "pg_dump --inserts one",
        "pg_dump --inserts -Fc one",
        "pg_dump --column-inserts one",
        "pg_dump --rows-per-insert=7 one",
        "pg_dump --quote-all-identifiers one",
        "pg_dump --clean --if-exists --create one",
        "pg_dump --encoding=LATIN1 one",
        "pg_dump --encoding=WIN1252 -Fc one",
        "pg_dump --use-set-session-authorization one",
        "pg_dumpall",
        "pg_dumpall --quote-all-identifiers",
        "pg_dumpall --clean --if-exists --inserts",
        "(pg_dumpall -g; pg_dump one)",
        "(pg_dumpall -g; pg_dump -C one)",
        "(pg_dump one; pg_dumpall -g)",
        "pg_dump one | sed 's/$/\\r/'",
        "(printf '\\xef\\xbb\\xbf'; pg_dump one)",
        "pg_dump one | gzip",
        "pg_dump -Fc one | zstd -q",
        "pg_dump --no-owner one",
        "pg_dump --no-owner --no-privileges --inserts one",
        "pg_dump -Fc --no-owner one",
    ] {
        machine.ok(&format!(". /root/tools; {how} >/root/x.bin"));
        let done = restore(&machine, "x.bin", "new");
        assert_eq!(done.status, 0, "{how}: {done}");
        assert!(done.stderr.contains(&format!(", {ONES_ROWS} rows:")), "{how}: {done}");
        assert!(!done.stdout.contains("manifest"), "{how}: {done}");
        // Its programs log in as this role.
        let rows = in_new(
            &machine,
            "SET ROLE synapse; SELECT (SELECT count(*) FROM t1) + (SELECT count(*) FROM \"Ä b\") + (SELECT count(*) FROM h) + (SELECT count(*) FROM p)",
        );
        assert_eq!(rows, ONES_ROWS.to_string(), "{how}");
        let others = in_new(
            &machine,
            "SET ROLE synapse; DROP SCHEMA other CASCADE; DROP VIEW v; DROP MATERIALIZED VIEW mv; DROP FUNCTION f(); DROP AGGREGATE total (int); DROP STATISTICS st; DROP TABLE t1, \"Ä b\", h, p, id; DROP DOMAIN d; DROP TYPE c, e; SELECT lo_unlink(4711); RESET ROLE; SELECT count(*) FROM pg_proc WHERE proowner <> 10",
        );
        assert_eq!(others, "1\n0", "{how}");
        drop_new(&machine);
    }
}

/// What a restore does not carry out is told before anything is done, and what it is.
#[test]
fn what_is_not_restored_is_told_before_anything_is_done() {
    let Some(machine) = with_one("not-restored") else { return };
    machine.ok(". /root/tools; psql -qd one -c 'CREATE ROLE gone; CREATE ROLE \"Gone 2\"; CREATE ROLE gone3; CREATE TABLE t2 (a int); ALTER TABLE t2 OWNER TO gone; GRANT SELECT ON t1 TO \"Gone 2\"; GRANT SELECT ON t2 TO pg_read_all_data; CREATE POLICY p ON t2 TO gone3'
        pg_dump one >gone.sql; pg_dump -Fc one >gone.dump
        psql -qd one -c 'DROP TABLE t2; REVOKE ALL ON t1 FROM \"Gone 2\"; DROP ROLE gone, \"Gone 2\", gone3'
        pg_dump one >one.sql; pg_dump -Ft one >x.tar; pg_dump -Fd -f x.directory one; iconv -t UTF-16 one.sql >utf16.sql
        gzip <x.tar >x.tar.gz; gzip one.sql -c | gzip >twice; printf 'BZh91AY&SY' >x.bz2; printf '\\xfd7zXZ\\0' >x.xz
        cat one.sql one.sql >two.sql; (cat one.sql; echo 'DROP TABLE t1;') >more.sql; echo 'CREATE TABLE x (a int);' >script.sql
        pg_dumpall -g >roles.sql; (pg_dump one; pg_dumpall) >dump-and-all.sql; : >empty.sql
        pg_dump --inserts one >i.sql; head -n $(grep -n 'dump complete' i.sql | head -n 1 | cut -d: -f1) i.sql >cut.sql
        head -n $(($(grep -n 'dump complete' i.sql | head -n 1 | cut -d: -f1) + 6)) i.sql >cut2.sql
        (echo 'CREATE ROLE x;'; cat one.sql) >role.sql; (echo 'DROP DATABASE postgres'; ) >unended; cat one.sql unended >unended.sql");
    let before = machine.ok("matrix-postgres-cli -XAtc 'SELECT count(*) FROM pg_database'");
    let roles = "do not exist: \"Gone 2\", gone, gone3";
    for (file, status, said) in [
        ("gone.sql", 32, roles),
        ("gone.dump", 32, roles),
        ("x.tar", 28, "HINT: convert it and restore the result: pg_restore -f readable.sql x.tar"),
        ("x.directory", 28, "pg_restore -f readable.sql x.directory"),
        ("x.tar.gz", 28, "gzip -dc x.tar.gz | pg_restore -f readable.sql"),
        ("utf16.sql", 28, "iconv -f UTF-16 -t UTF-8 utf16.sql >readable.sql"),
        ("twice", 28, "compressed more than once"),
        ("x.bz2", 28, "bzip2 -dc x.bz2 >readable.sql"),
        ("x.xz", 28, "xz -dc x.xz >readable.sql"),
        ("two.sql", 28, "more than one dump"),
        ("dump-and-all.sql", 28, "more than one dump"),
        ("more.sql", 28, "after the end of the dump"),
        ("unended.sql", 26, "end marker is missing"),
        ("script.sql", 28, "not written by pg_dump"),
        ("role.sql", 28, "CREATE ROLE"),
        ("roles.sql", 35, "contains roles only and no database"),
        ("empty.sql", 26, "it is empty"),
        ("cut.sql", 26, "end marker is missing"),
        ("cut2.sql", 26, "end marker is missing"),
    ] {
        let refused = restore(&machine, file, "new");
        assert_eq!(refused.status, status, "{file}: {refused}");
        assert!(
            refused.stderr.contains(said) && refused.stderr.contains("nothing was changed"),
            "{file}: {refused}"
        );
        assert_eq!(
            machine.ok("matrix-postgres-cli -XAtc 'SELECT count(*) FROM pg_database'"),
            before,
            "{file}"
        );
    }
    // The hints lead somewhere.
    machine.ok(". /root/tools; pg_restore -f readable.sql x.tar; matrix-postgres-cli -c 'CREATE ROLE \"Gone 2\"; CREATE ROLE gone; CREATE ROLE gone3'");
    for file in ["readable.sql", "gone.sql", "gone.dump"] {
        let done = restore(&machine, file, "new");
        assert_eq!(done.status, 0, "{done}");
        drop_new(&machine);
    }
}

/// What somebody has written in front of a dump is part of it, and what the server does not take is no damage.
#[test]
fn what_stands_in_front_is_kept_and_an_error_is_the_servers() {
    let Some(machine) = with_one("in-front") else { return };
    machine.ok(". /root/tools; (echo 'CREATE TABLE front (a int); INSERT INTO front VALUES (1), (2);'; pg_dump one) >front.sql
        pg_dump one | sed 's/CREATE FUNCTION public.f()/CREATE FUNCTION public.g()/' >function.sql
        pg_dump one | sed 's/EXTENSION IF NOT EXISTS pgcrypto/EXTENSION IF NOT EXISTS nocrypto/' >extension.sql
        pg_dump -Fc one | sed 's/EXTENSION IF NOT EXISTS pgcrypto/EXTENSION IF NOT EXISTS nocrypto/' >extension.dump");
    let done = restore(&machine, "front.sql", "new");
    assert!(done.status == 0 && done.stderr.contains("not counting those of 1 statement"), "{done}");
    assert_eq!(in_new(&machine, "SET ROLE synapse; SELECT count(*) FROM front"), "2");
    drop_new(&machine);
    for file in ["function.sql", "extension.sql", "extension.dump"] {
        let failed = restore(&machine, file, "new");
        assert_eq!(failed.status, 32, "{file}: {failed}");
        assert!(failed.stderr.contains("database \"new\" could not be restored"), "{file}: {failed}");
        assert!(failed.stderr.contains("nothing else was changed"), "{file}: {failed}");
    }
}
