//! What of a dump a server does not take, and can be missed.

use crate::error::{Error, Kind};

/// What the server does not take, and can be missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its entry in the dump, where it has one.
    pub(super) id: Option<i32>,
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
        Self { id: None, what, why, remedy }
    }
}

/// In a sentence: which objects of a database are missing, and why.
pub fn told(missing: &[Missing]) -> Option<Error> {
    let first = missing.first()?;
    let list: Vec<_> = missing.iter().map(|Missing { what, why, .. }| format!("{what} ({why})")).collect();
    let message = format!("the server rejects {}", list.join(", "));
    Some(Error::new(Kind::NotTaken, message).hint(first.remedy.clone()))
}
