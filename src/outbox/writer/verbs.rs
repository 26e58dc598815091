//! What an operator does to parked rows: append them anew, or drop them.
//!
//! The one rule: a row leaves a parked chunk in the commit that counts it as returned or as discarded (I5), and only if the chunk is still
//! the one that was looked at.

use super::{Change, ChunkHeader, Run, Store, StoreError, Stream, Writer, append_chunks, codec, edge, format, parked};
use crate::outbox::{
    format::{PARKED_CHUNK_BYTES_MAX, Parked, Reason},
    verbs::{Fate, Pick},
};

use std::sync::Arc;

impl Writer {
    /// Takes the picked rows out of their chunks; gives how many. A chunk that has changed since it was picked is left as it is, and so is one of
    /// an earlier generation that should return, where what its rows point to is another entity now. `before` hears of the chunks that are going
    /// to be pending again, and may object.
    pub(in crate::outbox) fn take(
        &mut self,
        store: &Store,
        picks: &[Pick],
        fate: Fate,
        before: impl FnOnce(&Self, &[ChunkHeader]) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let mut change = Change::default();
        let mut streams = self.streams.clone();
        let mut held = Arc::clone(&self.held);
        let mut notes = self.notes.clone();
        let mut taken_rows = 0;
        let (mut added, mut removed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for pick in picks {
            let Some(value) = store.get(&pick.key)? else { continue };
            if crc32fast::hash(&value) != pick.digest {
                continue;
            }
            let Some(number) = format::number_of_parked_key(&pick.key) else { continue };
            let (parked, chunk) = parked::split(store, &value)?;
            let (header, rows) = codec::decode(chunk).map_err(|error| parked::damaged(store, &error))?;
            if fate == Fate::Return
                && header.generation != self.meta.generation
                && !self.means_the_same(store, header.generation, &rows)?
            {
                continue;
            }
            let freshness = Self::freshness_of_parked(&streams[usize::from(header.stream.number())], number, header.freshness);
            let run = |first| Run {
                epoch: self.meta.epoch,
                generation: header.generation,
                first,
                captured_at: header.captured_at,
                freshness,
            };
            let picked = |row: &usize| pick.rows.binary_search(row).is_ok();
            let (taken, left): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(picked);
            let count = taken.len() as u64;
            let state = &mut streams[usize::from(header.stream.number())];
            match fate {
                Fate::Return => {
                    added.extend(append_chunks(&mut change, state, &run(state.next), &rows.pick(&taken)));
                    state.returned += count;
                }
                Fate::Discard => state.discarded += count,
            }
            taken_rows += count;
            removed.push(number);
            change.remove(&pick.key);
            let (mut chunks, mut bytes) = (0, 0);
            if !left.is_empty() {
                // A part of a chunk may, oddly, need more than one.
                for chunk in codec::encode(&run(header.first), &rows.pick(&left), PARKED_CHUNK_BYTES_MAX) {
                    let parked = Parked { count: chunk.header.count, ..parked.clone() };
                    let value = [format::to_bytes(&parked), chunk.bytes].concat();
                    bytes += value.len() as u64;
                    change.put(format::parked_key(&parked.reason, notes.next_parked), value);
                    kept.push((notes.next_parked, header.stream, chunk.header.lowest));
                    notes.next_parked += 1;
                    chunks += 1;
                }
            }
            if let Reason::Held(what) = parked.reason
                && let Some(entry) = Arc::make_mut(&mut held).get_mut(&what)
            {
                entry.rows -= count;
                entry.chunks = entry.chunks + chunks - 1;
                entry.bytes = entry.bytes + bytes - value.len() as u64;
                if entry.chunks == 0 {
                    Arc::make_mut(&mut held).remove(&what);
                }
            }
        }
        if taken_rows == 0 {
            return Ok(0);
        }
        for stream in Stream::ALL {
            change.put(format::stream_key(stream), format::to_bytes(&streams[usize::from(stream.number())]));
        }
        change.put(format::NOTES, format::to_bytes(&notes));
        before(self, &added)?;
        edge::pass("take:encoded");
        store.commit(change)?;
        edge::pass("take:committed");
        self.streams = streams;
        self.held = held;
        self.notes = notes;
        self.add_places(&added);
        for number in removed {
            self.places.remove_parked(number);
        }
        for (number, stream, lowest) in kept {
            self.places.add_parked(number, stream, lowest);
        }
        Ok(taken_rows)
    }
}
