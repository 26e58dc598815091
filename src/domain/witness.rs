//! Rows that are remembered, so that a source that was emptied, restored or replaced is known for what it is. Pure.
//!
//! The one rule: what pruning does (the oldest rows go, the newest stay) is never taken for another database.

use serde::{Deserialize, Serialize};

use super::Position;

/// Witnesses of a stream, at most.
const WITNESSES_MAX: usize = 8;

/// A row that was captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Where it stood.
    pub position: Position,
    /// [`Rows::key_hash`](super::Rows::key_hash) of it.
    pub hash: u64,
}

/// What was found in the place of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It.
    Same,
    /// Another row: its id was given a second time.
    Other,
    /// Nothing.
    Gone,
}

/// What the witnesses of a stream say of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the database that it was; the oldest rows may have gone.
    Same,
    /// Its older rows are there and its newest are not: it was restored from a backup, or rows were deleted at its end.
    Restored,
    /// Nothing is as it was: emptied, or another database.
    Replaced,
}

/// Remembers one more row, the newest, and forgets one where there are too many: those that stay lie the closer together the newer they are.
pub fn remember(witnesses: &mut Vec<Witness>, newest: Witness) {
    // After a watermark went back, what lies behind it says nothing.
    witnesses.retain(|witness| newest.position.is_after(&witness.position));
    witnesses.push(newest);
    if witnesses.len() <= WITNESSES_MAX {
        return;
    }
    let at = |index: usize| match &witnesses[index].position {
        Position::Start => 0.0,
        Position::Id(id) => *id as f64,
        Position::Key { time, .. } => time.0 as f64,
    };
    let last = witnesses.len() - 1;
    let spread = |index: &usize| (at(index + 1) - at(index - 1)) / (at(last) - at(*index) + 1.0);
    if let Some(least) = (1..last).min_by(|one, other| spread(one).total_cmp(&spread(other))) {
        witnesses.remove(least);
    }
}

/// What a stream's witnesses say, the oldest first.
pub fn judge(sights: &[Sight]) -> Standing {
    let is_same = |sight: &Sight| *sight == Sight::Same;
    match sights.iter().position(is_same) {
        None if sights.is_empty() => Standing::Same,
        None => Standing::Replaced,
        Some(first) if sights[first..].iter().all(is_same) && !sights.contains(&Sight::Other) => Standing::Same,
        Some(_) => Standing::Restored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_spans_everything_and_is_denser_towards_the_end() {
        let mut witnesses = Vec::new();
        for id in 1..=100_000 {
            remember(&mut witnesses, Witness { position: Position::Id(id), hash: 0 });
        }
        let ids: Vec<i64> = witnesses
            .iter()
            .map(|witness| match witness.position {
                Position::Id(id) => id,
                Position::Start | Position::Key { .. } => panic!(),
            })
            .collect();
        assert_eq!((ids.len(), ids[0], ids[7]), (8, 1, 100_000));
        assert!(ids.windows(3).all(|three| three[2] - three[1] <= three[1] - three[0]), "{ids:?}");
        remember(&mut witnesses, Witness { position: Position::Id(50), hash: 0 });
        assert_eq!(witnesses.len(), 2, "a watermark that went back");
    }

    #[test]
    fn pruning_is_not_taken_for_another_database_and_everything_else_is_told() {
        use Sight::{Gone, Other, Same};
        for (sights, standing) in [
            (&[][..], Standing::Same),
            (&[Same, Same, Same], Standing::Same),
            (&[Gone, Gone, Same], Standing::Same),
            (&[Same, Same, Gone], Standing::Restored),
            (&[Same, Other, Gone], Standing::Restored),
            (&[Same, Gone, Same], Standing::Restored),
            (&[Other, Same, Same], Standing::Restored),
            (&[Gone, Gone, Gone], Standing::Replaced),
            (&[Other, Other, Gone], Standing::Replaced),
        ] {
            assert_eq!(judge(sights), standing, "{sights:?}");
        }
    }
}
