//! What capture says in the log, once for each reason.
//!
//! The one rule: what is told as an end of trouble is told when the first thing works again, not when everything is done.

use crate::{outbox::Outbox, ports::SourceError};

/// What the log was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Why capture waits for the source.
    trouble: Option<String>,
    /// Why there is no room.
    paused: Option<&'static str>,
}

impl Told {
    /// Capture waits for the source.
    pub(super) fn waits(&mut self, error: &SourceError) {
        let text = error.to_string();
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

    /// Every table could be read.
    pub(super) fn source_is_back(&mut self, outbox: &Outbox) {
        if self.trouble.take().is_some() {
            tracing::info!(outbox = %outbox.path().display(), "the source is back");
        }
    }

    /// There is no room.
    pub(super) fn pauses(&mut self, outbox: &Outbox, why: &'static str) {
        if self.paused.replace(why) != Some(why) {
            tracing::warn!(outbox = %outbox.path().display(), why, "capture pauses; the source keeps the rows");
        }
    }

    /// Rows enter.
    pub(super) fn goes_on(&mut self, outbox: &Outbox) {
        if self.paused.take().is_some() {
            tracing::info!(outbox = %outbox.path().display(), "capture goes on");
        }
    }
}

/// Whether trouble does not pass by itself.
pub(super) fn needs_a_human(error: &SourceError) -> bool {
    match error {
        SourceError::Denied { .. } | SourceError::Schema { .. } | SourceError::Row { .. } => true,
        SourceError::Unreachable { .. } | SourceError::Query { .. } => false,
    }
}
