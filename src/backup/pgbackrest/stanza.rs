//! The stanza follows the cluster: after an upgrade of PostgreSQL it is that of the new one, after the way back that of the old one.
//!
//! Until then pgBackRest refuses the WAL of the cluster that is in place, whose server keeps it: pgBackRest reads in each segment
//! which cluster it is of. A cluster that was upgraded and is back gets another number in the stanza; what was backed up and
//! archived before can still be restored, but no backup that is made later depends on it.

use std::path::PathBuf;

use super::configuration;
use super::info::Stanza;
use super::program::Program;
pub use super::refusal::AGAIN;
use super::refusal::missing;
use super::setup::{self, Facts, Step};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Session, account_of};
use crate::runtime::Runtime;

/// Makes the stanza that of the cluster whose server runs. Done again, it finds nothing to do. The caller holds the lock.
///
/// # Errors
/// [`Kind::Config`] if there is no stanza, or if the server archives to others; [`Kind::NotInstalled`], [`Kind::Program`],
/// [`Kind::Server`], [`Kind::File`].
pub fn follow(settings: &Settings, runtime: &dyn Runtime) -> Result<()> {
    let (facts, program) = setup::gather(settings, runtime, settings.backup.engine, true)?;
    let owner = account_of(&settings.data_directory, &settings.server.user).ok_or_else(|| {
        Error::new(
            Kind::DataDirectory,
            format!("the owner of {} is not known", settings.data_directory.display()),
        )
    })?;
    let connection = settings.connection();
    let session = Session::newest(runtime, &connection);
    for step in plan(&facts, settings)? {
        setup::carry_out_step(settings, &session, &program, &step, &owner)?;
        match step {
            Step::Write(file, _) => log::info!("{} names the cluster in place", file.display()),
            _ => {
                log::info!(
                    "the stanza {:?} of pgBackRest is of the cluster in place",
                    settings.backup.stanza
                );
            }
        }
    }
    Ok(())
}

/// What is missing: at most pgBackRest's knowledge where the cluster is, and which.
fn plan(facts: &Facts, settings: &Settings) -> Result<Vec<Step>> {
    setup::require_free(facts)?;
    let Facts { stanza, server, .. } = facts;
    // That of a disk that is not there would be made anew in the wrong place.
    if !stanza.exists() {
        return Err(missing(facts.expected.as_ref()));
    }
    let mut steps: Vec<_> =
        moved(facts, settings).map(|(file, text)| Step::Write(file, text)).into_iter().collect();
    if !stanza.is_of(server) {
        steps.push(Step::UpgradeStanza);
    }
    Ok(steps)
}

/// The file that says where the cluster is, if it says something else. What else it says is not touched otherwise.
fn moved(facts: &Facts, settings: &Settings) -> Option<(PathBuf, String)> {
    let (file, text, now) = facts.files.iter().find(|(file, _, _)| *file == configuration::file(settings))?;
    let place = configuration::place(settings);
    let is_there = now.as_ref().is_some_and(|now| now.lines().any(|line| line == place));
    (!is_there).then(|| (file.clone(), text.clone()))
}

/// Whether pgBackRest has no backup yet of the cluster that is in place.
///
/// # Errors
/// [`Kind::NotInstalled`], [`Kind::Program`].
pub fn is_without_backup(settings: &Settings) -> Result<bool> {
    let owner = account_of(&settings.data_directory, &settings.server.user);
    let stanza = Program::find(&settings.backup, owner)?.info(&settings.backup.repository)?;
    Ok(lacks_backup(&stanza))
}

fn lacks_backup(stanza: &Stanza) -> bool {
    stanza.unreadable().is_none()
        && stanza.present().is_some()
        && stanza.backups_of_present().next().is_none()
}

#[cfg(test)]
mod tests {
    use super::super::info::tests::{NEW, OLD, server, stanza_of};
    use super::super::setup::tests::done;
    use super::*;
    use crate::config::Fragment;

    fn settings() -> Settings {
        Settings::from_fragment(Fragment::default()).unwrap()
    }

    #[test]
    fn nothing_but_the_stanza_and_the_place_of_the_cluster_changes() {
        let settings = settings();
        assert_eq!(plan(&done(), &settings).unwrap(), []);
        let mut upgraded = done();
        (upgraded.server, upgraded.upgrades) = (server("1"), true);
        assert_eq!(plan(&upgraded, &settings).unwrap(), [Step::UpgradeStanza]);
        // Of Debian's, the new cluster is elsewhere.
        let wanted = format!("[x]\n{}\n", configuration::place(&settings));
        let file = configuration::file(&settings);
        upgraded.files = vec![(file.clone(), wanted.clone(), Some("[x]\npg1-path=/old\n".to_owned()))];
        assert_eq!(
            plan(&upgraded, &settings).unwrap(),
            [Step::Write(file.clone(), wanted.clone()), Step::UpgradeStanza]
        );
        let with_more = Some(format!("{wanted}process-max=4\n"));
        upgraded.files = vec![(file, wanted, with_more)];
        assert_eq!(plan(&upgraded, &settings).unwrap(), [Step::UpgradeStanza]);
        // The server is not restarted, whatever it does.
        upgraded.archiving.mode = "off".into();
        assert_eq!(plan(&upgraded, &settings).unwrap(), [Step::UpgradeStanza]);
    }

    #[test]
    fn a_stanza_that_is_not_there_is_not_made() {
        let mut facts = done();
        facts.stanza.status.code = 1;
        assert!(plan(&facts, &settings()).unwrap_err().to_string().contains("does not exist"));
        facts.stanza.status.code = 99;
        assert_eq!(plan(&facts, &settings()).unwrap_err().kind(), Kind::File);
    }

    #[test]
    fn after_an_upgrade_there_is_no_backup() {
        assert!(lacks_backup(&stanza_of(NEW)) && !lacks_backup(&stanza_of(OLD)));
        let mut missing = stanza_of(NEW);
        missing.db.clear();
        assert!(!lacks_backup(&missing));
    }
}
