//! The whole story on a throw-away machine: the package is installed, Synapse runs on its server, people talk, and the backup's unit
//! is started; the stock `pg_restore` restores what it wrote into another cluster. The database is dropped and comes back, the server
//! is upgraded to the next major version, and every message is still there.
//!
//! `make demo` builds what is missing first.

#[path = "../tests/machine/mod.rs"]
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use machine::synapse::User;
use machine::{Image, Machine, Synapse, package};

const TALK: [&str; 4] = [
    "did the backup run last night?",
    "it did, and it was read back whole",
    "and who has tried to restore it?",
    "the stock pg_restore has, a minute ago",
];
const MESSAGES: usize = 20;

/// Tables in which nothing happens while nobody talks. In others, Synapse works on by itself.
const QUIET: [&str; 5] = ["event_json", "events", "room_memberships", "rooms", "users"];

/// Every table of a database with its rows, counted one by one.
const ROWS: &str = "\
SELECT format('%s %s', relname, (xpath('/row/n/text()', query_to_xml(
           format('SELECT count(*) AS n FROM %I.%I', nspname, relname), false, true, '')))[1])
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND nspname = 'public' ORDER BY relname";

fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    Image::Usual.build()?;
    package::current()?;
    let machine = step("boot a machine with systemd", || Machine::boot("demo"))?;
    step("install the package", || package::install(&machine));
    step("systemctl start matrix-postgres.service, with PostgreSQL 15", || {
        machine.ok(
            "mkdir -p /etc/matrix-postgres && echo 'server.version = 15' >/etc/matrix-postgres/config.toml
            systemctl start matrix-postgres.service",
        );
    });
    let synapse = step("set up Synapse on it", || Synapse::set_up(&machine));
    let (ada, room) =
        step(&format!("register two people, who exchange {MESSAGES} messages"), || talk(&synapse));
    step("let Synapse finish what it does by itself after its first start", || synapse.settle());
    back_up_and_read(&machine)?;
    let restored = lose_the_database(&machine, &synapse, &ada, &room)?;
    let downtime = upgrade(&machine, &synapse, &ada, &room)?;
    show(&machine, "systemctl start matrix-postgres-backup.service; matrix-postgres-backup status");

    println!("a backup was made, read back, and restored by the stock pg_restore: every table the same");
    println!("the database was dropped, and back in {restored:.1} s, with all {MESSAGES} messages");
    println!("PostgreSQL was upgraded, with all messages: {downtime}");
    println!("all of it took {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// A backup by the unit, and what anybody can do with it who has no program of ours.
fn back_up_and_read(machine: &Machine) -> Result<(), String> {
    start(machine, "matrix-postgres-backup.service");
    show(machine, "systemctl status --no-pager matrix-postgres-backup.service");
    show(machine, "matrix-postgres-backup list");
    show(machine, "ls -l /var/backups/matrix-postgres/*");
    step("restore it into Debian's own cluster: zstd -dc homeserver.dump.zst | pg_restore", || {
        restore(machine);
    });
    compare(&rows(machine, LIVE, "homeserver"), &rows(machine, OTHER, "restored"))
}

/// What the playbook's page leaves to the reader. Returns how long it took to have it back, in seconds.
fn lose_the_database(machine: &Machine, synapse: &Synapse, user: &User, room: &str) -> Result<f64, String> {
    step("DROP DATABASE homeserver", || {
        machine.ok("systemctl stop matrix-synapse.service
            matrix-postgres-cli -d postgres -XAtqc 'DROP DATABASE homeserver WITH (FORCE)'");
    });
    let begun = Instant::now();
    let name = machine.ok("ls /var/backups/matrix-postgres");
    show(machine, &format!("matrix-postgres-backup restore --yes {name}"));
    step("systemctl start matrix-synapse.service", || machine.ok("systemctl start matrix-synapse.service"));
    let took = begun.elapsed().as_secs_f64();
    everything_is_there(synapse, user, room).map(|()| took)
}

/// To the next major version, by the unit. Returns the sentence with the downtime.
fn upgrade(machine: &Machine, synapse: &Synapse, user: &User, room: &str) -> Result<String, String> {
    show(machine, "matrix-postgres-upgrade check");
    start(machine, "matrix-postgres-upgrade.service");
    show(machine, "matrix-postgres-upgrade status");
    show(machine, "matrix-postgres-cli -XAtc 'SHOW server_version'");
    everything_is_there(synapse, user, room)?;
    let said = machine.ok("matrix-postgres-upgrade status");
    let downtime = said.lines().find(|line| line.starts_with("downtime:")).unwrap_or_default();
    Ok(downtime.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn everything_is_there(synapse: &Synapse, user: &User, room: &str) -> Result<(), String> {
    match synapse.messages(user, room).len() {
        MESSAGES => Ok(()),
        number => Err(format!("{number} of {MESSAGES} messages are there")),
    }
}

fn start(machine: &Machine, unit: &str) {
    step(&format!("systemctl start {unit}"), || {
        machine.ok(&format!("systemctl start {unit} || {{ journalctl --no-pager -u {unit} >&2; false; }}"));
    });
}

/// psql on the packaged server, and on Debian's own cluster.
const LIVE: &str = "runuser -u matrix-postgres -- psql -XAt -h /run/matrix-postgres -U postgres";
const OTHER: &str = "runuser -u postgres -- psql -XAt -p 5432";

/// Two people talk, and every message arrives.
fn talk(synapse: &Synapse) -> (User, String) {
    let people = [synapse.register("ada"), synapse.register("grace")];
    let room = synapse.create_room(&people[0], "backups");
    synapse.join(&people[1], &room);
    for number in 0..MESSAGES {
        let text = format!("{} ({})", TALK[number % TALK.len()], number + 1);
        synapse.send(&people[number % 2], &room, &text);
    }
    assert_eq!(synapse.messages(&people[1], &room).len(), MESSAGES);
    let [ada, _] = people;
    (ada, room)
}

/// What anybody does who has nothing but the files.
fn restore(machine: &Machine) {
    machine.ok(
        "runuser -u postgres -- createdb -p 5432 --template=template0 --encoding=UTF8 --locale=C restored
         zstd -dc /var/backups/matrix-postgres/*/homeserver.dump.zst |
             runuser -u postgres -- pg_restore -p 5432 --exit-on-error --no-owner --no-acl --dbname=restored",
    );
}

fn rows(machine: &Machine, psql: &str, database: &str) -> BTreeMap<String, u64> {
    let text = machine.ok(&format!("{psql} {database} -c {}", machine::synapse::quote(ROWS)));
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(table, rows)| (table.to_owned(), rows.parse().unwrap_or_default())).collect()
}

fn compare(live: &BTreeMap<String, u64>, restored: &BTreeMap<String, u64>) -> Result<(), String> {
    println!("\n{:<40} {:>10} {:>10}", "rows of", "live", "restored");
    let tables: BTreeSet<_> = live.keys().chain(restored.keys()).collect();
    let mut wrong = Vec::new();
    let mut same = 0;
    for table in tables {
        let (here, there) = (live.get(table), restored.get(table));
        let text =
            |rows: Option<&u64>| rows.map_or_else(|| "no table".into(), |&rows| HumanCount(rows).to_string());
        let quiet = QUIET.contains(&table.as_str());
        if here == there {
            same += 1;
        } else if quiet || here.is_none() || there.is_none() {
            wrong.push(table.as_str());
        }
        if quiet || here != there {
            println!("{table:<40} {:>10} {:>10}", text(here), text(there));
        }
    }
    let total: u64 = restored.values().sum();
    println!("{same} of {} tables are the same, with {} rows", live.len(), HumanCount(total));
    match (wrong.is_empty(), restored.is_empty()) {
        (true, false) => Ok(()),
        _ => Err(format!("the restored database is not the live one: {}", wrong.join(", "))),
    }
}

/// Shows a command and what it prints, whatever its exit status.
fn show(machine: &Machine, command: &str) {
    let output = machine.run(command);
    println!("\n# {command}");
    for text in
        [output.stdout.trim_end(), output.stderr.trim_end()].into_iter().filter(|text| !text.is_empty())
    {
        println!("{text}");
    }
    println!();
}

/// Carries out a step, and says how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>6} {spinner} {msg}") {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    let begun = Instant::now();
    let result = work();
    bar.finish_and_clear();
    println!("{:>6.1} s  {name}", begun.elapsed().as_secs_f64());
    result
}
