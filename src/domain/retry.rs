//! How long to wait before the next try: exponential, with jitter, for ever.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};

/// Where chance comes from: a number in [0, 1). A test gives a fixed or seeded one.
pub type Jitter = Box<dyn FnMut() -> f64 + Send + Sync>;

/// The waits between tries: uniform in (0, interval), the interval doubling from the first to the longest; never gives up.
pub struct Retry {
    interval: ExponentialBackoff,
    jitter: Jitter,
    failures: u32,
}

impl Retry {
    /// Waits from `min` up to `max`.
    pub fn new(min: Duration, max: Duration, jitter: Jitter) -> Self {
        let interval = ExponentialBackoffBuilder::new()
            .with_initial_interval(min)
            .with_max_interval(max.max(min))
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self { interval, jitter, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        // Without a limit on the elapsed time the interval never ends.
        let interval = self.interval.next_backoff().unwrap_or(self.interval.max_interval);
        self.within(interval)
    }

    /// A wait of up to so long, drawn by chance; at least a tenth of a second, so that a broken jitter cannot spin.
    pub fn within(&mut self, longest: Duration) -> Duration {
        longest.mul_f64((self.jitter)().clamp(0.0, 1.0)).max(Duration::from_millis(100))
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success: the next failure waits the shortest interval again.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.interval.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(jitter: f64, count: usize) -> Vec<Duration> {
        let mut retry = Retry::new(Duration::from_secs(1), Duration::from_mins(5), Box::new(move || jitter));
        (0..count).map(|_| retry.next_wait()).collect()
    }

    #[test]
    fn the_interval_doubles_up_to_the_longest_and_stays_there() {
        let waits = waits(1.0, 40);
        assert_eq!(waits[..4], [1, 2, 4, 8].map(Duration::from_secs));
        assert!(waits[9..].iter().all(|wait| *wait == Duration::from_mins(5)), "{waits:?}");
    }

    #[test]
    fn no_wait_is_zero() {
        assert!(waits(0.0, 5).iter().all(|wait| !wait.is_zero()));
    }

    #[test]
    fn a_success_starts_anew() {
        let mut retry = Retry::new(Duration::from_secs(1), Duration::from_mins(5), Box::new(|| 1.0));
        for _ in 0..5 {
            retry.next_wait();
        }
        retry.reset();
        assert_eq!((retry.failures(), retry.next_wait()), (0, Duration::from_secs(1)));
    }
}
