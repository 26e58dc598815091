//! What the tests of the receiver share: a small catalog, rows, and what an answer must be.

use packhorse::receiver::Manner;
use serde_json::{Value, json};

use super::{
    central::{Answer, Central, zlib},
    fresh,
};

pub const SOURCE: &str = "0123456789abcdef0123456789abcdef";

/// Two houses, three nodes, two sensor types; node 13 has no location.
pub const SEED: &str = "
    INSERT INTO Deployment (id, name) VALUES (1, 'summer');
    INSERT INTO House (id, deploymentId, address) VALUES (1, 1, '1 High St.'), (2, 1, '2 High St.');
    INSERT INTO RoomType (id, name) VALUES (1, 'Bedroom');
    INSERT INTO Room (id, roomTypeId, name) VALUES (1, 1, 'Master Bedroom'), (2, 1, 'Kitchen');
    INSERT INTO Location (id, houseId, roomId) VALUES (301, 1, 1), (302, 2, 1);
    INSERT INTO Node (id, locationId) VALUES (11, 301), (12, 302), (13, NULL);
    INSERT INTO SensorType (id, name, code, units, c0, c1, c2, c3) VALUES (0, 'Temperature', 'T', 'deg.C', 0.0, 1.0, 0.0, 0.0),
      (2, 'Humidity', 'RH', '%', 0.0, 1.0, 0.0, 0.0);";

pub fn seeded(manner: Manner) -> Central {
    let central = fresh(manner);
    central.sql(SEED);
    central
}

pub fn reading(time: &str, node: i64, kind: i64, value: f64) -> Value {
    json!({"__table__": "Reading", "time": time, "nodeId": node, "type": kind, "locationId": 301, "value": value})
}

pub fn state(time: &str, node: i64, seq_num: Option<i64>) -> Value {
    json!({"__table__": "NodeState", "id": null, "time": time, "nodeId": node, "parent": 1, "localtime": 5, "seq_num": seq_num, "rssi": -70})
}

pub fn bulk(central: &Central, rows: &Value) -> Answer {
    central.post("/rest/bulk/", zlib(rows.to_string().as_bytes()))
}

pub fn readings(central: &Central) -> i64 {
    central.number("SELECT count(*) FROM Reading")
}

pub fn states(central: &Central) -> i64 {
    central.number("SELECT count(*) FROM NodeState")
}

#[track_caller]
pub fn assert_stored(answer: &Answer) {
    assert_eq!((answer.status, answer.text()), (201, "[]"));
}

/// A refusal of the packhorse manner: the status, JSON with an error that mentions `what`, and the receiver's header.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("packhorse-receiver"), Some("1"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(what), "{error}");
}

/// A bare failure of the legacy manner.
#[track_caller]
pub fn assert_legacy_text(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (500, Some("text/plain")), "{}", answer.text());
    assert_eq!(answer.header("packhorse-receiver"), None);
    assert_eq!(answer.header("connection"), None);
}

/// A failure of the legacy manner that is a JSON list.
#[track_caller]
pub fn assert_legacy_list(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (500, Some("application/json")));
    assert!(answer.json()[0].as_str().unwrap().starts_with("Error: "), "{}", answer.text());
}
