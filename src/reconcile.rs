//! Compares the rows of the source with those of a destination, and captures again what is missing there.
//!
//! ```text
//! source: rows of each node and hour ─┐
//! outbox: rows that wait or are parked┴▶ survey ─▶ quote (what it will cost) ─▶ search (counts, coarse to fine) ─▶ rows of hours that differ
//!                                                                                                            └─▶ mend: append the missing
//! ```
//!
//! Only rows that capture has passed (up to the watermark) are compared; a destination that lacks the later ones will get them by itself.
//! Ranges are whole hours, and begin with the first row that the source still has: what was pruned there is not surplus at the destination.
//!
//! Of capture it uses [`capture::needed`], so that a row that is captured again brings its catalog as any other does (I1), and
//! [`capture::is_captured_one`]: what another database holds is not what is missing.
//!
//! The one rule: a row is called missing, and appended again, only when an answer of the destination shows that it is not there and the
//! outbox does not hold it. An answer that cannot be trusted ends the comparison.

pub mod cost;
mod queued;
pub mod search;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use self::{
    cost::Quote,
    queued::{Identity, Place, Queued, Where},
    search::{Differing, Hour, Search, Span},
};
use crate::{
    capture,
    domain::{Catalog, Generation, Micros, Outcome, Position, Rows, Stream, Verdict},
    outbox::{Outbox, StoreError},
    ports::{BucketRequest, Buckets, Presence, Sink, Source, SourceError, Traffic},
};

/// Hours of the source that are counted by one query.
const SLICE_HOURS: i64 = 24;
/// Rows of an hour that are looked at at a time.
const PAGE_ROWS: u32 = 10_000;
/// Missing rows that are appended in one commit, at least.
const APPEND_ROWS: usize = 10_000;
/// Missing rows that are named in a report.
const NAMED_ROWS_MAX: usize = 1_000;
/// How often a question is asked that got no answer.
const TRIES: u32 = 3;

/// What to do about missing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Tell of them.
    Look,
    /// Append them to the outbox as well.
    Mend,
}

/// How to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only rows of the hour of this time, and of later hours.
    pub since: Option<Micros>,
    /// What to do about missing rows.
    pub purpose: Purpose,
    /// Nothing is appended while pending records take this many encoded bytes.
    pub outbox_bytes_max: u64,
    /// Bytes of the disk that are left to others.
    pub disk_reserve_bytes: u64,
    /// The pause before an unanswered question is asked again; it doubles.
    pub pause: Duration,
    /// The gateway's clock.
    pub clock: fn() -> Micros,
}

/// Why a comparison ended early. What had been appended until then stays, and is not missing any more.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The source is away or refuses.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The outbox failed.
    #[error("the outbox failed")]
    Store(#[from] StoreError),
    /// Nothing may be queued from another database.
    #[error(
        "the database is not the one that this outbox was captured from: {queued} rows were queued; `packhorse run` delivers what waits and then takes \
         this database for what it is, after that repeat this command"
    )]
    Replaced {
        /// Rows that were appended.
        queued: u64,
    },
    /// The destination does not answer as it should.
    #[error("the destination does not say what it has: {0}")]
    Destination(Outcome),
    /// There is no room for the missing rows; run packhorse to send what waits, then mend the rest.
    #[error(
        "there is no room to queue more missing rows ({why}): let `packhorse run` send what waits, then mend the rest; {queued} are queued so far"
    )]
    Full {
        /// What is full.
        why: &'static str,
        /// Rows that were appended.
        queued: u64,
    },
}

/// How far it is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The source was counted up to this time.
    Counted(Stream, Micros),
    /// So many of the nodes were compared by counts.
    Compared(usize, usize),
    /// So many of the hours that differ were looked into.
    LookedInto(usize, usize),
}

/// What the source and the outbox hold, before the destination is asked.
#[derive(Debug)]
pub struct Survey {
    /// Of the outbox.
    generation: Generation,
    streams: Vec<StreamSurvey>,
    queued: BTreeMap<Place, Queued>,
}

#[derive(Debug)]
struct StreamSurvey {
    stream: Stream,
    upto: Position,
    /// Hours of the source by node; ascending.
    nodes: BTreeMap<i64, Vec<Hour>>,
    span: Span,
}

impl Survey {
    /// Counts the source and the outbox.
    pub async fn new(
        source: &mut dyn Source,
        outbox: &Outbox,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, ReconcileError> {
        source.connect().await?;
        let generation = outbox.snapshot().meta.generation;
        match options.purpose {
            Purpose::Mend if !capture::is_captured_one(source, outbox, generation).await? => {
                return Err(ReconcileError::Replaced { queued: 0 });
            }
            Purpose::Mend | Purpose::Look => {}
        }
        let queued = queued::count(outbox).await?;
        let mut streams = Vec::new();
        for stream in Stream::ALL {
            let upto = outbox.snapshot().stream(stream).watermark.clone();
            let since = options.since.map(|since| Micros::of_hour(since.hour()));
            streams.push(survey_stream(source, stream, upto, since, &queued, progress).await?);
        }
        Ok(Self { generation, streams, queued })
    }

    /// What asking the destination is going to cost.
    pub fn quote(&self) -> Quote {
        let nodes = self.streams.iter().flat_map(|stream| stream.nodes.values().map(move |hours| (stream.span, hours)));
        nodes.fold(Quote::default(), |quote, (span, hours)| {
            quote.plus(Quote::of_node((span.to - span.from).unsigned_abs(), hours))
        })
    }

    /// Rows of the source that are compared.
    pub fn rows(&self) -> u64 {
        self.streams.iter().flat_map(|stream| stream.nodes.values().flatten()).map(|hour| hour.rows).sum()
    }

    fn queued(&self, place: Place) -> Queued {
        self.queued.get(&place).copied().unwrap_or_default()
    }
}

async fn survey_stream(
    source: &mut dyn Source,
    stream: Stream,
    upto: Position,
    since: Option<Micros>,
    queued: &BTreeMap<Place, Queued>,
    progress: &mut dyn FnMut(Progress),
) -> Result<StreamSurvey, ReconcileError> {
    let mut nodes = BTreeMap::<i64, Vec<Hour>>::new();
    let mut span: Option<Span> = None;
    let mut from = since;
    // Where there is nothing for years, the next row is looked for instead of counting nothing day after day.
    while let Some(first) = if upto == Position::Start { None } else { source.first_time(stream, from).await? } {
        let (begin, end) = (first.hour(), first.hour().saturating_add(SLICE_HOURS));
        let passed = matches!(&upto, Position::Key { time, .. } if first > *time);
        if passed || end == begin {
            break;
        }
        let range = Buckets { from: Some(Micros::of_hour(begin)), to: Micros::of_hour(end), upto: upto.clone() };
        for bucket in source.buckets(stream, &range).await? {
            let in_outbox = queued.get(&(stream, bucket.node, bucket.hour)).copied().unwrap_or_default();
            let hour = Hour { hour: bucket.hour, rows: bucket.rows, queued: in_outbox.waiting + in_outbox.parked };
            nodes.entry(bucket.node).or_default().push(hour);
            let whole = span.get_or_insert(Span { from: bucket.hour, to: bucket.hour + 1 });
            *whole = Span { from: whole.from.min(bucket.hour), to: whole.to.max(bucket.hour + 1) };
        }
        progress(Progress::Counted(stream, Micros::of_hour(end)));
        from = Some(Micros::of_hour(end));
    }
    Ok(StreamSurvey { stream, upto, nodes, span: span.unwrap_or(Span { from: 0, to: 0 }) })
}

/// How a stream's rows stand, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// The stream.
    pub stream: Stream,
    /// In the source, up to the watermark.
    pub source: u64,
    /// Of these, those that the destination cannot tell from another one. Known only for hours that differ; elsewhere there are none.
    pub merged: u64,
    /// At the destination.
    pub there: u64,
    /// In the outbox, to be sent.
    pub waiting: u64,
    /// In the outbox, set aside.
    pub parked: u64,
    /// Neither there nor in the outbox.
    pub missing: u64,
    /// At the destination, and not in the source (or there more often).
    pub surplus: u64,
    /// Of the missing, those that were appended to the outbox.
    pub queued: u64,
}

/// Consecutive hours of a node that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The stream.
    pub stream: Stream,
    /// The node.
    pub node: i64,
    /// The first hour, since 1970.
    pub from: i64,
    /// The hour after the last.
    pub to: i64,
    /// Rows in the source.
    pub source: u64,
    /// Rows at the destination.
    pub there: u64,
    /// Rows missing.
    pub missing: u64,
    /// Rows that only the destination has.
    pub surplus: u64,
}

/// A missing row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingRow {
    /// Its stream.
    pub stream: Stream,
    /// Its time.
    pub time: Option<Micros>,
    /// Its node.
    pub node: Option<i64>,
    /// The type of a reading, the seq_num of a node state.
    pub third: Option<i64>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Each stream.
    pub streams: Vec<Totals>,
    /// Where they differ, by stream, node and time.
    pub differences: Vec<Difference>,
    /// The first missing rows, at most a thousand.
    pub missing: Vec<MissingRow>,
    /// What the questions cost.
    pub traffic: Traffic,
}

impl Report {
    /// Whether the destination has exactly what the source has, or will have it when the outbox has been sent.
    pub fn is_mended(&self) -> bool {
        self.streams.iter().all(|stream| stream.missing == stream.queued && stream.surplus == 0)
    }

    fn totals(&mut self, stream: Stream) -> &mut Totals {
        let place = self.streams.iter().position(|totals| totals.stream == stream);
        let place = place.unwrap_or_else(|| {
            self.streams.push(Totals {
                stream,
                source: 0,
                merged: 0,
                there: 0,
                waiting: 0,
                parked: 0,
                missing: 0,
                surplus: 0,
                queued: 0,
            });
            self.streams.len() - 1
        });
        &mut self.streams[place]
    }

    fn add(&mut self, more: Difference) {
        let totals = self.totals(more.stream);
        totals.missing += more.missing;
        totals.surplus += more.surplus;
        if more.missing == 0 && more.surplus == 0 {
            return;
        }
        match self.differences.last_mut() {
            Some(last) if (last.stream, last.node, last.to) == (more.stream, more.node, more.from) => {
                last.to = more.to;
                last.source += more.source;
                last.there += more.there;
                last.missing += more.missing;
                last.surplus += more.surplus;
            }
            _ => self.differences.push(more),
        }
    }
}

/// An hour of a node, or a range that the source has nothing of, to be looked into.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    stream: Stream,
    node: i64,
    span: Span,
    source: u64,
    queued: u64,
    there: u64,
}

/// Compares, and with [`Purpose::Mend`] appends what is missing.
pub async fn run(
    survey: &Survey,
    source: &mut dyn Source,
    sink: &dyn Sink,
    outbox: &Outbox,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, ReconcileError> {
    let before = sink.traffic();
    let mut report = Report::default();
    let mut leaves = count(survey, sink, options, &mut report, progress).await?;
    leaves.sort_by_key(|leaf| (leaf.stream, leaf.node, leaf.span.from));
    let unclear =
        leaves.iter().filter(|leaf| leaf.queued > 0).map(|leaf| (leaf.stream, leaf.node, leaf.span.from)).collect::<HashSet<_>>();
    let in_outbox = queued::identities(outbox, &unclear).await?;
    let mut look = Look { survey, source, sink, outbox, options, in_outbox, report, found: None, catalog: None, queued: 0 };
    for (place, leaf) in leaves.iter().enumerate() {
        look.leaf(leaf).await?;
        progress(Progress::LookedInto(place + 1, leaves.len()));
    }
    look.append().await?;
    let after = sink.traffic();
    let mut report = look.report;
    report.traffic = Traffic { requests: after.requests - before.requests, body_bytes: after.body_bytes - before.body_bytes };
    Ok(report)
}

/// By counts alone: the totals, and what has to be looked into.
async fn count(
    survey: &Survey,
    sink: &dyn Sink,
    options: &Options,
    report: &mut Report,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Leaf>, ReconcileError> {
    let mut leaves = Vec::new();
    let nodes: usize = survey.streams.iter().map(|stream| stream.nodes.len()).sum();
    let mut done = 0;
    for StreamSurvey { stream, nodes: hours_of, span, .. } in &survey.streams {
        report.totals(*stream);
        for (&node, hours) in hours_of {
            let mut search = Search::new(*span, hours.clone());
            while let Some(Span { from, to }) = search.next_span() {
                let ask = async || sink.count(*stream, node, Micros::of_hour(from), Micros::of_hour(to)).await;
                search.answer(answered(options, ask).await?);
            }
            let totals = report.totals(*stream);
            totals.there += search.there();
            for hour in hours {
                let Queued { waiting, parked } = survey.queued((*stream, node, hour.hour));
                totals.source += hour.rows;
                totals.waiting += waiting;
                totals.parked += parked;
            }
            let leaf = |span, source, queued, there| Leaf { stream: *stream, node, span, source, queued, there };
            let hour_leaf = |hour: &Hour, there| leaf(Span { from: hour.hour, to: hour.hour + 1 }, hour.rows, hour.queued, there);
            for differing in search.differing() {
                match *differing {
                    Differing::Surplus { span, there } => leaves.push(leaf(span, 0, 0, there)),
                    Differing::Nothing(span) => leaves.extend(search.within(span).iter().map(|hour| hour_leaf(hour, 0))),
                    Differing::Hour { hour, there } => {
                        let span = Span { from: hour, to: hour + 1 };
                        leaves.extend(search.within(span).iter().map(|hour| hour_leaf(hour, there)));
                    }
                }
            }
            done += 1;
            progress(Progress::Compared(done, nodes));
        }
    }
    Ok(leaves)
}

/// Asks until there is an answer, at most [`TRIES`] times; what a human has to mend is not asked again.
async fn answered<T>(options: &Options, ask: impl AsyncFn() -> Result<T, Outcome>) -> Result<T, ReconcileError> {
    let mut pause = options.pause;
    for _ in 1..TRIES {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(outcome) => match outcome.verdict {
                Verdict::NotStored | Verdict::Unknown => {
                    tracing::debug!(%outcome, "asked again");
                    tokio::time::sleep(pause.max(outcome.retry_after.unwrap_or_default().min(Duration::from_mins(1)))).await;
                    pause *= 2;
                }
                Verdict::Accepted | Verdict::Misconfigured | Verdict::TooLarge | Verdict::Refused => {
                    return Err(ReconcileError::Destination(outcome));
                }
            },
        }
    }
    ask().await.map_err(ReconcileError::Destination)
}

/// The walk through the hours that differ.
struct Look<'a> {
    survey: &'a Survey,
    source: &'a mut dyn Source,
    sink: &'a dyn Sink,
    outbox: &'a Outbox,
    options: &'a Options,
    in_outbox: HashMap<Identity, Where>,
    report: Report,
    /// Missing rows that are to be appended.
    found: Option<Rows>,
    /// The source's catalog, once it is needed.
    catalog: Option<Catalog>,
    /// Rows that were appended.
    queued: u64,
}

impl Look<'_> {
    async fn leaf(&mut self, leaf: &Leaf) -> Result<(), ReconcileError> {
        let Leaf { stream, node, span, source, there, .. } = *leaf;
        let mut difference = Difference { stream, node, from: span.from, to: span.to, source, there, missing: 0, surplus: 0 };
        let mut known = 0;
        if source > 0 {
            let upto = self.survey.streams.iter().find(|survey| survey.stream == stream).map(|survey| survey.upto.clone());
            let (upto, after) = (upto.unwrap_or(Position::Start), Position::Start);
            let mut request = BucketRequest { stream, node, hour: span.from, upto, after, limit: PAGE_ROWS };
            loop {
                let page = self.source.bucket_rows(&request).await?;
                known += self.page(&page, leaf, &mut difference).await?;
                let last = page.len().checked_sub(1).filter(|_| page.len() >= PAGE_ROWS as usize);
                let Some(after) = last.and_then(|last| page.bucket_position(last)) else { break };
                request.after = after;
            }
        }
        difference.surplus = there.saturating_sub(known);
        self.report.add(difference);
        Ok(())
    }

    /// Some rows of an hour; gives how many of them the destination has.
    async fn page(&mut self, page: &Rows, leaf: &Leaf, difference: &mut Difference) -> Result<u64, ReconcileError> {
        if page.is_empty() {
            return Ok(0);
        }
        let presences = if leaf.there == 0 {
            vec![Presence::Absent; page.len()]
        } else {
            let sink = self.sink;
            answered(self.options, async || sink.arrived(page).await).await?
        };
        let (mut there, mut missing) = (0, Vec::new());
        for (row, presence) in presences.into_iter().enumerate() {
            match presence {
                Presence::There => there += 1,
                // Not to be told from a row that is there, or that waits.
                Presence::Merged => self.report.totals(leaf.stream).merged += 1,
                Presence::Absent if leaf.queued > 0 && self.in_outbox.contains_key(&Identity::of(page, row)) => {}
                Presence::Absent => missing.push(row),
            }
        }
        difference.missing += missing.len() as u64;
        let room = NAMED_ROWS_MAX.saturating_sub(self.report.missing.len());
        let third = leaf.stream.spec().key[2];
        self.report.missing.extend(missing.iter().take(room).map(|&row| MissingRow {
            stream: leaf.stream,
            time: page.time(row),
            node: page.bucket(row).map(|(node, _)| node),
            third: page.int(third, row),
        }));
        match self.options.purpose {
            Purpose::Mend if !missing.is_empty() => self.keep(page.pick(&missing)).await?,
            Purpose::Mend | Purpose::Look => {}
        }
        Ok(there)
    }

    async fn keep(&mut self, missing: Rows) -> Result<(), ReconcileError> {
        if self.found.as_ref().is_some_and(|found| !found.fits(&missing)) {
            self.append().await?;
        }
        match &mut self.found {
            Some(found) => found.extend(missing),
            none => *none = Some(missing),
        }
        if self.found.as_ref().is_some_and(|found| found.len() >= APPEND_ROWS) {
            self.append().await?;
        }
        Ok(())
    }

    /// Appends what was found missing, with the catalog that it needs and the watermark as it is (I1, I4).
    async fn append(&mut self) -> Result<(), ReconcileError> {
        let Some(rows) = self.found.take() else { return Ok(()) };
        let snapshot = self.outbox.snapshot();
        if let Some(why) = self.outbox.why_full(self.options.outbox_bytes_max, self.options.disk_reserve_bytes).await? {
            return Err(ReconcileError::Full { why, queued: self.queued });
        }
        let catalog = match self.catalog.take() {
            Some(catalog) => catalog,
            None => self.source.catalog().await?,
        };
        let needed = capture::needed(&rows, &catalog, &snapshot.catalog);
        self.catalog = Some(catalog);
        let (stream, count) = (rows.stream(), rows.len() as u64);
        let generation = self.survey.generation;
        if !capture::is_captured_one(self.source, self.outbox, generation).await?
            // Some may have been committed late, and are yet to be found by an audit.
            || !self.outbox.append_again(rows, needed, generation, (self.options.clock)()).await?
        {
            return Err(ReconcileError::Replaced { queued: self.queued });
        }
        self.queued += count;
        self.report.totals(stream).queued += count;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
