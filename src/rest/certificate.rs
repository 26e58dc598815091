//! Until when a certificate is valid: a walk through its DER down to the one date.
//!
//! The one rule: this judges nothing. Whether a certificate is to be trusted was decided by rustls before; here is only read, for people,
//! how long it will be.

use chrono::{DateTime, NaiveDate, Utc};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which the first certificates lack.
const VERSION: u8 = 0xa0;

/// The end of a certificate's validity; `None` for what is not a certificate.
pub(super) fn not_after(der: &[u8]) -> Option<DateTime<Utc>> {
    let (certificate, _) = field(der, SEQUENCE)?;
    let (signed, _) = field(certificate, SEQUENCE)?;
    let rest = field(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = field(rest, INTEGER)?;
    let (_signature, rest) = field(rest, SEQUENCE)?;
    let (_issuer, rest) = field(rest, SEQUENCE)?;
    let (validity, _) = field(rest, SEQUENCE)?;
    let (_, _, after_begin) = first(validity)?;
    let (tag, end, _) = first(after_begin)?;
    time(tag, end)
}

/// The content of a field with this tag, and what follows it.
fn field(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = first(der)?;
    (found == tag).then_some((content, rest))
}

/// A field's tag and content, and what follows it.
fn first(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&size, rest) = rest.split_first()?;
    let (length, rest) = match size {
        0..=0x7f => (usize::from(size), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(size & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, of the years 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    if text.len() != year_digits + 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = text.split_at(year_digits);
    let year = match year.parse::<i32>().ok()? {
        year @ 0..50 if tag == UTC_TIME => 2000 + year,
        year if tag == UTC_TIME => 1900 + year,
        year => year,
    };
    let two = |place: usize| rest[2 * place..2 * place + 2].parse::<u32>().ok();
    let day = NaiveDate::from_ymd_opt(year, two(0)?, two(1)?)?;
    Some(day.and_hms_opt(two(2)?, two(3)?, two(4)?)?.and_utc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    fn server() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("../../tests/tls/server.pem")).unwrap()
    }

    #[test]
    fn the_end_of_a_real_certificate_is_read() {
        assert_eq!(not_after(&server()).unwrap().to_rfc3339(), "2126-10-31T06:20:29+00:00");
    }

    #[test]
    fn both_ways_to_write_a_date_are_read() {
        let read = |tag, text: &[u8]| time(tag, text).map(|at| at.to_rfc3339());
        assert_eq!(read(UTC_TIME, b"270102030405Z").as_deref(), Some("2027-01-02T03:04:05+00:00"));
        assert_eq!(read(UTC_TIME, b"991231235959Z").as_deref(), Some("1999-12-31T23:59:59+00:00"));
        assert_eq!(read(GENERALIZED_TIME, b"20500102030405Z").as_deref(), Some("2050-01-02T03:04:05+00:00"));
        for (tag, text) in [(UTC_TIME, &b"271302030405Z"[..]), (UTC_TIME, b"2701020304Z"), (INTEGER, b"270102030405Z")] {
            assert_eq!(read(tag, text), None);
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
        }

        #[test]
        fn a_garbled_certificate_is_no_panic(at in 0_usize..400, byte in any::<u8>(), cut in 0_usize..400) {
            let mut der = server().to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = not_after(&der);
            let _ = not_after(&der[..cut.min(der.len())]);
        }
    }
}
