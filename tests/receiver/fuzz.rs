//! Any request whatever: no 5xx, no panic, and a refused one leaves every table as it was.

use packhorse::receiver::Manner;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use super::{
    SOURCE,
    central::{Central, zlib},
    seeded,
};

/// How many requests.
const CASES: u32 = 400;

const TABLES: [&str; 14] = [
    "Deployment",
    "House",
    "RoomType",
    "Room",
    "Location",
    "NodeType",
    "Node",
    "SensorType",
    "Sensor",
    "Pushstatus",
    "Reading",
    "NodeState",
    "packhorse_run",
    "packhorse_receipt",
];
const KEYS: [&str; 26] = [
    "__table__",
    "id",
    "name",
    "description",
    "startDate",
    "endDate",
    "deploymentId",
    "address",
    "serverid",
    "roomTypeId",
    "houseId",
    "roomId",
    "locationId",
    "nodeTypeId",
    "time",
    "nodeId",
    "type",
    "value",
    "parent",
    "localtime",
    "seq_num",
    "localId",
    "code",
    "c0",
    "hostname",
    "packhorse",
];

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

fn scalar() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("2013-01-01T00:05:00".to_owned()),
        Just("2013-01-01T00:05:00.25Z".to_owned()),
        Just("2013-02-30".to_owned()),
        "\\PC{0,12}",
        Just("x".repeat(1_001)),
    ];
    prop_oneof![
        4 => prop::sample::select(vec![json!(11), json!(0), json!(301), json!(1), json!(2), json!(99)]),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        3 => text.prop_map(Value::from),
        1 => Just(json!([1])),
        1 => Just(json!({"depth": 1, "parked": 1})),
    ]
}

/// An object that is nearly one of the contract's.
fn object() -> impl Strategy<Value = Value> {
    let table = prop::sample::select(vec!["Reading", "NodeState", "Sensor", "node", "House", "NodeBoot"]);
    let sound = json!({"time": "2013-01-01T00:05:00", "nodeId": 11, "type": 0, "locationId": 301, "value": 1.5, "id": 11,
        "sensorTypeId": 0, "seq_num": 3, "name": "n", "address": "a", "houseId": 1, "roomId": 1, "deploymentId": 1});
    let changes = prop::collection::vec((prop::sample::select(KEYS.to_vec()), scalar()), 0..4);
    (table, changes).prop_map(move |(table, changes)| {
        let mut object = sound.clone();
        object["__table__"] = json!(table);
        for (key, value) in changes {
            object[key] = value;
        }
        object
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        3 => object(),
        3 => prop::collection::vec(object(), 0..6).prop_map(Value::from),
        1 => scalar(),
    ];
    let text = json.prop_map(|json| json.to_string().into_bytes());
    prop_oneof![
        3 => text.clone(),
        3 => text.clone().prop_map(|text| zlib(&text)),
        2 => (text, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut body = zlib(&text);
            let at = at.index(body.len());
            body[at] = byte;
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let words = "sensortype roomtype room deployment nodetype node house location reading nodestate sensor pushstatus bulk lastSync lastnodesync server";
    let word = prop_oneof![8 => prop::sample::select(words.split(' ').collect::<Vec<_>>()).prop_map(str::to_owned), 1 => "[a-zA-Z%/]{0,8}"];
    let value = prop_oneof![
        "[0-9]{1,20}",
        "(ge|gt|le|lt|xx)_[0-9T:-]{0,22}",
        "[a-zA-Z0-9%+*_.-]{0,12}",
        Just("None".to_owned()),
        Just("1e999".to_owned()),
        Just("nan".to_owned()),
        Just("2013-01-01T00:05:00".to_owned()),
    ];
    let pair = prop_oneof![
        6 => (prop::sample::select(KEYS.to_vec()), value).prop_map(|(key, value)| format!("{key}={value}")),
        1 => "sort\\([+-]?[a-zA-Z]{0,8}\\)",
        1 => "(house|node|source)=[a-zA-Z0-9]{0,5}",
    ];
    (word, prop::collection::vec(pair, 0..4), prop::bool::weighted(0.9)).prop_map(|(word, pairs, slash)| {
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        format!("/rest/{word}{}{query}", if slash { "/" } else { "" })
    })
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let range = prop_oneof![
        Just("items=0-5".to_owned()),
        "items=[0-9]{0,25}-[0-9]{0,25}",
        "\\PC{0,10}".prop_filter("a header", |text| text.is_ascii())
    ];
    let seq = prop_oneof![Just("0".to_owned()), Just("5".to_owned()), "[0-9-]{0,22}"];
    let source = prop_oneof![4 => Just(SOURCE.to_owned()), 1 => "[0-9a-g]{0,33}"];
    let run = (source, seq.clone(), seq.clone(), seq).prop_map(|(source, first, end, cursor)| {
        vec![
            ("packhorse-source", source),
            ("packhorse-generation", "0".to_owned()),
            ("packhorse-epoch", "00000000000000aa".to_owned()),
            ("packhorse-stream", "reading".to_owned()),
            ("packhorse-first", first),
            ("packhorse-end", end),
            ("packhorse-cursor", cursor),
        ]
    });
    (prop::option::of(range), prop::option::of(run), prop::bool::weighted(0.1)).prop_map(|(range, run, plain)| {
        let mut headers = run.unwrap_or_default();
        headers.extend(range.map(|range| ("Range", range)));
        if plain {
            headers.push(("packhorse-plain", "1".to_owned()));
        }
        headers
    })
}

/// A request that may well be taken: what is refused beside it must not disturb.
fn sound() -> impl Strategy<Value = Request> {
    let look = prop::sample::select(vec!["sensortype", "node", "house", "reading", "nodestate"]).prop_map(|word| Request {
        method: "GET",
        target: format!("/rest/{word}/?nodeId=11").replace("house/?nodeId=11", "house/"),
        headers: vec![],
        body: None,
    });
    let rows = prop::collection::vec((0..60_u32, prop::sample::select(vec![11, 12, 13, 99]), any::<f32>()), 1..5).prop_map(|rows| {
        let row = |(minute, node, value): (u32, i32, f32)| {
            let value = if value.is_finite() { json!(value) } else { Value::Null };
            json!({"__table__": "Reading", "time": format!("2013-01-01T00:{minute:02}:00"), "nodeId": node, "type": 0, "value": value})
        };
        let body = Value::from(rows.into_iter().map(row).collect::<Vec<_>>()).to_string().into_bytes();
        Request { method: "POST", target: "/rest/bulk/".to_owned(), headers: vec![], body: Some(zlib(&body)) }
    });
    let run = (rows.clone(), 0..5_u32).prop_map(|(request, first)| {
        let text = |text: &str| text.to_owned();
        let headers = vec![
            ("packhorse-source", text(SOURCE)),
            ("packhorse-generation", text("0")),
            ("packhorse-epoch", text("00000000000000aa")),
            ("packhorse-stream", text("reading")),
            ("packhorse-first", first.to_string()),
            ("packhorse-end", text("9")),
            ("packhorse-cursor", text("0")),
        ];
        Request { headers, ..request }
    });
    prop_oneof![look, rows, run]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![1 => sound(), 2 => wild()]
}

fn wild() -> impl Strategy<Value = Request> {
    let method = prop::sample::select(vec!["GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]);
    let target = prop_oneof![2 => target(), 1 => Just("/rest/bulk/".to_owned())];
    (method, target, headers(), body()).prop_map(|(method, target, headers, body)| {
        let body = (method == "POST" || method == "PUT").then_some(body);
        Request { method, target, headers, body }
    })
}

/// How many rows each table has.
fn counts(central: &Central) -> Vec<i64> {
    TABLES.iter().map(|table| central.number(&format!("SELECT count(*) FROM {table}"))).collect()
}

#[test]
fn no_request_is_a_5xx_and_no_refused_one_changes_a_table() {
    let central = seeded(Manner::Packhorse);
    let mut before = counts(&central);
    let (mut taken, mut refused) = (0, 0);
    let mut runner =
        TestRunner::new(Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() });
    let before = std::cell::RefCell::new(&mut before);
    let tally = std::cell::RefCell::new((&mut taken, &mut refused));
    let outcome = runner.run(&request(), |request| {
        let Request { method, target, headers, body } = &request;
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let answer = central.call(method, target, &headers, body.as_deref());
        prop_assert!(answer.status < 500, "{}: {}", answer.status, answer.text());
        prop_assert!(
            answer.header("packhorse-receiver").is_some() || answer.body.is_empty(),
            "{} without the mark",
            answer.status
        );
        let now = counts(&central);
        let mut tally = tally.borrow_mut();
        if answer.status >= 400 {
            *tally.1 += 1;
            prop_assert_eq!(&now, &**before.borrow(), "{}: {}", answer.status, answer.text());
        } else {
            *tally.0 += 1;
        }
        **before.borrow_mut() = now;
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
    let (taken, refused) = tally.into_inner();
    println!("{taken} requests were taken, {refused} refused");
    assert!(*taken > 40 && *refused > 100, "the generator is lopsided: {taken} taken, {refused} refused");
}

#[test]
fn the_openapi_document_has_every_call_and_no_other() {
    let document = include_str!("../../docs/openapi.yaml");
    let described: Vec<&str> = document.lines().filter_map(|line| line.strip_prefix("  /rest/")?.strip_suffix("/:")).collect();
    let central = seeded(Manner::Packhorse);
    for word in &described {
        assert_ne!(central.get(&format!("/rest/{word}/")).status, 404, "{word}");
    }
    let words = TABLES.iter().map(|table| table.to_ascii_lowercase()).filter(|table| !table.starts_with("packhorse"));
    for word in words.chain(["bulk".to_owned(), "lastSync".to_owned(), "lastnodesync".to_owned()]) {
        assert!(described.contains(&word.as_str()), "{word} is not described");
    }
    assert_eq!(described.len(), 15);
}
