//! Roles, their memberships and settings: what `pg_dumpall --globals-only` writes, without tablespaces.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::schema::{Statement, without_value};
use super::sql::{Kind, Token, digest, statements, text, tokens};

/// What belongs to no database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Globals {
    /// By name.
    pub roles: BTreeMap<String, Role>,
    /// Who belongs to whom.
    pub memberships: BTreeSet<Membership>,
    /// Everything else: comments, settings, privileges on parameters.
    pub statements: BTreeSet<Statement>,
}

/// A role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Such as `NOSUPERUSER` or `CONNECTION LIMIT 5`.
    pub attributes: BTreeSet<String>,
    /// SHA-256 of the password's verifier.
    pub password: Option<String>,
}

/// Has no order of grantors: before 16 they were not kept with care.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Membership {
    /// The role that is granted.
    pub role: String,
    /// To whom.
    pub member: String,
    /// May grant it to others.
    pub admin: bool,
    /// Has its privileges at once. Before 16 the member's own attribute said so.
    pub inherit: bool,
    /// May become it. Before 16 everybody might.
    pub set: bool,
}

impl Membership {
    /// The options in words.
    pub(super) fn options(&self) -> String {
        let words = [(self.admin, "ADMIN"), (self.inherit, "INHERIT"), (self.set, "SET")];
        let given: Vec<_> = words.into_iter().filter(|(given, _)| *given).map(|(_, word)| word).collect();
        if given.is_empty() { "no options".to_owned() } else { given.join(", ") }
    }
}

/// Takes the file apart.
///
/// # Errors
/// A sentence, if it is cut off.
pub(super) fn parse(dump: &str) -> Result<Globals, String> {
    let mut tokens = tokens(dump)?;
    tokens.retain(|token| token.kind != Kind::Comment);
    let mut globals = Globals::default();
    for statement in statements(&tokens) {
        globals.add(statement);
    }
    let inherits =
        |member: &str| globals.roles.get(member).is_none_or(|role| !role.attributes.contains("NOINHERIT"));
    globals.memberships =
        statements(&tokens).filter_map(|statement| membership(statement, inherits)).collect();
    Ok(globals)
}

impl Globals {
    fn add(&mut self, statement: &[Token<'_>]) {
        let is = |at: usize, word: &str| statement.get(at).is_some_and(|token| token.is_word(word));
        let on_tablespace = |at: usize| {
            statement.iter().position(|token| token.is_word("TABLESPACE")).is_some_and(|found| found <= at)
        };
        if is(0, "SET") || on_tablespace(2) || is_grant_on(statement, "TABLESPACE") {
            return;
        }
        if is(1, "ROLE") && is(0, "CREATE") && statement.len() == 3 {
            self.roles.entry(statement[2].name()).or_default();
        } else if is(0, "ALTER") && is(1, "ROLE") && is(3, "WITH") {
            self.roles.entry(statement[2].name()).or_default().describe(&statement[4..]);
        } else if !is(0, "GRANT") || statement.iter().any(|token| token.is_word("ON")) {
            let whole = text(statement.iter().copied());
            let shown = without_value(statement).unwrap_or_else(|| shortened(statement));
            self.statements.insert(Statement::new(shown, &whole));
        }
    }
}

/// A comment without its text.
fn shortened(statement: &[Token<'_>]) -> String {
    let end = statement.iter().position(|token| token.is_word("IS")).unwrap_or(statement.len());
    text(statement[..end].iter().copied())
}

fn is_grant_on(statement: &[Token<'_>], what: &str) -> bool {
    statement.windows(2).any(|pair| pair[0].is_word("ON") && pair[1].is_word(what))
}

impl Role {
    fn describe(&mut self, words: &[Token<'_>]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let attribute = match word.text {
                "PASSWORD" => {
                    self.password = words.next().map(|verifier| digest(verifier.text));
                    continue;
                }
                "CONNECTION" | "VALID" => {
                    // A negative limit is two tokens.
                    let mut phrase = vec![*word];
                    phrase.extend(words.by_ref().take(2).copied());
                    if phrase.last().is_some_and(|last| last.is_mark("-")) {
                        phrase.extend(words.next().copied());
                    }
                    text(phrase)
                }
                other => other.to_owned(),
            };
            self.attributes.insert(attribute);
        }
    }
}

/// `GRANT role TO member WITH ADMIN OPTION, INHERIT FALSE, SET FALSE GRANTED BY grantor`, as 16 has it; before, without
/// the latter options.
fn membership(statement: &[Token<'_>], inherits: impl Fn(&str) -> bool) -> Option<Membership> {
    let [grant, role, to, member, options @ ..] = statement else { return None };
    if !grant.is_word("GRANT") || !to.is_word("TO") {
        return None;
    }
    let option = |name: &str| {
        let at = options.iter().position(|token| token.is_word(name))?;
        options.get(at + 1).map(|value| !value.is_word("FALSE"))
    };
    let member = member.name();
    Some(Membership {
        role: role.name(),
        admin: option("ADMIN").unwrap_or(false),
        inherit: option("INHERIT").unwrap_or_else(|| inherits(&member)),
        set: option("SET").unwrap_or(true),
        member,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pg_dumpall 17 of a server of 15, shortened.
    const FIFTEEN: &str = r#"--
-- PostgreSQL database cluster dump
--

\restrict pGICDtTp
SET default_transaction_read_only = off;

CREATE ROLE "Grace H";
ALTER ROLE "Grace H" WITH NOSUPERUSER NOINHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE ada;
ALTER ROLE ada WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:RbIdRc8q==$IZennr3Y=:x=' VALID UNTIL '2038-01-01 00:00:00+00';
CREATE ROLE auditor;
ALTER ROLE auditor WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION BYPASSRLS CONNECTION LIMIT -1;
COMMENT ON ROLE auditor IS 'may; read
CREATE ROLE nobody;
it''s';

ALTER ROLE ada SET search_path TO '$user', 'public', 'we ird';

GRANT pg_monitor TO auditor;
GRANT ada TO "Grace H" WITH ADMIN OPTION;

GRANT SET ON PARAMETER work_mem TO ada;

CREATE TABLESPACE fast OWNER ada LOCATION '/x';
GRANT ALL ON TABLESPACE fast TO auditor;

\unrestrict pGICDtTp
"#;

    fn of_newer() -> String {
        FIFTEEN
            .replace("pGICDtTp", "juYqlS3d")
            .replace("TO auditor;\nGRANT ada", "TO auditor WITH INHERIT TRUE GRANTED BY postgres;\nGRANT ada")
            .replace("WITH ADMIN OPTION;", "WITH ADMIN OPTION, INHERIT FALSE GRANTED BY postgres;")
            .replace("CREATE TABLESPACE fast OWNER ada LOCATION '/x';\n", "")
            .replace("GRANT ALL ON TABLESPACE fast TO auditor;\n", "")
    }

    #[test]
    fn memberships_are_equal_where_16_says_what_was_an_attribute_before() {
        let globals = parse(FIFTEEN).unwrap();
        assert_eq!(globals, parse(&of_newer()).unwrap());
        let options: Vec<_> = globals
            .memberships
            .iter()
            .map(|one| format!("{} of {}: {}", one.member, one.role, one.options()))
            .collect();
        assert_eq!(options, ["Grace H of ada: ADMIN, SET", "auditor of pg_monitor: INHERIT, SET"]);
        let other = parse(&of_newer().replace("INHERIT FALSE", "INHERIT TRUE, SET FALSE")).unwrap();
        assert_ne!(globals.memberships, other.memberships);
    }

    #[test]
    fn roles_are_taken_apart_and_passwords_are_not_kept() {
        let globals = parse(FIFTEEN).unwrap();
        assert_eq!(globals.roles.keys().collect::<Vec<_>>(), ["Grace H", "ada", "auditor"]);
        let ada = &globals.roles["ada"];
        for attribute in ["CREATEDB", "CONNECTION LIMIT 5", "VALID UNTIL '2038-01-01 00:00:00+00'"] {
            assert!(ada.attributes.contains(attribute), "{attribute}: {ada:?}");
        }
        assert!(globals.roles["auditor"].attributes.contains("CONNECTION LIMIT - 1"));
        let json = serde_json::to_string(&globals).unwrap();
        assert!(!json.contains("RbIdRc8q") && !json.contains("we ird"), "{json}");
        let other = parse(&FIFTEEN.replace("RbIdRc8q", "RbIdRc8r")).unwrap();
        assert_ne!(ada.password, other.roles["ada"].password);
    }

    #[test]
    fn what_is_set_for_all_roles_is_compared() {
        let set = |value: &str| {
            parse(&format!("{FIFTEEN}\nALTER ROLE ALL SET \"work_mem\" TO '{value}';\n")).unwrap()
        };
        assert_ne!(parse(FIFTEEN).unwrap(), set("9MB"));
        assert_ne!(set("9MB"), set("8MB"));
        let gone = set("9MB").statements.into_iter().find(|statement| statement.shown.contains("ROLE ALL"));
        assert!(gone.is_some_and(|gone| !gone.shown.contains("9MB")));
    }

    #[test]
    fn everything_else_is_a_statement() {
        let globals = parse(FIFTEEN).unwrap();
        let shown: Vec<_> = globals.statements.iter().map(|statement| statement.shown.as_str()).collect();
        assert_eq!(
            shown,
            [
                "ALTER ROLE ada SET search_path",
                "COMMENT ON ROLE auditor",
                "GRANT SET ON PARAMETER work_mem TO ada",
            ]
        );
    }
}
