//! The steps of an upgrade, in their order.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What an upgrade does, in this order. Each is written down before it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The new cluster is made beside the old one; the homeserver runs.
    Preparing,
    /// Method `online`: the old cluster is copied; the homeserver runs.
    Copying,
    /// Method `online`: the copy follows the homeserver, and is looked at.
    Following,
    /// The units of clients are stopped.
    StoppingClients,
    /// The server is stopped.
    StoppingServer,
    /// Method `online`: the copy, which has everything, becomes a cluster of its own.
    Promoting,
    /// Method `online`: pg_upgrade makes the new cluster of it.
    Upgrading,
    /// Method `dump`: the databases are carried over.
    Transferring,
    /// Both clusters are compared.
    Comparing,
    /// The new cluster is written to the disk.
    Syncing,
    /// The two data directories change places.
    Exchanging,
    /// The server is started on the new one, and logged in to.
    StartingServer,
    /// The units of clients are started.
    StartingClients,
    /// Method `online`: what could wait is done: statistics, indexes of other collations, extensions; the homeserver runs.
    Tending,
    /// The stanza of pgBackRest becomes that of the new cluster; the homeserver runs.
    Archiving,
    /// The old data directory goes to where it is kept; the homeserver runs.
    Keeping,
    /// The old data directory goes back to its place.
    Returning,
    /// The server and the clients are started on the old one.
    Restarting,
}

impl Step {
    /// Whether nothing has been stopped yet.
    pub fn is_before_the_cut(self) -> bool {
        self < Self::StoppingClients
    }

    /// Whether the services are down meanwhile, of an upgrade that is not undone.
    pub fn is_downtime(self) -> bool {
        (Self::StoppingClients..=Self::StartingClients).contains(&self)
    }

    /// Seconds of those steps during which the services are down.
    pub fn downtime(durations: &[(Self, f64)]) -> f64 {
        let down = durations.iter().filter(|(step, _)| step.is_downtime());
        down.fold(0.0, |sum, (_, seconds)| sum + seconds)
    }

    /// Makes sure that it may come after `before`. Each may be taken once more, after a death.
    ///
    /// # Errors
    /// [`Kind::Bug`].
    pub fn require_after(self, before: Self) -> Result<()> {
        let may_follow = match self {
            // The way back may be taken from everywhere.
            Self::Returning | Self::Restarting => true,
            // A rollback begins with what leads to the present cluster again if it is cut off, and falls back to that.
            Self::StartingClients => !matches!(before, Self::Tending | Self::Archiving),
            _ => before <= self,
        };
        match may_follow {
            true => Ok(()),
            false => Err(Error::new(Kind::Bug, format!("{self:?} does not come after {before:?}"))),
        }
    }

    /// Whether the server must not be started by anybody else: nobody may write to a cluster that is copied, and
    /// there may be none in place.
    pub fn needs_the_server_down(self) -> bool {
        (Self::StoppingServer..=Self::Exchanging).contains(&self) || self == Self::Returning
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "preparing the new cluster",
            Self::StoppingClients => "stopping the services",
            Self::StoppingServer => "stopping the server",
            Self::Copying => "copying the cluster",
            Self::Following => "catching up by streaming replication",
            Self::Promoting => "promoting the copy",
            Self::Upgrading => "running pg_upgrade on the copy",
            Self::Transferring => "dumping and restoring databases",
            Self::Comparing => "comparing old and new cluster",
            Self::Syncing => "syncing the new cluster to disk",
            Self::Exchanging => "exchanging the data directories",
            Self::StartingServer => "starting the new server",
            Self::StartingClients => "starting the services",
            Self::Tending => "gathering statistics",
            Self::Archiving => "upgrading the stanza of pgBackRest",
            Self::Keeping => "moving the old data directory",
            Self::Returning => "reverting to the old data directory",
            Self::Restarting => "starting the server and the services on the old cluster",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_starts_the_server_while_there_may_be_none() {
        for step in [
            Step::StoppingServer,
            Step::Promoting,
            Step::Upgrading,
            Step::Transferring,
            Step::Exchanging,
            Step::Returning,
        ] {
            assert!(step.needs_the_server_down(), "{step}");
        }
        for step in
            [Step::Following, Step::StoppingClients, Step::StartingServer, Step::Tending, Step::Keeping]
        {
            assert!(!step.needs_the_server_down(), "{step}");
        }
    }

    #[test]
    fn no_step_is_taken_before_those_that_it_needs() {
        let may = |before: Step, step: Step| step.require_after(before).is_ok();
        assert!(may(Step::Preparing, Step::Copying) && may(Step::Preparing, Step::StoppingClients));
        assert!(may(Step::Copying, Step::Copying) && may(Step::Exchanging, Step::StartingServer));
        assert!(may(Step::Tending, Step::Returning) && may(Step::Returning, Step::Restarting));
        assert!(may(Step::Keeping, Step::StartingClients));
        assert!(!may(Step::Exchanging, Step::Syncing) && !may(Step::Restarting, Step::Exchanging));
        assert!(!may(Step::Tending, Step::StartingClients) && !may(Step::Keeping, Step::Tending));
        assert!(!may(Step::Archiving, Step::StartingClients) && !may(Step::Keeping, Step::Archiving));
    }
}
