//! The legacy server's own ways.

use std::io::Read as _;

use packhorse::receiver::Manner;
use serde_json::{Value, json};

use super::{
    assert_legacy_text,
    central::{receive, send},
    reading, readings, seeded,
};

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
