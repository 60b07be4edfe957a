//! The terminal that we were started from is its user's. Whoever has a process in its session can type on it (`TIOCSTI` in
//! ioctl_tty(2)): a program that runs as another user is in a session of its own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid};

/// Starts a program in a session without a terminal (setsid(1)); of a child, that is the same process.
pub const SETSID: &str = "/usr/bin/setsid";

/// Starts a program as another user (setpriv(1)), in the same process, too.
pub const SETPRIV: &str = "/usr/bin/setpriv";

/// How many words of a command are setpriv's.
const WORDS: usize = 4;

/// Lets `command` run without the terminal that we have, if we have one. Its environment must be a clean one, and what it
/// reads and writes must be said afterwards.
pub fn leave(command: &mut Command) {
    if !has_left(command) && is_ours() && Path::new(SETSID).exists() {
        *command = begun_with(&[], command);
    }
}

/// The same, as another user: root leaves the terminal before it becomes that one, whose other processes could catch the
/// program in between. Returns whether that is so; else, neither is done.
pub fn leave_as(command: &mut Command, uid: Uid, gid: Gid) -> bool {
    let is_possible = has_left(command) || is_ours() && Path::new(SETSID).exists();
    if !is_possible || !Path::new(SETPRIV).exists() {
        return false;
    }
    let user = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()];
    let words: Vec<_> = [SETPRIV.to_owned()].into_iter().chain(user).map(OsString::from).collect();
    *command = begun_with(&words, command);
    true
}

/// The program that a command is about.
pub fn program(command: &Command) -> &Path {
    Path::new(words(command).next().unwrap_or_default())
}

/// Whether it runs without our terminal, as the first of a group of its own.
pub fn has_left(command: &Command) -> bool {
    command.get_program() == OsStr::new(SETSID)
}

/// The program and its arguments, without what was put before them here.
fn words(command: &Command) -> impl Iterator<Item = &OsStr> {
    let as_another = has_left(command) && command.get_args().next() == Some(OsStr::new(SETPRIV));
    let before = usize::from(has_left(command)) + if as_another { WORDS } else { 0 };
    std::iter::once(command.get_program()).chain(command.get_args()).skip(before)
}

fn begun_with(first: &[OsString], command: &Command) -> Command {
    let mut begun = Command::new(SETSID);
    begun.args(first).args(words(command)).env_clear();
    begun.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        begun.current_dir(directory);
    }
    begun
}

/// Whether our session has a terminal: others cannot open this.
pub fn is_ours() -> bool {
    File::open("/dev/tty").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_what_it_is_given_stay_the_same() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "id -u; id -G; pwd; echo $A"]).env_clear().env("A", "b c").current_dir("/");
        command = begun_with(&[], &command);
        leave(&mut command);
        assert_eq!(program(&command), Path::new("/bin/sh"));
        let said = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(said(&mut command).ends_with("/\nb c\n"));
        if nix::unistd::geteuid().is_root() {
            for number in [1234, 54_321] {
                assert!(leave_as(&mut command, Uid::from_raw(number), Gid::from_raw(number)));
                assert_eq!(program(&command), Path::new("/bin/sh"));
                assert_eq!(said(&mut command), format!("{number}\n{number}\n/\nb c\n"));
            }
        }
    }
}
