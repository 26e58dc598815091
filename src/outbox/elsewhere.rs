//! What became of a stream's rows outside of this outbox: what a packhorse receiver remembers of it, from where in the source to begin again
//! when that receiver has lost what it took, and whether another copy of this outbox may have sent rows that this one does not know of.
//!
//! The one rule: a mark's place is a lower bound of every row that was appended from its seq on, late ones and returned ones too.

use serde::{Deserialize, Serialize};

use super::{
    Captured, Outbox, StoreError,
    format::{Intent, StreamState},
};
use crate::domain::{Epoch, Position, Seq, Stream};

/// Marks of a stream, at most.
const MARKS_MAX: usize = 12;
/// The newest mark is at most so many rows old.
const MARK_ROWS: u64 = 1_000;

/// What is known of a stream's rows elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The epoch that a packhorse receiver knows the stream by, where that is not the store's.
    pub epoch: Option<Epoch>,
    /// The highest seq that a packhorse receiver took in that epoch.
    pub taken: Option<Seq>,
    /// From where in the source the rows from some seqs on come; the oldest first.
    pub marks: Vec<Mark>,
    /// What of the source is to be captured once more, because a receiver has lost it.
    pub again: Option<Again>,
    /// Whether this outbox knows of all that was sent.
    pub image: Image,
    /// Rows in parked chunks with lower numbers may have been sent by another copy of this outbox.
    pub doubted_parked: u64,
}

/// From where in the source rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Rows with this seq and later ones.
    pub seq: Seq,
    /// None of them has a lower id (or time, in microseconds, where the table has no id).
    pub lowest: i64,
}

/// A part of the source that is captured once more, with the watermark as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Rows after this position.
    pub after: Position,
    /// Up to and including this one.
    pub up_to: Position,
}

/// Whether an outbox is the only one of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// Nothing speaks against it.
    #[default]
    Only,
    /// It is an older image, or a copy of it runs elsewhere: whatever is in the source when it is next reached may have been sent.
    Doubted,
}

/// What a doubt about an outbox has made of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubted {
    /// The run that is asked for before it is sent; `None` when nothing waits.
    pub intent: Option<Intent>,
}

impl Elsewhere {
    /// Rows are appended from a seq on, the lowest of which lies at this place.
    pub(super) fn note(&mut self, first: Seq, lowest: i64) {
        for mark in &mut self.marks {
            mark.lowest = mark.lowest.min(lowest);
        }
        if self.marks.last().is_none_or(|last| first.since(last.seq) >= MARK_ROWS) {
            self.marks.push(Mark { seq: first, lowest });
            self.thin();
        }
    }

    /// Forgets one where there are too many: those that stay lie the closer together the newer they are.
    fn thin(&mut self) {
        if self.marks.len() <= MARKS_MAX {
            return;
        }
        let last = self.marks.len() - 1;
        let at = |index: usize| self.marks[index].seq.0 as f64;
        let spread = |index: &usize| (at(index + 1) - at(index - 1)) / (at(last) - at(*index) + 1.0);
        if let Some(least) = (1..last).min_by(|one, other| spread(one).total_cmp(&spread(other))) {
            self.marks.remove(least);
        }
    }

    /// A place that no row with this seq or a later one lies before; `None` where that is not known.
    pub(super) fn lowest_from(&self, seq: Seq) -> Option<i64> {
        self.marks.iter().rev().find(|mark| mark.seq <= seq).map(|mark| mark.lowest)
    }
}

impl StreamState {
    /// The epoch that a packhorse receiver knows the stream by.
    pub fn epoch_elsewhere(&self, of_store: Epoch) -> Epoch {
        self.elsewhere.epoch.unwrap_or(of_store)
    }
}

impl Outbox {
    /// A packhorse receiver knows a stream by another epoch from now on. Seqs go on: none was ever used in the new one (I3).
    pub async fn begin_epoch(&self, stream: Stream, epoch: Epoch) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.begin_epoch(store, stream, epoch)).await
    }

    /// A packhorse receiver has lost what it took of a stream after a seq, or of which it is not known how much (`None`): that part of the source is
    /// captured once more. Gives which, `None` when nothing was captured yet.
    pub async fn capture_again(&self, stream: Stream, last_kept: Option<Seq>) -> Result<Option<Again>, StoreError> {
        let path = self.path().to_owned();
        self.change_kept(move |store, writer, keeper| {
            let again = writer.lost_from(stream, last_kept.map(|seq| seq.plus(1)));
            if let Some(again) = &again {
                // Before the commit, for it must stay a lower bound.
                keeper.reach_down_before(&path, writer, stream, &again.after).inspect_err(|_| store.give_up())?;
            }
            writer.capture_again(store, stream, again.clone())?;
            Ok(again)
        })
        .await
    }

    /// Appends a page of what is captured once more, with the watermark as it is; `after` is where that goes on, `None` when this was the last.
    pub async fn record_again(&self, captured: Captured, after: Option<Position>) -> Result<(), StoreError> {
        let path = self.path().to_owned();
        self.change_kept(move |store, writer, keeper| {
            keeper.reach_down(&path, writer, &captured.rows).inspect_err(|_| store.give_up())?;
            writer.append_again(store, &captured, after)
        })
        .await
    }

    /// This outbox is not the only one of its kind: whatever waits, is parked, or is in the source when it is next reached may have been sent, and
    /// is a repeat from now on. Gives what that makes of each stream, in the order of [`Stream::ALL`].
    pub async fn doubt(&self) -> Result<[Doubted; Stream::ALL.len()], StoreError> {
        self.change(|store, writer| writer.doubt(store)).await
    }

    /// What the source holds of a stream up to here may have been sent; what comes after it is new.
    pub async fn doubt_up_to(&self, stream: Stream, last: Position) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.doubt_up_to(store, stream, &last)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_lower_bound_of_all_that_came_after_it_and_the_newest_are_close_together() {
        let mut elsewhere = Elsewhere::default();
        let mut appended = Vec::new();
        for page in 0..5_000_u64 {
            // Now and then late rows of an older place come.
            let lowest = if page % 700 == 699 { (page * 500 - 90_000) as i64 } else { (page * 500) as i64 };
            appended.push((Seq(page * 500), lowest));
            elsewhere.note(Seq(page * 500), lowest);
        }
        assert!(elsewhere.marks.len() <= MARKS_MAX, "{:?}", elsewhere.marks);
        let end = 5_000 * 500;
        for lost in [1, 999, 10_000, 100_000, 1_000_000, end] {
            let from = Seq(end - lost);
            let bound = elsewhere.lowest_from(from).unwrap();
            let lowest = appended.iter().filter(|(seq, _)| seq.0 + 500 > from.0).map(|(_, lowest)| *lowest).min();
            assert!(lowest.is_none_or(|lowest| bound <= lowest), "{lost} rows lost: {bound} is not below {lowest:?}");
            let back = end as i64 - bound;
            assert!(back <= 4 * lost as i64 + 100_000, "{lost} rows lost, and {back} captured again");
        }
    }

    #[test]
    fn nothing_is_known_of_seqs_before_the_first_mark() {
        let mut elsewhere = Elsewhere::default();
        assert_eq!(elsewhere.lowest_from(Seq(5)), None);
        elsewhere.note(Seq(4), 70);
        assert_eq!((elsewhere.lowest_from(Seq(3)), elsewhere.lowest_from(Seq(4))), (None, Some(70)));
    }
}
