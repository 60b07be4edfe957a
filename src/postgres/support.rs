//! How long a major version gets corrections.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

use super::Major;

/// The day of a major's last minor version (postgresql.org/support/versioning, as of November 2026). What is newer than all
/// of them has corrections still.
const LAST_MINOR: [(u16, Date); 9] = [
    (10, date(2022, 11, 10)),
    (11, date(2023, 11, 9)),
    (12, date(2024, 11, 21)),
    (13, date(2025, 11, 13)),
    (14, date(2026, 11, 12)),
    (15, date(2027, 11, 11)),
    (16, date(2028, 11, 9)),
    (17, date(2029, 11, 8)),
    (18, date(2030, 11, 14)),
];

/// That a major gets no corrections any more, in a sentence; nothing while it does.
pub fn ended(major: Major, now: Timestamp) -> Option<String> {
    let (_, last) = LAST_MINOR.into_iter().find(|(of, _)| *of == major.0)?;
    let today = now.to_zoned_datetime(TimeZone::UTC).date();
    (today >= last).then(|| {
        format!("PostgreSQL {major} has been out of support since {last} and gets no security fixes")
    })
}

/// What to do about it.
pub const UPGRADE: &str = "matrix-postgres-upgrade check shows whether an upgrade is possible";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_its_last_day_on_a_major_is_told() {
        let told = |major, now: &str| ended(Major(major), format!("{now}T00:00:00Z").parse().unwrap());
        assert_eq!(told(14, "2026-11-11"), None);
        assert_eq!(
            told(14, "2026-11-12").unwrap(),
            "PostgreSQL 14 has been out of support since 2026-11-12 and gets no security fixes"
        );
        assert!(told(13, "2026-11-28").unwrap().contains("since 2025-11-13 "));
        assert!([15, 16, 17, 18, 19, 20].iter().all(|major| told(*major, "2026-11-28").is_none()));
        assert!(told(18, "2030-11-14").is_some() && told(19, "2040-01-01").is_none());
    }

    #[test]
    fn each_has_a_day_and_they_follow_each_other() {
        assert!(LAST_MINOR.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0 && pair[0].1 < pair[1].1));
    }
}
