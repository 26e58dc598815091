//! What of a damaged store goes on in a new life: the rows that were set aside, and the catalog entities that they need.
//!
//! Whatever waited is captured from the source again, but a row that was parked months ago may be gone there. So all parked rows are taken
//! over that can be read, in the store or in the copy of them that lies beside it (`parked_copy`). Where the store still has every one of
//! them, capture begins behind those that waited; else before all that was parked. A parked row from behind the place where capture begins
//! may come a second time, and so all of them are repeats from now on: they are told apart at the destination (I6).
//!
//! The one rule: only what passes its checksum and decodes is taken over.

use std::{collections::BTreeSet, path::Path};

use super::{
    format::{self, Meta, Notes, Reason, StreamState},
    parked,
    parked_copy::ParkedCopy,
    sidecar::Sidecar,
    store::{Change, Store, StoreError},
    writer::OpenOptions,
};
use crate::{
    codec::{self, ChunkHeader, Run},
    domain::{Epoch, Freshness, Position, Rows, Stream},
};

/// Chunks that go in one commit.
const COMMIT_CHUNKS: usize = 64;

/// What can still be read of a damaged store, and where capture begins anew.
pub(super) struct Salvage {
    remains: Option<Remains>,
    /// Where each stream's capture begins.
    begin: [Position; Stream::ALL.len()],
}

/// A damaged store, as far as sled opens it, and the copy of its parked rows.
struct Remains {
    store: Option<Store>,
    copy: Option<ParkedCopy>,
    /// The life that both are of.
    epoch: Epoch,
}

impl Remains {
    /// What is in a store's folder; `None` when nothing of it can be read, or it is another outbox's or another life's.
    fn find(folder: &Path, sidecar: Option<&Sidecar>, options: &OpenOptions) -> Result<Option<Self>, StoreError> {
        let store = match folder.join("db").is_file().then(|| Store::open(folder)).transpose() {
            Ok(store) => store,
            Err(StoreError::Damaged { .. }) => None,
            Err(other) => return Err(other),
        };
        let copy = ParkedCopy::read(folder)?;
        let epoch = |meta: Option<Meta>| {
            meta.filter(|meta| meta.source == options.source && meta.destination == options.destination).map(|meta| meta.epoch)
        };
        let of_store = epoch(store.as_ref().and_then(meta));
        let of_copy = epoch(copy.as_ref().and_then(|copy| Some(format::from_bytes(&copy.get(format::META)?)?.0)));
        // Two of the three say which life it was; without a sidecar one is enough.
        let of_sidecar = sidecar.map(|sidecar| sidecar.meta.epoch);
        let is_told = |epoch: &Epoch| of_sidecar.is_none_or(|told| told == *epoch) || of_store == of_copy;
        let Some(epoch) = of_store.filter(is_told).or_else(|| of_copy.filter(is_told)) else { return Ok(None) };
        let (store, copy) = (store.filter(|_| of_store == Some(epoch)), copy.filter(|_| of_copy == Some(epoch)));
        Ok(Some(Self { store, copy, epoch }))
    }

    /// Keys with a prefix, and of each the values that can be read, the store's and the copy's.
    fn entries(&self, prefix: &'static [u8]) -> impl Iterator<Item = (Vec<u8>, Vec<Vec<u8>>)> + '_ {
        let in_store = self.store.iter().flat_map(move |store| readable(store, prefix)).map(|(key, _)| key);
        let in_copy = self.copy.iter().flat_map(move |copy| copy.keys(prefix)).cloned();
        let keys: BTreeSet<Vec<u8>> = in_store.chain(in_copy).collect();
        keys.into_iter().map(|key| {
            let of_store = self.store.as_ref().and_then(|store| store.get(&key).ok().flatten());
            let of_copy = self.copy.as_ref().and_then(|copy| copy.get(&key));
            let values = of_store.into_iter().chain(of_copy).collect();
            (key, values)
        })
    }

    /// Parked chunks that decode. Where the store and the copy differ, the one that has more rows: a damaged store may show an older value, and
    /// rather a row twice than not at all.
    fn parked(&self) -> impl Iterator<Item = Chunk> + '_ {
        let entries = [format::HELD, format::REFUSED].into_iter().flat_map(|prefix| self.entries(prefix));
        entries.filter_map(|(key, values)| {
            let chunks = values.iter().filter_map(|value| Chunk::read(&key, value));
            chunks.filter(|chunk| chunk.header.epoch == self.epoch).max_by_key(|chunk| chunk.rows.len())
        })
    }
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
        Self { remains: None, begin: Stream::ALL.map(|_| Position::Start) }
    }

    /// Looks at what can be read in the folders of stores, the one in use before all others: a crash may have left a complete new life beside
    /// the damaged one.
    pub(super) fn survey(
        folders: &[impl AsRef<Path>],
        sidecar: Option<&Sidecar>,
        options: &OpenOptions,
    ) -> Result<Self, StoreError> {
        let mut remains = None;
        for folder in folders {
            remains = Remains::find(folder.as_ref(), sidecar, options)?;
            if remains.is_some() {
                break;
            }
        }
        let store = remains.as_ref().and_then(|remains: &Remains| remains.store.as_ref());
        let whole = store.zip(sidecar).and_then(|(store, sidecar)| whole(store, sidecar));
        let whole = whole.unwrap_or([Whole::No; Stream::ALL.len()]);
        let begin = Stream::ALL.map(|stream| {
            let place = usize::from(stream.number());
            let Some(sidecar) = sidecar else { return Position::Start };
            match whole[place] {
                Whole::Yes => sidecar.streams[place].waiting_from.clone(),
                Whole::No => sidecar.streams[place].from.clone(),
            }
        });
        Ok(Self { remains, begin })
    }

    /// Where capture begins anew.
    pub(super) fn begin(&self, stream: Stream) -> &Position {
        &self.begin[usize::from(stream.number())]
    }

    /// Copies what can be read into a new store.
    ///
    /// # Errors
    /// Those of the new store; what cannot be read of the old one is left out, and told.
    pub(super) fn copy(&self, new: &Store, epoch: Epoch) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        let Some(old) = &self.remains else { return Ok(taken) };
        copy_entities(old, new)?;
        let (mut change, mut chunks) = (Change::default(), 0);
        let mut notes = Notes::default();
        for chunk in old.parked() {
            // It may be captured again, have returned meanwhile, or have been sent by a copy of that outbox.
            let run = Run {
                epoch,
                generation: chunk.header.generation,
                first: chunk.header.first,
                captured_at: chunk.at,
                freshness: Freshness::Repeat,
            };
            parked::park_apart(&mut change, &run, &chunk.rows, &chunk.reason, &mut notes);
            taken.parked[usize::from(chunk.header.stream.number())] += chunk.rows.len() as u64;
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
    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (parked, chunk) = parked::parse(value)?;
        let (header, rows) = codec::decode(chunk).ok()?;
        let number = format::number_of_parked_key(key)?;
        let is_it = format::parked_key(&parked.reason, number) == *key && header.stream == parked.stream;
        is_it.then_some(Self { header, rows, reason: parked.reason, at: parked.at })
    }
}

/// Entries with a prefix, as far as the store can be read.
fn readable<'a>(store: &'a Store, prefix: &'static [u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'a {
    store.scan(prefix, prefix).into_iter().flatten().map_while(Result::ok)
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
    for (key, value) in [format::HELD, format::REFUSED].into_iter().flat_map(|prefix| readable(store, prefix)) {
        if let Some(chunk) = Chunk::read(&key, &value) {
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
fn copy_entities(old: &Remains, new: &Store) -> Result<(), StoreError> {
    let mut change = Change::default();
    for (key, values) in old.entries(format::ENTITIES) {
        let is_one = |value: &Vec<u8>| format::from_bytes::<crate::domain::Entity<crate::domain::LocalId>>(value).is_some();
        if let Some(value) = values.into_iter().find(is_one).filter(|_| format::parse_entity_key(&key).is_some()) {
            change.put(key, value);
        }
    }
    new.commit(change)
}
