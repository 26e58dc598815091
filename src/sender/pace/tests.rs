//! Destinations with a link, a server and a limit, against which the pace is let loose.

use proptest::prelude::*;

use super::*;

/// A link and a server, in figures.
#[derive(Clone, Copy, Debug)]
struct Place {
    bytes_per_second: f64,
    round_trip: f64,
    row_seconds: f64,
    row_bytes: f64,
    /// Bytes of a body that lie in buffers on the way and look as if they had arrived.
    buffer: f64,
    /// Larger bodies are refused.
    limit: u64,
}

const LAN: Place =
    Place { bytes_per_second: 1e8, round_trip: 0.001, row_seconds: 6e-6, row_bytes: 6.4, buffer: 0.0, limit: u64::MAX };
/// 128 kbit/s and a round trip of 600 ms.
const GPRS: Place = Place { bytes_per_second: 16_000.0, round_trip: 0.6, ..LAN };
const SLOW: Place = Place { bytes_per_second: 2_000.0, ..GPRS };

const READING: Stream = Stream::Reading;
const MAX: u64 = 4 << 20;

fn pace() -> Pace {
    Pace::new(50_000, MAX, Aim::default())
}

impl Place {
    fn body(&self, rows: usize) -> u64 {
        (rows as f64 * self.row_bytes) as u64 + 20
    }

    fn sample(&self, rows: usize) -> Sample {
        let bytes = self.body(rows) as f64;
        let unseen = bytes.min(self.buffer);
        let uploaded = self.round_trip + (bytes - unseen) / self.bytes_per_second;
        let answered = self.round_trip + rows as f64 * self.row_seconds + unseen / self.bytes_per_second;
        let [uploaded, answered] = [uploaded, answered].map(Duration::from_secs_f64);
        Sample { rows, body_bytes: self.body(rows), uploaded, answered }
    }

    /// Sends so many rows; `false` when that was too large.
    fn send(&self, pace: &mut Pace, rows: usize) -> bool {
        pace.sent(READING, rows, self.body(rows));
        if self.body(rows) > self.limit.min(MAX) {
            pace.too_large(rows);
            return false;
        }
        pace.accepted(READING, &self.sample(rows));
        true
    }

    /// Sends as many rows as the pace lets, so often; how many requests were too large.
    fn drain(&self, pace: &mut Pace, requests: usize) -> usize {
        (0..requests).filter(|_| !self.send(pace, pace.rows(READING))).count()
    }

    fn link_seconds(&self, pace: &Pace) -> f64 {
        self.body(pace.rows(READING)) as f64 / self.bytes_per_second
    }
}

#[test]
fn requests_take_ten_to_twenty_seconds_of_a_slow_link_within_few_requests() {
    for place in [GPRS, SLOW, Place { bytes_per_second: 10_000.0, ..GPRS }, Place { row_bytes: 30.0, ..GPRS }] {
        let mut pace = pace();
        place.drain(&mut pace, 8);
        let seconds = place.link_seconds(&pace);
        assert!((9.0..=20.0).contains(&seconds), "{place:?}: {seconds} s");
        place.drain(&mut pace, 100);
        let seconds = place.link_seconds(&pace);
        assert!((9.0..=20.0).contains(&seconds), "{place:?}: it stays there: {seconds} s");
    }
}

#[test]
fn what_lies_in_a_buffer_on_the_way_does_not_make_requests_grow_without_end() {
    for buffer in [16_384.0, 49_152.0] {
        let (link, mut pace) = (Place { buffer, ..SLOW }, pace());
        pace.slow_down();
        for request in 0..50 {
            let seconds = link.link_seconds(&pace);
            assert!(seconds <= 40.0, "request {request} takes {seconds} s of the link");
            link.drain(&mut pace, 1);
        }
    }
}

#[test]
fn a_fast_link_gets_as_many_rows_as_are_of_use() {
    let mut pace = pace();
    assert_eq!(LAN.drain(&mut pace, 4), 0);
    assert_eq!(pace.rows(READING), PLAIN_ROWS);
    LAN.drain(&mut pace, 1_000);
    assert_eq!(pace.rows(READING), PLAIN_ROWS);
}

#[test]
fn a_link_that_gets_slower_or_faster_is_followed() {
    let mut pace = pace();
    for place in [GPRS, SLOW, GPRS, LAN, SLOW, LAN, GPRS] {
        place.drain(&mut pace, 12);
        if place.bytes_per_second > 1e6 {
            assert_eq!(pace.rows(READING), PLAIN_ROWS);
        } else {
            let seconds = place.link_seconds(&pace);
            assert!((9.0..=20.0).contains(&seconds), "{place:?}: {seconds} s");
        }
    }
}

#[test]
fn a_server_is_not_given_more_than_it_stores_in_five_seconds() {
    for (row_seconds, rows) in [(210e-6, PLAIN_ROWS), (1.2e-3, 4_166), (5e-3, 1_000), (1.0, SERVER_ROWS_MIN)] {
        let mut pace = pace();
        Place { row_seconds, ..LAN }.drain(&mut pace, 60);
        let found = pace.rows(READING) as f64;
        assert!((found / rows as f64 - 1.0).abs() < 0.2, "{row_seconds} s a row: {found} rows, expected {rows}");
    }
    // Whatever a server takes for any request at all makes none smaller.
    let mut pace = pace();
    Place { round_trip: 4.0, ..GPRS }.drain(&mut pace, 60);
    assert!(pace.rows(READING) > 10_000, "{}", pace.rows(READING));
}

#[test]
fn trickles_tell_nothing_of_how_slow_a_link_is() {
    let mut pace = pace();
    GPRS.drain(&mut pace, 12);
    let rows = pace.rows(READING);
    for _ in 0..200 {
        GPRS.send(&mut pace, 7);
    }
    assert_eq!(pace.rows(READING), rows);
}

#[test]
fn a_size_that_was_too_large_is_remembered_and_tried_ever_more_rarely() {
    for link in [LAN, GPRS] {
        let limited = Place { limit: 50_000, ..link };
        let mut pace = pace();
        let refused = limited.drain(&mut pace, 10_000);
        assert!(refused < 40, "{refused} of 10,000");
        let body = limited.body(pace.rows(READING));
        assert!((35_000..=50_000).contains(&body), "{body}");
    }
}

#[test]
fn a_limit_that_is_gone_is_forgotten() {
    let mut pace = pace();
    Place { limit: 20_000, ..LAN }.drain(&mut pace, 100);
    assert!(pace.rows(READING) < 3_200);
    LAN.drain(&mut pace, 3_000);
    assert_eq!(pace.rows(READING), PLAIN_ROWS);
}

#[test]
fn what_fits_is_said_of_each_stream() {
    let mut pace = pace();
    GPRS.drain(&mut pace, 20);
    let of_readings = pace.rows(READING);
    pace.sent(Stream::NodeState, 1_000, 32_000);
    let of_states = pace.rows(Stream::NodeState);
    assert!(
        (of_states as f64 * 32.0 / (of_readings as f64 * GPRS.row_bytes) - 1.0).abs() < 0.05,
        "{of_states} and {of_readings}"
    );
}

#[test]
fn after_an_outage_that_looked_like_a_limit_requests_grow_again() {
    let mut pace = pace();
    LAN.send(&mut pace, 10);
    let mut waits = 0;
    for _ in 0..40 {
        let rows = pace.rows(READING);
        pace.sent(READING, rows, LAN.body(rows));
        // A single row is waited for anyway.
        waits += usize::from(rows == 1 || !pace.too_large(rows));
    }
    assert!(waits > 20, "and it is waited between the tries: {waits}");
    LAN.drain(&mut pace, 4_000);
    assert_eq!(pace.rows(READING), PLAIN_ROWS);
}

#[test]
fn unknown_outcomes_make_requests_smaller_and_success_makes_them_larger_again() {
    let mut pace = pace();
    GPRS.drain(&mut pace, 12);
    let rows = pace.rows(READING);
    pace.slow_down();
    assert!(pace.rows(READING) <= rows / 2);
    for _ in 0..20 {
        pace.slow_down();
    }
    let smallest = GPRS.body(pace.rows(READING));
    assert!((BYTES_MIN * 9 / 10..=BYTES_MIN + 20).contains(&smallest), "{smallest}");
    GPRS.drain(&mut pace, 2);
    assert!(GPRS.body(pace.rows(READING)) <= BYTES_MIN + 20, "not at once");
    GPRS.drain(&mut pace, 30);
    assert!((9.0..=20.0).contains(&GPRS.link_seconds(&pace)));
}

#[test]
fn a_small_bound_is_kept() {
    let mut pace = Pace::new(100, 1_000, Aim::default());
    for _ in 0..100 {
        let rows = pace.rows(READING);
        assert!(rows <= 100 && LAN.body(rows) <= 1_020, "{rows}");
        LAN.send(&mut pace, rows);
    }
}

/// What may become of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Accepted { place: Place, share: f64 },
    TooLarge,
    Unknown,
}

fn fate() -> impl Strategy<Value = Fate> {
    let place =
        (1.0..1e9, 0.0..30.0, 0.0..10.0, 1.0..10_000.0).prop_map(|(bytes_per_second, round_trip, row_seconds, row_bytes)| {
            Place { bytes_per_second, round_trip, row_seconds, row_bytes, buffer: 0.0, limit: u64::MAX }
        });
    prop_oneof![
        4 => (place, 0.0..1.0).prop_map(|(place, share)| Fate::Accepted { place, share }),
        1 => Just(Fate::TooLarge),
        1 => Just(Fate::Unknown),
    ]
}

proptest! {
    #[test]
    fn a_row_is_always_sent_and_never_more_than_allowed(
        rows_max in 1_usize..100_000, bytes_max in 1_u64..10_000_000, fates in proptest::collection::vec(fate(), 0..200)
    ) {
        let mut pace = Pace::new(rows_max, bytes_max, Aim::default());
        for fate in fates {
            let rows = pace.rows(READING);
            prop_assert!((1..=rows_max).contains(&rows));
            prop_assert!(pace.size >= 1 && pace.size <= bytes_max);
            match fate {
                Fate::Accepted { place, share } => {
                    let rows = ((rows as f64 * share) as usize).max(1);
                    pace.sent(READING, rows, place.body(rows));
                    pace.accepted(READING, &place.sample(rows));
                }
                Fate::TooLarge => {
                    pace.too_large(rows);
                    prop_assert!(pace.rows(READING) < rows || rows == 1, "the next one is smaller");
                }
                Fate::Unknown => pace.slow_down(),
            }
        }
    }

    #[test]
    fn every_steady_place_comes_to_rest_where_nothing_is_exceeded(
        bytes_per_second in 200.0..1e7, round_trip in 0.0..2.0, row_seconds in 0.0..0.002, row_bytes in 3.0..40.0
    ) {
        let place = Place { bytes_per_second, round_trip, row_seconds, row_bytes, buffer: 0.0, limit: u64::MAX };
        let mut pace = pace();
        place.drain(&mut pace, 60);
        let rows = pace.rows(READING);
        let is_least = place.body(rows) <= BYTES_MIN + 50;
        prop_assert!(is_least || place.link_seconds(&pace) < 22.0, "{} s of link", place.link_seconds(&pace));
        // Beside a link that is as slow, less well is known of the server: 11 s at the most in 300,000 places.
        prop_assert!(rows <= SERVER_ROWS_MIN || rows as f64 * row_seconds < 14.0, "{} s at the server", rows as f64 * row_seconds);
        // And something is what keeps it from being larger.
        let is_bounded = rows >= PLAIN_ROWS * 9 / 10 || place.link_seconds(&pace) > 7.0 || rows as f64 * row_seconds > 3.5 || is_least;
        prop_assert!(is_bounded, "{rows} rows, {} s of link", place.link_seconds(&pace));
    }
}
