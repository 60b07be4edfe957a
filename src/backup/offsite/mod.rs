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
    let (remote, keep, append_only) = if at.contains(':') {
        (parse_remote(at)?, None, false)
    } else {
        let target = find(settings, at)?;
        (target.remote.clone(), Some(target.keep), target.append_only)
    };
    let mut others = machine::directories(&rclone.directories(Path::new(&remote))?);
    let chosen = match host {
        Some(host) => host.to_owned(),
        None => choose(&others, at, this)?,
    };
    if host.is_some() && !others.contains(&chosen) {
        return Err(Error::new(Kind::NoBackup, format!("no directory {chosen:?} in {at}"))
            .hint(format!("there are: {}", others.join(", "))));
    }
    others.retain(|other| *other != chosen);
    let store = Elsewhere::new(rclone, within(&remote, &chosen).into(), append_only);
    Ok(Target { store, keep: keep.filter(|_| !append_only), others })
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
    fn a_directory_is_below_the_path_or_the_remote() {
        assert_eq!(within("x:y", "z"), "x:y/z");
        assert_eq!(within("x:", "z"), "x:z");
        assert_eq!(within("x:/", "z"), "x:/z");
    }
}
