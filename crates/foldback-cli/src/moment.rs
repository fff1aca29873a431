//! Versions and times as people write and read them. All times are UTC.

use foldback::core::Micros;
use foldback::core::report::{VersionSpec, iso};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::error::Error;

/// A version as a person names it.
///
/// # Errors
/// A text that is no version.
pub fn spec(text: &str) -> Result<VersionSpec, Error> {
    Ok(match time(text) {
        Some(at) => VersionSpec::Time(at),
        None => VersionSpec::parse(text)?,
    })
}

/// A moment from its text: `2026-01-31T09:15:00Z`, with an offset, or without one for UTC;
/// `2026-01-31` is the begin of that day.
pub fn time(text: &str) -> Option<Micros> {
    // A year first: a key such as `a-1` is none, and neither is a plain number.
    let text = text.trim();
    if !text.get(..5)?.bytes().enumerate().all(|(i, b)| if i < 4 { b.is_ascii_digit() } else { b == b'-' }) {
        return None;
    }
    let utc = |at: DateTime| at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    let at = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| utc(text.parse::<DateTime>().ok()?))
        .or_else(|| utc(text.parse::<Date>().ok()?.at(0, 0, 0, 0)))?;
    // The whole millisecond or second that was written, not its first instant only, would be a
    // guess; what is written is meant.
    Some(at.as_microsecond())
}

/// A moment for people: `2026-01-31 09:15:00.123`.
pub fn with_millis(at: Micros) -> String {
    iso(at).replace('T', " ").chars().take(23).collect()
}

/// A moment for people: `2026-01-31 09:15:00`.
pub fn with_seconds(at: Micros) -> String {
    iso(at).replace('T', " ").chars().take(19).collect()
}

/// A duration for people: `12 ms`, `3.4 s`, `5 min 20 s`, `2 h 10 min`, `3 d 4 h`.
pub fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_utc_and_nothing_else_is_a_time() {
        let cases = [
            ("2026-01-31T09:15:00Z", Some(1_769_850_900_000_000)),
            ("2026-01-31T09:15:00.000042Z", Some(1_769_850_900_000_042)),
            ("2026-01-31T10:15:00+01:00", Some(1_769_850_900_000_000)),
            ("2026-01-31T09:15", Some(1_769_850_900_000_000)),
            ("2026-01-31 09:15:00", Some(1_769_850_900_000_000)),
            ("2026-01-31", Some(1_769_817_600_000_000)),
            ("7", None),
            ("-2", None),
            ("2026", None),
            ("failure", None),
            ("read[3]/fetch", None),
            ("2026-draft", None),
            ("übér-x", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(time(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_we_print_as_a_time_reads_back() {
        for micros in [0, 1_769_850_900_000_042, 4_107_542_400_000_001, 951_782_400_000_000] {
            assert_eq!(time(&iso(micros)), Some(micros));
        }
    }

    #[test]
    fn spans_read_as_people_say_them() {
        let cases = [
            (7, "7 ms"),
            (3_450, "3.4 s"),
            (320_000, "5 min 20 s"),
            (7_800_000, "2 h 10 min"),
            (273_600_000, "3 d 4 h"),
        ];
        for (millis, text) in cases {
            assert_eq!(span(millis), text);
        }
    }
}
