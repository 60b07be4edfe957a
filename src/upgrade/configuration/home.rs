//! Where the files of a configuration are: in the data directory, or, of a cluster of Debian's, most of them in a directory of
//! their own.

use std::path::{Component, Path, PathBuf};

/// What the names of files in the data directory begin with, where the others are elsewhere.
const IN_DATA: &str = "@data";

/// Two directories, which are one unless the package has them apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Home {
    files: PathBuf,
    data: PathBuf,
}

impl Home {
    /// Where all is in the data directory.
    pub fn of(data_directory: &Path) -> Self {
        Self::apart(data_directory, data_directory)
    }

    /// Where postgresql.conf is in `files`, and postgresql.auto.conf in the data directory.
    pub fn apart(files: &Path, data_directory: &Path) -> Self {
        Self { files: normal(files), data: normal(data_directory) }
    }

    /// Where postgresql.conf is.
    pub(super) fn files(&self) -> &Path {
        &self.files
    }

    /// What settings name files by.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn is_apart(&self) -> bool {
        self.files != self.data
    }

    /// What a file in the data directory is called here.
    pub(super) fn in_data(&self, name: &str) -> PathBuf {
        if self.is_apart() { Path::new(IN_DATA).join(name) } else { name.into() }
    }

    /// Where a file is. One that is absolute is in neither of the two.
    pub(super) fn path(&self, file: &Path) -> PathBuf {
        match file.strip_prefix(IN_DATA) {
            Ok(rest) => self.data.join(rest),
            Err(_) => self.files.join(file),
        }
    }

    /// The name in the data directory of one that is there.
    pub(super) fn inside_data<'a>(&self, file: &'a Path) -> Option<&'a Path> {
        match file.strip_prefix(IN_DATA) {
            Ok(rest) => Some(rest),
            Err(_) => (!self.is_apart()).then_some(file),
        }
    }

    /// What is written as `path` in a file of `directory`, if that is in one of the two.
    pub(super) fn place(&self, directory: &Path, path: &str) -> Option<PathBuf> {
        self.find(&normal(&directory.join(path)))
    }

    /// What the file with this path is called here.
    pub(super) fn find(&self, path: &Path) -> Option<PathBuf> {
        let inside = |root: &Path| path.strip_prefix(root).ok().map(Path::to_owned);
        let within = |root: &Path| inside(root).or_else(|| inside(&root.canonicalize().ok()?));
        within(&self.files).or_else(|| Some(Path::new(IN_DATA).join(within(&self.data)?)))
    }
}

/// Without `.` and `..`; symbolic links are not looked at, as the server does not, either.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// How `path` is written in a file of `directory`; nothing from one of the two to the other.
pub(super) fn relative(directory: &Path, path: &Path) -> Option<PathBuf> {
    if directory.starts_with(IN_DATA) != path.starts_with(IN_DATA) {
        return None;
    }
    let common = directory.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    let up = directory.components().skip(common).map(|_| Component::ParentDir);
    Some(up.chain(path.components().skip(common)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_from_one_directory_to_another() {
        let from = |directory: &str, path: &str| {
            relative(Path::new(directory), Path::new(path)).map(|path| path.display().to_string())
        };
        assert_eq!(from("", "a/b").as_deref(), Some("a/b"));
        assert_eq!(from("conf.d", "conf.d/x").as_deref(), Some("x"));
        assert_eq!(from("conf.d/a", "certs/x").as_deref(), Some("../../certs/x"));
        assert_eq!(from("conf.d", "@data/x"), None);
    }

    #[test]
    fn a_file_has_one_name_wherever_the_two_directories_are() {
        let old = Home::apart(Path::new("/etc/postgresql/15/main"), Path::new("/var/lib/postgresql/15/main"));
        let new = Home::of(Path::new("/trial"));
        let own = old.find(Path::new("/etc/postgresql/15/main/conf.d/a.conf")).unwrap();
        assert_eq!(own, Path::new("conf.d/a.conf"));
        let key = old.place(old.data(), "server.key").unwrap();
        assert_eq!(old.path(&key), Path::new("/var/lib/postgresql/15/main/server.key"));
        assert_eq!(new.path(&key), Path::new("/trial/server.key"));
        assert_eq!(old.inside_data(&key), Some(Path::new("server.key")));
        assert_eq!((old.inside_data(&own), new.inside_data(&own)), (None, Some(own.as_path())));
        assert_eq!(old.find(Path::new("/etc/ssl/x")), None);
        assert_eq!(new.in_data("x"), Path::new("x"));
    }
}
