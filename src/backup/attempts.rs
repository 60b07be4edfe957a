//! Statements of a dump in SQL that a restore can do without: what fails of them is told, and all else is loaded.
//!
//! psql ends with the first error, and takes no commands of ours in between: the dump is SQL that others wrote. A block
//! in PL/pgSQL catches the error of the one statement in it, in the place that it has in the script.

use serde::Deserialize;

use super::missing::Missing;
use crate::postgres::{key_trigger, refusals};
use crate::sql::tokens::Token;

/// What the message of a failure begins with; its number and its words follow.
const MARK: &str = "matrix-postgres-missing ";

/// A setting that only this session has, once something is missing.
const NOTE: &str = "matrix_postgres.missing";

/// Classes of errors that are no matter of a definition: rows that contradict each other, want of resources, an operator, the
/// system, or PostgreSQL itself (appendix "PostgreSQL Error Codes"; as [`refusals::verdict`] has it).
const GRAVE: &str = "'23', '40', '53', '57', '58', 'XX'";

/// Of a key between tables that rows do not keep (`foreign_key_violation`).
const KEY_IS_BROKEN: &str = "'23503'";

/// What was tried, in order.
#[derive(Debug, Default)]
pub(super) struct Attempts(Vec<String>);

/// The words of one that failed.
#[derive(Deserialize)]
struct Words {
    error: String,
    context: String,
}

impl Attempts {
    /// What is to be carried out in place of this whole statement; nothing if it is one that must succeed.
    pub(super) fn attempt(&mut self, text: &[u8], tokens: &[Token]) -> Option<Vec<u8>> {
        let is = |number: usize, word: &str| tokens.get(number).is_some_and(|token| token.is(word));
        let has = |word: &str| tokens.iter().any(|token| token.is(word));
        let after = |word: &str| tokens.iter().position(|token| token.is(word)).map(|at| at + 1);
        if is(0, "refresh") && is(1, "materialized") && is(2, "view") {
            let what = format!("materialized view {}", shown(tokens.get(3..)?));
            return Some(self.main(text, what));
        }
        if is(0, "create") && (is(1, "index") || is(1, "unique") && is(2, "index")) {
            // "CREATE INDEX name ON ONLY schema.table USING …": it is in its table's schema.
            let on = after("on")?;
            let table = on + usize::from(is(on, "only"));
            let schema = tokens.get(table..).filter(|table| matches!(table.get(1), Some(Token::Other('.'))));
            let name = tokens.get(after("index")?..on - 1)?;
            let name = [schema.map_or(&[][..], |table| &table[..2]), name].concat();
            return Some(self.main(text, format!("index {}", shown(&name))));
        }
        if is(0, "alter") && is(1, "table") && has("foreign") && has("references") {
            // "ALTER TABLE ONLY schema.table ADD CONSTRAINT name FOREIGN KEY (…) REFERENCES …"
            let (add, key) = (after("add")?, after("foreign")?);
            if !is(add, "constraint") || !is(key, "key") {
                return None;
            }
            let table = tokens.get(2 + usize::from(is(2, "only"))..add - 1)?;
            let name = tokens.get(add + 1..key - 1)?;
            return Some(self.main(text, format!("fk constraint {} {}", shown(table), shown(name))));
        }
        if is(0, "alter") && is(1, "table") && tokens.iter().filter_map(Token::name).any(key_trigger::is_name)
        {
            return Some(block(text, "WHEN undefined_object THEN NULL;"));
        }
        let of_index = is(0, "comment") && is(1, "on") && (is(2, "index") || is(2, "constraint"))
            || is(0, "alter") && is(1, "index")
            || is(0, "alter") && is(1, "table") && (has("cluster") || has("replica") && has("index"));
        of_index.then(|| following(text))
    }

    fn main(&mut self, text: &[u8], what: String) -> Vec<u8> {
        let number = self.0.len();
        self.0.push(what);
        let caught = format!(
            "WHEN OTHERS THEN
                IF pg_catalog.substr(SQLSTATE, 1, 2) IN ({GRAVE}) AND SQLSTATE <> {KEY_IS_BROKEN} THEN RAISE; END IF;
                GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
                PERFORM pg_catalog.set_config('{NOTE}', 'yes', false), pg_catalog.set_config('client_min_messages', 'warning', true);
                RAISE WARNING '%', '{MARK}{number} ' || pg_catalog.json_build_object('error', SQLERRM, 'context', context);"
        );
        block(text, &caught)
    }

    /// What has failed, by what psql said.
    pub(super) fn missing(&self, said: &str) -> Vec<Missing> {
        let mut missing = Vec::new();
        for line in said.lines() {
            let Some((_, rest)) = line.split_once(MARK) else { continue };
            let Some((number, words)) = rest.split_once(' ') else { continue };
            let what = number.parse().ok().and_then(|number: usize| self.0.get(number));
            let (Some(what), Ok(words)) = (what, serde_json::from_str::<Words>(words)) else { continue };
            let why = format!("ERROR:  {}", words.error);
            log::warn!("the server rejects {what}: {why}");
            let remedy = refusals::remedy(&format!("{why}\nCONTEXT:  {}", words.context));
            missing.push(Missing::of_script(what.clone(), why, remedy));
        }
        missing
    }
}

/// What belongs to an index fails with it.
fn following(text: &[u8]) -> Vec<u8> {
    let caught = format!(
        "WHEN undefined_table OR undefined_object THEN
            IF pg_catalog.current_setting('{NOTE}', true) IS DISTINCT FROM 'yes' THEN RAISE; END IF;"
    );
    block(text, &caught)
}

fn block(text: &[u8], caught: &str) -> Vec<u8> {
    let statement = text.trim_ascii();
    let statement = statement.strip_suffix(b";").unwrap_or(statement);
    // Longer than what it is looked for in, one is not found at the latest.
    let mut tags = (0..=statement.len()).map(|number| format!("matrix_postgres_{number}"));
    let tag = tags.find(|tag| memchr::memmem::find(statement, tag.as_bytes()).is_none());
    let tag = tag.unwrap_or_default();
    let (outer, inner) = (format!("$of_{tag}$"), format!("${tag}$"));
    [
        format!("\nDO {outer} DECLARE context text; BEGIN EXECUTE {inner}").as_bytes(),
        statement,
        format!("{inner}; EXCEPTION {caught} END {outer};").as_bytes(),
    ]
    .concat()
}

/// A name as it was written, more or less, to be told.
fn shown(tokens: &[Token]) -> String {
    let part = |token: &Token| match token {
        Token::Other(c) => c.to_string(),
        token => token.name().unwrap_or_default().to_owned(),
    };
    tokens.iter().take_while(|token| !matches!(token, Token::Other(';'))).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tokens::tokens;

    fn attempt(attempts: &mut Attempts, text: &str) -> Option<String> {
        attempts.attempt(text.as_bytes(), &tokens(text)).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn what_fails_is_told_by_its_name_and_with_what_to_do() {
        let mut attempts = Attempts::default();
        for text in [
            "\nCREATE INDEX bad ON public.t USING btree (public.f(v));",
            "CREATE UNIQUE INDEX \"b c\" ON ONLY s.\"T t\" USING btree (v);",
            "REFRESH MATERIALIZED VIEW public.m;",
        ] {
            let made = attempt(&mut attempts, text).unwrap();
            assert!(made.contains(text.trim().trim_end_matches(';')) && made.starts_with("\nDO $"), "{made}");
        }
        let said = "psql:<stdin>:9: WARNING:  matrix-postgres-missing 0 {\"error\" : \"function low(text) does not exist\", \
            \"context\" : \"PL/pgSQL function public.f(text) line 1 at RETURN\\nSQL statement\"}\n\
            psql:<stdin>:9: WARNING:  matrix-postgres-missing 7 {}\nWARNING:  matrix-postgres-missing 1 {\"error\":\"x\",\"context\":\"\"}";
        let missing = attempts.missing(said);
        assert_eq!(
            missing.iter().map(|one| &one.what[..]).collect::<Vec<_>>(),
            ["index public.bad", "index s.b c"]
        );
        assert_eq!(missing[0].why, "ERROR:  function low(text) does not exist");
        assert!(missing[0].remedy.contains("ALTER FUNCTION public.f SET search_path"), "{:?}", missing[0]);
        assert_eq!(attempts.0[2], "materialized view public.m");
    }

    #[test]
    fn a_key_that_rows_do_not_keep_may_fail() {
        let mut attempts = Attempts::default();
        let made = attempt(
            &mut attempts,
            "ALTER TABLE ONLY public.b\n    ADD CONSTRAINT \"b id\" FOREIGN KEY (id) REFERENCES public.a(id) NOT VALID;",
        );
        assert!(made.unwrap().contains("AND SQLSTATE <> '23503' THEN RAISE"));
        let comment = attempt(&mut attempts, "COMMENT ON CONSTRAINT \"b id\" ON public.b IS 'x';");
        assert!(comment.unwrap().contains("IS DISTINCT FROM 'yes' THEN RAISE"));
        let said = "WARNING:  matrix-postgres-missing 0 {\"error\":\"insert or update on table \\\"b\\\" violates foreign key \
            constraint \\\"b id\\\"\",\"context\":\"\"}";
        let missing = attempts.missing(said);
        assert_eq!(missing[0].what, "fk constraint public.b b id");
        assert!(missing[0].remedy.starts_with("correct or delete the rows"), "{:?}", missing[0]);
    }

    #[test]
    fn whether_a_trigger_of_a_key_is_switched_on_is_no_matter() {
        let text = "ALTER TABLE public.part DISABLE TRIGGER \"RI_ConstraintTrigger_c_16495\";";
        assert!(
            attempt(&mut Attempts::default(), text).unwrap().contains("WHEN undefined_object THEN NULL;")
        );
        assert_eq!(attempt(&mut Attempts::default(), "ALTER TABLE public.part DISABLE TRIGGER mine;"), None);
    }

    #[test]
    fn what_belongs_to_an_index_may_fail_with_one_and_nothing_else_may() {
        let mut attempts = Attempts::default();
        for text in [
            "COMMENT ON INDEX public.bad IS 'x';",
            "ALTER INDEX public.p_idx ATTACH PARTITION public.bad;",
            "ALTER TABLE public.t CLUSTER ON bad;",
            "ALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX bad;",
        ] {
            assert!(
                attempt(&mut attempts, text).unwrap().contains("IS DISTINCT FROM 'yes' THEN RAISE"),
                "{text}"
            );
        }
        for text in [
            "CREATE TABLE t (a int);",
            "ALTER TABLE t ADD PRIMARY KEY (a);",
            "ALTER TABLE t ADD CONSTRAINT \"foreign\" CHECK (a > 0);",
            "COPY t (a) FROM stdin;",
            "SELECT 1;",
        ] {
            assert_eq!(attempt(&mut attempts, text), None, "{text}");
        }
        assert!(attempts.missing("WARNING:  matrix-postgres-missing 0 {}").is_empty());
    }

    #[test]
    fn no_quote_in_a_statement_ends_ours() {
        let made = attempt(
            &mut Attempts::default(),
            "CREATE INDEX i ON t (($matrix_postgres_0$x$matrix_postgres_0$));",
        );
        assert!(made.unwrap().contains("EXECUTE $matrix_postgres_1$CREATE"));
    }
}
