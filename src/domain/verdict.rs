//! What an answer of a destination means for the sender. Decided by one pure function of the adapter; acted on by the sender.

use std::{fmt, time::Duration};

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

/// A verdict with what people need to know beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it means.
    pub verdict: Verdict,
    /// What happened, and what to do about it, as a lower-case fragment; without secrets.
    pub advice: String,
    /// How long the server asked to be left alone; already clamped.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// An outcome without a wish of the server's.
    pub fn new(verdict: Verdict, advice: impl Into<String>) -> Self {
        Self { verdict, advice: advice.into(), retry_after: None }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict, self.advice)
    }
}
