//! What an operator wants to know of an outbox, gathered once and shown in every form: tables, JSON, later the page and the metrics.
//!
//! The one rule: figures come from what is durable, never from what a loop believes.

use std::time::Duration;

use serde::Serialize;

use crate::{
    domain::{Micros, Seq, Stream},
    outbox::{Outbox, StoreError},
};

/// One destination's outbox.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DestinationStatus {
    /// The destination's name.
    pub destination: String,
    /// The outbox's life, 16 hexadecimal digits.
    pub epoch: String,
    /// Records that wait, over all streams.
    pub pending: u64,
    /// Records that are set aside, over all streams.
    pub parked: u64,
    /// Encoded bytes of the records that wait: what `outbox_max` bounds.
    pub pending_bytes: u64,
    /// Bytes of the outbox's files.
    pub disk_bytes: u64,
    /// How long the oldest waiting record has waited since it was captured, seconds.
    pub oldest_age_seconds: Option<u64>,
    /// When the destination last took something, UTC.
    pub last_success: Option<String>,
    /// The last trouble with the destination, and when it began, UTC.
    pub last_error: Option<Trouble>,
    /// Each stream.
    pub streams: Vec<StreamStatus>,
    /// Rows held until an entity is mapped.
    pub held: Vec<Held>,
}

/// Trouble with a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// When it began, UTC.
    pub since: String,
    /// What it was.
    pub text: String,
}

/// Rows that wait for an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The entity, for example "House 3".
    pub entity: String,
    /// How many.
    pub rows: u64,
}

/// One stream of an outbox.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamStatus {
    /// Its name.
    pub stream: Stream,
    /// Records that wait.
    pub pending: u64,
    /// Records that the destination took.
    pub acked: u64,
    /// Records that are set aside.
    pub parked: u64,
    /// The first seq that is not settled.
    pub cursor: Seq,
    /// The seq of the next record to be appended.
    pub next: Seq,
    /// Where capture stands in the source.
    pub watermark: String,
    /// Rows of the source behind the watermark, capped; `None` when the source was not asked or did not answer.
    pub behind_source: Option<u64>,
    /// When the oldest waiting record was captured, UTC.
    pub oldest_captured_at: Option<String>,
}

/// Gathers an outbox's status as of `now` (the gateway's clock).
pub async fn gather(outbox: &Outbox, now: Micros) -> Result<DestinationStatus, StoreError> {
    let snapshot = outbox.snapshot();
    let mut streams = Vec::new();
    let mut oldest: Option<Micros> = None;
    for stream in Stream::ALL {
        let state = snapshot.stream(stream);
        let captured_at = outbox.oldest(stream).await?.map(|header| header.captured_at);
        oldest = oldest.into_iter().chain(captured_at).min();
        streams.push(StreamStatus {
            stream,
            pending: state.pending(),
            acked: state.acked,
            parked: state.parked_now(),
            cursor: state.cursor,
            next: state.next,
            watermark: state.watermark.to_string(),
            behind_source: None,
            oldest_captured_at: captured_at.map(|at| at.to_string()),
        });
    }
    Ok(DestinationStatus {
        destination: snapshot.meta.destination.clone(),
        epoch: snapshot.meta.epoch.to_string(),
        pending: snapshot.pending(),
        parked: snapshot.parked(),
        pending_bytes: snapshot.live_bytes(),
        disk_bytes: outbox.disk_bytes(),
        oldest_age_seconds: oldest.map(|at| now.since(at).as_secs()),
        last_success: snapshot.notes.last_success.map(|at| at.to_string()),
        last_error: snapshot.notes.last_trouble.clone().map(|(since, text)| Trouble { since: since.to_string(), text }),
        streams,
        held: snapshot.held.iter().map(|(what, held)| Held { entity: what.to_string(), rows: held.rows }).collect(),
    })
}

/// Which limits of an alarm a status crosses, as sentences; none when all is well.
pub fn alarms(status: &DestinationStatus, age_max: Option<Duration>, depth_max: Option<u64>) -> Vec<String> {
    let mut crossed = Vec::new();
    if let (Some(max), Some(age)) = (age_max, status.oldest_age_seconds)
        && age > max.as_secs()
    {
        crossed.push(format!("{}: the oldest record has waited {age} s, more than {} s", status.destination, max.as_secs()));
    }
    if let Some(max) = depth_max
        && status.pending > max
    {
        crossed.push(format!("{}: {} records wait, more than {max}", status.destination, status.pending));
    }
    crossed
}
