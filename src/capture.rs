//! The loop from the source to the outbox: page after page behind the settle horizon, after the last watermark.
//!
//! The catalog travels with the rows: whatever a page points to, and whatever that points to in turn, enters in the same commit (I1), so
//! that the sender never needs the source. The source may be away at start or go away at any time; a full outbox or disk pauses the loop
//! (I7): the source keeps the rows.
//!
//! The one rule: the watermark moves only together with the rows that it covers.

mod again;
mod audit;
mod closure;
mod compare;
mod gaps;
mod generation;
pub mod intake;
mod settle;
mod told;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use self::generation::is_captured_one;
use self::{
    again::Turned,
    audit::{Audits, Halt},
    generation::Found,
    intake::Intake,
    settle::IdHorizon,
    told::Told,
};

use crate::{
    domain::{Catalog, Entity, Freshness, LocalId, LocalRef, Micros, Position, Retry, Rows, Slot, Stream, ledger},
    outbox::{Captured, Entry, LedgerChange, LedgerState, Outbox, Repeats, Side, StoreError},
    ports::{Order, PageRequest, Source, SourceError, SourceStream},
};

/// Pages of one stream before the others get their turn.
const TURN_PAGES: usize = 32;
/// A poll that finds no end, and an audit, is broken off after so long: is the source still what it was, are its tables?
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// How often a paused capture looks whether there is room again.
const PAUSE: Duration = Duration::from_secs(2);

/// The catalog entities that must enter the outbox together with these rows (I1): what they need of the source's catalog, and the outbox
/// lacks or has with other content.
pub fn needed(rows: &Rows, source: &Catalog, captured: &Catalog) -> Vec<(LocalRef, Entity<LocalId>)> {
    closure::changed(source, captured, closure::roots(rows).into_iter())
}

/// Where the capture of a new outbox begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first row of the source.
    Beginning,
    /// With the rows that come from now on.
    Now,
    /// With the rows from this time on.
    At(Micros),
}

/// How to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pause between polls when there is nothing to fetch.
    pub poll_interval: Duration,
    /// How old a row must be, by the database's clock, before rows of its time are taken as complete.
    pub settle: Duration,
    /// Rows in a page, at most.
    pub page_rows_max: u32,
    /// Pending records may take this many encoded bytes.
    pub outbox_bytes_max: u64,
    /// Bytes of the disk that are left to others.
    pub disk_reserve_bytes: u64,
    /// How far back late rows are looked for often.
    pub audit_horizon: Duration,
    /// How often that whole horizon is audited.
    pub audit_interval: Duration,
    /// Where a new outbox begins.
    pub start: Start,
    /// What is in the source when a new outbox begins may have been sent by another program: it is captured as repeats.
    pub sent_before: bool,
    /// Whether what waits can be sent meanwhile, and so make room.
    pub sending: Sending,
    /// Where it says how it fares.
    pub intake: Arc<Intake>,
    /// The gateway's clock.
    pub clock: fn() -> Micros,
}

/// Whether what waits in an outbox is sent while capture goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It is, as far as the destination takes it.
    On,
    /// An operator has paused it: nothing makes room, and a capture with an end must not wait for that.
    Paused,
}

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// For good, waiting for a source that is away.
    Stopped,
    /// Until every row is captured that was there at the start; a source that stays away is an error.
    CaughtUp,
}

/// Why capture ended early. What was appended before stays.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The outbox failed and has to be reopened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source is away or refuses.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What a capture that ended by itself has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureReport {
    /// Whether everything was captured that was there at the start; `false` when it was stopped before.
    pub complete: bool,
    /// Rows of the source that cannot be captured because their time is not a date. They are counted, not skipped in silence.
    pub unreadable: u64,
}

/// Captures until stopped, or until caught up.
///
/// # Errors
/// The outbox's errors at once; the source's only with [`Until::CaughtUp`], and for what may pass only after some tries.
pub async fn run(
    source: &mut dyn Source,
    outbox: &Outbox,
    options: &Options,
    until: Until,
    mut retry: Retry,
    stop: &CancellationToken,
) -> Result<CaptureReport, CaptureError> {
    let mut capture = Capture {
        source,
        outbox,
        options,
        catalog: Catalog::new(),
        report: CaptureReport::default(),
        started: None,
        id_horizons: BTreeMap::new(),
        until,
        audits: Audits::default(),
        waits_for_sending: false,
        turn_first: 0,
        looked: None,
        told: Told::new(options, until),
    };
    // With an end: why the last try failed.
    let mut failed: Option<SourceError> = None;
    loop {
        let polled = tokio::select! {
            polled = capture.poll() => polled,
            () = stop.cancelled() => return stopped(capture.report, failed),
        };
        let pause = match polled {
            Ok(polled) => {
                failed = None;
                retry.reset();
                match polled {
                    Polled::Paused(_) | Polled::Unfinished => {}
                    // A table that cannot be read is told again later; meanwhile nothing is back.
                    Polled::Settling(_) | Polled::Stuck => capture.told.goes_on(outbox),
                    Polled::CaughtUp | Polled::Sending => {
                        capture.told.source_is_back(outbox);
                        capture.told.goes_on(outbox);
                    }
                }
                match (until, polled) {
                    (Until::CaughtUp, Polled::CaughtUp) => return Ok(CaptureReport { complete: true, ..capture.report }),
                    (Until::CaughtUp, Polled::Settling(wait)) => wait,
                    (Until::CaughtUp, Polled::Paused(why)) if capture.is_for_good() => {
                        tracing::error!(outbox = %outbox.path().display(), why, "capture cannot go on");
                        return Ok(capture.report);
                    }
                    (Until::CaughtUp, Polled::Sending) if capture.is_for_good() => {
                        let why = "what waits is of another database, and sending is paused";
                        tracing::error!(outbox = %outbox.path().display(), why, "capture cannot go on");
                        return Ok(capture.report);
                    }
                    (_, Polled::Paused(why)) => {
                        capture.told.pauses(outbox, why);
                        PAUSE
                    }
                    (_, Polled::Sending) => PAUSE,
                    (_, Polled::Unfinished) => Duration::ZERO,
                    (_, Polled::Stuck) | (Until::Stopped, Polled::CaughtUp | Polled::Settling(_)) => options.poll_interval,
                }
            }
            Err(CaptureError::Source(error)) => {
                if until == Until::CaughtUp && (told::needs_a_human(&error) || retry.failures() >= 3) {
                    return Err(error.into());
                }
                capture.told.waits(&error);
                if until == Until::CaughtUp {
                    failed = Some(error);
                }
                retry.next_wait()
            }
            Err(error @ CaptureError::Store(_)) => return Err(error),
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return stopped(capture.report, failed),
        }
    }
}

/// A stop in the middle of trouble must not hide it.
fn stopped(report: CaptureReport, failed: Option<SourceError>) -> Result<CaptureReport, CaptureError> {
    failed.map_or(Ok(report), |error| Err(error.into()))
}

enum Polled {
    /// Everything that was there when capture began has been appended.
    CaughtUp,
    /// Rows that were there when capture began may still lie within the settle horizon, for about this long.
    Settling(Duration),
    /// A table cannot be read, which was told; the others were.
    Stuck,
    /// There is no room for more, for this reason.
    Paused(&'static str),
    /// It took long, or the source is another one now: the next poll goes on, and looks at everything first.
    Unfinished,
    /// What waits has to be sent before anything enters.
    Sending,
}

struct Capture<'a> {
    source: &'a mut dyn Source,
    outbox: &'a Outbox,
    options: &'a Options,
    /// The source's catalog as last read.
    catalog: Catalog,
    report: CaptureReport,
    /// The database's time at the first poll.
    started: Option<Micros>,
    /// Of streams paged by id.
    id_horizons: BTreeMap<Stream, IdHorizon>,
    until: Until,
    audits: Audits,
    /// Whether it was told that a new generation waits.
    waits_for_sending: bool,
    /// Which stream has the first turn of a poll.
    turn_first: usize,
    /// When the source was last found to be what it was; `None` when it has been connected to again since.
    looked: Option<Instant>,
    told: Told,
}

impl Capture<'_> {
    async fn poll(&mut self) -> Result<Polled, CaptureError> {
        let began = Instant::now();
        self.told.begins();
        let schema = self.source.connect().await?;
        let now = self.source.now().await?;
        let asked_at = (self.options.clock)();
        if self.started.is_none() {
            self.look_at_the_source(&schema.streams, now).await?;
            self.started = Some(now);
        }
        match self.look_at_generation(&schema.streams, now).await? {
            Found::Known => {}
            Found::Waits => return Ok(Polled::Sending),
        }
        self.follow_the_clock(&schema.streams, now).await?;
        self.bound_the_doubt(&schema.streams, now).await?;
        let horizon = now.minus(self.options.settle);
        match self.refresh_catalog(&schema.streams).await? {
            Found::Known => {}
            Found::Waits => return Ok(Polled::Unfinished),
        }
        let all = schema.streams;
        let mut streams = Vec::new();
        for stream in all.clone() {
            let up_to = match stream.order {
                Order::Key => UpTo::Time(horizon),
                Order::Id => UpTo::Id(self.settled_id(stream.stream, now).await?),
            };
            streams.push((stream, up_to));
        }
        // Else the first one would take whatever room there is, again and again.
        let turn_first = self.turn_first % streams.len().max(1);
        streams.rotate_left(turn_first);
        let mut stuck = None;
        while !streams.is_empty() {
            let mut unfinished = Vec::new();
            for (stream, up_to) in streams {
                match self.turn(&stream, up_to).await {
                    Ok(Turn::Done) => {}
                    Ok(Turn::More) => unfinished.push((stream, up_to)),
                    Ok(Turn::Full(why)) => {
                        self.turn_first += 1;
                        return Ok(Polled::Paused(why));
                    }
                    Ok(Turn::Changed) => return Ok(Polled::Unfinished),
                    // What a table holds is that table's own trouble: the others go on.
                    Err(CaptureError::Source(error @ (SourceError::Row { .. } | SourceError::Schema { .. }))) => {
                        self.told.waits(&error);
                        // Whoever asks next connects anew.
                        self.looked = None;
                        stuck = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            streams = unfinished;
            if stuck.is_none() {
                self.told.reads(self.outbox);
            }
            if !streams.is_empty() && (began.elapsed() >= LOOK_AGAIN || self.has_changed().await?) {
                if stuck.is_none() {
                    // Whatever it was, rows have entered for as long as that.
                    self.told.source_is_back(self.outbox);
                }
                return Ok(Polled::Unfinished);
            }
        }
        if stuck.is_none() {
            self.outbox.caught_up(asked_at.minus(self.options.settle));
        }
        for stream in &all {
            // With an end all of it, else a part at each poll.
            loop {
                match self.capture_again(stream).await {
                    Ok(Turned::Done) => break,
                    Ok(Turned::More) if self.until == Until::Stopped => break,
                    Ok(Turned::More) => {}
                    Ok(Turned::Full(why)) => return Ok(Polled::Paused(why)),
                    Ok(Turned::Changed) => return Ok(Polled::Unfinished),
                    Err(CaptureError::Source(error @ (SourceError::Row { .. } | SourceError::Schema { .. }))) => {
                        self.told.waits(&error);
                        stuck = Some(error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let settles = self.started.is_some_and(|started| horizon <= started);
        // With an end, once: when all new rows are there.
        if self.until == Until::Stopped || !settles {
            for stream in &all {
                match self.audit(stream, now).await? {
                    None => {}
                    Some(Halt::Full(why)) => return Ok(Polled::Paused(why)),
                    Some(Halt::Changed) => return Ok(Polled::Unfinished),
                }
            }
        }
        match (self.started, stuck) {
            // A stream that is stuck is told when the others have been given their time to settle.
            (Some(started), _) if horizon <= started => Ok(Polled::Settling(started.since(horizon) + Duration::from_millis(20))),
            (_, Some(_)) if self.until == Until::Stopped => Ok(Polled::Stuck),
            (_, Some(error)) => Err(error.into()),
            (_, None) => Ok(Polled::CaughtUp),
        }
    }

    /// Whether nothing is going to make room: sending cannot where nothing waits to be sent, nor where it is paused.
    fn is_for_good(&self) -> bool {
        self.until == Until::CaughtUp && (self.outbox.snapshot().pending() == 0 || self.options.sending == Sending::Paused)
    }

    /// Once, when the source is first reached: where a new outbox begins, and what no page can hold.
    async fn look_at_the_source(&mut self, streams: &[SourceStream], now: Micros) -> Result<(), CaptureError> {
        let mut unreadable = 0;
        for SourceStream { stream, order } in streams {
            if !self.outbox.snapshot().stream(*stream).started {
                let begin = match self.options.start {
                    Start::Beginning => Position::Start,
                    Start::Now => self.source.last(*stream, matches!(order, Order::Key).then_some(now)).await?,
                    Start::At(time) => self.source.last(*stream, Some(time)).await?,
                };
                tracing::info!(%stream, from = %begin, "capture begins");
                if self.options.sent_before && !stream.is_merged_everywhere() {
                    self.outbox.start_after_another(*stream, begin).await?;
                } else {
                    self.outbox.start(*stream, begin).await?;
                }
            }
            self.prepare_ledger(&SourceStream { stream: *stream, order: *order }, now).await?;
            let rows = self.source.unreadable(*stream).await?;
            if rows > 0 {
                tracing::error!(%stream, rows, "rows whose time is not a date cannot be forwarded: correct their time in the source");
            }
            unreadable += rows;
        }
        self.save_ledger().await?;
        self.report.unreadable = unreadable;
        Ok(())
    }

    /// A database whose clock was set back gives times anew that capture has passed: the watermark goes back as well.
    async fn follow_the_clock(&mut self, streams: &[SourceStream], now: Micros) -> Result<(), CaptureError> {
        for stream in streams.iter().filter(|stream| stream.order == Order::Key).map(|stream| stream.stream) {
            let snapshot = self.outbox.snapshot();
            let watermark = &snapshot.stream(stream).watermark;
            if matches!(watermark, Position::Key { time, .. } if *time > now) {
                let to = snapshot.ledger(stream).coarse.align(now.hour());
                tracing::warn!(
                    %stream, %now, %watermark, to = %Micros::of_hour(to),
                    "the database's clock stands before what was captured: capture goes back, and repeats what lies between"
                );
                self.outbox.retreat(stream, to).await?;
            }
        }
        Ok(())
    }

    /// What an outbox that is new or was rebuilt has to know before its first page.
    async fn prepare_ledger(&mut self, stream: &SourceStream, now: Micros) -> Result<(), CaptureError> {
        let state = self.outbox.snapshot().ledger(stream.stream).clone();
        let by_time = matches!(stream.order, Order::Key).then_some(now);
        let repeats = match state.repeats.clone() {
            Repeats::All => Repeats::UpTo(self.source.last(stream.stream, by_time).await?),
            known => known,
        };
        let floor = match (&state.floor, self.options.start) {
            (Some(floor), _) => floor.clone(),
            (None, Start::Beginning) => Position::Start,
            // Lost with a store: what lies before the place where capture goes on cannot be told from what came before the beginning.
            (None, Start::Now | Start::At(_)) => self.outbox.snapshot().stream(stream.stream).watermark.clone(),
        };
        let known = LedgerState { floor: Some(floor), repeats, ..state.clone() };
        if known != state {
            self.outbox.set_ledger(stream.stream, known).await?;
        }
        match stream.order {
            Order::Key => self.coarsen(stream.stream, now).await,
            Order::Id => Ok(()),
        }
    }

    /// Reads the catalog, and captures what is active or was pointed to before and is new or has changed; nothing where it turns out to be another
    /// database's.
    async fn refresh_catalog(&mut self, streams: &[SourceStream]) -> Result<Found, CaptureError> {
        self.catalog = self.source.catalog().await?;
        let snapshot = self.outbox.snapshot();
        let active = closure::active(&self.catalog, snapshot.notes.last_success);
        let known = snapshot.catalog.keys().chain(snapshot.held.keys()).copied();
        let changed = closure::changed(&self.catalog, &snapshot.catalog, known.chain(active));
        if changed.is_empty() {
            return Ok(Found::Known);
        }
        for stream in streams {
            if !self.is_last_row_there(stream).await? {
                return Ok(Found::Waits);
            }
        }
        let stream = Stream::Reading;
        let watermark = snapshot.stream(stream).watermark.clone();
        let captured = Captured {
            rows: Rows::empty(stream),
            watermark,
            catalog: changed,
            freshness: Freshness::New,
            at: (self.options.clock)(),
        };
        self.outbox.append(captured).await?;
        Ok(Found::Known)
    }

    /// Fetches and appends some pages of a stream; the next page is fetched while one is committed.
    async fn turn(&mut self, stream: &SourceStream, up_to: UpTo) -> Result<Turn, CaptureError> {
        let (outbox, options) = (self.outbox, self.options);
        let after = outbox.snapshot().stream(stream.stream).watermark.clone();
        check_order(stream, &after)?;
        let limit = self.options.page_rows_max;
        let mut request = PageRequest { stream: stream.stream, after, before: up_to.time(), limit };
        if let Some(why) = outbox.why_full(options.outbox_bytes_max, options.disk_reserve_bytes).await? {
            return Ok(Turn::Full(why));
        }
        let mut page = self.page_or_part(&mut request).await?;
        for _ in 0..TURN_PAGES {
            let fetched = page.len();
            let page_settled = up_to.settled(page);
            let (freshness, alike) = self.freshness(stream, &page_settled).await?;
            let Some(last) = alike.checked_sub(1) else { return Ok(Turn::Done) };
            if !self.is_last_row_there(stream).await? {
                return Ok(Turn::Changed);
            }
            let short = alike == page_settled.len() && (alike < fetched || fetched < request.limit as usize);
            page = if alike == page_settled.len() { page_settled } else { page_settled.slice(0, alike) };
            if stream.order == Order::Id {
                self.audits.note_gaps(&request.after, &page, self.options.audit_interval);
            }
            request.after = position(stream, &page, last)?;
            let catalog = self.needed(&page).await?;
            let (watermark, at) = (request.after.clone(), (self.options.clock)());
            let change = LedgerChange { add: ledger::count(&page, stream.order), ..LedgerChange::default() };
            let captured = Captured { rows: page, watermark, catalog, freshness, at };
            if short {
                self.outbox.record(captured, change).await?;
                self.told.goes_on(self.outbox);
                return Ok(Turn::Done);
            }
            // A failing fetch must not hide that the page before it was appended, nor the other way round.
            let (appended, fetched) = tokio::join!(self.outbox.record(captured, change), self.source.page(&request));
            appended?;
            self.told.goes_on(self.outbox);
            page = match fetched {
                Err(SourceError::Row { .. }) => self.page_or_part(&mut request).await?,
                fetched => fetched?,
            };
            if let Some(why) = outbox.why_full(options.outbox_bytes_max, options.disk_reserve_bytes).await? {
                return Ok(Turn::Full(why));
            }
            if self.looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
                break;
            }
        }
        Ok(Turn::More)
    }

    /// Whether the first rows of a page may have been captured before, and how many there are of which the same is true.
    async fn freshness(&mut self, stream: &SourceStream, page: &Rows) -> Result<(Freshness, usize), CaptureError> {
        if page.is_empty() {
            return Ok((Freshness::New, 0));
        }
        let mut slots = std::collections::BTreeSet::new();
        if let (Some((_, first)), Some((_, last))) = (page.bucket(0), page.bucket(page.len() - 1))
            && stream.order == Order::Key
        {
            let ahead = self.outbox.ledger_within(Side::Ahead, stream.stream, compare::widest_before(first), last + 1).await?;
            let is_ahead = |slot: &Slot| {
                let places = |entry: &Entry| entry.slot.place..entry.slot.place + i64::from(entry.unit);
                ahead.iter().any(|entry| entry.slot.node == slot.node && places(entry).contains(&slot.place))
            };
            if !ahead.is_empty() {
                slots = ledger::count(page, stream.order).into_keys().filter(is_ahead).collect();
            }
        }
        let repeats = self.outbox.snapshot().ledger(stream.stream).repeats.clone();
        let of_row = |row: usize| -> Result<Freshness, SourceError> {
            let is_ahead = !slots.is_empty() && ledger::slot(page, row, stream.order).is_some_and(|slot| slots.contains(&slot));
            let may_be_there = is_ahead || repeats.cover(&position(stream, page, row)?);
            Ok(if may_be_there { Freshness::Repeat } else { Freshness::New })
        };
        let first = of_row(0)?;
        let mut alike = 1;
        while alike < page.len() && of_row(alike)? == first {
            alike += 1;
        }
        Ok((first, alike))
    }

    /// The highest id of a stream that has been there for the settle time; `None` when none has yet.
    async fn settled_id(&mut self, stream: Stream, now: Micros) -> Result<Option<i64>, SourceError> {
        let highest = match self.source.last(stream, None).await? {
            Position::Id(id) => id,
            // Empty: whatever comes has a higher one.
            Position::Start | Position::Key { .. } => i64::MIN,
        };
        Ok(self.id_horizons.entry(stream).or_default().note(now, highest, self.options.settle))
    }

    /// A page, or as much of it as lies before a row that cannot be read; the error when that row is the next one.
    async fn page_or_part(&mut self, request: &mut PageRequest) -> Result<Rows, SourceError> {
        loop {
            match self.source.page(request).await {
                Err(SourceError::Row { .. }) if request.limit > 1 => request.limit = request.limit.div_ceil(8),
                answer => return answer,
            }
        }
    }

    /// The entities that a page needs and the outbox does not have yet, or has with other content.
    async fn needed(&mut self, page: &Rows) -> Result<Vec<closure::Changed>, CaptureError> {
        let roots = closure::roots(page);
        if roots.iter().any(|root| !self.catalog.contains_key(root)) {
            // Added since the catalog was read; what is still not there afterwards does not exist, and its rows will be held.
            self.catalog = self.source.catalog().await?;
        }
        Ok(closure::changed(&self.catalog, &self.outbox.snapshot().catalog, roots.into_iter()))
    }
}

/// How far a stream has settled.
#[derive(Clone, Copy)]
enum UpTo {
    /// Rows before this time.
    Time(Micros),
    /// Rows up to this id; none at all without one.
    Id(Option<i64>),
}

impl UpTo {
    fn time(self) -> Option<Micros> {
        match self {
            Self::Time(time) => Some(time),
            Self::Id(_) => None,
        }
    }

    /// The rows of a page that have settled: ids ascend in it.
    fn settled(self, page: Rows) -> Rows {
        let Self::Id(up_to) = self else { return page };
        let is_settled = |row: usize| match (page.id_position(row), up_to) {
            (Some(Position::Id(id)), Some(up_to)) => id <= up_to,
            (_, None) => false,
            (_, Some(_)) => true,
        };
        let settled = (0..page.len()).take_while(|row| is_settled(*row)).count();
        if settled == page.len() { page } else { page.slice(0, settled) }
    }
}

enum Turn {
    Done,
    More,
    /// There is no room for the next page, for this reason.
    Full(&'static str),
    /// The source is another one now.
    Changed,
}

/// The watermark must be of the kind that the table is paged by: a table that lost or gained its id is a human's matter.
fn check_order(stream: &SourceStream, watermark: &Position) -> Result<(), SourceError> {
    match (stream.order, watermark) {
        (Order::Id, Position::Start | Position::Id(_)) | (Order::Key, Position::Start | Position::Key { .. }) => Ok(()),
        (Order::Id, Position::Key { .. }) | (Order::Key, Position::Id(_)) => Err(SourceError::Schema {
            advice: format!(
                "table {} was paged up to {watermark}, and is now keyed otherwise: restore its id column, or drop this outbox",
                stream.stream.spec().table
            ),
        }),
    }
}

fn position(stream: &SourceStream, page: &Rows, row: usize) -> Result<Position, SourceError> {
    let position = match stream.order {
        Order::Id => page.id_position(row),
        Order::Key => page.key_position(row),
    };
    position.ok_or_else(|| SourceError::Row { advice: format!("a row of {} has NULL in its key", stream.stream.spec().table) })
}

#[cfg(test)]
mod tests;
