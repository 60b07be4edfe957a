//! What of a dump a server does not take, and can be missed.

use super::custom::Toc;
use super::rows::Contents;
use crate::error::{Error, Kind};
use crate::postgres::refusals;

/// What the server does not take, and can be missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its entry in the dump, where it has one.
    pub(super) id: Option<i32>,
    /// The table that stays empty, as it is quoted in SQL, where its rows are missing.
    pub(super) table: Option<String>,
    /// What it is: `index public.t_f_idx`.
    pub what: String,
    /// The server's error.
    pub why: String,
    /// What an administrator does about it.
    pub remedy: String,
}

impl Missing {
    /// Something of a dump in SQL.
    pub(super) fn of_script(what: String, why: String, remedy: String) -> Self {
        Self { id: None, table: None, what, why, remedy }
    }

    /// The rows of a table, by what was said of them.
    pub(super) fn of_rows(toc: &Toc, id: i32, table: String, said: &str) -> Self {
        let what = format!("the rows of {}", toc.shown(id).unwrap_or_else(|| table.clone()));
        let error = said.lines().find_map(|line| line.find("ERROR:  ").map(|at| &line[at..]));
        let why = error.unwrap_or_default().to_owned();
        log::warn!("the server does not take {what}: {why}");
        Self { id: Some(id), table: Some(table), what, why, remedy: refusals::remedy(said) }
    }
}

/// In a sentence: which objects of a database are missing, and why.
pub fn told(missing: &[Missing]) -> Option<Error> {
    let first = missing.first()?;
    let list: Vec<_> = missing.iter().map(|Missing { what, why, .. }| format!("{what} ({why})")).collect();
    let message = format!("the server rejects {}", list.join(", "));
    Some(Error::new(Kind::NotTaken, message).hint(first.remedy.clone()))
}

/// Takes the tables that stay empty out of what was counted.
pub(super) fn without_empty(mut contents: Contents, missing: &[Missing]) -> Contents {
    for table in missing.iter().filter_map(|one| one.table.as_ref()) {
        contents.tables.remove(table);
    }
    contents
}
