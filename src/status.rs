//! What an operator wants to know of an outbox, gathered once and shown in every form: tables, JSON, the page, the metrics.
//!
//! The one rule: figures come from what is durable, never from what a loop believes.

pub mod board;
pub mod capture;
pub mod chart;
mod closed;
pub mod history;
pub mod lines;
pub mod metrics;
pub mod page;
pub mod sampler;
pub mod sentence;
pub mod socket;
pub mod web;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::capture::{CaptureState, CaptureStatus};
pub use self::closed::{of_closed, of_last};
use crate::{
    capture::intake::Intake,
    domain::{Micros, Position, Seq, Stream, Verdict},
    outbox::{Outbox, Snapshot, StoreError},
    sender::helm::{Doing, Helm},
};

/// One destination's outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// The destination's name.
    pub destination: String,
    /// What the sender is doing.
    pub state: State,
    /// Whether rows of the source enter.
    pub capture: CaptureStatus,
    /// The same for people, with what matters of the rest.
    pub sentence: String,
    /// Until the next try, where one is waited for.
    pub next_try_seconds: Option<u64>,
    /// Rows that the destination takes a second, of late.
    pub rows_per_second: Option<f64>,
    /// How long what waits is going to take at that rate.
    pub eta_seconds: Option<u64>,
    /// The outbox's life, 16 hexadecimal digits.
    pub epoch: String,
    /// Where the figures come from. Those that are not known are `None`, and never 0.
    pub figures: Figures,
    /// When the figures were read, UTC.
    pub figures_at: Option<String>,
    /// Records that wait, over all streams.
    pub pending: Option<u64>,
    /// Records that are set aside, over all streams.
    pub parked: Option<u64>,
    /// Encoded bytes of the records that wait: what `outbox_max` bounds.
    pub pending_bytes: Option<u64>,
    /// Bytes of the outbox's files.
    pub disk_bytes: Option<u64>,
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

/// Where a status has its figures from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figures {
    /// From the outbox.
    Outbox,
    /// From the outbox when it was last open.
    Last,
    /// From what can be read of a copy.
    Copy,
    /// There are none.
    Unknown,
}

/// What becomes of the rows that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody runs.
    Stopped,
    /// The outbox does not open: it is damaged, or its disk fails.
    Closed,
    /// The sender has not begun yet.
    Starting,
    /// The destination's catalog is being brought in step.
    Syncing,
    /// A request is in flight.
    Sending,
    /// Nothing waits, or a trickle is being gathered.
    Idle,
    /// The next try is waited for.
    Waiting,
    /// The next try is waited for, and it will not help: a human is needed.
    Stuck,
    /// An operator paused it.
    Paused,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Stopped,
        Self::Closed,
        Self::Starting,
        Self::Syncing,
        Self::Sending,
        Self::Idle,
        Self::Waiting,
        Self::Stuck,
        Self::Paused,
    ];

    /// Its name in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Closed => "closed",
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::Sending => "sending",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
        }
    }
}

/// What a running sender adds to what its outbox says.
#[derive(Clone, Copy, Debug)]
pub enum Sender<'a> {
    /// It runs.
    Runs {
        /// Where it is seen.
        helm: &'a Helm,
        /// Where its capture is.
        intake: &'a Intake,
        /// What it has delivered a second of late.
        rows_per_second: Option<f64>,
    },
    /// Nobody runs.
    Stopped,
    /// Nobody runs, and an operator paused it.
    Paused,
}

/// Trouble with a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When it began, UTC.
    pub since: String,
    /// What it was.
    pub text: String,
}

/// Rows that wait for an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The entity, for example "House 3".
    pub entity: String,
    /// How many.
    pub rows: u64,
}

/// One stream of an outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its name.
    pub stream: Stream,
    /// Records that wait.
    pub pending: u64,
    /// Records that the destination took.
    pub acked: Option<u64>,
    /// Records that were captured, each once, in this life of the outbox.
    pub captured: Option<u64>,
    /// Records that are set aside.
    pub parked: u64,
    /// The first seq that is not settled.
    pub cursor: Option<Seq>,
    /// The seq of the next record to be appended.
    pub next: Option<Seq>,
    /// Where capture stands in the source.
    pub watermark: String,
    /// Rows of the source behind the watermark, capped; `None` when the source was not asked or did not answer.
    pub behind_source: Option<u64>,
    /// When the oldest waiting record was captured, UTC.
    pub oldest_captured_at: Option<String>,
}

/// Where capture stands in each stream, in the order of [`Stream::ALL`].
pub fn watermarks(snapshot: &Snapshot) -> Vec<Position> {
    Stream::ALL.map(|stream| snapshot.stream(stream).watermark.clone()).to_vec()
}

/// Gathers an outbox's status as of `now` (the gateway's clock).
pub async fn gather(outbox: &Outbox, sender: Sender<'_>, now: Micros) -> Result<DestinationStatus, StoreError> {
    let snapshot = outbox.snapshot();
    let mut streams = Vec::new();
    let mut oldest: Option<Micros> = None;
    for stream in Stream::ALL {
        let state = snapshot.stream(stream);
        let captured_at = outbox.oldest_captured(stream).await?;
        oldest = oldest.into_iter().chain(captured_at).min();
        streams.push(StreamStatus {
            stream,
            pending: state.pending(),
            acked: Some(state.acked),
            captured: Some(state.captured()),
            parked: state.parked_now(),
            cursor: Some(state.cursor),
            next: Some(state.next),
            watermark: state.watermark.to_string(),
            behind_source: None,
            oldest_captured_at: captured_at.map(|at| at.to_string()),
        });
    }
    let pending = snapshot.pending();
    let (state, next_try, rows_per_second, capture) = match sender {
        Sender::Stopped => (State::Stopped, None, None, CaptureStatus::default()),
        Sender::Paused => (State::Paused, None, None, CaptureStatus::default()),
        Sender::Runs { helm, intake, rows_per_second } => {
            let (state, next_try) = doing(helm, now);
            (state, next_try, rows_per_second, intake.flow().into())
        }
    };
    let eta = rows_per_second.filter(|rate| *rate > 0.0 && pending > 0).map(|rate| (pending as f64 / rate).ceil() as u64);
    let mut status = DestinationStatus {
        destination: snapshot.meta.destination.clone(),
        state,
        capture,
        sentence: String::new(),
        next_try_seconds: next_try,
        rows_per_second,
        eta_seconds: eta,
        epoch: snapshot.meta.epoch.to_string(),
        figures: Figures::Outbox,
        figures_at: Some(now.to_string()),
        pending: Some(pending),
        parked: Some(snapshot.parked()),
        pending_bytes: Some(snapshot.live_bytes()),
        disk_bytes: Some(outbox.disk_bytes()),
        oldest_age_seconds: oldest.map(|at| now.since(at).as_secs()),
        last_success: snapshot.notes.last_success.map(|at| at.to_string()),
        last_error: snapshot.notes.last_trouble.clone().map(|(since, text)| Trouble { since: since.to_string(), text }),
        streams,
        held: snapshot.held.iter().map(|(what, held)| Held { entity: what.to_string(), rows: held.rows }).collect(),
    };
    let doing = match sender {
        Sender::Runs { helm, .. } => Some((helm.doing(), helm.trouble())),
        Sender::Stopped | Sender::Paused => None,
    };
    status.sentence = sentence::sentence(&status, doing.as_ref().map(|(doing, trouble)| (doing, *trouble)), now);
    Ok(status)
}

/// Whether the next try may help.
fn waiting(verdict: Verdict) -> State {
    match verdict {
        Verdict::Misconfigured | Verdict::Refused => State::Stuck,
        Verdict::Accepted | Verdict::NotStored | Verdict::Unknown | Verdict::TooLarge => State::Waiting,
    }
}

/// What a sender's doing comes to, and how long it waits yet.
fn doing(helm: &Helm, now: Micros) -> (State, Option<u64>) {
    match helm.doing() {
        // A request that is in flight comes to its end.
        Doing::Starting | Doing::Syncing | Doing::Idle | Doing::Waiting { .. } | Doing::Paused if helm.is_paused() => {
            (State::Paused, None)
        }
        Doing::Waiting { outcome, until } => (waiting(outcome.verdict), Some(until.since(now).as_secs())),
        Doing::Starting => (State::Starting, None),
        // Until something gets through, a try is no more than that.
        Doing::Sending { .. } => (helm.trouble().map_or(State::Sending, |trouble| waiting(trouble.verdict)), None),
        Doing::Syncing => (helm.trouble().map_or(State::Syncing, |trouble| waiting(trouble.verdict)), None),
        Doing::Idle => (State::Idle, None),
        Doing::Paused => (State::Paused, None),
        Doing::Stopped => (if helm.is_paused() { State::Paused } else { State::Stopped }, None),
    }
}

/// Which limits of an alarm a status crosses, as sentences; none when all is well.
pub fn alarms(status: &DestinationStatus, age_max: Option<Duration>, depth_max: Option<u64>) -> Vec<String> {
    let mut crossed = Vec::new();
    if let (Some(max), Some(age)) = (age_max, status.oldest_age_seconds)
        && age > max.as_secs()
    {
        crossed.push(format!("{}: the oldest record has waited {age} s, more than {} s", status.destination, max.as_secs()));
    }
    if let (Some(max), Some(age), Some(why)) = (age_max, status.capture.for_seconds, &status.capture.why)
        && age > max.as_secs()
    {
        let state = match status.capture.state {
            CaptureState::Paused => "capture has paused",
            CaptureState::Unknown | CaptureState::Running | CaptureState::Waiting | CaptureState::Stuck => {
                "the source could not be read"
            }
        };
        crossed.push(format!("{}: {state} for {age} s, more than {} s: {why}", status.destination, max.as_secs()));
    }
    if let (Some(max), Some(pending)) = (depth_max, status.pending)
        && pending > max
    {
        crossed.push(format!("{}: {pending} records wait, more than {max}", status.destination));
    }
    crossed
}
