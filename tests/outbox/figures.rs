//! Figures of the outbox, printed and not judged: `cargo test --test outbox figures -- --ignored --nocapture`.
//!
//! `PACKHORSE_PENDING` sets how many readings wait.

use std::time::Instant;

use packhorse::domain::Stream;

use crate::ends::{captured, open, settle};

/// Bytes that this process has handed over to be written. (`write_bytes` counts whole folios, which may be much larger than what is written.)
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
#[ignore = "figures, to be run alone"]
async fn figures_of_bytes_written_and_of_opening() {
    let readings: i64 = std::env::var("PACKHORSE_PENDING").map_or(10_000_000, |readings| readings.parse().unwrap());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let outbox = open(dir.path(), 1).unwrap();
    let (began, before) = (Instant::now(), written());
    for page in (0..readings).step_by(10_000) {
        outbox.append(captured(page..page + 10_000)).await.unwrap();
    }
    let appended = written() - before;
    let (live, files) = (outbox.snapshot().live_bytes(), outbox.disk_bytes());
    let per = |bytes: u64| bytes as f64 / readings as f64;
    println!("{readings} readings appended, 10,000 a commit, in {:.1?}", began.elapsed());
    println!("bytes a reading: {:.2} encoded, {:.2} in files, {:.2} written to the disk", per(live), per(files), per(appended));
    drop(outbox);
    {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let outbox = open(dir.path(), 1).unwrap();
        for rows in [10, 100, 1_000] {
            let before = written();
            for page in 0..200 {
                outbox.append(captured(page * rows..(page + 1) * rows)).await.unwrap();
            }
            let bytes = (written() - before) as f64 / 200.0;
            println!("a commit of {rows} readings: {bytes:.0} bytes written, {:.1} a reading", bytes / rows as f64);
        }
    }
    for again in 0..3 {
        let began = Instant::now();
        let outbox = open(dir.path(), 2).unwrap();
        let opened = began.elapsed();
        assert_eq!(outbox.snapshot().stream(Stream::Reading).pending() as i64, readings);
        let began = Instant::now();
        drop(outbox);
        println!("opening {again} with {readings} waiting: {opened:.1?}; closing {:.1?}", began.elapsed());
    }
    let outbox = open(dir.path(), 3).unwrap();
    let (began, before) = (Instant::now(), written());
    while settle(&outbox, 10_000, Vec::new()).await.is_some() {}
    println!("acked, 10,000 a commit, in {:.1?}; {:.2} bytes written a reading", began.elapsed(), per(written() - before));
    println!("files afterwards: {} bytes", outbox.disk_bytes());
    // What a compaction costs that has as much to copy as one may while there is room.
    for page in (0..).step_by(10_000) {
        if outbox.snapshot().live_bytes() > 4 << 20 {
            break;
        }
        outbox.append(captured(page..page + 10_000)).await.unwrap();
    }
    for _ in 0..5 {
        let (began, before) = (Instant::now(), written());
        outbox.compact(|_, _| {}).await.unwrap();
        println!(
            "a compaction with {} encoded bytes: writers wait {:.0?}, {} bytes written",
            outbox.snapshot().live_bytes(),
            began.elapsed(),
            written() - before
        );
    }
}
