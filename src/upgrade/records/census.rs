//! What was counted in the new cluster before anybody else came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Rows that were inserted, changed or removed, by database and table; of older journals.
pub type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// What leaves no row behind when it goes or moves, of a cluster that nobody has been let in to yet: it tells afterwards whether
/// something was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// How many there are of what belongs to no database, by kind.
    pub shared: BTreeMap<String, u64>,
    /// By database.
    pub databases: BTreeMap<String, Counts>,
}

/// Of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// A hash of all sequences and their last values.
    pub sequences: String,
    /// How many objects there are, by kind.
    pub objects: BTreeMap<String, u64>,
}

impl Census {
    /// What there is less of now, a sentence each.
    pub fn removed(&self, now: &Self) -> Vec<String> {
        let less = |before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>| -> Vec<String> {
            let fewer = |(kind, count): &(&String, &u64)| now.get(*kind).is_some_and(|now| now < count);
            before.iter().filter(fewer).map(|(kind, _)| kind.clone()).collect()
        };
        let mut removed: Vec<_> =
            less(&self.shared, &now.shared).into_iter().map(|kind| format!("deleted {kind}")).collect();
        for (name, before) in &self.databases {
            let Some(now) = now.databases.get(name) else { continue };
            let kinds = less(&before.objects, &now.objects);
            removed.extend(kinds.iter().map(|kind| format!("deleted {kind} of database {name:?}")));
        }
        removed
    }

    /// The databases in which a sequence has moved.
    pub fn moved(&self, now: &Self) -> Vec<String> {
        let moved = |(name, before): &(&String, &Counts)| {
            now.databases.get(*name).is_some_and(|now| now.sequences != before.sequences)
        };
        self.databases.iter().filter(moved).map(|(name, _)| name.clone()).collect()
    }
}
