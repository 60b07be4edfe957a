//! Backups: a directory each, which appears whole or not at all, and counts only once it was read back.
//!
//! - [`plan`]: facts → what a run will write
//! - [`run`]: from the first check to the report
//! - [`start`]: whether a server that does not run is started for it
//! - [`engine`]: what makes backups, reads them back and restores them
//! - [`create`]: the dumping itself
//! - [`encryption`]: whom to encrypt to
//! - [`name`]: names of backups and of the files in them
//! - [`manifest`]: what a backup says of itself
//! - `outage`: what is done while services are stopped
//! - [`pgbackrest`]: the other engine, which has a repository of its own
//! - [`store`]: where they are kept, and [`directory`], where they are made
//! - [`elsewhere`]: where they are sent to, by `rclone`; [`offsite`]: what is sent there
//! - [`catalogue`]: which backups there are
//! - [`rows`]: counts rows in the SQL of a dump
//! - `section`: what belongs to one database in the SQL of pg_dump and pg_dumpall; `frame`: what they write around it
//! - [`read_back`], [`verify`]: reads a backup whole and compares; records the result
//! - [`retention`], [`prune`]: which ones go, and how
//! - [`classic`]: a dump that another tool wrote
//! - `wrapping`: what a file is, by its first bytes
//! - `ownership`: to whom what nobody is named for belongs
//! - `encoding`: how names in a dump are understood
//! - [`restore`]: back into the server, beside what is there
//! - [`scratch`]: room for what is thrown away
//! - [`globals`]: the statements that make roles
//! - [`making`]: the SQL that makes a database as it was
//! - `custom`: pg_dump's custom format as a stream
//! - [`load`]: one dump into one database
//! - [`source`]: the backup that it is read from
//! - [`target`]: the database, and the programs that load it there
//! - [`missing`]: what a server does not take of it, and can be missed; `attempts`: how that is found in SQL
//! - `stages`: which of its parts is made when
//! - `feed`: a program that is fed with it
//! - [`origin`]: where a dump that is loaded comes from: a backup, or another server
//! - [`guarded`], `loader`: what of it runs code of a table's owner, and a login that has his rights and no others
//! - `parallel`, `queue`: who loads its tables and builds its indexes, and when
//! - [`leftovers`]: the databases that restores have replaced
//! - [`compare`]: a restored database against the manifest
//! - [`trial`]: restores a backup into a server made for that
//! - [`sample`]: whether the first rows of tables are taken
//! - [`newest`]: what is shown of the newest one
//! - [`status`], [`metrics`]: is all well? For people and for Prometheus

mod attempts;
pub mod catalogue;
pub mod classic;
pub mod companions;
pub mod compare;
pub mod create;
mod custom;
pub mod directory;
pub mod elsewhere;
mod encoding;
pub mod encryption;
pub mod engine;
mod feed;
pub mod file;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod globals;
pub mod guarded;
pub mod leftovers;
pub mod load;
mod loader;
pub mod making;
pub mod manifest;
pub mod metrics;
pub mod missing;
pub mod name;
pub mod newest;
pub mod offsite;
pub mod origin;
mod outage;
mod ownership;
mod parallel;
pub mod pgbackrest;
pub mod plan;
mod problems;
pub mod prune;
mod queue;
pub mod rclone;
pub mod read_back;
pub mod restore;
pub mod retention;
pub mod rows;
pub mod run;
pub mod sample;
pub mod scratch;
mod section;
pub mod source;
mod stages;
pub mod start;
pub mod status;
pub mod store;
pub mod target;
pub mod trial;
pub mod verify;
mod wrapping;

pub use self::wrapping::quoted;

use std::sync::Arc;

/// Where the backups are kept that the settings are about.
pub fn store_of(settings: &crate::config::Backup) -> Arc<dyn store::Store> {
    Arc::new(directory::Directory::new(&settings.directory))
}
