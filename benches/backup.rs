//! A backup against the tools that an administrator would pick instead, on Synapse's own tables, all in one run:
//! `make bench`, or `make bench EVENTS="250000 1000000"` for other sizes (1,000,000 events are 2.7 GB).
//!
//! Everything runs in a throw-away machine. What is compared is the ratio.
//!
//! `BASE=other.deb`: restores by another build of this package are measured in the same run, in turn with this one's.

#[path = "../tests/machine/mod.rs"]
mod machine;

use std::error::Error;
use std::path::Path;

use indicatif::DecimalBytes;
use machine::{Image, Machine, Synapse, package};

/// Runs a command as the service's user; prints seconds, and the largest process in KiB.
const TIMED: &str = r"
import os, resource, subprocess, sys, time
begun = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
";

const PG_DUMP: &str = "/usr/lib/postgresql/17/bin/pg_dump -h /run/matrix-postgres -U postgres";

fn main() -> Result<(), Box<dyn Error>> {
    let sizes = std::env::var("EVENTS").unwrap_or_else(|_| "250000 1000000".into());
    Image::Usual.build()?;
    package::current()?;
    println!("{} processors\n", std::thread::available_parallelism()?);
    for events in sizes.split_whitespace() {
        match std::env::var_os("BASE") {
            Some(base) => against(Path::new(&base), events.parse()?)?,
            None => measure(events.parse()?)?,
        }
    }
    Ok(())
}

/// Restores by another build and by this one, each of a backup that it has made itself of as many events.
fn against(base: &Path, events: u64) -> Result<(), Box<dyn Error>> {
    let (other, this) = (filled(base, events)?, filled(&package::current()?, events)?);
    for machine in [&other, &this] {
        machine.ok("systemctl start matrix-postgres-backup.service");
    }
    let (mut that, mut own) = (f64::MAX, f64::MAX);
    for _ in 0..5 {
        that = that.min(restore(&other)?);
        own = own.min(restore(&this)?);
    }
    println!(
        "## {events} events\n\nrestore, the fastest of five: the other build {that:.2} s, this one {own:.2} s"
    );
    ratio("restore: as fast as the other build, at least 0.95 ×", that / own);
    Ok(())
}

/// Seconds of a restore of the oldest backup into a database that was not there, and is not afterwards.
fn restore(machine: &Machine) -> Result<f64, Box<dyn Error>> {
    let name = machine.ok("ls /var/backups/matrix-postgres | head -n 1");
    machine.ok(REST);
    let seconds =
        timed_as_root(machine, &format!("matrix-postgres-backup restore --yes --as copy {name}"))?.0;
    machine.ok(DROP);
    Ok(seconds)
}

const DROP: &str = "matrix-postgres-cli -qc 'DROP DATABASE copy'";
const REST: &str = "matrix-postgres-cli -qc CHECKPOINT && sync";

/// A homeserver's database with so many events, on the server of this build.
fn filled(build: &Path, events: u64) -> Result<Machine, Box<dyn Error>> {
    let machine = Machine::boot("bench")?;
    package::install_this(&machine, build);
    machine.write("/root/timed.py", TIMED);
    machine.ok("mkdir -p /etc/matrix-postgres && systemctl start matrix-postgres.service");
    Synapse::set_up(&machine);
    machine.ok("systemctl stop matrix-synapse.service");
    machine::synapse::fill(&machine, events);
    // Sizes and timings of a server at rest.
    machine.ok("matrix-postgres-cli -qc CHECKPOINT");
    Ok(machine)
}

fn measure(events: u64) -> Result<(), Box<dyn Error>> {
    let machine = filled(&package::current()?, events)?;
    let size = machine.ok("matrix-postgres-cli -XAtc \"SELECT pg_database_size('homeserver')\"").parse()?;
    println!("## {events} events, {}\n", DecimalBytes(size));
    println!("| | seconds | size | peak memory |\n|---|---|---|---|");

    let work = "/var/backups/bench";
    machine.ok(&format!("install -d -o matrix-postgres {work}"));
    let shell = |script: &str| timed(&machine, &format!("bash -c 'set -o pipefail; {script}'"));
    let dump = shell(&format!("{PG_DUMP} homeserver"))?;
    row("`pg_dump > /dev/null`", dump.0, None, None);
    let gzip = shell(&format!("{PG_DUMP} homeserver | gzip -c > {work}/x.sql.gz"))?;
    let gzip_size = file_size(&machine, &format!("{work}/x.sql.gz"))?;
    row("`pg_dump \\| gzip -c`", gzip.0, Some(gzip_size), None);
    let zstd_tool = shell(&format!("{PG_DUMP} homeserver | zstd -q -3 -T2 -f -o {work}/x.sql.zst"))?;
    row(
        "`pg_dump \\| zstd -3 -T2`",
        zstd_tool.0,
        Some(file_size(&machine, &format!("{work}/x.sql.zst"))?),
        None,
    );
    machine.ok(&format!("rm {work}/*"));

    let ours = backup(&machine, "")?;
    row("this, zstd", ours.dump, Some(ours.size), Some(ours.memory));
    row("… and read back", ours.all, None, None);
    let ours_gzip = backup(&machine, "compression = \"gzip\"\nformat = \"plain\"\n")?;
    row("this, gzip", ours_gzip.dump, Some(ours_gzip.size), Some(ours_gzip.memory));
    row("… and read back", ours_gzip.all, None, None);

    let (restore, psql) = restores(&machine)?;
    row("restore by this, compared", restore, None, None);
    row("restore by `zcat \\| psql`", psql, None, None);

    println!();
    ratio("restore: as fast as `zcat | psql`, at least 1.8 ×", psql / restore);
    ratio("zstd: as fast as `pg_dump | gzip -c`, at least 3.5 ×", gzip.0 / ours.dump);
    ratio("zstd: its size, at most 0.80", ours.size / gzip_size);
    ratio("zstd: time of `pg_dump > /dev/null`, at most 1.5 ×", ours.dump / dump.0);
    ratio("gzip: as fast as `pg_dump | gzip -c`, at least 2.5 ×", gzip.0 / ours_gzip.dump);
    ratio("gzip: its size, at most 1.01", ours_gzip.size / gzip_size);
    println!();
    Ok(())
}

/// Seconds of a restore by this, and by `zcat | psql`: the fastest of three each, for they take long enough to be
/// disturbed, and in turn, so that either is.
fn restores(machine: &Machine) -> Result<(f64, f64), Box<dyn Error>> {
    let classic = "bash -c 'set -o pipefail; zcat $(ls -d /var/backups/matrix-postgres/2*/ | tail -n 1)homeserver.sql.gz | \
         psql -qX -h /run/matrix-postgres -U postgres copy'";
    let create = "matrix-postgres-cli -qc \
        \"CREATE DATABASE copy TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'\"";
    let (mut ours, mut psql) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        ours = ours.min(restore(machine)?);
        machine.ok(&format!("{create} && {REST}"));
        psql = psql.min(timed_as_root(machine, classic)?.0);
        machine.ok(DROP);
    }
    Ok((ours, psql))
}

struct Backup {
    /// Until the backup had its name.
    dump: f64,
    /// With the reading back.
    all: f64,
    size: f64,
    memory: f64,
}

fn backup(machine: &Machine, settings: &str) -> Result<Backup, Box<dyn Error>> {
    machine.write("/etc/matrix-postgres/config.toml", &format!("[backup]\n{settings}"));
    let (all, memory) = timed(machine, "matrix-postgres-backup run 2>/root/said")?;
    let said = machine.ok("cat /root/said");
    let dump =
        said.split("dumped in ").last().and_then(|rest| rest.split(' ').next()).ok_or("no time")?.parse()?;
    let file = "$(ls -d /var/backups/matrix-postgres/2*/ | tail -n 1)homeserver.*";
    Ok(Backup { dump, all, size: file_size(machine, file)?, memory: memory * 1024.0 })
}

/// Seconds, and the largest process in KiB.
fn timed(machine: &Machine, command: &str) -> Result<(f64, f64), Box<dyn Error>> {
    timed_as_root(machine, &format!("setpriv --reuid matrix-postgres --clear-groups {command}"))
}

fn timed_as_root(machine: &Machine, command: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let text = machine.ok(&format!("python3 /root/timed.py {command}"));
    let (seconds, memory) = text.split_once(' ').ok_or("no time")?;
    Ok((seconds.parse()?, memory.trim().parse()?))
}

fn file_size(machine: &Machine, file: &str) -> Result<f64, Box<dyn Error>> {
    Ok(machine.ok(&format!("stat -c %s {file}")).parse()?)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of files")]
fn row(name: &str, seconds: f64, size: Option<f64>, memory: Option<f64>) {
    let bytes =
        |value: Option<f64>| value.map_or_else(String::new, |value| DecimalBytes(value as u64).to_string());
    println!("| {name} | {seconds:.1} | {} | {} |", bytes(size), bytes(memory));
}

fn ratio(name: &str, value: f64) {
    println!("* {name}: {value:.2}");
}
