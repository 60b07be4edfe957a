//! Whether two databases are equal, by what `pg_dump` writes of each.

use std::collections::BTreeMap;

/// So many lines that differ of an object are told.
const SHOWN: usize = 4;

/// What `pg_dump` writes of each object; rows in any order.
fn objects(dump: &str, moving: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut header, mut lines) = (String::new(), Vec::new());
    let mut moved = Vec::new();
    let mut close = |header: String, mut lines: Vec<String>| {
        // The order of settings means nothing.
        if header.contains("; Type: DATABASE PROPERTIES; ") {
            lines.sort();
        }
        if header.starts_with("-- Data for ") {
            if moving.iter().any(|table| header.starts_with(&format!("-- Data for Name: {table}; "))) {
                lines.retain(|line| !line.starts_with("COPY ") && line != "\\.");
                return moved.append(&mut lines);
            }
            order_columns(&mut lines);
            lines.sort();
        }
        objects.entry(header).or_default().push(lines.join("\n"));
    };
    let mut before = "";
    for line in without_stamps(dump).lines() {
        if before == "--" && (line.starts_with("-- Name: ") || line.starts_with("-- Data for Name: ")) {
            close(std::mem::replace(&mut header, line.to_owned()), std::mem::take(&mut lines));
        } else if !(line.is_empty()
            || line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ")
            || line.starts_with("--"))
        {
            lines.extend(without_stamp(line));
        }
        before = line;
    }
    close(header, lines);
    moved.sort();
    objects.entry("rows that move".to_owned()).or_default().push(moved.join("\n"));
    for same in objects.values_mut() {
        same.sort();
    }
    objects
}

/// The columns of COPY by their names, as their order means nothing: that of a child's differs by way of a dump.
fn order_columns(lines: &mut [String]) {
    let Some((copy, rows)) = lines.split_first_mut() else { return };
    let Some((table, rest)) = copy.split_once(" (") else { return };
    let Some((names, rest)) = rest.rsplit_once(") FROM ") else { return };
    let mut is_quoted = false;
    let names: Vec<_> = names
        .split(|letter| {
            is_quoted ^= letter == '"';
            letter == ',' && !is_quoted
        })
        .map(str::trim_start)
        .collect();
    let mut order: Vec<_> = (0..names.len()).collect();
    order.sort_by_key(|at| names[*at]);
    let ordered =
        |fields: &[&str], between: &str| order.iter().map(|at| fields[*at]).collect::<Vec<_>>().join(between);
    for row in rows {
        let fields: Vec<_> = row.split('\t').collect();
        if fields.len() == names.len() {
            *row = ordered(&fields, "\t");
        }
    }
    *copy = format!("{table} ({}) FROM {rest}", ordered(&names, ", "));
}

/// Without the statements that set nothing but such a stamp, whatever the names of table and column.
fn without_stamps(dump: &str) -> String {
    const STAMP: &str = " SET (pg_attver=";
    let mut text = dump.to_owned();
    let mut from = 0;
    while let Some(at) = text[from..].find(STAMP).map(|at| at + from) {
        from = at + STAMP.len();
        let digits =
            text[from..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |digits| digits + from);
        let begin = text[..at].rfind("\nALTER ").filter(|begin| {
            let rest = &text[*begin + 7..];
            rest.starts_with("TABLE ONLY ") || rest.starts_with("FOREIGN TABLE ONLY ")
        });
        if let Some(begin) = begin.filter(|_| text[digits..].starts_with(");\n")) {
            text.replace_range(begin + 1..digits + 3, "");
            from = begin;
        }
    }
    text
}

/// Without the names of NOT NULL, which there are from 18 on: `pg_dump` writes those that are not made of the table's and the
/// column's in the usual way, and of a server before 18 none.
pub fn without_names_of_not_null(dump: &str) -> String {
    const CONSTRAINT: &str = " CONSTRAINT ";
    let (mut text, mut rest) = (String::new(), dump);
    while let Some(at) = rest.find(CONSTRAINT) {
        let name = &rest[at + CONSTRAINT.len()..];
        let mut is_quoted = false;
        let end = name.find(|c: char| {
            is_quoted ^= c == '"';
            c.is_whitespace() && !is_quoted
        });
        let end = end.filter(|end| name[*end..].starts_with(" NOT NULL"));
        text.push_str(&rest[..at]);
        rest = if let Some(end) = end {
            &name[end..]
        } else {
            text.push_str(CONSTRAINT);
            name
        };
    }
    text + rest
}

/// Without the stamp that servers since November 2026 put on a column, which older versions of `pg_dump` write as an option.
fn without_stamp(line: &str) -> Option<String> {
    let Some((before, after)) = line.split_once("pg_attver=").filter(|_| line.starts_with("ALTER TABLE "))
    else {
        return Some(line.to_owned());
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    match (before.strip_suffix(", "), rest.strip_prefix(", ")) {
        (Some(before), _) => Some(format!("{before}{rest}")),
        (None, Some(rest)) => Some(format!("{before}{rest}")),
        (None, None) => None,
    }
}

/// What is in the one and not in the other; not that of objects with an allowed text, nor which of the moving tables has a row.
/// Columns in views and rules are compared without what they are of, if that is to be so.
pub fn differences(
    was: &str,
    is: &str,
    allowed: &[&str],
    moving: &[String],
    is_unqualified: bool,
) -> Vec<String> {
    let (was, is) = (objects(was, moving), objects(is, moving));
    let none = Vec::new();
    let mut found = Vec::new();
    let mut headers: Vec<_> = was.keys().chain(is.keys()).collect();
    headers.sort();
    headers.dedup();
    for header in headers {
        let (old, new) = (was.get(header).unwrap_or(&none), is.get(header).unwrap_or(&none));
        let is_allowed = |text: &str| allowed.iter().any(|part| text.contains(part));
        if old == new || is_allowed(header) || old.iter().chain(new).any(|text| is_allowed(text)) {
            continue;
        }
        let is_query = ["; Type: VIEW; ", "; Type: MATERIALIZED VIEW; ", "; Type: RULE; "];
        let is_unqualified = is_unqualified && is_query.iter().any(|kind| header.contains(kind));
        let lines = |texts: &[String]| {
            let lines = texts.iter().flat_map(|text| text.lines());
            lines
                .map(|line| if is_unqualified { unqualified(line) } else { line.to_owned() })
                .collect::<Vec<_>>()
        };
        let (old, new) = (lines(old), lines(new));
        if is_unqualified && old == new {
            continue;
        }
        found.push(format!("  {header}"));
        let mut only = |what: &str, ours: &[String], theirs: &[String]| {
            let lines = ours.iter().filter(|line| !theirs.contains(line)).take(SHOWN);
            found.extend(
                lines.map(|line| format!("    {what}: {}", line.chars().take(400).collect::<String>())),
            );
        };
        only("was", &old, &new);
        only("is", &new, &old);
    }
    found
}

/// Without what stands before a point.
fn unqualified(line: &str) -> String {
    let is_of_name = |letter: char| letter.is_alphanumeric() || "_\"".contains(letter);
    let words = line.split_inclusive(|letter| !is_of_name(letter));
    words.filter(|word| !word.ends_with('.')).collect()
}

#[test]
fn stamps_and_names_that_a_major_gives_by_itself_are_no_differences() {
    let dump = "CREATE TABLE public.t (\n    a integer NOT NULL\n);\n\
        ALTER FOREIGN TABLE ONLY public.f ALTER COLUMN a SET (pg_attver=165892384);\n\
        ALTER TABLE ONLY public.\"line\nend\" ALTER COLUMN \"a\nb\" SET (pg_attver=1);\n\
        ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);\n";
    assert_eq!(
        without_stamps(dump),
        "CREATE TABLE public.t (\n    a integer NOT NULL\n);\n\
         ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);\n"
    );
    let named = "    a integer CONSTRAINT \"line\nend_a\" NOT NULL,\n    b integer CONSTRAINT x NOT NULL,\n    CONSTRAINT c CHECK (a > 0)\n";
    assert_eq!(
        without_names_of_not_null(named),
        "    a integer NOT NULL,\n    b integer NOT NULL,\n    CONSTRAINT c CHECK (a > 0)\n"
    );
}
