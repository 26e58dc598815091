//! The plan against a model of a server, with chance on both sides: what is captured and what is there, then changes on both sides, twice.

use std::collections::BTreeSet;

use proptest::{collection::btree_map, option, prelude::*, sample::select};

use super::{
    Given, Known, Plan,
    follow::as_brought,
    identity::{Identity, conflict},
    plan,
    plan::{awaited_type, translated},
    sensors::plan_sensors,
};
use crate::{
    domain::{
        Brought, Catalog, Deployment, Entity, EntityKind, House, LocalId, LocalRef, Location, Mappings, Micros, Node, NodeType,
        RemoteId, Room, RoomType, Sensor, SensorType,
    },
    ports::RemoteEntity,
};

/// All kinds that a plan is made for; sensors have their own.
const PLANNED: &[EntityKind] = EntityKind::ALL.split_at(8).0;

const LONG: &str = "255 characters: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Few, so that they meet; odd ones among them.
const NAMES: &[Option<&str>] =
    &[None, Some(""), Some("Loft"), Some("loft "), Some("Attic"), Some("Straße_1*"), Some("50% + #2"), Some(LONG)];

fn name() -> impl Strategy<Value = Option<String>> {
    select(NAMES).prop_map(|name| name.map(str::to_owned))
}

fn date() -> impl Strategy<Value = Option<Micros>> {
    option::of((0..2_i64).prop_map(Micros))
}

/// Content of every kind with references of one kind of id.
fn entity<I: std::fmt::Debug + Copy + 'static>(kind: EntityKind, wrap: fn(i64) -> I) -> BoxedStrategy<Entity<I>> {
    let id = move || option::of((1..4_i64).prop_map(wrap));
    let meaning = || select(&["CO2", "co2 ", "VOC"][..]).prop_map(|name| Some(name.to_owned()));
    match kind {
        EntityKind::SensorType => (meaning(), select(&[None, Some("ppm"), Some("ppb")][..]))
            .prop_map(|(name, units)| {
                let units = units.map(str::to_owned);
                Entity::SensorType(SensorType { name, code: None, units, coefficients: [None; 4] })
            })
            .boxed(),
        EntityKind::NodeType => meaning()
            .prop_map(|name| {
                let (time, seq, updated_seq, period, blink, configured) = (None, None, None, None, None, None);
                Entity::NodeType(NodeType { name, time, seq, updated_seq, period, blink, configured })
            })
            .boxed(),
        EntityKind::RoomType => name().prop_map(|name| Entity::RoomType(RoomType { name })).boxed(),
        EntityKind::Room => (id(), name()).prop_map(|(room_type, name)| Entity::Room(Room { room_type, name })).boxed(),
        EntityKind::Deployment => (name(), name(), date())
            .prop_map(|(name, description, end)| Entity::Deployment(Deployment { name, description, start: None, end }))
            .boxed(),
        EntityKind::House => (id(), name(), date())
            .prop_map(|(deployment, address, end)| Entity::House(House { deployment, address, start: None, end }))
            .boxed(),
        EntityKind::Location => (id(), id()).prop_map(|(house, room)| Entity::Location(Location { house, room })).boxed(),
        EntityKind::Node => (id(), id()).prop_map(|(location, node_type)| Entity::Node(Node { location, node_type })).boxed(),
        EntityKind::Sensor => (id(), id(), 0..3_u8)
            .prop_map(|(sensor_type, node, slope)| {
                let calibration_slope = Some(f32::from(slope));
                Entity::Sensor(Sensor { sensor_type, node, calibration_slope, calibration_offset: None })
            })
            .boxed(),
    }
}

/// Entities with their kinds and ids.
pub(super) type Side<I> = Vec<(EntityKind, i64, Entity<I>)>;

/// Some entities of every kind, at most so many of each.
pub(super) fn side<I: std::fmt::Debug + Copy + 'static>(wrap: fn(i64) -> I, most: usize) -> impl Strategy<Value = Side<I>> {
    let of_kind = move |kind: &EntityKind| {
        let kind = *kind;
        btree_map(1..6_i64, entity(kind, wrap), 0..=most).prop_map(move |all| all.into_iter().map(move |(id, it)| (kind, id, it)))
    };
    EntityKind::ALL.iter().map(of_kind).collect::<Vec<_>>().prop_map(|kinds| kinds.into_iter().flatten().collect())
}

/// Both ends and what is known of the other one.
#[derive(Default)]
struct World {
    captured: Catalog,
    central: Vec<(EntityKind, RemoteEntity)>,
    mappings: Mappings,
    brought: Brought,
    held: BTreeSet<LocalRef>,
    takes_updates: bool,
    refused: Brought,
}

impl World {
    /// What is captured is never forgotten; it changes or comes in addition.
    fn change_here(&mut self, side: Side<LocalId>) {
        self.captured.extend(side.into_iter().map(|(kind, id, entity)| (LocalRef { kind, id: LocalId(id) }, entity)));
    }

    fn change_there(&mut self, side: Side<RemoteId>) {
        for (kind, id, entity) in side {
            self.put(kind, RemoteEntity { id: RemoteId(id), entity });
        }
    }

    fn put(&mut self, kind: EntityKind, one: RemoteEntity) {
        self.central.retain(|(of, there)| *of != kind || there.id != one.id);
        self.central.push((kind, one));
    }

    fn there(&self, kind: EntityKind) -> Vec<RemoteEntity> {
        self.central.iter().filter(|(of, _)| *of == kind).map(|(_, one)| one.clone()).collect()
    }

    fn get(&self, kind: EntityKind, id: RemoteId) -> Option<&Entity<RemoteId>> {
        self.central.iter().find(|(of, one)| *of == kind && one.id == id).map(|(_, one)| &one.entity)
    }

    /// Carries plans out as a sync of everything does; gives how often it wrote.
    fn sync(&mut self) -> Result<usize, TestCaseError> {
        let (known, brought) = (std::mem::take(&mut self.mappings), self.brought.clone());
        self.held.clear();
        let mut writes = 0;
        for &kind in PLANNED {
            let mut open: BTreeSet<_> = self.captured.keys().copied().filter(|what| what.kind == kind).collect();
            for round in 0.. {
                prop_assert!(round < 10, "it comes to an end");
                let there = self.there(kind);
                let known = Known { mappings: &known, brought: &brought };
                let given = Given { captured: &self.captured, central: &there, mappings: &self.mappings, known };
                let plan = plan(kind, &open, &given);
                let is_last = plan.create.is_empty() && plan.update.is_empty();
                writes += self.carry_out(kind, plan, &mut open)?;
                if is_last || open.is_empty() {
                    break;
                }
            }
            prop_assert!(open.is_empty(), "each is mapped or held: {open:?}");
        }
        let gone: Vec<_> = known.iter().map(|(what, _)| what).filter(|what| !self.mappings.contains(*what)).collect();
        for what in gone {
            self.brought.remove(&what);
        }
        Ok(writes + self.sync_sensors(&known))
    }

    fn carry_out(&mut self, kind: EntityKind, plan: Plan, open: &mut BTreeSet<LocalRef>) -> Result<usize, TestCaseError> {
        let mut writes = 0;
        let mut behind = BTreeSet::new();
        for (what, one) in plan.update {
            if let Some(Entity::House(House { deployment: Some(of), .. })) = self.get(kind, one.id) {
                prop_assert!(
                    self.mappings.iter().any(|(what, id)| what.kind == EntityKind::Deployment && id == *of),
                    "{what} takes over a house of another deployment"
                );
            }
            if self.takes_updates {
                self.put(kind, one);
                writes += 1;
            } else {
                behind.insert(what);
                writes += usize::from(self.refused.insert(what, one.entity.clone()) != Some(one.entity));
            }
        }
        for held in plan.held {
            open.remove(&held.what);
            self.held.insert(held.what);
        }
        for (what, id) in plan.mapped {
            open.remove(&what);
            let now = as_brought(what, &self.captured[&what], &self.mappings, self.brought.get(&what));
            if let Some(now) = now.filter(|_| !behind.contains(&what)) {
                self.brought.insert(what, now);
            }
            self.mappings.insert(what, id);
        }
        for what in plan.create {
            open.remove(&what);
            let entity = translated(what, &self.captured[&what], &self.mappings)
                .map_err(|held| TestCaseError::fail(format!("created while it waits: {held:?}")))?;
            let there = self.there(kind);
            if let Some(identity) = Identity::of(&entity) {
                let twin = there.iter().find(|one| Identity::of(&one.entity).as_ref() == Some(&identity));
                prop_assert!(twin.is_none(), "{what} is made a second time beside {twin:?}");
            }
            let id = if kind.has_global_id() { what.id.0 } else { 1 + there.iter().map(|one| one.id.0).max().unwrap_or(0) };
            prop_assert!(self.get(kind, RemoteId(id)).is_none(), "{what} is made where one is");
            if as_brought(what, &self.captured[&what], &self.mappings, None).is_some() {
                self.brought.insert(what, entity.clone());
            }
            self.put(kind, RemoteEntity { id: RemoteId(id), entity });
            self.mappings.insert(what, RemoteId(id));
            writes += 1;
        }
        Ok(writes)
    }

    /// The sensors of each node; those of a node that was made just now are new.
    fn sync_sensors(&mut self, known: &Mappings) -> usize {
        let mut writes = 0;
        let nodes: Vec<_> = self.mappings.iter().filter(|(what, _)| what.kind == EntityKind::Node).collect();
        for (node, id) in nodes {
            if !known.contains(node) {
                self.brought
                    .retain(|what, _| !matches!(self.captured.get(what), Some(Entity::Sensor(it)) if it.node == Some(node.id)));
            }
            let mut ours = std::collections::BTreeMap::new();
            for (what, entity) in &self.captured {
                if let (Entity::Sensor(sensor), Ok(Entity::Sensor(there))) = (entity, translated(*what, entity, &self.mappings))
                    && sensor.node == Some(node.id)
                {
                    ours.insert(there.sensor_type, (*what, Entity::Sensor(there)));
                }
            }
            let ours: Vec<_> = ours.into_values().filter(|(what, now)| self.brought.get(what) != Some(now)).collect();
            let of_node = |one: &RemoteEntity| matches!(&one.entity, Entity::Sensor(sensor) if sensor.node == Some(id));
            let there: Vec<_> = self.there(EntityKind::Sensor).into_iter().filter(of_node).collect();
            let plan = plan_sensors(&ours, &there, &self.brought);
            writes += plan.add.len() + plan.update.len();
            for (_, one) in plan.update {
                self.put(EntityKind::Sensor, one);
            }
            for (what, now) in ours {
                if plan.add.contains(&what) {
                    let next = 100 + self.central.len() as i64;
                    self.put(EntityKind::Sensor, RemoteEntity { id: RemoteId(next), entity: now.clone() });
                }
                self.brought.insert(what, now);
            }
        }
        writes
    }

    /// What must hold after every sync.
    fn assert_sound(&self) -> Result<(), TestCaseError> {
        for (what, entity) in self.captured.iter().filter(|(what, _)| what.kind != EntityKind::Sensor) {
            let Some(id) = self.mappings.get(*what) else {
                prop_assert!(self.held.contains(what), "{what} is neither mapped nor held");
                continue;
            };
            let Some(there) = self.get(what.kind, id) else {
                return Err(TestCaseError::fail(format!("{what} is mapped to {id}, which is not there")));
            };
            prop_assert!(!what.kind.has_global_id() || id.0 == what.id.0);
            prop_assert_eq!(conflict(entity, there), None, "{} is mapped in spite of a conflict", what);
            if let Entity::Node(node) = entity {
                prop_assert_eq!(awaited_type(node, &self.captured, &self.mappings), None, "{} has a type in conflict", what);
            }
            let Ok(ours) = translated(*what, entity, &self.mappings) else {
                prop_assert_eq!(what.kind, EntityKind::Room, "only a room may be found while its type waits");
                continue;
            };
            let is_same = Identity::of(&ours) == Identity::of(there);
            let before = self.brought.get(what).filter(|_| !self.takes_updates).and_then(Identity::of);
            prop_assert!(is_same || before.is_some() && before == Identity::of(there), "{what} is mapped to {there:?}");
        }
        let mut sensors = BTreeSet::new();
        for (_, one) in self.central.iter().filter(|(kind, one)| *kind == EntityKind::Sensor && one.id.0 >= 100) {
            if let Entity::Sensor(sensor) = &one.entity {
                prop_assert!(sensors.insert((sensor.node, sensor.sensor_type)), "two sensors of one node and type were made");
            }
        }
        Ok(())
    }

    /// Makes the types mean there what they mean here.
    fn mend(&mut self) {
        for (what, entity) in self.captured.clone() {
            if matches!(what.kind, EntityKind::SensorType | EntityKind::NodeType)
                && let Ok(entity) = translated(what, &entity, &Mappings::default())
            {
                self.put(what.kind, RemoteEntity { id: RemoteId::from(what.id), entity });
            }
        }
    }
}

/// So many, or twenty times as many in the long suites.
pub(super) fn cases(usually: u32) -> u32 {
    if std::env::var_os("PACKHORSE_LONG").is_some() { 20 * usually } else { usually }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(10_000), failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_on_both_sides_a_second_sync_writes_nothing_and_nothing_is_mapped_to_another(
        here in side(LocalId, 3),
        there in side(RemoteId, 3),
        changes in (side(LocalId, 2), side(RemoteId, 1)),
        takes_updates in any::<bool>(),
    ) {
        let mut world = World { takes_updates, ..World::default() };
        world.change_here(here);
        world.change_there(there);
        world.sync()?;
        world.assert_sound()?;
        prop_assert_eq!(world.sync()?, 0);
        world.change_here(changes.0);
        world.change_there(changes.1);
        world.sync()?;
        world.assert_sound()?;
        prop_assert_eq!(world.sync()?, 0);
        world.mend();
        world.sync()?;
        world.assert_sound()?;
        let types = |what: &&LocalRef| matches!(what.kind, EntityKind::SensorType | EntityKind::NodeType | EntityKind::Node);
        prop_assert_eq!(world.held.iter().find(types), None, "a conflict ends when it is mended");
        prop_assert_eq!(world.sync()?, 0);
    }
}
