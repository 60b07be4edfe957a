//! Times in names of files, directories and databases, in UTC: `20261124T030000Z`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const FORM: &str = "%Y%m%dT%H%M%SZ";

/// Bytes of each.
pub const LENGTH: usize = 16;

/// That of this time; fractions of a second are cut off.
pub fn write(time: Timestamp) -> String {
    time.strftime(FORM).to_string()
}

/// The time that a text of just this form means.
pub fn read(text: &str) -> Option<Timestamp> {
    let time = TimeZone::UTC.to_timestamp(DateTime::strptime(FORM, text).ok()?).ok()?;
    // Parsers are lenient, names are not.
    (write(time) == text).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_written_is_read() {
        let text = "20261124T030000Z";
        assert_eq!(text.len(), LENGTH);
        assert_eq!(read(text).map(write).as_deref(), Some(text));
        for other in [
            "20261124T030000",
            "20261324T030000Z",
            "2026112 T030000Z",
            "+0261124T030000Z",
            "20261124T030000Zx",
            "",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
