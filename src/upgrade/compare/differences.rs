//! Two snapshots → sentences. Pure.

mod globals;
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::name::shown;
use super::{Database, Snapshot};

/// One thing that is not equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whether something may be lost: then the new cluster must not take the old one's place. All others are notes.
    pub serious: bool,
    /// A sentence, lower case.
    pub message: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What differs, the most important first; nothing if the clusters are equal.
pub fn differences(old: &Snapshot, new: &Snapshot) -> Vec<Difference> {
    let mut found = Found::default();
    let (olds, news): (BTreeSet<_>, BTreeSet<_>) = (old.databases().collect(), new.databases().collect());
    for name in &olds - &news {
        found.serious(format!("database {name:?} is missing"));
    }
    for name in &news - &olds {
        let message = format!("database {name:?} exists, and did not before");
        // Every new cluster has these two, and they can be dropped.
        let is_initdbs = ["postgres", "template1"].contains(&name);
        match is_initdbs && new.databases.get(name).is_some_and(|database| database.relations.is_empty()) {
            true => found.note(message),
            false => found.serious(message),
        }
    }
    if old.closed != new.closed {
        found.serious(format!(
            "databases that do not allow connections: {:?}, before: {:?}",
            new.closed, old.closed
        ));
    }
    found.globals(&old.globals, &new.globals);
    for (name, old) in &old.databases {
        if let Some(new) = new.databases.get(name) {
            let place = format!("database {name:?}: ");
            let mut within = Found::default();
            within.database(old, new);
            found.0.extend(
                within.0.into_iter().map(|(rank, serious, text)| (rank, serious, place.clone() + &text)),
            );
        }
    }
    // Within a rank they stay in the order of the databases.
    found.0.sort_by_key(|(rank, serious, _)| (!serious, *rank));
    found.0.into_iter().map(|(_, serious, message)| Difference { serious, message }).collect()
}

/// What a difference is about, the most important first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    #[default]
    Databases,
    Rows,
    Startup,
    Objects,
    Roles,
    Notes,
}

#[derive(Debug, Default)]
struct Found(Vec<(Rank, bool, String)>);

impl Found {
    fn serious(&mut self, message: String) {
        self.at(Rank::Databases, message);
    }

    fn at(&mut self, rank: Rank, message: String) {
        self.0.push((rank, true, message));
    }

    fn note(&mut self, message: String) {
        self.0.push((Rank::Notes, false, message));
    }

    fn database(&mut self, old: &Database, new: &Database) {
        self.rows(old, new);
        self.startup(old, new);
        let mut told = self.relations(old, new);
        told.extend(self.validity(old, new));
        self.objects(old, new, &told);
    }

    fn rows(&mut self, old: &Database, new: &Database) {
        for (name, was) in &old.tables {
            let Some(is) = new.tables.get(name) else { continue };
            let text = match (&was.hash, &is.hash) {
                _ if was.count != is.count => {
                    format!("table {name} has {} rows, and had {} before", is.count, was.count)
                }
                (Some(was), Some(is)) if was != is => {
                    format!("table {name} has as many rows as before, but other values")
                }
                _ => continue,
            };
            // Of an extension that brings rows of its own there may be a newer version.
            match old.relations.get(name).is_some_and(|relation| relation.of_extension) {
                true => self.note(text),
                false => self.at(Rank::Rows, text),
            }
        }
        for (what, was) in &old.counts {
            let is = new.counts.get(what).copied().unwrap_or(0);
            if is != *was {
                self.at(Rank::Rows, format!("{what}: {is}, before: {was}"));
            }
        }
        for (name, was) in &old.sequences {
            if let Some(is) = new.sequences.get(name).filter(|is| *is != was) {
                let text =
                    format!("sequence {name} is at {}, and was at {} before", position(is), position(was));
                // Of an extension, dumps have those only that it names (`pg_extension_config_dump`).
                match old.relations.get(name).is_some_and(|relation| relation.of_extension) {
                    true => self.note(text),
                    false => self.at(Rank::Rows, text),
                }
            }
        }
        if new.comments < old.comments {
            self.note(format!(
                "comments: {}, before: {}; those on dropped or built-in objects are not migrated",
                new.comments, old.comments
            ));
        }
        let (was, is) = (&old.large_objects, &new.large_objects);
        if was.count != is.count {
            self.at(Rank::Rows, format!("large objects: {}, before: {}", is.count, was.count));
        } else if was.hash != is.hash {
            self.at(
                Rank::Rows,
                "the large objects are as many as before, but their OIDs, owners, privileges or comments differ".to_owned(),
            );
        } else if let (Some(was), Some(is)) = (&old.large_object_contents, &new.large_object_contents)
            && was != is
        {
            self.at(Rank::Rows, "the contents of the large objects differ".to_owned());
        }
    }

    fn startup(&mut self, old: &Database, new: &Database) {
        for problem in new.startup_problems.iter().filter(|problem| !old.startup_problems.contains(problem)) {
            self.at(Rank::Startup, problem.clone());
        }
    }

    /// Those that are missing are told as objects; extensions' own are none of those. Returns those whose columns
    /// differ.
    fn relations(&mut self, old: &Database, new: &Database) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        for (name, was) in &old.relations {
            let Some(is) = new.relations.get(name) else {
                if was.of_extension {
                    self.note(format!("{name}, created by an extension, is missing"));
                }
                continue;
            };
            if was.of_extension {
                continue;
            }
            if was.populated && !is.populated {
                self.at(Rank::Rows, format!("materialized view {name} has lost its rows"));
            }
            if was.columns != is.columns {
                told.insert(name.clone());
            }
            let (mine, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
                (was.columns.iter().cloned().collect(), is.columns.iter().cloned().collect());
            for (column, was) in &mine {
                let is = theirs.get(column);
                let column = shown("", column);
                match is {
                    None => self.at(Rank::Objects, format!("column {column} of {name} is missing")),
                    Some(is) if is != was => {
                        self.at(
                            Rank::Objects,
                            format!("column {column} of {name} is {is}, and was {was} before"),
                        );
                    }
                    Some(_) => {}
                }
            }
            for column in theirs.keys().filter(|column| !mine.contains_key(*column)) {
                let column = shown("", column);
                self.at(Rank::Objects, format!("column {column} of {name} exists, and did not before"));
            }
            if mine == theirs && was.columns != is.columns {
                let text = format!("the columns of {name} are in another order");
                match was.inherits && is.inherits {
                    true => self.note(format!("{text}: inherited columns come first, as in every dump")),
                    false => self.at(Rank::Objects, text),
                }
            }
        }
        told
    }

    /// Returns the indexes of which everything is said: pg_dump leaves out those that are not valid.
    fn validity(&mut self, old: &Database, new: &Database) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        for (name, was) in &old.indexes {
            let is = new.indexes.get(name);
            let works = |index: &super::Index| index.valid && index.ready;
            match is {
                None if !works(was) => {
                    self.note(format!("index {name}, which was invalid, is missing"));
                }
                Some(is) if works(was) && !works(is) => {
                    self.at(Rank::Objects, format!("index {name} is invalid, and was valid before"));
                }
                Some(is) if !works(was) && works(is) => {
                    self.note(format!("index {name} is valid, and was invalid before"));
                }
                Some(is) if is.unique != was.unique => {
                    let whether = |unique| if unique { "unique" } else { "not unique" };
                    self.at(
                        Rank::Objects,
                        format!(
                            "index {name} is {}, and was {} before",
                            whether(is.unique),
                            whether(was.unique)
                        ),
                    );
                }
                _ => continue,
            }
            told.insert(name.clone());
        }
        for (name, was) in &old.constraints {
            match new.constraints.get(name) {
                // All others are objects.
                None if was.kind == 'c' => self.at(Rank::Objects, format!("constraint {name} is missing")),
                Some(is) if was.valid && !is.valid => {
                    self.at(Rank::Objects, format!("constraint {name} is NOT VALID, and was valid before"));
                }
                Some(is) if !was.valid && is.valid => {
                    self.note(format!("constraint {name} is valid, and was NOT VALID before"));
                }
                _ => {}
            }
        }
        for (name, _) in
            new.constraints.iter().filter(|(name, is)| is.kind == 'c' && !old.constraints.contains_key(*name))
        {
            self.at(Rank::Objects, format!("constraint {name} exists, and did not before"));
        }
        told
    }
}

fn position((last, used): &(String, bool)) -> String {
    if *used { last.clone() } else { format!("{last}, not used") }
}

#[cfg(test)]
mod tests {
    use super::super::globals::Globals;
    use super::*;
    use crate::upgrade::compare::{Constraint, Depth, Index, Relation, Rows};

    fn snapshot() -> Snapshot {
        let relation = Relation {
            kind: 'r',
            of_extension: false,
            populated: true,
            columns: vec![("id".into(), "bigint NOT NULL".into()), ("a b".into(), "text".into())],
            inherits: false,
        };
        let database = Database {
            relations: [("public.t".to_owned(), relation)].into(),
            tables: [("public.t".to_owned(), Rows { count: 3, hash: Some("7".into()) })].into(),
            sequences: [("public.s".to_owned(), ("5".to_owned(), true))].into(),
            indexes: [("public.i".to_owned(), Index { valid: true, ready: true, unique: true })].into(),
            constraints: [("c of public.t".to_owned(), Constraint { kind: 'c', valid: true })].into(),
            ..Database::default()
        };
        Snapshot {
            depth: Depth::Content,
            globals: Globals::default(),
            databases: [("homeserver".to_owned(), database)].into(),
            closed: Vec::new(),
        }
    }

    fn said(change: impl Fn(&mut Database)) -> Vec<(bool, String)> {
        let (old, mut new) = (snapshot(), snapshot());
        new.databases.values_mut().for_each(change);
        differences(&old, &new)
            .into_iter()
            .map(|difference| (difference.serious, difference.message))
            .collect()
    }

    #[test]
    fn equal_snapshots_have_no_differences_and_survive_being_written_down() {
        let old = snapshot();
        let new: Snapshot = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        assert_eq!(old, new);
        assert_eq!(differences(&old, &new), []);
        assert_eq!((new.rows(), new.tables(), new.databases().count()), (3, 1, 1));
    }

    #[test]
    fn a_change_is_a_sentence() {
        let only = |change: &dyn Fn(&mut Database), expected: &str| {
            assert_eq!(said(change), [(true, format!("database \"homeserver\": {expected}"))]);
        };
        let table = |new: &mut Database, count, hash: &str| {
            new.tables.insert("public.t".into(), Rows { count, hash: Some(hash.into()) });
        };
        only(&|new| table(new, 2, "4"), "table public.t has 2 rows, and had 3 before");
        only(&|new| table(new, 3, "4"), "table public.t has as many rows as before, but other values");
        only(
            &|new| drop(new.sequences.insert("public.s".into(), ("1".into(), false))),
            "sequence public.s is at 1, not used, and was at 5 before",
        );
        only(&|new| new.constraints.clear(), "constraint c of public.t is missing");
        only(
            &|new| new.relations.values_mut().for_each(|relation| relation.columns.truncate(1)),
            "column \"a b\" of public.t is missing",
        );
        only(
            &|new| new.relations.values_mut().for_each(|relation| relation.columns.reverse()),
            "the columns of public.t are in another order",
        );
        only(&|new| new.startup_problems.push("it would not start".into()), "it would not start");
        only(
            &|new| new.indexes.values_mut().for_each(|index| index.valid = false),
            "index public.i is invalid, and was valid before",
        );
    }

    #[test]
    fn rows_that_an_extension_brings_are_a_note_and_notes_come_last() {
        let (mut old, mut new) = (snapshot(), snapshot());
        let database = new.databases.get_mut("homeserver").unwrap();
        database.tables.insert("public.t".into(), Rows { count: 4, hash: None });
        database.sequences.insert("public.s".into(), ("1".into(), true));
        for database in old.databases.values_mut().chain(new.databases.values_mut()) {
            database.relations.values_mut().for_each(|relation| relation.of_extension = true);
        }
        let serious: Vec<_> = differences(&old, &new).iter().map(|difference| difference.serious).collect();
        assert_eq!(serious, [true, false]);
    }

    #[test]
    fn what_no_dump_keeps_is_a_note() {
        let (mut old, mut new) = (snapshot(), snapshot());
        for snapshot in [&mut old, &mut new] {
            let database = snapshot.databases.get_mut("homeserver").unwrap();
            database.relations.values_mut().for_each(|relation| relation.inherits = true);
        }
        old.databases.get_mut("homeserver").unwrap().comments = 1;
        let columns =
            &mut new.databases.get_mut("homeserver").unwrap().relations.get_mut("public.t").unwrap().columns;
        columns.reverse();
        let found = differences(&old, &new);
        assert!(found.len() == 2 && found.iter().all(|difference| !difference.serious), "{found:?}");
        assert!(found.iter().any(|note| note.message.contains("another order: inherited columns")));
        assert!(found.iter().any(|note| note.message.contains("comments: 0, before: 1")));
    }

    #[test]
    fn an_index_that_became_valid_is_a_note() {
        let (mut old, new) = (snapshot(), snapshot());
        old.databases
            .get_mut("homeserver")
            .unwrap()
            .indexes
            .values_mut()
            .for_each(|index| index.valid = false);
        let found = differences(&old, &new);
        assert_eq!(found.len(), 1);
        assert!(
            !found[0].serious && found[0].message.ends_with("is valid, and was invalid before"),
            "{found:?}"
        );
    }
}
