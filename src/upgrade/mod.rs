//! To the next major version.
//!
//! From what is known to what is done; a room knows only the rooms above it:
//!
//! - [`records`]: what is written down
//! - [`configuration`]: what the administrator has configured goes along
//! - [`facts`]: what there is, read without changing anything
//! - [`plan`]: facts and settings → what will be done
//! - [`compare`]: old against new
//! - [`steps`]: what is done, without an order
//! - [`methods`]: how a new cluster is made
//! - [`check`]: facts → blockers, warnings and facts, a value that prints itself
//!
//! The verbs:
//!
//! - [`run`]: from the first check to the exchange
//! - [`finish`]: after the exchange
//! - [`revert`]: to the old cluster
//! - [`recover`]: after any death
//! - [`rehearsal`]: all of it on a copy, thrown away
//! - [`rollback`]: back to what is kept
//! - [`status`]: the state of upgrades; [`summary`] is the table of one
//! - [`leftovers`]: what may go

pub mod check;
pub mod compare;
pub mod configuration;
pub mod facts;
pub mod finish;
pub mod leftovers;
pub mod methods;
pub mod plan;
pub mod records;
pub mod recover;
pub mod rehearsal;
pub mod revert;
pub mod rollback;
pub mod run;
pub mod status;
pub mod steps;
pub mod summary;

pub use check::{Finding, Report, Weight, check};
pub use facts::Facts;
