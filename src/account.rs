//! System users: who owns a directory, and becoming that user.

use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getgrouplist, initgroups, setfsgid, setfsuid, setgid, setuid,
};

use crate::error::{Error, Kind, Result};
use crate::terminal;

/// A system user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name, or its number where it has none.
    pub name: String,
    /// User id.
    pub uid: Uid,
    /// Primary group id.
    pub gid: Gid,
}

impl Account {
    /// The user with this name, if there is one.
    ///
    /// # Errors
    /// [`Kind::Config`] if the system's user database cannot be asked.
    pub fn named(name: &str) -> Result<Option<Self>> {
        let user = User::from_name(name).map_err(|errno| {
            Error::new(Kind::Config, format!("could not look up user {name:?}")).because(errno)
        })?;
        Ok(user.map(|user| Self { name: user.name, uid: user.uid, gid: user.gid }))
    }

    /// The owner of something with these ids.
    pub fn of(uid: u32, gid: u32) -> Self {
        let uid = Uid::from_raw(uid);
        let name = match User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            _ => uid.to_string(),
        };
        Self { name, uid, gid: Gid::from_raw(gid) }
    }

    /// Who we are.
    pub fn current() -> Self {
        Self::of(geteuid().as_raw(), getegid().as_raw())
    }

    /// Whether this is root.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Lets `command` run as this user, without supplementary groups (std clears them for root), and without our terminal,
    /// see [`terminal`].
    pub fn apply(&self, command: &mut Command) {
        if geteuid() != self.uid && !terminal::leave_as(command, self.uid, self.gid) {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Works with files as this user: what is made is this user's, and no link leads to where he may not go. The system keeps
    /// that apart for each thread (setfsuid(2)), and takes root's rights over files away from it (capabilities(7)). Groups are
    /// this user's, too: `ssl-cert` lets PostgreSQL read a certificate's key.
    ///
    /// # Errors
    /// [`Kind::File`] if the system does not let us, and what `work` returns.
    pub fn with_files<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if geteuid() == self.uid {
            return work();
        }
        let groups = self.groups();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Of this thread alone, as the system has it; nix and the C library would do it to all.
                let in_groups = rustix::thread::set_thread_groups(&groups).is_ok();
                setfsgid(self.gid);
                setfsuid(self.uid);
                // Each tells who it was before, and nothing of a failure.
                match in_groups && setfsuid(self.uid) == self.uid && setfsgid(self.gid) == self.gid {
                    true => work(),
                    false => Err(Error::new(
                        Kind::File,
                        format!("could not switch to user {} for file access", self.name),
                    )),
                }
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a thread that works with files panicked")))
        })
    }

    fn groups(&self) -> Vec<rustix::process::Gid> {
        let name = CString::new(self.name.as_str()).unwrap_or_default();
        // Who has no name is in no other group.
        let groups = getgrouplist(&name, self.gid).unwrap_or_else(|_| vec![self.gid]);
        groups.into_iter().map(|group| rustix::process::Gid::from_raw(group.as_raw())).collect()
    }

    /// Becomes this user for good, with its supplementary groups; nothing to do for the user we are.
    ///
    /// # Errors
    /// [`Kind::File`] for anybody but root.
    pub fn assume(&self) -> Result<()> {
        if geteuid() == self.uid {
            return Ok(());
        }
        let name = CString::new(self.name.as_str()).unwrap_or_default();
        initgroups(&name, self.gid)
            .and_then(|()| setgid(self.gid))
            .and_then(|()| setuid(self.uid))
            .map_err(|errno| Error::new(Kind::File, format!("could not become {}", self.name)).because(errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoContext as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn files_are_the_users_and_links_lead_nowhere() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (open, roots) = (directory.path().join("open"), directory.path().join("roots"));
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(&roots, "root's").unwrap();
        symlink(&roots, open.join("link")).unwrap();
        let account = Account::of(65534, 65534);
        let write = |name: &str| {
            let path = open.join(name);
            account.with_files(|| std::fs::write(&path, "theirs").at("write", &path))
        };
        write("file").unwrap();
        let meta = open.join("file").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (65534, 65534));
        assert_eq!(write("link").unwrap_err().kind(), Kind::File);
        assert_eq!(std::fs::read_to_string(&roots).unwrap(), "root's");
        // Nor do root's groups help.
        let group = directory.path().join("group");
        std::fs::write(&group, "root's group's").unwrap();
        std::fs::set_permissions(&group, std::fs::Permissions::from_mode(0o640)).unwrap();
        let before = nix::unistd::getgroups().unwrap();
        nix::unistd::setgroups(&[Gid::from_raw(0)]).unwrap();
        let read = account.with_files(|| std::fs::read(&group).at("read", &group));
        nix::unistd::setgroups(&before).unwrap();
        assert_eq!(read.unwrap_err().kind(), Kind::File);
        // Only that thread is.
        std::fs::write(directory.path().join("other"), "").unwrap();
    }
}
