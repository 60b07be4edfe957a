//! An entry of the table of contents.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Read};

use memchr::{memchr, memmem};

use super::binary::Columns;
use super::toc::{WITH_ACCESS_METHOD, WITH_KIND};
use super::{broken, get_int, put_int};
use crate::error::Result;
use crate::sql::guard::beginning;
use crate::sql::tokens::{Token, tokens};

/// `K_OFFSET_POS_NOT_SET`, `K_OFFSET_POS_SET` and `K_OFFSET_NO_DATA`: whether an entry says where in the file its rows are.
pub(super) const NOWHERE: u8 = 1;
pub(super) const SOMEWHERE: u8 = 2;
pub(super) const WITHOUT: u8 = 3;

/// Entries that name roles in their definitions.
const PRIVILEGES: [&[u8]; 4] = [b"ACL", b"DEFAULT ACL", b"POLICY", b"USER MAPPING"];

fn put_text(bytes: &mut Vec<u8>, text: &[u8], int: usize) {
    put_int(bytes, i32::try_from(text.len()).unwrap_or(i32::MAX), int);
    bytes.extend_from_slice(text);
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each says something else")]
pub(super) struct Entry {
    pub(super) id: i32,
    /// Whether rows of it follow, or large objects.
    pub(super) has_rows: bool,
    pub(super) section: i32,
    pub(super) description: Vec<u8>,
    /// Schema and name.
    pub(super) name: (Option<Vec<u8>>, Vec<u8>),
    /// Empty where it says of nobody that he owns it: it is then of whoever makes it.
    pub(super) owner: String,
    /// It makes the server look at all rows that are there.
    pub(super) validates: bool,
    /// A table whose partitions are told apart by an expression that calls what is not PostgreSQL's own.
    pub(super) has_calling_key: bool,
    /// While definitions are made and there are no rows, the server may run what it says: a function that is no trigger's, or
    /// what evaluates constraints by itself.
    pub(super) may_run: bool,
    pub(super) dependencies: BTreeSet<i32>,
    /// It is as it was written, but for the statement in its middle.
    pub(super) before: Vec<u8>,
    pub(super) copy: Option<Vec<u8>>,
    /// The table, as it is quoted in SQL, if the rows are of one that the dump makes.
    pub(super) own: Option<String>,
    /// What it says of privileges.
    pub(super) privileges: Option<Vec<u8>>,
    /// What is in its columns, if its rows are sent in binary.
    pub(super) columns: Option<Columns>,
    /// In which file of the dump's directory the rows are, if it is one.
    pub(super) file: Option<String>,
    pub(super) after: Vec<u8>,
}

impl Entry {
    /// The statement that its rows follow; those of a table of the dump's own may be `frozen`, if nobody else uses it
    /// yet.
    ///
    /// Such rows are written as those that have always been there: nobody, neither an index that is built nor the
    /// first query, writes to them again only to note that they are valid. For that the table must be empty and locked:
    /// a text of several statements is one transaction (chapter "COPY", `FREEZE`; chapter "Message Flow", "Multiple
    /// Statements in a Simple Query").
    pub(super) fn statement(&self, frozen: bool) -> Option<Cow<'_, [u8]>> {
        let copy = self.copy.as_deref()?;
        let (Some(table), true) = (&self.own, frozen || self.columns.is_some()) else {
            return Some(Cow::Borrowed(copy));
        };
        let options = [(frozen, "FREEZE"), (self.columns.is_some(), "FORMAT binary")];
        let options: Vec<_> =
            options.into_iter().filter_map(|(wanted, option)| wanted.then_some(option)).collect();
        let mut statement = match frozen {
            true => format!("TRUNCATE TABLE ONLY {table};\n").into_bytes(),
            false => Vec::new(),
        };
        statement.extend_from_slice(bare(copy));
        statement.extend_from_slice(format!(" WITH ({});\n", options.join(", ")).as_bytes());
        Some(Cow::Owned(statement))
    }
}

/// A statement without its end.
pub(super) fn bare(statement: &[u8]) -> &[u8] {
    let statement = statement.trim_ascii_end();
    statement.strip_suffix(b";").unwrap_or(statement)
}

/// What pg_dump writes with a schema is not PostgreSQL's own.
fn has_calling_key(definition: &[u8]) -> bool {
    let start = memmem::rfind(definition, b"\nPARTITION BY ");
    let key = start
        .and_then(|start| memchr(b'(', &definition[start..]).map(|open| &definition[start + open + 1..]));
    key.is_some_and(|key| memchr(b'(', key).is_some() && memchr(b'.', key).is_some())
}

/// A function of triggers can be called by nothing else. That it is one is written as `trigger`, and as `"trigger"` where
/// pg_dump quotes all names (seen with 17); no schema is searched before `pg_catalog`, as pg_dump sets an empty search_path.
fn is_of_triggers(definition: &[u8]) -> bool {
    let tokens = tokens(&String::from_utf8_lossy(beginning(definition)));
    let [create, function, schema, dot, name, open, close, returns, trigger, ..] = tokens.as_slice() else {
        return false;
    };
    create.is("create")
        && function.is("function")
        && schema.name().is_some()
        && name.name().is_some()
        && [(dot, '.'), (open, '('), (close, ')')].iter().all(|(token, c)| **token == Token::Other(*c))
        && returns.is("returns")
        && trigger.name() == Some("trigger")
}

/// Reads fields, and remembers their bytes.
pub(super) struct Recorder<R> {
    pub(super) source: R,
    pub(super) int: usize,
    pub(super) record: Vec<u8>,
}

impl<R: Read> Recorder<R> {
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.record)
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(broken)?;
        self.record.extend_from_slice(&bytes);
        Ok(bytes)
    }

    pub(super) fn int(&mut self) -> Result<i32> {
        let value = get_int(&mut self.source, self.int)?;
        put_int(&mut self.record, value, self.int);
        Ok(value)
    }

    pub(super) fn text(&mut self) -> Result<Option<Vec<u8>>> {
        let Ok(length) = u64::try_from(self.int()?) else { return Ok(None) };
        let mut text = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut text).map_err(broken)?;
        if text.len() as u64 != length {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.record.extend_from_slice(&text);
        Ok(Some(text))
    }

    /// One of a dump that is a directory becomes that of a custom dump.
    pub(super) fn entry(&mut self, version: u8, offset: usize, directory: bool) -> Result<Entry> {
        let id = self.int()?;
        let has_rows = self.int()? != 0;
        self.text()?; // the catalog's number
        self.text()?; // its own
        let tag = self.text()?.unwrap_or_default();
        let description = self.text()?.unwrap_or_default();
        let section = self.int()?;
        let start = self.record.len();
        let definition = self.text()?.unwrap_or_default();
        // Every database has one: pg_dump says this of it unless it was asked for this schema.
        if description == b"SCHEMA" && tag == b"public" && definition.starts_with(b"CREATE SCHEMA ") {
            self.record.truncate(start);
            put_text(&mut self.record, b"-- *not* creating schema, since initdb creates it\n", self.int);
        }
        let privileges = PRIVILEGES.contains(&&description[..]).then(|| definition.clone());
        self.text()?; // how to drop it
        let before = self.take();
        let copy = self.text()?;
        self.take();
        let schema = self.text()?;
        self.text()?; // the tablespace
        if version >= WITH_ACCESS_METHOD {
            self.text()?;
        }
        if version >= WITH_KIND {
            self.int()?;
        }
        let owner = self.text()?.unwrap_or_default();
        self.text()?; // no longer used
        let mut dependencies = BTreeSet::new();
        while let Some(text) = self.text()? {
            dependencies.extend(std::str::from_utf8(&text).ok().and_then(|text| text.parse::<i32>().ok()));
        }
        let mut file = None;
        if directory {
            let end = self.record.len();
            file = self.text()?.and_then(|name| String::from_utf8(name).ok()).filter(|name| !name.is_empty());
            self.record.truncate(end);
            self.record.push(if has_rows { NOWHERE } else { WITHOUT });
            self.record.resize(end + 1 + offset, 0);
        } else {
            // Where its data is: no longer true once the length of anything before has changed.
            if self.bytes::<1>()? == [SOMEWHERE]
                && let Some(last) = self.record.last_mut()
            {
                *last = NOWHERE;
            }
            for _ in 0..offset {
                self.bytes::<1>()?;
            }
        }
        let may_run = match description.as_slice() {
            b"FUNCTION" => !is_of_triggers(&definition),
            b"AGGREGATE" | b"DOMAIN" => true,
            _ => false,
        };
        Ok(Entry {
            id,
            has_rows,
            section,
            description,
            name: (schema, tag),
            owner: String::from_utf8_lossy(&owner).into_owned(),
            has_calling_key: has_calling_key(&definition),
            may_run,
            validates: !definition.trim_ascii_end().ends_with(b" NOT VALID;"),
            dependencies,
            before,
            copy,
            own: None,
            privileges,
            columns: None,
            file,
            after: self.take(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_functions_of_triggers_are_never_run_while_definitions_are_made() {
        for (definition, is) in [
            (
                "CREATE FUNCTION public.f() RETURNS trigger\n    LANGUAGE plpgsql\n    AS $$BEGIN END$$;\n",
                true,
            ),
            ("CREATE FUNCTION public.\"f() RETURNS trigger\"() RETURNS integer\n", false),
            ("CREATE FUNCTION public.f(a integer) RETURNS trigger\n", false),
            ("CREATE FUNCTION \"public\".\"f\"() RETURNS \"trigger\"\n    LANGUAGE \"plpgsql\"\n", true),
            ("CREATE FUNCTION public.f() RETURNS \"public\".\"trigger\"\n", false),
            ("CREATE FUNCTION public.f() RETURNS \"Trigger\"\n", false),
            ("CREATE FUNCTION public.f() RETURNS SETOF trigger\n", false),
            ("", false),
        ] {
            assert_eq!(is_of_triggers(definition.as_bytes()), is, "{definition}");
        }
    }

    #[test]
    fn only_an_expression_of_a_partitions_key_calls_anything() {
        for (key, calls) in [
            ("", false),
            ("\nPARTITION BY RANGE (n)", false),
            ("\nPARTITION BY RANGE (n COLLATE public.\"C\")", false),
            ("\nPARTITION BY LIST (lower(n))", false),
            ("\nPARTITION BY LIST (public.f(n))", true),
            ("\nPARTITION BY RANGE (n, ((m OPERATOR(public.+) 1)))", true),
        ] {
            let definition = format!("CREATE TABLE public.t (\n    n int CHECK (public.f(n))\n){key};\n");
            assert_eq!(has_calling_key(definition.as_bytes()), calls, "{key}");
        }
    }
}
