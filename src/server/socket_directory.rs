//! The socket's directory is the server's user's. systemd makes it for root (`RuntimeDirectory=`), and hands it to root again, with
//! all that is in it, before each further command of the unit (`setup_exec_directory`, systemd 257): no server of that user could
//! then make a socket in it, and the running one could not remove its own.

use std::fs::Permissions;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};
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
    let opened = Directory::open(directory).at("open", directory)?;
    // Nobody else can change what is in one of root's.
    if !opened.is_roots() {
        return Ok(());
    }
    hand_back_all(&opened, &account, DEEPEST)?;
    hand_over(directory, &account)
}

/// What is in a directory, and in those below it: whatever that user had put there is root's now, with the mode that it had. A
/// program that was to run as that user would run as root, where the file system lets it.
fn hand_back_all(directory: &Directory, account: &Account, levels: usize) -> Result<()> {
    let path = directory.path();
    for name in directory.names().at("read", path)? {
        let (name, place) = (name.as_os_str(), path.join(&name));
        let Some(entry) = directory.look(name).at("read", &place)? else { continue };
        if entry.is_directory() && entry.owner().is_root() && levels > 0 {
            let below = directory.directory(Path::new(name)).at("open", &place)?;
            // So that nobody else can change what is in it, either.
            let private = || below.readable()?.set_permissions(Permissions::from_mode(0o700));
            private().at("change the mode of", &place)?;
            hand_back_all(&below, account, levels - 1)?;
        }
        // It may have another name, elsewhere.
        if entry.owner().is_root() && (entry.is_directory() || entry.has_one_name()) {
            let (uid, gid) = (Some(account.uid), Some(account.gid));
            fchownat(directory.as_fd(), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                .at("change the owner of", &place)?;
        }
    }
    Ok(())
}

/// PostgreSQL makes no directory there.
const DEEPEST: usize = 32;
