//! An entry of the table of contents.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Read;

use memchr::{memchr, memmem};

use super::binary::Columns;
use super::fields::{Recorder, put_text};
use super::header::{Form, WITH_ACCESS_METHOD, WITH_KIND};
use crate::error::Result;
use crate::postgres::key_trigger;
use crate::sql::guard::beginning;
use crate::sql::tokens::{Token, tokens};

/// `K_OFFSET_POS_NOT_SET`, `K_OFFSET_POS_SET` and `K_OFFSET_NO_DATA`: whether an entry says where in the file its rows are.
pub(super) const NOWHERE: u8 = 1;
pub(super) const SOMEWHERE: u8 = 2;
pub(super) const WITHOUT: u8 = 3;

/// `SECTION_PRE_DATA` and `SECTION_DATA`: definitions; rows, large objects and values of sequences.
pub(super) const DEFINITIONS: i32 = 2;
pub(super) const DATA: i32 = 3;

/// Entries that name roles in their definitions.
const PRIVILEGES: [&[u8]; 4] = [b"ACL", b"DEFAULT ACL", b"POLICY", b"USER MAPPING"];

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
    /// It says only whether a trigger of a foreign key is switched on, by a name that is nobody's in another database.
    pub(super) is_key_trigger: bool,
    /// What it says of privileges.
    pub(super) privileges: Option<Vec<u8>>,
    /// What is in its columns, if its rows are sent in binary.
    pub(super) columns: Option<Columns>,
    /// In which file of the dump's directory the rows are, if it is one.
    pub(super) file: Option<String>,
    pub(super) after: Vec<u8>,
}

impl Entry {
    /// Reads the next one; one of a dump that is a directory becomes that of a custom dump.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`], and those of the source.
    pub(super) fn read(source: &mut Recorder<impl Read>, form: Form) -> Result<Self> {
        let id = source.int()?;
        let has_rows = source.int()? != 0;
        source.text()?; // the catalog's number
        source.text()?; // its own
        let tag = source.text()?.unwrap_or_default();
        let description = source.text()?.unwrap_or_default();
        let section = source.int()?;
        let start = source.record.len();
        let definition = source.text()?.unwrap_or_default();
        // Every database has one: pg_dump says this of it unless it was asked for this schema.
        if description == b"SCHEMA" && tag == b"public" && definition.starts_with(b"CREATE SCHEMA ") {
            source.record.truncate(start);
            put_text(&mut source.record, b"-- *not* creating schema, since initdb creates it\n", source.int);
        }
        let privileges = PRIVILEGES.contains(&&description[..]).then(|| definition.clone());
        source.text()?; // how to drop it
        let before = source.take();
        let copy = source.text()?;
        source.take();
        let schema = source.text()?;
        source.text()?; // the tablespace
        if form.version >= WITH_ACCESS_METHOD {
            source.text()?;
        }
        if form.version >= WITH_KIND {
            source.int()?;
        }
        let owner = source.text()?.unwrap_or_default();
        source.text()?; // no longer used
        let mut dependencies = BTreeSet::new();
        while let Some(text) = source.text()? {
            dependencies.extend(std::str::from_utf8(&text).ok().and_then(|text| text.parse::<i32>().ok()));
        }
        let mut file = None;
        if form.directory {
            let end = source.record.len();
            file =
                source.text()?.and_then(|name| String::from_utf8(name).ok()).filter(|name| !name.is_empty());
            source.record.truncate(end);
            source.record.push(if has_rows { NOWHERE } else { WITHOUT });
            source.record.resize(end + 1 + form.offset, 0);
        } else {
            // Where its data is: no longer true once the length of anything before has changed.
            if source.bytes::<1>()? == [SOMEWHERE]
                && let Some(last) = source.record.last_mut()
            {
                *last = NOWHERE;
            }
            for _ in 0..form.offset {
                source.bytes::<1>()?;
            }
        }
        let trigger = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let is_key_trigger = description == b"TRIGGER"
            && !definition.trim_ascii_start().starts_with(b"CREATE ")
            && std::str::from_utf8(trigger).is_ok_and(key_trigger::is_name);
        let may_run = match description.as_slice() {
            b"FUNCTION" => !is_of_triggers(&definition),
            b"AGGREGATE" | b"DOMAIN" => true,
            _ => false,
        };
        Ok(Self {
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
            is_key_trigger,
            privileges,
            columns: None,
            file,
            after: source.take(),
        })
    }

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
