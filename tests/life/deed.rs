//! What was done in a step, and whether what has come of it is in order.

use super::facts::{Facts, Failed};
use super::steps::Verb;
use crate::machine::Output;

/// What may have gone wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: nobody disturbed it.
    Undisturbed,
    /// Somebody killed it, who may have killed its unit, too.
    Killed,
    /// It may have failed, and says why: something else was wrong.
    Troubled,
    /// Nobody knows; what comes after a boot is undisturbed.
    CutOff,
}

/// A verb that was carried out.
#[derive(Debug)]
pub struct Deed {
    pub verb: Option<Verb>,
    pub fate: Fate,
    /// What it has said, and how it ended.
    pub output: Option<Output>,
    /// The backup that it restores.
    pub backup: Option<String>,
    /// The version that it goes to.
    pub target: u64,
}

const OUR_SIGNAL: i32 = 128 + 9;

impl Deed {
    pub fn nothing() -> Self {
        Self { verb: None, fate: Fate::Undisturbed, output: None, backup: None, target: 0 }
    }

    /// The backup that may have taken the place of what was written after it.
    pub fn restored_from(&self) -> Option<&str> {
        self.backup.as_deref().filter(|_| matches!(self.verb, Some(Verb::Restore(_))))
    }

    /// To its end.
    pub fn has_restored(&self) -> bool {
        let ended = self.output.as_ref().is_some_and(|output| output.status == 0);
        ended && matches!(self.verb, Some(Verb::Restore(_) | Verb::RestoreAs(_)))
    }

    pub fn goes_back(&self) -> bool {
        self.verb == Some(Verb::Rollback)
    }

    pub fn is_accounted_for(&self, before: &Facts, now: &Facts) -> Result<(), String> {
        for failed in &now.failed {
            self.excuse(failed)?;
        }
        let (Some(verb), Some(output)) = (self.verb, &self.output) else { return Ok(()) };
        let exchanged = now.restored().iter().any(|name| !before.databases.contains(*name));
        match output.status {
            0 => self.has_come_about(verb, before, now),
            OUR_SIGNAL if self.fate == Fate::Killed => Ok(()),
            _ if self.is_refused_rightly(verb, before) && output.stderr.contains("HINT:") && !exchanged => {
                Ok(())
            }
            _ if self.fate == Fate::Undisturbed => {
                let units: Vec<_> = now.failed.iter().map(|failed| failed.said.as_str()).collect();
                Err(format!(
                    "{} failed, and nobody disturbed it\n{output}\n{}",
                    name_of(verb),
                    units.join("\n")
                ))
            }
            // What a unit says was looked at above.
            _ if is_by_hand(verb) && !output.stderr.contains("HINT:") => {
                Err(format!("{} failed, and does not say why\n{output}", name_of(verb)))
            }
            _ if exchanged && !output.stderr.contains("in place") => Err(format!(
                "{} failed, and does not say that it has put the database in place\n{output}",
                name_of(verb)
            )),
            _ => Ok(()),
        }
    }

    /// The dump of a newer version is nothing for an older server.
    fn is_refused_rightly(&self, verb: Verb, before: &Facts) -> bool {
        let newer = self.backup.as_ref().and_then(|name| before.backups.get(name));
        matches!(verb, Verb::Restore(_) | Verb::RestoreAs(_))
            && newer.is_some_and(|backup| backup.major > before.major)
    }

    fn excuse(&self, failed: &Failed) -> Result<(), String> {
        let Failed { unit, result, said } = failed;
        let told = said.contains("HINT:");
        match self.fate {
            Fate::Killed if result == "signal" => Ok(()),
            Fate::Killed | Fate::Troubled if told => Ok(()),
            Fate::Killed | Fate::Troubled => {
                Err(format!("a unit has failed and does not say why\n{unit} ({result}):\n{said}"))
            }
            Fate::Undisturbed | Fate::CutOff => {
                Err(format!("a unit has failed, and nobody disturbed it\n{unit} ({result}):\n{said}"))
            }
        }
    }

    /// A verb that says so has done it.
    fn has_come_about(&self, verb: Verb, before: &Facts, now: &Facts) -> Result<(), String> {
        let newest = now.backups.iter().next_back();
        let rehearsal = &now.upgrade.answer["rehearsal"];
        let done = match verb {
            Verb::Backup | Verb::BackupByHand => {
                newest.is_some_and(|(name, backup)| !before.backups.contains_key(name) && backup.verified)
            }
            // A timer may have made another one meanwhile.
            Verb::Trial => {
                let newest = before.backups.keys().next_back();
                now.backups
                    .iter()
                    .any(|(name, backup)| newest <= Some(name) && backup.tried && backup.verified)
            }
            Verb::Verify => newest.is_some_and(|(_, backup)| backup.verified),
            Verb::Restore(_) => now.restored().iter().any(|name| !before.databases.contains(*name)),
            Verb::RestoreAs(_) => now.databases.iter().any(|name| name == "beside"),
            Verb::Rehearse => {
                *rehearsal != before.upgrade.answer["rehearsal"]
                    && rehearsal["problem"].is_null()
                    && rehearsal["from"] == now.major
                    && now.upgrade.words.contains(": succeeded; downtime")
            }
            Verb::Upgrade(..) | Verb::UpgradeByHand(..) => {
                now.major == self.target && now.upgrade.answer["latest"]["ended"]["outcome"] == "upgraded"
            }
            Verb::Rollback => {
                let kept = before.way_back().and_then(|path| before.clusters.get(path));
                kept.is_some_and(|version| *version == now.major.to_string())
            }
            // What goes is what `truths` has no objection to.
            Verb::Prune => true,
        };
        match done {
            true => Ok(()),
            false => Err(format!(
                "{} says that all went well, and it has not come about\nbefore: {:?}\nnow: {:?}\n{}",
                name_of(verb),
                before.backups,
                now.backups,
                now.upgrade
            )),
        }
    }
}

fn is_by_hand(verb: Verb) -> bool {
    !matches!(verb, Verb::Backup | Verb::Trial | Verb::Upgrade(..))
}

fn name_of(verb: Verb) -> &'static str {
    match verb {
        Verb::Backup | Verb::BackupByHand => "a backup",
        Verb::Trial => "a trial",
        Verb::Verify => "verify",
        Verb::Restore(_) => "a restore",
        Verb::RestoreAs(_) => "a restore beside",
        Verb::Rehearse => "a rehearsal",
        Verb::Upgrade(..) | Verb::UpgradeByHand(..) => "an upgrade",
        Verb::Rollback => "the way back",
        Verb::Prune => "prune",
    }
}
