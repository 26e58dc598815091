//! The catalog sync over real HTTP against the receiver, in its own and in the legacy manner: odd names, changes on both sides, and what a
//! quiet cycle costs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/central.rs"]
mod central;
#[path = "catalog/cost.rs"]
mod cost;
#[path = "catalog/relay.rs"]
mod relay;

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use central::Central;
use packhorse::{
    catalog::{Journal, JournalError, Known, Recheck, Refused, SyncOptions, Synced, sync},
    domain::{
        Brought, Catalog, Deployment, Entity, EntityKind, House, LocalId, LocalRef, Location, Mappings, Micros, Node, NodeType,
        RemoteId, Room, RoomType, Sensor, SensorType, SourceId,
    },
    receiver::Manner,
    rest::{Auth, Options, RestSink},
};
use relay::Relay;
use serde_json::json;

/// A journal in memory.
#[derive(Default)]
struct Notes {
    mappings: Mappings,
    brought: Brought,
}

#[async_trait]
impl Journal for Notes {
    async fn about_to_create(&mut self, _: LocalRef, _: Duration) -> Result<(), JournalError> {
        Ok(())
    }

    async fn settled(
        &mut self,
        mapped: &[(LocalRef, RemoteId)],
        brought: &[(LocalRef, Entity<RemoteId>)],
    ) -> Result<(), JournalError> {
        for (what, id) in mapped {
            self.mappings.insert(*what, *id);
        }
        self.brought.extend(brought.iter().cloned());
        Ok(())
    }
}

/// A destination behind a relay that counts, what is captured, and what is known.
struct Scene {
    central: Central,
    relay: Relay,
    sink: RestSink,
    runtime: tokio::runtime::Runtime,
    captured: Catalog,
    notes: Notes,
    refused: Refused,
}

fn at(kind: EntityKind, id: i64) -> LocalRef {
    LocalRef { kind, id: LocalId(id) }
}

impl Scene {
    fn set(manner: Manner) -> Self {
        let central = Central::start(manner);
        let relay = Relay::start(central.address);
        let sink = RestSink::new(Options {
            url: format!("http://{}/rest/", relay.address),
            auth: Auth::None,
            ca_pem: None,
            client_identity_pem: None,
            proxy: None,
            request_bytes_max: 1 << 20,
            connect_deadline: Options::CONNECT_DEADLINE,
            answer_deadline: Options::ANSWER_DEADLINE,
            stall_deadline: Options::STALL_DEADLINE,
            source: SourceId(1),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (captured, notes, refused) = (Catalog::new(), Notes::default(), Refused::new());
        Self { central, relay, sink: sink.unwrap(), runtime, captured, notes, refused }
    }

    fn capture(&mut self, kind: EntityKind, id: i64, entity: Entity<LocalId>) {
        self.captured.insert(at(kind, id), entity);
    }

    fn capture_house(&mut self, id: i64, address: Option<&str>, end: Option<Micros>) {
        let house = House { deployment: Some(LocalId(1)), address: address.map(str::to_owned), start: None, end };
        self.capture(EntityKind::House, id, Entity::House(house));
    }

    /// A deployment, and houses with these addresses, a room, a location and a node with a sensor in each.
    fn capture_houses(&mut self, addresses: &[Option<&str>]) {
        let name = |name: &str| Some(name.to_owned());
        let deployment = Deployment { name: name("pilot"), description: None, start: None, end: None };
        self.capture(EntityKind::Deployment, 1, Entity::Deployment(deployment));
        let sensor_type = SensorType { name: name("Temperature"), code: name("T"), units: name("C"), coefficients: [None; 4] };
        self.capture(EntityKind::SensorType, 0, Entity::SensorType(sensor_type));
        self.capture(EntityKind::RoomType, 1, Entity::RoomType(RoomType { name: name("Bedroom") }));
        self.capture(EntityKind::Room, 1, Entity::Room(Room { room_type: Some(LocalId(1)), name: name("Loft") }));
        for (id, address) in (1..).zip(addresses) {
            self.capture_house(id, *address, None);
            self.capture(
                EntityKind::Location,
                id,
                Entity::Location(Location { house: Some(LocalId(id)), room: Some(LocalId(1)) }),
            );
            self.capture(EntityKind::Node, 10 + id, Entity::Node(Node { location: Some(LocalId(id)), node_type: None }));
            self.capture_sensor(id, 10 + id, 1.0);
        }
    }

    fn capture_sensor(&mut self, id: i64, node: i64, slope: f32) {
        let sensor = Sensor {
            sensor_type: Some(LocalId(0)),
            node: Some(LocalId(node)),
            calibration_slope: Some(slope),
            calibration_offset: None,
        };
        self.capture(EntityKind::Sensor, id, Entity::Sensor(sensor));
    }

    fn sync(&mut self) -> Synced {
        let options = SyncOptions { recheck: Recheck::All, refused: self.refused.clone(), given_up: BTreeSet::new() };
        let (mappings, brought) = (self.notes.mappings.clone(), self.notes.brought.clone());
        let known = Known { mappings: &mappings, brought: &brought };
        let synced = self.runtime.block_on(sync(&self.sink, &self.captured, known, &options, &mut self.notes)).unwrap();
        self.notes.brought.retain(|what, _| what.kind == EntityKind::Sensor || synced.mappings.contains(*what));
        self.notes.mappings = synced.mappings.clone();
        self.refused.clone_from(&synced.refused);
        synced
    }

    /// One more sync, over which nothing may be written but what the destination refuses.
    fn sync_quietly(&mut self) -> Synced {
        let before = self.relay.writes();
        let synced = self.sync();
        assert_eq!(self.relay.writes(), before, "{:?}", self.relay.lines());
        synced
    }

    fn held(synced: &Synced) -> Vec<LocalRef> {
        synced.held.iter().map(|held| held.what).collect()
    }
}

fn long() -> String {
    "An address of 255 characters ".chars().cycle().take(255).collect()
}

#[test]
fn odd_addresses_are_made_once_and_found_again() {
    let long = long();
    let odd = [
        Some("1 Cafe & Co, High St. #2 + 50%"),
        Some("a_b"),
        Some("a*b"),
        Some("a%b"),
        Some("None"),
        Some(""),
        None,
        Some("trailing  "),
        Some("UPPER"),
        Some("ge_5"),
        Some("'; DROP TABLE House; --"),
        Some(long.as_str()),
    ];
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let mut scene = Scene::set(manner);
        // Neighbours that a careless filter would take for them.
        scene.central.sql(
            "INSERT INTO Deployment (id, name) VALUES (3, 'PILOT ');
             INSERT INTO House (id, deploymentId, address) VALUES (50, 3, 'b'), (51, 3, 'axb'), (52, 3, 'aXXb'), (53, 3, 'upper '), (54, NULL, 'a_b')",
        );
        scene.capture_houses(&odd);
        let synced = scene.sync();
        assert!(synced.held.is_empty(), "{manner:?}: {:?}", synced.held);
        assert_eq!(synced.mappings.get(at(EntityKind::Deployment, 1)), Some(RemoteId(3)));
        assert_eq!(synced.mappings.get(at(EntityKind::House, 9)), Some(RemoteId(53)), "in other case and with a trailing blank");
        assert_eq!(scene.central.number("SELECT count(*) FROM House"), 5 + 11);
        let ids: BTreeSet<_> = (1..=12).map(|id| synced.mappings.get(at(EntityKind::House, id)).unwrap()).collect();
        assert_eq!(ids.len(), 12, "each its own");
        for (id, address) in (1..).zip(odd).filter(|(id, _)| *id != 9) {
            let there = synced.mappings.get(at(EntityKind::House, id)).unwrap();
            let stored = scene.central.string(&format!("SELECT ifnull(address, '(null)') FROM House WHERE id = {there}"));
            assert_eq!(stored, address.unwrap_or("(null)"));
        }
        let again = scene.sync_quietly();
        assert_eq!(again.mappings, synced.mappings);
        // Also from nothing: what is there is found by its content alone.
        scene.notes = Notes::default();
        assert_eq!(scene.sync_quietly().mappings, synced.mappings);
    }
}

#[test]
fn a_house_that_a_legacy_server_cannot_have_is_held_and_the_others_are_not() {
    let mut scene = Scene::set(Manner::Legacy);
    scene.capture_houses(&[Some("Plain House"), Some("Höhe 3"), Some("Other House")]);
    let synced = scene.sync();
    assert_eq!(Scene::held(&synced), [at(EntityKind::House, 2), at(EntityKind::Location, 2)]);
    assert_eq!(scene.central.number("SELECT count(*) FROM Location"), 2);
    assert_eq!(scene.central.number("SELECT count(*) FROM Node"), 3, "its node is there for its node states");
    let again = scene.sync_quietly();
    assert_eq!(Scene::held(&again), Scene::held(&synced));
    // Our own receiver has no trouble with it.
    let mut ours = Scene::set(Manner::Packhorse);
    ours.captured.clone_from(&scene.captured);
    assert!(ours.sync().held.is_empty());
}

#[test]
fn what_changes_here_is_put_there_with_all_that_we_do_not_know() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let mut scene = Scene::set(manner);
        scene.capture_houses(&[Some("Plain House"), Some("Other House")]);
        let first = scene.sync();
        scene.central.sql(
            "INSERT INTO Server (id, hostname) VALUES (5, 's');
             UPDATE House SET serverid = 5, startDate = '2013-01-01T00:00:00' WHERE address = 'Plain House';
             UPDATE Deployment SET description = 'theirs'",
        );
        scene.sync_quietly();
        let end = Some("2014-01-01T00:00:00".parse().unwrap());
        scene.capture_house(1, Some("Renamed House"), end);
        let deployment = Deployment { name: Some("pilot".into()), description: None, start: None, end };
        scene.capture(EntityKind::Deployment, 1, Entity::Deployment(deployment));
        scene.capture(EntityKind::Node, 12, Entity::Node(Node { location: None, node_type: None }));
        scene.capture(EntityKind::Node, 11, Entity::Node(Node { location: Some(LocalId(2)), node_type: None }));
        scene.capture_sensor(2, 12, 1.5);
        let synced = scene.sync();
        assert_eq!(synced.mappings, first.mappings, "{manner:?}");
        let renamed =
            "SELECT count(*) FROM House WHERE address = 'Renamed House' AND serverid = 5 AND startDate = '2013-01-01T00:00:00'
                       AND endDate = '2014-01-01T00:00:00'";
        assert_eq!(scene.central.number(renamed), 1);
        let deployment = "SELECT count(*) FROM Deployment WHERE description = 'theirs' AND endDate = '2014-01-01T00:00:00'";
        assert_eq!(scene.central.number(deployment), 1);
        let moved = "SELECT count(*) FROM Node JOIN Location ON Location.id = locationId JOIN House ON House.id = houseId
                     WHERE address = 'Other House'";
        assert_eq!(scene.central.number(moved), 2, "one moved, and one that has no place any more keeps its last one");
        assert_eq!(scene.central.number("SELECT count(*) FROM House"), 2);
        assert_eq!(scene.central.number("SELECT count(*) FROM Sensor"), 2);
        assert_eq!(scene.central.number("SELECT count(*) FROM Sensor WHERE nodeId = 12 AND calibrationSlope = 1.5"), 1);
        scene.sync_quietly();
    }
}

#[test]
fn a_house_whose_server_row_is_not_there_disturbs_nobody() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let mut scene = Scene::set(manner);
        scene.central.sql(
            "INSERT INTO Deployment (id, name) VALUES (1, 'pilot');
             INSERT INTO House (id, deploymentId, address, serverid) VALUES (7, 1, 'Plain House', 99)",
        );
        scene.capture_houses(&[Some("Plain House"), Some("Other House")]);
        let synced = scene.sync();
        assert_eq!((synced.mappings.get(at(EntityKind::House, 1)), synced.held.len()), (Some(RemoteId(7)), 0));
        // What cannot be stored for that reason is told, and holds nothing.
        scene.capture_house(1, Some("Renamed House"), None);
        let renamed = scene.sync();
        assert_eq!((renamed.mappings.get(at(EntityKind::House, 1)), renamed.held.len()), (Some(RemoteId(7)), 0));
        assert!(renamed.notes.iter().any(|note| note.contains("keeps its old content")), "{:?}", renamed.notes);
        scene.sync_quietly();
    }
}

#[test]
fn a_centre_that_was_rebuilt_puts_nothing_into_another_room() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let mut scene = Scene::set(manner);
        scene.capture_houses(&[Some("Plain House"), Some("Other House")]);
        let before = scene.sync();
        // The ids of before stand for others now.
        scene.central.sql(
            "DELETE FROM Sensor; DELETE FROM Node; DELETE FROM Location; DELETE FROM House; DELETE FROM Room; DELETE FROM Deployment;
             INSERT INTO Deployment (id, name) VALUES (1, 'another'), (2, 'pilot');
             INSERT INTO Room (id, name) VALUES (1, 'Kitchen');
             INSERT INTO House (id, deploymentId, address) VALUES (1, 1, 'Plain House'), (2, 2, 'Third House');
             INSERT INTO Location (id, houseId, roomId) VALUES (1, 1, 1), (2, 2, 1)",
        );
        let after = scene.sync();
        assert!(after.held.is_empty(), "{:?}", after.held);
        for kind in [EntityKind::Deployment, EntityKind::House, EntityKind::Room, EntityKind::Location] {
            assert_ne!(after.mappings.get(at(kind, 1)), before.mappings.get(at(kind, 1)), "{kind}");
        }
        let right = "SELECT count(*) FROM Node JOIN Location ON Location.id = locationId JOIN House ON House.id = houseId
                     JOIN Room ON Room.id = roomId JOIN Deployment ON Deployment.id = deploymentId
                     WHERE Room.name = 'Loft' AND Deployment.name = 'pilot' AND address IN ('Plain House', 'Other House')";
        assert_eq!(scene.central.number(right), 2);
        assert_eq!(scene.central.number("SELECT count(*) FROM Sensor"), 2, "new nodes come with their sensors");
        scene.sync_quietly();
    }
}

#[test]
fn a_type_that_means_something_else_is_never_written_over_and_ends_when_it_is_mended() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let mut scene = Scene::set(manner);
        scene.central.sql(
            "INSERT INTO SensorType (id, name, code, units) VALUES (0, 'Temperature', 'T', 'K');
             INSERT INTO NodeType (id, name) VALUES (3, 'VOC')",
        );
        scene.capture_houses(&[Some("Plain House"), Some("Other House")]);
        let (time, seq, updated_seq, period, blink, configured) = (None, None, None, None, None, None);
        let node_type = NodeType { name: Some("CO2".into()), time, seq, updated_seq, period, blink, configured };
        scene.capture(EntityKind::NodeType, 3, Entity::NodeType(node_type));
        scene.capture(EntityKind::Node, 11, Entity::Node(Node { location: Some(LocalId(1)), node_type: Some(LocalId(3)) }));
        let expected = [at(EntityKind::SensorType, 0), at(EntityKind::NodeType, 3), at(EntityKind::Node, 11)];
        let held = scene.sync();
        assert_eq!(Scene::held(&held), expected);
        assert!(held.held[0].why.contains("units 'C' here, 'K' there"), "{:?}", held.held);
        assert_eq!(Scene::held(&scene.sync_quietly()), expected);
        scene.central.sql("UPDATE SensorType SET units = 'C'; UPDATE NodeType SET name = 'co2'");
        let mended = scene.sync();
        assert_eq!(Scene::held(&mended), []);
        let nodes = "SELECT count(*) FROM Node WHERE id = 11 AND nodeTypeId = 3";
        assert_eq!((scene.central.number(nodes), scene.central.number("SELECT count(*) FROM Sensor")), (1, 2));
        scene.sync_quietly();
    }
}

#[test]
fn the_object_of_a_sensor_holds_what_was_captured() {
    let mut scene = Scene::set(Manner::Packhorse);
    scene.capture_houses(&[Some("Plain House")]);
    scene.sync();
    let sensors = scene.central.get("/rest/sensor/?nodeId=11").json();
    assert_eq!((&sensors[0]["calibrationSlope"], &sensors[0]["sensorTypeId"]), (&json!(1.0), &json!(0)));
}
