//! What of a dump makes the server run code of others.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{DATA, Entry};
use super::toc::{Toc, of_kind};

impl Toc {
    /// The entries with rows of a table, by schema and name, for which `choice` has something.
    pub(in crate::backup) fn rows_of<T>(
        &self,
        choice: impl Fn(&[u8], &[u8]) -> Option<T>,
    ) -> BTreeMap<i32, T> {
        let rows = self.entries().iter().filter(|entry| entry.has_rows && entry.description == b"TABLE DATA");
        rows.filter_map(|entry| {
            Some((entry.id, choice(entry.name.0.as_deref().unwrap_or_default(), &entry.name.1)?))
        })
        .collect()
    }

    /// The entries that come after the rows and make the server evaluate something as whoever makes them, with what belongs to
    /// them: name and owner, of those owners that are `chosen`. pg_dump leaves a constraint until then whose function needs
    /// the table itself. A key between tables may need casts, and to query these tables is to evaluate what is constant in
    /// the expressions of their indexes, which are also compared with those of an index that they become a part of: where
    /// there are functions for that.
    pub(in crate::backup) fn evaluated_later(
        &self,
        functions: bool,
        chosen: impl Fn(&str) -> bool,
    ) -> BTreeMap<i32, (String, String)> {
        let mut found: BTreeMap<i32, (String, String)> = BTreeMap::new();
        for entry in self.later() {
            let evaluates = match &entry.description[..] {
                b"CHECK CONSTRAINT" => entry.validates,
                b"FK CONSTRAINT" => functions && entry.validates,
                b"INDEX ATTACH" => functions,
                _ => false,
            };
            if evaluates && chosen(&entry.owner) {
                found.insert(
                    entry.id,
                    (String::from_utf8_lossy(&entry.name.1).into_owned(), entry.owner.clone()),
                );
            } else if let Some(of) = entry.dependencies.iter().find_map(|id| found.get(id)).cloned() {
                found.insert(entry.id, of);
            }
        }
        found
    }

    /// The definitions of what may hold rows, but for those that make the server evaluate the constraints of a domain, and these
    /// with all that needs them; nothing if there are none. The bounds of a partition may be of a domain, and so may the first
    /// value of an aggregate.
    pub(in crate::backup) fn evaluated_definitions(&self) -> Option<(Vec<i32>, Vec<i32>)> {
        of_kind(self.entries(), b"DOMAIN").next()?;
        let (mut first, mut last) = (Vec::new(), BTreeSet::new());
        for entry in self.entries().iter().take_while(|entry| entry.section < DATA) {
            let evaluates = entry.description == b"AGGREGATE" || entry.description == b"TABLE ATTACH";
            match evaluates || !entry.dependencies.is_disjoint(&last) {
                true => _ = last.insert(entry.id),
                false => first.push(entry.id),
            }
        }
        let in_order = |entry: &&Entry| last.contains(&entry.id);
        let last: Vec<_> = self.entries().iter().filter(in_order).map(|entry| entry.id).collect();
        (!last.is_empty()).then_some((first, last))
    }

    /// Name and owner of each table whose key calls what is not PostgreSQL's own: it is evaluated as whoever makes the table, as
    /// far as it is constant.
    pub(in crate::backup) fn calling_keys(&self) -> impl Iterator<Item = (String, &str)> {
        let tables = of_kind(self.entries(), b"TABLE").filter(|entry| entry.has_calling_key);
        tables.map(|entry| (String::from_utf8_lossy(&entry.name.1).into_owned(), entry.owner.as_str()))
    }

    /// Whether the server may run what somebody who is `chosen` has written, while the definitions are made.
    pub(in crate::backup) fn may_run(&self, chosen: impl Fn(&str) -> bool) -> bool {
        self.entries().iter().any(|entry| entry.may_run && chosen(&entry.owner))
            || self.calling_keys().any(|(_, owner)| chosen(owner))
    }

    /// Names of the aggregates whose owner is `chosen`.
    pub(in crate::backup) fn aggregates(&self, chosen: impl Fn(&str) -> bool) -> Vec<String> {
        of_kind(self.entries(), b"AGGREGATE")
            .filter(|entry| chosen(&entry.owner))
            .map(|entry| String::from_utf8_lossy(&entry.name.1).into_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, dump, entries};
    use super::*;

    #[test]
    fn what_is_evaluated_as_whoever_makes_it_is_found() {
        let mut made = entries();
        made.extend([
            Made(20, "t whole", "CHECK CONSTRAINT", None, &["1"]),
            Made(21, "CONSTRAINT whole ON t", "COMMENT", None, &["20"]),
            Made(22, "i", "INDEX ATTACH", None, &["6"]),
        ]);
        let toc = Toc::read(&dump(16, &made)[..]).unwrap();
        let found = |functions, owner: &str| {
            let found = toc.evaluated_later(functions, |other| other == owner);
            found.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(found(false, "synapse"), [20, 21]);
        assert_eq!(found(true, "synapse"), [7, 10, 20, 21, 22]);
        assert!(found(true, "postgres").is_empty());
        assert_eq!(toc.evaluated_definitions(), None);
        assert_eq!(
            toc.rows_of(|schema, name| (schema == b"public" && name == b"config").then_some(())),
            [(4, ())].into()
        );
    }

    #[test]
    fn partitions_and_aggregates_wait_for_the_domains() {
        let made = [
            Made(1, "d", "DOMAIN", None, &[]),
            Made(2, "a", "AGGREGATE", None, &["1"]),
            Made(3, "v", "VIEW", None, &["2"]),
            Made(4, "t", "TABLE", None, &[]),
        ];
        let toc = Toc::read(&dump(16, &made)[..]).unwrap();
        assert_eq!(toc.evaluated_definitions(), Some((vec![1, 4], vec![2, 3])));
        assert_eq!(toc.aggregates(|owner| owner == "synapse"), ["a"]);
    }
}
