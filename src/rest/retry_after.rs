//! The Retry-After header: seconds, or a date; and dates as HTTP writes them.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};

/// How long the server wishes to be left alone, seen from `now`; `None` for what nobody can read. Not clamped.
pub(super) fn parse(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    Some((date(text)? - now).to_std().unwrap_or_default())
}

/// A date as HTTP writes it: `Tue, 24 Nov 2026 06:01:30 GMT`.
pub(super) fn date(text: &str) -> Option<DateTime<Utc>> {
    Some(NaiveDateTime::parse_from_str(text.trim(), "%a, %d %b %Y %H:%M:%S GMT").ok()?.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood() {
        let now: DateTime<Utc> = "2026-11-24T06:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Tue, 24 Nov 2026 06:01:30 GMT", Some(90)),
            ("Tue, 24 Nov 2026 05:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            assert_eq!(parse(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
