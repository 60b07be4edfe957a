//! The socket's directory is the server's user's. systemd makes it for root (`RuntimeDirectory=`), and hands it to root again, with
//! all that is in it, before each further command of the unit (`setup_exec_directory`, systemd 257): no server of that user could
//! then make a socket in it, and the running one could not remove its own.

use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::unistd::{fchownat, geteuid};

use crate::account::Account;
use crate::config::Settings;
use crate::error::{IoContext as _, Result};
use crate::files::beneath::Directory;
use crate::postgres;

/// Makes the directory, for this user.
pub(super) fn hand_over(directory: &Path, account: &Account) -> Result<()> {
    std::fs::create_dir_all(directory).at("create", directory)?;
    let opened = Directory::open(directory).and_then(|directory| directory.readable());
    opened
        .and_then(|opened| fchown(opened, Some(account.uid.as_raw()), Some(account.gid.as_raw())))
        .at("change the owner of", directory)
}

/// Gives it back to the owner of the data directory, with what is in it, if it is root's.
///
/// # Errors
/// [`crate::Kind::File`].
pub fn hand_back(settings: &Settings) -> Result<()> {
    let directory = &settings.socket_directory;
    let account = postgres::account_of(&settings.data_directory, &settings.server.user);
    let Some(account) = account.filter(|_| geteuid().is_root()) else { return Ok(()) };
    let opened = Directory::open(directory).and_then(|opened| opened.readable()).at("open", directory)?;
    // Nobody else can change what is in one of root's.
    if opened.metadata().at("read", directory)?.uid() != 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).at("read", directory)? {
        let entry = entry.at("read", directory)?;
        // It may have another name, elsewhere.
        if entry.metadata().at("read", &entry.path())?.nlink() == 1 {
            let (uid, gid) = (Some(account.uid), Some(account.gid));
            fchownat(opened.as_fd(), entry.file_name().as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                .at("change the owner of", &entry.path())?;
        }
    }
    hand_over(directory, &account)
}
