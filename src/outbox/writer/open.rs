//! What a store holds, read into memory when it is opened, and whether it holds together.
//!
//! The one rule: what does not decode, or is missing, is damage and told as such; nothing is taken for empty.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::super::{
    damaged_chunk,
    format::{self, FORMAT_VERSION, Meta, StreamState},
    ledger::LedgerState,
    parked,
    places::Places,
    store::{Store, StoreError},
};
use super::Writer;
use crate::{
    codec,
    domain::{Brought, Catalog, EntityKind, Generation, LocalId, LocalRef, Mappings, Stream},
};

impl Writer {
    pub(in crate::outbox) fn load(store: &Store) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::Damaged { path: store.path().into(), what: what.into() };
        let meta = store.get(format::META)?.ok_or_else(|| damaged("it is empty, though it was in use"))?;
        // The version is the first field of every version's meta, so that it can be told before the rest is understood.
        let (found, _) = format::from_bytes::<u16>(&meta).ok_or_else(|| damaged("its description does not decode"))?;
        if found != FORMAT_VERSION {
            return Err(StoreError::Format { path: store.path().into(), found, known: FORMAT_VERSION });
        }
        let meta = decode::<Meta>(store, format::META)?.ok_or_else(|| damaged("its description is missing"))?;
        let mut streams = Stream::ALL.map(|_| StreamState::new());
        let mut places = Places::default();
        for stream in Stream::ALL {
            let state = decode::<StreamState>(store, &format::stream_key(stream))?;
            let state = state.ok_or_else(|| damaged(&format!("the state of stream {stream} is missing")))?;
            check_chunks(store, stream, &state, &mut places)?;
            streams[usize::from(stream.number())] = state;
        }
        let mut ledgers = Stream::ALL.map(|_| LedgerState::new());
        for stream in Stream::ALL {
            let state = decode::<LedgerState>(store, &format::ledger_state_key(stream))?;
            ledgers[usize::from(stream.number())] =
                state.ok_or_else(|| damaged(&format!("what is known of the ledger of {stream} is missing")))?;
        }
        let held = parked::survey(store, &mut places)?;
        let mut intents = [None; Stream::ALL.len()];
        for stream in Stream::ALL {
            intents[usize::from(stream.number())] = decode(store, &format::intent_key(stream))?;
        }
        let catalog: Catalog = of_generation(store, format::ENTITIES, meta.generation, "entity")?.into_iter().collect();
        let mappings: Mappings = of_generation(store, format::MAPPINGS, meta.generation, "mapping")?.into_iter().collect();
        let brought: Brought = of_generation(store, format::BROUGHT, meta.generation, "what was brought")?.into_iter().collect();
        Ok(Self {
            meta,
            streams,
            ledgers,
            catalog: Arc::new(catalog),
            mappings: Arc::new(mappings),
            brought: Arc::new(brought),
            held: Arc::new(held),
            places,
            intents,
            create_intent: decode(store, format::CREATE_INTENT)?,
            notes: decode(store, format::NOTES)?.unwrap_or_default(),
        })
    }
}

/// Entries of one generation that are kept by kind and local id, of whatever sort.
fn of_generation<T: DeserializeOwned>(
    store: &Store,
    prefix: &[u8],
    wanted: Generation,
    sort: &str,
) -> Result<Vec<(LocalRef, T)>, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: store.path().into(), what };
    let mut found = Vec::new();
    for entry in store.scan(prefix, &format::entity_key(prefix, wanted, FIRST))? {
        let (key, value) = entry?;
        let (generation, what) =
            format::parse_entity_key(&key).ok_or_else(|| damaged(format!("the key of an entry ({sort}) is not one")))?;
        if generation == wanted {
            let (value, _) = format::from_bytes(&value).ok_or_else(|| damaged(format!("{what} ({sort}) does not decode")))?;
            found.push((what, value));
        }
    }
    Ok(found)
}

const FIRST: LocalRef = LocalRef { kind: EntityKind::SensorType, id: LocalId(i64::MIN) };

/// At open: the chunks reach without a gap from the cursor to the next seq, and each is whole.
fn check_chunks(store: &Store, stream: Stream, state: &StreamState, places: &mut Places) -> Result<(), StoreError> {
    let prefix = format::chunk_prefix(stream);
    let damaged = |what: String| StoreError::Damaged { path: store.path().into(), what };
    let mut end = None;
    for entry in store.scan(&prefix, &prefix)? {
        let (key, bytes) = entry?;
        let at = format::first_of_chunk_key(&key).unwrap_or_default();
        let header = codec::peek(&bytes).map_err(|error| damaged_chunk(store, stream, at, &error))?;
        let follows = match end {
            Some(end) => header.first == end,
            None => header.first <= state.cursor && header.end() > state.cursor,
        };
        if !follows || header.first != at || header.stream != stream {
            return Err(damaged(format!("{stream} {} is missing", end.unwrap_or(state.cursor))));
        }
        places.add_pending(stream, header.first, header.lowest);
        end = Some(header.end());
    }
    if end.unwrap_or(state.cursor) == state.next {
        return Ok(());
    }
    let end = end.unwrap_or(state.cursor);
    Err(damaged(format!("the {} end at seq {end}, not at {}", stream.plural(), state.next)))
}

pub(super) fn decode<T: DeserializeOwned>(store: &Store, key: &[u8]) -> Result<Option<T>, StoreError> {
    let Some(bytes) = store.get(key)? else { return Ok(None) };
    let value = format::from_bytes(&bytes).map(|(value, _)| value);
    let damaged = || StoreError::Damaged {
        path: store.path().into(),
        what: format!("the value of {:?} does not decode", String::from_utf8_lossy(key)),
    };
    value.map(Some).ok_or_else(damaged)
}
