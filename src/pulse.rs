//! A sign of life of a loop: it says when it begins something and how long that may take at the longest, and beats with each step of it.
//! Somebody else looks whether a beat is overdue.
//!
//! The one rule: a beat stands where work was done or is about to be done, never in a timer that runs whatever happens.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What a loop is at.
#[derive(Debug)]
struct Phase {
    doing: &'static str,
    within: Duration,
    last: Instant,
}

/// Shared by a loop and by who watches it.
#[derive(Debug)]
pub struct Pulse(Mutex<Phase>);

impl Pulse {
    /// Of a loop that is about to begin this, and is done with it, or with a step of it, within this time.
    pub fn new(doing: &'static str, within: Duration) -> Self {
        Self(Mutex::new(Phase { doing, within, last: Instant::now() }))
    }

    /// Something else begins.
    pub fn enter(&self, doing: &'static str, within: Duration) {
        *self.phase() = Phase { doing, within, last: Instant::now() };
    }

    /// It does nothing from now on, for as long as that takes: nothing of it is overdue.
    pub fn rest(&self, doing: &'static str) {
        self.enter(doing, Duration::MAX);
    }

    /// A step of it is done, or the next one begins.
    pub fn beat(&self) {
        self.phase().last = Instant::now();
    }

    /// What it has been at for longer than it may take, in words; `None` while all is well.
    pub fn stuck(&self) -> Option<String> {
        let phase = self.phase();
        // The same words as long as it lasts: they are told once.
        let told = || format!("{}: no step for more than {} s", phase.doing, phase.within.as_secs());
        (phase.last.elapsed() > phase.within).then(told)
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pulse_is_overdue_only_when_no_step_was_done_in_time() {
        let pulse = Pulse::new("opening", Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(8)).await;
        pulse.beat();
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(pulse.stuck(), None);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(pulse.stuck().unwrap(), "opening: no step for more than 10 s");
        pulse.enter("capturing", Duration::from_mins(1));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(pulse.stuck(), None);
        pulse.rest("waiting for a reload");
        tokio::time::advance(Duration::from_hours(1_000)).await;
        assert_eq!(pulse.stuck(), None, "it has nothing to do");
    }
}
