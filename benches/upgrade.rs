//! The downtime of an upgrade, against the way that the Matrix Ansible playbook documents and against Debian's
//! `pg_upgradecluster --link`, in one run: `make bench`, or with `EVENTS="250000 1000000"` for other sizes (1,000,000 events
//! are 2.7 GB). It is measured from outside, ours and `pg_upgradecluster`'s alike: the longest time in which a client that
//! tries every 20 ms could not log in and ask. The playbook's way is what its documentation has between the services'
//! stop and their start.
//!
//! The cluster that `pg_upgradecluster` upgrades is upgraded by our unit before, and rolled back: `ONLY=debian` measures
//! these two and nothing else.
//!
//! `BASE=other.deb`: another build of this package is measured in the same run, three upgrades of each in turn; medians count.

#[path = "../tests/machine/mod.rs"]
mod machine;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use machine::probe::Probe;
use machine::{Image, Machine, Synapse, package};

/// Dump all, pack, start an empty new server, restore: its steps, without Docker and without the services' own time.
const PLAYBOOK: &str = r#"
cd /var/tmp
old=/usr/lib/postgresql/15/bin new=/usr/lib/postgresql/17/bin
$old/pg_dumpall -h /run/matrix-postgres -U postgres | gzip -c >playbook.sql.gz
systemctl stop matrix-postgres.service
install -d -o matrix-postgres -m 0700 /matrix/playbook /run/playbook
as() { setpriv --reuid matrix-postgres --regid matrix-postgres --clear-groups "$@"; }
as $new/initdb --locale=C --encoding=UTF8 --data-checksums --auth=trust --username=postgres -D /matrix/playbook >/dev/null
as $new/pg_ctl -w -s -D /matrix/playbook -o '-k /run/playbook -c listen_addresses=' -l /matrix/playbook.log start
zcat playbook.sql.gz | grep -vE '^(CREATE|ALTER) ROLE postgres' | psql -qX -h /run/playbook -U postgres postgres >/dev/null
"#;

const CLEAN_UP: &str = "
    setpriv --reuid matrix-postgres --clear-groups /usr/lib/postgresql/17/bin/pg_ctl -m immediate -s -D /matrix/playbook stop
    rm -r /matrix/playbook /var/tmp/playbook.sql.gz
    systemctl start matrix-postgres.service matrix-synapse.service";

/// A cluster of Debian's with the same files.
const DEBIAN: &str = r#"
systemctl stop matrix-synapse.service matrix-postgres.service
pg_createcluster --datadir /matrix/debian15 15 bench >/dev/null
rm -r /matrix/debian15 && cp -a /matrix/postgres/data /matrix/debian15
cp /etc/postgresql/15/bench/pg_hba.conf /etc/postgresql/15/bench/pg_ident.conf /matrix/debian15
chown -R postgres: /matrix/debian15 && chmod 0711 /matrix
pg_ctlcluster 15 bench start
psql -p $(pg_lsclusters -h | awk '$2 == "bench" { print $3 }') -h /var/run/postgresql -U postgres -qc CHECKPOINT 2>/dev/null || \
    runuser -u postgres -- psql -p $(pg_lsclusters -h | awk '$2 == "bench" { print $3 }') -qc CHECKPOINT
sync"#;

const LINK: &str = "pg_upgradecluster --method=upgrade --link --version=17 15 bench /matrix/debian17 >/var/tmp/link.log 2>&1";

const AWAY: &str = "
pg_dropcluster --stop 17 bench; pg_dropcluster --stop 15 bench; rm -rf /matrix/debian15 /matrix/debian17
systemctl start matrix-postgres.service matrix-synapse.service";

/// What grows with the size is not measured where there are more events.
const SLOW: u64 = 1_500_000;

/// Upgrades of each of two builds that are compared.
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let sizes = std::env::var("EVENTS").unwrap_or_else(|_| "250000 1000000 3000000".into());
    Image::Usual.build()?;
    package::current()?;
    let mut table = String::from(
        "| size | the playbook's way | `pg_upgradecluster --link` | this, on the same cluster | this, `dump` | this, `online` | of --link | of the playbook's |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for events in sizes.split_whitespace() {
        measure(events.parse()?, &mut table)?;
    }
    println!("\n{table}");
    Ok(())
}

fn measure(events: u64, table: &mut String) -> Result<(), Box<dyn Error>> {
    let machine = homeserver(&package::current()?, events)?;
    let size = "SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database";
    let size = machine.ok(&format!("matrix-postgres-cli -XAtqc '{size}'"));

    let is_debian_only = std::env::var("ONLY").is_ok_and(|only| only == "debian");
    let online = match std::env::var_os("BASE") {
        _ if is_debian_only => None,
        Some(base) => Some(against(&machine, &homeserver(Path::new(&base), events)?)?),
        None => Some(ours(&machine, "online")?),
    };
    let (mut dump, mut playbook) = (None, None);
    if events <= SLOW && !is_debian_only {
        dump = Some(ours(&machine, "dump")?);
        let clock = Instant::now();
        machine.ok("systemctl stop matrix-synapse.service");
        machine.ok(PLAYBOOK);
        playbook = Some(clock.elapsed().as_secs_f64());
        machine.ok(CLEAN_UP);
    }

    machine.ok(DEBIAN);
    let port = machine.ok("pg_lsclusters -h | awk '$2 == \"bench\" { print $3 }'");
    let place = format!("host=127.0.0.1 port={port}");
    let debian = on_debians(&machine, &place)?;
    let probe = Probe::start(&machine, &place);
    let linked = machine.run(LINK);
    if linked.status != 0 {
        return Err(machine.ok("cat /var/tmp/link.log").into());
    }
    let link = probe.end();
    machine.ok(AWAY);

    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), |it| format!("{it:.1} s"));
    let share = |ours: Option<f64>, of: Option<f64>| {
        ours.zip(of).map_or_else(|| "–".to_owned(), |(ours, of)| format!("{:.2}", ours / of))
    };
    let (of_link, of_playbook) = (share(Some(debian), Some(link)), share(online, playbook));
    let (playbook, dump, online) = (seconds(playbook), seconds(dump), seconds(online));
    println!(
        "{size}: {playbook}, {link:.1} s, {debian:.1} s, {dump}, {online}: {of_link} of --link, {of_playbook} of the playbook's"
    );
    let _ = writeln!(
        table,
        "| {size} | {playbook} | {link:.1} s | {debian:.1} s | {dump} | {online} | {of_link} | {of_playbook} |"
    );
    Ok(())
}

/// On 15, with this build installed and so many events, and running.
fn homeserver(package: &Path, events: u64) -> Result<Machine, Box<dyn Error>> {
    let machine = Machine::boot("bench-upgrade")?;
    package::install_this(&machine, package);
    machine
        .ok("mkdir -p /etc/matrix-postgres && touch /matrix/playbook.log && chmod 666 /matrix/playbook.log");
    machine.write("/etc/matrix-postgres/config.toml", "[server]\nversion = 15\n");
    machine.ok("systemctl start matrix-postgres.service");
    machine.write("/etc/matrix-postgres/config.toml", "[upgrade]\nbackup_within = \"never\"\n");
    Synapse::set_up(&machine);
    machine.ok("systemctl stop matrix-synapse.service");
    machine::synapse::fill(&machine, events);
    machine.ok("matrix-postgres-cli -qc CHECKPOINT && systemctl start matrix-synapse.service && sync");
    Ok(machine)
}

/// Measures this build against another one; of this one, the median.
fn against(machine: &Machine, base: &Machine) -> Result<f64, Box<dyn Error>> {
    let (mut these, mut those) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        those.push(ours(base, "online")?);
        these.push(ours(machine, "online")?);
    }
    println!("downtime, seconds: the other build {those:.2?}, this one {these:.2?}");
    let (that, this) = (median(those), median(these));
    println!("medians: the other build {that:.2} s, this one {this:.2} s: {:+.2} s", this - that);
    Ok(this)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Upgrades by this method, and goes back; returns the downtime in seconds.
fn ours(machine: &Machine, method: &str) -> Result<f64, Box<dyn Error>> {
    machine.write(
        "/etc/matrix-postgres/config.toml",
        &format!("[upgrade]\nbackup_within = \"never\"\nmethod = \"{method}\"\n"),
    );
    let seconds = upgrade(machine, method, "host=/run/matrix-postgres")?;
    machine.ok("matrix-postgres-upgrade rollback --yes && rm -r /matrix/postgres/data.upgrade-*");
    Ok(seconds)
}

/// The same of Debian's cluster, which is as it was afterwards.
fn on_debians(machine: &Machine, place: &str) -> Result<f64, Box<dyn Error>> {
    machine.write(
        "/etc/matrix-postgres/config.toml",
        "server.cluster = \"15/bench\"\n[upgrade]\nbackup_within = \"never\"\nmethod = \"online\"\n",
    );
    let seconds = upgrade(machine, "online, 15/bench", place)?;
    machine.ok("matrix-postgres-upgrade rollback --yes && matrix-postgres-upgrade clean --yes");
    machine.write("/etc/matrix-postgres/config.toml", "[upgrade]\nbackup_within = \"never\"\n");
    Ok(seconds)
}

/// Upgrades by our unit, while the client asks the server at `place`.
fn upgrade(machine: &Machine, method: &str, place: &str) -> Result<f64, Box<dyn Error>> {
    let probe = Probe::start(machine, place);
    machine.ok("systemctl start matrix-postgres-upgrade.service || { journalctl -u matrix-postgres-upgrade >&2; false; }");
    let seconds = probe.end();
    let status: Value = serde_json::from_str(&machine.ok("matrix-postgres-upgrade status --json"))?;
    for step in status["latest"]["durations"].as_array().ok_or("no durations")? {
        let (name, took) = (step[0].as_str().unwrap_or_default(), step[1].as_f64().unwrap_or_default());
        println!("{method}: {name} {took:.2} s");
    }
    println!("{method}: {seconds:.2} s without a log-in");
    Ok(seconds)
}
