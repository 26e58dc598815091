//! What changes here or there after it was brought: followed, held, or left alone; and told.

use super::*;
use crate::domain::NodeType;

/// A destination, what is captured, and what is known of it; each step syncs everything.
struct Life {
    model: Model,
    captured: Catalog,
    notes: Notes,
    refused: Refused,
}

impl Life {
    async fn begin() -> Self {
        let mut life = Self { model: Model::default(), captured: captured(), notes: Notes::default(), refused: Refused::new() };
        life.sync().await;
        life.sync_quietly().await;
        life
    }

    async fn sync(&mut self) -> Synced {
        self.model.forget_log();
        let known = self.notes.mapped.clone();
        let options = SyncOptions { refused: self.refused.clone(), ..all() };
        let synced = run_with(&self.model, &self.captured, &known, &options, &mut self.notes).await.unwrap();
        self.refused.clone_from(&synced.refused);
        assert_eq!(self.notes.mapped, synced.mappings);
        synced
    }

    /// One more sync, which must write nothing.
    async fn sync_quietly(&mut self) -> Synced {
        let synced = self.sync().await;
        assert_eq!(self.model.writes(), Vec::<String>::new());
        synced
    }

    fn house(&mut self) -> &mut House<LocalId> {
        let Some(Entity::House(house)) = self.captured.get_mut(&at(EntityKind::House, 1)) else { panic!("house 1") };
        house
    }

    fn sensor(&mut self) -> &mut Sensor<LocalId> {
        let Some(Entity::Sensor(sensor)) = self.captured.get_mut(&at(EntityKind::Sensor, 1)) else { panic!("sensor 1") };
        sensor
    }

    fn capture(&mut self, kind: EntityKind, id: i64, entity: Entity<LocalId>) {
        self.captured.insert(at(kind, id), entity);
    }

    fn id(&self, kind: EntityKind, id: i64) -> RemoteId {
        self.notes.mapped.get(at(kind, id)).unwrap()
    }
}

fn node(location: Option<i64>, node_type: Option<i64>) -> Entity<LocalId> {
    Entity::Node(Node { location: location.map(LocalId), node_type: node_type.map(LocalId) })
}

fn node_type<I>(name: &str) -> Entity<I> {
    let name = Some(name.to_owned());
    Entity::NodeType(NodeType { name, time: None, seq: None, updated_seq: None, period: None, blink: None, configured: None })
}

fn held(synced: &Synced) -> Vec<LocalRef> {
    synced.held.iter().map(|held| held.what).collect()
}

#[tokio::test]
async fn a_renamed_house_stays_where_its_rows_went_and_is_renamed_there() {
    let mut life = Life::begin().await;
    let before = life.notes.mapped.clone();
    life.house().address = Some("New Name".into());
    life.house().end = Some(Micros(7));
    let synced = life.sync().await;
    assert_eq!((synced.updated.as_slice(), &synced.mappings), ([at(EntityKind::House, 1)].as_slice(), &before));
    let Entity::House(there) = life.model.get(EntityKind::House, life.id(EntityKind::House, 1)) else { panic!("a house") };
    assert_eq!((there.address.as_deref(), there.end), (Some("New Name"), Some(Micros(7))));
    assert_eq!(life.model.count(EntityKind::House), 2);
    life.sync_quietly().await;
}

#[tokio::test]
async fn a_rename_that_the_server_refuses_keeps_the_mapping_and_is_tried_once() {
    let mut life = Life::begin().await;
    let before = life.notes.mapped.clone();
    life.model.state.lock().unwrap().takes_no_updates = true;
    life.house().address = Some("New Name".into());
    let synced = life.sync().await;
    assert_eq!((&synced.mappings, synced.held.len(), life.model.writes().len()), (&before, 0, 1));
    assert!(synced.notes.iter().any(|note| note.contains("keeps its old content")), "{:?}", synced.notes);
    assert_eq!(life.sync_quietly().await.mappings, before);
    // A server that takes it later gets it.
    life.model.state.lock().unwrap().takes_no_updates = false;
    life.refused.clear();
    assert_eq!(life.sync().await.updated, [at(EntityKind::House, 1)]);
    life.sync_quietly().await;
}

#[tokio::test]
async fn a_house_that_was_renamed_at_the_centre_is_not_taken_for_ours() {
    let mut life = Life::begin().await;
    let old = life.id(EntityKind::House, 1);
    for one in &mut life.model.state.lock().unwrap().stored {
        if let Entity::House(house) = &mut one.entity
            && one.id == old
        {
            house.address = Some("Somebody's".into());
        }
    }
    let synced = life.sync().await;
    assert!(synced.mappings.get(at(EntityKind::House, 1)).is_some_and(|now| now != old), "{synced:?}");
    life.sync_quietly().await;
}

#[tokio::test]
async fn a_node_that_another_gateway_moved_is_left_and_one_that_moved_here_is_moved() {
    let mut life = Life::begin().await;
    let elsewhere = Entity::Node(Node { location: Some(RemoteId(77)), node_type: Some(RemoteId(5)) });
    life.model.update(&RemoteEntity { id: RemoteId(11), entity: elsewhere }).await.unwrap();
    life.sync_quietly().await;
    life.capture(EntityKind::Node, 11, node(Some(2), None));
    assert_eq!(life.sync().await.updated, [at(EntityKind::Node, 11)]);
    let moved = Entity::Node(Node { location: Some(life.id(EntityKind::Location, 2)), node_type: Some(RemoteId(5)) });
    assert_eq!(life.model.get(EntityKind::Node, RemoteId(11)), moved);
    life.sync_quietly().await;
}

#[tokio::test]
async fn a_calibration_that_changes_and_a_sensor_that_comes_later_are_brought_once() {
    let mut life = Life::begin().await;
    life.sensor().calibration_slope = Some(1.25);
    let more = Sensor { sensor_type: None, node: Some(LocalId(11)), calibration_slope: Some(3.0), calibration_offset: None };
    life.capture(EntityKind::Sensor, 9, Entity::Sensor(more));
    assert_eq!(life.sync().await.updated, [at(EntityKind::Sensor, 1)]);
    let slope = |one: &RemoteEntity| match &one.entity {
        Entity::Sensor(sensor) if sensor.node == Some(RemoteId(11)) => sensor.calibration_slope,
        _ => None,
    };
    let mut slopes: Vec<_> = life.model.state.lock().unwrap().stored.iter().filter_map(slope).collect();
    slopes.sort_by(f32::total_cmp);
    assert_eq!(slopes, [1.25, 3.0]);
    life.sync_quietly().await;
    assert_eq!(life.model.asked("Sensors"), 0, "what is in step is not asked for");
}

#[tokio::test]
async fn sensors_that_were_sent_before_a_kill_are_not_sent_again_and_missing_ones_are() {
    let mut life = Life::begin().await;
    // The kill came before anything of the sensors was written down; of node 12 nothing at all was, and its sensor did not arrive.
    life.notes.brought.retain(|what, _| what.kind != EntityKind::Sensor);
    life.notes.mapped.remove(at(EntityKind::Node, 12));
    let of_12 = |one: &RemoteEntity| matches!(&one.entity, Entity::Sensor(sensor) if sensor.node == Some(RemoteId(12)));
    life.model.state.lock().unwrap().stored.retain(|one| !of_12(one));
    let again = life.sync().await;
    assert_eq!((again.created.len(), life.model.writes()), (0, vec!["sensors 1".to_owned()]));
    assert_eq!(life.model.count(EntityKind::Sensor), 2);
    assert!(life.model.state.lock().unwrap().stored.iter().any(of_12));
    life.sync_quietly().await;
}

#[tokio::test]
async fn a_server_that_does_not_list_sensors_gets_those_of_new_nodes_alone() {
    let mut life = Life::begin().await;
    life.model.state.lock().unwrap().lacks = vec![EntityKind::Sensor];
    life.sensor().calibration_slope = Some(1.25);
    life.capture(EntityKind::Node, 30, node(None, None));
    let of_new = Sensor { sensor_type: None, node: Some(LocalId(30)), calibration_slope: None, calibration_offset: None };
    life.capture(EntityKind::Sensor, 30, Entity::Sensor(of_new));
    let synced = life.sync().await;
    assert!(synced.held.is_empty() && synced.notes.iter().any(|note| note.contains("are not brought")), "{synced:?}");
    assert_eq!(life.model.count(EntityKind::Sensor), 3);
    life.sync_quietly().await;
}

#[tokio::test]
async fn a_node_whose_type_means_something_else_there_is_held_until_one_side_is_mended() {
    for mend_here in [true, false] {
        let mut life = Life::begin().await;
        life.capture(EntityKind::NodeType, 3, node_type("CO2"));
        life.capture(EntityKind::Node, 11, node(Some(1), Some(3)));
        let there = |name| RemoteEntity { id: RemoteId(3), entity: node_type(name) };
        life.model.state.lock().unwrap().stored.push(there("VOC"));
        let synced = life.sync().await;
        assert_eq!(held(&synced), [at(EntityKind::NodeType, 3), at(EntityKind::Node, 11)]);
        assert!(synced.held[0].why.contains("'CO2' here, 'VOC' there"), "{:?}", synced.held);
        assert_eq!(synced.held[1].why, "Node 11 waits for its type, NodeType 3");
        life.sync_quietly().await;
        if mend_here {
            life.capture(EntityKind::NodeType, 3, node_type("VOC"));
        } else {
            life.model.update(&there("CO2")).await.unwrap();
        }
        let mended = life.sync().await;
        assert!(mended.held.is_empty() && mended.mappings.contains(at(EntityKind::Node, 11)), "{mended:?}");
        life.sync_quietly().await;
    }
}

#[tokio::test]
async fn a_node_whose_type_the_server_refuses_is_held_and_others_are_not() {
    let mut life = Life::begin().await;
    life.model.state.lock().unwrap().faults.push(("CO2", Fault::Refuses));
    life.capture(EntityKind::NodeType, 3, node_type("CO2"));
    life.capture(EntityKind::Node, 11, node(Some(1), Some(3)));
    assert_eq!(held(&life.sync().await), [at(EntityKind::NodeType, 3), at(EntityKind::Node, 11)]);
    assert!(life.notes.mapped.contains(at(EntityKind::Node, 12)));
    life.model.state.lock().unwrap().faults.clear();
    let known = life.notes.mapped.clone();
    let healed = run_with(&life.model, &life.captured, &known, &unmapped(), &mut life.notes).await.unwrap();
    assert!(healed.held.is_empty() && healed.mappings.contains(at(EntityKind::Node, 11)));
}

#[tokio::test]
async fn a_list_of_node_types_that_fails_where_there_were_some_ends_the_sync() {
    let mut life = Life::begin().await;
    life.capture(EntityKind::NodeType, 3, node_type("CO2"));
    life.sync().await;
    life.model.state.lock().unwrap().unlistable = Some(EntityKind::NodeType);
    let known = life.notes.mapped.clone();
    let failed = run_with(&life.model, &life.captured, &known, &all(), &mut life.notes).await.unwrap_err();
    assert!(matches!(failed, SyncError::Sink { .. }), "nodes must not go without their types for a hiccup");
}

#[tokio::test]
async fn what_never_gets_an_answer_can_be_given_up_and_is_mapped_when_it_is_there() {
    let model = Model::new(State { faults: vec![("Straße", Fault::NeverAnswers)], ..State::default() });
    let mut notes = Notes::default();
    let failed = run(&model, &Mappings::default(), &all(), &mut notes).await.unwrap_err();
    let SyncError::Sink { unanswered: Some(what), .. } = failed else { panic!("{failed}") };
    assert_eq!(what, at(EntityKind::House, 2));
    let known = notes.mapped.clone();
    let options = SyncOptions { given_up: [what].into(), ..all() };
    let synced = run(&model, &known, &options, &mut notes).await.unwrap();
    assert_eq!(held(&synced), [what, at(EntityKind::Location, 2)]);
    // It was stored after all.
    let deployment = synced.mappings.get(at(EntityKind::Deployment, 1));
    let house = House { deployment, address: Some("Straße 2".into()), start: None, end: None };
    model.state.lock().unwrap().stored.push(RemoteEntity { id: RemoteId(500), entity: Entity::House(house) });
    let options = SyncOptions { recheck: Recheck::Unmapped, ..options };
    let found = run(&model, &synced.mappings, &options, &mut notes).await.unwrap();
    assert_eq!((found.held.len(), found.mappings.get(what)), (0, Some(RemoteId(500))));
}

#[tokio::test]
async fn locations_are_asked_for_once_a_house() {
    let mut life = Life::begin().await;
    for id in 20..30 {
        life.capture(EntityKind::Room, id, Entity::Room(Room { room_type: None, name: Some(format!("Room {id}")) }));
        let location = Location { house: Some(LocalId(1)), room: Some(LocalId(id)) };
        life.capture(EntityKind::Location, id, Entity::Location(location));
    }
    life.sync().await;
    assert_eq!((life.model.asked("Location"), life.model.count(EntityKind::Location)), (2, 12));
    life.sync_quietly().await;
    // Sensor types, room types, rooms, deployments, nodes, two houses, and the locations of each.
    assert_eq!(life.model.asked(""), 9, "{:?}", life.model.state.lock().unwrap().log);
}
