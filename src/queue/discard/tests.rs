use std::{
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

use super::*;
use crate::{
    domain::{Column, Epoch, Freshness, Micros, Position, Rows, SourceId, Stream},
    outbox::{Captured, OpenOptions, Reason, SetAside},
    queue::{Beside, act},
};

/// More than a page of them, and each with more than one commit may take.
const CHUNKS: i64 = 40;
const ROWS: i64 = 20 * CHUNKS;
const NOBODY: Surroundings<'_> = Surroundings { beside: &Beside::Nobody, now: Micros(7), disk_reserve_bytes: 0 };

fn open(dir: &Path) -> Outbox {
    Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(77) }).unwrap()
}

/// Parks all that waits, of each twenty rows one chunk.
async fn park(outbox: &Outbox, reason: impl Fn(i64) -> String) {
    let from = outbox.snapshot().stream(Stream::Reading).cursor;
    while let Some(batch) = outbox.lease(Stream::Reading, outbox.snapshot().stream(Stream::Reading).cursor, 20).await.unwrap() {
        let reason = Reason::Refused(reason((batch.first.0 - from.0) as i64 / 20));
        let aside = vec![SetAside { reason, rows: (0..batch.rows.len()).collect() }];
        outbox.settle(batch, aside, None, Micros(0)).await.unwrap();
    }
}

async fn filled(dir: &Path) -> Outbox {
    let outbox = open(dir);
    let numbers = |by: i64| Column::Int((0..ROWS).map(|number| Some(number * by)).collect());
    let values = Column::Float((0..ROWS).map(|number| Some(number as f32)).collect());
    let rows = Rows::new(Stream::Reading, vec![numbers(1_000_000), numbers(1), numbers(0), numbers(0), values]);
    let watermark = Position::Key { time: Micros(ROWS * 1_000_000), rest: vec![0, 0] };
    let captured = Captured { rows, watermark, catalog: Vec::new(), freshness: Freshness::New, at: Micros(0) };
    outbox.append(captured).await.unwrap();
    park(&outbox, |chunk| format!("refused {chunk:02}")).await;
    assert_eq!((outbox.snapshot().parked(), outbox.snapshot().pending()), (ROWS as u64, 0));
    outbox
}

/// What is told at the end, and the time that was rested: the clock stands still while there is work.
async fn told(work: impl AsyncFnOnce(&Answers) -> Result<(), QueueError>) -> (Result<Told, String>, Duration) {
    let began = Instant::now();
    let (answers, mut from) = Answers::channel();
    let work = async move { work(&answers).await };
    let read = async move {
        let mut last = None;
        while let Some(answer) = from.recv().await {
            if let Answer::Told(told) = answer {
                last = Some(told);
            }
        }
        last
    };
    let (done, told) = tokio::join!(work, read);
    (done.map(|()| told.unwrap()).map_err(|error| error.to_string()), began.elapsed())
}

fn exports(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("discarded")).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The node of each row in whole files.
fn exported(dir: &Path) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for path in exports(dir) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(path.extension().is_some_and(|end| end == "jsonl") && text.ends_with('\n'), "{} is not whole", path.display());
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(found.insert(line["nodeId"].as_i64().unwrap()), "twice: {line}");
        }
    }
    found
}

async fn parked(outbox: &Outbox) -> BTreeSet<i64> {
    let (chunks, next) = outbox.parked_rows(ParkedPlace::new(), 10_000).await.unwrap();
    assert!(next.is_none());
    let nodes = |chunk: &ParkedRows| (0..chunk.rows.len()).map(|row| chunk.rows.int(1, row).unwrap()).collect::<Vec<_>>();
    chunks.iter().flat_map(nodes).collect()
}

#[tokio::test(start_paused = true)]
async fn discard_and_retry_rest_between_their_steps_beside_the_loops_and_never_beside_nobody() {
    let all = Filter::default();
    let loops = Beside::Loops(Arc::default());
    for (around, rests) in [(Surroundings { beside: &loops, ..NOBODY }, 1), (NOBODY, 0)] {
        for run in [Run::Dry, Run::Real] {
            // Pages; and where something is changed, commits too.
            let steps =
                CHUNKS as u64 / PAGE_CHUNKS as u64 + if run == Run::Real { CHUNKS as u64 / STEP_CHUNKS as u64 } else { 0 };
            let at_least = Duration::from_millis(steps * rests);
            let dir = tempfile::tempdir().unwrap();
            let outbox = filled(dir.path()).await;
            let (done, rested) = told(async |answers| act::retry(&outbox, &all, run, around, answers).await).await;
            assert_eq!(done.unwrap().rows, ROWS as u64, "{run:?}");
            assert!(rested >= at_least && (rests > 0 || rested.is_zero()), "retry, {around:?}, {run:?}: {rested:?}");
            if run == Run::Real {
                park(&outbox, |_| "refused again".into()).await;
            }
            let (done, rested) = told(async |answers| discard(&outbox, &all, run, around, answers).await).await;
            assert_eq!(done.unwrap().rows, ROWS as u64, "{run:?}");
            assert!(rested >= at_least && (rests > 0 || rested.is_zero()), "discard, {around:?}, {run:?}: {rested:?}");
        }
    }
}

#[tokio::test]
async fn rows_that_a_retry_brought_back_and_that_are_parked_anew_wait_for_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = filled(dir.path()).await;
    let (answers, mut from) = Answers::channel();
    let all = Filter::default();
    let work = async {
        let done = act::retry(&outbox, &all, Run::Real, NOBODY, &answers).await;
        drop(answers);
        done.unwrap();
    };
    let refuse_again = async {
        let mut rows = 0;
        while let Some(answer) = from.recv().await {
            // Behind all that are parked by now, so that the walk comes past them.
            park(&outbox, |chunk| format!("refused with zeal {chunk:02}")).await;
            if let Answer::Told(told) = answer {
                rows = told.rows;
            }
        }
        rows
    };
    let ((), rows) = tokio::join!(work, refuse_again);
    assert_eq!(rows, ROWS as u64);
    assert_eq!(outbox.snapshot().parked() + outbox.snapshot().pending(), ROWS as u64);
}

#[tokio::test]
async fn an_export_that_would_use_up_the_reserve_is_given_up_with_nothing_discarded_and_nothing_left() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = filled(dir.path()).await;
    let all = Filter::default();
    let around = Surroundings { disk_reserve_bytes: u64::MAX, ..NOBODY };
    let (done, _) = told(async |answers| discard(&outbox, &all, Run::Real, around, answers).await).await;
    let why = done.unwrap_err();
    assert!(why.contains("less than disk_reserve free, so nothing was discarded"), "{why}");
    assert_eq!((exports(dir.path()), parked(&outbox).await.len()), (Vec::new(), ROWS as usize));
}

#[tokio::test]
async fn what_is_exported_is_what_is_meant_and_the_name_says_that_all_of_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = filled(dir.path()).await;
    let some = Filter { since: Some(Micros(0)), before: Some(Micros(30 * 1_000_000)), ..Filter::default() };
    let (done, _) = told(async |answers| discard(&outbox, &some, Run::Real, NOBODY, answers).await).await;
    assert_eq!(done.unwrap().rows, 30);
    let name = "1970-01-01T000000-000007.jsonl";
    assert_eq!(exports(dir.path()), [dir.path().join("discarded").join(name)]);
    assert_eq!(exported(dir.path()), (0..30).collect());
    assert_eq!(parked(&outbox).await, (30..ROWS).collect());
    assert_eq!(outbox.check_parked().await.unwrap(), Vec::<String>::new());
    let (done, _) = told(async |answers| discard(&outbox, &some, Run::Real, NOBODY, answers).await).await;
    assert_eq!(done.unwrap().text, "no parked row is meant by this");
    assert_eq!(exports(dir.path()).len(), 1);
}

/// Rows that return between the export and the drop are in the file and not dropped: its name says so.
#[tokio::test]
async fn a_chunk_that_changes_after_it_was_exported_stays_and_the_name_says_that_not_all_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = filled(dir.path()).await;
    let (answers, mut from) = Answers::channel();
    let read = async { while from.recv().await.is_some() {} };
    let work = async {
        let whole = export(&outbox, &Filter::default(), NOBODY, &answers).await.unwrap().unwrap();
        let one = Filter { reason: Some("refused 39".into()), ..Filter::default() };
        let (done, _) = told(async |answers| act::retry(&outbox, &one, Run::Real, NOBODY, answers).await).await;
        assert_eq!(done.unwrap().rows, 20);
        let (whole, taken) = take(&outbox, whole, NOBODY.beside, &answers).await.unwrap();
        drop(answers);
        (whole.ended(taken), taken)
    };
    let ((path, taken), ()) = tokio::join!(work, read);
    assert_eq!((taken, outbox.snapshot().pending(), outbox.snapshot().parked()), (ROWS as u64 - 20, 20, 0));
    assert_eq!(exports(dir.path()), [path]);
    assert!(exports(dir.path())[0].ends_with("1970-01-01T000000-000007.partly.jsonl"), "{:?}", exports(dir.path()));
    assert_eq!(exported(dir.path()).len(), ROWS as usize);
}

/// Polls a future so many times at most, and drops it then; whether it came to its end.
async fn cut_off<T>(work: impl Future<Output = T>, polls: usize) -> bool {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(move |context| match work.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Whoever hangs up, a reload and a stop drop what was begun, wherever it stands.
#[test]
fn wherever_a_discard_is_cut_off_each_row_is_parked_or_in_a_whole_file() {
    let mut cuts = [0; 2];
    for polls in 0.. {
        let dir = tempfile::tempdir().unwrap();
        // Each ends only when all that runs off its threads has.
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime().block_on(async {
            let outbox = filled(dir.path()).await;
            let all = Filter::default();
            let (answers, mut from) = Answers::channel();
            let read = async { while from.recv().await.is_some() {} };
            tokio::select! {
                ended = cut_off(discard(&outbox, &all, Run::Real, NOBODY, &answers), polls) => ended,
                () = read => unreachable!("the answers are still there"),
            }
        });
        runtime().block_on(async {
            let outbox = open(dir.path());
            let (left, exported) = (parked(&outbox).await, exported(dir.path()));
            assert_eq!(left.union(&exported).copied().collect::<BTreeSet<_>>(), (0..ROWS).collect(), "cut off at poll {polls}");
            if left.len() < ROWS as usize {
                assert_eq!(exported.len(), ROWS as usize, "cut off at poll {polls}");
                cuts[usize::from(left.is_empty())] += 1;
            }
            assert_eq!(outbox.check_parked().await.unwrap(), Vec::<String>::new());
        });
        if ended {
            break;
        }
    }
    assert!(cuts[0] > 0, "never cut off while rows were dropped");
}
