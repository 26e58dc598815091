//! Whether mappings that somebody else kept are right: each is held against both ends, by content.
//!
//! The one rule: a mapping is right only when the central entity is there and is the same one by the identity that the catalog sync uses.
//! Whatever cannot be shown to be so is not taken over; the sync finds the ids itself.

use std::collections::{BTreeSet, HashMap};

use super::{
    identity::{Identity, name},
    plan::translated,
};
use crate::{
    domain::{Catalog, Entity, EntityKind, LocalRef, Mappings, Outcome, RemoteId, Room},
    ports::{Ask, RemoteEntity, Sink},
};

/// The kinds that are known by their content, each after those that it points to.
const KINDS: [EntityKind; 5] =
    [EntityKind::RoomType, EntityKind::Room, EntityKind::Deployment, EntityKind::House, EntityKind::Location];

/// How a mapping stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The same entity on both sides.
    Right,
    /// The source has no such entity.
    NotHere,
    /// Another entity, or none, is there under that id.
    Wrong {
        /// What is wrong, for people: `room 31 is "Bedroom" here; there 31 is "Loft"`.
        why: String,
        /// The id under which the entity is there.
        instead: Option<RemoteId>,
    },
}

/// What a destination has of the kinds that are known by their content.
#[derive(Clone, Debug, Default)]
pub struct Central(HashMap<EntityKind, Vec<RemoteEntity>>);

impl Central {
    /// Everything of a kind.
    fn of(&self, kind: EntityKind) -> &[RemoteEntity] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// What is there under an id.
    fn get(&self, kind: EntityKind, id: RemoteId) -> Option<&RemoteEntity> {
        self.of(kind).iter().find(|entity| entity.id == id)
    }
}

impl FromIterator<RemoteEntity> for Central {
    fn from_iter<T: IntoIterator<Item = RemoteEntity>>(entities: T) -> Self {
        let mut central = Self::default();
        for entity in entities {
            central.0.entry(entity.entity.kind()).or_default().push(entity);
        }
        central
    }
}

/// Asks a destination for what [`confirm`] needs: four short lists, and the locations of each house that is there.
///
/// # Errors
/// The outcome of the first call that failed.
pub async fn look(sink: &dyn Sink, source: &Catalog) -> Result<Central, Outcome> {
    let mut central = Central::default();
    for kind in [EntityKind::RoomType, EntityKind::Room, EntityKind::Deployment] {
        central.0.insert(kind, sink.find(&Ask::All(kind)).await?);
    }
    // All of them at once: a filter by an address that is not ASCII is an error on legacy servers.
    central.0.insert(EntityKind::House, sink.find(&Ask::House { deployment: None, address: None }).await?);
    let both = Both::new(source, &central);
    let mut locations = Vec::new();
    for house in central.of(EntityKind::House) {
        let same = both.canonical(EntityKind::House, house.id);
        if both.ours.iter().any(|(what, id)| what.kind == EntityKind::House && id == same) {
            locations.extend(sink.find(&Ask::Location { house: Some(house.id), room: None }).await?);
        }
    }
    central.0.insert(EntityKind::Location, locations);
    Ok(central)
}

/// Holds each mapping against both ends. Pure.
pub fn confirm(pairs: &[(LocalRef, RemoteId)], source: &Catalog, central: &Central) -> Vec<(LocalRef, RemoteId, Standing)> {
    let both = Both::new(source, central);
    let standing = |what: LocalRef, id: RemoteId| {
        let Some(here) = source.get(&what) else { return Standing::NotHere };
        let instead = both.ours.get(what);
        if central.get(what.kind, id).is_some() && instead == Some(both.canonical(what.kind, id)) {
            return Standing::Right;
        }
        let there = match central.get(what.kind, id) {
            Some(there) => {
                format!("there {id} is {}", shown(&there.entity, |kind, id| central.get(kind, id).map(|it| &it.entity)))
            }
            None if what.kind == EntityKind::Location => format!("{id} is no location of that house there"),
            None => format!("there is no {id} there"),
        };
        let here = shown(here, |kind, id| source.get(&LocalRef { kind, id }));
        Standing::Wrong { why: format!("{what} is {here} here; {there}"), instead }
    };
    pairs.iter().map(|&(what, id)| (what, id, standing(what, id))).collect()
}

/// An entity as people know it.
fn shown<'e, I: Copy + 'e>(entity: &'e Entity<I>, get: impl Fn(EntityKind, I) -> Option<&'e Entity<I>>) -> String {
    let named =
        |kind, id: Option<I>| id.and_then(|id| get(kind, id)).and_then(name).map_or("?".to_owned(), |name| format!("{name:?}"));
    match entity {
        Entity::Location(it) => format!("{} of {}", named(EntityKind::Room, it.room), named(EntityKind::House, it.house)),
        Entity::SensorType(_)
        | Entity::RoomType(_)
        | Entity::Room(_)
        | Entity::Deployment(_)
        | Entity::House(_)
        | Entity::NodeType(_)
        | Entity::Node(_)
        | Entity::Sensor(_) => name(entity).map_or("without a name".to_owned(), |name| format!("{name:?}")),
    }
}

/// Both ends brought to one naming: of several central entities with one identity the oldest stands for all.
struct Both {
    /// The entities of the source that are there, with the central id that stands for them.
    ours: Mappings,
    /// The central id that stands for another.
    same: HashMap<(EntityKind, RemoteId), RemoteId>,
}

impl Both {
    fn new(source: &Catalog, central: &Central) -> Self {
        let mut both = Self { ours: Mappings::default(), same: HashMap::new() };
        for kind in KINDS {
            let mut first: HashMap<Identity, RemoteId> = HashMap::new();
            let mut there: Vec<&RemoteEntity> = central.of(kind).iter().collect();
            there.sort_by_key(|entity| entity.id);
            for RemoteEntity { id, entity } in there {
                let Ok(entity) = entity.translate(|kind, id| Ok::<_, std::convert::Infallible>(both.canonical(kind, id)));
                if let Some(identity) = Identity::of(&entity) {
                    both.same.insert((kind, *id), *first.entry(identity).or_insert(*id));
                }
            }
            for (what, entity) in source.iter().filter(|(what, _)| what.kind == kind) {
                let entity = match (translated(*what, entity, &both.ours), entity) {
                    (Ok(entity), _) => entity,
                    // A room is known by its name alone.
                    (Err(_), Entity::Room(room)) if room.name.is_some() => {
                        Entity::Room(Room { room_type: None, name: room.name.clone() })
                    }
                    (Err(_), _) => continue,
                };
                if let Some(id) = Identity::of(&entity).and_then(|identity| first.get(&identity)) {
                    both.ours.insert(*what, *id);
                }
            }
        }
        both
    }

    fn canonical(&self, kind: EntityKind, id: RemoteId) -> RemoteId {
        self.same.get(&(kind, id)).copied().unwrap_or(id)
    }
}

/// Entities with everything that they point to: what must be captured for a mapping to be looked at again.
pub fn with_all_they_need(
    source: &Catalog,
    wanted: impl IntoIterator<Item = LocalRef>,
) -> Vec<(LocalRef, Entity<crate::domain::LocalId>)> {
    let mut open: Vec<LocalRef> = wanted.into_iter().collect();
    let mut found = BTreeSet::new();
    while let Some(what) = open.pop() {
        if let Some(entity) = source.get(&what)
            && found.insert(what)
        {
            open.extend(entity.refers());
        }
    }
    found.into_iter().filter_map(|what| Some((what, source.get(&what)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Deployment, House, LocalId, Location};

    fn local(kind: EntityKind, id: i64) -> LocalRef {
        LocalRef { kind, id: LocalId(id) }
    }

    fn deployment<I>(name: &str) -> Entity<I> {
        Entity::Deployment(Deployment { name: Some(name.into()), description: None, start: None, end: None })
    }

    fn house<I>(deployment: I, address: &str) -> Entity<I> {
        Entity::House(House { deployment: Some(deployment), address: Some(address.into()), start: None, end: None })
    }

    fn room<I>(name: &str) -> Entity<I> {
        Entity::Room(Room { room_type: None, name: Some(name.into()) })
    }

    fn location<I>(house: I, room: I) -> Entity<I> {
        Entity::Location(Location { house: Some(house), room: Some(room) })
    }

    fn source() -> Catalog {
        use EntityKind::{Deployment, House, Location, Room};
        let id = LocalId;
        [
            (local(Deployment, 41), deployment("Pilot")),
            (local(House, 207), house(id(41), "1 Row")),
            (local(House, 203), house(id(41), "2 Row")),
            (local(Room, 31), room("Bedroom")),
            (local(Room, 37), room("Kitchen")),
            (local(Location, 509), location(id(207), id(31))),
            (local(Location, 503), location(id(203), id(37))),
        ]
        .into()
    }

    /// House 1 stands there twice, as 7 and 9; room 31 there is another room.
    fn central() -> Central {
        let id = RemoteId;
        [
            (4, deployment("pilot ")),
            (5, deployment("Other")),
            (7, house(id(4), "1 Row")),
            (9, house(id(4), "1 ROW")),
            (8, house(id(5), "2 Row")),
            (31, room("Loft")),
            (2, room("Bedroom")),
            (3, room("Kitchen")),
            (60, location(id(9), id(2))),
            (61, location(id(7), id(3))),
        ]
        .map(|(id, entity)| RemoteEntity { id: RemoteId(id), entity })
        .into_iter()
        .collect()
    }

    fn standing(kind: EntityKind, id: i64, to: i64) -> Standing {
        confirm(&[(local(kind, id), RemoteId(to))], &source(), &central()).remove(0).2
    }

    #[test]
    fn the_same_entity_under_another_id_is_right_and_so_is_its_double() {
        for (kind, id, to) in [
            (EntityKind::Deployment, 41, 4),
            (EntityKind::House, 207, 7),
            (EntityKind::House, 207, 9),
            (EntityKind::Room, 31, 2),
            (EntityKind::Location, 509, 60),
        ] {
            assert_eq!(standing(kind, id, to), Standing::Right, "{kind} {id}");
        }
    }

    #[test]
    fn an_equal_id_of_another_entity_is_wrong_and_the_right_id_is_told() {
        let Standing::Wrong { why, instead } = standing(EntityKind::Room, 31, 31) else { panic!("it is wrong") };
        assert_eq!((why.as_str(), instead), ("Room 31 is \"Bedroom\" here; there 31 is \"Loft\"", Some(RemoteId(2))));
    }

    #[test]
    fn a_house_of_another_deployment_and_a_location_of_another_room_are_wrong() {
        assert!(matches!(standing(EntityKind::House, 203, 8), Standing::Wrong { instead: None, .. }));
        let Standing::Wrong { why, .. } = standing(EntityKind::Location, 509, 61) else { panic!("it is wrong") };
        assert!(why.ends_with("there 61 is \"Kitchen\" of \"1 Row\""), "{why}");
        // Its house is not there, so neither is it.
        assert!(matches!(standing(EntityKind::Location, 503, 61), Standing::Wrong { instead: None, .. }));
    }

    #[test]
    fn what_one_side_lacks_is_not_right() {
        assert_eq!(standing(EntityKind::House, 999, 7), Standing::NotHere);
        assert!(matches!(standing(EntityKind::House, 207, 999), Standing::Wrong { instead: Some(RemoteId(7)), .. }));
    }

    #[test]
    fn a_location_needs_its_house_room_and_deployment() {
        let needed = with_all_they_need(&source(), [local(EntityKind::Location, 509)]);
        let kinds: Vec<_> = needed.iter().map(|(what, _)| what.kind).collect();
        assert_eq!(kinds, [EntityKind::Room, EntityKind::Deployment, EntityKind::House, EntityKind::Location]);
    }
}
