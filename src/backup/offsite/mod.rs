//! Copies of the backups elsewhere: what the targets of `[[offsite]]` should have, and how it gets there.
//!
//! - [`machine`]: each machine's own directory in a target
//! - [`plan`]: what is sent, pure
//! - [`send`]: sends it
//! - [`record`]: what was there when a target was last reached
//! - [`state`]: what `status` makes of that

pub mod machine;
pub mod plan;
pub mod record;
pub mod send;
pub mod state;

use std::path::Path;
use std::sync::Arc;

use self::machine::Machine;
use super::elsewhere::Elsewhere;
use super::rclone::Rclone;
use crate::config::{Keep, Offsite, Settings, parse_remote};
use crate::error::{Error, Kind, Result};

/// A place elsewhere that backups are read from.
#[derive(Debug)]
pub struct Target {
    /// Those of one machine.
    pub store: Elsewhere,
    /// How many are to stay there; nothing if that is not known, or if none may be removed.
    pub keep: Option<Keep>,
    /// The directories of other machines there.
    pub others: Vec<String>,
}

/// The target that is configured under this name.
///
/// # Errors
/// [`Kind::Config`], with the names that there are.
pub fn find<'a>(settings: &'a Settings, name: &str) -> Result<&'a Offsite> {
    settings.offsite.iter().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<_> = settings.offsite.iter().map(|target| target.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Error::new(Kind::Config, format!("no target of [[offsite]] is called {name:?}; configured: {there}"))
            .state("nothing was started")
            .hint(
                "a target that is not configured is named as REMOTE:PATH, as in the configuration of rclone",
            )
    })
}

/// Opens what `at` names to read from it: a target of `[[offsite]]`, or a place as rclone has it, `remote:path`; of the machine
/// whose directory `host` names, by default of this one, or of the only one.
///
/// # Errors
/// [`Kind::Config`] if there are several, and others than this one; [`Kind::Offsite`].
pub fn open(
    settings: &Settings,
    rclone: Arc<Rclone>,
    at: &str,
    host: Option<&str>,
    this: &Machine,
) -> Result<Target> {
    let target = if at.contains(':') { None } else { Some(find(settings, at)?) };
    let remote = target.map_or_else(|| parse_remote(at), |target| Ok(target.remote.clone()))?;
    let mut others = machine::directories(&rclone.directories(Path::new(&remote))?);
    let chosen = match host {
        Some(host) => host.to_owned(),
        None => choose(&others, at, this)?,
    };
    if host.is_some() && !others.contains(&chosen) {
        return Err(Error::new(Kind::NoBackup, format!("no directory {chosen:?} in {at}"))
            .hint(format!("there are: {}", others.join(", "))));
    }
    let is_meant = host.is_some() || chosen == this.directory(&others);
    others.retain(|other| *other != chosen);
    let append_only = target.is_some_and(|target| target.append_only);
    let store = Elsewhere::new(rclone, within(&remote, &chosen).into(), append_only);
    Ok(Target { store, keep: keep_of(target, is_meant), others })
}

/// How many are to stay. What is configured here is about the backups of this machine: of those of another, which are there
/// alone, it removes none unless they were named.
fn keep_of(target: Option<&Offsite>, is_meant: bool) -> Option<Keep> {
    target.filter(|target| is_meant && !target.append_only).map(|target| target.keep)
}

/// The directory of this machine, the only one, or that which this machine would make.
fn choose(directories: &[String], at: &str, this: &Machine) -> Result<String> {
    let own = this.directory(directories);
    match directories {
        _ if directories.contains(&own) => Ok(own),
        [] => Ok(own),
        [only] => Ok(only.clone()),
        several => Err(Error::new(
            Kind::Config,
            format!("{at} has backups of several machines, and none of this one"),
        )
        .state("nothing was started")
        .hint(format!("choose one: --host {}", several.join(", --host ")))),
    }
}

/// A directory in a place as rclone has it: `remote:` is one, too.
fn within(remote: &str, directory: &str) -> String {
    match remote.ends_with([':', '/']) {
        true => format!("{remote}{directory}"),
        false => format!("{remote}/{directory}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_machine_is_meant_and_of_several_this_one() {
        let this = Machine::new("here", "0123456789abcdef0123456789abcdef\n");
        let own = this.directory(&[]);
        let choose = |directories: &[&str]| {
            let directories: Vec<_> = directories.iter().map(|one| (*one).to_owned()).collect();
            choose(&directories, "store", &this)
        };
        assert_eq!(choose(&[]).unwrap(), own);
        assert_eq!(choose(&["old-00000000"]).unwrap(), "old-00000000");
        assert_eq!(choose(&["old-00000000", &own]).unwrap(), own);
        let error = choose(&["a-00000000", "b-00000000"]).unwrap_err();
        assert_eq!(error.hint_text(), Some("choose one: --host a-00000000, --host b-00000000"));
    }

    #[test]
    fn of_another_machines_backups_none_is_removed_unless_they_are_named() {
        let keep = Keep { last: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
        let target = |append_only| Offsite {
            name: "store".into(),
            remote: "x:y".into(),
            append_only,
            max_delay: std::time::Duration::from_secs(60),
            keep,
        };
        assert_eq!(keep_of(Some(&target(false)), true), Some(keep));
        assert_eq!(keep_of(Some(&target(false)), false), None);
        assert_eq!(keep_of(Some(&target(true)), true), None);
        assert_eq!(keep_of(None, true), None);
    }

    #[test]
    fn a_directory_is_below_the_path_or_the_remote() {
        assert_eq!(within("x:y", "z"), "x:y/z");
        assert_eq!(within("x:", "z"), "x:z");
        assert_eq!(within("x:/", "z"), "x:/z");
    }
}
