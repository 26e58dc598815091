//! What a packhorse receiver tells beside its verdict; and older images of an outbox, at every kind of server.

use super::{
    asking::{assert_states_once, states},
    isolating::{of_nodes, refused, states_of_nodes},
    *,
};
use crate::{
    domain::{RefusedRow, Told},
    outbox::Again,
};

/// What the model remembers of runs, as our receiver does.
#[derive(Clone, Default)]
pub(super) struct Receiver {
    /// It tells of itself and of each row.
    pub(super) tells: bool,
    highest: BTreeMap<(u64, Stream), Seq>,
    /// The last cursor that it was told.
    cursor: Seq,
}

/// Takes a run: each row is judged alone.
pub(super) fn take(model: &mut Model, delivery: &Delivery) -> Outcome {
    let (bounds, rows) = (delivery.bounds, &delivery.rows);
    let key = (bounds.epoch.0, rows.stream());
    assert!(bounds.cursor <= bounds.first, "a receiver refuses that");
    model.receiver.cursor = bounds.cursor;
    let seen = model.receiver.highest.get(&key).copied();
    let told = |refused| Some(Box::new(Told { seen, refused }));
    if bounds.taken.is_some_and(|taken| seen.is_none_or(|seen| seen < taken)) {
        return Outcome { told: told(Vec::new()), ..Outcome::new(Verdict::NotStored, "status 412") };
    }
    let is_bad = |row: &usize| model.refuses.is_some_and(|refuses| refuses(rows, *row));
    let (bad, good): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(is_bad);
    if !good.is_empty() {
        model.store(&rows.pick(&good));
        let highest = model.receiver.highest.entry(key).or_insert(Seq(0));
        *highest = (*highest).max(bounds.end.minus_one());
    }
    let refused: Vec<RefusedRow> = bad.iter().map(|row| RefusedRow { row: *row, reason: "no such node".into() }).collect();
    let verdict = if refused.is_empty() { Verdict::Accepted } else { Verdict::Refused };
    Outcome { told: told(refused), ..Outcome::new(verdict, "scripted").leaving(Trace::Possible) }
}

fn receiver() -> ModelSink {
    let sink = ModelSink::of(Manner::Packhorse);
    sink.with(|model| model.receiver.tells = true);
    sink
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

#[tokio::test(start_paused = true)]
async fn rows_that_a_receiver_refuses_by_place_are_parked_alone_and_the_others_count_as_delivered() {
    for page in [of_nodes(0..2_000, 10), states_of_nodes(0..2_000, 10)] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, sink) = (open(dir.path()), receiver());
        let stream = page.rows.stream();
        outbox.append(page).await.unwrap();
        sink.with(|model| model.refuses = Some(|rows, row| rows.bucket(row).unwrap().0 == 7));
        drain_wide(&outbox, &sink).await;
        sink.with(|model| {
            let sizes: Vec<usize> = model.sent.iter().map(|(_, rows)| *rows).collect();
            assert_eq!(sizes, [2_000, 201], "{stream}: after a look at the catalog only these, and one that was taken");
            assert_eq!(if stream == Stream::Reading { model.readings.len() } else { model.states.len() }, 1_800);
        });
        let parked = refused(&outbox).await;
        assert_eq!(parked.iter().map(|(_, rows)| rows.len()).sum::<usize>(), 200);
        assert!(parked.iter().all(|(why, rows)| why.contains("no such node") && rows.bucket(0).unwrap().0 == 7));
        let state = outbox.snapshot().stream(stream).clone();
        assert_eq!((state.pending(), state.acked, state.parked_ever), (0, 1_800, 200), "I5");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_after_a_look_at_the_catalog_is_parked_at_once_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), receiver());
    // Requests are of 100 rows: the first one is sent twice, the others once.
    outbox.append(of_nodes(0..1_000, 10)).await.unwrap();
    sink.with(|model| model.refuses = Some(|rows, row| rows.bucket(row).unwrap().0 == 7));
    drain(&outbox, &sink).await;
    sink.with(|model| assert_eq!((model.sent.len(), model.readings.len()), (11, 900)));
    assert_eq!(outbox.snapshot().parked(), 100);
}

#[tokio::test(start_paused = true)]
async fn when_only_refused_rows_are_left_one_that_was_taken_before_shows_the_receiver_to_be_well() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), receiver());
    outbox.append(states_of_nodes(0..50, 5)).await.unwrap();
    let stop = CancellationToken::new();
    let options = options();
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let running = run(&outbox, &sink, &options, None, retry, &stop);
    let more = async {
        let drained = async || drop(outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap());
        drained().await;
        sink.with(|model| model.refuses = Some(|rows, row| rows.int(0, row).is_some_and(|id| id > 50)));
        // Nothing good follows them.
        outbox.append(states_of_nodes(50..60, 5)).await.unwrap();
        tokio::time::timeout(Duration::from_hours(1), drained()).await.expect("they are parked");
        assert_eq!((outbox.snapshot().parked(), sink.with(|model| model.states.len())), (10, 50));
        // And with a receiver that takes nothing at all, nothing is.
        sink.with(|model| model.refuses = Some(|_, _| true));
        outbox.append(states_of_nodes(60..70, 5)).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_hours(1), drained()).await.is_err());
        assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (10, 10));
        stop.cancel();
    };
    let (result, ()) = tokio::join!(running, more);
    result.unwrap();
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// An outbox with 300 rows that wait, an image of it, and what became of it after the image was taken: these rows and 300 more arrived.
async fn overtaken(sink: &ModelSink) -> (tempfile::TempDir, Outbox) {
    let dir = tempfile::tempdir().unwrap();
    let (path, image) = (dir.path().join("outbox"), dir.path().join("image"));
    let outbox = open(&path);
    outbox.append(states(0..100)).await.unwrap();
    drain(&outbox, sink).await;
    outbox.append(states(100..400)).await.unwrap();
    drop(outbox);
    copy(&path, &image);
    let outbox = open(&path);
    drain(&outbox, sink).await;
    outbox.append(states(400..700)).await.unwrap();
    drain(&outbox, sink).await;
    drop(outbox);
    std::fs::remove_dir_all(&path).unwrap();
    copy(&image, &path);
    (dir, open(&path))
}

#[tokio::test(start_paused = true)]
async fn an_older_image_begins_a_new_epoch_at_a_receiver_and_doubles_nothing() {
    let sink = receiver();
    let (_dir, outbox) = overtaken(&sink).await;
    drain(&outbox, &sink).await;
    let elsewhere = |outbox: &Outbox| outbox.snapshot().stream(Stream::NodeState).elsewhere.clone();
    assert_eq!((elsewhere(&outbox).epoch, outbox.snapshot().meta.epoch), (Some(Epoch(2)), Epoch(1)));
    assert!(outbox.snapshot().notes.last_trouble.unwrap().1.contains("older image"));
    // What was captured since is captured again, and more.
    outbox.append(states(400..800)).await.unwrap();
    drain(&outbox, &sink).await;
    assert_states_once(&sink, 0..800);
    assert_eq!(elsewhere(&outbox).taken, Some(Seq(799)));
    sink.with(|model| assert_eq!(model.receiver.highest[&(2, Stream::NodeState)], Seq(799)));
}

#[tokio::test(start_paused = true)]
async fn an_older_image_asks_a_legacy_server_before_it_sends_and_doubles_nothing() {
    for manner in [Manner::Older, Manner::Newer] {
        let sink = ModelSink::of(manner);
        let (_dir, outbox) = overtaken(&sink).await;
        sink.with(|model| model.sent.clear());
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..700);
        sink.with(|model| assert_eq!(model.sent.len(), 0, "{manner:?}: all of it was there"));
        // Capture has not come by yet: until it has, whatever enters is a repeat.
        outbox.append(states(400..650)).await.unwrap();
        outbox.doubt_up_to(Stream::NodeState, Position::Id(700)).await.unwrap();
        let repeats = outbox.snapshot().ledger(Stream::NodeState).repeats.clone();
        assert!(repeats.cover(&Position::Id(700)) && !repeats.cover(&Position::Id(701)));
        outbox.append(Captured { freshness: Freshness::Repeat, ..states(650..700) }).await.unwrap();
        outbox.append(states(700..800)).await.unwrap();
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..800);
        let state = outbox.snapshot().stream(Stream::NodeState).clone();
        assert_eq!((state.pending(), state.parked_ever, state.acked), (0, 0, 800));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_held_in_an_older_image_return_as_what_may_have_been_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (path, image) = (dir.path().join("outbox"), dir.path().join("image"));
    let sink = ModelSink::of(Manner::Older);
    let of_node_2 = |seconds: std::ops::Range<i64>| {
        let page = states_of_nodes(seconds.clone(), 1);
        let rows = page.rows.with_ints(2, vec![Some(2); seconds.count()]);
        Captured { rows, ..page }
    };
    let with_node = || vec![(of(EntityKind::Node, 2), Entity::Node(Node { location: None, node_type: None }))];
    let outbox = open(&path);
    outbox.append(of_node_2(0..30)).await.unwrap();
    drain(&outbox, &sink).await;
    assert_eq!(outbox.snapshot().parked(), 30, "nobody knows that node");
    drop(outbox);
    copy(&path, &image);
    let outbox = open(&path);
    outbox.append(Captured { catalog: with_node(), ..states(100..200) }).await.unwrap();
    drain(&outbox, &sink).await;
    sink.with(|model| assert_eq!(model.states.len(), 130));
    drop(outbox);
    std::fs::remove_dir_all(&path).unwrap();
    copy(&image, &path);
    let outbox = open(&path);
    outbox.append(states(100..150)).await.unwrap();
    drain(&outbox, &sink).await;
    outbox.append(Captured { catalog: with_node(), ..states(200..201) }).await.unwrap();
    drain(&outbox, &sink).await;
    sink.with(|model| assert_eq!(model.states.len(), 131, "each once"));
    assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_sends_the_same_seqs_in_turn_is_noticed_at_the_first_answer() {
    let sink = receiver();
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("one"), dir.path().join("other")];
    let outbox = open(&paths[0]);
    outbox.append(states(0..100)).await.unwrap();
    drain(&outbox, &sink).await;
    drop(outbox);
    copy(&paths[0], &paths[1]);
    let [one, other] = paths.map(|path| open(&path));
    one.append(states(100..150)).await.unwrap();
    drain(&one, &sink).await;
    // The copy's next seq is the same, and so is the number of rows.
    other.append(states(300..350)).await.unwrap();
    drain(&other, &sink).await;
    let epoch = |outbox: &Outbox| outbox.snapshot().stream(Stream::NodeState).elsewhere.epoch;
    assert_eq!((epoch(&one), epoch(&other)), (None, Some(Epoch(2))));
    other.append(states(350..400)).await.unwrap();
    one.append(states(150..200)).await.unwrap();
    drain(&other, &sink).await;
    drain(&one, &sink).await;
    assert_eq!(epoch(&one), None, "from now on they are not in each other's way");
    sink.with(|model| assert_eq!(model.states.len(), 300));
}

/// Appends what capture would: rows of these seconds that lie in what is to be captured once more.
async fn capture_again(outbox: &Outbox, seconds: std::ops::Range<i64>) {
    let Some(Again { after, up_to }) = outbox.snapshot().stream(Stream::NodeState).elsewhere.again.clone() else { return };
    let is_within = |second: &i64| {
        let position = Position::Id(second + 1);
        position.is_after(&after) && !position.is_after(&up_to)
    };
    let lost: Vec<i64> = seconds.filter(is_within).collect();
    let page = states(lost[0]..lost[lost.len() - 1] + 1);
    let watermark = outbox.snapshot().stream(Stream::NodeState).watermark.clone();
    outbox.record_again(Captured { watermark, freshness: Freshness::Repeat, ..page }, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_lost_when_it_was_put_back_is_captured_again_even_when_answers_are_lost() {
    for (backup_at, lost_answers) in [(Some(2_000), 0), (Some(2_000), 3), (Some(0), 1), (None, 2)] {
        let sink = receiver();
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(dir.path());
        let mut backup = (Vec::new(), Receiver { tells: true, ..Receiver::default() });
        for page in 0..40 {
            if backup_at == Some(page * 100) {
                backup = sink.with(|model| (model.states.clone(), model.receiver.clone()));
            }
            outbox.append(states(page * 100..(page + 1) * 100)).await.unwrap();
            drain(&outbox, &sink).await;
        }
        sink.with(|model| {
            (model.states, model.receiver) = backup;
            model.faults.extend((0..lost_answers).map(|_| Fault::LostAnswer));
        });
        outbox.append(states(4_000..4_050)).await.unwrap();
        drain(&outbox, &sink).await;
        let again = outbox.snapshot().stream(Stream::NodeState).elsewhere.again.clone().expect("it was noticed");
        let kept = backup_at.unwrap_or(0);
        assert_eq!(again.up_to, Position::Id(4_050));
        assert!(!again.after.is_after(&Position::Id(kept)), "{again:?}");
        println!("put back to {kept}: captured again after {}", again.after);
        // A crash in between forgets nothing of it.
        drop(outbox);
        let outbox = open(dir.path());
        assert_eq!(outbox.snapshot().stream(Stream::NodeState).elsewhere.again, Some(again));
        capture_again(&outbox, 0..4_050).await;
        drain(&outbox, &sink).await;
        assert_states_once(&sink, 0..4_050);
        let state = outbox.snapshot().stream(Stream::NodeState).clone();
        assert_eq!((state.pending(), state.parked_ever, state.elsewhere.again), (0, 0, None));
        assert!(outbox.snapshot().notes.last_trouble.unwrap().1.contains("put back"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_after_a_row_from_beyond_the_batch_is_no_older_image() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), receiver());
    outbox.append(states(0..700)).await.unwrap();
    // Nothing of the first request is taken: a record from behind it shows the receiver to be well.
    sink.with(|model| model.refuses = Some(|rows, row| rows.int(0, row).is_some_and(|id| id <= 100)));
    let dying = async {
        while sink.with(|model| model.delivered.iter().all(|(first, _)| *first < Seq(100))) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = drain(&outbox, &sink) => panic!("it dies before the end"),
        () = dying => {}
    }
    sink.with(|model| {
        assert_eq!(model.delivered.last(), Some(&(Seq(100), Seq(101))), "that record alone");
        assert_eq!((model.receiver.highest[&(1, Stream::NodeState)], model.receiver.cursor), (Seq(100), Seq(0)));
    });
    drop(outbox);
    let outbox = open(dir.path());
    drain(&outbox, &sink).await;
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).elsewhere.epoch, None);
    assert_states_once(&sink, 100..700);
    assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (100, 0));
}
