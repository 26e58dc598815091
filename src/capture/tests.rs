use std::{collections::VecDeque, path::Path, sync::Arc};

use async_trait::async_trait;

mod late;

use super::*;
use crate::{
    domain::{Column, Entity, EntityKind, Epoch, House, LocalId, LocalRef, Location, Node, SensorType, SourceId, Tallies},
    outbox::OpenOptions,
    ports::{Bucket, BucketRequest, Buckets, SlotRequest, SourceSchema, Span, TallyRequest},
};

const NOW: i64 = 1_700_000_000;

/// Second, node, type and location.
type Reading = (i64, i64, i64, Option<i64>);

/// A source in memory: readings as (second, node, type, location), in key order; time moves on by its own script.
struct Scripted {
    readings: Vec<Reading>,
    states: Vec<i64>,
    /// A state with this id is committed so long after the others.
    late_state: Option<(i64, Duration)>,
    catalog: Catalog,
    /// What `connect` answers, one after the other; then success.
    failures: VecDeque<SourceError>,
    began: Instant,
    catalog_reads: usize,
    unreadable: u64,
    /// The database's clock is so many seconds ahead.
    clock: i64,
    /// Pages with the reading of this second cannot be read.
    bad_second: Option<i64>,
    /// How long a page takes.
    page_takes: Duration,
    /// After so long the database is another one, with these readings.
    replaced: Option<(Duration, Vec<Reading>)>,
    /// Entities that appear after the catalog was read so many times.
    later: Option<(usize, LocalRef, Entity<LocalId>)>,
    /// When the catalog has been read so many times the database is another one, with these readings.
    replaced_at_read: Option<(usize, Vec<Reading>)>,
}

impl Scripted {
    fn new(readings: Vec<Reading>) -> Self {
        Self {
            readings,
            states: Vec::new(),
            late_state: None,
            catalog: catalog(),
            failures: VecDeque::new(),
            began: Instant::now(),
            catalog_reads: 0,
            unreadable: 0,
            clock: 0,
            bad_second: None,
            page_takes: Duration::ZERO,
            replaced: None,
            later: None,
            replaced_at_read: None,
        }
    }
}

fn order(stream: Stream) -> Order {
    match stream {
        Stream::Reading => Order::Key,
        Stream::NodeState => Order::Id,
    }
}

impl Scripted {
    fn seen_states(&self) -> impl Iterator<Item = i64> + '_ {
        let late = |id: i64| self.late_state.is_some_and(|(late, by)| late == id && self.began.elapsed() < by);
        self.states.iter().copied().filter(move |id| !late(*id))
    }

    /// The rows of a span, in paging order.
    fn all(&self, span: &Span) -> Rows {
        let rows = match span.stream {
            Stream::Reading => {
                let mut readings = self.readings.clone();
                readings.sort_unstable();
                let int = |value: &dyn Fn(&Reading) -> Option<i64>| Column::Int(readings.iter().map(value).collect());
                let columns = vec![
                    int(&|row| Some(row.0 * 1_000_000)),
                    int(&|row| Some(row.1)),
                    int(&|row| Some(row.2)),
                    int(&|row| row.3),
                    Column::Float(vec![Some(1.5); readings.len()]),
                ];
                Rows::new(Stream::Reading, columns)
            }
            Stream::NodeState => {
                let mut ids: Vec<_> = self.seen_states().collect();
                ids.sort_unstable();
                let all = |value| Column::Int(vec![value; ids.len()]);
                let mut columns: Vec<Column> = [None, Some(5), Some(1), None, None, None, None].map(all).into();
                columns[0] = Column::Int(ids.iter().copied().map(Some).collect());
                Rows::new(Stream::NodeState, columns)
            }
        };
        let is_inside = |row: &usize| {
            let position = match order(span.stream) {
                Order::Id => rows.id_position(*row).unwrap(),
                Order::Key => rows.key_position(*row).unwrap(),
            };
            (span.from..span.to).contains(&position.place().unwrap())
                && position.is_after(&span.floor)
                && span.upto.as_ref().is_none_or(|upto| !position.is_after(upto))
        };
        let inside: Vec<_> = (0..rows.len()).filter(is_inside).collect();
        rows.pick(&inside)
    }

    fn within(&self, span: &Span) -> Tallies {
        ledger::count(&self.all(span), order(span.stream))
    }
}

fn of(kind: EntityKind, id: i64) -> LocalRef {
    LocalRef { kind, id: LocalId(id) }
}

fn catalog() -> Catalog {
    let house = Entity::House(House { deployment: None, address: Some("1 Mill Lane".into()), start: None, end: None });
    let location = Entity::Location(Location { house: Some(LocalId(3)), room: None });
    let sensor_type = SensorType { name: Some("Temperature".into()), code: None, units: None, coefficients: [None; 4] };
    let node = |location| Entity::Node(Node { location, node_type: None });
    [
        (of(EntityKind::House, 3), house),
        (of(EntityKind::Location, 4), location),
        (of(EntityKind::SensorType, 0), Entity::SensorType(sensor_type)),
        (of(EntityKind::Node, 1), node(Some(LocalId(4)))),
        (of(EntityKind::Node, 2), node(None)),
    ]
    .into()
}

#[async_trait]
impl Source for Scripted {
    async fn connect(&mut self) -> Result<SourceSchema, SourceError> {
        if let Some(failure) = self.failures.pop_front() {
            return Err(failure);
        }
        let streams = vec![
            SourceStream { stream: Stream::Reading, order: Order::Key },
            SourceStream { stream: Stream::NodeState, order: Order::Id },
        ];
        Ok(SourceSchema { streams, version: "scripted".into() })
    }

    async fn now(&mut self) -> Result<Micros, SourceError> {
        Ok(Micros((NOW + self.clock) * 1_000_000 + self.began.elapsed().as_micros() as i64))
    }

    async fn page(&mut self, request: &PageRequest) -> Result<Rows, SourceError> {
        sleep(self.page_takes).await;
        if let Some((_, readings)) = self.replaced.take_if(|(after, _)| self.began.elapsed() > *after) {
            self.readings = readings;
        }
        let span = Span { stream: request.stream, from: -1_000_000, to: 10_000_000, floor: request.after.clone(), upto: None };
        let rows = self.all(&span);
        let is_before = |row: &usize| {
            order(request.stream) == Order::Id
                || rows.time(*row).is_some_and(|time| request.before.is_none_or(|before| time < before))
        };
        let rows = rows.pick(&(0..rows.len()).filter(is_before).take(request.limit as usize).collect::<Vec<_>>());
        if (0..rows.len()).any(|row| self.bad_second.is_some_and(|bad| rows.time(row) == Some(Micros(bad * 1_000_000)))) {
            return Err(SourceError::Row { advice: "a bad row".into() });
        }
        Ok(rows)
    }

    async fn last(&mut self, stream: Stream, before: Option<Micros>) -> Result<Position, SourceError> {
        Ok(match stream {
            Stream::Reading => {
                let inside = |row: &&(i64, i64, i64, Option<i64>)| before.is_none_or(|before| row.0 * 1_000_000 < before.0);
                let last = self.readings.iter().rfind(inside);
                last.map_or(Position::Start, |row| Position::Key { time: Micros(row.0 * 1_000_000), rest: vec![row.1, row.2] })
            }
            Stream::NodeState => self.states.last().map_or(Position::Start, |id| Position::Id(*id)),
        })
    }

    async fn count_after(&mut self, _: &PageRequest, _: u64) -> Result<u64, SourceError> {
        unreachable!("capture does not count")
    }

    async fn first_time(&mut self, _: Stream, _: Option<Micros>) -> Result<Option<Micros>, SourceError> {
        unreachable!("capture does not look for times")
    }

    async fn buckets(&mut self, _: Stream, _: &Buckets) -> Result<Vec<Bucket>, SourceError> {
        unreachable!("capture does not count")
    }

    async fn bucket_rows(&mut self, _: &BucketRequest) -> Result<Rows, SourceError> {
        unreachable!("capture reads pages")
    }

    async fn tallies(&mut self, request: &TallyRequest) -> Result<Tallies, SourceError> {
        let mut wide = Tallies::new();
        for (slot, tally) in self.within(&request.span) {
            let place = slot.place.div_euclid(request.unit) * request.unit;
            let sum = wide.entry(Slot { place, ..slot }).or_default();
            *sum = sum.and(tally);
        }
        Ok(wide)
    }

    async fn slot_rows(&mut self, request: &SlotRequest) -> Result<Rows, SourceError> {
        let order = order(request.span.stream);
        let rows = self.all(&request.span);
        let is_next = |row: &usize| {
            let is_of_node = order == Order::Id || rows.bucket(*row).is_some_and(|(node, _)| node == request.node);
            is_of_node && rows.slot_position(*row, order).is_some_and(|position| position.is_after(&request.after))
        };
        Ok(rows.pick(&(0..rows.len()).filter(is_next).take(request.limit as usize).collect::<Vec<_>>()))
    }

    async fn first_place(&mut self, stream: Stream, from: Option<i64>) -> Result<Option<i64>, SourceError> {
        let span = Span { stream, from: from.unwrap_or(-1_000_000), to: 10_000_000, floor: Position::Start, upto: None };
        Ok(self.within(&span).keys().next().map(|slot| slot.place))
    }

    async fn count_ids(&mut self, _: Stream, ranges: &[(i64, i64)]) -> Result<u64, SourceError> {
        Ok(self.seen_states().filter(|id| ranges.iter().any(|(from, to)| (from..=to).contains(&id))).count() as u64)
    }

    async fn catalog(&mut self) -> Result<Catalog, SourceError> {
        self.catalog_reads += 1;
        let reads = self.catalog_reads;
        if let Some((_, readings)) = self.replaced_at_read.take_if(|(after, _)| reads > *after) {
            self.readings = readings;
        }
        if let Some((reads, what, entity)) = &self.later
            && self.catalog_reads > *reads
        {
            self.catalog.insert(*what, entity.clone());
        }
        Ok(self.catalog.clone())
    }

    async fn unreadable(&mut self, _: Stream) -> Result<u64, SourceError> {
        Ok(self.unreadable)
    }
}

fn outbox(dir: &Path) -> Outbox {
    Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(1), epoch: Epoch(1) }).unwrap()
}

pub(super) fn options() -> Options {
    Options {
        poll_interval: Duration::from_secs(10),
        settle: Duration::from_secs(2),
        page_rows_max: 7,
        outbox_bytes_max: u64::MAX,
        disk_reserve_bytes: 0,
        audit_horizon: Duration::from_hours(720),
        audit_interval: Duration::from_hours(1),
        start: Start::Beginning,
        sent_before: false,
        sending: Sending::On,
        intake: Arc::default(),
        clock: || Micros(NOW * 1_000_000),
    }
}

fn retry() -> Retry {
    Retry::new(Duration::from_secs(1), Duration::from_mins(1), Box::new(|| 1.0))
}

async fn catch_up(source: &mut Scripted, outbox: &Outbox, options: &Options) -> Result<CaptureReport, CaptureError> {
    run(source, outbox, options, Until::CaughtUp, retry(), &CancellationToken::new()).await
}

async fn seconds(outbox: &Outbox) -> Vec<(i64, i64, i64)> {
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    let Some(batch) = outbox.lease(Stream::Reading, state.cursor, usize::MAX).await.unwrap() else { return Vec::new() };
    let at = |column, row| batch.rows.int(column, row).unwrap();
    (0..batch.rows.len()).map(|row| (at(0, row) / 1_000_000, at(1, row), at(2, row))).collect()
}

/// Many in one second, so that page borders fall among equal times.
fn many() -> Vec<Reading> {
    (0..100)
        .flat_map(|second| {
            (1..=2).flat_map(move |node| (0..5).map(move |kind| (second / 10, node, kind + second % 10 * 5, Some(4))))
        })
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_row_is_appended_once_across_page_borders_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(many());
    source.states = (1..=50).map(|id| id * 3).collect();
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let expected: Vec<_> = many().into_iter().map(|row| (row.0, row.1, row.2)).collect();
    assert_eq!(seconds(&outbox).await, expected);
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).pending(), 50);
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).watermark, Position::Id(150));
}

#[tokio::test(start_paused = true)]
async fn rows_within_the_settle_horizon_are_waited_for_and_rows_of_the_future_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(vec![(NOW - 1, 1, 0, None), (NOW, 1, 0, None), (NOW + 3_600, 1, 0, None)]);
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    assert_eq!(seconds(&outbox).await, [(NOW - 1, 1, 0), (NOW, 1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_rows_point_to_enters_with_them_and_all_that_it_points_to() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(vec![(1, 1, 0, Some(4))]);
    let ended = Entity::House(House { deployment: None, address: Some("1 Mill Lane".into()), start: None, end: Some(Micros(5)) });
    source.catalog.insert(of(EntityKind::House, 3), ended.clone());
    let another =
        Entity::House(House { deployment: None, address: Some("2 Mill Lane".into()), start: None, end: Some(Micros(5)) });
    source.catalog.insert(of(EntityKind::House, 8), another);
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let mut expected = catalog();
    expected.insert(of(EntityKind::House, 3), ended);
    assert_eq!(*outbox.snapshot().catalog, expected, "the house that has ended and that no row needs is left out");
}

#[tokio::test(start_paused = true)]
async fn an_active_house_is_captured_before_its_first_row() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    catch_up(&mut Scripted::new(Vec::new()), &outbox, &options()).await.unwrap();
    assert!(outbox.snapshot().catalog.contains_key(&of(EntityKind::House, 3)));
    assert!(outbox.snapshot().catalog.contains_key(&of(EntityKind::Node, 1)));
}

#[tokio::test(start_paused = true)]
async fn an_entity_that_is_newer_than_the_catalog_read_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(vec![(1, 9, 0, None)]);
    let node = Entity::Node(Node { location: None, node_type: None });
    source.later = Some((1, of(EntityKind::Node, 9), node));
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    assert!(outbox.snapshot().catalog.contains_key(&of(EntityKind::Node, 9)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moved_is_captured_without_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(vec![(1, 2, 0, None)]);
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let moved = Entity::Node(Node { location: Some(LocalId(4)), node_type: None });
    source.catalog.insert(of(EntityKind::Node, 2), moved.clone());
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let snapshot = outbox.snapshot();
    assert_eq!(snapshot.catalog[&of(EntityKind::Node, 2)], moved);
    assert!(snapshot.catalog.contains_key(&of(EntityKind::House, 3)), "and the house it is in now");
    assert_eq!(snapshot.pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(vec![(1, 1, 0, None)]);
    let away = || SourceError::Unreachable { advice: "away".into(), cause: None };
    source.failures = std::iter::repeat_with(away).take(30).collect();
    source.failures.push_back(SourceError::Denied { advice: "no right".into(), cause: None });
    let stop = CancellationToken::new();
    let mut watch = outbox.watch();
    let arrived = async {
        watch.wait_for(|snapshot| snapshot.pending() == 1).await.unwrap();
        stop.cancel();
    };
    let options = options();
    let (result, ()) = tokio::join!(run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop), arrived);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_known_when_the_end_was_reached_and_not_while_a_table_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let now = Micros(NOW * 1_000_000);
    let mut source = Scripted::new((1..50).map(|second| (NOW - 1_000 + second, 5, 0, None)).collect());
    source.bad_second = Some(NOW - 970);
    assert!(catch_up(&mut source, &outbox, &options()).await.is_err());
    assert_eq!(outbox.lag(now), None);
    source.bad_second = None;
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let minute = Duration::from_mins(1);
    assert_eq!(outbox.lag(now), Some(options().settle));
    // The source goes away.
    source.failures =
        std::iter::repeat_with(|| SourceError::Unreachable { advice: "away".into(), cause: None }).take(50).collect();
    assert!(catch_up(&mut source, &outbox, &options()).await.is_err());
    assert_eq!(outbox.lag(Micros(now.0 + 60_000_000)), Some(options().settle + minute));
}

#[tokio::test(start_paused = true)]
async fn once_ends_at_once_when_a_human_is_needed_and_after_some_tries_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(Vec::new());
    source.failures.push_back(SourceError::Schema { advice: "no table".into() });
    assert!(matches!(catch_up(&mut source, &outbox, &options()).await, Err(CaptureError::Source(SourceError::Schema { .. }))));
    source.failures =
        std::iter::repeat_with(|| SourceError::Unreachable { advice: "away".into(), cause: None }).take(100).collect();
    assert!(catch_up(&mut source, &outbox, &options()).await.is_err());
    assert!(source.failures.len() > 90, "some tries, not all: {}", source.failures.len());
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_pauses_capture_until_it_has_been_drained_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(many());
    let options = Options { outbox_bytes_max: 100, ..options() };
    let drain = async {
        let mut seen = Vec::new();
        while seen.len() < many().len() {
            let state = outbox.snapshot().stream(Stream::Reading).clone();
            let Some(batch) = outbox.lease(Stream::Reading, state.cursor, 5).await.unwrap() else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            assert!(outbox.snapshot().live_bytes() < 1_000, "bounded by outbox_max and one page");
            seen.extend(
                (0..batch.rows.len()).map(|row| (batch.rows.int(0, row), batch.rows.int(1, row), batch.rows.int(2, row))),
            );
            outbox.settle(batch, Vec::new(), None, Micros(0)).await.unwrap();
        }
        seen
    };
    let (result, seen) = tokio::join!(catch_up(&mut source, &outbox, &options), drain);
    result.unwrap();
    assert_eq!(seen.len(), many().len());
}

#[tokio::test(start_paused = true)]
async fn a_disk_below_its_reserve_pauses_capture() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(many());
    let options = Options { disk_reserve_bytes: u64::MAX, ..options() };
    let report = catch_up(&mut source, &outbox, &options).await.unwrap();
    assert!(!report.complete, "nothing can make room: it ends, and says that something is left");
    assert_eq!(outbox.snapshot().pending(), 0);

    // A daemon goes on waiting.
    let stop = CancellationToken::new();
    let running = run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop);
    assert!(tokio::time::timeout(Duration::from_mins(1), running).await.is_err());
    assert_eq!(outbox.snapshot().pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_outbox_begins_where_the_configuration_says() {
    for (start, expected) in
        [(Start::Now, vec![]), (Start::At(Micros(4_000_000)), vec![4, 5]), (Start::Beginning, vec![1, 2, 3, 4, 5])]
    {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(dir.path());
        let mut source = Scripted::new((1..=5).map(|second| (second, 1, 0, None)).collect());
        catch_up(&mut source, &outbox, &Options { start, ..options() }).await.unwrap();
        assert_eq!(seconds(&outbox).await.into_iter().map(|row| row.0).collect::<Vec<_>>(), expected, "{start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn start_now_is_decided_once_even_when_the_table_was_empty_then() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let options = Options { start: Start::Now, ..options() };
    let mut source = Scripted::new(Vec::new());
    catch_up(&mut source, &outbox, &options).await.unwrap();
    source.readings = vec![(NOW, 1, 0, None)];
    catch_up(&mut source, &outbox, &options).await.unwrap();
    assert_eq!(seconds(&outbox).await, [(NOW, 1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn rows_that_no_page_can_hold_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(Vec::new());
    source.unreadable = 3;
    assert_eq!(catch_up(&mut source, &outbox, &options()).await.unwrap().unreadable, 6);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_changed_its_key_stops_its_stream_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    outbox.start(Stream::Reading, Position::Id(7)).await.unwrap();
    let error = catch_up(&mut Scripted::new(many()), &outbox, &options()).await.unwrap_err();
    assert!(matches!(&error, CaptureError::Source(SourceError::Schema { advice }) if advice.contains("Reading")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_stops_its_stream_just_before_it_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new((0..100).map(|second| (second, 1, 0, None)).collect());
    source.bad_second = Some(53);
    source.states = (1..=30).collect();
    let error = catch_up(&mut source, &outbox, &options()).await.unwrap_err();
    assert!(matches!(error, CaptureError::Source(SourceError::Row { .. })), "{error}");
    assert_eq!(seconds(&outbox).await.len(), 53);
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).pending(), 30);
    source.bad_second = None;
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    assert_eq!(seconds(&outbox).await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_committed_a_little_after_higher_ids_is_not_passed() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(Vec::new());
    source.states = (1..=20).collect();
    source.late_state = Some((13, Duration::from_millis(1_500)));
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).pending(), 20);
}

#[tokio::test(start_paused = true)]
async fn where_sending_is_paused_a_capture_with_an_end_ends_when_the_outbox_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(many());
    let options = Options { outbox_bytes_max: 1, sending: Sending::Paused, ..options() };
    let ended = tokio::time::timeout(Duration::from_hours(1), catch_up(&mut source, &outbox, &options)).await;
    assert!(!ended.expect("it waits for nobody").unwrap().complete);
    assert!(outbox.snapshot().pending() > 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_outbox_is_full_again_and_again_the_streams_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(many());
    source.states = (1..=50).collect();
    let options = Options { outbox_bytes_max: 1, ..options() };
    let drain = async {
        // Readings that were sent before each node state.
        let (mut readings, mut before_state) = (0, None);
        while before_state.is_none() && readings < many().len() {
            for stream in Stream::ALL {
                let cursor = outbox.snapshot().stream(stream).cursor;
                let Some(batch) = outbox.lease(stream, cursor, usize::MAX).await.unwrap() else { continue };
                match stream {
                    Stream::Reading => readings += batch.rows.len(),
                    Stream::NodeState => before_state = Some(readings),
                }
                outbox.settle(batch, Vec::new(), None, Micros(0)).await.unwrap();
            }
            sleep(Duration::from_millis(300)).await;
        }
        before_state
    };
    let stop = CancellationToken::new();
    let before_state = tokio::select! {
        before = drain => before,
        ended = run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop) => panic!("{:?}", ended.map(|_| ())),
    };
    assert!(before_state.is_some_and(|readings| readings <= 7 * 10), "{before_state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_and_a_disk_without_room_are_published_and_their_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, intake, stop) = (outbox(dir.path()), Arc::<Intake>::default(), CancellationToken::new());
    let away = || SourceError::Unreachable { advice: "away".into(), cause: None };
    let mut source = Scripted { failures: (0..5).map(|_| away()).collect(), ..Scripted::new(many()) };
    let seen = Arc::clone(&intake);
    let until = async |is_so: fn(&intake::Flow) -> bool| {
        while !is_so(&seen.flow()) {
            sleep(Duration::from_millis(50)).await;
        }
        seen.flow()
    };
    let options = Options { intake: Arc::clone(&intake), disk_reserve_bytes: u64::MAX, ..options() };
    let capturing = run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop);
    let watching = async {
        let intake::Flow::Halted(halt) = until(|flow| *flow != intake::Flow::Untried).await else { panic!("it was away") };
        assert_eq!((halt.cause, halt.text.ends_with("away")), (intake::Cause::Source, true), "{halt:?}");
        let is_room = |flow: &intake::Flow| matches!(flow, intake::Flow::Halted(halt) if halt.cause == intake::Cause::Room);
        let intake::Flow::Halted(halt) = until(is_room).await else { panic!("there is no room") };
        assert_eq!(halt.text, "the disk has less free than disk_reserve");
        stop.cancel();
    };
    tokio::join!(capturing, watching).0.unwrap();
    let stop = CancellationToken::new();
    let options = Options { disk_reserve_bytes: 0, ..options };
    let capturing = run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop);
    let watching = async {
        until(|flow| *flow == intake::Flow::Goes).await;
        stop.cancel();
    };
    tokio::join!(capturing, watching).0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_is_trouble_since_it_was_met_and_not_since_the_last_poll() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, intake, stop) = (outbox(dir.path()), Arc::<Intake>::default(), CancellationToken::new());
    let mut source = Scripted { bad_second: Some(5), states: vec![1, 2, 3], ..Scripted::new(many()) };
    let options = Options { intake: Arc::clone(&intake), ..options() };
    let capturing = run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop);
    let watching = async {
        sleep(Duration::from_mins(30)).await;
        stop.cancel();
    };
    tokio::join!(capturing, watching).0.unwrap();
    let halt = intake.halt().unwrap();
    assert!(halt.cause == intake::Cause::SourceNeedsAHuman && halt.lasts() > Duration::from_mins(29), "{halt:?}");
}
