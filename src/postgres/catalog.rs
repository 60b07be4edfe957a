//! What a running server says of itself and of its databases.

use serde::{Deserialize, Serialize};

use super::{Major, Session};
use crate::error::{Error, Kind, Result};

/// The server as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// `server_version`, such as `17.6 (Debian 17.6-1)`.
    pub version: String,
    /// `server_version_num`, such as 170006.
    pub version_num: u32,
    /// The cluster's identity, made by initdb; a string, for JSON numbers end before 2^64.
    pub system_identifier: String,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
}

impl ServerFacts {
    /// The major version.
    ///
    /// # Errors
    /// [`Kind::Server`] for servers older than 10.
    pub fn major(&self) -> Result<Major> {
        Major::from_version_num(self.version_num).ok_or_else(|| {
            Error::new(Kind::Server, format!("the server's version {} is not supported", self.version))
                .hint("PostgreSQL 10 is the oldest that this works with")
        })
    }
}

/// One database, as `pg_database` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The owning role.
    pub owner: String,
    /// Such as `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Bytes on disk, indexes included.
    pub size: u64,
}

/// Asks the server what it is.
///
/// # Errors
/// [`Kind::Server`].
pub fn server_facts(session: &Session<'_>) -> Result<ServerFacts> {
    session.query(
        "postgres",
        "SELECT json_build_object(
            'version', current_setting('server_version'),
            'version_num', current_setting('server_version_num')::int,
            'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
            'data_checksums', current_setting('data_checksums')::bool);",
    )
}

/// All databases that accept connections, in the order of their names. `template0` never does, and neither does
/// what an interrupted DROP DATABASE left behind (its connection limit is -2).
///
/// # Errors
/// [`Kind::Server`].
pub fn databases(session: &Session<'_>) -> Result<Vec<Database>> {
    session.query(
        "postgres",
        "SELECT coalesce(json_agg(json_build_object(
            'name', datname,
            'owner', pg_get_userbyid(datdba),
            'encoding', pg_encoding_to_char(encoding),
            'collate', datcollate,
            'ctype', datctype,
            'size', pg_database_size(oid)) ORDER BY datname), '[]')
         FROM pg_database WHERE datallowconn AND datconnlimit <> -2;",
    )
}

/// The databases that [`databases`] cannot have, each with the reason; not `template0`, which is never changed.
///
/// # Errors
/// [`Kind::Server`].
pub fn closed_databases(session: &Session<'_>) -> Result<Vec<(String, String)>> {
    session.query(
        "postgres",
        "SELECT coalesce(json_agg(json_build_array(datname, CASE
            WHEN datconnlimit = -2 THEN 'a DROP DATABASE of it was interrupted'
            ELSE 'it accepts no connections (ALLOW_CONNECTIONS false)' END) ORDER BY datname), '[]')
         FROM pg_database WHERE datname <> 'template0' AND (NOT datallowconn OR datconnlimit = -2);",
    )
}
