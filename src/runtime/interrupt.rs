//! SIGTERM, SIGINT and SIGHUP become one flag, and end the programs that we are waiting for.
//!
//! Nothing is torn down in the handler: reads come to their end because the producer is gone, and the
//! ordinary error path cleans up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Kind, Result};

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static UNDISTURBED: AtomicBool = AtomicBool::new(false);
static CHILDREN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Starts to listen for signals. Called once, by a program that has something to clean up.
///
/// # Errors
/// [`Kind::Bug`] if the kernel refuses.
pub fn listen() -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| Error::new(Kind::Bug, "could not listen for signals").because(error))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if UNDISTURBED.load(Ordering::SeqCst) {
                log::warn!("{} is ignored now: services are being started again", name(signal));
                continue;
            }
            RECEIVED.store(signal, Ordering::SeqCst);
            for &child in children().iter() {
                // It may have ended by itself; then there is nothing to do.
                let _ = kill(Pid::from_raw(child), Signal::SIGTERM);
            }
        }
    });
    Ok(())
}

/// Fails once a signal has been received.
///
/// # Errors
/// [`Kind::Interrupted`], naming the signal.
pub fn check() -> Result<()> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => {
            let message = format!("stopped by {} before the work was done", name(signal));
            Err(Error::new(Kind::Interrupted, message))
        }
    }
}

/// From here on nothing is stopped by a signal, received or to come: what is done now puts things back in order.
pub fn leave_undisturbed() {
    UNDISTURBED.store(true, Ordering::SeqCst);
    RECEIVED.store(0, Ordering::SeqCst);
}

fn name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("a signal", Signal::as_str)
}

/// Lets the signal reach this child, too.
pub fn watch(pid: u32) {
    children().push(pid.cast_signed());
    // A signal that came between the start of the child and this line has not reached it.
    if RECEIVED.load(Ordering::SeqCst) != 0 {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    }
}

/// Must be called before the child is reaped, so that its number cannot belong to another process.
pub(super) fn forget(pid: u32) {
    children().retain(|&child| child != pid.cast_signed());
}

fn children() -> std::sync::MutexGuard<'static, Vec<i32>> {
    CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
