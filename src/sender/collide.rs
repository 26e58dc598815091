//! Rows that a destination's key cannot tell apart. Pure.
//!
//! A legacy server keeps one reading of a second, node and type, and its newer NodeState table one state of a second, node and seq_num with
//! NULL as 0. Of such rows the first is delivered. The others are parked before they are sent: the server would refuse the request, or
//! put one over the other.
//!
//! Within a run they are seen. Across runs a row can meet one that was delivered before only if it is not later, to the second, than the last
//! of its node and type (of its node, for node states) that was delivered; such rows are asked for. Without memory of what was delivered, at the
//! beginning of a life, those with a fraction of a second are.
//!
//! The one rule: a table without fractions, in order, costs no question.

use std::collections::{HashMap, HashSet};

use super::doubt::coarse_key;
use crate::domain::{Rows, Stream};

/// More nodes and types than this are not remembered (I7).
const KEYS_MAX: usize = 100_000;

/// What is said of a row that is parked for this.
pub const REASON: &str =
    "the server cannot hold both: another row of the same second, node and type (or seq_num) was delivered first";

/// Those of `sent`, ascending, whose key an earlier row of `sent` or of `there` has.
pub fn doubles(rows: &Rows, sent: &[usize], there: &[usize]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(sent.len() + there.len());
    seen.extend(there.iter().filter_map(|row| coarse_key(rows, *row)));
    sent.iter().copied().filter(|row| coarse_key(rows, *row).is_some_and(|key| !seen.insert(key))).collect()
}

/// Those of `sent`, ascending, that are the very row that an earlier one of `sent` is (I6): captured twice, and none too many to anybody.
pub fn twins(rows: &Rows, sent: &[usize]) -> Vec<usize> {
    let spec = rows.stream().spec();
    let mut seen = HashSet::with_capacity(sent.len());
    let identity = |row: usize| {
        let (time, (node, _)) = (rows.time(row)?, rows.bucket(row)?);
        let id = spec.row_id.and_then(|place| rows.int(place, row));
        // Where there is an id, seq_num tells nothing apart.
        let third = if id.is_none() { rows.int(spec.key[2], row) } else { None };
        Some((id, time, node, third))
    };
    sent.iter().copied().filter(|row| identity(*row).is_some_and(|identity| !seen.insert(identity))).collect()
}

/// What was delivered last, in this life of the program.
#[derive(Debug, Default)]
pub struct Frontier {
    /// The highest second of a node and type; of a node, for node states.
    highest: HashMap<(i64, i64), i64>,
    has_fractions: bool,
}

impl Frontier {
    fn key(rows: &Rows, row: usize) -> Option<((i64, i64), i64)> {
        let (second, node, third) = coarse_key(rows, row)?;
        let third = match rows.stream() {
            Stream::Reading => third,
            Stream::NodeState => 0,
        };
        Some(((node, third), second))
    }

    /// Whether a row is later, to the second, than all that was delivered of its node and type (its node, for node states); `None` where nothing
    /// is remembered.
    pub fn precedes(&self, rows: &Rows, row: usize) -> Option<bool> {
        let (key, second) = Self::key(rows, row)?;
        self.highest.get(&key).map(|last| second > *last)
    }

    /// Those of `sent` that may have the key of a row that was delivered before.
    pub fn suspects(&self, rows: &Rows, sent: &[usize]) -> Vec<usize> {
        let has_fraction = |row: usize| rows.time(row).is_some_and(|time| time != time.cut_to_second());
        let mut highest = HashMap::new();
        let mut may_collide = |row: usize| {
            let Some((key, second)) = Self::key(rows, row) else { return false };
            let last = highest.get(&key).or_else(|| self.highest.get(&key)).copied();
            highest.insert(key, last.map_or(second, |last| second.max(last)));
            let is_later = last.is_some_and(|last| second > last);
            let can = match rows.stream() {
                // The source's own key tells readings of whole seconds apart.
                Stream::Reading => has_fraction(row) || self.has_fractions,
                Stream::NodeState => last.is_some() || has_fraction(row),
            };
            can && !is_later
        };
        sent.iter().copied().filter(|row| may_collide(*row)).collect()
    }

    /// These rows are at the destination.
    pub fn delivered(&mut self, rows: &Rows, there: impl Iterator<Item = usize>) {
        for row in there {
            let Some((key, second)) = Self::key(rows, row) else { continue };
            self.has_fractions |= rows.time(row).is_some_and(|time| time != time.cut_to_second());
            if self.highest.len() >= KEYS_MAX && !self.highest.contains_key(&key) {
                self.highest.clear();
            }
            let highest = self.highest.entry(key).or_insert(second);
            *highest = second.max(*highest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Column;

    const MS: i64 = 1_000;

    /// (microseconds, node, type).
    fn readings(rows: &[(i64, i64, i64)]) -> Rows {
        let ints = |value: &dyn Fn(&(i64, i64, i64)) -> i64| Column::Int(rows.iter().map(|row| Some(value(row))).collect());
        let columns =
            vec![ints(&|row| row.0), ints(&|row| row.1), ints(&|row| row.2), ints(&|_| 1), Column::Float(vec![None; rows.len()])];
        Rows::new(Stream::Reading, columns)
    }

    /// Microseconds and seq_num of node 1.
    type State = (i64, Option<i64>);

    fn states(rows: &[State]) -> Rows {
        let column = |value: &dyn Fn(&State) -> Option<i64>| Column::Int(rows.iter().map(value).collect());
        let none = || Column::Int(vec![None; rows.len()]);
        let columns =
            vec![none(), column(&|row| Some(row.0)), column(&|_| Some(1)), none(), none(), column(&|row| row.1), none()];
        Rows::new(Stream::NodeState, columns)
    }

    fn all(rows: &Rows) -> Vec<usize> {
        (0..rows.len()).collect()
    }

    #[test]
    fn of_one_key_the_first_is_sent() {
        let rows =
            readings(&[(5_000 * MS, 1, 0), (5_250 * MS, 1, 0), (5_250 * MS, 1, 1), (5_900 * MS, 1, 0), (6_000 * MS, 1, 0)]);
        assert_eq!(doubles(&rows, &all(&rows), &[]), [1, 3]);
        assert_eq!(doubles(&rows, &[1, 2, 3, 4], &[]), [3], "what is not sent is in nobody's way");
        assert_eq!(doubles(&rows, &[1, 2], &[0]), [1], "what is there already is");
        let rows = states(&[(5_000 * MS, None), (5_000 * MS, Some(0)), (5_000 * MS, Some(1)), (5_000 * MS, None)]);
        assert_eq!(doubles(&rows, &all(&rows), &[]), [1, 3]);
    }

    #[test]
    fn what_was_captured_twice_is_a_twin_and_what_shares_a_second_is_none() {
        let rows =
            readings(&[(5_000 * MS, 1, 0), (5_250 * MS, 1, 0), (5_000 * MS, 1, 0), (5_000 * MS, 1, 1), (5_250 * MS, 1, 0)]);
        assert_eq!(twins(&rows, &all(&rows)), [2, 4]);
        assert_eq!(twins(&rows, &[2, 3, 4]), [0; 0], "of what is sent");
        let rows = states(&[(5_000 * MS, None), (5_000 * MS, Some(0)), (5_000 * MS, None)]);
        assert_eq!(twins(&rows, &all(&rows)), [2]);
        // With an id of its own each is another one, whatever its seq_num.
        let ids = Column::Int(vec![Some(1), Some(2), Some(1)]);
        let mut columns: Vec<Column> = (0..rows.stream().spec().columns.len()).map(|_| Column::Int(vec![None; 3])).collect();
        columns[0] = ids;
        columns[1] = Column::Int(vec![Some(5_000 * MS); 3]);
        columns[2] = Column::Int(vec![Some(1); 3]);
        columns[5] = Column::Int(vec![Some(7), Some(7), Some(8)]);
        let rows = Rows::new(Stream::NodeState, columns);
        assert_eq!(twins(&rows, &all(&rows)), [2]);
    }

    #[test]
    fn in_order_only_the_seam_is_asked_for() {
        let mut frontier = Frontier::default();
        let first = readings(&[(4_000 * MS, 1, 0), (5_000 * MS, 1, 0), (5_000 * MS, 2, 0)]);
        frontier.delivered(&first, 0..3);
        let second = readings(&[(5_250 * MS, 1, 0), (6_250 * MS, 2, 0), (7_000 * MS, 1, 0)]);
        assert_eq!(frontier.suspects(&second, &all(&second)), [0]);
        frontier.delivered(&second, 0..3);
        let late = readings(&[(3_000 * MS, 1, 0), (9_000 * MS, 1, 0)]);
        assert_eq!(frontier.suspects(&late, &all(&late)), [0], "a late row can meet one with a fraction");
    }

    #[test]
    fn readings_of_whole_seconds_cost_no_question() {
        let mut frontier = Frontier::default();
        let rows = readings(&[(4_000 * MS, 1, 0), (5_000 * MS, 1, 0)]);
        assert_eq!(frontier.suspects(&rows, &all(&rows)), [0; 0]);
        frontier.delivered(&rows, 0..2);
        assert_eq!(frontier.suspects(&rows, &all(&rows)), [0; 0]);
    }

    #[test]
    fn at_the_beginning_of_a_life_the_first_fraction_of_a_node_and_type_is_asked_for() {
        let rows = readings(&[(4_100 * MS, 1, 0), (4_100 * MS, 2, 0), (5_100 * MS, 1, 0), (5_000 * MS, 3, 0)]);
        assert_eq!(Frontier::default().suspects(&rows, &all(&rows)), [0, 1]);
    }

    #[test]
    fn two_states_of_one_second_meet_across_runs() {
        let mut frontier = Frontier::default();
        frontier.delivered(&states(&[(5_000 * MS, Some(7))]), 0..1);
        let rows = states(&[(5_000 * MS, Some(7)), (6_000 * MS, Some(8))]);
        assert_eq!(frontier.suspects(&rows, &all(&rows)), [0]);
    }
}
