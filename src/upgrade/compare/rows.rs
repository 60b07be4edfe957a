//! Rows, sequences and large objects: what must be read to be compared, in portions of one psql each.

use std::fmt::Write as _;

use super::catalog::Name;
use super::{Depth, SETTINGS};
use crate::error::{Error, Kind, Result};
use crate::postgres::{Session, identifier};

/// A portion holds no more than so many.
const MOST: usize = 1000;

/// Something to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Table {
        name: Name,
        /// With the rows of its partitions.
        whole: bool,
        /// Those to be read, and in which order, where it is not their own.
        columns: Option<Vec<String>>,
    },
    Sequence(Name),
    /// The contents of all large objects.
    LargeObjects,
}

/// What is read by one psql from one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) database: String,
    pub(super) items: Vec<Item>,
    pub(super) bytes: u64,
}

/// The number of an item in its portion, and two values: rows and their hash; a sequence's last value and whether it has
/// been used; nothing and the large objects' hash.
pub(super) type Answer = (usize, String, String);

/// Divides what is to be read of one database: large tables alone, small ones together. A portion of `enough` bytes is
/// full.
pub(super) fn portions(database: &str, mut items: Vec<(Item, u64)>, enough: u64) -> Vec<Portion> {
    items.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut portions: Vec<Portion> = Vec::new();
    for (item, bytes) in items {
        let open = portions.last_mut().filter(|last| last.bytes + bytes <= enough && last.items.len() < MOST);
        match open {
            Some(portion) => {
                portion.items.push(item);
                portion.bytes += bytes;
            }
            None => portions.push(Portion { database: database.to_owned(), items: vec![item], bytes }),
        }
    }
    portions
}

/// Reads a portion; the answers are those to all of its items, in order.
pub(super) fn read(session: &Session<'_>, portion: &Portion, depth: Depth) -> Result<Vec<Answer>> {
    let answers: Vec<Answer> = session.answers(&portion.database, &script(portion, depth))?;
    match answers.iter().map(|(number, ..)| *number).eq(0..portion.items.len()) {
        true => Ok(answers),
        false => Err(Error::new(
            Kind::Bug,
            format!(
                "{} answers to {} questions about database {:?}",
                answers.len(),
                portion.items.len(),
                portion.database
            ),
        )),
    }
}

fn script(portion: &Portion, depth: Depth) -> String {
    let mut sql = SETTINGS.to_owned();
    for (number, item) in portion.items.iter().enumerate() {
        let (values, from) = match item {
            // The row, whatever a column may be called. Of the table's own type there may be a cast, which is a function of
            // its owner's; of a row that has none there is not.
            Item::Table { name, whole, columns } => (
                match depth {
                    Depth::Rows | Depth::Files => "pg_catalog.count(*)::text, ''".to_owned(),
                    Depth::Content => format!(
                        "pg_catalog.count(*)::text, coalesce(pg_catalog.sum(pg_catalog.hashtextextended(ROW({})::text COLLATE \"C\", 0)), 0)::text",
                        columns_of(columns.as_deref())
                    ),
                },
                format!("{}{} AS t", if *whole { "" } else { "ONLY " }, quoted(name)),
            ),
            Item::Sequence(name) => ("last_value::text, is_called::text".to_owned(), quoted(name)),
            // Where an object has holes, pages may be missing or be full of zeros.
            Item::LargeObjects => (
                "'', coalesce(pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', loid, pageno, \
                 pg_catalog.rtrim(pg_catalog.encode(data, 'hex'), '0')) COLLATE \"C\", 0)), 0)::text"
                    .to_owned(),
                "pg_catalog.pg_largeobject WHERE pg_catalog.rtrim(pg_catalog.encode(data, 'hex'), '0') <> ''"
                    .to_owned(),
            ),
        };
        let _ = writeln!(sql, "SELECT pg_catalog.json_build_array({number}, {values}) FROM {from};");
    }
    sql
}

/// A row's, in an order that does not depend on that of its columns.
fn columns_of(names: Option<&[String]>) -> String {
    match names {
        None => "t.*".to_owned(),
        Some(names) => {
            names.iter().map(|name| format!("t.{}", identifier(name))).collect::<Vec<_>>().join(", ")
        }
    }
}

fn quoted(name: &Name) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Item {
        let name = Name { schema: "public".into(), name: name.into() };
        Item::Table { name, whole: false, columns: None }
    }

    #[test]
    fn large_tables_are_read_alone_and_small_ones_together() {
        let items = [("a", 1), ("b", 50), ("c", 2), ("d", 900), ("e", 0), ("f", 60)];
        let items = items.map(|(name, bytes)| (table(name), bytes)).to_vec();
        let portions = portions("d", items, 100);
        let sizes: Vec<_> = portions.iter().map(|portion| (portion.items.len(), portion.bytes)).collect();
        assert_eq!(sizes, [(1, 900), (1, 60), (4, 53)]);
    }

    #[test]
    fn no_name_breaks_out_of_a_script() {
        let items = vec![table("a\"; DROP TABLE b; --"), Item::LargeObjects];
        let sql = script(&Portion { database: "d".into(), items, bytes: 0 }, Depth::Content);
        assert!(sql.contains("FROM ONLY \"public\".\"a\"\"; DROP TABLE b; --\" AS t;\n"), "{sql}");
        assert!(sql.contains("json_build_array(1, '', "), "{sql}");
    }
}
