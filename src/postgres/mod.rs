//! What we know of a PostgreSQL server and of its programs.
//!
//! One file for each external program; its argument list is a pure, tested function that returns a
//! [`crate::runtime::Call`].

mod away;
mod catalog;
mod connection;
mod control_group;
mod data_directory;
mod endpoint;
pub mod initdb;
pub mod key_trigger;
mod libraries;
pub mod occupant;
mod of_all;
pub mod pg_amcheck;
pub mod pg_basebackup;
pub mod pg_checksums;
pub mod pg_controldata;
pub mod pg_dump;
pub mod pg_isready;
pub mod pg_restore;
pub mod pg_upgrade;
pub mod pg_verifybackup;
mod postmaster;
mod private;
mod psql;
mod quote;
pub mod refusals;
pub mod scram;
pub mod stamps;
pub mod support;
pub mod vacuumdb;
mod verifier;

pub use away::is_away;
pub use catalog::{
    Closed, Database, Grant, PLANNING_CALLS, Properties, ServerFacts, Setting, all_roles, closed_databases,
    databases, properties, roles, server_facts, unreadable,
};
pub use connection::{Connection, HELPERS, HOME, STANDBY};
pub use control_group::ControlGroup;
pub use data_directory::{Contents, DataDirectory, Postmaster, account_of, is_whole, system_identifier};
pub use endpoint::{Endpoint, Remote, SslMode, is_near};
pub use libraries::{Apart, Libraries};
pub use occupant::{Guest, Occupant};
pub use of_all::{FOR_ALL, elements, set_for_all, settings_of_all};
pub use pg_dump::BackupFormat;
pub use postmaster::{PrivateServer, arguments as postgres_call};
pub use private::{Purpose, Startup};
pub use psql::{
    Session, identify_system, key, load as psql_load, restriction as psql_restriction, script as psql_script,
    script_over as psql_script_over,
};
pub use quote::{identifier, literal};
pub use verifier::without_verifiers;

pub use crate::version::Major;
