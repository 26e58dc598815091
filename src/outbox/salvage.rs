//! What of a damaged store goes on in a new life: the rows that were set aside, and the catalog entities that they need.
//!
//! Whatever waited is captured from the source again, but a row that was parked months ago may be gone there. Where all parked rows are
//! readable, capture begins behind those that waited, and parked rows from before that place are taken over; those from after it are
//! found again. Where some are not readable, capture begins before all that was parked, and what is readable is taken over all the same: it
//! may then be captured a second time, and is told apart at the destination (I6).
//!
//! The one rule: only what passes its checksum and decodes is taken over.

use super::{
    format::{self, Meta, Notes, Reason, StreamState},
    parked,
    sidecar::Sidecar,
    store::{Change, Store, StoreError},
    writer::OpenOptions,
};
use crate::{
    codec::{self, ChunkHeader, Run},
    domain::{Epoch, Position, Rows, Stream},
};

/// Chunks that go in one commit.
const COMMIT_CHUNKS: usize = 64;

/// A damaged store that can still be read in part, and where capture begins anew.
pub(super) struct Salvage {
    /// With its life; `None` when nothing of it can be read, or it is another outbox's.
    store: Option<(Store, Epoch)>,
    /// For each stream: where capture begins, and whether all parked rows are readable.
    begin: [(Position, Whole); Stream::ALL.len()],
}

/// Whether all parked rows of a stream can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Parked rows of each stream.
    pub(super) parked: [u64; Stream::ALL.len()],
    /// The number of the next parked chunk.
    pub(super) next_parked: u64,
}

impl Salvage {
    /// Nothing to take over.
    pub(super) fn none() -> Self {
        Self { store: None, begin: Stream::ALL.map(|_| (Position::Start, Whole::No)) }
    }

    /// Looks at what can be read.
    pub(super) fn survey(store: Option<Store>, sidecar: Option<&Sidecar>, options: &OpenOptions) -> Self {
        let store = store.and_then(|store| {
            let meta = meta(&store)?;
            let is_ours = meta.source == options.source
                && meta.destination == options.destination
                && sidecar.is_none_or(|sidecar| sidecar.meta.epoch == meta.epoch);
            is_ours.then_some((store, meta.epoch))
        });
        let whole = match (&store, sidecar) {
            (Some((store, _)), Some(sidecar)) => whole(store, sidecar).unwrap_or([Whole::No; Stream::ALL.len()]),
            _ => [Whole::No; Stream::ALL.len()],
        };
        let begin = Stream::ALL.map(|stream| {
            let whole = whole[usize::from(stream.number())];
            let Some(sidecar) = sidecar else { return (Position::Start, whole) };
            let bound = &sidecar.streams[usize::from(stream.number())];
            match whole {
                Whole::Yes => (bound.waiting_from.clone(), whole),
                Whole::No => (bound.from.clone(), whole),
            }
        });
        Self { store, begin }
    }

    /// Where capture begins anew.
    pub(super) fn begin(&self, stream: Stream) -> &Position {
        &self.begin[usize::from(stream.number())].0
    }

    /// Copies what can be read into a new store.
    ///
    /// # Errors
    /// Those of the new store; what cannot be read of the old one is left out, and told.
    pub(super) fn copy(&self, new: &Store, epoch: Epoch) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        let Some((old, old_epoch)) = &self.store else { return Ok(taken) };
        copy_entities(old, new)?;
        let (mut change, mut chunks) = (Change::default(), 0);
        let mut notes = Notes::default();
        for entry in readable(old) {
            let Some(chunk) = Chunk::read(old, &entry).filter(|chunk| chunk.header.epoch == *old_epoch) else { continue };
            let (begin, whole) = &self.begin[usize::from(chunk.header.stream.number())];
            let stays = |row: &usize| *whole == Whole::No || is_passed(&chunk.rows, *row, begin);
            let rows: Vec<usize> = (0..chunk.rows.len()).filter(stays).collect();
            if rows.is_empty() {
                continue;
            }
            let run = Run {
                epoch,
                generation: chunk.header.generation,
                first: chunk.header.first,
                captured_at: chunk.at,
                freshness: chunk.header.freshness,
            };
            parked::park_apart(&mut change, &run, &chunk.rows.pick(&rows), &chunk.reason, &mut notes);
            taken.parked[usize::from(chunk.header.stream.number())] += rows.len() as u64;
            chunks += 1;
            if chunks % COMMIT_CHUNKS == 0 {
                new.commit(std::mem::take(&mut change))?;
            }
        }
        new.commit(change)?;
        taken.next_parked = notes.next_parked;
        Ok(taken)
    }
}

/// A parked chunk that decodes.
struct Chunk {
    header: ChunkHeader,
    rows: Rows,
    reason: Reason,
    at: crate::domain::Micros,
}

impl Chunk {
    /// `None` for what is no parked chunk, or not that of its key.
    fn read(store: &Store, (key, value): &(Vec<u8>, Vec<u8>)) -> Option<Self> {
        let (parked, chunk) = parked::split(store, value).ok()?;
        let (header, rows) = codec::decode(chunk).ok()?;
        let number = format::number_of_parked_key(key)?;
        let is_it = format::parked_key(&parked.reason, number) == *key && header.stream == parked.stream;
        is_it.then_some(Self { header, rows, reason: parked.reason, at: parked.at })
    }
}

/// Parked entries, as far as the store can be read.
fn readable(store: &Store) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    let prefixes = [format::HELD, format::REFUSED].into_iter();
    prefixes.flat_map(|prefix| store.scan(prefix, prefix).into_iter().flatten().map_while(Result::ok))
}

fn meta(store: &Store) -> Option<Meta> {
    let meta = store.get(format::META).ok()??;
    format::from_bytes(&meta).map(|(meta, _)| meta)
}

/// Whether the store still has every parked row that it knows of, for each stream. `None` when it is not the sidecar's, or behind it.
fn whole(store: &Store, sidecar: &Sidecar) -> Option<[Whole; Stream::ALL.len()]> {
    let meta = meta(store)?;
    let state = |stream: Stream| {
        let bytes = store.get(&format::stream_key(stream)).ok()??;
        format::from_bytes::<StreamState>(&bytes).map(|(state, _)| state)
    };
    let states = Stream::ALL.map(state);
    let known: Vec<StreamState> = states.iter().flatten().cloned().collect();
    if known.len() < states.len() || sidecar.contradicts(&meta, &known).is_some() {
        return None;
    }
    let mut found = [0; Stream::ALL.len()];
    for entry in readable(store) {
        if let Some(chunk) = Chunk::read(store, &entry) {
            found[usize::from(chunk.header.stream.number())] += chunk.rows.len() as u64;
        }
    }
    Some(Stream::ALL.map(|stream| {
        let place = usize::from(stream.number());
        if known[place].parked_ever.checked_sub(known[place].returned + known[place].discarded) == Some(found[place]) {
            Whole::Yes
        } else {
            Whole::No
        }
    }))
}

/// Entities do not matter where they cannot be read: capture brings those that the source has.
fn copy_entities(old: &Store, new: &Store) -> Result<(), StoreError> {
    let mut change = Change::default();
    for (key, value) in old.scan(format::ENTITIES, format::ENTITIES).into_iter().flatten().map_while(Result::ok) {
        let is_one = format::from_bytes::<crate::domain::Entity<crate::domain::LocalId>>(&value).is_some();
        if is_one && format::parse_entity_key(&key).is_some() {
            change.put(key, value);
        }
    }
    new.commit(change)
}

/// Whether capture that begins there does not come by a row again.
fn is_passed(rows: &Rows, row: usize, begin: &Position) -> bool {
    match begin {
        Position::Start => false,
        Position::Id(begin) => rows.id_position(row).is_none_or(|at| matches!(at, Position::Id(id) if id <= *begin)),
        Position::Key { time: begin, rest: further } => rows
            .key_position(row)
            .is_none_or(|at| matches!(at, Position::Key { time, rest } if (time, &rest) <= (*begin, further))),
    }
}
