//! The root that every machine starts from, and the layer over it that some want: built once by `recipe.sh`, kept
//! outside the checkout under the hash of that recipe; and what other recipes make, likewise.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};

/// What they are made of.
const RECIPE: &str = include_str!("recipe.sh");

/// Where roots and machines are: `$XDG_CACHE_HOME/matrix-postgres`. Overlays of machines are in it, too,
/// so it must be on a real file system, and not on a tmpfs or another overlay.
pub fn cache() -> PathBuf {
    let home =
        || std::env::var_os("HOME").filter(|home| home != "/").map(|home| Path::new(&home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(|| "/var/cache".into())
        .join("matrix-postgres")
}

/// What a machine starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// PostgreSQL 17, 15 and 13, as far as its packages go.
    Usual,
    /// PostgreSQL 18 and 19, too, and systemd 262.
    Newer,
}

impl Image {
    /// The directories that are laid over each other, the uppermost first, whether they are built or not.
    pub fn layers(self) -> Vec<PathBuf> {
        match self {
            Self::Usual => vec![named("root", RECIPE)],
            Self::Newer => vec![named("newer", RECIPE), named("root", RECIPE)],
        }
    }

    /// Whether it has been built.
    pub fn is_built(self) -> bool {
        self.layers().iter().all(|layer| layer.is_dir())
    }

    /// Builds what is not there of it; the lowest layer comes first. Of two who come at once, one waits.
    ///
    /// # Errors
    /// When the recipe fails; its output has gone to standard error.
    pub fn build(self) -> io::Result<()> {
        let mut layers = self.layers();
        layers.reverse();
        for (at, layer) in layers.iter().enumerate() {
            let duration = if at == 0 { "2 minutes" } else { "50 seconds" };
            build(layer, RECIPE, &layers[..at], duration)?;
        }
        Ok(())
    }
}

/// The directory that a recipe of its own makes, which is built if it is not there; its name begins so.
///
/// # Errors
/// When the recipe fails; its output has gone to standard error.
pub fn made_by(recipe: &str, name: &str, duration: &str) -> io::Result<PathBuf> {
    let directory = named(name, recipe);
    build(&directory, recipe, &[], duration)?;
    Ok(directory)
}

fn named(what: &str, recipe: &str) -> PathBuf {
    cache().join(format!("{what}-{:08x}", crc32fast::hash(recipe.as_bytes())))
}

/// Runs the recipe for one directory, unless it is there, with those below it as arguments before it. It appears whole or
/// not at all. Of two who come at once, one waits.
fn build(directory: &Path, recipe: &str, below: &[PathBuf], duration: &str) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let cache = cache();
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("root.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    if directory.is_dir() {
        return Ok(());
    }
    eprintln!("building the machines' {}, once, about {duration}", directory.display());
    let begun = Instant::now();
    let partial = directory.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    let script = tempfile::Builder::new().suffix(".sh").tempfile()?;
    std::fs::write(script.path(), recipe)?;
    // What it mounts is gone with it. Standard output is for whoever started us; all of the recipe's is progress.
    let status = Command::new("unshare")
        .args(["--mount", "bash"])
        .arg(script.path())
        .args(below)
        .arg(&partial)
        .stdout(io::stderr())
        .status()?;
    if !status.success() {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(io::Error::other(format!("{} was not built: {status}", directory.display())));
    }
    std::fs::rename(&partial, directory)?;
    eprintln!("it was built in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}
