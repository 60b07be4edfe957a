//! How long a step takes.

use std::time::Instant;

use crate::systemd::notify;
use crate::upgrade::records::Step;

/// Of the step under way, if one is.
#[derive(Debug, Default)]
pub struct Clock(Option<(Step, Instant)>);

impl Clock {
    /// A step begins, and the service manager is told.
    pub fn begin(&mut self, step: Step) {
        self.0 = Some((step, Instant::now()));
        notify::status(&step.to_string());
    }

    /// The step under way has ended; which one it was, and its seconds.
    pub fn end(&mut self) -> Option<(Step, f64)> {
        let (step, begun) = self.0.take()?;
        let seconds = begun.elapsed().as_secs_f64();
        log::info!("{step}: {seconds:.1} s");
        Some((step, seconds))
    }
}
