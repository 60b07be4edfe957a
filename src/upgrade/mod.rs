//! To the next major version.
//!
//! - [`facts`]: what there is, read without changing anything
//! - [`check`]: facts → blockers, warnings and facts, a value that prints itself
//! - [`units`]: what systemd says
//! - [`sessions`], [`sockets`]: who is connected
//! - [`choice`]: which method, and why
//! - [`plan`]: facts and settings → what will be done
//! - [`space`]: room on each file system
//! - [`run`]: from the first check to the exchange
//! - [`cluster`]: the new one, as initdb makes it
//! - [`servers`]: both clusters on private sockets
//! - [`dump`], [`transfer`]: method `dump`, and the way of the rows
//! - [`online`]: method `online`
//! - [`rehearsal`]: all of it on a copy, thrown away
//! - [`stage`]: clusters to try something out, and their end
//! - [`configuration`]: what the administrator has configured goes along
//! - [`compare`]: old against new
//! - [`exchange`]: two data directories change places
//! - [`finish`], [`keep`]: after the exchange
//! - [`login`]: who may log in to the new cluster until then
//! - [`back`]: to the old cluster
//! - [`kept`]: whether what is kept could take its place again
//! - [`rollback`]: back to it
//! - [`journal`], [`recover`]: after any death
//! - [`written`]: whether a return would lose anything
//! - [`status`]: where things stand
//! - [`subscriptions`]: those that are switched off afterwards
//! - [`leftovers`]: what may go

pub mod back;
pub mod check;
pub mod choice;
pub mod cluster;
pub mod compare;
pub mod configuration;
pub mod dump;
pub mod exchange;
pub mod facts;
pub mod finish;
pub mod journal;
pub mod keep;
pub mod kept;
pub mod leftovers;
pub mod login;
pub mod online;
pub mod plan;
pub mod recover;
pub mod rehearsal;
pub mod rollback;
pub mod run;
pub mod servers;
pub mod sessions;
pub mod sockets;
pub mod space;
mod stage;
pub mod status;
pub mod subscriptions;
pub mod transfer;
pub mod units;
pub mod work;
pub mod written;

pub use check::{Finding, Report, Weight, check};
pub use facts::Facts;
