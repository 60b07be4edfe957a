//! pg_upgrade(1): a cluster's files become those of another major version.

use std::ffi::OsString;
use std::path::Path;

use super::{Connection, Major};
use crate::runtime::{Argument, Call};

/// One of the two clusters.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// Its major version.
    pub major: Major,
    /// Where its programs are.
    pub programs: &'a Path,
    /// Its data directory.
    pub data_directory: &'a Path,
    /// The port of its socket's name.
    pub port: u16,
    /// Settings that its server is started with, which must need no quotes in a shell.
    pub settings: &'a [String],
}

/// What is done with the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: whether it could be done is looked at. The old server may run.
    Check,
    /// The old cluster's files become the new one's, too, and the old one must not be started any more. The result is
    /// not made to last where the program can be told so.
    Share,
}

/// A call for these two clusters whose bootstrap superuser is `superuser`; `sockets` is a directory of the caller's. Its
/// working directory must be writable: that is where it leaves scripts.
pub fn call(
    mode: Mode,
    old: Cluster<'_>,
    new: Cluster<'_>,
    superuser: &str,
    sockets: &Path,
    jobs: usize,
) -> Call {
    let mut call = Call::new("pg_upgrade", [format!("--jobs={jobs}"), format!("--username={superuser}")]);
    // For its own sessions, and for those of the programs that it calls, with both servers.
    let older = old.major.min(new.major);
    call.environment.push(("PGOPTIONS", Connection::options(Some(older)).into()));
    match mode {
        Mode::Check => call.arguments.push("--check".into()),
        Mode::Share => {
            // Since 18 whole directories are moved instead of linking file after file.
            let share = if new.major.0 >= 18 { "--swap" } else { "--link" };
            call.arguments.push(share.into());
            // Since 15; before, it writes to the disk by itself.
            call.arguments.extend((new.major.0 >= 15).then(|| "--no-sync".into()));
        }
    }
    for (which, data, cluster) in [("old", "--old-datadir=", old), ("new", "--new-datadir=", new)] {
        let mut programs = OsString::from(format!("--{which}-bindir="));
        programs.push(cluster.programs);
        call.arguments.push(programs.into());
        call.arguments.push(Argument::Path(data, cluster.data_directory.to_owned()));
        call.arguments.push(format!("--{which}-port={}", cluster.port).into());
        let settings: Vec<_> = cluster.settings.iter().map(|setting| format!("-c {setting}")).collect();
        if !settings.is_empty() {
            call.arguments.push(format!("--{which}-options={}", settings.join(" ")).into());
        }
    }
    call.arguments.push(Argument::Path("--socketdir=", sockets.to_owned()));
    call
}

/// Whether a path or a value goes through two shells as it is: `pg_upgrade` hands its servers' options to `pg_ctl`, and
/// that to a shell.
pub fn needs_no_quotes(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-=,@:+".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(mode: Mode, to: u16) -> String {
        let settings = ["hba_file=/s/hba".to_owned(), "ssl=off".to_owned()];
        let cluster = |major, programs, data_directory, settings| Cluster {
            major: Major(major),
            programs: Path::new(programs),
            data_directory: Path::new(data_directory),
            port: 5432,
            settings,
        };
        let old = cluster(15, "/p/15", "/copy", &settings[..]);
        let new = cluster(to, "/p/17", "/new", &[]);
        let call = call(mode, old, new, "postgres", Path::new("/s"), 2);
        let words: Vec<_> = call.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn a_check_changes_nothing() {
        assert_eq!(
            arguments(Mode::Check, 17),
            "--jobs=2 --username=postgres --check --old-bindir=/p/15 --old-datadir=/copy --old-port=5432 \
             --old-options=-c hba_file=/s/hba -c ssl=off --new-bindir=/p/17 --new-datadir=/new --new-port=5432 \
             --socketdir=/s"
        );
    }

    #[test]
    fn its_sessions_are_as_ours_with_both_servers() {
        let cluster = |major| Cluster {
            major: Major(major),
            programs: Path::new("/p"),
            data_directory: Path::new("/d"),
            port: 5432,
            settings: &[],
        };
        let call = call(Mode::Check, cluster(15), cluster(17), "postgres", Path::new("/s"), 2);
        assert_eq!(call.environment, [("PGOPTIONS", Connection::options(Some(Major(15))).into())]);
    }

    #[test]
    fn each_target_shares_files_its_own_way() {
        assert!(arguments(Mode::Share, 14).contains("--link --old-bindir"));
        assert!(arguments(Mode::Share, 17).contains("--link --no-sync --old-bindir"));
        assert!(arguments(Mode::Share, 18).contains("--swap --no-sync --old-bindir"));
    }

    #[test]
    fn what_a_shell_would_take_apart_is_known() {
        assert!(needs_no_quotes("/run/matrix-postgres-upgrade/pg_hba.conf"));
        assert!(!needs_no_quotes("/run/my server") && !needs_no_quotes("$x") && !needs_no_quotes("a'b"));
    }
}
