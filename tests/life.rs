//! A homeserver lives: from a seed, a random sequence of verbs and events in one machine, and after each step everything
//! that must be the case is looked at. `make soak HOURS=n` lives one life after the other.
//!
//! `SEED`: the (first) seed; `STEPS`: the numbers of the steps to carry out, such as `0,3,7`; `LIFE_MINUTES`: no step is
//! begun later; `LIFE_SEEDS`: how many lives; `LIFE_SHRINK`: a failing life is shortened.

#![allow(unreachable_pub)]

#[path = "life/live.rs"]
mod live;
#[path = "machine/mod.rs"]
mod machine;
#[path = "life/steps.rs"]
mod steps;
#[path = "life/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use steps::Step;

/// How a life went.
struct Life {
    happened: usize,
    skipped: usize,
    /// The step, and what was wrong after it.
    violation: Option<(usize, String)>,
}

#[test]
fn nothing_goes_wrong_in_a_life() {
    let deadline = Instant::now() + Duration::from_secs(60 * number("LIFE_MINUTES", 3));
    let first = number("SEED", 1);
    let chosen = std::env::var("STEPS").ok();
    let chosen: Option<Vec<usize>> =
        chosen.map(|list| list.split(',').filter_map(|word| word.parse().ok()).collect());
    let mut table = Vec::new();
    for seed in (first..).take(usize::try_from(number("LIFE_SEEDS", 2)).unwrap_or(1)) {
        if Instant::now() > deadline {
            break;
        }
        let all: Vec<usize> = chosen.clone().unwrap_or_else(|| (0..steps::STEPS).collect());
        let Some(life) = live_through(seed, &all, deadline) else { return };
        let result = match &life.violation {
            None => "well".to_owned(),
            Some((step, what)) => {
                let mut kept: Vec<usize> = all.iter().copied().take_while(|index| index <= step).collect();
                if std::env::var_os("LIFE_SHRINK").is_some() {
                    kept = shortened(seed, kept, deadline);
                }
                format!("{what}\n    {}", again(seed, &kept))
            }
        };
        table.push(format!("{seed:>6} {:>8} {:>8}  {result}", life.happened, life.skipped));
        if life.violation.is_some() {
            eprintln!("{}", table[table.len() - 1]);
        }
    }
    let report = format!("  seed happened  skipped  result\n{}", table.join("\n"));
    eprintln!("{report}");
    assert!(!table.iter().any(|line| line.contains("SEED=")), "{report}");
}

fn again(seed: u64, kept: &[usize]) -> String {
    let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
    format!(
        "SEED={seed} LIFE_SEEDS=1 LIFE_MINUTES=60 STEPS={} cargo test --test life nothing_goes -- --nocapture",
        kept.join(",")
    )
}

/// Leaves out what is not needed for it to go wrong, one step after the other.
fn shortened(seed: u64, mut kept: Vec<usize>, deadline: Instant) -> Vec<usize> {
    for index in kept.clone().into_iter().rev().skip(1) {
        let fewer: Vec<usize> = kept.iter().copied().filter(|other| *other != index).collect();
        if Instant::now() > deadline {
            break;
        }
        if live_through(seed, &fewer, deadline).is_some_and(|life| life.violation.is_some()) {
            kept = fewer;
        }
    }
    kept
}

/// Nothing where machines are left out.
fn live_through(seed: u64, chosen: &[usize], deadline: Instant) -> Option<Life> {
    let machine = machine::for_test("life")?;
    let (major, steps) = steps::generate(seed);
    let mut life = Life { happened: 0, skipped: 0, violation: None };
    let begun = catch_unwind(AssertUnwindSafe(|| world::World::begin(&machine, major)));
    let mut world = begun.expect("a homeserver should be set up");
    for &index in chosen {
        let Some(&step) = steps.get(index) else { continue };
        if Instant::now() > deadline {
            break;
        }
        eprintln!("seed {seed}, step {index}: {step:?}");
        // What a helper of the machine's panics with is a finding, too.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let lived = live::live(&mut world, step)?;
            if lived.is_some() {
                world.look(index, matches!(step, Step::Killed(..) | Step::PowerCut(_)))?;
            }
            Ok::<_, String>(lived)
        }));
        match lived.unwrap_or_else(|panic| Err(words(&*panic))) {
            Ok(Some(())) => life.happened += 1,
            Ok(None) => life.skipped += 1,
            Err(what) => {
                life.violation = Some((index, what));
                break;
            }
        }
    }
    Some(life)
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}
