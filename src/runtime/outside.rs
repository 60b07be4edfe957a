//! Looks at the machine as a whole: a unit that is confined sees neither all processes nor all networks, and lets a unit of
//! its own look.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::host::{bare, tool};
use super::limit::output_within;
use crate::error::{Error, Kind, Result};

/// What looks must not take longer; a machine under load takes its time to start it.
const PATIENCE: Duration = Duration::from_secs(60);

/// It does not outlive us for long.
const LIMIT: &str = "RuntimeMaxSec=50";

/// The one whose arguments these are, whoever asks.
const PROGRAM: &str = "matrix-postgres-upgrade";

/// `CAP_SYS_PTRACE` in capabilities(7).
const PTRACE: u32 = 19;

/// What `matrix-postgres-upgrade` prints when it is called with these arguments by a unit of its own, which has these
/// properties and the machine's view. Messages call it `name`. Only root may have that.
///
/// # Errors
/// [`Kind::Program`], [`Kind::NotInstalled`]: nothing is known then.
pub fn from_outside(arguments: Vec<OsString>, properties: &[&str], name: &str) -> Result<Vec<u8>> {
    // The server's name is a symbolic link to a file in the directory where the names of the other programs are.
    let program = std::env::current_exe()
        .map_err(|error| Error::new(Kind::Program, "it is not known which program this is").because(error))?
        .with_file_name(PROGRAM);
    let mut command = bare(&tool("systemd-run", "systemd")?);
    command.args(unit(&program, arguments, properties));
    output_within(command, name, Vec::new(), PATIENCE)
}

fn unit(program: &Path, arguments: Vec<OsString>, properties: &[&str]) -> Vec<OsString> {
    let properties =
        properties.iter().chain([&LIMIT]).map(|property| format!("--property={property}").into());
    ["--quiet", "--pipe", "--wait", "--collect"]
        .map(Into::into)
        .into_iter()
        .chain(properties)
        .chain(["--".into(), program.into()])
        .chain(arguments)
        .collect()
}

/// Whether every process lets us look at what it has open: root has the capability for that, unless a unit has taken it away.
pub fn sees_every_process(proc: &Path) -> bool {
    std::fs::read_to_string(proc.join("self/status")).is_ok_and(|status| may_trace(&status))
}

fn may_trace(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> PTRACE & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_look_is_that_of_a_unit_with_a_time_and_rights_of_its_own() {
        let program = Path::new("/usr/bin/matrix-postgres-upgrade");
        let text = unit(program, vec!["connections".into()], &["ProtectSystem=strict"]);
        let text = text.join(std::ffi::OsStr::new(" ")).into_string().unwrap();
        assert_eq!(
            text,
            "--quiet --pipe --wait --collect --property=ProtectSystem=strict --property=RuntimeMaxSec=50 \
             -- /usr/bin/matrix-postgres-upgrade connections"
        );
    }

    #[test]
    fn the_right_to_look_is_one_of_the_effective_capabilities() {
        assert!(may_trace("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        // As the server's unit starts it.
        assert!(!may_trace("CapEff:\t00000000000000eb\n"));
        assert!(!may_trace("CapEff:\t0000000000000000\n") && !may_trace(""));
    }
}
