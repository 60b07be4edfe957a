//! Units over D-Bus, notification of the service manager, inhibition of a shutdown.
//!
//! All of D-Bus is in this room, and none of its types leaves it. The other rooms ask a [`Manager`] and
//! hold values that remember what has to be put back: [`Started`] stops what it started, [`Stopped`] starts
//! what it stopped. Both do so when they are dropped, too; whoever wants to know of a failure calls them.
//!
//! Failures are told apart as [`crate::Kind::NoUnit`], [`crate::Kind::UnitJob`],
//! [`crate::Kind::UnitRefused`] and [`crate::Kind::NoBus`].

mod bus;
mod inhibit;
mod job;
mod manager;
pub mod notify;
mod own;
mod started;
mod stopped;
mod timer;
mod unit;
mod verb;

pub use inhibit::Inhibitor;
pub use manager::Manager;
pub use own::{Shadowed, shadowed};
pub use started::Started;
pub use stopped::Stopped;
pub use timer::TimerState;
pub use unit::Unit;
