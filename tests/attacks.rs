//! What whoever has SQL access, or is the backup's user, could do to get further. Each test is one attack, and fails where it
//! succeeds.

#[path = "machine/mod.rs"]
mod machine;

use std::time::Duration;

use machine::Machine;
use machine::upgrade::{UPGRADE, prepare, sql, version};

const PATIENCE: Duration = Duration::from_secs(60);

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
    machine.wait_for("matrix-postgres-backup status", PATIENCE);
    let counted = "PGOPTIONS='-c role=none -c statement_timeout=0 -c transaction_timeout=0' \
        matrix-postgres-cli -d other -XAtc 'SELECT count(*) FROM public.t' 2>/dev/null";
    assert_eq!(machine.ok(counted), "100000");
}

/// Functions of a table's owner run in its constraints while rows are loaded, as the superuser that loads them. In a trial and
/// in an upgrade that is a server in a sandbox.
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
    machine.ok("! journalctl --no-pager | grep 'are not in a sandbox'");
    assert_eq!(sql(&machine, "homeserver", "SELECT count(*) FROM public.trap"), "2");
}
