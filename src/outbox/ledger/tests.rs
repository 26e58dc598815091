use std::path::Path;

use super::*;
use crate::{
    domain::{Epoch, Freshness, Rows, SourceId},
    outbox::{Captured, OpenOptions, Outbox},
};

fn outbox(dir: &Path) -> Outbox {
    Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(1), epoch: Epoch(1) }).unwrap()
}

fn key(hour: i64) -> Position {
    Position::Key { time: Micros(Micros::of_hour(hour).0 + 1), rest: vec![1, 1] }
}

async fn add(outbox: &Outbox, watermark: i64, add: Tallies) {
    let rows = Rows::empty(Stream::Reading);
    let captured = Captured { rows, watermark: key(watermark), catalog: Vec::new(), freshness: Freshness::New, at: Micros(0) };
    outbox.record(captured, LedgerChange { add, ..LedgerChange::default() }).await.unwrap();
}

/// A tally that is its own for each slot.
fn tally(place: i64, node: i64) -> Tally {
    Tally { rows: 12, checksum: (place.unsigned_abs() << 20 ^ node.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn hours(places: std::ops::Range<i64>, nodes: i64) -> Tallies {
    places.flat_map(|place| (1..=nodes).map(move |node| (Slot { place, node }, tally(place, node)))).collect()
}

async fn all(outbox: &Outbox, side: Side) -> Vec<Entry> {
    outbox.ledger(side, Stream::Reading, i64::MIN, usize::MAX).await.unwrap()
}

fn sum(entries: &[Entry]) -> Tally {
    entries.iter().fold(Tally::default(), |sum, entry| sum.and(entry.tally))
}

#[tokio::test]
async fn old_hours_become_days_and_then_months_and_nothing_of_them_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let begin = 480_000 / MONTH * MONTH;
    // Two months, a gap of a year, and a month.
    for part in [begin..begin + 700, begin + 700..begin + 1_440, begin + 10_000..begin + 10_720] {
        add(&outbox, part.end, hours(part, 3)).await;
    }
    let expected = sum(&all(&outbox, Side::Behind).await);
    let target = Coarse { days_before: begin + 10_080, months_before: begin + MONTH };
    outbox.coarsen(Stream::Reading, target).await.unwrap();
    assert_eq!(outbox.snapshot().ledger(Stream::Reading).coarse, target);
    let entries = all(&outbox, Side::Behind).await;
    assert_eq!(sum(&entries), expected);
    let of_width = |unit| entries.iter().filter(|entry| entry.unit == unit).count();
    assert_eq!((of_width(720), of_width(24), of_width(1)), (3, 3 * (30 + 4), 3 * 640));
    // Rows that come late to an old hour are counted in its month or day.
    add(&outbox, begin + 10_720, hours(begin + 5..begin + 6, 1)).await;
    let month = all(&outbox, Side::Behind).await[0];
    assert_eq!((month.slot, month.tally.rows), (Slot { place: begin, node: 1 }, 721 * 12));
    // Back only where there is nothing.
    outbox.coarsen(Stream::Reading, Coarse { days_before: begin, months_before: begin }).await.unwrap();
    assert_eq!(outbox.snapshot().ledger(Stream::Reading).coarse, target);
}

#[tokio::test]
async fn a_watermark_that_goes_back_leaves_what_was_captured_known_ahead_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let begin = 480_000;
    add(&outbox, begin + 2_000, hours(begin..begin + 2_000, 3)).await;
    let expected = sum(&all(&outbox, Side::Behind).await);
    outbox.retreat(Stream::Reading, begin + 100).await.unwrap();
    let (behind, ahead) = (all(&outbox, Side::Behind).await, all(&outbox, Side::Ahead).await);
    assert_eq!((behind.len(), ahead.len()), (300, 5_700));
    assert_eq!(sum(&behind).and(sum(&ahead)), expected);
    let watermark = outbox.snapshot().stream(Stream::Reading).watermark.clone();
    assert_eq!(watermark.place(), Some(begin + 99));
    outbox.forget_ahead(Stream::Reading, begin + 1_000).await.unwrap();
    assert_eq!(all(&outbox, Side::Ahead).await.len(), 3_000);
}

#[tokio::test]
async fn a_day_that_is_known_ahead_stays_a_day_when_its_first_hour_comes_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let begin = 480_000 / MONTH * MONTH;
    add(&outbox, begin + 24, hours(begin..begin + 24, 1)).await;
    outbox.coarsen(Stream::Reading, Coarse { days_before: begin + 24, months_before: begin }).await.unwrap();
    outbox.retreat(Stream::Reading, begin).await.unwrap();
    assert_eq!(all(&outbox, Side::Ahead).await[0].unit, 24);
    // The clock was far behind for so long that its days are hours again.
    outbox.coarsen(Stream::Reading, Coarse { days_before: begin - 24, months_before: begin - MONTH }).await.unwrap();
    add(&outbox, begin, hours(begin..begin + 1, 1)).await;
    outbox.retreat(Stream::Reading, begin).await.unwrap();
    let ahead = all(&outbox, Side::Ahead).await;
    assert_eq!((ahead.len(), ahead[0].unit, ahead[0].tally.rows), (1, 24, 25 * 12));
}

#[tokio::test]
async fn fifty_nodes_of_ten_years_fit_into_a_few_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let now = 495_000;
    let coarse = Coarse::of(Micros::of_hour(now), 720);
    outbox.coarsen(Stream::Reading, coarse).await.unwrap();
    let nodes = 50;
    let ten_years = (now - 87_600..now).filter(|place| coarse.align(*place) == *place);
    let places: Vec<i64> = ten_years.collect();
    for some in places.chunks(100) {
        let tallies = some.iter().flat_map(|place| hours(*place..place + 1, nodes)).collect();
        add(&outbox, *some.last().unwrap(), tallies).await;
    }
    let entries = all(&outbox, Side::Behind).await.len();
    let file = outbox.save_ledger().await.unwrap();
    println!("{entries} entries, the copy takes {file} bytes, the store {}", outbox.disk_bytes());
    assert!((50_000..70_000).contains(&entries) && file < 1_500_000, "{entries} entries, {file} bytes");
}
