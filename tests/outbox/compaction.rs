//! The files shrink with what they hold.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use packhorse::{
    domain::Stream,
    outbox::{CreateIntent, Reason},
};

use crate::ends::{AT, assert_balanced, captured, is_long, map, node, open, pending, settle};

fn bytes_of(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let size = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { bytes_of(&entry.path()) } else { meta.len() }
    };
    entries.map(size).sum()
}

#[tokio::test]
async fn the_files_take_8_mb_at_most_after_a_drain() {
    let (dir, readings) = (tempfile::tempdir().unwrap(), if is_long() { 1_000_000 } else { 600_000 });
    let outbox = open(dir.path(), 1).unwrap();
    for page in (0..readings).step_by(10_000) {
        outbox.append(captured(page..page + 10_000)).await.unwrap();
    }
    let full = bytes_of(dir.path());
    assert!(full > 8_000_000, "there is something to make smaller: {full} bytes");
    while settle(&outbox, 200_000, Vec::new()).await.is_some() {}
    let drained = bytes_of(dir.path());
    println!("{readings} readings: {full} bytes full, {drained} drained");
    assert!(drained <= 8_000_000, "{drained} bytes");
    let before = outbox.snapshot();
    assert_balanced(&outbox);
    drop(outbox);
    let after = open(dir.path(), 2).unwrap().snapshot();
    assert_eq!((after.meta, after.streams), (before.meta, before.streams));
}

#[tokio::test]
async fn compaction_keeps_all_that_is_live_and_the_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), 1).unwrap();
    outbox.append(captured(0..60_000)).await.unwrap();
    let aside = vec![(Reason::Held(node(3)), vec![5, 7]), (Reason::Refused("no".into()), vec![9])];
    settle(&outbox, 40_000, aside).await.unwrap();
    map(&outbox, 8).await;
    outbox.intend_create(Some(CreateIntent { what: node(4), patience_ms: 7_000 })).await.unwrap();
    outbox.note_trouble(AT, "away".into()).await.unwrap();
    let (before, rows, parked) =
        (outbox.snapshot(), pending(&outbox, Stream::Reading).await.unwrap(), outbox.parked(10).await.unwrap());
    let compacted = outbox.compact(|_, _| {}).await.unwrap();
    assert!(compacted.bytes_after < 2 * compacted.bytes_before, "{compacted:?}");
    // The same handle goes on, and so does the next one.
    let after = outbox.snapshot();
    assert_eq!((&after.meta, &after.streams), (&before.meta, &before.streams));
    assert_eq!(pending(&outbox, Stream::Reading).await.unwrap(), rows);
    drop(outbox);
    let outbox = open(dir.path(), 2).unwrap();
    let after = outbox.snapshot();
    assert_eq!((&after.meta, &after.streams), (&before.meta, &before.streams));
    assert_eq!((&after.mappings, &after.held, after.create_intent), (&before.mappings, &before.held, before.create_intent));
    assert_eq!(after.notes, before.notes);
    assert_eq!(pending(&outbox, Stream::Reading).await.unwrap(), rows);
    assert_eq!(outbox.parked(10).await.unwrap(), parked);
    outbox.append(captured(60_000..60_010)).await.unwrap();
    assert_eq!(pending(&outbox, Stream::Reading).await.unwrap().len(), 20_010);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "gen-000001" || name == "aside"), "the old store is gone: {names:?}");
}

#[tokio::test]
async fn readers_and_writers_go_on_through_compactions() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), 1).unwrap();
    let compacting = {
        let outbox = outbox.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                outbox.compact(|_, _| {}).await.unwrap();
            }
        })
    };
    let mut sent = 0;
    for page in 0..60 {
        outbox.append(captured(page * 500..(page + 1) * 500)).await.unwrap();
        if page % 3 == 2 {
            sent += settle(&outbox, 900, Vec::new()).await.unwrap().len();
        }
    }
    compacting.await.unwrap();
    assert_eq!(pending(&outbox, Stream::Reading).await.unwrap(), crate::ends::readings(sent as i64..30_000));
    assert_balanced(&outbox);
}

#[tokio::test]
async fn a_compaction_tells_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), 1).unwrap();
    for page in 0..12 {
        outbox.append(captured(page * 20_000..(page + 1) * 20_000)).await.unwrap();
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    outbox.compact(move |copied, all| teller.lock().unwrap().push((copied, all))).await.unwrap();
    let told = told.lock().unwrap();
    assert!(told.len() > 2, "{told:?}");
    assert!(told.is_sorted_by(|before, after| before.0 < after.0 && before.1 == after.1), "{told:?}");
    let (copied, all) = *told.last().unwrap();
    assert!(copied == all && all > 512 << 10, "nobody has written meanwhile: {told:?}");
}
