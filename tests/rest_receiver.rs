//! The REST sink against the real receiver: what it makes of what only a receiver tells.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/central.rs"]
mod central;

use central::Central;
use packhorse::{
    domain::{Column, EntityKind, Epoch, Generation, RefusedRow, Rows, Seq, SourceId, Stream, Told, Verdict},
    ports::{Ask, Bounds, Delivered, Delivery, Sink as _},
    receiver::Manner,
    rest::{Auth, Options, RestSink},
};

const SEED: &str = "INSERT INTO Node (id) VALUES (11); INSERT INTO SensorType (id, name) VALUES (0, 'Temperature');";

fn sink(central: &Central) -> RestSink {
    RestSink::new(Options {
        url: format!("http://{}/rest/", central.address),
        auth: Auth::None,
        ca_pem: None,
        client_identity_pem: None,
        proxy: None,
        request_bytes_max: 1 << 20,
        connect_deadline: Options::CONNECT_DEADLINE,
        answer_deadline: Options::ANSWER_DEADLINE,
        stall_deadline: Options::STALL_DEADLINE,
        source: SourceId(7),
    })
    .unwrap()
}

/// One reading for each node, a minute after the other, from a seq on.
fn delivery(first: u64, nodes: &[i64]) -> Delivery {
    let count = nodes.len();
    let times = (0..count as i64).map(|at| Some(1_356_998_700_000_000 + (first as i64 + at) * 60_000_000)).collect();
    let columns = vec![
        Column::Int(times),
        Column::Int(nodes.iter().map(|node| Some(*node)).collect()),
        Column::Int(vec![Some(0); count]),
        Column::Int(vec![None; count]),
        Column::Float(vec![Some(18.5); count]),
    ];
    let end = Seq(first + count as u64);
    let first = Seq(first);
    let bounds =
        Bounds { source: SourceId(7), generation: Generation(0), epoch: Epoch(1), first, end, cursor: first, taken: None };
    Delivery { bounds, rows: Rows::new(Stream::Reading, columns) }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_and_the_highest_seq_reach_the_sender() {
    let central = tokio::task::spawn_blocking(|| {
        let central = Central::start(Manner::Packhorse);
        central.sql(SEED);
        central
    })
    .await
    .unwrap();
    let sink = sink(&central);
    sink.find(&Ask::All(EntityKind::Node)).await.unwrap();
    assert!(sink.is_packhorse());
    let told = |delivered: Delivered| (delivered.outcome.verdict, delivered.outcome.told.map(|told| *told));

    let all = sink.deliver(&delivery(0, &[11, 11])).await;
    assert_eq!(told(all), (Verdict::Accepted, Some(Told { seen: None, refused: vec![] })));

    let some = sink.deliver(&delivery(2, &[11, 99, 11, 99])).await;
    assert!(some.outcome.advice.contains("no Node 99 here (rows 1, 3)"), "{}", some.outcome);
    let refused = |code, row| RefusedRow { row, reason: format!("status {code}: there is no Node 99 here") };
    assert_eq!(
        told(some),
        (Verdict::Refused, Some(Told { seen: Some(Seq(1)), refused: vec![refused(207, 1), refused(207, 3)] }))
    );

    let none = sink.deliver(&delivery(6, &[99])).await;
    assert_eq!(told(none), (Verdict::Refused, Some(Told { seen: Some(Seq(5)), refused: vec![refused(422, 0)] })));

    // A repeat, by its receipt or by its keys: accepted.
    let repeat = sink.deliver(&delivery(0, &[11, 11])).await;
    assert_eq!(told(repeat), (Verdict::Accepted, Some(Told { seen: Some(Seq(5)), refused: vec![] })));
    tokio::task::spawn_blocking(move || {
        assert_eq!(central.number("SELECT count(*) FROM Reading"), 4);
        drop(central);
    })
    .await
    .unwrap();
}
