//! The objects in `pg_dump --schema-only --create`, each with what must be equal of it, and with what the server
//! itself renders, which each major does as it likes.

use serde::{Deserialize, Serialize};

use super::sql::{Kind, Token, blurred, digest, statements, text, tokens};
use crate::postgres::stamps;

/// An object as pg_dump has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// pg_dump's word for what it is, such as `TABLE` or `ACL`.
    pub kind: String,
    /// The schema that it is in; empty for what is in none.
    pub schema: String,
    /// Its name, not quoted; pg_dump writes those of some kinds with that of a table before it.
    pub name: String,
    /// The owning role; empty for what has none.
    pub owner: String,
    /// SHA-256 of what pg_dump wrote from the catalog.
    pub exact: String,
    /// SHA-256 of what the server rendered: expressions, queries.
    pub rendered: String,
    /// The statements, where the object is no more than these and they are worth telling.
    pub statements: Vec<Statement>,
}

/// A statement of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Statement {
    /// What may be shown of it: values of settings are left out, for they may be secrets.
    pub shown: String,
    /// SHA-256 of the whole.
    pub digest: String,
}

impl Statement {
    pub(super) fn new(shown: impl Into<String>, whole: &str) -> Self {
        Self { shown: shown.into(), digest: digest(whole) }
    }
}

/// Not compared: statistics are made anew, and CHECK constraints are compared from the catalog, for pg_dump writes
/// those that are valid and those that are not in different places.
const LEFT_OUT: [&str; 2] = ["STATISTICS DATA", "CHECK CONSTRAINT"];

/// What has no owner of its own: pg_dump tells that of what they belong to.
const BELONGING: [&str; 18] = [
    "ACL",
    "COMMENT",
    "CONSTRAINT",
    "DATABASE PROPERTIES",
    "DEFAULT",
    "DEFAULT ACL",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "POLICY",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "RULE",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "TABLE ATTACH",
    "TRIGGER",
];

/// The objects of one database, in order.
///
/// # Errors
/// A sentence, if the text is cut off.
pub(super) fn parse(dump: &str) -> Result<Vec<Object>, String> {
    let mut objects = Vec::new();
    let mut open: Option<(Header, Vec<Token<'_>>)> = None;
    let mut last_is_frame = false;
    for token in tokens(dump)? {
        if token.kind == Kind::Comment {
            if let Some(header) = Header::parse(token.text).filter(|_| last_is_frame) {
                objects.extend(open.replace((header, Vec::new())).map(object));
            }
            last_is_frame = token.text == "--";
        } else {
            last_is_frame = false;
            if let Some((_, body)) = &mut open {
                body.push(token);
            }
        }
    }
    objects.extend(open.map(object));
    objects.retain(|object| !LEFT_OUT.contains(&object.kind.as_str()));
    objects.sort();
    Ok(objects)
}

/// `-- Name: events; Type: TABLE; Schema: public; Owner: synapse`
#[derive(Debug, PartialEq, Eq)]
struct Header {
    name: String,
    kind: String,
    schema: String,
    owner: String,
}

impl Header {
    /// From the end, for names may have anything in them.
    fn parse(comment: &str) -> Option<Self> {
        let rest = comment.strip_prefix("-- Name: ")?;
        let (rest, owner) = rest.rsplit_once("; Owner: ").or_else(|| {
            // Nothing follows the colon where the owner is nobody.
            rest.strip_suffix("; Owner:").map(|rest| (rest, ""))
        })?;
        let (rest, schema) = rest.rsplit_once("; Schema: ")?;
        let (name, kind) = rest.rsplit_once("; Type: ")?;
        let given = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
        Some(Self { name: name.into(), kind: kind.into(), schema: given(schema), owner: given(owner) })
    }
}

fn object((header, body): (Header, Vec<Token<'_>>)) -> Object {
    let listed = matches!(header.kind.as_str(), "ACL" | "DEFAULT ACL" | "DATABASE PROPERTIES");
    let mut exact = Parts::default();
    let mut listing = Vec::new();
    let mut grantor = None;
    for statement in statements(&body) {
        match without_stamp(statement).as_slice() {
            [] => {}
            // pg_dump's own session, as it were: which of its objects these come with depends on their order.
            [session, authorization, ..] if session.is_word("SET") && authorization.is_word("SESSION") => {
                grantor = Some(text(statement.iter().copied()));
            }
            [first, second, ..] if first.is_word("RESET") && second.is_word("SESSION") => grantor = None,
            [first, ..] if first.is_word("SET") => {}
            [first, second, _, third, ..]
                if first.is_word("SELECT") && second.is_word("pg_catalog") && third.is_word("set_config") => {
            }
            // The header has it.
            [first, .., owner, to, _]
                if first.is_word("ALTER") && owner.is_word("OWNER") && to.is_word("TO") => {}
            statement if listed => listing.push(listed_statement(statement, grantor.as_deref())),
            statement => exact.add(&header.kind, statement),
        }
    }
    listing.sort();
    let exact_text = match listed {
        true => listing.iter().map(|statement| statement.digest.as_str()).collect::<String>(),
        false => exact.exact,
    };
    let Header { kind, schema, mut name, mut owner } = header;
    if kind == "DEFAULT ACL" {
        name = format!("{name} of {owner}");
    }
    if BELONGING.contains(&kind.as_str()) {
        owner.clear();
    }
    Object {
        kind,
        schema,
        name,
        owner,
        exact: digest(&exact_text),
        rendered: if exact.rendered.is_empty() { String::new() } else { digest(&exact.rendered) },
        statements: listing,
    }
}

/// Without a column's stamp, which pg_dump takes for one of the options if it is older than the server; without
/// anything, if there is no other.
fn without_stamp<'a>(statement: &[Token<'a>]) -> Vec<Token<'a>> {
    let is_alter = statement.first().is_some_and(|first| first.is_word("ALTER"));
    let at = statement.windows(3).position(|three| {
        let separated = three[0].is_mark("(") || three[0].is_mark(",");
        separated && three[1].is_word(stamps::OPTION) && three[2].is_mark("=")
    });
    let Some(before) = at.filter(|_| is_alter) else { return statement.to_vec() };
    let (head, tail) = statement.split_at(before);
    let ends = |token: &Token<'_>| token.is_mark(",") || token.is_mark(")");
    let after = 1 + tail[1..].iter().position(ends).unwrap_or(tail.len() - 1);
    match (&tail[0], tail.get(after)) {
        (first, Some(next)) if first.is_mark("(") && next.is_mark(",") => {
            [head, &tail[..1], &tail[after + 1..]].concat()
        }
        (first, _) if first.is_mark("(") => Vec::new(),
        _ => [head, &tail[after..]].concat(),
    }
}

/// A grant, or a setting without its value.
fn listed_statement(statement: &[Token<'_>], grantor: Option<&str>) -> Statement {
    let mut whole = text(statement.iter().copied());
    if let Some(grantor) = grantor {
        whole = format!("{grantor}; {whole}");
    }
    Statement::new(without_value(statement).unwrap_or_else(|| whole.clone()), &whole)
}

/// The beginning of an `ALTER ... SET name TO value`.
pub(super) fn without_value(statement: &[Token<'_>]) -> Option<String> {
    let set = statement.iter().position(|token| token.is_word("SET"))?;
    let to = set + statement[set..].iter().position(|token| token.is_word("TO"))?;
    statement[0].is_word("ALTER").then(|| text(statement[..to].iter().copied()))
}

/// What was written from the catalog, and what was rendered.
#[derive(Debug, Default)]
struct Parts {
    exact: String,
    rendered: String,
    /// Within a function's body in SQL, whose statements are none of their own.
    in_body: bool,
}

impl Parts {
    fn add(&mut self, kind: &str, statement: &[Token<'_>]) {
        let (exact, rendered) = match self.in_body {
            true => (Vec::new(), statement.to_vec()),
            false => self.divide(kind, statement),
        };
        if !exact.is_empty() {
            self.exact.push_str(&text(exact));
            self.exact.push('\n');
        }
        if !rendered.is_empty() {
            self.rendered.push_str(&blurred(&rendered));
            self.rendered.push('\n');
        }
    }

    fn divide<'a>(&mut self, kind: &str, statement: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<Token<'a>>) {
        let at = |words: &[&str]| {
            let begins = |token: &Token<'_>| words.iter().any(|word| token.is_word(word));
            statement.iter().position(begins).unwrap_or(statement.len())
        };
        // That there is a condition at all is written from the catalog.
        let from = |words: &[&str]| {
            let (exact, rendered) = statement.split_at(statement.len().min(at(words) + 1));
            (exact.to_vec(), rendered.to_vec())
        };
        match kind {
            "TABLE" | "FOREIGN TABLE" => elements(statement),
            "FUNCTION" | "PROCEDURE" => {
                let (head, tail) = statement.split_at(at(&["LANGUAGE"]));
                let (mut exact, mut rendered) = elements(head);
                let body = tail.iter().position(|token| token.is_word("BEGIN") || token.is_word("RETURN"));
                self.in_body = body.is_some();
                let (tail, body) = tail.split_at(body.unwrap_or(tail.len()));
                exact.extend(tail);
                rendered.extend(body);
                (exact, rendered)
            }
            "DOMAIN" => {
                let (kept, not_null) = without_not_null(statement);
                let begins = |token: &Token<'_>| token.is_word("DEFAULT") || token.is_word("CONSTRAINT");
                let at = kept.iter().position(begins).unwrap_or(kept.len());
                let has_default = kept.get(at).filter(|token| token.is_word("DEFAULT"));
                let exact = kept[..at].iter().chain(&not_null).chain(has_default).copied().collect();
                (exact, kept[at..].to_vec())
            }
            "TYPE" => (without_multirange(statement), Vec::new()),
            "INDEX" => {
                let (head, predicate) = from(&["WHERE"]);
                let (exact, mut rendered) = within(&head, 2);
                rendered.extend(predicate);
                (exact, rendered)
            }
            "POLICY" => within(statement, 1),
            "TRIGGER" => {
                let (mut exact, condition) = from(&["WHEN"]);
                let execute = condition.iter().position(|token| token.is_word("EXECUTE")).unwrap_or(0);
                exact.extend(&condition[execute..]);
                (exact, condition[..execute].to_vec())
            }
            "VIEW" | "MATERIALIZED VIEW" | "RULE" => from(&["AS"]),
            "PUBLICATION TABLE" => from(&["WHERE"]),
            "DEFAULT" => from(&["DEFAULT"]),
            "CONSTRAINT" => from(&["EXCLUDE"]),
            // Whether it is valid is compared from the catalog.
            "FK CONSTRAINT" => (statement[..at(&["NOT"])].to_vec(), Vec::new()),
            "STATISTICS" => from(&["ON"]),
            // Names of ICU's locales are made canonical by newer majors.
            "DATABASE" => from(&["ICU_LOCALE", "ICU_RULES"]),
            "COLLATION" => (Vec::new(), statement.to_vec()),
            _ => (statement.to_vec(), Vec::new()),
        }
    }
}

/// What is outside so many parentheses, and what is within them.
fn within<'a>(statement: &[Token<'a>], parentheses: i32) -> (Vec<Token<'a>>, Vec<Token<'a>>) {
    let mut depth = 0;
    statement.iter().copied().partition(|token| {
        depth -= i32::from(token.is_mark(")"));
        let outside = depth < parentheses;
        depth += i32::from(token.is_mark("("));
        outside
    })
}

/// Columns or arguments: their defaults, generation expressions and CHECK constraints are rendered. NOT NULL is
/// compared from the catalog: 18 makes a constraint with a name of it, which pg_dump tells where it is not usual.
fn elements<'a>(statement: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<Token<'a>>) {
    let (statement, _) = without_not_null(statement);
    let (mut exact, mut rendered) = (Vec::new(), Vec::new());
    let (mut depth, mut is_rendered, mut begins) = (0, false, false);
    for token in statement {
        depth -= i32::from(token.is_mark(")"));
        let ends = depth == 0 || depth == 1 && token.is_mark(",");
        is_rendered = !ends && (is_rendered || begins && token.is_word("CONSTRAINT"));
        let side = if is_rendered { &mut rendered } else { &mut exact };
        side.push(token);
        is_rendered |= depth == 1 && (token.is_word("DEFAULT") || token.is_word("GENERATED"));
        begins = depth == 1 && token.is_mark(",") || depth == 0 && token.is_mark("(");
        depth += i32::from(token.is_mark("("));
    }
    // The commas of constraints, which stand behind the columns.
    while let Some(at) = exact
        .windows(2)
        .position(|pair| pair[0].is_mark(",") && (pair[1].is_mark(",") || pair[1].is_mark(")")))
    {
        exact.remove(at);
    }
    (exact, rendered)
}

/// Without `NOT NULL` and `CONSTRAINT name NOT NULL [column]`; and the former, if it was there.
fn without_not_null<'a>(statement: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<Token<'a>>) {
    let (mut kept, mut removed): (Vec<Token<'a>>, Vec<Token<'a>>) = (Vec::new(), Vec::new());
    let mut tokens = statement.iter().copied().peekable();
    while let Some(token) = tokens.next() {
        if !(token.is_word("NOT") && tokens.peek().is_some_and(|next| next.is_word("NULL"))) {
            kept.push(token);
            continue;
        }
        removed = [token].into_iter().chain(tokens.next()).collect();
        if kept.len() >= 2 && kept[kept.len() - 2].is_word("CONSTRAINT") {
            kept.truncate(kept.len() - 2);
            // Of a whole element the column is left.
            let alone = kept.last().is_some_and(|last| last.is_mark(",") || last.is_mark("("));
            while alone && tokens.peek().is_some_and(|next| !next.is_mark(",") && !next.is_mark(")")) {
                tokens.next();
            }
        }
    }
    (kept, removed)
}

/// Without the name of a range's multirange, which there is since 14.
fn without_multirange<'a>(statement: &[Token<'a>]) -> Vec<Token<'a>> {
    let Some(at) = statement.iter().position(|token| token.is_word("multirange_type_name")) else {
        return statement.to_vec();
    };
    let length =
        statement[at..].iter().position(|token| token.is_mark(",") || token.is_mark(")")).unwrap_or(0);
    [&statement[..at.saturating_sub(1)], &statement[at + length..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pg_dump 17 of a server of 15, shortened.
    const FIFTEEN: &str = r#"--
-- PostgreSQL database dump
--

\restrict wKqmDs0F8
-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
SET standard_conforming_strings = on;

--
-- Name: homeserver; Type: DATABASE; Schema: -; Owner: ada
--

CREATE DATABASE homeserver WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';


ALTER DATABASE homeserver OWNER TO ada;

\unrestrict wKqmDs0F8
\connect homeserver
\restrict wKqmDs0F8

SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: homeserver; Type: DATABASE PROPERTIES; Schema: -; Owner: ada
--

ALTER DATABASE homeserver CONNECTION LIMIT = 50;
ALTER ROLE auditor IN DATABASE homeserver SET "app.key" TO 'not to be shown';


--
-- Name: EXTENSION citext; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION citext IS 'data type for case-insensitive character strings';


--
-- Name: span; Type: TYPE; Schema: public; Owner: postgres
--

CREATE TYPE public.span AS RANGE (
    subtype = double precision
);


ALTER TYPE public.span OWNER TO postgres;

--
-- Name: positive; Type: DOMAIN; Schema: public; Owner: postgres
--

CREATE DOMAIN public.positive AS integer NOT NULL DEFAULT 1
	CONSTRAINT is_positive CHECK ((VALUE > 0));


--
-- Name: greet(text); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.greet(name text DEFAULT 'you'::text, OUT greeting text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
--
-- Name: fake; Type: TABLE; Schema: public; Owner: postgres
--

    greeting := 'hello; ' || name; -- it's
END $$;


SET default_table_access_method = heap;

--
-- Name: events; Type: TABLE; Schema: public; Owner: ada
--

CREATE TABLE public.events (
    id bigint NOT NULL,
    room text DEFAULT 'none (yet), DEFAULT'::text NOT NULL,
    weight numeric(10,2) DEFAULT 0.1,
    twice integer GENERATED ALWAYS AS ((2 * length(room))) STORED,
    CONSTRAINT "room is short" CHECK ((length(room) < 100))
)
WITH (fillfactor='90');
ALTER TABLE ONLY public.events ALTER COLUMN room SET STATISTICS 500;
ALTER TABLE ONLY public.events ALTER COLUMN room SET (n_distinct=3);
ALTER TABLE ONLY public.events ALTER COLUMN weight SET (n_distinct_inherited=4);


--
-- Name: loud; Type: VIEW; Schema: public; Owner: postgres
--

CREATE VIEW public.loud WITH (security_barrier='true') AS
 SELECT e.id,
    upper(e.room) AS room
   FROM public.events e
  WHERE ((e.id = 1) OR (e.room ~~ '%\_%'::text));


--
-- Name: events_lower; Type: INDEX; Schema: public; Owner: ada
--

CREATE INDEX events_lower ON public.events USING btree (lower(room), id DESC) WHERE (id > 7);


--
-- Name: events own; Type: POLICY; Schema: public; Owner: ada
--

CREATE POLICY own ON public.events FOR SELECT TO readers USING ((id > 0));


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: public; Owner: ada
--

ALTER DEFAULT PRIVILEGES FOR ROLE ada IN SCHEMA public GRANT SELECT ON TABLES TO readers;


--
-- Name: TABLE events; Type: ACL; Schema: public; Owner: ada
--

GRANT SELECT ON TABLE public.events TO readers WITH GRANT OPTION;
SET SESSION AUTHORIZATION readers;
GRANT SELECT ON TABLE public.events TO auditor;
RESET SESSION AUTHORIZATION;


--
-- PostgreSQL database dump complete
--

\unrestrict wKqmDs0F8

"#;

    /// The same of a server of `major`.
    fn of_newer() -> String {
        FIFTEEN
            .replace("wKqmDs0F8", "S6TqN01a")
            .replace("15.18", "18.1")
            .replace(
                "double precision\n",
                "double precision,\n    multirange_type_name = public.span_multirange\n",
            )
            .replace(" SELECT e.id,\n    upper(e.room)", " SELECT id,\n    upper(room)")
            .replace("((e.id = 1) OR (e.room ~~", "(id = 1 OR (room ~~")
            // As 18 has them where their names are not the usual ones.
            .replace("id bigint NOT NULL", "id bigint CONSTRAINT id_given NOT NULL")
            // As a pg_dump has them that is older than the server.
            .replace(
                "STATISTICS 500;",
                "STATISTICS 500;\nALTER TABLE ONLY public.events ALTER COLUMN id SET (pg_attver=7);",
            )
            .replace("(n_distinct=3)", "(pg_attver=7, n_distinct=3)")
            .replace("(n_distinct_inherited=4)", "(n_distinct_inherited=4, pg_attver=7)")
            .replace("integer NOT NULL DEFAULT 1", "integer CONSTRAINT positive_not_null NOT NULL DEFAULT 1")
            .replace(
                "room text DEFAULT 'none (yet), DEFAULT'::text NOT NULL",
                "room text DEFAULT 'none (yet), DEFAULT'::text",
            )
    }

    fn find<'a>(objects: &'a [Object], kind: &str) -> &'a Object {
        objects.iter().find(|object| object.kind == kind).unwrap()
    }

    fn parsed(text: &str) -> Vec<Object> {
        parse(text).unwrap()
    }

    #[test]
    fn objects_are_those_of_pg_dump_and_not_those_in_a_function() {
        let objects = parsed(FIFTEEN);
        let mut names: Vec<_> = objects
            .iter()
            .map(|object| format!("{} {} {}", object.kind, object.name, object.owner))
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ACL TABLE events ",
                "COMMENT EXTENSION citext ",
                "DATABASE PROPERTIES homeserver ",
                "DATABASE homeserver ada",
                "DEFAULT ACL DEFAULT PRIVILEGES FOR TABLES of ada ",
                "DOMAIN positive postgres",
                "FUNCTION greet(text) postgres",
                "INDEX events_lower ",
                "POLICY events own ",
                "TABLE events ada",
                "TYPE span postgres",
                "VIEW loud postgres",
            ]
        );
        assert!(parse(&FIFTEEN[..FIFTEEN.find("-- it's").unwrap()]).is_err());
    }

    #[test]
    fn what_majors_write_differently_is_equal() {
        for (old, new) in parsed(FIFTEEN).iter().zip(parsed(&of_newer())) {
            assert_eq!(*old, new);
        }
    }

    #[test]
    fn grants_are_told_with_their_grantor_and_settings_without_their_value() {
        let objects = parsed(FIFTEEN);
        let shown = |kind| -> Vec<_> {
            find(&objects, kind).statements.iter().map(|statement| statement.shown.clone()).collect()
        };
        assert_eq!(
            shown("ACL"),
            [
                "GRANT SELECT ON TABLE public.events TO readers WITH GRANT OPTION",
                "SET SESSION AUTHORIZATION readers; GRANT SELECT ON TABLE public.events TO auditor",
            ]
        );
        assert_eq!(
            shown("DATABASE PROPERTIES"),
            [
                "ALTER DATABASE homeserver CONNECTION LIMIT = 50",
                "ALTER ROLE auditor IN DATABASE homeserver SET \"app.key\"",
            ]
        );
    }

    /// (what is replaced, by what, kind of the object, whether what pg_dump writes from the catalog differs)
    #[test]
    fn what_is_written_from_the_catalog_is_told_from_what_is_rendered() {
        for (what, by, kind, exact) in [
            ("id bigint", "id integer", "TABLE", true),
            ("numeric(10,2)", "numeric(10,3)", "TABLE", true),
            (" DEFAULT 0.1", "", "TABLE", true),
            ("DEFAULT 0.1", "DEFAULT 0.2", "TABLE", false),
            ("(2 * length(room))", "(3 * length(room))", "TABLE", false),
            ("length(room) < 100", "length(room) < 99", "TABLE", false),
            ("fillfactor='90'", "fillfactor='80'", "TABLE", true),
            ("STATISTICS 500", "STATISTICS 400", "TABLE", true),
            ("(n_distinct=3)", "(n_distinct=4)", "TABLE", true),
            ("security_barrier='true'", "security_invoker='true'", "VIEW", true),
            ("upper(e.room)", "lower(e.room)", "VIEW", false),
            ("LANGUAGE plpgsql SECURITY DEFINER", "LANGUAGE plpgsql", "FUNCTION", true),
            ("'hello; '", "'hi; '", "FUNCTION", true),
            ("'you'::text", "'me'::text", "FUNCTION", false),
            ("RETURNS text", "RETURNS integer", "FUNCTION", true),
            ("id DESC", "id", "INDEX", true),
            ("lower(room)", "upper(room)", "INDEX", true),
            ("lower(room)", "lower(rooms)", "INDEX", false),
            (" WHERE (id > 7)", "", "INDEX", true),
            ("(id > 7)", "(id > 8)", "INDEX", false),
            ("FOR SELECT TO readers", "FOR SELECT TO PUBLIC", "POLICY", true),
            ("USING ((id > 0))", "USING ((id > 1))", "POLICY", false),
            (" NOT NULL DEFAULT 1", " DEFAULT 1", "DOMAIN", true),
            ("VALUE > 0", "VALUE > 1", "DOMAIN", false),
            ("insensitive character", "insensitive", "COMMENT", true),
            ("not to be shown", "another", "DATABASE PROPERTIES", true),
            ("TO readers WITH GRANT OPTION", "TO readers", "ACL", true),
            ("AUTHORIZATION readers", "AUTHORIZATION ada", "ACL", true),
        ] {
            assert!(FIFTEEN.contains(what), "{what}");
            let (old, new) = (parsed(FIFTEEN), parsed(&FIFTEEN.replace(what, by)));
            let (old, new) = (find(&old, kind), find(&new, kind));
            assert_eq!(old.exact != new.exact, exact, "{what}");
            assert!(exact || old.rendered != new.rendered, "{what}");
        }
    }
}
