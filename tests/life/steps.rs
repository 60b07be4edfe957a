//! What happens in a life: a seed becomes a list of steps, and nothing else has a say in it.

/// What an administrator or a timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Backup,
    BackupByHand,
    Trial,
    Verify,
    Restore,
    RestoreAs,
    Rehearse,
    Upgrade(Method),
    UpgradeByHand(Method),
    Rollback,
    Prune,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Dump,
    Online,
}

/// A directory that is not usable for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    BackupsFull,
    StateFull,
    StateReadOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Compression,
    Keep,
    Listen,
}

/// Where something happens in the middle of a verb, it is so many milliseconds after its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Do(Verb),
    /// Every program of ours is killed; the server's is not.
    Killed(Verb, u64),
    PowerCut(Option<(Verb, u64)>),
    /// The timer of the backup fires.
    BackupInside(Verb, u64),
    BackendCrashes(Option<(Verb, u64)>),
    Reboot,
    Reinstall,
    FromPrevious,
    During(Trouble, Verb),
    Configure(Change),
}

/// Steele, Lea and Flood's `SplitMix64`: the same on every machine and in every release.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).unwrap_or_default()]
    }
}

/// How many steps a life has: more than the 25 that must happen, because some find nothing to do.
pub const STEPS: usize = 34;

/// The version that a life begins with, and its steps.
pub fn generate(seed: u64) -> (u16, Vec<Step>) {
    let mut random = Random(seed);
    let major = random.one_of(&[13, 15]);
    // Most verbs need a backup.
    let first = Step::Do(Verb::Backup);
    (major, std::iter::once(first).chain((1..STEPS).map(|_| step(&mut random))).collect())
}

fn step(random: &mut Random) -> Step {
    let delay = |random: &mut Random| 50 + random.below(6000);
    match random.below(100) {
        0..48 => Step::Do(verb(random)),
        48..58 => Step::Killed(verb(random), delay(random)),
        58..61 => Step::PowerCut(None),
        61..67 => Step::PowerCut(Some((verb(random), delay(random)))),
        67..75 => Step::BackupInside(verb(random), delay(random)),
        75..77 => Step::BackendCrashes(None),
        77..81 => Step::BackendCrashes(Some((verb(random), delay(random)))),
        81..86 => Step::Reboot,
        86..89 => Step::Reinstall,
        89..91 => Step::FromPrevious,
        91..96 => {
            let trouble = random.one_of(&[Trouble::BackupsFull, Trouble::StateFull, Trouble::StateReadOnly]);
            Step::During(trouble, verb(random))
        }
        _ => Step::Configure(random.one_of(&[Change::Compression, Change::Keep, Change::Listen])),
    }
}

fn verb(random: &mut Random) -> Verb {
    let method = random.one_of(&[Method::Dump, Method::Online]);
    match random.below(100) {
        0..20 => Verb::Backup,
        20..32 => Verb::BackupByHand,
        32..38 => Verb::Trial,
        38..44 => Verb::Verify,
        44..52 => Verb::Restore,
        52..58 => Verb::RestoreAs,
        58..66 => Verb::Rehearse,
        66..78 => Verb::Upgrade(method),
        78..84 => Verb::UpgradeByHand(method),
        84..94 => Verb::Rollback,
        _ => Verb::Prune,
    }
}

#[test]
fn a_seed_is_a_life_and_each_another() {
    assert_eq!(generate(7), generate(7));
    assert_ne!(generate(7), generate(8));
    assert!(generate(7).1.len() >= 25);
}
