//! Signals for processes that are not children of ours: a number may be another process's by now, and a file that names one
//! may name anybody's.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, geteuid};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// A process of the user that it is taken for.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// Kernels before 5.3 have none.
    descriptor: Option<OwnedFd>,
}

impl Process {
    /// The process with this number, if it is one of `owner`, who is not root. Whoever looks it up by what it does looks
    /// again when he has this: from then on it is no other one.
    pub fn of(pid: i32, owner: Uid) -> Option<Self> {
        let number = rustix::process::Pid::from_raw(pid).filter(|_| pid > 1)?;
        let descriptor = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(descriptor) => Some(descriptor),
            Err(Errno::NOSYS | Errno::PERM) => None,
            Err(_) => return None,
        };
        let process = Path::new("/proc").join(pid.to_string()).metadata().ok()?;
        let is_owners = process.uid() == owner.as_raw() && !(owner.is_root() && geteuid().is_root());
        is_owners.then_some(Self { pid: Pid::from_raw(pid), descriptor })
    }

    /// Sends it a signal. Returns whether it is still there.
    pub fn signal(&self, signal: Signal) -> bool {
        match &self.descriptor {
            Some(descriptor) => rustix::process::Signal::from_named_raw(signal as i32)
                .is_some_and(|signal| pidfd_send_signal(descriptor, signal).is_ok()),
            None => kill(self.pid, signal).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;

    #[test]
    fn only_the_process_of_that_user_gets_it() {
        let me = geteuid();
        let other = Uid::from_raw(65534);
        let mut command = std::process::Command::new("/bin/sleep");
        command.arg("600");
        if me.is_root() {
            command.uid(other.as_raw()).gid(other.as_raw());
        }
        let owner = if me.is_root() { other } else { me };
        let mut child = command.spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(
            Process::of(pid, Uid::from_raw(54_321)).is_none() && Process::of(1, Uid::from_raw(0)).is_none()
        );
        let process = Process::of(pid, owner).unwrap();
        assert!(process.signal(Signal::SIGKILL));
        child.wait().unwrap();
        assert!(!process.signal(Signal::SIGKILL) && Process::of(pid, owner).is_none());
    }
}
