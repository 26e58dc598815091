//! The REST sink against servers that answer byte by byte as a script says, and against the recorded calls of the contract.

#![expect(clippy::unwrap_used, reason = "a failing test is to panic")]

mod scripted;

use std::{path::PathBuf, time::Duration};

use packhorse::{
    domain::{
        Column, Deployment, Entity, EntityKind, Epoch, Generation, House, Location, Node, Outcome, RemoteId, Room, RoomType,
        Rows, SensorType, Seq, SourceId, Stream, Verdict,
    },
    ports::{Ask, Bounds, Delivery, RemoteEntity, Sink},
    rest::{Auth, Options, RestSink},
};
use scripted::{Request, Server, Step, answer, json};
use serde_json::{Value, json};

fn options(url: &str) -> Options {
    Options {
        url: url.into(),
        auth: Auth::None,
        ca_pem: None,
        client_identity_pem: None,
        proxy: None,
        request_bytes_max: 1 << 20,
        connect_deadline: Duration::from_secs(5),
        answer_deadline: Duration::from_secs(5),
        stall_deadline: Options::STALL_DEADLINE,
        source: SourceId(0xfeed),
    }
}

fn sink(url: &str) -> RestSink {
    RestSink::new(options(url)).unwrap()
}

fn delivery(rows: Rows) -> Delivery {
    let (source, generation) = (SourceId(0xfeed), Generation(3));
    Delivery {
        bounds: Bounds {
            source,
            generation,
            epoch: Epoch(1),
            first: Seq(0),
            end: Seq(rows.len() as u64),
            cursor: Seq(0),
            taken: None,
        },
        rows,
    }
}

fn ints(values: &[i64]) -> Column {
    Column::Int(values.iter().copied().map(Some).collect())
}

fn readings(count: usize) -> Delivery {
    let times = Column::Int((0..count as i64).map(|row| Some(1_356_998_400_000_000 + row * 300_000_000)).collect());
    let same = |value| Column::Int(vec![Some(value); count]);
    let values = Column::Float((0..count).map(|row| Some(18.0 + row as f32 / 100.0)).collect());
    delivery(Rows::new(Stream::Reading, vec![times, same(837), same(0), same(1), values]))
}

fn node_state(id: Option<i64>) -> Delivery {
    let one = |value| Column::Int(vec![value]);
    let time = one(Some(1_356_998_400_000_000));
    delivery(Rows::new(
        Stream::NodeState,
        vec![one(id), time, one(Some(11)), one(Some(1)), one(Some(123_456_789_012)), one(Some(0)), one(Some(-70))],
    ))
}

async fn one_answer(step: Step) -> Outcome {
    let server = Server::start([step]).await;
    let brief = Duration::from_millis(300);
    let short = Options { connect_deadline: brief, answer_deadline: brief, ..options(&server.url) };
    RestSink::new(short).unwrap().deliver(&readings(2)).await.outcome
}

#[tokio::test]
async fn each_answer_on_the_wire_has_its_verdict() {
    let page = "<!DOCTYPE html><html>Please log in</html>";
    let cut = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n[";
    let table = [
        (Step::Answer(json("201 Created", "[]")), Verdict::Accepted),
        (Step::Answer(answer("201 Created", "text/plain", "[]", "")), Verdict::Accepted),
        (
            Step::Answer("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n".into()),
            Verdict::Accepted,
        ),
        (Step::Answer(json("201 Created", "{}")), Verdict::Unknown),
        (Step::Answer(json("201 Created", "")), Verdict::Unknown),
        (Step::Answer(json("201 Created", "[")), Verdict::Unknown),
        (Step::Answer(json("200 OK", "[]")), Verdict::Misconfigured),
        (Step::Answer(answer("200 OK", "text/html", page, "")), Verdict::Misconfigured),
        (Step::Answer(answer("200 OK", "application/json", page, "")), Verdict::Misconfigured),
        (
            Step::Answer(answer("302 Found", "text/html", page, "Location: http://portal/login?token=x\r\n")),
            Verdict::Misconfigured,
        ),
        (Step::Answer(answer("511 Network Authentication Required", "text/html", page, "")), Verdict::Misconfigured),
        (Step::Answer(json("401 Unauthorized", "{}")), Verdict::Misconfigured),
        (Step::Answer(json("403 Forbidden", "{}")), Verdict::Misconfigured),
        (Step::Answer(json("404 Not Found", "{}")), Verdict::Misconfigured),
        (Step::Answer(json("400 Bad Request", "[\"Error\"]")), Verdict::Refused),
        (Step::Answer(json("422 Unprocessable", "{}")), Verdict::Refused),
        (Step::Answer(answer("413 Too Large", "text/html", page, "")), Verdict::TooLarge),
        (Step::Answer(json("503 Unavailable", "")), Verdict::NotStored),
        (Step::Answer(json("429 Slow Down", "")), Verdict::NotStored),
        (Step::Answer(answer("500 Error", "text/plain", "oops", "")), Verdict::Unknown),
        (Step::Answer(answer("502 Bad Gateway", "text/html", page, "")), Verdict::Unknown),
        (Step::Answer(answer("504 Timeout", "text/html", page, "")), Verdict::Unknown),
        (Step::Close, Verdict::Unknown),
        (Step::Part("HTTP/1.1 201 Cre".into()), Verdict::Unknown),
        (Step::Part("nonsense\r\n\r\n".into()), Verdict::Unknown),
        (Step::Part(cut.into()), Verdict::Unknown),
        (Step::Stall(String::new()), Verdict::Unknown),
        (Step::Stall(cut.into()), Verdict::Unknown),
        (Step::Drip(cut.replace("20", "200"), 20), Verdict::Unknown),
        (Step::Answer(json("201 Created", &format!("[{}]", " ".repeat(70_000)))), Verdict::Misconfigured),
    ];
    for (step, verdict) in table {
        let shown = format!("{step:.200?}");
        let outcome = tokio::time::timeout(Duration::from_secs(20), one_answer(step)).await.expect("every call ends by itself");
        assert_eq!(outcome.verdict, verdict, "{shown}: {outcome}");
        assert!(!outcome.advice.contains("token=x"), "{outcome}");
    }
}

#[tokio::test]
async fn nobody_listening_and_a_name_without_an_address_are_not_stored() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/rest/", listener.local_addr().unwrap());
    drop(listener);
    for (url, word) in [(url.as_str(), "listens"), ("http://no-such-host.invalid/rest/", "resolved")] {
        let outcome = sink(url).deliver(&readings(1)).await.outcome;
        assert!(outcome.verdict == Verdict::NotStored && outcome.advice.contains(word), "{outcome}");
    }
}

#[tokio::test]
async fn a_tls_handshake_that_fails_is_not_stored() {
    let server = Server::start([]).await;
    let url = server.url.replace("http://", "https://");
    let sink = RestSink::new(Options { connect_deadline: Duration::from_millis(500), ..options(&url) }).unwrap();
    let outcome = sink.find(&Ask::All(EntityKind::Room)).await.unwrap_err();
    // The scripted server waits for the end of a head that never comes; the handshake's bytes are no request.
    assert_eq!(outcome.verdict, Verdict::NotStored, "{outcome}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_wish_of_the_servers_is_passed_on_and_clamped() {
    for (wish, seconds) in [("7", 7), ("86400", 3600)] {
        let outcome = one_answer(Step::Answer(answer("503 No", "text/plain", "", &format!("Retry-After: {wish}\r\n")))).await;
        assert_eq!(outcome.retry_after, Some(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn a_connection_is_kept_after_a_success_and_left_after_a_500() {
    let ok = || Step::Answer(json("201 Created", "[]"));
    let server =
        Server::start([ok(), ok(), Step::AnswerThenDeaf(answer("500 Error", "text/plain", "oops", "")), ok(), ok()]).await;
    let sink = sink(&server.url);
    let mut verdicts = Vec::new();
    for count in 1..=5 {
        verdicts.push(sink.deliver(&readings(count)).await.outcome.verdict);
    }
    let (ok, unknown) = (Verdict::Accepted, Verdict::Unknown);
    assert_eq!(verdicts, [ok, ok, unknown, ok, ok]);
    assert_eq!((server.connections(), server.deaf_hits()), (2, 0));
    assert_eq!(server.seen().len(), 5, "nothing is sent twice");
}

#[tokio::test]
async fn a_request_that_got_no_answer_is_not_sent_again_by_itself() {
    let server = Server::start([Step::Answer(json("201 Created", "[]")), Step::Close]).await;
    let sink = sink(&server.url);
    assert_eq!(sink.deliver(&readings(1)).await.outcome.verdict, Verdict::Accepted);
    assert_eq!(sink.deliver(&readings(2)).await.outcome.verdict, Verdict::Unknown);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_repeated_500_of_one_request_is_a_refusal_once_another_was_accepted() {
    let bad = || Step::Answer(answer("500 Error", "text/plain", "oops", ""));
    let ok = Step::Answer(json("201 Created", "[]"));
    let server = Server::start([bad(), bad(), bad(), ok, bad()]).await;
    let sink = sink(&server.url);
    for _ in 0..3 {
        assert_eq!(sink.deliver(&readings(2)).await.outcome.verdict, Verdict::Unknown);
    }
    assert_eq!(sink.deliver(&readings(1)).await.outcome.verdict, Verdict::Accepted);
    assert_eq!(sink.deliver(&readings(2)).await.outcome.verdict, Verdict::Refused);
}

#[tokio::test]
async fn what_is_not_sent_is_told_without_a_request() {
    let server = Server::start([Step::Answer(json("201 Created", "[]"))]).await;
    let small = RestSink::new(Options { request_bytes_max: 10, ..options(&server.url) }).unwrap();
    assert_eq!(small.deliver(&readings(50)).await.outcome.verdict, Verdict::TooLarge);
    let mut nan = readings(1);
    nan.rows =
        Rows::new(Stream::Reading, vec![ints(&[0]), ints(&[1]), ints(&[1]), ints(&[1]), Column::Float(vec![Some(f32::NAN)])]);
    let refused = small.deliver(&nan).await.outcome;
    assert!(refused.verdict == Verdict::Refused && refused.advice.contains("row 0"), "{refused}");
    assert!(server.seen().is_empty());
    // A single row cannot be made smaller.
    assert_eq!(small.deliver(&readings(1)).await.outcome.verdict, Verdict::Accepted);
}

#[tokio::test]
async fn only_a_packhorse_receiver_is_told_where_rows_come_from() {
    let ours = || Step::Answer(answer("201 Created", "application/json", "[]", "packhorse-receiver: 1\r\n"));
    let proxy = Step::Answer(answer("502 Bad Gateway", "text/html", "<html>", ""));
    let server = Server::start([ours(), proxy, ours(), Step::Answer(json("201 Created", "[]")), ours()]).await;
    let sink = sink(&server.url);
    for expected in [true, true, true, false, true] {
        sink.deliver(&node_state(Some(77))).await;
        assert_eq!(sink.is_packhorse(), expected);
    }
    let told: Vec<_> = server
        .seen()
        .iter()
        .map(|request| {
            let source = request.head.contains("packhorse-source: 0000000000000000000000000000feed");
            assert_eq!(source, request.head.contains("packhorse-generation: 3"));
            (source, request.json()[0]["localId"].clone())
        })
        .collect();
    let (known, unknown) = ((true, json!(77)), (false, Value::Null));
    // A proxy's error takes nothing away; a success without the mark does.
    assert_eq!(told, [unknown.clone(), known.clone(), known.clone(), known, unknown]);
}

#[tokio::test]
async fn a_success_that_is_not_the_servers_own_is_none() {
    for (content_type, headers) in [("text/html", ""), ("application/json", "Content-Encoding: gzip\r\n")] {
        let server = Server::start([Step::Answer(answer("201 Created", content_type, "[]", headers))]).await;
        let outcome = sink(&server.url).deliver(&readings(1)).await.outcome;
        assert_eq!(outcome.verdict, Verdict::Unknown, "{content_type} {headers}: {outcome}");
    }
}

#[tokio::test]
async fn credentials_travel_and_are_struck_out_of_what_the_server_repeats() {
    let echo = Step::Answer(answer("500 Error", "text/plain", "you sent: Basic dTpodXNo and hush", ""));
    let server = Server::start([echo]).await;
    let with_user = server.url.replace("http://", "http://u:hush@");
    let outcome = sink(&with_user).deliver(&readings(1)).await.outcome;
    assert!(server.seen()[0].head.contains("authorization: basic dtpodxno"), "{}", server.seen()[0].head);
    assert!(!outcome.advice.contains("hush") && !outcome.advice.contains("dTpodXNo"), "{outcome}");
    assert!(server.seen()[0].head.contains(concat!("user-agent: packhorse/", env!("CARGO_PKG_VERSION"))));
    assert!(!server.seen()[0].head.contains("accept-encoding"));
}

#[tokio::test]
async fn an_answer_of_another_shape_is_no_catalog() {
    for body in ["{}", "[{\"id\":\"1\"}]", "[{\"id\":1,\"__table__\":\"House\"}]", "[7]", "null"] {
        let server = Server::start([Step::Answer(json("200 OK", body))]).await;
        let outcome = sink(&server.url).find(&Ask::All(EntityKind::Room)).await.unwrap_err();
        assert_eq!(outcome.verdict, Verdict::Misconfigured, "{body}: {outcome}");
    }
    let server = Server::start([Step::Answer(json("201 Created", "{\"id\":9}"))]).await;
    let node = Entity::Node(Node { location: None, node_type: None });
    let outcome = sink(&server.url).create(Some(RemoteId(8)), &node).await.unwrap_err();
    assert_eq!(outcome.verdict, Verdict::Misconfigured);
}

/// The recorded calls, or `None` where this checkout stands alone.
fn recorded() -> Option<Value> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("PACKHORSE_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join("contract/examples.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no recorded calls at {} (set PACKHORSE_SHARED)", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).expect("recorded calls are JSON"))
}

/// Method, path, query in order of its parts, and body.
fn comparable(method: &str, target: &str, body: Value) -> (String, String, Vec<String>, Value) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query: Vec<String> = query.split('&').map(str::to_owned).collect();
    query.sort();
    (method.to_owned(), path.to_owned(), query, body)
}

fn assert_as_recorded(all: &Value, name: &str, place: usize, request: &Request) {
    let call = &all[name][place];
    let expected = comparable(call["method"].as_str().unwrap(), call["target"].as_str().unwrap(), call["request_body"].clone());
    let body = if request.body.is_empty() { Value::Null } else { request.json() };
    assert_eq!(comparable(&request.method, &request.target, body), expected, "{name}[{place}]");
}

#[tokio::test]
async fn our_requests_are_the_recorded_ones() {
    let Some(all) = recorded() else { return };
    let text = |text: &str| Some(text.to_owned());
    let id = |id| Some(RemoteId(id));
    let start = Some("2013-01-01T00:00:00".parse().unwrap());
    let node = |location, node_type| Entity::Node(Node { location: id(location), node_type });
    let coefficients = [0.0, 1.0, 0.0, 0.0].map(Some);
    let posts = [
        ("post_room", None, Entity::Room(Room { room_type: id(501), name: text("Loft Room") })),
        ("post_roomtype", None, Entity::RoomType(RoomType { name: text("Loft") })),
        (
            "post_deployment",
            None,
            Entity::Deployment(Deployment { name: text("testing"), description: text("a testing deployment"), start, end: None }),
        ),
        ("post_node", id(1063), node(4, None)),
        (
            "post_sensortype",
            id(991),
            Entity::SensorType(SensorType { name: text("LocalOnly"), code: text("LO"), units: text("x"), coefficients }),
        ),
        ("post_location_filtered", None, Entity::Location(Location { house: id(1), room: id(1) })),
        (
            "post_house_filtered",
            None,
            Entity::House(House { deployment: id(1), address: text("testing house"), start, end: None }),
        ),
    ];
    for (name, new_id, entity) in posts {
        let stored = &all[name][0]["response_body"];
        let server = Server::start([Step::Answer(json("201 Created", &stored.to_string()))]).await;
        let made = sink(&server.url).create(new_id, &entity).await.unwrap();
        assert_eq!((made.id.0, &made.entity), (stored["id"].as_i64().unwrap(), &entity), "{name}");
        let mut all = all.clone();
        // The old script repeats its filter when it posts, and sends a serverid that means nothing at the centre.
        let call = &mut all[name][0];
        call["target"] = json!(call["target"].as_str().unwrap().split('?').next().unwrap());
        call["request_body"].as_object_mut().unwrap().remove("serverid");
        assert_as_recorded(&all, name, 0, &server.seen()[0]);
    }

    let server = Server::start([Step::Answer(json("201 Created", &all["put_node"][0]["response_body"].to_string()))]).await;
    sink(&server.url).update(&RemoteEntity { id: RemoteId(11), entity: node(302, id(0)) }).await.unwrap();
    assert_as_recorded(&all, "put_node", 0, &server.seen()[0]);

    let server = Server::start([Step::Answer(json("200 OK", "[]")), Step::Answer(json("200 OK", "[]"))]).await;
    let sink_of_lists = sink(&server.url);
    let house = Ask::House { deployment: id(1), address: text("testing house") };
    assert_eq!(sink_of_lists.find(&house).await.unwrap(), []);
    assert_eq!(sink_of_lists.find(&Ask::Location { house: id(1), room: id(6) }).await.unwrap(), []);
    assert_as_recorded(&all, "get_house_filtered_empty", 0, &server.seen()[0]);
    assert_as_recorded(&all, "get_location_filtered_empty", 1, &server.seen()[1]);

    let server = Server::start([Step::Answer(json("201 Created", "[]"))]).await;
    let (day, five) = (1_356_998_400_000_000, 1_356_998_700_000_000);
    let values = Column::Float([18.25, 55.1235, -3.5].map(Some).to_vec());
    let columns = vec![ints(&[day, day, five]), ints(&[11, 11, 12]), ints(&[0, 2, 0]), ints(&[301, 301, 302]), values];
    let sink_of_rows = sink(&server.url);
    assert_eq!(sink_of_rows.deliver(&delivery(Rows::new(Stream::Reading, columns))).await.outcome.verdict, Verdict::Accepted);
    assert_as_recorded(&all, "post_bulk_reading", 0, &server.seen()[0]);

    server.then(Step::Answer(json("201 Created", "[]")));
    let rssi = Column::Int(vec![Some(-70), None]);
    let columns = vec![
        ints(&[1, 2]),
        ints(&[day, five]),
        ints(&[11, 12]),
        ints(&[1, 11]),
        ints(&[123_456_789_012, 5]),
        ints(&[0, 1]),
        rssi,
    ];
    assert_eq!(sink_of_rows.deliver(&delivery(Rows::new(Stream::NodeState, columns))).await.outcome.verdict, Verdict::Accepted);
    assert_as_recorded(&all, "post_bulk_nodestate", 0, &server.seen()[1]);
}

#[tokio::test]
async fn recorded_lists_are_read() {
    let Some(all) = recorded() else { return };
    for (name, kind, at_least) in [
        ("get_sensortype", EntityKind::SensorType, 4),
        ("get_roomtype", EntityKind::RoomType, 4),
        ("get_room", EntityKind::Room, 4),
        ("get_deployment", EntityKind::Deployment, 2),
        ("get_node", EntityKind::Node, 4),
    ] {
        let mut list = all[name].as_array().unwrap().last().unwrap()["response_body"].clone();
        list.as_array_mut().unwrap().retain(Value::is_object);
        let server = Server::start([Step::Answer(json("200 OK", &list.to_string()))]).await;
        let found = sink(&server.url).find(&Ask::All(kind)).await.unwrap();
        assert!(found.len() >= at_least && found.iter().all(|one| one.entity.kind() == kind), "{name}");
    }
}
