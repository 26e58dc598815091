//! What may have arrived of a run, and what an answer about it means. Pure.
//!
//! A bulk is stored whole or not at all, so a few of its rows that were never sent before answer for all of them: the *witnesses*. Rows that
//! went out in several requests, or that may have arrived before, are asked for one by one.
//!
//! The one rule: a witness is a row whose key at the destination, however coarse that is, no other row of the request shares; and when the
//! witnesses do not agree, each row is asked for.

use std::collections::BTreeMap;

use super::collide::Frontier;
use crate::{
    domain::{Rows, Seq},
    outbox::{Extent, Intent},
    ports::Presence,
};

/// So many witnesses are heard. One would do, were it certain that no row like it was ever delivered before.
const WITNESSES: usize = 3;

/// How the rows of a doubtful run were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// These, by their places in the run, in one request and for the first time.
    Together(Vec<usize>),
    /// Nobody knows.
    Each,
}

/// A run, from its stream's cursor on, that may have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The seq after its last row.
    pub end: Seq,
    /// How it was sent.
    pub sent: Sent,
}

impl Doubt {
    /// What an intent that was found at start says; `None` when it lies before the cursor.
    pub fn of(intent: Intent, cursor: Seq) -> Option<Self> {
        if intent.end <= cursor {
            return None;
        }
        let sent = match intent.extent {
            Extent::Whole if intent.first == cursor => Sent::Together((0..intent.end.since(cursor) as usize).collect()),
            Extent::Whole | Extent::Parts => Sent::Each,
        };
        Some(Self { end: intent.end, sent })
    }

    /// What is left of it when everything before `cursor` is settled.
    pub fn after(self, cursor: Seq) -> Option<Self> {
        (self.end > cursor).then_some(Self { end: self.end, sent: Sent::Each })
    }
}

/// What the witnesses say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// The request arrived.
    Arrived,
    /// It did not.
    Absent,
    /// They do not agree.
    Unclear,
}

/// What a row is at least known by at every destination: second, node, and type or seq_num with NULL as 0. `None` where it cannot be
/// asked for.
pub fn coarse_key(rows: &Rows, row: usize) -> Option<(i64, i64, i64)> {
    let (node, _) = rows.bucket(row)?;
    let second = rows.time(row)?.0.div_euclid(1_000_000);
    Some((second, node, rows.int(rows.stream().spec().key[2], row).unwrap_or(0)))
}

/// The rows to ask for about a request of these rows: a few groups, each of all rows of one key. Preferred are rows that are later than all
/// that was delivered of their node before, then those on a whole second, which no other row of the same second precedes; and of
/// these the groups of one row.
pub fn witnesses(rows: &Rows, sent: &[usize], delivered: &Frontier) -> Vec<Vec<usize>> {
    let mut groups = BTreeMap::<(i64, i64, i64), Vec<usize>>::new();
    for row in sent {
        if let Some(key) = coarse_key(rows, *row) {
            groups.entry(key).or_default().push(*row);
        }
    }
    let rank = |group: &Vec<usize>| {
        let has_fraction = rows.time(group[0]).is_none_or(|time| time != time.cut_to_second());
        let class = match delivered.precedes(rows, group[0]) {
            Some(true) => 0,
            None if !has_fraction => 1,
            None => 2,
            Some(false) => 3,
        };
        (class, group.len())
    };
    let Some(best) = groups.values().map(rank).min() else { return Vec::new() };
    let best: Vec<Vec<usize>> = groups.into_values().filter(|group| rank(group) == best).collect();
    let last = best.len() - 1;
    let mut places: Vec<usize> = (0..WITNESSES).map(|n| last * n / (WITNESSES - 1)).collect();
    places.dedup();
    places.into_iter().map(|place| best[place].clone()).collect()
}

/// What the answers about groups of witnesses say, in the order of their rows.
pub fn testimony(groups: &[Vec<usize>], answers: &[Presence]) -> Testimony {
    let mut answers = answers.iter();
    let mut said = Vec::new();
    for group in groups {
        let of_group: Vec<Presence> = answers.by_ref().take(group.len()).copied().collect();
        let all = |presence| of_group.len() == group.len() && of_group.iter().all(|one| *one == presence);
        said.push(if all(Presence::There) {
            Testimony::Arrived
        } else if all(Presence::Absent) {
            Testimony::Absent
        } else {
            Testimony::Unclear
        });
    }
    match said.first() {
        Some(first) if said.iter().all(|one| one == first) => *first,
        Some(_) => Testimony::Unclear,
        // Rows without a time or a node cannot be asked for, and are taken as absent.
        None => Testimony::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Column, Stream},
        ports::Presence::{Absent, There},
    };

    /// Microseconds, node, seq_num.
    type State = (i64, i64, Option<i64>);

    fn states(rows: &[State]) -> Rows {
        let ints = |value: &dyn Fn(&State) -> Option<i64>| Column::Int(rows.iter().map(value).collect());
        let none = || Column::Int(vec![None; rows.len()]);
        let columns =
            vec![none(), ints(&|row| Some(row.0)), ints(&|row| Some(row.1)), none(), none(), ints(&|row| row.2), none()];
        Rows::new(Stream::NodeState, columns)
    }

    #[test]
    fn a_witness_shares_its_key_with_no_other_row_of_the_request() {
        let rows = states(&[
            (5_000_000, 1, Some(0)),
            (5_400_000, 1, None),
            (5_000_000, 2, Some(0)),
            (6_100_000, 1, Some(1)),
            (7_000_000, 1, Some(1)),
            (8_000_000, 1, Some(1)),
        ]);
        // The first two are one to the coarsest of servers, and the fourth may follow an earlier one of its second.
        let none = Frontier::default();
        assert_eq!(witnesses(&rows, &[0, 1, 2, 3, 4, 5], &none), [vec![2], vec![4], vec![5]]);
        assert_eq!(witnesses(&rows, &[0, 3], &none), [vec![0]], "what was not sent is no witness");
        let mut delivered = Frontier::default();
        delivered.delivered(&rows, [4].into_iter());
        assert_eq!(witnesses(&rows, &[0, 1, 2, 3, 4, 5], &delivered), [vec![5]], "no other is later than all that was delivered");
    }

    #[test]
    fn where_every_row_has_a_double_all_of_one_key_are_asked_for() {
        let rows = states(&[(5_000_000, 1, None), (5_000_000, 1, None), (6_000_000, 1, None), (6_000_000, 1, None)]);
        let groups = witnesses(&rows, &[0, 1, 2, 3], &Frontier::default());
        assert_eq!(groups, [vec![0, 1], vec![2, 3]]);
        assert_eq!(testimony(&groups, &[There; 4]), Testimony::Arrived);
        assert_eq!(testimony(&groups, &[Absent; 4]), Testimony::Absent);
        assert_eq!(testimony(&groups, &[There, Absent, There, Absent]), Testimony::Unclear);
        assert_eq!(testimony(&groups, &[There, There, Absent, Absent]), Testimony::Unclear);
    }

    #[test]
    fn what_cannot_be_asked_for_is_taken_as_absent() {
        let nothing = states(&[]);
        assert_eq!(testimony(&witnesses(&nothing, &[], &Frontier::default()), &[]), Testimony::Absent);
    }

    #[test]
    fn an_intent_of_an_earlier_life_covers_what_is_not_settled() {
        let intent = |extent| Intent { stream: Stream::Reading, first: Seq(4), end: Seq(6), extent };
        assert_eq!(Doubt::of(intent(Extent::Whole), Seq(4)).unwrap().sent, Sent::Together(vec![0, 1]));
        assert_eq!(Doubt::of(intent(Extent::Parts), Seq(4)).unwrap().sent, Sent::Each);
        assert_eq!(Doubt::of(intent(Extent::Whole), Seq(5)).unwrap().sent, Sent::Each);
        assert_eq!(Doubt::of(intent(Extent::Whole), Seq(6)), None);
        let doubt = Doubt { end: Seq(9), sent: Sent::Together(vec![0]) };
        assert_eq!(doubt.clone().after(Seq(8)), Some(Doubt { end: Seq(9), sent: Sent::Each }));
        assert_eq!(doubt.after(Seq(9)), None);
    }
}
