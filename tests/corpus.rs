//! Legal databases that are odd, each in a file of `corpus`, taken through everything. `CORPUS=part of a name,another` takes
//! only some; what may be said in a file is in `legal/mod.rs`. `CORPUS_UPGRADES=N` adds upgrades between other versions, each
//! with an Nth of the databases, until each was there once.

use std::path::Path;

use crate::legal::{Everything, Oddity};
use crate::machine::{self, Machine};

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
}

fn oddities(major: u16) -> Vec<Oddity> {
    let chosen = std::env::var("CORPUS").unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory()).expect("the corpus should be there") {
        let path = entry.expect("it should be readable").path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a file should be readable");
        found.push(Oddity::parse(&name, text));
    }
    found.retain(|one| {
        (one.since..=one.until).contains(&major) && chosen.split(',').any(|part| one.file.contains(part))
    });
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

/// What some of them want to be there.
fn prepare(machine: &Machine, majors: [u16; 2]) {
    for name in ["config.control", "config--1.0.sql", "counter.control", "counter--1.0.sql"] {
        let file = format!("corpus_{name}");
        for major in majors {
            machine.copy_in(
                &directory().join("extensions").join(&file),
                &format!("/usr/share/postgresql/{major}/extension/{file}"),
            );
        }
    }
    machine.ok("install -d -o matrix-postgres /srv/corpus_space");
}

/// Those that do not stand in the way, in so many parts.
fn upgraded_in_parts(machine: &Machine, from: u16, to: u16, parts: usize) {
    prepare(machine, [from, to]);
    let mut way = Everything::on(machine, from, to).comparing_contents();
    let all: Vec<_> = oddities(from).into_iter().filter(|oddity| !oddity.apart).collect();
    for part in 0..parts {
        let chosen = all.iter().enumerate().filter(|(at, _)| at % parts == part);
        let made: Vec<_> = chosen.map(|(_, oddity)| oddity).filter(|oddity| way.make(oddity)).collect();
        way.reached(&format!("{} made", made.len()));
        way.check(&made);
        way.upgrades(&made);
        for oddity in made {
            way.remove(oddity);
        }
    }
    way.ends();
}

fn through_everything(machine: &Machine, from: u16, to: u16) {
    prepare(machine, [from, to]);
    let mut way = Everything::on(machine, from, to);

    let mut all = oddities(from);
    if from == to {
        all.retain(|oddity| oddity.since == from);
    }
    let made: Vec<_> = all.iter().filter(|oddity| !oddity.apart && way.make(oddity)).collect();
    way.reached(&format!("{} made", made.len()));
    if from != to {
        way.check(&made);
    }
    way.backup_and_restore(&made);
    if from != to {
        way.rehearse();
        way.upgrades(&made);
    }
    for oddity in made {
        way.remove(oddity);
    }

    let alone: Vec<_> = all.iter().filter(|oddity| oddity.apart).collect();
    let restorable: Vec<_> = alone.iter().copied().filter(|oddity| way.make(oddity)).collect();
    if !restorable.is_empty() {
        way.backup_and_restore(&restorable);
    }
    for oddity in &restorable {
        way.remove(oddity);
    }
    if from != to {
        way.stand_in_the_way(&alone);
    }
    way.ends();
}

#[test]
fn odd_databases_of_15_go_through_everything() {
    let Some(machine) = machine::for_test("corpus") else { return };
    through_everything(&machine, 15, 17);
}

#[test]
fn odd_databases_of_17_go_through_everything() {
    let Some(machine) = machine::for_test_on_newer("corpus-17") else { return };
    through_everything(&machine, 17, 18);
}

#[test]
fn odd_databases_of_18_are_restored() {
    let Some(machine) = machine::for_test_on_newer("corpus-18") else { return };
    through_everything(&machine, 18, 18);
}

fn parts() -> Option<usize> {
    std::env::var("CORPUS_UPGRADES")
        .ok()
        .map(|parts| parts.parse().expect("CORPUS_UPGRADES should be a number"))
}

#[test]
fn more_upgrades_from_13_and_15() {
    let Some(parts) = parts() else { return };
    for (from, to) in [(13, 15), (13, 17), (15, 17)] {
        let Some(machine) = machine::for_test(&format!("corpus-{from}-{to}")) else { return };
        upgraded_in_parts(&machine, from, to, parts);
    }
}

#[test]
fn more_upgrades_to_18_and_19() {
    let Some(parts) = parts() else { return };
    for (from, to) in [(17, 19), (15, 18), (13, 18), (18, 19)] {
        let Some(machine) = machine::for_test_on_newer(&format!("corpus-{from}-{to}")) else { return };
        upgraded_in_parts(&machine, from, to, parts);
    }
}
