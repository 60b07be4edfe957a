//! What pg_restore says of entries that a server has refused: damage, want of something, or a definition that no server
//! takes from a dump.

use crate::error::{Kind, says_no_space};

/// An entry of a dump that the server has not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its number.
    pub entry: i32,
    /// What it is, such as `INDEX`, with its name and owner.
    pub header: String,
    /// The server's error, one line.
    pub error: String,
    /// All that was said of it.
    pub said: String,
}

/// What pg_restore says first, if it says much.
const FIRST: &str = "pg_restore: connecting to database for restore";

/// What the server has refused, in order, by all that pg_restore said with `--verbose`; nothing if that is not all of it, or
/// if something failed that is no entry's. Its own count of errors is too large where it works by several processes.
pub fn refusals(stderr: &str) -> Option<Vec<Refusal>> {
    let mut found: Vec<Refusal> = Vec::new();
    let mut header = None;
    if !stderr.starts_with(FIRST) {
        return None;
    }
    for line in stderr.lines() {
        let Some(message) = line.strip_prefix("pg_restore: ") else {
            if let Some(last) = found.last_mut() {
                last.said.push('\n');
                last.said.push_str(line);
            }
            continue;
        };
        if let Some(entry) = message.strip_prefix("from TOC entry ") {
            // "3360; 1259 16395 INDEX t_f_idx postgres"
            let (number, rest) = entry.split_once("; ")?;
            header = Some((number.parse().ok()?, self::header(rest)));
        } else if let Some(error) = message.strip_prefix("error: could not execute query: ") {
            let (entry, header) = header.clone()?;
            // Of several at the same time, it cannot be told whose error it is.
            if found.iter().any(|one| one.entry == entry) {
                return None;
            }
            found.push(Refusal { entry, header, error: error.to_owned(), said: error.to_owned() });
        } else if message.starts_with("error: ") {
            return None;
        }
    }
    Some(found)
}

/// The first thing that the server has refused of each entry, in order, by what pg_restore said that goes on after errors: one
/// entry is several statements, and after the first of them failed, others say that something is not there.
pub fn first_refusals(stderr: &str) -> Vec<Refusal> {
    let mut found: Vec<Refusal> = Vec::new();
    let mut entry: Option<(i32, String)> = None;
    let mut is_told = false;
    for line in stderr.lines() {
        if let Some(rest) = line.strip_prefix("pg_restore: from TOC entry ") {
            entry =
                rest.split_once("; ").and_then(|(number, rest)| Some((number.parse().ok()?, header(rest))));
            is_told = false;
        } else if let Some(error) = line.strip_prefix("pg_restore: error: could not execute query: ") {
            let first = entry.take();
            is_told = first.is_some();
            found.extend(first.map(|(entry, header)| Refusal {
                entry,
                header,
                error: error.to_owned(),
                said: error.to_owned(),
            }));
        } else if line.starts_with("pg_restore: ") {
            is_told = false;
        } else if let Some(last) = found.last_mut().filter(|_| is_told) {
            last.said.push('\n');
            last.said.push_str(line);
        }
    }
    found
}

/// What an entry is, with its name and owner, from `1259 16395 INDEX t_f_idx postgres`.
fn header(text: &str) -> String {
    text.splitn(3, ' ').nth(2).unwrap_or(text).to_owned()
}

/// Rows that contradict each other, or are no values: the database that was dumped is damaged itself. Those that break a key
/// between tables may be there in one that is not, as whoever switches its triggers off, or is a replica, is not held to it.
const DAMAGE: [&str; 8] = [
    "could not create unique index",
    "could not create exclusion constraint",
    "violates unique constraint",
    "violates exclusion constraint",
    "invalid byte sequence for encoding",
    "invalid input syntax for type",
    "missing data for column",
    "extra data after last expected column",
];

/// What is said of a key between tables that rows do not keep.
const KEY_IS_BROKEN: &str = "violates foreign key constraint";

/// Whose fault a failure is by what was said of it: the machine's, the server's, the dump's, or that of a definition which
/// the server does not take.
pub fn verdict(said: &str) -> Kind {
    let says = |text: &&str| said.contains(*text);
    if says_no_space(said) {
        Kind::NoSpace
    } else if [
        "terminating connection",
        "server closed the connection",
        "canceling statement",
        "out of memory",
    ]
    .iter()
    .any(says)
    {
        Kind::Server
    } else if DAMAGE.iter().any(says) || !said.contains("ERROR:  ") {
        Kind::Damaged
    } else {
        Kind::NotTaken
    }
}

/// What an administrator does about it who wants a backup that can be restored.
pub fn remedy(said: &str) -> String {
    format!("{}; then make a backup: systemctl start matrix-postgres-backup.service", cure(said))
}

/// What an administrator does about it.
pub fn cure(said: &str) -> String {
    let function = said.lines().filter(|line| line.contains("function ")).find_map(function_named);
    match (said.contains("does not exist"), function) {
        (true, Some(function)) => format!(
            "a restore runs with an empty search_path, which the function needs: \
             ALTER FUNCTION {function} SET search_path = …, in the live database"
        ),
        (true, None) => "a restore runs with an empty search_path, which functions need: \
             ALTER FUNCTION … SET search_path = …, in the live database"
            .to_owned(),
        (false, _) if said.contains(KEY_IS_BROKEN) => {
            "correct or delete the rows that violate the foreign key, or drop the key, in \
             the live database"
                .to_owned()
        }
        (false, _) => "change the named objects in the live database".to_owned(),
    }
}

/// In a line of the context, such as `SQL function "cnt" during inlining`.
fn function_named(line: &str) -> Option<String> {
    if !["CONTEXT:", "SQL function", "PL/pgSQL function"].iter().any(|start| line.starts_with(start)) {
        return None;
    }
    let rest = line.split("function ").nth(1)?;
    let name = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split([' ', '(']).next()?,
    };
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "pg_restore: connecting to database for restore
pg_restore: creating INDEX \"public.t_f_idx\"
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 3360; 1259 16395 INDEX t_f_idx postgres
pg_restore: error: could not execute query: ERROR:  function unaccent(text) does not exist
LINE 2:  select unaccent($1)
                ^
HINT:  No function matches the given name and argument types.
CONTEXT:  SQL function \"f_unaccent\" during inlining
Command was: CREATE INDEX t_f_idx ON public.t USING btree (public.f_unaccent(v));


pg_restore: from TOC entry 3361; 0 16396 MATERIALIZED VIEW DATA m postgres
pg_restore: error: could not execute query: ERROR:  relation \"t\" does not exist
CONTEXT:  PL/pgSQL function public.cnt() line 1 at RETURN
pg_restore: warning: errors ignored on restore: 7
";

    #[test]
    fn each_entry_that_was_refused_is_known() {
        let found = refusals(TWO).unwrap();
        let headers: Vec<_> = found.iter().map(|one| (one.entry, one.header.as_str())).collect();
        assert_eq!(headers, [(3360, "INDEX t_f_idx postgres"), (3361, "MATERIALIZED VIEW DATA m postgres")]);
        assert_eq!(found[0].error, "ERROR:  function unaccent(text) does not exist");
        assert!(remedy(&found[0].said).contains("ALTER FUNCTION f_unaccent SET search_path"));
        assert!(remedy(&found[1].said).contains("ALTER FUNCTION public.cnt SET search_path"));
        assert!(found.iter().all(|one| verdict(&one.said) == Kind::NotTaken));
    }

    #[test]
    fn of_several_statements_of_an_entry_the_first_that_failed_tells() {
        let text = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 215; 1259 16385 TABLE c postgres\n\
            pg_restore: error: could not execute query: ERROR:  child column\nCommand was: CREATE TABLE c ();\n\n\
            pg_restore: error: could not execute query: ERROR:  relation \"c\" does not exist\n\
            Command was: ALTER TABLE c OWNER TO x;\n\n\
            pg_restore: from TOC entry 3; 0 0 COMMENT TABLE c postgres\n\
            pg_restore: error: could not execute query: ERROR:  relation \"c\" does not exist\n\
            pg_restore: warning: errors ignored on restore: 3\n";
        let found = first_refusals(text);
        let told: Vec<_> = found.iter().map(|one| (one.header.as_str(), one.said.as_str())).collect();
        assert_eq!(
            told,
            [
                ("TABLE c postgres", "ERROR:  child column\nCommand was: CREATE TABLE c ();\n"),
                ("COMMENT TABLE c postgres", "ERROR:  relation \"c\" does not exist"),
            ]
        );
        assert!(first_refusals("pg_restore: error: connection failed").is_empty());
    }

    #[test]
    fn what_is_not_all_of_it_is_nothing() {
        let cut = &TWO[TWO.find("pg_restore: from TOC entry 3361").unwrap()..];
        assert_eq!(refusals(cut), None);
        assert_eq!(refusals("pg_restore: error: could not read from input file: end of file"), None);
        assert_eq!(refusals(""), None);
    }

    #[test]
    fn damage_is_told_from_what_no_server_takes() {
        for (said, kind) in [
            ("ERROR:  could not create unique index \"twice_pkey\"", Kind::Damaged),
            ("ERROR:  insert or update on table \"x\" violates foreign key constraint \"y\"", Kind::NotTaken),
            ("pg_restore: error: could not read from input file", Kind::Damaged),
            ("ERROR:  column \"a\" of relation \"c\" contains null values", Kind::NotTaken),
            ("COPY failed for table \"g\": ERROR:  function f(text) does not exist", Kind::NotTaken),
            ("FATAL:  terminating connection due to administrator command", Kind::Server),
            ("ERROR:  could not extend file: No space left on device", Kind::NoSpace),
        ] {
            assert_eq!(verdict(said), kind, "{said}");
        }
    }
}
