//! Progress in systemd's status line.

use std::time::{Duration, Instant};

use super::Progress;
use crate::systemd::notify;

/// How often the line changes, at most.
const TICK: Duration = Duration::from_secs(1);

/// How long the work may stand still from now on: the same as `TimeoutStartSec=` of our units. While bytes
/// move, the limit moves along, so that a dump of any size ends, and one that hangs does, too. It is not
/// shorter, for a program may be silent for long, such as one that waits for a locked table.
const STANDSTILL: Duration = Duration::from_secs(30 * 60);

/// The rate is that of about the last so many seconds.
const MEMORY: f64 = 10.0;

/// Tells systemd how far the work is, and that it is alive, at most once a second and only when bytes have
/// moved.
#[derive(Debug, Default)]
pub struct Status {
    part: Option<Part>,
}

impl Progress for Status {
    fn begin(&mut self, what: &str, total: Option<u64>) {
        notify::status(what);
        self.part = Some(Part::new(what, total, Instant::now()));
    }

    fn advance(&mut self, done: u64) {
        if let Some(line) = self.part.as_mut().and_then(|part| part.tick(done, Instant::now())) {
            notify::alive(&line, STANDSTILL);
        }
    }

    fn end(&mut self) {
        if let Some(part) = self.part.take() {
            notify::status(&format!("{}: done", part.what));
        }
    }
}

/// A part of the work between its begin and its end.
#[derive(Debug)]
struct Part {
    what: String,
    total: Option<u64>,
    /// When the line last changed, and how many bytes were done then.
    last: (Instant, u64),
    /// Bytes in a second.
    rate: Option<f64>,
}

impl Part {
    fn new(what: &str, total: Option<u64>, now: Instant) -> Self {
        Self { what: what.to_owned(), total, last: (now, 0), rate: None }
    }

    /// The new line, if it is time for one.
    fn tick(&mut self, done: u64, now: Instant) -> Option<String> {
        let (then, before) = self.last;
        let passed = now.saturating_duration_since(then);
        if passed < TICK || done <= before {
            return None;
        }
        let latest = (done - before) as f64 / passed.as_secs_f64();
        let weight = 1.0 - (-passed.as_secs_f64() / MEMORY).exp();
        let rate = self.rate.map_or(latest, |rate| rate + (latest - rate) * weight);
        self.rate = Some(rate);
        self.last = (now, done);
        Some(line(&self.what, done, self.total, rate))
    }
}

/// `dumping homeserver: 43 %, 187 MB/s, about 12 s left`; `rate` is in bytes a second. The total is an
/// estimate: 100 % is only said of what has ended, and what is past its total does not say what is left.
fn line(what: &str, done: u64, total: Option<u64>, rate: f64) -> String {
    let Some(total) = total.filter(|&total| total > 0) else {
        return format!("{what}: {}, {}/s", size(done as f64), size(rate));
    };
    let percent = (u128::from(done) * 100 / u128::from(total)).min(99);
    let left = match total.saturating_sub(done) {
        0 => String::new(),
        left => time_left(left as f64 / rate),
    };
    format!("{what}: {percent} %, {}/s{left}", size(rate))
}

fn size(bytes: f64) -> String {
    let mut number = bytes;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        // What would be rounded to 1000 is 1 of the next.
        if number < 999.5 {
            break;
        }
        number /= 1000.0;
        unit = larger;
    }
    if number < 9.95 && unit != "B" { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
}

fn time_left(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds.ceil()).map(|left| left.as_secs()) {
        Ok(seconds @ 0..100) => format!(", about {seconds} s left"),
        Ok(seconds @ 100..6000) => format!(", about {} min left", seconds.div_ceil(60)),
        Ok(seconds @ 6000..360_000) => format!(", about {} h left", seconds.div_ceil(3600)),
        // A rate near nothing foretells nothing.
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        for (done, total, rate, expected) in [
            (1_720_000_000, Some(4_000_000_000), 187e6, "x: 43 %, 187 MB/s, about 13 s left"),
            (1_000, Some(1_000_000_000), 1.5e6, "x: 0 %, 1.5 MB/s, about 12 min left"),
            (1, Some(400_000_000_000), 20e6, "x: 0 %, 20 MB/s, about 6 h left"),
            (999, Some(1_000), 10.0, "x: 99 %, 10 B/s, about 1 s left"),
            (1_000, Some(1_000), 10.0, "x: 99 %, 10 B/s"),
            (5_000, Some(1_000), 10.0, "x: 99 %, 10 B/s"),
            (1, Some(u64::MAX), 1e-300, "x: 0 %, 0 B/s"),
            (u64::MAX, Some(u64::MAX), 1e9, "x: 99 %, 1.0 GB/s"),
            (2_345_678, None, 999_600.0, "x: 2.3 MB, 1.0 MB/s"),
            (2_345_678, Some(0), 9_960.0, "x: 2.3 MB, 10 kB/s"),
        ] {
            assert_eq!(line("x", done, total, rate), expected);
        }
    }

    #[test]
    fn a_line_comes_once_a_second_and_only_when_bytes_have_moved() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut part = Part::new("dumping homeserver", Some(1_000_000), start);
        assert_eq!(part.tick(10_000, at(999)), None);
        assert_eq!(
            part.tick(100_000, at(1000)).as_deref(),
            Some("dumping homeserver: 10 %, 100 kB/s, about 9 s left")
        );
        assert_eq!(part.tick(150_000, at(1500)), None);
        assert_eq!(part.tick(100_000, at(9000)), None, "nothing has moved");
        assert!(part.tick(100_001, at(10_000)).is_some());
    }

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let start = Instant::now();
        let mut part = Part::new("x", None, start);
        let mut done = 0;
        for second in 1..=60 {
            done += if second <= 30 { 1_000_000 } else { 9_000_000 };
            part.tick(done, start + Duration::from_secs(second));
        }
        assert!((8.4e6..9.0e6).contains(&part.rate.unwrap()), "{:?}", part.rate);
    }
}
