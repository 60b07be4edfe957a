//! The SQL that makes an empty database like one that was backed up.

use std::fmt::Write as _;

use crate::postgres::{Database, Major, Properties, identifier, literal};

/// `CREATE DATABASE name` with owner, encoding and collation of `database`.
pub fn create(name: &str, database: &Database, properties: &Properties, major: Major) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        identifier(name),
        identifier(&database.owner),
        literal(&database.encoding),
        literal(&database.collate),
        literal(&database.ctype),
    );
    let provider = match (major.0 >= 15, properties.locale_provider.as_deref()) {
        (false, _) => String::new(),
        (true, Some("i")) => format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", locale(properties)),
        (true, Some("b")) => format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", locale(properties)),
        (true, _) => " LOCALE_PROVIDER libc".to_owned(),
    };
    sql.push_str(&provider);
    if let Some(rules) = properties.locale_rules.as_deref().filter(|_| major.0 >= 16) {
        let _ = write!(sql, " ICU_RULES {}", literal(rules));
    }
    if let Some(tablespace) = &properties.tablespace {
        let _ = write!(sql, " TABLESPACE {}", identifier(tablespace));
    }
    sql.push_str(";\n");
    sql
}

fn locale(properties: &Properties) -> String {
    literal(properties.locale.as_deref().unwrap_or_default())
}

/// Everything else that belongs to a database as a whole.
pub fn dress(name: &str, database: &Database, properties: &Properties) -> String {
    let shown = identifier(name);
    let mut sql = String::new();
    if let Some(limit) = properties.connection_limit.filter(|&limit| limit >= 0) {
        let _ = writeln!(sql, "ALTER DATABASE {shown} CONNECTION LIMIT {limit};");
    }
    for setting in &properties.settings {
        let whose = match &setting.role {
            Some(role) => format!("ALTER ROLE {} IN DATABASE {shown}", identifier(role)),
            None => format!("ALTER DATABASE {shown}"),
        };
        let (key, value) = (setting.key(), literal(&setting.value));
        let _ = match setting.is_list() {
            true => writeln!(
                sql,
                "BEGIN; DO $$BEGIN PERFORM pg_catalog.set_config({}, {value}, true); END$$; \
                 {whose} SET {key} FROM CURRENT; COMMIT;",
                literal(&setting.name)
            ),
            false => writeln!(sql, "{whose} SET {key} TO {value};"),
        };
    }
    if let Some(privileges) = &properties.privileges {
        let owner = identifier(&database.owner);
        let _ = writeln!(sql, "REVOKE ALL ON DATABASE {shown} FROM PUBLIC, {owner};");
        for grant in privileges {
            let role = grant.role.as_deref().map_or_else(|| "PUBLIC".to_owned(), identifier);
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            let _ = writeln!(sql, "GRANT {} ON DATABASE {shown} TO {role}{option};", grant.privilege);
        }
    }
    sql
}

/// Only superusers come in, whoever owns it: what is being looked at stays as it is.
pub(super) fn closed(name: &str) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT 0;\n", identifier(name))
}

/// Others may come in, too.
pub(super) fn opened(name: &str) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT -1;\n", identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::example;
    use crate::postgres::{Grant, Setting};

    #[test]
    fn a_database_is_made_as_it_was() {
        let database = &example("20261124T030000Z").databases[0].database;
        let setting =
            |name: &str, value: &str| Setting { role: None, name: name.into(), value: value.into() };
        let properties = Properties {
            locale_provider: Some("c".into()),
            connection_limit: Some(-1),
            settings: vec![setting("work_mem", "64MB"), setting("search_path", "a, \"B\"")],
            privileges: Some(vec![Grant { role: None, privilege: "CONNECT".into(), grantable: false }]),
            ..Properties::default()
        };
        assert_eq!(
            create("n", database, &properties, Major(17)),
            "CREATE DATABASE \"n\" OWNER \"synapse\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' \
             LC_CTYPE 'C' LOCALE_PROVIDER libc;\n"
        );
        assert!(create("n", database, &properties, Major(13)).ends_with("LC_CTYPE 'C';\n"));
        let icu = Properties {
            locale_provider: Some("i".into()),
            locale: Some("de".into()),
            locale_rules: Some("&a < b".into()),
            tablespace: Some("fast".into()),
            ..Properties::default()
        };
        let end = " LOCALE_PROVIDER icu ICU_LOCALE 'de' ICU_RULES '&a < b' TABLESPACE \"fast\";\n";
        assert!(create("n", database, &icu, Major(17)).ends_with(end));
        assert_eq!(
            dress("n", database, &properties),
            "ALTER DATABASE \"n\" SET \"work_mem\" TO '64MB';\n\
             BEGIN; DO $$BEGIN PERFORM pg_catalog.set_config('search_path', 'a, \"B\"', true); END$$; \
             ALTER DATABASE \"n\" SET \"search_path\" FROM CURRENT; COMMIT;\n\
             REVOKE ALL ON DATABASE \"n\" FROM PUBLIC, \"synapse\";\n\
             GRANT CONNECT ON DATABASE \"n\" TO PUBLIC;\n"
        );
    }
}
