//! The last lines of the log that matter, kept in memory for the status page.
//!
//! The one rule: it is bounded, in lines and in bytes (I7).

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::domain::Micros;

const LINES_MAX: usize = 60;
const LINE_BYTES_MAX: usize = 600;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, by the gateway's clock.
    pub at: Micros,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: &'static str,
    /// The message and its fields.
    pub text: String,
}

static LINES: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// The last ones, the newest first.
pub fn last() -> Vec<Line> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}

/// Keeps what is logged.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The gateway's clock.
    pub clock: fn() -> Micros,
}

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut all = text.message + &text.fields;
        if let Some((end, _)) = all.char_indices().find(|(at, _)| *at >= LINE_BYTES_MAX) {
            all.truncate(end);
            all.push('…');
        }
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Line { at: (self.clock)(), level: level.as_str(), text: all });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}
