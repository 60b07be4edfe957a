//! What whoever has SQL access, or is the backup's user, could do to get further. Each test is one attack, and fails where it
//! succeeds.

use crate::machine::upgrade::{UPGRADE, configure, prepare, sql, version};
use crate::machine::{self, Machine};

/// As the homeserver's own role.
fn as_synapse(machine: &Machine, script: &str) {
    machine.write("/root/attack.sql", script);
    machine.ok(
        "PGPASSWORD=$(sed -n 's/.*password: \"\\(.*\\)\"/\\1/p' /matrix/postgres/synapse-database.yaml) \
         psql -XqAt -v ON_ERROR_STOP=1 -h /run/matrix-postgres -U synapse -d homeserver -f /root/attack.sql",
    );
}

#[track_caller]
fn is_no_superuser(machine: &Machine, after: &str) {
    let roles = sql(machine, "postgres", "SELECT rolname FROM pg_roles WHERE rolsuper ORDER BY 1");
    assert_eq!(roles, "postgres", "{after}");
    let ran =
        sql(machine, "homeserver", "SELECT string_agg(DISTINCT what, ', ') FROM public.ran_as_superuser");
    assert_eq!(ran, "", "{after}");
}

/// Every name that our sessions use exists once more, on the search path before the server's own. Functions take what is
/// given more exactly than the server's do.
const SHADOWS: &str = r"
    CREATE TABLE public.ran_as_superuser (what text);
    GRANT ALL ON public.ran_as_superuser TO PUBLIC;
    CREATE SCHEMA evil;
    GRANT ALL ON SCHEMA evil TO PUBLIC;
    CREATE FUNCTION evil.pwn(what text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN
        IF pg_catalog.current_setting('is_superuser') = 'on' THEN
            INSERT INTO public.ran_as_superuser VALUES (what);
            EXECUTE 'ALTER ROLE synapse SUPERUSER';
        END IF;
        RETURN true;
    EXCEPTION WHEN others THEN RETURN true; END$$;
    DO $$DECLARE view text; BEGIN
        -- Those whose columns are the same in all versions: the views shall survive an upgrade.
        FOREACH view IN ARRAY ARRAY['pg_extension', 'pg_namespace', 'pg_class', 'pg_index', 'pg_description', 'pg_depend',
            'pg_inherits', 'pg_sequence', 'pg_am', 'pg_largeobject_metadata', 'pg_foreign_server']
        LOOP
            EXECUTE pg_catalog.format('CREATE VIEW evil.%I AS SELECT * FROM pg_catalog.%I WHERE evil.pwn(%L)', view, view, view);
        END LOOP;
    END$$;
    CREATE FUNCTION evil.format(text, name, name) RETURNS text LANGUAGE sql
        AS $$SELECT CASE WHEN evil.pwn('format') THEN pg_catalog.format($1, $2, $3) END$$;
    CREATE FUNCTION evil.split_part(text, text, int) RETURNS text LANGUAGE sql
        AS $$SELECT CASE WHEN evil.pwn('split_part') THEN pg_catalog.split_part($1, $2, $3) END$$;
    CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql
        AS $$SELECT CASE WHEN evil.pwn('current_setting') THEN pg_catalog.current_setting($1) END$$;
    CREATE FUNCTION evil.quote_ident(name) RETURNS text LANGUAGE sql
        AS $$SELECT CASE WHEN evil.pwn('quote_ident') THEN pg_catalog.quote_ident($1::text) END$$;
    CREATE FUNCTION evil.eq(name, text) RETURNS bool LANGUAGE sql
        AS $$SELECT evil.pwn('=') AND pg_catalog.nameeqtext($1, $2)$$;
    CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.eq);
    ALTER DATABASE homeserver SET search_path = evil, pg_catalog;
";

#[test]
fn a_databases_owner_does_not_become_superuser_by_names_of_his() {
    let Some(machine) = machine::for_test("attack-names") else { return };
    prepare(&machine, 15, "online");
    as_synapse(&machine, SHADOWS);
    let verbs = [
        "systemctl start matrix-postgres-backup.service",
        "systemctl start matrix-postgres-backup-verify.service",
        "matrix-postgres-backup verify",
        "matrix-postgres-upgrade check",
        "matrix-postgres-upgrade rehearse --method dump",
        "name=$(ls /var/backups/matrix-postgres | head -n 1); matrix-postgres-backup restore $name --as other --yes",
        UPGRADE,
        "matrix-postgres-upgrade status && matrix-postgres-upgrade rollback --yes",
        "rm -r /matrix/postgres/data.upgrade-*; matrix-postgres-upgrade run --method dump",
    ];
    for verb in verbs {
        let done = machine.run(verb);
        assert_eq!(
            done.status,
            0,
            "{verb}: {done}\n{}",
            machine.run("journalctl --no-pager -o cat -n 40").stdout
        );
        is_no_superuser(&machine, verb);
    }
    assert_eq!(version(&machine), "17");
    sql(&machine, "homeserver", "SELECT evil.pwn('by hand')");
    let ran = sql(&machine, "homeserver", "SELECT what FROM public.ran_as_superuser");
    assert_eq!(ran, "by hand", "the attack works where it is called");
}

#[test]
fn what_is_set_for_a_database_or_a_role_keeps_nothing_from_being_done() {
    let Some(machine) = machine::for_test("attack-settings") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    sql(&machine, "homeserver", "CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n");
    for setting in [
        "statement_timeout = 1",
        "transaction_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "lock_timeout = 1",
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "row_security = on",
        "role = synapse",
        "session_replication_role = replica",
        "client_encoding = latin1",
        "DateStyle = 'German'",
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "default_tablespace = nowhere",
    ] {
        // A database's owner may set most of them; what only a superuser may, he may have, too.
        sql(&machine, "postgres", &format!("ALTER DATABASE homeserver SET {setting}"));
    }
    for verb in [
        "systemctl start matrix-postgres-backup.service",
        "systemctl start matrix-postgres-backup-verify.service",
        "name=$(ls /var/backups/matrix-postgres | head -n 1); matrix-postgres-backup restore $name --as other --yes",
    ] {
        let done = machine.run(verb);
        assert_eq!(
            done.status,
            0,
            "{verb}: {done}\n{}",
            machine.run("journalctl --no-pager -o cat -n 40").stdout
        );
    }
    machine.wait_for("matrix-postgres-backup status");
    let counted = "PGOPTIONS='-c role=none -c statement_timeout=0 -c transaction_timeout=0' \
        matrix-postgres-cli -d other -XAtc 'SELECT count(*) FROM public.t' 2>/dev/null";
    assert_eq!(machine.ok(counted), "100000");
}

/// Functions of a table's owner that run in its constraints while rows are loaded. Whoever loads them, it is in a server in a sandbox.
const OWNERS_CODE: &str = r"
    CREATE FUNCTION public.run(text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN
        IF pg_catalog.current_setting('is_superuser') = 'on' THEN
            EXECUTE pg_catalog.format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || $1);
        END IF;
        RETURN true;
    EXCEPTION WHEN others THEN RETURN true; END$$;
    CREATE FUNCTION public.write(text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN
        IF pg_catalog.current_setting('is_superuser') = 'on' THEN
            EXECUTE pg_catalog.format('COPY (SELECT 1) TO %L', $1);
        END IF;
        RETURN true;
    EXCEPTION WHEN others THEN RETURN true; END$$;
    CREATE TABLE public.trap (n int CHECK (public.run('/var/backups/matrix-postgres/PWNED'))
        CHECK (public.run('/var/lib/matrix-postgres/PWNED')) CHECK (public.run('/matrix/postgres/PWNED'))
        CHECK (public.write('/var/backups/matrix-postgres/PWNED')) CHECK (public.write('/var/lib/matrix-postgres/PWNED'))
        CHECK (public.write('/matrix/postgres/PWNED')));
    INSERT INTO public.trap VALUES (1), (2);
";

#[test]
fn what_runs_in_a_private_server_runs_no_program_and_reaches_no_other_file() {
    let Some(machine) = machine::for_test("attack-program") else { return };
    prepare(&machine, 15, "dump");
    as_synapse(&machine, OWNERS_CODE);
    for verb in [
        "systemctl start matrix-postgres-backup.service",
        "systemctl start matrix-postgres-backup-verify.service",
        "matrix-postgres-backup verify --trial",
        "matrix-postgres-upgrade rehearse",
        UPGRADE,
    ] {
        let done = machine.run(verb);
        assert_eq!(
            done.status,
            0,
            "{verb}: {done}\n{}",
            machine.run("journalctl --no-pager -o cat -n 40").stdout
        );
        let found = machine.ok("find / -xdev -name PWNED 2>/dev/null; find /matrix /var/backups -name PWNED");
        assert_eq!(found, "", "{verb}");
    }
    machine.ok("! journalctl --no-pager | grep 'run without a sandbox'");
    assert_eq!(sql(&machine, "homeserver", "SELECT count(*) FROM public.trap"), "2");
}

const BACKUP: &str = "systemctl start matrix-postgres-backup.service";
const NEWEST: &str =
    "name=$(ls /var/backups/matrix-postgres | tail -n 1); matrix-postgres-backup restore $name --yes";

/// What a function of an owner's tries wherever it is called; it needs a session of a superuser's.
const TRY: &str = r"
    CREATE FUNCTION public.pwn(what text) RETURNS bool LANGUAGE plpgsql AS $$DECLARE attempt text; BEGIN
        FOREACH attempt IN ARRAY ARRAY['RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres', 'SET ROLE none',
            'SELECT pg_catalog.set_config(''session_authorization'', ''postgres'', false)', 'ALTER ROLE synapse SUPERUSER',
            'COPY (SELECT 1) TO PROGRAM ''touch /matrix/postgres/PWNED''']
        LOOP
            BEGIN EXECUTE attempt; EXCEPTION WHEN others THEN NULL; END;
        END LOOP;
        RETURN true; END$$;
    CREATE FUNCTION public.pwn(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS $$BEGIN PERFORM public.pwn(''); RETURN n; END$$;
";

/// Everything that is evaluated while a dump is loaded.
const EVALUATED: &str = r"
    CREATE TABLE public.of_check (n int CHECK (public.pwn('check')));
    INSERT INTO public.of_check SELECT pg_catalog.generate_series(1, 3);
    CREATE TABLE public.of_xml (n int CHECK (pg_catalog.query_to_xml('SELECT public.pwn(1)', true, true, '') IS NOT NULL));
    INSERT INTO public.of_xml VALUES (1);
    CREATE DOMAIN public.evil AS int CHECK (public.pwn('domain'));
    CREATE TYPE public.pair AS (a public.evil[], b int);
    CREATE TABLE public.of_domain (p public.pair); INSERT INTO public.of_domain VALUES (ROW(ARRAY[1, 2], 3));
    CREATE TABLE public.of_generated (n int, m int GENERATED ALWAYS AS (public.pwn(n)) STORED);
    INSERT INTO public.of_generated VALUES (1);
    CREATE TABLE public.of_partitions (n int) PARTITION BY LIST (n);
    CREATE INDEX ON public.of_partitions ((n + public.pwn(1)));
    CREATE TABLE public.of_partition PARTITION OF public.of_partitions (CHECK (public.pwn('partition'))) FOR VALUES IN (1);
    INSERT INTO public.of_partitions VALUES (1);
    -- Constraints that pg_dump leaves until the rows are there.
    CREATE TABLE public.of_row (n int); INSERT INTO public.of_row VALUES (1);
    CREATE FUNCTION public.pwn(public.of_row) RETURNS bool LANGUAGE sql AS $$SELECT public.pwn('row')$$;
    ALTER TABLE public.of_row ADD CONSTRAINT whole CHECK (public.pwn(of_row));
    COMMENT ON CONSTRAINT whole ON public.of_row IS 'ours';
    CREATE DOMAIN public.itself AS int;
    CREATE FUNCTION public.pwn_itself(public.itself[]) RETURNS bool LANGUAGE sql AS $$SELECT public.pwn('itself')$$;
    ALTER DOMAIN public.itself ADD CONSTRAINT itself CHECK (public.pwn_itself('{}'));
    CREATE TABLE public.of_itself (n public.itself); INSERT INTO public.of_itself VALUES (1);
    -- A key that needs a cast.
    CREATE TYPE public.letter AS ENUM ('a', 'b');
    CREATE FUNCTION public.number(public.letter) RETURNS int IMMUTABLE LANGUAGE sql AS $$SELECT public.pwn(1)$$;
    CREATE CAST (public.letter AS int) WITH FUNCTION public.number AS IMPLICIT;
    CREATE TABLE public.numbers (n int PRIMARY KEY); INSERT INTO public.numbers VALUES (1);
    CREATE INDEX ON public.numbers (n) WHERE public.pwn(2) < n + 5;
    CREATE STATISTICS public.expected ON (n + public.pwn(3)), n FROM public.numbers;
    CREATE TABLE public.letters (l public.letter REFERENCES public.numbers); INSERT INTO public.letters VALUES ('a');
";

/// What nobody can object to: it reads another table, which comes after it; its owner adds no more rows to it.
const LEGAL: &str = r"
    CREATE TABLE public.zoo (animal text PRIMARY KEY); INSERT INTO public.zoo VALUES ('elephant');
    CREATE FUNCTION public.is_there(a text) RETURNS bool STABLE LANGUAGE sql
        AS $$SELECT EXISTS (SELECT FROM public.zoo WHERE animal = a)$$;
    CREATE TABLE public.animals (a text CHECK (public.is_there(a)), n int CHECK (n > 0));
    INSERT INTO public.animals SELECT 'elephant', n FROM pg_catalog.generate_series(1, 1000) n;
    REVOKE INSERT ON public.animals FROM synapse;
";

#[track_caller]
fn has_gained_nothing(machine: &Machine, after: &str) {
    let roles =
        "SELECT string_agg(rolname, ' ' ORDER BY 1) FROM pg_roles WHERE rolsuper OR rolname LIKE '%loader%'";
    assert_eq!(sql(machine, "postgres", roles), "postgres", "{after}");
    machine.ok("! test -e /matrix/postgres/PWNED");
}

/// Every table with its rows, and every constraint.
fn tables(machine: &Machine, database: &str) -> String {
    let tables = "SELECT format('%s %s', c.oid::regclass, (xpath('/row/n/text()',
            query_to_xml(format('SELECT count(*) AS n FROM %s', c.oid::regclass), false, true, '')))[1])
        FROM pg_class c WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY relname";
    let constraints = "SELECT format('%s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid),
            obj_description(oid, 'pg_constraint'))
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text, conname";
    let grants = "SELECT format('%s %s', relname, relacl) FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY relname";
    [tables, constraints, grants].map(|statement| sql(machine, database, statement)).join("\n")
}

#[test]
fn a_restore_runs_no_function_of_a_tables_owner_as_superuser() {
    let Some(machine) = machine::for_test("attack-restore") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    for script in [TRY, EVALUATED, LEGAL] {
        as_synapse(&machine, script);
    }
    machine.ok(BACKUP);
    // As a restore that was killed leaves it.
    let left = "CREATE ROLE \"matrix-postgres-loader-left\" LOGIN;
        COMMENT ON ROLE \"matrix-postgres-loader-left\" IS 'matrix-postgres: a login of a restore that is not finished'";
    sql(&machine, "postgres", left);
    for (verb, database) in [(" --as other", "other"), ("", "homeserver")] {
        let done = machine.run(&format!("{NEWEST}{verb}"));
        assert_eq!(done.status, 0, "{verb}: {done}");
        has_gained_nothing(&machine, verb);
        let rows = format!("SELECT count(*) FROM {}", "public.animals");
        assert_eq!(sql(&machine, database, &rows), "1000", "{verb}");
    }
    machine.ok("! journalctl --no-pager | grep -F 'SCRAM-SHA-256$4096'");

    // Where nobody but the superuser can log in.
    machine.ok(
        "sed -i '/scram-sha-256/d' /matrix/postgres/data/pg_hba.conf && systemctl reload matrix-postgres.service",
    );
    let refused = machine.run(&format!("{NEWEST} --as third"));
    assert_eq!(refused.status, 27, "{refused}");
    for expected in ["public.of_check", "local all all scram-sha-256", "database \"third\" was not created"] {
        assert!(refused.stderr.contains(expected), "{expected}: {refused}");
    }
    has_gained_nothing(&machine, "a refusal");

    // Everything is as it was.
    let kept =
        sql(&machine, "postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'homeserver_before_%'");
    let before = tables(&machine, &kept);
    for database in ["other", "homeserver"] {
        assert_eq!(tables(&machine, database), before, "{database}");
    }
    sql(&machine, "postgres", "ALTER ROLE synapse NOSUPERUSER");
    machine.ok("rm -f /matrix/postgres/PWNED");

    // What a superuser would have to evaluate for the definitions themselves.
    sql(
        &machine,
        "homeserver",
        "DROP TABLE public.animals;
         CREATE FUNCTION public.next(public.evil, int) RETURNS public.evil LANGUAGE sql AS 'SELECT $1';
         CREATE AGGREGATE public.last(int) (SFUNC = public.next, STYPE = public.evil);
         ALTER FUNCTION public.next OWNER TO synapse; ALTER AGGREGATE public.last(int) OWNER TO synapse",
    );
    machine.ok(BACKUP);
    let refused = machine.run(&format!("{NEWEST} --as third"));
    assert_eq!(refused.status, 27, "{refused}");
    assert!(refused.stderr.contains("evil") && refused.stderr.contains("last"), "{refused}");
    has_gained_nothing(&machine, "an aggregate");

    // The attack works where it is let.
    machine.ok(&format!("{NEWEST} --as third --trust-owners"));
    assert_eq!(sql(&machine, "postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'synapse'"), "t");
    machine.ok("test -e /matrix/postgres/PWNED");
}

/// What a function of an owner's tries in a server that is made for an upgrade or a trial: into that server's directory, which stays,
/// and from there into the live server, which takes whoever runs as its user for the superuser.
const BEYOND: &str = r"
    CREATE FUNCTION public.go_beyond() RETURNS bool LANGUAGE plpgsql AS $$DECLARE attempt text; BEGIN
        FOREACH attempt IN ARRAY ARRAY[
            pg_catalog.format('COPY (SELECT 1) TO %L', pg_catalog.current_setting('config_file') || '.PWNED'),
            'CREATE EXTENSION dblink SCHEMA public',
            'SELECT public.dblink_exec(''host=/run/matrix-postgres user=postgres dbname=postgres'', ''ALTER ROLE synapse SUPERUSER'')',
            'DROP EXTENSION dblink']
        LOOP
            BEGIN EXECUTE attempt; EXCEPTION WHEN others THEN NULL; END;
        END LOOP;
        RETURN true;
    EXCEPTION WHEN others THEN RETURN true; END$$;
    CREATE TABLE public.beyond (n int CHECK (public.go_beyond()));
    INSERT INTO public.beyond VALUES (1);
";

#[test]
fn an_upgrade_runs_no_function_of_a_tables_owner_as_superuser() {
    let Some(machine) = machine::for_test("attack-upgrade") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "[server]\nversion = 15\n");
    machine.ok("systemctl start matrix-postgres.service");
    for script in [TRY, EVALUATED, LEGAL, BEYOND] {
        as_synapse(&machine, script);
    }
    // 17 has a privilege more, of which nothing is said where an owner has all of them.
    sql(&machine, "homeserver", "GRANT INSERT ON public.animals TO synapse");
    let found = || {
        let found = tables(&machine, "homeserver");
        let lines = found.lines().map(str::trim_end);
        let said = |line: &&str| *line != "animals" && !line.starts_with("animals {");
        lines.filter(said).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = found();
    // Whoever counts rows as superuser plans with expressions of an index, as this test does.
    let clean = || {
        sql(&machine, "postgres", "ALTER ROLE synapse NOSUPERUSER");
        machine.ok("rm -f /matrix/postgres/PWNED");
    };
    clean();
    machine.ok("mkdir /mnt/small && mount -t tmpfs -o size=1M,mode=0755 small /mnt/small");
    let upgrade = |verb: &str, way: &str, configuration: &str| {
        configure(&machine, configuration);
        let done = machine.run(verb);
        let said = machine.run("journalctl --no-pager -o cat -n 60").stdout;
        assert_eq!(done.status, 0, "{way}: {verb}: {done}\n{said}");
        has_gained_nothing(&machine, way);
        assert_eq!(machine.ok("find /matrix /var -xdev -name '*PWNED*'"), "", "{way}");
        assert_eq!(sql(&machine, "homeserver", "SELECT count(*) FROM pg_extension"), "1", "{way}");
    };
    let ways = [
        ("files", "method = \"dump\"\n"),
        ("stream", "method = \"dump\"\ncompare = \"content\"\ndump_directory = \"/mnt/small/dump\"\n"),
    ];
    for (way, configuration) in ways {
        upgrade("matrix-postgres-upgrade rehearse", way, configuration);
        upgrade("matrix-postgres-upgrade run", way, configuration);
        assert_eq!(version(&machine), "17");
        assert_eq!(found(), before, "{way}");
        clean();
        upgrade("matrix-postgres-upgrade rollback --yes", way, configuration);
        machine.ok("rm -rf /matrix/postgres/data.upgrade-*");
        clean();
    }
    assert_eq!(version(&machine), "15");
}

#[test]
fn a_trial_runs_no_function_of_a_tables_owner_as_superuser() {
    let Some(machine) = machine::for_test("attack-trial") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres && systemctl start matrix-postgres.service");
    for script in [TRY, EVALUATED, LEGAL, BEYOND] {
        as_synapse(&machine, script);
    }
    for verb in [
        BACKUP,
        "systemctl start matrix-postgres-backup-verify.service",
        "runuser -u matrix-postgres -- matrix-postgres-backup verify --trial",
    ] {
        let done = machine.run(verb);
        let said = machine.run("journalctl --no-pager -o cat -n 40").stdout;
        assert_eq!(done.status, 0, "{verb}: {done}\n{said}");
        has_gained_nothing(&machine, verb);
    }
    // What is a program as a whole, and run by the superuser, does not get out of its server in the unit.
    sql(&machine, "homeserver", "DROP TABLE public.animals");
    machine.write("/etc/matrix-postgres/config.toml", "[backup]\nformat = \"plain\"\n");
    for verb in [BACKUP, "systemctl start matrix-postgres-backup-verify.service"] {
        let done = machine.run(verb);
        let said = machine.run("journalctl --no-pager -o cat -n 40").stdout;
        assert_eq!(done.status, 0, "{verb}: {done}\n{said}");
        has_gained_nothing(&machine, "plain");
    }
    // The attack works where it is let.
    sql(&machine, "homeserver", "SELECT public.go_beyond()");
    machine.ok("test -e /matrix/postgres/data/postgresql.conf.PWNED");
}

/// An owner who, while rows are loaded, changes definitions that a superuser is still to work with.
#[test]
fn definitions_that_are_changed_by_what_is_loaded_are_not_used() {
    let Some(machine) = machine::for_test("attack-definitions") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    as_synapse(
        &machine,
        "CREATE TABLE public.a (n int); INSERT INTO public.a VALUES (1);
         CREATE FUNCTION public.change() RETURNS bool LANGUAGE plpgsql AS $$BEGIN
             IF pg_catalog.current_database() <> 'homeserver' THEN
                 EXECUTE 'ALTER TABLE public.a ADD COLUMN IF NOT EXISTS more int';
             END IF;
             RETURN true; END$$;
         CREATE TABLE public.b (n int CHECK (public.change())); INSERT INTO public.b VALUES (1);",
    );
    machine.ok(BACKUP);
    let refused = machine.run(&format!("{NEWEST} --as other"));
    assert_eq!(refused.status, 26, "{refused}");
    assert!(refused.stderr.contains("have changed the schema"), "{refused}");
    has_gained_nothing(&machine, "a change of definitions");
    let made = "SELECT count(*) FROM pg_database WHERE datname LIKE 'other%'";
    assert_eq!(sql(&machine, "postgres", made), "0");
}

/// What our own statements meet in a database of somebody else.
const IN_OUR_WAY: &str = r"
    CREATE FUNCTION public.pwn_trigger() RETURNS trigger LANGUAGE plpgsql
        AS $$BEGIN PERFORM public.pwn('trigger'); RETURN NULL; END$$;
    CREATE TABLE public.e2e_one_time_keys_json (n int); INSERT INTO public.e2e_one_time_keys_json VALUES (1), (2);
    CREATE TRIGGER t BEFORE TRUNCATE ON public.e2e_one_time_keys_json EXECUTE FUNCTION public.pwn_trigger();
    CREATE TRIGGER d BEFORE DELETE ON public.e2e_one_time_keys_json EXECUTE FUNCTION public.pwn_trigger();
    CREATE TRIGGER a BEFORE TRUNCATE ON public.e2e_one_time_keys_json EXECUTE FUNCTION public.pwn_trigger();
    CREATE TRIGGER r BEFORE TRUNCATE ON public.e2e_one_time_keys_json EXECUTE FUNCTION public.pwn_trigger();
    CREATE TRIGGER x BEFORE TRUNCATE ON public.e2e_one_time_keys_json EXECUTE FUNCTION public.pwn_trigger();
    ALTER TABLE public.e2e_one_time_keys_json ENABLE ALWAYS TRIGGER a, ENABLE REPLICA TRIGGER r, DISABLE TRIGGER x;
    CREATE TABLE public.events (n int);
    CREATE TABLE public.schema_version (version int);
    CREATE VIEW public.stream_positions AS SELECT 'events'::text AS stream_name, public.pwn(1)::bigint AS stream_id;
    CREATE TABLE public.cast (n int); INSERT INTO public.cast VALUES (1);
    CREATE FUNCTION public.as_text(public.cast) RETURNS text LANGUAGE sql AS $$SELECT public.pwn('text')::text$$;
    CREATE FUNCTION public.as_json(public.cast) RETURNS json LANGUAGE sql
        AS $$SELECT pg_catalog.to_json(public.pwn('json'))$$;
    CREATE CAST (public.cast AS text) WITH FUNCTION public.as_text AS IMPLICIT;
    CREATE CAST (public.cast AS json) WITH FUNCTION public.as_json AS IMPLICIT;
    CREATE TABLE public.indexed (n int); INSERT INTO public.indexed VALUES (1), (2);
    CREATE INDEX ON public.indexed (n) WHERE public.pwn(2) < n + 5;
    CREATE STATISTICS public.planned ON (n + public.pwn(3)), n FROM public.indexed;
";

#[test]
fn views_triggers_and_casts_of_an_owner_are_not_called_by_us() {
    let Some(machine) = machine::for_test("attack-in-our-way") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    as_synapse(&machine, TRY);
    as_synapse(&machine, IN_OUR_WAY);
    for verb in [
        BACKUP,
        "matrix-postgres-backup verify",
        "matrix-postgres-backup status || true",
        &format!("{NEWEST} --as other"),
        "matrix-postgres-upgrade compare --depth rows --old /run/matrix-postgres --new /run/matrix-postgres",
        "matrix-postgres-upgrade compare --depth content --old /run/matrix-postgres --new /run/matrix-postgres",
        "matrix-postgres-upgrade check || true",
        NEWEST,
    ] {
        let done = machine.run(verb);
        assert_eq!(done.status, 0, "{verb}: {done}");
        has_gained_nothing(&machine, verb);
    }
    for database in ["other", "homeserver"] {
        assert_eq!(sql(&machine, database, "SELECT count(*) FROM public.e2e_one_time_keys_json"), "0");
        // Each as it was.
        let enabled = "SELECT string_agg(concat(tgname, tgenabled), ' ' ORDER BY tgname) FROM pg_trigger
            WHERE tgrelid = 'public.e2e_one_time_keys_json'::regclass";
        assert_eq!(sql(&machine, database, enabled), "aA dO rR tO xD");
    }
    // The attacks work where they are called.
    sql(&machine, "other", "SELECT c::text, to_json(c) FROM public.cast c");
    assert_eq!(sql(&machine, "postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'synapse'"), "t");
}

/// Tries to come in for as long as a restore takes, and to open the door before.
const KNOCKING: &str = r#"
export PGPASSWORD=$(sed -n 's/.*password: "\(.*\)"/\1/p' /matrix/postgres/synapse-database.yaml)
psql="psql -XqAt -h /run/matrix-postgres -U synapse"
restoring="SELECT datname FROM pg_catalog.pg_database WHERE datname LIKE 'homeserver_restoring_%'"
while :; do
    for database in $($psql -d homeserver -c "$restoring"); do
        echo "$database" >>/root/knocked
        $psql -d homeserver -c "ALTER DATABASE \"$database\" CONNECTION LIMIT -1"
        $psql -d "$database" -c "DELETE FROM public.t WHERE n = 1" && echo "$database" >>/root/came_in
    done
done"#;

#[test]
fn the_owner_of_a_database_does_not_come_in_before_it_has_been_compared() {
    let Some(machine) = machine::for_test("attack-owner") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    as_synapse(
        &machine,
        "CREATE TABLE public.t AS SELECT n, repeat('x', 200) AS x FROM generate_series(1, 200000) n;
         CREATE INDEX ON public.t (n)",
    );
    machine.ok(BACKUP);
    machine.write("/root/knock", KNOCKING);
    machine.ok("systemd-run --quiet --unit=knocking bash /root/knock");
    let done = machine.run(NEWEST);
    assert_eq!(done.status, 0, "{done}");
    machine.ok("systemctl stop knocking; test -s /root/knocked");
    machine.ok("! test -e /root/came_in");
    assert_eq!(sql(&machine, "homeserver", "SELECT count(*) FROM public.t"), "200000");
    let owner = "SELECT pg_get_userbyid(datdba), datconnlimit FROM pg_database WHERE datname = 'homeserver'";
    assert_eq!(sql(&machine, "postgres", owner), "synapse|-1");
}

/// Debian's own cluster, whose superuser is the system user `postgres`, in place of ours: by a link where the data directory
/// was, and one where the socket was.
const ANOTHERS: &str = "cd /matrix/postgres
    name=$(ls /var/backups/matrix-postgres); mv data .data
    mv /run/matrix-postgres/.s.PGSQL.5432 /run/matrix-postgres/aside
    ln -s /var/lib/postgresql/17/main data; ln -s /run/postgresql/.s.PGSQL.5432 /run/matrix-postgres/.s.PGSQL.5432";

#[test]
fn the_owner_of_a_cluster_does_not_choose_whom_roots_programs_run_as() {
    let Some(machine) = machine::for_test("attack-account") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    machine.ok(BACKUP);
    let theirs = "runuser -u postgres -- psql -XAtc 'SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles ORDER BY 1'";
    let before = machine.ok(theirs);
    machine.write("/tmp/attack", ANOTHERS);
    machine.ok("runuser -u matrix-postgres -- bash -eu /tmp/attack");
    for verb in [
        "name=$(ls /var/backups/matrix-postgres); matrix-postgres-backup restore $name --globals",
        &format!("{NEWEST} --as other"),
        "name=$(ls /var/backups/matrix-postgres); zstd -qdc /var/backups/matrix-postgres/$name/homeserver.dump.zst >/root/dump; \
         matrix-postgres-backup restore /root/dump --as other --yes",
        "matrix-postgres-backup run",
        "matrix-postgres-upgrade check",
        "matrix-postgres-upgrade compare --old /run/matrix-postgres --new /run/matrix-postgres",
    ] {
        let done = machine.run(verb);
        assert_ne!(done.status, 0, "{verb}: {done}");
        assert_eq!(machine.ok(theirs), before, "{verb}");
    }
}

/// Verbs as an administrator calls them, at a terminal; the processes of the cluster's owner that have one.
const AT_A_TERMINAL: &str = r"
import os, pty, subprocess, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp('bash', ['bash', '-c', sys.argv[1] + '; exit $?'])
import threading
found = set()
ended = []
def look():
    while not ended:
        for process in os.listdir('/proc'):
            try:
                if process.isdigit() and os.stat('/proc/' + process).st_uid == int(sys.argv[2]):
                    state = open('/proc/%s/stat' % process).read().rsplit(')', 1)[1].split()
                    if state[4] != '0':
                        found.add(open('/proc/%s/cmdline' % process).read().split('\0')[0])
            except OSError:
                pass
watcher = threading.Thread(target=look)
watcher.start()
said = b''
while True:
    try:
        more = os.read(terminal, 65536)
    except OSError:
        break
    if not more:
        break
    said += more
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
ended.append(True)
watcher.join()
print('status', status, 'found', sorted(found))
sys.stderr.write(said.decode())
";

/// Whoever has a process at a terminal can type on it: `TIOCSTI`.
#[test]
fn no_program_of_the_clusters_owner_has_the_terminal_of_an_administrator() {
    let Some(machine) = machine::for_test("attack-terminal") else { return };
    prepare(&machine, 15, "online");
    machine.ok(BACKUP);
    machine.write("/root/at_a_terminal", AT_A_TERMINAL);
    for verb in [
        "matrix-postgres-backup verify --trial",
        &format!("{NEWEST} --as other"),
        "matrix-postgres-upgrade check",
        "matrix-postgres-upgrade rehearse --method dump",
        "matrix-postgres-upgrade run",
        "matrix-postgres-upgrade rollback --yes",
    ] {
        machine.write("/root/verb", verb);
        let done = machine.run("python3 /root/at_a_terminal 'bash -e /root/verb' $(id -u matrix-postgres)");
        assert_eq!(done.stdout, "status 0 found []", "{verb}: {done}");
    }
}

/// Names of sockets and of processes that say what a list of connections would say of others; `$1` is a process of the unit that is to be
/// stopped, and 8099 its port.
const NAMES: &str = r#"
import ctypes, os, socket, subprocess, sys, time
psql = subprocess.Popen(["psql", "-XAtq", "-h", "/run/matrix-postgres", "-p", "5433", "-U", "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
psql.stdin.write("SELECT pg_backend_pid();\n"); psql.stdin.flush()
backend = int(psql.stdout.readline())
lines = ['u_str ESTAB 0 0 /.s.PGSQL. 9 * 8 users:(("",pid=%d,' % backend, 'u_str ESTAB 0 0 * 8 * 9 users:(("",pid=%s,' % sys.argv[1]]
kept = []
for n in range(60):
    server = socket.socket(socket.AF_UNIX)
    server.bind("\0%d\n%s\n" % (n, lines[n % 2])); server.listen()
    client = socket.socket(socket.AF_UNIX); client.connect(server.getsockname())
    kept += [server, client, server.accept()[0]]
ctypes.CDLL(None).prctl(15, b"docker-proxy", 0, 0, 0)
kept.append(socket.create_connection(("127.0.0.1", 8099)))
import psycopg2
kept.append(psycopg2.connect(host="127.0.0.1", port=5433, user="synapse", password=sys.argv[2], dbname="homeserver", application_name="proxy"))
print("ready", flush=True)
time.sleep(100000)
"#;

#[test]
fn no_name_of_a_socket_or_of_a_process_has_another_unit_stopped() {
    let Some(machine) = machine::for_test("attack-connections") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    let listening = "[server]\nversion = 15\nlisten = [\"127.0.0.1\"]\nport = 5433\n";
    machine.write("/etc/matrix-postgres/config.toml", listening);
    machine.ok("systemctl start matrix-postgres.service");
    machine.write(
        "/etc/systemd/system/firewall.service",
        "[Service]\nExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 8099\n",
    );
    machine.ok("systemctl daemon-reload && systemctl start firewall.service");
    machine.wait_for("ss --no-header -tln sport = :8099 | grep 8099");
    machine.write("/root/names.py", NAMES);
    machine.ok(
        "install -m 0644 /root/names.py /var/tmp/
         password=$(sed -n 's/.*password: \"\\(.*\\)\"/\\1/p' /matrix/postgres/synapse-database.yaml)
         systemd-run --quiet --unit=evil --uid=matrix-postgres --property=StandardOutput=file:/var/tmp/said \
             python3 /var/tmp/names.py $(systemctl show --value --property=MainPID firewall.service) $password",
    );
    // As a user's own service manager may name a control group.
    machine.ok(
        "group=/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice/firewall.service/docker-$(printf %064d 1).scope
         mkdir -p $group
         bash -c \"echo \\$\\$ >$group/cgroup.procs; sleep 1000 | psql -h /run/matrix-postgres -p 5433 -U postgres homeserver\" \
             >/dev/null 2>&1 &",
    );
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres' AND datname = 'homeserver'";
    machine.wait_for(&format!("[ \"$(matrix-postgres-cli -d postgres -XAtc \"{sessions}\")\" = 1 ]"));
    machine.wait_for("grep ready /var/tmp/said");
    let said = machine.run("matrix-postgres-upgrade check").stdout;
    for expected in [
        "postgres@postgres (psql), sessions: 1, from evil.service",
        "synapse@homeserver (proxy), sessions: 1, from evil.service",
        "postgres@homeserver (psql), sessions: 1, from the container 000000000000 of docker, which no unit runs",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("firewall.service"), "{said}");
}

#[test]
fn names_in_a_database_do_nothing_to_a_terminal_and_look_like_no_line_of_ours() {
    let Some(machine) = machine::for_test("attack-terminal") else { return };
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", "[server]\nversion = 15\n");
    machine.ok("systemctl start matrix-postgres.service");
    as_synapse(
        &machine,
        r#"CREATE TABLE U&"reg\000AHINT: forged\001B[2J\009B1m" (r regprocedure);
           CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
           CREATE TABLE U&"part\000AHINT: forged\001B[2J" (n int) PARTITION BY RANGE (f(n));"#,
    );
    for method in ["online", "dump"] {
        for verb in ["check", "check --json"] {
            let said = machine.run(&format!("matrix-postgres-upgrade {verb} --method {method}"));
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(!text.contains(['\u{1b}', '\u{9b}']), "{verb} {method}: {text:?}");
            if verb == "check" {
                assert!(text.contains("forged"), "{method}: {text}");
                assert!(!text.lines().any(|line| line.trim_start().starts_with("HINT: forged")), "{text}");
            }
        }
    }
    machine.run("systemctl start matrix-postgres-upgrade.service");
    machine.ok("! journalctl --no-pager --output=cat | grep --text -P '\\x1b\\[2J'");
}

#[test]
fn what_the_owner_leaves_beside_the_socket_does_not_become_roots() {
    let Some(machine) = machine::for_test("attack-runtime") else { return };
    machine.ok("systemctl start matrix-postgres.service");
    machine.ok(
        "cd /run/matrix-postgres && runuser -u matrix-postgres -- bash -c 'mkdir -m 0777 sub && mkdir sub/sub && \
             cp /bin/bash sub/sub/shell && chmod 4755 sub/sub/shell && ln -s /root sub/link && ln -s /root link'
         before=$(stat --format '%U %a' /root)
         systemctl reload matrix-postgres.service
         [ \"$(stat --format '%U %a' /root)\" = \"$before\" ]",
    );
    machine.wait_for("[ \"$(stat --format %U /run/matrix-postgres)\" = matrix-postgres ]");
    let left = machine.ok("find /run/matrix-postgres -user root -o -perm /6000");
    assert_eq!(left, "");
}

/// Links where the notices' unit writes, in a directory of its user's.
const LINKS: &str = r#"
import os, time
place, end = "/run/matrix-postgres-notify", time.time() + 600
while time.time() < end:
    for name in os.listdir(place) if os.path.isdir(place) else []:
        try:
            os.symlink("/root/PWNED", f"{place}/{name}/described.json")
            print("ready", flush=True)
        except OSError:
            pass
"#;

#[test]
fn whoever_sends_notices_has_root_write_into_no_other_file() {
    let Some(machine) = machine::for_test("attack-notices") else { return };
    machine.ok("systemctl start matrix-postgres.service matrix-postgres-backup.service");
    machine.write("/root/links.py", LINKS);
    machine.ok(
        "install -m 0644 /root/links.py /var/tmp/
         systemd-run --quiet --unit=evil --uid=matrix-postgres-notify --property=StandardOutput=file:/var/tmp/said \
             python3 /var/tmp/links.py",
    );
    // They are not always fast enough.
    machine.wait_for(
        "systemctl reset-failed 'matrix-postgres-notify@*'
         systemctl start matrix-postgres-notify@matrix-postgres-backup.service.service || true
         [ \"$(grep --count ready /var/tmp/said)\" -ge 5 ]",
    );
    machine.ok("! test -e /root/PWNED");
    machine.ok("systemctl stop evil.service");
    machine.ok("systemctl start matrix-postgres-notify@matrix-postgres-backup.service.service");
    machine.ok("! journalctl --no-pager --output=cat -n 20 | grep 'state of the backups is unknown'");
}
