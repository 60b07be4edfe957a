//! Files and backups that somebody else has written, given to root to be restored.

#[path = "machine/mod.rs"]
mod machine;

use machine::Machine;

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
