//! An old and a new cluster compared: equal ones, ones that lack a thing each, and Synapse's own.

use std::collections::BTreeSet;

use crate::machine::synapse::quote;
use crate::machine::{self, Machine, Output, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_WELL: i32 = 40;

/// A cluster with a bit of everything.
const OLD: &str = include_str!("comparisons/old.sql");

/// What is changed in the new cluster: the database, the SQL, and what is said of it.
const CHANGES: [(&str, &str, &[&str]); 37] = [
    (
        "homeserver",
        "DELETE FROM events WHERE id = 7",
        &["database \"homeserver\": table public.events has 999 rows, and had 1000 before"],
    ),
    (
        "homeserver",
        "DROP TABLE cache",
        &[
            "database \"homeserver\": table public.cache is missing, and had 1 rows before",
            "database \"homeserver\": constraint public.cache cache_pkey is missing",
            "database \"homeserver\": privileges on table public.cache: missing: GRANT SELECT ON TABLE public.cache TO auditor",
        ],
    ),
    (
        "homeserver",
        "REFRESH MATERIALIZED VIEW totals WITH NO DATA",
        &["database \"homeserver\": materialized view public.totals has lost its rows"],
    ),
    (
        "homeserver",
        "SELECT setval('counter', 1)",
        &["database \"homeserver\": sequence public.counter is at 1, and was at 6 before"],
    ),
    ("homeserver", "SELECT lo_unlink(4712)", &["database \"homeserver\": large objects: 1, before: 2"]),
    ("homeserver", "DROP INDEX edges_user", &["database \"homeserver\": index public.edges_user is missing"]),
    (
        "homeserver",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_lower'::regclass",
        &["database \"homeserver\": index public.events_lower is invalid, and was valid before"],
    ),
    (
        "homeserver",
        "ALTER TABLE events DROP CONSTRAINT \"room is short\"",
        &["database \"homeserver\": constraint \"room is short\" of public.events is missing"],
    ),
    (
        "homeserver",
        "ALTER DOMAIN positive DROP CONSTRAINT is_positive",
        &["database \"homeserver\": constraint is_positive of public.positive is missing"],
    ),
    (
        "homeserver",
        "ALTER TABLE edges DROP CONSTRAINT edges_event_fkey, ADD CONSTRAINT edges_event_fkey FOREIGN KEY (event) \
         REFERENCES events ON DELETE CASCADE DEFERRABLE NOT VALID",
        &[
            "database \"homeserver\": constraint edges_event_fkey of public.edges is NOT VALID, and was valid before",
        ],
    ),
    (
        "homeserver",
        "ALTER TABLE events ALTER COLUMN mood DROP DEFAULT",
        &[
            "database \"homeserver\": column mood of public.events is public.mood, and was public.mood DEFAULT before",
        ],
    ),
    (
        "homeserver",
        "ALTER TABLE ONLY parent ALTER COLUMN a DROP NOT NULL",
        &["database \"homeserver\": column a of public.parent is integer, and was integer NOT NULL before"],
    ),
    (
        "homeserver",
        "ALTER TABLE child ALTER COLUMN c TYPE bigint",
        &["database \"homeserver\": column c of public.child is bigint, and was integer before"],
    ),
    (
        "homeserver",
        "DROP POLICY short ON events",
        &["database \"homeserver\": policy public.events short is missing"],
    ),
    (
        "homeserver",
        "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
        &["database \"homeserver\": row security public.events is missing"],
    ),
    (
        "homeserver",
        "COMMENT ON COLUMN events.room IS NULL",
        &["database \"homeserver\": the comment on column public.events.room is missing"],
    ),
    (
        "homeserver",
        "DROP INDEX events_trgm; DROP EXTENSION pg_trgm",
        &[
            "database \"homeserver\": index public.events_trgm is missing",
            "database \"homeserver\": extension pg_trgm is missing",
            "database \"homeserver\": the comment on extension pg_trgm is missing",
        ],
    ),
    (
        "homeserver",
        "ALTER TABLE parts_2026 OWNER TO ada",
        &["database \"homeserver\": table public.parts_2026 belongs to \"ada\", and to \"postgres\" before"],
    ),
    (
        "homeserver",
        "REVOKE USAGE ON SCHEMA analysis FROM readers",
        &[
            "database \"homeserver\": privileges on schema analysis: missing: GRANT USAGE ON SCHEMA analysis TO \
           readers WITH GRANT OPTION",
        ],
    ),
    (
        "homeserver",
        "GRANT EXECUTE ON FUNCTION greet TO PUBLIC",
        &[
            "database \"homeserver\": privileges on function public.greet(name text, OUT greeting text): missing: \
           REVOKE ALL ON FUNCTION public.greet(name text, OUT greeting text) FROM PUBLIC",
        ],
    ),
    (
        "homeserver",
        "ALTER FUNCTION greet SECURITY INVOKER",
        &["database \"homeserver\": function public.greet(text) differs"],
    ),
    (
        "homeserver",
        "ALTER TABLE edges DISABLE TRIGGER stamp",
        &["database \"homeserver\": trigger public.edges stamp differs"],
    ),
    (
        "homeserver",
        "ALTER PUBLICATION inserts SET (publish = 'insert, update')",
        &["database \"homeserver\": publication inserts differs"],
    ),
    (
        "homeserver",
        "ALTER VIEW loud RESET (security_barrier)",
        &["database \"homeserver\": view public.loud differs"],
    ),
    (
        "homeserver",
        "ALTER DEFAULT PRIVILEGES FOR ROLE ada IN SCHEMA public REVOKE SELECT ON TABLES FROM readers",
        &[
            "database \"homeserver\": default acl public.DEFAULT PRIVILEGES FOR TABLES of ada: missing: ALTER DEFAULT \
           PRIVILEGES FOR ROLE ada IN SCHEMA public GRANT SELECT ON TABLES TO readers",
        ],
    ),
    (
        "homeserver",
        "ALTER DATABASE homeserver RESET statement_timeout",
        &["database \"homeserver\": database properties homeserver: missing: ALTER DATABASE homeserver SET \
           statement_timeout"],
    ),
    (
        "homeserver",
        "ALTER ROLE auditor IN DATABASE homeserver SET search_path = public",
        &[
            "database \"homeserver\": database properties homeserver: changed: ALTER ROLE auditor IN DATABASE \
           homeserver SET search_path",
        ],
    ),
    (
        "homeserver",
        "REVOKE CONNECT ON DATABASE homeserver FROM readers",
        &["database \"homeserver\": privileges on database homeserver: missing: GRANT CONNECT ON DATABASE \
           homeserver TO readers"],
    ),
    (
        "postgres",
        "ALTER DATABASE \"we ird\" OWNER TO ada",
        &["database \"we ird\": database we ird belongs to \"ada\", and to \"postgres\" before"],
    ),
    (
        "postgres",
        "COMMENT ON DATABASE homeserver IS 'x'",
        &["database \"homeserver\": the comment on database homeserver differs"],
    ),
    ("postgres", "ALTER ROLE ada NOCREATEDB", &["role \"ada\" has NOCREATEDB, and had CREATEDB before"]),
    (
        "postgres",
        "ALTER ROLE auditor NOBYPASSRLS",
        &["role \"auditor\" has NOBYPASSRLS, and had BYPASSRLS before"],
    ),
    ("postgres", "ALTER ROLE \"Grace H\" PASSWORD 'a third'", &["role \"Grace H\" has another password"]),
    (
        "postgres",
        "GRANT readers TO ada WITH ADMIN OPTION",
        &[
            "role \"ada\" is a member of \"readers\" with ADMIN, INHERIT, SET, and was with INHERIT, SET before",
        ],
    ),
    (
        "postgres",
        "REVOKE readers FROM auditor",
        &["role \"auditor\" is no member of \"readers\", and was before"],
    ),
    ("postgres", "ALTER ROLE ada RESET work_mem", &["missing: ALTER ROLE ada SET work_mem"]),
    ("postgres", "COMMENT ON ROLE readers IS 'x'", &["changed: COMMENT ON ROLE readers"]),
];

/// What only those notice who read every value.
const CONTENT: (&str, &str) = (
    "UPDATE edges SET data = '\\x01' WHERE id = 1",
    "database \"homeserver\": table public.edges has as many rows as before, but other values",
);

/// Two servers in a directory each, of which the second is made from the first as people do it: `$1` and `$2` are their
/// majors.
const SERVERS: &str = r#"
old=$1 new=$2
run() { runuser -u postgres -- "$@"; }
for which in old new; do
    major=${!which} place=/srv/$1/$which
    install -d -o postgres "$place"
    run /usr/lib/postgresql/$major/bin/initdb -D "$place/data" -E UTF8 --locale=C --auth=trust -U postgres -N
    run /usr/lib/postgresql/$major/bin/pg_ctl -D "$place/data" -l "$place/log" -w start \
        -o "-c unix_socket_directories=$place -c listen_addresses= -c fsync=off -c wal_level=logical"
done >/dev/null
cd /
"#;

/// The servers of [`SERVERS`].
struct Servers<'a> {
    machine: &'a Machine,
    old: u16,
    new: u16,
}

impl<'a> Servers<'a> {
    fn start(machine: &'a Machine, old: u16, new: u16) -> Self {
        machine.ok(&format!("set -- {old} {new}; {SERVERS}"));
        Self { machine, old, new }
    }

    /// From the old to the new one.
    fn carry(&self) {
        let psql = self.psql("new", "postgres");
        // Its own, for one of an older minor version than the old server would write what the new one does not take.
        let programs = if self.old == 17 { self.old } else { self.new };
        let dumped = self.machine.ok(&format!(
            "runuser -u postgres -- /usr/lib/postgresql/{programs}/bin/pg_dumpall -h /srv/{}/old | {psql} 2>&1",
            self.old
        ));
        let errors: Vec<_> = dumped.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.len() == 1 && errors[0].contains("role \"postgres\" already exists"), "{errors:?}");
    }

    fn psql(&self, which: &str, database: &str) -> String {
        let place = format!("/srv/{}/{which}", self.old);
        format!(
            "runuser -u postgres -- /usr/lib/postgresql/17/bin/psql -X -q -o /dev/null -h {place} -d {}",
            quote(database)
        )
    }

    fn sql(&self, which: &str, database: &str, sql: &str) {
        let psql = self.psql(which, database);
        self.machine.ok(&format!("{psql} -v ON_ERROR_STOP=1 -c {}", quote(sql)));
    }

    fn compare(&self, depth: &str) -> Output {
        let place = format!("/srv/{}", self.old);
        self.machine.run(&format!(
            "time runuser -u postgres -- matrix-postgres-upgrade compare --old {place}/old --new {place}/new --depth {depth}"
        ))
    }
}

/// A cluster with everything, and what is made from it.
fn equal(machine: &Machine, old: u16, new: u16) -> Servers<'_> {
    let servers = Servers::start(machine, old, new);
    machine.write("/srv/old.sql", OLD);
    machine.ok(&format!("{} -v ON_ERROR_STOP=1 -f /srv/old.sql", servers.psql("old", "postgres")));
    servers.carry();
    for depth in ["rows", "content"] {
        let compared = servers.compare(depth);
        assert_eq!(compared.status, 0, "{old}: {compared}");
        assert_eq!(compared.stdout, "compared 4 databases, 9 tables, 1657 rows", "{old}");
    }
    servers
}

#[test]
fn equal_clusters_are_equal_and_every_change_is_found_and_named() {
    let Some(machine) = machine::for_test("comparison") else { return };
    equal(&machine, 13, 17);
    every_change_is_found(&equal(&machine, 15, 17));
}

#[test]
fn clusters_of_18_and_19_are_equal_and_every_change_is_found_and_named() {
    let Some(machine) = machine::for_test_on_newer("comparison-18") else { return };
    equal(&machine, 15, 18);
    every_change_is_found(&equal(&machine, 18, 19));
}

fn every_change_is_found(servers: &Servers<'_>) {
    let mut expected = Vec::new();
    for (database, sql, messages) in CHANGES {
        servers.sql("new", database, sql);
        expected.extend(messages.iter().map(|message| format!("serious: {message}")));
    }
    assert_said(&servers.compare("rows"), &expected);
    servers.sql("new", "homeserver", CONTENT.0);
    expected.push(format!("serious: {}", CONTENT.1));
    let compared = servers.compare("content");
    assert_said(&compared, &expected);
    // The first line is about rows, and no line tells a secret.
    let first = compared.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("serious: database \"homeserver\": table "), "{compared}");
    assert!(!compared.stdout.contains("SCRAM") && !compared.stdout.contains("secret"), "{compared}");
}

#[test]
fn what_majors_do_differently_is_no_more_than_a_note() {
    let Some(machine) = machine::for_test("comparison-notes") else { return };
    let servers = equal(&machine, 15, 17);
    servers.sql(
        "old",
        "homeserver",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('events_lower'::regclass, 'edges_user'::regclass)",
    );
    servers.sql("new", "homeserver", "DROP INDEX edges_user");
    servers.sql(
        "new",
        "homeserver",
        "CREATE OR REPLACE VIEW joined AS SELECT id, ''::text AS \"user\" FROM events",
    );
    let compared = servers.compare("rows");
    assert_eq!(compared.status, 0, "{compared}");
    assert_eq!(
        compared.stdout.lines().collect::<Vec<_>>(),
        [
            "note: database \"homeserver\": index public.edges_user, which was invalid, is missing",
            "note: database \"homeserver\": index public.events_lower is valid, and was invalid before",
            "note: database \"homeserver\": view public.joined is written differently; check that it means the same",
            "compared 4 databases, 9 tables, 1657 rows",
        ],
        "{compared}"
    );
    servers.sql("new", "homeserver", "SELECT lo_put(4711, 1, 'x')");
    let large = "serious: database \"homeserver\": the contents of the large objects differ".to_owned();
    assert_eq!(servers.compare("rows").status, 0);
    assert_said(&servers.compare("content"), &[large]);
    servers.sql("new", "postgres", "DROP DATABASE \"we ird\"");
    servers.sql("new", "postgres", "CREATE DATABASE other");
    let expected =
        ["serious: database \"we ird\" is missing", "serious: database \"other\" exists, and did not before"];
    let compared = servers.compare("rows");
    assert!(compared.stdout.starts_with(&expected.join("\n")), "{compared}");
}

#[test]
fn a_homeserver_is_equal_after_it_was_carried_and_one_that_would_not_start_is_told() {
    let Some(machine) = machine::for_test("comparison-synapse") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "server.version = 15\n");
    machine.ok("systemctl start matrix-postgres.service");
    let synapse = Synapse::set_up(&machine);
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "analysis");
    synapse.send(&user, &room, "it's a start");
    // What it does by itself after its first start locks tables that are filled.
    synapse.settle();
    machine::synapse::fill(&machine, 20_000);
    machine.ok("systemctl stop matrix-synapse.service");

    // The newer server's roles and rows in one of 13, as if it had always been there.
    let thirteen = Servers::start(&machine, 13, 17);
    let load = thirteen.psql("old", "postgres");
    machine.ok(&format!(
        "/usr/lib/postgresql/15/bin/pg_dumpall -h /run/matrix-postgres -U postgres \
         | sed 's/ LOCALE_PROVIDER = libc//' | {load} 2>&1"
    ));
    thirteen.carry();
    let compared = thirteen.compare("content");
    assert_eq!(compared.status, 0, "{compared}");
    assert!(compared.stdout.starts_with("compared 3 databases, 1"), "{compared}");

    // Straight from the packaged server, which is asked as root.
    let fifteen = Servers::start(&machine, 15, 17);
    let load = fifteen.psql("new", "postgres");
    machine.ok(&format!(
        "/usr/lib/postgresql/17/bin/pg_dumpall -h /run/matrix-postgres -U postgres | {load} 2>&1"
    ));
    let compare = "time matrix-postgres-upgrade compare --old /run/matrix-postgres --new /srv/15/new";
    let compared = machine.run(compare);
    assert_eq!(compared.status, 0, "{compared}");
    assert_eq!(compared.stdout.lines().count(), 1, "{compared}");
    fifteen.sql("new", "homeserver", "SELECT setval('events_stream_seq', 3)");
    fifteen.sql(
        "new",
        "homeserver",
        "DELETE FROM event_json WHERE event_id = (SELECT min(event_id) FROM event_json)",
    );
    let compared = machine.run(compare);
    assert_eq!(compared.status, NOT_WELL, "{compared}");
    for expected in [
        "table public.event_json has ",
        "sequence public.events_stream_seq is at 3, and was at ",
        "ahead of its sequence events_stream_seq at 3: Synapse would not start",
    ] {
        assert!(compared.stdout.contains(expected), "{expected}: {compared}");
    }
    assert_eq!(compared.stdout.matches("serious: ").count(), 3, "{compared}");
}

#[track_caller]
fn assert_said(compared: &Output, expected: &[String]) {
    assert_eq!(compared.status, NOT_WELL, "{compared}");
    let said: BTreeSet<_> = compared.stdout.lines().filter(|line| line.starts_with("serious: ")).collect();
    let expected: BTreeSet<_> = expected.iter().map(String::as_str).collect();
    assert_eq!(&expected - &said, BTreeSet::new(), "not said");
    assert_eq!(&said - &expected, BTreeSet::new(), "not expected");
}
