//! Never silent, in booted machines: who is told when a backup fails, and what stays when old ones go.

use crate::machine::{self, Machine, Synapse};

const BACKUP: &str = "matrix-postgres-backup.service";
const NOTIFY: &str = "matrix-postgres-notify@*";
/// A mail server of which every letter is kept.
const SENDMAIL: &str = "#!/bin/sh\nset -eu\n{ echo \"$@\"; cat; } >>/var/told/mail\n\
    id -un >/var/told/who; while test -e /var/told/wait; do sleep 0.1; done\n";
/// Makes the newest backup one of the future: its name and the seal of its manifest are changed.
const FUTURE: &str = r#"
cd /var/backups/matrix-postgres && mv "$(ls -d 20* | tail -n 1)" 20991231T000000Z && python3 - <<'END'
import hashlib, json
file = "20991231T000000Z/manifest.json"
manifest = json.load(open(file))
manifest["name"] = "20991231T000000Z"
del manifest["sha256"]
text = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False)
manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
json.dump(manifest, open(file, "w"))
END
"#;
/// A dead-man's switch that writes down who rang.
const SWITCH: &str = r#"
import http.server
class Switch(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with open("/run/rings", "a") as rings:
            rings.write(self.path + " " + body + "\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.HTTPServer(("127.0.0.1", 8099), Switch).serve_forever()
"#;

fn configure(machine: &Machine, text: &str) {
    machine.ok("mkdir -p /etc/matrix-postgres");
    machine.write("/etc/matrix-postgres/config.toml", text);
}

fn start_server(machine: &Machine) {
    machine.ok("systemctl start matrix-postgres.service");
}

fn back_up(machine: &Machine) {
    machine.ok(&format!("systemctl start {BACKUP} || {{ journalctl --no-pager -u {BACKUP} >&2; false; }}"));
    settle(machine);
}

/// A backup that cannot succeed: its directory is open to all.
fn fail_to_back_up(machine: &Machine) {
    machine.ok(&format!("chmod 0755 /var/backups/matrix-postgres && ! systemctl start {BACKUP}"));
    settle(machine);
    machine.ok("chmod 0700 /var/backups/matrix-postgres");
}

/// Until everybody has been told.
fn settle(machine: &Machine) {
    let idle = format!(
        "sleep 0.3; ! systemctl list-units --no-legend --state=activating '{NOTIFY}' | grep -c . \
         && ! systemctl list-jobs --no-legend | grep -c matrix-postgres"
    );
    machine.wait_for(&idle);
}

fn journal(machine: &Machine) -> String {
    machine.ok(&format!("journalctl --no-pager --output=cat --unit='{NOTIFY}'"))
}

fn switch(machine: &Machine) {
    machine.write("/root/switch.py", SWITCH);
    machine.ok("systemd-run --quiet --unit=switch.service python3 /root/switch.py");
    machine.wait_for("bash -c '</dev/tcp/127.0.0.1/8099'");
}

fn sendmail(machine: &Machine) {
    machine.write("/usr/sbin/sendmail", SENDMAIL);
    machine.ok("chmod 0755 /usr/sbin/sendmail && install -d -o matrix-postgres-notify /var/told");
}

#[test]
fn mail_a_room_and_the_switch_are_told_of_a_failure() {
    let Some(machine) = machine::for_test("notices") else { return };
    start_server(&machine);
    let synapse = Synapse::set_up(&machine);
    let (admin, robot) = (synapse.register("admin"), synapse.register("robot"));
    let room = synapse.create_room(&admin, "ops");
    switch(&machine);
    sendmail(&machine);
    let configuration = format!(
        "[notify]\nmail_to = [\"root\"]\nping_url = \"http://127.0.0.1:8099/secret-id\"\n\
         matrix = {{ homeserver = \"http://localhost:8008\", room = \"{room}\" }}\n"
    );
    configure(&machine, &configuration);
    machine.ok("mkdir -p /etc/credstore");
    machine.write("/etc/credstore/matrix-postgres.matrix-token", &robot.token);
    machine.ok("chmod 0600 /etc/credstore/matrix-postgres.matrix-token");

    // Good news is for the switch only.
    back_up(&machine);
    assert_eq!(synapse.messages(&admin, &room), []);
    machine.ok("! test -e /var/told/mail");
    machine.ok("grep -q '^/secret-id/start ' /run/rings && grep -q '^/secret-id .*succeeded' /run/rings");

    fail_to_back_up(&machine);
    let said = synapse.messages(&admin, &room);
    assert_eq!(said.len(), 1, "{}", journal(&machine));
    let (who, what) = &said[0];
    assert_eq!(who, "@robot:test.local");
    assert!(what.contains("matrix-postgres-backup.service failed (exit-code, 28)"), "{what}");
    assert!(what.contains("HINT: chmod 0700 /var/backups/matrix-postgres"), "{what}");
    assert!(what.contains("read back:"), "{what}");
    // Whoever has the server's user can look neither into it, nor at its token.
    assert_eq!(machine.ok("cat /var/told/who"), "matrix-postgres-notify");
    machine.ok(&format!(
        "touch /var/told/wait; chmod 0755 /var/backups/matrix-postgres && ! systemctl start {BACKUP}"
    ));
    let mail_server = "$(pgrep -u matrix-postgres-notify -o -f sendmail)";
    machine.wait_for(&format!("test -n \"{mail_server}\""));
    for secret in [
        format!("/proc/{mail_server}/environ"),
        format!("'/run/credentials/matrix-postgres-notify@{BACKUP}.service/matrix-postgres.matrix-token'"),
    ] {
        machine.ok(&format!("cat {secret} >/dev/null"));
        machine.ok(&format!(
            "! setpriv --reuid=matrix-postgres --regid=matrix-postgres --init-groups cat {secret}"
        ));
    }
    machine.ok("rm /var/told/wait");
    settle(&machine);
    // That was no failure of the day: the unit's limit of starts begins anew.
    machine.ok(&format!("chmod 0700 /var/backups/matrix-postgres && systemctl reset-failed {BACKUP}"));
    let mail = machine.ok("cat /var/told/mail");
    assert!(mail.starts_with("-i -- root\nTo: root\nSubject: machine: "), "{mail}");
    machine.ok("grep -q '^/secret-id/fail .*failed' /run/rings");

    // A token that is refused keeps nobody else from being told, and the journal says so.
    machine.write("/etc/credstore/matrix-postgres.matrix-token", "wrong-token");
    machine.ok("rm /var/told/mail /run/rings");
    fail_to_back_up(&machine);
    machine.ok("grep -q failed /var/told/mail && grep -q ^/secret-id/fail /run/rings");
    let told = journal(&machine);
    assert!(told.contains("the notification could not be delivered by matrix"), "{told}");
    assert!(told.contains("M_UNKNOWN_TOKEN"), "{told}");
    assert!(told.contains("HINT: write a valid access token"), "{told}");
    for secret in ["wrong-token", "secret-id", &robot.token] {
        assert!(!machine.ok("journalctl --no-pager --all").contains(secret), "{secret} is in the journal");
    }
    // Journal and catalog know it by its id.
    let entry = machine.ok("journalctl --no-pager --catalog MESSAGE_ID=5b1c0d2f7a864e3c9d58a1e24f6b7c05");
    assert!(entry.contains("Subject: A notification could not be delivered by matrix"), "{entry}");
    let entry = machine.ok("journalctl --no-pager --catalog MESSAGE_ID=5b1c0d2f7a864e3c9d58a1e24f6b7c01");
    assert!(entry.contains("Subject: Backup 20") && entry.contains("is complete"), "{entry}");
    machine
        .ok("journalctl --no-pager MESSAGE_ID=5b1c0d2f7a864e3c9d58a1e24f6b7c02 | grep -c 'is accessible to all users'");

    // Good news, for those who want it.
    machine.write("/etc/credstore/matrix-postgres.matrix-token", &robot.token);
    configure(&machine, &(configuration + "on_success = true\n"));
    back_up(&machine);
    let said = synapse.messages(&admin, &room);
    assert!(said.last().is_some_and(|(_, what)| what.contains("succeeded")), "{said:?}");
}

#[test]
fn a_hook_that_hangs_is_ended_and_holds_up_nobody() {
    let Some(machine) = machine::for_test("hook") else { return };
    sendmail(&machine);
    configure(
        &machine,
        "[notify]\nmail_to = [\"root\"]\ntime_limit = \"2s\"\ncommand = [\"/bin/sh\", \"-c\", \"sleep 999 & sleep 999\"]\n",
    );
    // There is no cluster to back up.
    machine.ok(&format!("! systemctl start {BACKUP}"));
    settle(&machine);
    let told = journal(&machine);
    assert!(told.contains("/bin/sh took longer than 2 s and was killed"), "{told}");
    machine.ok("grep -q 'there is nothing to back up' /var/told/mail && ! pgrep sleep");

    // What it is told when it does not hang; and without any way the journal has it all.
    configure(
        &machine,
        "[notify]\ncommand = [\"/bin/sh\", \"-c\", \"{ env; cat; cat /proc/self/status; } >/var/told/hook\"]\n",
    );
    machine.ok(&format!("! systemctl start {BACKUP}"));
    settle(&machine);
    machine.ok(&format!(
        "grep -qx MATRIX_POSTGRES_EVENT=failure /var/told/hook && grep -qx MATRIX_POSTGRES_UNIT={BACKUP} \
         /var/told/hook && grep -q 'failed (exit-code, 31)' /var/told/hook"
    ));
    // Mail servers become other users.
    machine.ok("grep -qE '^NoNewPrivs:.0$' /var/told/hook");
    configure(&machine, "");
    machine.ok(&format!("! systemctl start {BACKUP}"));
    settle(&machine);
    assert!(journal(&machine).contains("machine: matrix-postgres-backup.service failed"));
}

#[test]
fn old_backups_go_and_what_is_not_ours_stays() {
    let Some(machine) = machine::for_test("prune") else { return };
    start_server(&machine);
    configure(
        &machine,
        "[backup]\nmetrics_file = \"/var/lib/prometheus/node-exporter/matrix-postgres.prom\"\n\
         [backup.keep]\nlast = 2\ndaily = 1\nweekly = 0\nmonthly = 0\n",
    );
    machine.ok("install -d -o matrix-postgres /var/lib/prometheus/node-exporter");
    for _ in 0..2 {
        back_up(&machine);
    }
    let list = || machine.ok("ls -A /var/backups/matrix-postgres");
    let first = list();
    let foreign = first.lines().next().unwrap();
    machine.ok(&format!("touch /var/backups/matrix-postgres/{foreign}/notes.txt"));
    machine.ok(
        "mkdir -p /var/backups/matrix-postgres/20200101T000000Z/x /var/backups/matrix-postgres/lost+found",
    );
    for _ in 0..3 {
        back_up(&machine);
    }
    let now = list();
    assert_eq!(now.lines().count(), 5, "{now}");
    for kept in [foreign, "20200101T000000Z", "lost+found"] {
        assert!(now.contains(kept), "{now}");
    }
    let plan = machine.ok("matrix-postgres-backup prune --dry-run");
    assert!(plan.contains("not ours: it contains notes.txt"), "{plan}");
    assert!(plan.contains("its manifest is not valid"), "{plan}");
    assert_eq!(list(), now);
    machine
        .ok("journalctl --no-pager MESSAGE_ID=5b1c0d2f7a864e3c9d58a1e24f6b7c04 | grep -c 'that no rule of'");
    let begins = machine.ok(&format!("journalctl --no-pager --output=cat --unit={BACKUP}"));
    assert!(begins.contains("s, as last time"), "{begins}");

    let metrics = machine.ok("cat /var/lib/prometheus/node-exporter/matrix-postgres.prom");
    assert!(metrics.contains("matrix_postgres_backup_well 1"), "{metrics}");
    assert!(metrics.contains("matrix_postgres_backup_next_run_timestamp_seconds"), "{metrics}");
    assert_eq!(machine.ok("stat -c %a /var/lib/prometheus/node-exporter/*"), "644");
    let table = machine.ok("matrix-postgres-backup list");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");

    let status: serde_json::Value =
        serde_json::from_str(&machine.ok("matrix-postgres-backup status --json")).unwrap();
    assert!(status["free_bytes"].as_u64() > Some(0) && status["newest_verified_at"].is_string(), "{status}");
}

/// The clock is the host's, too, and stays as it is: a backup's name is changed in its place.
#[test]
fn a_clock_that_was_set_back_costs_no_backup() {
    let Some(machine) = machine::for_test("clock") else { return };
    start_server(&machine);
    configure(&machine, "[backup.keep]\nlast = 2\ndaily = 0\nweekly = 0\nmonthly = 0\n");
    let status = |expected: i32| {
        let status = machine.run("matrix-postgres-backup status");
        assert_eq!(status.status, expected, "{status}");
        status.stdout
    };
    for _ in 0..2 {
        back_up(&machine);
    }
    status(0);
    machine.ok(FUTURE);
    assert!(status(40).contains("is in the future; check the clock"));
    for _ in 0..2 {
        back_up(&machine);
    }
    let plan = machine.ok("matrix-postgres-backup prune --dry-run");
    // The backups of today are named after today, and the old ones of them have gone; what is of an unknown time stays, and
    // takes the place of none.
    let list = machine.ok("ls -d /var/backups/matrix-postgres/20* | sed 's,.*/,,'");
    assert!(list.lines().count() == 3 && list.ends_with("20991231T000000Z"), "{list}");
    assert_eq!(plan.matches("its time is in the future; check the clock").count(), 1, "{plan}");
    assert_eq!(plan.matches("last 2 of 2").count(), 1, "{plan}");
    assert!(!plan.contains("remove"), "{plan}");
    let said = status(40);
    assert!(
        said.contains("20991231T000000Z is in the future") && said.contains("HINT: timedatectl"),
        "{said}"
    );
    assert!(!said.lines().any(|line| line.starts_with("newest:") && line.contains("2099")), "{said}");
    machine.ok(
        "matrix-postgres-backup verify 2>&1 | grep 'is intact' | grep -v 2099 && matrix-postgres-backup verify 20991231T000000Z",
    );
    // What it says to do ends it.
    machine.ok("mv /var/backups/matrix-postgres/20991231T000000Z /root/");
    status(0);
    assert!(journal(&machine).contains("succeeded, with problems"), "{}", journal(&machine));
}

#[test]
fn a_dump_that_shrank_is_told() {
    let Some(machine) = machine::for_test("shrink") else { return };
    start_server(&machine);
    sendmail(&machine);
    configure(&machine, "[notify]\nmail_to = [\"root\"]\n");
    let sql = |statement: &str| machine.ok(&format!("matrix-postgres-cli -qXAtc \"{statement}\""));
    sql("CREATE TABLE t AS SELECT g, repeat('x', 50) AS x FROM generate_series(1, 50000) g");
    back_up(&machine);
    sql("TRUNCATE t");
    back_up(&machine);
    let mail = machine.ok("cat /var/told/mail");
    assert!(mail.contains("succeeded, with problems"), "{mail}");
    assert!(mail.contains("- the dump of database \"homeserver\" shrank by"), "{mail}");
    let status = machine.run("matrix-postgres-backup status");
    assert_eq!(status.status, 40, "{status}");
}

#[test]
fn a_backup_without_room_is_refused_beforehand() {
    let Some(machine) = machine::for_test("room") else { return };
    start_server(&machine);
    let sql =
        "CREATE TABLE t AS SELECT md5(g::text) || md5((-g)::text) AS x FROM generate_series(1, 200000) g";
    machine.ok(&format!("matrix-postgres-cli -qXAtc \"{sql}\""));
    machine.ok("mount -t tmpfs -o size=12M,mode=0700,uid=$(id -u matrix-postgres) tmpfs /var/backups/matrix-postgres");
    back_up(&machine);
    let status = machine.run("matrix-postgres-backup status");
    assert!(status.stdout.contains("not enough disk space for another backup"), "{status}");
    fail(&machine, "29");
    let told = machine.ok(&format!("journalctl --no-pager --output=cat --unit={BACKUP}"));
    assert!(told.contains("not enough disk space for the backup: needed about"), "{told}");
    assert_eq!(machine.ok("ls -A /var/backups/matrix-postgres | wc -l"), "1");
}

fn fail(machine: &Machine, status: &str) {
    machine.ok(&format!("! systemctl start {BACKUP}"));
    assert_eq!(machine.ok(&format!("systemctl show -P ExecMainStatus {BACKUP}")), status);
}
