//! A major upgrade: so far, whether one could be made.
//!
//! - [`facts`]: what there is, read without changing anything
//! - [`check`]: facts → blockers, warnings and facts, a value that prints itself

pub mod check;
pub mod facts;

pub use check::{Finding, Report, Weight, check};
pub use facts::{Facts, gather};
