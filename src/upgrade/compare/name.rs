//! Names, as they are shown and compared.

use serde::Deserialize;

/// A relation's or a constraint's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Name {
    pub(super) schema: String,
    pub(super) name: String,
}

impl Name {
    /// For messages and for keys: with quotes where it could be misread without. Which words are key words, two
    /// majors do not agree on, so that the server's own quoting will not do.
    pub(super) fn shown(&self) -> String {
        shown(&self.schema, &self.name)
    }
}

/// `schema.name`, quoted where it must be.
pub(super) fn shown(schema: &str, name: &str) -> String {
    let quoted = |name: &str| {
        let simple = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.bytes().all(simple) { name.to_owned() } else { crate::postgres::identifier(name) }
    };
    if schema.is_empty() { quoted(name) } else { format!("{}.{}", quoted(schema), quoted(name)) }
}
