//! A restored database against the manifest of the backup it came from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::manifest::DatabaseDump;
use super::rows::Contents;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Major, Session, identifier, literal};

/// The statement that makes an empty database like the one that was backed up.
pub fn create_database(dump: &DatabaseDump, name: &str, major: Major) -> String {
    let database = &dump.database;
    let mut statement = format!(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        identifier(name),
        identifier(&database.owner),
        literal(&database.encoding),
        literal(&database.collate),
        literal(&database.ctype)
    );
    let provider = match dump.properties.locale_provider.as_deref() {
        Some("i") => Some(("icu", "ICU_LOCALE")),
        Some("b") if major >= Major(17) => Some(("builtin", "BUILTIN_LOCALE")),
        _ => None,
    };
    if let (Some((provider, keyword)), Some(locale)) = (provider, &dump.properties.locale) {
        let _ = write!(statement, " LOCALE_PROVIDER {provider} {keyword} {}", literal(locale));
    }
    statement + ";\n"
}

/// The statements that give a database what belongs to it and is not in its dump, but for the comment.
pub fn properties(dump: &DatabaseDump, name: &str) -> String {
    let (database, properties) = (identifier(name), &dump.properties);
    let mut script = String::new();
    if let Some(limit) = properties.connection_limit.filter(|&limit| limit >= 0) {
        let _ = writeln!(script, "ALTER DATABASE {database} CONNECTION LIMIT {limit};");
    }
    for setting in &properties.settings {
        let whose = setting.role.as_ref().map_or_else(
            || format!("ALTER DATABASE {database}"),
            |role| format!("ALTER ROLE {} IN DATABASE {database}", identifier(role)),
        );
        let _ = writeln!(script, "{whose} SET {} TO {};", identifier(&setting.name), setting_value(setting));
    }
    if let Some(privileges) = &properties.privileges {
        let _ = writeln!(script, "REVOKE ALL ON DATABASE {database} FROM PUBLIC;");
        for grant in privileges {
            let whom = grant.role.as_deref().map_or_else(|| "PUBLIC".to_owned(), identifier);
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            let _ = writeln!(script, "GRANT {} ON DATABASE {database} TO {whom}{option};", grant.privilege);
        }
    }
    script
}

/// What pg_dumpall wrote of roles, without the lines that make or change one of `existing`, which are quoted as in
/// SQL. Tablespaces are left out: their directories are not part of a backup.
pub fn new_roles_only(sql: &str, existing: &[String]) -> String {
    const VERBS: [&str; 3] = ["CREATE ROLE ", "ALTER ROLE ", "COMMENT ON ROLE "];
    let exists = |rest: &str| {
        existing
            .iter()
            .any(|role| rest.strip_prefix(role.as_str()).is_some_and(|end| end.starts_with([' ', ';'])))
    };
    let stays = |line: &&str| {
        let of_existing = VERBS.iter().filter_map(|verb| line.strip_prefix(verb)).any(exists);
        // psql's own commands: \\restrict of newer minor versions, which our script does without.
        !of_existing && !line.contains(" TABLESPACE ") && !line.starts_with('\\')
    };
    sql.lines().filter(stays).fold(String::new(), |text, line| text + line + "\n")
}

/// Settings that are lists are kept as they are written, quotes and all; pg_dump knows them by name, too
/// (`variable_is_guc_list_quote` in its source).
fn setting_value(setting: &crate::postgres::Setting) -> String {
    const LISTS: [&str; 6] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    match LISTS.contains(&setting.name.as_str()) && !setting.value.is_empty() {
        true => setting.value.clone(),
        false => literal(&setting.value),
    }
}

/// Compares rows and sequences with what was counted when the backup was read back; returns the number of rows.
///
/// # Errors
/// [`Kind::Damaged`] naming what differs, or [`Kind::Server`].
pub fn compare(session: &Session<'_>, database: &str, dump: &DatabaseDump) -> Result<u64> {
    let Some(expected) = &dump.contents else {
        return Err(Error::new(
            Kind::Damaged,
            "the backup was never read back, so that nothing is known of its rows",
        )
        .hint("matrix-postgres-backup verify reads it back"));
    };
    let found = count(session, database, expected)?;
    let differences = differences(expected, &found);
    match differences.is_empty() {
        true => Ok(found.rows()),
        false => Err(Error::new(
            Kind::Damaged,
            format!("the restored database is not what was backed up: {}", differences.join("; ")),
        )),
    }
}

/// `ONLY`: the rows of partitions and of tables that inherit are dumped, and counted, with those.
fn count(session: &Session<'_>, database: &str, expected: &Contents) -> Result<Contents> {
    let object = |parts: Vec<String>| match parts.is_empty() {
        true => "'{}'::json".to_owned(),
        false => format!("(SELECT json_object_agg(name, value) FROM ({}) AS x)", parts.join("\nUNION ALL ")),
    };
    let tables = expected.tables.keys().map(|table| {
        format!("SELECT {} AS name, (SELECT count(*) FROM ONLY {table}) AS value", literal(table))
    });
    let sequences = expected.sequences.keys().map(|sequence| {
        format!(
            "SELECT {} AS name, (SELECT format('%s, %s', last_value, \
             CASE WHEN is_called THEN 'true' ELSE 'false' END) FROM {sequence}) AS value",
            literal(sequence)
        )
    });
    session.query(
        database,
        &format!(
            "SELECT json_build_object('tables', {}, 'sequences', {}, \
             'large_objects', (SELECT count(*) FROM pg_largeobject_metadata));",
            object(tables.collect()),
            object(sequences.collect())
        ),
    )
}

fn differences(expected: &Contents, found: &Contents) -> Vec<String> {
    fn pairs<V: PartialEq + std::fmt::Display>(
        what: &str,
        expected: &BTreeMap<String, V>,
        found: &BTreeMap<String, V>,
    ) -> Vec<String> {
        let differing = expected.iter().filter(|(name, value)| found.get(*name) != Some(value));
        differing
            .map(|(name, value)| match found.get(name) {
                Some(other) => format!("{what} {name}: {other}, and {value} were backed up"),
                None => format!("{what} {name} is missing"),
            })
            .collect()
    }
    let mut differences = pairs("rows of", &expected.tables, &found.tables);
    differences.extend(pairs("sequence", &expected.sequences, &found.sequences));
    if expected.large_objects != found.large_objects {
        differences.push(format!(
            "{} large objects, and {} were backed up",
            found.large_objects, expected.large_objects
        ));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::example;
    use crate::postgres::{Grant, Setting};

    #[test]
    fn a_new_database_is_like_the_old_one() {
        let dump = example("20261124T030000Z").databases.remove(0);
        assert_eq!(
            create_database(&dump, "it's", Major(17)),
            "CREATE DATABASE \"it's\" OWNER \"synapse\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' \
             LC_CTYPE 'C';\n"
        );
    }

    #[test]
    fn settings_and_privileges_come_back() {
        let mut dump = example("20261124T030000Z").databases.remove(0);
        let setting = |role: Option<&str>, name: &str, value: &str| Setting {
            role: role.map(str::to_owned),
            name: name.into(),
            value: value.into(),
        };
        dump.properties.settings =
            vec![setting(None, "search_path", "\"a b\", public"), setting(Some("x"), "work_mem", "7MB")];
        dump.properties.privileges =
            Some(vec![Grant { role: None, privilege: "CONNECT".into(), grantable: false }]);
        assert_eq!(
            properties(&dump, "d"),
            "ALTER DATABASE \"d\" SET \"search_path\" TO \"a b\", public;\n\
             ALTER ROLE \"x\" IN DATABASE \"d\" SET \"work_mem\" TO '7MB';\n\
             REVOKE ALL ON DATABASE \"d\" FROM PUBLIC;\n\
             GRANT CONNECT ON DATABASE \"d\" TO PUBLIC;\n"
        );
    }

    #[test]
    fn roles_that_are_there_stay_as_they_are() {
        let sql = "CREATE ROLE synapse;\nALTER ROLE synapse WITH LOGIN PASSWORD 'old';\nCREATE ROLE synapse2;\n\
                   ALTER ROLE synapse2 WITH LOGIN;\nCREATE ROLE \"o'x\";\nGRANT a TO synapse GRANTED BY postgres;\n";
        let existing = ["synapse".to_owned(), "\"o'x\"".to_owned()];
        assert_eq!(
            new_roles_only(sql, &existing),
            "CREATE ROLE synapse2;\nALTER ROLE synapse2 WITH LOGIN;\nGRANT a TO synapse GRANTED BY postgres;\n"
        );
    }

    #[test]
    fn what_differs_is_named() {
        let expected = Contents {
            tables: [("a".to_owned(), 3), ("b".to_owned(), 1)].into(),
            sequences: [("s".to_owned(), "4, true".to_owned())].into(),
            large_objects: 1,
        };
        assert!(differences(&expected, &expected).is_empty());
        let found = Contents { tables: [("a".to_owned(), 2)].into(), ..Contents::default() };
        assert_eq!(
            differences(&expected, &found),
            [
                "rows of a: 2, and 3 were backed up",
                "rows of b is missing",
                "sequence s is missing",
                "0 large objects, and 1 were backed up"
            ]
        );
    }
}
