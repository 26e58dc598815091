//! What makes two entities the same: a global id, a name, an address in a deployment, a room in a house.
//!
//! The one rule: texts compare as MySQL compares them, without case and trailing blanks; NULL is equal to nothing but NULL, and then
//! everything else must be equal too.

use crate::domain::{Deployment, Entity, House, Location, Micros, RemoteId, Room, RoomType};

/// Whether two entities are the same without regard to case (a key to look up), and exactly (to choose among several).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    RoomType(Option<String>),
    Room(Named<Option<RemoteId>>),
    Deployment(Named<(Option<String>, Option<Micros>, Option<Micros>)>),
    House(Option<RemoteId>, Named<(Option<Micros>, Option<Micros>)>),
    Location(Option<RemoteId>, Option<RemoteId>),
}

/// A name; without one the rest stands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Named<R> {
    Name(String),
    Nameless(R),
}

impl<R> Named<R> {
    fn new(name: Option<&String>, rest: R) -> Self {
        name.map_or(Self::Nameless(rest), |name| Self::Name(fold(name)))
    }
}

impl Identity {
    /// The identity of an entity that is known by its content; `None` for those known by a global id, and for sensors.
    pub(super) fn of(entity: &Entity<RemoteId>) -> Option<Self> {
        match entity {
            Entity::RoomType(RoomType { name }) => Some(Self::RoomType(name.as_deref().map(fold))),
            Entity::Room(Room { room_type, name }) => Some(Self::Room(Named::new(name.as_ref(), *room_type))),
            Entity::Deployment(Deployment { name, description, start, end }) => {
                Some(Self::Deployment(Named::new(name.as_ref(), (description.clone(), *start, *end))))
            }
            Entity::House(House { deployment, address, start, end }) => {
                Some(Self::House(*deployment, Named::new(address.as_ref(), (*start, *end))))
            }
            Entity::Location(Location { house, room }) => Some(Self::Location(*house, *room)),
            Entity::SensorType(_) | Entity::NodeType(_) | Entity::Node(_) | Entity::Sensor(_) => None,
        }
    }
}

/// The text that identifies, as it was written.
pub(super) fn name<I>(entity: &Entity<I>) -> Option<&str> {
    match entity {
        Entity::SensorType(it) => it.name.as_deref(),
        Entity::RoomType(it) => it.name.as_deref(),
        Entity::Room(it) => it.name.as_deref(),
        Entity::Deployment(it) => it.name.as_deref(),
        Entity::House(it) => it.address.as_deref(),
        Entity::NodeType(it) => it.name.as_deref(),
        Entity::Location(_) | Entity::Node(_) | Entity::Sensor(_) => None,
    }
}

/// Whether `there` is called as `here` is when a server keeps `?` for each letter that its character set lacks.
pub(super) fn is_mangled<I, J>(here: &Entity<I>, there: &Entity<J>) -> bool {
    let (Some(here), Some(there)) = (name(here), name(there)) else { return false };
    let kept: String = here.chars().map(|letter| if letter.is_ascii() { letter } else { '?' }).collect();
    !here.is_ascii() && fold(&kept) == fold(there)
}

fn fold(text: &str) -> String {
    text.trim_end_matches(' ').to_lowercase()
}

/// What two entities with one global id disagree about, as `name 'CO2' here, 'VOC' there`; `None` when they mean the same. Coefficients
/// and settings may differ; no text and an empty one mean the same.
pub(super) fn conflict<I, J>(here: &Entity<I>, there: &Entity<J>) -> Option<String> {
    let differ = |what: &str, here: Option<&String>, there: Option<&String>| {
        let (here, there) = (here.map_or("", String::as_str), there.map_or("", String::as_str));
        (fold(here) != fold(there)).then(|| format!("{what} '{here}' here, '{there}' there"))
    };
    match (here, there) {
        (Entity::SensorType(here), Entity::SensorType(there)) => differ("name", here.name.as_ref(), there.name.as_ref())
            .or_else(|| differ("code", here.code.as_ref(), there.code.as_ref()))
            .or_else(|| differ("units", here.units.as_ref(), there.units.as_ref())),
        (Entity::NodeType(here), Entity::NodeType(there)) => differ("name", here.name.as_ref(), there.name.as_ref()),
        (
            Entity::SensorType(_)
            | Entity::RoomType(_)
            | Entity::Room(_)
            | Entity::Deployment(_)
            | Entity::House(_)
            | Entity::Location(_)
            | Entity::NodeType(_)
            | Entity::Node(_)
            | Entity::Sensor(_),
            _,
        ) => None,
    }
}
