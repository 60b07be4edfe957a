//! Copies of the backups elsewhere, by rclone: to a real SFTP server and to an S3 server, cut at random, full, changed by others; and
//! a machine that is gone.

use crate::machine::{self, Machine, Output, Synapse};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const CONFIG: i32 = 27;
const NOT_INSTALLED: i32 = 30;
const NO_BACKUP: i32 = 35;
const NOT_WELL: i32 = 40;
const OFFSITE: i32 = 45;

const BACKUP: &str = "matrix-postgres-backup.service";
const UNIT: &str = "matrix-postgres-backup-offsite.service";
const CREDENTIAL: &str = "/etc/credstore/matrix-postgres-rclone.conf";

/// sshd on port 2222, for the user `store`, whose files are in /target.
const SERVE: &str = r#"
id store >/dev/null 2>&1 || useradd --home-dir /target --shell /bin/bash --password '*' store
chown store: /target
install -d -m 0700 -o store -g store /home/.ssh /etc/store
test -e /etc/store/key || ssh-keygen -q -t ed25519 -N '' -f /etc/store/key
test -e /etc/store/host || ssh-keygen -q -t ed25519 -N '' -f /etc/store/host
install -m 0644 /etc/store/key.pub /etc/ssh/store.pub
cat >/etc/ssh/store.conf <<END
Port 2222
ListenAddress 127.0.0.1
HostKey /etc/store/host
PidFile /run/store.pid
AuthorizedKeysFile /etc/ssh/store.pub
StrictModes no
UsePAM no
MaxStartups 100
PerSourcePenalties no
Subsystem sftp internal-sftp
$1
END
mkdir -p /run/sshd /etc/matrix-postgres /etc/credstore
systemctl stop store.service 2>/dev/null || true
systemd-run --quiet --unit=store.service --property=KillMode=mixed /usr/sbin/sshd -D -f /etc/ssh/store.conf
until ssh-keyscan -p 2222 127.0.0.1 >/etc/matrix-postgres/known_hosts 2>/dev/null && test -s /etc/matrix-postgres/known_hosts; do sleep 0.1; done
umask 077
cat >/etc/credstore/matrix-postgres-rclone.conf <<END
[store]
type = sftp
host = 127.0.0.1
port = 2222
user = store
key_pem = $(awk '{printf "%s\\n", $0}' /etc/store/key)
known_hosts_file = /etc/matrix-postgres/known_hosts
END
"#;

/// Serves /target by SFTP, with a further line for sshd, and sends there.
fn serve(machine: &Machine, line: &str) {
    machine.ok(&format!("set -- '{line}'\n{SERVE}"));
    configure(machine, "");
}

/// A target called `store`, with further keys.
fn configure(machine: &Machine, keys: &str) {
    let text = format!(
        "backup.keep.last = 9\n[[offsite]]\nname = \"store\"\nremote = \"store:/target/backups\"\n{keys}\n"
    );
    machine.write("/etc/matrix-postgres/config.toml", &text);
}

/// A machine with a server, and a table of so many random bytes, which do not become less when they are packed.
fn with_bytes(name: &str, megabytes: u32) -> Option<Machine> {
    let machine = machine::for_test(name)?;
    machine.ok(&format!(
        "mkdir /target; systemctl start matrix-postgres.service
         matrix-postgres-cli -XAtq -v ON_ERROR_STOP=1 -c \"CREATE TABLE bytes AS
             SELECT n, (SELECT string_agg(sha512((n * 100 + m)::text::bytea), '') FROM generate_series(1, 80) m) AS b
             FROM generate_series(1, {}) n\"",
        megabytes * 200
    ));
    Some(machine)
}

/// The time at which a unit last ended.
fn ended(machine: &Machine, unit: &str) -> u64 {
    let time =
        machine.ok(&format!("systemctl show --value --property=InactiveEnterTimestampMonotonic {unit}"));
    time.parse().expect("a time should be a number")
}

/// Backs up, and waits until what is sent thereafter is sent, or failed; the exit status of that.
#[track_caller]
fn back_up(machine: &Machine) -> String {
    let before = ended(machine, UNIT);
    machine.ok(&format!("systemctl reset-failed {UNIT} {BACKUP} 2>/dev/null || true"));
    machine.start(BACKUP);
    settled(machine, before)
}

/// Waits until the unit has ended once more; its exit status.
#[track_caller]
fn settled(machine: &Machine, before: u64) -> String {
    machine.wait_for(&format!(
            "case $(systemctl show --value --property=ActiveState {UNIT}) in activating | deactivating) false ;; esac
             test $(systemctl show --value --property=InactiveEnterTimestampMonotonic {UNIT}) -gt {before}"
        ));
    machine.ok(&format!("systemctl show --value --property=ExecMainStatus {UNIT}"))
}

/// Sends, which must succeed.
#[track_caller]
fn send(machine: &Machine) -> Output {
    let sent = machine.run("matrix-postgres-backup send");
    assert_eq!(sent.status, 0, "{sent}");
    sent
}

/// The names of what is listed there, and whether it is verified.
#[track_caller]
fn listed(machine: &Machine, arguments: &str) -> Vec<(String, bool)> {
    let json = machine.ok(&format!("matrix-postgres-backup list --json {arguments}"));
    let list: Vec<serde_json::Value> = serde_json::from_str(&json).expect("it should be JSON");
    let entry = |entry: &serde_json::Value| {
        (entry["name"].as_str().unwrap_or_default().to_owned(), entry["verified"] == true)
    };
    list.iter().map(entry).collect()
}

/// What `status` says of the only target, and its exit status.
fn status(machine: &Machine) -> (i32, serde_json::Value) {
    let output = machine.run("matrix-postgres-backup status --json");
    let target = output.json()["offsite"][0].clone();
    (output.status, target)
}

#[test]
fn another_machine_is_back_with_the_same_messages() {
    let target = tempfile::tempdir().expect("a directory");
    let binds = [("/target", target.path())];
    let Some(first) = machine::for_test_with_binds("sent", &binds) else { return };
    serve(&first, "");
    first.ok("systemctl start matrix-postgres.service");
    let synapse = Synapse::set_up(&first);
    let ada = synapse.register("ada");
    let room = synapse.create_room(&ada, "offsite");
    for number in 1..=20 {
        synapse.send(&ada, &room, &format!("message {number}"));
    }
    synapse.settle();
    let before = synapse.messages(&ada, &room);
    assert_eq!(back_up(&first), "0", "{}", first.journal_of(UNIT));
    let (well, state) = status(&first);
    assert_eq!(
        (well, state["backups"].as_u64(), state["missing"].as_array().map(Vec::len)),
        (0, Some(1), Some(0))
    );
    let said = first.journal_of(UNIT);
    assert!(said.contains("is at store: ") && said.contains("compared by SHA-1"), "{said}");
    // Whoever sends reads the backups, and the server is not theirs to reach.
    let name = listed(&first, "")[0].0.clone();
    drop(first);

    let second = machine::for_test_with_binds("gone", &binds).expect("the first one was there");
    serve(&second, "");
    // Nothing but the package, and the target's credentials.
    second.ok("rm /etc/matrix-postgres/config.toml; systemctl start matrix-postgres.service");
    let at = "store:/target/backups";
    assert_eq!(listed(&second, &format!("--at {at}")), [(name.clone(), true)]);
    let restored = second.run(&format!("matrix-postgres-backup restore --from {at} {name} --all --yes"));
    assert_eq!(restored.status, 0, "{restored}");
    let synapse = Synapse::set_up(&second);
    let ada = synapse.log_in("ada");
    assert_eq!(synapse.messages(&ada, &room), before);

    // It sends to the same target, and neither gets at the other's.
    configure(&second, "keep = { last = 1, daily = 0, weekly = 0, monthly = 0 }");
    for _ in 0..2 {
        assert_eq!(back_up(&second), "0", "{}", second.journal_of(UNIT));
    }
    assert_eq!(listed(&second, "").len(), 2);
    let own = listed(&second, "--at store");
    assert!(own.len() == 1 && own[0].0 != name && own[0].1, "{own:?}");
    let told = second.run("matrix-postgres-backup list --at store").stderr;
    let host = told.split("--host ").nth(1).unwrap_or_default().trim().to_owned();
    assert_eq!(listed(&second, &format!("--at store --host {host}")), [(name.clone(), true)]);
    let verified = second.run(&format!("matrix-postgres-backup verify --at store --host {host} {name}"));
    assert!(verified.status == 0 && verified.stderr.contains("is intact"), "{verified}");
    let trial = second.run("matrix-postgres-backup verify --trial --at store");
    assert_eq!(trial.status, 0, "{trial}");
    // Nothing of the secret is anywhere but where it was put.
    second.ok("! journalctl --no-pager | grep -c 'PRIVATE KEY' && ! grep -rqs 'PRIVATE KEY' /tmp /run/matrix* /var/lib/matrix-postgres*");
}

/// Compares each backup that the program lists with its manifest, by other tools than ours. Where there is no manifest, none
/// is listed, which is tried once.
const CHECK: &str = r"
import hashlib, json, pathlib, subprocess, sys
host = next(pathlib.Path('/target/backups').glob('*'), None)
tried = pathlib.Path('/run/tried')
if not list(pathlib.Path('/target').rglob('manifest.json')) and tried.exists():
    sys.exit(print(0))
tried.touch()
listed = json.loads(subprocess.run(['matrix-postgres-backup', 'list', '--json', '--at', 'store'],
                                   check=True, stdout=subprocess.PIPE).stdout)
for backup in listed:
    directory = host / backup['name']
    manifest = json.loads((directory / 'manifest.json').read_text())
    for file in [manifest['globals'], *manifest['databases']]:
        found = hashlib.sha256((directory / file['file']).read_bytes()).hexdigest()
        assert found == file['sha256'], (backup['name'], file['file'])
    assert backup['verified'], backup
print(len(listed))
";

/// Sends, and cuts that when `$1` further bytes are there: by what `$2` says.
const CUT: &str = "
before=$(du -sb /target | cut -f1)
matrix-postgres-backup send & sender=$!
while kill -0 $sender 2>/dev/null; do
    now=$(du -sb /target 2>/dev/null | cut -f1)
    if test $((now - before)) -ge $1; then eval \"$2\" || true; break; fi
    sleep 0.005
done
wait $sender
";

/// So many transfers are cut, each when a random part of what is missing is there.
const CUTS: usize = 50;

#[test]
fn fifty_cuts_and_nothing_is_listed_that_is_not_whole() {
    let Some(machine) = with_bytes("cuts", 20) else { return };
    serve(&machine, "");
    machine.ok("systemctl stop matrix-postgres-backup-offsite.timer");
    machine.ok(&format!("systemctl mask --quiet --runtime {UNIT}"));
    machine.start(BACKUP);
    machine.write("/root/check.py", CHECK);
    let size: u64 = machine.ok("du -sb /var/backups/matrix-postgres/*Z | cut -f1").parse().expect("a size");
    let mut random = 42_u64;
    let (mut tries, mut whole, mut cut) = (0, 0, 0);
    while cut < CUTS {
        tries += 1;
        assert!(tries < 10 * CUTS, "{cut} of {tries} were cut");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let there: u64 = machine.ok("du -sb /target | cut -f1").parse().expect("a size");
        let bytes = (random >> 20) % size.saturating_sub(there).max(1);
        // rclone, the program itself, or the connection: that is made again, and again.
        let kill = match tries % 5 {
            0 => "pkill -9 -u store",
            1 | 2 => "kill -9 $sender; pkill -9 -x rclone",
            _ => "pkill -9 -x rclone",
        };
        let sent = machine.run(&format!("set -- {bytes} '{kill}'\n{CUT}"));
        cut += usize::from(sent.status != 0);
        if machine.ok("python3 /root/check.py") == "1" {
            whole += 1;
            machine.ok("rm -r /target/backups");
        }
    }
    println!("{cut} of {tries} were cut; {whole} times all was there");
    // Of the second, the first is there.
    machine.start(BACKUP);
    send(&machine);
    assert_eq!(machine.ok("python3 /root/check.py"), "2");
    machine.ok("matrix-postgres-backup verify --at store");

    // What is there is not sent again.
    let again = send(&machine);
    assert!(!again.stderr.contains("is at store"), "{again}");
    let host = machine.ok("ls -d /target/backups/*");
    let newest = listed(&machine, "").pop().expect("a backup").0;
    machine.ok(&format!("rm {host}/{newest}/manifest.json"));
    let rest = send(&machine);
    assert!(rest.stderr.contains("0 files of"), "{rest}");
    // A manifest that has not arrived to its end is none.
    machine.ok(&format!("truncate -s 1000 {host}/{newest}/manifest.json"));
    assert_eq!(listed(&machine, "--at store").len(), 1);
    send(&machine);
    assert_eq!(machine.ok("python3 /root/check.py"), "2");
}

#[test]
fn what_goes_wrong_elsewhere_is_told_and_harms_no_backup_here() {
    let Some(machine) = with_bytes("wrong", 4) else { return };
    // Nothing is configured: nothing happens.
    assert_eq!(back_up(&machine), "0");
    serve(&machine, "");
    let first = listed(&machine, "")[0].0.clone();

    // Nothing there yet, which is no problem for a while.
    let (well, state) = status(&machine);
    assert_eq!((well, &state["missing"][0]), (0, &first.clone().into()));
    configure(&machine, "max_delay = \"1s\"");
    assert_eq!(status(&machine).0, NOT_WELL);
    let planned = machine.ok("matrix-postgres-backup send --dry-run");
    assert!(planned.contains(&format!("send {first} to store:/target/backups/machine-")), "{planned}");
    machine.ok("! ls /target/backups 2>/dev/null");

    // Each without what it needs. The backup is made all the same.
    machine.ok("mv /usr/bin/rclone /usr/bin/rclone.away");
    let missing = machine.run("matrix-postgres-backup send");
    assert_eq!(missing.status, NOT_INSTALLED, "{missing}");
    assert!(missing.stderr.contains("HINT: apt-get install rclone"), "{missing}");
    machine.ok(&format!("mv /usr/bin/rclone.away /usr/bin/rclone; mv {CREDENTIAL} /root/conf"));
    let missing = machine.run("matrix-postgres-backup send");
    assert!(
        missing.status == CONFIG && missing.stderr.contains("credential matrix-postgres-rclone.conf"),
        "{missing}"
    );
    assert_eq!(back_up(&machine), CONFIG.to_string());
    assert_eq!(machine.run("matrix-postgres-backup list --at store").status, CONFIG);
    for (what, change) in [
        ("nobody listens", "sed 's/^port = .*/port = 2223/'"),
        ("another key", "sed 's/^key_pem = .*/pass = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/'"),
        ("another host key", "sed 's/known_hosts$/none/'"),
    ] {
        machine.ok(&format!("{change} /root/conf >{CREDENTIAL}"));
        assert_eq!(back_up(&machine), OFFSITE.to_string(), "{what}");
        assert_eq!(machine.ok(&format!("systemctl show --value --property=Result {BACKUP}")), "success");
        let (well, state) = status(&machine);
        assert!(well == NOT_WELL && state["failure"]["reason"].is_string(), "{what}: {state}");
        let listed = machine.run("matrix-postgres-backup list --at store");
        assert!(listed.status == OFFSITE && listed.stderr.contains("HINT: "), "{what}: {listed}");
    }
    let told =
        machine.ok("journalctl --sync; journalctl --no-pager --output=cat --unit='matrix-postgres-notify@*'");
    assert!(told.contains(UNIT) && told.contains("sending to target store has failed since"), "{told}");
    machine.ok(&format!("mv /root/conf {CREDENTIAL}"));
    let made = listed(&machine, "").len();
    assert_eq!(made, 5);

    // A target that fills up, and has room again.
    machine.ok("mkdir -p /target/backups; mount -t tmpfs -o size=2m,mode=0777 tmpfs /target/backups");
    let full = machine.run("matrix-postgres-backup send");
    assert_eq!(full.status, OFFSITE, "{full}");
    assert!(listed(&machine, "--at store").is_empty());
    machine.ok("mount -o remount,size=100m /target/backups");
    send(&machine);
    assert_eq!(listed(&machine, "--at store").len(), made);
    assert_eq!(status(&machine).0, 0);

    // Others change what is there.
    let host = machine.ok("ls -d /target/backups/*");
    let newest = listed(&machine, "").pop().expect("a backup").0;
    machine.ok(&format!(
        "sed -i 's/\"public.bytes\": 800/\"public.bytes\": 801/' {host}/{newest}/manifest.json"
    ));
    assert_eq!(listed(&machine, "--at store").pop(), Some((newest.clone(), false)));
    let refused =
        machine.run(&format!("matrix-postgres-backup restore --from store {newest} --as other --yes"));
    assert!(
        refused.status == DAMAGED && refused.stderr.contains("changed after it was written"),
        "{refused}"
    );
    send(&machine);
    assert_eq!(listed(&machine, "--at store").pop(), Some((newest.clone(), true)));
    machine.ok(&format!(
        "printf x | dd of={host}/{newest}/homeserver.dump.zst bs=1 seek=5000 conv=notrunc status=none"
    ));
    let damaged = machine.run("matrix-postgres-backup verify --at store");
    assert_eq!(damaged.status, DAMAGED, "{damaged}");
    assert_eq!(listed(&machine, "--at store").pop(), Some((newest.clone(), false)));
    send(&machine);
    machine.ok(&format!("matrix-postgres-backup verify --at store {newest}"));
    machine.ok(&format!("matrix-postgres-backup restore --from store {newest} --as other --yes"));
    let absent = machine.run("matrix-postgres-backup restore --from store 20200101T000000Z --yes");
    assert_eq!(absent.status, NO_BACKUP, "{absent}");

    // The retention of a target is its own.
    configure(&machine, "keep = { last = 2, daily = 0, weekly = 0, monthly = 0 }");
    let planned = machine.ok("matrix-postgres-backup prune --at store --dry-run");
    assert!(planned.contains("no retention rule keeps it"), "{planned}");
    assert_eq!(back_up(&machine), "0", "{}", machine.journal_of(UNIT));
    assert_eq!(listed(&machine, "--at store").len(), 2);
    assert_eq!(machine.ok(&format!("ls {host} | wc -l")), "2");
    assert_eq!(listed(&machine, "").len(), made + 1);
}

#[test]
fn a_target_that_forbids_to_remove_and_to_replace_is_left_as_it_is() {
    let Some(machine) = with_bytes("append", 1) else { return };
    // Without a shell, and so without checksums: what was sent is read back.
    serve(&machine, "ForceCommand internal-sftp -P remove,rmdir,rename,posix-rename,hardlink,symlink");
    let keys = "append_only = true\nkeep = { last = 1, daily = 0, weekly = 0, monthly = 0 }";
    configure(&machine, keys);
    for number in 1..=3 {
        assert_eq!(back_up(&machine), "0", "{}", machine.journal_of(UNIT));
        assert_eq!(listed(&machine, "--at store").len(), number);
    }
    assert!(machine.journal_of(UNIT).contains("compared by reading them back"));
    machine.ok("matrix-postgres-backup prune --at store");
    machine.ok("matrix-postgres-backup verify --at store");
    assert_eq!(listed(&machine, "--at store").len(), 3);
    assert_eq!(status(&machine).0, 0);
    // What is changed there cannot be made good.
    let newest = listed(&machine, "").pop().expect("a backup").0;
    machine.ok(&format!("sed -i 's/200/201/' /target/backups/*/{newest}/manifest.json"));
    send(&machine);
    let (well, state) = status(&machine);
    assert!(well == NOT_WELL && state["problems"][0].to_string().contains("cannot be sent again"), "{state}");
}

#[test]
fn a_store_of_objects_has_the_same_verbs() {
    let Some(machine) = with_bytes("objects", 4) else { return };
    machine.ok(
        "mkdir -p /srv/s3/bucket /etc/credstore
         systemd-run --quiet --unit=s3 /opt/rclone/bin/rclone serve s3 --auth-key=ada,secret --addr=127.0.0.1:8080 /srv/s3
         age-keygen -o /root/key 2>/dev/null",
    );
    machine.write(
        CREDENTIAL,
        "[s3]\ntype = s3\nprovider = Other\nendpoint = http://127.0.0.1:8080\naccess_key_id = ada\nsecret_access_key = secret\n",
    );
    let recipient = machine.ok("age-keygen -y /root/key");
    let configure = |last: u32, encrypt_to: &str| {
        machine.write(
            "/etc/matrix-postgres/config.toml",
            &format!(
                "backup.encrypt_to = [{encrypt_to}]\n[[offsite]]\nname = \"store\"\nremote = \"s3:bucket/matrix\"\n\
                 keep = {{ last = {last}, daily = 0, weekly = 0, monthly = 0 }}\n"
            ),
        );
    };
    configure(2, "");
    for _ in 0..3 {
        assert_eq!(back_up(&machine), "0", "{}", machine.journal_of(UNIT));
    }
    assert!(machine.journal_of(UNIT).contains("compared by MD5"), "{}", machine.journal_of(UNIT));
    assert_eq!(listed(&machine, "--at store").len(), 2);
    assert_eq!(machine.ok("ls -d /srv/s3/bucket/matrix/*/*Z | wc -l"), "2");
    configure(1, "");
    machine.ok("matrix-postgres-backup prune --at store");
    let left = listed(&machine, "--at store");
    assert_eq!(left.len(), 1);
    machine.ok("matrix-postgres-backup verify --at store");
    machine.ok(&format!("matrix-postgres-backup restore --from store {} --as plain --yes", left[0].0));

    configure(1, &format!("\"{recipient}\""));
    assert_eq!(back_up(&machine), "0", "{}", machine.journal_of(UNIT));
    let name = listed(&machine, "--at store")[0].0.clone();
    machine.ok("matrix-postgres-backup verify --at store && matrix-postgres-backup verify --at store --identity /root/key");
    machine.ok(&format!(
        "matrix-postgres-backup restore --from store {name} --as private --identity /root/key --yes"
    ));
    let rows = "SELECT count(*) FROM bytes";
    for database in ["plain", "private"] {
        assert_eq!(
            machine.ok(&format!("matrix-postgres-cli -XAtqd {database} -c '{rows}'")),
            "800",
            "{database}"
        );
    }
    let wrong =
        machine.run(&format!("sed -i 's/= secret/= other/' {CREDENTIAL}; matrix-postgres-backup send"));
    assert_eq!(wrong.status, OFFSITE, "{wrong}");
}
