//! The one writer of an outbox: what it holds in memory is what the last durable commit left.
//!
//! The one rule: compute the new state, commit it, and only then make it one's own. After a failed commit the writer still tells the
//! truth about what is known to be on the disk.

mod verbs;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    Batch, Captured, SetAside, Snapshot, data_dir,
    format::{self, CreateIntent, FORMAT_VERSION, Intent, Meta, Notes, Reason, StreamState},
    parked::{self, HeldRows},
    places::Places,
    sidecar::{self, Bound, Sidecar},
    store::{Change, Store, StoreError},
};
use crate::{
    codec::{self, CHUNK_BYTES_MAX, ChunkHeader, Run},
    domain::{Brought, Catalog, Entity, Epoch, LocalRef, Mappings, Micros, Position, RemoteId, Seq, SourceId, Stream},
    edge,
};

/// Parked chunks that return in one commit.
const RETURN_CHUNKS_MAX: usize = 16;

/// What a new outbox is made with, and what an existing one must match.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The destination's name.
    pub destination: String,
    /// Whose rows it holds.
    pub source: SourceId,
    /// The life to give it if it is made now: random.
    pub epoch: Epoch,
}

pub(super) struct Writer {
    meta: Meta,
    streams: [StreamState; Stream::ALL.len()],
    catalog: Arc<Catalog>,
    mappings: Arc<Mappings>,
    brought: Arc<Brought>,
    held: Arc<BTreeMap<LocalRef, HeldRows>>,
    places: Places,
    intents: [Option<Intent>; Stream::ALL.len()],
    create_intent: Option<CreateIntent>,
    notes: Notes,
}

/// Opens the store in use, if there is one, and nothing else: for those who only look.
pub(super) fn open_existing(outbox: &Path) -> Result<Option<(Store, Writer)>, StoreError> {
    let Some(path) = data_dir::current(outbox)? else { return Ok(None) };
    let store = Store::open(&path)?;
    let writer = Writer::load(&store)?;
    Ok(Some((store, writer)))
}

impl Writer {
    /// What a store holds that nothing has happened to yet.
    pub(super) fn new(meta: Meta, streams: [StreamState; Stream::ALL.len()], mappings: Mappings, brought: Brought) -> Self {
        Self {
            meta,
            streams,
            catalog: Arc::default(),
            mappings: Arc::new(mappings),
            brought: Arc::new(brought),
            held: Arc::default(),
            places: Places::default(),
            intents: [None; Stream::ALL.len()],
            create_intent: None,
            notes: Notes::default(),
        }
    }

    /// The first commit of a store.
    pub(super) fn write_to(&self, store: &Store) -> Result<(), StoreError> {
        let mut change = Change::default();
        change.put(format::META, format::to_bytes(&self.meta));
        for stream in Stream::ALL {
            change.put(format::stream_key(stream), format::to_bytes(self.state(stream)));
        }
        for (what, id) in &*self.mappings {
            change.put(format::entity_key(format::MAPPINGS, self.meta.generation, what), format::to_bytes(&id));
        }
        for (what, entity) in &*self.brought {
            change.put(format::entity_key(format::BROUGHT, self.meta.generation, *what), format::to_bytes(entity));
        }
        change.put(format::NOTES, format::to_bytes(&self.notes));
        store.commit(change)
    }

    /// Counts parked rows that an earlier life left, as appended and parked at once (I5).
    pub(super) fn take_over(&mut self, parked: [u64; Stream::ALL.len()], next_parked: u64) {
        for (state, rows) in self.streams.iter_mut().zip(parked) {
            state.next = state.next.plus(rows);
            state.cursor = state.next;
            state.parked_ever += rows;
        }
        self.notes.next_parked = next_parked;
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn streams(&self) -> &[StreamState] {
        &self.streams
    }

    pub(super) fn mappings(&self) -> &Arc<Mappings> {
        &self.mappings
    }

    pub(super) fn brought(&self) -> &Arc<Brought> {
        &self.brought
    }

    /// What the sidecar may say as of the last commit.
    pub(super) fn sidecar(&self) -> Sidecar {
        let bound = |stream: Stream| {
            let state = self.state(stream);
            let from = sidecar::position_before(self.places.lowest(stream), &state.watermark);
            let waiting_from = sidecar::position_before(self.places.lowest_pending(stream), &state.watermark);
            Bound { next: state.next, cursor: state.cursor, started: state.started, from, waiting_from }
        };
        Sidecar {
            meta: self.meta.clone(),
            streams: Stream::ALL.map(bound),
            mappings: self.mappings.iter().collect(),
            brought: self.brought.iter().map(|(what, entity)| (*what, entity.clone())).collect(),
        }
    }

    pub(super) fn load(store: &Store) -> Result<Self, StoreError> {
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
        let held = parked::survey(store, &mut places)?;
        let mut intents = [None; Stream::ALL.len()];
        for stream in Stream::ALL {
            intents[usize::from(stream.number())] = decode(store, &format::intent_key(stream))?;
        }
        let mut catalog = Catalog::new();
        let mut mappings = Mappings::default();
        for entry in store.scan(format::ENTITIES, &format::entity_key(format::ENTITIES, meta.generation, first_ref()))? {
            let (key, value) = entry?;
            let (generation, what) = format::parse_entity_key(&key).ok_or_else(|| damaged("a catalog key is not one"))?;
            if generation == meta.generation {
                let (entity, _) = format::from_bytes(&value).ok_or_else(|| damaged(&format!("{what} does not decode")))?;
                catalog.insert(what, entity);
            }
        }
        for entry in store.scan(format::MAPPINGS, &format::entity_key(format::MAPPINGS, meta.generation, first_ref()))? {
            let (key, value) = entry?;
            let (generation, what) = format::parse_entity_key(&key).ok_or_else(|| damaged("a mapping's key is not one"))?;
            if generation == meta.generation {
                let (id, _) =
                    format::from_bytes(&value).ok_or_else(|| damaged(&format!("the mapping of {what} does not decode")))?;
                mappings.insert(what, id);
            }
        }
        let mut brought = Brought::new();
        for entry in store.scan(format::BROUGHT, &format::entity_key(format::BROUGHT, meta.generation, first_ref()))? {
            let (key, value) = entry?;
            let (generation, what) =
                format::parse_entity_key(&key).ok_or_else(|| damaged("the key of something brought is not one"))?;
            if generation == meta.generation {
                let (entity, _) =
                    format::from_bytes(&value).ok_or_else(|| damaged(&format!("what was brought of {what} does not decode")))?;
                brought.insert(what, entity);
            }
        }
        Ok(Self {
            meta,
            streams,
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

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            meta: self.meta.clone(),
            streams: self.streams.clone(),
            catalog: Arc::clone(&self.catalog),
            mappings: Arc::clone(&self.mappings),
            brought: Arc::clone(&self.brought),
            held: Arc::clone(&self.held),
            intents: self.intents,
            create_intent: self.create_intent,
            notes: self.notes.clone(),
        }
    }

    fn state(&self, stream: Stream) -> &StreamState {
        &self.streams[usize::from(stream.number())]
    }

    fn add_places(&mut self, added: &[ChunkHeader]) {
        for chunk in added {
            self.places.add_pending(chunk.stream, chunk.first, chunk.lowest);
        }
    }

    fn set_state(&mut self, stream: Stream, state: StreamState) {
        self.streams[usize::from(stream.number())] = state;
    }

    pub(super) fn start(&mut self, store: &Store, stream: Stream, position: Position) -> Result<(), StoreError> {
        if self.state(stream).started {
            return Ok(());
        }
        let state = StreamState { watermark: position, started: true, ..self.state(stream).clone() };
        let mut change = Change::default();
        change.put(format::stream_key(stream), format::to_bytes(&state));
        store.commit(change)?;
        edge::pass("start:committed");
        self.set_state(stream, state);
        Ok(())
    }

    pub(super) fn append(&mut self, store: &Store, captured: &Captured) -> Result<(), StoreError> {
        let stream = captured.rows.stream();
        let mut state = self.state(stream).clone();
        let mut change = Change::default();
        let run = Run {
            epoch: self.meta.epoch,
            generation: self.meta.generation,
            first: state.next,
            captured_at: captured.at,
            freshness: captured.freshness,
        };
        let added = append_chunks(&mut change, &mut state, &run, &captured.rows);
        state.watermark = captured.watermark.clone();
        let mut catalog = Arc::clone(&self.catalog);
        for (what, entity) in &captured.catalog {
            change.put(format::entity_key(format::ENTITIES, self.meta.generation, *what), format::to_bytes(entity));
            Arc::make_mut(&mut catalog).insert(*what, entity.clone());
        }
        #[cfg(debug_assertions)]
        sabotage_watermark(store, stream, self.state(stream), &state)?;
        change.put(format::stream_key(stream), format::to_bytes(&state));
        edge::pass("append:encoded");
        store.commit(change)?;
        edge::pass("append:committed");
        self.set_state(stream, state);
        self.add_places(&added);
        self.catalog = catalog;
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        store: &Store,
        batch: &Batch,
        aside: &[SetAside],
        next: &[Intent],
        at: Micros,
    ) -> Result<(), StoreError> {
        let stream = batch.rows.stream();
        let mut state = self.state(stream).clone();
        assert!(
            batch.epoch == self.meta.epoch && batch.first == state.cursor && batch.end() <= state.next,
            "I5: a batch is settled at the cursor ({stream} {}), not at {}",
            state.cursor,
            batch.first
        );
        let mut change = Change::default();
        let mut notes = self.notes.clone();
        let mut held = Arc::clone(&self.held);
        let mut parked = 0;
        let mut parked_chunks = Vec::new();
        for SetAside { reason, rows } in aside {
            let run = Run {
                epoch: batch.epoch,
                generation: batch.generation,
                first: batch.first.plus(rows[0] as u64),
                captured_at: at,
                freshness: batch.freshness,
            };
            parked += rows.len() as u64;
            let parking = parked::park(store, &mut change, &run, &batch.rows.pick(rows), reason, &mut notes)?;
            if let Reason::Held(what) = reason {
                parking.note(Arc::make_mut(&mut held).entry(*what).or_default(), rows.len() as u64);
            }
            parked_chunks.extend(parking.chunks);
        }
        let settled = batch.rows.len() as u64;
        state.cursor = batch.end();
        state.parked_ever += parked;
        state.acked += settled - parked;
        let passed = remove_passed_chunks(store, &mut change, stream, &mut state, batch.first)?;
        if settled > parked {
            notes.last_success = Some(at);
        }
        change.put(format::stream_key(stream), format::to_bytes(&state));
        let mut intents = self.intents;
        intents[usize::from(stream.number())] = None;
        for intent in next {
            intents[usize::from(intent.stream.number())] = Some(*intent);
        }
        for stream in Stream::ALL {
            put_or_remove(&mut change, &format::intent_key(stream), intents[usize::from(stream.number())].as_ref());
        }
        change.put(format::NOTES, format::to_bytes(&notes));
        edge::pass(if parked > 0 { "park:encoded" } else { "ack:encoded" });
        store.commit(change)?;
        edge::pass("ack:committed");
        debug_assert_eq!(state.next.0, state.pending() + state.acked + state.parked_ever, "I5");
        self.set_state(stream, state);
        for first in passed {
            self.places.remove_pending(stream, first);
        }
        for (number, lowest) in parked_chunks {
            self.places.add_parked(number, stream, lowest);
        }
        self.notes = notes;
        self.held = held;
        self.intents = intents;
        Ok(())
    }

    pub(super) fn intend(&mut self, store: &Store, intent: Intent) -> Result<(), StoreError> {
        let place = usize::from(intent.stream.number());
        if self.intents[place] == Some(intent) {
            return Ok(());
        }
        let mut change = Change::default();
        change.put(format::intent_key(intent.stream), format::to_bytes(&intent));
        store.commit(change)?;
        edge::pass("intent:committed");
        self.intents[place] = Some(intent);
        Ok(())
    }

    pub(super) fn intend_create(&mut self, store: &Store, what: Option<CreateIntent>) -> Result<(), StoreError> {
        if self.create_intent == what {
            return Ok(());
        }
        let mut change = Change::default();
        put_or_remove(&mut change, format::CREATE_INTENT, what.as_ref());
        store.commit(change)?;
        edge::pass("create:intended");
        self.create_intent = what;
        Ok(())
    }

    /// Remembering what an entity was created as also ends the intent to create it. What is no longer mapped is no longer known as brought.
    pub(super) fn map(
        &mut self,
        store: &Store,
        pairs: &[(LocalRef, Option<RemoteId>)],
        news: Vec<(LocalRef, Entity<RemoteId>)>,
    ) -> Result<(), StoreError> {
        let mut mappings = Arc::clone(&self.mappings);
        let mut brought = Arc::clone(&self.brought);
        let mut change = Change::default();
        let mut create_intent = self.create_intent;
        for (what, id) in pairs {
            let key = format::entity_key(format::MAPPINGS, self.meta.generation, *what);
            if let Some(id) = id {
                change.put(key, format::to_bytes(id));
                Arc::make_mut(&mut mappings).insert(*what, *id);
            } else {
                change.remove(key);
                Arc::make_mut(&mut mappings).remove(*what);
                change.remove(format::entity_key(format::BROUGHT, self.meta.generation, *what));
                if brought.contains_key(what) {
                    Arc::make_mut(&mut brought).remove(what);
                }
            }
            create_intent = create_intent.filter(|intended| intended.what != *what);
        }
        for (what, entity) in news {
            change.put(format::entity_key(format::BROUGHT, self.meta.generation, what), format::to_bytes(&entity));
            Arc::make_mut(&mut brought).insert(what, entity);
        }
        put_or_remove(&mut change, format::CREATE_INTENT, create_intent.as_ref());
        store.commit(change)?;
        edge::pass("map:committed");
        self.mappings = mappings;
        self.brought = brought;
        self.create_intent = create_intent;
        Ok(())
    }

    pub(super) fn return_held(&mut self, store: &Store, what: LocalRef) -> Result<u64, StoreError> {
        let mut change = Change::default();
        let mut streams = self.streams.clone();
        let mut held = Arc::clone(&self.held);
        let mut returned = 0;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for entry in store.scan(&format::held_prefix(what), &format::held_prefix(what))?.take(RETURN_CHUNKS_MAX) {
            let (key, value) = entry?;
            let (_, chunk) = parked::split(store, &value)?;
            let (header, rows) = codec::decode(chunk)
                .map_err(|error| StoreError::Damaged { path: store.path().into(), what: format!("a parked chunk: {error}") })?;
            let state = &mut streams[usize::from(header.stream.number())];
            let run = Run {
                epoch: self.meta.epoch,
                generation: header.generation,
                first: state.next,
                captured_at: header.captured_at,
                freshness: header.freshness,
            };
            added.extend(append_chunks(&mut change, state, &run, &rows));
            state.returned += rows.len() as u64;
            removed.extend(format::number_of_parked_key(&key));
            change.remove(key);
            returned += rows.len() as u64;
            parked::forget(Arc::make_mut(&mut held), what, rows.len() as u64, value.len() as u64);
        }
        if returned == 0 {
            return Ok(0);
        }
        for stream in Stream::ALL {
            change.put(format::stream_key(stream), format::to_bytes(&streams[usize::from(stream.number())]));
        }
        edge::pass("return:encoded");
        store.commit(change)?;
        edge::pass("return:committed");
        self.streams = streams;
        self.held = held;
        self.add_places(&added);
        for number in removed {
            self.places.remove_parked(number);
        }
        Ok(returned)
    }

    pub(super) fn note_trouble(&mut self, store: &Store, at: Micros, mut trouble: String) -> Result<(), StoreError> {
        parked::shorten(&mut trouble);
        let notes = Notes { last_trouble: Some((at, trouble)), ..self.notes.clone() };
        let mut change = Change::default();
        change.put(format::NOTES, format::to_bytes(&notes));
        store.commit(change)?;
        self.notes = notes;
        Ok(())
    }
}

/// Encodes rows at the tail of a stream; gives the chunks that they lie in.
fn append_chunks(change: &mut Change, state: &mut StreamState, run: &Run, rows: &crate::domain::Rows) -> Vec<ChunkHeader> {
    let mut added = Vec::new();
    for chunk in codec::encode(run, rows, CHUNK_BYTES_MAX) {
        state.live_bytes += chunk.bytes.len() as u64;
        state.next = chunk.header.end();
        change.put(format::chunk_key(chunk.header.stream, chunk.header.first), chunk.bytes);
        added.push(chunk.header);
    }
    added
}

/// Removes the chunks that lie wholly before the cursor, which stood at `from`; gives their first seqs.
fn remove_passed_chunks(
    store: &Store,
    change: &mut Change,
    stream: Stream,
    state: &mut StreamState,
    from: Seq,
) -> Result<Vec<Seq>, StoreError> {
    let prefix = format::chunk_prefix(stream);
    let mut passed = Vec::new();
    let Some((start, _)) = store.last_up_to(&prefix, &format::chunk_key(stream, from))? else { return Ok(passed) };
    for entry in store.scan(&prefix, &start)? {
        let (key, bytes) = entry?;
        let header = codec::peek(&bytes).map_err(|error| super::damaged_chunk(store, stream, from, &error))?;
        if header.end() > state.cursor {
            break;
        }
        state.live_bytes = state.live_bytes.saturating_sub(bytes.len() as u64);
        change.remove(key);
        passed.push(header.first);
    }
    Ok(passed)
}

/// At open: the chunks reach without a gap from the cursor to the next seq, and each is whole.
fn check_chunks(store: &Store, stream: Stream, state: &StreamState, places: &mut Places) -> Result<(), StoreError> {
    let prefix = format::chunk_prefix(stream);
    let damaged = |what: String| StoreError::Damaged { path: store.path().into(), what };
    let mut end = None;
    for entry in store.scan(&prefix, &prefix)? {
        let (key, bytes) = entry?;
        let at = format::first_of_chunk_key(&key).unwrap_or_default();
        let header = codec::peek(&bytes).map_err(|error| super::damaged_chunk(store, stream, at, &error))?;
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

fn decode<T: serde::de::DeserializeOwned>(store: &Store, key: &[u8]) -> Result<Option<T>, StoreError> {
    let Some(bytes) = store.get(key)? else { return Ok(None) };
    let value = format::from_bytes(&bytes).map(|(value, _)| value);
    let damaged = || StoreError::Damaged {
        path: store.path().into(),
        what: format!("the value of {:?} does not decode", String::from_utf8_lossy(key)),
    };
    value.map(Some).ok_or_else(damaged)
}

fn put_or_remove<T: serde::Serialize>(change: &mut Change, key: &[u8], value: Option<&T>) {
    match value {
        Some(value) => change.put(key, format::to_bytes(value)),
        None => change.remove(key),
    }
}

fn first_ref() -> LocalRef {
    LocalRef { kind: crate::domain::EntityKind::SensorType, id: crate::domain::LocalId(i64::MIN) }
}

/// The negative control of the kill tests: moves the watermark in a commit of its own, before the rows, as the old script did. Debug
/// builds only, and only when asked for by the environment.
#[cfg(debug_assertions)]
fn sabotage_watermark(store: &Store, stream: Stream, before: &StreamState, after: &StreamState) -> Result<(), StoreError> {
    if std::env::var_os("PACKHORSE_TEST_WATERMARK_APART").is_none() {
        return Ok(());
    }
    let mut change = Change::default();
    let state = StreamState { watermark: after.watermark.clone(), ..before.clone() };
    change.put(format::stream_key(stream), format::to_bytes(&state));
    store.commit(change)?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    Ok(())
}
