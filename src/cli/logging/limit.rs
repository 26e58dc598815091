//! Bounds what one place in the program can write into the log: a fault that comes again and again fills neither the disk nor the eyes (I7).
//!
//! The one rule: nothing is left out in silence. How often it was is told every minute, with one of the lines.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one place that pass in a window.
const LINES_MAX: u32 = 20;
/// How long a window is.
pub const WINDOW: Duration = Duration::from_mins(1);

/// What one place has written.
#[derive(Debug)]
struct Place {
    began: Instant,
    passed: u32,
    left_out: u64,
    /// What the first line said that was left out.
    said: String,
}

impl Place {
    fn passes(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= WINDOW {
            self.began = now;
            self.passed = 0;
        }
        self.passed = self.passed.saturating_add(1);
        self.passed <= LINES_MAX
    }
}

/// Lets through so many lines of a place each minute; what somebody asked for with `-v` it lets through as it is. Clones share what they have seen.
#[derive(Clone, Debug, Default)]
pub struct Limit(Arc<Mutex<HashMap<Identifier, Place>>>);

impl Limit {
    fn passes(&self, place: Identifier, now: Instant, said: impl FnOnce() -> String) -> bool {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Place { began: now, passed: 0, left_out: 0, said: String::new() };
        let place = places.entry(place).or_insert_with(new);
        let passes = place.passes(now);
        if !passes {
            if place.left_out == 0 {
                place.said = said();
            }
            place.left_out += 1;
        }
        passes
    }

    /// What was left out since this was asked for last: how many lines of each place, and what one of them said.
    pub fn left_out(&self) -> Vec<(u64, String)> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = places.values_mut().filter(|place| place.left_out > 0);
        left_out.map(|place| (std::mem::take(&mut place.left_out), std::mem::take(&mut place.said))).collect()
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        self.passes(event.metadata().callsite(), Instant::now(), || {
            let mut message = Message(String::new());
            event.record(&mut message);
            message.0
        })
    }
}

/// The words of a line without its fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Layer as _, layer::SubscriberExt as _};

    use super::*;

    /// Counts what reaches it.
    #[derive(Clone, Default)]
    struct Counted(Arc<Mutex<u32>>);

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Counted {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn one_place_cannot_fill_the_log_and_what_is_left_out_is_told() {
        let (counted, limit) = (Counted::default(), Limit::default());
        let log = tracing_subscriber::registry().with(counted.clone().with_filter(limit.clone()));
        tracing::subscriber::with_default(log, || {
            for number in 0..1_000 {
                tracing::warn!(number, "the same again");
                tracing::debug!(number, "asked for");
            }
            tracing::warn!("another");
        });
        assert_eq!(*counted.0.lock().unwrap(), LINES_MAX + 1_000 + 1);
        assert_eq!(limit.left_out(), [(1_000 - u64::from(LINES_MAX), "the same again".to_owned())]);
        assert_eq!(limit.left_out(), [], "it is told once");
    }

    #[test]
    fn after_a_while_lines_of_the_place_pass_again() {
        let began = Instant::now();
        let mut place = Place { began, passed: 0, left_out: 0, said: String::new() };
        let mut passed = |seconds: u64| place.passes(began + Duration::from_secs(seconds));
        assert_eq!((0..59).filter(|second| passed(*second)).count(), LINES_MAX as usize);
        assert!(passed(60));
    }
}
