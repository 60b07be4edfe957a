//! Where a method is carried out.

use crate::error::Result;
use crate::postgres::Session;
use crate::report::Progress;
use crate::upgrade::records::{Census, Compared, Step};
use crate::upgrade::steps::copy::{self, Follower, Source};
use crate::upgrade::steps::cut::Cut;
use crate::upgrade::steps::servers::{Private, Sockets};
use crate::upgrade::steps::site::Site;

/// Where a method is carried out: in earnest, with a journal; or beside a homeserver that does not notice it.
pub trait Stage {
    /// A step begins, and the one before has ended.
    ///
    /// # Errors
    /// Those of a journal: the step must not be taken then.
    fn step(&mut self, step: Step) -> Result<()>;

    /// Who is told.
    fn progress(&mut self) -> &mut dyn Progress;

    /// From here on nobody but us uses the old cluster.
    ///
    /// # Errors
    /// If somebody may still.
    fn cut(&mut self, site: &Site<'_>) -> Result<Cut>;

    /// The same, and a server on the old cluster, or on what stands for it, that only we reach.
    ///
    /// # Errors
    /// As [`Stage::cut`]; those of the server.
    fn cut_to_private<'a>(&mut self, site: &Site<'a>, sockets: &Sockets) -> Result<Private<'a>>;

    /// A copy of the cluster that follows it.
    ///
    /// # Errors
    /// Those of the copy; as [`Stage::step`].
    fn follow<'a>(
        &mut self,
        site: &Site<'a>,
        source: &Source<'a>,
        sockets: &Sockets,
    ) -> Result<Follower<'a>> {
        let Site { settings, plan, .. } = *site;
        self.step(Step::Copying)?;
        let rate = settings.upgrade.max_rate;
        let taken = copy::take(source, plan.upgrade.copy()?, rate, plan.bytes, self.progress())?;
        self.step(Step::Following)?;
        Follower::start(source, sockets, plan, taken)
    }

    /// What was counted in the new cluster.
    fn counted(&mut self, census: Option<Census>);

    /// How much of both clusters was compared, and is equal.
    fn compared(&mut self, compared: Compared);

    /// Looks closer at the old cluster, where nobody waits for it.
    ///
    /// # Errors
    /// If it is damaged.
    fn examine_old(&mut self, _old: &Session<'_>) -> Result<()> {
        Ok(())
    }

    /// Looks closer at the new one, which has passed what the upgrade asks of it.
    ///
    /// # Errors
    /// If it is not what the old one is.
    fn examine_new(&mut self, _new: &Session<'_>) -> Result<()> {
        Ok(())
    }
}
