//! The packages of this tree, as `make deb` and `make rpm` leave them in `target/dist`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Machine;

const SOURCES: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", "Makefile", "src", "units", "docs/config.toml.example", "packaging/common"];

/// The newest .deb.
///
/// # Errors
/// A sentence, when there is none, or when what it is made of has changed since.
pub fn current() -> Result<PathBuf, String> {
    newest_of("deb")
}

/// The newest .rpm.
///
/// # Errors
/// As [`current`].
pub fn current_rpm() -> Result<PathBuf, String> {
    newest_of("rpm")
}

fn newest_of(kind: &str) -> Result<PathBuf, String> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(tree.join("target/dist")).into_iter().flatten().flatten();
    let packages = files
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension == kind));
    let Some((built, package)) = packages.map(|path| (changed(&path), path)).max() else {
        return Err(format!("there is no .{kind} in target/dist; make {kind} builds it"));
    };
    let own = format!("packaging/{kind}");
    match SOURCES.iter().chain([&own.as_str()]).map(|source| newest(&tree.join(source))).max() {
        Some(source) if source > built => {
            Err(format!("the .{kind} is older than its sources; make {kind} builds it"))
        }
        _ => Ok(package),
    }
}

/// Installs it, as an administrator would who has no network.
#[track_caller]
pub fn install(machine: &Machine) {
    install_this(machine, &current().expect("the package should be there"));
}

/// Installs this build.
#[track_caller]
pub fn install_this(machine: &Machine, package: &Path) {
    machine.copy_in(package, "/root/matrix-postgres.deb");
    machine.ok("DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet /root/matrix-postgres.deb 2>&1");
    // As versions before 2026-12 made it. It is on a file system of its own in a machine.
    machine.ok("test -d /matrix/postgres || install -d -o matrix-postgres -g matrix-postgres -m 0750 /matrix/postgres");
}

fn changed(path: &Path) -> SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn newest(path: &Path) -> SystemTime {
    match std::fs::read_dir(path) {
        Ok(entries) => {
            entries.flatten().map(|entry| newest(&entry.path())).max().unwrap_or(SystemTime::UNIX_EPOCH)
        }
        Err(_) => changed(path),
    }
}
