//! pg_upgrade makes the new cluster of the copy.

use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_upgrade::{self, Cluster, Mode};
use crate::postgres::{self, Major, Purpose, Session, stamps, without_verifiers};
use crate::runtime::{AsUser, Runtime, Sandbox, jobs, run_and_quote};
use crate::upgrade::methods::online::logs::Logs;
use crate::upgrade::plan::Plan;
use crate::upgrade::records::{Upgrade, Which};
use crate::upgrade::steps::servers::{Private, Side, Sockets};

/// What pg_upgrade works with.
pub struct Conversion<'a> {
    /// Where PostgreSQL's programs run.
    pub runtime: &'a dyn Runtime,
    /// The cluster's owner.
    pub account: &'a Account,
    /// Where its servers' sockets and login rules are.
    pub sockets: &'a Sockets,
    /// What is done.
    pub plan: &'a Plan,
    /// Where its logs are kept if it fails; nowhere if that is not set.
    pub logs: Option<PathBuf>,
}

impl Conversion<'_> {
    /// Asks whether it would go, while a server runs on the old cluster, or on a copy of that: in this directory, with this port.
    ///
    /// # Errors
    /// [`Kind::NotWell`] with its words.
    pub fn check(&self, old: (&Path, u16)) -> Result<()> {
        // Where the live server's socket is, its postmaster.pid says; this is for the new one's.
        self.call(Mode::Check, old, self.sockets.directory_of_owner(), &[]).map_err(|error| {
            let error = if error.kind() == Kind::Program { error.with_kind(Kind::NotWell) } else { error };
            error
                .context("pg_upgrade --check failed")
                .hint("matrix-postgres-upgrade check shows which method is possible")
        })
    }

    /// The databases whose columns bear stamps that the new version, of an older minor version than the old, does not know.
    /// pg_upgrade would fail on them half-way.
    ///
    /// # Errors
    /// [`Kind::Server`] if one of the servers cannot be asked.
    pub fn stamped(&self, live: &Session<'_>) -> Result<Vec<String>> {
        let mut stamped = Vec::new();
        for database in postgres::databases(live)? {
            if stamps::are_in(live, &database.name)? {
                stamped.push(database.name);
            }
        }
        if stamped.is_empty() {
            return Ok(stamped);
        }
        let Upgrade { to, beside, .. } = &self.plan.upgrade;
        let new = (Side::New, beside.as_path(), *to);
        let new = Private::start(self.runtime, self.account, self.sockets, self.plan, new)?;
        if stamps::are_known(&new.session())? {
            stamped.clear();
        }
        new.stop().map(|()| stamped)
    }

    /// Makes the new cluster of the copy. Neither of them may run, and the copy is of no use afterwards.
    ///
    /// # Errors
    /// [`Kind::Program`] with its words.
    pub fn carry_out(&self) -> Result<()> {
        let Plan { libraries, upgrade, .. } = self.plan;
        let copy = upgrade.copy()?;
        let startup = self.sockets.startup(Purpose::ConvertedFrom, upgrade.from, libraries);
        let place = format!("data_directory={}", copy.display());
        let startup = startup.with([place]).with(upgrade.configured_by(Which::Old));
        let old = (copy, PORT);
        self.call(Mode::Share, old, self.sockets.directory_of_owner(), startup.settings())
    }

    fn call(
        &self,
        mode: Mode,
        (data_directory, port): (&Path, u16),
        sockets: &Path,
        settings: &[String],
    ) -> Result<()> {
        let Plan { initialisation, upgrade: Upgrade { from, to, beside, .. }, .. } = self.plan;
        let (old_programs, new_programs) = (self.programs(*from)?, self.programs(*to)?);
        let old = Cluster { major: *from, programs: &old_programs, data_directory, port, settings };
        let startup = self.sockets.startup(Purpose::ConvertedTo, *to, &self.plan.libraries);
        let configured = self.plan.upgrade.configured_by(Which::New);
        // The file names the place where it will be.
        let place = configured.is_some().then(|| format!("data_directory={}", beside.display()));
        let startup = startup.with(configured).with(place);
        let new = Cluster {
            major: *to,
            programs: &new_programs,
            data_directory: beside,
            port: PORT + 1,
            settings: startup.settings(),
        };
        let call = pg_upgrade::call(mode, old, new, &initialisation.superuser, sockets, jobs());
        let mut command = AsUser { runtime: self.runtime, account: self.account }.command(*to, &call)?;
        command.current_dir(self.sockets.directory_of_owner());
        // It starts both servers, by a shell.
        let sandbox = Sandbox::of_programs([old_programs, new_programs])
            .with_shell()
            .with_cluster(data_directory)
            .with_cluster(beside)
            .with_directory(self.sockets.directory_of_owner());
        sandbox.within(|| run_and_quote(command, "pg_upgrade")).map_err(|error| self.explain(error))
    }

    /// With the reason from its logs, which are kept: those in the new cluster are gone when that is.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != Kind::Program {
            return error;
        }
        let said = error.cause();
        // Since 15 in the new cluster, before that where it works.
        let written = self.plan.upgrade.beside.join("pg_upgrade_output.d");
        let logs = Logs::find(self.account, &[&written, self.sockets.directory_of_owner()]);
        let mut lines = failures(&without_verifiers(&said), &self.plan.upgrade.beside);
        lines.extend(logs.reasons());
        if let Some(place) = self.logs.as_ref().filter(|_| !logs.is_empty()) {
            match logs.keep(place) {
                Ok(()) => lines.push(format!("its logs are kept in {}", place.display())),
                Err(error) => log::warn!("{}", error.report()),
            }
        }
        Error::new(error.kind(), error.to_string()).because(lines.join("\n"))
    }

    fn programs(&self, major: Major) -> Result<PathBuf> {
        self.runtime.programs(major).ok_or_else(|| {
            Error::new(
                Kind::NotInstalled,
                format!("pg_upgrade cannot use the programs of PostgreSQL {major}"),
            )
        })
    }
}

/// Of the socket's name, where nobody else listens.
const PORT: u16 = 50432;

/// Of what it says by and by, what is neither well nor about files that will be gone.
fn failures(said: &str, beside: &Path) -> Vec<String> {
    let gone = beside.display().to_string();
    let is_of_use = |line: &&str| {
        let is_well = line.ends_with(" ok") || line.starts_with("---") || line.starts_with("Performing ");
        let is_lost = line.contains(&gone)
            || *line == "Failure, exiting"
            || line.ends_with(" is in the file:")
            || line.starts_with("Consult the last ")
            || *line == "the probable cause of the failure.";
        !line.is_empty() && !is_well && !is_lost
    };
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    said.lines().map(str::trim).filter(is_of_use).map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_well_and_what_is_gone_is_not_told() {
        let said = "Performing Consistency Checks\n-----------------------------\n\
            Checking for aclitem data type in user tables                 fatal\n\
            Checking cluster versions                                     ok\n\n\
            Your installation contains the \"aclitem\" data type in user tables.\n\
            A list of the problem columns is in the file:\n    /d/data.upgrade-x/pg_upgrade_output.d/a/t.txt\n\
            Consult the last few lines of \"/d/data.upgrade-x/log\" for\nthe probable cause of the failure.";
        assert_eq!(
            failures(said, Path::new("/d/data.upgrade-x")),
            [
                "Checking for aclitem data type in user tables fatal",
                "Your installation contains the \"aclitem\" data type in user tables.",
            ]
        );
    }
}
