//! Two snapshots → sentences. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::catalog::shown;
use super::globals::{Globals, Role};
use super::schema::{Object, Statement};
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
        let message = format!("database {name:?} is there, and was not before");
        // Every new cluster has these two, and they can be dropped.
        let is_initdbs = ["postgres", "template1"].contains(&name);
        match is_initdbs && new.databases.get(name).is_some_and(|database| database.relations.is_empty()) {
            true => found.note(message),
            false => found.serious(message),
        }
    }
    if old.closed != new.closed {
        found.serious(format!(
            "the databases that accept no connections are {:?}, and were {:?}",
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
                    format!("table {name} has {} rows, and had {}", is.count, was.count)
                }
                (Some(was), Some(is)) if was != is => {
                    format!("table {name} has as many rows as before, and not the same values in them")
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
                self.at(Rank::Rows, format!("{what}: {is}, and was {was}"));
            }
        }
        for (name, was) in &old.sequences {
            if let Some(is) = new.sequences.get(name).filter(|is| *is != was) {
                let text = format!("sequence {name} is at {}, and was at {}", position(is), position(was));
                // Of an extension, dumps have those only that it names (`pg_extension_config_dump`).
                match old.relations.get(name).is_some_and(|relation| relation.of_extension) {
                    true => self.note(text),
                    false => self.at(Rank::Rows, text),
                }
            }
        }
        if new.comments < old.comments {
            self.note(format!(
                "there are {} comments, and were {}: those of what is gone, or of what the server makes itself, no tool carries over",
                new.comments, old.comments
            ));
        }
        let (was, is) = (&old.large_objects, &new.large_objects);
        if was.count != is.count {
            self.at(Rank::Rows, format!("there are {} large objects, and were {}", is.count, was.count));
        } else if was.hash != is.hash {
            self.at(
                Rank::Rows,
                "the large objects are as many as before, and their ids, owners, privileges or comments differ".to_owned(),
            );
        } else if let (Some(was), Some(is)) = (&old.large_object_contents, &new.large_object_contents)
            && was != is
        {
            self.at(Rank::Rows, "the contents of the large objects are not the same".to_owned());
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
                    self.note(format!("{name}, which an extension had made, is gone"));
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
                        self.at(Rank::Objects, format!("column {column} of {name} is {is}, and was {was}"));
                    }
                    Some(_) => {}
                }
            }
            for column in theirs.keys().filter(|column| !mine.contains_key(*column)) {
                let column = shown("", column);
                self.at(Rank::Objects, format!("column {column} of {name} is there, and was not before"));
            }
            if mine == theirs && was.columns != is.columns {
                let text = format!("the columns of {name} are in another order");
                match was.inherits && is.inherits {
                    true => self.note(format!("{text}: those that it inherits come first, as in every dump")),
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
                    self.note(format!("index {name}, which was not valid and of no use, is gone"));
                }
                Some(is) if works(was) && !works(is) => {
                    self.at(Rank::Objects, format!("index {name} is not valid, and was"));
                }
                Some(is) if !works(was) && works(is) => {
                    self.note(format!("index {name}, which was not valid, is now"));
                }
                Some(is) if is.unique != was.unique => {
                    let whether = |unique| if unique { "unique" } else { "not unique" };
                    self.at(
                        Rank::Objects,
                        format!("index {name} is {}, and was {}", whether(is.unique), whether(was.unique)),
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
                    self.at(Rank::Objects, format!("constraint {name} is not valid, and was"));
                }
                Some(is) if !was.valid && is.valid => {
                    self.note(format!("constraint {name}, which was not valid, is now"));
                }
                _ => {}
            }
        }
        for (name, _) in
            new.constraints.iter().filter(|(name, is)| is.kind == 'c' && !old.constraints.contains_key(*name))
        {
            self.at(Rank::Objects, format!("constraint {name} is there, and was not before"));
        }
        told
    }

    /// `told` are relations and indexes that need not be told once more.
    fn objects(&mut self, old: &Database, new: &Database, told: &BTreeSet<String>) {
        let (olds, news) = (grouped(&old.objects), grouped(&new.objects));
        let told = |object: &Object| {
            matches!(object.kind.as_str(), "INDEX" | "TABLE" | "VIEW" | "MATERIALIZED VIEW")
                && told.contains(&shown(&object.schema, &object.name))
        };
        for (key, was) in &olds {
            let is = news.get(key).map_or(&[][..], Vec::as_slice);
            for (was, is) in was.iter().zip(is) {
                self.object(was, is, told(was));
            }
            for missing in was.iter().skip(is.len()).filter(|object| !told(object)) {
                self.missing(missing, old);
            }
        }
        for (key, is) in &news {
            let before = olds.get(key).map_or(0, Vec::len);
            for new in is.iter().skip(before).filter(|object| !told(object)) {
                let name = words(new);
                if new.statements.is_empty() {
                    self.at(Rank::Objects, format!("{name} is there, and was not before"));
                }
                self.statements(&format!("{name}: "), Rank::Objects, &[], &new.statements);
            }
        }
    }

    fn missing(&mut self, object: &Object, old: &Database) {
        let name = words(object);
        let rows = old.tables.get(&shown(&object.schema, &object.name)).filter(|_| object.kind == "TABLE");
        match rows {
            Some(rows) => self.at(Rank::Rows, format!("{name} is missing, and had {} rows", rows.count)),
            None if object.statements.is_empty() => self.at(Rank::Objects, format!("{name} is missing")),
            None => self.statements(&format!("{name}: "), Rank::Objects, &object.statements, &[]),
        }
    }

    fn object(&mut self, was: &Object, is: &Object, told: bool) {
        if was.owner != is.owner {
            let name = words(was);
            self.at(
                Rank::Objects,
                format!("{name} belongs to {:?}, and belonged to {:?}", is.owner, was.owner),
            );
        }
        if was.exact != is.exact && !told {
            let name = words(was);
            if is_more_by_maintain(&was.statements, &is.statements) {
                return self.note(format!(
                    "{name}: whoever owns it may maintain it as well, a privilege that the old version does not have"
                ));
            }
            if was.statements.is_empty() && is.statements.is_empty() {
                self.at(Rank::Objects, format!("{name} is not what it was"));
            }
            self.statements(&format!("{name}: "), Rank::Objects, &was.statements, &is.statements);
        } else if was.rendered != is.rendered && !told {
            self.note(format!("{} reads differently; look whether it means the same", words(was)));
        }
    }

    fn statements<'a>(
        &mut self,
        place: &str,
        rank: Rank,
        old: impl IntoIterator<Item = &'a Statement>,
        new: impl IntoIterator<Item = &'a Statement>,
    ) {
        let (olds, news): (BTreeSet<_>, BTreeSet<_>) = (old.into_iter().collect(), new.into_iter().collect());
        let shown = |statements: &BTreeSet<&Statement>| -> BTreeSet<String> {
            statements.iter().map(|statement| statement.shown.clone()).collect()
        };
        let (gone, come) = (shown(&(&olds - &news)), shown(&(&news - &olds)));
        for text in &gone - &come {
            self.at(rank, format!("{place}missing: {text}"));
        }
        for text in &come - &gone {
            self.at(rank, format!("{place}not there before: {text}"));
        }
        for text in &gone & &come {
            self.at(rank, format!("{place}another value: {text}"));
        }
    }

    fn globals(&mut self, old: &Globals, new: &Globals) {
        for (name, was) in &old.roles {
            match new.roles.get(name) {
                None => self.at(Rank::Roles, format!("role {name:?} is missing")),
                Some(is) => self.role(name, was, is),
            }
        }
        for name in new.roles.keys().filter(|name| !old.roles.contains_key(*name)) {
            self.at(Rank::Roles, format!("role {name:?} is there, and was not before"));
        }
        for was in &old.memberships - &new.memberships {
            let same = |is: &&super::Membership| is.role == was.role && is.member == was.member;
            let is = new.memberships.iter().filter(same).map(super::Membership::options).collect::<Vec<_>>();
            let who = format!("role {:?} is a member of {:?}", was.member, was.role);
            self.at(
                Rank::Roles,
                match is.is_empty() {
                    true => format!("role {:?} is no member of {:?}, and was", was.member, was.role),
                    false => format!("{who} with {}, and was with {}", is.join("; "), was.options()),
                },
            );
        }
        for is in &new.memberships - &old.memberships {
            let known = |was: &super::Membership| is.role == was.role && is.member == was.member;
            if !old.memberships.iter().any(known) {
                self.at(
                    Rank::Roles,
                    format!("role {:?} is a member of {:?}, and was not", is.member, is.role),
                );
            }
        }
        self.statements("", Rank::Roles, &old.statements, &new.statements);
    }

    fn role(&mut self, name: &str, was: &Role, is: &Role) {
        let words = |attributes: BTreeSet<String>| match attributes.is_empty() {
            true => "nothing".to_owned(),
            false => attributes.into_iter().collect::<Vec<_>>().join(", "),
        };
        if was.attributes != is.attributes {
            let (gone, come) = (&was.attributes - &is.attributes, &is.attributes - &was.attributes);
            self.at(Rank::Roles, format!("role {name:?} has {}, and had {}", words(come), words(gone)));
        }
        match (&was.password, &is.password) {
            (Some(_), None) => self.at(Rank::Roles, format!("role {name:?} has no password, and had one")),
            (None, Some(_)) => self.at(Rank::Roles, format!("role {name:?} has a password, and had none")),
            (was, is) if was != is => self.at(Rank::Roles, format!("role {name:?} has another password")),
            _ => {}
        }
    }
}

/// Whether what has come is no more than MAINTAIN, which 17 has added: as far as the old version knows privileges, they are
/// the same.
fn is_more_by_maintain(old: &[Statement], new: &[Statement]) -> bool {
    const MAINTAIN: &str = "MAINTAIN";
    const ALL: [&str; 7] = ["DELETE", "INSERT", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"];
    // What says nothing of privileges stays as it is.
    let known = |shown: &str| {
        let start = shown.find("GRANT ").map(|at| at + 6).or_else(|| shown.find("REVOKE ").map(|at| at + 7));
        let end = start.and_then(|start| Some(start + shown[start..].find(" ON ")?));
        let Some((start, end)) = start.zip(end) else { return Some(shown.to_owned()) };
        let mut privileges: Vec<_> = shown[start..end].split(", ").filter(|one| *one != MAINTAIN).collect();
        privileges.sort_unstable();
        let list = if privileges == ALL { "ALL".to_owned() } else { privileges.join(", ") };
        (!list.is_empty()).then(|| format!("{}{list}{}", &shown[..start], &shown[end..]))
    };
    let all = |statements: &[Statement]| -> BTreeSet<String> {
        statements.iter().filter_map(|statement| known(&statement.shown)).collect()
    };
    let tells =
        |statements: &[Statement]| statements.iter().any(|statement| statement.shown.contains(MAINTAIN));
    !old.is_empty() && !tells(old) && all(old) == all(new)
}

fn position((last, used): &(String, bool)) -> String {
    if *used { last.clone() } else { format!("{last}, not used") }
}

type Key<'a> = (&'a str, &'a str, &'a str);

/// By kind, schema and name: operators, say, may share all three.
fn grouped(objects: &[Object]) -> BTreeMap<Key<'_>, Vec<&Object>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for object in objects {
        groups
            .entry((object.kind.as_str(), object.schema.as_str(), object.name.as_str()))
            .or_default()
            .push(object);
    }
    groups
}

/// `table public.events`, `the comment on COLUMN public.events.room`.
fn words(object: &Object) -> String {
    let about = match object.kind.as_str() {
        "ACL" => "privileges on",
        "COMMENT" => "the comment on",
        "SECURITY LABEL" => "the security label of",
        kind => {
            let dot = if object.schema.is_empty() { "" } else { "." };
            return format!("{} {}{dot}{}", kind.to_ascii_lowercase(), object.schema, object.name);
        }
    };
    match (object.name.split_once(' '), object.schema.as_str()) {
        (Some((kind, name)), schema) if !schema.is_empty() => {
            format!("{about} {} {schema}.{name}", kind.to_ascii_lowercase())
        }
        (Some((kind, name)), _) => format!("{about} {} {name}", kind.to_ascii_lowercase()),
        (None, _) => format!("{about} {}", object.name),
    }
}

#[cfg(test)]
mod tests {
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
        only(&|new| table(new, 2, "4"), "table public.t has 2 rows, and had 3");
        only(
            &|new| table(new, 3, "4"),
            "table public.t has as many rows as before, and not the same values in them",
        );
        only(
            &|new| drop(new.sequences.insert("public.s".into(), ("1".into(), false))),
            "sequence public.s is at 1, not used, and was at 5",
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
            "index public.i is not valid, and was",
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
    fn maintain_is_no_difference_where_the_old_version_does_not_know_it() {
        let statements =
            |texts: &[&str]| texts.iter().map(|text| Statement::new(*text, text)).collect::<Vec<_>>();
        let old = [
            "REVOKE SELECT, INSERT, REFERENCES, DELETE, TRIGGER, TRUNCATE, UPDATE ON TABLE public.a FROM ada",
            "GRANT SELECT, INSERT ON TABLE public.a TO ada",
        ];
        let new = [
            "REVOKE ALL ON TABLE public.a FROM ada",
            "GRANT SELECT, INSERT, MAINTAIN ON TABLE public.a TO ada",
        ];
        assert!(is_more_by_maintain(&statements(&old), &statements(&new)));
        assert!(!is_more_by_maintain(&statements(&new), &statements(&old)));
        let more = [
            "REVOKE ALL ON TABLE public.a FROM ada",
            "GRANT SELECT, INSERT, DELETE, MAINTAIN ON TABLE public.a TO ada",
        ];
        assert!(!is_more_by_maintain(&statements(&old), &statements(&more)));
        let nothing = ["REVOKE ALL ON TABLE public.a FROM ada", "GRANT MAINTAIN ON TABLE public.a TO ada"];
        assert!(is_more_by_maintain(&statements(&old[..1]), &statements(&nothing)));
        // What is not about privileges is compared as it is.
        let set = |value: &str| {
            statements(&[&format!("ALTER DATABASE homeserver SET statement_timeout TO {value}")])
        };
        assert!(!is_more_by_maintain(&set("'1s'"), &set("'2s'")));
        assert!(!is_more_by_maintain(&set("'1s'"), &[]));
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
        assert!(found.iter().any(|note| note.message.contains("another order: those that it inherits")));
        assert!(found.iter().any(|note| note.message.contains("there are 0 comments, and were 1")));
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
        assert!(!found[0].serious && found[0].message.ends_with("which was not valid, is now"), "{found:?}");
    }
}
