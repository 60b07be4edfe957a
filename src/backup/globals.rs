//! The statements of `pg_dumpall --globals-only`: roles, and tablespaces, which a restore leaves alone.

/// What the file says, a statement each, without comments and without tablespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globals(Vec<String>);

impl Globals {
    /// Takes the file apart. pg_dumpall begins each statement on a line of its own; a comment on a role may have
    /// line ends in its quotes.
    pub fn parse(text: &str) -> Self {
        let mut statements = Vec::new();
        let mut statement = String::new();
        for line in text.lines() {
            let begins = statement.is_empty();
            if begins && (line.is_empty() || line.starts_with("--") || line.starts_with('\\')) {
                continue;
            }
            statement.push_str(line);
            statement.push('\n');
            if line.ends_with(';') && statement.matches('\'').count().is_multiple_of(2) {
                statements.push(std::mem::take(&mut statement));
            }
        }
        statements.retain(|statement| !is_about_a_tablespace(statement));
        Self(statements)
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
pub(super) fn unquoted(role: &str) -> String {
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
        let globals = Globals::parse(TEXT);
        assert_eq!(globals.role_names(), ["postgres", "we \"ird"]);
        let sql = globals.for_server(&["postgres".into()]);
        assert!(sql.starts_with("ALTER ROLE postgres") && sql.contains("'a;\nb''s';\n"), "{sql}");
        assert!(!sql.contains("TABLESPACE"), "{sql}");
    }

    #[test]
    fn missing_roles_come_without_a_change_to_those_that_exist() {
        let (missing, sql) = Globals::parse(TEXT).missing(&["postgres".into()]);
        assert_eq!(missing, ["we \"ird"]);
        assert_eq!(sql.lines().count(), 3, "{sql}");
        assert!(!sql.contains("ALTER ROLE postgres") && sql.contains("GRANT postgres"), "{sql}");
        assert_eq!(Globals::parse(TEXT).missing(&["postgres".into(), "we \"ird".into()]).1, "");
    }
}
