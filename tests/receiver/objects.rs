//! Single objects that are posted and put.

use packhorse::receiver::Manner;
use serde_json::{Value, json};

use super::{assert_legacy_text, assert_refused, seeded};

/// A table's name: on a server the case counts.
fn table_of(word: &str) -> &'static str {
    let names = ["Deployment", "House", "RoomType", "Room", "Location", "Node", "SensorType", "NodeType", "Sensor"];
    names.into_iter().find(|name| name.eq_ignore_ascii_case(word)).unwrap()
}

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
        let table = table_of(word);
        let before = central.number(&format!("SELECT count(*) FROM {table}"));
        let first = central.post(&format!("/rest/{word}/"), object.to_string());
        let second = central.post(&format!("/rest/{word}/"), object.to_string());
        assert_eq!((first.status, second.status), (201, 201), "{word}: {}", first.text());
        assert_eq!(first.json(), second.json(), "{word}");
        let id = first.json()["id"].as_i64().unwrap();
        assert_eq!(first.header("location"), Some(format!("http://{}/rest/{word}/{id}", central.address).as_str()));
        for (key, value) in object.as_object().unwrap() {
            assert_eq!(&first.json()[key], value, "{word}.{key}");
        }
        assert_eq!(central.number(&format!("SELECT count(*) FROM {table}")), before + 1, "{word}");
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
fn putting_a_house_renames_it_and_leaves_its_locations_where_they_are() {
    for manner in [Manner::Packhorse, Manner::Legacy] {
        let central = seeded(manner);
        central.sql("INSERT INTO Server (id, hostname) VALUES (5, 's'); UPDATE House SET serverid = 5 WHERE id = 1");
        let mut house = central.get("/rest/house/?id=1").json()[0].clone();
        house["address"] = json!("One High Street");
        house["endDate"] = json!("2014-01-01T00:00:00");
        let answer = central.call("PUT", "/rest/house/?id=1", &[], Some(house.to_string().as_bytes()));
        assert_eq!((answer.status, &answer.json()), (201, &house), "{}", answer.text());
        assert_eq!(central.get("/rest/house/?id=1").json()[0], house, "with the server that it had");
        assert_eq!(central.number("SELECT count(*) FROM House"), 2);
    }
}

#[test]
fn nothing_is_put_over_another_one_or_where_nothing_is() {
    let central = seeded(Manner::Packhorse);
    central.sql("INSERT INTO House (id, deploymentId, address) VALUES (70, 1, 'other'), (71, 1, 'third')");
    let put = |target: &str, object: Value| central.call("PUT", target, &[], Some(object.to_string().as_bytes()));
    let third = json!({"id": 70, "deploymentId": 1, "address": "third"});
    assert_refused(&put("/rest/house/?id=70", third), 409, "71");
    assert_refused(&put("/rest/house/?id=99", json!({"address": "new"})), 422, "99");
    assert_refused(&put("/rest/sensor/?id=99", json!({"nodeId": 11, "sensorTypeId": 0})), 422, "99");
    assert_refused(&put("/rest/sensortype/?id=0", json!({"id": 0, "name": "Pressure"})), 405, "PUT");
    assert_refused(&put("/rest/room/?id=1", json!({"id": 1, "name": "Other"})), 405, "PUT");
    assert_eq!(central.string("SELECT address FROM House WHERE id = 70"), "other");
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
