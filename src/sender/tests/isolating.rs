//! Rows that a server refuses: they alone are parked, and nothing when it is the server that is at fault.

use super::*;
use crate::outbox::Reason;

/// Readings of these many nodes, interleaved, one a second.
pub(super) fn of_nodes(seconds: std::ops::Range<i64>, nodes: i64) -> Captured {
    let page = captured(seconds.clone());
    let rows = page.rows.with_ints(1, seconds.clone().map(|second| Some(second % nodes + 1)).collect());
    let count = rows.len();
    let rows = rows.with_ints(3, vec![Some(4); count]);
    let mut catalog = page.catalog;
    for node in 2..=nodes {
        catalog.push((of(EntityKind::Node, node), Entity::Node(Node { location: Some(LocalId(4)), node_type: None })));
    }
    Captured { rows, catalog, ..page }
}

pub(super) fn states_of_nodes(seconds: std::ops::Range<i64>, nodes: i64) -> Captured {
    let int = |value: &dyn Fn(i64) -> Option<i64>| Column::Int(seconds.clone().map(value).collect());
    let columns = vec![
        int(&|second| Some(second + 1)),
        int(&|second| Some(second * 1_000_000)),
        int(&|second| Some(second % nodes + 1)),
        int(&|_| None),
        int(&|second| Some(second)),
        int(&|second| Some(second % 256)),
        int(&|_| None),
    ];
    Captured { rows: Rows::new(Stream::NodeState, columns), watermark: Position::Id(seconds.end), ..of_nodes(0..0, nodes) }
}

pub(super) async fn refused(outbox: &Outbox) -> Vec<(String, Rows)> {
    let parked = outbox.parked(usize::MAX).await.unwrap();
    parked
        .into_iter()
        .map(|chunk| match chunk.parked.reason {
            Reason::Refused(why) => (why, chunk.rows),
            Reason::Held(what) => panic!("held for {what}"),
        })
        .collect()
}

async fn drain_wide(outbox: &Outbox, sink: &ModelSink) {
    let options = Options { request_rows_max: 10_000, ..options() };
    let captured = CancellationToken::new();
    captured.cancel();
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let stop = CancellationToken::new();
    let running = run(outbox, sink, &options, Some(&captured), retry, &stop);
    tokio::time::timeout(Duration::from_hours(6), running).await.expect("it drains").unwrap();
}

fn node_of(rows: &Rows, row: usize) -> i64 {
    rows.bucket(row).unwrap().0
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_server_lacks_is_parked_for_a_handful_of_requests_and_the_rest_is_delivered() {
    for manner in [Manner::Packhorse, Manner::Newer, Manner::Older] {
        for page in [of_nodes(0..2_000, 10), states_of_nodes(0..2_000, 10)] {
            let dir = tempfile::tempdir().unwrap();
            let (outbox, sink) = (open(dir.path()), ModelSink::of(manner));
            let stream = page.rows.stream();
            outbox.append(page).await.unwrap();
            sink.with(|model| model.refuses = Some(|rows, row| node_of(rows, row) == 7));
            drain_wide(&outbox, &sink).await;
            sink.with(|model| {
                println!("{manner:?} {stream}: {} requests, {} questions", model.sent.len(), model.asked.len());
                assert!(model.sent.len() <= 16, "{manner:?} {stream}: {} requests", model.sent.len());
                let stored = if stream == Stream::Reading { model.readings.len() } else { model.states.len() };
                assert_eq!(stored, 1_800);
            });
            let parked = refused(&outbox).await;
            assert_eq!(parked.iter().map(|(_, rows)| rows.len()).sum::<usize>(), 200);
            for (why, rows) in &parked {
                assert!(why.contains("status 422") && why.contains("200 rows of node 7"), "{why}");
                assert!((0..rows.len()).all(|row| node_of(rows, row) == 7));
            }
            let state = outbox.snapshot().stream(stream).clone();
            assert_eq!((state.pending(), state.acked, state.parked_ever), (0, 1_800, 200), "I5");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_is_tried_again_after_a_look_at_the_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(of_nodes(0..100, 3)).await.unwrap();
    drain(&outbox, &sink).await;
    // The centre lost a node; rows that point to it are refused until it is made anew.
    sink.with(|model| {
        model.entities.retain(|it| it.entity.kind() != EntityKind::Node || it.id.0 != 2);
        model.faults.push_back(Fault::Verdict(Verdict::Refused));
    });
    outbox.append(of_nodes(100..200, 3)).await.unwrap();
    drain(&outbox, &sink).await;
    sink.with(|model| {
        assert!(model.entities.iter().any(|it| it.entity.kind() == EntityKind::Node && it.id.0 == 2));
        assert_eq!(model.readings.len(), 200);
    });
    assert_eq!(outbox.snapshot().parked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_at_everything_gets_nothing_parked_and_few_requests() {
    for manner in [Manner::Packhorse, Manner::Older] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, sink) = (open(dir.path()), ModelSink::of(manner));
        outbox.append(of_nodes(0..2_000, 10)).await.unwrap();
        outbox.append(states_of_nodes(0..2_000, 10)).await.unwrap();
        sink.with(|model| model.is_full = true);
        let full = tokio::time::timeout(Duration::from_hours(1), drain_wide(&outbox, &sink));
        assert!(full.await.is_err());
        assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (0, 4_000), "{manner:?}");
        let (_, trouble) = outbox.snapshot().notes.last_trouble.unwrap();
        assert!(trouble.contains("nothing is parked") && trouble.contains("500"), "{trouble}");
        sink.with(|model| {
            println!("{manner:?}: {} requests in an hour", model.sent.len());
            assert!(model.sent.len() < 2_000, "{} requests", model.sent.len());
            model.is_full = false;
        });
        drain_wide(&outbox, &sink).await;
        assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (0, 0));
        sink.with(|model| {
            assert_eq!((model.readings.len(), model.states.len()), (2_000, 2_000));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn errors_from_the_first_request_on_are_isolated_too() {
    // A server that answers 500 to a bad row was never seen to accept anything.
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::of(Manner::Older));
    outbox.append(states_of_nodes(0..100, 4)).await.unwrap();
    sink.with(|model| {
        model.faults.extend((0..4).map(|_| Fault::Error));
        model.refuses = Some(|rows, row| rows.int(0, row) == Some(51));
    });
    drain_wide(&outbox, &sink).await;
    let parked = refused(&outbox).await;
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].1.len(), parked[0].1.int(0, 0)), (1, Some(51)));
    sink.with(|model| assert_eq!(model.states.len(), 99));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_in_every_batch_costs_little_after_the_first_and_is_delivered_once_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::of(Manner::Older));
    outbox.append(states_of_nodes(0..2_000, 10)).await.unwrap();
    sink.with(|model| model.refuses = Some(|rows, row| node_of(rows, row) == 7));
    let stop = CancellationToken::new();
    let options = Options { request_rows_max: 10_000, ..options() };
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let running = run(&outbox, &sink, &options, None, retry, &stop);
    let more = async {
        let drained = async || drop(outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap());
        drained().await;
        let (first, began) = (sink.with(|model| model.sent.len()), Instant::now());
        outbox.append(states_of_nodes(2_000..2_100, 10)).await.unwrap();
        drained().await;
        let second = sink.with(|model| model.sent.len()) - first;
        println!("{first} requests, then {second}");
        assert!(second <= 8 && began.elapsed() < Duration::from_secs(1), "{second} requests, and no wait");
        assert_eq!(outbox.snapshot().parked(), 210);
        sink.with(|model| model.refuses = None);
        for page in 0..2 {
            outbox.append(states_of_nodes(2_100 + page * 100..2_200 + page * 100, 10)).await.unwrap();
            drained().await;
        }
        assert_eq!(outbox.snapshot().parked(), 210);
        let last = sink.with(|model| *model.sent.last().unwrap());
        assert_eq!(last.1, 100, "by then it is one request again");
        stop.cancel();
    };
    let (result, ()) = tokio::join!(running, more);
    result.unwrap();
    sink.with(|model| assert_eq!(model.states.len(), 2_300 - 210));
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_does_not_stop_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(of_nodes(0..50, 2)).await.unwrap();
    outbox.append(states_of_nodes(0..50, 2)).await.unwrap();
    sink.with(|model| model.refuses = Some(|rows, _| rows.stream() == Stream::Reading));
    let stuck = tokio::time::timeout(Duration::from_hours(1), drain(&outbox, &sink));
    assert!(stuck.await.is_err());
    assert_eq!(outbox.snapshot().parked(), 0, "not a single reading was accepted");
    assert_eq!((outbox.snapshot().pending(), sink.with(|model| model.states.len())), (50, 50));
}

#[tokio::test(start_paused = true)]
async fn a_death_in_the_middle_of_isolation_loses_and_doubles_nothing() {
    for manner in [Manner::Older, Manner::Newer, Manner::Packhorse] {
        for requests in 1..24 {
            let dir = tempfile::tempdir().unwrap();
            let (outbox, sink) = (open(dir.path()), ModelSink::of(manner));
            outbox.append(states_of_nodes(0..500, 5)).await.unwrap();
            sink.with(|model| model.refuses = Some(|rows, row| rows.int(0, row).is_some_and(|id| id % 5 == 3 || id == 77)));
            let dying = async {
                loop {
                    sleep(Duration::from_millis(5)).await;
                    if sink.with(|model| model.sent.len() >= requests) {
                        return;
                    }
                }
            };
            tokio::select! {
                () = drain_wide(&outbox, &sink) => {}
                () = dying => {}
            }
            drop(outbox);
            let outbox = open(dir.path());
            // Others must be accepted before something is parked.
            outbox.append(states_of_nodes(500..520, 5)).await.unwrap();
            drain_wide(&outbox, &sink).await;
            let mut ids: Vec<i64> = sink.with(|model| model.states.iter().map(|state| state.4.unwrap()).collect());
            ids.sort_unstable();
            let good: Vec<i64> = (1..=520).filter(|id| id % 5 != 3 && *id != 77).collect();
            assert_eq!(ids, good, "{manner:?}, died after {requests} requests");
            let parked: usize = refused(&outbox).await.iter().map(|(_, rows)| rows.len()).sum();
            assert_eq!(parked, 105);
            let state = outbox.snapshot().stream(Stream::NodeState).clone();
            assert_eq!((state.pending(), state.next.0), (0, state.acked + state.parked_ever), "I5");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_by_its_breaks_is_waited_for_and_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::of(Manner::Older));
    outbox.append(states_of_nodes(0..200, 2)).await.unwrap();
    sink.with(|model| model.faults.push_back(Fault::TooLargeByBreaks));
    drain(&outbox, &sink).await;
    sink.with(|model| {
        assert_eq!(model.states.len(), 200);
        assert!(model.sent[1].0 - model.sent[0].0 >= Duration::from_millis(100), "not at once");
        assert_eq!(model.asked.len(), 2, "at the beginning, and after the breaks");
    });
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_our_own_limit_becomes_smaller_without_a_wait_and_is_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    let options = Options { request_bytes_max: 500, ..options() };
    let life = async || {
        let captured = CancellationToken::new();
        captured.cancel();
        let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
        run(&outbox, &sink, &options, Some(&captured), retry, &CancellationToken::new()).await.unwrap();
    };
    // Requests of this size were accepted before; these rows take more bytes.
    outbox.append(captured(0..300)).await.unwrap();
    let change = async {
        outbox.watch().wait_for(|snapshot| snapshot.stream(Stream::Reading).acked > 150).await.unwrap();
        sink.with(|model| model.rows_max = Some(13));
    };
    tokio::join!(life(), change);
    assert_all_there_once(&sink, 0..300);
    assert_eq!(outbox.snapshot().notes.last_trouble, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_search_sent_in_vain_is_waited_out_as_long_as_it_went_without_an_answer() {
    // After so many refusals: of whole requests, of groups, of single rows, of records from beyond the batch.
    for refusals in 2..20 {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, sink) = (open(dir.path()), ModelSink::of(Manner::Older));
        outbox.append(states_of_nodes(0..100, 4)).await.unwrap();
        // The slowest answer took 20 ms.
        drain(&outbox, &sink).await;
        outbox.append(states_of_nodes(100..300, 4)).await.unwrap();
        sink.with(|model| {
            model.faults.extend((0..refusals).map(|_| Fault::Verdict(Verdict::Refused)));
            model.faults.push_back(Fault::Silent { gives_up: Duration::from_mins(1), stored: Duration::from_secs(70) });
        });
        drain(&outbox, &sink).await;
        sleep(Duration::from_mins(2)).await;
        let mut ids: Vec<i64> = sink.with(|model| model.states.iter().map(|state| state.4.unwrap()).collect());
        ids.sort_unstable();
        let is_twice = ids.windows(2).any(|pair| pair[0] == pair[1]);
        assert!(!is_twice, "after {refusals} refusals: {ids:?}");
        assert_eq!(ids.len() as u64 + outbox.snapshot().parked(), 300);
    }
}
