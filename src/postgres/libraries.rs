//! What a server loads at its start, and what can be made in one of its databases only because of that.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Session, databases};
use crate::error::Result;

/// Of the libraries that a server loads at its start (`shared_preload_libraries`), those without which some of what its
/// databases hold cannot be made, or read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Libraries {
    /// Those of an extension or a function, in the server's order. They load at no other time.
    pub made: Vec<String>,
    /// Those of a type, an access method or an operator class among them: rows and indexes are not read without.
    pub read: Vec<String>,
    /// Their settings that hold from the server's start on and are not the default.
    pub settings: BTreeMap<String, String>,
}

impl Libraries {
    /// Asks a server, and each of its databases.
    ///
    /// # Errors
    /// [`crate::Kind::Server`].
    pub fn gather(session: &Session<'_>) -> Result<Self> {
        let server: Server = session.query(super::HOME, SERVER)?;
        let mut used = Used::default();
        if !list(&server.preloaded).is_empty() {
            for database in databases(session)? {
                let found: Used = session.query(&database.name, USED)?;
                used.made.extend(found.made);
                used.read.extend(found.read);
            }
        }
        Ok(Self::of(&server, &used))
    }

    pub(super) fn of(server: &Server, used: &Used) -> Self {
        let preloaded = list(&server.preloaded);
        let among = |files: &BTreeSet<String>| {
            let is = |library: &&String| files.iter().any(|file| is_of(file, library));
            preloaded.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        let made = among(&used.made);
        let settings = match made.is_empty() {
            true => BTreeMap::new(),
            false => server.settings.clone(),
        };
        Self { read: among(&used.read), made, settings }
    }

    /// Of what was written down somewhere, what may be relied on: names of installed libraries, not paths.
    #[must_use]
    pub fn named_only(mut self) -> Self {
        let plain = |name: &String| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        self.made.retain(plain);
        self.read.retain(plain);
        self.settings
            .retain(|name, _| name.contains('.') && name.split('.').all(|part| plain(&part.to_owned())));
        self
    }
}

/// Extensions that can be made in one database only, the setting that names it, its default, and the schema that they make.
const ONLY_IN: [(&str, &str, &str, &str); 1] = [("pg_cron", "cron.database_name", "postgres", "cron")];

/// An extension that can be made in one database of a server only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// Its name.
    pub extension: String,
    /// The schema that it makes, with all that is in it.
    pub schema: String,
    /// The database; nothing where the server has not loaded what it needs.
    pub database: Option<String>,
}

impl Apart {
    /// Asks a server for all that are known.
    ///
    /// # Errors
    /// [`crate::Kind::Server`].
    pub fn gather(session: &Session<'_>) -> Result<Vec<Self>> {
        Ok(Self::all(&session.query(super::HOME, SERVER)?))
    }

    fn all(server: &Server) -> Vec<Self> {
        let preloaded = list(&server.preloaded);
        let of = |(extension, setting, default, schema): (&str, &str, &str, &str)| Self {
            database: preloaded
                .iter()
                .any(|library| library == extension)
                .then(|| server.settings.get(setting).map_or(default, String::as_str).to_owned()),
            extension: extension.to_owned(),
            schema: schema.to_owned(),
        };
        ONLY_IN.into_iter().map(of).collect()
    }

    /// Whether a table or sequence, as it is quoted in SQL, is in its schema.
    pub fn has(&self, name: &str) -> bool {
        name.strip_prefix(&*self.schema).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// Whether the file of a function, or the name of an extension, is of a library: some load another one of their version.
fn is_of(file: &str, library: &str) -> bool {
    let rest = file.strip_prefix(library);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Bare names of libraries, from a list as `shared_preload_libraries` has it. What is not in a directory of
/// the server's own stays as it is.
fn list(text: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars().chain([',']) {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            c if c.is_whitespace() && !quoted => {}
            c => name.push(c),
        }
    }
    let bare = |name: &String| {
        let name = name.strip_prefix("$libdir/").unwrap_or(name);
        name.strip_suffix(".so").unwrap_or(name).to_owned()
    };
    names.iter().filter(|name| !name.is_empty()).map(bare).collect()
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Server {
    pub(super) preloaded: String,
    pub(super) settings: BTreeMap<String, String>,
}

/// What cannot be changed any more while a server runs is what a library takes when it is loaded.
const SERVER: &str = "SELECT pg_catalog.json_build_object(
    'preloaded', coalesce((SELECT setting FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries'), ''),
    'settings', (SELECT coalesce(pg_catalog.json_object_agg(name, setting), '{}') FROM pg_catalog.pg_settings
        WHERE name LIKE '%.%' AND context = 'postmaster' AND source <> 'default'));";

/// Names of extensions and of the files of functions, without directories.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Used {
    pub(super) made: BTreeSet<String>,
    pub(super) read: BTreeSet<String>,
}

const USED: &str = "WITH functions AS (
        SELECT oid, pg_catalog.regexp_replace(pg_catalog.regexp_replace(probin, '^.*/', ''), '\\.so$', '') AS file
        FROM pg_catalog.pg_proc WHERE probin IS NOT NULL),
    data AS (SELECT pg_catalog.unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout]::oid[]) AS function
        FROM pg_catalog.pg_type
        UNION SELECT amhandler FROM pg_catalog.pg_am
        UNION SELECT amproc FROM pg_catalog.pg_amproc
        UNION SELECT oprcode FROM pg_catalog.pg_amop JOIN pg_catalog.pg_operator o ON o.oid = amopopr)
    SELECT pg_catalog.json_build_object(
        'made', (SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (SELECT file AS name FROM functions
            UNION SELECT extname FROM pg_catalog.pg_extension) AS names),
        'read', (SELECT coalesce(pg_catalog.json_agg(DISTINCT file), '[]') FROM functions JOIN data ON function = oid));";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_that_can_be_made_in_one_database_only_is_known() {
        let server = |preloaded: &str, settings: &[(&str, &str)]| Server {
            preloaded: preloaded.to_owned(),
            settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        };
        let place = |server: &Server| Apart::all(server).remove(0).database;
        let named = server("pgaudit,pg_cron", &[("cron.database_name", "homeserver")]);
        assert_eq!(place(&named).as_deref(), Some("homeserver"));
        assert_eq!(place(&server("pg_cron", &[])).as_deref(), Some("postgres"));
        assert_eq!(place(&server("pgaudit", &[])), None);
    }
}
