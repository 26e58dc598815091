//! Hostile input: refused with 4xx, nothing of it stored.

use std::io::Write as _;

use packhorse::receiver::Manner;
use serde_json::json;

use super::{
    assert_refused, assert_stored,
    central::{receive, send, zlib},
    reading, readings, seeded, states,
};

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
        ("/gateways", 404),
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
    assert_refused(&central.call("PATCH", "/rest/node/?id=11", &[], None), 405, "PATCH");
    assert_refused(&central.call("DELETE", "/rest/bulk/", &[], None), 405, "DELETE");
    assert_refused(&central.post("/rest/node/", r#"{"id": 3000000000}"#), 400, "32 bits");
    assert_refused(&central.call("PUT", "/rest/room/?id=1", &[], Some(b"{}")), 405, "PUT");
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

#[test]
fn a_large_body_for_an_address_that_is_not_there_still_gets_its_404() {
    let central = seeded(Manner::Packhorse);
    let body = vec![b' '; 12 << 20];
    for target in ["/rest/bulk", "/other/", "/rest/nonsense/"] {
        assert_refused(&central.post(target, &body), 404, "");
    }
}
