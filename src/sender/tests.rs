mod asking;
mod isolating;
mod outages;
mod rebuilt;
mod telling;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::Mutex,
};

use async_trait::async_trait;

use super::*;
use crate::{
    domain::{
        Column, Entity, EntityKind, Epoch, Freshness, House, LocalId, Location, Node, NodeType, Position, RemoteId, Rows,
        SensorType, Seq, SourceId,
    },
    outbox::{Captured, OpenOptions},
    ports::{Ask, Delivered, Delivery, Keeping, Presence, PushStatus, RemoteEntity, Summary, Traffic},
};

/// What befalls a request.
enum Fault {
    /// Nothing is stored, and this is the verdict.
    Verdict(Verdict),
    /// Nothing is stored, and the server says that it failed.
    Error,
    /// Everything is stored, and the answer is lost.
    LostAnswer,
    /// The answer is lost, and everything is stored so much later.
    StoredLater(Duration),
    /// Nothing is answered until the client gives up after `gives_up`; everything is stored `stored` after it was sent.
    Silent { gives_up: Duration, stored: Duration },
    /// Everything is stored, and the connection breaks: not for the first time, so that its size is suspected.
    TooLargeByBreaks,
    /// The server never answers.
    Hang,
}

/// How a server keeps rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    /// By their identity.
    Packhorse,
    /// One of a second, node, and type or seq_num.
    #[default]
    Newer,
    /// The same for readings; every node state.
    Older,
}

/// What a node state is at the destination: time, node, seq_num, localtime, local id.
type StoredState = (i64, i64, Option<i64>, Option<i64>, Option<i64>);

/// A destination in memory. Readings by their key; how often each was stored; what was asked for.
#[derive(Default)]
struct Model {
    manner: Manner,
    entities: Vec<RemoteEntity>,
    readings: BTreeMap<(i64, i64, i64), (Option<i64>, usize)>,
    states: Vec<StoredState>,
    faults: VecDeque<Fault>,
    /// Requests of more rows are too large.
    rows_max: Option<usize>,
    /// Addresses that are refused.
    refused_address: Option<String>,
    /// Creations with this address never get an answer.
    unanswered_address: Option<String>,
    /// How long each look takes, and when each began.
    takes: Duration,
    looked: Vec<Instant>,
    hangs_at_creation: bool,
    /// How often that was tried.
    tries: usize,
    /// Rows that are refused.
    refuses: Option<fn(&Rows, usize) -> bool>,
    /// Every bulk ends in an error.
    is_full: bool,
    delivered: Vec<(Seq, Seq)>,
    /// When, and how many rows each.
    sent: Vec<(Instant, usize)>,
    asked: Vec<(Instant, usize)>,
    /// What befalls a question.
    ask_faults: VecDeque<Verdict>,
    stored_later: Vec<(Instant, Rows)>,
    summaries: Vec<Summary>,
    /// How long a status takes.
    status_takes: Duration,
    /// How much longer than usual a bulk takes.
    bulk_takes: Duration,
    receiver: telling::Receiver,
}

impl Model {
    fn second(&self, time: i64) -> i64 {
        if self.manner == Manner::Packhorse { time } else { time - time.rem_euclid(1_000_000) }
    }

    fn store(&mut self, rows: &Rows) {
        for row in 0..rows.len() {
            let at = |column| rows.int(column, row);
            match rows.stream() {
                Stream::Reading => {
                    let key = (self.second(at(0).unwrap()), at(1).unwrap(), at(2).unwrap());
                    let stored = self.readings.entry(key).or_default();
                    *stored = (at(3), stored.1 + 1);
                }
                Stream::NodeState => {
                    let state = (self.second(at(1).unwrap()), at(2).unwrap(), at(5), at(4), at(0));
                    match self.manner {
                        Manner::Packhorse => self.states.retain(|other| other.4 != state.4),
                        Manner::Newer => {
                            self.states.retain(|other| {
                                (other.0, other.1, other.2.unwrap_or(0)) != (state.0, state.1, state.2.unwrap_or(0))
                            });
                        }
                        Manner::Older => {}
                    }
                    self.states.push(state);
                }
            }
        }
    }

    fn keeping(&self, stream: Stream) -> Keeping {
        match (self.manner, stream) {
            _ if self.manner == Manner::Packhorse => Keeping::Each,
            (_, Stream::NodeState) if self.states.is_empty() => Keeping::NotYetKnown,
            (Manner::Newer, _) | (_, Stream::Reading) => Keeping::OneOfASecond,
            (Manner::Older | Manner::Packhorse, Stream::NodeState) => Keeping::Each,
        }
    }

    fn arrived(&mut self, rows: &Rows) -> Result<Vec<Presence>, Outcome> {
        assert_ne!(self.manner, Manner::Packhorse, "a receiver is not asked");
        self.asked.push((Instant::now(), rows.len()));
        if let Some(verdict) = self.ask_faults.pop_front() {
            return Err(Outcome::new(verdict, "scripted"));
        }
        let mut there = self.states.clone();
        let mut seen = BTreeSet::new();
        let presence = |row: usize| {
            let at = |column| rows.int(column, row);
            match rows.stream() {
                Stream::Reading => {
                    let key = (self.second(at(0).unwrap()), at(1).unwrap(), at(2).unwrap());
                    match (seen.insert(key), self.readings.contains_key(&key)) {
                        (false, _) => Presence::Merged,
                        (true, true) => Presence::There,
                        (true, false) => Presence::Absent,
                    }
                }
                Stream::NodeState => {
                    let (second, node) = (self.second(at(1).unwrap()), at(2).unwrap());
                    let is_it = |other: &StoredState| match self.manner {
                        Manner::Older => (other.0, other.1, other.2, other.3) == (second, node, at(5), at(4)),
                        Manner::Packhorse | Manner::Newer => {
                            (other.0, other.1, other.2.unwrap_or(0)) == (second, node, at(5).unwrap_or(0))
                        }
                    };
                    match there.iter().position(is_it) {
                        Some(place) if there[place].3 != at(4) => Presence::Merged,
                        Some(place) => {
                            there.remove(place);
                            Presence::There
                        }
                        None => Presence::Absent,
                    }
                }
            }
        };
        Ok((0..rows.len()).map(presence).collect())
    }
}

#[derive(Default)]
struct ModelSink(Mutex<Model>);

impl ModelSink {
    fn of(manner: Manner) -> Self {
        Self(Mutex::new(Model { manner, ..Model::default() }))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.0.lock().unwrap();
        let (due, later) = std::mem::take(&mut model.stored_later).into_iter().partition(|(at, _)| *at <= Instant::now());
        model.stored_later = later;
        let due: Vec<(Instant, Rows)> = due;
        for (_, rows) in due {
            model.store(&rows);
        }
        look(&mut model)
    }
}

const TOOK: Duration = Duration::from_millis(20);

#[async_trait]
impl Sink for ModelSink {
    async fn deliver(&self, delivery: &Delivery) -> Delivered {
        let took = TOOK + self.with(|model| model.bulk_takes);
        let body_bytes = 10 * delivery.rows.len() as u64;
        let came = |outcome| Delivered { outcome, body_bytes, took, uploaded: Duration::ZERO, answered: took };
        let delivered = |verdict| came(Outcome::new(verdict, "scripted"));
        let error = || came(Outcome::new(Verdict::Unknown, "status 500: it failed").leaving(Trace::Unlikely));
        sleep(took).await;
        let fault = self.with(|model| {
            model.delivered.push((delivery.bounds.first, delivery.bounds.end));
            model.sent.push((Instant::now(), delivery.rows.len()));
            model.faults.pop_front()
        });
        match fault {
            Some(Fault::Verdict(verdict)) => return delivered(verdict),
            Some(Fault::Error) => return error(),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Silent { gives_up, stored }) => {
                self.with(|model| model.stored_later.push((Instant::now() + stored, delivery.rows.clone())));
                sleep(gives_up).await;
                return Delivered { took: took + gives_up, answered: took + gives_up, ..delivered(Verdict::Unknown) };
            }
            Some(Fault::StoredLater(later)) => {
                self.with(|model| model.stored_later.push((Instant::now() + later, delivery.rows.clone())));
                return delivered(Verdict::Unknown);
            }
            Some(Fault::LostAnswer | Fault::TooLargeByBreaks) | None => {}
        }
        self.with(|model| {
            if model.rows_max.is_some_and(|max| delivery.rows.len() > max) {
                // Its rows take more than others do.
                return Delivered { body_bytes: body_bytes.max(1_000), ..delivered(Verdict::TooLarge) };
            }
            if model.is_full {
                return error();
            }
            if model.receiver.tells {
                let outcome = telling::take(model, delivery);
                return if fault.is_some() { delivered(Verdict::Unknown) } else { came(outcome) };
            }
            if let Some(refuses) = model.refuses
                && let Some(row) = (0..delivery.rows.len()).find(|row| refuses(&delivery.rows, *row))
            {
                let advice = format!("the server refuses something in the request (status 422: row {row})");
                return came(Outcome::new(Verdict::Refused, advice));
            }
            model.store(&delivery.rows);
            match fault {
                Some(Fault::TooLargeByBreaks) => came(Outcome::new(Verdict::TooLarge, "it broke").leaving(Trace::Possible)),
                Some(_) => delivered(Verdict::Unknown),
                None => delivered(Verdict::Accepted),
            }
        })
    }

    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome> {
        let kind = match ask {
            Ask::All(kind) => *kind,
            Ask::House { .. } => EntityKind::House,
            Ask::Location { .. } => EntityKind::Location,
            Ask::Sensors { .. } => EntityKind::Sensor,
        };
        let takes = self.with(|model| {
            model.looked.push(Instant::now());
            model.takes
        });
        sleep(takes).await;
        Ok(self.with(|model| model.entities.iter().filter(|it| it.entity.kind() == kind).cloned().collect()))
    }

    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome> {
        if self.with(|model| model.hangs_at_creation) {
            std::future::pending::<()>().await;
        }
        self.with(|model| {
            if let (Entity::House(house), Some(refused)) = (entity, &model.refused_address)
                && house.address.as_ref() == Some(refused)
            {
                return Err(Outcome::new(Verdict::Refused, "this address"));
            }
            if let (Entity::House(house), Some(_)) = (entity, &model.unanswered_address)
                && house.address == model.unanswered_address
            {
                model.tries += 1;
                return Err(Outcome::new(Verdict::Unknown, "no answer"));
            }
            let made = RemoteEntity { id: id.unwrap_or(RemoteId(1_000 + model.entities.len() as i64)), entity: entity.clone() };
            model.entities.push(made.clone());
            Ok(made)
        })
    }

    async fn update(&self, changed: &RemoteEntity) -> Result<(), Outcome> {
        self.with(|model| {
            for entity in &mut model.entities {
                if entity.id == changed.id && entity.entity.kind() == changed.entity.kind() {
                    *entity = changed.clone();
                }
            }
        });
        Ok(())
    }

    async fn put_sensors(&self, _: &[Entity<RemoteId>]) -> Result<(), Outcome> {
        Ok(())
    }

    async fn count(&self, _: Stream, _: i64, _: Micros, _: Micros) -> Result<u64, Outcome> {
        unreachable!("the sender counts nothing")
    }

    async fn arrived(&self, keys: &Rows) -> Result<Vec<Presence>, Outcome> {
        self.with(|model| model.arrived(keys))
    }

    async fn keeping(&self, stream: Stream) -> Result<Keeping, Outcome> {
        Ok(self.with(|model| model.keeping(stream)))
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    async fn push_status(&self, _: &PushStatus) -> Result<(), Outcome> {
        unreachable!("the sender tells its figures as well")
    }

    async fn push_summary(&self, _: &PushStatus, summary: &Summary) -> Result<(), Outcome> {
        let takes = self.with(|model| {
            model.summaries.push(*summary);
            model.status_takes
        });
        sleep(takes).await;
        Ok(())
    }

    fn is_packhorse(&self) -> bool {
        self.with(|model| model.manner == Manner::Packhorse)
    }
}

const CLOCK: Micros = Micros(1_700_000_000_000_000);

fn options() -> Options {
    Options {
        request_rows_max: 100,
        request_bytes_max: u64::MAX,
        backoff_max: Duration::from_secs(20),
        linger: Duration::ZERO,
        pushstatus_interval: Duration::from_mins(10),
        label: "house-17".into(),
        clock: || CLOCK,
        new_epoch: || Epoch(2),
        helm: Arc::default(),
    }
}

fn open(dir: &Path) -> Outbox {
    Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(1), epoch: Epoch(1) }).unwrap()
}

fn of(kind: EntityKind, id: i64) -> LocalRef {
    LocalRef { kind, id: LocalId(id) }
}

/// Two houses: location 4 lies in house 3 and location 5 in house 6.
fn catalog() -> Vec<(LocalRef, Entity<LocalId>)> {
    let house = |address: &str| Entity::House(House { deployment: None, address: Some(address.into()), start: None, end: None });
    let location = |house| Entity::Location(Location { house: Some(LocalId(house)), room: None });
    let sensor_type = SensorType { name: Some("Temperature".into()), code: None, units: None, coefficients: [None; 4] };
    vec![
        (of(EntityKind::SensorType, 0), Entity::SensorType(sensor_type)),
        (of(EntityKind::House, 3), house("Mill Lane")),
        (of(EntityKind::House, 6), house("Café")),
        (of(EntityKind::Location, 4), location(3)),
        (of(EntityKind::Location, 5), location(6)),
        (of(EntityKind::Node, 1), Entity::Node(Node { location: Some(LocalId(4)), node_type: None })),
    ]
}

/// Readings at these seconds: every third in location 5, the others in location 4.
fn captured(seconds: std::ops::Range<i64>) -> Captured {
    let int = |value: &dyn Fn(i64) -> i64| Column::Int(seconds.clone().map(|second| Some(value(second))).collect());
    let columns = vec![
        int(&|second| second * 1_000_000),
        int(&|_| 1),
        int(&|_| 0),
        int(&|second| if second % 3 == 0 { 5 } else { 4 }),
        Column::Float(vec![Some(1.5); seconds.clone().count()]),
    ];
    let watermark = Position::Key { time: Micros(seconds.end * 1_000_000), rest: vec![1, 0] };
    Captured { rows: Rows::new(Stream::Reading, columns), watermark, catalog: catalog(), freshness: Freshness::New, at: CLOCK }
}

async fn drain(outbox: &Outbox, sink: &ModelSink) {
    let captured = CancellationToken::new();
    captured.cancel();
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let (options, stop) = (options(), CancellationToken::new());
    let running = run(outbox, sink, &options, Some(&captured), retry, &stop);
    tokio::time::timeout(Duration::from_hours(6), running).await.expect("it drains").unwrap();
}

fn assert_all_there_once(sink: &ModelSink, seconds: std::ops::Range<i64>) {
    sink.with(|model| {
        let there: Vec<i64> = model.readings.keys().map(|key| key.0 / 1_000_000).collect();
        assert_eq!(there, seconds.collect::<Vec<_>>());
    });
}

#[tokio::test(start_paused = true)]
async fn everything_is_delivered_into_the_right_room_and_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(Captured { at: Micros(CLOCK.0 - 90_000_000), ..captured(0..1_000) }).await.unwrap();
    outbox.caught_up(Micros(CLOCK.0 - 7_000_000));
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..1_000);
    let address_of = |model: &Model, location: i64| -> Option<String> {
        let entity =
            |kind, id: i64| model.entities.iter().find(|it| it.entity.kind() == kind && it.id.0 == id).map(|it| &it.entity);
        let Some(Entity::Location(location)) = entity(EntityKind::Location, location) else { return None };
        let Some(Entity::House(house)) = entity(EntityKind::House, location.house?.0) else { return None };
        house.address.clone()
    };
    sink.with(|model| {
        for (key, (location, stored)) in &model.readings {
            let expected = if key.0 / 1_000_000 % 3 == 0 { "Café" } else { "Mill Lane" };
            assert_eq!((address_of(model, location.unwrap()).as_deref(), *stored), (Some(expected), 1));
        }
        // The figures of the moment before anything was sent.
        let summary = Summary { depth: 1_000, parked: 0, lag_seconds: Some(7), oldest_age_seconds: Some(90) };
        assert_eq!(model.summaries[0], summary);
    });
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    assert_eq!((state.pending(), state.acked, state.live_bytes), (0, 1_000, 0));
    assert_eq!(outbox.snapshot().notes.last_success, Some(CLOCK));
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_first_everything_arrives() {
    for verdict in [Verdict::NotStored, Verdict::Unknown, Verdict::Misconfigured, Verdict::TooLarge, Verdict::Refused] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, sink) = (open(dir.path()), ModelSink::default());
        outbox.append(captured(0..500)).await.unwrap();
        sink.with(|model| model.faults.extend((0..4).map(|_| Fault::Verdict(verdict))));
        drain(&outbox, &sink).await;
        assert_all_there_once(&sink, 0..500);
        assert_eq!(outbox.snapshot().parked(), 0, "{verdict}: nothing is parked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_followed_by_the_same_rows_again_at_a_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::of(Manner::Packhorse));
    outbox.append(captured(0..500)).await.unwrap();
    sink.with(|model| model.faults.push_back(Fault::LostAnswer));
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..500);
    sink.with(|model| assert_eq!((model.delivered[0].0, model.delivered[1].0), (Seq(0), Seq(0))));
}

#[tokio::test(start_paused = true)]
async fn requests_shrink_to_what_the_server_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..500)).await.unwrap();
    sink.with(|model| model.rows_max = Some(13));
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..500);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_house_that_the_server_refuses_are_held_and_return_when_it_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..300)).await.unwrap();
    sink.with(|model| model.refused_address = Some("Café".into()));
    drain(&outbox, &sink).await;
    sink.with(|model| assert!(model.readings.keys().all(|key| key.0 / 1_000_000 % 3 != 0) && model.readings.len() == 200));
    assert_eq!(outbox.snapshot().held[&of(EntityKind::Location, 5)].rows, 100);

    sink.with(|model| model.refused_address = None);
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..300);
    sink.with(|model| assert!(model.readings.values().all(|(_, stored)| *stored == 1), "each exactly once"));
    assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (0, 0));
}

/// The node's type at one end, by its name.
fn node_type<I>(name: &str) -> Entity<I> {
    let name = Some(name.to_owned());
    let (time, seq, updated_seq, period, blink, configured) = (None, None, None, None, None, None);
    Entity::NodeType(NodeType { name, time, seq, updated_seq, period, blink, configured })
}

fn typed(seconds: std::ops::Range<i64>) -> Captured {
    let mut captured = captured(seconds);
    captured.catalog.pop();
    captured.catalog.push((of(EntityKind::NodeType, 3), node_type("CO2")));
    let node = Node { location: Some(LocalId(4)), node_type: Some(LocalId(3)) };
    captured.catalog.push((of(EntityKind::Node, 1), Entity::Node(node)));
    captured
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_node_whose_type_is_in_conflict_are_held_and_return_once_when_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    sink.with(|model| model.entities.push(RemoteEntity { id: RemoteId(3), entity: node_type("VOC") }));
    outbox.append(typed(0..300)).await.unwrap();
    drain(&outbox, &sink).await;
    assert_eq!(outbox.snapshot().held.get(&of(EntityKind::Node, 1)).map(|held| held.rows), Some(300));
    sink.with(|model| {
        assert!(model.readings.is_empty(), "nothing goes out under a wrong meaning");
        model.entities.retain(|it| it.entity.kind() != EntityKind::NodeType);
        model.entities.push(RemoteEntity { id: RemoteId(3), entity: node_type("co2") });
    });
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..300);
    sink.with(|model| assert!(model.readings.values().all(|(_, stored)| *stored == 1), "each exactly once"));
    assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_for_a_house_and_then_for_a_type_return_exactly_once_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    sink.with(|model| model.refused_address = Some("Café".into()));
    outbox.append(typed(0..300)).await.unwrap();
    drain(&outbox, &sink).await;
    assert_eq!(outbox.snapshot().held.get(&of(EntityKind::Location, 5)).map(|held| held.rows), Some(100));
    // The house can be had, and now the type is in conflict.
    sink.with(|model| {
        model.refused_address = None;
        model.entities.retain(|it| it.entity.kind() != EntityKind::NodeType);
        model.entities.push(RemoteEntity { id: RemoteId(3), entity: node_type("VOC") });
    });
    drain(&outbox, &sink).await;
    let held: Vec<_> = outbox.snapshot().held.iter().map(|(what, held)| (*what, held.rows)).collect();
    assert_eq!(held, [(of(EntityKind::Node, 1), 100)]);
    // Mended here.
    let mended = Captured { catalog: vec![(of(EntityKind::NodeType, 3), node_type("VOC"))], ..captured(300..310) };
    outbox.append(mended).await.unwrap();
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..310);
    sink.with(|model| assert!(model.readings.values().all(|(_, stored)| *stored == 1), "each exactly once"));
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    assert_eq!((state.parked_now(), state.pending(), state.returned, state.acked), (0, 0, 200, 310));
    assert_eq!((state.next.0, state.captured()), (510, 310), "what returned was captured once");
}

#[tokio::test(start_paused = true)]
async fn a_house_whose_creation_never_gets_an_answer_is_held_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    sink.with(|model| model.unanswered_address = Some("Café".into()));
    outbox.append(captured(0..300)).await.unwrap();
    drain(&outbox, &sink).await;
    sink.with(|model| assert_eq!((model.readings.len(), model.tries), (200, CREATE_TRIES as usize)));
    assert_eq!(outbox.snapshot().held[&of(EntityKind::Location, 5)].rows, 100);
    sink.with(|model| model.unanswered_address = None);
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..300);
}

#[tokio::test(start_paused = true)]
async fn a_creation_of_an_earlier_life_is_waited_out_as_long_as_that_server_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..10)).await.unwrap();
    // The server takes twenty seconds for an answer, and the power goes while it makes something.
    sink.with(|model| (model.takes, model.hangs_at_creation) = (Duration::from_secs(20), true));
    let _ = tokio::time::timeout(Duration::from_mins(10), drain(&outbox, &sink)).await;
    let intent = outbox.snapshot().create_intent.unwrap();
    assert_eq!((intent.what, intent.patience_ms), (of(EntityKind::SensorType, 0), 60_000));
    sink.with(|model| (model.hangs_at_creation, model.looked) = (false, Vec::new()));
    let began = Instant::now();
    drain(&outbox, &sink).await;
    let first = sink.with(|model| model.looked[0]);
    assert!(first - began >= Duration::from_mins(1), "{:?}", first - began);
    assert_all_there_once(&sink, 0..10);
}

#[tokio::test(start_paused = true)]
async fn rows_that_come_with_a_new_node_after_the_sync_are_not_held() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..10)).await.unwrap();
    // The new rows come between the catalog's sync and the first lease.
    sink.with(|model| model.status_takes = Duration::from_secs(2));
    let late = async {
        sleep(Duration::from_secs(1)).await;
        let mut late = captured(10..20);
        late.rows = late.rows.with_ints(1, vec![Some(2); 10]);
        late.catalog.push((of(EntityKind::Node, 2), Entity::Node(Node { location: None, node_type: None })));
        outbox.append(late).await.unwrap();
    };
    tokio::join!(drain(&outbox, &sink), late);
    assert_all_there_once(&sink, 0..20);
    assert_eq!(outbox.snapshot().stream(Stream::Reading).parked_ever, 0);
}

#[tokio::test(start_paused = true)]
async fn the_intent_is_on_the_disk_while_a_request_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..500)).await.unwrap();
    sink.with(|model| model.faults.extend([Fault::Hang]));
    let _ = tokio::time::timeout(Duration::from_secs(30), drain(&outbox, &sink)).await;
    drop(outbox);
    let outbox = open(dir.path());
    let intent = Intent { stream: Stream::Reading, first: Seq(0), end: Seq(100), extent: Extent::Whole };
    assert_eq!(outbox.snapshot().intents, [Some(intent), None]);
    drain(&outbox, &sink).await;
    let again = sink.with(|model| model.delivered[1]);
    assert_eq!(again, (Seq(0), Seq(100)), "the run that may have arrived goes first, with its bounds");
    assert_all_there_once(&sink, 0..500);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_sender_in_the_middle_of_a_request_and_of_a_backoff() {
    for fault in [Fault::Hang, Fault::Verdict(Verdict::Misconfigured)] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, sink) = (open(dir.path()), ModelSink::default());
        outbox.append(captured(0..10)).await.unwrap();
        sink.with(|model| model.faults.push_back(fault));
        let stop = CancellationToken::new();
        let retry = Retry::new(Duration::from_hours(1), Duration::from_hours(1), Box::new(|| 1.0));
        let options = options();
        let sending = run(&outbox, &sink, &options, None, retry, &stop);
        let stopping = async {
            sleep(Duration::from_secs(1)).await;
            stop.cancel();
        };
        let began = Instant::now();
        let (result, ()) = tokio::join!(sending, stopping);
        result.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(outbox.snapshot().pending(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_come_while_it_is_idle_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    let stop = CancellationToken::new();
    let options = Options { linger: Duration::from_secs(10), ..options() };
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let sending = run(&outbox, &sink, &options, None, retry, &stop);
    let appending = async {
        for page in 0..5 {
            sleep(Duration::from_mins(7)).await;
            outbox.append(captured(page * 10..(page + 1) * 10)).await.unwrap();
        }
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        stop.cancel();
    };
    let (result, ()) = tokio::join!(sending, appending);
    result.unwrap();
    assert_all_there_once(&sink, 0..50);
}

#[tokio::test(start_paused = true)]
async fn trouble_is_noted_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..10)).await.unwrap();
    sink.with(|model| model.faults.push_back(Fault::Verdict(Verdict::Misconfigured)));
    drain(&outbox, &sink).await;
    assert_eq!(outbox.snapshot().notes.last_trouble, Some((CLOCK, "misconfigured: scripted".into())));
}
