//! A house that the destination does not take, with very many rows: what holding them costs, and that they return.
//!
//! 60,000 rows; with `PACKHORSE_LONG=1` a million. The figures of docs/performance.md:
//! `PACKHORSE_LONG=1 cargo test --release --test held_rows -- --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use packhorse::{
    domain::{
        Column, Entity, EntityKind, Epoch, Freshness, House, LocalId, LocalRef, Location, Micros, Node, Outcome, Position,
        RemoteId, Retry, Room, Rows, SensorType, SourceId, Stream, Verdict,
    },
    outbox::{Captured, OpenOptions, Outbox},
    ports::{Ask, Delivered, Delivery, Keeping, Presence, PushStatus, RemoteEntity, Sink, Traffic},
    sender,
};
use tokio_util::sync::CancellationToken;

const AT: Micros = Micros(1_700_000_000_000_000);
const HELD: &str = "Höhe 3";
/// Houses, of which the first is the one that is held, and rooms in each with a node.
const HOUSES: i64 = 3;
const ROOMS: i64 = 8;

fn held_rows() -> i64 {
    if std::env::var_os("PACKHORSE_LONG").is_some() { 1_000_000 } else { 60_000 }
}

/// A destination that refuses one house until told otherwise, and counts how often each row came.
#[derive(Default)]
struct Model {
    entities: Vec<RemoteEntity>,
    takes_all: bool,
    /// Of each node, by its row's number.
    arrived: BTreeMap<i64, Vec<u8>>,
    rows: u64,
}

#[derive(Default)]
struct ModelSink(Mutex<Model>);

impl ModelSink {
    fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl Sink for ModelSink {
    async fn deliver(&self, delivery: &Delivery) -> Delivered {
        // Where a stop may come.
        tokio::task::yield_now().await;
        self.with(|model| {
            for row in 0..delivery.rows.len() {
                let [time, node] = [0, 1].map(|column| delivery.rows.int(column, row).unwrap());
                let (counts, number) = (model.arrived.entry(node).or_default(), (time / 1_000_000) as usize);
                counts.resize(counts.len().max(number + 1), 0);
                counts[number] += 1;
            }
            model.rows += delivery.rows.len() as u64;
        });
        Delivered {
            outcome: Outcome::new(Verdict::Accepted, "taken"),
            body_bytes: 1_000,
            took: Duration::from_millis(1),
            uploaded: Duration::ZERO,
            answered: Duration::from_millis(1),
        }
    }

    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome> {
        let kind = match ask {
            Ask::All(kind) => *kind,
            Ask::House { .. } => EntityKind::House,
            Ask::Location { .. } => EntityKind::Location,
            Ask::Sensors { .. } => EntityKind::Sensor,
        };
        Ok(self.with(|model| model.entities.iter().filter(|it| it.entity.kind() == kind).cloned().collect()))
    }

    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome> {
        self.with(|model| {
            if matches!(entity, Entity::House(house) if house.address.as_deref() == Some(HELD)) && !model.takes_all {
                return Err(Outcome::new(Verdict::Refused, "this address"));
            }
            let made = RemoteEntity { id: id.unwrap_or(RemoteId(1_000 + model.entities.len() as i64)), entity: entity.clone() };
            model.entities.push(made.clone());
            Ok(made)
        })
    }

    async fn update(&self, changed: &RemoteEntity) -> Result<(), Outcome> {
        self.with(|model| {
            model.entities.retain(|it| it.id != changed.id || it.entity.kind() != changed.entity.kind());
            model.entities.push(changed.clone());
        });
        Ok(())
    }

    async fn put_sensors(&self, _: &[Entity<RemoteId>]) -> Result<(), Outcome> {
        Ok(())
    }

    async fn count(&self, _: Stream, _: i64, _: Micros, _: Micros) -> Result<u64, Outcome> {
        unreachable!("the sender counts nothing")
    }

    async fn keeping(&self, _: Stream) -> Result<Keeping, Outcome> {
        Ok(Keeping::Each)
    }

    async fn arrived(&self, _: &Rows) -> Result<Vec<Presence>, Outcome> {
        unreachable!("new rows are not asked for")
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    async fn push_status(&self, _: &PushStatus) -> Result<(), Outcome> {
        Ok(())
    }

    fn is_packhorse(&self) -> bool {
        true
    }
}

fn at(kind: EntityKind, id: i64) -> LocalRef {
    LocalRef { kind, id: LocalId(id) }
}

/// Location `10 * house + room` is where node `10 * house + room` is.
fn catalog() -> Vec<(LocalRef, Entity<LocalId>)> {
    let sensor_type = SensorType { name: Some("Temperature".into()), code: None, units: None, coefficients: [None; 4] };
    let mut all = vec![(at(EntityKind::SensorType, 0), Entity::SensorType(sensor_type))];
    for room in 1..=ROOMS {
        all.push((at(EntityKind::Room, room), Entity::Room(Room { room_type: None, name: Some(format!("Room {room}")) })));
    }
    for house in 1..=HOUSES {
        let address = Some(if house == 1 { HELD.to_owned() } else { format!("{house} Mill Lane") });
        all.push((at(EntityKind::House, house), Entity::House(House { deployment: None, address, start: None, end: None })));
        for room in 1..=ROOMS {
            let id = 10 * house + room;
            let location = Location { house: Some(LocalId(house)), room: Some(LocalId(room)) };
            all.push((at(EntityKind::Location, id), Entity::Location(location)));
            all.push((at(EntityKind::Node, id), Entity::Node(Node { location: Some(LocalId(id)), node_type: None })));
        }
    }
    all
}

/// One reading a second of each node in these houses, as capture would page them: by time, then by node.
fn page(seconds: std::ops::Range<i64>, houses: std::ops::RangeInclusive<i64>) -> Captured {
    let mut keys = Vec::new();
    for second in seconds.clone() {
        for house in houses.clone() {
            keys.extend((1..=ROOMS).map(|room| (second, 10 * house + room)));
        }
    }
    let int = |value: &dyn Fn(&(i64, i64)) -> i64| Column::Int(keys.iter().map(|key| Some(value(key))).collect());
    let columns = vec![
        int(&|key| key.0 * 1_000_000),
        int(&|key| key.1),
        int(&|_| 0),
        int(&|key| key.1),
        // Noise of some bits, as sensors have it.
        Column::Float(
            keys.iter()
                .map(|(second, node)| Some(((((second * 1_009 + node) * 40_503) >> 7) % 256) as f32 / 16.0 + 10.0))
                .collect(),
        ),
    ];
    let watermark = Position::Key { time: Micros(seconds.end * 1_000_000), rest: vec![i64::MAX, 0] };
    Captured { rows: Rows::new(Stream::Reading, columns), watermark, catalog: catalog(), freshness: Freshness::New, at: AT }
}

async fn fill(outbox: &Outbox, seconds: std::ops::Range<i64>, houses: std::ops::RangeInclusive<i64>, page_seconds: i64) {
    for from in seconds.clone().step_by(page_seconds as usize) {
        outbox.append(page(from..(from + page_seconds).min(seconds.end), houses.clone())).await.unwrap();
    }
}

fn open(dir: &Path) -> Outbox {
    Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(1), epoch: Epoch(1) }).unwrap()
}

/// Sends until nothing is pending, or until stopped.
async fn send(outbox: &Outbox, sink: &ModelSink, stop: &CancellationToken) {
    let options = sender::Options {
        request_rows_max: 10_000,
        request_bytes_max: u64::MAX,
        backoff_max: Duration::from_secs(1),
        linger: Duration::ZERO,
        pushstatus_interval: Duration::from_mins(10),
        label: "house-17".into(),
        clock: || AT,
        new_epoch: || Epoch(2),
        helm: std::sync::Arc::default(),
    };
    let captured = CancellationToken::new();
    captured.cancel();
    let retry = Retry::new(Duration::from_millis(1), Duration::from_secs(1), Box::new(|| 0.5));
    sender::run(outbox, sink, &options, Some(&captured), retry, stop).await.unwrap();
}

fn balance(outbox: &Outbox) {
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    assert_eq!(state.next.0, state.pending() + state.acked + state.parked_ever, "I5: {state:?}");
    let held: u64 = outbox.snapshot().held.values().map(|held| held.rows).sum();
    assert_eq!(held, state.parked_now(), "I5: {state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_held_rows_cost_what_pending_ones_do_and_return_once_each_in_spite_of_stops() {
    let seconds = held_rows() / ROOMS;
    let (held_rows, other_rows) = (seconds * ROOMS, seconds * ROOMS * (HOUSES - 1));
    let dir = tempfile::tempdir().unwrap();

    // The same rows as pending ones, in an outbox of their own.
    let pending = open(&dir.path().join("pending"));
    fill(&pending, 0..seconds, 1..=1, 100).await;
    let pending_bytes = pending.snapshot().live_bytes();
    drop(pending);

    let (outbox, sink) = (open(&dir.path().join("held")), ModelSink::default());
    fill(&outbox, 0..seconds, 1..=HOUSES, 40).await;
    let began = Instant::now();
    send(&outbox, &sink, &CancellationToken::new()).await;
    let while_holding = began.elapsed();
    assert_eq!(sink.with(|model| model.rows), other_rows as u64, "the others arrived");
    let snapshot = outbox.snapshot();
    let (bytes, chunks) = snapshot.held.values().fold((0, 0), |sum, held| (sum.0 + held.bytes, sum.1 + held.chunks));
    assert_eq!((snapshot.parked(), snapshot.pending()), (held_rows as u64, 0));
    balance(&outbox);
    println!("{held_rows} rows: {pending_bytes} bytes pending; held: {bytes} bytes in {chunks} chunks");
    assert!(bytes <= pending_bytes * 5 / 4, "{bytes} bytes held, {pending_bytes} pending");

    // The others while a house is held.
    fill(&outbox, seconds..2 * seconds, 2..=HOUSES, 60).await;
    let began = Instant::now();
    send(&outbox, &sink, &CancellationToken::new()).await;
    let beside = began.elapsed();
    let rate = |rows: i64, took: Duration| (rows as f64 / took.as_secs_f64()) as u64;
    println!(
        "others a second: {} while these are set aside, {} while they are held",
        rate(other_rows, while_holding),
        rate(other_rows, beside)
    );

    // Mended. Stops come in the middle, and the outbox is opened anew after each.
    sink.with(|model| model.takes_all = true);
    let began = Instant::now();
    let mut outbox = outbox;
    for stops in 1..=10_u64 {
        let stop = CancellationToken::new();
        let stopping = async {
            let mut watch = outbox.watch();
            let enough = outbox.snapshot().stream(Stream::Reading).returned + stops * held_rows as u64 / 40;
            let _ = tokio::time::timeout(
                Duration::from_millis(300),
                watch.wait_for(|now| now.stream(Stream::Reading).returned >= enough),
            )
            .await;
            stop.cancel();
        };
        tokio::join!(send(&outbox, &sink, &stop), stopping);
        balance(&outbox);
        drop(outbox);
        outbox = open(&dir.path().join("held"));
        balance(&outbox);
    }
    send(&outbox, &sink, &CancellationToken::new()).await;
    println!("returned and delivered through 10 stops in {:?}", began.elapsed());
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    assert_eq!((state.pending(), state.parked_now(), state.returned), (0, 0, held_rows as u64));
    assert!(outbox.snapshot().held.is_empty());
    balance(&outbox);
    sink.with(|model| {
        for house in 1..=HOUSES {
            for node in (1..=ROOMS).map(|room| 10 * house + room) {
                let last = if house == 1 { seconds } else { 2 * seconds };
                let counts = &model.arrived[&node];
                assert_eq!(counts.len(), last as usize);
                assert!(counts.iter().all(|count| *count >= 1), "every row of node {node} arrived");
            }
        }
    });
}

/// What a stop repeats is only the request that was under way; without stops nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_that_is_held_becomes_no_entry_for_each_row_and_each_returns_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    let polls = 200;
    for poll in 0..polls {
        outbox.append(page(poll..poll + 1, 1..=HOUSES)).await.unwrap();
        send(&outbox, &sink, &CancellationToken::new()).await;
    }
    let snapshot = outbox.snapshot();
    let (rows, chunks) = snapshot.held.values().fold((0, 0), |sum, held| (sum.0 + held.rows, sum.1 + held.chunks));
    println!("a trickle: {rows} rows held in {chunks} chunks");
    assert_eq!(rows, (polls * ROOMS) as u64);
    assert!(chunks * 20 < rows, "{chunks} chunks for {rows} rows");
    sink.with(|model| model.takes_all = true);
    send(&outbox, &sink, &CancellationToken::new()).await;
    balance(&outbox);
    sink.with(|model| {
        assert_eq!(model.rows, (polls * ROOMS * HOUSES) as u64);
        assert!(model.arrived.values().all(|counts| counts.iter().all(|count| *count == 1)));
    });
}
