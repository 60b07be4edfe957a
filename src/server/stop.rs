//! Stops the server: one that recovers from a crash of its own comes to the end of that first, and one that would wait forever
//! is ended.
//!
//! From 15 on, a postmaster that is told to shut down "fast" while it handles the crash of a backend waits forever for its
//! checkpointer, which nobody has told to end (`PM_WAIT_BACKENDS` with `FatalError`, postmaster.c); and so would everybody who
//! waits for it: an upgrade, and a reboot of the machine. A crash may come at any time, so waiting beforehand is not enough.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, pg_isready};
use crate::runtime::{Process, Runtime, fields_of_stat};

/// How often it is asked.
const TICK: Duration = Duration::from_millis(20);

/// How often its processes are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// So many looks in a row that show nothing but a checkpointer that sleeps: one that writes is waiting for the disk, or uses a
/// processor.
const LOOKS: usize = 30;

/// Stops the server whose postmaster is `main`; it is shut down "fast" once it lets clients in, or does not recover any more.
/// Without a number it is only waited for until then.
///
/// # Errors
/// [`Kind::NotInstalled`], [`Kind::Program`] if it cannot be asked.
pub fn stop(settings: &Settings, runtime: &dyn Runtime, main: Option<i32>) -> Result<()> {
    // Others' processes are not visible in the unit.
    if let Some(account) = postgres::account_of(&settings.data_directory, &settings.server.user) {
        account.assume()?;
    }
    let connection = settings.connection();
    let newest = runtime.majors().last().copied();
    let newest = newest.ok_or_else(|| Error::new(Kind::NotInstalled, "no PostgreSQL is installed"))?;
    let process = main.and_then(|main| Some((main, Process::of(main, geteuid())?)));
    let is_there = || main.is_some_and(|main| Path::new("/proc").join(main.to_string()).exists());
    let mut watch = Watch::default();
    let (mut told, mut stopping) = (false, false);
    loop {
        if !stopping && !pg_isready::is_rejecting(runtime, newest, &connection)? {
            let Some((_, process)) = &process else { return Ok(()) };
            process.signal(Signal::SIGINT);
            stopping = true;
        } else if !stopping && !std::mem::replace(&mut told, true) {
            log::info!("the server is in crash recovery and will be stopped when that has ended");
        }
        if process.is_some() && !is_there() {
            return Ok(());
        }
        if let Some((main, process)) = &process
            && watch.is_stuck(*main)
        {
            log::warn!(
                "the server does not shut down: it waits for its checkpointer after the crash of a process; \
                 it is shut down immediately, and will recover when it is started"
            );
            process.signal(Signal::SIGQUIT);
            watch = Watch::default();
        }
        sleep(TICK);
    }
}

/// What its processes did at the looks so far.
#[derive(Default)]
struct Watch {
    last: Option<Instant>,
    children: Vec<Child>,
    looks: usize,
}

impl Watch {
    /// Whether nothing has happened for a while, and nothing will.
    fn is_stuck(&mut self, postmaster: i32) -> bool {
        if self.last.is_some_and(|last| last.elapsed() < LOOK) {
            return false;
        }
        self.last = Some(Instant::now());
        let now = children(postmaster);
        self.looks = if waits_for_nothing(&self.children, &now) { self.looks + 1 } else { 0 };
        self.children = now;
        self.looks >= LOOKS
    }
}

/// A process of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Child {
    pid: i32,
    /// What it calls itself, such as `postgres: checkpointer`.
    title: String,
    is_asleep: bool,
    /// Of processors, in ticks of the clock.
    time: u64,
}

impl Child {
    fn is_called(&self, name: &str) -> bool {
        self.title.trim_end_matches(['\0', ' ']).ends_with(name)
    }
}

/// Whether there is a checkpointer that has slept all the time between two looks, and else only who writes the log, and who
/// comes and goes: those who are told that the server shuts down.
fn waits_for_nothing(before: &[Child], now: &[Child]) -> bool {
    let stayed = |child: &&Child| before.iter().any(|other| other.pid == child.pid);
    let mut stayed = now.iter().filter(stayed).filter(|child| !child.is_called(": logger")).peekable();
    stayed.peek().is_some()
        && stayed.all(|child| child.is_called(": checkpointer") && child.is_asleep && before.contains(child))
}

fn children(parent: i32) -> Vec<Child> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| child(pid, parent)).collect()
}

fn child(pid: i32, parent: i32) -> Option<Child> {
    let directory = Path::new("/proc").join(pid.to_string());
    let (is_asleep, time) = stat(&std::fs::read_to_string(directory.join("stat")).ok()?, parent)?;
    let title = String::from_utf8_lossy(&std::fs::read(directory.join("cmdline")).ok()?).into_owned();
    Some(Child { pid, title, is_asleep, time })
}

/// State and time of a child of `parent` by its line in proc_pid_stat(5).
fn stat(line: &str, parent: i32) -> Option<(bool, u64)> {
    let fields = fields_of_stat(line)?;
    if fields.get(1)?.parse::<i32>().ok()? != parent {
        return None;
    }
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    Some((*fields.first()? == "S", ticks(11)? + ticks(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(pid: i32, title: &str, is_asleep: bool, time: u64) -> Child {
        Child { pid, title: format!("postgres: {title}\0\0"), is_asleep, time }
    }

    #[test]
    fn a_line_of_the_system_is_understood_whatever_the_name() {
        let line = "42 (a) S 1 (b) S 7 42 42 0 -1 4194560 1 2 3 4 10 5 0 0 20 0 1 0 100";
        assert_eq!(stat(line, 7), Some((true, 15)));
        assert_eq!(stat(line, 8), None);
        assert_eq!(stat("nonsense", 7), None);
    }

    #[test]
    fn only_a_server_that_has_nothing_left_to_do_is_stuck() {
        let idle = [child(1, "checkpointer", true, 5), child(2, "logger", true, 1)];
        let cluster = [child(1, "main: checkpointer", true, 5)];
        assert!(waits_for_nothing(&idle, &idle) && waits_for_nothing(&cluster, &cluster));
        // Who is told that it shuts down comes and goes.
        let mut refused = idle.to_vec();
        refused.push(child(9, "synapse homeserver [local] startup", true, 0));
        assert!(waits_for_nothing(&idle, &refused));
        for busy in [
            child(1, "checkpointer", true, 6),
            child(1, "checkpointer", false, 5),
            child(1, "checkpointer performing shutdown checkpoint", true, 5),
            child(3, "startup recovering 000000010000000000000001", true, 1),
            child(3, "synapse homeserver [local] COMMIT", true, 1),
            child(3, "archiver archiving 000000010000000000000001", true, 1),
            child(3, "walsender repl streaming", true, 1),
        ] {
            let mut before = idle.to_vec();
            before.retain(|child| child.pid != busy.pid || busy.time == 6);
            let mut now = before.clone();
            now.retain(|child| child.pid != busy.pid);
            now.push(busy.clone());
            if busy.time != 6 {
                before.push(busy.clone());
            }
            assert!(!waits_for_nothing(&before, &now), "{busy:?}");
        }
        assert!(!waits_for_nothing(&[], &idle) && !waits_for_nothing(&idle, &[]));
    }
}
