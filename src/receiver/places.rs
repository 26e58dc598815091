//! Places in the list of a request, as runs: what was refused and why, what was there already.
//!
//! The one rule: what a client is told stays small, however many rows it sent (I7).

use std::{collections::BTreeMap, fmt};

use crate::wire::RefusedRows;

/// So many places are named in a text for people; the others are counted.
const NAMED_MAX: usize = 20;
/// So many reasons are kept apart; rows refused for more are refused for "other reasons".
const REASONS_MAX: usize = 200;

/// Places, ascending, as runs from one up to another (exclusive).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    runs: Vec<(u64, u64)>,
    count: usize,
}

impl Places {
    /// Adds a place that is not before any other.
    pub(super) fn add(&mut self, place: usize) {
        let place = place as u64;
        match self.runs.last_mut() {
            Some((_, end)) if *end > place => return,
            Some((_, end)) if *end == place => *end += 1,
            Some(_) | None => self.runs.push((place, place + 1)),
        }
        self.count += 1;
    }

    /// Places in any order, some of them twice.
    pub(super) fn of(mut places: Vec<usize>) -> Self {
        places.sort_unstable();
        let mut all = Self::default();
        for place in places {
            all.add(place);
        }
        all
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The runs.
    pub(super) fn into_runs(self) -> Vec<(u64, u64)> {
        self.runs
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.runs.iter().flat_map(|(from, to)| *from..*to).take(NAMED_MAX);
        let named = first.map(|place| place.to_string()).collect::<Vec<_>>().join(", ");
        write!(f, "{} {named}", if self.count == 1 { "row" } else { "rows" })?;
        match self.count.saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Rows that are refused, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    reasons: BTreeMap<String, Vec<usize>>,
}

impl Refused {
    /// Notes a row; it may be refused for several reasons.
    pub(super) fn add(&mut self, reason: &str, place: usize) {
        if let Some(places) = self.reasons.get_mut(reason) {
            places.push(place);
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(reason.to_owned(), vec![place]);
        } else {
            self.reasons.entry("other reasons".to_owned()).or_default().push(place);
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let told = |(reason, places): (&String, &Vec<usize>)| format!("{reason} ({})", Places::of(places.clone()));
        let mut texts: Vec<String> = self.reasons.iter().take(NAMED_MAX).map(told).collect();
        if self.reasons.len() > NAMED_MAX {
            texts.push(format!("and {} more", self.reasons.len() - NAMED_MAX));
        }
        texts.join("; ")
    }

    /// For programs.
    pub(super) fn into_wire(self) -> Vec<RefusedRows> {
        let told = |(reason, places): (String, Vec<usize>)| RefusedRows { reason, rows: Places::of(places).into_runs() };
        self.reasons.into_iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_runs_and_as_a_short_text() {
        let places = Places::of(vec![5, 4, 3, 9, 4]);
        assert_eq!((places.count(), places.to_string().as_str()), (4, "rows 3, 4, 5, 9"));
        assert_eq!(places.into_runs(), [(3, 6), (9, 10)]);
        assert_eq!(Places::of((0..100).collect()).to_string().split("and").nth(1), Some(" 80 more"));
    }

    #[test]
    fn reasons_are_bounded_and_no_row_is_left_out() {
        let mut refused = Refused::default();
        for place in 0..1_000 {
            refused.add(&format!("reason {place}"), place);
        }
        assert!(refused.text().len() < 2_000);
        let told = refused.into_wire();
        assert_eq!(told.len(), REASONS_MAX + 1);
        assert_eq!(told.iter().flat_map(|it| &it.rows).map(|(from, to)| to - from).sum::<u64>(), 1_000);
    }
}
