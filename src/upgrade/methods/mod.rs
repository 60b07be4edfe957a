//! How a new cluster is made: by one text for the upgrade and for its rehearsal.
//!
//! - [`dump`]: pg_dump and pg_restore carry the databases over
//! - [`online`]: pg_upgrade makes it of a copy that follows the homeserver

pub mod dump;
pub mod online;
