//! What the catalog costs when nothing has changed, to the last byte of heads.

use packhorse::{catalog::push_status, domain::Micros};

use super::*;
use crate::relay::Traffic;

/// Three houses of eight rooms with a node in each, and the types that every centre has.
fn gateway(scene: &mut Scene) {
    let name = |name: String| Some(name);
    for id in 0..65 {
        let (code, units) = (name(format!("S{id}")), name("deg.C/s".into()));
        let coefficients = [Some(0.0), Some(1.0), Some(0.0), Some(0.0)];
        let sensor_type = SensorType { name: name(format!("Quantity number {id}")), code, units, coefficients };
        scene.capture(EntityKind::SensorType, id, Entity::SensorType(sensor_type));
    }
    for id in 1..=4 {
        scene.capture(EntityKind::RoomType, id, Entity::RoomType(RoomType { name: name(format!("Room type {id}")) }));
    }
    for id in 1..=8 {
        let room = Room { room_type: Some(LocalId(1 + id % 4)), name: name(format!("Bedroom {id}")) };
        scene.capture(EntityKind::Room, id, Entity::Room(room));
    }
    let deployment = Deployment { name: name("pilot".into()), description: name("A campaign".into()), start: None, end: None };
    scene.capture(EntityKind::Deployment, 1, Entity::Deployment(deployment));
    for node_type in 0..3 {
        let (time, seq, updated_seq, period, blink, configured) =
            (None, None, None, Some(307_200), Some(false), name("31,4".into()));
        let node_type_of =
            NodeType { name: name(format!("Type {node_type}")), time, seq, updated_seq, period, blink, configured };
        scene.capture(EntityKind::NodeType, node_type, Entity::NodeType(node_type_of));
    }
    for house in 1..=3 {
        scene.capture_house(house, Some(&format!("{house} Long Meadow Road, Coventry")), None);
        for room in 1..=8 {
            let id = 8 * (house - 1) + room;
            let location = Location { house: Some(LocalId(house)), room: Some(LocalId(room)) };
            scene.capture(EntityKind::Location, id, Entity::Location(location));
            let node = Node { location: Some(LocalId(id)), node_type: Some(LocalId(id % 3)) };
            scene.capture(EntityKind::Node, 1_000 + id, Entity::Node(node));
            for sensor_type in 0..4 {
                let sensor = Sensor {
                    sensor_type: Some(LocalId(sensor_type)),
                    node: Some(LocalId(1_000 + id)),
                    calibration_slope: Some(1.0),
                    calibration_offset: Some(0.0),
                };
                scene.capture(EntityKind::Sensor, 4 * id + sensor_type, Entity::Sensor(sensor));
            }
        }
    }
}

impl Scene {
    /// What some work costs.
    fn cost(&mut self, work: impl FnOnce(&mut Self)) -> Traffic {
        let before = self.relay.traffic();
        work(self);
        let after = self.relay.traffic();
        Traffic {
            requests: after.requests - before.requests,
            bytes_out: after.bytes_out - before.bytes_out,
            bytes_back: after.bytes_back - before.bytes_back,
        }
    }

    fn recheck(&mut self, how_much: Recheck) {
        let options = SyncOptions { recheck: how_much, refused: Refused::new(), given_up: BTreeSet::new() };
        let (mappings, brought) = (self.notes.mappings.clone(), self.notes.brought.clone());
        let known = Known { mappings: &mappings, brought: &brought };
        self.runtime.block_on(sync(&self.sink, &self.captured, known, &options, &mut self.notes)).unwrap();
    }
}

/// The numbers of docs/performance.md: `cargo test --test catalog cost -- --nocapture`.
#[test]
fn a_quiet_cycle_costs_one_request_and_a_look_at_everything_one_for_each_list_and_two_for_each_house() {
    println!("3 houses, 24 rooms, 24 nodes, 65 sensor types; heads included:");
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let mut scene = Scene::set(manner);
        gateway(&mut scene);
        let first = scene.cost(|scene| assert!(scene.sync().held.is_empty()));
        let quiet = scene.cost(|scene| {
            let status = push_status("house-17", "0.1.0", Micros(1_700_000_000_000_000));
            scene.runtime.block_on(packhorse::ports::Sink::push_status(&scene.sink, &status)).unwrap();
        });
        let unmapped = scene.cost(|scene| scene.recheck(Recheck::Unmapped));
        let all = scene.cost(|scene| scene.recheck(Recheck::All));
        println!(
            "  {manner:?}: first {first:?}\n    quiet cycle {quiet:?}\n    held rows, nothing to do {unmapped:?}\n    all {all:?}"
        );
        assert_eq!((quiet.requests, unmapped.requests), (1, 0));
        // Six lists, and a house and its locations, each.
        assert_eq!(all.requests, 6 + 2 * 3);
        assert!(quiet.bytes_out + quiet.bytes_back < 1_000, "{quiet:?}");
        assert!(all.bytes_out < 3_000 && all.bytes_back < 30_000, "{all:?}");
    }
}

#[test]
fn a_look_for_what_held_rows_wait_for_asks_for_nothing_else() {
    let mut scene = Scene::set(Manner::Legacy);
    gateway(&mut scene);
    scene.capture_house(3, Some("3 Höhe"), None);
    assert_eq!(scene.sync().held.len(), 9, "a house and its locations");
    let held = scene.cost(|scene| scene.recheck(Recheck::Unmapped));
    println!("one house is held at a legacy server: {held:?}");
    // The house is asked for twice, and after each error whether the server is well.
    assert_eq!(held.requests, 4);
}
