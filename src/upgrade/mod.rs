//! A major upgrade: so far, whether one could be made.
//!
//! - [`facts`]: what there is, read without changing anything
//! - [`check`]: facts → blockers, warnings and facts, a value that prints itself
//! - [`configuration`]: the administrator's settings, rules and certificates, from one directory to another

pub mod check;
pub mod configuration;
pub mod facts;

pub use check::{Finding, Report, Weight, check};
pub use facts::{Facts, gather};
