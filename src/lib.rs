//! `PostgreSQL` maintenance for Matrix homeservers, as systemd units.
//!
//! Readers gather facts and change nothing; a pure function turns facts, settings and the time into a
//! plan, a value that prints itself; an executor carries the plan out. The rooms, in the flow of data; each knows only
//! those above it (`tests/house.rs`):
//!
//! - [`error`]: one error type, with the exit status and the next command of every failure
//! - [`terminal`]: programs that must not reach ours
//! - [`account`]: system users
//! - [`files`]: files that must not be half there
//! - [`version`]: PostgreSQL's major versions
//! - [`yaml`]: the usual way to write it
//! - [`runtime`]: where PostgreSQL's programs run, and how a child process is watched
//! - [`postgres`]: what we know of a server and of its programs
//! - [`config`]: what the administrator wrote, made into settings
//! - [`sql`]: SQL that others wrote, taken apart
//! - [`systemd`]: units over D-Bus, notification, inhibition
//! - [`archive`]: the byte pipeline of a dump
//! - [`clients`]: who is connected to the server, and which units that is
//! - [`lock`]: one of backup, restore and upgrade at a time
//! - [`place`]: where the server is, ours or one that was there before
//! - [`report`]: progress, log, notices
//! - [`backup`]: create, list, read back, prune
//! - [`upgrade`]: to the next major version
//! - [`server`]: what `matrix-postgres.service` starts
//! - [`cli`]: the arguments of each binary, and what it prints
#![allow(clippy::doc_markdown)]

pub mod account;
pub mod archive;
pub mod backup;
pub mod cli;
pub mod clients;
pub mod config;
pub mod error;
pub mod files;
pub mod lock;
pub mod place;
pub mod postgres;
pub mod report;
pub mod runtime;
pub mod server;
pub mod sql;
pub mod systemd;
pub mod terminal;
pub mod upgrade;
pub mod version;
pub mod yaml;

pub use error::{Error, Kind, Result};
