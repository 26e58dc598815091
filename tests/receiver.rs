//! The receiver over the wire: what it stores, what it refuses, what it finds again, in the packhorse manner and, where they differ, in
//! the legacy ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/central.rs"]
mod central;

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use central::{Answer, Central, receive, send, zlib};
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

// ---- bulk: readings

#[test]
fn a_repeated_reading_changes_nothing_and_another_value_overwrites() {
    for manner in [Manner::Packhorse, Manner::Legacy, Manner::LegacyOldNodeState] {
        let central = seeded(manner);
        let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 18.25), reading("2013-01-01T00:05:00", 11, 2, 55.0)]);
        assert_stored(&bulk(&central, &rows));
        assert_stored(&bulk(&central, &rows));
        assert_eq!(readings(&central), 2);
        assert_stored(&bulk(&central, &json!([reading("2013-01-01T00:05:00", 11, 0, -3.5)])));
        assert_eq!(readings(&central), 2);
        assert_eq!(central.number("SELECT count(*) FROM Reading WHERE type = 0 AND value = -3.5"), 1);
    }
}

#[test]
fn a_bulk_is_taken_as_zlib_as_plain_json_and_when_empty() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let central = seeded(manner);
        let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 18.25)]).to_string();
        assert_stored(&central.post("/rest/bulk/", &rows));
        assert_stored(&central.post("/rest/bulk/", zlib(rows.as_bytes())));
        assert_stored(&central.post("/rest/bulk/", "[]"));
        assert_eq!(readings(&central), 1);
    }
}

#[test]
fn a_null_value_a_null_location_an_unknown_key_and_a_lower_case_table_are_taken() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let central = seeded(manner);
        let row = json!({"__table__": "reading", "time": "2013-01-01T00:05:00", "nodeId": 11, "type": 0, "locationId": null,
                         "value": null, "colour": {"deep": [1, 2]}});
        assert_stored(&bulk(&central, &json!([row])));
        assert_eq!(central.number("SELECT count(*) FROM Reading WHERE value IS NULL AND locationId IS NULL"), 1);
    }
}

#[test]
fn one_row_that_points_nowhere_refuses_the_whole_bulk_and_is_named() {
    let good = reading("2013-01-01T00:05:00", 11, 0, 1.0);
    let mut nowhere = reading("2013-01-01T00:06:00", 11, 0, 1.0);
    nowhere["locationId"] = json!(999);
    let bad = [
        (reading("2013-01-01T00:06:00", 99, 0, 1.0), "no Node 99 here (row 1)"),
        (reading("2013-01-01T00:06:00", 11, 77, 1.0), "no SensorType 77 here (row 1)"),
        (nowhere, "no Location 999 here (row 1)"),
        (state("2013-01-01T00:06:00", 98, Some(1)), "no Node 98 here (row 1)"),
    ];
    let (ours, legacy) = (seeded(Manner::Packhorse), seeded(Manner::Legacy));
    for (row, complaint) in bad {
        let rows = json!([good, row]);
        assert_refused(&bulk(&ours, &rows), 422, complaint);
        assert_eq!(bulk(&legacy, &rows).status, 500);
    }
    for central in [ours, legacy] {
        assert_eq!((readings(&central), states(&central)), (0, 0));
    }
}

#[test]
fn a_number_is_stored_as_exactly_the_f64_that_it_names() {
    let central = seeded(Manner::Packhorse);
    let numbers =
        ["-0.0", "1e-7", "0.1", "123456.789", "5e-324", "1.7976931348623157e308", "3.4028235e38", "18", "0.30000000000000004"];
    for (minute, number) in numbers.iter().enumerate() {
        let time = format!("2013-01-01T00:{minute:02}:00");
        let row =
            format!(r#"[{{"__table__":"Reading","time":"{time}","nodeId":11,"type":0,"locationId":301,"value":{number}}}]"#);
        assert_stored(&central.post("/rest/bulk/", row));
        let stored = central.real(&format!("SELECT value FROM Reading WHERE time = '{time}'"));
        assert_eq!(stored.to_bits(), number.parse::<f64>().unwrap().to_bits(), "{number}");
        let listed = central.get(&format!("/rest/reading/?time={time}")).json()[0]["value"].as_f64().unwrap();
        assert_eq!(listed.to_bits(), stored.to_bits(), "{number}");
    }
}

#[test]
fn every_f32_in_its_shortest_form_comes_back_with_the_same_bits() {
    let central = seeded(Manner::Packhorse);
    let mut bits = 0x1234_5678_u32;
    let mut sent = Vec::new();
    while sent.len() < 2_000 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = f32::from_bits(bits);
        if value.is_finite() {
            sent.push(value);
        }
    }
    let rows: Vec<String> = sent
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let time = format!("2013-01-01T{:02}:{:02}:{:02}", at / 3600, at / 60 % 60, at % 60);
            format!(r#"{{"__table__":"Reading","time":"{time}","nodeId":11,"type":0,"value":{value:e}}}"#)
        })
        .collect();
    assert_stored(&central.post("/rest/bulk/", format!("[{}]", rows.join(","))));
    let listed = central.get("/rest/reading/").json();
    let back: Vec<u32> = listed.as_array().unwrap().iter().map(|row| (row["value"].as_f64().unwrap() as f32).to_bits()).collect();
    assert_eq!(back, sent.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
}

#[test]
fn two_fractions_of_one_second_are_two_readings_here_and_a_failure_of_the_legacy_server() {
    let rows = json!([reading("2013-01-01T00:05:00.25", 11, 0, 1.0), reading("2013-01-01T00:05:00.750000", 11, 0, 2.0)]);
    let ours = seeded(Manner::Packhorse);
    assert_stored(&bulk(&ours, &rows));
    assert_stored(&bulk(&ours, &rows));
    assert_eq!(readings(&ours), 2);
    let legacy = seeded(Manner::Legacy);
    assert_legacy_list(&bulk(&legacy, &rows));
    assert_eq!(readings(&legacy), 0);
}

#[test]
fn a_fraction_is_kept_here_and_cut_by_the_legacy_server() {
    for (manner, kept) in [(Manner::Packhorse, "2013-01-01T00:05:00.250000"), (Manner::Legacy, "2013-01-01T00:05:00")] {
        let central = seeded(manner);
        assert_stored(&bulk(&central, &json!([reading("2013-01-01T00:05:00.25", 11, 0, 1.0)])));
        assert_eq!(central.string("SELECT time FROM Reading"), kept);
    }
}

#[test]
fn a_zone_is_refused_here_and_ignored_by_the_legacy_server() {
    let rows = json!([reading("2013-01-01T00:05:00+01:00", 11, 0, 1.0)]);
    let ours = seeded(Manner::Packhorse);
    assert_refused(&bulk(&ours, &rows), 400, "row 0");
    assert_eq!(readings(&ours), 0);
    let legacy = seeded(Manner::Legacy);
    assert_stored(&bulk(&legacy, &rows));
    assert_eq!(legacy.string("SELECT time FROM Reading"), "2013-01-01T00:05:00");
}

// ---- bulk: node states

#[test]
fn a_node_state_without_identity_is_stored_once_for_its_natural_key_also_without_seq_num() {
    let central = seeded(Manner::Packhorse);
    let rows = json!([
        state("2013-01-01T00:05:00", 11, Some(0)),
        state("2013-01-01T00:05:00", 11, None),
        state("2013-01-01T00:05:00", 11, Some(1)),
        state("2013-01-01T00:05:00", 12, None)
    ]);
    assert_stored(&bulk(&central, &rows));
    assert_stored(&bulk(&central, &rows));
    assert_eq!(states(&central), 4);
    let mut other = state("2013-01-01T00:05:00", 11, None);
    other["rssi"] = json!(-50);
    assert_stored(&bulk(&central, &json!([other])));
    assert_eq!(states(&central), 4);
    assert_eq!(central.number("SELECT rssi FROM NodeState WHERE nodeId = 11 AND seq_num IS NULL"), -50);
}

#[test]
fn two_states_of_one_second_are_both_kept_when_the_gateway_tells_their_ids() {
    let central = seeded(Manner::Packhorse);
    let with_id = |local: i64| {
        let mut row = state("2013-01-01T00:05:00", 11, Some(7));
        row["localId"] = json!(local);
        row
    };
    let rows = zlib(json!([with_id(1), with_id(2)]).to_string().as_bytes());
    let from = |generation: &str| {
        let headers = [("packhorse-source", SOURCE), ("packhorse-generation", generation)];
        assert_stored(&central.call("POST", "/rest/bulk/", &headers, Some(&rows)));
    };
    from("0");
    from("0");
    assert_eq!(states(&central), 2);
    from("1");
    assert_eq!(states(&central), 4);
    assert_eq!(central.number(&format!("SELECT count(*) FROM NodeState WHERE source = '{SOURCE}' AND generation = 1")), 2);
    // Without the headers a local id means nothing.
    assert_stored(&bulk(&central, &json!([with_id(1), with_id(2)])));
    assert_eq!(states(&central), 5);
}

#[test]
fn a_state_with_a_local_id_takes_new_content_under_the_same_identity() {
    let central = seeded(Manner::Packhorse);
    let headers = [("packhorse-source", SOURCE), ("packhorse-generation", "3")];
    for rssi in [-70, -60] {
        let mut row = state("2013-01-01T00:05:00", 11, None);
        row["localId"] = json!(9);
        row["rssi"] = json!(rssi);
        assert_stored(&central.call("POST", "/rest/bulk/", &headers, Some(json!([row]).to_string().as_bytes())));
    }
    assert_eq!((states(&central), central.number("SELECT rssi FROM NodeState")), (1, -60));
}

#[test]
fn a_state_with_a_local_id_may_lack_its_time_and_node_and_one_without_may_not() {
    let central = seeded(Manner::Packhorse);
    let row = json!([{"__table__": "NodeState", "localId": 4, "time": null, "nodeId": null, "localtime": 9}]).to_string();
    let headers = [("packhorse-source", SOURCE), ("packhorse-generation", "0")];
    for _ in 0..2 {
        assert_stored(&central.call("POST", "/rest/bulk/", &headers, Some(row.as_bytes())));
    }
    assert_eq!(states(&central), 1);
    assert_refused(&central.post("/rest/bulk/", &row), 400, "row 0");
}

#[test]
fn half_an_identity_or_a_malformed_one_is_refused() {
    let central = seeded(Manner::Packhorse);
    let body = json!([state("2013-01-01T00:05:00", 11, None)]).to_string();
    for headers in [
        &[("packhorse-source", SOURCE)][..],
        &[("packhorse-generation", "0")],
        &[("packhorse-source", "zz"), ("packhorse-generation", "0")],
        &[("packhorse-source", SOURCE), ("packhorse-generation", "-1")],
    ] {
        assert_refused(&central.call("POST", "/rest/bulk/", headers, Some(body.as_bytes())), 400, "packhorse-");
    }
    assert_eq!(states(&central), 0);
}

#[test]
fn the_newer_legacy_table_merges_a_numbered_state_and_stumbles_over_a_repeat_without_number() {
    let central = seeded(Manner::Legacy);
    let numbered = json!([state("2013-01-01T00:05:00", 11, Some(7))]);
    assert_stored(&bulk(&central, &numbered));
    assert_stored(&bulk(&central, &numbered));
    let bare = json!([state("2013-01-01T00:05:00", 11, None)]);
    assert_stored(&bulk(&central, &bare));
    assert_eq!(central.number("SELECT count(*) FROM NodeState WHERE seq_num = 0"), 1);
    assert_legacy_list(&bulk(
        &central,
        &json!([reading("2013-01-01T00:05:00", 11, 0, 1.0), state("2013-01-01T00:05:00", 11, None)]),
    ));
    assert_eq!((states(&central), readings(&central)), (2, 0));
    let listed = central.get("/rest/nodestate/").json();
    assert!(listed[0].get("id").is_none() && listed[0].get("localId").is_none(), "{listed}");
}

#[test]
fn the_older_legacy_table_stores_a_repeated_state_twice_and_shows_its_id() {
    let central = seeded(Manner::LegacyOldNodeState);
    let rows = json!([state("2013-01-01T00:05:00", 11, Some(7)), state("2013-01-01T00:05:00", 11, None)]);
    assert_stored(&bulk(&central, &rows));
    assert_stored(&bulk(&central, &rows));
    assert_eq!(states(&central), 4);
    assert_eq!(central.get("/rest/nodestate/").json()[3]["id"], json!(4));
}

#[test]
fn a_sensor_in_a_bulk_is_one_row_for_its_node_and_type() {
    let central = seeded(Manner::Packhorse);
    for slope in [1.0, 1.5] {
        let row =
            json!({"__table__": "Sensor", "sensorTypeId": 0, "nodeId": 11, "calibrationSlope": slope, "calibrationOffset": 0.0});
        assert_stored(&bulk(&central, &json!([row])));
    }
    let sensors = central.get("/rest/sensor/?nodeId=11").json();
    assert_eq!(sensors.as_array().unwrap().len(), 1);
    assert_eq!(sensors[0]["calibrationSlope"], json!(1.5));
}

// ---- hostile input

#[test]
fn hostile_bodies_are_refused_with_4xx_and_nothing_of_them_is_stored() {
    let central = seeded(Manner::Packhorse);
    let good = reading("2013-01-01T00:05:00", 11, 0, 1.0).to_string();
    let with = |bad: &str| format!("[{good},{bad}]");
    let typed = |key: &str, value: &str| {
        let mut row = reading("2013-01-01T00:06:00", 11, 0, 1.0);
        row[key] = json!("MARK");
        with(&row.to_string().replace("\"MARK\"", value))
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(with(&good).as_bytes()).unwrap();
    let whole = zlib(with(&good).as_bytes());
    let mut followed = whole.clone();
    followed.extend_from_slice(b"more");
    let mut damaged = whole.clone();
    damaged[10] ^= 0xff;
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"   ".to_vec(),
        b"x".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        b"\"text\"".to_vec(),
        b"[1]".to_vec(),
        b"[{}]".to_vec(),
        b"[null]".to_vec(),
        with("").into_bytes(),
        format!("[{good}").into_bytes(),
        format!("[{good}] []").into_bytes(),
        with("{\"__table__\":\"NodeBoot\"}").into_bytes(),
        with("{\"__table__\":\"Node\",\"id\":1}").into_bytes(),
        with("{\"__table__\":\"Reading\"}").into_bytes(),
        with("{\"__table__\":\"NodeState\",\"nodeId\":11}").into_bytes(),
        typed("value", "NaN").into_bytes(),
        typed("value", "Infinity").into_bytes(),
        typed("value", "-Infinity").into_bytes(),
        typed("value", "1e999").into_bytes(),
        typed("value", "\"1\"").into_bytes(),
        typed("value", "true").into_bytes(),
        typed("nodeId", "null").into_bytes(),
        typed("nodeId", "11.5").into_bytes(),
        typed("nodeId", "99999999999999999999999").into_bytes(),
        typed("nodeId", "\"11\"").into_bytes(),
        typed("type", "[0]").into_bytes(),
        typed("time", "5").into_bytes(),
        typed("time", "\"yesterday\"").into_bytes(),
        typed("time", "\"2013-02-30T00:00:00\"").into_bytes(),
        typed("time", "\"12013-01-01T00:00:00\"").into_bytes(),
        typed("value", &("[".repeat(100_000) + &"]".repeat(100_000))).into_bytes(),
        ("[".repeat(1_000_000)).into_bytes(),
        with("{\"__table__\":\"Reading\",\"colour\":\"\\ud800\"}").into_bytes(),
        b"[\"\xff\xfe\"]".to_vec(),
        gzip.finish().unwrap(),
        whole[..whole.len() / 2].to_vec(),
        followed,
        damaged,
    ];
    for body in bodies {
        let answer = central.post("/rest/bulk/", &body);
        let head = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        assert_eq!(answer.status, 400, "{head}: {}", answer.text());
        assert_refused(&answer, 400, "");
        assert!(answer.body.len() < 2_000, "{head}: an error of {} bytes", answer.body.len());
    }
    assert_eq!((readings(&central), states(&central)), (0, 0));
    assert_stored(&central.post("/rest/bulk/", format!("[{good}]")));
}

#[test]
fn a_body_that_is_too_large_or_inflates_too_far_is_413() {
    let central = seeded(Manner::Packhorse);
    let row = reading("2013-01-01T00:05:00", 11, 0, 1.0).to_string();
    let large = format!("[{}{row}]", " ".repeat(20 << 20));
    assert_refused(&central.post("/rest/bulk/", &large), 413, "16777216");
    let bomb = zlib(format!("[{}{row}]", " ".repeat(65 << 20)).as_bytes());
    assert!(bomb.len() < 1 << 20);
    assert_refused(&central.post("/rest/bulk/", &bomb), 413, "67108864");
    let many = zlib(format!("[{}{row}]", format!("{row},").repeat(500_000)).as_bytes());
    assert_refused(&central.post("/rest/bulk/", &many), 413, "");
    assert_eq!(readings(&central), 0);
}

#[test]
fn an_announced_body_that_is_too_large_is_refused_before_it_is_sent() {
    let central = seeded(Manner::Packhorse);
    let mut line = central.connect();
    let head = [("Expect", "100-continue"), ("Content-Length", "30000000")];
    send(&mut line, central.address, "POST", "/rest/bulk/", &head, None);
    assert_refused(&receive(&mut line), 413, "");
}

#[test]
fn hostile_addresses_and_filters_are_refused_with_4xx() {
    let central = seeded(Manner::Packhorse);
    for (target, status) in [
        ("/", 404),
        ("/rest/", 404),
        ("/rest", 404),
        ("/rest/sensortype", 404),
        ("/rest/nonsense/", 404),
        ("/rest/server/", 404),
        ("/rest/pushstatus/", 405),
        ("/rest/bulk/", 405),
        ("/rest/sensortype/?colour=1", 400),
        ("/rest/sensortype/?id=x", 400),
        ("/rest/sensortype/?id=1;DROP TABLE Node".split(' ').next().unwrap(), 400),
        ("/rest/reading/?time=ge_yesterday", 400),
        ("/rest/reading/?sort(-colour)", 400),
        ("/rest/lastSync/", 400),
        ("/rest/lastnodesync/?node=x", 400),
        ("/rest/house/?address=%ff%00%zz", 200),
    ] {
        let answer = central.get(target);
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert_eq!(answer.header("packhorse-receiver"), Some("1"), "{target}");
    }
    assert_refused(&central.get("/rest/sensortype"), 404, "/rest/sensortype/");
    assert_refused(&central.call("DELETE", "/rest/node/?id=11", &[], None), 405, "DELETE");
    assert_refused(&central.call("PUT", "/rest/house/?id=1", &[], Some(b"{}")), 405, "PUT");
    assert_refused(&central.call("PUT", "/rest/sensortype/?id=0", &[], Some(b"{}")), 405, "PUT");
    assert_refused(&central.call("PUT", "/rest/node/?id=11", &[], Some(b"{\"id\": 12}")), 400, "12");
    assert_refused(&central.post("/rest/reading/", "{}"), 405, "POST");
    assert_refused(&central.post("/rest/room/", r#"{"__table__": "House", "address": "x"}"#), 400, "House");
    assert_refused(&central.post("/rest/node/", "[]"), 400, "JSON object");
    assert_refused(&central.post("/rest/node/", "{}"), 400, "id");
    assert_refused(&central.post("/rest/room/", r#"{"name": 5}"#), 400, "name");
    let long = json!({"name": "x".repeat(1_001)}).to_string();
    assert_refused(&central.post("/rest/room/", long), 400, "1000");
    assert_eq!(central.number("SELECT count(*) FROM Room"), 2);
}

// ---- lists

#[test]
fn filters_are_anded_and_compare_as_they_say() {
    let central = seeded(Manner::Packhorse);
    let rows: Vec<Value> =
        (0..10).map(|minute| reading(&format!("2013-01-01T00:{minute:02}:00"), 11, 0, f64::from(minute))).collect();
    assert_stored(&bulk(&central, &Value::from(rows)));
    let count = |query: &str| {
        let answer = central.get(&format!("/rest/Reading/?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json().as_array().unwrap().len()
    };
    assert_eq!(count("nodeId=11"), 10);
    assert_eq!(count("nodeId=12"), 0);
    assert_eq!(count("time=ge_2013-01-01T00:03:00&time=lt_2013-01-01T00:05:00"), 2);
    assert_eq!(count("time=gt_2013-01-01T00:03:00&time=le_2013-01-01T00:05:00&value=4"), 1);
    assert_eq!(count("time=2013-01-01+00:03:00"), 1);
    assert_eq!(count("locationId=None"), 0);
    let newest = central.get("/rest/reading/?nodeId=11&sort(-time)").json();
    assert_eq!(newest[0]["time"], json!("2013-01-01T00:09:00"));
    assert_eq!(newest[0]["__table__"], json!("Reading"));
}

#[test]
fn a_closed_range_counts_and_cuts_and_an_open_one_is_ignored() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let central = seeded(manner);
        let rows: Vec<Value> =
            (0..20).map(|minute| reading(&format!("2013-01-01T00:{minute:02}:00"), 11, minute % 2 * 2, 1.0)).collect();
        assert_stored(&bulk(&central, &Value::from(rows)));
        let ranged = |range: &str| {
            let answer = central.call("GET", "/rest/reading/?type=0", &[("Range", range)], None);
            let count = answer.json().as_array().unwrap().len();
            (answer.status, count, answer.header("content-range").map(ToOwned::to_owned))
        };
        assert_eq!(ranged("items=0-4"), (200, 4, Some("items 0-10/20".to_owned())));
        assert_eq!(ranged("items=8-20"), (200, 2, Some("items 8-10/20".to_owned())));
        assert_eq!(ranged("items=0-0"), (200, 0, Some("items 0-10/20".to_owned())));
        assert_eq!(ranged("items=5-"), (200, 10, None));
    }
}

#[test]
fn legacy_filters_cut_at_the_last_underscore_skip_none_and_compare_as_mysql_does() {
    let central = seeded(Manner::Legacy);
    let count = |target: &str| {
        let answer = central.get(target);
        assert_eq!(answer.status, 200, "{target}");
        answer.json().as_array().unwrap().len()
    };
    assert_eq!(count("/rest/location/?houseId=1&roomId=None"), 1);
    assert_eq!(count("/rest/house/?address=1+HIGH+st."), 1);
    assert_eq!(count("/rest/house/?address=1+High+St.++"), 1);
    assert_eq!(count("/rest/house/?address=*High*"), 2);
    assert_eq!(count("/rest/house/?address=Big_1+High+St."), 1);
    assert_eq!(count("/rest/node/?id=ge_12"), 2);
    assert_eq!(count("/rest/node/?id=gt_11&id=lt_13"), 1);
    assert_eq!(count("/rest/node/?id=999"), 0);
    assert_legacy_text(&central.get("/rest/node/?colour=1"));
    assert_legacy_text(&central.get("/rest/reading/?time=ge_yesterday"));
    assert_legacy_text(&central.get("/rest/reading/?sort(-time)&nodeId=11"));
}

#[test]
fn an_exact_filter_here_is_not_confused_by_underscores_stars_or_case() {
    let central = seeded(Manner::Packhorse);
    central.sql("INSERT INTO House (id, address) VALUES (3, 'Big_House'), (4, 'House'), (5, '*')");
    let ids = |query: &str| {
        central
            .get(&format!("/rest/house/?{query}"))
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("address=Big_House"), [json!(3)]);
    assert_eq!(ids("address=*"), [json!(5)]);
    assert_eq!(ids("address=house"), [Value::Null; 0]);
    assert_eq!(ids("address=House&deploymentId=None"), [json!(4)]);
}

#[test]
fn last_sync_is_the_newest_reading_of_a_house_or_a_node_or_null() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let central = seeded(manner);
        assert_eq!(central.get("/rest/lastSync/?house=1+High+St.").text(), "null");
        let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0), reading("2013-01-01T00:09:00", 12, 2, 1.0)]);
        assert_stored(&bulk(&central, &rows));
        assert_eq!(central.get("/rest/lastSync/?house=1+High+St.").text(), "\"2013-01-01T00:09:00\"");
        assert_eq!(central.get("/rest/lastSync/?house=2+High+St.").text(), "null");
        assert_eq!(central.get("/rest/lastnodesync/?node=11").text(), "\"2013-01-01T00:05:00\"");
        assert_eq!(central.get("/rest/lastnodesync/?node=13").text(), "null");
    }
}

// ---- single objects

#[test]
fn an_entity_posted_again_is_found_again_and_never_a_second_one() {
    let central = seeded(Manner::Packhorse);
    for (word, object) in [
        ("deployment", json!({"name": "winter", "description": null, "startDate": "2013-01-01T00:00:00", "endDate": null})),
        ("house", json!({"address": "3 H\u{f6}he", "deploymentId": 1, "startDate": null, "endDate": null})),
        ("house", json!({"address": null, "deploymentId": null})),
        ("roomtype", json!({"name": "Loft"})),
        ("room", json!({"name": "Loft Room", "roomTypeId": 1})),
        ("location", json!({"houseId": 2, "roomId": 2})),
        ("location", json!({"houseId": 2, "roomId": null})),
        ("node", json!({"id": 1063, "locationId": 301, "nodeTypeId": null})),
        (
            "sensortype",
            json!({"id": 991, "name": "LocalOnly", "code": "LO", "units": "x", "c0": 0.0, "c1": 1.0, "c2": 0.0, "c3": 0.0}),
        ),
        ("nodetype", json!({"id": 4, "name": "Base", "configured": "31,4", "blink": true, "period": 300})),
        ("sensor", json!({"nodeId": 11, "sensorTypeId": 0, "calibrationSlope": 1.0, "calibrationOffset": 0.0})),
    ] {
        let before = central.number(&format!("SELECT count(*) FROM {word}"));
        let first = central.post(&format!("/rest/{word}/"), object.to_string());
        let second = central.post(&format!("/rest/{word}/"), object.to_string());
        assert_eq!((first.status, second.status), (201, 201), "{word}: {}", first.text());
        assert_eq!(first.json(), second.json(), "{word}");
        let id = first.json()["id"].as_i64().unwrap();
        assert_eq!(first.header("location"), Some(format!("http://{}/rest/{word}/{id}", central.address).as_str()));
        for (key, value) in object.as_object().unwrap() {
            assert_eq!(&first.json()[key], value, "{word}.{key}");
        }
        assert_eq!(central.number(&format!("SELECT count(*) FROM {word}")), before + 1, "{word}");
        let listed = central.get(&format!("/rest/{word}/?id={id}")).json();
        assert_eq!(listed[0], first.json(), "{word}");
    }
}

#[test]
fn the_same_house_posted_by_many_at_once_is_one_house() {
    let central = seeded(Manner::Packhorse);
    let body = json!({"address": "9 High St.", "deploymentId": 1}).to_string();
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..8).map(|_| scope.spawn(|| central.post("/rest/house/", &body).json()["id"].clone())).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(central.number("SELECT count(*) FROM House WHERE address = '9 High St.'"), 1);
}

#[test]
fn a_type_under_the_same_id_with_another_meaning_is_a_conflict_and_stays_as_it_was() {
    let central = seeded(Manner::Packhorse);
    for (key, value) in [("name", "Pressure"), ("code", "P"), ("units", "Pa")] {
        let mut object =
            json!({"id": 0, "name": "Temperature", "code": "T", "units": "deg.C", "c0": 0.0, "c1": 1.0, "c2": 0.0, "c3": 0.0});
        object[key] = json!(value);
        assert_refused(&central.post("/rest/sensortype/", object.to_string()), 409, key);
    }
    central.sql("INSERT INTO NodeType (id, name) VALUES (4, 'Base')");
    assert_refused(&central.post("/rest/nodetype/", r#"{"id": 4, "name": "Sensor"}"#), 409, "name");
    assert_eq!(central.string("SELECT name || code || units FROM SensorType WHERE id = 0"), "TemperatureTdeg.C");
}

#[test]
fn putting_a_node_replaces_all_of_it() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let central = seeded(manner);
        central.sql("INSERT INTO NodeType (id, name) VALUES (0, 'n'); UPDATE Node SET nodeTypeId = 0 WHERE id = 11");
        let answer =
            central.call("PUT", "/rest/node/?id=11", &[], Some(br#"{"__table__": "Node", "id": 11, "locationId": 302}"#));
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.json(), json!({"__table__": "Node", "id": 11, "locationId": 302, "nodeTypeId": null}));
        assert_eq!(central.number("SELECT count(*) FROM Node WHERE id = 11 AND locationId = 302 AND nodeTypeId IS NULL"), 1);
    }
}

#[test]
fn an_object_that_points_nowhere_is_refused() {
    let (ours, legacy) = (seeded(Manner::Packhorse), seeded(Manner::Legacy));
    for (word, object) in [
        ("house", json!({"address": "x", "deploymentId": 99})),
        ("house", json!({"address": "x", "serverid": 99})),
        ("room", json!({"name": "x", "roomTypeId": 99})),
        ("location", json!({"houseId": 99, "roomId": 1})),
        ("node", json!({"id": 50, "locationId": 99})),
        ("node", json!({"id": 50, "nodeTypeId": 99})),
    ] {
        let target = format!("/rest/{word}/");
        assert_refused(&ours.post(&target, object.to_string()), 422, "99");
        assert_legacy_text(&legacy.post(&target, object.to_string()));
    }
    for central in [ours, legacy] {
        assert_eq!(central.number("SELECT count(*) FROM House"), 2);
        assert_eq!(central.number("SELECT count(*) FROM Node"), 3);
    }
}

#[test]
fn a_pushstatus_is_one_more_row_with_the_servers_time() {
    let central = seeded(Manner::Packhorse);
    let body =
        json!({"hostname": "house-17", "version": "packhorse 0.1.0", "localtime": "2026-11-23T18:27:40.174911"}).to_string();
    let answer = central.post("/rest/pushstatus/", &body);
    assert_eq!(answer.status, 201);
    assert_eq!(central.post("/rest/pushstatus/", &body).json()["id"], json!(2));
    assert_eq!(answer.json()["localtime"], json!("2026-11-23T18:27:40.174911"));
    assert!(answer.json()["time"].as_str().unwrap() > "2024");
}

// ---- the legacy server's own ways

#[test]
fn the_legacy_server_stores_doubles_of_names_and_breaks_on_doubles_of_keys() {
    let central = seeded(Manner::Legacy);
    for (word, object) in [
        ("deployment", json!({"name": "summer"})),
        ("house", json!({"address": "1 High St.", "deploymentId": 1})),
        ("room", json!({"name": "Kitchen", "roomTypeId": 1})),
    ] {
        let before = central.number(&format!("SELECT count(*) FROM {word}"));
        assert_eq!(central.post(&format!("/rest/{word}/"), object.to_string()).status, 201, "{word}");
        assert_eq!(central.number(&format!("SELECT count(*) FROM {word}")), before + 1, "{word}");
    }
    assert_legacy_text(&central.post("/rest/location/", r#"{"houseId": 1, "roomId": 1}"#));
    assert_legacy_text(&central.post("/rest/node/", r#"{"id": 11, "locationId": 301}"#));
    assert_legacy_text(&central.post("/rest/sensortype/", r#"{"id": 0, "name": "Temperature"}"#));
}

#[test]
fn an_address_beyond_ascii_always_breaks_the_legacy_server_and_never_ours() {
    let legacy = seeded(Manner::Legacy);
    assert_legacy_text(&legacy.get("/rest/house/?address=H%C3%B6he&deploymentId=1"));
    assert_legacy_text(&legacy.get("/rest/lastSync/?house=H%C3%B6he"));
    let body = json!({"address": "H\u{f6}he", "deploymentId": 1}).to_string();
    assert_legacy_text(&legacy.post("/rest/house/", &body));
    assert_eq!(legacy.number("SELECT count(*) FROM House"), 2);
    let ours = seeded(Manner::Packhorse);
    assert_eq!(ours.post("/rest/house/", &body).status, 201);
    assert_eq!(ours.get("/rest/house/?address=H%C3%B6he&deploymentId=1").json()[0]["address"], json!("H\u{f6}he"));
}

#[test]
fn a_missing_slash_gets_a_page_from_the_legacy_server() {
    let central = seeded(Manner::Legacy);
    for answer in [central.get("/rest/sensortype"), central.post("/rest/bulk", "[]")] {
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with("text/html"));
        assert_eq!(answer.header("packhorse-receiver"), None);
    }
}

#[test]
fn bad_bulks_are_a_bare_500_of_the_legacy_server_and_store_nothing() {
    let central = seeded(Manner::Legacy);
    let good = reading("2013-01-01T00:05:00", 11, 0, 1.0);
    let nan = json!([good, reading("2013-01-01T00:06:00", 11, 0, 7.5)]).to_string().replace("7.5", "NaN");
    let mut lost = reading("2013-01-01T00:06:00", 11, 0, 1.0);
    lost["nodeId"] = Value::Null;
    for body in [
        nan,
        json!([good, lost]).to_string(),
        json!([good, {"__table__": "NodeBoot"}]).to_string(),
        json!([good, {"__table__": "Nonsense"}]).to_string(),
        "not json".to_owned(),
        String::new(),
    ] {
        assert_legacy_text(&central.post("/rest/bulk/", body));
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_legacy_text(&central.call("POST", "/rest/bulk/", &form, Some(json!([good]).to_string().as_bytes())));
    assert_eq!(readings(&central), 0);
}

#[test]
fn the_legacy_server_hangs_up_after_a_bare_500_without_announcing_it() {
    let central = seeded(Manner::Legacy);
    let mut line = central.connect();
    send(&mut line, central.address, "GET", "/rest/sensortype/", &[], None);
    assert_eq!(receive(&mut line).status, 200);
    send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(b"not json"));
    assert_legacy_text(&receive(&mut line));
    assert_eq!(line.read(&mut [0]).unwrap(), 0, "the connection is closed");
}

#[test]
fn a_connection_outlives_a_json_500_of_the_legacy_server_and_any_refusal_of_ours() {
    let rows = json!([reading("2013-01-01T00:05:00", 99, 0, 1.0)]).to_string();
    for (manner, status) in [(Manner::Legacy, 500), (Manner::Packhorse, 422)] {
        let central = seeded(manner);
        let mut line = central.connect();
        for _ in 0..3 {
            send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(rows.as_bytes()));
            assert_eq!(receive(&mut line).status, status);
        }
    }
}

// ---- connections, stops, durability

#[test]
fn pipelined_requests_and_a_chunked_body_are_answered_in_order() {
    let central = seeded(Manner::Packhorse);
    let mut line = central.connect();
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0)]).to_string();
    let chunked = format!(
        "POST /rest/bulk/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{rows}\r\n0\r\n\r\n",
        rows.len()
    );
    line.write_all(chunked.as_bytes()).unwrap();
    send(&mut line, central.address, "GET", "/rest/reading/", &[], None);
    send(&mut line, central.address, "GET", "/rest/lastnodesync/?node=11", &[], None);
    assert_stored(&receive(&mut line));
    assert_eq!(receive(&mut line).json().as_array().unwrap().len(), 1);
    assert_eq!(receive(&mut line).text(), "\"2013-01-01T00:05:00\"");
}

#[test]
fn rows_are_there_after_the_receiver_was_ended_in_the_middle_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    for round in 0..3 {
        let central = Central::open(&path, Manner::Packhorse);
        if round == 0 {
            central.sql(SEED);
        }
        assert_eq!(readings(&central), round);
        assert_stored(&bulk(&central, &json!([reading(&format!("2013-01-01T00:0{round}:00"), 11, 0, 1.0)])));
        central.kill();
    }
    let central = Central::open(&path, Manner::Packhorse);
    assert_eq!(readings(&central), 3);
}

#[test]
fn a_client_that_leaves_within_its_request_leaves_all_of_it_or_nothing() {
    let central = seeded(Manner::Packhorse);
    let rows: Vec<Value> = (0..3_000)
        .map(|at| reading(&format!("2013-01-01T{:02}:{:02}:00", at / 60 % 24, at % 60), 11 + at / 1440, 0, 1.0))
        .collect();
    let body = zlib(Value::from(rows).to_string().as_bytes());
    for pause in 0..20 {
        let mut line = central.connect();
        send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(&body));
        std::thread::sleep(Duration::from_millis(pause * 3));
        drop(line);
        let count = readings(&central);
        assert!(count == 0 || count == 3_000, "{count} readings");
        central.sql("DELETE FROM Reading");
    }
}

#[test]
fn a_database_that_another_program_holds_is_503_and_serves_again_afterwards() {
    let central = seeded(Manner::Packhorse);
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&central.path);
        let mut holder = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
        holder
    });
    assert_refused(&bulk(&central, &rows), 503, "locked");
    assert_eq!(central.get("/rest/reading/").json(), json!([]));
    runtime.block_on(async { sqlx::Connection::close(holder).await.unwrap() });
    assert_stored(&bulk(&central, &rows));
}

/// 5,000 readings, others for each number.
fn many(number: i64) -> Value {
    let row = |at: i64| {
        let time = format!("20{:02}-01-{:02}T{:02}:{:02}:00", number, at / 1_440 + 1, at / 60 % 24, at % 60);
        reading(&time, 11, 0, 1.5)
    };
    (0..5_000).map(row).collect()
}

#[test]
fn a_database_that_fails_in_the_middle_of_a_bulk_is_503_and_only_what_was_acknowledged_is_there() {
    let central = seeded(Manner::Packhorse);
    assert_stored(&bulk(&central, &many(10)));
    central.sql(
        "CREATE TRIGGER late BEFORE INSERT ON Reading WHEN NEW.time = '2011-01-03T20:00:00' BEGIN SELECT RAISE(FAIL, 'late'); END",
    );
    assert_refused(&bulk(&central, &many(11)), 503, "late");
    assert_eq!(readings(&central), 5_000);
    central.sql("DROP TRIGGER late");
    assert_stored(&bulk(&central, &many(11)));
    assert_eq!(readings(&central), 10_000);
}

#[test]
#[ignore = "mounts a file system of 4 MiB: needs root"]
fn a_full_disk_is_503_and_what_was_acknowledged_is_there_when_it_has_room_again() {
    struct Mounted(tempfile::TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        }
    }
    let dir = Mounted(tempfile::tempdir().unwrap());
    let mount = |option: &str| {
        let mut command = std::process::Command::new("mount");
        assert!(command.args(["-t", "tmpfs", "-o", option, "tmpfs"]).arg(dir.0.path()).status().unwrap().success());
    };
    mount("size=4m");
    let path = dir.0.path().join("central.db");
    let central = Central::open(&path, Manner::Packhorse);
    central.sql(SEED);
    let mut acknowledged = 0;
    let refusal = loop {
        let answer = bulk(&central, &many(10 + acknowledged));
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 80, "the disk never fills");
    };
    assert_refused(&refusal, 503, "full");
    assert!(acknowledged > 0);
    assert_eq!(readings(&central), acknowledged * 5_000);
    mount("remount,size=64m");
    assert_stored(&bulk(&central, &many(10 + acknowledged)));
    central.kill();
    let central = Central::open(&path, Manner::Packhorse);
    assert_eq!(readings(&central), (acknowledged + 1) * 5_000);
}

#[test]
fn it_stops_within_seconds_although_a_request_hangs_and_a_connection_idles() {
    let mut central = seeded(Manner::Packhorse);
    let _idle = central.connect();
    let mut half = central.connect();
    send(&mut half, central.address, "POST", "/rest/bulk/", &[("Content-Length", "1000")], None);
    half.write_all(b"[").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    central.stop();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bind = |database: String, manner| {
        let options = packhorse::receiver::Options { listen: "127.0.0.1:0".parse().unwrap(), database, manner };
        runtime.block_on(packhorse::receiver::Receiver::bind(options)).map(|_| ()).unwrap_err().to_string()
    };
    let dir = tempfile::tempdir().unwrap();
    assert!(bind("mysql://u@h/db".to_owned(), Manner::Packhorse).contains("sqlite:///"));
    assert!(bind("sqlite::memory:".to_owned(), Manner::Packhorse).contains("not a file"));
    let absent = format!("sqlite://{}/absent/central.db", dir.path().display());
    assert!(bind(absent, Manner::Packhorse).contains("directory exists"));
    let path = dir.path().join("text.db");
    std::fs::write(&path, "this is no database, although it is long enough to be read as the head of one: ".repeat(30)).unwrap();
    assert!(bind(format!("sqlite://{}", path.display()), Manner::Packhorse).contains("SQLite"));
    let old = dir.path().join("old.db");
    drop(Central::open(&old, Manner::LegacyOldNodeState));
    assert!(bind(format!("sqlite://{}", old.display()), Manner::Packhorse).contains("legacy-old"));
}

/// `cargo test --release --test receiver -- --ignored --nocapture measured`
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
fn measured_time_of_a_bulk_of_10_000_readings() {
    let central = seeded(Manner::Packhorse);
    let mut line = central.connect();
    for round in 0..10_i64 {
        let rows: Vec<Value> = (0..10_000)
            .map(|at| {
                let time = format!("20{:02}-01-{:02}T{:02}:{:02}:00", 10 + round, at / 1_440 + 1, at / 60 % 24, at % 60);
                reading(&time, 11, 0, 18.04 + f64::from(at) / 7.0)
            })
            .collect();
        let body = zlib(Value::from(rows).to_string().as_bytes());
        let began = Instant::now();
        send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(&body));
        assert_stored(&receive(&mut line));
        let first = began.elapsed();
        let began = Instant::now();
        send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(&body));
        assert_stored(&receive(&mut line));
        println!("round {round}: new {first:?}, the same again {:?}", began.elapsed());
    }
    assert_eq!(readings(&central), 100_000);
}
