//! The durable queue of one destination, and the only channel between capture and sender.
//!
//! Each stream is a log of its own: records get dense seqs when they are appended (I3), lie in chunks, and go when the cursor has passed them.
//! Beside the logs stand the rows that were set aside, the catalog they need, the mapping of its ids, and the intent of the next request.
//! What the keys and values are is described on top of [`mod@format`]; which folder holds them, on top of [`data_dir`].
//!
//! Beside the store a small sidecar says from where the source would have to be captured again if the store were lost; what then happens
//! stands on top of `recover`.
//!
//! Every change is one commit, which is on the disk before anyone is told of it (I1, I2): [`Outbox::watch`] shows only what is durable.
//!
//! The one rule: progress travels with what it is about. There is no call that moves a watermark without its rows, or a cursor without
//! the batch it settles.

mod ballast;
mod compact;
pub mod data_dir;
pub mod elsewhere;
pub mod format;
pub mod ledger;
mod ledger_file;
pub mod look;
mod parked;
mod parked_copy;
mod places;
mod reach;
mod recover;
pub mod remains;
mod removal;
mod salvage;
mod sidecar;
mod store;
pub mod verbs;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::{ballast::Room, compact::Need, sidecar::Keeper, store::Store, writer::Writer};
pub use self::{
    compact::Compacted,
    data_dir::{DataDir, DataDirError},
    elsewhere::{Again, Doubted, Elsewhere, Image, Mark},
    format::{CreateIntent, Extent, Intent, Meta, Notes, Parked, Reason, StreamState},
    ledger::{Entry, LedgerChange, LedgerState, Repeats, Side},
    parked::{HeldRows, ParkedChunk, ParkedCursor},
    store::StoreError,
    writer::OpenOptions,
};
use crate::{
    codec::{self, ChunkHeader},
    domain::{
        Brought, Catalog, Entity, Epoch, Freshness, Generation, LocalId, LocalRef, Mappings, Micros, Position, RemoteId, Rows,
        Seq, Stream, ledger::Coarse,
    },
    edge,
};

/// Rows of one page with everything that enters with them (I1).
#[derive(Clone, Debug)]
pub struct Captured {
    /// The rows, in the order of capture; may be empty when only the watermark or the catalog moves.
    pub rows: Rows,
    /// Where capture stands after them.
    pub watermark: Position,
    /// Catalog entities that are new or whose content changed.
    pub catalog: Vec<(LocalRef, Entity<LocalId>)>,
    /// Whether the rows may have been captured before.
    pub freshness: Freshness,
    /// The gateway's clock.
    pub at: Micros,
}

/// Records on their way: consecutive seqs of one stream, of one generation and freshness. It is settled as a whole, or dropped and leased again.
#[derive(Debug, PartialEq)]
pub struct Batch {
    /// The outbox life that the seqs belong to.
    pub epoch: Epoch,
    /// The database that the rows come from.
    pub generation: Generation,
    /// Whether the rows may have arrived before.
    pub freshness: Freshness,
    /// The seq of the first row.
    pub first: Seq,
    /// The rows.
    pub rows: Rows,
}

impl Batch {
    /// The seq after its last row.
    pub fn end(&self) -> Seq {
        self.first.plus(self.rows.len() as u64)
    }

    /// One of its rows alone.
    #[must_use]
    pub fn only(&self, row: usize) -> Self {
        Self { first: self.first.plus(row as u64), rows: self.rows.pick(&[row]), ..*self }
    }

    /// The run that it stands for, sent in that way.
    pub fn intent(&self, extent: Extent) -> Intent {
        Intent { stream: self.rows.stream(), first: self.first, end: self.end(), extent }
    }
}

/// Rows of a batch that are set aside instead of being acked.
#[derive(Clone, Debug, PartialEq)]
pub struct SetAside {
    /// Why.
    pub reason: Reason,
    /// Their places in the batch, ascending.
    pub rows: Vec<usize>,
}

/// What the outbox holds, as of the last durable commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the store is.
    pub meta: Meta,
    /// Each stream's state, in the order of [`Stream::ALL`].
    pub streams: [StreamState; Stream::ALL.len()],
    /// What is known of each stream's ledger, in the same order.
    pub ledgers: [LedgerState; Stream::ALL.len()],
    /// The captured entities of the current generation.
    pub catalog: Arc<Catalog>,
    /// Their central ids.
    pub mappings: Arc<Mappings>,
    /// What was last brought to the destination, of entities that are followed.
    pub brought: Arc<Brought>,
    /// Held rows, by what they wait for.
    pub held: Arc<BTreeMap<LocalRef, HeldRows>>,
    /// Of each stream, the run that may have arrived.
    pub intents: [Option<Intent>; Stream::ALL.len()],
    /// The entity that was about to be created when this was written.
    pub create_intent: Option<CreateIntent>,
    /// For people.
    pub notes: Notes,
}

impl Snapshot {
    /// One stream's state.
    pub fn stream(&self, stream: Stream) -> &StreamState {
        &self.streams[usize::from(stream.number())]
    }

    /// What is known of one stream's ledger.
    pub fn ledger(&self, stream: Stream) -> &LedgerState {
        &self.ledgers[usize::from(stream.number())]
    }

    /// The run of a stream that may have arrived.
    pub fn intent(&self, stream: Stream) -> Option<Intent> {
        self.intents[usize::from(stream.number())]
    }

    /// Records that wait to be delivered, over all streams.
    pub fn pending(&self) -> u64 {
        self.streams.iter().map(StreamState::pending).sum()
    }

    /// Records that are set aside, over all streams.
    pub fn parked(&self) -> u64 {
        self.streams.iter().map(StreamState::parked_now).sum()
    }

    /// Encoded bytes of pending records: what `outbox_max` bounds.
    pub fn live_bytes(&self) -> u64 {
        self.streams.iter().map(|stream| stream.live_bytes).sum()
    }
}

struct Shared {
    path: PathBuf,
    /// Compaction puts another one in its place. Whoever takes the writer as well takes it first.
    store: RwLock<Store>,
    writer: Mutex<(Writer, Keeper)>,
    durable: watch::Sender<Snapshot>,
    /// When it is looked again whether compaction is worth it; sooner where less than half of so many bytes wait.
    compaction_due: Mutex<(Instant, u64)>,
    /// When capture last came to the end of the source.
    caught_up: Mutex<Option<Micros>>,
}

/// How often it is looked whether compaction is worth it.
const COMPACTION_EVERY: Duration = Duration::from_secs(10);

impl Shared {
    fn new(path: &Path, store: Store, writer: Writer) -> Self {
        let durable = watch::Sender::new(writer.snapshot());
        let keeper = Keeper::new(&writer);
        Self {
            path: path.into(),
            store: RwLock::new(store),
            writer: Mutex::new((writer, keeper)),
            durable,
            compaction_due: Mutex::new((Instant::now(), 0)),
            caught_up: Mutex::new(None),
        }
    }

    fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// After an ack: now and then looks whether the files are worth being made smaller. That it fails is told, and is no failure of the ack;
    /// an error of the disk shows at the next commit.
    fn compact_if_due(&self, need: Need) {
        if edge::is_wanted("compact:wanted")
            && let Err(error) = self.compact(&|_| {})
        {
            tracing::warn!(outbox = %self.path.display(), error = crate::chain(&error), "the outbox's files could not be made smaller");
        }
        let mut due = self.compaction_due.lock().unwrap_or_else(PoisonError::into_inner);
        let (files_bytes, pending_bytes) = (self.store().sled_bytes(), self.durable.borrow().live_bytes());
        let is_early = Instant::now() < due.0 && pending_bytes >= due.1 / 2;
        // Only what costs more than these two figures keeps to a pace.
        if is_early || !compact::is_worth_it(need, pending_bytes, files_bytes) {
            return;
        }
        let look = || {
            let live_bytes = compact::live_bytes(&self.store(), files_bytes)?;
            if compact::is_worth_it(need, live_bytes, files_bytes) {
                self.compact(&|_| {})?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = look() {
            tracing::warn!(outbox = %self.path.display(), error = crate::chain(&error), "the outbox's files could not be made smaller");
        }
        *due = (Instant::now() + COMPACTION_EVERY, pending_bytes);
    }

    /// Copies what is live into a new store, telling how many bytes are copied, and goes on with that one. Writers wait meanwhile.
    fn compact(&self, tell: &dyn Fn(u64)) -> Result<Compacted, StoreError> {
        let guard = lock(&self.writer);
        let began = Instant::now();
        let bytes_before = self.store().disk_bytes();
        let copy = compact::copy(&self.path, &self.store(), &guard.0, tell)?;
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        compact::switch(&self.path, &mut store, copy).inspect_err(|_| store.give_up())?;
        let compacted = Compacted { bytes_before, bytes_after: store.disk_bytes() };
        tracing::info!(
            outbox = %self.path.display(), bytes_before, bytes_after = compacted.bytes_after,
            took_ms = began.elapsed().as_millis() as u64, "the outbox's files were made smaller"
        );
        Ok(compacted)
    }

    /// After a commit: what it made of the outbox may be seen (I2).
    fn publish(&self, writer: &Writer, keeper: &mut Keeper) {
        self.durable.send_replace(writer.snapshot());
        keeper.keep(&self.path, writer);
    }
}

impl Drop for Shared {
    /// What the store holds at the end is written beside it: a store that is less the next time is damaged, and does not pass for whole.
    fn drop(&mut self) {
        let (writer, keeper) = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.store.get_mut().unwrap_or_else(PoisonError::into_inner).is_well() {
            keeper.finish(&self.path, writer);
        }
    }
}

/// A handle to an open outbox; clones share it. Everything that touches the disk runs off the async threads.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

impl Outbox {
    /// Opens the outbox in a destination's folder, and makes it where there is none. One that is damaged is set aside, and a new epoch
    /// begins where its sidecar says. Blocks; call it off the async threads.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let (store, writer) = recover::open(path, options)?;
        data_dir::remove_parts(path);
        Ok(Self(Arc::new(Shared::new(path, store, writer))))
    }

    /// Opens the outbox in a destination's folder, if there is one. Blocks.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some((store, writer)) = ballast::or_without(path, || recover::open_existing(path))? else { return Ok(None) };
        data_dir::remove_parts(path);
        Ok(Some(Self(Arc::new(Shared::new(path, store, writer)))))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it holds, as of the last durable commit; the receiver wakes at each.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.0.durable.subscribe()
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.durable.borrow().clone()
    }

    /// Sets where a stream's capture begins; does nothing once that has been decided.
    pub async fn start(&self, stream: Stream, position: Position) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.start(store, stream, position, Repeats::None)).await
    }

    /// As [`start`](Self::start), where another program may have sent what is in the source now.
    pub async fn start_after_another(&self, stream: Stream, position: Position) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.start(store, stream, position, Repeats::All)).await
    }

    /// Appends captured rows with their catalog and the watermark that covers them, in one commit. Rows that were counted before.
    pub async fn append(&self, captured: Captured) -> Result<(), StoreError> {
        self.record(captured, LedgerChange::default()).await
    }

    /// The same, with what it changes in the ledger.
    pub async fn record(&self, captured: Captured, ledger: LedgerChange) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.0);
        off_thread(move || {
            let mut guard = lock(&shared.writer);
            let (writer, keeper) = &mut *guard;
            let store = shared.store();
            keeper.reach_down(&shared.path, writer, &captured.rows).inspect_err(|_| store.give_up())?;
            writer.append(&store, &captured, &ledger)?;
            shared.publish(writer, keeper);
            Ok(())
        })
        .await
    }

    /// Entries of the ledger from a place on, in order, at most so many.
    pub async fn ledger(&self, side: Side, stream: Stream, from: i64, entries_max: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(move |store| ledger::read(store, side, stream, from, entries_max)).await
    }

    /// All entries of the ledger from one place up to another (exclusive): as many as there are.
    pub async fn ledger_within(&self, side: Side, stream: Stream, from: i64, to: i64) -> Result<Vec<Entry>, StoreError> {
        self.read(move |store| ledger::read_within(store, side, stream, from, to)).await
    }

    /// The last entry of the ledger that begins before a place.
    pub async fn ledger_before(&self, stream: Stream, place: i64) -> Result<Option<Entry>, StoreError> {
        self.read(move |store| ledger::last_before(store, Side::Behind, stream, place)).await
    }

    /// Changes what is known of a ledger as a whole.
    pub async fn set_ledger(&self, stream: Stream, mut state: LedgerState) -> Result<(), StoreError> {
        self.change(move |store, writer| {
            // Rows may have been appended again since this was looked at.
            if let Repeats::UpTo(last) = &writer.ledger(stream).repeats {
                state.repeats = state.repeats.and_up_to(last);
            }
            writer.set_ledger(store, stream, store::Change::default(), state)
        })
        .await
    }

    /// Merges old entries of the ledger to days and months, in commits of bounded size.
    pub async fn coarsen(&self, stream: Stream, target: Coarse) -> Result<(), StoreError> {
        while self.change(move |store, writer| writer.coarsen(store, stream, target)).await? {}
        Ok(())
    }

    /// Sets the watermark of a stream paged by time back to just before a place where a slot of its ledger begins, because the database's clock
    /// was set back (I4: whoever calls this says so). What was captured behind it stays known.
    pub async fn retreat(&self, stream: Stream, to: i64) -> Result<(), StoreError> {
        while self.change(move |store, writer| writer.retreat(store, stream, to)).await? {}
        Ok(())
    }

    /// Another database stands behind the source: its catalog and mappings begin anew, and capture goes on from these positions, in the order of
    /// [`Stream::ALL`] (I4: whoever calls this says so). `false`, and nothing is changed, while rows wait: they need the catalog that they were
    /// captured with.
    pub async fn begin_generation(&self, from: [Position; Stream::ALL.len()]) -> Result<bool, StoreError> {
        self.change(move |store, writer| writer.begin_generation(store, &from)).await
    }

    /// Writes the copy of the ledger that a new store begins with when this one is lost. Gives its length.
    pub async fn save_ledger(&self) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.0);
        off_thread(move || {
            let (meta, ledgers) = {
                let snapshot = shared.durable.borrow();
                (snapshot.meta.clone(), snapshot.ledgers.clone())
            };
            ledger_file::LedgerFile::of(&shared.store(), &meta, &ledgers)?.write(&shared.path)
        })
        .await
    }

    /// Forgets what is counted ahead of the watermark before a place.
    pub async fn forget_ahead(&self, stream: Stream, before: i64) -> Result<(), StoreError> {
        while self.change(move |store, _| Writer::forget_ahead(store, stream, before)).await? {}
        Ok(())
    }

    /// The records of a stream from `from` on (the cursor, or the end of the batch before), at most `rows_max` of them and all of one
    /// generation; `None` when there are none. Nothing beyond what is durable is seen (I2).
    pub async fn lease(&self, stream: Stream, from: Seq, rows_max: usize) -> Result<Option<Batch>, StoreError> {
        let end = self.0.durable.borrow().stream(stream).next;
        self.read(move |store| read_run(store, stream, from, end, rows_max)).await
    }

    /// Settles a batch: what is set aside is parked, everything else is acked, the cursor moves behind it, its stream's intent goes, and the
    /// intents of what comes next are written, in one commit.
    ///
    /// # Panics
    /// When the batch does not begin at the cursor: acks out of order would break I5.
    pub async fn settle(
        &self,
        batch: Batch,
        aside: Vec<SetAside>,
        next: impl IntoIterator<Item = Intent>,
        at: Micros,
    ) -> Result<(), StoreError> {
        self.settle_taken(batch, aside, next, None, at).await
    }

    /// The same, of rows that a packhorse receiver has taken up to a seq.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub async fn settle_taken(
        &self,
        batch: Batch,
        aside: Vec<SetAside>,
        next: impl IntoIterator<Item = Intent>,
        taken: Option<Seq>,
        at: Micros,
    ) -> Result<(), StoreError> {
        let next: Vec<Intent> = next.into_iter().collect();
        self.change(move |store, writer| writer.settle(store, &batch, &aside, &next, taken, at)).await?;
        let shared = Arc::clone(&self.0);
        off_thread(move || {
            shared.compact_if_due(Need::Tidiness);
            Ok(())
        })
        .await
    }

    /// Makes the files as small as what they hold, whatever that is. Changes wait meanwhile. Tells, off the async threads, how many bytes are
    /// copied, and of how many: counted before, so that these are about as many. A caller that goes away does not stop it.
    ///
    /// # Errors
    /// Nothing is lost. The outbox may have to be opened again.
    pub async fn compact(&self, tell: impl Fn(u64, u64) + Send + 'static) -> Result<Compacted, StoreError> {
        let shared = Arc::clone(&self.0);
        off_thread(move || {
            let all_bytes = compact::live_bytes(&shared.store(), u64::MAX)?;
            shared.compact(&|copied_bytes| tell(copied_bytes, all_bytes))
        })
        .await
    }

    /// Writes down the run of a stream that may arrive by what is sent next; it replaces what was written of that stream before.
    pub async fn intend(&self, intent: Intent) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.intend(store, intent)).await
    }

    /// Writes down that an entity is about to be created at the destination (`None`: that it is settled).
    pub async fn intend_create(&self, what: Option<CreateIntent>) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.intend_create(store, what)).await
    }

    /// Remembers central ids, and forgets those given as `None` with what was brought of them.
    pub async fn map(&self, pairs: Vec<(LocalRef, Option<RemoteId>)>) -> Result<(), StoreError> {
        let generation = self.snapshot().meta.generation;
        self.change(move |store, writer| writer.map(store, generation, &pairs, Vec::new())).await
    }

    /// Remembers central ids together with what the entities were brought as, in one commit; nothing, when these are entities of another
    /// generation than the present one.
    pub async fn map_as(
        &self,
        generation: Generation,
        pairs: Vec<(LocalRef, RemoteId)>,
        brought: Vec<(LocalRef, Entity<RemoteId>)>,
    ) -> Result<(), StoreError> {
        let pairs: Vec<_> = pairs.into_iter().map(|(what, id)| (what, Some(id))).collect();
        self.change(move |store, writer| writer.map(store, generation, &pairs, brought)).await
    }

    /// Appends rows anew that were held for an entity, in commits of bounded size. Gives their number.
    pub async fn return_held(&self, what: LocalRef) -> Result<u64, StoreError> {
        let mut returned = 0;
        loop {
            let path = self.path().to_owned();
            let change = move |store: &Store, writer: &mut Writer, keeper: &mut Keeper| {
                writer.return_held(store, what, |writer, added| {
                    keeper.reach_down_for(&path, writer, added).inspect_err(|_| store.give_up())
                })
            };
            let some = self.change_kept(change).await?;
            if some == 0 {
                return Ok(returned);
            }
            returned += some;
        }
    }

    /// Notes trouble with the destination, for people.
    pub async fn note_trouble(&self, at: Micros, trouble: String) -> Result<(), StoreError> {
        self.change(move |store, writer| writer.note_trouble(store, at, trouble)).await
    }

    /// Parked chunks, held ones first, at most `chunks_max`.
    pub async fn parked(&self, chunks_max: usize) -> Result<Vec<ParkedChunk>, StoreError> {
        self.read(move |store| parked::list(store, chunks_max)).await
    }

    /// Parked chunks from a place on, at most `chunks_max`, and the place after them; `None` there when no more follow.
    pub async fn parked_page(
        &self,
        from: ParkedCursor,
        chunks_max: usize,
    ) -> Result<(Vec<ParkedChunk>, Option<ParkedCursor>), StoreError> {
        self.read(move |store| parked::page(store, &from, chunks_max)).await
    }

    /// Header of the oldest pending chunk of a stream: since when its records have waited.
    pub async fn oldest(&self, stream: Stream) -> Result<Option<ChunkHeader>, StoreError> {
        let state = self.0.durable.borrow().stream(stream).clone();
        if state.pending() == 0 {
            return Ok(None);
        }
        self.read(move |store| {
            let found = store.last_up_to(&format::chunk_prefix(stream), &format::chunk_key(stream, state.cursor))?;
            found
                .map(|(_, bytes)| codec::peek(&bytes).map_err(|error| damaged_chunk(store, stream, state.cursor, &error)))
                .transpose()
        })
        .await
    }

    /// Why no other page may be appended (I7); `None` when one may. Pending records may take `bytes_max` encoded bytes, and the disk keeps
    /// `reserve_bytes` for others. Where it has little room, the files are made smaller if that is worth it, and the ballast that was given
    /// up on a full disk is made anew as soon as it can be.
    pub async fn why_full(&self, bytes_max: u64, reserve_bytes: u64) -> Result<Option<&'static str>, StoreError> {
        if self.0.durable.borrow().live_bytes() >= bytes_max {
            return Ok(Some("outbox_max is reached"));
        }
        let shared = Arc::clone(&self.0);
        let room = off_thread(move || {
            let room = ballast::room(&shared.path, reserve_bytes);
            if room == Room::Enough {
                return Ok(room);
            }
            shared.compact_if_due(Need::Room);
            Ok(ballast::room(&shared.path, reserve_bytes))
        });
        Ok(match room.await? {
            Room::Enough => None,
            Room::OnlyTheReserve => Some("the disk has less free than disk_reserve"),
            Room::None => Some("the disk is full"),
        })
    }

    /// Bytes that its files take on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.0.store().disk_bytes()
    }

    /// Runs a change off the async threads, and publishes what it made of the outbox. A caller that goes away does not stop it.
    async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Store, &mut Writer) -> Result<T, StoreError> + Send + 'static,
    {
        self.change_kept(move |store, writer, _| change(store, writer)).await
    }

    /// The same, of a change that wants the sidecar written before it is committed.
    async fn change_kept<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Store, &mut Writer, &mut Keeper) -> Result<T, StoreError> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        off_thread(move || {
            let mut guard = lock(&shared.writer);
            let (writer, keeper) = &mut *guard;
            let result = change(&shared.store(), writer, keeper).inspect_err(|error| {
                if ballast::is_full(error) {
                    ballast::give_up(&shared.path);
                }
            })?;
            shared.publish(writer, keeper);
            Ok(result)
        })
        .await
    }

    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        off_thread(move || read(&shared.store())).await
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
        // The runtime is being shut down.
        Err(_) => Err(StoreError::Closed),
    }
}

fn lock(writer: &Mutex<(Writer, Keeper)>) -> MutexGuard<'_, (Writer, Keeper)> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads consecutive records: `[from, end)`, at most `rows_max`, all of one generation and freshness.
fn read_run(store: &Store, stream: Stream, from: Seq, end: Seq, rows_max: usize) -> Result<Option<Batch>, StoreError> {
    if from >= end || rows_max == 0 {
        return Ok(None);
    }
    let prefix = format::chunk_prefix(stream);
    let missing = |seq: Seq| StoreError::Damaged { path: store.path().into(), what: format!("{stream} {seq} is missing") };
    let Some((start, _)) = store.last_up_to(&prefix, &format::chunk_key(stream, from))? else { return Err(missing(from)) };
    let mut batch: Option<Batch> = None;
    let mut expected = from;
    for entry in store.scan(&prefix, &start)? {
        let (key, bytes) = entry?;
        let (header, rows) = codec::decode(&bytes).map_err(|error| damaged_chunk(store, stream, expected, &error))?;
        let misplaced = header.stream != stream || format::first_of_chunk_key(&key) != Some(header.first);
        if misplaced || header.first > expected || header.end() <= expected {
            return Err(missing(expected));
        }
        let skip = expected.since(header.first) as usize;
        let room = rows_max - batch.as_ref().map_or(0, |batch| batch.rows.len());
        let take = (rows.len() - skip).min(room).min(end.since(expected) as usize);
        let rows = if skip == 0 && take == rows.len() { rows } else { rows.slice(skip, skip + take) };
        match &mut batch {
            None => {
                let ChunkHeader { epoch, generation, freshness, .. } = header;
                batch = Some(Batch { epoch, generation, freshness, first: from, rows });
            }
            Some(batch)
                if (batch.epoch, batch.generation, batch.freshness) != (header.epoch, header.generation, header.freshness)
                    || !batch.rows.fits(&rows) =>
            {
                break;
            }
            Some(batch) => batch.rows.extend(rows),
        }
        expected = expected.plus(take as u64);
        if expected >= end || take == room {
            break;
        }
    }
    batch.map_or_else(|| Err(missing(from)), |batch| Ok(Some(batch)))
}

fn damaged_chunk(store: &Store, stream: Stream, seq: Seq, error: &codec::CodecError) -> StoreError {
    StoreError::Damaged { path: store.path().into(), what: format!("the chunk of {stream} {seq}: {error}") }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
