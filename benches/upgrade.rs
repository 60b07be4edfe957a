//! The downtime of an upgrade against the way that the Matrix Ansible playbook documents, in one run: `make bench`,
//! or with `EVENTS="250000 1000000"` for other sizes (1,000,000 events are 2.7 GB).

#[path = "../tests/machine/mod.rs"]
mod machine;

use std::error::Error;
use std::time::Instant;

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

fn main() -> Result<(), Box<dyn Error>> {
    let sizes = std::env::var("EVENTS").unwrap_or_else(|_| "1000000".into());
    Image::Usual.build()?;
    package::current()?;
    println!("| events | the playbook's way | this | times less |\n|---|---|---|---|");
    for events in sizes.split_whitespace() {
        measure(events.parse()?)?;
    }
    Ok(())
}

fn measure(events: u64) -> Result<(), Box<dyn Error>> {
    let machine = Machine::boot("bench-upgrade")?;
    package::install(&machine);
    machine
        .ok("mkdir -p /etc/matrix-postgres && touch /matrix/playbook.log && chmod 666 /matrix/playbook.log");
    machine.write("/etc/matrix-postgres/config.toml", "[server]\nversion = 15\n");
    machine.ok("systemctl start matrix-postgres.service");
    machine.write("/etc/matrix-postgres/config.toml", "[upgrade]\nbackup_within = \"never\"\n");
    Synapse::set_up(&machine);
    machine.ok("systemctl stop matrix-synapse.service");
    machine::synapse::fill(&machine, events);
    machine.ok("matrix-postgres-cli -qc CHECKPOINT && systemctl start matrix-synapse.service");

    let clock = Instant::now();
    machine.ok("systemctl stop matrix-synapse.service");
    machine.ok(PLAYBOOK);
    let playbook = clock.elapsed().as_secs_f64();
    machine.ok(CLEAN_UP);

    machine.ok("systemctl start matrix-postgres-upgrade.service || { journalctl -u matrix-postgres-upgrade >&2; false; }");
    println!("{}", machine.ok("matrix-postgres-upgrade status"));
    let status = machine.ok("matrix-postgres-upgrade status --json");
    let downtime = status.split("\"downtime\": ").nth(1).and_then(|rest| rest.split([',', '\n']).next());
    let ours: f64 = downtime.ok_or("no downtime")?.trim().parse()?;
    println!("| {events} | {playbook:.1} s | {ours:.1} s | {:.1} |", playbook / ours);
    println!("{}", machine.ok("journalctl --no-pager --output=cat -u matrix-postgres-upgrade | grep ' s$'"));
    Ok(())
}
