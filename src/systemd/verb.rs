//! What is done to a unit, and whether a signal ends the wait for it.

use crate::error::Result;
use crate::runtime::interrupt;

/// What is done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// Whether a signal to this process ends the wait. Putting things back must not be cut short by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    UntilSignal,
    ToTheEnd,
}

impl Patience {
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::UntilSignal => interrupt::check(),
            Self::ToTheEnd => Ok(()),
        }
    }
}
