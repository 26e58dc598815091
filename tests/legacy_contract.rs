//! Holds the receiver's legacy manner to the recorded calls of a real legacy server: every one of them is made, over the state that it
//! implies, and the answer must be the recorded one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/central.rs"]
mod central;

use std::{env, fs, path::PathBuf};

use central::{Answer, Central, zlib};
use packhorse::receiver::Manner;
use serde_json::{Value, json};

const CATALOG: &str = "
    INSERT INTO Deployment (id, name) VALUES (1, 'd');
    INSERT INTO Server (id, hostname) VALUES (1, 's');
    INSERT INTO House (id, deploymentId, address) VALUES (100, 1, 'h');
    INSERT INTO RoomType (id, name) VALUES (1, 't');
    INSERT INTO Location (id, houseId, roomId) VALUES (301, 100, 1), (302, 100, 2), (303, 100, 3);
    INSERT INTO NodeType (id, name) VALUES (0, 'n');
    INSERT INTO Node (id, locationId, nodeTypeId) VALUES (11, 301, 0), (12, 302, 0), (13, 303, NULL);
    INSERT INTO SensorType (id, name) VALUES (0, 'T'), (2, 'H'), (8, 'C');";

#[test]
fn every_recorded_call_of_the_legacy_server_is_answered_as_recorded() {
    let shared = env::var_os("PACKHORSE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = shared.join("contract/examples.json");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("SKIPPED: the recorded calls are not at {}; set PACKHORSE_SHARED to the folder above contract/", path.display());
        return;
    };
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let mut replayed = 0;
    for (group, calls) in recorded.as_object().unwrap() {
        for (place, call) in calls.as_array().unwrap().iter().enumerate() {
            let central = Central::start(Manner::Legacy);
            assert!(seed(&central, group, place, call), "{group} {place}: no state is known for this call: it is not replayed");
            replay(&central, &format!("{group} {place}"), call);
            replayed += 1;
        }
    }
    let all: usize = recorded.as_object().unwrap().values().map(|calls| calls.as_array().unwrap().len()).sum();
    assert_eq!(replayed, all);
    assert!(replayed >= 42, "only {replayed} recorded calls");
}

/// Brings the database into the state that a recording implies; false for a recording that is not known.
fn seed(central: &Central, group: &str, place: usize, call: &Value) -> bool {
    let sql = match (group, place) {
        ("get_deployment", _) => return seed_listed(central, "Deployment", call),
        ("get_node", _) => return seed_listed(central, "Node", call),
        ("get_room", _) => return seed_listed(central, "Room", call),
        ("get_roomtype", _) => return seed_listed(central, "RoomType", call),
        ("get_sensortype", _) => return seed_listed(central, "SensorType", call),
        ("get_location_filtered_empty", _) => "INSERT INTO Location (id, houseId, roomId) VALUES (5, 1, 9), (6, 9, 1), (7, 9, 6)",
        ("get_lastsync", _) => {
            "INSERT INTO House (id, address) VALUES (1, '1 Cafe & Co, High St. #2 + 50%'), (2, 'Plain House'), (3, 'other');
             INSERT INTO Location (id, houseId, roomId) VALUES (1, 1, 1), (2, 2, 1), (3, 3, 1);
             INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES
               ('2013-01-01T00:00:00', 11, 0, 1, 1.0), ('2013-01-01T00:05:00', 11, 0, 1, 1.0), ('2013-01-01T00:05:00', 12, 0, 2, 1.0),
               ('2014-01-01T00:00:00', 13, 0, 3, 1.0)"
        }
        ("get_lastsync_null", _) => {
            "INSERT INTO House (id, address) VALUES (1, 'testing house'); INSERT INTO Location (id, houseId, roomId) VALUES (1, 1, 1)"
        }
        (
            "post_bulk_nodestate" | "post_bulk_nodestate_large" | "post_bulk_reading" | "post_bulk_reading_large" | "put_node",
            _,
        ) => CATALOG,
        ("get_deployment_empty" | "get_node_empty" | "get_house_filtered_empty" | "post_pushstatus" | "post_sensortype", _)
        | ("post_deployment", 0) => "",
        ("post_deployment", 1) => "INSERT INTO Deployment (id) VALUES (101)",
        ("post_house_filtered", 0) => "INSERT INTO Deployment (id) VALUES (1); INSERT INTO Server (id) VALUES (1)",
        ("post_house_filtered", 1) => {
            "INSERT INTO Deployment (id) VALUES (1); INSERT INTO Server (id) VALUES (1); INSERT INTO House (id) VALUES (1)"
        }
        ("post_location_filtered", 0) => "INSERT INTO House (id) VALUES (1); INSERT INTO Room (id) VALUES (1)",
        ("post_location_filtered", 1) => {
            "INSERT INTO House (id) VALUES (1); INSERT INTO Room (id) VALUES (1), (6);
             INSERT INTO Location (houseId, roomId) VALUES (1, 1)"
        }
        ("post_node", _) => "INSERT INTO Location (id, houseId, roomId) VALUES (3, 1, 1), (4, 1, 2)",
        ("post_room", 0) => "INSERT INTO RoomType (id) VALUES (501); INSERT INTO Room (id) VALUES (401)",
        ("post_room", 1) => "INSERT INTO RoomType (id) VALUES (3); INSERT INTO Room (id) VALUES (402)",
        ("post_roomtype", 0) => "INSERT INTO RoomType (id) VALUES (500)",
        _ => return false,
    };
    central.sql(sql);
    true
}

/// Stores the rows of a recorded list, and others behind them where the recording cuts it short.
fn seed_listed(central: &Central, table: &str, call: &Value) -> bool {
    let recorded = &call["response_body"];
    let (mut rows, all) = match recorded {
        Value::String(text) => {
            let whole = serde_json::from_str::<Vec<Value>>(text).ok();
            let cut = || text[..text.rfind("}, {").unwrap()].to_owned() + "}]";
            let rows = whole.unwrap_or_else(|| serde_json::from_str(&cut()).unwrap());
            let cut_short = text.ends_with(']') && text.contains("...[");
            (rows.clone(), rows.len() + usize::from(cut_short))
        }
        Value::Array(rows) => {
            let rows: Vec<Value> = rows.iter().filter(|row| row.is_object()).cloned().collect();
            let all = in_all(recorded).unwrap_or(rows.len());
            (rows, all)
        }
        _ => return false,
    };
    while rows.len() < all {
        let id = rows.last().unwrap()["id"].as_i64().unwrap() + 1;
        rows.push(match table {
            "Node" => json!({"id": id, "locationId": 304, "nodeTypeId": 0}),
            "Room" => json!({"id": id, "roomTypeId": 1, "name": "another"}),
            _ => json!({"id": id, "code": "dAQ", "name": "Delta Air Quality", "c0": 0.0, "c1": 1.0, "c2": 0.0, "c3": 0.0}),
        });
    }
    for row in rows {
        let columns: Vec<(&String, &Value)> = row.as_object().unwrap().iter().filter(|(key, _)| *key != "__table__").collect();
        let names = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let values = columns.iter().map(|(_, value)| literal(value)).collect::<Vec<_>>().join(", ");
        central.sql(&format!("INSERT INTO {table} ({names}) VALUES ({values})"));
    }
    true
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

/// The N of a list that ends with "... N in all".
fn in_all(list: &Value) -> Option<usize> {
    let note = list.as_array()?.last()?.as_str()?;
    note.strip_prefix("... ")?.strip_suffix(" in all")?.parse().ok()
}

fn replay(central: &Central, name: &str, call: &Value) {
    let method = call["method"].as_str().unwrap();
    let body = match (&call["request_body"], name.contains("_large")) {
        (Value::Null, true) => Some(large(name)),
        (Value::Null, false) => None,
        (body, _) => Some(body.to_string()),
    };
    let body = body.map(|body| match call["request_encoding"].as_str().unwrap() {
        "zlib" => zlib(body.as_bytes()),
        "identity" => body.into_bytes(),
        other => panic!("{name}: an encoding {other}"),
    });
    let answer = central.call(method, call["target"].as_str().unwrap(), &[], body.as_deref());

    assert_eq!(u64::from(answer.status), call["status"].as_u64().unwrap(), "{name}: {answer:?}");
    assert_eq!(answer.header("packhorse-receiver"), None, "{name}");
    let whole = compare_body(name, &answer, &call["response_body"]);
    let timeless = !name.starts_with("post_pushstatus");
    for (header, value) in call["response_headers"].as_object().unwrap() {
        if header == "Content-Length" && !(whole && timeless) {
            continue;
        }
        let value = value.as_str().unwrap().replace("HOST", &central.address.to_string());
        assert_eq!(answer.header(header), Some(value.as_str()), "{name}: {header} of {}", answer.text());
    }
}

/// Compares a body with the recorded one; false when only the head of it was recorded.
fn compare_body(name: &str, answer: &Answer, recorded: &Value) -> bool {
    match recorded {
        Value::String(text) if text.starts_with('[') => {
            let whole = serde_json::from_str::<Value>(text).is_ok();
            if whole {
                assert_eq!(answer.text(), text, "{name}");
            } else {
                let head = &text[..text.rfind("...[").unwrap()];
                assert!(answer.text().starts_with(head), "{name}: {}", answer.text());
            }
            whole
        }
        list if in_all(list).is_some() => {
            let (rows, head) = (answer.json(), list.as_array().unwrap());
            let head = &head[..head.len() - 1];
            assert_eq!(rows.as_array().unwrap().len(), in_all(list).unwrap(), "{name}");
            assert_eq!(&rows.as_array().unwrap()[..head.len()], head, "{name}");
            false
        }
        Value::Object(object) if object.contains_key("hostname") => {
            let (mut mine, mut theirs) = (answer.json(), recorded.clone());
            let (mine_at, theirs_at) = (mine["time"].take(), theirs["time"].take());
            assert_eq!(mine_at.as_str().unwrap()[..2], theirs_at.as_str().unwrap()[..2], "{name}: a time");
            assert_eq!(mine, theirs, "{name}");
            true
        }
        _ => {
            assert_eq!(&answer.json(), recorded, "{name}");
            true
        }
    }
}

/// A body of the kind whose recording left it out for its length.
fn large(name: &str) -> String {
    let rows: Vec<Value> = (0..500)
        .map(|at| {
            let time = format!("2013-01-01T{:02}:{:02}:00", at / 60, at % 60);
            if name.contains("nodestate") {
                json!({"__table__": "NodeState", "id": null, "time": time, "nodeId": 11, "parent": 1, "localtime": at, "seq_num": at, "rssi": -70})
            } else {
                json!({"__table__": "Reading", "time": time, "nodeId": 11, "type": 0, "locationId": 301, "value": 0.1 * f64::from(at)})
            }
        })
        .collect();
    Value::from(rows).to_string()
}
