//! From the coarse to the fine: which ranges of one node's hours have to be counted at a destination to find the hours that differ. Pure.
//!
//! A range is halved only where its count differs, and a half is counted only once: the other half is the difference. A range of which
//! nothing is there, or in which the source has nothing, needs no further question.
//!
//! The one rule: an hour is called equal only when a count of a range around it says so. (So a missing row can hide behind a surplus one
//! within the same range: a count cannot tell.)

/// The source's rows of one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Since 1970.
    pub hour: i64,
    /// Rows in the source.
    pub rows: u64,
    /// Rows of this hour in the outbox, waiting or parked.
    pub queued: u64,
}

/// Consecutive hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: i64,
    /// The one after the last.
    pub to: i64,
}

/// Hours in which the destination differs from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differing {
    /// The destination has rows there, but not as many as it should.
    Hour {
        /// Since 1970.
        hour: i64,
        /// Rows at the destination.
        there: u64,
    },
    /// The destination has nothing.
    Nothing(Span),
    /// The source has nothing.
    Surplus {
        /// Where.
        span: Span,
        /// Rows at the destination.
        there: u64,
    },
}

enum Open {
    /// To be counted; with it the other half and the count of both.
    Ask(Span, Option<(Span, u64)>),
    /// Counted.
    Known(Span, u64),
}

/// The search of one node's rows of one stream.
pub struct Search {
    hours: Vec<Hour>,
    open: Vec<Open>,
    asked: Option<(Span, Option<(Span, u64)>)>,
    differing: Vec<Differing>,
    there: u64,
}

impl Search {
    /// Over a range, with the source's hours in it in ascending order.
    pub fn new(span: Span, hours: Vec<Hour>) -> Self {
        let open = if span.from < span.to { vec![Open::Ask(span, None)] } else { Vec::new() };
        Self { hours, open, asked: None, differing: Vec::new(), there: 0 }
    }

    /// The next range to count; `None` when all is known.
    pub fn next_span(&mut self) -> Option<Span> {
        while let Some(open) = self.open.pop() {
            match open {
                Open::Known(span, there) => self.settle(span, there),
                Open::Ask(span, other) => {
                    self.asked = Some((span, other));
                    return Some(span);
                }
            }
        }
        None
    }

    /// The count of the range that was asked for last.
    pub fn answer(&mut self, there: u64) {
        let Some((span, other)) = self.asked.take() else { return };
        if let Some((other, both)) = other {
            self.open.push(match both.checked_sub(there) {
                Some(rest) => Open::Known(other, rest),
                // It grew meanwhile.
                None => Open::Ask(other, None),
            });
        }
        self.settle(span, there);
    }

    fn settle(&mut self, span: Span, there: u64) {
        let (rows, queued) = self.sums(span);
        // Rows of the outbox may have arrived, and the answer been lost: none or all of them there is as it should be.
        if there == rows || there.checked_add(queued) == Some(rows) {
            self.there += there;
        } else if there == 0 {
            self.differing.push(Differing::Nothing(span));
        } else if rows == 0 {
            self.there += there;
            self.differing.push(Differing::Surplus { span, there });
        } else if span.to - span.from == 1 {
            self.there += there;
            self.differing.push(Differing::Hour { hour: span.from, there });
        } else {
            let middle = span.from + (span.to - span.from) / 2;
            let (early, late) = (Span { to: middle, ..span }, Span { from: middle, ..span });
            self.open.push(Open::Ask(early, Some((late, there))));
        }
    }

    /// The source's hours within a range.
    pub fn within(&self, span: Span) -> &[Hour] {
        let start = self.hours.partition_point(|hour| hour.hour < span.from);
        let end = self.hours.partition_point(|hour| hour.hour < span.to);
        &self.hours[start..end]
    }

    fn sums(&self, span: Span) -> (u64, u64) {
        self.within(span).iter().fold((0, 0), |(rows, queued), hour| (rows + hour.rows, queued + hour.queued))
    }

    /// What differs, once there is nothing more to ask.
    pub fn differing(&self) -> &[Differing] {
        &self.differing
    }

    /// Rows at the destination.
    pub fn there(&self) -> u64 {
        self.there
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    /// Runs a search against a destination; gives the hours that it found to differ, and how often it asked.
    fn search(span: Span, hours: &[Hour], there: &BTreeMap<i64, u64>) -> (BTreeSet<i64>, Search, usize) {
        let mut search = Search::new(span, hours.to_vec());
        let mut asked = 0;
        while let Some(span) = search.next_span() {
            asked += 1;
            search.answer(there.range(span.from..span.to).map(|(_, rows)| rows).sum());
        }
        let mut found = BTreeSet::new();
        for differing in search.differing() {
            match *differing {
                Differing::Hour { hour, .. } => found.extend([hour]),
                Differing::Nothing(span) => found.extend(search.within(span).iter().map(|hour| hour.hour)),
                Differing::Surplus { span, .. } => {
                    found.extend(there.range(span.from..span.to).filter(|it| *it.1 > 0).map(|it| *it.0));
                }
            }
        }
        (found, search, asked)
    }

    fn hours(rows: impl IntoIterator<Item = (i64, u64, u64)>) -> Vec<Hour> {
        rows.into_iter().map(|(hour, rows, queued)| Hour { hour, rows, queued }).collect()
    }

    fn year() -> (Span, Vec<Hour>) {
        (Span { from: 0, to: 8_760 }, hours((0..8_760).map(|hour| (hour, 12, 0))))
    }

    #[test]
    fn equal_sides_cost_one_question() {
        let (span, source) = year();
        let there = source.iter().map(|hour| (hour.hour, hour.rows)).collect();
        let (found, search, asked) = search(span, &source, &there);
        assert_eq!((found.len(), search.there(), asked), (0, 8_760 * 12, 1));
    }

    #[test]
    fn one_gap_in_a_year_costs_as_many_questions_as_its_hours_have_bits() {
        let (span, source) = year();
        for gap in [0, 4_379, 4_380, 8_759] {
            let mut there: BTreeMap<i64, u64> = source.iter().map(|hour| (hour.hour, hour.rows)).collect();
            there.insert(gap, 11);
            let (found, _, asked) = search(span, &source, &there);
            assert_eq!(found, [gap].into());
            assert!(asked <= 15, "{asked}");
        }
    }

    #[test]
    fn an_empty_destination_costs_one_question() {
        let (span, source) = year();
        let (found, _, asked) = search(span, &source, &BTreeMap::new());
        assert_eq!((found.len(), asked), (8_760, 1));
    }

    #[test]
    fn rows_that_wait_are_not_missed_whether_none_or_all_of_them_have_arrived() {
        let source = hours([(1, 5, 0), (2, 5, 3)]);
        let span = Span { from: 0, to: 4 };
        for arrived in [2, 5] {
            assert!(search(span, &source, &[(1, 5), (2, arrived)].into()).0.is_empty());
        }
        assert_eq!(search(span, &source, &[(1, 5), (2, 4)].into()).0, [2].into());
        assert_eq!(search(span, &source, &[(1, 5), (2, 1)].into()).0, [2].into());
    }

    #[test]
    fn a_destination_that_grows_meanwhile_is_asked_again_and_the_search_ends() {
        let (span, source) = year();
        let mut search = Search::new(span, source);
        let mut asked = 0;
        while search.next_span().is_some() {
            search.answer(asked * 100_000 + 1);
            asked += 1;
            assert!(asked < 30_000, "it does not end");
        }
    }

    proptest! {
        #[test]
        fn every_hour_with_missing_rows_is_found_and_no_other(
            rows in prop::collection::btree_map(-40_i64..400, (1_u64..6, 0_u64..6), 0..60),
            from in -50_i64..-40, to in 400_i64..420,
        ) {
            let source = hours(rows.iter().map(|(hour, (rows, _))| (*hour, *rows, 0)));
            let there: BTreeMap<i64, u64> = rows.iter().map(|(hour, (rows, lost))| (*hour, rows.saturating_sub(*lost))).collect();
            let expected: BTreeSet<i64> = rows.iter().filter(|(_, (_, lost))| *lost > 0).map(|(hour, _)| *hour).collect();
            let (found, search, asked) = search(Span { from, to }, &source, &there);
            prop_assert_eq!(search.there(), there.values().sum::<u64>());
            // A range that is empty there names hours whose rows are all missing, and no other.
            prop_assert_eq!(found, expected);
            prop_assert!(asked <= 1 + 9 * source.len());
        }

        #[test]
        fn every_hour_with_surplus_rows_is_found_and_no_other(
            rows in prop::collection::btree_map(0_i64..300, (0_u64..4, 0_u64..3), 0..60),
        ) {
            let source = hours(rows.iter().filter(|(_, (rows, _))| *rows > 0).map(|(hour, (rows, _))| (*hour, *rows, 0)));
            let there: BTreeMap<i64, u64> = rows.iter().map(|(hour, (rows, more))| (*hour, rows + more)).collect();
            let expected: BTreeSet<i64> = rows.iter().filter(|(_, (_, more))| *more > 0).map(|(hour, _)| *hour).collect();
            prop_assert_eq!(search(Span { from: 0, to: 300 }, &source, &there).0, expected);
        }
    }
}
