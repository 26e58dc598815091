//! Audits: the ledger held against the source, so that rows are found that were committed late, however late.
//!
//! ```text
//! every poll or so   the last hours that have rows, and ids that are missing among the last ones
//! audit_interval     the audit horizon; rows before the first and ahead of the watermark; a slice at each poll
//! weekly             the whole table, from the first row on; a slice at each poll; goes on after a restart
//! ```
//!
//! A slice is one query over some tens of thousands of rows at most, by the ledger's count. Slots (a node's hour, a block of ids) that differ are
//! looked into: where the rest is proven to be what was captured, the rows that are new are captured alone, else the whole slot is once more, as a
//! repeat. Either way the ledger changes in the commits of these rows (I1), so that a crash in the middle leaves it true.
//!
//! The one rule: the ledger is never set to what the source holds without those rows having been captured in that commit or before. The one exception
//! is a slot at the beginning of the table that has lost rows: that is pruning.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Capture, CaptureError, PAUSE, Until,
    compare::{self, Cut, Difference, Patience},
    gaps::Gaps,
};
use crate::{
    domain::{
        Freshness, Micros, Order, Position, Rows, Slot, Stream, Tallies, Tally,
        ledger::{self, Coarse, DAY, FIRST, IDS_PER_PLACE, MONTH},
    },
    outbox::{Captured, Entry, LedgerChange, LedgerState, Repeats, Side},
    ports::{SlotRequest, SourceError, SourceStream, Span, TallyRequest},
};

/// Rows in a slice, by the ledger's count.
const SLICE_ROWS: u64 = 50_000;
/// The fewest that it is cut down to when a query takes too long.
const SLICE_ROWS_MIN: u64 = 1_000;
/// Entries that are looked at to cut a slice.
const SLICE_ENTRIES: usize = 5_000;
/// The last places with rows that are audited at every poll or so.
const RECENT_PLACES: usize = 4;
/// An audit of the recent past is not repeated before so many times the time that it took has passed.
const IDLE_SHARE: u32 = 50;
/// How often the whole table is walked through.
const WALK_INTERVAL: Duration = Duration::from_hours(7 * 24);
/// Dated later than this behind now, a row is ahead.
const AHEAD: Duration = Duration::from_mins(1);
/// Bytes that copies of the ledger may write in an audit interval.
const SAVED_BYTES_AN_HOUR: u64 = 100_000;
/// A slot with more rows is not searched for the new ones among them.
const PROOF_ROWS_MAX: u64 = 2_000_000;

/// A way through places.
#[derive(Clone, Debug)]
struct Walk {
    side: Side,
    next: i64,
    end: i64,
    /// What was counted of slots that take more than one query.
    gathered: Option<Gathered>,
}

impl Walk {
    fn new(side: Side, next: i64, end: i64) -> Self {
        Self { side, next, end, gathered: None }
    }
}

/// Whole slots that are being counted, by the rows of some hours at a time: several of them make a month.
#[derive(Clone, Debug)]
struct Gathered {
    span: Span,
    unit: i64,
    /// Rows that the ledger knows of.
    rows: u64,
    /// From where on they are still to be counted.
    next: i64,
    tallies: Tallies,
}

/// Where the audits of one stream stand.
#[derive(Debug)]
struct Audit {
    gaps: Gaps,
    recent_due: Instant,
    horizon_due: Instant,
    /// The ways that are still to be gone of the audit of the horizon; the last one first.
    horizon: Vec<Walk>,
    /// The way through the whole table; where it stands is in the outbox too.
    whole: Option<Walk>,
    slice_rows: u64,
}

/// Where all audits stand.
#[derive(Debug, Default)]
pub(super) struct Audits {
    streams: BTreeMap<Stream, Audit>,
    /// When the copy of the ledger may be written again.
    save_due: Option<Instant>,
    patience: Patience,
}

impl Audits {
    fn of(&mut self, stream: Stream) -> &mut Audit {
        self.streams.entry(stream).or_insert_with(|| {
            let now = Instant::now();
            Audit {
                gaps: Gaps::default(),
                recent_due: now,
                horizon_due: now,
                horizon: Vec::new(),
                whole: None,
                slice_rows: SLICE_ROWS,
            }
        })
    }

    /// Notes ids that are missing in a page, and between it and what came before.
    pub(super) fn note_gaps(&mut self, before: &Position, page: &Rows, age: Duration) {
        let before = match before {
            Position::Id(id) => Some(*id),
            Position::Start | Position::Key { .. } => None,
        };
        let ids = (0..page.len()).filter_map(|row| match page.id_position(row) {
            Some(Position::Id(id)) => Some(id),
            _ => None,
        });
        self.of(page.stream()).gaps.note(before, ids, Instant::now(), age);
    }
}

/// What became of a slice.
enum Sliced {
    /// The way is at its end.
    Done,
    /// It goes on.
    More,
    /// It breaks off.
    Halt(Halt),
}

/// Why an audit breaks off.
pub(super) enum Halt {
    /// There is no room for rows that were found, for this reason.
    Full(&'static str),
    /// The source is another one now.
    Changed,
}

impl Capture<'_> {
    /// What is due of the audits of a stream whose new rows have been captured. Why it breaks off; `None` when it does not.
    pub(super) async fn audit(&mut self, stream: &SourceStream, now: Micros) -> Result<Option<Halt>, CaptureError> {
        #[cfg(debug_assertions)]
        if std::env::var_os("PACKHORSE_TEST_NO_AUDIT").is_some() {
            // The negative control of the tests of late rows.
            return Ok(None);
        }
        if let Some(halt) = self.audit_gaps(stream).await? {
            return Ok(Some(halt));
        }
        if let Some(halt) = self.audit_recent(stream).await? {
            return Ok(Some(halt));
        }
        if let Some(halt) = self.audit_horizon(stream, now).await? {
            return Ok(Some(halt));
        }
        self.walk_through(stream).await
    }

    /// Ids that were missing: when one has come, its block is looked into.
    async fn audit_gaps(&mut self, stream: &SourceStream) -> Result<Option<Halt>, CaptureError> {
        let ranges = self.audits.of(stream.stream).gaps.ranges();
        if ranges.is_empty() {
            return Ok(None);
        }
        let asked = Instant::now();
        let there = self.source.count_ids(stream.stream, &ranges).await?;
        if !self.audits.of(stream.stream).gaps.answer(there, asked) {
            return Ok(None);
        }
        for range in ranges {
            let there = self.source.count_ids(stream.stream, &[range]).await?;
            if self.audits.of(stream.stream).gaps.learn(range, there) {
                let (next, end) = (range.0.div_euclid(IDS_PER_PLACE), range.1.div_euclid(IDS_PER_PLACE) + 1);
                if let Some(halt) = self.go(stream, Walk::new(Side::Behind, next, end)).await? {
                    return Ok(Some(halt));
                }
            }
        }
        Ok(None)
    }

    /// The last places that have rows, as the ledger knows them: the clock may be wrong.
    async fn audit_recent(&mut self, stream: &SourceStream) -> Result<Option<Halt>, CaptureError> {
        let began = Instant::now();
        if began < self.audits.of(stream.stream).recent_due {
            return Ok(None);
        }
        let end = self.end(stream.stream);
        let next = self.places_back(stream.stream, end, RECENT_PLACES, 1).await?;
        let full = self.go(stream, Walk::new(Side::Behind, next, end)).await?;
        self.audits.of(stream.stream).recent_due = Instant::now() + began.elapsed() * IDLE_SHARE;
        Ok(full)
    }

    /// The place behind the watermark.
    fn end(&self, stream: Stream) -> i64 {
        self.outbox.snapshot().stream(stream).watermark.place().map_or(FIRST, |place| place + 1)
    }

    /// The place of the last but so many groups of places that have entries.
    async fn places_back(&mut self, stream: Stream, end: i64, groups: usize, width: i64) -> Result<i64, CaptureError> {
        let mut place = end;
        for _ in 0..groups {
            match self.outbox.ledger_before(stream, place).await? {
                Some(entry) => place = entry.slot.place.div_euclid(width) * width,
                None => break,
            }
        }
        Ok(place)
    }

    /// Goes a way to its end.
    async fn go(&mut self, stream: &SourceStream, mut walk: Walk) -> Result<Option<Halt>, CaptureError> {
        loop {
            match self.slice(stream, &mut walk).await? {
                Sliced::Done => return Ok(None),
                Sliced::More => {}
                Sliced::Halt(halt) => return Ok(Some(halt)),
            }
        }
    }

    /// The audit horizon: a slice of it, or with an end all of it.
    async fn audit_horizon(&mut self, stream: &SourceStream, now: Micros) -> Result<Option<Halt>, CaptureError> {
        let began = Instant::now();
        if self.audits.of(stream.stream).horizon.is_empty() {
            if began < self.audits.of(stream.stream).horizon_due {
                return Ok(None);
            }
            let walks = self.horizon_walks(stream, now).await?;
            self.audits.of(stream.stream).horizon = walks;
        }
        while let Some(mut walk) = self.audits.of(stream.stream).horizon.pop() {
            let sliced = self.slice(stream, &mut walk).await;
            if !matches!(sliced, Ok(Sliced::Done)) {
                self.audits.of(stream.stream).horizon.push(walk);
            }
            match sliced? {
                Sliced::Halt(halt) => return Ok(Some(halt)),
                Sliced::More if self.until == Until::Stopped => return Ok(None),
                Sliced::Done | Sliced::More => {}
            }
        }
        self.audits.of(stream.stream).horizon_due = Instant::now() + self.options.audit_interval;
        self.keep_ledger(stream, now).await?;
        Ok(None)
    }

    /// The ways of an audit of the horizon. Rows that lie before all that is known, and rows ahead, are looked for as well.
    async fn horizon_walks(&mut self, stream: &SourceStream, now: Micros) -> Result<Vec<Walk>, CaptureError> {
        let end = self.end(stream.stream);
        let behind = |next, end| Walk::new(Side::Behind, next, end);
        let hours = horizon_hours(self.options.audit_horizon);
        let mut walks = Vec::new();
        let next = match stream.order {
            Order::Key => {
                let (ahead, last) = (now.0.saturating_add(AHEAD.as_micros() as i64), Micros(i64::MAX).hour());
                walks.push(Walk::new(Side::Ahead, (Micros(ahead).hour() + 1).max(end), last));
                let days = usize::try_from(hours / DAY).unwrap_or(usize::MAX);
                let back = self.places_back(stream.stream, end, days, DAY).await?;
                back.min(end.saturating_sub(hours)).min(now.hour() - hours)
            }
            Order::Id => {
                // Where the time has no index this is a scan, once in an audit; where the clock is wrong, the last blocks remain.
                let from = self.source.last(stream.stream, Some(Micros(now.0 - hours * 3_600_000_000))).await?;
                let back = self.places_back(stream.stream, end, RECENT_PLACES * 8, 1).await?;
                from.place().unwrap_or(back).min(back)
            }
        };
        walks.push(behind(next, end));
        if let Some(first) = self.outbox.ledger(Side::Behind, stream.stream, FIRST, 1).await?.first() {
            walks.push(behind(FIRST, first.slot.place.min(next)));
        }
        Ok(walks)
    }

    /// After an audit of the horizon: old entries are merged, what the watermark has passed is no longer ahead.
    async fn keep_ledger(&mut self, stream: &SourceStream, now: Micros) -> Result<(), CaptureError> {
        if stream.order == Order::Key {
            self.coarsen(stream.stream, now).await?;
            self.outbox.forget_ahead(stream.stream, compare::widest_before(self.end(stream.stream) - 1)).await?;
        }
        self.save_ledger().await
    }

    /// Keeps a copy of the ledger beside the store, no more often than its size allows. That it cannot be written is no obstacle: the one before
    /// still holds.
    pub(super) async fn save_ledger(&mut self) -> Result<(), CaptureError> {
        if self.audits.save_due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        match self.outbox.save_ledger().await {
            Ok(bytes) => {
                let share = u32::try_from(bytes.div_ceil(SAVED_BYTES_AN_HOUR)).unwrap_or(u32::MAX);
                self.audits.save_due = Some(Instant::now() + (self.options.audit_interval * share).min(WALK_INTERVAL));
            }
            Err(error @ crate::outbox::StoreError::Io { .. }) => {
                tracing::warn!(outbox = %self.outbox.path().display(), error = crate::chain(&error), "the copy of the ledger could not be written");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Where hours become days and days months is counted from now, and never ahead of what was captured.
    pub(super) async fn coarsen(&mut self, stream: Stream, now: Micros) -> Result<(), CaptureError> {
        let watermark = match self.outbox.snapshot().stream(stream).watermark {
            Position::Key { time, .. } => time,
            Position::Start | Position::Id(_) => now,
        };
        let hours = horizon_hours(self.options.audit_horizon);
        let mut target = Coarse::of(now.min(watermark), hours);
        // By the days that have rows as well: a clock that ran ahead must not make everything a month.
        let end = self.end(stream);
        let back = self.places_back(stream, end, usize::try_from(hours / DAY).unwrap_or(usize::MAX), DAY).await?;
        if back < end {
            target.days_before = target.days_before.min(back.div_euclid(DAY) * DAY);
            target.months_before = target.months_before.min(back.div_euclid(MONTH) * MONTH);
        }
        Ok(self.outbox.coarsen(stream, target).await?)
    }

    /// The whole table, weekly: a slice of it, or with an end all of it when it is due.
    async fn walk_through(&mut self, stream: &SourceStream) -> Result<Option<Halt>, CaptureError> {
        let clock = (self.options.clock)();
        let end = self.end(stream.stream);
        let state = self.outbox.snapshot().ledger(stream.stream).clone();
        let is_due = state.walked_at.is_none_or(|at| clock.since(at) >= walk_interval() || at > clock);
        let Some(next) = state.walk.or_else(|| is_due.then_some(FIRST)) else { return Ok(None) };
        let mut walk = self.audits.of(stream.stream).whole.take().unwrap_or(Walk::new(Side::Behind, next, end));
        walk.end = end;
        loop {
            let before = walk.next;
            match self.slice(stream, &mut walk).await? {
                Sliced::Halt(halt) => return Ok(Some(halt)),
                Sliced::More => {}
                Sliced::Done => break,
            }
            if self.until == Until::Stopped {
                if walk.next != before {
                    let state = LedgerState { walk: Some(walk.next), ..self.outbox.snapshot().ledger(stream.stream).clone() };
                    self.outbox.set_ledger(stream.stream, state).await?;
                }
                self.audits.of(stream.stream).whole = Some(walk);
                return Ok(None);
            }
        }
        let snapshot = self.outbox.snapshot();
        let repeats = match snapshot.ledger(stream.stream).repeats.clone() {
            // Everything that an earlier life may have captured is known again.
            Repeats::UpTo(last) if !last.is_after(&snapshot.stream(stream.stream).watermark) => Repeats::None,
            other => other,
        };
        let state = LedgerState { walk: None, walked_at: Some(clock), repeats, ..snapshot.ledger(stream.stream).clone() };
        self.outbox.set_ledger(stream.stream, state).await?;
        Ok(None)
    }

    /// One query, and what it brings to light.
    async fn slice(&mut self, stream: &SourceStream, walk: &mut Walk) -> Result<Sliced, CaptureError> {
        if self.has_changed().await? {
            return Ok(Sliced::Halt(Halt::Changed));
        }
        let mut gathered = match walk.gathered.take() {
            Some(gathered) => gathered,
            None => match self.cut(stream, walk).await? {
                Some(gathered) => gathered,
                None => return Ok(Sliced::Done),
            },
        };
        let began = Instant::now();
        let (from, to) = (gathered.next, self.step(stream.stream, &gathered));
        let request = TallyRequest { span: Span { from, to, ..gathered.span.clone() }, unit: gathered.unit };
        let there = self.source.tallies(&request).await;
        let audit = self.audits.of(stream.stream);
        if matches!(there, Err(SourceError::Unreachable { .. })) {
            audit.slice_rows = (audit.slice_rows / 4).max(SLICE_ROWS_MIN);
        } else {
            audit.slice_rows = (audit.slice_rows * 2).min(SLICE_ROWS);
        }
        for (slot, tally) in there? {
            let sum = gathered.tallies.entry(slot).or_default();
            *sum = sum.and(tally);
        }
        tracing::trace!(stream = %stream.stream, from, to, took_ms = began.elapsed().as_millis() as u64, "counted");
        gathered.next = to;
        if to < gathered.span.to {
            walk.gathered = Some(gathered);
            return Ok(Sliced::More);
        }
        let Gathered { span, unit, tallies, .. } = gathered;
        let known = self.outbox.ledger_within(walk.side, stream.stream, span.from, span.to).await?;
        let differences = compare::differences(&known, tallies, unit);
        for difference in differences {
            match self.look_into(stream, walk.side, &span, difference).await {
                Ok(None) => {}
                Ok(Some(halt)) => return Ok(Sliced::Halt(halt)),
                // A row that cannot be read is told, and holds up no other slot.
                Err(CaptureError::Source(SourceError::Row { advice })) => {
                    tracing::warn!(stream = %stream.stream, advice, "rows that were found late cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        walk.next = span.to;
        Ok(if walk.next >= walk.end { Sliced::Done } else { Sliced::More })
    }

    /// How far the next query goes, so that it reads no more rows than a slice has.
    fn step(&mut self, stream: Stream, gathered: &Gathered) -> i64 {
        let rows_max = self.audits.of(stream).slice_rows;
        let Gathered { span, rows, next, .. } = gathered;
        if *rows <= rows_max {
            return span.to;
        }
        let places = (span.to - span.from).unsigned_abs().saturating_mul(rows_max) / rows;
        (next + i64::try_from(places.max(1)).unwrap_or(1)).min(span.to)
    }

    /// The next part of a way that has rows on either side, in whole slots, and bounded; `None` at its end.
    async fn cut(&mut self, stream: &SourceStream, walk: &Walk) -> Result<Option<Gathered>, CaptureError> {
        let snapshot = self.outbox.snapshot();
        let state = snapshot.ledger(stream.stream);
        let coarse = match (walk.side, stream.order) {
            (Side::Behind, Order::Key) => state.coarse,
            (Side::Ahead, _) | (Side::Behind, Order::Id) => Coarse::NOTHING,
        };
        let floor = state.floor.clone().unwrap_or(Position::Start);
        let next = floor.place().unwrap_or(FIRST).max(walk.next);
        // A wide slot may begin before the place from which on it is asked for; ahead are some that were counted when they were old.
        let wide = match walk.side {
            Side::Behind => coarse.align(next),
            Side::Ahead => compare::widest_before(next),
        };
        let known = self.outbox.ledger(walk.side, stream.stream, wide, SLICE_ENTRIES).await?;
        let there = self.source.first_place(stream.stream, (next > FIRST).then_some(next)).await?;
        let rows_max = self.audits.of(stream.stream).slice_rows;
        let Some(Cut { from, to, unit, rows }) = compare::cut(&known, there, next..walk.end, coarse, rows_max) else {
            return Ok(None);
        };
        let upto = match walk.side {
            Side::Behind => Some(snapshot.stream(stream.stream).watermark.clone()),
            Side::Ahead => None,
        };
        let span = Span { stream: stream.stream, from, to, floor, upto };
        Ok(Some(Gathered { span, unit, rows, next: from, tallies: Tallies::new() }))
    }

    /// Captures what a slot holds that was not captured.
    async fn look_into(
        &mut self,
        stream: &SourceStream,
        side: Side,
        span: &Span,
        difference: Difference,
    ) -> Result<Option<Halt>, CaptureError> {
        let Difference { slot, unit, known, there } = difference;
        let span = Span { from: slot.place, to: slot.place + unit, ..span.clone() };
        if there.rows == 0 || (there.rows < known.rows && self.is_pruned(stream, slot, unit).await?) {
            tracing::debug!(stream = %stream.stream, place = slot.place, node = slot.node, known = known.rows, there = there.rows, "pruned");
            self.set(stream.stream, side, Entry { slot, unit: unit as u16, tally: there }).await?;
            return Ok(None);
        }
        let request = SlotRequest { span, node: slot.node, after: Position::Start, limit: self.options.page_rows_max };
        let hashes = if there.rows <= PROOF_ROWS_MAX { self.hashes(stream, &request).await? } else { Vec::new() };
        if side == Side::Behind
            && let Some(run) = compare::newcomers(&hashes, known)
        {
            tracing::info!(stream = %stream.stream, node = slot.node, rows = run.len(), "rows were committed late");
            return self.capture_run(stream, request, &hashes, run).await;
        }
        if self.until == Until::Stopped && !self.audits.patience.is_over(stream.stream, side, slot, Instant::now()) {
            return Ok(None);
        }
        tracing::info!(
            stream = %stream.stream, node = slot.node, known = known.rows, there = there.rows,
            "rows were committed late or replaced: this part of the table is captured again"
        );
        let full = self.capture_all(stream, side, request, Entry { slot, unit: unit as u16, tally: there }).await?;
        self.audits.patience.note(stream.stream, side, slot, Instant::now());
        Ok(full)
    }

    /// Whether a slot that has lost rows is where the table begins. A single hour is rather captured once more.
    async fn is_pruned(&mut self, stream: &SourceStream, slot: Slot, unit: i64) -> Result<bool, CaptureError> {
        if stream.order == Order::Key && unit == 1 {
            return Ok(false);
        }
        Ok(self.source.first_place(stream.stream, None).await?.is_none_or(|first| first >= slot.place))
    }

    async fn set(&mut self, stream: Stream, side: Side, entry: Entry) -> Result<(), CaptureError> {
        let captured = self.captured(Rows::empty(stream), Vec::new(), Freshness::New);
        Ok(self.outbox.record(captured, LedgerChange { set: vec![(side, entry)], ..LedgerChange::default() }).await?)
    }

    /// The hash of each row of a slot, in order.
    async fn hashes(&mut self, stream: &SourceStream, request: &SlotRequest) -> Result<Vec<u64>, CaptureError> {
        let (mut request, mut hashes, mut text) = (request.clone(), Vec::new(), String::new());
        while let Some(page) = self.slot_page(stream, &mut request).await? {
            hashes.extend((0..page.len()).map(|row| page.key_hash(row, stream.order, &mut text)));
        }
        Ok(hashes)
    }

    /// The next page of a slot, and the request for the one after it; `None` behind the last one.
    async fn slot_page(&mut self, stream: &SourceStream, request: &mut SlotRequest) -> Result<Option<Rows>, CaptureError> {
        if request.limit == 0 {
            return Ok(None);
        }
        let page = self.source.slot_rows(request).await?;
        let Some(last) = page.len().checked_sub(1) else { return Ok(None) };
        match page.slot_position(last, stream.order) {
            Some(after) if page.len() >= request.limit as usize => request.after = after,
            _ => request.limit = 0,
        }
        Ok(Some(page))
    }

    /// Captures the run of rows that is new, page by page; each is counted as it enters. Rows that are no longer those that were looked at end it:
    /// the next audit finds the rest.
    async fn capture_run(
        &mut self,
        stream: &SourceStream,
        mut request: SlotRequest,
        hashes: &[u64],
        run: std::ops::Range<usize>,
    ) -> Result<Option<Halt>, CaptureError> {
        let (mut at, mut text) = (0, String::new());
        while at < run.end
            && let Some(page) = self.slot_page(stream, &mut request).await?
        {
            let end = at + page.len();
            let same =
                hashes.len() >= end && (0..page.len()).all(|row| page.key_hash(row, stream.order, &mut text) == hashes[at + row]);
            if !same {
                return Ok(None);
            }
            let (from, to) = (run.start.max(at), run.end.min(end));
            if from < to {
                let rows = page.slice(from - at, to - at);
                let repeats = self.outbox.snapshot().ledger(stream.stream).repeats.clone();
                let may_be_there = |row| {
                    let position = match stream.order {
                        Order::Id => rows.id_position(row),
                        Order::Key => rows.key_position(row),
                    };
                    position.is_none_or(|position| repeats.cover(&position))
                };
                let freshness = if (0..rows.len()).any(may_be_there) { Freshness::Repeat } else { Freshness::New };
                if let Some(halt) = self.room(stream).await? {
                    return Ok(Some(halt));
                }
                let change = LedgerChange { add: ledger::count(&rows, stream.order), ..LedgerChange::default() };
                let needed = self.needed(&rows).await?;
                let captured = self.captured(rows, needed, freshness);
                self.outbox.record(captured, change).await?;
                self.told.goes_on(self.outbox);
            }
            at = end;
        }
        Ok(None)
    }

    /// Captures all rows of a slot as repeats; its entry is set with the last page, to what was captured.
    async fn capture_all(
        &mut self,
        stream: &SourceStream,
        side: Side,
        mut request: SlotRequest,
        entry: Entry,
    ) -> Result<Option<Halt>, CaptureError> {
        let (mut tally, mut text) = (Tally::default(), String::new());
        while let Some(page) = self.slot_page(stream, &mut request).await? {
            for row in 0..page.len() {
                tally.add(page.key_hash(row, stream.order, &mut text));
            }
            if let Some(halt) = self.room(stream).await? {
                return Ok(Some(halt));
            }
            let set = if request.limit == 0 { vec![(side, Entry { tally, ..entry })] } else { Vec::new() };
            let needed = self.needed(&page).await?;
            let captured = self.captured(page, needed, Freshness::Repeat);
            self.outbox.record(captured, LedgerChange { set, ..LedgerChange::default() }).await?;
            self.told.goes_on(self.outbox);
        }
        if request.limit > 0 {
            // The last page was a full one, or everything went in the meantime.
            self.set(stream.stream, side, Entry { tally, ..entry }).await?;
        }
        Ok(None)
    }

    /// Waits until there is room for a page, and looks that it is still of the same source; why it cannot enter.
    async fn room(&mut self, stream: &SourceStream) -> Result<Option<Halt>, CaptureError> {
        let options = self.options;
        while let Some(why) = self.outbox.why_full(options.outbox_bytes_max, options.disk_reserve_bytes).await? {
            if self.is_for_good() {
                return Ok(Some(Halt::Full(why)));
            }
            self.told.pauses(self.outbox, why);
            sleep(PAUSE).await;
            // It may last for days: the connection is kept, and whoever watches sees a step.
            self.source.now().await?;
        }
        let is_same = self.is_last_row_there(stream).await? && !self.has_changed().await?;
        Ok((!is_same).then_some(Halt::Changed))
    }

    fn captured(&self, rows: Rows, catalog: Vec<super::closure::Changed>, freshness: Freshness) -> Captured {
        let watermark = self.outbox.snapshot().stream(rows.stream()).watermark.clone();
        Captured { rows, watermark, catalog, freshness, at: (self.options.clock)() }
    }
}

fn walk_interval() -> Duration {
    #[cfg(debug_assertions)]
    if std::env::var_os("PACKHORSE_TEST_WALK_OFTEN").is_some() {
        // A test cannot wait for a week.
        return Duration::from_secs(1);
    }
    WALK_INTERVAL
}

fn horizon_hours(horizon: Duration) -> i64 {
    i64::try_from(horizon.as_secs() / 3_600).unwrap_or(i64::MAX / 2).max(1)
}
