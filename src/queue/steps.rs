//! How fast a queue is looked through.
//!
//! The one rule: beside the loops of a daemon all looks at one outbox together work a quarter of the time, and so does a command that reads
//! one: the rest is capture's and delivery's.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// Rests are so many times as long as the step before them.
const RESTS: u32 = 3;
/// So that other work gets its turn after the shortest step, too.
const REST_MIN: Duration = Duration::from_millis(1);
/// A step that was long because the machine is busy is no reason to rest for long.
const REST_MAX: Duration = Duration::from_secs(1);

/// Who works on the same outbox meanwhile.
#[derive(Clone, Debug)]
pub enum Beside {
    /// Capture and delivery, which go first; whoever else looks keeps to the same pace.
    Loops(Arc<Pace>),
    /// Nobody: it was opened for this.
    Nobody,
}

/// How long to rest after a step that took so long, with whatever it waited for: on a machine that is busy a look gives way even more.
pub fn rest(took: Duration) -> Duration {
    took.saturating_mul(RESTS).clamp(REST_MIN, REST_MAX)
}

/// When the next step of anybody may begin: steps come one after the other, in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Beside {
    /// Does the work of one step when it is its turn. Nobody is to be waited for in it.
    pub async fn step<T>(&self, work: impl Future<Output = T>) -> T {
        let Self::Loops(pace) = self else { return work.await };
        let mut free_at = pace.0.lock().await;
        if let Some(at) = *free_at {
            sleep_until(at).await;
        }
        let began = Instant::now();
        let done = work.await;
        *free_at = Some(Instant::now() + rest(began.elapsed()));
        done
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    #[test]
    fn a_look_works_a_quarter_of_the_time_and_never_rests_long() {
        assert_eq!(rest(STEP), Duration::from_millis(60));
        assert_eq!(rest(Duration::ZERO), REST_MIN);
        assert_eq!(rest(Duration::MAX), REST_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_of_one_step_is_over_at_once_and_the_next_one_waits_for_its_turn() {
        for (beside, rested) in [(Beside::Loops(Arc::default()), STEP * 3), (Beside::Nobody, Duration::ZERO)] {
            let began = Instant::now();
            beside.step(advance(STEP)).await;
            assert_eq!(began.elapsed(), STEP, "the first step");
            beside.step(advance(STEP)).await;
            assert_eq!(began.elapsed(), STEP * 2 + rested, "{beside:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_looks_together_take_no_more_than_one() {
        let beside = Beside::Loops(Arc::default());
        let began = Instant::now();
        let looks = (0..8).map(|_| async {
            for _ in 0..5 {
                beside.step(advance(STEP)).await;
            }
        });
        futures_util::future::join_all(looks).await;
        assert_eq!(began.elapsed(), STEP * 40 + rest(STEP) * 39);
    }
}
