//! What operators ask of the queues, as requests and answers: the same whether the daemon carries them out, over its socket, or a command does
//! itself, on a stopped outbox or on the copy of a damaged one.
//!
//! ```text
//! packhorse queue ..  ──▶ Call (one line of JSON) ──▶ socket ──▶ the daemon's outboxes ──▶ Answers (JSON Lines)
//!                    └──▶ the files, when nobody runs ────────────────────────────────────▶ the same
//! ```
//!
//! The one rule: nothing here holds up capture or delivery. Answers go into a bounded channel, and who does not read them is waited for
//! without holding anything; who reads a lot goes in steps, with rests between them.

pub mod act;
pub mod discard;
pub mod filter;
pub mod look;
pub mod rewind;
pub mod steps;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    filter::Filter,
    steps::{Beside, Pace},
};
use crate::{
    domain::{Micros, Position, Seq, Stream},
    outbox::StoreError,
    status::DestinationStatus,
};

/// The version of requests and answers.
pub const VERSION: u16 = 1;

/// Whoever waits for an answer of the daemon hears something at least so often.
pub const HEARD_EVERY: Duration = Duration::from_secs(2);

/// One line from a command to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// [`VERSION`] of who asks.
    pub version: u16,
    /// Whose queues are meant: the daemon of another data directory refuses.
    pub data_dir: PathBuf,
    /// The destination.
    pub destination: String,
    /// What is wanted of it.
    pub request: Request,
}

/// What is wanted of one destination's queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How much waits.
    Status,
    /// Records that wait, the oldest first, at most so many of each stream.
    List(Filter, u64),
    /// One record, with what it points to.
    Show(Stream, Seq),
    /// What is parked, by reason.
    ParkedList(Filter),
    /// Parked rows, at most so many.
    ParkedShow(Filter, u64),
    /// Append parked rows anew.
    Retry(Filter, Run),
    /// Export parked rows, then drop them.
    Discard(Filter, Run),
    /// Send no more.
    Pause,
    /// Send again.
    Resume,
    /// Try now.
    Flush,
    /// Check every checksum, seq and count.
    Verify,
    /// Make the files as small as what they hold.
    Compact,
    /// Capture again from here on.
    Rewind(rewind::Since),
}

impl Request {
    /// Whether it leaves the outbox as it is, so that a copy does as well.
    pub fn only_looks(&self) -> bool {
        match self {
            Self::Status | Self::List(..) | Self::Show(..) | Self::ParkedList(_) | Self::ParkedShow(..) | Self::Verify => true,
            Self::Retry(..) | Self::Discard(..) | Self::Pause | Self::Resume | Self::Flush | Self::Compact | Self::Rewind(_) => {
                false
            }
        }
    }
}

/// Whether something is done or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// It is done.
    Real,
    /// It is counted what would be done.
    Dry,
}

/// One line of an answer. The last one is [`Answer::End`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The figures, and where capture stands in each stream.
    Status(Box<DestinationStatus>, Vec<Position>),
    /// There is no outbox yet.
    Absent,
    /// Some records, consecutive or not.
    Records(Records),
    /// One record.
    Detail(Box<Detail>),
    /// What is parked, by reason.
    Groups(Vec<Group>),
    /// How far it has come, of how much where that is known.
    Progress(u64, Option<u64>),
    /// It waits, and for what.
    Waits(String),
    /// There is nothing to say yet, and it is at work: who hears nothing for [`HEARD_EVERY`] and some more takes the daemon for dead.
    AtWork,
    /// What was done, for people, with what is wrong, if anything is.
    Told(Told),
    /// It could not be done.
    Failed(Failure),
    /// That was all.
    End,
}

/// Records of one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The stream; its description names the cells.
    pub stream: Stream,
    /// Each record.
    pub rows: Vec<Record>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its seq; a parked row has none any more.
    pub seq: Option<Seq>,
    /// Its columns, in the order of the description.
    pub cells: Vec<Value>,
    /// Why it is parked.
    pub reason: Option<String>,
    /// Since when it is parked.
    pub parked_at: Option<String>,
}

/// One record and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The stream.
    pub stream: Stream,
    /// The record.
    pub record: Record,
    /// When it was captured.
    pub captured_at: String,
    /// Whether it may have been captured before: `new` or `repeat`.
    pub freshness: String,
    /// What it points to: the entity, its content here, its id at the destination.
    pub refers: Vec<Refers>,
    /// Whether the request that is out now carries it.
    pub in_flight: bool,
}

/// An entity that a record points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refers {
    /// For example "Node 37".
    pub entity: String,
    /// Its id at the destination; `None` while it is not known there.
    pub central_id: Option<i64>,
}

/// Parked rows of one stream and reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// `held` or `refused`.
    pub kind: String,
    /// The reason, for people.
    pub reason: String,
    /// The stream.
    pub stream: Stream,
    /// How many.
    pub rows: u64,
    /// When the first of them was parked.
    pub oldest: String,
    /// When the last of them was parked.
    pub newest: String,
    /// One of them.
    pub sample: Record,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// For people.
    pub text: String,
    /// How many rows or records it was about.
    pub rows: u64,
    /// What is wrong; nothing when all is well.
    pub wrong: Vec<String>,
}

/// Why it could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What, and what to do.
    pub text: String,
    /// What kind of failure.
    pub kind: FailureKind,
}

/// Kinds of failure; they decide the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request asks for something that cannot be.
    Usage,
    /// The database or the daemon cannot be reached.
    Unreachable,
    /// The outbox is damaged, or was closed.
    Outbox,
    /// The outbox is damaged, and what can still be read of it was given.
    Remains,
    /// Anything else.
    Other,
}

/// Where a request on an open outbox is carried out.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Who works on the outbox meanwhile.
    pub beside: &'a Beside,
    /// The gateway's clock.
    pub now: Micros,
    /// Bytes of the disk that are left to others.
    pub disk_reserve_bytes: u64,
}

/// Why a request was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The outbox.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who asked has gone.
    #[error("nobody reads the answer any more")]
    Gone,
    /// Something that has its own words.
    #[error("{}", .0.text)]
    Told(Failure),
}

impl QueueError {
    /// As it is answered.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Store(error) => Failure { text: crate::chain(error), kind: FailureKind::Outbox },
            Self::Gone => Failure { text: self.to_string(), kind: FailureKind::Other },
            Self::Told(failure) => failure.clone(),
        }
    }

    /// One with words of its own.
    pub fn told(kind: FailureKind, text: impl Into<String>) -> Self {
        Self::Told(Failure { text: text.into(), kind })
    }
}

/// Does something that blocks where no loop waits for it. Whoever goes away does not stop it.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
        // The runtime is being shut down.
        Err(_) => Err(StoreError::Closed.into()),
    }
}

/// Where answers go.
#[derive(Clone, Debug)]
pub struct Answers(tokio::sync::mpsc::Sender<Answer>);

impl Answers {
    /// A bounded channel.
    pub fn channel() -> (Self, tokio::sync::mpsc::Receiver<Answer>) {
        let (answers, from) = tokio::sync::mpsc::channel(2);
        (Self(answers), from)
    }

    /// Waits until there is room.
    pub async fn give(&self, answer: Answer) -> Result<(), QueueError> {
        self.0.send(answer).await.map_err(|_| QueueError::Gone)
    }
}
