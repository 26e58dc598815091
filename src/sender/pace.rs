//! How large the next request is. Pure.
//!
//! The one rule: whatever happens, the next request holds at least one row.

/// After this many accepted requests in a row a larger one is tried.
const GROW_AFTER: u32 = 3;
/// Slowing down for an unknown outcome does not go below this: small requests over a poor link cost more than they gain.
const SLOW_ROWS_MIN: usize = 500;

/// The size of requests, learnt from what the destination takes.
#[derive(Clone, Debug)]
pub struct Pace {
    rows: usize,
    rows_max: usize,
    body_bytes_max: u64,
    accepted: u32,
}

impl Pace {
    /// Begins with the largest number of rows.
    pub fn new(rows_max: usize, body_bytes_max: u64) -> Self {
        let rows_max = rows_max.max(1);
        Self { rows: rows_max, rows_max, body_bytes_max, accepted: 0 }
    }

    /// Rows for the next request, at most.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A request of this many rows and bytes was accepted.
    pub fn accepted(&mut self, rows: usize, body_bytes: u64) {
        self.accepted += 1;
        if self.accepted >= GROW_AFTER {
            self.accepted = 0;
            self.rows = (self.rows * 2).min(self.rows_max);
        }
        let row_bytes = (body_bytes / rows.max(1) as u64).max(1);
        let fitting = usize::try_from(self.body_bytes_max / row_bytes).unwrap_or(usize::MAX);
        self.rows = self.rows.min(fitting).max(1);
    }

    /// A request of this many rows was too large: it is not tried again at that size.
    pub fn too_large(&mut self, rows: usize) {
        self.accepted = 0;
        self.rows = (rows / 2).max(1);
        self.rows_max = self.rows_max.min(rows.saturating_sub(1).max(1));
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
