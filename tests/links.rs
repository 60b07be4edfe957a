//! What the cluster's owner may put where root works: links to what he may not reach, pipes that nobody writes to, and
//! directories that are exchanged while root is at them. Nothing of others is read, changed, given away, removed or ended.

use crate::machine::upgrade::{prepare, sql};
use crate::machine::{self, Machine};

/// A verb that waits for what never comes is ended after so many seconds, which no verb here comes near.
const HANGS: &str = "timeout --signal=KILL 1500";
const KILLED: i32 = 137;

/// What is root's, and another user's: in places of their own, and in one of the cluster's owner.
const CANARIES: &str = "
useradd --create-home bob
echo 'root:a password that nobody has' | chpasswd
install -m 600 /dev/null /root/canary && echo 'canary of root' >/root/canary
install -d -m 700 /srv/precious && echo 'precious of root' >/srv/precious/file
install -d -m 755 /matrix/postgres/roots && echo 'in their directory' >/matrix/postgres/roots/file
runuser -u bob -- bash -c 'umask 077; mkdir ~/dir; echo canary of bob >~/dir/file; echo secret of bob >~/secret'
sed -n 's/^root:\\([^:]*\\):.*/\\1/p' /etc/shadow >/root/hash
";

/// All that can be seen of them.
const STATE: &str = "find /root/canary /srv/precious /matrix/postgres/roots* /home/bob /etc/shadow /etc/passwd \
    -printf '%p %y %m %U %G %i %T@ ' -exec cksum '{}' ';' 2>&1 | sort";

/// Runs it as the cluster's owner.
fn as_owner(machine: &Machine, script: &str) {
    machine.write("/tmp/attack", script);
    machine.ok("cd /matrix/postgres && runuser -u matrix-postgres -- bash -eu /tmp/attack");
}

struct Watch<'a> {
    machine: &'a Machine,
    before: String,
}

impl<'a> Watch<'a> {
    fn begin(machine: &'a Machine) -> Self {
        machine.ok(CANARIES);
        let before = machine.ok(STATE);
        assert!(
            before.contains("/root/canary f 600 0 0") && before.contains("/srv/precious/file"),
            "{before}"
        );
        Self { machine, before }
    }

    /// Runs a verb as root; returns its status and what it said.
    #[track_caller]
    fn run(&self, verb: &str) -> (i32, String) {
        let done = self.machine.run(&format!("{HANGS} {verb} 2>&1"));
        assert_ne!(done.status, KILLED, "{verb} hangs: {done}");
        self.is_unharmed(verb);
        let hash = self.machine.ok("cat /root/hash");
        assert!(hash.len() > 10);
        for secret in [hash.as_str(), "canary of", "precious of", "secret of"] {
            assert!(!done.stdout.contains(secret), "{verb}: {done}");
        }
        (done.status, done.stdout)
    }

    #[track_caller]
    fn is_unharmed(&self, after: &str) {
        assert_eq!(self.machine.ok(STATE), self.before, "{after}");
        let found = self.machine.ok(
            "grep --recursive --devices=skip --files-with-matches --fixed-strings --file=/root/hash \
             /matrix /var/backups /var/lib/matrix-postgres* /run/matrix-postgres* /tmp || true; \
             journalctl --no-pager --quiet | grep --fixed-strings --file=/root/hash || true",
        );
        assert_eq!(found, "", "{after}");
    }
}

const CHECK: &str = "matrix-postgres-upgrade check";
const REHEARSE: &str = "matrix-postgres-upgrade rehearse";

#[test]
fn what_the_owner_plants_leads_root_nowhere() {
    let Some(machine) = machine::for_test("links-planted") else { return };
    prepare(&machine, 15, "online");
    let watch = Watch::begin(&machine);
    as_owner(&machine, "cp data/postgresql.conf /tmp/conf");

    // Configuration that is included.
    for target in ["/etc/shadow", "/root/canary", "/home/bob/secret", "/srv/precious/file"] {
        as_owner(
            &machine,
            &format!(
                "ln -sfn {target} data/evil.conf; grep -q evil data/postgresql.conf || echo \"include 'evil.conf'\" >>data/postgresql.conf"
            ),
        );
        let (status, text) = watch.run(CHECK);
        assert!(status != 0 && text.contains("is not a file that matrix-postgres may read"), "{text}");
    }
    as_owner(&machine, "rm data/evil.conf; mkfifo data/evil.conf");
    let (status, text) = watch.run(CHECK);
    assert!(status != 0 && text.contains("is not a file that matrix-postgres may read"), "{text}");
    as_owner(&machine, "rm data/evil.conf; cp /tmp/conf data/postgresql.conf");

    // The server's own small files. A server that runs writes some of them.
    machine.ok("systemctl stop matrix-synapse.service matrix-postgres.service");
    for plant in ["ln -s /etc/shadow", "ln -s /root/canary", "mkfifo"] {
        for file in ["PG_VERSION", "global/pg_control"] {
            as_owner(&machine, &format!("mv data/{file} /tmp/aside; {plant} data/{file}"));
            for verb in [
                CHECK,
                "matrix-postgres-upgrade status",
                "/usr/libexec/matrix-postgres/matrix-postgres-server --dry-run",
            ] {
                watch.run(verb);
            }
            as_owner(&machine, &format!("rm data/{file}; mv /tmp/aside data/{file}"));
        }
    }
    machine.ok("systemctl start matrix-postgres.service matrix-synapse.service");

    // Backups that root looks at.
    as_owner(
        &machine,
        "b=/var/backups/matrix-postgres; mkdir $b/20200101T000000Z $b/20200102T000000Z
        mkfifo $b/20200101T000000Z/manifest.json; ln -s /etc/shadow $b/20200102T000000Z/manifest.json",
    );
    watch.run(CHECK);
    watch.run("matrix-postgres-backup list");
    watch.run("matrix-postgres-backup status");
    as_owner(&machine, "rm -r /var/backups/matrix-postgres/20200*");
    watch.run("systemctl start matrix-postgres-backup.service");

    // What looks as if a rehearsal had left it: root's own directory, links, and other users' processes in it.
    let left = "/matrix/postgres/data.rehearsal-20200101T000000Z";
    machine.ok(&format!(
        "cp /bin/sleep /tmp/postgres && chmod 755 /tmp/postgres
         systemd-run --quiet --unit=bobs-server --uid=bob /tmp/postgres 100000
         systemd-run --quiet --unit=bobs-copy --uid=bob bash -c 'exec -a /x/pg_basebackup sleep 100000 & exec -a /x/pg_basebackup bash -c \"sleep 100000; true\" --pgdata {left}-copy'"
    ));
    as_owner(&machine, &format!(
        "mkdir {left} {left}-copy data.rehearsal-20200102T000000Z; ln -s /srv/precious {left}/link; ln -s /home/bob/dir {left}-copy/base
         systemctl show --property=MainPID --value bobs-server.service >{left}/postmaster.pid
         echo 1 >data.rehearsal-20200102T000000Z/postmaster.pid; mkfifo {left}/pipe"
    ));
    let (status, text) = watch.run(REHEARSE);
    assert_eq!(status, 0, "{text}");
    assert_eq!(machine.ok("ls -d /matrix/postgres/data.* || true"), "");
    machine.ok("systemctl is-active bobs-server.service bobs-copy.service");
    as_owner(&machine, "mkdir data.rehearsal-20200103T000000Z; mv roots data.rehearsal-20200101T000000Z");
    let done = machine.run(&format!("{HANGS} {REHEARSE} 2>&1"));
    assert!(
        done.status != 0
            && done.stdout.contains("could not remove leftovers of a rehearsal or a check: /matrix/postgres/data.rehearsal-20200101T000000Z"),
        "{done}"
    );
    assert_eq!(
        machine.ok("cat /matrix/postgres/data.rehearsal-20200101T000000Z*/file"),
        "in their directory"
    );
    assert!(
        machine.run("test -e /matrix/postgres/data.rehearsal-20200103T000000Z").status != 0,
        "the others are removed"
    );
    as_owner(&machine, "mv data.rehearsal-20200101T000000Z* roots");
    watch.is_unharmed("what was root's");

    // A file that nothing names goes along as the link that it is.
    as_owner(&machine, "ln -s /etc/shadow data/notes; mkfifo data/evil-pipe");
    let (status, text) = watch.run("systemctl start matrix-postgres-upgrade.service");
    assert_eq!(
        status,
        0,
        "{text}\n{}",
        machine.run("journalctl -u matrix-postgres-upgrade -o cat --no-pager -n 40").stdout
    );
    assert_eq!(machine.ok("readlink /matrix/postgres/data/notes"), "/etc/shadow");
    let (status, text) = watch.run("matrix-postgres-upgrade rollback --yes");
    assert_eq!(status, 0, "{text}");
    assert_eq!(sql(&machine, "postgres", "SELECT 1"), "1");
    let foreign = "find /matrix/postgres /var/backups/matrix-postgres ! -user matrix-postgres ! -path '*/roots*' ! -name 'synapse-database.yaml*'";
    assert_eq!(machine.ok(foreign), "");
}

/// While root is at work, each of its directories is a link for a moment, and links and pipes are where it writes.
const SWAPS: &str = "
cd /matrix/postgres
targets=(/srv/precious /home/bob/dir /root /etc)
n=0
while :; do
    for directory in data.upgrade-* data.rehearsal-*; do
        # As far as it gets without us, and not each time.
        [ -e $directory/global/pg_control ] && [ ! -L $directory ] && [ $((RANDOM % 4)) = 0 ] || continue
        n=$((n + 1)); target=${targets[n % 4]}
        case $((n % 5)) in
        0) mv -T $directory .swapped && ln -s $target $directory && sleep 0.02; rm -f $directory; mv -T .swapped $directory ;;
        1) for file in pg_hba.conf standby.signal postgresql.conf pg_ident.conf; do
               [ -e $directory/$file ] || { ln -s /root/canary $directory/$file; sleep 0.01; rm -f $directory/$file; }
           done ;;
        2) mkdir -p $directory/pg_upgrade_output.d; mkfifo $directory/pg_upgrade_output.d/x.log; ln -s /etc/shadow $directory/pg_upgrade_output.d/y.log ;;
        3) mkfifo $directory/evil-pipe$n.conf; ln -s $target $directory/evil-link$n; ln -s /etc/shadow $directory/evil$n.conf ;;
        4) mkdir $directory/evil$n; mv -T $directory/evil$n .evil; ln -s $target $directory/evil$n; sleep 0.01; mv -T .evil $directory/.evil$n ;;
        esac
    done 2>/dev/null
    sleep 0.$((RANDOM % 10))
done
";

#[test]
#[ignore = "make thorough"]
fn what_the_owner_exchanges_meanwhile_leads_root_nowhere() {
    let Some(machine) = machine::for_test("links-swapped") else { return };
    prepare(&machine, 15, "online");
    let watch = Watch::begin(&machine);
    machine.write("/tmp/swaps", SWAPS);
    machine.ok("systemd-run --quiet --unit=swaps --uid=matrix-postgres bash /tmp/swaps");
    for verb in [
        REHEARSE,
        "matrix-postgres-upgrade rehearse --method dump",
        "matrix-postgres-upgrade run",
        "matrix-postgres-upgrade recover",
        "matrix-postgres-upgrade run --method dump",
        "matrix-postgres-upgrade recover",
        "matrix-postgres-upgrade rollback --yes",
        "matrix-postgres-upgrade recover",
    ] {
        // It may fail, as the owner may break what is his.
        watch.run(verb);
        machine.ok("systemctl is-active swaps.service");
    }
    machine.ok("systemctl stop swaps.service");
}
