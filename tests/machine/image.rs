//! The root that every machine starts from: built once by `recipe.sh`, kept outside the checkout under the
//! hash of that recipe.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};

/// What the root is made of.
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

/// Where the root of this recipe is, or will be.
pub fn path() -> PathBuf {
    cache().join(format!("root-{:08x}", crc32fast::hash(RECIPE.as_bytes())))
}

/// Whether it has been built.
pub fn is_built() -> bool {
    path().is_dir()
}

/// Builds the root unless it is there; returns where. Of two who come at once, one waits.
///
/// # Errors
/// When the recipe fails; its output has gone to standard error.
pub fn build() -> io::Result<PathBuf> {
    let (root, cache) = (path(), cache());
    if root.is_dir() {
        return Ok(root);
    }
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("root.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    if root.is_dir() {
        return Ok(root);
    }
    eprintln!("building the machine's root, once, about 2 minutes: {}", root.display());
    let begun = Instant::now();
    let partial = root.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    let recipe = tempfile::Builder::new().suffix(".sh").tempfile()?;
    std::fs::write(recipe.path(), RECIPE)?;
    // Standard output is for whoever started us; all of the recipe's is progress.
    let status = Command::new("bash").arg(recipe.path()).arg(&partial).stdout(io::stderr()).status()?;
    if !status.success() {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(io::Error::other(format!("tests/machine/recipe.sh failed: {status}")));
    }
    std::fs::rename(&partial, &root)?;
    eprintln!("the machine's root was built in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(root)
}
