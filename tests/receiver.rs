//! The receiver over the wire: what it stores, what it refuses, what it finds again, in the packhorse manner and, where they differ, in
//! the legacy ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/central.rs"]
mod central;
#[path = "receiver/hostile.rs"]
mod hostile;
#[path = "receiver/legacy.rs"]
mod legacy;
#[path = "receiver/life.rs"]
mod life;
#[path = "receiver/lists.rs"]
mod lists;
#[path = "receiver/objects.rs"]
mod objects;
#[path = "receiver/readings.rs"]
mod readings;
#[path = "receiver/states.rs"]
mod states;

use central::{Answer, Central, zlib};
use packhorse::receiver::Manner;
use serde_json::{Value, json};

const SOURCE: &str = "0123456789abcdef0123456789abcdef";

/// Two houses, three nodes, two sensor types; node 13 has no location.
const SEED: &str = "
    INSERT INTO Deployment (id, name) VALUES (1, 'summer');
    INSERT INTO House (id, deploymentId, address) VALUES (1, 1, '1 High St.'), (2, 1, '2 High St.');
    INSERT INTO RoomType (id, name) VALUES (1, 'Bedroom');
    INSERT INTO Room (id, roomTypeId, name) VALUES (1, 1, 'Master Bedroom'), (2, 1, 'Kitchen');
    INSERT INTO Location (id, houseId, roomId) VALUES (301, 1, 1), (302, 2, 1);
    INSERT INTO Node (id, locationId) VALUES (11, 301), (12, 302), (13, NULL);
    INSERT INTO SensorType (id, name, code, units, c0, c1, c2, c3) VALUES (0, 'Temperature', 'T', 'deg.C', 0.0, 1.0, 0.0, 0.0),
      (2, 'Humidity', 'RH', '%', 0.0, 1.0, 0.0, 0.0);";

fn seeded(manner: Manner) -> Central {
    let central = Central::start(manner);
    central.sql(SEED);
    central
}

fn reading(time: &str, node: i64, kind: i64, value: f64) -> Value {
    json!({"__table__": "Reading", "time": time, "nodeId": node, "type": kind, "locationId": 301, "value": value})
}

fn state(time: &str, node: i64, seq_num: Option<i64>) -> Value {
    json!({"__table__": "NodeState", "id": null, "time": time, "nodeId": node, "parent": 1, "localtime": 5, "seq_num": seq_num, "rssi": -70})
}

fn bulk(central: &Central, rows: &Value) -> Answer {
    central.post("/rest/bulk/", zlib(rows.to_string().as_bytes()))
}

fn readings(central: &Central) -> i64 {
    central.number("SELECT count(*) FROM Reading")
}

fn states(central: &Central) -> i64 {
    central.number("SELECT count(*) FROM NodeState")
}

#[track_caller]
fn assert_stored(answer: &Answer) {
    assert_eq!((answer.status, answer.text()), (201, "[]"));
}

/// A refusal of the packhorse manner: the status, JSON with an error that mentions `what`, and the receiver's header.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("packhorse-receiver"), Some("1"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(what), "{error}");
}

/// A bare failure of the legacy manner.
#[track_caller]
fn assert_legacy_text(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (500, Some("text/plain")), "{}", answer.text());
    assert_eq!(answer.header("packhorse-receiver"), None);
    assert_eq!(answer.header("connection"), None);
}

/// A failure of the legacy manner that is a JSON list.
#[track_caller]
fn assert_legacy_list(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (500, Some("application/json")));
    assert!(answer.json()[0].as_str().unwrap().starts_with("Error: "), "{}", answer.text());
}
