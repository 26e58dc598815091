//! Ids that were missing when their neighbours were captured: asked for again at every poll, so that a transaction that commits late is found at
//! once. Pure.
//!
//! They are a hint and no more: what they miss, the ledger finds at the next audit. So they are bounded, and live in memory alone.
//!
//! The one rule: a range is dropped only when it was asked for once after its age ran out.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Ranges that are remembered; beyond that the two that lie closest together become one.
const RANGES_MAX: usize = 32;
/// Ids that all ranges together may span; beyond that the oldest go.
const IDS_MAX: i64 = 1 << 17;

/// A range of ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: i64,
    to: i64,
    /// Ids in it that were there when it was last asked for: between ranges that became one.
    known: u64,
    expires: Instant,
}

/// The ranges of one stream, ascending.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    ranges: VecDeque<Range>,
}

impl Gaps {
    /// Notes what is missing after `before` among ids that ascend.
    pub(super) fn note(&mut self, before: Option<i64>, ids: impl Iterator<Item = i64>, now: Instant, age: Duration) {
        let mut before = before;
        for id in ids {
            if let Some(before) = before
                && id > before + 1
            {
                self.push(Range { from: before + 1, to: id - 1, known: 0, expires: now + age });
            }
            before = Some(id);
        }
    }

    fn push(&mut self, range: Range) {
        // What is not above all others comes from a watermark that went back: begin anew.
        if self.ranges.back().is_some_and(|last| last.to >= range.from) {
            self.ranges.clear();
        }
        self.ranges.push_back(range);
        if self.ranges.len() > RANGES_MAX {
            let distance = |at: &usize| self.ranges[at + 1].from - self.ranges[*at].to;
            if let Some(at) = (0..self.ranges.len() - 1).min_by_key(distance) {
                self.join(at);
            }
        }
        let span = |range: &Range| range.to - range.from + 1;
        let mut ids: i64 = self.ranges.iter().map(span).sum();
        while ids > IDS_MAX
            && let Some(oldest) = self.ranges.pop_front()
        {
            ids -= span(&oldest);
        }
    }

    /// What lies between two ranges was captured, all of it: else there would be a range.
    fn join(&mut self, at: usize) {
        if let Some(next) = self.ranges.remove(at + 1) {
            let range = &mut self.ranges[at];
            range.known += next.known + (next.from - range.to - 1).unsigned_abs();
            range.to = next.to;
            range.expires = range.expires.max(next.expires);
        }
    }

    /// The ranges to ask for.
    pub(super) fn ranges(&self) -> Vec<(i64, i64)> {
        self.ranges.iter().map(|range| (range.from, range.to)).collect()
    }

    /// Takes the answer to a question that was asked at `asked`: how many of the ids are there now. Whether there are others than were known; then
    /// they must be looked for, each range with a question of its own, and none is dropped before that.
    pub(super) fn answer(&mut self, there: u64, asked: Instant) -> bool {
        let known: u64 = self.ranges.iter().map(|range| range.known).sum();
        if there == known {
            self.ranges.retain(|range| range.expires > asked);
        }
        there != known
    }

    /// Takes how many ids one range has now; whether there are others than were known.
    pub(super) fn learn(&mut self, range: (i64, i64), there: u64) -> bool {
        let mut is_news = false;
        for one in self.ranges.iter_mut().filter(|one| (one.from, one.to) == range) {
            is_news = one.known != there;
            one.known = there;
        }
        self.ranges.retain(|one| one.known < (one.to - one.from + 1).unsigned_abs());
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_hours(1);

    fn noted(ids: impl Iterator<Item = i64>) -> Gaps {
        let mut gaps = Gaps::default();
        gaps.note(Some(0), ids, Instant::now(), AGE);
        gaps
    }

    #[test]
    fn what_is_missing_is_asked_for_until_it_was_asked_for_once_after_its_age() {
        let mut gaps = noted([3, 4, 7].into_iter());
        assert_eq!(gaps.ranges(), [(1, 2), (5, 6)]);
        let now = Instant::now();
        assert!(!gaps.answer(0, now));
        assert_eq!(gaps.ranges().len(), 2);
        assert!(gaps.answer(1, now + AGE * 2), "the last question counts too");
        assert!(gaps.learn((1, 2), 1), "and which of them it was is asked for");
        assert!(!gaps.answer(1, now + AGE * 2));
        assert_eq!(gaps.ranges().len(), 0);
    }

    #[test]
    fn every_second_id_makes_few_ranges_and_what_is_in_them_is_known() {
        let mut gaps = noted((1..=50_000).map(|id| id * 2));
        let ranges = gaps.ranges();
        assert!(ranges.len() <= RANGES_MAX, "{}", ranges.len());
        let there: usize = ranges.iter().map(|(from, to)| (*from..=*to).filter(|id| id % 2 == 0).count()).sum();
        assert!(!gaps.answer(there as u64, Instant::now()), "nothing but what was captured");
        assert!(gaps.answer(there as u64 + 1, Instant::now()));
    }

    #[test]
    fn what_came_is_known_and_the_rest_is_asked_for_further() {
        let mut gaps = noted([4, 10].into_iter());
        assert!(gaps.answer(1, Instant::now()));
        assert!(!gaps.learn((1, 3), 0));
        assert!(gaps.learn((5, 9), 1));
        assert!(!gaps.answer(1, Instant::now()));
        assert!(gaps.learn((5, 9), 5));
        assert_eq!(gaps.ranges(), [(1, 3)], "what is complete goes");
    }

    #[test]
    fn they_span_a_bounded_number_of_ids() {
        let gaps = noted((1..=1_000).map(|id| id * 1_000));
        let ids: i64 = gaps.ranges().iter().map(|(from, to)| to - from + 1).sum();
        assert!(ids <= IDS_MAX && ids > IDS_MAX / 4, "{ids}");
    }
}
