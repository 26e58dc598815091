//! A destination's state in one sentence, for the table, the page and the log. Pure.
//!
//! The one rule: it says what is, since when, and what comes next; an operator who reads only this knows whether to get up.

use std::time::Duration;

use super::{DestinationStatus, State};
use crate::{
    domain::{Micros, Verdict},
    sender::helm::{Doing, Trouble},
};

/// The sentence. `doing` is what the sender is at, and that nothing gets through.
pub(super) fn sentence(status: &DestinationStatus, doing: Option<(&Doing, Option<Trouble>)>, now: Micros) -> String {
    let mut parts = vec![lead(status, doing, now)];
    if let Some(seconds) = status.next_try_seconds {
        parts.push(format!("next try in {}", span(seconds)));
    }
    if status.pending > Some(0) {
        parts.push(format!("{} waiting", pending(status)));
        if let Some(age) = status.oldest_age_seconds {
            parts.push(format!("oldest {}", span(age)));
        }
    }
    if let Some(eta) = status.eta_seconds.filter(|_| matches!(status.state, State::Sending | State::Syncing)) {
        parts.push(format!("done in about {}", span(eta)));
    }
    if let Some(parked) = status.parked.filter(|rows| *rows > 0) {
        parts.push(format!("{} parked", number(parked)));
    }
    let sending = parts.join(", ");
    match (status.state, status.capture.sentence(now)) {
        (_, None) => sending,
        // There is nothing else to worry about.
        (State::Idle, Some(halt)) => format!("{halt}; {sending}"),
        (_, Some(halt)) => format!("{sending}; {halt}"),
    }
}

fn lead(status: &DestinationStatus, doing: Option<(&Doing, Option<Trouble>)>, now: Micros) -> String {
    match (status.state, doing) {
        (State::Waiting | State::Stuck, Some((doing, Some(trouble)))) => {
            let what = match trouble.verdict {
                Verdict::NotStored | Verdict::Accepted | Verdict::TooLarge => "waiting for the link",
                Verdict::Unknown => "waiting after requests without an answer",
                Verdict::Misconfigured => "needs a human: the destination does not answer as it should",
                Verdict::Refused => "needs a human: the destination refuses rows",
            };
            let tries = if matches!(doing, Doing::Waiting { .. }) { "" } else { ", trying now" };
            format!("{what} since {}{tries}", clock(trouble.since, now))
        }
        (State::Waiting | State::Stuck, _) => "waiting for the next try".to_owned(),
        (State::Sending, Some((Doing::Sending { stream, rows, .. }, _))) => {
            format!("sending {} {}", number(*rows as u64), stream.plural())
        }
        (State::Sending, _) => "sending".to_owned(),
        (State::Syncing, _) => "bringing the destination's catalog in step".to_owned(),
        (State::Starting, _) => "starting".to_owned(),
        (State::Paused, _) => "paused by an operator; `packhorse queue resume` lets it go on".to_owned(),
        (State::Stopped, _) => "packhorse is stopped".to_owned(),
        (State::Closed, _) => "the outbox does not open".to_owned(),
        (State::Idle, _) if status.pending > Some(0) => "gathering rows for the next request".to_owned(),
        (State::Idle, _) => match status.last_success.as_deref().and_then(|at| at.parse().ok()) {
            Some(at) => format!("nothing waits, last delivery at {}", clock(at, now)),
            None => "nothing waits, nothing delivered yet".to_owned(),
        },
    }
}

fn pending(status: &DestinationStatus) -> String {
    let streams = status.streams.iter().filter(|stream| stream.pending > 0);
    let parts: Vec<_> = streams.map(|stream| format!("{} {}", number(stream.pending), stream.stream.plural())).collect();
    parts.join(" and ")
}

/// A time of day, with its date when that is another day; UTC.
pub fn clock(at: Micros, now: Micros) -> String {
    let form = if at.0.div_euclid(DAY_MICROS) == now.0.div_euclid(DAY_MICROS) { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.to_datetime().map_or_else(|| at.to_string(), |at| format!("{} UTC", at.format(form)))
}

const DAY_MICROS: i64 = 86_400_000_000;

/// A duration to its largest unit, roughly: "35 s", "3 h", "12 d".
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The same of a duration.
pub fn span_of(duration: Duration) -> String {
    span(duration.as_secs())
}

/// A number with its thousands apart: 12,403.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Outcome, Seq, Stream},
        status::{
            Figures, StreamStatus,
            capture::{CaptureState, CaptureStatus},
        },
    };

    fn status(state: State) -> DestinationStatus {
        let stream = StreamStatus {
            stream: Stream::Reading,
            pending: 12_403,
            acked: Some(0),
            captured: Some(12_403),
            parked: 0,
            cursor: Some(Seq(0)),
            next: Some(Seq(0)),
            watermark: String::new(),
            behind_source: None,
            oldest_captured_at: None,
        };
        DestinationStatus {
            destination: "central".into(),
            state,
            capture: CaptureStatus::default(),
            sentence: String::new(),
            next_try_seconds: None,
            rows_per_second: None,
            eta_seconds: None,
            epoch: String::new(),
            figures: Figures::Outbox,
            figures_at: None,
            pending: Some(12_403),
            parked: Some(0),
            pending_bytes: Some(0),
            disk_bytes: Some(0),
            oldest_age_seconds: Some(3 * 3_600 + 100),
            last_success: None,
            last_error: None,
            streams: vec![stream],
            held: Vec::new(),
        }
    }

    #[test]
    fn a_destination_that_is_away_is_told_with_since_when_next_try_and_what_waits() {
        let at = |text: &str| text.parse::<Micros>().unwrap();
        let status = DestinationStatus { next_try_seconds: Some(35), ..status(State::Waiting) };
        let doing = Doing::Waiting { outcome: Outcome::new(Verdict::NotStored, "away"), until: at("2026-01-01T15:00:35") };
        let trouble = Some(Trouble { since: at("2026-01-01T14:02:10"), verdict: Verdict::NotStored });
        assert_eq!(
            sentence(&status, Some((&doing, trouble)), at("2026-01-01T15:00:00")),
            "waiting for the link since 14:02 UTC, next try in 35 s, 12,403 readings waiting, oldest 3 h"
        );
        // A try that is under way changes nothing yet.
        let status = DestinationStatus { next_try_seconds: None, ..status };
        let doing = Doing::Sending { stream: Stream::Reading, rows: 10_000, since: at("2026-01-01T15:00:35") };
        assert_eq!(
            sentence(&status, Some((&doing, trouble)), at("2026-01-01T15:00:36")),
            "waiting for the link since 14:02 UTC, trying now, 12,403 readings waiting, oldest 3 h"
        );
        assert_eq!(clock(at("2025-12-31T23:59:00"), at("2026-01-01T00:00:00")), "2025-12-31 23:59 UTC");
    }

    #[test]
    fn a_sender_at_work_says_when_it_is_going_to_be_done() {
        let status = DestinationStatus { eta_seconds: Some(500), parked: Some(7), ..status(State::Sending) };
        let doing = Doing::Sending { stream: Stream::Reading, rows: 10_000, since: Micros(0) };
        assert_eq!(
            sentence(&status, Some((&doing, None)), Micros(0)),
            "sending 10,000 readings, 12,403 readings waiting, oldest 3 h, done in about 8 min, 7 parked"
        );
    }

    #[test]
    fn a_source_that_cannot_be_read_is_told_first_where_nothing_waits_and_last_elsewhere() {
        let at = |text: &str| text.parse::<Micros>().unwrap();
        let now = at("2026-01-01T15:00:00");
        let capture = CaptureStatus {
            state: CaptureState::Stuck,
            since: Some("2026-01-01T14:02:10".into()),
            for_seconds: Some(3_470),
            why: Some("the source database refuses: the password".into()),
        };
        let last_success = Some("2026-01-01T14:01:00".into());
        let idle = DestinationStatus { pending: Some(0), last_success, capture: capture.clone(), ..status(State::Idle) };
        assert_eq!(
            sentence(&idle, Some((&Doing::Idle, None)), now),
            "the source cannot be read since 14:02 UTC: the source database refuses: the password; nothing waits, last delivery at 14:01 UTC"
        );
        let capture = CaptureStatus { state: CaptureState::Paused, why: Some("the disk is full".into()), ..capture };
        let status = DestinationStatus { capture, ..status(State::Paused) };
        let told = sentence(&status, None, now);
        assert!(
            told.starts_with("paused by an operator") && told.ends_with("; capture pauses since 14:02 UTC: the disk is full"),
            "{told}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }
}
