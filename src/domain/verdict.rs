//! What an answer of a destination means for the sender. Decided by one pure function of the adapter; acted on by the sender.

use std::{fmt, time::Duration};

use super::Seq;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A valid success for everything in it.
    Accepted,
    /// Certainly not stored; try again later.
    NotStored,
    /// Stored or not: nobody knows.
    Unknown,
    /// The address, the credentials or something between is wrong: no record's fault. Try again slowly.
    Misconfigured,
    /// Refused for its size; a smaller one may pass.
    TooLarge,
    /// The server refuses something in it.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::NotStored => "not stored",
            Self::Unknown => "outcome unknown",
            Self::Misconfigured => "misconfigured",
            Self::TooLarge => "too large",
            Self::Refused => "refused",
        })
    }
}

/// What a request may have left at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Nothing: it was not sent, not read, or turned away.
    Nothing,
    /// Nothing, unless the error was made by something on the way: the server said that it failed (500), and takes a request back then.
    Unlikely,
    /// Nothing or everything.
    Possible,
}

/// Who was heard of after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody answered, whatever it was.
    Answer,
    /// Nobody did: the link may be gone.
    Nothing,
}

/// A verdict with what people need to know beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it means.
    pub verdict: Verdict,
    /// What happened, and what to do about it, as a lower-case fragment; without secrets.
    pub advice: String,
    /// How long the server asked to be left alone; already clamped.
    pub retry_after: Option<Duration>,
    /// What the request may have left there.
    pub trace: Trace,
    /// Whether somebody answered.
    pub heard: Heard,
    /// What a packhorse receiver told of a run of rows, where one answered.
    pub told: Option<Box<Told>>,
}

/// What a packhorse receiver tells of a run of rows, beside the verdict on all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The highest seq of the run's epoch and stream that it had seen before this request; `None` when none.
    ///
    /// At or beyond what we ever sent: this outbox is an older image of itself, or a copy of it runs elsewhere. Below what it took of us before: the
    /// receiver was put back from a backup, and what lies between is no longer there.
    pub seen: Option<Seq>,
    /// The rows that it refuses, by their place among those delivered, ascending. Every other row of the run is stored.
    pub refused: Vec<RefusedRow>,
}

/// A row that a receiver refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Its place among the rows delivered.
    pub row: usize,
    /// Why, as the receiver says it.
    pub reason: String,
}

impl Outcome {
    /// An outcome of an answer without a wish of the server's, and with the trace that such a verdict leaves as a rule.
    pub fn new(verdict: Verdict, advice: impl Into<String>) -> Self {
        let trace = match verdict {
            Verdict::Accepted | Verdict::Unknown => Trace::Possible,
            Verdict::NotStored | Verdict::Misconfigured | Verdict::TooLarge | Verdict::Refused => Trace::Nothing,
        };
        Self { verdict, advice: advice.into(), retry_after: None, trace, heard: Heard::Answer, told: None }
    }

    /// The same where nobody answered.
    #[must_use]
    pub fn of_silence(self) -> Self {
        Self { heard: Heard::Nothing, ..self }
    }

    /// The same with another trace.
    #[must_use]
    pub fn leaving(self, trace: Trace) -> Self {
        Self { trace, ..self }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict, self.advice)
    }
}
