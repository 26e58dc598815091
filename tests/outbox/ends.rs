//! What the suites of the outbox have in common: one in a folder of its own, rows, and the counts that must hold.

use std::path::Path;

use packhorse::{
    domain::{Column, EntityKind, Epoch, Freshness, LocalId, LocalRef, Micros, Position, RemoteId, Rows, Seq, SourceId, Stream},
    outbox::{Captured, OpenOptions, Outbox, Reason, SetAside, StoreError},
};

pub const AT: Micros = Micros(1_700_000_000_000_000);

pub fn options(epoch: u64) -> OpenOptions {
    OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(epoch) }
}

pub fn open(path: &Path, epoch: u64) -> Result<Outbox, StoreError> {
    Outbox::open(path, &options(epoch))
}

pub fn is_long() -> bool {
    std::env::var_os("PACKHORSE_LONG").is_some()
}

/// A number for each number, with nothing to compress in it.
fn scrambled(number: i64) -> u64 {
    let mixed = (number as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Readings, each a second after the one before, of 40 nodes; value and location say which they are.
pub fn readings(numbers: std::ops::Range<i64>) -> Rows {
    let int = |value: &dyn Fn(i64) -> i64| Column::Int(numbers.clone().map(|number| Some(value(number))).collect());
    let value = |number: i64| Some(f64::from_bits(scrambled(number) >> 2));
    Rows::new(
        Stream::Reading,
        vec![
            int(&|number| number * 1_000_000),
            int(&|number| number % 40),
            int(&|number| number % 7),
            int(&|number| number % 11),
            Column::Double(numbers.clone().map(value).collect()),
        ],
    )
}

/// Readings with the watermark after them.
pub fn captured(numbers: std::ops::Range<i64>) -> Captured {
    let watermark = Position::Key { time: Micros((numbers.end - 1) * 1_000_000), rest: vec![i64::MAX; 2] };
    Captured { rows: readings(numbers), watermark, catalog: Vec::new(), freshness: Freshness::New, at: AT }
}

pub fn node(id: i64) -> LocalRef {
    LocalRef { kind: EntityKind::Node, id: LocalId(id) }
}

/// Leases at the cursor and acks all of it but what is set aside; gives the rows.
pub async fn settle(outbox: &Outbox, rows_max: usize, aside: Vec<(Reason, Vec<usize>)>) -> Option<Rows> {
    let cursor = outbox.snapshot().stream(Stream::Reading).cursor;
    let batch = outbox.lease(Stream::Reading, cursor, rows_max).await.unwrap()?;
    let rows = batch.rows.clone();
    let aside = aside.into_iter().map(|(reason, rows)| SetAside { reason, rows }).collect();
    outbox.settle(batch, aside, None, AT).await.unwrap();
    Some(rows)
}

/// Everything that is there to be read: pending rows of a stream, in order.
pub async fn pending(outbox: &Outbox, stream: Stream) -> Result<Rows, StoreError> {
    let state = outbox.snapshot().stream(stream).clone();
    let (mut rows, mut from) = (Rows::empty(stream), state.cursor);
    while let Some(batch) = outbox.lease(stream, from, 50_000).await? {
        from = batch.end();
        rows.extend(batch.rows);
    }
    assert_eq!(from, state.next.max(state.cursor), "I3");
    Ok(rows)
}

pub async fn map(outbox: &Outbox, id: i64) {
    outbox.map(vec![(node(id), Some(RemoteId(id * 10)))]).await.unwrap();
}

/// I5, for each stream.
pub fn assert_balanced(outbox: &Outbox) {
    for stream in Stream::ALL {
        let state = outbox.snapshot().stream(stream).clone();
        assert_eq!(state.next, Seq(state.pending() + state.acked + state.parked_ever), "I5: {state:?}");
    }
}
