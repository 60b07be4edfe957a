//! The other engine: pgBackRest, which copies the cluster's files, what has changed of them, and the WAL.
//!
//! - [`program`]: what pgbackrest(1) is told
//! - [`info`]: what it says of a stanza
//! - [`archive`]: what the server says of archiving, and what is missing in the archive
//! - [`configuration`]: its file in [`program::DIRECTORY`]
//! - [`setup`]: the stanza, and a server that archives
//! - [`record`]: which backups were verified
//! - [`contents`]: what the databases held
//! - [`refusal`]: what is refused
//! - `replay`: a server that replays its WAL
//! - [`restore`]: the cluster as it was at a time
//! - [`run`]: a backup, verified
//! - [`stanza`]: it follows the cluster
//! - [`trial`]: a backup restored, compared, and thrown away
//! - [`status`]: is all well?

pub mod archive;
pub mod configuration;
pub mod contents;
pub mod info;
pub mod program;
pub mod record;
pub mod refusal;
mod replay;
pub mod restore;
pub mod run;
pub mod setup;
pub mod stanza;
pub mod status;
pub mod trial;
