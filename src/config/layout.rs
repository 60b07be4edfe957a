//! Where a cluster of ours is when no configuration says so.

use std::path::Path;

/// Of a playbook, and of this package before.
const MATRIX: &str = "/matrix/postgres";

/// Written when a cluster is made; in the middle of an exchange, the data directory may have no name for an instant.
const BLOCK: &str = "/var/lib/matrix-postgres/synapse-database.yaml";

/// One of the two places that the package has used.
///
/// What is there decides, each time: an installation stays where it is, whatever is made in the other place later.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `/var/lib/matrix-postgres`: since 2026-12 (Debian Policy 9.1.1, Filesystem Hierarchy Standard).
    #[default]
    State,
    /// [`MATRIX`].
    Matrix,
}

impl Layout {
    /// Looks below `root`. A cluster in the one place is not left for an empty directory in the other.
    pub fn of(root: &Path) -> Self {
        let is_there = |path: &str| root.join(path.trim_start_matches('/')).exists();
        let is_used = [Self::State.data_directory(), BLOCK].into_iter().any(is_there);
        match is_there(MATRIX) && !is_used {
            true => Self::Matrix,
            false => Self::State,
        }
    }

    /// Default of `data_directory`.
    pub const fn data_directory(self) -> &'static str {
        match self {
            Self::State => "/var/lib/matrix-postgres/data",
            Self::Matrix => "/matrix/postgres/data",
        }
    }

    /// Default of `upgrade.keep_path`, on the same file system in both.
    pub const fn keep_path(self) -> &'static str {
        match self {
            Self::State => "/var/lib/matrix-postgres/auto-upgrade-backup",
            Self::Matrix => "/matrix/postgres-auto-upgrade-backup",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_where_it_is() {
        let layout = |there: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            for path in there {
                std::fs::create_dir_all(root.path().join(path)).unwrap();
            }
            Layout::of(root.path())
        };
        assert_eq!(layout(&[]), Layout::State);
        assert_eq!(layout(&["matrix", "var/lib/matrix-postgres"]), Layout::State);
        assert_eq!(layout(&["matrix/postgres", "var/lib/matrix-postgres"]), Layout::Matrix);
        assert_eq!(layout(&["matrix/postgres/data"]), Layout::Matrix);
        // A playbook that came later.
        assert_eq!(layout(&["matrix/postgres/data", "var/lib/matrix-postgres/data"]), Layout::State);
    }
}
