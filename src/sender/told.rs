//! What a packhorse receiver tells beside its verdict, and what follows from it.
//!
//! | it tells | so | then |
//! |---|---|---|
//! | a seq beyond all that was ever sent from here | this outbox is an older image, or a copy of it runs elsewhere | a new epoch, told |
//! | less than it took | it was put back from a backup, or emptied | that part of the source is captured once more, told |
//! | rows that it refuses, by place | the others are stored | the catalog is looked at, these are tried once more beside one that was taken, then parked |
//!
//! The one rule (I8): rows are parked for what a receiver says of them only when the same answer took another row of their stream.

use std::collections::BTreeSet;

use super::{Sender, Standing, prepare::Prepared};
use crate::{
    catalog::Recheck,
    domain::{Epoch, Seq, Stream, Told},
    outbox::{Again, Batch, Reason, StoreError},
};

/// So many reasons are remembered as confirmed (I7).
const REASONS_MAX: usize = 1_000;

/// How what a receiver remembers stands to what this outbox knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Both know the same.
    Agrees,
    /// It has seen what was never sent from here.
    Ahead,
    /// It has lost what it took; the last seq that it still has.
    Lost(Option<Seq>),
}

/// Holds what a receiver has seen of an epoch against what it took before, and against the seq after the last that was ever sent from here.
pub fn compare(seen: Option<Seq>, taken: Option<Seq>, sent_up_to: Seq) -> Memory {
    match (seen, taken) {
        (Some(seen), _) if seen >= sent_up_to => Memory::Ahead,
        (None, Some(_)) => Memory::Lost(None),
        (Some(seen), Some(taken)) if seen < taken => Memory::Lost(Some(seen)),
        (None | Some(_), _) => Memory::Agrees,
    }
}

/// Rows of a batch that a receiver refused, and what it did with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// These are parked.
    Parked,
    /// They are tried once more, after a look at the catalog.
    Again,
}

impl Sender<'_> {
    /// Notes what a receiver tells of its memory; [`act`](Self::act) follows when no request is in flight.
    pub(super) fn heed(&mut self, stream: Stream, told: &Told, taken: Option<Seq>, sent_up_to: Seq) {
        match compare(told.seen, taken, sent_up_to) {
            Memory::Agrees => {}
            memory @ (Memory::Ahead | Memory::Lost(_)) => self.front_mut(stream).memory = memory,
        }
    }

    /// Whether something was noted.
    pub(super) fn is_told(&self, stream: Stream) -> bool {
        self.front(stream).memory != Memory::Agrees
    }

    /// Does what follows from what was noted. `true` when a batch that was leased before is no longer good.
    pub(super) async fn act(&mut self) -> Result<bool, StoreError> {
        let mut is_changed = false;
        for stream in Stream::ALL {
            match std::mem::replace(&mut self.front_mut(stream).memory, Memory::Agrees) {
                Memory::Agrees => continue,
                Memory::Ahead => {
                    let epoch = (self.options.new_epoch)();
                    self.begin_epoch(stream, epoch).await?;
                }
                Memory::Lost(kept) => self.capture_again(stream, kept).await?,
            }
            is_changed = true;
        }
        Ok(is_changed)
    }

    async fn begin_epoch(&mut self, stream: Stream, epoch: Epoch) -> Result<(), StoreError> {
        let text = "the receiver has seen rows of this outbox that were never sent from here: data_dir is an older image, or a copy of it runs \
                    elsewhere. A new epoch begins and nothing is lost; if a copy runs, take the data_dir of one of them away";
        tracing::warn!(outbox = %self.outbox.path().display(), %stream, %epoch, "{text}");
        self.outbox.begin_epoch(stream, epoch).await?;
        self.outbox.note_trouble((self.options.clock)(), text.to_owned()).await
    }

    async fn capture_again(&mut self, stream: Stream, kept: Option<Seq>) -> Result<(), StoreError> {
        let again = self.outbox.capture_again(stream, kept).await?;
        let (after, up_to) = match &again {
            Some(Again { after, up_to }) => (after.to_string(), up_to.to_string()),
            None => ("nothing".to_owned(), "nothing".to_owned()),
        };
        let text = format!(
            "the receiver has lost {} that it had taken: it was put back to an older state or emptied; those after {after} are captured and sent again",
            stream.plural()
        );
        tracing::warn!(
            outbox = %self.outbox.path().display(), %stream, up_to,
            last_kept = kept.map_or_else(|| "none".to_owned(), |seq| seq.to_string()), "{text}"
        );
        self.outbox.note_trouble((self.options.clock)(), text).await?;
        // Its catalog is as old as the rest.
        self.recheck = Recheck::All;
        self.synced = None;
        Ok(())
    }

    /// Of what a receiver took before together with rows that it refused, one row stays in the request: that it is taken again shows that
    /// the receiver is well. A repeat is free there.
    pub(super) fn leave_taken(&self, batch: &Batch, prepared: &mut Prepared) {
        let taken = &self.front(batch.rows.stream()).taken;
        if taken.is_empty() {
            return;
        }
        let mut there: Vec<usize> =
            prepared.sent.iter().copied().filter(|row| taken.contains(&batch.first.plus(*row as u64))).collect();
        if there.len() < prepared.sent.len() {
            there.pop();
        }
        prepared.leave(&there);
    }

    /// What becomes of a batch of which a receiver refused some rows, and stored all others.
    pub(super) fn judge_each(&mut self, batch: &Batch, prepared: &mut Prepared, told: &Told) -> Judged {
        let stream = batch.rows.stream();
        let refused: BTreeSet<usize> = told.refused.iter().filter_map(|one| prepared.sent.get(one.row).copied()).collect();
        let took_some = refused.len() < prepared.sent.len();
        let seqs: Vec<Seq> =
            prepared.sent.iter().filter(|row| !refused.contains(row)).map(|row| batch.first.plus(*row as u64)).collect();
        let front = self.front_mut(stream);
        // What follows a look at the catalog, or is said for a reason that did so before.
        let is_confirmed = match front.standing {
            Standing::CatalogDoubted | Standing::RowsDoubted | Standing::ServerDoubted(_) => true,
            Standing::Well | Standing::Failing(_) => told.refused.iter().all(|one| front.reasons.contains(&one.reason)),
        };
        if !took_some || !is_confirmed {
            front.taken.extend(seqs);
            return Judged::Again;
        }
        if front.reasons.len() > REASONS_MAX {
            front.reasons.clear();
        }
        for one in &told.refused {
            front.reasons.insert(one.reason.clone());
            if let Some(row) = prepared.sent.get(one.row) {
                prepared.aside.insert(*row, Reason::Refused(format!("the receiver refuses it ({})", one.reason)));
            }
        }
        prepared.sent.retain(|row| !refused.contains(row));
        tracing::warn!(
            %stream, rows = refused.len(), why = told.refused.first().map_or("", |one| one.reason.as_str()),
            "refused rows are parked; the others were accepted"
        );
        front.standing = Standing::Well;
        Judged::Parked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receiver_has_seen_tells_an_older_image_and_a_restored_receiver() {
        let seq = |number| Some(Seq(number));
        for (seen, taken, sent_up_to, memory) in [
            (None, None, 0, Memory::Agrees),
            (seq(9), seq(9), 10, Memory::Agrees),
            // An answer that was lost.
            (seq(19), seq(9), 20, Memory::Agrees),
            // Rows at the end were refused or held: it was told of them in no request.
            (seq(9), seq(9), 30, Memory::Agrees),
            (seq(10), seq(9), 10, Memory::Ahead),
            (seq(500), None, 0, Memory::Ahead),
            (seq(8), seq(9), 10, Memory::Lost(seq(8))),
            (None, seq(9), 10, Memory::Lost(None)),
        ] {
            assert_eq!(compare(seen, taken, Seq(sent_up_to)), memory, "{seen:?} {taken:?} {sent_up_to}");
        }
    }
}
