//! Rows, sequences and large objects: what must be read to be compared, in portions of one psql each.

use std::fmt::Write as _;

use super::name::Name;
use super::settings::SETTINGS;
use crate::archive::digest::Hasher;
use crate::config::Depth;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Session, identifier, literal};

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
        /// Without planning a query of it: that would call a function of its owner's, as whoever asks.
        copied: bool,
        /// Places in the log are in it, whose second number is written with zeros before it since 19: all that stand
        /// behind a slash are left out.
        places: bool,
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
    let mut answers: Vec<Answer> = session.answers(&portion.database, &script(portion, depth))?;
    for (number, item) in portion.items.iter().enumerate() {
        if let Item::Table { name, whole, columns, copied: true, places } = item {
            let hashed = depth == Depth::Content;
            let mut lines = Lines { hashed, without_zeros: *places, ..Lines::default() };
            let tables = match whole {
                true => session.query(&portion.database, &leaves(name))?,
                false => vec![quoted(name)],
            };
            for table in tables {
                let source = format!("{table}{}", listed(columns.as_deref()));
                session.copied(&portion.database, SETTINGS, &source, |piece| lines.feed(piece))?;
            }
            answers.push((number, lines.count.to_string(), lines.sum.to_string()));
        }
    }
    answers.sort_by_key(|(number, ..)| *number);
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

/// Which tables hold the rows of a partitioned one, quoted as in SQL.
fn leaves(name: &Name) -> String {
    format!(
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname)), '[]')
         FROM pg_catalog.pg_partition_tree({}::pg_catalog.regclass) AS t JOIN pg_catalog.pg_class c ON c.oid = t.relid
         JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE isleaf AND relkind = 'r';",
        literal(&quoted(name))
    )
}

/// Columns as COPY names them.
fn listed(columns: Option<&[String]>) -> String {
    let list = |columns: &[String]| {
        let names: Vec<_> = columns.iter().map(|column| identifier(column)).collect();
        format!(" ({})", names.join(", "))
    };
    columns.map(list).unwrap_or_default()
}

/// Rows as COPY writes them, a line each, counted, and hashed whatever their order.
#[derive(Default)]
struct Lines {
    hashed: bool,
    /// Those behind a slash are not hashed.
    without_zeros: bool,
    is_behind_slash: bool,
    line: Hasher,
    count: u64,
    sum: u64,
}

impl Lines {
    fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            if self.hashed && self.without_zeros {
                for piece in part.split_inclusive(|&byte| byte == b'/') {
                    let zeros =
                        piece.iter().take_while(|&&byte| self.is_behind_slash && byte == b'0').count();
                    self.line.update(&piece[zeros..]);
                    self.is_behind_slash =
                        piece.ends_with(b"/") || self.is_behind_slash && zeros == piece.len();
                }
            } else if self.hashed {
                self.line.update(part);
            }
            if part.ends_with(b"\n") {
                self.count += 1;
                if self.hashed {
                    let digest = std::mem::take(&mut self.line).finish().sha256;
                    let first = u64::from_str_radix(&digest[..16], 16).unwrap_or_default();
                    self.sum = self.sum.wrapping_add(first);
                }
            }
        }
    }
}

fn script(portion: &Portion, depth: Depth) -> String {
    let mut sql = SETTINGS.to_owned();
    for (number, item) in portion.items.iter().enumerate() {
        let (values, from) = match item {
            // The row, whatever a column may be called. Of the table's own type there may be a cast, which is a function of
            // its owner's; of a row that has none there is not.
            Item::Table { copied: true, .. } => continue,
            Item::Table { name, whole, columns, places, .. } => (
                match depth {
                    Depth::Rows | Depth::Files => "pg_catalog.count(*)::text, ''".to_owned(),
                    Depth::Content => {
                        let row = format!("ROW({})::text", columns_of(columns.as_deref()));
                        let row = match places {
                            true => format!("pg_catalog.regexp_replace({row}, '/0+', '/', 'g')"),
                            false => row,
                        };
                        format!(
                            "pg_catalog.count(*)::text, coalesce(pg_catalog.sum(pg_catalog.hashtextextended({row} COLLATE \"C\", 0)), 0)::text"
                        )
                    }
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
        Item::Table { name, whole: false, columns: None, copied: false, places: false }
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
    fn rows_are_hashed_alike_whatever_their_order_and_pieces() {
        let of = |pieces: &[&str]| {
            let mut lines = Lines { hashed: true, ..Lines::default() };
            for piece in pieces {
                lines.feed(piece.as_bytes());
            }
            (lines.count, lines.sum)
        };
        assert_eq!(of(&["1\ta\n2\tb\n"]), of(&["2\t", "b\n1\ta", "\n"]));
        assert_ne!(of(&["1\ta\n2\tb\n"]), of(&["1\tb\n2\ta\n"]));
        assert_eq!(of(&[]), (0, 0));
    }

    #[test]
    fn a_place_in_the_log_is_the_same_with_zeros_and_without() {
        let of = |pieces: &[&str]| {
            let mut lines = Lines { hashed: true, without_zeros: true, ..Lines::default() };
            for piece in pieces {
                lines.feed(piece.as_bytes());
            }
            lines.sum
        };
        let old = of(&["0/16\t{1/2,NULL}\n0/0\tA/F0\n"]);
        assert_eq!(old, of(&["0/0", "0000016\t{1/", "000", "00002,NULL}\n0/00000000\tA/000000F0\n"]));
        assert_ne!(old, of(&["0/16\t{1/2,NULL}\n0/0\tA/F\n"]));
        let item = |places| Item::Table {
            name: Name { schema: "s".into(), name: "t".into() },
            whole: false,
            columns: None,
            copied: false,
            places,
        };
        let sql = |places| {
            script(&Portion { database: "d".into(), items: vec![item(places)], bytes: 0 }, Depth::Content)
        };
        assert!(
            sql(true).contains("regexp_replace(ROW(t.*)::text, '/0+', '/', 'g') COLLATE"),
            "{}",
            sql(true)
        );
        assert!(!sql(false).contains("regexp_replace"));
    }

    #[test]
    fn no_name_breaks_out_of_a_script() {
        let items = vec![table("a\"; DROP TABLE b; --"), Item::LargeObjects];
        let sql = script(&Portion { database: "d".into(), items, bytes: 0 }, Depth::Content);
        assert!(sql.contains("FROM ONLY \"public\".\"a\"\"; DROP TABLE b; --\" AS t;\n"), "{sql}");
        assert!(sql.contains("json_build_array(1, '', "), "{sql}");
    }
}
