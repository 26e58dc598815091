use super::*;
use crate::domain::{Deployment, Location, Micros, NodeType, Room, RoomType, SensorType};

/// Plans everything captured, with ids known from before and nothing known as brought.
fn planned(kind: EntityKind, captured: &Catalog, central: &[RemoteEntity], mappings: &Mappings, known: &Mappings) -> Plan {
    let known = Known { mappings: known, brought: &Brought::new() };
    planned_after(kind, captured, central, mappings, known)
}

fn planned_after(kind: EntityKind, captured: &Catalog, central: &[RemoteEntity], mappings: &Mappings, known: Known<'_>) -> Plan {
    let open = captured.keys().copied().filter(|what| what.kind == kind).collect();
    plan(kind, &open, &Given { captured, central, mappings, known })
}

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
    let plan = planned(EntityKind::RoomType, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::RoomType, 1), RemoteId(2)), (local(EntityKind::RoomType, 2), RemoteId(1))]);
    assert_eq!((plan.create.len(), plan.held.len(), plan.notes.len()), (0, 0, 0));
}

#[test]
fn among_several_the_exact_one_wins_and_then_the_oldest() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Loft")))]);
    let central = [5, 9, 3, 7].map(|id| remote(id, room_type(Some(if id == 3 { "loft" } else { "Loft" }))));
    let plan = planned(EntityKind::RoomType, &captured, &central, &Mappings::default(), &Mappings::default());
    assert_eq!(plan.mapped, [(local(EntityKind::RoomType, 1), RemoteId(5))]);
    assert!(plan.notes[0].contains("4 times"), "{:?}", plan.notes);
}

#[test]
fn among_several_the_one_that_rows_went_to_before_stays() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Loft")))]);
    let central = [5, 9, 3, 7].map(|id| remote(id, room_type(Some(if id == 3 { "loft" } else { "Loft" }))));
    for (before, now) in [(9, 9), (3, 3), (4, 5)] {
        let known = mappings(&[(EntityKind::RoomType, 1, before)]);
        let plan = planned(EntityKind::RoomType, &captured, &central, &Mappings::default(), &known);
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
    assert_eq!(planned(EntityKind::Room, &captured, &others, &known, &Mappings::default()).create, [local(EntityKind::Room, 1)]);
    let all = [others.as_slice(), &[same]].concat();
    assert_eq!(
        planned(EntityKind::Room, &captured, &all, &known, &Mappings::default()).mapped,
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
    let plan = planned(EntityKind::SensorType, &captured, &central, &Mappings::default(), &Mappings::default());
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
    let plan = planned(EntityKind::NodeType, &captured, &central, &Mappings::default(), &Mappings::default());
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
    let plan = planned(EntityKind::House, &captured, &central, &known, &Mappings::default());
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
        planned(EntityKind::Location, &captured, &central, &known, &Mappings::default()).create,
        [local(EntityKind::Location, 1)]
    );
    let central = [remote(1, location(5, Some(1))), remote(3, location(5, None))];
    assert_eq!(
        planned(EntityKind::Location, &captured, &central, &known, &Mappings::default()).mapped,
        [(local(EntityKind::Location, 1), RemoteId(3))]
    );
}

#[test]
fn of_two_local_entities_with_one_identity_only_one_is_created() {
    let captured = catalog(EntityKind::RoomType, [(1, room_type(Some("Loft"))), (2, room_type(Some("loft")))]);
    assert_eq!(
        planned(EntityKind::RoomType, &captured, &[], &Mappings::default(), &Mappings::default()).create,
        [local(EntityKind::RoomType, 1)]
    );
}

#[test]
fn a_room_is_found_by_name_although_its_type_is_not_mapped() {
    let room = |name: &str| Entity::Room(Room { room_type: Some(LocalId(9)), name: Some(name.to_owned()) });
    let captured = catalog(EntityKind::Room, [(1, room("Loft")), (2, room("Attic"))]);
    let central = [remote(4, Entity::Room(Room { room_type: Some(RemoteId(1)), name: Some("Loft".to_owned()) }))];
    let plan = planned(EntityKind::Room, &captured, &central, &Mappings::default(), &Mappings::default());
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
    let plan = planned(EntityKind::Node, &captured, &central, &known, &Mappings::default());
    assert_eq!(plan.mapped.len(), 4);
    assert_eq!(plan.update, [(local(EntityKind::Node, 2), there(2, Some(11), Some(1)))]);
    // Node 5 is made although neither its location nor its type is mapped: its node states need only the node.
    assert_eq!((plan.create, plan.held), (vec![local(EntityKind::Node, 5)], Vec::new()));
}

mod renamed {
    //! Deployments and houses that were brought there, and were renamed or changed since, on either side.

    use super::*;

    fn pilot<I>(name: &str, description: Option<&str>) -> Entity<I> {
        let (name, description) = (Some(name.to_owned()), description.map(str::to_owned));
        Entity::Deployment(Deployment { name, description, start: None, end: None })
    }

    /// Plans one deployment that was brought under the id 7 as "Pilot".
    fn after(now: Entity<LocalId>, central: &[RemoteEntity]) -> Plan {
        let captured = catalog(EntityKind::Deployment, [(1, now)]);
        let brought = Brought::from([(local(EntityKind::Deployment, 1), pilot("Pilot", None))]);
        let known = mappings(&[(EntityKind::Deployment, 1, 7)]);
        let known = Known { mappings: &known, brought: &brought };
        planned_after(EntityKind::Deployment, &captured, central, &Mappings::default(), known)
    }

    #[test]
    fn what_was_renamed_here_keeps_its_mapping_and_its_new_name_follows() {
        let plan = after(pilot("Phase 2", None), &[remote(7, pilot("pilot ", Some("theirs")))]);
        assert_eq!(plan.mapped, [(local(EntityKind::Deployment, 1), RemoteId(7))]);
        assert_eq!(plan.update, [(local(EntityKind::Deployment, 1), remote(7, pilot("Phase 2", Some("theirs"))))]);
        assert_eq!((plan.create.len(), plan.held.len()), (0, 0));
    }

    #[test]
    fn an_id_that_stands_for_something_else_now_is_never_trusted() {
        for now in ["Pilot", "Phase 2"] {
            let plan = after(pilot(now, None), &[remote(7, pilot("Other", None))]);
            assert_eq!((plan.mapped.len(), plan.update.len()), (0, 0), "{now}");
            assert_eq!(plan.create, [local(EntityKind::Deployment, 1)]);
            assert!(plan.notes[0].contains("\"Other\""), "{:?}", plan.notes);
        }
    }

    #[test]
    fn what_has_the_new_name_there_already_is_the_one() {
        let plan = after(pilot("Phase 2", None), &[remote(7, pilot("Pilot", None)), remote(9, pilot("PHASE 2", None))]);
        assert_eq!(plan.mapped, [(local(EntityKind::Deployment, 1), RemoteId(9))]);
        assert_eq!((plan.update.len(), plan.create.len()), (0, 0));
    }

    #[test]
    fn a_name_that_something_else_here_took_over_takes_the_central_entity_with_it() {
        let captured = catalog(EntityKind::Deployment, [(1, pilot("Phase 2", None)), (2, pilot("Pilot", None))]);
        let brought = Brought::from([(local(EntityKind::Deployment, 1), pilot("Pilot", None))]);
        let known = mappings(&[(EntityKind::Deployment, 1, 7)]);
        let known = Known { mappings: &known, brought: &brought };
        let central = [remote(7, pilot("Pilot", None))];
        let plan = planned_after(EntityKind::Deployment, &captured, &central, &Mappings::default(), known);
        assert_eq!(plan.mapped, [(local(EntityKind::Deployment, 2), RemoteId(7))]);
        assert_eq!((plan.update.len(), plan.create), (0, vec![local(EntityKind::Deployment, 1)]));
    }

    #[test]
    fn a_description_that_changed_here_follows_and_one_that_differs_there_stays() {
        let there = [remote(7, pilot("Pilot", Some("theirs")))];
        assert_eq!(after(pilot("Pilot", None), &there).update, []);
        let plan = after(pilot("Pilot", Some("ours")), &there);
        assert_eq!(plan.update, [(local(EntityKind::Deployment, 1), remote(7, pilot("Pilot", Some("ours"))))]);
    }

    #[test]
    fn a_house_that_moved_to_another_deployment_here_stays_the_same_house() {
        let captured = catalog(EntityKind::House, [(3, house(Some(LocalId(2)), Some("Mill Lane")))]);
        let now = mappings(&[(EntityKind::Deployment, 1, 10), (EntityKind::Deployment, 2, 20)]);
        let brought = Brought::from([(local(EntityKind::House, 3), house(Some(RemoteId(10)), Some("Mill Lane")))]);
        let known = mappings(&[(EntityKind::Deployment, 1, 10), (EntityKind::House, 3, 30)]);
        let known = Known { mappings: &known, brought: &brought };
        let central = [remote(30, house(Some(RemoteId(10)), Some("Mill Lane")))];
        let plan = planned_after(EntityKind::House, &captured, &central, &now, known);
        assert_eq!(plan.update, [(local(EntityKind::House, 3), remote(30, house(Some(RemoteId(20)), Some("Mill Lane"))))]);
    }

    #[test]
    fn a_house_of_that_address_in_another_deployment_under_the_old_id_is_another_house() {
        let captured = catalog(EntityKind::House, [(3, house(Some(LocalId(1)), Some("Mill Lane")))]);
        // The centre was rebuilt: deployment 1 was 10 there and is 20 now, and 10 is somebody else's.
        let now = mappings(&[(EntityKind::Deployment, 1, 20)]);
        let brought = Brought::from([(local(EntityKind::House, 3), house(Some(RemoteId(10)), Some("Mill Lane")))]);
        let known = mappings(&[(EntityKind::Deployment, 1, 10), (EntityKind::House, 3, 30)]);
        let known = Known { mappings: &known, brought: &brought };
        let central = [remote(30, house(Some(RemoteId(10)), Some("Mill Lane")))];
        let plan = planned_after(EntityKind::House, &captured, &central, &now, known);
        assert_eq!((plan.mapped.len(), plan.update.len(), plan.create), (0, 0, vec![local(EntityKind::House, 3)]));
    }

    #[test]
    fn of_two_of_ours_that_stood_for_one_and_were_both_renamed_only_the_first_takes_it_along() {
        let (mill, nowhere) = (house(Some(RemoteId(10)), Some("Mill Lane")), house(Some(RemoteId(10)), None));
        let cases = [
            (&mill, house(Some(LocalId(1)), Some("Loft")), house(Some(LocalId(1)), Some("Attic"))),
            (&mill, house(Some(LocalId(2)), Some("Mill Lane")), house(Some(LocalId(1)), Some("Attic"))),
            (&mill, house(Some(LocalId(2)), Some("Mill Lane")), house(Some(LocalId(1)), None)),
            (&nowhere, house(Some(LocalId(1)), Some("Loft")), house(Some(LocalId(2)), None)),
            (&nowhere, house(Some(LocalId(2)), None), house(None, None)),
        ];
        let now = mappings(&[(EntityKind::Deployment, 1, 10), (EntityKind::Deployment, 2, 20)]);
        let known = mappings(&[(EntityKind::Deployment, 1, 10), (EntityKind::House, 3, 30), (EntityKind::House, 4, 30)]);
        for (before, first, second) in cases {
            let brought = [3, 4].map(|id| (local(EntityKind::House, id), before.clone())).into();
            let known = Known { mappings: &known, brought: &brought };
            let context = format!("{first:?} and {second:?}");
            let renamed = translated(local(EntityKind::House, 3), &first, &now).unwrap();
            let captured = catalog(EntityKind::House, [(3, first), (4, second)]);
            let plan = planned_after(EntityKind::House, &captured, &[remote(30, before.clone())], &now, known);
            assert_eq!(plan.mapped, [(local(EntityKind::House, 3), RemoteId(30))], "{context}");
            assert_eq!(plan.update, [(local(EntityKind::House, 3), remote(30, renamed))], "{context}");
            assert_eq!(plan.create, [local(EntityKind::House, 4)], "{context}");
        }
    }

    #[test]
    fn what_is_there_under_a_name_that_another_has_here_is_not_renamed() {
        // The centre keeps `?` for a letter that it lacks, and something else here is called so.
        let captured = catalog(EntityKind::Deployment, [(1, pilot("Phase 2", None)), (2, pilot("?", None))]);
        let brought = Brought::from([(local(EntityKind::Deployment, 1), pilot("Ł", None))]);
        let known = mappings(&[(EntityKind::Deployment, 1, 7)]);
        let known = Known { mappings: &known, brought: &brought };
        let plan = planned_after(EntityKind::Deployment, &captured, &[remote(7, pilot("?", None))], &Mappings::default(), known);
        assert_eq!(plan.mapped, [(local(EntityKind::Deployment, 2), RemoteId(7))]);
        assert_eq!((plan.update.len(), plan.create), (0, vec![local(EntityKind::Deployment, 1)]));
    }

    #[test]
    fn two_of_ours_that_stand_for_one_do_not_undo_each_others_changes() {
        let with = |description: Option<&str>, end: Option<i64>| Deployment {
            name: Some("Pilot".into()),
            description: description.map(str::to_owned),
            start: None,
            end: end.map(Micros),
        };
        let captured = catalog(
            EntityKind::Deployment,
            [(1, Entity::Deployment(with(Some("new"), None))), (2, Entity::Deployment(with(None, Some(9))))],
        );
        let brought = [1, 2].map(|id| (local(EntityKind::Deployment, id), Entity::Deployment(with(None, None)))).into();
        let known = mappings(&[(EntityKind::Deployment, 1, 7), (EntityKind::Deployment, 2, 7)]);
        let known = Known { mappings: &known, brought: &brought };
        let central = [remote(7, Entity::Deployment(with(None, None)))];
        let plan = planned_after(EntityKind::Deployment, &captured, &central, &Mappings::default(), known);
        let (_, last) = plan.update.last().unwrap();
        assert_eq!(*last, remote(7, Entity::Deployment(with(Some("new"), Some(9)))));
    }
}

mod odd {
    //! Each oddity that names may have, by itself.

    use super::*;

    #[test]
    fn an_address_is_compared_as_mysql_compares_whatever_it_holds() {
        let long = "x".repeat(255);
        let pairs = [
            ("a_b", "A_B", true),
            ("a_b", "axb", false),
            ("a*", "a*  ", true),
            ("a*", "abc", false),
            ("50% + #2", "50% + #2", true),
            ("50%", "50x", false),
            ("Straße 2", "STRAßE 2", true),
            ("Straße 2", "Strasse 2", false),
            (" a", "a", false),
            (&long, &long.to_uppercase(), true),
            (&long, &long[1..], false),
            ("None", "none", true),
        ];
        for (here, there, is_same) in pairs {
            let captured = catalog(EntityKind::House, [(1, house(None, Some(here)))]);
            let central = [remote(7, house(None, Some(there)))];
            let plan = planned(EntityKind::House, &captured, &central, &Mappings::default(), &Mappings::default());
            assert_eq!((plan.mapped.len() == 1, plan.create.len() == 1), (is_same, !is_same), "{here} / {there}");
        }
    }

    #[test]
    fn a_room_that_waits_for_its_type_is_no_longer_held_when_one_of_its_name_is_about_to_be_made() {
        let room = |room_type: Option<i64>| Entity::Room(Room { room_type: room_type.map(LocalId), name: Some("Loft".into()) });
        let captured = catalog(EntityKind::Room, [(1, room(Some(9))), (2, room(None))]);
        let plan = planned(EntityKind::Room, &captured, &[], &Mappings::default(), &Mappings::default());
        assert_eq!((plan.create, plan.held), (vec![local(EntityKind::Room, 2)], Vec::new()));
    }

    /// Deployments that were brought as "Pilot" under 7, and are something else now.
    fn renamed(now: [Deployment; 2], there: Deployment) -> Plan {
        let pilot = Deployment { name: Some("Pilot".into()), description: None, start: None, end: None };
        let [first, second] = now;
        let captured = catalog(EntityKind::Deployment, [(1, Entity::Deployment(first)), (2, Entity::Deployment(second))]);
        let brought = Brought::from([(local(EntityKind::Deployment, 1), Entity::Deployment(pilot))]);
        let known = mappings(&[(EntityKind::Deployment, 1, 7)]);
        let known = Known { mappings: &known, brought: &brought };
        let central = [remote(7, Entity::Deployment(there))];
        planned_after(EntityKind::Deployment, &captured, &central, &Mappings::default(), known)
    }

    fn deployment(name: Option<&str>, end: Option<i64>) -> Deployment {
        Deployment { name: name.map(str::to_owned), description: None, start: None, end: end.map(Micros) }
    }

    #[test]
    fn what_lost_its_name_here_is_known_by_all_the_rest_and_takes_all_of_it_there() {
        let plan = renamed([deployment(None, None), deployment(Some("other"), None)], deployment(Some("Pilot"), Some(5)));
        assert_eq!(plan.update, [(local(EntityKind::Deployment, 1), remote(7, Entity::Deployment(deployment(None, None))))]);
    }

    #[test]
    fn what_takes_a_name_that_another_has_here_is_not_renamed_but_joins_it() {
        let twins = [deployment(Some("Phase 2"), None), deployment(Some("phase 2"), None)];
        let plan = renamed(twins, deployment(Some("Pilot"), None));
        assert_eq!((plan.update.len(), plan.mapped.len(), plan.create.len()), (0, 0, 1));
    }
}
