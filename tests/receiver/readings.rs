//! Readings in a bulk.

use packhorse::receiver::Manner;
use serde_json::json;

use super::{
    KEEPS_NEGATIVE_ZERO, assert_legacy_list, assert_refused, assert_stored, bulk, central::zlib, reading, readings, seeded,
    state, states,
};

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
        let sent = number.parse::<f64>().unwrap();
        if KEEPS_NEGATIVE_ZERO || sent != 0.0 {
            assert_eq!(stored.to_bits(), sent.to_bits(), "{number}");
        }
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
