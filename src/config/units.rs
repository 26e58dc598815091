//! Durations and sizes as people write them: `10s`, `5min`, `30d`; `64MiB`, `1GiB`, plain bytes.

use std::{str::FromStr as _, time::Duration};

use bytesize::ByteSize;

/// Reads a duration with a unit; for the configuration and the command line alike.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| "not a duration: write a number with a unit, such as 250ms, 10s, 5min, 1h or 30d".to_owned())
}

/// Reads a size in bytes.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    // The library takes any text that begins like a number; "1.2.3" or "1e9" are typing errors.
    let plain = number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || c == '.')
        && number.matches('.').count() <= 1;
    plain
        .then(|| ByteSize::from_str(text).ok())
        .flatten()
        .map(|size| size.as_u64())
        .ok_or_else(|| "not a size: write a number with a unit, such as 512KiB, 64MiB or 1GiB, or plain bytes".to_owned())
}

/// A duration for people, exact: `5m`, `30days`.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A size for people: `64.0 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_documentation_are_read() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("5min", 300_000), ("1h", 3_600_000), ("30d", 2_592_000_000), (" 2s ", 2_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "-1s", "10 parsecs", "s", "99999999999999999999s", "1e3s"] {
            assert!(duration(text).is_err(), "{text} was taken for a duration");
        }
    }

    #[test]
    fn sizes_of_the_documentation_are_read() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("512KiB", 512 << 10),
            ("4194304", 4 << 20),
            ("1.5MiB", 3 << 19),
            ("1 MiB", 1 << 20),
            ("2MB", 2_000_000),
            ("0", 0),
        ] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.2.3", "1e9", "64 MiBs", "64MiB/s", "half a GiB"] {
            assert!(size_bytes(text).is_err(), "{text} was taken for a size");
        }
    }
}
