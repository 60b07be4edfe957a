//! The statements of `pg_dumpall --globals-only`: roles, and tablespaces, which a restore leaves alone.

use crate::error::{Error, Kind, Result};
use crate::postgres::{FOR_ALL, Setting};
use crate::sql::{Event, Guard, Lexer};

/// What the file says, a statement each, without comments and without tablespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globals(Vec<String>);

impl Globals {
    /// Takes the file apart.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is cut off, or has commands of psql's, which pg_dumpall does not write there. What the
    /// statements say, passwords among that, is never part of an error.
    pub fn parse(text: &str) -> Result<Self> {
        let mut kept = Vec::new();
        let mut guard = Guard::default();
        guard.feed(text.as_bytes(), &mut kept);
        if let Err((line, refusal)) = guard.finish(&mut kept) {
            return Err(Error::new(Kind::Damaged, format!("the dump of roles, line {line}: {refusal}")));
        }
        let (mut lexer, mut statements, mut start) = (Lexer::default(), Vec::new(), 0);
        lexer.feed(&kept, &mut |event, at, _| match event {
            Event::Begin => start = at,
            Event::End => statements.push(String::from_utf8_lossy(&kept[start..at]).into_owned() + "\n"),
            _ => {}
        });
        if !lexer.is_between_statements() {
            return Err(Error::new(Kind::Damaged, "the dump of roles is truncated"));
        }
        statements.retain(|statement| !is_about_a_tablespace(statement));
        Ok(Self(statements))
    }

    /// The roles, as they are quoted in SQL.
    pub fn roles(&self) -> Vec<&str> {
        self.0.iter().filter_map(|statement| created(statement)).collect()
    }

    /// The roles by their names.
    pub fn role_names(&self) -> Vec<String> {
        self.roles().into_iter().map(unquoted).collect()
    }

    /// Everything but the making of roles that are there already.
    pub fn for_server(&self, existing: &[String]) -> String {
        let there = |role: &str| existing.contains(&unquoted(role));
        self.0.iter().filter(|statement| !created(statement).is_some_and(there)).map(String::as_str).collect()
    }

    /// What sets for all roles what is not among `existing`, and the names of that.
    pub fn missing_for_all(&self, existing: &[Setting]) -> (Vec<String>, String) {
        let mut names = Vec::new();
        let missing = self.0.iter().filter(|statement| {
            let name = statement.strip_prefix(FOR_ALL).and_then(|rest| rest.split(" TO ").next());
            let Some(name) = name.map(|name| name.split('.').map(unquoted).collect::<Vec<_>>().join("."))
            else {
                return false;
            };
            let is_missing = existing.iter().all(|setting| setting.name != name);
            names.extend(is_missing.then_some(name));
            is_missing
        });
        let sql = missing.map(String::as_str).collect();
        (names, sql)
    }

    /// What makes the roles that are not there, and nothing that changes one that is.
    pub fn missing(&self, existing: &[String]) -> (Vec<String>, String) {
        let missing: Vec<_> =
            self.roles().into_iter().filter(|role| !existing.contains(&unquoted(role))).collect();
        let about = |statement: &&String| {
            missing.iter().any(|role| {
                let create = format!("CREATE ROLE {role};");
                let alter = format!("ALTER ROLE {role} ");
                let member = format!(" TO {role} ");
                let last = format!(" TO {role};");
                statement.starts_with(&create)
                    || statement.starts_with(&alter)
                    || (statement.starts_with("GRANT ")
                        && (statement.contains(&member) || statement.contains(&last)))
            })
        };
        let sql = match missing.is_empty() {
            true => String::new(),
            false => self.0.iter().filter(about).map(String::as_str).collect(),
        };
        (missing.into_iter().map(unquoted).collect(), sql)
    }
}

fn created(statement: &str) -> Option<&str> {
    statement.trim_end().strip_prefix("CREATE ROLE ")?.strip_suffix(';')
}

fn is_about_a_tablespace(statement: &str) -> bool {
    ["CREATE TABLESPACE ", "ALTER TABLESPACE ", "COMMENT ON TABLESPACE "]
        .iter()
        .any(|start| statement.starts_with(start))
        || (["GRANT ", "REVOKE "].iter().any(|start| statement.starts_with(start))
            && statement.contains(" ON TABLESPACE "))
}

/// A role's name, from how it is written in SQL.
fn unquoted(role: &str) -> String {
    match role.strip_prefix('"').and_then(|role| role.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => role.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\\restrict x\n--\n-- Roles\n--\n\nCREATE ROLE postgres;\n\
        ALTER ROLE postgres WITH SUPERUSER PASSWORD 'SCRAM;';\nCREATE ROLE \"we \"\"ird\";\n\
        ALTER ROLE \"we \"\"ird\" WITH LOGIN;\nCOMMENT ON ROLE postgres IS 'a;\nb''s';\n\
        GRANT postgres TO \"we \"\"ird\" WITH INHERIT TRUE GRANTED BY postgres;\n\
        CREATE TABLESPACE x OWNER postgres LOCATION '/x';\n\\unrestrict x\n";

    #[test]
    fn a_role_that_exists_is_not_made_again() {
        let globals = Globals::parse(TEXT).unwrap();
        assert_eq!(globals.role_names(), ["postgres", "we \"ird"]);
        let sql = globals.for_server(&["postgres".into()]);
        assert!(sql.starts_with("ALTER ROLE postgres") && sql.contains("'a;\nb''s';\n"), "{sql}");
        assert!(!sql.contains("TABLESPACE"), "{sql}");
    }

    #[test]
    fn what_holds_for_all_roles_is_set_where_it_is_not() {
        let text = format!(
            "{TEXT}ALTER ROLE ALL SET \"work_mem\" TO '9MB';\nALTER ROLE ALL SET \"my\".\"own\" TO 'a; TO b';\n"
        );
        let globals = Globals::parse(&text).unwrap();
        let set = Setting { role: None, name: "work_mem".into(), value: "1MB".into() };
        let (names, sql) = globals.missing_for_all(&[set]);
        assert_eq!(names, ["my.own"]);
        assert_eq!(sql, "ALTER ROLE ALL SET \"my\".\"own\" TO 'a; TO b';\n");
        assert!(
            globals.for_server(&[]).contains("work_mem") && globals.missing(&[]).1.find("work_mem").is_none()
        );
        assert_eq!(globals.missing_for_all(&[]).0, ["work_mem", "my.own"]);
    }

    #[test]
    fn an_apostrophe_in_a_name_ends_nothing() {
        let text = "CREATE ROLE \"o'brien\";\nALTER ROLE \"o'brien\" WITH PASSWORD 'SCRAM-SHA-256$x';\nCREATE ROLE ada;\n";
        let globals = Globals::parse(text).unwrap();
        assert_eq!(globals.role_names(), ["o'brien", "ada"]);
        let (missing, sql) = globals.missing(&["o'brien".into()]);
        assert_eq!((missing, sql.as_str()), (vec!["ada".to_owned()], "CREATE ROLE ada;\n"));
    }

    #[test]
    fn what_pg_dumpall_does_not_write_is_refused_and_not_shown() {
        for text in [
            "CREATE ROLE x \\! id >/root/x\n;\n",
            "\\c other\n",
            "ALTER ROLE x PASSWORD 'secret",
            "COPY t FROM stdin;\n",
        ] {
            let error = Globals::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{text}");
            assert!(
                !error.report().contains("secret") && !error.report().contains("/root"),
                "{}",
                error.report()
            );
        }
    }

    #[test]
    fn missing_roles_come_without_a_change_to_those_that_exist() {
        let (missing, sql) = Globals::parse(TEXT).unwrap().missing(&["postgres".into()]);
        assert_eq!(missing, ["we \"ird"]);
        assert_eq!(sql.lines().count(), 3, "{sql}");
        assert!(!sql.contains("ALTER ROLE postgres") && sql.contains("GRANT postgres"), "{sql}");
        assert_eq!(Globals::parse(TEXT).unwrap().missing(&["postgres".into(), "we \"ird".into()]).1, "");
    }
}
