//! What pg_dump and pg_dumpall write around the dump of a database, and about databases.

use crate::sql::tokens::Token;

pub(super) const CLUSTER: &[u8] = b"-- PostgreSQL database cluster dump";
pub(super) const CLUSTER_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
pub(super) const BEGIN: &[u8] = b"-- PostgreSQL database dump";
pub(super) const END: &[u8] = b"-- PostgreSQL database dump complete";

/// The line above what pg_dump writes of an object, or of a table's rows.
pub(super) fn is_header(line: &[u8]) -> bool {
    (line.starts_with(b"-- Name: ") || line.starts_with(b"-- Data for Name: "))
        && memchr::memmem::find(line, b"; Type: ").is_some()
}

pub(super) fn is_setting(words: &[String]) -> bool {
    let word = |number: usize| words.get(number).map_or("", String::as_str);
    matches!((word(0), word(1), word(2)), ("SET" | "RESET", ..) | ("SELECT", "PG_CATALOG", "SET_CONFIG"))
}

/// Whether pg_dump has written it to drop something that is there, or to take something off it.
pub(super) fn cleans(words: &[String], tokens: &[Token]) -> bool {
    let word = |number: usize| words.get(number).map_or("", String::as_str);
    let has = |keyword: &str| tokens.iter().any(|token| token.is(keyword));
    match word(0) {
        "DROP" => true,
        "ALTER" => has("drop") || has("detach") || has("disable"),
        // What takes a view's place that others need.
        "CREATE" => has("replace") && has("view") && has("null"),
        "SELECT" => has("lo_unlink"),
        _ => false,
    }
}

/// Every database has one.
pub(super) fn is_schema_public(tokens: &[Token]) -> bool {
    let name = |number: usize| tokens.get(number).and_then(Token::name);
    (name(0), name(1), name(2)) == (Some("create"), Some("schema"), Some("public"))
        && matches!(tokens.get(3), None | Some(Token::Other(';')))
}

/// The database's name in what pg_dump writes after `\connect` (`appendPsqlMetaConnect`).
pub(super) fn connected(argument: &str) -> Option<String> {
    let argument = argument.trim();
    let Some(conninfo) = argument.strip_prefix("-reuse-previous=on ") else {
        // With all identifiers in quotes.
        let inner = argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        return Some(inner.map_or_else(|| argument.to_owned(), |inner| inner.replace("\"\"", "\"")));
    };
    let conninfo = conninfo.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\"");
    let value = conninfo.strip_prefix("dbname='")?.strip_suffix('\'')?;
    let mut name = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        name.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(name)
}
