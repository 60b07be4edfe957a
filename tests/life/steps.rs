//! What happens in a life: a seed, or the name of a tour, becomes a list of steps, and nothing else has a say in it.

/// What an administrator or a timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Backup,
    BackupByHand,
    Trial,
    Verify,
    /// Of the newest backup but so many.
    Restore(usize),
    RestoreAs(usize),
    Rehearse,
    Upgrade(Method, Target),
    UpgradeByHand(Method, Target),
    Rollback,
    Prune,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Dump,
    Online,
}

/// Of the versions that are newer than the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Next,
    Newest,
}

/// A directory that is not usable for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    BackupsFull,
    StateFull,
    StateReadOnly,
}

/// Of the configuration: made, or, where it has been made, undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Compression,
    Keep,
    Listen,
    Content,
}

/// Whom SIGKILL takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The program alone.
    Main,
    /// Of a unit, everything: the programs that it has started, too.
    All,
}

/// Where something happens in the middle of a verb, it is so many milliseconds after its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Do(Verb),
    /// Programs of ours are killed; the homeserver's own server is not.
    Killed(Verb, Victim, u64),
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

/// How many steps a seed has: more than happen in a life, because some find nothing to do.
const STEPS: usize = 70;

/// The version that a life begins with, and its steps.
pub fn generate(seed: u64) -> (u16, Vec<Step>) {
    let mut random = Random(seed);
    let major = random.one_of(&[13, 15]);
    // Most verbs need a backup.
    let first = Step::Do(Verb::Backup);
    (major, std::iter::once(first).chain((1..STEPS).map(|_| step(&mut random))).collect())
}

fn step(random: &mut Random) -> Step {
    match random.below(100) {
        0..48 => Step::Do(verb(random)),
        48..59 => {
            let (verb, delay) = amid(random);
            Step::Killed(verb, random.one_of(&[Victim::Main, Victim::Main, Victim::All]), delay)
        }
        59..61 => Step::PowerCut(None),
        61..67 => Step::PowerCut(Some(amid(random))),
        67..74 => {
            let (verb, delay) = amid(random);
            Step::BackupInside(verb, delay)
        }
        74..76 => Step::BackendCrashes(None),
        76..80 => Step::BackendCrashes(Some(amid(random))),
        80..84 => Step::Reboot,
        84..87 => Step::Reinstall,
        87..90 => Step::FromPrevious,
        90..96 => {
            let trouble = random.one_of(&[Trouble::BackupsFull, Trouble::StateFull, Trouble::StateReadOnly]);
            Step::During(trouble, verb(random))
        }
        _ => {
            let changes = [Change::Compression, Change::Keep, Change::Listen, Change::Content];
            Step::Configure(random.one_of(&changes))
        }
    }
}

/// A verb, and an instant while it is probably under way.
fn amid(random: &mut Random) -> (Verb, u64) {
    let verb = verb(random);
    let lasts = match verb {
        Verb::Prune => 300,
        Verb::Backup | Verb::BackupByHand | Verb::Verify => 2000,
        Verb::Trial | Verb::Restore(_) | Verb::RestoreAs(_) | Verb::Rollback => 5000,
        Verb::Rehearse | Verb::Upgrade(..) | Verb::UpgradeByHand(..) => 12_000,
    };
    (verb, 30 + random.below(lasts))
}

fn verb(random: &mut Random) -> Verb {
    let method = random.one_of(&[Method::Dump, Method::Online]);
    let target = random.one_of(&[Target::Next, Target::Newest]);
    let back = usize::try_from(random.below(3)).unwrap_or_default();
    match random.below(100) {
        0..16 => Verb::Backup,
        16..26 => Verb::BackupByHand,
        26..32 => Verb::Trial,
        32..37 => Verb::Verify,
        37..45 => Verb::Restore(back),
        45..50 => Verb::RestoreAs(back),
        50..58 => Verb::Rehearse,
        58..72 => Verb::Upgrade(method, target),
        72..80 => Verb::UpgradeByHand(method, target),
        80..94 => Verb::Rollback,
        _ => Verb::Prune,
    }
}

/// Fixed lists of steps, in which everything happens once.
pub const TOURS: [&str; 5] = ["way-back", "restores", "troubles", "packages", "crashes"];

/// A list of this name.
pub fn tour(name: &str) -> Option<(u16, Vec<Step>)> {
    use Step::{
        BackendCrashes, BackupInside, Configure, Do, During, FromPrevious, Killed, PowerCut, Reboot,
        Reinstall,
    };
    let backup = Do(Verb::Backup);
    Some(match name {
        "way-back" => (
            13,
            vec![
                Do(Verb::Rehearse),
                Do(Verb::Upgrade(Method::Online, Target::Next)),
                Do(Verb::Rehearse),
                Do(Verb::Upgrade(Method::Dump, Target::Next)),
                backup,
                Do(Verb::Rollback),
                Do(Verb::UpgradeByHand(Method::Online, Target::Newest)),
                Reboot,
                Do(Verb::Rollback),
                backup,
            ],
        ),
        "restores" => (
            15,
            vec![
                backup,
                Do(Verb::Verify),
                Do(Verb::Trial),
                Do(Verb::RestoreAs(0)),
                Do(Verb::Restore(0)),
                Configure(Change::Keep),
                Do(Verb::BackupByHand),
                backup,
                Do(Verb::Prune),
                Do(Verb::Restore(1)),
            ],
        ),
        "troubles" => {
            let upgrade = Verb::Upgrade(Method::Online, Target::Newest);
            let mut steps = vec![backup];
            for trouble in [Trouble::StateFull, Trouble::StateReadOnly, Trouble::BackupsFull] {
                let verbs = [Verb::Backup, Verb::BackupByHand, Verb::Rehearse, Verb::Restore(0), upgrade];
                steps.extend(verbs.map(|verb| During(trouble, verb)));
            }
            let troubles = [Trouble::StateFull, Trouble::StateReadOnly, Trouble::BackupsFull];
            steps.extend(troubles.map(|trouble| During(trouble, Verb::Rollback)));
            (15, steps)
        }
        "packages" => (
            15,
            vec![
                backup,
                Reinstall,
                FromPrevious,
                Configure(Change::Compression),
                Configure(Change::Listen),
                Configure(Change::Content),
                backup,
                Do(Verb::Upgrade(Method::Dump, Target::Newest)),
                Configure(Change::Listen),
                FromPrevious,
                Do(Verb::Rollback),
                Reboot,
            ],
        ),
        "crashes" => (
            13,
            vec![
                backup,
                BackendCrashes(None),
                BackendCrashes(Some((Verb::Backup, 500))),
                Killed(Verb::Backup, Victim::Main, 500),
                Killed(Verb::Rehearse, Victim::Main, 5000),
                BackupInside(Verb::UpgradeByHand(Method::Dump, Target::Next), 3000),
                Killed(Verb::Rollback, Victim::Main, 2000),
                Killed(Verb::Upgrade(Method::Online, Target::Next), Victim::All, 6000),
                PowerCut(None),
                PowerCut(Some((Verb::Restore(0), 2000))),
                BackendCrashes(Some((Verb::Rollback, 1000))),
            ],
        ),
        _ => return None,
    })
}

#[test]
fn a_seed_is_a_life_and_each_another() {
    assert_eq!(generate(7), generate(7));
    assert_ne!(generate(7), generate(8));
    assert_eq!(generate(7).1.len(), STEPS);
    assert!(TOURS.iter().all(|name| tour(name).is_some()));
}
