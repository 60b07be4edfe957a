//! A machine with a homeserver, a writer that belongs to no unit, and what must be there: rows and messages that were
//! acknowledged, but for those that a verb said to give up.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::deed::Deed;
use super::facts::Facts;
use crate::machine::{Machine, synapse::quote};

/// Root's state directory, which holds the upgrade's journal.
pub const STATE: &str = "/var/lib/matrix-postgres-upgrade";
pub const BACKUPS: &str = "/var/backups/matrix-postgres";
/// Seconds until the homeserver must run, and answer.
const PATIENCE: u64 = 300;

/// Not by a unit, so that nothing stops it; a reboot ends it.
const START_WRITER: &str = "setsid --fork python3 /root/writer.py </dev/null >/var/tmp/life/writer.log 2>&1";

/// Files of others, where verbs come by.
const STRANGERS: &str = "\
mkdir -p /matrix/others /root/notes /etc/matrix-postgres/others /var/tmp/life
for directory in /matrix/others /root/notes /etc/matrix-postgres/others /var/lib/matrix-synapse /matrix; do
    echo mine >$directory/of-nobody && chmod 0604 $directory/of-nobody && chown nobody:games $directory/of-nobody
done
chown nobody:games /matrix/others && chmod 0711 /matrix/others && ln -s /root/notes /matrix/others/link
systemctl disable --quiet --now postgresql.service 'postgresql@*' 2>/dev/null || true
systemctl enable --quiet matrix-postgres.service matrix-synapse.service";

/// How far rows and messages have come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark {
    row: u64,
    message: usize,
}

pub struct World<'a> {
    pub machine: &'a Machine,
    token: String,
    room: String,
    messages: Vec<String>,
    acknowledged: u64,
    given_up_rows: BTreeSet<u64>,
    given_up_messages: BTreeSet<usize>,
    /// Of each backup, and of each data directory that is kept, what it has at least.
    backups: BTreeMap<String, Mark>,
    kept: BTreeMap<String, Mark>,
    owners: BTreeMap<String, String>,
    /// After the step before.
    pub seen: Facts,
}

/// A homeserver before its life, in a machine that is off: each life begins with a copy of it.
pub struct Cradle {
    pub machine: Machine,
    token: String,
    room: String,
}

impl Cradle {
    /// Nothing where machines are left out.
    pub fn make(major: u16) -> Option<Self> {
        let machine = crate::machine::for_test("life")?;
        let (user, room) = crate::machine::upgrade::prepare(&machine, major, "auto");
        crate::machine::Synapse::of(&machine).settle();
        machine.ok(STRANGERS);
        machine.write("/root/writer.py", include_str!("writer.py"));
        machine.write("/root/look.py", include_str!("look.py"));
        machine.power_off();
        Some(Self { machine, token: user.token, room })
    }
}

impl<'a> World<'a> {
    pub fn begin(machine: &'a Machine, cradle: &Cradle) -> Result<Self, String> {
        let mut world = Self {
            machine,
            token: cradle.token.clone(),
            room: cradle.room.clone(),
            messages: vec!["before the upgrade".into()],
            acknowledged: 0,
            given_up_rows: BTreeSet::new(),
            given_up_messages: BTreeSet::new(),
            backups: BTreeMap::new(),
            kept: BTreeMap::new(),
            owners: BTreeMap::new(),
            seen: Facts::default(),
        };
        world.start_writer();
        world.look("at the beginning", &Deed::nothing())?;
        Ok(world)
    }

    pub fn start_writer(&self) {
        self.machine.ok(START_WRITER);
    }

    fn mark(&self) -> Mark {
        Mark { row: self.acknowledged, message: self.messages.len() }
    }

    /// Nothing is on its way any more, and the homeserver answers.
    pub fn settle(&self) -> Result<Facts, String> {
        self.facts(json!({"patience": PATIENCE}))
    }

    fn facts(&self, asked: serde_json::Value) -> Result<Facts, String> {
        let output = self.machine.run(&format!("python3 /root/look.py {}", quote(&asked.to_string())));
        match output.status {
            0 => Facts::parse(&output.stdout),
            _ => Err(format!("nothing is to be seen in the machine\n{output}")),
        }
    }

    /// What must be the case after every step, and after this deed.
    pub fn look(&mut self, message: &str, deed: &Deed) -> Result<(), String> {
        let before = self.mark();
        self.messages.push(message.to_owned());
        let asked = json!({"patience": PATIENCE, "message": message, "token": self.token, "room": self.room});
        let facts = self.facts(asked)?;
        self.keep_books(deed, &facts, before)?;
        self.nothing_is_lost(&facts)?;
        deed.is_accounted_for(&self.seen, &facts)?;
        super::truths::hold(&self.seen, &facts, deed.has_restored())?;
        self.owners(&facts)?;
        self.seen = facts;
        Ok(())
    }

    /// Notes what backups and kept directories hold, and gives up what a restore or a way back has taken: only if there was
    /// one, only what came after the mark, and only in one piece.
    fn keep_books(&mut self, deed: &Deed, now: &Facts, before: Mark) -> Result<(), String> {
        let exchanged = now.restored().iter().any(|name| !self.seen.databases.contains(*name));
        if exchanged && let Some(mark) = deed.restored_from().and_then(|name| self.backups.get(name)).copied()
        {
            let aside: BTreeSet<_> = now.aside.iter().chain(&self.given_up_rows).copied().collect();
            self.give_up(mark, now)?;
            if let Some(row) = now.missing.iter().find(|n| **n > mark.row && !aside.contains(n)) {
                return Err(format!("rows are neither restored nor put aside\nfrom {row} on"));
            }
        }
        let back = self.seen.way_back().filter(|_| deed.goes_back() && now.major < self.seen.major);
        if let Some(mark) = back.and_then(|path| self.kept.get(path)).copied() {
            self.give_up(mark, now)?;
        }
        self.backups.retain(|name, _| now.backups.contains_key(name));
        for name in now.backups.keys() {
            self.backups.entry(name.clone()).or_insert(before);
        }
        if now.major > self.seen.major
            && let Some(path) = now.way_back()
        {
            self.kept.insert(path.to_owned(), before);
        }
        self.acknowledged = now.acknowledged;
        Ok(())
    }

    fn give_up(&mut self, mark: Mark, now: &Facts) -> Result<(), String> {
        let gone: BTreeSet<u64> = now.missing.iter().copied().filter(|n| *n > mark.row).collect();
        if let (Some(first), Some(last)) = (gone.first().copied(), gone.last().copied()) {
            let kept = now.rows.iter().find(|n| (first..last).contains(n) && !self.given_up_rows.contains(n));
            if let Some(kept) = kept {
                return Err(format!("rows are given up with gaps\n{first} to {last}, but not {kept}"));
            }
        }
        self.given_up_rows.extend(gone);
        let said = |text: &String| now.messages.contains(text);
        let last = self.messages.len() - 1;
        let silent = (mark.message..last).filter(|index| !said(&self.messages[*index]));
        self.given_up_messages.extend(silent.collect::<Vec<_>>());
        Ok(())
    }

    fn nothing_is_lost(&self, now: &Facts) -> Result<(), String> {
        let lost =
            self.messages.iter().enumerate().find(|(index, text)| {
                !self.given_up_messages.contains(index) && !now.messages.contains(*text)
            });
        if let Some((_, text)) = lost {
            return Err(format!("an acknowledged message is lost\n{text:?}"));
        }
        let lost: Vec<_> = now.missing.iter().filter(|n| !self.given_up_rows.contains(n)).collect();
        match (lost.first(), lost.last()) {
            (Some(first), Some(last)) => {
                Err(format!("acknowledged rows are lost\n{} of them, {first} to {last}", lost.len()))
            }
            _ => Ok(()),
        }
    }

    fn owners(&mut self, now: &Facts) -> Result<(), String> {
        for (path, owner) in &now.owners {
            let before = self.owners.entry(path.clone()).or_insert_with(|| owner.clone());
            if before != owner {
                return Err(format!("a file has changed its owner or mode\n{path}: {before}, now {owner}"));
            }
        }
        Ok(())
    }
}
