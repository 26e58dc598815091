//! How large the next request is. Pure.
//!
//! The one rule: whatever happens, the next request holds at least one row.

/// After this many accepted requests in a row a larger one is tried.
const GROW_AFTER: u32 = 3;
/// Slowing down for an unknown outcome does not go below this: small requests over a poor link cost more than they gain.
const SLOW_ROWS_MIN: usize = 500;
/// A limit that was learnt is tried again after this many accepted requests, and after twice as many each time that it still holds.
const PROBE_AFTER: u32 = 20;
const PROBE_AFTER_MAX: u32 = 2_000;

/// The size of requests, learnt from what the destination takes.
#[derive(Clone, Debug)]
pub struct Pace {
    rows: usize,
    rows_max: usize,
    body_bytes_max: u64,
    accepted: u32,
    /// What was refused for its size was larger than this.
    limit: usize,
    /// The largest request that was accepted.
    proven: usize,
    accepted_at_limit: u32,
    probe_after: u32,
    /// The limit was raised on trial.
    is_probing: bool,
}

impl Pace {
    /// Begins with the largest number of rows.
    pub fn new(rows_max: usize, body_bytes_max: u64) -> Self {
        let rows_max = rows_max.max(1);
        Self {
            rows: rows_max,
            rows_max,
            body_bytes_max,
            accepted: 0,
            limit: rows_max,
            proven: 0,
            accepted_at_limit: 0,
            probe_after: PROBE_AFTER,
            is_probing: false,
        }
    }

    /// Rows for the next request, at most.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A request of this many rows and bytes was accepted.
    pub fn accepted(&mut self, rows: usize, body_bytes: u64) {
        if self.is_probing && rows > self.proven {
            self.is_probing = false;
            self.probe_after = PROBE_AFTER;
        }
        self.proven = self.proven.max(rows);
        if self.limit < self.rows_max && rows >= self.limit {
            self.accepted_at_limit += 1;
            if self.accepted_at_limit >= self.probe_after {
                self.accepted_at_limit = 0;
                self.is_probing = true;
                self.limit = (self.limit * 2).min(self.rows_max);
            }
        }
        self.accepted += 1;
        if self.accepted >= GROW_AFTER {
            self.accepted = 0;
            self.rows = (self.rows * 2).min(self.limit);
        }
        let row_bytes = (body_bytes / rows.max(1) as u64).max(1);
        let fitting = usize::try_from(self.body_bytes_max / row_bytes).unwrap_or(usize::MAX);
        self.rows = self.rows.min(fitting).max(1);
    }

    /// A request of this many rows was too large. `false` when no smaller one is worth trying at once: one of this size was accepted
    /// before, so that it is not its size that is at fault now.
    pub fn too_large(&mut self, rows: usize) -> bool {
        self.accepted = 0;
        self.accepted_at_limit = 0;
        if rows <= self.proven.max(1) {
            // Or the server was given another limit: that is found in time.
            self.proven = rows / 2;
            self.rows = (rows / 2).max(1);
            return false;
        }
        if self.is_probing {
            self.is_probing = false;
            self.probe_after = (self.probe_after * 2).min(PROBE_AFTER_MAX);
            self.limit = self.proven.max(1);
        } else {
            self.limit = self.limit.min(rows - 1).max(1);
        }
        self.rows = usize::midpoint(self.proven, rows).clamp(1, self.limit);
        true
    }

    /// The outcome of a request is unknown: smaller ones have better chances.
    pub fn slow_down(&mut self) {
        self.accepted = 0;
        self.rows = (self.rows / 2).max(SLOW_ROWS_MIN).min(self.rows).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_was_too_large_is_not_tried_again() {
        let mut pace = Pace::new(10_000, u64::MAX);
        pace.too_large(10_000);
        assert_eq!(pace.rows(), 5_000);
        for _ in 0..20 {
            pace.accepted(pace.rows(), 1);
        }
        assert_eq!(pace.rows(), 9_999);
    }

    #[test]
    fn after_an_outage_that_looked_like_a_limit_requests_grow_again() {
        let mut pace = Pace::new(10_000, u64::MAX);
        pace.accepted(10, 100);
        let mut waits = 0;
        for _ in 0..40 {
            waits += usize::from(!pace.too_large(pace.rows()));
        }
        assert!(waits > 20, "and it is waited between the tries: {waits}");
        for _ in 0..2_000 {
            pace.accepted(pace.rows(), pace.rows() as u64 * 10);
        }
        assert_eq!(pace.rows(), 10_000);
    }

    #[test]
    fn a_limit_that_holds_is_tried_ever_more_rarely() {
        let mut pace = Pace::new(10_000, u64::MAX);
        let mut refused = 0;
        for _ in 0..10_000 {
            if pace.rows() > 600 {
                pace.too_large(pace.rows());
                refused += 1;
            } else {
                pace.accepted(pace.rows(), 1);
            }
        }
        assert!(refused < 40, "{refused} of 10,000");
    }

    #[test]
    fn a_row_is_always_sent() {
        let mut pace = Pace::new(4, 10);
        for _ in 0..9 {
            pace.too_large(pace.rows());
            pace.slow_down();
        }
        assert_eq!(pace.rows(), 1);
        pace.accepted(1, 1_000_000);
        assert_eq!(pace.rows(), 1);
    }

    #[test]
    fn the_body_stays_below_its_limit() {
        let mut pace = Pace::new(10_000, 10_000);
        pace.accepted(1_000, 10_000);
        assert_eq!(pace.rows(), 1_000);
    }

    #[test]
    fn unknown_outcomes_make_requests_smaller_and_success_makes_them_larger_again() {
        let mut pace = Pace::new(10_000, u64::MAX);
        pace.slow_down();
        assert_eq!(pace.rows(), 5_000);
        for _ in 0..10 {
            pace.slow_down();
        }
        assert_eq!(pace.rows(), SLOW_ROWS_MIN);
        for _ in 0..30 {
            pace.accepted(pace.rows(), 1);
        }
        assert_eq!(pace.rows(), 10_000);
    }
}
