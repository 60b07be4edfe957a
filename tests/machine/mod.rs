//! Throw-away machines: a real Debian with systemd, D-Bus, PostgreSQL 17, 15 and 13, on request 18 and 19, and Synapse,
//! booted in about a second, in which the package is installed and used as an administrator does.
//!
//! - [`image`]: what they start from, built once by `recipe.sh`
//! - [`boot`]: [`Machine`]: an overlay on it, booted; commands, power cuts
//! - [`package`]: the .deb of this tree, installed in a machine
//! - [`containers`]: servers in docker or podman, as the Ansible playbook for Matrix has them
//! - [`debian`]: a cluster of Debian's with the homeserver's database
//! - [`probe`]: a client from outside, which measures a downtime
//! - [`synapse`]: a homeserver on the packaged database, and people who talk on it
//! - [`upgrade`]: what upgrades start from, and what must be the case afterwards
//!
//! Tests, the demo and the benchmark share it.
#![allow(dead_code, unused_imports, reason = "not everybody who includes this uses all of it")]
#![allow(unreachable_pub, clippy::doc_markdown, clippy::missing_panics_doc)]

pub mod boot;
pub mod containers;
pub mod debian;
pub mod external;
pub mod image;
pub mod package;
pub mod probe;
pub mod synapse;
pub mod upgrade;

use std::io::Write as _;

pub use boot::{Machine, Output};
pub use image::Image;
pub use synapse::Synapse;

/// With this value of the variable `MATRIX_POSTGRES_TESTS`, no test may be left out.
const ALL: &str = "all";

/// Whether work is killed at every step of it (`KILLS=all`, as `make thorough` has it), and not only at those that matter most.
pub fn at_every_step() -> bool {
    std::env::var_os("KILLS").is_some_and(|value| value == ALL)
}

/// Where work is killed: of all instants those that matter most, and all of them with `KILLS=all`.
pub fn kills_among<T: Clone + PartialEq>(all: &[T], most: &[T]) -> Vec<T> {
    all.iter().filter(|instant| at_every_step() || most.contains(instant)).cloned().collect()
}

/// A machine with the package installed, for a test; nothing where the test is to be left out, which is said
/// on standard error. `MATRIX_POSTGRES_TESTS=all` makes that a failure.
#[track_caller]
pub fn for_test(name: &str) -> Option<Machine> {
    let machine = bare_for_test(name)?;
    package::install(&machine);
    Some(machine)
}

/// As [`for_test`], with a disk: see [`Machine::power_cut_to_disk`].
#[track_caller]
pub fn for_test_with_disk(name: &str) -> Option<Machine> {
    let machine = booted(name, Image::Usual, Machine::boot_with_disk)?;
    package::install(&machine);
    Some(machine)
}

/// As [`for_test`], with directories of the host: (path inside, path on the host).
#[track_caller]
pub fn for_test_with_binds(name: &str, binds: &[(&str, &std::path::Path)]) -> Option<Machine> {
    let machine = booted(name, Image::Usual, |name| Machine::boot_with(name, binds))?;
    package::install(&machine);
    Some(machine)
}

/// As [`for_test`], with PostgreSQL 18 and 19 and a newer systemd.
#[track_caller]
pub fn for_test_on_newer(name: &str) -> Option<Machine> {
    let machine = booted(name, Image::Newer, Machine::boot_newer)?;
    package::install(&machine);
    Some(machine)
}

/// As [`for_test`], without the package.
#[track_caller]
pub fn bare_for_test(name: &str) -> Option<Machine> {
    booted(name, Image::Usual, Machine::boot)
}

#[track_caller]
fn booted(name: &str, image: Image, boot: impl FnOnce(&str) -> std::io::Result<Machine>) -> Option<Machine> {
    let all = std::env::var_os("MATRIX_POSTGRES_TESTS").is_some_and(|value| value == ALL);
    if let Err(reason) = possible(image, all) {
        assert!(!all, "{name} cannot be tested: {reason}");
        // Not eprintln!, which the test harness swallows.
        let _ = writeln!(std::io::stderr(), "left out: {name}: {reason}");
        return None;
    }
    Some(boot(name).expect("the machine should boot"))
}

fn possible(image: Image, all: bool) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("machines need root".into());
    }
    if !all && !image.is_built() {
        return Err("what the machine starts from is not built; make test does that".into());
    }
    package::current().map(drop)
}
