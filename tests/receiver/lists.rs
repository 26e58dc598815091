//! Lists: filters, ranges, the newest times.

use packhorse::receiver::Manner;
use serde_json::{Value, json};

use super::{assert_legacy_text, assert_stored, bulk, reading, seeded};

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
