//! What capture says: in the log, once for each reason, and to those who look at it, at once.
//!
//! The one rule: what is told as an end of trouble is told when the first thing works again, not when everything is done. An outbox that is drained
//! page by page is full again at once: that is told once, as long as it goes on.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Intake, Options, Until};
use crate::{domain::Micros, outbox::Outbox, ports::SourceError};

/// A pause that comes again within so long after the one before is not told.
const QUIET: Duration = Duration::from_mins(10);

/// What was told last.
#[derive(Debug)]
pub(super) struct Told {
    intake: Arc<Intake>,
    until: Until,
    clock: fn() -> Micros,
    /// Why capture waits for the source.
    trouble: Option<String>,
    /// Why there is no room.
    paused: Option<&'static str>,
    /// The last pause, and when it was last seen.
    last_pause: Option<(&'static str, Instant)>,
    /// Whether the pause that lasts was told.
    said_pause: bool,
    /// Whether the tables could be read in this poll.
    has_read: bool,
    /// Whether the trouble came only after that: that they can be read is then no end of it.
    is_late: bool,
}

impl Told {
    /// Nothing was told yet.
    pub(super) fn new(options: &Options, until: Until) -> Self {
        Self {
            intake: Arc::clone(&options.intake),
            until,
            clock: options.clock,
            trouble: None,
            paused: None,
            last_pause: None,
            said_pause: false,
            has_read: false,
            is_late: false,
        }
    }

    /// A poll begins.
    pub(super) fn begins(&mut self) {
        self.has_read = false;
    }

    /// Capture waits for the source.
    pub(super) fn waits(&mut self, error: &SourceError) {
        self.intake.waits(error, (self.clock)());
        self.is_late = self.has_read;
        let text = error.to_string();
        match self.until {
            Until::Stopped => {}
            // Whoever waits for the end is told if it stays.
            Until::CaughtUp => {
                tracing::debug!(error = text, "capture tries again");
                return;
            }
        }
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        if needs_a_human(error) {
            tracing::error!(error = text, "capture waits");
        } else {
            tracing::warn!(error = text, "capture waits for the source");
        }
        self.trouble = Some(text);
    }

    /// Every table could be read in this poll, as far as it has come.
    pub(super) fn reads(&mut self, outbox: &Outbox) {
        self.has_read = true;
        if !self.is_late {
            self.source_is_back(outbox);
        }
    }

    /// Everything could be read.
    pub(super) fn source_is_back(&mut self, outbox: &Outbox) {
        self.is_late = false;
        self.intake.reads();
        if self.trouble.take().is_some() {
            tracing::info!(outbox = %outbox.path().display(), "the source is back");
        }
    }

    /// There is no room.
    pub(super) fn pauses(&mut self, outbox: &Outbox, why: &'static str) {
        self.intake.pauses(why, (self.clock)());
        if self.notes_pause(why, Instant::now()) {
            tracing::warn!(outbox = %outbox.path().display(), why, "capture pauses; the source keeps the rows");
        }
    }

    /// Rows enter.
    pub(super) fn goes_on(&mut self, outbox: &Outbox) {
        self.intake.has_room();
        if self.notes_room() {
            tracing::info!(outbox = %outbox.path().display(), "capture goes on");
        }
    }

    /// Whether it is to be told.
    fn notes_pause(&mut self, why: &'static str, now: Instant) -> bool {
        let is_again = self.last_pause.is_some_and(|(last, at)| last == why && now < at + QUIET);
        self.last_pause = Some((why, now));
        if self.paused.replace(why) == Some(why) {
            return false;
        }
        self.said_pause = !is_again;
        self.said_pause
    }

    /// Whether it is to be told.
    fn notes_room(&mut self) -> bool {
        self.paused.take().is_some() && self.said_pause
    }
}

/// Whether trouble does not pass by itself.
pub(super) fn needs_a_human(error: &SourceError) -> bool {
    match error {
        SourceError::Denied { .. } | SourceError::Schema { .. } | SourceError::Row { .. } => true,
        SourceError::Unreachable { .. } | SourceError::Query { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_and_its_end_are_told_once_also_while_they_take_turns() {
        let (mut told, begin) = (Told::new(&crate::capture::tests::options(), Until::Stopped), Instant::now());
        let at = |minutes| begin + Duration::from_mins(minutes);
        assert!(!told.notes_room(), "nothing had paused");
        assert!(told.notes_pause("full", at(0)));
        assert!(!told.notes_pause("full", at(1)));
        assert!(told.notes_room() && !told.notes_room(), "at the first page, once");
        for minute in 2..60 {
            assert!(!told.notes_pause("full", at(minute)) && !told.notes_room(), "drained page by page");
        }
        assert!(told.notes_pause("disk", at(60)), "another reason");
        assert!(told.notes_room());
        assert!(told.notes_pause("disk", at(80)), "after a while of peace");
    }
}
