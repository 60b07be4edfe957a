//! What an upgrade writes down, for itself and for whoever comes after it.
//!
//! - [`upgrade`]: which one, as its plan decides; [`registered`] is what it has of Debian's,
//!   [`container`] what it has of a playbook's
//! - [`journal`]: what is about to be done, before it is; [`entry`] and [`step`] are what it says
//! - [`census`]: what was counted in the new cluster
//! - [`compared`]: how much was compared
//! - [`rehearsal`]: what the latest one has shown
//! - [`names`]: of the directories of an upgrade

pub mod census;
pub mod compared;
pub mod container;
pub mod entry;
pub mod journal;
pub mod names;
pub mod registered;
pub mod rehearsal;
pub mod step;
pub mod upgrade;

pub use census::{Census, Counters};
pub use compared::Compared;
pub use container::Container;
pub use entry::{Ended, Entry, Opened, Outcome, Position};
pub use journal::Journal;
pub(in crate::upgrade) use names::{moved, named_after};
pub use registered::Registered;
pub use rehearsal::{Aim, Rehearsal};
pub use step::Step;
pub use upgrade::{Upgrade, Which};
