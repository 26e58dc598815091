//! Catalog entities as the contract's JSON objects, both ways.
//!
//! The one rule: tolerant where only people read it, strict where something is decided by it. Unknown keys are ignored, a missing key is
//! NULL; but an id that is not an integer, or another table's object, is an error and never a guess.

use serde_json::{Map, Value};

use super::{TABLE_KEY, WireError, json_f32};
use crate::{
    domain::{
        Deployment, Entity, EntityKind, House, Location, Micros, Node, NodeType, RemoteId, Room, RoomType, Sensor, SensorType,
    },
    ports::RemoteEntity,
};

/// An entity as the object to post or put; `id` only where the server must take ours.
pub fn entity_to_json(id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put(TABLE_KEY, entity.kind().table().into());
    if let Some(id) = id {
        put("id", id.0.into());
    }
    match entity {
        Entity::SensorType(it) => {
            put("name", text(it.name.as_ref()));
            put("code", text(it.code.as_ref()));
            put("units", text(it.units.as_ref()));
            for (key, value) in COEFFICIENTS.into_iter().zip(it.coefficients) {
                put(key, json_f32(value));
            }
        }
        Entity::RoomType(it) => put("name", text(it.name.as_ref())),
        Entity::Room(it) => {
            put("name", text(it.name.as_ref()));
            put("roomTypeId", reference(it.room_type));
        }
        Entity::Deployment(it) => {
            put("name", text(it.name.as_ref()));
            put("description", text(it.description.as_ref()));
            put("startDate", date(it.start));
            put("endDate", date(it.end));
        }
        // Without serverid: it numbers rows of the gateway's Server table, and a number that the centre lacks is a 500.
        Entity::House(it) => {
            put("deploymentId", reference(it.deployment));
            put("address", text(it.address.as_ref()));
            put("startDate", date(it.start));
            put("endDate", date(it.end));
        }
        Entity::Location(it) => {
            put("houseId", reference(it.house));
            put("roomId", reference(it.room));
        }
        Entity::NodeType(it) => {
            put("name", text(it.name.as_ref()));
            put("time", date(it.time));
            put("seq", it.seq.into());
            put("updated_seq", it.updated_seq.into());
            put("period", it.period.into());
            put("blink", it.blink.into());
            put("configured", text(it.configured.as_ref()));
        }
        Entity::Node(it) => {
            put("locationId", reference(it.location));
            put("nodeTypeId", reference(it.node_type));
        }
        Entity::Sensor(it) => {
            put("sensorTypeId", reference(it.sensor_type));
            put("nodeId", reference(it.node));
            put("calibrationSlope", json_f32(it.calibration_slope));
            put("calibrationOffset", json_f32(it.calibration_offset));
        }
    }
    Value::Object(object)
}

const COEFFICIENTS: [&str; 4] = ["c0", "c1", "c2", "c3"];

fn text(value: Option<&String>) -> Value {
    value.cloned().into()
}

fn reference(id: Option<RemoteId>) -> Value {
    id.map(|id| id.0).into()
}

fn date(at: Option<Micros>) -> Value {
    at.map(|at| at.to_string()).into()
}

/// A list of entities of one kind.
///
/// # Errors
/// When it is no list, or for the first object that is unreadable: a list with holes would make entities that are there look missing.
pub fn list_from_json(kind: EntityKind, json: &Value) -> Result<Vec<RemoteEntity>, WireError> {
    let list = json.as_array().ok_or_else(|| WireError::Shape(format!("a list of {kind} objects was expected")))?;
    list.iter().map(|object| entity_from_json(kind, object)).collect()
}

/// One entity with its id.
///
/// # Errors
/// When it is no object, of another table, or an id in it is no integer.
pub fn entity_from_json(kind: EntityKind, json: &Value) -> Result<RemoteEntity, WireError> {
    let object = Object { kind, map: json.as_object().ok_or_else(|| WireError::Shape(format!("a {kind} object was expected")))? };
    object.check_table()?;
    let id = object.id("id")?.ok_or_else(|| WireError::Shape(format!("a {kind} without an id")))?;
    let entity = match kind {
        EntityKind::SensorType => Entity::SensorType(SensorType {
            name: object.text("name")?,
            code: object.text("code")?,
            units: object.text("units")?,
            coefficients: COEFFICIENTS.map(|key| object.float(key)),
        }),
        EntityKind::RoomType => Entity::RoomType(RoomType { name: object.text("name")? }),
        EntityKind::Room => Entity::Room(Room { room_type: object.id("roomTypeId")?, name: object.text("name")? }),
        EntityKind::Deployment => Entity::Deployment(Deployment {
            name: object.text("name")?,
            description: object.text("description")?,
            start: object.date("startDate"),
            end: object.date("endDate"),
        }),
        EntityKind::House => Entity::House(House {
            deployment: object.id("deploymentId")?,
            address: object.text("address")?,
            start: object.date("startDate"),
            end: object.date("endDate"),
        }),
        EntityKind::Location => Entity::Location(Location { house: object.id("houseId")?, room: object.id("roomId")? }),
        EntityKind::NodeType => Entity::NodeType(NodeType {
            name: object.text("name")?,
            time: object.date("time"),
            seq: object.integer("seq"),
            updated_seq: object.integer("updated_seq"),
            period: object.integer("period"),
            blink: object.flag("blink"),
            configured: object.text("configured")?,
        }),
        EntityKind::Node => Entity::Node(Node { location: object.id("locationId")?, node_type: object.id("nodeTypeId")? }),
        EntityKind::Sensor => Entity::Sensor(Sensor {
            sensor_type: object.id("sensorTypeId")?,
            node: object.id("nodeId")?,
            calibration_slope: object.float("calibrationSlope"),
            calibration_offset: object.float("calibrationOffset"),
        }),
    };
    Ok(RemoteEntity { id, entity })
}

struct Object<'a> {
    kind: EntityKind,
    map: &'a Map<String, Value>,
}

impl Object<'_> {
    fn wrong(&self, key: &str, what: &str) -> WireError {
        WireError::Shape(format!("{key} of a {} is {what}", self.kind))
    }

    fn check_table(&self) -> Result<(), WireError> {
        match self.map.get(TABLE_KEY).and_then(Value::as_str) {
            Some(table) if !table.eq_ignore_ascii_case(self.kind.table()) => {
                Err(WireError::Shape(format!("a {} object was expected, and one of another table came", self.kind)))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn id(&self, key: &str) -> Result<Option<RemoteId>, WireError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_i64().map(|id| Some(RemoteId(id))).ok_or_else(|| self.wrong(key, "no integer")),
        }
    }

    /// Texts identify or are compared for conflicts, so another type is an error.
    fn text(&self, key: &str) -> Result<Option<String>, WireError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "no text")),
        }
    }

    fn float(&self, key: &str) -> Option<f32> {
        self.map.get(key).and_then(Value::as_f64).map(|value| value as f32)
    }

    fn integer(&self, key: &str) -> Option<i64> {
        let value = self.map.get(key)?;
        value.as_i64().or_else(|| value.as_f64().map(|value| value as i64))
    }

    fn flag(&self, key: &str) -> Option<bool> {
        let value = self.map.get(key)?;
        value.as_bool().or_else(|| value.as_f64().map(|value| value != 0.0))
    }

    /// Nothing is decided by a date, so one that nobody can read counts as none.
    fn date(&self, key: &str) -> Option<Micros> {
        self.map.get(key).and_then(Value::as_str)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Micros {
        text.parse().unwrap()
    }

    fn table() -> Vec<(Option<RemoteId>, Entity<RemoteId>, Value)> {
        let some = |text: &str| Some(text.to_owned());
        vec![
            (
                Some(RemoteId(991)),
                Entity::SensorType(SensorType {
                    name: some("LocalOnly"),
                    code: some("LO"),
                    units: some("x"),
                    coefficients: [Some(0.0), Some(0.1), None, Some(1e-7)],
                }),
                json!({"__table__": "SensorType", "id": 991, "name": "LocalOnly", "code": "LO", "units": "x",
                    "c0": 0.0, "c1": 0.1, "c2": null, "c3": 1e-7}),
            ),
            (None, Entity::RoomType(RoomType { name: some("Loft") }), json!({"__table__": "RoomType", "name": "Loft"})),
            (
                None,
                Entity::Room(Room { room_type: Some(RemoteId(501)), name: some("Loft Room") }),
                json!({"__table__": "Room", "name": "Loft Room", "roomTypeId": 501}),
            ),
            (
                None,
                Entity::Deployment(Deployment {
                    name: some("testing"),
                    description: None,
                    start: Some(at("2013-01-01T00:00:00")),
                    end: Some(at("2013-01-01T00:00:00.25")),
                }),
                json!({"__table__": "Deployment", "name": "testing", "description": null, "startDate": "2013-01-01T00:00:00",
                    "endDate": "2013-01-01T00:00:00.250000"}),
            ),
            (
                None,
                Entity::House(House { deployment: Some(RemoteId(1)), address: some("Poor House"), start: None, end: None }),
                json!({"__table__": "House", "deploymentId": 1, "address": "Poor House", "startDate": null, "endDate": null}),
            ),
            (
                None,
                Entity::Location(Location { house: Some(RemoteId(1)), room: None }),
                json!({"__table__": "Location", "houseId": 1, "roomId": null}),
            ),
            (
                Some(RemoteId(7)),
                Entity::NodeType(NodeType {
                    name: some("Base"),
                    time: Some(at("2013-01-01")),
                    seq: Some(1),
                    updated_seq: None,
                    period: Some(307_200),
                    blink: Some(false),
                    configured: some("31,4"),
                }),
                json!({"__table__": "NodeType", "id": 7, "name": "Base", "time": "2013-01-01T00:00:00", "seq": 1, "updated_seq": null,
                    "period": 307_200, "blink": false, "configured": "31,4"}),
            ),
            (
                Some(RemoteId(1063)),
                Entity::Node(Node { location: Some(RemoteId(4)), node_type: None }),
                json!({"__table__": "Node", "id": 1063, "locationId": 4, "nodeTypeId": null}),
            ),
            (
                None,
                Entity::Sensor(Sensor {
                    sensor_type: Some(RemoteId(0)),
                    node: Some(RemoteId(69)),
                    calibration_slope: Some(1.0),
                    calibration_offset: None,
                }),
                json!({"__table__": "Sensor", "sensorTypeId": 0, "nodeId": 69, "calibrationSlope": 1.0, "calibrationOffset": null}),
            ),
        ]
    }

    #[test]
    fn each_kind_is_written_with_the_contracts_keys_and_read_back() {
        let table = table();
        assert_eq!(table.iter().map(|(_, entity, _)| entity.kind()).collect::<Vec<_>>(), EntityKind::ALL);
        for (id, entity, json) in table {
            assert_eq!(entity_to_json(id, &entity), json);
            let mut stored = json.clone();
            stored["id"] = json!(42);
            stored["something"] = json!({"new": true});
            let back = entity_from_json(entity.kind(), &stored).unwrap();
            assert_eq!(back, RemoteEntity { id: RemoteId(42), entity });
        }
    }

    #[test]
    fn reading_is_tolerant_where_nothing_is_decided() {
        let json = json!({"id": 3, "name": "Base", "blink": 1, "period": 5.0, "time": "no date", "seq": "x"});
        let Entity::NodeType(it) = entity_from_json(EntityKind::NodeType, &json).unwrap().entity else { panic!("a node type") };
        assert_eq!((it.blink, it.period, it.time, it.seq, it.configured), (Some(true), Some(5), None, None, None));
        let json = json!({"id": 0, "c0": 1, "c1": 0.1, "__table__": "sensortype"});
        let Entity::SensorType(it) = entity_from_json(EntityKind::SensorType, &json).unwrap().entity else {
            panic!("a sensor type")
        };
        assert_eq!(it.coefficients, [Some(1.0), Some(0.1), None, None]);
    }

    #[test]
    fn reading_is_strict_where_something_is_decided() {
        let wrong = [
            json!({"name": "no id"}),
            json!({"id": "7"}),
            json!({"id": 7.0}),
            json!({"id": null}),
            json!({"id": 7, "roomTypeId": "1"}),
            json!({"id": 7, "name": 5}),
            json!({"id": 7, "__table__": "House"}),
            json!("... 5 in all"),
            json!([]),
        ];
        for json in wrong {
            assert!(entity_from_json(EntityKind::Room, &json).is_err(), "{json}");
            assert!(list_from_json(EntityKind::Room, &json!([{"id": 1}, json])).is_err());
        }
        assert!(list_from_json(EntityKind::Room, &json!({"id": 1})).is_err());
        assert_eq!(list_from_json(EntityKind::Room, &json!([])).unwrap(), []);
    }
}
