//! Node states and sensors in a bulk: what identifies them.

use packhorse::receiver::Manner;
use serde_json::{Value, json};

use super::{
    SOURCE, assert_legacy_list, assert_refused, assert_stored, bulk, central::zlib, reading, readings, seeded, state, states,
};

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
    // The gateway's database was put back, and what is sent again is the same.
    from("1");
    assert_eq!(states(&central), 2);
    // Without the headers a local id means nothing.
    assert_stored(&bulk(&central, &json!([with_id(1), with_id(2)])));
    assert_eq!(states(&central), 3);
}

#[test]
fn a_state_stored_before_the_gateway_told_its_identity_is_not_stored_again_with_it() {
    let central = seeded(Manner::Packhorse);
    let times: Vec<String> = (0..600).map(|at| format!("2013-01-01T{:02}:{:02}:00", at / 60, at % 60)).collect();
    let rows: Vec<Value> = times.iter().zip(0_i64..).map(|(time, at)| state(time, 11, (at % 3 > 0).then_some(at % 3))).collect();
    assert_stored(&bulk(&central, &Value::from(rows.clone())));
    let mut told = rows;
    // One more of the first second: another state, although its key is the same.
    told.push(told[0].clone());
    for (local, row) in told.iter_mut().enumerate() {
        row["localId"] = json!(local);
    }
    let headers = [("packhorse-source", SOURCE), ("packhorse-generation", "0")];
    for _ in 0..2 {
        assert_stored(&central.call("POST", "/rest/bulk/", &headers, Some(Value::from(told.clone()).to_string().as_bytes())));
        assert_eq!((states(&central), central.number("SELECT count(*) FROM NodeState WHERE localId IS NULL")), (601, 0));
    }
}

#[test]
fn a_client_that_could_tell_the_identity_and_does_not_know_to_whom_is_asked_for_it() {
    let body = zlib(json!([state("2013-01-01T00:05:00", 11, Some(7))]).to_string().as_bytes());
    let central = seeded(Manner::Packhorse);
    let answer = central.call("POST", "/rest/bulk/", &[("packhorse-plain", "1")], Some(&body));
    assert_refused(&answer, 421, "in full");
    assert_eq!(states(&central), 0);
    let legacy = seeded(Manner::Legacy);
    assert_stored(&legacy.call("POST", "/rest/bulk/", &[("packhorse-plain", "1")], Some(&body)));
    assert_eq!(states(&legacy), 1);
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
