//! The catalog: what rows point to. An [`Entity`] is generic over the ids in it, so that a local one cannot be sent as a central one.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{LocalId, Micros, RemoteId};

/// The kinds of catalog entity, in the order in which they can be made to exist: none points to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityKind {
    /// Identified everywhere by its id.
    SensorType,
    /// Identified by its name.
    RoomType,
    /// Identified by its name.
    Room,
    /// Identified by its name.
    Deployment,
    /// Identified by its address.
    House,
    /// Identified by its house and room.
    Location,
    /// Identified everywhere by its id.
    NodeType,
    /// Identified everywhere by its id.
    Node,
    /// Identified by its node and sensor type.
    Sensor,
}

impl EntityKind {
    /// Every kind, each after those that it points to.
    pub const ALL: [Self; 9] = [
        Self::SensorType,
        Self::RoomType,
        Self::Room,
        Self::Deployment,
        Self::House,
        Self::Location,
        Self::NodeType,
        Self::Node,
        Self::Sensor,
    ];

    /// The table's name, which is also `__table__` in JSON.
    pub const fn table(self) -> &'static str {
        match self {
            Self::SensorType => "SensorType",
            Self::RoomType => "RoomType",
            Self::Room => "Room",
            Self::Deployment => "Deployment",
            Self::House => "House",
            Self::Location => "Location",
            Self::NodeType => "NodeType",
            Self::Node => "Node",
            Self::Sensor => "Sensor",
        }
    }

    /// The number that stands for it on disk; never reused.
    pub const fn number(self) -> u8 {
        match self {
            Self::SensorType => 0,
            Self::RoomType => 1,
            Self::Room => 2,
            Self::Deployment => 3,
            Self::House => 4,
            Self::Location => 5,
            Self::NodeType => 6,
            Self::Node => 7,
            Self::Sensor => 8,
        }
    }

    /// The kind with that number on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether its id means the same entity on every server.
    pub const fn has_global_id(self) -> bool {
        matches!(self, Self::SensorType | Self::NodeType | Self::Node)
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table())
    }
}

/// A catalog entity of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalRef {
    /// Its kind.
    pub kind: EntityKind,
    /// Its id in the source.
    pub id: LocalId,
}

impl fmt::Display for LocalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// What a reading measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SensorType {
    /// For example "Temperature".
    pub name: Option<String>,
    /// For example "T".
    pub code: Option<String>,
    /// For example "deg.C".
    pub units: Option<String>,
    /// The calibration polynomial c0 to c3; FLOAT.
    pub coefficients: [Option<f32>; 4],
}

/// For example "Bedroom".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomType {
    /// Its identity.
    pub name: Option<String>,
}

/// For example "Master Bedroom"; shared by all houses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Room<I> {
    /// Its type.
    pub room_type: Option<I>,
    /// Its identity.
    pub name: Option<String>,
}

/// A campaign that houses belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its identity.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// When it began.
    pub start: Option<Micros>,
    /// When it ended; `None` while it goes on.
    pub end: Option<Micros>,
}

/// A house. Its serverid is not carried: it numbers rows of the local Server table, which mean nothing elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct House<I> {
    /// The deployment it belongs to.
    pub deployment: Option<I>,
    /// Its identity.
    pub address: Option<String>,
    /// When it began.
    pub start: Option<Micros>,
    /// When it ended; `None` while it goes on.
    pub end: Option<Micros>,
}

/// A room of a house.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location<I> {
    /// The house.
    pub house: Option<I>,
    /// The room.
    pub room: Option<I>,
}

/// A kind of node and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeType {
    /// For example "Base".
    pub name: Option<String>,
    /// When it was set.
    pub time: Option<Micros>,
    /// Sequence number of its settings.
    pub seq: Option<i64>,
    /// Sequence number of its last update.
    pub updated_seq: Option<i64>,
    /// Sampling period.
    pub period: Option<i64>,
    /// Whether it blinks.
    pub blink: Option<bool>,
    /// Text such as "31,4".
    pub configured: Option<String>,
}

/// A sensor node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node<I> {
    /// Where it is.
    pub location: Option<I>,
    /// What it is; a global id.
    pub node_type: Option<I>,
}

/// One sensor of a node, with its calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensor<I> {
    /// What it measures.
    pub sensor_type: Option<I>,
    /// The node that carries it.
    pub node: Option<I>,
    /// FLOAT.
    pub calibration_slope: Option<f32>,
    /// FLOAT.
    pub calibration_offset: Option<f32>,
}

/// A catalog entity by content, whose references are ids of type `I`: [`LocalId`] at the source, [`RemoteId`] at a destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its struct")]
pub enum Entity<I> {
    SensorType(SensorType),
    RoomType(RoomType),
    Room(Room<I>),
    Deployment(Deployment),
    House(House<I>),
    Location(Location<I>),
    NodeType(NodeType),
    Node(Node<I>),
    Sensor(Sensor<I>),
}

impl<I: Copy> Entity<I> {
    /// What kind it is.
    pub fn kind(&self) -> EntityKind {
        match self {
            Self::SensorType(_) => EntityKind::SensorType,
            Self::RoomType(_) => EntityKind::RoomType,
            Self::Room(_) => EntityKind::Room,
            Self::Deployment(_) => EntityKind::Deployment,
            Self::House(_) => EntityKind::House,
            Self::Location(_) => EntityKind::Location,
            Self::NodeType(_) => EntityKind::NodeType,
            Self::Node(_) => EntityKind::Node,
            Self::Sensor(_) => EntityKind::Sensor,
        }
    }

    /// The same entity with every reference translated.
    ///
    /// # Errors
    /// What `translate` says of the first reference that it cannot translate.
    pub fn translate<J, E>(&self, mut translate: impl FnMut(EntityKind, I) -> Result<J, E>) -> Result<Entity<J>, E> {
        let mut each = |kind: EntityKind, id: Option<I>| id.map(|id| translate(kind, id)).transpose();
        Ok(match self {
            Self::SensorType(it) => Entity::SensorType(it.clone()),
            Self::RoomType(it) => Entity::RoomType(it.clone()),
            Self::Room(it) => Entity::Room(Room { room_type: each(EntityKind::RoomType, it.room_type)?, name: it.name.clone() }),
            Self::Deployment(it) => Entity::Deployment(it.clone()),
            Self::House(it) => Entity::House(House {
                deployment: each(EntityKind::Deployment, it.deployment)?,
                address: it.address.clone(),
                start: it.start,
                end: it.end,
            }),
            Self::Location(it) => {
                Entity::Location(Location { house: each(EntityKind::House, it.house)?, room: each(EntityKind::Room, it.room)? })
            }
            Self::NodeType(it) => Entity::NodeType(it.clone()),
            Self::Node(it) => Entity::Node(Node {
                location: each(EntityKind::Location, it.location)?,
                node_type: each(EntityKind::NodeType, it.node_type)?,
            }),
            Self::Sensor(it) => Entity::Sensor(Sensor {
                sensor_type: each(EntityKind::SensorType, it.sensor_type)?,
                node: each(EntityKind::Node, it.node)?,
                calibration_slope: it.calibration_slope,
                calibration_offset: it.calibration_offset,
            }),
        })
    }
}

impl Entity<LocalId> {
    /// The entities that it points to.
    pub fn refers(&self) -> Vec<LocalRef> {
        let mut found = Vec::new();
        let note = |kind, id| {
            found.push(LocalRef { kind, id });
            Ok::<_, std::convert::Infallible>(id)
        };
        let Ok(_) = self.translate(note);
        found
    }
}

/// Entities of the source, by their local ids.
pub type Catalog = BTreeMap<LocalRef, Entity<LocalId>>;

/// Entities of the source as they were when the destination was last brought in step with them, with its ids. By it is told what has changed
/// here since, and under which name a mapping was made.
pub type Brought = BTreeMap<LocalRef, Entity<RemoteId>>;

impl From<LocalId> for RemoteId {
    /// Only for kinds with a global id ([`EntityKind::has_global_id`]): there both sides use the same number.
    fn from(id: LocalId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_refers_to_earlier_kinds_only() {
        let id = LocalId(7);
        let all = [
            Entity::Room(Room { room_type: Some(id), name: None }),
            Entity::House(House { deployment: Some(id), address: None, start: None, end: None }),
            Entity::Location(Location { house: Some(id), room: Some(id) }),
            Entity::Node(Node { location: Some(id), node_type: Some(id) }),
            Entity::Sensor(Sensor { sensor_type: Some(id), node: Some(id), calibration_slope: None, calibration_offset: None }),
        ];
        for entity in all {
            assert!(!entity.refers().is_empty());
            assert!(entity.refers().iter().all(|to| to.kind < entity.kind()), "{entity:?}");
        }
    }
}
