use std::sync::Mutex;

use super::*;
use crate::{
    domain::{
        Brought, Deployment, House, LocalId, LocalRef, Location, Micros, Node, Room, RoomType, Rows, Sensor, SensorType, Stream,
    },
    ports::{Delivered, Delivery, Presence, PushStatus, Traffic},
};

/// What the model server does to a create that it is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It stores, and the answer is lost.
    DidItLostTheAnswer,
    /// It does not store, and the answer is lost.
    LostTheRequest,
    /// It says no.
    Refuses,
    /// It does not store, and never answers.
    NeverAnswers,
}

/// A server in memory, with faults for creates by the text of the entity.
#[derive(Default)]
struct Model {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stored: Vec<RemoteEntity>,
    /// Each is used once, unless it refuses.
    faults: Vec<(&'static str, Fault)>,
    /// Asks for a house with this address fail.
    unaskable: Option<&'static str>,
    /// Kinds that it does not have.
    lacks: Vec<EntityKind>,
    /// Lists of this kind fail.
    unlistable: Option<EntityKind>,
    is_down: bool,
    takes_no_updates: bool,
    log: Vec<String>,
}

/// A text as MySQL compares it: without case and trailing blanks.
fn as_compared(text: &str) -> String {
    text.trim_end_matches(' ').to_lowercase()
}

fn down() -> Outcome {
    Outcome::new(Verdict::NotStored, "nobody listens")
}

#[async_trait]
impl Sink for Model {
    async fn deliver(&self, _: &Delivery) -> Delivered {
        panic!("the catalog delivers no rows")
    }

    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome> {
        let mut state = self.state.lock().unwrap();
        state.log.push(format!("find {ask:?}"));
        if state.is_down {
            return Err(down());
        }
        let kind = match ask {
            Ask::All(kind) if state.lacks.contains(kind) => {
                return Err(Outcome::new(Verdict::Misconfigured, "404"));
            }
            Ask::All(kind) if state.unlistable == Some(*kind) => return Err(Outcome::new(Verdict::Unknown, "500")),
            Ask::All(kind) => *kind,
            Ask::House { address, .. } if state.unaskable.is_some() && address.as_deref() == state.unaskable => {
                return Err(Outcome::new(Verdict::Unknown, "500"));
            }
            Ask::House { .. } => EntityKind::House,
            Ask::Location { .. } => EntityKind::Location,
            Ask::Sensors { .. } if state.lacks.contains(&EntityKind::Sensor) => {
                return Err(Outcome::new(Verdict::Misconfigured, "404"));
            }
            Ask::Sensors { .. } => EntityKind::Sensor,
        };
        let matches = |one: &&RemoteEntity| match (ask, &one.entity) {
            // As MySQL compares; without an address, and for locations, a superset comes back, as a server may answer.
            (Ask::House { address: Some(address), .. }, Entity::House(house)) => {
                house.address.as_ref().is_some_and(|there| as_compared(there) == as_compared(address))
            }
            (Ask::Sensors { node }, Entity::Sensor(sensor)) => sensor.node == Some(*node),
            (_, entity) => entity.kind() == kind,
        };
        Ok(state.stored.iter().filter(matches).cloned().collect())
    }

    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome> {
        let mut state = self.state.lock().unwrap();
        let text = format!("{entity:?}");
        state.log.push(format!("create {text}"));
        if state.is_down {
            return Err(down());
        }
        let fault = state.faults.iter().position(|(of, _)| text.contains(of));
        let fault = fault.map(|place| match state.faults[place].1 {
            Fault::Refuses => Fault::Refuses,
            Fault::NeverAnswers => Fault::NeverAnswers,
            Fault::DidItLostTheAnswer | Fault::LostTheRequest => state.faults.remove(place).1,
        });
        let lost = Err(Outcome::new(Verdict::Unknown, "the answer is lost"));
        match fault {
            Some(Fault::Refuses) => {
                state.log.pop();
                return Err(Outcome::new(Verdict::Refused, "no"));
            }
            Some(Fault::LostTheRequest | Fault::NeverAnswers) => return lost,
            Some(Fault::DidItLostTheAnswer) | None => {}
        }
        let id = id.unwrap_or_else(|| RemoteId(1000 + state.stored.len() as i64));
        let made = RemoteEntity { id, entity: entity.clone() };
        state.stored.push(made.clone());
        if fault.is_some() { lost } else { Ok(made) }
    }

    async fn update(&self, entity: &RemoteEntity) -> Result<(), Outcome> {
        let mut state = self.state.lock().unwrap();
        let kind = entity.entity.kind();
        state.log.push(format!("update {entity:?}"));
        if state.takes_no_updates {
            return Err(Outcome::new(Verdict::Misconfigured, "405"));
        }
        state.stored.retain(|one| one.id != entity.id || one.entity.kind() != kind);
        state.stored.push(entity.clone());
        Ok(())
    }

    async fn put_sensors(&self, sensors: &[Entity<RemoteId>]) -> Result<(), Outcome> {
        let mut state = self.state.lock().unwrap();
        state.log.push(format!("sensors {}", sensors.len()));
        for sensor in sensors {
            let id = RemoteId(1000 + state.stored.len() as i64);
            state.stored.push(RemoteEntity { id, entity: sensor.clone() });
        }
        Ok(())
    }

    async fn count(&self, _: Stream, _: i64, _: Micros, _: Micros) -> Result<u64, Outcome> {
        unreachable!("the catalog counts nothing")
    }

    async fn arrived(&self, _: &Rows) -> Result<Vec<Presence>, Outcome> {
        unreachable!("the catalog does not ask for rows")
    }

    async fn keeping(&self, _: Stream) -> Result<crate::ports::Keeping, Outcome> {
        unreachable!("the catalog has no rows")
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    async fn push_status(&self, _: &PushStatus) -> Result<(), Outcome> {
        Ok(())
    }

    fn is_packhorse(&self) -> bool {
        false
    }
}

impl Model {
    fn new(state: State) -> Self {
        Self { state: Mutex::new(state) }
    }

    fn count(&self, kind: EntityKind) -> usize {
        self.state.lock().unwrap().stored.iter().filter(|one| one.entity.kind() == kind).count()
    }

    fn forget_log(&self) {
        self.state.lock().unwrap().log.clear();
    }

    /// What was written since the log was last forgotten; a creation that is refused is tried again and again, for it may be mended.
    fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().log.iter().filter(|line| !line.starts_with("find")).cloned().collect()
    }

    fn asked(&self, what: &str) -> usize {
        self.state.lock().unwrap().log.iter().filter(|line| line.starts_with(&format!("find {what}"))).count()
    }

    fn get(&self, kind: EntityKind, id: RemoteId) -> Entity<RemoteId> {
        let state = self.state.lock().unwrap();
        state.stored.iter().find(|one| one.entity.kind() == kind && one.id == id).unwrap().entity.clone()
    }

    fn creates(&self) -> usize {
        self.state.lock().unwrap().log.iter().filter(|line| line.starts_with("create")).count()
    }
}

#[derive(Default)]
struct Notes {
    intents: BTreeSet<LocalRef>,
    mapped: Mappings,
    brought: Brought,
}

#[async_trait]
impl Journal for Notes {
    async fn about_to_create(&mut self, what: LocalRef, _: Duration) -> Result<(), JournalError> {
        self.intents.insert(what);
        Ok(())
    }

    async fn settled(
        &mut self,
        mapped: &[(LocalRef, RemoteId)],
        brought: &[(LocalRef, Entity<RemoteId>)],
    ) -> Result<(), JournalError> {
        for (what, id) in mapped {
            self.intents.remove(what);
            self.mapped.insert(*what, *id);
        }
        self.brought.extend(brought.iter().cloned());
        Ok(())
    }
}

fn at(kind: EntityKind, id: i64) -> LocalRef {
    LocalRef { kind, id: LocalId(id) }
}

/// One sensor type, a room, a deployment with two houses and their locations, a node in each, and a sensor of each node.
fn captured() -> Catalog {
    let text = |text: &str| Some(text.to_owned());
    let house = |address| House { deployment: Some(LocalId(1)), address: text(address), start: None, end: None };
    let mut all = Catalog::new();
    let sensor_type = SensorType { name: text("Temperature"), code: text("T"), units: text("C"), coefficients: [None; 4] };
    all.insert(at(EntityKind::SensorType, 0), Entity::SensorType(sensor_type));
    all.insert(at(EntityKind::RoomType, 1), Entity::RoomType(RoomType { name: text("Bedroom") }));
    all.insert(at(EntityKind::Room, 1), Entity::Room(Room { room_type: Some(LocalId(1)), name: text("Loft") }));
    let deployment = Deployment { name: text("dep A"), description: None, start: None, end: None };
    all.insert(at(EntityKind::Deployment, 1), Entity::Deployment(deployment));
    for (id, address) in [(1, "Plain House"), (2, "Straße 2")] {
        all.insert(at(EntityKind::House, id), Entity::House(house(address)));
        let location = Location { house: Some(LocalId(id)), room: Some(LocalId(1)) };
        all.insert(at(EntityKind::Location, id), Entity::Location(location));
        all.insert(at(EntityKind::Node, 10 + id), Entity::Node(Node { location: Some(LocalId(id)), node_type: None }));
        let sensor = Sensor {
            sensor_type: Some(LocalId(0)),
            node: Some(LocalId(10 + id)),
            calibration_slope: Some(1.0),
            calibration_offset: None,
        };
        all.insert(at(EntityKind::Sensor, id), Entity::Sensor(sensor));
    }
    all
}

fn all() -> SyncOptions {
    SyncOptions { recheck: Recheck::All, refused: Refused::new(), given_up: BTreeSet::new() }
}

fn unmapped() -> SyncOptions {
    SyncOptions { recheck: Recheck::Unmapped, ..all() }
}

async fn run(model: &Model, known: &Mappings, options: &SyncOptions, notes: &mut Notes) -> Result<Synced, SyncError> {
    run_with(model, &captured(), known, options, notes).await
}

/// Syncs with these mappings and what the notes know as brought; then forgets what is gone, as the sender does.
async fn run_with(
    model: &Model,
    captured: &Catalog,
    mappings: &Mappings,
    options: &SyncOptions,
    notes: &mut Notes,
) -> Result<Synced, SyncError> {
    let brought = notes.brought.clone();
    let synced = sync(model, captured, Known { mappings, brought: &brought }, options, notes).await?;
    let gone: Vec<_> = mappings.iter().map(|(what, _)| what).filter(|what| !synced.mappings.contains(*what)).collect();
    for what in gone {
        notes.mapped.remove(what);
        notes.brought.remove(&what);
    }
    Ok(synced)
}

#[tokio::test]
async fn everything_is_created_once_and_then_found() {
    let model = Model::default();
    let mut notes = Notes::default();
    let first = run(&model, &Mappings::default(), &all(), &mut notes).await.unwrap();
    assert_eq!((first.created.len(), first.held.len(), first.mappings.len()), (10, 0, 10));
    assert_eq!(model.count(EntityKind::Sensor), 2);
    assert!(notes.intents.is_empty() && notes.mapped == first.mappings);
    let again = run(&model, &Mappings::default(), &all(), &mut notes).await.unwrap();
    assert_eq!((again.created.len(), again.updated.len(), &again.mappings), (0, 0, &first.mappings));
    assert_eq!((model.creates(), model.count(EntityKind::Sensor)), (10, 2));
}

#[tokio::test]
async fn a_lost_answer_never_makes_a_second_entity() {
    for of in ["SensorType", "RoomType", "Room(", "Deployment", "Plain House", "Location", "Node("] {
        for fault in [Fault::DidItLostTheAnswer, Fault::LostTheRequest] {
            let model = Model::new(State { faults: vec![(of, fault)], ..State::default() });
            let mut notes = Notes::default();
            let lost = run(&model, &Mappings::default(), &all(), &mut notes).await.unwrap_err();
            assert!(matches!(&lost, SyncError::Sink { outcome, .. } if outcome.verdict == Verdict::Unknown), "{of}: {lost}");
            assert_eq!(notes.intents.len(), 1, "{of}: the intent stands until it is mapped");
            let options = unmapped();
            let known = notes.mapped.clone();
            let synced = run(&model, &known, &options, &mut notes).await.unwrap();
            assert_eq!((synced.held.len(), synced.mappings.len(), notes.intents.len()), (0, 10, 0), "{of}");
            assert_eq!(model.state.lock().unwrap().stored.len(), 12, "{of}: ten and two sensors");
            assert_eq!(model.count(EntityKind::Sensor), 2, "{of}: each node's sensors once");
        }
    }
}

#[tokio::test]
async fn a_house_that_the_server_cannot_take_holds_only_what_is_in_it() {
    let refused = State { faults: vec![("Straße", Fault::Refuses)], ..State::default() };
    let unaskable = State { unaskable: Some("Straße 2"), ..State::default() };
    for state in [refused, unaskable] {
        let model = Model::new(state);
        let mut notes = Notes::default();
        let synced = run(&model, &Mappings::default(), &all(), &mut notes).await.unwrap();
        let held: Vec<_> = synced.held.iter().map(|held| held.what).collect();
        assert_eq!(held, [at(EntityKind::House, 2), at(EntityKind::Location, 2)]);
        assert_eq!(synced.held[1].why, "Location 2 waits for House 2");
        // The node in it exists without a location, for its node states.
        assert!(synced.mappings.get(at(EntityKind::Node, 12)).is_some());
        assert_eq!(model.count(EntityKind::House), 1);
        // When the house can be had, the node moves in.
        {
            let mut state = model.state.lock().unwrap();
            (state.faults, state.unaskable) = (Vec::new(), None);
        }
        let options = unmapped();
        let healed = run(&model, &synced.mappings, &options, &mut notes).await.unwrap();
        assert_eq!((healed.held.len(), healed.updated.as_slice()), (0, [at(EntityKind::Node, 12)].as_slice()));
    }
}

#[tokio::test]
async fn a_server_that_is_down_fails_the_sync_and_holds_nothing() {
    let model = Model::new(State { is_down: true, ..State::default() });
    let failed = run(&model, &Mappings::default(), &all(), &mut Notes::default()).await.unwrap_err();
    assert!(matches!(failed, SyncError::Sink { outcome, .. } if outcome.verdict == Verdict::NotStored));
}

#[tokio::test]
async fn a_server_without_node_types_gets_its_nodes_all_the_same() {
    let model = Model::new(State { lacks: vec![EntityKind::NodeType], ..State::default() });
    let mut captured = captured();
    let node_type = crate::domain::NodeType {
        name: Some("Base".into()),
        time: None,
        seq: None,
        updated_seq: None,
        period: None,
        blink: None,
        configured: None,
    };
    captured.insert(at(EntityKind::NodeType, 3), Entity::NodeType(node_type));
    captured.insert(at(EntityKind::Node, 13), Entity::Node(Node { location: None, node_type: Some(LocalId(3)) }));
    let synced = run_with(&model, &captured, &Mappings::default(), &all(), &mut Notes::default()).await.unwrap();
    assert!(synced.held.is_empty() && synced.notes[0].contains("no node types"), "{synced:?}");
    assert!(synced.mappings.get(at(EntityKind::Node, 13)).is_some());
}

#[tokio::test]
async fn entities_that_share_an_identity_share_one_central_entity() {
    let mut captured = captured();
    let twin = captured[&at(EntityKind::House, 1)].clone();
    captured.insert(at(EntityKind::House, 7), twin);
    let model = Model::default();
    let synced = run_with(&model, &captured, &Mappings::default(), &all(), &mut Notes::default()).await.unwrap();
    assert_eq!(model.count(EntityKind::House), 2);
    assert_eq!(synced.mappings.get(at(EntityKind::House, 7)), synced.mappings.get(at(EntityKind::House, 1)));
}

#[tokio::test]
async fn a_centre_that_was_rebuilt_is_mapped_anew_and_what_stands_on_it_too() {
    let mut notes = Notes::default();
    let old = run(&Model::default(), &Mappings::default(), &all(), &mut notes).await.unwrap();
    // The new centre has the deployment under another id, and the old ids belong to others.
    let name = Some("dep A".to_owned());
    let deployment = Entity::Deployment(Deployment { name, description: None, start: None, end: None });
    let rebuilt = Model::new(State { stored: vec![RemoteEntity { id: RemoteId(5), entity: deployment }], ..State::default() });
    let synced = run(&rebuilt, &old.mappings, &all(), &mut notes).await.unwrap();
    assert_eq!(synced.mappings.get(at(EntityKind::Deployment, 1)), Some(RemoteId(5)));
    assert_eq!((synced.created.len(), rebuilt.count(EntityKind::House)), (9, 2));
    assert_eq!(notes.mapped, synced.mappings);
}

#[tokio::test]
async fn what_is_mapped_and_unchanged_is_not_looked_up_again_unless_asked() {
    let model = Model::default();
    let mut notes = Notes::default();
    let first = run(&model, &Mappings::default(), &all(), &mut notes).await.unwrap();
    model.forget_log();
    let second = run(&model, &first.mappings, &unmapped(), &mut notes).await.unwrap();
    assert_eq!(second.mappings, first.mappings);
    assert_eq!(model.state.lock().unwrap().log, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_is_not_taken_back_into_a_house_that_has_ended() {
    let model = Model::default();
    let mut notes = Notes::default();
    let mut here = captured();
    let Some(Entity::House(house)) = here.get_mut(&at(EntityKind::House, 1)) else { panic!("house 1") };
    house.end = Some(Micros(5));
    let first = run_with(&model, &here, &Mappings::default(), &all(), &mut notes).await.unwrap();
    // It was moved to another gateway's house, and that gateway has said so.
    let moved = Entity::Node(Node { location: Some(RemoteId(77)), node_type: None });
    model.update(&RemoteEntity { id: RemoteId(11), entity: moved }).await.unwrap();
    let again = run_with(&model, &here, &first.mappings, &all(), &mut notes).await.unwrap();
    assert_eq!(again.updated, []);
}

#[tokio::test]
async fn a_room_whose_letters_the_centre_does_not_have_is_made_once() {
    let model = Model::default();
    let mut here = captured();
    here.insert(at(EntityKind::Room, 1), Entity::Room(Room { room_type: None, name: Some("Łazienka".into()) }));
    let mut known = Mappings::default();
    for _ in 0..4 {
        known = run_with(&model, &here, &known, &all(), &mut Notes::default()).await.unwrap().mappings;
        for one in &mut model.state.lock().unwrap().stored {
            if let Entity::Room(room) = &mut one.entity {
                room.name = room.name.as_ref().map(|name| name.replace('Ł', "?"));
            }
        }
    }
    assert_eq!(model.count(EntityKind::Room), 1);
}

mod changed;
mod random;
