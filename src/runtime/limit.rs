//! A program that must not take longer than so long.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};

use super::Child;
use crate::error::{Error, Kind, Result};
use crate::terminal;

/// How often we look whether it has ended.
const TICK: Duration = Duration::from_millis(20);
/// How long the pipe of a program that has ended may stay open: a child of its own may hold it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs `command` with `input` on its standard input, and returns its standard output. At `limit` it is
/// killed, with all that it has started.
///
/// # Errors
/// As [`Child::wait`]; [`Kind::Program`] when its time is up.
pub fn output_within(mut command: Command, name: &str, input: Vec<u8>, limit: Duration) -> Result<Vec<u8>> {
    if !terminal::has_left(&command) {
        command.process_group(0);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Child::spawn(command, name)?;
    let deadline = Instant::now() + limit;
    if let Some(mut stdin) = child.stdin() {
        // A program that ends without reading everything says why by its exit status.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let (sender, answer) = mpsc::channel();
    if let Some(mut stdout) = child.stdout() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.read_to_end(&mut text);
            let _ = sender.send(text);
        });
    }
    while !child.has_ended() {
        if Instant::now() >= deadline {
            let _ = killpg(child.pid(), Signal::SIGKILL);
            child.wait_status()?;
            let message = format!("{name} took longer than {} s and was killed", limit.as_secs());
            return Err(Error::new(Kind::Program, message));
        }
        std::thread::sleep(TICK);
    }
    child.wait()?;
    Ok(answer.recv_timeout(LAST_WORDS).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_is_fast_enough_answers() {
        let answer = output_within(shell("cat"), "cat", b"x".to_vec(), Duration::from_secs(60));
        assert_eq!(answer.unwrap(), b"x");
    }

    #[test]
    fn what_hangs_is_ended_with_its_children() {
        let clock = Instant::now();
        let script = "sleep 900 & sleep 900";
        let error = output_within(shell(script), "the hook", vec![], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "the hook took longer than 1 s and was killed");
        assert!(clock.elapsed() < Duration::from_secs(30));
    }
}
