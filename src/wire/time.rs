//! Dates in JSON: ISO 8601 without a zone, with microseconds only where there are any.
//!
//! The one rule: what is written equals [`Micros`]'s own text; this is only faster, because neighbouring rows share their second or day.

use crate::domain::Micros;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Writes times, remembering the last second.
#[derive(Debug)]
pub struct TimeWriter {
    day: i64,
    second: i64,
    /// `YYYY-MM-DDTHH:MM:SS` of `second`.
    text: [u8; 19],
}

impl Default for TimeWriter {
    fn default() -> Self {
        Self { day: i64::MIN, second: i64::MIN, text: *b"0000-00-00T00:00:00" }
    }
}

impl TimeWriter {
    /// Appends a time without quotes; false, with nothing appended, for one outside of the years 1 to 9999.
    pub fn write(&mut self, time: Micros, out: &mut Vec<u8>) -> bool {
        if !time.has_four_digit_year() {
            return false;
        }
        let second = time.0.div_euclid(MICROS_PER_SECOND);
        if second != self.second {
            self.turn_to(second);
        }
        out.extend_from_slice(&self.text);
        let fraction = time.0.rem_euclid(MICROS_PER_SECOND);
        if fraction != 0 {
            let mut digits = *b".000000";
            put(&mut digits[1..], fraction);
            out.extend_from_slice(&digits);
        }
        true
    }

    fn turn_to(&mut self, second: i64) {
        let day = second.div_euclid(SECONDS_PER_DAY);
        if day != self.day {
            let (year, month, of_month) = civil(day);
            put(&mut self.text[0..4], year);
            put(&mut self.text[5..7], month);
            put(&mut self.text[8..10], of_month);
            self.day = day;
        }
        let of_day = second.rem_euclid(SECONDS_PER_DAY);
        put(&mut self.text[11..13], of_day / 3600);
        put(&mut self.text[14..16], of_day / 60 % 60);
        put(&mut self.text[17..19], of_day % 60);
        self.second = second;
    }
}

/// Fills a field with a number's decimal digits, zeros in front.
fn put(field: &mut [u8], mut number: i64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of the month of a day counted from 1970-01-01. Years are counted from March, so that the leap day is a year's last.
fn civil(day: i64) -> (i64, i64, i64) {
    let from_march_of_0 = day + 719_468;
    let era = from_march_of_0.div_euclid(146_097);
    let of_era = from_march_of_0.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(times: &[i64]) -> String {
        let mut writer = TimeWriter::default();
        let mut out = Vec::new();
        for &time in times {
            assert!(writer.write(Micros(time), &mut out), "{time}");
            out.push(b'\n');
        }
        String::from_utf8(out).unwrap()
    }

    fn expected(times: &[i64]) -> String {
        times.iter().fold(String::new(), |all, &time| all + &Micros(time).to_string() + "\n")
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_written_as_chrono_writes_it() {
        let days: Vec<i64> = (-719_162..2_932_896).step_by(13).map(|day| day * 86_400_000_000 + 3_723_000_000).collect();
        assert_eq!(written(&days), expected(&days));
        let edges = [-62_135_596_800_000_000, 253_402_300_799_999_999, 951_782_400_000_000, 4_107_542_400_000_000, -1, 0];
        assert_eq!(written(&edges), expected(&edges));
    }

    #[test]
    fn a_year_that_servers_cannot_hold_is_not_written() {
        let mut out = Vec::new();
        assert!(!TimeWriter::default().write(Micros(253_402_300_800_000_000), &mut out));
        assert!(!TimeWriter::default().write(Micros(i64::MIN), &mut out));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn any_times_in_any_order_are_written_as_the_domain_writes_them(
            times in prop::collection::vec(-62_135_596_800_000_000_i64..253_402_300_800_000_000, 1..20),
            near in prop::collection::vec(1_357_000_000_000_000_i64..1_357_000_200_000_000, 1..20),
        ) {
            prop_assert_eq!(written(&times), expected(&times));
            prop_assert_eq!(written(&near), expected(&near));
        }
    }
}
