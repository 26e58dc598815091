//! How capture fares, for those who look at it: whether the source can be read, and since when and why no rows enter.
//!
//! The one rule: it holds one value, the newest (I7), and nothing here decides about rows.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::told::needs_a_human;
use crate::{domain::Micros, ports::SourceError};

/// Why rows do not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The source, or a table of it, cannot be read, which may pass by itself.
    Source,
    /// It cannot be read until somebody mends it.
    SourceNeedsAHuman,
    /// There is no room; the source keeps the rows.
    Room,
}

impl Cause {
    fn is_source(self) -> bool {
        match self {
            Self::Source | Self::SourceNeedsAHuman => true,
            Self::Room => false,
        }
    }
}

/// Rows do not enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Why.
    pub cause: Cause,
    /// The same in words, of the last try.
    pub text: String,
    /// Since when, by the gateway's clock.
    pub since: Micros,
    began: Instant,
}

impl Halt {
    /// How long it has lasted, whatever was done to the clock.
    pub fn lasts(&self) -> Duration {
        self.began.elapsed()
    }
}

/// How it fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// The source was not reached yet, and nothing went wrong either.
    #[default]
    Untried,
    /// Every table can be read, and there is room.
    Goes,
    /// It waits.
    Halted(Halt),
}

/// Shared by a capture and those who look at it.
#[derive(Debug, Default)]
pub struct Intake(Mutex<Flow>);

impl Intake {
    /// How it fares now.
    pub fn flow(&self) -> Flow {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why rows do not enter; `None` when they do, or it is not known yet.
    pub fn halt(&self) -> Option<Halt> {
        match self.flow() {
            Flow::Untried | Flow::Goes => None,
            Flow::Halted(halt) => Some(halt),
        }
    }

    /// How long the source, or a table of it, could not be read.
    pub fn source_away(&self) -> Option<Duration> {
        self.halt().filter(|halt| halt.cause.is_source()).map(|halt| halt.lasts())
    }

    /// The source cannot be read.
    pub(crate) fn waits(&self, error: &SourceError, now: Micros) {
        let cause = if needs_a_human(error) { Cause::SourceNeedsAHuman } else { Cause::Source };
        self.halts(cause, error.to_string(), now);
    }

    /// There is no room. The source was reached before that was found out.
    pub(crate) fn pauses(&self, why: &str, now: Micros) {
        self.halts(Cause::Room, why.to_owned(), now);
    }

    fn halts(&self, cause: Cause, text: String, now: Micros) {
        let mut flow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, began) = match &*flow {
            // The same trouble, also where another try came to other words.
            Flow::Halted(halt) if halt.cause.is_source() == cause.is_source() => (halt.since, halt.began),
            Flow::Halted(_) | Flow::Untried | Flow::Goes => (now, Instant::now()),
        };
        *flow = Flow::Halted(Halt { cause, text, since, began });
    }

    /// Every table of the source could be read; there may still be no room.
    pub(crate) fn reads(&self) {
        let mut flow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*flow {
            Flow::Halted(halt) if !halt.cause.is_source() => {}
            Flow::Halted(_) | Flow::Untried | Flow::Goes => *flow = Flow::Goes,
        }
    }

    /// There is room again.
    pub(crate) fn has_room(&self) {
        let mut flow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*flow {
            Flow::Halted(halt) if !halt.cause.is_source() => *flow = Flow::Goes,
            Flow::Halted(_) | Flow::Untried | Flow::Goes => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(advice: &str) -> SourceError {
        SourceError::Unreachable { advice: advice.to_owned(), cause: None }
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_since_its_beginning_and_with_its_last_words() {
        let intake = Intake::default();
        assert_eq!(intake.flow(), Flow::Untried);
        intake.waits(&away("no answer"), Micros(1));
        tokio::time::advance(Duration::from_mins(5)).await;
        intake.waits(&SourceError::Denied { advice: "the password".into(), cause: None }, Micros(2));
        let halt = intake.halt().unwrap();
        assert_eq!((halt.cause, halt.since, halt.lasts()), (Cause::SourceNeedsAHuman, Micros(1), Duration::from_mins(5)));
        assert!(halt.text.ends_with("the password"), "{}", halt.text);
        intake.has_room();
        assert_eq!(intake.source_away(), Some(Duration::from_mins(5)), "that there is room brings no source back");
        intake.pauses("the disk is full", Micros(3));
        let halt = intake.halt().unwrap();
        assert_eq!((halt.cause, halt.since, intake.source_away()), (Cause::Room, Micros(3), None), "it was reached");
        intake.reads();
        assert_eq!(intake.halt().unwrap().cause, Cause::Room, "that it can be read makes no room");
        intake.has_room();
        assert_eq!(intake.flow(), Flow::Goes);
    }
}
