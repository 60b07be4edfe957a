//! When a timer elapses next.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use zbus::Proxy;

use super::bus::TimerProxy;
use super::unit::Unit;

/// A timer as it was when we asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerState {
    /// When it starts its unit next; nothing while it is not active, while its unit runs, and when no time
    /// is left that it was set to.
    pub next_run: Option<Timestamp>,
    /// When it last started its unit, as far back as systemd remembers.
    pub last_run: Option<Timestamp>,
    active: bool,
    running: bool,
}

impl TimerState {
    /// Whether it is active: it will start its unit some time.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether it has elapsed and its unit runs now: only then is the next time settled.
    pub fn is_running(&self) -> bool {
        self.running
    }

    pub(super) async fn read(unit: &Proxy<'_>, state: &Unit) -> zbus::Result<Self> {
        let timer = TimerProxy::new(unit.connection(), unit.path().to_owned()).await?;
        let active = state.is_active();
        let running = active && state.sub_state == "running";
        let next = if active && !running {
            next(
                timer.next_elapse_realtime().await?,
                timer.next_elapse_monotonic().await?,
                Timestamp::now(),
                monotonic_now(),
            )
        } else {
            None
        };
        Ok(Self { next_run: next, last_run: time(timer.last_trigger().await?), active, running })
    }
}

/// The earlier of the two clocks' next times, both in microseconds: one since 1970, one since the start of
/// the machine. Either may be missing.
fn next(realtime: u64, monotonic: u64, now: Timestamp, monotonic_now: Duration) -> Option<Timestamp> {
    let since_start = set(monotonic).and_then(|micros| {
        let left = Duration::from_micros(micros).saturating_sub(monotonic_now);
        now.checked_add(SignedDuration::try_from(left).ok()?).ok()
    });
    [time(realtime), since_start].into_iter().flatten().min()
}

fn time(micros: u64) -> Option<Timestamp> {
    set(micros).and_then(|micros| Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok())
}

/// systemd says 0 or the largest number where there is no time.
fn set(micros: u64) -> Option<u64> {
    Some(micros).filter(|&micros| micros != 0 && micros != u64::MAX)
}

fn monotonic_now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_clock_counts_and_a_missing_one_does_not() {
        let now: Timestamp = "2026-11-24T09:00:00Z".parse().unwrap();
        let up = Duration::from_secs(1000);
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let three = at("2026-11-25T03:00:00Z").unwrap().as_microsecond().cast_unsigned();
        assert_eq!(next(three, 0, now, up), at("2026-11-25T03:00:00Z"));
        assert_eq!(next(three, u64::MAX, now, up), at("2026-11-25T03:00:00Z"));
        assert_eq!(next(0, 1_060_000_000, now, up), at("2026-11-24T09:01:00Z"));
        assert_eq!(next(three, 1_060_000_000, now, up), at("2026-11-24T09:01:00Z"));
        assert_eq!(next(u64::MAX, 0, now, up), None);
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        let now: Timestamp = "2026-11-24T09:00:00Z".parse().unwrap();
        assert_eq!(next(0, 1, now, Duration::from_secs(1000)), Some(now));
    }
}
