//! The loop from the outbox to the destination: map, deliver, act on the verdict. One request in flight.
//!
//! ```text
//!            ┌────────── catalog changed, trouble over ─────────┐
//!            ▼                                                  │
//!   ┌──────────────┐ mapped ┌─────────┐      ┌─────┐ intent on disk ┌───────────────────┐ accepted: ack, park, next intent
//!   │ sync catalog │ ─────▶ │ prepare │ ───▶ │ ask │ ─────────────▶ │ request in flight │ ──────────────▶ prepare
//!   └──────────────┘        └─────────┘      └─────┘                └───────────────────┘
//!            ▲                                  ▲ may have arrived: wait the server out ◀┤
//!            ├───────────── not stored, misconfigured: wait (backoff), the same again ◀──┤
//!            └── refused: look at the catalog, then isolate what is at fault ◀───────────┘
//! ```
//!
//! The one rule: nothing but [`Verdict::Accepted`], or an answer that it is there, moves the cursor over a row that was sent; and what may have
//! arrived is not sent again before the destination was asked, unless it tells a repeat by its identity (I6).

mod ask;
pub mod collide;
pub mod doubt;
mod front;
pub mod helm;
pub mod isolate;
mod isolating;
mod journal;
pub mod pace;
pub mod prepare;
pub mod told;
mod wait;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::{
    ask::Asked,
    doubt::{Doubt, Sent},
    front::{Front, Standing},
    helm::{Doing, Helm},
    isolating::Begin,
    journal::OutboxJournal,
    pace::{Aim, Pace, Sample},
    prepare::Prepared,
    told::Judged,
};
use crate::{
    catalog::{self, JournalError, Known, Recheck, Refused, SyncError, SyncOptions, Synced},
    domain::{Catalog, Epoch, Freshness, Heard, LocalRef, Micros, Outcome, Retry, Seq, Stream, Trace, Verdict},
    edge::{self, scaled},
    outbox::{Batch, Extent, Intent, Outbox, Snapshot, StoreError},
    ports::{Delivered, Sink, Summary},
};

/// So long a server may still be busy, at the least, with a creation that an earlier life of this program sent.
const EARLIER_LIFE: Duration = Duration::from_secs(5);
/// And at the most, however slow its answers were.
const EARLIER_LIFE_MAX: Duration = Duration::from_mins(5);
/// What a server takes to store a row, at the worst that was measured (12 s for 10,000 with one repeat among them). As long as no bulk of
/// about that size was answered in this life, three times that is waited for it.
const ROW_TIME: Duration = Duration::from_micros(1_200);
/// How often held rows make the sender look at the destination's catalog again.
const HELD_RECHECK: Duration = Duration::from_mins(5);

/// So many tries to create one entity may end without an answer before it is held and the others go on.
const CREATE_TRIES: u32 = 3;
/// So many remarks are remembered as told (I7).
const NOTED_MAX: usize = 1_000;

/// Trouble that lasts longer is an outage: the centre may be another one afterwards.
const OUTAGE: Duration = Duration::from_mins(1);
/// How often the mappings are checked against the destination: a centre that was rebuilt must not put rows into another room.
const MAPPINGS_RECHECK: Duration = Duration::from_hours(1);

/// How to send.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows in a request, at most.
    pub request_rows_max: usize,
    /// Bytes of a request's body, at most.
    pub request_bytes_max: u64,
    /// The longest backoff; what needs a human is tried again at least a tenth of it later.
    pub backoff_max: Duration,
    /// How long a trickle is gathered before it is sent.
    pub linger: Duration,
    /// How often the gateway's status is reported.
    pub pushstatus_interval: Duration,
    /// The gateway's label.
    pub label: String,
    /// The gateway's clock.
    pub clock: fn() -> Micros,
    /// A random epoch, never given before.
    pub new_epoch: fn() -> Epoch,
    /// Where it says what it is doing, and hears what an operator wants.
    pub helm: Arc<Helm>,
}

/// Sends until stopped or, with `captured`, until that is cancelled (nothing more will be appended) and nothing is pending.
///
/// # Errors
/// The outbox's errors; trouble with the destination is waited out.
pub async fn run(
    outbox: &Outbox,
    sink: &dyn Sink,
    options: &Options,
    captured: Option<&CancellationToken>,
    retry: Retry,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let sender = Sender {
        outbox,
        sink,
        options,
        captured,
        retry,
        pace: Pace::new(options.request_rows_max, options.request_bytes_max, aim()),
        synced: None,
        recheck: Recheck::All,
        proved: Instant::now(),
        held: BTreeSet::new(),
        noted: BTreeSet::new(),
        refused: Refused::new(),
        unanswered: BTreeMap::new(),
        trouble: None,
        slowest: Duration::ZERO,
        answered_rows: 0,
        status_due: Instant::now(),
        last_stream: Stream::NodeState,
        fronts: Stream::ALL.map(|_| Front::default()),
    };
    // Every await may be the last: what a request came to is then unknown, and its intent is on the disk.
    let result = tokio::select! {
        result = sender.run() => result,
        () = stop.cancelled() => Ok(()),
    };
    options.helm.tell(Doing::Stopped);
    result
}

struct Sender<'a> {
    outbox: &'a Outbox,
    sink: &'a dyn Sink,
    options: &'a Options,
    captured: Option<&'a CancellationToken>,
    retry: Retry,
    pace: Pace,
    /// The catalog that the destination was last brought in step with, and when.
    synced: Option<(Arc<Catalog>, Instant)>,
    recheck: Recheck,
    /// When everything mapped was last looked at.
    proved: Instant,
    /// Entities that the destination could not be given, as last told.
    held: BTreeSet<LocalRef>,
    /// Remarks on the catalog that were told.
    noted: BTreeSet<String>,
    /// Changes of catalog entities that the destination did not take.
    refused: Refused,
    /// How often the creation of an entity got no answer, since it last did.
    unanswered: BTreeMap<LocalRef, u32>,
    /// The trouble that was last told, and since when there is trouble.
    trouble: Option<(String, Instant)>,
    /// The slowest answer of late: an unknown outcome is waited out for three times as long.
    slowest: Duration,
    /// The most rows of a bulk that was answered in this life.
    answered_rows: usize,
    status_due: Instant,
    last_stream: Stream,
    fronts: [Front; Stream::ALL.len()],
}

/// So many errors in a row may be the server's own.
const FAILURES: u32 = 3;

impl Sender<'_> {
    async fn run(mut self) -> Result<(), StoreError> {
        if let Some(intent) = self.outbox.snapshot().create_intent {
            sleep(scaled(Duration::from_millis(intent.patience_ms.into()).max(EARLIER_LIFE))).await;
        }
        self.leftover();
        let mut next = None;
        loop {
            if self.act().await? {
                next = None;
            }
            tokio::select! {
                () = self.options.helm.while_paused() => {}
                () = end_of_capture(self.captured) => {}
            }
            if self.captured.is_some_and(CancellationToken::is_cancelled) && self.options.helm.is_paused() {
                // With an end, a pause ends it: nobody is there who would resume.
                return Ok(());
            }
            if self.catalog_due() && !self.sync_catalog().await? {
                continue;
            }
            self.report_status().await?;
            let batch = match next.take() {
                Some(batch) => Some(batch),
                None => self.lease(None).await?,
            };
            match batch {
                Some(batch) => next = self.send(batch).await?,
                None if self.drained() => return Ok(()),
                None => {
                    // The catalog is in step and nothing waits: whatever the trouble was, it is over.
                    self.all_well();
                    self.idle().await;
                }
            }
        }
    }

    fn front(&self, stream: Stream) -> &Front {
        &self.fronts[usize::from(stream.number())]
    }

    fn front_mut(&mut self, stream: Stream) -> &mut Front {
        &mut self.fronts[usize::from(stream.number())]
    }

    /// The runs that an earlier life of this program may have sent.
    fn leftover(&mut self) {
        let snapshot = self.outbox.snapshot();
        for stream in Stream::ALL {
            self.front_mut(stream).sent_up_to = snapshot.stream(stream).cursor;
        }
        for intent in snapshot.intents.iter().flatten() {
            let cursor = snapshot.stream(intent.stream).cursor;
            let patience = self.patience(intent.end.since(cursor) as usize);
            let front = self.front_mut(intent.stream);
            front.doubt = Doubt::of(*intent, cursor);
            front.ready = Instant::now() + patience;
            front.sent_up_to = intent.end.max(cursor);
            // It goes first.
            self.last_stream = if intent.stream == Stream::Reading { Stream::NodeState } else { Stream::Reading };
        }
    }

    /// How long a server may be busy with a request of so many rows.
    fn patience(&self, rows: usize) -> Duration {
        if self.answered_rows > 0 && rows <= self.answered_rows.saturating_mul(2) {
            return self.slowest * 3;
        }
        shortened_patience().unwrap_or_else(|| scaled(EARLIER_LIFE + ROW_TIME * 3 * rows as u32))
    }

    /// Rows of a stream's next batch, at most: what is asked for together has the bounds that it was sent with.
    fn rows_max(&self, stream: Stream, from: Seq) -> usize {
        match &self.front(stream).doubt {
            Some(Doubt { end, sent }) if self.asks() => match sent {
                Sent::Together(_) => end.since(from) as usize,
                Sent::Each => self.pace.rows(stream).min(end.since(from) as usize).min(ask::EACH_ROWS_MAX),
            },
            Some(_) | None => self.pace.rows(stream),
        }
    }

    /// The next records to send: the streams take turns. `settling` is about to be settled, so its stream goes on behind it.
    async fn lease(&mut self, settling: Option<Intent>) -> Result<Option<Batch>, StoreError> {
        let snapshot = self.outbox.snapshot();
        let turn = Stream::ALL.iter().position(|stream| *stream == self.last_stream).unwrap_or_default();
        for stream in (1..=Stream::ALL.len()).map(|step| Stream::ALL[(turn + step) % Stream::ALL.len()]) {
            let from = match settling {
                Some(settling) if settling.stream == stream => settling.end,
                _ => snapshot.stream(stream).cursor,
            };
            if let Some(batch) = self.outbox.lease(stream, from, self.rows_max(stream, from)).await? {
                self.last_stream = stream;
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Sends one batch and acts on the verdict. Gives the batch to go on with: the next one, or the same one again.
    async fn send(&mut self, batch: Batch) -> Result<Option<Batch>, StoreError> {
        let snapshot = self.outbox.snapshot();
        let stream = batch.rows.stream();
        let mut prepared = prepare::prepare(&batch, &snapshot.mappings);
        if prepared.holds() && self.catalog_due() {
            // What these rows wait for came in with them, after the last sync.
            return Ok(Some(batch));
        }
        match self.ask(&batch, &mut prepared).await? {
            Asked::Ready => {}
            Asked::Again(rows) => {
                let rows = rows.max(1).min(self.rows_max(stream, batch.first));
                return self.outbox.lease(stream, batch.first, rows).await;
            }
            Asked::Failed => return Ok(None),
        }
        self.leave_taken(&batch, &mut prepared);
        if prepared.sent.is_empty() {
            return self.settle(batch, &prepared, None).await;
        }
        match self.front(stream).standing {
            Standing::RowsDoubted => return self.isolate(batch, prepared, Begin::Refused).await,
            Standing::ServerDoubted(failures) => return self.isolate(batch, prepared, Begin::Again(failures)).await,
            Standing::Well if self.suspects(&batch, &prepared) => return self.isolate(batch, prepared, Begin::Suspecting).await,
            Standing::Well | Standing::Failing(_) | Standing::CatalogDoubted => {}
        }
        self.intend(&batch, extent(&batch, &prepared)).await?;
        let delivered = self.deliver(&batch, &prepared.sent, &snapshot).await;
        let outcome = delivered.outcome;
        let rows = prepared.sent.len();
        if let (Verdict::Refused, Some(told)) = (outcome.verdict, outcome.told.as_deref())
            && !told.refused.is_empty()
        {
            match self.judge_each(&batch, &mut prepared, told) {
                Judged::Parked => {
                    self.all_well();
                    let taken = Some(batch.end().minus_one());
                    return self.settle(batch, &prepared, taken).await;
                }
                Judged::Again => {}
            }
        }
        match outcome.verdict {
            Verdict::Accepted => {
                let answered = delivered.took.saturating_sub(delivered.uploaded);
                let sample = Sample { rows, body_bytes: delivered.body_bytes, uploaded: delivered.uploaded, answered };
                self.pace.accepted(stream, &sample);
                self.front_mut(stream).standing = Standing::Well;
                self.all_well();
                let taken = outcome.told.as_ref().map(|_| batch.end().minus_one());
                self.settle(batch, &prepared, taken).await
            }
            // By our own measure: nothing was sent, and a smaller one is at once.
            Verdict::TooLarge if rows > 1 && delivered.body_bytes > self.options.request_bytes_max => {
                self.pace.too_large(rows);
                Ok(None)
            }
            Verdict::TooLarge if rows > 1 && self.pace.too_large(rows) && outcome.trace == Trace::Nothing => Ok(None),
            Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured | Verdict::TooLarge | Verdict::Refused => {
                if outcome.trace != Trace::Nothing {
                    self.doubt(&batch, prepared, delivered.answered);
                }
                // An error that was answered says nothing of the link.
                if outcome.verdict == Verdict::Unknown && outcome.trace == Trace::Possible {
                    self.pace.slow_down();
                }
                if self.is_told(stream) && outcome.verdict == Verdict::NotStored {
                    // What it has lost comes again; this request is as good as it was.
                    return Ok(None);
                }
                self.judge(stream, &outcome);
                self.wait_out(&outcome).await?;
                let is_doubted = self.front(stream).standing == Standing::CatalogDoubted;
                self.doubt_mappings(is_doubted || outcome.verdict == Verdict::Misconfigured);
                Ok(None)
            }
        }
    }

    /// Before anything of a batch is sent: what may have arrived of its stream from then on is on the disk.
    async fn intend(&self, batch: &Batch, extent: Extent) -> Result<(), StoreError> {
        let intent = match &self.front(batch.rows.stream()).doubt {
            Some(doubt) => Intent { end: doubt.end.max(batch.end()), ..batch.intent(Extent::Parts) },
            None => batch.intent(extent),
        };
        self.outbox.intend(intent).await
    }

    async fn deliver(&mut self, batch: &Batch, sent: &[usize], snapshot: &Snapshot) -> Delivered {
        let state = snapshot.stream(batch.rows.stream());
        let mut delivery = prepare::translate(batch, sent, &snapshot.mappings, snapshot.meta.source);
        delivery.bounds.epoch = state.epoch_elsewhere(batch.epoch);
        delivery.bounds.taken = state.elsewhere.taken;
        // A record from beyond the batch lies behind the cursor, and a proof before it.
        delivery.bounds.cursor = state.cursor.min(batch.first);
        let (stream, rows, since) = (batch.rows.stream(), sent.len(), (self.options.clock)());
        self.options.helm.tell(Doing::Sending { stream, rows, since });
        let front = self.front_mut(stream);
        let sent_up_to = front.sent_up_to.max(batch.first);
        front.sent_up_to = sent_up_to.max(batch.end());
        edge::pass("deliver:sending");
        let delivered = self.sink.deliver(&delivery).await;
        edge::pass("deliver:answered");
        self.pace.sent(batch.rows.stream(), sent.len(), delivered.body_bytes);
        self.options.helm.answered(&delivered, (self.options.clock)());
        tracing::debug!(
            stream = %batch.rows.stream(), first = %batch.first, rows = sent.len(), body_bytes = delivered.body_bytes,
            took_ms = delivered.took.as_millis() as u64,
            uploaded_ms = delivered.uploaded.as_millis() as u64, outcome = %delivered.outcome, "request"
        );
        if let Some(told) = &delivered.outcome.told {
            self.heed(stream, told, delivery.bounds.taken, sent_up_to);
        }
        if delivered.outcome.verdict == Verdict::Accepted {
            // An answer, so it tells how long this server takes; what it took long ago counts less and less.
            self.slowest = delivered.answered.max(self.slowest * 7 / 8);
            self.answered_rows = self.answered_rows.max(sent.len());
        }
        delivered
    }

    /// A request with rows of a batch may have arrived; it went without an answer for so long.
    fn doubt(&mut self, batch: &Batch, prepared: Prepared, took: Duration) {
        let patience = self.patience(prepared.sent.len()).max(took);
        let is_all = prepared.sent.len() + prepared.aside.len() == batch.rows.len();
        let front = self.front_mut(batch.rows.stream());
        let earlier = front.doubt.as_ref().map_or(Seq(0), |doubt| doubt.end);
        let sent = if earlier > batch.first || batch.freshness == Freshness::Repeat || !is_all {
            Sent::Each
        } else {
            Sent::Together(prepared.sent)
        };
        front.doubt = Some(Doubt { end: earlier.max(batch.end()), sent });
        front.ready = Instant::now() + patience;
    }

    /// What a refusal, or an error that may be one, makes of a stream's standing.
    fn judge(&mut self, stream: Stream, outcome: &Outcome) {
        let front = self.front_mut(stream);
        let is_refused = outcome.verdict == Verdict::Refused;
        if !is_refused && outcome.trace != Trace::Unlikely {
            return;
        }
        front.standing = match front.standing {
            Standing::Well if !is_refused => Standing::Failing(1),
            Standing::Failing(times) if !is_refused && times + 1 < FAILURES => Standing::Failing(times + 1),
            Standing::Well | Standing::Failing(_) => Standing::CatalogDoubted,
            Standing::CatalogDoubted | Standing::RowsDoubted => Standing::RowsDoubted,
            Standing::ServerDoubted(failures) => Standing::ServerDoubted(failures),
        };
    }

    /// Everything of a batch is there, or parked; up to a seq a packhorse receiver took it. Gives the next one.
    async fn settle(&mut self, batch: Batch, prepared: &Prepared, taken: Option<Seq>) -> Result<Option<Batch>, StoreError> {
        let stream = batch.rows.stream();
        let is_asked = self.asks();
        let front = self.front_mut(stream);
        front.taken.clear();
        if taken.is_some()
            && let Some(row) = prepared.sent.last()
        {
            front.proof = Some(batch.only(*row));
        }
        front.doubt = front.doubt.take().and_then(|doubt| doubt.after(batch.end()));
        if is_asked {
            front.frontier.delivered(&batch.rows, (0..batch.rows.len()).filter(|row| !prepared.aside.contains_key(row)));
        }
        let rest = front.doubt.as_ref().map(|doubt| Intent { first: batch.end(), end: doubt.end, ..batch.intent(Extent::Parts) });
        let next = self.lease(Some(batch.intent(Extent::Parts))).await?;
        let following =
            next.as_ref().filter(|next| rest.is_none() || next.rows.stream() != stream).and_then(|next| self.foreseen(next));
        let intents = rest.into_iter().chain(following);
        self.outbox.settle_taken(batch, prepared.set_aside(), intents, taken, (self.options.clock)()).await?;
        Ok(next)
    }

    /// The intent of a batch that is sent next, so that it is on the disk in the commit before; `None` where an earlier one covers it.
    fn foreseen(&self, next: &Batch) -> Option<Intent> {
        let stream = next.rows.stream();
        let is_plain = self.front(stream).doubt.is_none() && self.front(stream).standing == Standing::Well;
        let mappings = self.outbox.snapshot().mappings;
        is_plain.then(|| next.intent(extent(next, &prepare::prepare(next, &mappings))))
    }

    /// A stale mapping may be what was refused, and a long outage may have replaced the server.
    fn doubt_mappings(&mut self, is_suspected: bool) {
        if is_suspected || self.trouble.as_ref().is_some_and(|(_, since)| since.elapsed() >= scaled(OUTAGE)) {
            self.recheck = Recheck::All;
            self.synced = None;
        }
    }

    fn catalog_due(&mut self) -> bool {
        let snapshot = self.outbox.snapshot();
        if self.proved.elapsed() >= scaled(MAPPINGS_RECHECK) {
            self.recheck = Recheck::All;
            return true;
        }
        match &self.synced {
            None => true,
            Some((catalog, _)) if !Arc::ptr_eq(catalog, &snapshot.catalog) => true,
            Some((_, at)) => !snapshot.held.is_empty() && at.elapsed() >= scaled(HELD_RECHECK),
        }
    }

    /// Brings the destination's catalog in step, then lets rows return that were held for what is mapped now. `false` after trouble,
    /// which has been waited out.
    async fn sync_catalog(&mut self) -> Result<bool, StoreError> {
        self.options.helm.tell(Doing::Syncing);
        let snapshot = self.outbox.snapshot();
        if let Some((before, _)) = &self.synced
            && before.iter().any(|(what, entity)| snapshot.catalog.get(what) != Some(entity))
        {
            // What is known under an id became something else: no mapping is taken for granted.
            self.recheck = Recheck::All;
        }
        let given_up = self.unanswered.iter().filter(|(_, tries)| **tries >= CREATE_TRIES).map(|(what, _)| *what).collect();
        let options = SyncOptions { recheck: self.recheck, refused: self.refused.clone(), given_up };
        let known = Known { mappings: &snapshot.mappings, brought: &snapshot.brought };
        let generation = snapshot.meta.generation;
        let mut journal = OutboxJournal { outbox: self.outbox, generation, helm: &self.options.helm, slowest: self.slowest };
        match catalog::sync(self.sink, &snapshot.catalog, known, &options, &mut journal).await {
            Ok(synced) => {
                if self.recheck == Recheck::All && !snapshot.catalog.is_empty() {
                    // Each kind of it was asked for.
                    self.options.helm.heard(Heard::Answer);
                }
                self.slowest = self.slowest.max(synced.slowest);
                if self.outbox.snapshot().meta.generation != generation {
                    // The source became another one meanwhile: what was found out is of entities that are no more.
                    self.recheck = Recheck::All;
                    self.synced = None;
                    return Ok(false);
                }
                self.outbox.intend_create(None).await?;
                self.forget_mappings(&synced).await?;
                self.tell(&synced);
                self.unanswered.retain(|what, _| !synced.mappings.contains(*what));
                self.refused = synced.refused;
                self.return_held(&self.outbox.snapshot()).await?;
                self.synced = Some((snapshot.catalog, Instant::now()));
                if self.recheck == Recheck::All {
                    self.proved = Instant::now();
                    // From now and then on there is another try.
                    self.unanswered.values_mut().for_each(|tries| *tries = (*tries).min(CREATE_TRIES - 1));
                }
                self.recheck = Recheck::Unmapped;
                Ok(true)
            }
            Err(SyncError::Sink { outcome, unanswered, slowest }) => {
                if let Some(what) = unanswered {
                    *self.unanswered.entry(what).or_default() += 1;
                }
                if outcome.verdict != Verdict::Unknown {
                    self.slowest = self.slowest.max(slowest);
                }
                self.wait_out(&outcome).await?;
                self.recheck = Recheck::All;
                Ok(false)
            }
            Err(SyncError::Journal(JournalError(cause))) => {
                Err(cause.downcast::<StoreError>().map_or(StoreError::Closed, |error| *error))
            }
        }
    }

    /// Mappings that did not stand the look at the destination must not put a row into another room.
    async fn forget_mappings(&self, synced: &Synced) -> Result<(), StoreError> {
        let known = self.outbox.snapshot().mappings;
        let gone: Vec<_> = known.iter().map(|(what, _)| what).filter(|what| !synced.mappings.contains(*what)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        tracing::warn!(mappings = gone.len(), "the destination no longer has what these stood for");
        self.outbox.map(gone.into_iter().map(|what| (what, None)).collect()).await
    }

    async fn return_held(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        for what in snapshot.held.keys().filter(|what| snapshot.mappings.contains(**what)) {
            let rows = self.outbox.return_held(*what).await?;
            if rows > 0 {
                tracing::info!(%what, rows, "held rows return");
            }
        }
        Ok(())
    }

    fn tell(&mut self, synced: &Synced) {
        for held in synced.held.iter().filter(|held| !self.held.contains(&held.what)) {
            tracing::warn!(what = %held.what, why = held.why, "its rows are held");
        }
        for what in self.held.iter().filter(|what| synced.mappings.contains(**what)) {
            tracing::info!(%what, "no longer held");
        }
        self.options.helm.set_conflicts(synced.held.iter().map(|held| (held.what.to_string(), held.why.clone())).collect());
        self.held = synced.held.iter().map(|held| held.what).collect();
        if self.noted.len() > NOTED_MAX {
            self.noted.clear();
        }
        for note in &synced.notes {
            if self.noted.insert(note.clone()) {
                tracing::info!(note, "catalog");
            }
        }
        if !synced.created.is_empty() || !synced.updated.is_empty() {
            tracing::info!(
                created = synced.created.len(),
                updated = synced.updated.len(),
                "the destination's catalog is in step"
            );
        }
    }

    /// Reports the gateway's status and what waits now and then. That it does not get through is told by whatever is sent next.
    async fn report_status(&mut self) -> Result<(), StoreError> {
        if Instant::now() < self.status_due {
            return Ok(());
        }
        let now = (self.options.clock)();
        let status = catalog::push_status(&self.options.label, env!("CARGO_PKG_VERSION"), now);
        let mut oldest: Option<Micros> = None;
        for stream in Stream::ALL {
            oldest = oldest.into_iter().chain(self.outbox.oldest_captured(stream).await?).min();
        }
        let snapshot = self.outbox.snapshot();
        let summary = Summary {
            depth: snapshot.pending(),
            parked: snapshot.parked(),
            lag_seconds: self.outbox.lag(now).map(|lag| lag.as_secs()),
            oldest_age_seconds: oldest.map(|at| now.since(at).as_secs()),
        };
        match self.sink.push_summary(&status, &summary).await {
            Ok(()) => self.options.helm.heard(Heard::Answer),
            Err(outcome) => {
                self.options.helm.heard(outcome.heard);
                tracing::debug!(%outcome, "the status was not taken");
            }
        }
        self.status_due = Instant::now() + self.options.pushstatus_interval;
        Ok(())
    }

    /// Waits until there is something to do: new records (and then until a trickle has gathered), a due report, a due look at the catalog.
    async fn idle(&mut self) {
        let mut watch = self.outbox.watch();
        let catalog = self.synced.as_ref().map(|(catalog, _)| Arc::clone(catalog));
        let work = |snapshot: &Snapshot| {
            snapshot.pending() > 0 || catalog.as_ref().is_none_or(|catalog| !Arc::ptr_eq(catalog, &snapshot.catalog))
        };
        let rows = self.pace.rows(Stream::Reading) as u64;
        let gather = async {
            // The outbox outlives the watch: it cannot end first.
            let _ = watch.wait_for(work).await;
            if self.captured.is_none() {
                let enough = watch.wait_for(|snapshot| snapshot.pending() >= rows);
                let _ = tokio::time::timeout(self.options.linger, enough).await;
            }
        };
        self.options.helm.tell(Doing::Idle);
        tokio::select! {
            () = gather => {}
            () = self.options.helm.flushed() => {}
            () = sleep_until(self.status_due) => {}
            () = sleep(scaled(HELD_RECHECK)) => {}
            () = end_of_capture(self.captured) => {}
        }
    }

    fn drained(&self) -> bool {
        self.captured.is_some_and(CancellationToken::is_cancelled) && self.outbox.snapshot().pending() == 0
    }

    fn all_well(&mut self) {
        self.retry.reset();
        self.options.helm.all_well();
        if let Some((_, since)) = self.trouble.take() {
            // It may take now what it did not take before.
            self.refused.clear();
            tracing::info!(outbox = %self.outbox.path().display(), after_seconds = since.elapsed().as_secs(), "delivery goes on");
        }
    }
}

/// Only rows that were never sent before, all of them in one request, arrive together.
fn extent(batch: &Batch, prepared: &Prepared) -> Extent {
    match batch.freshness {
        Freshness::New if prepared.sent.len() == batch.rows.len() => Extent::Whole,
        Freshness::New | Freshness::Repeat => Extent::Parts,
    }
}

/// What is aimed at, as long as tests let it be.
fn aim() -> Aim {
    let Aim { link, server } = Aim::default();
    Aim { link: scaled(link), server: scaled(server) }
}

async fn end_of_capture(captured: Option<&CancellationToken>) {
    match captured {
        Some(captured) => captured.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Tests need not wait as long for a server that they know. Debug builds only, and only when asked for by the environment.
fn shortened_patience() -> Option<Duration> {
    let text = cfg!(debug_assertions).then(|| std::env::var("PACKHORSE_TEST_PATIENCE_MS").ok()).flatten()?;
    text.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
