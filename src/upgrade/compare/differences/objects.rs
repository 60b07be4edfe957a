//! Objects, as pg_dump writes them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, Rank};
use crate::upgrade::compare::Database;
use crate::upgrade::compare::name::shown;
use crate::upgrade::compare::schema::{Object, Statement};

type Key<'a> = (&'a str, &'a str, &'a str);

impl Found {
    /// `told` are relations and indexes that need not be told once more.
    pub(super) fn objects(&mut self, old: &Database, new: &Database, told: &BTreeSet<String>) {
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
                    self.at(Rank::Objects, format!("{name} exists, and did not before"));
                }
                self.statements(&format!("{name}: "), Rank::Objects, &[], &new.statements);
            }
        }
    }

    pub(super) fn missing(&mut self, object: &Object, old: &Database) {
        let name = words(object);
        let rows = old.tables.get(&shown(&object.schema, &object.name)).filter(|_| object.kind == "TABLE");
        match rows {
            Some(rows) => {
                self.at(Rank::Rows, format!("{name} is missing, and had {} rows before", rows.count));
            }
            None if object.statements.is_empty() => self.at(Rank::Objects, format!("{name} is missing")),
            None => self.statements(&format!("{name}: "), Rank::Objects, &object.statements, &[]),
        }
    }

    pub(super) fn object(&mut self, was: &Object, is: &Object, told: bool) {
        if was.owner != is.owner {
            let name = words(was);
            self.at(
                Rank::Objects,
                format!("{name} belongs to {:?}, and to {:?} before", is.owner, was.owner),
            );
        }
        if was.exact != is.exact && !told {
            let name = words(was);
            if is_more_by_maintain(&was.statements, &is.statements) {
                return self.note(format!(
                    "{name}: its owner has the privilege MAINTAIN, which the old version does not have"
                ));
            }
            if was.statements.is_empty() && is.statements.is_empty() {
                self.at(Rank::Objects, format!("{name} differs"));
            }
            self.statements(&format!("{name}: "), Rank::Objects, &was.statements, &is.statements);
        } else if was.rendered != is.rendered && !told {
            self.note(format!("{} is written differently; check that it means the same", words(was)));
        }
    }

    pub(super) fn statements<'a>(
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
            self.at(rank, format!("{place}added: {text}"));
        }
        for text in &gone & &come {
            self.at(rank, format!("{place}changed: {text}"));
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
}
