//! pg_upgrade makes the new cluster of the copy.

use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::files::beneath;
use crate::postgres::pg_upgrade::{self, Cluster, Mode};
use crate::postgres::{self, Connection, Major, Purpose, Session, stamps};
use crate::runtime::{AsUser, Runtime, Sandbox, run_and_quote};
use crate::upgrade::plan::Plan;
use crate::upgrade::servers::{Private, Side, Sockets};
use crate::upgrade::transfer::jobs;

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
}

/// How much of each of its log files is quoted.
const LAST_LINES: usize = 15;

impl Conversion<'_> {
    /// Asks whether it would go, while the old server runs, on `live`.
    ///
    /// # Errors
    /// [`Kind::NotWell`] with its words.
    pub fn check(&self, live: &Connection) -> Result<()> {
        let old = (self.plan.data_directory.as_path(), live.port);
        // Where the live server's socket is, its postmaster.pid says; this is for the new one's.
        self.call(Mode::Check, old, self.sockets.directory_of_owner(), &[]).map_err(|error| {
            let error = if error.kind() == Kind::Program { error.with_kind(Kind::NotWell) } else { error };
            error
                .context("pg_upgrade would not take this cluster")
                .hint("matrix-postgres-upgrade run --method dump takes what pg_dump can read")
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
        let Plan { to, beside, .. } = self.plan;
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
        let Plan { from, copy, libraries, .. } = self.plan;
        let startup = self.sockets.startup(Purpose::ConvertedFrom, *from, libraries);
        let startup = startup.with([format!("data_directory={}", copy.display())]);
        let old = (copy.as_path(), PORT);
        self.call(Mode::Share, old, self.sockets.directory_of_owner(), startup.settings())
    }

    fn call(
        &self,
        mode: Mode,
        (data_directory, port): (&Path, u16),
        sockets: &Path,
        settings: &[String],
    ) -> Result<()> {
        let Plan { from, to, beside, initialisation, .. } = self.plan;
        let (old_programs, new_programs) = (self.programs(*from)?, self.programs(*to)?);
        let old = Cluster { major: *from, programs: &old_programs, data_directory, port, settings };
        let startup = self.sockets.startup(Purpose::ConvertedTo, *to, &self.plan.libraries);
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
        sandbox.within(|| run_and_quote(command, "pg_upgrade")).map_err(|error| match self.logs() {
            text if text.is_empty() => error,
            text => {
                log::error!("{text}");
                error
            }
        })
    }

    fn programs(&self, major: Major) -> Result<PathBuf> {
        self.runtime.programs(major).ok_or_else(|| {
            Error::new(
                Kind::NotInstalled,
                format!("the programs of PostgreSQL {major} cannot be called by pg_upgrade"),
            )
        })
    }

    /// The last words of the files that it leaves when it fails: since 15 in the new cluster, before that where it works.
    fn logs(&self) -> String {
        let found = self.account.with_files(|| {
            let mut files = Vec::new();
            for directory in
                [&self.plan.beside.join("pg_upgrade_output.d"), self.sockets.directory_of_owner()]
            {
                collect(directory, &mut files, DEEPEST);
            }
            let text = |file: PathBuf| {
                let text = beneath::read(&file, LONGEST_LOG).ok()?;
                Some((file, String::from_utf8_lossy(&text).into_owned()))
            };
            Ok(files.into_iter().filter_map(text).collect::<Vec<_>>())
        });
        let texts = found.unwrap_or_default().into_iter();
        let quoted = texts.filter(|(_, text)| !text.trim().is_empty()).map(|(file, text)| {
            let lines: Vec<_> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            format!("{}:\n{last}", file.display())
        });
        quoted.collect::<Vec<_>>().join("\n")
    }
}

/// Of the socket's name, where nobody else listens.
const PORT: u16 = 50432;

/// pg_upgrade's are two directories deep, and few.
const DEEPEST: usize = 4;
const MOST_LOGS: usize = 100;
const LONGEST_LOG: u64 = 16 << 20;

fn collect(directory: &Path, files: &mut Vec<PathBuf>, deeper: usize) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        // Not what a link leads to.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if files.len() >= MOST_LOGS {
            return;
        } else if is_directory && deeper > 0 {
            collect(&path, files, deeper - 1);
        } else if path.extension().is_some_and(|extension| extension == "log" || extension == "txt") {
            files.push(path);
        }
    }
}
