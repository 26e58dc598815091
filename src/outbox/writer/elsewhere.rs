//! Changes of what is known of a stream's rows elsewhere.
//!
//! The one rule: nothing here moves a watermark or a cursor. What is captured once more goes beside them, and its progress enters with its
//! rows (I1, I4).

use super::{Captured, Change, LedgerChange, Store, StoreError, Stream, StreamState, Writer, format, sidecar};
use crate::{
    domain::{Epoch, Freshness, Position, Seq},
    outbox::{Again, Doubted, Extent, Image, Intent, ledger::LedgerState},
};

impl Writer {
    /// A packhorse receiver knows the stream by another epoch from now on: under the present one it has seen rows that were never sent from here.
    pub(in crate::outbox) fn begin_epoch(&mut self, store: &Store, stream: Stream, epoch: Epoch) -> Result<(), StoreError> {
        let mut state = self.state(stream).clone();
        state.elsewhere.epoch = Some(epoch);
        state.elsewhere.taken = None;
        self.put_state(store, stream, Change::default(), state)
    }

    /// What the source would have to be captured from when a receiver has lost every row with this seq and later ones, or of which it is not
    /// known how many (`None`); and up to where that is. `None` when nothing was captured yet.
    pub(in crate::outbox) fn lost_from(&self, stream: Stream, seq: Option<Seq>) -> Option<Again> {
        let state = self.state(stream);
        if state.watermark == Position::Start {
            return None;
        }
        let lowest = seq.and_then(|seq| state.elsewhere.lowest_from(seq));
        let after = match lowest {
            Some(lowest) => sidecar::position_before(Some(lowest), &state.watermark),
            None => Position::Start,
        };
        let after = match &self.ledger(stream).floor {
            Some(floor) if floor.is_after(&after) => floor.clone(),
            Some(_) | None => after,
        };
        // What was still to be captured once more for another reason remains so.
        let after = match &state.elsewhere.again {
            Some(again) if after.is_after(&again.after) => again.after.clone(),
            Some(_) | None => after,
        };
        Some(Again { after, up_to: state.watermark.clone() })
    }

    /// A receiver has lost rows: this is captured once more, and what it takes counts anew.
    pub(in crate::outbox) fn capture_again(
        &mut self,
        store: &Store,
        stream: Stream,
        again: Option<Again>,
    ) -> Result<(), StoreError> {
        let mut state = self.state(stream).clone();
        state.elsewhere.taken = None;
        if again.is_some() {
            state.elsewhere.again = again;
        }
        self.put_state(store, stream, Change::default(), state)
    }

    /// Appends a page of what is captured once more; `after` is where that goes on, `None` when it was the last.
    pub(in crate::outbox) fn append_again(
        &mut self,
        store: &Store,
        captured: &Captured,
        after: Option<Position>,
    ) -> Result<(), StoreError> {
        // Late rows among them are not counted: an audit that finds one captures a repeat.
        self.expect_repeats(store, captured.rows.stream())?;
        self.append_with(store, captured, &LedgerChange::default(), |state| {
            state.elsewhere.again = after.zip(state.elsewhere.again.take()).map(|(after, again)| Again { after, ..again });
        })
    }

    /// This outbox is not the only one of its kind: whatever waits, is parked, or is in the source when it is next reached may have been sent.
    pub(in crate::outbox) fn doubt(&mut self, store: &Store) -> Result<[Doubted; Stream::ALL.len()], StoreError> {
        let mut change = Change::default();
        let (mut streams, mut intents) = (self.streams.clone(), self.intents);
        for stream in Stream::ALL {
            let number = usize::from(stream.number());
            let state = &mut streams[number];
            state.elsewhere.image = Image::Doubted;
            state.elsewhere.doubted_parked = self.notes.next_parked;
            change.put(format::stream_key(stream), format::to_bytes(&*state));
            if state.pending() > 0 {
                let intent = Intent { stream, first: state.cursor, end: state.next, extent: Extent::Parts };
                change.put(format::intent_key(stream), format::to_bytes(&intent));
                intents[number] = Some(intent);
            }
        }
        store.commit(change)?;
        self.streams = streams;
        self.intents = intents;
        Ok(intents.map(|intent| Doubted { intent }))
    }

    /// The source was reached: what it holds up to here may have been sent, and what comes after it cannot have been.
    pub(in crate::outbox) fn doubt_up_to(&mut self, store: &Store, stream: Stream, last: &Position) -> Result<(), StoreError> {
        let mut state = self.state(stream).clone();
        state.elsewhere.image = Image::Only;
        let mut change = Change::default();
        change.put(format::stream_key(stream), format::to_bytes(&state));
        let known = self.ledger(stream).clone();
        let repeats = if *last == Position::Start { known.repeats.clone() } else { known.repeats.and_up_to(last) };
        self.set_ledger(store, stream, change, LedgerState { repeats, ..known })?;
        self.set_state(stream, state);
        Ok(())
    }

    /// What rows of a parked chunk are when they return.
    pub(super) fn freshness_of_parked(state: &StreamState, number: u64, parked: Freshness) -> Freshness {
        if number < state.elsewhere.doubted_parked { Freshness::Repeat } else { parked }
    }

    /// What rows that enter are.
    pub(super) fn freshness_of_new(state: &StreamState, captured: Freshness) -> Freshness {
        match state.elsewhere.image {
            Image::Only => captured,
            // Until it is known where the source ended.
            Image::Doubted => Freshness::Repeat,
        }
    }

    fn put_state(&mut self, store: &Store, stream: Stream, mut change: Change, state: StreamState) -> Result<(), StoreError> {
        change.put(format::stream_key(stream), format::to_bytes(&state));
        store.commit(change)?;
        self.set_state(stream, state);
        Ok(())
    }
}
