//! What of a dump can be made when, and what can be missed.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{DATA, DEFINITIONS, Entry};
use super::toc::{Toc, of_kind};

const LARGE_OBJECTS_AS_SUCH: &[u8] = b"BLOB METADATA";

/// Kinds of entries without which all rows are there, and nothing else fails: indexes, keys between tables, what a view had
/// gathered, privileges and what is said of objects, what does something at certain events.
const CAN_BE_MISSED: [&[u8]; 18] = [
    b"ACL",
    b"COMMENT",
    b"DEFAULT ACL",
    b"EVENT TRIGGER",
    b"FK CONSTRAINT",
    b"INDEX",
    b"INDEX ATTACH",
    b"MATERIALIZED VIEW DATA",
    b"POLICY",
    b"PUBLICATION",
    b"PUBLICATION TABLE",
    b"PUBLICATION TABLES IN SCHEMA",
    b"RULE",
    b"SECURITY LABEL",
    b"STATISTICS",
    b"SUBSCRIPTION",
    b"SUBSCRIPTION TABLE",
    b"TRIGGER",
];

/// A key between two tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backup) struct Key {
    /// Its number.
    pub(in crate::backup) id: i32,
    /// The entry with the rows that are looked up in the other table, each of them.
    pub(in crate::backup) rows: i32,
    /// The entries with the rows of both tables, and all of their indexes.
    pub(in crate::backup) needs: BTreeSet<i32>,
}

impl Toc {
    /// Numbers of the entries that come after the definitions and must be there before any rows: large objects as
    /// such, which since PostgreSQL 17 are no longer among the definitions.
    pub(in crate::backup) fn before_rows(&self) -> Vec<i32> {
        self.later()
            .filter(|entry| entry.description == LARGE_OBJECTS_AS_SUCH)
            .map(|entry| entry.id)
            .collect()
    }

    /// Numbers of all other entries that come after the definitions, in order, but for those whose rows are in the dump.
    pub(in crate::backup) fn after_rows(&self) -> impl Iterator<Item = i32> {
        self.later().filter(|entry| entry.description != LARGE_OBJECTS_AS_SUCH).map(|entry| entry.id)
    }

    pub(super) fn later(&self) -> impl Iterator<Item = &Entry> {
        let definitions = |entry: &&Entry| entry.section < DATA;
        let of_all = |entry: &&Entry| !entry.has_rows && !entry.is_key_trigger && !self.is_apart(entry.id);
        self.entries().iter().skip_while(definitions).filter(of_all)
    }

    /// The indexes, also those of constraints, of the table whose rows have this number; in order, and only those
    /// that can be built as soon as the table has its rows.
    pub(in crate::backup) fn indexes_of(&self, rows: i32) -> Vec<i32> {
        let Some(rows) = self.entries().iter().find(|entry| entry.id == rows) else { return Vec::new() };
        let table = of_kind(self.entries(), b"TABLE").find(|table| table.name == rows.name);
        let Some(table) = table.map(|table| table.id) else { return Vec::new() };
        let late: BTreeSet<_> =
            self.entries().iter().skip_while(|entry| entry.section < DATA).map(|entry| entry.id).collect();
        let indexes = self.entries().iter().filter(|entry| {
            (entry.description == b"INDEX" || entry.description == b"CONSTRAINT")
                && entry.dependencies.contains(&table)
                && entry.dependencies.is_disjoint(&late)
                && !self.is_apart(entry.id)
        });
        indexes.map(|entry| entry.id).collect()
    }

    /// Keys between tables; only those that need nothing but rows and indexes.
    pub(in crate::backup) fn keys(&self) -> Vec<Key> {
        let tables: BTreeMap<_, _> =
            of_kind(self.entries(), b"TABLE").map(|table| (&table.name, table.id)).collect();
        let rows: BTreeMap<_, _> = of_kind(self.entries(), b"TABLE DATA")
            .filter_map(|rows| Some((*tables.get(&rows.name)?, rows)))
            .collect();
        let late: BTreeSet<_> = self.after_rows().collect();
        let key = |entry: &Entry| {
            let tables = entry.dependencies.iter().filter_map(|dependency| rows.get(dependency));
            // It is called by its table's name and its own.
            let is_own = |rows: &&&Entry| {
                entry.name.1.strip_prefix(&*rows.name.1).is_some_and(|rest| rest.starts_with(b" "))
            };
            let rows = tables.clone().find(is_own)?.id;
            let mut needs = BTreeSet::new();
            for table in tables {
                needs.insert(table.id);
                needs.extend(self.indexes_of(table.id));
            }
            let possible = entry.dependencies.intersection(&late).all(|late| needs.contains(late));
            possible.then_some(Key { id: entry.id, rows, needs })
        };
        let keys = of_kind(self.entries(), b"FK CONSTRAINT").filter(|entry| !self.is_apart(entry.id));
        keys.filter_map(key).collect()
    }

    /// Whether what is missing without this entry is an index, or what a view had gathered: rows are not.
    pub(in crate::backup) fn can_be_missed(&self, id: i32, missing: &BTreeSet<i32>) -> bool {
        self.entries().iter().find(|entry| entry.id == id).is_some_and(|entry| {
            CAN_BE_MISSED.contains(&&*entry.description)
                // Comments are of no section.
                || (![DEFINITIONS, DATA].contains(&entry.section) && !entry.dependencies.is_disjoint(missing))
        })
    }

    /// Whether it is a key between tables one of which stays empty, for its rows are missing.
    pub(in crate::backup) fn is_key_of(&self, id: i32, missing: &BTreeSet<i32>) -> bool {
        let rows = of_kind(self.entries(), b"TABLE DATA").filter(|rows| missing.contains(&rows.id));
        let empty: BTreeSet<_> = rows.map(|rows| &rows.name).collect();
        let tables = of_kind(self.entries(), b"TABLE").filter(|table| empty.contains(&table.name));
        let tables: BTreeSet<_> = tables.map(|table| table.id).collect();
        of_kind(self.entries(), b"FK CONSTRAINT")
            .any(|key| key.id == id && !key.dependencies.is_disjoint(&tables))
    }

    /// Takes an extension, all that is in its schema, and all that needs either, out of what is restored; whether there was
    /// any of it.
    pub(in crate::backup) fn take_apart(&mut self, extension: &str, schema: &str) -> bool {
        let names = [format!("EXTENSION {extension}"), format!("SCHEMA {schema}")];
        let before = self.apart.len();
        let mut apart = std::mem::take(&mut self.apart);
        let is_its = |entry: &Entry| {
            let Entry { description, name: (of, name), .. } = entry;
            let is = |text: &[u8], other: &str| text == other.as_bytes();
            (is(description, "EXTENSION") && is(name, extension))
                || (is(description, "SCHEMA") && is(name, schema))
                || of.as_deref().is_some_and(|of| is(of, schema))
                || names.iter().any(|whole| is(name, whole))
        };
        apart.extend(self.entries().iter().filter(|entry| is_its(entry)).map(|entry| entry.id));
        if apart.len() == before {
            self.apart = apart;
            return false;
        }
        loop {
            let needs =
                |entry: &&Entry| !entry.dependencies.is_disjoint(&apart) && !apart.contains(&entry.id);
            let more: Vec<_> = self.entries().iter().filter(needs).map(|entry| entry.id).collect();
            if more.is_empty() {
                break;
            }
            apart.extend(more);
        }
        self.apart = apart;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, dump, entries, expected};
    use super::*;

    #[test]
    fn what_can_be_made_when_follows_from_what_it_needs() {
        let toc = Toc::read(&dump(16, &entries())[..]).unwrap();
        assert_eq!(toc.with_rows(), [3, 4].into());
        assert_eq!(toc.before_rows(), [11]);
        assert_eq!(toc.after_rows().collect::<Vec<_>>(), [9, 5, 6, 8, 7, 10]);
        assert_eq!(toc.indexes_of(3), [5, 6]);
        assert!(toc.indexes_of(4).is_empty() && toc.indexes_of(99).is_empty());
        assert_eq!(toc.keys(), [Key { id: 7, rows: 3, needs: [3, 5, 6].into() }]);
        assert!(
            toc.is_key_of(7, &[3].into()) && !toc.is_key_of(7, &[4].into()) && !toc.is_key_of(5, &[3].into())
        );
        assert_eq!(toc.table_of(3).as_deref(), Some("public.\"we ird\""));
    }

    #[test]
    fn an_extension_is_taken_apart_with_all_that_needs_it() {
        let mut made = entries();
        made.push(Made(20, "pg_cron", "EXTENSION", None, &[]));
        made.push(Made(21, "EXTENSION pg_cron", "COMMENT", None, &["20"]));
        made.push(Made(22, "of_jobs", "VIEW", None, &["20"]));
        let mut toc = Toc::read(&dump(16, &made)[..]).unwrap();
        assert!(!toc.take_apart("other", "other"));
        assert!(toc.take_apart("pg_cron", "cron"));
        assert_eq!(toc.apart(), [20, 21, 22]);
        assert!(toc.bytes() == expected(16, &entries()));
        assert_eq!(toc.with_rows(), [3, 4].into());
        assert_eq!(toc.after_rows().collect::<Vec<_>>(), [9, 5, 6, 8, 7, 10]);
    }
}
