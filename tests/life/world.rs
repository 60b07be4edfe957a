//! A machine with a homeserver, a writer that belongs to no unit, and what must be there: rows and messages that were
//! acknowledged, but for those that a verb said to give up.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::machine::upgrade::sql;
use crate::machine::{Machine, Synapse};

/// Root's state directory, which holds the upgrade's journal.
pub const STATE: &str = "/var/lib/matrix-postgres-upgrade";
pub const BACKUPS: &str = "/var/backups/matrix-postgres";
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Every number is used once; what the server has acknowledged is noted down outside of the database.
const WRITER: &str = "
import os, psycopg2, re, time
password = re.search(r'password: \"?([^\"\\s]+)', open('/etc/matrix-synapse/database.yaml').read()).group(1)
try:
    n = int(open('/var/tmp/life/last').read() or 0)
except FileNotFoundError:
    n = 0
acknowledged = open('/var/tmp/life/acknowledged', 'a', buffering=1)
while True:
    try:
        connection = psycopg2.connect(host='/run/matrix-postgres', user='synapse', password=password, dbname='homeserver')
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute('CREATE TABLE IF NOT EXISTS life (n bigint PRIMARY KEY)')
        while True:
            n += 1
            with open('/var/tmp/life/next', 'w') as last:
                last.write(str(n))
            os.replace('/var/tmp/life/next', '/var/tmp/life/last')
            cursor.execute('INSERT INTO life VALUES (%s)', (n,))
            acknowledged.write(f'{n}\\n')
            time.sleep(0.02)
    except psycopg2.Error:
        time.sleep(0.02)
";

/// How far rows and messages have come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark {
    pub row: u64,
    pub message: usize,
}

pub struct World<'a> {
    pub machine: &'a Machine,
    room: String,
    messages: Vec<String>,
    given_up_rows: Vec<(u64, u64)>,
    given_up_messages: BTreeSet<usize>,
    /// Of each backup, what it has at least.
    pub backups: BTreeMap<String, Mark>,
    /// What the kept data directory has at least.
    pub kept: Option<Mark>,
    owners: BTreeMap<String, String>,
}

impl<'a> World<'a> {
    pub fn begin(machine: &'a Machine, major: u16) -> Self {
        let (_, room) = crate::machine::upgrade::prepare(machine, major, "auto");
        machine.ok(
            "systemctl enable --quiet matrix-postgres.service matrix-synapse.service; mkdir -p /var/tmp/life",
        );
        machine.write("/root/writer.py", WRITER);
        let mut world = Self {
            machine,
            room,
            messages: vec!["before the upgrade".into()],
            given_up_rows: Vec::new(),
            given_up_messages: BTreeSet::new(),
            backups: BTreeMap::new(),
            kept: None,
            owners: BTreeMap::new(),
        };
        world.start_writer();
        world.owners = world.owners_now();
        world
    }

    /// Not by a unit, so that nothing stops it; a reboot ends it.
    pub fn start_writer(&self) {
        self.machine.ok("setsid --fork python3 /root/writer.py </dev/null >/var/tmp/life/writer.log 2>&1");
    }

    pub fn mark(&self) -> Mark {
        let row = self.machine.run("tail -n 1 /var/tmp/life/acknowledged").stdout;
        Mark { row: row.trim().parse().unwrap_or(0), message: self.messages.len() }
    }

    /// What came after this mark, and until now, was announced to be missed.
    pub fn give_up_since(&mut self, mark: Mark) {
        // Numbers that were given out and not acknowledged may be, until now.
        let last = self.machine.run("cat /var/tmp/life/last").stdout.trim().parse().unwrap_or(u64::MAX);
        self.given_up_rows.push((mark.row, last));
        self.given_up_messages.extend(mark.message..self.messages.len());
    }

    /// Nothing is on its way any more, and the homeserver answers.
    pub fn settle(&self) -> Result<(), String> {
        let calm = "! systemctl list-jobs --no-legend | grep -q matrix && \
            ! systemctl list-units --all --plain --no-legend 'matrix-*' | grep -Eq ' (activating|deactivating|reloading) ' && \
            systemctl is-active --quiet matrix-postgres.service matrix-synapse.service && \
            curl --silent --fail --max-time 10 http://localhost:8008/health";
        self.until("the homeserver does not run", calm)
    }

    fn until(&self, what: &str, script: &str) -> Result<(), String> {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.machine.run(script).status != 0 {
            if std::time::Instant::now() > deadline {
                let said = self.machine.run(
                    "systemctl list-units --all --plain --no-legend 'matrix-*'; \
                     journalctl --no-pager --output=short --boot --unit='matrix-postgres*' --lines=40",
                );
                return Err(format!("{what}\n{}", said.stdout));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// What must be the case after every step.
    pub fn look(&mut self, step: usize, killed: bool) -> Result<(), String> {
        self.settle()?;
        let message = format!("after step {step}");
        self.messages.push(message.clone());
        let said = self.talk(&message)?;
        let lost = self
            .messages
            .iter()
            .enumerate()
            .find(|(index, text)| !self.given_up_messages.contains(index) && !said.contains(*text));
        if let Some((_, text)) = lost {
            return Err(format!("an acknowledged message is lost: {text:?}"));
        }
        self.rows()?;
        self.failed_units(killed)?;
        self.statuses()?;
        self.owners()
    }

    /// Logs in, says something, and hears what was said. After a crash of the server Synapse finds its connections dead one
    /// by one, and refuses a request for each.
    fn talk(&self, message: &str) -> Result<BTreeSet<String>, String> {
        let synapse = Synapse::of(self.machine);
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let heard = catch_unwind(AssertUnwindSafe(|| {
                let ada = synapse.log_in("ada");
                synapse.send(&ada, &self.room, message);
                synapse.messages(&ada, &self.room).into_iter().map(|(_, text)| text).collect()
            }));
            match heard {
                Ok(heard) => return Ok(heard),
                Err(_) if std::time::Instant::now() > deadline => {
                    return Err("the homeserver runs, and answers no request".into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn rows(&self) -> Result<(), String> {
        let before = self.mark().row;
        let more = format!("test \"$(tail -n 1 /var/tmp/life/acknowledged)\" -gt {before}");
        self.until("the writer gets nowhere", &more)?;
        let acknowledged = self.machine.ok("cat /var/tmp/life/acknowledged");
        let rows = sql(self.machine, "homeserver", "SELECT n FROM life");
        let rows: BTreeSet<u64> = rows.lines().filter_map(|line| line.parse().ok()).collect();
        let lost: Vec<u64> = acknowledged
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|n| !rows.contains(n))
            .filter(|n| !self.given_up_rows.iter().any(|(after, last)| n > after && n <= last))
            .collect();
        match lost.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} acknowledged rows are lost, from {first} on", lost.len())),
        }
    }

    /// A unit that has failed has told why, in the form of our errors; one that was killed cannot.
    fn failed_units(&self, killed: bool) -> Result<(), String> {
        let failed =
            self.machine.ok("systemctl list-units --failed --plain --no-legend 'matrix-*' | cut -d ' ' -f 1");
        for unit in failed.lines().filter(|_| !killed) {
            let said = self
                .machine
                .run(&format!("journalctl --no-pager --output=cat --boot --unit={unit} --lines=60"))
                .stdout;
            if !said.contains("HINT:") {
                return Err(format!("{unit} has failed and does not say why:\n{said}"));
            }
        }
        self.machine.ok("systemctl reset-failed");
        Ok(())
    }

    fn statuses(&self) -> Result<(), String> {
        let asked = self.machine.run("matrix-postgres-upgrade status --json");
        let upgrade: serde_json::Value = serde_json::from_str(&asked.stdout)
            .map_err(|error| format!("the upgrade's status: {error}: {asked}"))?;
        if upgrade["open"] != false {
            return Err(format!("nothing is under way, and the upgrade's status says: {asked}"));
        }
        let asked = self.machine.run("matrix-postgres-backup status --json");
        let backup: serde_json::Value = serde_json::from_str(&asked.stdout)
            .map_err(|error| format!("the backup's status: {error}: {asked}"))?;
        let newest = self.machine.run(&format!("ls {BACKUPS} | tail -n 1")).stdout;
        let named = backup["newest"]["name"].as_str().unwrap_or_default();
        let well = backup["well"] == true;
        if well != (asked.status == 0)
            || named != newest
            || (well && backup["newest_verified"] != newest.as_str())
        {
            return Err(format!("the newest backup is {newest:?}, and the backup's status says: {asked}"));
        }
        Ok(())
    }

    fn owners_now(&self) -> BTreeMap<String, String> {
        let found = self.machine.ok(&format!(
            "find /root /etc {STATE} /var/lib/matrix-synapse /matrix -maxdepth 3 -not -path '/matrix/*/*/*' \
             -printf '%p\\t%u:%g\\n' 2>/dev/null || true"
        ));
        found
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(path, owner)| (path.into(), owner.into()))
            .collect()
    }

    fn owners(&mut self) -> Result<(), String> {
        for (path, owner) in self.owners_now() {
            let before = self.owners.entry(path.clone()).or_insert_with(|| owner.clone());
            if *before != owner {
                return Err(format!("{path} was {before}'s and is {owner}'s"));
            }
        }
        Ok(())
    }
}
