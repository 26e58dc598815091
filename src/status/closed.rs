//! The status of an outbox that is not open.
//!
//! The one rule: what is not known is told as unknown, and never as none: an alarm must not end because a disk failed.

use super::{DestinationStatus, Figures, State, StreamStatus, capture::CaptureStatus, sentence};
use crate::{
    domain::{Micros, Stream},
    outbox::remains::Remains,
};

/// As far as it can be told of what a copy of it still holds, or of nothing.
pub fn of_closed(destination: &str, why: &str, remains: Option<&Remains>, now: Micros) -> DestinationStatus {
    let left = remains.map(Remains::left);
    let streams: Vec<StreamStatus> = left
        .iter()
        .flat_map(|left| Stream::ALL.map(|stream| (left, stream)))
        .map(|(left, stream)| {
            let place = usize::from(stream.number());
            StreamStatus {
                stream,
                pending: left.pending[place],
                acked: None,
                captured: None,
                parked: left.parked[place],
                cursor: None,
                next: None,
                watermark: "unknown".to_owned(),
                behind_source: None,
                oldest_captured_at: left.oldest.map(|at| at.to_string()),
            }
        })
        .collect();
    let readable = match left.as_ref().map(|left| left.lost_chunks) {
        None => String::new(),
        Some(0) => "; the figures are those of what can still be read of a copy".to_owned(),
        Some(lost) => format!("; the figures are those of what can still be read of a copy, {lost} chunks cannot"),
    };
    DestinationStatus {
        destination: destination.to_owned(),
        state: State::Closed,
        capture: CaptureStatus::default(),
        sentence: format!("{why}{readable}"),
        next_try_seconds: None,
        rows_per_second: None,
        eta_seconds: None,
        epoch: remains.and_then(Remains::epoch).map_or_else(|| "unknown".to_owned(), |epoch| epoch.to_string()),
        figures: if left.is_some() { Figures::Copy } else { Figures::Unknown },
        figures_at: left.is_some().then(|| now.to_string()),
        pending: left.is_some().then(|| streams.iter().map(|stream| stream.pending).sum()),
        parked: left.is_some().then(|| streams.iter().map(|stream| stream.parked).sum()),
        pending_bytes: None,
        disk_bytes: None,
        oldest_age_seconds: left.as_ref().and_then(|left| left.oldest).map(|at| now.since(at).as_secs()),
        last_success: None,
        last_error: None,
        streams,
        held: Vec::new(),
    }
}

/// Of one that was open: what it was then. Rows that waited go on growing old.
pub fn of_last(last: &DestinationStatus, why: &str, now: Micros) -> DestinationStatus {
    let captured_at = last.streams.iter().filter_map(|stream| stream.oldest_captured_at.as_deref()?.parse().ok());
    let oldest: Option<Micros> = captured_at.min();
    let at = last.figures_at.as_deref().and_then(|at| at.parse().ok()).map(|at| sentence::clock(at, now));
    let as_of = at.map(|at| format!("; the figures are those of {at}")).unwrap_or_default();
    DestinationStatus {
        state: State::Closed,
        capture: CaptureStatus::default(),
        sentence: format!("{why}{as_of}"),
        figures: Figures::Last,
        next_try_seconds: None,
        rows_per_second: None,
        eta_seconds: None,
        oldest_age_seconds: oldest.map(|at| now.since(at).as_secs()),
        ..last.clone()
    }
}
