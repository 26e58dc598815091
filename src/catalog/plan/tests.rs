use super::*;
use crate::domain::{Deployment, House, Location, Micros, NodeType, Room, RoomType, SensorType};

fn local(kind: EntityKind, id: i64) -> LocalRef {
    LocalRef { kind, id: LocalId(id) }
}

fn catalog(kind: EntityKind, entities: impl IntoIterator<Item = (i64, Entity<LocalId>)>) -> Catalog {
    entities.into_iter().map(|(id, entity)| (local(kind, id), entity)).collect()
}

fn remote(id: i64, entity: Entity<RemoteId>) -> RemoteEntity {
    RemoteEntity { id: RemoteId(id), entity }
}

fn room_type<I>(name: Option<&str>) -> Entity<I> {
    Entity::RoomType(RoomType { name: name.map(str::to_owned) })
}

fn house<I>(deployment: Option<I>, address: Option<&str>) -> Entity<I> {
    Entity::House(House { deployment, address: address.map(str::to_owned), start: None, end: None })
}

fn sensor_type<I>(name: &str, units: Option<&str>, c1: f32) -> Entity<I> {
    let coefficients = [None, Some(c1), None, None];
    Entity::SensorType(SensorType {
        name: Some(name.to_owned()),
        code: Some("T".to_owned()),
        units: units.map(str::to_owned),
        coefficients,
    })
}

fn mappings(pairs: &[(EntityKind, i64, i64)]) -> Mappings {
    pairs.iter().map(|&(kind, id, to)| (local(kind, id), RemoteId(to))).collect()
}

#[test]
fn equal_names_under_other_ids_map_to_the_central_id() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Bedroom"))), (2, room_type(Some("Loft ")))]);
    let central = [remote(2, room_type(Some("Bedroom"))), remote(1, room_type(Some("LOFT")))];
    let plan = plan(EntityKind::RoomType, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::RoomType, 1), RemoteId(2)), (local(EntityKind::RoomType, 2), RemoteId(1))]);
    assert_eq!((plan.create.len(), plan.held.len(), plan.notes.len()), (0, 0, 0));
}

#[test]
fn among_several_the_exact_one_wins_and_then_the_oldest() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Loft")))]);
    let central = [5, 9, 3, 7].map(|id| remote(id, room_type(Some(if id == 3 { "loft" } else { "Loft" }))));
    let plan = plan(EntityKind::RoomType, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::RoomType, 1), RemoteId(5))]);
    assert!(plan.notes[0].contains("4 times"), "{:?}", plan.notes);
}

#[test]
fn among_several_the_one_that_rows_went_to_before_stays() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Loft")))]);
    let central = [5, 9, 3, 7].map(|id| remote(id, room_type(Some(if id == 3 { "loft" } else { "Loft" }))));
    for (before, now) in [(9, 9), (3, 3), (4, 5)] {
        let known = mappings(&[(EntityKind::RoomType, 1, before)]);
        let plan = plan(EntityKind::RoomType, &captured, &central, &Mappings::default(), &known);
        assert_eq!(plan.mapped, [(local(EntityKind::RoomType, 1), RemoteId(now))], "before: {before}");
    }
}

#[test]
fn a_null_name_matches_only_a_null_name_with_an_equal_rest() {
    fn room<I>(room_type: Option<I>, name: Option<&str>) -> Room<I> {
        Room { room_type, name: name.map(str::to_owned) }
    }
    let captured = catalog(EntityKind::Room, [(1, Entity::Room(room(Some(LocalId(4)), None)))]);
    let known = mappings(&[(EntityKind::RoomType, 4, 40)]);
    let same = remote(8, Entity::Room(room(Some(RemoteId(40)), None)));
    let others = [
        remote(5, Entity::Room(room(Some(RemoteId(40)), Some("")))),
        remote(6, Entity::Room(room(Some(RemoteId(41)), None))),
        remote(7, Entity::Room(room(None, None))),
    ];
    assert_eq!(plan(EntityKind::Room, &captured, &others, &known, &Mappings::default()).create, [local(EntityKind::Room, 1)]);
    let all = [others.as_slice(), &[same]].concat();
    assert_eq!(
        plan(EntityKind::Room, &captured, &all, &known, &Mappings::default()).mapped,
        [(local(EntityKind::Room, 1), RemoteId(8))]
    );
}

#[test]
fn a_sensor_type_that_means_something_else_is_held_and_coefficients_do_not_matter() {
    let captured = catalog(
        EntityKind::SensorType,
        [(0, sensor_type("Temperature", Some("C"), 1.0)), (1, sensor_type("CO2", None, 1.0)), (2, sensor_type("X", None, 1.0))],
    );
    let central = [remote(0, sensor_type("temperature ", Some("c"), 2.0)), remote(1, sensor_type("CO2", Some("ppm"), 1.0))];
    let plan = plan(EntityKind::SensorType, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::SensorType, 0), RemoteId(0))]);
    assert_eq!(plan.create, [local(EntityKind::SensorType, 2)]);
    assert_eq!(plan.held.len(), 1);
    assert!(plan.held[0].what == local(EntityKind::SensorType, 1) && plan.held[0].why.contains("units '' here, 'ppm' there"));
}

#[test]
fn a_node_type_of_another_name_is_held() {
    let kind = |name: &str| NodeType {
        name: Some(name.to_owned()),
        time: None,
        seq: None,
        updated_seq: None,
        period: None,
        blink: None,
        configured: None,
    };
    let captured = catalog(EntityKind::NodeType, [(0, Entity::NodeType(kind("Base"))), (1, Entity::NodeType(kind("CO2")))]);
    let central =
        [remote(0, Entity::NodeType(NodeType { period: Some(5), ..kind("base") })), remote(1, Entity::NodeType(kind("VOC")))];
    let plan = plan(EntityKind::NodeType, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::NodeType, 0), RemoteId(0))]);
    assert_eq!(plan.held.len(), 1);
}

#[test]
fn a_house_is_found_in_its_deployment_only_and_waits_for_it() {
    let captured = catalog(
        EntityKind::House,
        [
            (1, house(Some(LocalId(1)), Some("A"))),
            (2, house(Some(LocalId(2)), Some("A"))),
            (3, house(Some(LocalId(3)), Some("A"))),
        ],
    );
    let known = mappings(&[(EntityKind::Deployment, 1, 10), (EntityKind::Deployment, 2, 20)]);
    let central = [remote(7, house(Some(RemoteId(10)), Some("a"))), remote(8, house(Some(RemoteId(30)), Some("A")))];
    let plan = plan(EntityKind::House, &captured, &central, &known, &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::House, 1), RemoteId(7))]);
    assert_eq!(plan.create, [local(EntityKind::House, 2)]);
    assert_eq!(plan.held[0].why, "House 3 waits for Deployment 3");
}

#[test]
fn a_superset_of_locations_is_compared_before_use() {
    let location =
        |house: i64, room: Option<i64>| Entity::Location(Location { house: Some(RemoteId(house)), room: room.map(RemoteId) });
    let captured = catalog(EntityKind::Location, [(1, Entity::Location(Location { house: Some(LocalId(1)), room: None }))]);
    let known = mappings(&[(EntityKind::House, 1, 5)]);
    let central = [remote(1, location(5, Some(1))), remote(2, location(6, None))];
    assert_eq!(
        plan(EntityKind::Location, &captured, &central, &known, &Mappings::default()).create,
        [local(EntityKind::Location, 1)]
    );
    let central = [remote(1, location(5, Some(1))), remote(3, location(5, None))];
    assert_eq!(
        plan(EntityKind::Location, &captured, &central, &known, &Mappings::default()).mapped,
        [(local(EntityKind::Location, 1), RemoteId(3))]
    );
}

#[test]
fn of_two_local_entities_with_one_identity_only_one_is_created() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Loft"))), (2, room_type(Some("loft")))]);
    assert_eq!(
        plan(EntityKind::RoomType, &captured, &[], &Mappings::default(), &Mappings::default()).create,
        [local(EntityKind::RoomType, 1)]
    );
}

#[test]
fn a_room_is_found_by_name_although_its_type_is_not_mapped() {
    let room = |name: &str| Entity::Room(Room { room_type: Some(LocalId(9)), name: Some(name.to_owned()) });
    let captured = catalog(EntityKind::Room, [(1, room("Loft")), (2, room("Attic"))]);
    let central = [remote(4, Entity::Room(Room { room_type: Some(RemoteId(1)), name: Some("Loft".to_owned()) }))];
    let plan = plan(EntityKind::Room, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::Room, 1), RemoteId(4))]);
    assert_eq!(plan.held[0].why, "Room 2 waits for RoomType 9");
}

#[test]
fn a_node_is_updated_when_its_mapped_location_differs_and_keeps_what_it_has_otherwise() {
    let node = |location: Option<i64>, node_type: Option<i64>| {
        Entity::Node(Node { location: location.map(LocalId), node_type: node_type.map(LocalId) })
    };
    let there = |id, location: Option<i64>, node_type: Option<i64>| {
        remote(id, Entity::Node(Node { location: location.map(RemoteId), node_type: node_type.map(RemoteId) }))
    };
    let captured = catalog(
        EntityKind::Node,
        [
            (1, node(Some(1), Some(2))),
            (2, node(Some(1), Some(2))),
            (3, node(Some(9), None)),
            (4, node(None, None)),
            (5, node(Some(9), Some(9))),
        ],
    );
    let known = mappings(&[(EntityKind::Location, 1, 11), (EntityKind::NodeType, 2, 2)]);
    let central =
        [there(1, Some(11), Some(2)), there(2, Some(12), Some(1)), there(3, Some(13), None), there(4, Some(14), Some(1))];
    let plan = plan(EntityKind::Node, &captured, &central, &known, &Mappings::default());
    assert_eq!(plan.mapped.len(), 4);
    assert_eq!(plan.update, [(local(EntityKind::Node, 2), there(2, Some(11), Some(1)))]);
    // Node 5 is made although neither its location nor its type is mapped: its node states need only the node.
    assert_eq!((plan.create, plan.held), (vec![local(EntityKind::Node, 5)], Vec::new()));
}

mod model {
    //! Planning against a model of a server, with chance on both sides.

    use proptest::prelude::*;

    use super::*;

    const NAMES: [Option<&str>; 6] = [None, Some(""), Some("Loft"), Some("loft "), Some("Attic"), Some("Straße_1*")];

    fn name() -> impl Strategy<Value = Option<String>> {
        prop::sample::select(NAMES.as_slice()).prop_map(|name| name.map(str::to_owned))
    }

    fn ids<I: std::fmt::Debug>(wrap: fn(i64) -> I) -> impl Strategy<Value = Option<I>> {
        prop::option::of((1..4_i64).prop_map(wrap))
    }

    fn entity<I: std::fmt::Debug + Copy + 'static>(kind: EntityKind, wrap: fn(i64) -> I) -> BoxedStrategy<Entity<I>> {
        let date = || prop::option::of((0..2_i64).prop_map(Micros));
        match kind {
            EntityKind::SensorType => (name(), name())
                .prop_map(|(name, units)| Entity::SensorType(SensorType { name, code: None, units, coefficients: [None; 4] }))
                .boxed(),
            EntityKind::RoomType => name().prop_map(|name| Entity::RoomType(RoomType { name })).boxed(),
            EntityKind::Room => (ids(wrap), name()).prop_map(|(room_type, name)| Entity::Room(Room { room_type, name })).boxed(),
            EntityKind::Deployment => (name(), date(), date())
                .prop_map(|(name, start, end)| Entity::Deployment(Deployment { name, description: None, start, end }))
                .boxed(),
            EntityKind::House => (ids(wrap), name(), date())
                .prop_map(|(deployment, address, start)| Entity::House(House { deployment, address, start, end: None }))
                .boxed(),
            EntityKind::Location => {
                (ids(wrap), ids(wrap)).prop_map(|(house, room)| Entity::Location(Location { house, room })).boxed()
            }
            EntityKind::NodeType | EntityKind::Sensor => name()
                .prop_map(|name| {
                    Entity::NodeType(NodeType {
                        name,
                        time: None,
                        seq: None,
                        updated_seq: None,
                        period: None,
                        blink: None,
                        configured: None,
                    })
                })
                .boxed(),
            EntityKind::Node => {
                (ids(wrap), ids(wrap)).prop_map(|(location, node_type)| Entity::Node(Node { location, node_type })).boxed()
            }
        }
    }

    fn of_kind<I: std::fmt::Debug + Copy + 'static>(
        kind: EntityKind,
        wrap: fn(i64) -> I,
    ) -> impl Strategy<Value = Vec<(i64, Entity<I>)>> {
        prop::collection::btree_map(1..6_i64, entity(kind, wrap), 0..5).prop_map(|all| all.into_iter().collect())
    }

    /// All kinds but sensors, with dangling references among them.
    fn both_sides() -> impl Strategy<Value = Vec<(EntityKind, Catalog, Vec<RemoteEntity>)>> {
        EntityKind::ALL[..8]
            .iter()
            .map(|&kind| {
                (of_kind(kind, LocalId), of_kind(kind, RemoteId)).prop_map(move |(here, there)| {
                    (kind, catalog(kind, here), there.into_iter().map(|(id, entity)| remote(id, entity)).collect())
                })
            })
            .collect::<Vec<_>>()
    }

    /// Carries a plan out on a list that stands for the server; gives the mappings.
    fn carry_out(kind: EntityKind, captured: &Catalog, server: &mut Vec<RemoteEntity>, mappings: &mut Mappings) -> usize {
        let plan = plan(kind, captured, server, mappings, &Mappings::default());
        let changes = plan.create.len() + plan.update.len();
        for (_, entity) in plan.update {
            server.retain(|one| one.id != entity.id);
            server.push(entity);
        }
        for what in plan.create {
            let id = if kind.has_global_id() { what.id.0 } else { 1 + server.iter().map(|one| one.id.0).max().unwrap_or(0) };
            let entity = translated(what, &captured[&what], mappings).expect("what waits is not created");
            server.push(remote(id, entity));
            mappings.insert(what, RemoteId(id));
        }
        for (what, id) in plan.mapped {
            mappings.insert(what, id);
        }
        changes
    }

    proptest! {
        #[test]
        fn a_plan_carried_out_leaves_nothing_to_do_and_maps_nothing_to_another_identity(sides in both_sides()) {
            let mut mappings = Mappings::default();
            for (kind, captured, mut server) in sides {
                carry_out(kind, &captured, &mut server, &mut mappings);
                // The second look finds what shares an identity with something created in the first.
                prop_assert_eq!(carry_out(kind, &captured, &mut server, &mut mappings), 0);
                let again = plan(kind, &captured, &server, &mappings, &Mappings::default());
                prop_assert!(again.create.is_empty() && again.update.is_empty(), "{again:?}");
                prop_assert_eq!(again.mapped.len() + again.held.len(), captured.len());
                for (what, id) in again.mapped {
                    let there = server.iter().find(|one| one.id == id).expect("mapped to something that is there");
                    if let Ok(ours) = translated(what, &captured[&what], &mappings) {
                        prop_assert_eq!(Identity::of(&ours), Identity::of(&there.entity));
                    } else {
                        prop_assert_eq!(kind, EntityKind::Room);
                    }
                    prop_assert!(!kind.has_global_id() || id.0 == what.id.0);
                    prop_assert_eq!(conflict(&captured[&what], &there.entity), None);
                }
            }
        }
    }
}
