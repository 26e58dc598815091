//! How far behind the source capture is, kept in memory.
//!
//! The one rule: it is said and shown, and decides nothing.

use std::{sync::PoisonError, time::Duration};

use super::Outbox;
use crate::domain::Micros;

impl Outbox {
    /// Capture has come to the end of the source: all that was there at this time, by the gateway's clock, is in.
    pub fn caught_up(&self, at: Micros) {
        *self.0.caught_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// How long ago that was; `None` while it has not come to the end since the outbox was opened.
    pub fn lag(&self, now: Micros) -> Option<Duration> {
        self.0.caught_up.lock().unwrap_or_else(PoisonError::into_inner).map(|at| now.since(at))
    }
}
