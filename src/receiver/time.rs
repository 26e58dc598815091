//! Times of requests to the one text that is stored.
//!
//! The one rule: what is stored has the year in four digits and a fraction only where there is one, so that text order is time order.

use chrono::{NaiveDate, NaiveDateTime};

use crate::domain::Micros;

/// 0000-01-01T00:00:00 and 9999-12-31T23:59:59.999999: what four digits can say.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// How a zone behind a time is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// UTC may be said; any other is refused rather than stored wrong.
    Utc,
    /// Cut off unread, as the legacy server does.
    Ignored,
}

/// The canonical text of a time, or the text itself when it is none.
pub(super) fn canonical(text: String, zone: Zone) -> Result<String, String> {
    if is_canonical_second(text.as_bytes()) {
        return Ok(text);
    }
    let bare = match zone {
        Zone::Utc => text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(&text),
        Zone::Ignored => {
            let clock = text.find(['T', ' ']).unwrap_or(text.len());
            let end = text[clock..].find(['Z', '+', '-']).map_or(text.len(), |at| clock + at);
            &text[..end]
        }
    };
    match bare.parse::<Micros>() {
        Ok(at) if RANGE.contains(&at.0) => Ok(at.to_string()),
        Ok(_) | Err(_) => Err(text),
    }
}

/// A canonical time without its fraction: the legacy database keeps whole seconds.
pub(super) fn cut_to_second(mut text: String) -> String {
    if let Some(dot) = text.find('.') {
        text.truncate(dot);
    }
    text
}

/// The time that a canonical text names.
pub(super) fn datetime(canonical: &str) -> Option<NaiveDateTime> {
    let text = canonical.as_bytes();
    let number = |from: usize, to: usize| {
        text.get(from..to)?
            .iter()
            .try_fold(0_u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
    };
    let day = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    let micros = if text.len() == 26 { number(20, 26)? } else { 0 };
    day.and_hms_micro_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, micros)
}

/// Whether these bytes are `YYYY-MM-DDTHH:MM:SS` and a real time: the common case, decided without an allocation.
fn is_canonical_second(text: &[u8]) -> bool {
    const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";
    let fits = text.len() == SHAPE.len()
        && text.iter().zip(SHAPE).all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape });
    if !fits {
        return false;
    }
    let number = |from: usize, to: usize| text[from..to].iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let day = NaiveDate::from_ymd_opt(number(0, 4) as i32, number(5, 7), number(8, 10));
    day.is_some() && hour < 24 && minute < 60 && second < 60
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<String> {
        canonical(text.to_owned(), Zone::Utc).ok()
    }

    #[test]
    fn a_time_is_stored_with_a_fraction_only_where_there_is_one() {
        assert_eq!(utc("2013-01-01T00:05:00").as_deref(), Some("2013-01-01T00:05:00"));
        assert_eq!(utc("2013-01-01 00:05:00.25").as_deref(), Some("2013-01-01T00:05:00.250000"));
        assert_eq!(utc("2013-01-01T00:05:00.000000").as_deref(), Some("2013-01-01T00:05:00"));
        assert_eq!(utc("2013-01-01").as_deref(), Some("2013-01-01T00:00:00"));
    }

    #[test]
    fn a_zone_other_than_utc_is_refused_rather_than_stored_wrong() {
        assert_eq!(utc("2013-01-01T00:05:00Z").as_deref(), Some("2013-01-01T00:05:00"));
        assert_eq!(utc("2013-01-01T00:05:00+00:00").as_deref(), Some("2013-01-01T00:05:00"));
        assert_eq!(utc("2013-01-01T00:05:00+01:00"), None);
    }

    #[test]
    fn the_legacy_manner_cuts_a_zone_off_unread() {
        for text in ["2013-01-01T00:05:00Z", "2013-01-01T00:05:00+01:00", "2013-01-01T00:05:00-05:00"] {
            assert_eq!(canonical(text.to_owned(), Zone::Ignored).as_deref(), Ok("2013-01-01T00:05:00"));
        }
    }

    #[test]
    fn a_canonical_text_names_its_time() {
        for text in ["2013-01-01T00:05:00", "2013-01-01T00:05:00.250000", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"] {
            let time = datetime(text).unwrap();
            assert_eq!(Some(time), text.parse::<Micros>().unwrap().to_datetime());
            assert_eq!(Micros::from_datetime(time).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "x", "2013-02-30T00:00:00", "2013-01-01T24:00:00", "12013-01-01T00:00:00", "2013-01-01T00:00:00é"] {
            assert_eq!(utc(text), None, "{text}");
        }
    }
}
