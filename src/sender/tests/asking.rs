//! Lost answers, crashes and repeats at servers that cannot tell a repeat: nothing is lost and nothing is there twice.

use super::*;

/// Node states of node 1 at these seconds, by id; each second one.
pub(super) fn states(seconds: std::ops::Range<i64>) -> Captured {
    let int = |value: &dyn Fn(i64) -> Option<i64>| Column::Int(seconds.clone().map(value).collect());
    let columns = vec![
        int(&|second| Some(second + 1)),
        int(&|second| Some(second * 1_000_000)),
        int(&|_| Some(1)),
        int(&|_| None),
        int(&|second| Some(second * 300)),
        int(&|second| (second % 5 != 0).then_some(second % 256)),
        int(&|_| None),
    ];
    let watermark = Position::Id(seconds.end);
    Captured { rows: Rows::new(Stream::NodeState, columns), watermark, ..captured(0..0) }
}

/// Each of these seconds exactly once, as a multiset.
#[track_caller]
pub(super) fn assert_states_once(sink: &ModelSink, seconds: std::ops::Range<i64>) {
    sink.with(|model| {
        let mut there: Vec<i64> = model.states.iter().map(|state| state.0 / 1_000_000).collect();
        there.sort_unstable();
        assert_eq!(there, seconds.collect::<Vec<_>>());
    });
}

async fn scene(manner: Manner, seconds: std::ops::Range<i64>) -> (tempfile::TempDir, Outbox, ModelSink) {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(states(seconds)).await.unwrap();
    (dir, outbox, ModelSink::of(manner))
}

/// Lets the sender work until it was killed in a request that never ends.
async fn die_in_a_request(outbox: &Outbox, sink: &ModelSink) {
    let dying = tokio::time::timeout(Duration::from_hours(1), drain(outbox, sink));
    assert!(dying.await.is_err(), "it is still in the request");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrived_is_not_sent_again() {
    for manner in [Manner::Older, Manner::Newer] {
        let (_dir, outbox, sink) = scene(manner, 0..250).await;
        sink.with(|model| model.faults.push_back(Fault::LostAnswer));
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..250);
        sink.with(|model| {
            let rows: usize = model.sent.iter().map(|(_, rows)| rows).sum();
            assert_eq!(rows, 250, "{manner:?}: no row was sent twice");
            assert!(model.asked.iter().all(|(_, rows)| *rows <= 3), "{manner:?}: a few witnesses decide: {:?}", model.asked);
        });
        let state = outbox.snapshot().stream(Stream::NodeState).clone();
        assert_eq!((state.acked, state.parked_ever), (250, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_did_not_arrive_is_sent_again() {
    let (_dir, outbox, sink) = scene(Manner::Older, 0..250).await;
    sink.with(|model| model.faults.push_back(Fault::Verdict(Verdict::Unknown)));
    drain(&outbox, &sink).await;
    assert_states_once(&sink, 0..250);
    sink.with(|model| assert!(!model.asked.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn readings_are_asked_for_too_as_a_repeat_is_dear() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..250)).await.unwrap();
    sink.with(|model| model.faults.push_back(Fault::LostAnswer));
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..250);
    sink.with(|model| assert!(model.readings.values().all(|(_, stored)| *stored == 1)));
}

#[tokio::test(start_paused = true)]
async fn while_the_asking_fails_nothing_is_sent() {
    let (_dir, outbox, sink) = scene(Manner::Older, 0..50).await;
    let troubles = [Verdict::Unknown, Verdict::NotStored, Verdict::Misconfigured, Verdict::Unknown];
    sink.with(|model| model.faults.push_back(Fault::LostAnswer));
    tokio::join!(drain(&outbox, &sink), after_the_first_question(&sink, |model| model.ask_faults.extend(troubles)));
    assert_states_once(&sink, 0..50);
    sink.with(|model| assert_eq!((model.sent.len(), model.asked.len()), (1, troubles.len() + 2)));
}

/// The first rows of a life are asked for; what comes after that is changed while they are under way.
fn after_the_first_question(sink: &ModelSink, change: impl FnOnce(&mut Model)) -> impl Future<Output = ()> {
    // Counted now, and not when it is first looked at: by then the question may have been asked.
    let before = sink.with(|model| model.asked.len());
    async move {
        while sink.with(|model| model.asked.len()) == before {
            sleep(TOOK / 4).await;
        }
        sink.with(change);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_which_nothing_is_known_is_waited_out_for_the_documented_time() {
    let (_dir, outbox, sink) = scene(Manner::Older, 0..250).await;
    sink.with(|model| model.faults.push_back(Fault::StoredLater(EARLIER_LIFE + ROW_TIME * 299)));
    drain(&outbox, &sink).await;
    assert_states_once(&sink, 0..250);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_answered_is_waited_out_for_three_times_its_slowest_answer() {
    let (_dir, outbox, sink) = scene(Manner::Older, 0..250).await;
    sink.with(|model| model.bulk_takes = Duration::from_secs(7));
    let late = async {
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 150).await.unwrap();
        sink.with(|model| {
            model.bulk_takes = Duration::ZERO;
            model.faults.push_back(Fault::StoredLater(Duration::from_millis(20_900)));
        });
    };
    tokio::join!(drain(&outbox, &sink), late);
    assert_states_once(&sink, 0..250);
    sink.with(|model| assert_eq!(model.asked.len(), 2, "at the beginning, and then once"));
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_in_a_request_the_server_is_waited_out_and_asked() {
    for arrived in [Fault::StoredLater(EARLIER_LIFE), Fault::Verdict(Verdict::Unknown)] {
        let (dir, outbox, sink) = scene(Manner::Older, 0..250).await;
        let later = matches!(arrived, Fault::StoredLater(_));
        sink.with(|model| model.faults.push_back(Fault::Hang));
        let dying = tokio::time::timeout(Duration::from_millis(500), drain(&outbox, &sink));
        assert!(dying.await.is_err());
        drop(outbox);
        let died = Instant::now();
        if later {
            // It is stored while the next life waits.
            let rows = states(0..100).rows;
            sink.with(|model| model.stored_later.push((died + Duration::from_secs(5), rows)));
        }
        drain(&open(dir.path()), &sink).await;
        assert_states_once(&sink, 0..250);
        sink.with(|model| assert!(model.asked[1].0 - died >= EARLIER_LIFE + ROW_TIME * 300));
    }
}

#[tokio::test(start_paused = true)]
async fn a_smaller_request_after_a_lost_answer_does_not_forget_the_larger_one() {
    for manner in [Manner::Older, Manner::Newer, Manner::Packhorse] {
        let (dir, outbox, sink) = scene(manner, 0..1_000).await;
        let options = Options { request_rows_max: 1_000, ..options() };
        let life = async |outbox: &Outbox| {
            let captured = CancellationToken::new();
            captured.cancel();
            let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
            let stop = CancellationToken::new();
            let running = run(outbox, &sink, &options, Some(&captured), retry, &stop);
            tokio::time::timeout(Duration::from_mins(10), running).await
        };
        // 1,000 rows arrive and their answer is lost; a request of 500 follows, at the receiver, and the program dies in it.
        sink.with(|model| model.faults.extend([Fault::LostAnswer, Fault::Hang]));
        let ended = life(&outbox).await;
        if manner == Manner::Packhorse {
            assert!(ended.is_err(), "it died in the second request");
            let intent = outbox.snapshot().intent(Stream::NodeState).unwrap();
            assert_eq!((intent.first, intent.end, intent.extent), (Seq(0), Seq(1_000), Extent::Parts));
        }
        drop(outbox);
        // By now it is another server as to repeats: the worst case.
        sink.with(|model| model.faults.clear());
        let outbox = open(dir.path());
        life(&outbox).await.unwrap().unwrap();
        assert_states_once(&sink, 0..1_000);
        assert_eq!(outbox.snapshot().intents, [None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_settled_leaves_the_intent_of_the_rest() {
    let (dir, outbox, sink) = scene(Manner::Packhorse, 0..1_000).await;
    let wide = Options { request_rows_max: 1_000, ..options() };
    let captured = CancellationToken::new();
    captured.cancel();
    sink.with(|model| model.faults.extend([Fault::LostAnswer]));
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let stop = CancellationToken::new();
    let running = run(&outbox, &sink, &wide, Some(&captured), retry, &stop);
    let looking = async {
        outbox.watch().wait_for(|snapshot| snapshot.stream(Stream::NodeState).cursor == Seq(500)).await.unwrap();
        stop.cancel();
    };
    let (result, ()) = tokio::join!(running, looking);
    result.unwrap();
    let intent = outbox.snapshot().intent(Stream::NodeState).unwrap();
    assert_eq!((intent.first, intent.end, intent.extent), (Seq(500), Seq(1_000), Extent::Parts));
    // The server turns out to know no repeats.
    sink.with(|model| model.manner = Manner::Older);
    drop(outbox);
    drain(&open(dir.path()), &sink).await;
    assert_states_once(&sink, 0..1_000);
}

#[tokio::test(start_paused = true)]
async fn of_repeats_only_what_is_absent_is_sent() {
    for manner in [Manner::Older, Manner::Newer] {
        let (_dir, outbox, sink) = scene(manner, 0..100).await;
        drain(&outbox, &sink).await;
        outbox.append(Captured { freshness: Freshness::Repeat, ..states(50..150) }).await.unwrap();
        sink.with(|model| model.sent.clear());
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..150);
        sink.with(|model| assert_eq!(model.sent.iter().map(|(_, rows)| rows).sum::<usize>(), 50, "{manner:?}"));
        let state = outbox.snapshot().stream(Stream::NodeState).clone();
        assert_eq!((state.acked, state.parked_ever), (200, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_that_a_server_merges_are_sent_without_a_question() {
    for (manner, asked, sent) in [(Manner::Older, 101, 0), (Manner::Newer, 1, 100)] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, sink) = (open(dir.path()), ModelSink::of(manner));
        let numbered = |seconds: std::ops::Range<i64>| {
            let page = states(seconds.clone());
            Captured { rows: page.rows.with_ints(5, seconds.map(|second| Some(second % 256)).collect()), ..page }
        };
        outbox.append(numbered(0..100)).await.unwrap();
        drain(&outbox, &sink).await;
        sink.with(|model| (model.sent.clear(), model.asked.clear()));
        outbox.append(Captured { freshness: Freshness::Repeat, ..numbered(0..100) }).await.unwrap();
        outbox.append(numbered(100..200)).await.unwrap();
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..200);
        sink.with(|model| {
            let rows = |of: &[(Instant, usize)]| of.iter().map(|(_, rows)| rows).sum::<usize>();
            // The first new rows of a life are asked for: up to three.
            assert_eq!((rows(&model.asked), rows(&model.sent)), (asked + 2, sent + 100), "{manner:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_in_whose_place_another_row_is_counts_as_parked_and_not_as_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::of(Manner::Newer));
    let of_second_5 = |localtime: i64| {
        let page = states(5..6);
        let rows = page.rows.with_ints(4, vec![Some(localtime)]);
        Captured { rows, ..page }
    };
    outbox.append(of_second_5(1)).await.unwrap();
    outbox.append(states(6..7)).await.unwrap();
    drain(&outbox, &sink).await;
    for localtime in [1, 2] {
        outbox.append(Captured { freshness: Freshness::Repeat, ..of_second_5(localtime) }).await.unwrap();
        drain(&outbox, &sink).await;
    }
    let state = outbox.snapshot().stream(Stream::NodeState).clone();
    assert_eq!((state.acked, state.parked_ever), (3, 1));
    sink.with(|model| assert_eq!(model.states.iter().map(|state| state.3).collect::<Vec<_>>(), [Some(1), Some(1_800)]));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_was_there_before_is_no_witness_that_the_others_arrived() {
    // The program dies before it has asked: what the next request carries is on the disk, and nothing of it was sent.
    let (dir, outbox, sink) = scene(Manner::Older, 0..100).await;
    drain(&outbox, &sink).await;
    outbox.append(states(100..101)).await.unwrap();
    outbox.append(Captured { freshness: Freshness::Repeat, ..states(0..200) }).await.unwrap();
    let failing = after_the_first_question(&sink, |model| model.ask_faults.extend((0..1_000).map(|_| Verdict::NotStored)));
    let dying = async { tokio::join!(drain(&outbox, &sink), failing) };
    assert!(tokio::time::timeout(Duration::from_secs(30), dying).await.is_err());
    sink.with(|model| model.ask_faults.clear());
    drop(outbox);
    let outbox = open(dir.path());
    let intent = outbox.snapshot().intent(Stream::NodeState).unwrap();
    assert_eq!((intent.first, intent.extent), (Seq(101), Extent::Parts));
    drain(&outbox, &sink).await;
    assert_states_once(&sink, 0..200);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_among_repeats_is_asked_for_row_by_row() {
    let (_dir, outbox, sink) = scene(Manner::Older, 0..100).await;
    drain(&outbox, &sink).await;
    outbox.append(Captured { freshness: Freshness::Repeat, ..states(50..150) }).await.unwrap();
    sink.with(|model| model.faults.extend([Fault::LostAnswer, Fault::LostAnswer]));
    drain(&outbox, &sink).await;
    assert_states_once(&sink, 0..150);
}

#[tokio::test(start_paused = true)]
async fn states_that_are_equal_in_everything_arrive_as_often_as_they_were_captured() {
    let (_dir, outbox, sink) = scene(Manner::Older, 0..0).await;
    let twice = |seconds: std::ops::Range<i64>| {
        let mut page = states(seconds.clone());
        page.rows.extend(states(seconds).rows);
        page
    };
    outbox.append(twice(0..40)).await.unwrap();
    outbox.append(states(40..100)).await.unwrap();
    sink.with(|model| model.faults.extend([Fault::LostAnswer, Fault::Verdict(Verdict::Unknown), Fault::LostAnswer]));
    drain(&outbox, &sink).await;
    sink.with(|model| {
        let count = |second: i64| model.states.iter().filter(|state| state.0 == second * 1_000_000).count();
        assert!((0..40).all(|second| count(second) == 2) && (40..100).all(|second| count(second) == 1));
    });
}

#[tokio::test(start_paused = true)]
async fn held_rows_in_a_lost_request_stay_held_and_the_others_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..90)).await.unwrap();
    sink.with(|model| {
        model.refused_address = Some("Café".into());
        model.faults.extend([Fault::LostAnswer]);
    });
    drain(&outbox, &sink).await;
    sink.with(|model| assert!(model.readings.len() == 60 && model.readings.values().all(|(_, stored)| *stored == 1)));
    assert_eq!(outbox.snapshot().held[&of(EntityKind::Location, 5)].rows, 30);
    // And after a crash, when it is not known which of the rows were sent, and the mapping came meanwhile.
    outbox.append(captured(90..180)).await.unwrap();
    sink.with(|model| model.faults.push_back(Fault::Hang));
    die_in_a_request(&outbox, &sink).await;
    drop(outbox);
    sink.with(|model| {
        let (all, sent) = (captured(90..180).rows, |row: &usize| !row.is_multiple_of(3));
        let arrived = all.pick(&(0..90).filter(sent).collect::<Vec<_>>());
        model.store(&arrived);
        model.refused_address = None;
    });
    let outbox = open(dir.path());
    drain(&outbox, &sink).await;
    assert_all_there_once(&sink, 0..180);
    sink.with(|model| assert!(model.readings.values().all(|(_, stored)| *stored == 1)));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_never_asked() {
    let (dir, outbox, sink) = scene(Manner::Packhorse, 0..250).await;
    sink.with(|model| model.faults.extend([Fault::LostAnswer, Fault::Verdict(Verdict::Unknown), Fault::Hang]));
    die_in_a_request(&outbox, &sink).await;
    drop(outbox);
    let outbox = open(dir.path());
    outbox.append(Captured { freshness: Freshness::Repeat, ..states(100..250) }).await.unwrap();
    drain(&outbox, &sink).await;
    assert_states_once(&sink, 0..250);
}

/// Any order of lost answers, lost requests, failing questions and deaths, at every kind of server.
#[tokio::test(start_paused = true)]
async fn whatever_is_lost_in_whatever_order_nothing_is_there_twice() {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    let seed: u64 = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for round in 0..40 {
        let manner = [Manner::Older, Manner::Newer, Manner::Packhorse][round % 3];
        let (dir, mut outbox, sink) = scene(manner, 0..400).await;
        outbox.append(captured(0..400)).await.unwrap();
        for life in 0..6 {
            sink.with(|model| {
                model.faults.clear();
                model.ask_faults.clear();
                for _ in 0..chance.random_range(0..8) {
                    model.faults.push_back(match chance.random_range(0..7) {
                        0 | 1 => Fault::LostAnswer,
                        2 => Fault::Verdict(Verdict::Unknown),
                        3 => Fault::StoredLater(TOOK * 2),
                        4 => Fault::Verdict(Verdict::TooLarge),
                        5 => Fault::Error,
                        _ => Fault::Verdict(Verdict::NotStored),
                    });
                    if chance.random_bool(0.3) {
                        model.ask_faults.push_back(Verdict::Unknown);
                    }
                }
            });
            let mortal = tokio::time::timeout(Duration::from_millis(chance.random_range(10..20_000)), drain(&outbox, &sink));
            if mortal.await.is_ok() || life == 5 {
                break;
            }
            drop(outbox);
            outbox = open(dir.path());
            if life == 2 {
                outbox.append(Captured { freshness: Freshness::Repeat, ..states(100..400) }).await.unwrap();
            }
        }
        sink.with(|model| {
            model.faults.clear();
            model.ask_faults.clear();
        });
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..400);
        assert_all_there_once(&sink, 0..400);
        assert_eq!(outbox.snapshot().parked(), 0, "round {round}");
    }
}
