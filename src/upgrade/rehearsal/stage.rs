//! An upgrade of a copy, beside a homeserver that does not notice it.

use super::structure;
use crate::config::Depth;
use crate::error::Result;
use crate::postgres::Session;
use crate::report::Progress;
use crate::runtime::{interrupt, jobs};
use crate::upgrade::compare::{Snapshot, require_equal};
use crate::upgrade::methods::Stage;
use crate::upgrade::methods::online::unlogged::Unlogged;
use crate::upgrade::records::{Census, Compared, Rehearsal, Step};
use crate::upgrade::steps::clock::Clock;
use crate::upgrade::steps::cluster;
use crate::upgrade::steps::copy::Source;
use crate::upgrade::steps::cut::Cut;
use crate::upgrade::steps::servers::{Private, Sockets};
use crate::upgrade::steps::site::Site;

/// Times the steps, and looks closer than an upgrade, for which users wait.
pub(super) struct OnCopy<'a> {
    rehearsal: &'a mut Rehearsal,
    progress: &'a mut dyn Progress,
    depth: Depth,
    clock: Clock,
    old: Option<Snapshot>,
}

impl<'a> OnCopy<'a> {
    pub(super) fn new(rehearsal: &'a mut Rehearsal, progress: &'a mut dyn Progress, depth: Depth) -> Self {
        Self { rehearsal, progress, depth, clock: Clock::default(), old: None }
    }

    /// The step under way has ended; which one it was.
    pub(super) fn end(&mut self) -> Option<Step> {
        let (step, seconds) = self.clock.end()?;
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
        self.clock.begin(step);
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
        let source = Source::of(site);
        let mut follower = self.follow(site, &source, sockets)?;
        follower.catch_up(&source)?;
        cluster::sync_file_system(site.plan.upgrade.copy()?)?;
        let cut = self.cut(site)?;
        follower.prove(&source, site.plan, &cut)?;
        follower.promote(|_| Ok(())).map(|(promoted, ())| promoted)
    }

    fn counted(&mut self, _census: Option<Census>) {}

    fn compared(&mut self, compared: Compared) {
        self.rehearsal.compared = Some(compared);
    }

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
        let new = Snapshot::take(new, self.depth, jobs(), self.progress)?;
        require_equal(&old, &new)?;
        self.compared(new.size());
        step.map_or(Ok(()), |step| self.step(step))
    }
}
