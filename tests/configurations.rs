//! What a check says before an upgrade about the administrator's own configuration: of files, and in catalogs.

use crate::machine::{self, Machine};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_WELL: i32 = 40;

/// A directory of version 13 with all that an administrator may have in it.
const SET_UP: &str = "\
mkdir -p /etc/matrix-postgres
echo 'server.version = 13' >/etc/matrix-postgres/config.toml
systemctl start matrix-postgres.service
cd /matrix/postgres/data
mkdir conf.d certs big
openssl req -new -x509 -nodes -subj /CN=localhost -out certs/server.crt -keyout certs/server.key 2>/dev/null
chmod 0600 certs/server.key
cat >>postgresql.conf <<'END'
# Mine.
force_parallel_mode = off
vacuum_cleanup_index_scale_factor 0.2 # because
password_encryption = on
ssl = on
ssl_cert_file = 'certs/server.crt'
ssl_key_file = '/matrix/postgres/data/certs/server.key'
Include_Dir = 'conf.d'
END
echo 'old_snapshot_threshold = 1h' >conf.d/10-snapshots.conf
echo 'a note' >notes.txt
chown -R matrix-postgres: conf.d certs big notes.txt
systemctl restart matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }
";

fn sql(machine: &Machine, statement: &str) -> String {
    machine.ok(&format!("matrix-postgres-cli -XAtc {}", machine::synapse::quote(statement)))
}

/// All that matters of the directory's files.
const STATE: &str = "cd /matrix/postgres/data && find . -maxdepth 2 ! -path './pg_*/*' ! -path './base/*' \
    ! -path './global/*' -type f ! -name postmaster.pid -printf '%p %m %U %i ' -exec cksum '{}' ';' | sort";

#[test]
fn a_check_foresees_what_becomes_of_the_configuration() {
    let Some(machine) = machine::for_test("configuration") else { return };
    machine.ok(SET_UP);
    sql(&machine, "ALTER SYSTEM SET vacuum_defer_cleanup_age = 7");
    sql(&machine, "ALTER ROLE synapse SET work_mem = '8MB'; ALTER ROLE synapse SET our.own = 'x'");
    let before = machine.ok(STATE);
    let report = machine.ok("matrix-postgres-upgrade check");
    assert_eq!(machine.ok(STATE), before);
    assert_eq!(machine.ok("ls -A /tmp | grep ^matrix-postgres || true"), "");
    let file = "/matrix/postgres/data/";
    for (name, place) in [
        ("vacuum_cleanup_index_scale_factor", "postgresql.conf, line"),
        ("old_snapshot_threshold", "conf.d/10-snapshots.conf, line 1)"),
        ("vacuum_defer_cleanup_age", "postgresql.auto.conf, line 3)"),
    ] {
        let expected = format!("warning  PostgreSQL 17 does not know the setting {name} ({file}{place}");
        assert!(report.contains(&expected), "{expected}\n{report}");
    }
    for expected in [
        "force_parallel_mode becomes debug_parallel_query = off",
        "password_encryption becomes password_encryption = md5",
        "no setting refers to are copied: notes.txt",
        "stays in the old data directory: /matrix/postgres/data/big (a directory)",
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
    assert!(!report.contains("work_mem") && !report.contains("our.own"), "{report}");

    // What cannot be carried stands in the way, each with what helps.
    sql(&machine, "ALTER ROLE synapse SET vacuum_cleanup_index_scale_factor = 0.3");
    sql(&machine, "ALTER DATABASE homeserver SET operator_precedence_warning = off");
    sql(&machine, "ALTER SYSTEM SET session_preload_libraries = 'auto_explain'");
    machine.ok("mv /usr/lib/postgresql/17/lib/auto_explain.so /root/
         echo 'old_snapshot_threshold = 2h' >/etc/postgresql/ours.conf
         echo \"include '/etc/postgresql/ours.conf'\" >>/matrix/postgres/data/conf.d/10-snapshots.conf");
    let found = machine.run("matrix-postgres-upgrade check");
    assert_eq!(found.status, NOT_WELL, "{found}");
    for expected in [
        "library auto_explain, named in session_preload_libraries, is not installed for PostgreSQL 17",
        "old_snapshot_threshold (/etc/postgresql/ours.conf, line 1); the file is outside",
        "HINT: comment out the line: /etc/postgresql/ours.conf",
        "HINT: ALTER ROLE \"synapse\" RESET vacuum_cleanup_index_scale_factor",
        "HINT: ALTER DATABASE \"homeserver\" RESET operator_precedence_warning",
    ] {
        assert!(found.stdout.contains(expected), "{expected}\n{found}");
    }
    for hint in found.stdout.lines().filter_map(|line| line.trim().strip_prefix("HINT: ALTER ")) {
        sql(&machine, &format!("ALTER {hint}"));
    }
    machine.ok("mv /root/auto_explain.so /usr/lib/postgresql/17/lib/
         sed -i 's/^/# /' /etc/postgresql/ours.conf && matrix-postgres-upgrade check >&2");
}
