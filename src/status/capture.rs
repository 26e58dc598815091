//! How capture fares, as it is told: in JSON, in a sentence, with advice.
//!
//! The one rule: nothing is well that was not seen; what has not been tried is unknown.

use serde::{Deserialize, Serialize};

use super::sentence::clock;
use crate::{
    capture::intake::{Cause, Flow},
    domain::Micros,
};

/// How capture fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// Whether rows enter.
    pub state: CaptureState,
    /// Since when they do not, UTC.
    pub since: Option<String>,
    /// How long that is.
    pub for_seconds: Option<u64>,
    /// Why they do not.
    pub why: Option<String>,
}

/// Whether rows of the source enter the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureState {
    /// Nobody runs, or the source was not reached yet.
    #[default]
    Unknown,
    /// They do.
    Running,
    /// The source, or a table of it, cannot be read; that may pass by itself.
    Waiting,
    /// The same, until somebody mends it.
    Stuck,
    /// There is no room for them.
    Paused,
}

impl CaptureState {
    /// Whether the source can be read; `None` when that is not known.
    pub const fn is_source_up(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Waiting | Self::Stuck => Some(false),
            // Before there is no room there is something to be stored.
            Self::Running | Self::Paused => Some(true),
        }
    }

    /// What an operator does about it.
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::Running => None,
            Self::Waiting => Some(
                "No row is lost as long as the source keeps it. Look whether the database runs and can be reached; packhorse goes on by itself when it does.",
            ),
            Self::Stuck => Some(
                "A human is needed: packhorse check says what is wrong with the source. No row is lost as long as the source keeps it.",
            ),
            Self::Paused => Some(
                "The source keeps the rows. Make room on the disk, or see that the destination takes what waits; capture goes on by itself.",
            ),
        }
    }
}

impl From<Flow> for CaptureStatus {
    fn from(flow: Flow) -> Self {
        let halt = match flow {
            Flow::Untried => return Self::default(),
            Flow::Goes => return Self { state: CaptureState::Running, ..Self::default() },
            Flow::Halted(halt) => halt,
        };
        let state = match halt.cause {
            Cause::Source => CaptureState::Waiting,
            Cause::SourceNeedsAHuman => CaptureState::Stuck,
            Cause::Room => CaptureState::Paused,
        };
        let for_seconds = Some(halt.lasts().as_secs());
        Self { state, since: Some(halt.since.to_string()), for_seconds, why: Some(halt.text) }
    }
}

impl CaptureStatus {
    /// That rows do not enter, since when and why; `None` when they do, or nobody knows.
    pub(super) fn sentence(&self, now: Micros) -> Option<String> {
        let what = match self.state {
            CaptureState::Unknown | CaptureState::Running => return None,
            CaptureState::Waiting | CaptureState::Stuck => "the source cannot be read",
            CaptureState::Paused => "capture pauses",
        };
        let since = self.since.as_deref().and_then(|at| at.parse().ok()).map(|at| format!(" since {}", clock(at, now)));
        let why = self.why.as_ref().map(|why| format!(": {why}"));
        Some(format!("{what}{}{}", since.unwrap_or_default(), why.unwrap_or_default()))
    }
}
