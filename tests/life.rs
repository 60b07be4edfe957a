//! A homeserver lives: from a seed, a random sequence of verbs and events in one machine, and after each step everything
//! that must be the case is looked at. `make soak HOURS=n` lives one life after the other.
//!
//! - `SEED`: the (first) seed; `TOUR`: a fixed list of steps in its place, or `all` of them
//! - `LIFE_SEEDS`: how many lives; `LIFE_MINUTES`: none is begun later; `LIFE_PARALLEL`: how many at the same time
//! - `LIFE_STEPS`: how many steps must happen in a life; what finds nothing to do has not happened
//! - `STEPS`: the numbers of the steps to carry out, such as `0,3,7`: all of these, and no others
//! - `LIFE_SHRINK`: a failing life is shortened, in so many attempts
//! - `LIFE_FIGURES`: a file to which a line is added for each life
//! - `LIFE_PREVIOUS`: the package that is there before this one

mod deed;
mod facts;
mod live;
mod steps;
mod truths;
mod world;

use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use steps::Step;
use world::{Cradle, World};

/// The steps to come.
#[derive(Clone)]
struct Course {
    /// As the variable that repeats it: `SEED=7`.
    name: String,
    major: u16,
    steps: Vec<Step>,
}

/// What lives begin with, by version; each is made when the first life needs it.
#[derive(Default)]
struct Cradles {
    of_13: OnceLock<Option<Cradle>>,
    of_15: OnceLock<Option<Cradle>>,
}

impl Cradles {
    /// Nothing where machines are left out.
    fn of(&self, major: u16) -> Option<&Cradle> {
        let cradle = if major == 13 { &self.of_13 } else { &self.of_15 };
        cradle.get_or_init(|| Cradle::make(major)).as_ref()
    }
}

/// How a life went.
struct Life {
    happened: usize,
    skipped: usize,
    seconds: u64,
    result: Outcome,
}

enum Outcome {
    Well,
    /// It ran out of steps before enough had happened.
    Unfinished,
    /// The step, and what was wrong after it: a line that tells the kind, and others.
    Wrong(usize, String),
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} {:>7} {:>7}  ", self.happened, self.skipped, self.seconds)?;
        match &self.result {
            Outcome::Well => f.write_str("well"),
            Outcome::Unfinished => f.write_str("UNFINISHED: too little has happened"),
            Outcome::Wrong(step, what) => write!(f, "WRONG after step {step}: {what}"),
        }
    }
}

#[test]
fn nothing_goes_wrong_in_a_life() {
    let deadline = Instant::now() + Duration::from_secs(60 * number("LIFE_MINUTES", 60));
    let courses = Mutex::new(courses());
    let table = Mutex::new(Vec::new());
    let cradles = Cradles::default();
    std::thread::scope(|scope| {
        for _ in 0..number("LIFE_PARALLEL", 1).max(1) {
            scope.spawn(|| {
                loop {
                    let next = courses.lock().unwrap().next();
                    let Some(course) = next.filter(|_| Instant::now() < deadline) else { return };
                    let Some(line) = one(&cradles, &course) else { return };
                    table.lock().unwrap().push(line);
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    let lines: Vec<_> = table.iter().map(|(_, line)| line.as_str()).collect();
    let report = format!("{:>16} happened skipped seconds  result\n{}", "life", lines.join("\n"));
    say(&report);
    assert!(table.iter().all(|(well, _)| *well), "something has gone wrong: see the table");
}

/// The lives to be lived.
fn courses() -> Box<dyn Iterator<Item = Course> + Send> {
    let named = |name: &str, (major, steps)| Course { name: name.to_owned(), major, steps };
    let tour = std::env::var("TOUR").ok();
    let first = number("SEED", 1);
    let seeds = usize::try_from(number("LIFE_SEEDS", 1)).unwrap_or(1);
    match tour.as_deref() {
        None => Box::new(
            (first..).take(seeds).map(move |seed| named(&format!("SEED={seed}"), steps::generate(seed))),
        ),
        Some("all") => Box::new(
            steps::TOURS
                .iter()
                .map(move |name| named(&format!("TOUR={name}"), steps::tour(name).expect("a tour"))),
        ),
        Some(name) => {
            let tour = steps::tour(name).expect("there is no such tour");
            Box::new(std::iter::once(named(&format!("TOUR={name}"), tour)))
        }
    }
}

/// Whether it went well, and a line of the table; nothing where machines are left out.
fn one(cradles: &Cradles, course: &Course) -> Option<(bool, String)> {
    let chosen = std::env::var("STEPS").ok();
    let chosen: Option<Vec<usize>> =
        chosen.map(|list| list.split(',').filter_map(|word| word.trim().parse().ok()).collect());
    let enough = match (&chosen, course.name.starts_with("TOUR")) {
        (None, false) => usize::try_from(number("LIFE_STEPS", 25)).unwrap_or(25),
        _ => usize::MAX,
    };
    let chosen = chosen.unwrap_or_else(|| (0..course.steps.len()).collect());
    let life = live_through(cradles, course, &chosen, enough)?;
    let mut line = format!("{:>16} {life}", course.name);
    if let Outcome::Wrong(step, what) = &life.result {
        let kept: Vec<usize> = chosen.iter().copied().take_while(|index| index <= step).collect();
        say(&format!("{line}\n    {}", again(course, &kept)));
        let kept = shortened(cradles, course, kept, kind(what), number("LIFE_SHRINK", 0));
        line = format!("{line}\n    {}", again(course, &kept));
    }
    if let Some(file) = std::env::var_os("LIFE_FIGURES") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        writeln!(file.expect("the figures should be writable"), "{line}").expect("there should be room");
    }
    say(&line);
    Some((matches!(life.result, Outcome::Well), line))
}

fn again(course: &Course, kept: &[usize]) -> String {
    let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
    format!(
        "{} STEPS={} cargo test --test booted life::nothing_goes -- --nocapture",
        course.name,
        kept.join(",")
    )
}

/// The first line.
fn kind(what: &str) -> &str {
    what.lines().next().unwrap_or_default()
}

/// Leaves out what is not needed for the same to go wrong at the same step: halves, then quarters, down to single steps.
fn shortened(
    cradles: &Cradles,
    course: &Course,
    mut kept: Vec<usize>,
    kind: &str,
    mut attempts: u64,
) -> Vec<usize> {
    let mut size = kept.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from + 1 < kept.len() {
            if attempts == 0 {
                return kept;
            }
            attempts -= 1;
            let until = (from + size).min(kept.len() - 1);
            let fewer: Vec<usize> = kept[..from].iter().chain(&kept[until..]).copied().collect();
            let same = live_through(cradles, course, &fewer, usize::MAX).is_some_and(
                |life| matches!(&life.result, Outcome::Wrong(_, what) if self::kind(what) == kind),
            );
            match same {
                true => kept = fewer,
                false => from = until,
            }
        }
        size /= 2;
    }
    kept
}

const JOURNAL: &str = "journalctl --no-pager --output=short --boot --unit='matrix-postgres*' --lines=60";

/// Nothing where machines are left out.
fn live_through(cradles: &Cradles, course: &Course, chosen: &[usize], enough: usize) -> Option<Life> {
    let cradle = cradles.of(course.major)?;
    let begun = Instant::now();
    let mut life = Life { happened: 0, skipped: 0, seconds: 0, result: Outcome::Unfinished };
    let machine = cradle.machine.boot_copy("life").expect("the machine should boot");
    let mut world = match caught(|| World::begin(&machine, cradle)) {
        Ok(world) => world,
        Err(what) => {
            life.result = Outcome::Wrong(0, what);
            return Some(life);
        }
    };
    say(&format!("{}: set up in {:.1} s", course.name, begun.elapsed().as_secs_f64()));
    for &index in chosen {
        let Some(&step) = course.steps.get(index) else { continue };
        if life.happened >= enough {
            break;
        }
        let clock = Instant::now();
        // What a helper of the machine's panics with is a finding, too.
        let lived = caught(|| {
            let deed = live::live(&world, step)?;
            let acted = clock.elapsed();
            let happened = deed.is_some();
            if let Some(deed) = deed {
                world.look(&format!("after step {index}"), &deed)?;
            }
            Ok((happened, acted))
        });
        match lived {
            Ok((true, acted)) => {
                life.happened += 1;
                let looked = clock.elapsed().saturating_sub(acted);
                say(&format!(
                    "{}, step {index}: {step:?}: {:.1} s, and {:.1} s to look",
                    course.name,
                    acted.as_secs_f64(),
                    looked.as_secs_f64()
                ));
            }
            Ok((false, _)) => life.skipped += 1,
            Err(what) => {
                let heard = caught(|| Ok(machine.run(JOURNAL).stdout)).unwrap_or_default();
                life.result = Outcome::Wrong(index, format!("{what}\n({step:?})\n{heard}"));
                break;
            }
        }
    }
    if matches!(life.result, Outcome::Unfinished) && (enough == usize::MAX || life.happened >= enough) {
        life.result = Outcome::Well;
    }
    life.seconds = begun.elapsed().as_secs();

    Some(life)
}

fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("the machine gave way\n{}", text.unwrap_or_default()))
    })
}

/// Not `eprintln!`, which the test harness swallows of other threads.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}
