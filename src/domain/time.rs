//! Time as the database means it: UTC without a zone, to the microsecond.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00 UTC; may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub i64);

/// 0001-01-01T00:00:00 up to the last microsecond of 9999-12-31.
const FOUR_DIGIT_YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

impl Micros {
    const PER_HOUR: i64 = 3_600_000_000;

    /// The hour that it lies in, counted from 1970-01-01T00:00:00.
    pub const fn hour(self) -> i64 {
        self.0.div_euclid(Self::PER_HOUR)
    }

    /// The beginning of an hour; the nearest representable time for one beyond all times.
    #[must_use]
    pub const fn of_hour(hour: i64) -> Self {
        Self(hour.saturating_mul(Self::PER_HOUR))
    }

    /// The beginning of its second.
    #[must_use]
    pub const fn cut_to_second(self) -> Self {
        Self(self.0 - self.0.rem_euclid(1_000_000))
    }

    /// The date, or `None` outside of what chrono can hold (some 262,000 years either way).
    pub fn to_datetime(self) -> Option<NaiveDateTime> {
        DateTime::from_timestamp_micros(self.0).map(|at| at.naive_utc())
    }

    /// The microseconds of a date that is UTC.
    pub fn from_datetime(at: NaiveDateTime) -> Self {
        Self(at.and_utc().timestamp_micros())
    }

    /// Whether ISO 8601 with four digits for the year can say it: what JSON carries.
    pub fn has_four_digit_year(self) -> bool {
        FOUR_DIGIT_YEARS.contains(&self.0)
    }

    /// This time less a duration; stops at the smallest representable time.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// ISO 8601 without a zone, with a fraction only where there is one: `2013-01-01T00:05:00`, `2013-01-01T00:05:00.250000`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_datetime() {
            Some(at) if self.0.rem_euclid(1_000_000) == 0 => write!(f, "{}", at.format("%Y-%m-%dT%H:%M:%S")),
            Some(at) => write!(f, "{}", at.format("%Y-%m-%dT%H:%M:%S%.6f")),
            None => write!(f, "{} us", self.0),
        }
    }
}

/// Reads `2013-01-01T00:05:00`, the same with a blank for the `T`, with a fraction, or a date alone.
impl FromStr for Micros {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
            .or_else(|_| chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(chrono::NaiveTime::MIN)))
            .map(Self::from_datetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_fraction_is_written_without_one() {
        let at: Micros = "2013-01-01 00:05:00".parse().unwrap();
        assert_eq!(at.to_string(), "2013-01-01T00:05:00");
        assert_eq!(Micros(at.0 + 250_000).to_string(), "2013-01-01T00:05:00.250000");
        assert_eq!(Micros(-1).to_string(), "1969-12-31T23:59:59.999999");
    }

    #[test]
    fn hours_and_seconds_are_cut_downwards_also_before_1970() {
        for (text, hour, second) in [
            ("1970-01-01T00:59:59.999999", 0, "1970-01-01T00:59:59"),
            ("1969-12-31T23:59:59.999999", -1, "1969-12-31T23:59:59"),
            ("1969-12-31T23:00:00", -1, "1969-12-31T23:00:00"),
        ] {
            let at: Micros = text.parse().unwrap();
            assert_eq!((at.hour(), at.cut_to_second().to_string().as_str()), (hour, second));
            assert!(Micros::of_hour(hour) <= at && at < Micros::of_hour(hour + 1));
        }
        assert_eq!(Micros::of_hour(i64::MAX), Micros(i64::MAX));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for micros in [0, 1, -1, 1_357_000_000_250_000, -62_135_596_800_000_000, 253_402_300_799_999_999] {
            assert_eq!(Micros(micros).to_string().parse(), Ok(Micros(micros)));
        }
    }
}
