//! Encrypted backups in booted machines: by age and by gpg, in the sandbox of the unit, read with stock tools.

use crate::machine::{self, Machine, Output};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const DAMAGED: i32 = 26;
const CONFIG: i32 = 27;
const NOT_INSTALLED: i32 = 30;
const NO_KEY: i32 = 43;

/// What a table holds, and no file must show.
const MARKER: &str = "MARKERthatmustnotbeseen";

const BACKUPS: &str = "/var/backups/matrix-postgres";

/// A machine with a server, and a table of 50,000 rows that show the marker.
fn with_rows(name: &str) -> Option<Machine> {
    let machine = machine::for_test(name)?;
    machine.ok(&format!(
        "systemctl start matrix-postgres.service
         matrix-postgres-cli -XAtq -v ON_ERROR_STOP=1 -c \"CREATE TABLE secrets AS
             SELECT n, '{MARKER} ' || md5(n::text) AS said FROM generate_series(1, 50000) n\"
         matrix-postgres-cli -XAtq -c \"CREATE ROLE {MARKER} LOGIN\"
         mkdir -p /etc/matrix-postgres"
    ));
    Some(machine)
}

/// Configures and starts the unit; what it said, and its exit status.
fn back_up(machine: &Machine, settings: &str) -> Output {
    machine.write("/etc/matrix-postgres/config.toml", &format!("[backup]\n{settings}\n"));
    let mut output = machine.run(
        "since=$(date '+%F %T'); systemctl start matrix-postgres-backup.service || true
         # Not by unit: of a process that has ended at once, the journal may no longer find out whose it was.
         journalctl --sync
         journalctl --no-pager --output=cat --since=\"$since\"
         exit $(systemctl show --value --property=ExecMainStatus matrix-postgres-backup.service)",
    );
    output.stderr.clear();
    output
}

#[track_caller]
fn refused(machine: &Machine, settings: &str, status: i32, expected: &[&str]) {
    machine.ok("sleep 1");
    let output = back_up(machine, settings);
    assert_eq!(output.status, status, "{output}");
    for text in expected {
        assert!(output.stdout.contains(text), "{text}: {output}");
    }
    assert_eq!(machine.ok(&format!("ls -A {BACKUPS}")), "", "{output}");
}

/// Backs up, and looks whether anything readable is on the disk, now or at any time on the way.
#[track_caller]
fn encrypted(machine: &Machine, settings: &str, extension: &str) {
    // Everything that is written is looked at as long as the backup runs.
    let mut watch = machine
        .command(&format!(
            "while ! test -e /run/done; do
                 if grep -rqsa '{MARKER}' {BACKUPS}; then touch /run/seen; fi; sleep 0.02
             done"
        ))
        .spawn()
        .expect("nsenter should start");
    let output = back_up(machine, settings);
    machine.ok("touch /run/done");
    watch.wait().expect("the watcher should end");
    assert_eq!(output.status, 0, "{output}");
    machine.ok(&format!("rm /run/done; ! test -e /run/seen; ! grep -ra {MARKER} {BACKUPS}"));
    // Nothing else is unpacked by zstd, either.
    let files =
        machine.ok(&format!("cd {BACKUPS}/*Z && ls -A && ! ls | grep -v 'manifest.json\\|{extension}$'"));
    assert!(
        files.contains(&format!("globals.sql.zst.{extension}\nhomeserver.dump.zst.{extension}")),
        "{files}"
    );
    let listed = machine.ok("matrix-postgres-backup list --json");
    assert!(listed.contains("\"verified\": true") && listed.contains("\"method\": "), "{listed}");
    let manifest = machine.ok(&format!("cat {BACKUPS}/*Z/manifest.json"));
    assert!(manifest.contains("\"public.secrets\": 50000") && manifest.contains("\"how\": \"stream\""));
    let verified = machine.run("matrix-postgres-backup verify");
    assert_eq!(verified.status, 0, "{verified}");
    assert!(
        verified.stderr.contains("and not now; to read it back, pass the private key: --identity"),
        "{verified}"
    );
}

/// What anybody does who has nothing but the files and the key.
#[track_caller]
fn restored(machine: &Machine, decrypt: &str, extension: &str) {
    machine.ok(&format!(
        "runuser -u postgres -- dropdb -p 5432 --if-exists restored 2>/dev/null
         runuser -u postgres -- createdb -p 5432 --template=template0 --encoding=UTF8 --locale=C restored
         {decrypt} {BACKUPS}/*Z/homeserver.dump.zst.{extension} | zstd -d |
             runuser -u postgres -- pg_restore -p 5432 --exit-on-error --no-owner --no-acl --dbname=restored
         {decrypt} {BACKUPS}/*Z/globals.sql.zst.{extension} | zstd -d | grep -ci {MARKER}"
    ));
    let rows = machine.ok(&format!(
        "runuser -u postgres -- psql -XAtp 5432 restored -c \"SELECT count(*) FROM secrets WHERE said LIKE '{MARKER} %'\""
    ));
    assert_eq!(rows, "50000");
}

/// With the key all is read, and recorded; with another, nothing is.
#[track_caller]
fn verified_with(machine: &Machine, identity: &str, other: &str) {
    let manifest = || machine.ok(&format!("cat {BACKUPS}/*Z/manifest.json"));
    let before = manifest();
    let wrong = machine.run(&format!("matrix-postgres-backup verify --identity {other}"));
    assert_eq!(wrong.status, NO_KEY, "{wrong}");
    assert!(wrong.stderr.contains("could not decrypt") && wrong.stderr.contains("HINT: "), "{wrong}");
    assert_eq!(manifest(), before);
    let right = machine.run(&format!("matrix-postgres-backup verify --identity {identity}"));
    assert_eq!(right.status, 0, "{right}");
    assert!(right.stderr.contains("is intact: 50,000 rows"), "{right}");
    assert!(manifest().contains("\"how\": \"decrypted\""), "{}", manifest());
    assert_eq!(machine.ok(&format!("stat -c %U {BACKUPS}/*Z/manifest.json")), "matrix-postgres");
}

#[test]
fn age_encrypts_what_only_the_key_reads() {
    let Some(machine) = with_rows("age") else { return };
    let recipient = machine.ok(
        "age-keygen -o /root/key 2>/dev/null; age-keygen -o /root/other 2>/dev/null; age-keygen -y /root/key",
    );
    machine.write("/etc/matrix-postgres/recipients", &format!("# the administrator\n{recipient}\n"));

    // Nothing is dumped when it could not be encrypted.
    let nothing = ["nothing was dumped", "HINT: "];
    let age1x = "encrypt_to = [\"age1x\"]";
    refused(
        &machine,
        age1x,
        CONFIG,
        &["cannot encrypt with age to age1x", "malformed recipient", nothing[0]],
    );
    refused(&machine, "recipients_file = \"/etc/none\"", CONFIG, &nothing);
    let good = format!("encrypt_to = [\"{recipient}\"]");
    machine.ok("mv /usr/bin/age /usr/bin/age.away");
    refused(&machine, &good, NOT_INSTALLED, &["age is not installed", nothing[0]]);
    machine.ok("printf '#!/bin/sh\\nexec cat\\n' >/usr/bin/age; chmod 0755 /usr/bin/age");
    refused(&machine, &good, CONFIG, &["is not encrypted", nothing[0]]);
    machine.ok("mv /usr/bin/age.away /usr/bin/age");

    encrypted(&machine, "recipients_file = \"/etc/matrix-postgres/recipients\"", "age");
    let planned = machine.ok("matrix-postgres-backup run --dry-run");
    assert!(planned.contains("homeserver.dump.zst.age") && planned.contains(&recipient), "{planned}");
    restored(&machine, "age -d -i /root/key", "age");
    verified_with(&machine, "/root/key", "/root/other");

    // A flipped byte is damage, with the key and without it.
    machine.ok(&format!(
        "file=$(echo {BACKUPS}/*Z/homeserver.dump.zst.age); cp $file /root/good
         byte=$(od -An -tu1 -j 5000 -N 1 $file)
         printf \"\\\\$(printf %o $(((byte + 1) % 256)))\" | dd of=$file bs=1 seek=5000 conv=notrunc status=none
         ! cmp -s $file /root/good"
    ));
    for arguments in ["", "--identity /root/key"] {
        let output = machine.run(&format!("matrix-postgres-backup verify {arguments}"));
        assert_eq!(output.status, DAMAGED, "{arguments}: {output}");
        assert!(output.stderr.contains("its SHA-256 checksum does not match"), "{output}");
    }
}

#[test]
fn gpg_encrypts_what_only_the_key_reads() {
    let Some(machine) = with_rows("gpg") else { return };
    let home = "/etc/matrix-postgres/gnupg";
    let fingerprint = machine.ok(
        "for name in ada grace; do
             mkdir -m 0700 /root/$name
             gpg --homedir /root/$name --batch --quiet --passphrase '' --quick-generate-key $name@test.example \
                 default default never 2>/dev/null
         done
         gpg --homedir /root/ada --export >/root/ada.key
         gpg --homedir /root/ada --with-colons --list-keys | awk -F: '$1 == \"fpr\" {print $10; exit}'",
    );
    let by_address = "encrypt_to = [\"ada@test.example\"]";
    refused(&machine, by_address, CONFIG, &[home, "nothing was dumped", "HINT: "]);
    machine.ok(&format!("install -d -m 0700 -o matrix-postgres -g matrix-postgres {home}"));
    refused(&machine, by_address, CONFIG, &["No public key", "nothing was dumped", "HINT: "]);
    machine.ok(&format!(
        "runuser -u matrix-postgres -- gpg --homedir {home} --batch --import </root/ada.key 2>&1"
    ));
    // The address of another, that this one is a part of, is not meant.
    refused(&machine, "encrypt_to = [\"a@test.example\"]", CONFIG, &["No public key"]);

    encrypted(&machine, &format!("encrypt_to = [\"{fingerprint}\"]"), "gpg");
    restored(&machine, "gpg --homedir /root/ada --batch --quiet -d", "gpg");
    verified_with(&machine, "/root/ada", "/root/grace");
}

#[test]
fn what_a_homeserver_needs_besides_is_in_an_encrypted_backup_and_named_by_any_other() {
    let Some(machine) = with_rows("companions") else { return };
    machine.ok(&format!(
        "install -d /etc/matrix-synapse/conf.d /matrix/synapse/config
         echo 'ed25519 a_1 {MARKER}' >/etc/matrix-synapse/key; chown daemon /etc/matrix-synapse/key; chmod 0600 /etc/matrix-synapse/key
         echo 'signing_key_path: /etc/matrix-synapse/key' >/etc/matrix-synapse/homeserver.yaml
         echo 'media_store_path: /var/lib/matrix-synapse/media' >>/etc/matrix-synapse/homeserver.yaml
         printf 'app_service_config_files:\\n- /etc/matrix-synapse/gone.yaml\\n' >/etc/matrix-synapse/conf.d/a.yaml
         # Another user's configuration names what he may not read, himself and by a link of his.
         cd /matrix/synapse/config
         printf 'signing_key_path: /etc/shadow\\nlog_config: /data/link\\nform_secret_path: /data/own\\n' >homeserver.yaml
         ln -s /etc/shadow link; echo own >own; chown -h daemon . *"
    ));
    machine.write(
        "/etc/systemd/system/matrix-synapse.service",
        "[Service]\nExecStartPre=/usr/bin/env docker create --name matrix-synapse \\\n  \
         --mount type=bind,src=/matrix/synapse/config,dst=/data synapse:v1\n\
         ExecStart=/usr/bin/env docker start --attach matrix-synapse\n",
    );
    // By whatever way it is made, a backup that is not encrypted names them, and has nothing of them.
    for by_hand in [false, true] {
        match by_hand {
            true => drop(machine.ok("matrix-postgres-backup run")),
            false => assert_eq!(back_up(&machine, "").status, 0),
        }
        machine.ok(&format!(
            "! grep -ra {MARKER} {BACKUPS}/*Z/manifest.json; ! ls {BACKUPS}/*Z/companions* 2>/dev/null"
        ));
        let status = machine.ok("matrix-postgres-backup status");
        assert!(
            status.contains(
                "warning: not in the backup, and needed by the homeserver: /etc/matrix-synapse/homeserver.yaml, /etc/matrix-synapse/key, "
            ) && status.contains("/var/lib/matrix-synapse/media")
                && status.contains("state:       ok"),
            "{status}"
        );
        machine.ok(&format!("rm -r {BACKUPS}/*Z"));
    }
    let recipient = machine.ok("age-keygen -o /root/key 2>/dev/null; age-keygen -y /root/key");
    let settings = format!("encrypt_to = [\"{recipient}\"]");
    for by_hand in [false, true] {
        match by_hand {
            true => drop(machine.ok("matrix-postgres-backup run")),
            false => assert_eq!(back_up(&machine, &settings).status, 0),
        }
        let unpack = format!("age -d -i /root/key {BACKUPS}/*Z/companions.tar.zst.age | zstd -d | tar");
        assert_eq!(
            machine.ok(&format!("{unpack} -t")),
            "etc/matrix-synapse/homeserver.yaml\netc/matrix-synapse/key\nmatrix/synapse/config/homeserver.yaml\n\
             matrix/synapse/config/own\netc/matrix-synapse/conf.d/a.yaml"
        );
        let key = machine.ok(&format!("{unpack} -xO etc/matrix-synapse/key; ! grep -ra {MARKER} {BACKUPS}"));
        assert_eq!(key, format!("ed25519 a_1 {MARKER}"));
        let status = machine.ok("matrix-postgres-backup status");
        let missing = "not in the backup, and needed by the homeserver: /etc/shadow, /matrix/synapse/config/link, \
                       /etc/matrix-synapse/gone.yaml, /var/lib/matrix-synapse/media; copy them elsewhere";
        assert!(status.contains(missing), "{status}");
        machine.ok("matrix-postgres-backup verify --identity /root/key");
        machine.ok(&format!("rm -r {BACKUPS}/*Z"));
    }
    // Without the unit there is a backup all the same, and that something is missing is said.
    machine.ok("systemctl stop matrix-postgres-companions.socket");
    let without = back_up(&machine, &settings);
    assert_eq!(without.status, 0, "{without}");
    assert!(without.stdout.contains("the homeserver's own files are not looked at"), "{without}");
    machine.ok("systemctl start matrix-postgres-companions.socket; rm -r /var/backups/matrix-postgres/*Z");
    assert_eq!(back_up(&machine, &format!("{settings}\ncompanions = false")).status, 0);
    machine.ok(&format!(
        "! grep -c homeserver.yaml {BACKUPS}/*Z/manifest.json; ! ls {BACKUPS}/*Z/companions* 2>/dev/null"
    ));
    machine.ok("! matrix-postgres-backup status | grep -c 'not in the backup'");
}
