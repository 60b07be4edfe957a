//! Dumps to test with.

use super::entry::{DATA, DEFINITIONS, NOWHERE, SOMEWHERE};
use super::fields::put_int;
use super::header::{CUSTOM, WITH_ACCESS_METHOD, WITH_ALGORITHM, WITH_KIND};

pub(super) fn text(bytes: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => put_int(bytes, -1, 4),
        Some(text) => {
            put_int(bytes, i32::try_from(text.len()).unwrap(), 4);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// Number, name, description, statement that copies its rows, dependencies.
pub(super) struct Made<'a>(
    pub(super) i32,
    pub(super) &'a str,
    pub(super) &'a str,
    pub(super) Option<&'a str>,
    pub(super) &'a [&'a str],
);

/// A dump as pg_dump of this format version writes it.
pub(super) fn dump(version: u8, entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = b"PGDMP\x01".to_vec();
    bytes.extend([version, 0, 4, 8, CUSTOM]);
    match version >= WITH_ALGORITHM {
        true => bytes.push(0),
        false => put_int(&mut bytes, 0, 4),
    }
    for _ in 0..7 {
        put_int(&mut bytes, 1, 4);
    }
    for name in ["homeserver", "17.1", "17.1"] {
        text(&mut bytes, Some(name));
    }
    put_int(&mut bytes, i32::try_from(entries.len()).unwrap(), 4);
    for Made(id, tag, description, copy, dependencies) in entries {
        put_int(&mut bytes, *id, 4);
        put_int(&mut bytes, i32::from(copy.is_some()), 4);
        for value in ["1259", "16384", tag, description] {
            text(&mut bytes, Some(value));
        }
        let section = match *id {
            _ if copy.is_some() || ["SEQUENCE SET", "BLOB METADATA"].contains(description) => DATA,
            ..5 => DEFINITIONS,
            _ => DATA + 1,
        };
        put_int(&mut bytes, section, 4);
        let definition = match *description {
            "ENCODING" => "SET client_encoding = 'UTF8';\n",
            "SCHEMA" => "CREATE SCHEMA public;\n",
            "ACL" => "REVOKE ALL ON TABLE t FROM PUBLIC;\nGRANT SELECT ON TABLE t TO gone, \"Gone 2\";\n",
            _ => "DEFINITION",
        };
        text(&mut bytes, Some(definition));
        text(&mut bytes, Some(""));
        text(&mut bytes, *copy);
        text(&mut bytes, Some("public"));
        text(&mut bytes, Some(""));
        if version >= WITH_ACCESS_METHOD {
            text(&mut bytes, Some("heap"));
        }
        if version >= WITH_KIND {
            put_int(&mut bytes, 114, 4);
        }
        text(&mut bytes, Some("synapse"));
        text(&mut bytes, Some("false"));
        for dependency in *dependencies {
            text(&mut bytes, Some(dependency));
        }
        text(&mut bytes, None);
        bytes.push(if copy.is_some() { SOMEWHERE } else { 3 });
        bytes.extend([7; 8]);
    }
    bytes
}

pub(super) fn entries() -> Vec<Made<'static>> {
    vec![
        Made(1, "we ird", "TABLE", None, &[]),
        Made(2, "plugin", "FUNCTION", None, &[]),
        Made(3, "we ird", "TABLE DATA", Some("COPY public.\"we ird\" (a) FROM stdin;\n"), &["1"]),
        Made(4, "config", "TABLE DATA", Some("COPY public.config (a) FROM stdin;\n"), &["2"]),
        Made(11, "4711", "BLOB METADATA", None, &[]),
        Made(9, "s", "SEQUENCE SET", None, &["1"]),
        Made(5, "we ird_pkey", "CONSTRAINT", None, &["1"]),
        Made(6, "we ird_a", "INDEX", None, &["1", "2"]),
        Made(8, "we ird_b", "INDEX", None, &["1", "5"]),
        Made(7, "we ird we ird_fkey", "FK CONSTRAINT", None, &["1", "5"]),
        Made(10, "we ird we ird_fkey2", "FK CONSTRAINT", None, &["1", "8"]),
        Made(12, "we ird RI_ConstraintTrigger_c_16495", "TRIGGER", None, &["1"]),
    ]
}

/// The same, without where its rows were.
pub(super) fn expected(version: u8, entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = dump(version, entries);
    for at in 0..bytes.len() - 8 {
        if bytes[at..at + 9] == [SOMEWHERE, 7, 7, 7, 7, 7, 7, 7, 7] {
            bytes[at] = NOWHERE;
        }
    }
    bytes
}
