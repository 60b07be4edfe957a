//! `ALTER ROLE ALL SET`: what holds for every role in every database. pg_dumpall leaves it out, and so does pg_upgrade,
//! which calls it.

use super::catalog::Setting;
use super::{HOME, Session, literal};
use crate::error::Result;

/// The settings of all roles, in the order in which they were made.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn settings_of_all(session: &Session<'_>) -> Result<Vec<Setting>> {
    session.query(
        HOME,
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', pg_catalog.split_part(line, '=', 1),
            'value', pg_catalog.substr(line, pg_catalog.strpos(line, '=') + 1)) ORDER BY at), '[]')
         FROM pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) WITH ORDINALITY AS lines (line, at)
         WHERE setdatabase = 0 AND setrole = 0;",
    )
}

/// What [`set_for_all`] begins each statement with.
pub const FOR_ALL: &str = "ALTER ROLE ALL SET ";

/// The statements that set them, a line each as long as no value has several, as pg_dumpall writes those of a role.
pub fn set_for_all(settings: &[Setting]) -> String {
    let one = |setting: &Setting| {
        let value = match setting.is_list() {
            true => {
                let elements = elements(&setting.value);
                elements.iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
            }
            false => literal(&setting.value),
        };
        format!("{FOR_ALL}{} TO {value};\n", setting.key())
    };
    settings.iter().map(one).collect()
}

/// The elements of a list as PostgreSQL keeps it, without their quotes; one empty element for an empty list.
pub fn elements(list: &str) -> Vec<String> {
    let (mut elements, mut element, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = list.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                element.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(std::mem::take(&mut element)),
            c if c.is_whitespace() && !quoted => {}
            c => element.push(c),
        }
    }
    elements.push(element);
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_all_is_written_as_of_a_role() {
        let setting =
            |name: &str, value: &str| Setting { role: None, name: name.into(), value: value.into() };
        assert_eq!(
            set_for_all(&[
                setting("work_mem", "9MB"),
                setting("search_path", "\"$user\", public, \"we, \"\"ird\""),
                setting("my.own", "it's"),
                setting("temp_tablespaces", "\"\""),
            ]),
            "ALTER ROLE ALL SET \"work_mem\" TO '9MB';\n\
             ALTER ROLE ALL SET \"search_path\" TO '$user', 'public', 'we, \"ird';\n\
             ALTER ROLE ALL SET \"my\".\"own\" TO 'it''s';\n\
             ALTER ROLE ALL SET \"temp_tablespaces\" TO '';\n"
        );
    }
}
