//! The loop from the outbox to the destination: map, deliver, act on the verdict. One request in flight.
//!
//! ```text
//!            ┌────────── catalog changed, trouble over ─────────┐
//!            ▼                                                  │
//!   ┌─────────────┐ mapped  ┌─────────┐ intent on disk ┌────────────────┐ accepted: ack, park, next intent
//!   │ sync catalog │ ──────▶ │ prepare │ ─────────────▶ │ request in flight │ ────────────▶ prepare
//!   └─────────────┘         └─────────┘                └────────────────┘
//!            ▲ any other verdict: wait (backoff), then the same run again ◀┘
//! ```
//!
//! The one rule: nothing but [`Verdict::Accepted`] moves the cursor over a row that was sent, and a run that may have arrived is sent again
//! before anything else (I6: the destination tells a repeat by its identity).

pub mod pace;
pub mod prepare;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::{pace::Pace, prepare::Prepared};
use crate::{
    catalog::{self, Journal, JournalError, Known, Recheck, Refused, SyncError, SyncOptions, Synced},
    domain::{Catalog, Entity, LocalRef, Micros, Outcome, RemoteId, Retry, Stream, Verdict},
    edge,
    outbox::{Batch, CreateIntent, Intent, Outbox, Snapshot, StoreError},
    ports::Sink,
};

/// So long a server may still be busy, at the least, with a creation that an earlier life of this program sent.
const EARLIER_LIFE: Duration = Duration::from_secs(5);
/// And at the most, however slow its answers were.
const EARLIER_LIFE_MAX: Duration = Duration::from_mins(5);
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
        pace: Pace::new(options.request_rows_max, options.request_bytes_max),
        synced: None,
        recheck: Recheck::All,
        proved: Instant::now(),
        held: BTreeSet::new(),
        noted: BTreeSet::new(),
        refused: Refused::new(),
        unanswered: BTreeMap::new(),
        trouble: None,
        slowest: Duration::ZERO,
        status_due: Instant::now(),
        last_stream: Stream::NodeState,
        again: None,
    };
    // Every await may be the last: what a request came to is then unknown, and its intent is on the disk.
    tokio::select! {
        result = sender.run() => result,
        () = stop.cancelled() => Ok(()),
    }
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
    status_due: Instant,
    last_stream: Stream,
    /// A run of this stream may or may not have arrived: it goes first, from the same seq on.
    again: Option<Stream>,
}

impl Sender<'_> {
    async fn run(mut self) -> Result<(), StoreError> {
        if let Some(intent) = self.outbox.snapshot().create_intent {
            sleep(Duration::from_millis(intent.patience_ms.into()).max(EARLIER_LIFE)).await;
        }
        let mut next = self.leftover().await?;
        loop {
            if self.catalog_due() && !self.sync_catalog().await? {
                continue;
            }
            self.report_status().await;
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

    /// The run that an earlier life of this program may have sent: it goes out again with the same bounds.
    async fn leftover(&mut self) -> Result<Option<Batch>, StoreError> {
        let Some(intent) = self.outbox.snapshot().intent else { return Ok(None) };
        if self.outbox.snapshot().stream(intent.stream).cursor != intent.first {
            return Ok(None);
        }
        self.last_stream = intent.stream;
        self.outbox.lease(intent.stream, intent.first, intent.end.since(intent.first) as usize).await
    }

    /// The next records to send: the streams take turns. `settling` is about to be settled, so its stream goes on behind it.
    async fn lease(&mut self, settling: Option<Intent>) -> Result<Option<Batch>, StoreError> {
        let snapshot = self.outbox.snapshot();
        let turn = Stream::ALL.iter().position(|stream| *stream == self.last_stream).unwrap_or_default();
        let again = self.again.take().into_iter();
        for stream in again.chain((1..=Stream::ALL.len()).map(|step| Stream::ALL[(turn + step) % Stream::ALL.len()])) {
            let from = match settling {
                Some(settling) if settling.stream == stream => settling.end,
                _ => snapshot.stream(stream).cursor,
            };
            if let Some(batch) = self.outbox.lease(stream, from, self.pace.rows()).await? {
                self.last_stream = stream;
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Sends one batch and acts on the verdict. Gives the batch to go on with: the next one, or the same one again.
    async fn send(&mut self, batch: Batch) -> Result<Option<Batch>, StoreError> {
        let snapshot = self.outbox.snapshot();
        let Prepared { delivery, aside } = prepare::prepare(&batch, &snapshot.mappings, snapshot.meta.source);
        if !aside.is_empty() && self.catalog_due() {
            // What these rows wait for came in with them, after the last sync.
            return Ok(Some(batch));
        }
        if delivery.rows.is_empty() {
            self.outbox.settle(batch, aside, None, (self.options.clock)()).await?;
            return Ok(None);
        }
        self.outbox.intend(batch.intent()).await?;
        edge::pass("deliver:sending");
        let delivered = self.sink.deliver(&delivery).await;
        edge::pass("deliver:answered");
        tracing::debug!(
            stream = %batch.rows.stream(), first = %batch.first, rows = delivery.rows.len(), body_bytes = delivered.body_bytes,
            took_ms = delivered.took.as_millis() as u64, outcome = %delivered.outcome, "request"
        );
        match delivered.outcome.verdict {
            Verdict::Accepted => {
                // An answer, so it tells how long this server takes; what it took long ago counts less and less.
                self.slowest = delivered.took.max(self.slowest * 7 / 8);
                self.pace.accepted(delivery.rows.len(), delivered.body_bytes);
                self.all_well();
                let next = self.lease(Some(batch.intent())).await?;
                self.outbox.settle(batch, aside, next.as_ref().map(Batch::intent), (self.options.clock)()).await?;
                Ok(next)
            }
            Verdict::TooLarge if delivery.rows.len() > 1 && self.pace.too_large(delivery.rows.len()) => {
                self.again = Some(batch.rows.stream());
                Ok(None)
            }
            Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured | Verdict::TooLarge | Verdict::Refused => {
                let verdict = delivered.outcome.verdict;
                if verdict == Verdict::Unknown {
                    self.pace.slow_down();
                }
                self.wait_out(&delivered.outcome).await?;
                // A stale mapping may be what was refused, and a long outage may have replaced the server.
                let is_long = self.trouble.as_ref().is_some_and(|(_, since)| since.elapsed() >= OUTAGE);
                if is_long || matches!(verdict, Verdict::Misconfigured | Verdict::Refused) {
                    self.recheck = Recheck::All;
                    self.synced = None;
                }
                // What may have arrived goes first; what was refused does not stop the other stream.
                if matches!(verdict, Verdict::Unknown | Verdict::TooLarge) {
                    self.again = Some(batch.rows.stream());
                }
                Ok(None)
            }
        }
    }

    fn catalog_due(&mut self) -> bool {
        let snapshot = self.outbox.snapshot();
        if self.proved.elapsed() >= MAPPINGS_RECHECK {
            self.recheck = Recheck::All;
            return true;
        }
        match &self.synced {
            None => true,
            Some((catalog, _)) if !Arc::ptr_eq(catalog, &snapshot.catalog) => true,
            Some((_, at)) => !snapshot.held.is_empty() && at.elapsed() >= HELD_RECHECK,
        }
    }

    /// Brings the destination's catalog in step, then lets rows return that were held for what is mapped now. `false` after trouble,
    /// which has been waited out.
    async fn sync_catalog(&mut self) -> Result<bool, StoreError> {
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
        let mut journal = OutboxJournal { outbox: self.outbox, slowest: self.slowest };
        match catalog::sync(self.sink, &snapshot.catalog, known, &options, &mut journal).await {
            Ok(synced) => {
                self.slowest = self.slowest.max(synced.slowest);
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
            tracing::info!(%what, rows, "held rows return");
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

    /// Reports the gateway's status now and then. That it does not get through is told by whatever is sent next.
    async fn report_status(&mut self) {
        if Instant::now() < self.status_due {
            return;
        }
        let status = catalog::push_status(&self.options.label, env!("CARGO_PKG_VERSION"), (self.options.clock)());
        if let Err(outcome) = self.sink.push_status(&status).await {
            tracing::debug!(%outcome, "the status was not taken");
        }
        self.status_due = Instant::now() + self.options.pushstatus_interval;
    }

    /// Waits until there is something to do: new records (and then until a trickle has gathered), a due report, a due look at the catalog.
    async fn idle(&mut self) {
        let mut watch = self.outbox.watch();
        let catalog = self.synced.as_ref().map(|(catalog, _)| Arc::clone(catalog));
        let work = |snapshot: &Snapshot| {
            snapshot.pending() > 0 || catalog.as_ref().is_none_or(|catalog| !Arc::ptr_eq(catalog, &snapshot.catalog))
        };
        let rows = self.pace.rows() as u64;
        let gather = async {
            // The outbox outlives the watch: it cannot end first.
            let _ = watch.wait_for(work).await;
            if self.captured.is_none() {
                let enough = watch.wait_for(|snapshot| snapshot.pending() >= rows);
                let _ = tokio::time::timeout(self.options.linger, enough).await;
            }
        };
        tokio::select! {
            () = gather => {}
            () = sleep_until(self.status_due) => {}
            () = sleep(HELD_RECHECK) => {}
            () = end_of_capture(self.captured) => {}
        }
    }

    fn drained(&self) -> bool {
        self.captured.is_some_and(CancellationToken::is_cancelled) && self.outbox.snapshot().pending() == 0
    }

    fn all_well(&mut self) {
        self.retry.reset();
        if let Some((_, since)) = self.trouble.take() {
            // It may take now what it did not take before.
            self.refused.clear();
            tracing::info!(outbox = %self.outbox.path().display(), after_seconds = since.elapsed().as_secs(), "delivery goes on");
        }
    }

    /// Tells the trouble when it is news, and waits.
    async fn wait_out(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        let backoff = self.retry.next_wait();
        let wait = match outcome.verdict {
            // The server may still be busy with the request whose outcome is unknown.
            Verdict::Unknown => backoff.max(self.slowest * 3),
            Verdict::Misconfigured | Verdict::Refused => backoff.max(self.options.backoff_max / 10),
            Verdict::Accepted | Verdict::NotStored | Verdict::TooLarge => backoff,
        };
        let wait = wait.max(outcome.retry_after.unwrap_or_default());
        let text = outcome.to_string();
        if self.trouble.as_ref().is_none_or(|(told, _)| *told != text) {
            match outcome.verdict {
                Verdict::Misconfigured | Verdict::Refused | Verdict::TooLarge => {
                    tracing::error!(outcome = text, next_try_seconds = wait.as_secs(), "delivery waits");
                }
                Verdict::Accepted | Verdict::NotStored | Verdict::Unknown => {
                    tracing::warn!(outcome = text, next_try_seconds = wait.as_secs(), "delivery waits");
                }
            }
            self.outbox.note_trouble((self.options.clock)(), text.clone()).await?;
            let since = self.trouble.take().map_or_else(Instant::now, |(_, since)| since);
            self.trouble = Some((text, since));
        }
        sleep(wait).await;
        Ok(())
    }
}

async fn end_of_capture(captured: Option<&CancellationToken>) {
    match captured {
        Some(captured) => captured.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What the catalog sync must not forget across a crash is kept in the outbox.
struct OutboxJournal<'a> {
    outbox: &'a Outbox,
    /// The slowest answer before this sync.
    slowest: Duration,
}

#[async_trait]
impl Journal for OutboxJournal<'_> {
    async fn about_to_create(&mut self, what: LocalRef, slowest: Duration) -> Result<(), JournalError> {
        let patience = (slowest.max(self.slowest) * 3).clamp(EARLIER_LIFE, EARLIER_LIFE_MAX);
        let intent = CreateIntent { what, patience_ms: patience.as_millis() as u32 };
        self.outbox.intend_create(Some(intent)).await.map_err(|error| JournalError(Box::new(error)))
    }

    async fn settled(
        &mut self,
        mapped: &[(LocalRef, RemoteId)],
        brought: &[(LocalRef, Entity<RemoteId>)],
    ) -> Result<(), JournalError> {
        self.outbox.map_as(mapped.to_vec(), brought.to_vec()).await.map_err(|error| JournalError(Box::new(error)))
    }
}

#[cfg(test)]
mod tests;
