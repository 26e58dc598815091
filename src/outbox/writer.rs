//! The one writer of an outbox: what it holds in memory is what the last durable commit left.
//!
//! The one rule: compute the new state, commit it, and only then make it one's own. After a failed commit the writer still tells the
//! truth about what is known to be on the disk.

mod elsewhere;
mod open;
mod verbs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Batch, Captured, SetAside, Snapshot,
    format::{self, CreateIntent, Intent, Meta, Notes, Reason, StreamState},
    ledger::{self, LedgerChange, LedgerState, Repeats},
    parked::{self, HeldRows},
    places::Places,
    sidecar::{self, Bound, Sidecar},
    store::{Change, Store, StoreError},
};
use crate::{
    codec::{self, CHUNK_BYTES_MAX, ChunkHeader, Run},
    domain::{
        Brought, Catalog, Entity, Epoch, Generation, LocalId, LocalRef, Mappings, Micros, Order, Position, RemoteId, Rows, Seq,
        SourceId, Stream,
        ledger::{Coarse, FIRST},
        witness::{self, Witness},
    },
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
    ledgers: [LedgerState; Stream::ALL.len()],
    catalog: Arc<Catalog>,
    mappings: Arc<Mappings>,
    brought: Arc<Brought>,
    held: Arc<BTreeMap<LocalRef, HeldRows>>,
    places: Places,
    intents: [Option<Intent>; Stream::ALL.len()],
    create_intent: Option<CreateIntent>,
    notes: Notes,
}

impl Writer {
    /// What a store holds that nothing has happened to yet.
    pub(super) fn new(meta: Meta, streams: [StreamState; Stream::ALL.len()], mappings: Mappings, brought: Brought) -> Self {
        Self {
            meta,
            streams,
            ledgers: Stream::ALL.map(|_| LedgerState::new()),
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
            change.put(format::ledger_state_key(stream), format::to_bytes(self.ledger(stream)));
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
            // What is to be captured once more has not been settled either.
            let lowered = |from: Position| match &state.elsewhere.again {
                Some(again) if from.is_after(&again.after) => again.after.clone(),
                Some(_) | None => from,
            };
            let from = lowered(sidecar::position_before(self.places.lowest(stream), &state.watermark));
            let waiting_from = lowered(sidecar::position_before(self.places.lowest_pending(stream), &state.watermark));
            Bound { next: state.next, cursor: state.cursor, started: state.started, from, waiting_from }
        };
        Sidecar {
            meta: self.meta.clone(),
            streams: Stream::ALL.map(bound),
            mappings: self.mappings.iter().collect(),
            brought: self.brought.iter().map(|(what, entity)| (*what, entity.clone())).collect(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            meta: self.meta.clone(),
            streams: self.streams.clone(),
            ledgers: self.ledgers.clone(),
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

    pub(super) fn ledger(&self, stream: Stream) -> &LedgerState {
        &self.ledgers[usize::from(stream.number())]
    }

    /// A change of what is known of a ledger as a whole, with whatever else the change holds.
    pub(super) fn set_ledger(
        &mut self,
        store: &Store,
        stream: Stream,
        mut change: Change,
        ledger: LedgerState,
    ) -> Result<(), StoreError> {
        change.put(format::ledger_state_key(stream), format::to_bytes(&ledger));
        store.commit(change)?;
        self.ledgers[usize::from(stream.number())] = ledger;
        Ok(())
    }

    /// One step towards the borders of days and months; whether more is to do.
    pub(super) fn coarsen(&mut self, store: &Store, stream: Stream, target: Coarse) -> Result<bool, StoreError> {
        let before = self.ledger(stream).clone();
        let mut change = Change::default();
        let (coarse, more) = ledger::coarsen(store, &mut change, stream, before.coarse, target)?;
        if coarse != before.coarse {
            self.set_ledger(store, stream, change, LedgerState { coarse, ..before })?;
        }
        Ok(more)
    }

    /// One step of setting the watermark back to just before a place where a slot begins (I4: the caller logs it); whether more is to do. What
    /// was captured behind it is known to have been, ahead of it.
    pub(super) fn retreat(&mut self, store: &Store, stream: Stream, to: i64) -> Result<bool, StoreError> {
        let mut change = Change::default();
        let reached = ledger::retreat(store, &mut change, stream, to)?;
        let before =
            Position::Key { time: Micros(Micros::of_hour(reached).0 - 1), rest: vec![i64::MAX; stream.spec().key.len() - 1] };
        if !self.state(stream).watermark.is_after(&before) {
            return Ok(false);
        }
        let state = StreamState { watermark: before.clone(), ..self.state(stream).clone() };
        change.put(format::stream_key(stream), format::to_bytes(&state));
        let mut ledger = self.ledger(stream).clone();
        // A floor that was set by the same clock goes back with it.
        ledger.floor = ledger.floor.map(|floor| if floor.is_after(&before) { before.clone() } else { floor });
        ledger.witnesses.retain(|witness| !witness.position.is_after(&before));
        self.set_ledger(store, stream, change, ledger)?;
        self.set_state(stream, state);
        Ok(reached > to)
    }

    /// Another database stands behind the source: its catalog and mappings begin anew, and capture goes on from these positions (I4: the caller
    /// logs it). What the ledger holds before them is to be held against the source. `false` while rows wait: they need the catalog that they
    /// were captured with.
    pub(super) fn begin_generation(&mut self, store: &Store, from: &[Position; Stream::ALL.len()]) -> Result<bool, StoreError> {
        if self.streams.iter().any(|state| state.pending() > 0) {
            return Ok(false);
        }
        let meta = Meta { generation: Generation(self.meta.generation.0 + 1), ..self.meta.clone() };
        let (mut streams, mut ledgers) = (self.streams.clone(), self.ledgers.clone());
        let mut change = Change::default();
        change.put(format::META, format::to_bytes(&meta));
        for (stream, from) in Stream::ALL.into_iter().zip(from) {
            let number = usize::from(stream.number());
            let (state, ledger) = (&mut streams[number], &mut ledgers[number]);
            let repeats = match (&ledger.repeats, &state.watermark) {
                (Repeats::UpTo(last), watermark) if last.is_after(watermark) => Repeats::UpTo(last.clone()),
                (Repeats::All, _) => Repeats::All,
                (Repeats::None | Repeats::UpTo(_), watermark) => Repeats::UpTo(watermark.clone()),
            };
            let is_replaced = *from == Position::Start;
            let floor = match &ledger.floor {
                // Its ids begin anew.
                Some(Position::Id(_)) if is_replaced => Some(Position::Start),
                floor => floor.clone(),
            };
            state.watermark = match &floor {
                Some(floor) if floor.is_after(from) => floor.clone(),
                Some(_) | None => from.clone(),
            };
            ledger::truncate(store, &mut change, stream, state.watermark.place().unwrap_or(i64::MIN))?;
            *ledger =
                LedgerState { floor, repeats, coarse: ledger.coarse, walk: Some(FIRST), walked_at: None, witnesses: Vec::new() };
            change.put(format::stream_key(stream), format::to_bytes(&*state));
            change.put(format::ledger_state_key(stream), format::to_bytes(&*ledger));
            change.remove(format::intent_key(stream));
        }
        change.remove(format::CREATE_INTENT);
        store.commit(change)?;
        self.meta = meta;
        self.streams = streams;
        self.ledgers = ledgers;
        self.catalog = Arc::default();
        self.mappings = Arc::default();
        self.brought = Arc::default();
        self.intents = [None; Stream::ALL.len()];
        self.create_intent = None;
        Ok(true)
    }

    /// One step of forgetting what is counted ahead before a place; whether more is to do.
    pub(super) fn forget_ahead(store: &Store, stream: Stream, before: i64) -> Result<bool, StoreError> {
        let mut change = Change::default();
        let forgotten = ledger::forget_ahead(store, &mut change, stream, before)?;
        if forgotten > 0 {
            store.commit(change)?;
        }
        Ok(forgotten > 0)
    }

    fn add_places(&mut self, added: &[ChunkHeader]) {
        for chunk in added {
            self.places.add_pending(chunk.stream, chunk.first, chunk.lowest);
        }
    }

    fn set_state(&mut self, stream: Stream, state: StreamState) {
        self.streams[usize::from(stream.number())] = state;
    }

    pub(super) fn start(
        &mut self,
        store: &Store,
        stream: Stream,
        position: Position,
        repeats: Repeats,
    ) -> Result<(), StoreError> {
        if self.state(stream).started {
            return Ok(());
        }
        let state = StreamState { watermark: position, started: true, ..self.state(stream).clone() };
        let mut change = Change::default();
        change.put(format::stream_key(stream), format::to_bytes(&state));
        let floor = Some(state.watermark.clone());
        let known = self.ledger(stream).clone();
        // What was known to be repeats stays so.
        let repeats = if known.repeats == Repeats::None { repeats } else { known.repeats.clone() };
        let ledger = LedgerState { floor, repeats, ..known };
        self.set_ledger(store, stream, change, ledger)?;
        edge::pass("start:committed");
        self.set_state(stream, state);
        Ok(())
    }

    /// Whatever of a stream is captured up to its watermark from now on may be there already: rows of it are appended that nobody counts.
    pub(super) fn expect_repeats(&mut self, store: &Store, stream: Stream) -> Result<(), StoreError> {
        let known = self.ledger(stream).clone();
        let repeats = known.repeats.and_up_to(&self.state(stream).watermark);
        if repeats == known.repeats {
            return Ok(());
        }
        self.set_ledger(store, stream, Change::default(), LedgerState { repeats, ..known })
    }

    pub(super) fn append(&mut self, store: &Store, captured: &Captured, ledger: &LedgerChange) -> Result<(), StoreError> {
        self.append_with(store, captured, ledger, |_| {})
    }

    /// The same, with one more change of the stream's state in the same commit.
    fn append_with(
        &mut self,
        store: &Store,
        captured: &Captured,
        ledger: &LedgerChange,
        more: impl FnOnce(&mut StreamState),
    ) -> Result<(), StoreError> {
        let stream = captured.rows.stream();
        let mut state = self.state(stream).clone();
        let mut change = Change::default();
        let run = Run {
            epoch: self.meta.epoch,
            generation: self.meta.generation,
            first: state.next,
            captured_at: captured.at,
            freshness: Self::freshness_of_new(&state, captured.freshness),
        };
        let added = append_chunks(&mut change, &mut state, &run, &captured.rows);
        state.watermark = captured.watermark.clone();
        more(&mut state);
        ledger::put(store, &mut change, stream, self.ledger(stream).coarse, ledger)?;
        let mut catalog = Arc::clone(&self.catalog);
        for (what, entity) in &captured.catalog {
            change.put(format::entity_key(format::ENTITIES, self.meta.generation, *what), format::to_bytes(entity));
            Arc::make_mut(&mut catalog).insert(*what, entity.clone());
        }
        #[cfg(debug_assertions)]
        sabotage_watermark(store, stream, self.state(stream), &state)?;
        change.put(format::stream_key(stream), format::to_bytes(&state));
        let mut known = self.ledger(stream).clone();
        if state.watermark.is_after(&self.state(stream).watermark)
            && let Some(newest) = newest(&captured.rows, &state.watermark)
        {
            witness::remember(&mut known.witnesses, newest);
        }
        if known != *self.ledger(stream) {
            change.put(format::ledger_state_key(stream), format::to_bytes(&known));
        }
        edge::pass("append:encoded");
        store.commit(change)?;
        edge::pass("append:committed");
        self.ledgers[usize::from(stream.number())] = known;
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
        taken: Option<Seq>,
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
        state.elsewhere.taken = taken.max(state.elsewhere.taken);
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
        generation: Generation,
        pairs: &[(LocalRef, Option<RemoteId>)],
        news: Vec<(LocalRef, Entity<RemoteId>)>,
    ) -> Result<(), StoreError> {
        if generation != self.meta.generation {
            return Ok(());
        }
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

    /// `before` hears of the chunks that are going to be pending again, and may object.
    pub(super) fn return_held(
        &mut self,
        store: &Store,
        what: LocalRef,
        before: impl FnOnce(&Self, &[ChunkHeader]) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let mut change = Change::default();
        let mut streams = self.streams.clone();
        let mut held = Arc::clone(&self.held);
        let mut returned = 0;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for entry in store.scan(&format::held_prefix(what), &format::held_prefix(what))? {
            if removed.len() >= RETURN_CHUNKS_MAX {
                break;
            }
            let (key, value) = entry?;
            let (_, chunk) = parked::split(store, &value)?;
            let (header, rows) = codec::decode(chunk)
                .map_err(|error| StoreError::Damaged { path: store.path().into(), what: format!("a parked chunk: {error}") })?;
            if header.generation != self.meta.generation && !self.means_the_same(store, header.generation, &rows)? {
                // What it points to is another entity now: it stays, for an operator.
                continue;
            }
            let Some(number) = format::number_of_parked_key(&key) else { continue };
            let state = &mut streams[usize::from(header.stream.number())];
            let run = Run {
                epoch: self.meta.epoch,
                generation: header.generation,
                first: state.next,
                captured_at: header.captured_at,
                freshness: Self::freshness_of_parked(state, number, header.freshness),
            };
            added.extend(append_chunks(&mut change, state, &run, &rows));
            state.returned += rows.len() as u64;
            removed.push(number);
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
        before(self, &added)?;
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

    /// Whether everything that rows of an earlier generation point to, and what that points to, is in this one under the same id with the same
    /// content: a database that was restored from a backup is mostly what it was.
    fn means_the_same(&self, store: &Store, generation: Generation, rows: &Rows) -> Result<bool, StoreError> {
        let mut open: Vec<LocalRef> = (0..rows.len()).flat_map(|row| rows.refers(row)).collect();
        let mut seen = BTreeSet::new();
        while let Some(what) = open.pop() {
            if !seen.insert(what) {
                continue;
            }
            let then = open::decode::<Entity<LocalId>>(store, &format::entity_key(format::ENTITIES, generation, what))?;
            let (Some(then), Some(now)) = (then, self.catalog.get(&what)) else { return Ok(false) };
            if then != *now {
                return Ok(false);
            }
            open.extend(now.refers());
        }
        Ok(true)
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

/// The last of some rows, by which the source will be known: the one that the watermark stands behind.
fn newest(rows: &Rows, watermark: &Position) -> Option<Witness> {
    let last = rows.len().checked_sub(1)?;
    let order = match watermark {
        Position::Start => return None,
        Position::Id(_) => Order::Id,
        Position::Key { .. } => Order::Key,
    };
    Some(Witness { position: watermark.clone(), hash: rows.key_hash(last, order, &mut String::new()) })
}

/// Encodes rows at the tail of a stream; gives the chunks that they lie in.
fn append_chunks(change: &mut Change, state: &mut StreamState, run: &Run, rows: &Rows) -> Vec<ChunkHeader> {
    let mut added = Vec::new();
    for chunk in codec::encode(run, rows, CHUNK_BYTES_MAX) {
        state.live_bytes += chunk.bytes.len() as u64;
        state.next = chunk.header.end();
        state.elsewhere.note(chunk.header.first, chunk.header.lowest);
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

fn put_or_remove<T: serde::Serialize>(change: &mut Change, key: &[u8], value: Option<&T>) {
    match value {
        Some(value) => change.put(key, format::to_bytes(value)),
        None => change.remove(key),
    }
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
