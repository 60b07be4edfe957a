//! A child process: its standard error is kept for the error message, its exit status always counts, and
//! it never outlives its owner.

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::Level;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::interrupt;
use crate::error::{Error, Kind, Result};
use crate::terminal;

/// How many of the last lines of standard error an error message quotes.
const TAIL_LINES: usize = 12;

/// How many different warnings of programs are remembered.
const REMEMBERED: usize = 1000;

/// How long the last words of a program that has ended may take. A child of its own may hold the pipe for longer.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running program.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    stderr: Option<Tail>,
    watched: bool,
}

impl Child {
    /// Starts `command`; `name` is what messages call it, such as `pg_dump of "homeserver"`.
    ///
    /// # Errors
    /// [`Kind::Program`] if it cannot be started.
    pub fn spawn(command: Command, name: impl Into<String>) -> Result<Self> {
        Self::spawn_that_says(command, name, TAIL_LINES)
    }

    /// The same of one of whose standard error so many lines are kept.
    ///
    /// # Errors
    /// As [`Child::spawn`].
    pub fn spawn_that_says(mut command: Command, name: impl Into<String>, lines: usize) -> Result<Self> {
        let name = name.into();
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| {
            let file = terminal::program(&command).display();
            Error::new(Kind::Program, format!("could not start {name} ({file})")).because(error)
        })?;
        interrupt::watch(child.id());
        let stderr = child.stderr.take().map(|stderr| Tail::follow(stderr, lines));
        Ok(Self { name, process: child, stderr, watched: true })
    }

    /// The pipe to its standard input, if the command asked for one and nobody took it yet.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// The pipe from its standard output, if the command asked for one and nobody took it yet.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Sends it a signal; that it is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid(), signal);
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(Id::Pid(self.pid()), flags), Ok(nix::sys::wait::WaitStatus::StillAlive))
    }

    /// Waits for its end. What it wrote to standard error is logged if it succeeded, quoted if it failed.
    ///
    /// # Errors
    /// [`Kind::Program`] for any exit status but 0, or [`Kind::Interrupted`] if we were told to stop.
    pub fn wait(mut self) -> Result<()> {
        let (status, lines) = self.reap()?;
        if status.success() {
            for line in lines.into_iter().map(|line| format!("{}: {line}", self.name)) {
                log::log!(if is_news(&line) { Level::Warn } else { Level::Debug }, "{line}");
            }
            return Ok(());
        }
        interrupt::check()?;
        Err(failed(&self.name, status, &Vec::from(lines).join("\n")))
    }

    /// Waits for its end and leaves the judgement to the caller: the exit status and standard error.
    ///
    /// # Errors
    /// [`Kind::Program`] if the system cannot tell.
    pub fn wait_status(mut self) -> Result<(ExitStatus, String)> {
        let (status, lines) = self.reap()?;
        Ok((status, Vec::from(lines).join("\n")))
    }

    fn reap(&mut self) -> Result<(ExitStatus, VecDeque<String>)> {
        drop(self.process.stdin.take());
        let not_waited = |error: std::io::Error| {
            Error::new(Kind::Program, format!("could not wait for {}", self.name)).because(error)
        };
        waitid(Id::Pid(self.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            .map_err(|errno| not_waited(errno.into()))?;
        if std::mem::take(&mut self.watched) {
            interrupt::forget(self.process.id());
        }
        let status = self.process.wait().map_err(not_waited)?;
        let lines = self.stderr.take().map(Tail::lines).unwrap_or_default();
        Ok((status, lines))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.watched {
            self.signal(Signal::SIGKILL);
            let _ = self.reap();
        }
    }
}

/// Whether no program of ours has said so yet, as far as it is remembered: a setting of a database that names what is gone makes
/// each session say the same.
fn is_news(line: &str) -> bool {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    match said.len() < REMEMBERED {
        true => said.insert(line.to_owned()),
        false => !said.contains(line),
    }
}

/// The error of a program that ended with another status than 0.
fn failed(name: &str, status: ExitStatus, stderr: &str) -> Error {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!(
            "killed by {}",
            Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
        ),
        (None, None) => status.to_string(),
    };
    let error = Error::new(Kind::Program, format!("{name} failed ({how})"));
    match stderr.is_empty() {
        true => error,
        false => error.because(stderr.to_owned()),
    }
}

/// The last lines of a program's standard error, read by a thread of its own.
#[derive(Debug)]
struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Receiver<()>,
}

impl Tail {
    fn follow(stderr: ChildStderr, most: usize) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL_LINES + 1)));
        let (sender, ended) = mpsc::channel::<()>();
        let tail = Self { lines: Arc::clone(&lines), ended };
        std::thread::spawn(move || {
            // Dropped at the end, which is what is waited for.
            let _sender = sender;
            read_lines(stderr, &lines, most);
        });
        tail
    }

    fn lines(self) -> VecDeque<String> {
        let _ = self.ended.recv_timeout(LAST_WORDS);
        std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_lines(stderr: impl Read, lines: &Mutex<VecDeque<String>>, most: usize) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // A line without end is cut, so that a talkative program cannot fill our memory.
    while reader.by_ref().take(16 * 1024).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if !text.is_empty() {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(text);
            if lines.len() > most {
                lines.pop_front();
            }
        }
    }
}

/// What a shell would say of a program's end.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The fields of a line of proc_pid_stat(5) from the third one on, the state. The second is the name, in parentheses, and may be
/// anything.
pub fn fields_of_stat(line: &str) -> Option<Vec<&str>> {
    line.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().collect())
}

/// Runs `command` to its end with `input` on its standard input, and returns its standard output.
///
/// # Errors
/// As [`Child::wait`].
pub fn output(command: Command, name: &str, input: &[u8]) -> Result<Vec<u8>> {
    let (child, answer) = answer(command, name, input)?;
    child.wait().map(|()| answer)
}

fn answer(mut command: Command, name: &str, input: &[u8]) -> Result<(Child, Vec<u8>)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Child::spawn(command, name)?;
    let mut answer = Vec::new();
    std::thread::scope(|scope| {
        let stdin = child.stdin();
        // A program that ends without reading everything says why by its exit status.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.stdout().map(|mut stdout| stdout.read_to_end(&mut answer)).transpose()
    })
    .map_err(|error| {
        Error::new(Kind::Program, format!("could not read what {name} prints")).because(error)
    })?;
    Ok((child, answer))
}

/// Runs `command`, which says on its standard output why it fails, to its end.
///
/// # Errors
/// As [`Child::wait`], quoting the last lines of both outputs.
pub fn run_and_quote(mut command: Command, name: &str) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Child::spawn(command, name)?;
    let lines = Mutex::new(VecDeque::new());
    if let Some(stdout) = child.stdout() {
        read_lines(stdout, &lines, TAIL_LINES);
    }
    let (status, stderr) = child.wait_status()?;
    if status.success() {
        return Ok(());
    }
    interrupt::check()?;
    let mut said = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    said.extend(stderr.lines().map(str::to_owned));
    Err(failed(name, status, &Vec::from(said).join("\n")))
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
    fn a_failure_tells_the_status_and_the_last_words() {
        let error =
            output(shell("echo early >&2; echo last words >&2; exit 3"), "the tool", b"").unwrap_err();
        assert_eq!(error.report(), "the tool failed (exit status 3)\n -> early\nlast words");
    }

    #[test]
    fn what_a_program_says_on_either_output_is_quoted() {
        let error = run_and_quote(shell("echo reason; echo more >&2; exit 1"), "the tool").unwrap_err();
        assert_eq!(error.report(), "the tool failed (exit status 1)\n -> reason\nmore");
        run_and_quote(shell("echo all is well"), "the tool").unwrap();
    }

    #[test]
    fn the_same_warning_of_many_runs_is_told_once() {
        let line = "psql: WARNING:  invalid value for parameter \"x\"";
        assert!(is_news(line) && !is_news(line) && is_news(&format!("{line} again")));
    }

    #[test]
    fn a_killed_program_is_told_from_a_failed_one() {
        let error = output(shell("kill -KILL $$"), "the tool", b"").unwrap_err();
        assert_eq!(error.to_string(), "the tool failed (killed by SIGKILL)");
    }

    #[test]
    fn a_large_input_and_a_large_output_pass_at_the_same_time() {
        let input = vec![7; 4 << 20];
        assert_eq!(output(shell("cat"), "cat", &input).unwrap(), input);
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let child = Child::spawn(shell("exec sleep 1000"), "sleep").unwrap();
        let pid = child.pid();
        drop(child);
        assert!(kill(pid, None).is_err());
    }

    /// Such as the backends of a server that was killed.
    #[test]
    fn a_child_of_the_child_does_not_hold_us_up() {
        let clock = std::time::Instant::now();
        let child =
            Child::spawn(shell("sleep 60 >/dev/null & echo last words >&2; exit 3"), "the tool").unwrap();
        let error = child.wait().unwrap_err();
        assert!(error.report().ends_with("last words"), "{}", error.report());
        assert!(clock.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        let error = Child::spawn(Command::new("/nonexistent/pg_dump"), "pg_dump").unwrap_err();
        assert_eq!(error.to_string(), "could not start pg_dump (/nonexistent/pg_dump)");
    }
}
