//! An upgrade of a copy, beside a homeserver that does not notice it.

use std::time::Instant;

use super::structure;
use crate::config::Depth;
use crate::error::Result;
use crate::postgres::Session;
use crate::report::Progress;
use crate::runtime::{interrupt, jobs};
use crate::systemd::notify;
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::methods::Stage;
use crate::upgrade::methods::online::unlogged::Unlogged;
use crate::upgrade::records::{Census, Rehearsal, Step};
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::copy::{self, Follower, Source};
use crate::upgrade::steps::cut::Cut;
use crate::upgrade::steps::servers::{Private, Sockets};
use crate::upgrade::steps::site::Site;

/// Times the steps, and looks closer than an upgrade, for which users wait.
pub(super) struct OnCopy<'a> {
    rehearsal: &'a mut Rehearsal,
    progress: &'a mut dyn Progress,
    depth: Depth,
    begun: Option<(Step, Instant)>,
    old: Option<Snapshot>,
}

impl<'a> OnCopy<'a> {
    pub(super) fn new(rehearsal: &'a mut Rehearsal, progress: &'a mut dyn Progress, depth: Depth) -> Self {
        Self { rehearsal, progress, depth, begun: None, old: None }
    }

    /// The step under way has ended; which one it was.
    pub(super) fn end(&mut self) -> Option<Step> {
        let (step, begun) = self.begun.take()?;
        let seconds = begun.elapsed().as_secs_f64();
        log::info!("{step}: {seconds:.1} s");
        match self.rehearsal.durations.iter_mut().find(|(known, _)| *known == step) {
            Some((_, sum)) => *sum += seconds,
            None => self.rehearsal.durations.push((step, seconds)),
        }
        Some(step)
    }
}

impl Stage for OnCopy<'_> {
    fn step(&mut self, step: Step) -> Result<()> {
        if let Some(before) = self.end() {
            step.require_after(before)?;
        }
        interrupt::check()?;
        self.begun = Some((step, Instant::now()));
        notify::status(&step.to_string());
        Ok(())
    }

    fn progress(&mut self) -> &mut dyn Progress {
        self.progress
    }

    fn cut(&mut self, site: &Site<'_>) -> Result<Cut> {
        Ok(Cut::Running { end: Source::of(site).end_of_log()? })
    }

    /// Of a server that goes on there is nothing to compare with: it is a copy that is dumped.
    fn cut_to_private<'a>(&mut self, site: &Site<'a>, sockets: &Sockets) -> Result<Private<'a>> {
        let Site { settings, plan, .. } = *site;
        let (source, copied_to) = (Source::of(site), plan.upgrade.copy()?);
        self.step(Step::Copying)?;
        let taken = copy::take(&source, copied_to, settings.upgrade.max_rate, plan.bytes, self.progress)?;
        self.step(Step::Following)?;
        let mut follower = Follower::start(&source, sockets, plan, taken)?;
        follower.catch_up(&source)?;
        cluster::sync_file_system(copied_to)?;
        let cut = self.cut(site)?;
        follower.prove(&source, plan, &cut)?;
        follower.promote()
    }

    fn counted(&mut self, _census: Option<Census>) {}

    fn examine_old(&mut self, old: &Session<'_>) -> Result<()> {
        let step = self.end();
        structure::check(old, self.rehearsal.from)?;
        self.old = Some(Snapshot::take(old, self.depth, jobs(), self.progress)?);
        step.map_or(Ok(()), |step| self.step(step))
    }

    fn examine_new(&mut self, new: &Session<'_>) -> Result<()> {
        let Some(old) = self.old.take() else { return Ok(()) };
        let step = self.end();
        Unlogged::empty(new)?;
        require_equal(&old, &Snapshot::take(new, self.depth, jobs(), self.progress)?)?;
        step.map_or(Ok(()), |step| self.step(step))
    }
}
