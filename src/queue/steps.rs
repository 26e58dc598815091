//! How fast a queue is looked through.
//!
//! The one rule: beside the loops of a daemon a look works a quarter of the time, and so does the command that reads it: together half of one
//! core, and the rest is capture's and delivery's.

use std::time::Duration;

use tokio::time::Instant;

/// Rests are so many times as long as the step before them.
const RESTS: u32 = 3;
/// So that other work gets its turn after the shortest step, too.
const REST_MIN: Duration = Duration::from_millis(1);
/// A step that was long because somebody did not read is no reason to rest for long.
const REST_MAX: Duration = Duration::from_secs(1);

/// Who works on the same outbox meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Capture and delivery, which go first.
    Loops,
    /// Nobody: it was opened for this.
    Nobody,
}

/// How long to rest after a step that took so long, with whatever it waited for: on a machine that is busy a look gives way even more.
pub fn rest(took: Duration) -> Duration {
    took.saturating_mul(RESTS).clamp(REST_MIN, REST_MAX)
}

/// The steps of one look.
#[derive(Debug)]
pub struct Steps {
    beside: Beside,
    began: Option<Instant>,
}

impl Steps {
    /// Before the first one.
    pub fn new(beside: Beside) -> Self {
        Self { beside, began: None }
    }

    /// To be awaited before each step: rests from the one before it, so that a look of one step is over at once.
    pub async fn next(&mut self) {
        match (self.beside, self.began) {
            (Beside::Loops, Some(began)) => tokio::time::sleep(rest(began.elapsed())).await,
            (Beside::Loops, None) | (Beside::Nobody, _) => {}
        }
        self.began = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_works_a_quarter_of_the_time_and_never_rests_long() {
        assert_eq!(rest(Duration::from_millis(20)), Duration::from_millis(60));
        assert_eq!(rest(Duration::ZERO), REST_MIN);
        assert_eq!(rest(Duration::MAX), REST_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn beside_the_loops_each_step_but_the_first_waits_and_beside_nobody_none_does() {
        for (beside, expected) in [(Beside::Loops, Duration::from_millis(60)), (Beside::Nobody, Duration::ZERO)] {
            let mut steps = Steps::new(beside);
            let began = Instant::now();
            steps.next().await;
            assert_eq!(began.elapsed(), Duration::ZERO, "the first step");
            tokio::time::advance(Duration::from_millis(20)).await;
            let began = Instant::now();
            steps.next().await;
            assert_eq!(began.elapsed(), expected, "{beside:?}");
        }
    }
}
